package main

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/image/draw"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/models/run"
)

//go:embed demo.html
var demoTemplate string

// demoPage is what the page shows. Points are pictures, in rows of Image.Size()
// values.
type demoPage struct {
	Folder           string
	From, To         int
	Sources, Targets int // digits of either class
	Image            dataset.Shape
	Config           run.Config
	Result           *run.Result
	Device           string
	Explained        float64 // part of the variance that the principal components hold
	Times            []float64
	Paths            []float64 // (demoPaths, len(Times))
	Starts, Ends     []float64 // (demoDigits)
	Nearest          []float64 // (demoDigits) digits of the target's training set, nearest to Ends
	// Mean distances between principal components: of an end from the nearest
	// digit of the training set, and of such a digit from the nearest other.
	EndApart, DigitApart float64
	Curve                plot.Curves
	Certificate          []demoRow
	Health               string // what may be wrong with it
	Metrics              []demoMetric
	Smalls               []demoSmall // by ε, then β
	Seconds              float64
	Attribution          string

	training template.URL // the picture of Curve
}

// demoRow is a line of a table of the report.
type demoRow struct{ Name, Value, Note string }

// page draws from the bridge and measures what was drawn.
func (c *demo) page(s *session, b *demoBridge) (*demoPage, error) {
	target, err := b.Target().Load()
	if err != nil {
		return nil, err
	}
	rows, _ := b.Source().Finite()
	starts, err := b.Starts(rows, s.seed)
	if err != nil {
		return nil, err
	}
	before, err0 := b.Encode(starts.X)
	known, err1 := b.Encode(target.X)
	if err := errors.Join(err0, err1); err != nil {
		return nil, err
	}
	p := &demoPage{
		Folder: c.out, From: c.from, To: c.to, Sources: rows, Targets: target.N, Image: starts.Image,
		Config: b.Config, Result: b.result, Device: fmt.Sprintf("%s, %d workers", s.dev.Name(), s.dev.Properties().Workers), Explained: b.PCA.Explained(), Times: evenTimes(demoTimes),
		Curve: dualCurve(b), Certificate: certificateRows(b), Health: health(b), Attribution: dataset.DigitsAttribution,
	}
	paths, err := b.Walk(s.ctx, before, p.Times, s.seed)
	if err != nil {
		return nil, err
	}
	d := b.Dim()
	var after []float64
	for i := range rows {
		after = append(after, paths[((i+1)*demoTimes-1)*d:(i+1)*demoTimes*d]...)
	}
	var ends, walks []float64
	at := neighbours(after, known, d, false)
	for k, i := range spread(rows, demoDigits) {
		ends = append(ends, after[i*d:(i+1)*d]...)
		p.Starts = append(p.Starts, starts.Row(i)...)
		p.Nearest = append(p.Nearest, target.Row(at[i].row)...)
		if k < demoPaths {
			walks = append(walks, paths[i*demoTimes*d:(i+1)*demoTimes*d]...)
		}
	}
	p.Ends, err0 = b.Decode(ends)
	p.Paths, err1 = b.Decode(walks)
	if err := errors.Join(err0, err1); err != nil {
		return nil, err
	}
	p.EndApart, p.DigitApart = meanDistance(at), meanDistance(neighbours(known, known, d, true))
	p.Metrics, err = c.measure(s, before, after, known, d)
	return p, err
}

// neighbour is a row, and how far it is.
type neighbour struct {
	row      int
	distance float64
}

// neighbours finds, for every row of x, the nearest row of y; if they are the
// same rows, the nearest other one.
func neighbours(x, y []float64, d int, same bool) []neighbour {
	out := make([]neighbour, len(x)/d)
	for i := range out {
		best := neighbour{0, math.Inf(1)}
		for j := range len(y) / d {
			sum := 0.0
			for k := range d {
				t := x[i*d+k] - y[j*d+k]
				sum += t * t
			}
			if sum < best.distance && !(same && i == j) {
				best = neighbour{j, sum}
			}
		}
		out[i] = neighbour{best.row, math.Sqrt(best.distance)}
	}
	return out
}

func meanDistance(list []neighbour) float64 {
	sum := 0.0
	for _, n := range list {
		sum += n.distance
	}
	return sum / float64(len(list))
}

// dualCurve is what training climbs: the dual of every logged minibatch, in the
// units of the data, as the certificate has it.
func dualCurve(b *demoBridge) plot.Curves {
	frame := b.Frame()
	curve := plot.Series{Label: "dual of a minibatch"}
	for _, r := range b.records {
		for _, m := range r.Metrics {
			if m.Name == "loss" {
				curve.X = append(curve.X, float64(r.Step))
				curve.Y = append(curve.Y, frame.Shift2()/2-frame.Scale*frame.Scale*m.Value)
			}
		}
	}
	return plot.Curves{
		XLabel: "training step", YLabel: "half the cost, ½J", Series: []plot.Series{curve},
		Levels: []plot.Level{
			{Label: "dual of all digits, at the end", Y: b.found("dual")},
			{Label: "primal, at the end", Y: b.found("primal")},
		},
	}
}

func certificateRows(b *demoBridge) []demoRow {
	with := func(value, e float64) string { return fmt.Sprintf("%.4f ± %.4f", value, e) }
	gap, most := b.found("gap"), b.gapError()
	note := "primal − dual, with the sum of both errors: zero within it, so that no better bridge can be told from this one"
	if !(math.Abs(gap) <= 2*most) {
		note = "primal − dual, with the sum of both errors: more than those explain, so that training could go on"
	}
	return []demoRow{
		{"dual", with(b.found("dual"), b.found("dual_error")), "no bridge between the two classes costs less"},
		{"primal", with(b.found("primal"), b.found("primal_error")), "what this bridge costs: an upper bound as far as its ends are spread like the target"},
		{"gap", with(gap, most), note},
	}
}

