package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/integrate/quad"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/fortet/fortet/docs/internal/page"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/bass1d"
	"github.com/fortet/fortet/solver/gaussian"
	"github.com/fortet/fortet/solver/metrics"
)

// pointResult are bridges from a point to normal laws.
type pointResult struct {
	Components int
	Rows       []pointRow
}

type pointRow struct {
	Variance, Beta                       float64
	Drift                                float64 // root of E α² halfway
	DriftExact                           float64
	Sigma0, Sigma0Exact                  float64
	Sigma1, Sigma1Exact                  float64 // mean over the ends
	Exact                                float64 // ½J
	Dual, DualError, Primal, PrimalError float64
	Seconds                              float64
}

func points(l *lab) (out pointResult, err error) {
	out.Components = 10
	for _, variance := range []float64{1, 4} {
		for _, beta := range []float64{2, 10} {
			row, err := pointRun(l, variance, beta, out.Components)
			if err != nil {
				return out, err
			}
			out.Rows = append(out.Rows, row)
		}
	}
	return out, nil
}

func pointRun(l *lab, variance, beta float64, components int) (row pointRow, err error) {
	exact, err := gaussian.SolveBass(l.ctx, gaussian.BassProblem{
		Source: gaussian.Dirac([]float64{0}), Target: gaussian.Isotropic([]float64{0}, variance), Epsilon: 1, Beta: beta,
	})
	if err != nil {
		return row, err
	}
	target := "normal?d=1"
	if variance == 4 {
		target += "&std=2"
	}
	b, err := l.train(run.LightSBB, run.Config{
		Data: run.Data{Source: "delta", Target: target}, Train: run.Train{Steps: 2000},
		Light: run.Light{Components: components, Epsilon: 1, Beta: run.Number(beta)},
	})
	if err != nil {
		return row, err
	}
	defer b.Close()
	row = pointRow{Variance: variance, Beta: beta, Exact: exact.J / 2, Seconds: b.seconds}
	paths, err := b.DrawPaths(l.ctx, make([]float64, 4000), []float64{.5, 1}, 3)
	if err != nil {
		return row, err
	}
	half, end := make([]float64, len(paths)/2), make([]float64, len(paths)/2)
	for i := range half {
		half[i], end[i] = paths[2*i], paths[2*i+1]
	}
	middle, err := b.Controls(l.ctx, .5, half, false)
	if err != nil {
		return row, err
	}
	law, err := exact.Marginal(.5)
	if err != nil {
		return row, err
	}
	drift, err := exact.Drift(.5)
	if err != nil {
		return row, err
	}
	row.Drift, row.DriftExact = root(middle.Drift), math.Abs(drift.Gain.At(0, 0))*math.Sqrt(law.Cov.At(0, 0))
	for _, c := range []struct {
		t         float64
		x         []float64
		got, want *float64
	}{{0, []float64{0}, &row.Sigma0, &row.Sigma0Exact}, {1, end, &row.Sigma1, &row.Sigma1Exact}} {
		controls, err := b.Controls(l.ctx, c.t, c.x, true)
		if err != nil {
			return row, err
		}
		sigma, err := exact.Sigma(c.t)
		if err != nil {
			return row, err
		}
		*c.got, *c.want = spreadOf(controls.Volatility).Mean, sigma.At(0, 0)
	}
	row.Dual, row.DualError = b.certificate["dual"], b.certificate["dual_error"]
	row.Primal, row.PrimalError = b.certificate["primal"], b.certificate["primal_error"]
	return row, nil
}

// clean is x, without what is rounding.
func clean(x float64) float64 {
	if math.Abs(x) < 1e-12 {
		return 0
	}
	return x
}

// root is that of the mean square.
func root(x []float64) float64 {
	s := 0.
	for _, v := range x {
		s += v * v / float64(len(x))
	}
	return math.Sqrt(s)
}

// Table is a row for each bridge.
func (p pointResult) Table() string {
	var rows [][]string
	for _, r := range p.Rows {
		rows = append(rows, []string{
			"N(0, " + page.Num(1, r.Variance) + ")", price(r.Beta), page.Num(3, r.Drift), page.Num(3, clean(r.DriftExact)),
			page.Num(4, r.Sigma0), page.Num(4, r.Sigma0Exact), page.Num(4, r.Sigma1), page.Num(4, r.Sigma1Exact),
			spread{r.Dual, r.DualError}.String(), page.Num(4, clean(r.Exact)), spread{r.Primal, r.PrimalError}.String(), page.Num(2, r.Seconds),
		})
	}
	return page.Table([]string{"from 0 to", "β", "α at ½", "exact", "σ at 0", "exact", "σ at 1", "exact", "dual", "½J exact", "primal", "s"}, rows)
}

