package barycenter

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/solver/mixing"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

// Result is what Solve found, however it ended.
type Result struct {
	// Weights are the barycentre: (n), the mean Σ_k λ_k P_kᵀ1 of the second
	// marginals of the plans. Its mass is exactly that of the measures where
	// their marginals are exact.
	Weights []float64
	// Plans are the plans between the measures and the support, with the
	// reference as their B. Of a measure of λ = 0 it is empty.
	Plans []sinkhorn.Plan
	// D is the potential of the symmetric plan: (n); nil where not debiased.
	D           []float64
	Epsilon     float64 // absolute
	Status      solver.Status
	Iterations  int // in all stages
	Stages      []sinkhorn.Stage
	Certificate Certificate
	Duration    time.Duration
}

// Solve solves p on dev. An error says that it could not run; how a run ended
// is Result.Status. Cancellation of ctx stops it within one iteration.
func Solve(ctx context.Context, dev gpu.Device, p Problem, settings Settings) (*Result, error) {
	start := time.Now()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	settings = settings.withDefaults()
	t, mean, err := p.task(ctx)
	if err != nil {
		return nil, err
	}
	r := &run{settings: settings, z: make([]float64, t.length())}
	res := &Result{Epsilon: t.eps}
	b, err := res.climb(ctx, dev, r, t, mean)
	if err != nil {
		return nil, err
	}
	defer func() { b.close() }()
	res.Iterations = r.iterations
	if res.Status != solver.Diverged && res.Status != solver.Canceled {
		if b.dtype != tensor.Float64 {
			b.close()
			if b, err = t.open(dev, tensor.Float64, geometry.Options{CacheBytes: -1}); err != nil {
				return nil, err
			}
		}
		if err := res.certify(b, p, r.z, settings.Tolerance); err != nil {
			return nil, err
		}
	}
	res.Duration = time.Since(start)
	return res, nil
}

// task fills in defaults and finds the absolute ε. mean is the mean cost.
func (p Problem) task(ctx context.Context) (t task, mean float64, err error) {
	t = task{debiased: p.Debiased, rho: p.Rho}
	if balanced(t.rho) {
		t.rho = math.Inf(1)
	}
	t.n, _ = p.size()
	t.nu = measure.Weights(p.Reference, t.n)
	t.lognu = measure.Logs(t.nu)
	lambda := measure.Weights(p.Lambda, len(p.Measures))
	scaleTo(lambda, 1)
	mass := 0.0
	std := 0.0
	for k, m := range p.Measures {
		l := leaf{k: k, geom: m.Geometry, shared: m.Geometry == nil, lambda: lambda[k]}
		if l.shared {
			l.geom = p.Support
		}
		points, _ := l.geom.Size()
		l.a = measure.Weights(m.Weights, points)
		if k == 0 {
			mass = measure.Mass(l.a)
		}
		if l.lambda == 0 {
			continue
		}
		if math.IsInf(t.rho, 1) {
			scaleTo(l.a, mass)
		}
		l.loga = measure.Logs(l.a)
		c, err := l.geom.Mean(ctx, l.a, t.nu)
		if err != nil {
			return t, 0, err
		}
		mean += l.lambda * c
		if p.Scale == sinkhorn.Std {
			if c, err = l.geom.Std(ctx, l.a, t.nu); err != nil {
				return t, 0, err
			}
			std += l.lambda * c
		}
		if l.shared || p.Debiased {
			t.support = p.Support
		}
		t.pairs += points * t.n
		t.leaves = append(t.leaves, l)
	}
	t.eps = p.Epsilon
	switch p.Scale {
	case sinkhorn.Mean:
		t.eps *= mean
	case sinkhorn.Std:
		t.eps *= std
	}
	if !(t.eps > 0) { // all points coincide
		return t, 0, fmt.Errorf("barycenter: epsilon scale %v: %w: epsilon becomes %v because the costs do not vary; use an absolute epsilon", p.Scale, solver.ErrInvalid, t.eps)
	}
	return t, mean, nil
}

func scaleTo(w []float64, mass float64) {
	c := mass / measure.Mass(w)
	for i := range w {
		w[i] *= c
	}
}

const (
	// patience is how many steps may pass without a new lowest residual before
	// plain ones take over from mixed ones, and plainPatience when the iteration is
	// taken to have stalled.
	patience      = 60
	plainPatience = 400
)

