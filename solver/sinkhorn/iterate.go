package sinkhorn

import (
	"context"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/mixing"
)

// run is the state of a solve: the iterate and what it cost so far.
type run struct {
	settings Settings
	g        []float64
	sweeps   int
	residual float64 // of the last sweep
}

// fixedPoint is a map whose fixed point solves the problem at one ε in one
// precision. eval writes the image of g and returns the L1 residual of g,
// relative to the mass.
type fixedPoint interface {
	eval(g, image []float64) (residual float64, err error)
}

// goal says when to stop iterating at one ε in one precision.
type goal struct {
	eps       float64
	tolerance float64
	sweeps    int // at most
	// floor is the residual below which rounding alone may keep the iterates
	// from progress: reaching it without tolerance is Stalled.
	floor func() float64
	// leave, if not nil, is the residual below which a higher precision, which
	// comes next, gets on faster: mixing solves for small differences of
	// residuals, which rounding spoils long before it stops plain steps.
	leave func() float64
}

// patience is how many sweeps may pass without a new lowest residual before
// the iteration is taken to have stalled. Accelerated residuals do not fall at
// every step; plain ones do until rounding stops them, or stay on a plateau: see
// bench.plateaus. Then the dual must rise instead, and mixed steps that lower it
// are taken back.
const patience = 60

// iterate runs the accelerated iteration on r.g until the goal. On return r.g
// is the iterate of the last residual.
func (r *run) iterate(ctx context.Context, s *bench, t fixedPoint, to goal) (solver.Status, error) {
	var (
		image    = make([]float64, len(r.g))
		steps    = mixing.NewSafeguard(s.b, 0, r.settings.Acceleration == Anderson)
		best     = math.Inf(1)
		since    = 0            // sweeps since best, or highest
		highest  = math.Inf(-1) // dual value while climbing
		climbing = false        // on a plateau
	)
	for range to.sweeps {
		if ctx.Err() != nil {
			return solver.Canceled, nil
		}
		residual, err := t.eval(r.g, image)
		if err != nil {
			return 0, err
		}
		r.sweeps++
		r.residual = residual
		if r.settings.Trace != nil {
			r.settings.Trace(Iteration{N: r.sweeps, Epsilon: to.eps, Error: residual, DType: s.dtype})
		}
		if residual <= to.tolerance {
			return solver.Converged, nil
		}
		if steps.Worse(residual) || steps.Mixed() && climbing && !(s.dual >= highest) {
			steps.TakeBack(r.g) // to where the dual is not lower
			continue
		}
		if math.IsNaN(residual) || math.IsInf(residual, 0) {
			return solver.Diverged, nil
		}
		if residual < best {
			best, since = residual, 0
		} else {
			since++
		}
		if climbing && s.dual > highest+solver.Roundoff(s.dtype)*math.Abs(s.dual) {
			highest, since = s.dual, 0
		}
		if stalled := since > patience || since > 8 && residual <= to.floor(); stalled && (climbing || !s.plateaus()) {
			return solver.Stalled, nil
		} else if stalled {
			climbing, highest, since = true, s.dual, 0
		}
		if to.leave != nil && residual <= to.leave() {
			return solver.Stalled, nil
		}
		if steps.Step(r.g, image, residual); steps.Mixed() {
			s.target.projectAll(r.g)
		}
	}
	return solver.MaxIterations, nil
}
