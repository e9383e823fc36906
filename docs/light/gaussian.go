package main

import (
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/docs/internal/page"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/solver/gaussian"
)

// gaussianResult are bridges between normal laws.
type gaussianResult struct {
	Steps, Batch, Pool int
	BatchLow           int // in one and two dimensions, where steps are cheap
	Rows               []gaussianRow
}

type gaussianRow struct {
	D          int
	Covariance string
	Beta       float64
	// Relative errors, in the Frobenius norm, of S, R and, the worst of three
	// times, of the volatility; of the drift the root of the mean square.
	S, R, Drift, Volatility float64
	Exact, Trained          float64 // J
	Dual, DualError         float64 // certificate, of ½J
	Primal, PrimalError     float64
	Seconds                 float64
}

// gaussians trains one component between normal laws whose covariances do not
// commute, and compares it with the closed form.
func gaussians(l *lab) (out gaussianResult, err error) {
	out.Steps, out.Batch, out.BatchLow, out.Pool = l.few(3000), 1024, 4096, l.few(1<<16)
	for _, d := range []int{1, 2, 16, 64} {
		covariance := run.Full
		if d == 1 || d == 64 {
			covariance = run.Diagonal
		}
		r := stream(1, uint64(d))
		p := gaussian.BassProblem{
			Source: someNormal(r, d, 0.3, 2, covariance == run.Full), Target: someNormal(r, d, 0.1, 6, covariance == run.Full), Epsilon: 1,
		}
		if d == 1 {
			p.Target.Cov.SetSym(0, 0, 0.2)
		}
		x0, x1 := exactPool(r, p.Source, out.Pool), exactPool(r, p.Target, out.Pool)
		source, err := l.pool(x0, d)
		if err != nil {
			return out, err
		}
		target, err := l.pool(x1, d)
		if err != nil {
			return out, err
		}
		for _, beta := range []float64{0.5, 2, 10, 100} {
			p.Beta = beta
			row, err := gaussianRun(l, p, source, target, covariance, out)
			if err != nil {
				return out, err
			}
			out.Rows = append(out.Rows, row)
		}
	}
	return out, nil
}

func gaussianRun(l *lab, p gaussian.BassProblem, source, target string, covariance run.Covariance, o gaussianResult) (row gaussianRow, err error) {
	d := p.Source.Dim()
	exact, err := gaussian.SolveBass(l.ctx, p)
	if err != nil {
		return row, err
	}
	batch := o.Batch
	if d <= 2 {
		batch = o.BatchLow
	}
	b, err := l.train(run.LightSBB, run.Config{
		Data:  run.Data{Source: source, Target: target},
		Train: run.Train{Steps: 3000, Batch: batch},
		Light: run.Light{Components: 1, Covariance: covariance, Epsilon: p.Epsilon, Beta: run.Number(p.Beta)},
	})
	if err != nil {
		return row, err
	}
	defer b.Close()
	q := one(b.Parameters())
	row = gaussianRow{
		D: d, Covariance: covariance.String(), Beta: p.Beta, Exact: exact.J, Seconds: b.seconds,
		S: apart(q.function(func(s float64) float64 { return s }), exact.S),
		R: apart(q.function(func(s float64) float64 {
			k := (s - 1) / s // κ_T, R = βκ/(β+κ)
			return k / (1 + k/p.Beta)
		}), exact.R),
		Trained: q.cost(p, b.Frame()),
	}
	r := stream(2, uint64(d))
	for _, t := range []float64{0, .5, 1} {
		drift, volatility, err := controlErrors(l, b, exact, t)
		if err != nil {
			return row, err
		}
		row.Drift, row.Volatility = max(row.Drift, drift), max(row.Volatility, volatility)
	}
	n := l.few(1 << 15)
	c, err := b.Bridge.Certify(l.ctx, draws(r, p.Source, n), draws(r, p.Target, n), sbb.Draw{Seed: 5})
	row.Dual, row.DualError, row.Primal, row.PrimalError = c.Dual, c.DualError, c.Primal, c.PrimalError
	return row, err
}

// controlErrors are the relative errors of α and σ at a time, under the law of
// the exact bridge.
func controlErrors(l *lab, b *trained, exact *gaussian.Bass, t float64) (drift, volatility float64, err error) {
	law, err := exact.Marginal(t)
	if err != nil {
		return 0, 0, err
	}
	d := law.Dim()
	x := draws(stream(3, uint64(d)), law, 1000)
	got, err := b.Controls(l.ctx, t, x, false)
	if err != nil {
		return 0, 0, err
	}
	want, err := exact.Drift(t)
	if err != nil {
		return 0, 0, err
	}
	off, power, y := 0., 0., make([]float64, d)
	for i := 0; i < len(x); i += d {
		want.At(y, x[i:i+d])
		for k, v := range y {
			off += (got.Drift[i+k] - v) * (got.Drift[i+k] - v)
			power += v * v
		}
	}
	sigma, err := exact.Sigma(t)
	if err != nil {
		return 0, 0, err
	}
	one, err := b.Controls(l.ctx, t, x[:d], true)
	if err != nil {
		return 0, 0, err
	}
	return math.Sqrt(off / power), apart(mat.NewDense(d, d, one.Volatility), sigma), nil
}

