package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/fortet/fortet/docs/internal/page"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/solver/metrics"
)

// planeResult are the two-dimensional sets.
type planeResult struct {
	Seeds, Points, PointsW2 int
	Problems                []planeProblem
	// Large is W2 of the first problem at the number of points of the papers.
	PointsLarge, SeedsLarge int
	Large                   []planeLarge
}

type planeLarge struct {
	Method, Beta string // "": a sample of the target
	W2           spread
}

type planeProblem struct {
	Name, Source, Target string
	Epsilon, Std         float64 // of a mode; 0: the target has no modes
	Floor                planeFloor
	Rows                 []planeRow
}

// planeFloor is what fresh samples of the target show: distances between two of
// PointsW2 points, the others of one with Points.
type planeFloor struct {
	W2, Stratified, TV, Std, Outliers spread
}

type planeRow struct {
	Method string
	Beta   string
	planeFloor
	Gap     spread // primal - dual
	Seconds spread
}

// Radius beyond which a point belongs to no mode, by the modes' deviation
// (MATH.md B.6 of the design: 1.6 for .316 and 2 for .562).
func radius(std float64) float64 {
	if std > .4 {
		return 2
	}
	return 1.6
}

// planeMethod is a method with the prices of volatility that it is run at.
type planeMethod struct {
	method run.Method
	betas  []float64
}

// planeMethods are in the order of the table.
func planeMethods() []planeMethod {
	betas := []float64{2, 10, 50, 100, 1000, math.Inf(1)}
	return []planeMethod{{run.LightSBM, betas[5:]}, {run.LightSBB, betas}, {run.LightSBBM, betas}}
}

func plane(l *lab) (out planeResult, err error) {
	out.Seeds, out.Points, out.PointsW2 = 10, l.few(40_000), 2000
	if l.quick {
		out.Seeds, out.PointsW2 = 2, 200
	}
	out.Problems = []planeProblem{
		{Name: "N → 8 gaussians", Source: "normal", Target: "8gaussians", Epsilon: 1, Std: math.Pow(.1, .25)},
		{Name: "N → 8 gaussians, variance 0.1", Source: "normal", Target: "8gaussians?noise=paper", Epsilon: 1, Std: math.Sqrt(.1)},
		{Name: "moons → 8 gaussians", Source: "moons", Target: "8gaussians", Epsilon: 5, Std: math.Pow(.1, .25)},
		{Name: "N → moons", Source: "normal", Target: "moons", Epsilon: 1},
	}
	for i := range out.Problems {
		if err := planeRun(l, &out.Problems[i], out); err != nil {
			return out, fmt.Errorf("%s: %w", out.Problems[i].Name, err)
		}
	}
	if err := planeLargeRun(l, &out); err != nil {
		return out, err
	}
	return out, planePictures(l)
}

// planeLargeRun trains as in the table again.
func planeLargeRun(l *lab, o *planeResult) error {
	o.PointsLarge, o.SeedsLarge = l.few(10_000), 3
	p := o.Problems[0]
	target, err := dataset.Open(p.Target)
	if err != nil {
		return err
	}
	type kind struct {
		method planeMethod
		beta   float64
	}
	kinds := []kind{{}}
	for i, beta := range []float64{math.Inf(1), 10, 10} {
		kinds = append(kinds, kind{planeMethods()[i], beta})
	}
	w2 := make([]float64, len(kinds)*o.SeedsLarge)
	if err := l.share(2, len(w2), func(l *lab, i int) error {
		k, seed := kinds[i/o.SeedsLarge], uint64(i%o.SeedsLarge)
		fresh, err := target.Sample(o.PointsLarge, 3000+seed)
		if err != nil {
			return err
		}
		var x []float64
		if k.beta == 0 {
			other, err := target.Sample(o.PointsLarge, 4000+seed)
			if err != nil {
				return err
			}
			x = other.X
		} else {
			b, err := l.train(k.method.method, p.config(k.beta, seed))
			if err != nil {
				return err
			}
			defer b.Close()
			starts, err := b.Starts(o.PointsLarge, seed)
			if err != nil {
				return err
			}
			if x, err = b.Draw(l.ctx, starts.X, 0, seed); err != nil {
				return err
			}
		}
		w2[i], err = metrics.W2(l.ctx, metrics.Cloud{X: x, D: 2}, metrics.Cloud{X: fresh.X, D: 2})
		return err
	}); err != nil {
		return err
	}
	for i, k := range kinds {
		row := planeLarge{W2: spreadOf(w2[i*o.SeedsLarge : (i+1)*o.SeedsLarge])}
		if k.beta > 0 {
			row.Method, row.Beta = k.method.method.String(), price(k.beta)
		}
		o.Large = append(o.Large, row)
	}
	return nil
}

