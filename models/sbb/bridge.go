// Package sbb is the Schrödinger-Bass bridge with a Gaussian-mixture potential:
// the process with given laws of X_0 and X_1 that minimises
//
//	J = E ∫ (|α|² + β |σ - √ε I|_F²) dt,   dX = α dt + σ dW,   t in [0, 1]
//
// Large β leaves the volatility alone, and β = ∞ is the Schrödinger bridge of
// the reference √ε W (package lightsb). With s = ε ∇ log h of the potential's
// heat flow and Y its classical Schrödinger bridge, dY = s dt + √ε dW,
//
//	X_t = Y_t + s(t, Y_t) / β,  α = s(t, Y_t),  σ = √ε (I + D_y s(t, Y_t) / β)
//
// (LightSBB-M, arXiv 2601.19312, in the convention of ½J: its dual is
// ½J = max E v(1, X_1) - E v(0, X_0), v(t, x) = min_y w_t(y) + β/2 |x - y|²,
// w = ε log h.) Every potential gives a lower bound of ½J, and a bridge whose
// own cost bounds it from above as far as its end has the law of the target.
package sbb

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/langevin"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/tensor"
)

// ErrInvalid is wrapped by the errors of this package that say what is wrong
// with an argument.
var ErrInvalid = errors.New("invalid bridge")

// Bridge is a trained or given Schrödinger-Bass bridge. Points are row-major
// float64 in the units of the data; kernels run in the bridge's element type.
// Its methods must not overlap.
type Bridge struct {
	dev    gpu.Device
	dtype  tensor.DType
	q      *mixture.Potential
	params mixture.Parameters
	beta   float64
	frame  mixture.Frame
}

// New puts a bridge on a device: parameters in the coordinates of frame, and
// β > 0, which may be infinite.
func New(dev gpu.Device, dtype tensor.DType, p mixture.Parameters, beta float64, frame mixture.Frame) (*Bridge, error) {
	if err := validBeta(beta); err != nil {
		return nil, err
	}
	if len(frame.Source) != p.D || len(frame.Target) != p.D || !(frame.Scale > 0) {
		return nil, fmt.Errorf("%w: frame: %d and %d coordinates with scale %v, want %d and a positive scale", ErrInvalid,
			len(frame.Source), len(frame.Target), frame.Scale, p.D)
	}
	q, err := mixture.NewPotential(dev, dtype, p, 0)
	if err != nil {
		return nil, err
	}
	return &Bridge{dev: dev, dtype: dtype, q: q, params: p.Clone(), beta: beta, frame: frame}, nil
}

func validBeta(beta float64) error {
	if !(beta > 0) {
		return fmt.Errorf("%w: beta: got %v, want a positive number or infinity", ErrInvalid, beta)
	}
	return nil
}

// Close returns the device memory.
func (b *Bridge) Close() { b.q.Free() }

// Dim is the number of coordinates.
func (b *Bridge) Dim() int { return b.params.D }

// Parameters are the potential in the coordinates of Frame.
func (b *Bridge) Parameters() mixture.Parameters { return b.params }

// Beta is β.
func (b *Bridge) Beta() float64 { return b.beta }

// Frame is the change of units between data and potential.
func (b *Bridge) Frame() mixture.Frame { return b.frame }

// Epsilon is ε in the units of the data.
func (b *Bridge) Epsilon() float64 { return b.params.Epsilon * b.frame.Scale * b.frame.Scale }

// Draw says whose randomness: row i of a call has sample index Index + i, and
// does not depend on the other rows.
type Draw struct{ Seed, Index uint64 }

// Purposes of random draws; gmm.Sample takes the first three.
const (
	purposeSample = 32
	purposePath   = purposeSample + 3
	purposeEuler  = purposeSample + 4
	purposeNodes  = purposeSample + 5
)

func (d Draw) at(row int, purpose uint8) philox.Draw {
	return philox.Draw{Seed: d.Seed, Index: d.Index + uint64(row), Purpose: purpose}
}