// health says in words what else the certificate found.
func health(b *demoBridge) string {
	dead, bad := b.found("dead_components"), b.found("unconverged")
	if dead == 0 && bad == 0 {
		return "The transport map was inverted at every digit, and all components are in use."
	}
	return fmt.Sprintf("The transport map was not inverted to tolerance at %.0f digits, and %.0f of %d components are not in use.", bad, dead, b.Config.Light.Components)
}

// write fills the files of the report.
func (p *demoPage) write(out *outputs) error {
	const side = pictureSide
	row := func(label string, x []float64) plot.Row { return plot.Row{Label: label, X: enlarged(x, p.Image)} }
	for _, f := range []struct {
		name string
		fig  plot.Figure
	}{
		{"paths.png", plot.Strip("Paths of the bridge", enlarged(p.Paths, p.Image), demoPaths, p.Times, side, side, 1)},
		{"ends.png", plot.Grid{Title: "Before and after", H: side, W: side, C: 1, Rows: []plot.Row{
			row("start", p.Starts), row("end", p.Ends), row("nearest real digit", p.Nearest),
		}}},
		{"training.png", p.Curve},
	} {
		var data bytes.Buffer
		if err := plot.Encode(&data, f.fig, plot.PNG); err != nil {
			return err
		}
		if f.name == "training.png" {
			p.training = dataURL(data.Bytes())
		}
		if err := out.write(f.name, func(w io.Writer) error { _, err := w.Write(data.Bytes()); return err }); err != nil {
			return err
		}
	}
	return out.write("report.html", p.render)
}

func (p *demoPage) render(w io.Writer) error {
	t, err := template.New("demo").Funcs(template.FuncMap{
		"fixed": func(digits int, x float64) string {
			return strings.Replace(strconv.FormatFloat(x, 'f', digits, 64), "-", "−", 1)
		},
		"short":   func(x number) string { return fmt.Sprintf("%.3f", float64(x)) },
		"percent": func(x float64) string { return fmt.Sprintf("%.0f %%", 100*x) },
		"number": func(x float64) string {
			if math.IsInf(x, 1) {
				return "∞"
			}
			return fmt.Sprint(x)
		},
	}).Parse(demoTemplate)
	if err != nil {
		return err
	}
	return t.Execute(w, p)
}

// Training is the picture of the curve.
func (p *demoPage) Training() template.URL { return p.training }

// Pictures are those of x, one after another.
func (p *demoPage) Pictures(x []float64) ([]template.URL, error) {
	var list []template.URL
	for size := p.Image.Size(); len(x) > 0; x = x[size:] {
		u, err := picture(x[:size], p.Image)
		if err != nil {
			return nil, err
		}
		list = append(list, u)
	}
	return list, nil
}

// Strips are the pictures of every path.
func (p *demoPage) Strips() ([][]template.URL, error) {
	var strips [][]template.URL
	for x, size := p.Paths, len(p.Times)*p.Image.Size(); len(x) > 0; x = x[size:] {
		strip, err := p.Pictures(x[:size])
		if err != nil {
			return nil, err
		}
		strips = append(strips, strip)
	}
	return strips, nil
}

// Run is the folder of the run.
func (p *demoPage) Run() string { return filepath.Join(p.Folder, "run") }

// FewStarts are the starts of the small bridges.
func (p *demoPage) FewStarts() ([]template.URL, error) {
	return p.Pictures(p.Starts[:demoFew*p.Image.Size()])
}

// Shown, Narrow, Few and Columns are how many pictures and small bridges are in
// a row.
func (p *demoPage) Shown() int   { return demoDigits }
func (p *demoPage) Narrow() int  { return demoDigits / 2 }
func (p *demoPage) Few() int     { return demoFew }
func (p *demoPage) Columns() int { return len(demoBetas) }

// SmallSteps is how long the small bridges were trained.
func (p *demoPage) SmallSteps() int { return smallSteps(p.Config.Train.Steps) }

// Same reports whether a small bridge has the settings of the large one.
func (p *demoPage) Same(small demoSmall) bool {
	return small.Beta == demoBeta && small.Epsilon == demoEpsilon
}

// JSON is what the trainer says.
func (p *demoPage) JSON() (string, error) {
	b, err := json.MarshalIndent(p.Result, "", "  ")
	return string(b), err
}

// pictureSide is that of a picture of a digit. Digits of 8 x 8 pixels are
// hardly read as squares, and well if the values between are interpolated.
const pictureSide = 60

// enlarge draws a grey image, 0 black and 1 white; what is beyond is clipped.
func enlarge(x []float64, im dataset.Shape) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, im.W, im.H))
	for i, v := range x {
		m.SetGray(i%im.W, i/im.W, color.Gray{Y: uint8(255*min(max(v, 0), 1) + 0.5)})
	}
	large := image.NewGray(image.Rect(0, 0, pictureSide, pictureSide))
	draw.CatmullRom.Scale(large, large.Bounds(), m, m.Bounds(), draw.Src, nil)
	return large
}

// enlarged are the pictures of x, as those of package plot.
func enlarged(x []float64, im dataset.Shape) []float64 {
	var out []float64
	for size := im.Size(); len(x) > 0; x = x[size:] {
		for _, v := range enlarge(x[:size], im).Pix {
			out = append(out, float64(v)/255)
		}
	}
	return out
}

func picture(x []float64, im dataset.Shape) (template.URL, error) {
	var data bytes.Buffer
	err := png.Encode(&data, enlarge(x, im))
	return dataURL(data.Bytes()), err
}

func dataURL(png []byte) template.URL {
	return template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(png))
}