// LargeTable is a row for each method.
func (o planeResult) LargeTable() string {
	var rows [][]string
	for _, r := range o.Large {
		name := "`" + r.Method + "`"
		if r.Method == "" {
			name = "a sample of the target"
		}
		rows = append(rows, []string{name, r.Beta, r.W2.String()})
	}
	return page.Table([]string{"method", "β", "W2"}, rows)
}

// measures of one sample, NaN where there is none.
type measures struct {
	w2, stratified, tv, std, outliers, gap, seconds float64
}

func planeRun(l *lab, p *planeProblem, o planeResult) error {
	target, err := dataset.Open(p.Target)
	if err != nil {
		return err
	}
	var of []measures
	for seed := range uint64(o.Seeds) {
		x, err := target.Sample(o.Points, 1000+seed)
		if err != nil {
			return err
		}
		m, err := p.measure(l, x.X, target, seed, o)
		if err != nil {
			return err
		}
		of = append(of, m)
	}
	p.Floor = summary(of).planeFloor
	type job struct {
		planeMethod
		beta float64
		seed int
	}
	var jobs []job
	for _, m := range planeMethods() {
		for _, beta := range m.betas {
			for seed := range o.Seeds {
				jobs = append(jobs, job{m, beta, seed})
			}
		}
	}
	results := make([]measures, len(jobs))
	if err := l.share(2, len(jobs), func(l *lab, i int) (err error) {
		j := jobs[i]
		results[i], err = p.train(l, j.method, j.beta, uint64(j.seed), o)
		return err
	}); err != nil {
		return err
	}
	for i := 0; i < len(jobs); i += o.Seeds {
		row := summary(results[i : i+o.Seeds])
		row.Method, row.Beta = jobs[i].method.String(), price(jobs[i].beta)
		p.Rows = append(p.Rows, row)
	}
	return nil
}

func summary(of []measures) (row planeRow) {
	for _, c := range []struct {
		to *spread
		of func(m measures) float64
	}{
		{&row.W2, func(m measures) float64 { return m.w2 }}, {&row.Stratified, func(m measures) float64 { return m.stratified }},
		{&row.TV, func(m measures) float64 { return m.tv }}, {&row.Std, func(m measures) float64 { return m.std }},
		{&row.Outliers, func(m measures) float64 { return m.outliers }}, {&row.Gap, func(m measures) float64 { return m.gap }},
		{&row.Seconds, func(m measures) float64 { return m.seconds }},
	} {
		var x []float64
		for _, m := range of {
			if v := c.of(m); !math.IsNaN(v) {
				x = append(x, v)
			}
		}
		*c.to = spreadOf(x)
	}
	return row
}

func (p *planeProblem) config(beta float64, seed uint64) run.Config {
	return run.Config{
		Seed: seed, Data: run.Data{Source: p.Source, Target: p.Target, Pool: 1 << 16},
		Light: run.Light{Epsilon: p.Epsilon, Beta: run.Number(beta)},
	}
}

func (p *planeProblem) train(l *lab, method run.Method, beta float64, seed uint64, o planeResult) (out measures, err error) {
	b, err := l.train(method, p.config(beta, seed))
	if err != nil {
		return out, fmt.Errorf("%v, β = %v, seed %d: %w", method, beta, seed, err)
	}
	defer b.Close()
	starts, err := b.Starts(o.Points, seed)
	if err != nil {
		return out, err
	}
	ends, err := b.Draw(l.ctx, starts.X, 0, seed)
	if err != nil {
		return out, err
	}
	out, err = p.measure(l, ends, b.Target(), seed, o)
	out.gap, out.seconds = b.certificate["gap"], b.seconds
	return out, err
}

// measure compares points with a fresh sample of the target, the same for every
// method.
func (p *planeProblem) measure(l *lab, x []float64, target dataset.Source, seed uint64, o planeResult) (m measures, err error) {
	nan := math.NaN()
	m = measures{nan, nan, nan, nan, nan, nan, nan}
	centres := eightCentres()
	fresh, err := target.Sample(40*o.PointsW2, 2000+seed)
	if err != nil {
		return m, err
	}
	cloud := func(x []float64) metrics.Cloud { return metrics.Cloud{X: x, D: 2} }
	if m.w2, err = metrics.W2(l.ctx, cloud(x[:2*o.PointsW2]), cloud(fresh.X[:2*o.PointsW2])); err != nil {
		return m, err
	}
	if p.Std == 0 {
		return m, nil
	}
	a, b := stratify(x, centres, o.PointsW2/8), stratify(fresh.X, centres, o.PointsW2/8)
	if a != nil && b != nil {
		if m.stratified, err = metrics.W2(l.ctx, cloud(a), cloud(b)); err != nil {
			return m, err
		}
	}
	r, err := metrics.Modes(l.ctx, cloud(x), centres, radius(p.Std))
	if err != nil {
		return m, err
	}
	m.std, m.outliers = r.Std, r.Outliers
	equal := make([]float64, 8)
	for i := range equal {
		equal[i] = 1. / 8
	}
	m.tv, err = metrics.TotalVariation(r.Mass, equal)
	return m, err
}

