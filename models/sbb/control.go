package sbb

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/tensor"
)

// Controls are the optimal controls at points: dX = α dt + σ dW.
type Controls struct {
	Drift      []float64 // (n, d): α
	Volatility []float64 // (n, d, d): σ, symmetric; nil unless asked for
}

// Controls evaluates α(t, x) and, where volatility is true, σ(t, x) at time t
// in [0, 1].
func (b *Bridge) Controls(ctx context.Context, t float64, x []float64, volatility bool) (Controls, error) {
	n, err := b.rows("x", x)
	if err != nil {
		return Controls{}, err
	}
	if !(t >= 0 && t <= 1) {
		return Controls{}, fmt.Errorf("%w: time: got %v, want a number in [0, 1]", ErrInvalid, t)
	}
	d := b.params.D
	out := Controls{Drift: make([]float64, len(x))}
	if volatility {
		out.Volatility = make([]float64, len(x)*d)
	}
	err = b.each(ctx, n, func(c *chunk, lo, hi int) error {
		if err := errors.Join(c.load(x[lo*d:hi*d], t), c.invert(t), c.drift(t)); err != nil {
			return err
		}
		drift := out.Drift[lo*d : hi*d]
		if err := tensor.GetFloat64s(c.g, drift); err != nil {
			return err
		}
		for i := range drift {
			drift[i] = b.frame.Scale*drift[i] + b.frame.Target[i%d] - b.frame.Source[i%d]
		}
		if !volatility {
			return nil
		}
		return c.volatility(out.Volatility[lo*d*d:hi*d*d], t)
	})
	if err != nil {
		return Controls{}, err
	}
	return out, nil
}

// volatility writes σ = √ε (I + Ds/β) of c.y.
func (c *chunk) volatility(dst []float64, t float64) error {
	b, d := c.b, c.b.params.D
	if !math.IsInf(b.beta, 1) {
		jacobian, err := tensor.New(b.dev, b.dtype, c.n, d, d)
		if err != nil {
			return err
		}
		defer jacobian.Free()
		if err := gmm.Evaluate(gmm.EvaluateArgs{Mixture: b.q.Mixture(), X: c.y, T0: t, Jacobian: jacobian}); err != nil {
			return err
		}
		if err := tensor.GetFloat64s(jacobian, dst); err != nil {
			return err
		}
	}
	root := math.Sqrt(b.Epsilon())
	for i := range dst {
		v := dst[i] / b.beta
		if i/d%d == i%d {
			v++
		}
		dst[i] = root * v
	}
	return nil
}

// Inverse is what the inversion of the transport map found.
type Inverse struct {
	Y           []float64 // (n, d), in the coordinates of the data
	Value       []float64 // (n): v(t, x) in the coordinates of Frame
	Unconverged int       // rows with |y + s/β - x| above 1e-4 max(1, |x|) in those coordinates
}

// inverseTolerance is what an inverse is counted as one by. The envelope loses
// the order of β times its square.
const inverseTolerance = 1e-4

// Invert solves x = y + s(t, y)/β. Y is where the classical bridge is while X
// is at x.
func (b *Bridge) Invert(ctx context.Context, t float64, x []float64) (Inverse, error) {
	n, err := b.rows("x", x)
	if err != nil {
		return Inverse{}, err
	}
	if !(t >= 0 && t <= 1) {
		return Inverse{}, fmt.Errorf("%w: time: got %v, want a number in [0, 1]", ErrInvalid, t)
	}
	d := b.params.D
	out := Inverse{Y: make([]float64, len(x)), Value: make([]float64, n)}
	err = b.each(ctx, n, func(c *chunk, lo, hi int) error {
		value, err1 := tensor.New(b.dev, b.dtype, hi-lo)
		defer value.Free()
		residual, err2 := tensor.New(b.dev, b.dtype, hi-lo)
		defer residual.Free()
		if err := errors.Join(err1, err2, c.load(x[lo*d:hi*d], t)); err != nil {
			return err
		}
		if err := proximal.Solve(proximal.Args{
			Mixture: b.q.Mixture(), X: c.x, T0: t, Beta: b.beta, Y: c.y, Value: value, Residual: residual,
		}); err != nil {
			return err
		}
		y := out.Y[lo*d : hi*d]
		res := make([]float64, hi-lo)
		if err := errors.Join(tensor.GetFloat64s(c.y, y), tensor.GetFloat64s(value, out.Value[lo:hi]), tensor.GetFloat64s(residual, res)); err != nil {
			return err
		}
		b.frame.Decode(y, y, t)
		for _, r := range res {
			if !(r <= inverseTolerance) {
				out.Unconverged++
			}
		}
		return nil
	})
	if err != nil {
		return Inverse{}, err
	}
	return out, nil
}
