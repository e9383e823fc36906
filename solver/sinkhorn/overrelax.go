package sinkhorn

import (
	"context"
	"math"

	"github.com/fortet/fortet/solver"
)

// Over-relaxation (Thibault, Chizat, Dossal and Papadakis 2021; Lehmann, von
// Renesse, Sambale and Uschmajew 2022): both half-steps overshoot by ω. If
// plain sweeps contract by θ, the best factor is ω = 2/(1+√(1-θ)), and the
// rate becomes ω-1. θ is measured on plain sweeps.
const (
	rateSweeps = 10   // plain sweeps before θ is read
	maxOmega   = 1.98 // over-relaxation is stable below 2
)

// relaxed is the over-relaxed map.
type relaxed struct {
	*bench
	eps   float64
	state *relaxation
}

func (s relaxed) eval(g, image []float64) (float64, error) {
	return s.sweep(g, image, s.eps, s.state)
}

// overrelax alternates plain phases, which measure the rate, with over-relaxed
// ones. An over-relaxed phase ends when its residual exceeds that at its
// start: its iterate is then taken back, and the next plain phase is longer.
func (r *run) overrelax(ctx context.Context, s *bench, to goal) (solver.Status, error) {
	left := to.sweeps
	accelerated := r.settings.Acceleration
	defer func() { r.settings.Acceleration = accelerated }()
	r.settings.Acceleration = None
	for length := rateSweeps; ; length = min(2*length, 400) {
		phase := to
		phase.sweeps = min(length, left)
		first := r.sweeps
		var before float64
		trace := r.settings.Trace
		r.settings.Trace = func(it Iteration) {
			if it.N == first+phase.sweeps/2 {
				before = it.Error
			}
			if trace != nil {
				trace(it)
			}
		}
		status, err := r.iterate(ctx, s, sinkhornMap{s, to.eps}, phase)
		r.settings.Trace = trace
		left -= r.sweeps - first
		if err != nil || status != solver.MaxIterations || left <= 0 {
			return status, err
		}
		theta := math.Pow(r.residual/before, 1/float64(phase.sweeps-phase.sweeps/2))
		if !(theta > 0 && theta < 1) {
			continue
		}
		omega := min(2/(1+math.Sqrt(1-theta)), maxOmega)
		keep, start := append([]float64(nil), r.g...), r.residual
		state := &relaxation{omega: omega, f: append([]float64(nil), s.f...)}
		status, err = r.overshoot(ctx, s, to, state, &left, start)
		s.logaSet = false
		if err != nil || status == solver.Canceled || left <= 0 {
			return status, err
		}
		// A converged residual belongs to the relaxed source potential; the
		// plain phase that follows confirms it for the exact one.
		if !(r.residual <= start) {
			copy(r.g, keep)
		}
	}
}

// overshoot runs the over-relaxed map until the goal, or until its residual
// shows that ω was too large or no longer helps; the latter is Stalled.
func (r *run) overshoot(ctx context.Context, s *bench, to goal, state *relaxation, left *int, start float64) (solver.Status, error) {
	image := make([]float64, len(r.g))
	best, since := math.Inf(1), 0
	for *left > 0 {
		if ctx.Err() != nil {
			return solver.Canceled, nil
		}
		residual, err := relaxed{s, to.eps, state}.eval(r.g, image)
		if err != nil {
			return 0, err
		}
		r.sweeps++
		*left--
		r.residual = residual
		if r.settings.Trace != nil {
			r.settings.Trace(Iteration{N: r.sweeps, Epsilon: to.eps, Error: residual, DType: s.dtype})
		}
		if residual <= to.tolerance {
			return solver.Converged, nil
		}
		if residual < best {
			best, since = residual, 0
		} else {
			since++
		}
		if !(residual <= 10*start) || since > patience {
			return solver.Stalled, nil
		}
		copy(r.g, image)
	}
	return solver.MaxIterations, nil
}
