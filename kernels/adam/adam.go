// Package adam is one fused step of Adam with decoupled weight decay (AdamW) on
// a flat vector of parameters, and the norm of its gradient. In step t = 1, 2, …
//
//	g ← min(1, c / ‖g‖) g                     where Norm and Clip c are given
//	m ← β₁ m + (1 - β₁) g,    m̂ = m / (1 - β₁ᵗ)
//	v ← β₂ v + (1 - β₂) g²,   v̂ = v / (1 - β₂ᵗ)
//	p ← p - η λ p - η m̂ / (√v̂ + ε)
//	e ← δ e + (1 - δ) p                       where EMA is given
//
// g is the gradient of what is minimised. Sources: Kingma and Ba, "Adam: a
// method for stochastic optimization", 2015, algorithm 1; Loshchilov and
// Hutter, "Decoupled weight decay regularization", 2019, algorithm 2, with η as
// both the schedule and the rate, as PyTorch has it; clipping by the global
// norm: Pascanu, Mikolov and Bengio, 2013, algorithm 1.
package adam

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Args are the arguments of Step. Params, Gradient, First, Second and EMA have
// one element type, Float32 or Float64, and one shape (n); all arrays lie on
// one device and share no memory.
type Args struct {
	Params   tensor.Tensor // (n): p, updated
	Gradient tensor.Tensor // (n): g
	First    tensor.Tensor // (n): m, updated; zeros before the first step
	Second   tensor.Tensor // (n): v, updated; zeros before the first step
	EMA      tensor.Tensor // (n): e, updated; zero Tensor: no average

	// Norm (1), Float64, is ‖g‖ as Norm computes it, of this gradient or of a
	// longer one that it is a part of; zero Tensor: neither clip nor guard.
	// Where it is NaN or infinite the step leaves all arrays as they were.
	Norm tensor.Tensor

	// Table (rows, 3), Float64, and Count (1), Uint32, go together, with Step and
	// Rate 0: t is *Count when the kernel runs, and row (t-1) mod rows of Table is
	// what Row makes of step t. So a recorded step can be replayed as the next
	// one. Zero Tensors: Step and Rate count.
	Table, Count tensor.Tensor

	Step         int     // t, from 1
	Rate         float64 // η, at least 0
	Beta1, Beta2 float64 // in [0, 1); usually 0.9 and 0.999
	Epsilon      float64 // ε, positive also as an element; usually 1e-8
	Decay        float64 // λ, at least 0; 0: plain Adam
	EMADecay     float64 // δ, in [0, 1); 0 where there is no EMA
	Clip         float64 // c, positive, with Norm; 0: no clipping
}

// Step queues one step. The corrections of bias are evaluated in float64, all
// else in the element type. Results are bit-equal on all devices.
//
// An element of v that would overflow stays at the largest finite number. A
// step that Norm forbids is a step of the count all the same.
func Step(a Args) error {
	if err := a.validate(); err != nil {
		return err
	}
	if a.Params.Len() == 0 {
		return nil
	}
	return launchStep(&a)
}

// Row is what changes from step to step: η / (1 - β₁ᵗ), 1 / √(1 - β₂ᵗ) and η λ
// of step t, a row of Args.Table.
func Row(step int, rate, beta1, beta2, decay float64) [Columns]float64 {
	t := float64(step)
	first, second := -math.Expm1(t*math.Log(beta1)), -math.Expm1(t*math.Log(beta2))
	return [Columns]float64{rate / first, 1 / math.Sqrt(second), rate * decay}
}

// Columns is the length of a row of Args.Table.
const Columns = 3

const (
	opStep = "adam: step"
	opNorm = "adam: norm"
)

func (a *Args) validate() error {
	n, dtype, err := vector(opStep, "params", a.Params)
	if err != nil {
		return err
	}
	if err := tensor.Check(opStep, a.Params.Device(),
		tensor.Want("params", a.Params, dtype, n),
		tensor.Want("gradient", a.Gradient, dtype, n),
		tensor.Want("first", a.First, dtype, n),
		tensor.Want("second", a.Second, dtype, n),
		tensor.Maybe("ema", a.EMA, dtype, n),
		tensor.Maybe("norm", a.Norm, tensor.Float64, 1),
	); err != nil {
		return err
	}
	if err := a.table(); err != nil {
		return err
	}
	arrays := [...]gpu.Buffer{
		a.Params.Buffer(), a.First.Buffer(), a.Second.Buffer(), a.EMA.Buffer(), a.Gradient.Buffer(), a.Norm.Buffer(),
		a.Table.Buffer(), a.Count.Buffer(),
	}
	for i := range arrays {
		for j := range i {
			if arrays[i].Overlaps(arrays[j]) {
				names := [...]string{"params", "first", "second", "ema", "gradient", "norm", "table", "count"}
				return fmt.Errorf("%s: %s: %w: overlaps %s", opStep, names[i], gpu.ErrInvalid, names[j])
			}
		}
	}
	if a.numbers(dtype) {
		return nil
	}
	return a.fault(dtype)
}

// table checks Table and Count.
func (a *Args) table() error {
	if a.Table.IsZero() && a.Count.IsZero() {
		return nil
	}
	if len(a.Table.Shape()) != 2 || a.Table.Dim(0) == 0 {
		return fmt.Errorf("%s: table: %w: %v, want (rows, %d) with rows > 0", opStep, gpu.ErrInvalid, a.Table, Columns)
	}
	return tensor.Check(opStep, a.Params.Device(),
		tensor.Want("table", a.Table, tensor.Float64, a.Table.Dim(0), Columns),
		tensor.Want("count", a.Count, tensor.Uint32, 1))
}

