package main

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/metrics"
	"github.com/fortet/fortet/solver/sinkhorn"
)

var demoCommand = command{
	name:    "demo",
	does:    "Solve a bridge between two classes of handwritten digits and leave a report with pictures",
	usage:   "fortet demo [--out DIR] [--from 3 --to 8]",
	example: "fortet demo --out demo",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &demo{}
		f.StringVar(&c.out, "out", "demo", "folder for report.html and the pictures")
		f.IntVar(&c.from, "from", 3, "digit to start from")
		f.IntVar(&c.to, "to", 8, "digit to arrive at")
		return c.do
	},
}

type demo struct {
	out      string
	from, to int
}

//go:embed demo.html
var demoPage string

// demoPicture is a picture of the report.
type demoPicture struct {
	Title, Text string
	Data        template.URL
}

// demoRow is a line of a table of the report.
type demoRow struct{ Name, Value, Note string }

type demoReport struct {
	Report  string      `json:"report"`
	Solve   solveReport `json:"solve"`
	Seconds number      `json:"seconds"`
}

func (c *demo) do(s *session, args []string) error {
	if len(args) > 0 {
		return usagef("demo: unexpected argument %q", args[0])
	}
	for _, digit := range []int{c.from, c.to} {
		if digit < 0 || digit > 9 {
			return usagef("demo: got digit %d, want 0 to 9", digit)
		}
	}
	start := time.Now()
	source, err := load("from", fmt.Sprintf("digits?class=%d", c.from))
	if err != nil {
		return err
	}
	target, err := load("to", fmt.Sprintf("digits?class=%d", c.to))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.out, 0o777); err != nil {
		return err
	}
	dev, err := s.open()
	if err != nil {
		return err
	}
	set := clouds{source, target}
	problem := sinkhorn.Problem{Epsilon: demoEpsilon, Scale: sinkhorn.Mean}
	if problem.Geometry, err = geometry.NewPoints(source.X, target.X, source.D, geometry.SqEuclidean); err != nil {
		return err
	}
	bar := s.progress("demo")
	var curve []sinkhorn.Iteration
	show := trace(bar, 1e-6)
	r, err := sinkhorn.Solve(s.ctx, dev, problem, sinkhorn.Settings{Trace: func(it sinkhorn.Iteration) {
		curve = append(curve, it)
		show(it)
	}})
	bar.finish()
	if err != nil {
		return err
	}
	if r.Status == solver.Canceled {
		return s.ctx.Err()
	}
	mapped, err := r.Plan.BarycentricMap(s.ctx, dev)
	if err != nil {
		return err
	}
	const paths, times = 8, 11
	walk, err := r.Plan.Paths(s.ctx, paths, evenTimes(times), s.seed)
	if err != nil {
		return err
	}
	sampled, err := c.arrivals(s, r, target)
	if err != nil {
		return err
	}
	floors, err := c.measure(s, source, target, mapped, sampled)
	if err != nil {
		return err
	}
	flags := &problemFlags{scale: "mean"}
	result := report(flags, dev, r)
	page := demoData{
		From: c.from, To: c.to, Result: result, Metrics: floors, Status: r.Status.String(),
		Certificate: certificateRows(result), Attribution: dataset.DigitsAttribution,
	}
	figures := []struct {
		name, title, text string
		fig               plot.Figure
	}{
		{"paths.png", "Paths of the bridge", "Each row is one path: a source digit on the left, Brownian noise pinned at both ends in between, its target on the right.",
			pathFigure(walk, paths, evenTimes(times), set)},
		{"map.png", "Where the plan sends each digit", "The middle row is the mean of the targets that the plan couples a source digit with; below is the real target nearest to it.",
			planFigure(set, mapped)},
		{"residual.png", "Convergence", "The L1 marginal residual after each sweep over all pairs. Steps show where ε comes down; the dashed line is the tolerance.",
			residualFigure(curve)},
	}
	var out outputs
	defer out.close()
	for _, f := range figures {
		if err := out.add(f.name, filepath.Join(c.out, f.name)); err != nil {
			return err
		}
		var png bytes.Buffer
		if err := plot.Encode(&png, f.fig, plot.PNG); err != nil {
			return err
		}
		if err := out.write(f.name, func(w io.Writer) error { _, err := w.Write(png.Bytes()); return err }); err != nil {
			return err
		}
		page.Pictures = append(page.Pictures, demoPicture{f.title, f.text, template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(png.Bytes()))})
	}
	where := filepath.Join(c.out, "report.html")
	if err := out.add("report", where); err != nil {
		return err
	}
	if err := out.write("report", func(w io.Writer) error { return page.render(w) }); err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	if !s.quiet {
		fmt.Fprintf(s.stderr, "fortet: the report is in %s\n", where)
	}
	if err := s.print(demoReport{where, result, number(time.Since(start).Seconds())}); err != nil {
		return err
	}
	return notConverged(r.Status, r.Certificate.Residual, 1e-6)
}