// climb runs the stages: down the ladder of ε, up the ladder of precisions. It
// returns the bench of the last one.
func (res *Result) climb(ctx context.Context, dev gpu.Device, r *run, t task, mean float64) (*bench, error) {
	dtypes := r.settings.Precision.DTypes(t.pairs)
	ladder := []float64{t.eps}
	if !r.settings.NoAnnealing {
		ladder = solver.Annealing(mean, t.eps)
	}
	var b *bench
	for k, dtype := range dtypes {
		if b != nil {
			b.close()
		}
		var err error
		if b, err = t.open(dev, dtype, r.settings.Geometry); err != nil {
			return nil, err
		}
		for _, eps := range ladder {
			to := goal{tolerance: r.settings.Tolerance, iterations: r.settings.MaxIterations - r.iterations}
			if eps != t.eps {
				to.tolerance = max(solver.CoarseResidual, to.tolerance)
				to.iterations = min(to.iterations, solver.CoarseSweeps)
			}
			if k < len(dtypes)-1 && r.settings.Acceleration == sinkhorn.Anderson {
				to.leave = solver.LeaveFactor
			}
			to.persist = t.debiased && k == len(dtypes)-1
			b.eps = eps
			before := r.iterations
			status, err := r.iterate(ctx, b, to)
			if err != nil {
				b.close()
				return nil, err
			}
			res.Status = status
			res.Stages = append(res.Stages, sinkhorn.Stage{Epsilon: eps, DType: dtype, Cached: b.cached(), Iterations: r.iterations - before, Error: r.residual})
			if status == solver.Diverged || status == solver.Canceled {
				return b, nil
			}
			if r.iterations >= r.settings.MaxIterations && status != solver.Converged {
				res.Status = solver.MaxIterations
				return b, nil
			}
		}
		ladder = []float64{t.eps} // float64 confirms, or goes on from there
	}
	return b, nil
}

// run is the state of a solve: the iterate and what it cost so far.
type run struct {
	settings   Settings
	z          []float64
	iterations int
	residual   float64 // of the last iteration
}

// goal says when to stop iterating at one ε in one precision.
type goal struct {
	tolerance  float64
	iterations int     // at most
	leave      float64 // multiple of the floor to stop at; 0: none
	// persist says that a residual which does not fall is no reason to give up:
	// while the mass at points dies away that have none at the solution, that of
	// a debiased problem may rise for hundreds of plain steps.
	persist bool
}

// iterate runs the accelerated iteration on r.z until the goal. On return r.z is
// the iterate of the last residual. A mixed step whose residual is twice that
// of the last accepted one is taken back, and plain steps follow.
func (r *run) iterate(ctx context.Context, b *bench, to goal) (solver.Status, error) {
	var (
		image   = make([]float64, len(r.z))
		weights = make([]float64, len(r.z))
		steps   = mixing.NewSafeguard(weights, 0, r.settings.Acceleration == sinkhorn.Anderson)
		best    = math.Inf(1)
		lowest  = make([]float64, len(r.z)) // the iterate of best
		since   = 0                         // iterations since best
		rescues = 0                         // times that plain steps took over since best
	)
	for range to.iterations {
		if ctx.Err() != nil {
			return solver.Canceled, nil
		}
		residual, err := b.eval(r.z, image)
		if err != nil {
			return 0, err
		}
		r.iterations++
		r.residual = residual
		if r.settings.Trace != nil {
			r.settings.Trace(sinkhorn.Iteration{N: r.iterations, Epsilon: b.eps, Error: residual, DType: b.dtype})
		}
		if residual <= to.tolerance {
			return solver.Converged, nil
		}
		if steps.Worse(residual) {
			steps.TakeBack(r.z)
			continue
		}
		if math.IsNaN(residual) || math.IsInf(residual, 0) {
			return solver.Diverged, nil
		}
		if since++; residual < best {
			best, since, rescues = residual, 0, 0
			copy(lowest, r.z)
		}
		if since > 8 && residual <= b.floor() || since > plainPatience && !to.persist {
			return solver.Stalled, nil
		}
		if steps.Mixes() && since > patience {
			if rescues++; rescues == 1 {
				copy(r.z, lowest)
			}
			steps.Rest(plainPatience << min(rescues-1, 4))
			continue
		}
		if to.leave > 0 && residual <= to.leave*b.floor() {
			return solver.Stalled, nil
		}
		if steps.Mixes() {
			b.metric(weights)
			steps.Reweigh()
		}
		steps.Step(r.z, image, residual)
	}
	return solver.MaxIterations, nil
}