// bimodalResult is N(0, 1) -> ½N(-2, ¼) + ½N(2, ¼) against the grid.
type bimodalResult struct {
	Beta         float64
	Dual, Primal float64 // of the grid
	Iterations   int
	Batch        int
	Floor        spread // W2 of two samples of the target
	Rows         []bimodalRow
}

type bimodalRow struct {
	Components                           int
	Dual, DualError, Primal, PrimalError float64
	// Roots of the mean square errors of α and σ at times 0, ½, 0.9, relative to the root
	// mean square of what they should be.
	Drift, Volatility [3]float64
	W2                spread // to a fresh sample of the target
	Seconds           float64
}

// Points of a W2, which is repeated.
const bimodalDraws = 100_000

const bimodalTimes = 5

func bimodalSample(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = 4*float64(r.IntN(2)) - 2 + r.NormFloat64()/2
	}
	return x
}

func bimodal(l *lab) (out bimodalResult, err error) {
	out.Beta, out.Batch = 10, 4096
	source, err := bass1d.Normal(0, 1)
	if err != nil {
		return out, err
	}
	target, err := bass1d.Density(func(x float64) float64 {
		p, m := -2*(x-2)*(x-2), -2*(x+2)*(x+2)
		return max(p, m) + math.Log1p(math.Exp(-math.Abs(p-m)))
	}, -7, 7)
	if err != nil {
		return out, err
	}
	exact, err := bass1d.Solve(l.ctx, bass1d.Problem{Source: source, Target: target, Epsilon: 1, Beta: out.Beta}, bass1d.Settings{})
	if err != nil {
		return out, err
	}
	if err := exact.Status.Err(); err != nil {
		return out, err
	}
	out.Dual, out.Primal, out.Iterations = exact.Dual, exact.Primal, exact.Iterations
	r := stream(4, 0)
	uri, err := l.pool(bimodalSample(r, 1<<18), 1)
	if err != nil {
		return out, err
	}
	var floor []float64
	for range bimodalTimes {
		n := l.few(bimodalDraws)
		d, err := metrics.W2(l.ctx, metrics.Cloud{X: bimodalSample(r, n), D: 1}, metrics.Cloud{X: bimodalSample(r, n), D: 1})
		if err != nil {
			return out, err
		}
		floor = append(floor, d)
	}
	out.Floor = spreadOf(floor)
	for _, k := range []int{4, 12, 24, 50} {
		row, err := bimodalRun(l, exact, uri, k, out)
		if err != nil {
			return out, err
		}
		out.Rows = append(out.Rows, row)
	}
	return out, nil
}

func bimodalRun(l *lab, exact *bass1d.Result, target string, k int, o bimodalResult) (row bimodalRow, err error) {
	b, err := l.train(run.LightSBB, run.Config{
		Data: run.Data{Source: "normal?d=1", Target: target}, Train: run.Train{Steps: 3000, Batch: o.Batch},
		Light: run.Light{Components: k, Epsilon: 1, Beta: run.Number(o.Beta)},
	})
	if err != nil {
		return row, err
	}
	defer b.Close()
	row = bimodalRow{Components: k, Seconds: b.seconds}
	r := stream(5, uint64(k))
	n := l.few(1 << 18)
	c, err := b.Bridge.Certify(l.ctx, normals(r, n), bimodalSample(r, n), sbb.Draw{Seed: 5})
	if err != nil {
		return row, err
	}
	row.Dual, row.DualError, row.Primal, row.PrimalError = c.Dual, c.DualError, c.Primal, c.PrimalError
	for i, t := range []float64{0, .5, .9} {
		s, err := exact.At(t)
		if err != nil {
			return row, err
		}
		got, err := b.Controls(l.ctx, t, s.X, true)
		if err != nil {
			return row, err
		}
		row.Drift[i], row.Volatility[i] = weighted(got.Drift, s.Score, s.Density), weighted(got.Volatility, s.Sigma, s.Density)
	}
	var w2 []float64
	for i := range bimodalTimes {
		n := l.few(bimodalDraws)
		ends, err := b.Draw(l.ctx, normals(r, n), 0, uint64(i))
		if err != nil {
			return row, err
		}
		d, err := metrics.W2(l.ctx, metrics.Cloud{X: ends, D: 1}, metrics.Cloud{X: bimodalSample(r, n), D: 1})
		if err != nil {
			return row, err
		}
		w2 = append(w2, d)
	}
	row.W2 = spreadOf(w2)
	return row, nil
}

