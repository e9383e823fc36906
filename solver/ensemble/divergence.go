package ensemble

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
)

// Divergence is the Sinkhorn divergences of all problems (Genevay, Peyré and
// Cuturi 2018; with KL penalties Séjourné et al. 2019),
//
//	S(a, b) = OT(a, b) - OT(a, a)/2 - OT(b, b)/2 + ε/2 (m_a - m_b)²
//
// with the same ε in all terms of a problem; see package sinkhorn.
type Divergence struct {
	Value      []float64
	MassTerm   []float64 // ε/2 (m_a - m_b)²; 0 where both marginals are exact
	AB, AA, BB []Outcome
	Repeated   int // terms that float32 did not solve
	Duration   time.Duration
}

// Status is Converged where all terms of all problems are; or else Canceled, or
// the first other one.
func (d *Divergence) Status() solver.Status {
	all := Result{Problems: append(append(append([]Outcome(nil), d.AB...), d.AA...), d.BB...)}
	return all.Status()
}

// SolveDivergence solves the three problems of the divergence of each problem of
// p, in two launches, since the terms within a measure take the ε that the term
// between both finds. It needs points and, for each problem, one penalty for
// both sides.
func SolveDivergence(ctx context.Context, dev gpu.Device, p Problem, settings Settings) (*Divergence, error) {
	begin := time.Now()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if p.Ground == geometry.GivenMatrix {
		return nil, fmt.Errorf("ensemble: divergence: %w: cost matrices between two sets say nothing of the costs within each", solver.ErrInvalid)
	}
	for k := range p.N {
		a, b := of(p.RhoSource, k), of(p.RhoTarget, k)
		if exact(a) != exact(b) || (!exact(a) && a != b) {
			return nil, fmt.Errorf("ensemble: divergence: problem %d: %w: penalties rho %v and %v, want one for both sides", k, solver.ErrInvalid, a, b)
		}
	}
	settings.Map = false
	between, err := Solve(ctx, dev, p, settings)
	if err != nil {
		return nil, err
	}
	count := len(p.N)
	d := &Divergence{AB: between.Problems, Repeated: between.Repeated, Value: make([]float64, count), MassTerm: make([]float64, count)}
	q := within(p, between.Problems)
	settings.Start = nil // it belongs to the targets of the first term
	inside, err := Solve(ctx, dev, q, settings)
	if err != nil {
		return nil, err
	}
	d.AA, d.BB = inside.Problems[:count], inside.Problems[count:]
	d.Repeated += inside.Repeated
	i, j := 0, 0
	for k := range count {
		if !exact(of(p.RhoSource, k)) {
			ma, _ := mass("", p.A, i, i+p.N[k])
			mb, _ := mass("", p.B, j, j+p.M[k])
			d.MassTerm[k] = d.AB[k].Epsilon / 2 * (ma - mb) * (ma - mb)
		}
		d.Value[k] = d.AB[k].Certificate.Dual - d.AA[k].Certificate.Dual/2 - d.BB[k].Certificate.Dual/2 + d.MassTerm[k]
		i, j = i+p.N[k], j+p.M[k]
	}
	d.Duration = time.Since(begin)
	return d, nil
}

// within is the problems of each source with itself, and then of each target.
func within(p Problem, between []Outcome) Problem {
	q := Problem{
		N: append(append([]int(nil), p.N...), p.M...), D: p.D, Ground: p.Ground,
		X: append(append([]float64(nil), p.X...), p.Y...),
		A: append(weights(p.A, p.N), weights(p.B, p.M)...),
	}
	q.M, q.Y, q.B = q.N, q.X, q.A
	for range 2 {
		for k, o := range between {
			eps := o.Epsilon
			if math.IsNaN(eps) { // of a problem that was canceled before it began
				eps = 1
			}
			q.Epsilon = append(q.Epsilon, eps)
			q.RhoSource = append(q.RhoSource, of(p.RhoSource, k))
		}
	}
	q.RhoTarget = q.RhoSource
	return q
}

// weights are w, or those that nil stands for.
func weights(w []float64, sizes []int) []float64 {
	if w != nil {
		return append([]float64(nil), w...)
	}
	for _, n := range sizes {
		for range n {
			w = append(w, 1/float64(n))
		}
	}
	return w
}
