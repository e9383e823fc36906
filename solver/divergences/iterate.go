package divergences

import (
	"context"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/mixing"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

// run is the state of a solve: the iterate and what it cost so far. Potentials
// are those of the law's z.
type run struct {
	settings Settings
	task     *task
	p, q     []float64
	warm     bool // p is near the rows' roots
	colMass  []float64
	sweeps   int
	residual float64 // of the last sweep
}

// sweep solves the rows for q, then the columns: image is the next q, and the
// residual the L1 error of the column sums of the plan of (p, q), relative to the
// mass. The rows' sums are exact but for rounding.
func (r *run) sweep(b *bench, e equation, q, image []float64) (float64, error) {
	if r.colMass == nil {
		r.colMass = make([]float64, len(q))
	}
	low := 0.0
	if r.task.gauged() {
		low = least(q, r.task.b)
		for j := range q {
			q[j] -= low
		}
	}
	start := r.p
	if r.warm {
		for i := range r.p {
			r.p[i] += low
		}
	} else {
		start = nil
	}
	if err := b.rows.solve(e, q, start, r.p, nil); err != nil {
		return 0, err
	}
	r.warm = true
	up := 0.0
	p := r.p
	if r.task.gauged() {
		up = least(r.p, r.task.a)
		p = make([]float64, len(r.p))
		for i, v := range r.p {
			p[i] = v - up
		}
	}
	copy(image, q)
	for j := range image {
		image[j] += up
	}
	if err := b.cols.solve(e, p, image, image, r.colMass); err != nil {
		return 0, err
	}
	residual := 0.0
	for j, w := range r.task.b {
		image[j] -= up
		if w == 0 && math.IsNaN(image[j]) { // no root, and nobody who needs one
			image[j] = q[j]
		}
		if w > 0 {
			residual += w * math.Abs(r.colMass[j]-1)
		}
	}
	for i, w := range r.task.a {
		if w > 0 && math.IsNaN(r.p[i]) {
			residual = math.NaN()
		}
	}
	return residual / r.task.mass, nil
}

// least is the smallest v of weight above 0.
func least(v, w []float64) float64 {
	low := math.Inf(1)
	for j, x := range v {
		if w[j] > 0 {
			low = min(low, x)
		}
	}
	if math.IsInf(low, 0) {
		return 0
	}
	return low
}

// goal says when to stop iterating at one ε in one precision.
type goal struct {
	eps       float64
	tolerance float64
	sweeps    int     // at most
	leave     float64 // times the floor: where a higher precision goes on; 0 for none
}

// patience is how many sweeps may pass without a new lowest residual before
// the iteration is taken to have stalled.
const patience = 60

// floor is the residual that rounding of z leaves.
func (r *run) floor(dtype tensor.DType) float64 {
	z := 0.0
	for i, p := range r.p {
		if r.task.a[i] > 0 {
			z = max(z, math.Abs(p))
		}
	}
	return solver.Roundoff(dtype) * (1 + 2*z)
}

// iterate runs the accelerated iteration on r.q until the goal. On return r.q is
// the iterate of the last residual.
func (r *run) iterate(ctx context.Context, b *bench, to goal) (solver.Status, error) {
	var (
		e     = r.task.equation(to.eps)
		image = make([]float64, len(r.q))
		steps = mixing.NewSafeguard(r.task.b, 2, !r.settings.NoAcceleration)
		best  = math.Inf(1)
		since = 0 // sweeps since best
	)
	r.warm = false
	for range to.sweeps {
		if ctx.Err() != nil {
			return solver.Canceled, nil
		}
		residual, err := r.sweep(b, e, r.q, image)
		if err != nil {
			return 0, err
		}
		r.sweeps++
		r.residual = residual
		if r.settings.Trace != nil {
			r.settings.Trace(sinkhorn.Iteration{N: r.sweeps, Epsilon: to.eps, Error: residual, DType: b.dtype})
		}
		if residual <= to.tolerance {
			return solver.Converged, nil
		}
		if steps.Worse(residual) {
			steps.TakeBack(r.q)
			r.warm = false
			continue
		}
		if !finite(image, r.task.b) {
			return solver.Diverged, nil
		}
		if residual < best {
			best, since = residual, 0
		} else if since++; since > patience || since > 8 && residual <= r.floor(b.dtype) {
			return solver.Stalled, nil
		}
		if residual <= to.leave*r.floor(b.dtype) {
			return solver.Stalled, nil
		}
		if steps.Step(r.q, image, residual); steps.Mixed() && !finite(r.q, r.task.b) {
			steps.Refuse(r.q)
		}
	}
	return solver.MaxIterations, nil
}

// finite says whether all v of weight above 0 are.
func finite(v, w []float64) bool {
	for j, x := range v {
		if w[j] > 0 && (math.IsNaN(x) || math.IsInf(x, 0)) {
			return false
		}
	}
	return true
}