// component is a mixture of one component, in the coordinates of its frame.
type component struct {
	scales, mean []float64
	axes         *mat.Dense // eigenvectors of S in its rows
}

func one(p mixture.Parameters) component {
	c := component{scales: p.Scales, mean: p.Means, axes: mat.NewDense(p.D, p.D, nil)}
	if p.Axes != nil {
		c.axes.Copy(mat.NewDense(p.D, p.D, p.Axes))
		return c
	}
	for i := range p.D {
		c.axes.Set(i, i, 1)
	}
	return c
}

// function is f of the matrix S.
func (c component) function(f func(s float64) float64) *mat.Dense {
	var scaled, out mat.Dense
	scaled.Apply(func(i, _ int, v float64) float64 { return v * f(c.scales[i]) }, c.axes)
	out.Mul(c.axes.T(), &scaled)
	return &out
}

// cost is J of the bridge that the component makes of a source, exactly: with
// A = S - I, Y_0 = (I + A/β)⁻¹ (X_0 - r/β) and g_0 = r + A Y_0,
//
//	J = E|g_0|² + ε tr(A - log S) + (ε/β) tr(A - A S⁻¹)
//
// because g is a martingale with dE|g|² = ε |κ_t|² dt, κ_t = A (I + t A)⁻¹.
func (c component) cost(p gaussian.BassProblem, f mixture.Frame) float64 {
	d := len(c.scales)
	unit := f.Scale * f.Scale
	epsilon := p.Epsilon / unit
	shift := make([]float64, d)
	for i := range shift {
		shift[i] = (p.Source.Mean[i] - f.Source[i]) / f.Scale
	}
	rotate := func(v []float64) []float64 {
		out := mat.NewVecDense(d, nil)
		out.MulVec(c.axes, mat.NewVecDense(d, v))
		return out.RawVector().Data
	}
	apart := make([]float64, d) // of the frame's ends, which is not part of g
	for i := range apart {
		apart[i] = (f.Target[i] - f.Source[i]) / f.Scale
	}
	r, m, apart := rotate(c.mean), rotate(shift), rotate(apart)
	var half, cov mat.Dense
	half.Mul(c.axes, p.Source.Cov)
	cov.Mul(&half, c.axes.T())
	j := 0.
	for i, s := range c.scales {
		a := s - 1
		gain := 1 / (1 + a/p.Beta)
		g := r[i] + a*gain*(m[i]-r[i]/p.Beta) + apart[i]
		j += g*g + a*a*gain*gain*cov.At(i, i)/unit
		j += epsilon*(a-math.Log(s)) + epsilon/p.Beta*(a-a/s)
	}
	return unit * j
}

// apart is |a - b| / |b| in the Frobenius norm.
func apart(a, b mat.Matrix) float64 {
	var diff mat.Dense
	diff.Sub(a, b)
	return mat.Norm(&diff, 2) / mat.Norm(b, 2)
}

// Worst is the largest relative error of J, in percent.
func (g gaussianResult) Worst() float64 {
	worst := 0.
	for _, r := range g.Rows {
		worst = max(worst, 100*math.Abs(r.Trained/r.Exact-1))
	}
	return worst
}

// sure is how many standard errors a bound may be on the wrong side.
const sure = 3

// Bounded counts the rows whose certificate encloses ½J.
func (g gaussianResult) Bounded() int {
	n := 0
	for _, r := range g.Rows {
		if r.Dual-sure*r.DualError <= r.Exact/2 && r.Exact/2 <= r.Primal+sure*r.PrimalError {
			n++
		}
	}
	return n
}

// Table is a row for each bridge.
func (g gaussianResult) Table() string {
	percent := func(x float64) string { return page.Num(2, 100*x) }
	var rows [][]string
	for _, r := range g.Rows {
		rows = append(rows, []string{
			page.Num(3, float64(r.D)), r.Covariance, price(r.Beta), percent(r.S), percent(r.R), percent(r.Drift), percent(r.Volatility),
			page.Num(6, r.Exact), page.Num(6, r.Trained), percent(math.Abs(r.Trained/r.Exact - 1)),
			spread{r.Dual, r.DualError}.String(), page.Num(5, r.Exact/2), spread{r.Primal, r.PrimalError}.String(), page.Num(2, r.Seconds),
		})
	}
	return page.Table([]string{"d", "S", "β", "S %", "R %", "α %", "σ %", "J exact", "J trained", "J %", "dual", "½J", "primal", "s"}, rows)
}
