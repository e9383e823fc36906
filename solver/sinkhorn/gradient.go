package sinkhorn

import (
	"context"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/tensor"
)

// Gradient is the derivative of the optimal value, Certificate.Dual at
// convergence, at a fixed absolute ε:
//
//	∂/∂x_i = Σ_j P_ij ∂c/∂x(x_i, y_j)
//	∂/∂a_i = d(f_i) - ε (Σ_j P_ij / a_i - Σ_j b_j)
//
// where d(f) is f of an exact marginal and -ρ (exp(-f/ρ) - 1) of a KL penalty,
// min(f, ρ) of TV and min(f, ρ a_i) of L2, and P_ij/a_i is defined by the
// potentials where a_i = 0. These are derivatives at fixed potentials and plan,
// since both are optimal (the envelope theorem; Feydy et al. 2019, Séjourné et
// al. 2019): their error is that of the potentials.
//
// Where both marginals are exact, the problem has a value only for equal
// masses, and A and B hold its derivative in the directions that keep them
// equal: A is defined up to a constant that B has with the opposite sign. A
// step of A alone must sum to zero. Where two points coincide, |x-y| has no
// derivative; such a pair adds nothing. Points of a grid move each by itself, in the
// coordinates of its axes.
type Gradient struct {
	X, Y []float64 // (n, d) and (m, d); nil where costs are given
	A, B []float64 // (n) and (m)
}

// Gradient differentiates the value of the problem that the plan solves by its
// points and weights, in four passes over the pairs.
func (p Plan) Gradient(ctx context.Context, dev gpu.Device) (*Gradient, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	g := &Gradient{}
	var err error
	if g.X, g.A, err = p.sourceGradient(ctx, dev); err != nil {
		return nil, err
	}
	g.Y, g.B, err = p.Reverse().sourceGradient(ctx, dev)
	return g, err
}

// SourceGradient is the part X of the gradient, in half of the passes.
func (p Plan) SourceGradient(ctx context.Context, dev gpu.Device) ([]float64, error) {
	if _, _, err := p.cloud(); err != nil {
		return nil, err
	}
	x, _, err := p.sourceGradient(ctx, dev)
	return x, err
}

// sourceGradient returns the derivatives by x, nil where costs are given, and by a.
func (p Plan) sourceGradient(ctx context.Context, dev gpu.Device) (x, a []float64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	op, err := p.Geometry.Open(dev, tensor.Float64, geometry.Options{CacheBytes: -1})
	if err != nil {
		return nil, nil, err
	}
	defer op.Close()
	n, m := p.Geometry.Size()
	var free []tensor.Tensor
	defer func() {
		for _, t := range free {
			t.Free()
		}
	}()
	put := func(v []float64, shape ...int) (t tensor.Tensor) {
		if err == nil {
			if t, err = tensor.From(dev, v, shape...); err == nil {
				free = append(free, t)
			}
		}
		return t
	}
	out, g, logb := put(make([]float64, n), n), put(p.G, m), put(measure.Logs(p.B), m)
	if err != nil {
		return nil, nil, err
	}
	if err := op.Softmin(out, g, logb, p.Epsilon); err != nil {
		return nil, nil, err
	}
	s, err := tensor.Values[float64](out)
	if err != nil {
		return nil, nil, err
	}
	a, ratio := make([]float64, n), make([]float64, n)
	massB := measure.Mass(p.B)
	for i, f := range p.F {
		ratio[i] = math.Exp((f - s[i]) / p.Epsilon)
		a[i] = p.Source.slope(f, p.A[i]) - p.Epsilon*(ratio[i]-massB)
	}
	d := p.Geometry.Dim()
	if d == 0 {
		return nil, a, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	grad := put(make([]float64, n*d), n, d)
	if err != nil {
		return nil, nil, err
	}
	if err := op.Apply(geometry.Apply{F: out, G: g, LogB: logb, Grad: grad}, p.Epsilon); err != nil {
		return nil, nil, err
	}
	if x, err = tensor.Values[float64](grad); err != nil {
		return nil, nil, err
	}
	points, _ := geometry.Whole(p.Geometry).(geometry.Points)
	for i := range n {
		row := x[i*d : (i+1)*d]
		if points.Ground == geometry.Cosine {
			offSphere(row, points.X[i*d:(i+1)*d])
		}
		// A point without mass does not matter, however far its ratio.
		mass := 0.0
		if p.A[i] > 0 {
			mass = p.A[i] * ratio[i]
		}
		for k := range row {
			row[k] *= mass
		}
	}
	return x, a, nil
}

// offSphere makes of the derivative by u = x/|x| that by x. Operators of the
// cosine cost see the points on the sphere.
func offSphere(grad, x []float64) {
	norm, along := 0.0, 0.0
	for _, v := range x {
		norm = math.Hypot(norm, v)
	}
	for k, v := range x {
		along += grad[k] * v / norm
	}
	for k, v := range x {
		grad[k] = (grad[k] - along*v/norm) / norm
	}
}

// Gradient differentiates the value of the divergence, at a fixed absolute ε
// (see the type). Both roles of a measure in its symmetric term count, and so
// does the mass term.
func (d *Divergence) Gradient(ctx context.Context, dev gpu.Device) (*Gradient, error) {
	if d.AB.Plan.Geometry == nil || d.AA.Plan.Geometry == nil || d.BB.Plan.Geometry == nil {
		return nil, fmt.Errorf("divergence: gradient: %w: not all of its terms were solved", solver.ErrInvalid)
	}
	ab, err := d.AB.Plan.Gradient(ctx, dev)
	if err != nil {
		return nil, err
	}
	mass := 0.0
	if !d.AB.Plan.Source.IsExact() {
		mass = d.Epsilon * (measure.Mass(d.AB.Plan.A) - measure.Mass(d.AB.Plan.B))
	}
	for _, side := range []struct {
		of    Plan
		x, w  []float64
		slope float64 // of the mass term
	}{{d.AA.Plan, ab.X, ab.A, mass}, {d.BB.Plan, ab.Y, ab.B, -mass}} {
		g, err := side.of.Gradient(ctx, dev)
		if err != nil {
			return nil, err
		}
		for k := range side.x {
			side.x[k] -= (g.X[k] + g.Y[k]) / 2
		}
		for i := range side.w {
			side.w[i] += side.slope - (g.A[i]+g.B[i])/2
		}
	}
	return ab, nil
}