// weighted is the relative root of the mean square error under a density.
func weighted(got, want, density []float64) float64 {
	off, power := 0., 0.
	for i, p := range density {
		off += p * (got[i] - want[i]) * (got[i] - want[i])
		power += p * want[i] * want[i]
	}
	return math.Sqrt(off / power)
}

// Table is a row for each number of components.
func (b bimodalResult) Table() string {
	percent := func(x float64) string { return page.Num(2, 100*x) }
	var rows [][]string
	for _, r := range b.Rows {
		rows = append(rows, []string{
			page.Num(3, float64(r.Components)), spread{r.Dual, r.DualError}.String(), page.Num(6, b.Dual), spread{r.Primal, r.PrimalError}.String(),
			percent(r.Drift[0]), percent(r.Drift[1]), percent(r.Drift[2]), percent(r.Volatility[0]), percent(r.Volatility[1]), percent(r.Volatility[2]),
			r.W2.String(), page.Num(2, r.Seconds),
		})
	}
	return page.Table([]string{"K", "dual", "½J of the grid", "primal", "α % at 0", "½", "0.9", "σ % at 0", "½", "0.9", "W2", "s"}, rows)
}

// studentResult are bridges to Student's t.
type studentResult struct {
	Components, N int
	Rows          []studentRow
	Floors        []studentFloor
}

type studentFloor struct {
	Freedom float64
	KS, W1  spread
}

type studentRow struct {
	Source    string
	Freedom   float64
	Beta      string
	KS, W1    float64
	Quantiles [3]float64 // relative errors of the .9, .99 and .999 quantiles of |X_1|
	Reference float64    // ½J, 0: not known
	Dual      float64
	DualError float64
	Primal    float64
	Seconds   float64
}

var studentLevels = [3]float64{.9, .99, .999}

// students trains from a point and from N(0, 1).
func students(l *lab) (out studentResult, err error) {
	out.Components, out.N = 50, l.few(100_000)
	freedoms := []float64{2, 2.5, 3, 5}
	betas := []float64{2, 10, math.Inf(1)}
	sources := []string{"delta", "normal?d=1"}
	type job struct {
		source        string
		freedom, beta float64
	}
	var jobs []job
	for _, source := range sources {
		for _, f := range freedoms {
			for _, beta := range betas {
				jobs = append(jobs, job{source, f, beta})
			}
		}
	}
	for _, f := range freedoms {
		out.Floors = append(out.Floors, studentSample(f, out.N))
	}
	out.Rows = make([]studentRow, len(jobs))
	err = l.share(2, len(jobs), func(l *lab, i int) (err error) {
		out.Rows[i], err = studentRun(l, jobs[i].source, jobs[i].freedom, jobs[i].beta, out)
		return err
	})
	return out, err
}

func studentRun(l *lab, source string, freedom, beta float64, o studentResult) (row studentRow, err error) {
	b, err := l.train(run.LightSBB, run.Config{
		Data: run.Data{Source: source, Target: "student-t?df=" + page.Num(2, freedom)}, Train: run.Train{Steps: 3000},
		Light: run.Light{Components: o.Components, Epsilon: 1, Beta: run.Number(beta)},
	})
	if err != nil {
		return row, err
	}
	defer b.Close()
	row = studentRow{
		Source: "N(0, 1)", Freedom: freedom, Beta: price(beta), Seconds: b.seconds,
		Dual: b.certificate["dual"], DualError: b.certificate["dual_error"], Primal: b.certificate["primal"],
	}
	x := make([]float64, o.N)
	if source == "delta" {
		row.Source = "0"
		if row.Reference, err = studentReference(l.ctx, freedom, beta); err != nil {
			return row, err
		}
	} else {
		copy(x, normals(stream(6, uint64(freedom*10)), o.N))
	}
	ends, err := b.Draw(l.ctx, x, 0, 7)
	if err != nil {
		return row, err
	}
	row.KS, row.W1 = studentDistances(ends, freedom)
	slices.SortFunc(ends, func(a, b float64) int { return int(math.Copysign(1, math.Abs(a)-math.Abs(b))) })
	law := distuv.StudentsT{Sigma: 1, Nu: freedom}
	for i, p := range studentLevels {
		want := law.Quantile((1 + p) / 2)
		row.Quantiles[i] = math.Abs(ends[int(p*float64(o.N))])/want - 1
	}
	return row, nil
}

