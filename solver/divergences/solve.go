package divergences

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/fdual"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

// Result is what Solve found, however it ended.
type Result struct {
	Plan        Plan
	Status      solver.Status
	Iterations  int     // sweeps over all pairs, or pivots of an exact flow
	Stages      []Stage // how the iterations went
	Certificate Certificate
	Duration    time.Duration
}

// Stage is a part of the iteration at one ε in one precision.
type Stage struct {
	Epsilon    float64
	DType      tensor.DType
	Iterations int
	Error      float64 // L1 residual at its end, relative to the mass
}

// Solve solves p on dev. An error says that it could not run, or wraps
// solver.ErrInfeasible where no plan of finite value exists, or none whose
// densities float64 can hold; how a run ended is Result.Status. Cancellation of ctx
// stops it within one sweep.
func Solve(ctx context.Context, dev gpu.Device, p Problem, settings Settings) (*Result, error) {
	begin := time.Now()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	settings = settings.withDefaults()
	t, err := p.task(ctx, dev)
	if err != nil {
		return nil, err
	}
	res := &Result{}
	switch exact := p.Divergence.Family == TotalVariation && p.Divergence.Delta == 0; {
	case exact && t.n <= settings.ExactPairs/t.m:
		err = res.flow(ctx, t)
	default:
		if exact {
			t.divergence.Delta = DefaultDelta
		}
		err = res.iterations(ctx, dev, t, settings)
	}
	if err != nil {
		return nil, err
	}
	res.Duration = time.Since(begin)
	return res, nil
}

// task is a validated problem with its defaults filled in.
type task struct {
	Problem
	n, m       int
	a, b       []float64
	loga, logb []float64
	mass       float64
	eps        float64
	mean       float64 // of the cost
	forbidden  bool    // some costs are +∞
	divergence Divergence
	logZ       float64 // of the Gibbs problem
}

func (p Problem) task(ctx context.Context, dev gpu.Device) (t task, err error) {
	t = task{Problem: p, eps: p.Epsilon, divergence: p.Divergence, forbidden: forbids(p.Geometry)}
	t.n, t.m = p.Geometry.Size()
	t.a, t.b = measure.Weights(p.A, t.n), measure.Weights(p.B, t.m)
	t.mass = measure.Mass(t.a)
	c := t.mass / measure.Mass(t.b) // six digits were asked for; the plan wants them all
	for j := range t.b {
		t.b[j] *= c
	}
	t.loga, t.logb = measure.Logs(t.a), measure.Logs(t.b)
	if t.forbidden {
		if p.Scale != sinkhorn.Absolute {
			return t, fmt.Errorf("divergences: epsilon scale %v: %w: some costs are +Inf; use an absolute epsilon", p.Scale, solver.ErrInvalid)
		}
		if err := t.reachable(ctx); err != nil {
			return t, err
		}
	} else if t.mean, err = p.Geometry.Mean(ctx, t.a, t.b); err != nil {
		return t, err
	}
	switch p.Scale {
	case sinkhorn.Mean:
		t.eps *= t.mean
	case sinkhorn.Std:
		std, err := p.Geometry.Std(ctx, t.a, t.b)
		if err != nil {
			return t, err
		}
		t.eps *= std
	}
	if !(t.eps > 0) { // all points coincide
		return t, fmt.Errorf("divergences: epsilon scale %v: %w: epsilon becomes %v because the costs do not vary; use an absolute epsilon", p.Scale, solver.ErrInvalid, t.eps)
	}
	if p.Kind == Gibbs {
		err = t.reference(dev)
	}
	return t, err
}

// farthest is the largest logarithm of a density, or of what a family's z makes of
// it, that float64 holds with room to spare.
const farthest = 650

// reference computes log Z over all pairs, and refuses references so far from
// the marginals that the densities of any plan leave the range of float64.
func (t *task) reference(dev gpu.Device) error {
	b, err := open(dev, tensor.Float64, t.Geometry, t.loga, t.logb)
	if err != nil {
		return err
	}
	defer b.close()
	// The row potentials of KL at q = 0 are -log Σ_j b_j exp(-c_ij/ε).
	e := equation{law: Divergence{}.law(), slope: -1 / t.eps}
	row, col := make([]float64, t.n), make([]float64, t.m)
	if err := b.rows.solve(e, make([]float64, t.m), nil, row, nil); err != nil {
		return err
	}
	if err := b.cols.solve(e, make([]float64, t.n), nil, col, nil); err != nil {
		return err
	}
	terms := make([]float64, t.n)
	for i, p := range row {
		terms[i] = math.Inf(-1)
		if t.a[i] > 0 {
			terms[i] = t.loga[i] - p
		}
	}
	t.logZ = logSumExp(terms) - math.Log(t.mass)
	l := t.divergence.law()
	if l.kind == fdual.Exp || t.divergence.Family == TotalVariation {
		return nil
	}
	power := 1.0
	if l.kind == fdual.Power {
		power = max(1, math.Abs(l.a-1))
	}
	for _, side := range []struct {
		name string
		w, p []float64
	}{{"source", t.a, row}, {"target", t.b, col}} {
		for i, p := range side.p {
			if ratio := p + t.logZ; side.w[i] > 0 && power*ratio > farthest {
				return fmt.Errorf("divergences: %w: the reference gives %s point %d the fraction exp(%.0f) of its mass, and the density that %v then needs is beyond float64; use a larger epsilon, or kl",
					solver.ErrInfeasible, side.name, i, -ratio, t.divergence)
			}
		}
	}
	return nil
}