func eightCentres() (x []float64) {
	for k := range 8 {
		sin, cos := math.Sincos(float64(k) * math.Pi / 4)
		x = append(x, 5*cos, 5*sin)
	}
	return x
}

// stratify takes the first n points of every mode, that of the nearest centre;
// nil where a mode has fewer.
func stratify(x, centres []float64, n int) []float64 {
	count := make([]int, len(centres)/2)
	var out []float64
	for i := 0; i < len(x); i += 2 {
		best, at := math.Inf(1), 0
		for k := range count {
			if d := math.Hypot(x[i]-centres[2*k], x[i+1]-centres[2*k+1]); d < best {
				best, at = d, k
			}
		}
		if count[at]++; count[at] <= n {
			out = append(out, x[i], x[i+1])
		}
	}
	if slices.Min(count) < n {
		return nil
	}
	return out
}

// planePictures draw paths of the bridge to 8 gaussians for several β.
func planePictures(l *lab) error {
	p := planeProblem{Source: "normal", Target: "8gaussians", Epsilon: 1}
	for _, beta := range []float64{2, 10, math.Inf(1)} {
		b, err := l.train(run.LightSBB, p.config(beta, 0))
		if err != nil {
			return err
		}
		const n, times = 300, 41
		starts, err := b.Starts(2000, 0)
		if err != nil {
			return err
		}
		at := make([]float64, times)
		for i := range at {
			at[i] = float64(i) / (times - 1)
		}
		paths, err := b.DrawPaths(l.ctx, starts.X[:2*n], at, 0)
		if err != nil {
			return err
		}
		ends, err := b.Draw(l.ctx, starts.X, 0, 0)
		if err != nil {
			return err
		}
		b.Close()
		if err := l.picture(planePicture(beta), plot.Paths{
			Title: "N to 8 gaussians, β = " + price(beta), N: n, T: times, D: 2, X: paths, Times: at,
			Source: &plot.Cloud{Label: "start", D: 2, X: starts.X}, Target: &plot.Cloud{Label: "end", D: 2, X: ends},
		}); err != nil {
			return err
		}
	}
	return nil
}

func planePicture(beta float64) string {
	name := "inf"
	if !math.IsInf(beta, 1) {
		name = fmt.Sprint(beta)
	}
	return "light_8gaussians_" + name + ".png"
}

// Table is a row for each method and β.
func (p planeProblem) Table() string {
	row := func(method, beta string, f planeFloor, gap, seconds string) []string {
		cells := []string{method, beta, f.W2.String()}
		if p.Std > 0 {
			cells = append(cells, f.Stratified.String(), f.TV.String(), f.Std.String(), f.Outliers.String())
		}
		return append(cells, gap, seconds)
	}
	head := []string{"method", "β", "W2"}
	if p.Std > 0 {
		head = append(head, "W2, stratified", "mode-mass TV", "std within modes", "outliers")
	}
	head = append(head, "gap", "s")
	rows := [][]string{row("a sample of the target", "", p.Floor, "", "")}
	for _, r := range p.Rows {
		rows = append(rows, row("`"+r.Method+"`", r.Beta, r.planeFloor, r.Gap.String(), page.Num(2, r.Seconds.Mean)))
	}
	return page.Table(head, rows)
}

// Range says from where to where W2 of a method goes, over β.
func (p planeProblem) Range(method string) string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, r := range p.Rows {
		if r.Method == method {
			low, high = min(low, r.W2.Mean), max(high, r.W2.Mean)
		}
	}
	if low == high {
		return page.Num(3, low)
	}
	return page.Num(3, low) + " to " + page.Num(3, high)
}

// Get is a row of the table.
func (p planeProblem) Get(method, beta string) (planeRow, error) {
	for _, r := range p.Rows {
		if r.Method == method && r.Beta == beta {
			return r, nil
		}
	}
	return planeRow{}, fmt.Errorf("%s: no row of %s with β = %s", p.Name, method, beta)
}