// numbers reports whether all numbers are as they should be.
func (a *Args) numbers(dtype tensor.DType) bool {
	for _, r := range a.ranges(dtype) {
		if !r.ok {
			return false
		}
	}
	return true
}

type limit struct {
	name string
	ok   bool
	got  float64
	want string
}

func (a *Args) ranges(dtype tensor.DType) [8]limit {
	below := func(x float64) bool { return x >= 0 && x < 1 }
	size := func(x float64) bool { return x >= 0 && !math.IsInf(x, 0) }
	epsilon := a.Epsilon > 0 && !math.IsInf(a.Epsilon, 0)
	if dtype == tensor.Float32 {
		epsilon = epsilon && float32(a.Epsilon) > 0 && float32(a.Epsilon) <= math.MaxFloat32
	}
	given := !a.Table.IsZero()
	return [8]limit{
		{"step", a.Step >= 1 && !given || a.Step == 0 && given, float64(a.Step), "at least 1, or 0 with a table"},
		{"rate", size(a.Rate) && (!given || a.Rate == 0), a.Rate, "a finite number of at least 0, and 0 with a table"},
		{"beta1", below(a.Beta1), a.Beta1, "in [0, 1)"},
		{"beta2", below(a.Beta2), a.Beta2, "in [0, 1)"},
		{"epsilon", epsilon, a.Epsilon, "a positive finite element"},
		{"decay", size(a.Decay), a.Decay, "a finite number of at least 0"},
		{"ema decay", below(a.EMADecay) && (!a.EMA.IsZero() || a.EMADecay == 0), a.EMADecay, "in [0, 1), and 0 without ema"},
		{"clip", size(a.Clip) && (!a.Norm.IsZero() || a.Clip == 0), a.Clip, "a finite number of at least 0, and 0 without norm"},
	}
}

func (a *Args) fault(dtype tensor.DType) error {
	var errs []error
	for _, r := range a.ranges(dtype) {
		if !r.ok {
			errs = append(errs, fmt.Errorf("%s: %s: %w: got %v, want %s", opStep, r.name, gpu.ErrInvalid, r.got, r.want))
		}
	}
	return errors.Join(errs...)
}

// vector is the length and the element type of an argument (n).
func vector(op, name string, t tensor.Tensor) (int, tensor.DType, error) {
	switch {
	case t.IsZero():
		return 0, 0, fmt.Errorf("%s: %s: %w: missing", op, name, gpu.ErrInvalid)
	case len(t.Shape()) != 1:
		return 0, 0, fmt.Errorf("%s: %s: %w: %d axes, want 1", op, name, gpu.ErrInvalid, len(t.Shape()))
	case t.DType() != tensor.Float32 && t.DType() != tensor.Float64:
		return 0, 0, fmt.Errorf("%s: %s: %w: %v, want f32 or f64", op, name, gpu.ErrInvalid, t.DType())
	}
	return t.Dim(0), t.DType(), nil
}

// chunk is FORTET_ADAM_CHUNK, tile is FORTET_ADAM_TILE of adam.h.
const (
	chunk = 4096
	tile  = 16384
)

// Chunks is how many partial sums the norm of n elements takes.
func Chunks(n int) int { return (n + chunk - 1) / chunk }

// NormArgs are the arguments of Norm. All arrays lie on one device and share no
// memory.
type NormArgs struct {
	Gradient tensor.Tensor // (n), Float32 or Float64, n > 0
	Norm     tensor.Tensor // (1), Float64: output

	// Partial (Chunks(n)), Float64, is room for the sums of chunks. The zero
	// Tensor takes it from the device's pool.
	Partial tensor.Tensor

	// Count (1), Uint32, is advanced by one: the number of steps begun, as Step
	// reads it. Zero Tensor: nothing is counted.
	Count tensor.Tensor
}

// Norm queues the computation of the L2 norm of the gradient. It is summed in
// double precision by chunks of 4096 elements in a fixed order and bit-equal on
// all devices. It is NaN where an element is, else infinite where one is, or
// where a square is beyond the range of float64.
func Norm(a NormArgs) error {
	n, dtype, err := vector(opNorm, "gradient", a.Gradient)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%s: gradient: %w: empty", opNorm, gpu.ErrInvalid)
	}
	dev := a.Gradient.Device()
	if err := tensor.Check(opNorm, dev,
		tensor.Want("gradient", a.Gradient, dtype, n),
		tensor.Want("norm", a.Norm, tensor.Float64, 1),
		tensor.Maybe("partial", a.Partial, tensor.Float64, Chunks(n)),
		tensor.Maybe("count", a.Count, tensor.Uint32, 1),
	); err != nil {
		return err
	}
	g, partial, norm, count := a.Gradient.Buffer(), a.Partial.Buffer(), a.Norm.Buffer(), a.Count.Buffer()
	if g.Overlaps(partial) || g.Overlaps(norm) || partial.Overlaps(norm) ||
		count.Overlaps(g) || count.Overlaps(partial) || count.Overlaps(norm) {
		return fmt.Errorf("%s: %w: gradient, norm, partial and count overlap", opNorm, gpu.ErrInvalid)
	}
	if a.Partial.IsZero() {
		if partial, err = dev.Alloc(8 * Chunks(n)); err != nil {
			return fmt.Errorf("%s: partial: %w", opNorm, err)
		}
		defer dev.Free(partial)
	}
	return launchNorm(&a, partial)
}
