package plot

import (
	"fmt"
	"io"
	"math"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Cloud is a set of n points.
type Cloud struct {
	Label string
	D     int
	X     []float64 // (n, D), row-major
}

func (c Cloud) check(what string, d int) error {
	if c.D != d {
		return invalid("%s: dimension %d, want %d as the others", what, c.D, d)
	}
	return checkRows(what, c.X, d)
}

// Scatter shows clouds, and what joins them. Points of more than two
// dimensions are projected to the first two principal components of all
// clouds; those of one dimension are spread a little, cloud over cloud.
type Scatter struct {
	Title          string
	XLabel, YLabel string // "" : chosen
	Clouds         []Cloud
	// Line i goes from row i of From to row i of To, both of the clouds'
	// dimension: source points and their images under a map, or sampled pairs.
	From, To []float64
	Arrows   bool // lines have heads
}

func (s Scatter) encode(w io.Writer, format Format) error {
	if len(s.Clouds) == 0 {
		return invalid("scatter: no cloud, want at least one")
	}
	d := s.Clouds[0].D
	var arrays [][]float64
	for i, c := range s.Clouds {
		if err := c.check(fmt.Sprintf("cloud %d", i), d); err != nil {
			return err
		}
		arrays = append(arrays, c.X)
	}
	if err := checkRows("lines, from", s.From, d); err != nil {
		return err
	}
	if err := checkRows("lines, to", s.To, d); err != nil {
		return err
	}
	if len(s.From) != len(s.To) {
		return invalid("lines: %d starts and %d ends, want as many", len(s.From)/d, len(s.To)/d)
	}

	pl := newPlane(d, arrays...)
	f := planeFrame(s.Title, pl, s.XLabel, s.YLabel)
	var lines strokes
	if len(s.From) > 0 {
		from, to := pl.all(s.From), pl.all(s.To)
		lift(d, from, 0)
		lift(d, to, len(s.Clouds)-1)
		for i := range from {
			lines.lines = append(lines.lines, []point{from[i], to[i]})
			f.cover(from[i], to[i])
		}
	}
	// Plain lines lie under the points, which they would hide; arrows above,
	// so that their heads show.
	if !s.Arrows {
		lines.style = draw.LineStyle{Color: translucent(grey, 0.35), Width: hairline}
		f.layers = append(f.layers, lines)
	}
	for i, c := range s.Clouds {
		f.addCloud(pl, c, i, entry{c.Label, dot, seriesColor(i), nil})
	}
	if s.Arrows {
		lines.style = draw.LineStyle{Color: translucent(ink, 0.7), Width: hairline}
		lines.heads = true
		f.layers = append(f.layers, lines)
	}
	return f.finish(w, format)
}

// planeFrame begins a figure in the plane.
func planeFrame(title string, pl plane, xLabel, yLabel string) *frame {
	f := &frame{title: title, width: 5.2 * vg.Inch, height: 5.4 * vg.Inch, equal: pl.d > 1}
	f.x, f.y = newAxis(pl.labels[0]), newAxis(pl.labels[1])
	if xLabel != "" {
		f.x.label = xLabel
	}
	if yLabel != "" {
		f.y.label = yLabel
	}
	return f
}

func (f *frame) cover(points ...point) {
	for _, p := range points {
		f.x.span(p.x)
		f.y.span(p.y)
	}
}

func (f *frame) finish(w io.Writer, format Format) error {
	f.x.pad(0.04)
	f.y.pad(0.04)
	return f.encode(w, format)
}

// addCloud draws cloud number i of a figure, in the colour of its entry.
func (f *frame) addCloud(pl plane, c Cloud, i int, e entry) {
	points := pl.all(c.X)
	lift(pl.d, points, i)
	if pl.d == 1 {
		f.height = 2.6 * vg.Inch
		f.y.ticks = nameTicks(nil)
	}
	f.cover(points...)
	// Smaller and fainter where there are many.
	crowd := math.Log10(float64(len(points)) + 1)
	radius := vg.Length(min(max(3.4-0.6*crowd, 0.9), 2.4))
	alpha := min(max(1.15-0.17*crowd, 0.4), 0.9)
	f.layers = append(f.layers, dots{points, radius, translucent(e.color, alpha)})
	if e.label != "" {
		f.legend = append(f.legend, e)
	}
}

// lift spreads the points of a one-dimensional cloud over the height
// [i, i+0.6] by the golden ratio sequence, which fills it evenly.
func lift(d int, points []point, i int) {
	if d != 1 {
		return
	}
	for k := range points {
		_, part := math.Modf(float64(k) * math.Phi)
		points[k].y = float64(i) + 0.6*part
	}
}
