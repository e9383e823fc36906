package sbb

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/integrate/quad"

	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// Certificate bounds ½J of the problem that a bridge was trained for. Dual is
// an unbiased estimate, from samples of both laws, of a lower bound; Primal is
// one of the cost of the bridge itself, which is an upper bound as far as the
// bridge's end has the law of the target. Errors are standard errors of the
// samples; units are those of the data.
type Certificate struct {
	Dual, DualError     float64
	Primal, PrimalError float64
	Gap                 float64 // Primal - Dual
	Unconverged         int     // rows whose transport map could not be inverted to tolerance
}

// nodes is the number of times at which the cost is integrated, by Gauss and
// Legendre's rule: the integrand is smooth in t.
const nodes = 16

// Certify estimates both bounds from samples of the source and the target law,
// row-major, at least two of each.
func (b *Bridge) Certify(ctx context.Context, source, target []float64, draw Draw) (Certificate, error) {
	n0, err0 := b.rows("source", source)
	n1, err1 := b.rows("target", target)
	if err := errors.Join(err0, err1); err != nil {
		return Certificate{}, err
	}
	if n0 < 2 || n1 < 2 {
		return Certificate{}, fmt.Errorf("%w: %d source and %d target rows, want at least 2 of each", ErrInvalid, n0, n1)
	}
	start, err0 := b.Invert(ctx, 0, source)
	end, err1 := b.Invert(ctx, 1, target)
	if err := errors.Join(err0, err1); err != nil {
		return Certificate{}, err
	}
	cost, err := b.cost(ctx, source, n0, draw)
	if err != nil {
		return Certificate{}, err
	}
	v0, e0 := meanAndError(b.potential(start.Value, source, b.frame.Source))
	v1, e1 := meanAndError(b.potential(end.Value, target, b.frame.Target))
	c := Certificate{
		Dual: v1 - v0 + b.frame.Shift2()/2, DualError: math.Hypot(e0, e1),
		Unconverged: start.Unconverged + end.Unconverged,
	}
	c.Primal, c.PrimalError = meanAndError(cost)
	c.Gap = c.Primal - c.Dual
	return c, nil
}

// potential brings values v(t, z) of the frame's coordinates at points x, whose
// origin is at center, to the units of the data: with c the scale, Δ the shift
// of the means, and but for t ½|Δ|²,
//
//	c² v(t, z) + Δ·(x - center)
//
// which solves the equation of the data where v does that of the frame.
func (b *Bridge) potential(value, x, center []float64) []float64 {
	d := b.params.D
	out := make([]float64, len(value))
	for r, v := range value {
		out[r] = b.frame.Scale * b.frame.Scale * v
		for j := range d {
			out[r] += (b.frame.Target[j] - b.frame.Source[j]) * (x[r*d+j] - center[j])
		}
	}
	return out
}

// cost is ½ ∫ |α|² + β |σ - √ε I|_F² dt of a path from every row.
func (b *Bridge) cost(ctx context.Context, source []float64, n int, draw Draw) ([]float64, error) {
	d, epsilon := b.params.D, b.params.Epsilon
	times, weights := make([]float64, nodes), make([]float64, nodes)
	quad.Legendre{}.FixedLocations(times, weights, 0, 1)
	out := make([]float64, n)
	err := b.each(ctx, n, func(c *chunk, lo, hi int) error {
		norm2, err := tensor.New(b.dev, b.dtype, hi-lo)
		if err != nil {
			return err
		}
		defer norm2.Free()
		if err := errors.Join(c.load(source[lo*d:hi*d], 0), c.invert(0)); err != nil {
			return err
		}
		if err := gmm.Sample(gmm.SampleArgs{Mixture: b.q.Mixture(), X0: c.y, X1: c.x, Draw: draw.at(lo, purposeSample)}); err != nil {
			return err
		}
		y0, err0 := tensor.Float64s(c.y)
		y1, err1 := tensor.Float64s(c.x)
		if err := errors.Join(err0, err1); err != nil {
			return err
		}
		for k, t := range times {
			noise := math.Sqrt(epsilon * t * (1 - t))
			for r := range hi - lo {
				s := philox.NewStream(philox.Draw{Seed: draw.Seed, Index: draw.Index + uint64(lo+r), Step: uint32(k), Purpose: purposeNodes})
				for j := r * d; j < (r+1)*d; j++ {
					c.local[j] = (1-t)*y0[j] + t*y1[j] + noise*s.NormFloat64()
				}
			}
			if err := tensor.SetFloat64s(c.y, c.local); err != nil {
				return err
			}
			args := gmm.EvaluateArgs{Mixture: b.q.Mixture(), X: c.y, T0: t, Drift: c.g}
			if !math.IsInf(b.beta, 1) {
				args.Norm2 = norm2
			}
			if err := gmm.Evaluate(args); err != nil {
				return err
			}
			g, err := tensor.Float64s(c.g)
			if err != nil {
				return err
			}
			jacobian := make([]float64, hi-lo)
			if !math.IsInf(b.beta, 1) {
				if err := tensor.GetFloat64s(norm2, jacobian); err != nil {
					return err
				}
			}
			for r := range hi - lo {
				sum := b.Epsilon() / b.beta * jacobian[r]
				for j, v := range g[r*d : (r+1)*d] {
					alpha := b.frame.Scale*v + b.frame.Target[j] - b.frame.Source[j]
					sum += alpha * alpha
				}
				out[lo+r] += weights[k] * sum / 2
			}
		}
		return nil
	})
	return out, err
}

// meanAndError is the mean and its standard error.
func meanAndError(v []float64) (mean, standard float64) {
	n := float64(len(v))
	for _, x := range v {
		mean += x / n
	}
	for _, x := range v {
		standard += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(standard / (n - 1) / n)
}