func logSumExp(v []float64) float64 {
	top := math.Inf(-1)
	for _, x := range v {
		top = max(top, x)
	}
	if math.IsInf(top, 0) {
		return top
	}
	s := 0.0
	for _, x := range v {
		s += math.Exp(x - top)
	}
	return top + math.Log(s)
}

// equation is the row equation at some ε. A Gibbs problem of KL is iterated as
// the regularised one, whose warm starts carry over from one ε to the next.
func (t *task) equation(eps float64) equation {
	l := t.divergence.law()
	if t.asRegularised() {
		return equation{law: l, slope: -l.rate / eps}
	}
	return equation{law: l, decay: 1 / eps, shift: -t.logZ}
}

func (t *task) asRegularised() bool {
	return t.Kind == Regularised || t.divergence.law().kind == fdual.Exp
}

// gauged says whether the others' potential is kept at least 0, and 0 somewhere:
// of a family whose domain ends, z = p + q is the distance to that end, which
// densities of many orders of magnitude need to the last digit.
func (t *task) gauged() bool { return !t.asRegularised() && t.divergence.law().falls() }

// enoughSweeps is how many alternating ones are tried before Newton's method takes
// over, where it is affordable: most problems need fewer.
const enoughSweeps = 100

// epsilons is the ladder of ε that ends with the problem's.
func (t *task) epsilons(direct bool) []float64 {
	if direct || !t.asRegularised() || t.forbidden {
		return []float64{t.eps}
	}
	return solver.Annealing(t.mean, t.eps)
}

// iterations solves by alternating updates.
func (res *Result) iterations(ctx context.Context, dev gpu.Device, t task, settings Settings) error {
	l := t.divergence.law()
	r := &run{settings: settings, task: &t, p: make([]float64, t.n), q: make([]float64, t.m)}
	ladder := t.epsilons(settings.NoAnnealing)
	for j := range r.q {
		r.q[j] = l.half
	}
	last := ladder[0]
	dtypes := settings.Precision.DTypes(t.n * t.m)
	for k, dtype := range dtypes {
		b, err := open(dev, dtype, t.Geometry, t.loga, t.logb)
		if err != nil {
			return err
		}
		defer b.close()
		for _, eps := range ladder {
			for j, q := range r.q { // the same potential in the cost's unit
				r.q[j] = l.half + (q-l.half)*(last/eps)
			}
			last = eps
			to := goal{eps: eps, tolerance: settings.Tolerance, sweeps: settings.MaxIterations - r.sweeps, leave: 0}
			if eps != t.eps {
				to.tolerance = max(solver.CoarseResidual, settings.Tolerance)
				to.sweeps = min(to.sweeps, solver.CoarseSweeps)
			}
			if k < len(dtypes)-1 {
				to.leave = solver.LeaveFactor
			}
			before, saved := r.sweeps, append([]float64(nil), r.q...)
			alternating := to
			if t.newton() {
				alternating.sweeps = min(to.sweeps, enoughSweeps)
			}
			if res.Status, err = r.iterate(ctx, b, alternating); err != nil {
				return err
			}
			if climbs(res.Status, dtype) && eps == t.eps && r.residual > r.floor(dtype) && r.sweeps-before < to.sweeps {
				if res.Status == solver.Diverged {
					copy(r.q, saved)
				}
				to.sweeps -= r.sweeps - before
				if res.Status, err = r.ascend(ctx, b, to); err != nil {
					return err
				}
			}
			res.Stages = append(res.Stages, Stage{eps, dtype, r.sweeps - before, r.residual})
			if res.Status == solver.Diverged {
				copy(r.q, saved) // float64 may have the range
			}
			if res.Status == solver.Canceled || r.sweeps >= settings.MaxIterations {
				break
			}
		}
		if res.Status == solver.Canceled {
			break
		}
		if r.sweeps >= settings.MaxIterations {
			if res.Status != solver.Diverged {
				res.Status = solver.MaxIterations
			}
			break
		}
		ladder = []float64{t.eps} // float64 confirms, or goes on from there
	}
	res.Iterations = r.sweeps
	return res.finish(dev, &t, r, last)
}
