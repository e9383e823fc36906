package sbb

import (
	"context"
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/tensor"
)

// LogDensity is log π(x1 | x0) of the bridge's own coupling, row by row:
//
//	log π(y1 | y0) = L_1(y1) - L_0(y0) - |y1 - y0|²/2ε - (d/2) log 2πε
//	log π(x1 | x0) = log π(y1 | y0) - log det(I + D s(1, y1)/β)
//
// with y the inverse of the transport map at x, and L of package gmm. Where
// β is finite it takes O(d³) a row. The mean over pairs of a data set is their
// log-likelihood under the plan.
func (b *Bridge) LogDensity(ctx context.Context, x0, x1 []float64) ([]float64, error) {
	n, err0 := b.rows("x0", x0)
	m, err1 := b.rows("x1", x1)
	if err := errors.Join(err0, err1); err != nil {
		return nil, err
	}
	if n != m {
		return nil, fmt.Errorf("%w: x1: %d rows, want %d as x0", ErrInvalid, m, n)
	}
	d, epsilon := b.params.D, b.params.Epsilon
	out := make([]float64, n)
	constant := -float64(d) * (math.Log(2*math.Pi*epsilon)/2 + math.Log(b.frame.Scale))
	err := b.each(ctx, n, func(c *chunk, lo, hi int) error {
		y0, l0, err := c.end(x0[lo*d:hi*d], 0)
		if err != nil {
			return err
		}
		y1, l1, err := c.end(x1[lo*d:hi*d], 1)
		if err != nil {
			return err
		}
		volume, err := c.logVolume()
		if err != nil {
			return err
		}
		for r := range hi - lo {
			square := 0.0
			for j := r * d; j < (r+1)*d; j++ {
				square += (y1[j] - y0[j]) * (y1[j] - y0[j])
			}
			out[lo+r] = l1[r] - l0[r] - square/(2*epsilon) + constant - volume[r]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// end inverts the map at time t, leaving y in c.y, and evaluates L_t there.
func (c *chunk) end(x []float64, t float64) (y, value []float64, err error) {
	at, err := tensor.New(c.b.dev, c.b.dtype, c.n)
	if err != nil {
		return nil, nil, err
	}
	defer at.Free()
	m := c.b.q.Mixture()
	if err := errors.Join(
		c.load(x, t),
		proximal.Solve(proximal.Args{Mixture: m, X: c.x, T0: t, Beta: c.b.beta, Y: c.y}),
		gmm.Evaluate(gmm.EvaluateArgs{Mixture: m, X: c.y, T0: t, Value: at})); err != nil {
		return nil, nil, err
	}
	y, err0 := tensor.Float64s(c.y)
	value, err1 := tensor.Float64s(at)
	return y, value, errors.Join(err0, err1)
}

// logVolume is log det(I + D s(1, y)/β) at c.y; +Inf where the map folds, so
// that the density is zero there.
func (c *chunk) logVolume() ([]float64, error) {
	b, d := c.b, c.b.params.D
	out := make([]float64, c.n)
	if math.IsInf(b.beta, 1) {
		return out, nil
	}
	jacobian, err := tensor.New(b.dev, b.dtype, c.n, d, d)
	if err != nil {
		return nil, err
	}
	defer jacobian.Free()
	if err := gmm.Evaluate(gmm.EvaluateArgs{Mixture: b.q.Mixture(), X: c.y, T0: 1, Jacobian: jacobian}); err != nil {
		return nil, err
	}
	v, err := tensor.Float64s(jacobian)
	if err != nil {
		return nil, err
	}
	var factor mat.Cholesky
	for r := range out {
		a := mat.NewSymDense(d, v[r*d*d:(r+1)*d*d])
		for i := range d {
			for j := i; j < d; j++ {
				a.SetSym(i, j, a.At(i, j)/b.beta)
			}
			a.SetSym(i, i, a.At(i, i)+1)
		}
		out[r] = math.Inf(1)
		if factor.Factorize(a) {
			out[r] = factor.LogDet()
		}
	}
	return out, nil
}
