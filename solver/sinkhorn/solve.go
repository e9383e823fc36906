package sinkhorn

import (
	"context"
	"math"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/tensor"
)

// Result is what Solve found, however it ended.
type Result struct {
	Plan        Plan // the potentials and what they belong to
	Status      solver.Status
	Iterations  int     // sweeps over all pairs, in all stages
	Stages      []Stage // how the iterations went
	Certificate Certificate
	Duration    time.Duration
}

// Stage is a part of the iteration at one ε in one precision.
type Stage struct {
	Epsilon    float64
	DType      tensor.DType
	Cached     bool // the cost matrix was held in memory
	Iterations int
	Error      float64 // L1 residual at its end, relative to the mass
}

// Solve solves p on dev. An error says that it could not run; how a run ended
// is Result.Status. Cancellation of ctx stops it within one sweep.
func Solve(ctx context.Context, dev gpu.Device, p Problem, settings Settings) (*Result, error) {
	start := time.Now()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	_, m := p.Geometry.Size()
	if err := settings.Validate(m); err != nil {
		return nil, err
	}
	settings = settings.withDefaults()
	t, mean, err := p.task(ctx)
	if err != nil {
		return nil, err
	}
	r := &run{settings: settings, g: make([]float64, m)}
	copy(r.g, settings.Start)
	t.target.projectAll(r.g)
	res := &Result{}
	bench, err := res.climb(ctx, dev, r, t, mean)
	if err != nil {
		return nil, err
	}
	defer bench.close()
	res.Iterations = r.sweeps
	res.Plan = Plan{
		Geometry: p.Geometry, A: t.a, B: t.b, F: make([]float64, t.n), G: r.g, Epsilon: t.eps,
		Source: t.source, Target: t.target,
	}
	if res.Status == solver.Diverged || res.Status == solver.Canceled {
		copy(res.Plan.F, bench.f)
		res.Duration = time.Since(start)
		return res, nil
	}
	if err := res.certify(dev, bench, settings.Tolerance); err != nil {
		return nil, err
	}
	res.Duration = time.Since(start)
	return res, nil
}

// task fills in defaults and finds the absolute ε. mean is the mean cost.
func (p Problem) task(ctx context.Context) (t task, mean float64, err error) {
	t = task{geom: p.Geometry, eps: p.Epsilon}
	t.n, t.m = p.Geometry.Size()
	t.a, t.b = measure.Weights(p.A, t.n), measure.Weights(p.B, t.m)
	if !p.Source.IsExact() {
		t.source = p.Source
	}
	if !p.Target.IsExact() {
		t.target = p.Target
	}
	t.mass = measure.Mass(t.a)
	if t.source.IsExact() && t.target.IsExact() {
		// Six digits were asked for; the plan wants them all.
		c := t.mass / measure.Mass(t.b)
		for j := range t.b {
			t.b[j] *= c
		}
	}
	t.loga, t.logb = measure.Logs(t.a), measure.Logs(t.b)
	if mean, err = p.Geometry.Mean(ctx, t.a, t.b); err != nil {
		return t, 0, err
	}
	switch p.Scale {
	case Mean:
		t.eps *= mean
	case Std:
		std, err := p.Geometry.Std(ctx, t.a, t.b)
		if err != nil {
			return t, 0, err
		}
		t.eps *= std
	}
	if !(t.eps > 0) { // all points coincide
		return t, 0, errScale(p.Scale, t.eps)
	}
	return t, mean, nil
}

// climb runs the stages: down the ladder of ε, up the ladder of precisions. It
// returns the bench of the last one.
func (res *Result) climb(ctx context.Context, dev gpu.Device, r *run, t task, mean float64) (*bench, error) {
	dtypes := r.settings.Precision.DTypes(t.n * t.m)
	ladder := []float64{t.eps}
	if !r.settings.NoAnnealing && r.settings.Start == nil {
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
			to := goal{
				eps:       eps,
				tolerance: r.settings.Tolerance,
				sweeps:    r.settings.MaxIterations - r.sweeps,
				floor:     func() float64 { return b.floor(eps) },
			}
			if eps != t.eps {
				to.tolerance = max(solver.CoarseResidual, r.settings.Tolerance)
				to.sweeps = min(to.sweeps, solver.CoarseSweeps)
			}
			if k < len(dtypes)-1 && r.settings.Acceleration == Anderson {
				to.leave = func() float64 { return solver.LeaveFactor * b.floor(eps) }
			}
			before := r.sweeps
			status, err := r.solveAt(ctx, b, to)
			if err != nil {
				b.close()
				return nil, err
			}
			res.Status = status
			res.Stages = append(res.Stages, Stage{eps, dtype, b.op.Cached(), r.sweeps - before, r.residual})
			if status == solver.Diverged || status == solver.Canceled {
				return b, nil
			}
			if r.sweeps >= r.settings.MaxIterations {
				res.Status = solver.MaxIterations
				return b, nil
			}
		}
		ladder = []float64{t.eps} // float64 confirms, or goes on from there
	}
	return b, nil
}

// floor is the residual that rounding of the exponents leaves: an exponent of
// size z is known to z times the unit roundoff, and the residual is the
// weighted mean of the relative errors of the plan's entries.
func (s *bench) floor(eps float64) float64 {
	z := 0.0
	for _, f := range s.out.host {
		if !math.IsInf(f, 0) {
			z = max(z, math.Abs(f))
		}
	}
	return solver.Roundoff(s.dtype) * (1 + 2*z/eps)
}

// sinkhornMap is the plain map at one ε.
type sinkhornMap struct {
	*bench
	eps float64
}

func (s sinkhornMap) eval(g, image []float64) (float64, error) { return s.sweep(g, image, s.eps, nil) }

// solveAt iterates at one ε in one precision with the acceleration asked for.
func (r *run) solveAt(ctx context.Context, b *bench, to goal) (solver.Status, error) {
	switch {
	case r.settings.symmetric:
		return r.iterate(ctx, b, symmetricMap{b, to.eps}, to)
	case r.settings.Acceleration == Overrelaxed:
		return r.overrelax(ctx, b, to)
	}
	return r.iterate(ctx, b, sinkhornMap{b, to.eps}, to)
}