// studentReference is ½J from 0, or 0 where it is infinite or was not found. At
// β = ∞ it is KL(t, N(0, 1)); at finite β the grid's, of the law on [-60, 60],
// which is of use where the second moment lies there.
func studentReference(ctx context.Context, freedom, beta float64) (float64, error) {
	law := distuv.StudentsT{Sigma: 1, Nu: freedom}
	if freedom <= 2 {
		return 0, nil
	}
	if math.IsInf(beta, 1) {
		// -entropy + E x²/2 + ½ log 2π, with E x² = ν/(ν-2).
		entropy := quad.Fixed(func(u float64) float64 { return -law.LogProb(law.Quantile(u)) }, 0, 1, 2000, quad.Legendre{}, 0)
		return freedom/(freedom-2)/2 + math.Log(2*math.Pi)/2 - entropy, nil
	}
	if freedom < 5 {
		return 0, nil
	}
	density, err := bass1d.Density(law.LogProb, -60, 60)
	if err != nil {
		return 0, err
	}
	r, err := bass1d.Solve(ctx, bass1d.Problem{Source: bass1d.Dirac(0), Target: density, Epsilon: 1, Beta: beta}, bass1d.Settings{N: 401, Tolerance: 1e-4})
	if err != nil || r.Status != solver.Converged {
		return 0, err
	}
	return r.Dual, nil
}

// studentDistances are the Kolmogorov-Smirnov and the 1-Wasserstein distance of
// a sample to the law; the latter by as many equally likely quantiles.
func studentDistances(x []float64, freedom float64) (ks, w1 float64) {
	law := distuv.StudentsT{Sigma: 1, Nu: freedom}
	x = slices.Sorted(slices.Values(x))
	n := float64(len(x))
	for i, v := range x {
		p := law.CDF(v)
		ks = max(ks, p-float64(i)/n, float64(i+1)/n-p)
	}
	for i := range len(x) / 2 {
		q := law.Quantile((float64(i) + .5) / n)
		w1 += (math.Abs(x[i]-q) + math.Abs(x[len(x)-1-i]+q)) / n
	}
	return ks, w1
}

// studentSample is what samples of the law itself show.
func studentSample(freedom float64, n int) studentFloor {
	var ks, w1 []float64
	for i := range 5 {
		law := distuv.StudentsT{Sigma: 1, Nu: freedom, Src: rand.NewPCG(8, uint64(i))}
		x := make([]float64, n)
		for k := range x {
			x[k] = law.Rand()
		}
		a, b := studentDistances(x, freedom)
		ks, w1 = append(ks, a), append(w1, b)
	}
	return studentFloor{freedom, spreadOf(ks), spreadOf(w1)}
}

// KS is the largest ratio of a KS distance to its floor.
func (s studentResult) KS() float64 {
	return s.worst(func(r studentRow, f studentFloor) float64 { return r.KS / f.KS.Mean })
}

// W1 is the largest ratio of a W1 to its floor.
func (s studentResult) W1() float64 {
	return s.worst(func(r studentRow, f studentFloor) float64 { return r.W1 / f.W1.Mean })
}

// Quantile is the largest error of a quantile, in percent.
func (s studentResult) Quantile(i int) float64 {
	return s.worst(func(r studentRow, _ studentFloor) float64 { return 100 * math.Abs(r.Quantiles[i]) })
}

func (s studentResult) worst(of func(studentRow, studentFloor) float64) float64 {
	worst := 0.
	for _, r := range s.Rows {
		for _, f := range s.Floors {
			if f.Freedom == r.Freedom {
				worst = max(worst, of(r, f))
			}
		}
	}
	return worst
}

// Get is a row of the table.
func (s studentResult) Get(source string, freedom float64, beta string) (studentRow, error) {
	for _, r := range s.Rows {
		if r.Source == source && r.Freedom == freedom && r.Beta == beta {
			return r, nil
		}
	}
	return studentRow{}, fmt.Errorf("no row from %s to ν = %v with β = %s", source, freedom, beta)
}

// Table is a row for each bridge.
func (s studentResult) Table() string {
	floor := map[float64]studentFloor{}
	for _, f := range s.Floors {
		floor[f.Freedom] = f
	}
	var rows [][]string
	for _, r := range s.Rows {
		reference := "—"
		switch {
		case r.Freedom <= 2:
			reference = "∞"
		case r.Reference != 0:
			reference = page.Num(5, r.Reference)
		}
		row := []string{r.Source, page.Num(2, r.Freedom), r.Beta, page.Num(2, r.KS), page.Num(2, floor[r.Freedom].KS.Mean), page.Num(2, r.W1), floor[r.Freedom].W1.String()}
		for _, q := range r.Quantiles {
			row = append(row, page.Num(2, 100*q))
		}
		rows = append(rows, append(row, spread{r.Dual, r.DualError}.String(), page.Num(4, r.Primal), reference, page.Num(2, r.Seconds)))
	}
	return page.Table([]string{"from", "ν", "β", "KS", "floor", "W1", "floor", "q90 %", "q99 %", "q99.9 %", "dual", "primal", "½J", "s"}, rows)
}