// demoEpsilon is small enough, in units of the mean cost, for the digits to be
// seen through the noise of the paths.
const demoEpsilon = .01

// demoData is what the page shows.
type demoData struct {
	From, To    int
	Status      string
	Result      solveReport
	Certificate []demoRow
	Metrics     []demoRow
	Pictures    []demoPicture
	Attribution string
}

func (d demoData) JSON() string {
	b, err := json.MarshalIndent(d.Result, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (d demoData) render(w io.Writer) error {
	t, err := template.New("demo").Parse(demoPage)
	if err != nil {
		return err
	}
	return t.Execute(w, d)
}

// arrivals draws target points by the plan, one for each source point drawn.
func (c *demo) arrivals(s *session, r *sinkhorn.Result, target dataset.Points) ([]float64, error) {
	pairs, err := r.Plan.Sample(s.ctx, target.N, s.seed+1)
	if err != nil {
		return nil, err
	}
	out := make([]float64, 0, target.N*target.D)
	for _, p := range pairs {
		out = append(out, target.Row(p.J)...)
	}
	return out, nil
}

// measure compares before and after with the target.
func (c *demo) measure(s *session, source, target dataset.Points, mapped, sampled []float64) ([]demoRow, error) {
	list, err := metrics.Parse("w2,sw2,energy")
	if err != nil {
		return nil, err
	}
	var rows []demoRow
	for _, m := range list {
		for _, x := range []struct {
			name string
			x    []float64
		}{{"source", source.X}, {"barycentric map", mapped}, {"plan's draws", sampled}} {
			v, err := m.Compute(s.ctx, metrics.Cloud{X: x.x, D: target.D}, metrics.Cloud{X: target.X, D: target.D}, metrics.Options{Workers: s.workers})
			if err != nil {
				return nil, err
			}
			rows = append(rows, demoRow{m.Name + ", " + x.name, fmt.Sprintf("%.4g", v.Value),
				fmt.Sprintf("%.4g ± %.2g", v.Floor.Mean, v.Floor.Std)})
		}
	}
	return rows, nil
}

func certificateRows(r solveReport) []demoRow {
	f := func(x number) string { return fmt.Sprintf("%.9g", float64(x)) }
	return []demoRow{
		{"transport cost ⟨C, P⟩", f(r.TransportCost), "what moving costs"},
		{"primal value", f(r.Primal), "⟨C, P⟩ + ε KL(P | a⊗b)"},
		{"dual value", f(r.Dual), "a lower bound of the optimum, from the potentials"},
		{"gap", fmt.Sprintf("%.2g", float64(r.Gap)), "primal − dual"},
		{"source marginal error", fmt.Sprintf("%.2g", float64(r.MarginalError.Source)), "L1"},
		{"target marginal error", fmt.Sprintf("%.2g", float64(r.MarginalError.Target)), "L1"},
		{"sweeps over all pairs", fmt.Sprint(r.Iterations), fmt.Sprintf("%.3g s", float64(r.Seconds))},
	}
}

// residualFigure is the curve of a solve.
func residualFigure(its []sinkhorn.Iteration) plot.Figure {
	series := map[string]*plot.Series{}
	var order []string
	for _, it := range its {
		name := it.DType.String()
		if series[name] == nil {
			series[name] = &plot.Series{Label: name}
			order = append(order, name)
		}
		if it.Error > 0 && !math.IsInf(it.Error, 0) {
			series[name].X = append(series[name].X, float64(it.N))
			series[name].Y = append(series[name].Y, it.Error)
		}
	}
	fig := plot.Curves{Title: "L1 marginal residual", XLabel: "sweep", YLabel: "residual", LogY: true, Levels: []plot.Level{{Label: "tolerance", Y: 1e-6}}}
	for _, name := range order {
		if len(series[name].X) > 0 {
			fig.Series = append(fig.Series, *series[name])
		}
	}
	return fig
}
