package sinkhorn

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/tensor"
)

// Divergence is the Sinkhorn divergence (Genevay, Peyré and Cuturi 2018; of
// unequal masses Séjourné et al. 2019),
//
//	S(a, b) = OT(a, b) - OT(a, a)/2 - OT(b, b)/2 + ε/2 (m_a - m_b)²
//
// with the same ε and penalty in all terms and the regulariser relative to the
// product of the marginals. It is not negative for any penalty and any of the
// costs between points, since it is at least ε/2 |a exp(f/ε) - b exp(g/ε)|² in
// the norm of the kernel exp(-C/ε), f and g being the potentials of the
// symmetric terms, and vanishes where both measures are equal. (With L2, where
// they are equal point by point: see PenaltyKind.)
type Divergence struct {
	Value      float64
	AB, AA, BB Term
	MassTerm   float64      // ε/2 (m_a - m_b)²; 0 where both marginals are exact
	Epsilon    float64      // absolute
	DType      tensor.DType // of the last iterations
	Duration   time.Duration
}

// Term is one transport problem of a divergence.
type Term struct {
	Value       float64 // its dual value
	Status      solver.Status
	Iterations  int
	Certificate Certificate
	Plan        Plan
}

// Status is Converged where all terms are, or else the first other one.
func (d *Divergence) Status() solver.Status {
	for _, t := range []Term{d.AB, d.AA, d.BB} {
		if t.Status != solver.Converged {
			return t.Status
		}
	}
	return solver.Converged
}

// SolveDivergence solves the three problems of the divergence of p. Both sides
// must have the same penalty: with different ones, or one exact marginal, the
// symmetric terms would be those of two different problems, and the difference
// would not vanish where the measures are equal.
func SolveDivergence(ctx context.Context, dev gpu.Device, p Problem, settings Settings) (*Divergence, error) {
	start := time.Now()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if p.Source != p.Target && !(p.Source.IsExact() && p.Target.IsExact()) {
		return nil, fmt.Errorf("divergence: %w: the penalties are %v of the source and %v of the target, want the same on both sides, or the divergence of equal measures would not be 0",
			solver.ErrInvalid, p.Source, p.Target)
	}
	source, target, err := within(p.Geometry)
	if err != nil {
		return nil, err
	}
	t, _, err := p.task(ctx)
	if err != nil {
		return nil, err
	}
	p.Epsilon, p.Scale = t.eps, Absolute
	p.A, p.B = t.a, t.b
	d := &Divergence{Epsilon: t.eps}
	aa, bb := p, p
	aa.Geometry, aa.A, aa.B = source, t.a, t.a
	bb.Geometry, bb.A, bb.B = target, t.b, t.b
	for _, part := range []struct {
		to *Term
		p  Problem
	}{{&d.AB, p}, {&d.AA, aa}, {&d.BB, bb}} {
		s := settings
		if part.to != &d.AB {
			s.Start = nil // it belongs to the target of the first term
			s.symmetric = true
		}
		r, err := Solve(ctx, dev, part.p, s)
		if err != nil {
			return nil, err
		}
		d.DType = r.Stages[len(r.Stages)-1].DType
		*part.to = Term{r.Certificate.Dual, r.Status, r.Iterations, r.Certificate, r.Plan}
		if r.Status == solver.Canceled || r.Status == solver.Diverged {
			part.to.Value = math.NaN()
			break
		}
	}
	if !p.Source.IsExact() {
		diff := measure.Mass(t.a) - measure.Mass(t.b)
		d.MassTerm = t.eps / 2 * diff * diff
	}
	d.Value = d.AB.Value - d.AA.Value/2 - d.BB.Value/2 + d.MassTerm
	d.Duration = time.Since(start)
	return d, nil
}

// within are the geometries of the source with itself and of the target with itself.
func within(g geometry.Geometry) (source, target geometry.Geometry, err error) {
	switch g := g.(type) {
	case geometry.Sharded:
		x, y := g, g
		if x.Geometry, y.Geometry, err = within(g.Geometry); err != nil {
			return nil, nil, err
		}
		return x, y, nil
	case geometry.Points:
		return geometry.Points{X: g.X, Y: g.X, N: g.N, M: g.N, D: g.D, Ground: g.Ground},
			geometry.Points{X: g.Y, Y: g.Y, N: g.M, M: g.M, D: g.D, Ground: g.Ground}, nil
	case geometry.Grid:
		if g.Dim() == 0 {
			break
		}
		x, y := geometry.Grid{Ground: g.Ground}, geometry.Grid{Ground: g.Ground}
		for _, a := range g.Axes {
			x.Axes = append(x.Axes, geometry.Axis{X: a.X, Weight: a.Weight})
			if a.Y == nil {
				a.Y = a.X
			}
			y.Axes = append(y.Axes, geometry.Axis{X: a.Y, Weight: a.Weight})
		}
		return x, y, nil
	}
	return nil, nil, fmt.Errorf("divergence: %w: a cost matrix between two sets says nothing of the costs within each", solver.ErrInvalid)
}

// symmetricMap is the averaged update f <- (f + damp softmin(f))/2 of a problem
// between a measure and itself, whose two potentials are equal (Feydy et al.
// 2019): it converges in a few steps where alternating updates oscillate.
type symmetricMap struct {
	*bench
	eps float64
}

func (s symmetricMap) eval(f, image []float64) (float64, error) {
	if err := s.g.set(f); err != nil {
		return 0, err
	}
	if err := s.op.Softmin(s.out.Tensor, s.g.Tensor, s.logb.Tensor, s.eps); err != nil {
		return 0, err
	}
	if err := s.out.get(); err != nil {
		return 0, err
	}
	residual := 0.0
	for i, o := range s.out.host {
		image[i] = (f[i] + s.source.update(o, s.a[i], s.eps)) / 2
		s.f[i] = f[i]
		if s.a[i] > 0 {
			residual += math.Abs(s.a[i]*math.Exp((f[i]-o)/s.eps) - s.source.wanted(s.a[i], f[i], o, s.eps))
		}
	}
	return 2 * residual / s.mass, nil
}
