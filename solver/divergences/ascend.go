package divergences

import (
	"context"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/kernels/fdual"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

// ascend climbs the dual as a function of q alone, each p being the rows' roots
// for it: concave, with the gradient b_j (1 - column sum), so that a line search
// cannot fail where alternating updates crawl. That is where ψ's domain ends: as its
// potentials come near that end, the plan becomes nearly a matching of few entries
// in a row, as unregularised transport's is.
//
// Directions are Newton's where the Schur complement is small enough to be
// factored, else those of L-BFGS with the alternating step as its metric.
func (r *run) ascend(ctx context.Context, b *bench, to goal) (solver.Status, error) {
	t := r.task
	e := t.equation(to.eps)
	sign := math.Copysign(1, e.law.rate)
	m := t.m
	image, gradient, direction := make([]float64, m), make([]float64, m), make([]float64, m)
	origin, next := make([]float64, m), make([]float64, m)
	var memory secants
	budget := to.sweeps
	evaluate := func() (float64, error) {
		residual, err := r.sweep(b, e, r.q, image)
		if err != nil {
			return 0, err
		}
		r.sweeps++
		budget--
		for j, w := range t.b {
			next[j] = 0
			if w > 0 {
				next[j] = sign * w * (1 - r.colMass[j])
			}
		}
		if r.settings.Trace != nil {
			r.settings.Trace(sinkhorn.Iteration{N: r.sweeps, Epsilon: to.eps, Error: residual, DType: b.dtype})
		}
		r.residual = residual
		return residual, nil
	}
	r.warm = false
	residual, err := evaluate()
	if err != nil {
		return 0, err
	}
	best, since := math.Inf(1), 0
	// Of Levenberg and Marquardt: S is singular for constants, and for as many
	// more potentials as ψ'' = 0 cuts the pairs into parts. Up where a line search
	// had to shorten a step, down where not.
	const leastRidge, mostRidge = 1e-13, 1.0
	ridge := 1e-9
	for {
		switch {
		case residual <= to.tolerance:
			return solver.Converged, nil
		case ctx.Err() != nil:
			return solver.Canceled, nil
		case budget <= 0:
			return solver.MaxIterations, nil
		case !finite(next, t.b):
			return solver.Diverged, nil
		}
		if residual < best {
			best, since = residual, 0
		} else if since++; since > patience {
			return solver.Stalled, nil
		}
		copy(gradient, next)
		if !(t.newton() && r.newton(e, ridge, gradient, direction)) {
			memory.direction(direction, gradient, r.q, image, t.b)
		}
		slope := dot(gradient, direction)
		if !(slope > 0) || !finite(direction, t.b) {
			memory = secants{}
			for j := range direction {
				direction[j] = image[j] - r.q[j]
			}
			slope = dot(gradient, direction)
		}
		copy(origin, r.q)
		// The step to where the slope is small against its first: secants between
		// the ends of a bracket, triple steps until there is one.
		low, lowSlope, high, step := 0.0, slope, math.Inf(1), 1.0
		trial := 0
		for ; trial < 12; trial++ {
			for j := range origin {
				r.q[j] = origin[j] + step*direction[j]
			}
			if residual, err = evaluate(); err != nil {
				return 0, err
			}
			at := dot(next, direction)
			if residual <= to.tolerance || budget <= 0 || ctx.Err() != nil {
				break
			}
			if !(at >= -0.3*slope) { // too far, NaN included
				high = step
				fraction := 0.3
				if at < 0 && !math.IsInf(at, 0) {
					fraction = min(max(lowSlope/(lowSlope-at), 0.1), 0.9)
				}
				step = low + (high-low)*fraction
				continue
			}
			if at <= 0.9*slope || trial >= 3 {
				break
			}
			low, lowSlope = step, at
			if math.IsInf(high, 1) {
				step *= 3
			} else {
				step = (low + high) / 2
			}
		}
		switch {
		case trial == 0:
			ridge = max(ridge/10, leastRidge)
		case trial > 2:
			ridge = min(ridge*100, mostRidge)
		}
		memory.add(r.q, origin, gradient, next)
	}
}

// secants are the steps and gradients' changes that L-BFGS remembers.
type secants struct{ steps, changes [][]float64 }

const remembered = 20

func (s *secants) add(q, origin, before, after []float64) {
	step, change := make([]float64, len(q)), make([]float64, len(q))
	for j := range q {
		step[j], change[j] = q[j]-origin[j], before[j]-after[j]
	}
	if !(dot(step, change) > 0) {
		return
	}
	s.steps, s.changes = append(s.steps, step), append(s.changes, change)
	if len(s.steps) > remembered {
		s.steps, s.changes = s.steps[1:], s.changes[1:]
	}
}

// direction is that of the two-loop recursion (Nocedal and Wright, "Numerical
// optimization", algorithm 7.4) from the diagonal metric in which the gradient's
// step is the alternating one.
func (s *secants) direction(out, gradient, q, image, b []float64) {
	copy(out, gradient)
	factors := make([]float64, len(s.steps))
	for k := len(s.steps) - 1; k >= 0; k-- {
		factors[k] = dot(s.steps[k], out) / dot(s.steps[k], s.changes[k])
		for j := range out {
			out[j] -= factors[k] * s.changes[k][j]
		}
	}
	for j := range out {
		h := (image[j] - q[j]) / gradient[j]
		if !(h > 0) || math.IsInf(h, 0) {
			h = 1 / b[j]
		}
		if b[j] == 0 {
			h = 0
		}
		out[j] *= h
	}
	for k, step := range s.steps {
		c := factors[k] - dot(s.changes[k], out)/dot(step, s.changes[k])
		for j := range out {
			out[j] += c * step[j]
		}
	}
}

func dot(a, b []float64) float64 {
	s := 0.0
	for k, x := range a {
		s += x * b[k]
	}
	return s
}

// newton says whether Newton's directions are affordable: their work per step is
// n m² + m³/3, and their memory 8 n m + 16 m² bytes.
func (t *task) newton() bool { return t.m <= 2048 && t.n <= (1<<22)/t.m }

// newton writes the solution of (S + ridge diag S) d = gradient, with the weights h_ij = P_ij
// |(log φ)'| and S_jk = δ_jk Σ_i h_ij - Σ_i h_ij h_ik / Σ_j h_ij.
func (r *run) newton(e equation, ridge float64, gradient, direction []float64) bool {
	t, l := r.task, e.law
	n, m := t.n, t.m
	scaled := mat.NewDense(n, m, nil) // h_ij / √Σ_j h_ij
	_ = parallel.Each(context.Background(), 0, n, func(i int) {
		h := scaled.RawRowView(i)
		t.Geometry.Row(i, h)
		sum := 0.0
		for j, c := range h {
			h[j] = 0
			w := t.a[i] * t.b[j]
			if w == 0 {
				continue
			}
			z := r.p[i] + r.q[j]
			if e.slope != 0 {
				z += e.slope * c
			}
			if e.decay != 0 {
				w *= math.Exp(e.shift - e.decay*c)
			}
			if w > 0 {
				h[j] = w * l.rise(z)
				sum += h[j]
			}
		}
		if sum > 0 {
			for j := range h {
				h[j] /= math.Sqrt(sum)
			}
		}
	})
	diagonal := make([]float64, m)
	for i := range n {
		h := scaled.RawRowView(i)
		sum := 0.0
		for _, x := range h {
			sum += x
		}
		for j, x := range h {
			diagonal[j] += x * sum // √Σ h is the sum of the scaled row
		}
	}
	// Scaled to a unit diagonal, since weights range over many orders.
	for j, x := range diagonal {
		diagonal[j] = 1 / math.Sqrt(x)
		if math.IsInf(diagonal[j], 0) || math.IsNaN(diagonal[j]) {
			diagonal[j] = 0
		}
	}
	for i := range n {
		h := scaled.RawRowView(i)
		for j := range h {
			h[j] *= diagonal[j]
		}
	}
	var schur mat.SymDense
	schur.SymOuterK(-1, scaled.T())
	for j := range m {
		schur.SetSym(j, j, schur.At(j, j)+1+ridge)
	}
	right := mat.NewVecDense(m, nil)
	for j, g := range gradient {
		right.SetVec(j, g*diagonal[j])
	}
	var chol mat.Cholesky
	var d mat.VecDense
	if !chol.Factorize(&schur) || chol.SolveVecTo(&d, right) != nil {
		return false
	}
	for j := range direction {
		direction[j] = d.AtVec(j) * diagonal[j]
	}
	return true
}

// rise is |φ'(z)|.
func (l law) rise(z float64) float64 {
	phi := l.density(z)
	switch {
	case phi == 0:
		return 0
	case l.kind == fdual.Exp:
		return phi
	case l.kind == fdual.JensenShannon:
		return phi * (1 + phi)
	case l.kind == fdual.TotalVariation:
		if math.Abs(z) > 0.5 {
			return 1 / l.delta
		}
		return 0
	}
	return phi / (z * math.Abs(l.a-1))
}

// climbs says whether a run that ended so goes on by ascending.
func climbs(s solver.Status, dtype tensor.DType) bool {
	return dtype == tensor.Float64 && (s == solver.Stalled || s == solver.MaxIterations || s == solver.Diverged)
}