// chunkRows bounds the rows that lie on the device at once. Results do not
// depend on it.
func (b *Bridge) chunkRows() int { return max(256, min(1<<16, (1<<22)/b.params.D)) }

// rows checks the length of data and returns their number.
func (b *Bridge) rows(name string, x []float64) (int, error) {
	d := b.params.D
	if len(x) == 0 || len(x)%d != 0 {
		return 0, fmt.Errorf("%w: %s: %d numbers, want a positive multiple of %d", ErrInvalid, name, len(x), d)
	}
	for i, v := range x {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return 0, fmt.Errorf("%w: %s: row %d has %v", ErrInvalid, name, i/d, v)
		}
	}
	return len(x) / d, nil
}

// chunk is device memory for some rows.
type chunk struct {
	b     *Bridge
	n     int
	x, y  tensor.Tensor // (n, d)
	g     tensor.Tensor // (n, d)
	local []float64     // (n, d)
}

// each runs body on all rows, a chunk at a time.
func (b *Bridge) each(ctx context.Context, n int, body func(c *chunk, lo, hi int) error) error {
	size := min(n, b.chunkRows())
	for lo := 0; lo < n; lo += size {
		if err := ctx.Err(); err != nil {
			return err
		}
		hi := min(n, lo+size)
		if err := b.with(hi-lo, func(c *chunk) error { return body(c, lo, hi) }); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bridge) with(n int, body func(c *chunk) error) error {
	c := &chunk{b: b, n: n, local: make([]float64, n*b.params.D)}
	for _, t := range []*tensor.Tensor{&c.x, &c.y, &c.g} {
		var err error
		if *t, err = tensor.New(b.dev, b.dtype, n, b.params.D); err != nil {
			return err
		}
		defer t.Free()
	}
	return body(c)
}

// load encodes data at time t into c.x.
func (c *chunk) load(x []float64, t float64) error {
	c.b.frame.Encode(c.local, x, t)
	return tensor.SetFloat64s(c.x, c.local)
}

// invert sets c.y to the Y that belongs to c.x at time t.
func (c *chunk) invert(t float64) error {
	return proximal.Solve(proximal.Args{Mixture: c.b.q.Mixture(), X: c.x, T0: t, Beta: c.b.beta, Y: c.y})
}

// drift sets c.g to s(t, c.y).
func (c *chunk) drift(t float64) error {
	return gmm.Evaluate(gmm.EvaluateArgs{Mixture: c.b.q.Mixture(), X: c.y, T0: t, Drift: c.g})
}

// forward writes X = Y + s(t, Y)/β of c.y, decoded, to dst.
func (c *chunk) forward(dst []float64, t float64) error {
	if err := tensor.GetFloat64s(c.y, c.local); err != nil {
		return err
	}
	if !math.IsInf(c.b.beta, 1) {
		if err := c.drift(t); err != nil {
			return err
		}
		g, err := tensor.Float64s(c.g)
		if err != nil {
			return err
		}
		for i, v := range g {
			c.local[i] += v / c.b.beta
		}
	}
	c.b.frame.Decode(dst, c.local, t)
	return nil
}

// Sample draws X_1 given X_0 = x, exactly: no time steps.
func (b *Bridge) Sample(ctx context.Context, x []float64, draw Draw) ([]float64, error) {
	n, err := b.rows("x", x)
	if err != nil {
		return nil, err
	}
	d := b.params.D
	out := make([]float64, len(x))
	err = b.each(ctx, n, func(c *chunk, lo, hi int) error {
		if err := errors.Join(c.load(x[lo*d:hi*d], 0), c.invert(0)); err != nil {
			return err
		}
		if err := gmm.Sample(gmm.SampleArgs{Mixture: b.q.Mixture(), X0: c.y, X1: c.y, Draw: draw.at(lo, purposeSample)}); err != nil {
			return err
		}
		return c.forward(out[lo*d:hi*d], 1)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Simulate draws X_1 given X_0 = x by Euler and Maruyama's method in equal
// steps of Y: for comparison, and to see the error of time steps.
func (b *Bridge) Simulate(ctx context.Context, x []float64, steps int, draw Draw) ([]float64, error) {
	n, err := b.rows("x", x)
	if err != nil {
		return nil, err
	}
	if steps < 1 {
		return nil, fmt.Errorf("%w: steps: got %d, want at least 1", ErrInvalid, steps)
	}
	d, h := b.params.D, 1/float64(steps)
	out := make([]float64, len(x))
	err = b.each(ctx, n, func(c *chunk, lo, hi int) error {
		if err := errors.Join(c.load(x[lo*d:hi*d], 0), c.invert(0)); err != nil {
			return err
		}
		for k := range steps {
			if err := errors.Join(ctx.Err(), c.drift(float64(k)*h)); err != nil {
				return err
			}
			at := draw.at(lo, purposeEuler)
			at.Step = uint32(k)
			// y + h s + √(2 h ε/2) n
			if err := langevin.Step(langevin.Args{Y: c.y, Score: c.g, Out: c.y, Eta: h, Temperature: b.params.Epsilon / 2, Draw: at}); err != nil {
				return err
			}
		}
		return c.forward(out[lo*d:hi*d], 1)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Paths draws the bridge at increasing times in [0, 1] from X_0 = x, exactly:
// X (n, times, d), and Y of the same shape, its classical bridge. The endpoint
// of a path is what Sample draws. For β = ∞ X and Y are equal.
func (b *Bridge) Paths(ctx context.Context, x, times []float64, draw Draw) (xs, ys []float64, err error) {
	n, err := b.rows("x", x)
	if err != nil {
		return nil, nil, err
	}
	for i, t := range times {
		if !(t >= 0 && t <= 1) || i > 0 && !(t > times[i-1]) {
			return nil, nil, fmt.Errorf("%w: times: %v, want increasing numbers in [0, 1]", ErrInvalid, times)
		}
	}
	if len(times) == 0 {
		return nil, nil, fmt.Errorf("%w: times: none given", ErrInvalid)
	}
	d := b.params.D
	xs, ys = make([]float64, n*len(times)*d), make([]float64, n*len(times)*d)
	err = b.each(ctx, n, func(c *chunk, lo, hi int) error {
		if err := errors.Join(c.load(x[lo*d:hi*d], 0), c.invert(0)); err != nil {
			return err
		}
		y, err := tensor.Float64s(c.y)
		if err != nil {
			return err
		}
		if err := gmm.Sample(gmm.SampleArgs{Mixture: b.q.Mixture(), X0: c.y, X1: c.y, Draw: draw.at(lo, purposeSample)}); err != nil {
			return err
		}
		end, err := tensor.Float64s(c.y)
		if err != nil {
			return err
		}
		at, here := 0.0, make([]float64, (hi-lo)*d)
		keep := func(all []float64, i int) {
			for r := range hi - lo {
				copy(all[((lo+r)*len(times)+i)*d:], here[r*d:(r+1)*d])
			}
		}
		for i, t := range times {
			// Brownian bridge from (at, y) to (1, end).
			if t > at {
				pull, noise := (t-at)/(1-at), math.Sqrt(b.params.Epsilon*(t-at)*(1-t)/(1-at))
				for r := range hi - lo {
					s := philox.NewStream(philox.Draw{Seed: draw.Seed, Index: draw.Index + uint64(lo+r), Step: uint32(i), Purpose: purposePath})
					for j := range d {
						y[r*d+j] += pull*(end[r*d+j]-y[r*d+j]) + noise*s.NormFloat64()
					}
				}
				if t == 1 {
					copy(y, end)
				}
				at = t
			}
			b.frame.Decode(here, y, t)
			keep(ys, i)
			if err := tensor.SetFloat64s(c.y, y); err != nil {
				return err
			}
			if err := c.forward(here, t); err != nil {
				return err
			}
			keep(xs, i)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return xs, ys, nil
}
