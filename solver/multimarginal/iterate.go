package multimarginal

import (
	"context"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/mixing"
)

// fixedPoint is a map whose fixed point solves a problem at one ε. eval writes
// the image of a state and returns the residual of the state, relative to the
// mass.
type fixedPoint interface {
	eval(state, image []float64) (residual float64, err error)
}

// goal says when to stop iterating.
type goal struct {
	tolerance  float64
	sweeps     int // at most
	accelerate bool
	// floor is the residual below which rounding alone may keep the iterates
	// from progress: reaching it without tolerance is Stalled.
	floor func() float64
	// leave, if not nil, is the residual below which a higher precision, which
	// comes next, gets on faster.
	leave func() float64
	trace func(sweep int, residual float64)
}

// outcome is how an iteration ended.
type outcome struct {
	status   solver.Status
	sweeps   int
	residual float64
}

// patience is how many sweeps may pass without a new lowest residual before
// the iteration is taken to have stalled.
const patience = 60

// iterate runs the accelerated iteration on state, which on return is that of the
// last residual. weights are those of the norm in which steps are mixed.
func iterate(ctx context.Context, t fixedPoint, state, weights []float64, to goal) (outcome, error) {
	var (
		image = make([]float64, len(state))
		steps = mixing.NewSafeguard(weights, 0, to.accelerate)
		best  = math.Inf(1)
		since = 0 // sweeps since best
		end   = outcome{status: solver.MaxIterations}
	)
	for end.sweeps < to.sweeps {
		if ctx.Err() != nil {
			end.status = solver.Canceled
			return end, nil
		}
		residual, err := t.eval(state, image)
		if err != nil {
			return end, err
		}
		end.sweeps++
		end.residual = residual
		if to.trace != nil {
			to.trace(end.sweeps, residual)
		}
		if residual <= to.tolerance {
			end.status = solver.Converged
			return end, nil
		}
		if steps.Worse(residual) {
			steps.TakeBack(state)
			continue
		}
		if math.IsNaN(residual) || math.IsInf(residual, 0) {
			end.status = solver.Diverged
			return end, nil
		}
		if residual < best {
			best, since = residual, 0
		} else if since++; since > patience || since > 8 && residual <= to.floor() {
			end.status = solver.Stalled
			return end, nil
		}
		if to.leave != nil && residual <= to.leave() {
			end.status = solver.Stalled
			return end, nil
		}
		steps.Step(state, image, residual)
	}
	return end, nil
}
