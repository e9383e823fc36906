// Package ou is the transition of a diagonal Ornstein-Uhlenbeck process, the
// forward process of diffusion models whose linear drift is learned:
//
//	dx = -½ β(t) λ x dt + √β(t) dw   for each coordinate
//	x_t | x_0 ~ N(F x_0, Σ),  F = exp(-½ b λ),  Σ = (1 - exp(-b λ)) / λ,  L = √Σ,  b = ∫ β
//
// (Deng et al., "Variational Schrödinger diffusion models", 2024, section 4.1,
// for a constant diagonal drift; λ = 1 is the variance-preserving process and
// λ = 0, where Σ = b, the variance-exploding one.) λ may be negative. With
// x_t = F x_0 + L n the score of the transition at x_t is -n / L.
package ou

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// Args are the arguments of Transition. All arrays have one element type,
// Float32 or Float64, and lie on one device.
type Args struct {
	X0     tensor.Tensor // (n, d); zero Tensor: zeros
	Lambda tensor.Tensor // (d)
	B      tensor.Tensor // (n): the integral of β for each sample; zero Tensor: B0 for all
	B0     float64       // at least 0 and finite; 0 where B is given

	// Outputs (n, d); at least one must be given. One of them may be X0.
	Mean  tensor.Tensor // F x_0
	Scale tensor.Tensor // L
	Xt    tensor.Tensor // F x_0 + L n
	Score tensor.Tensor // -n / L

	// Draw says which n: the standard normals of package philox for sample
	// Draw.Index + i and coordinate j. Mean and Scale draw nothing.
	Draw philox.Draw
}

// Transition queues the computation of the outputs that are given, in one pass.
// Results are bit-equal on all devices, and a row's does not depend on the
// others.
//
// For b = 0 the transition is the identity: Mean and Xt are X0, Scale is 0, and
// Score, which a point mass does not have, is -n / 0: infinite, with the sign
// of -n. Elements of B must be at least 0; for a negative or NaN one Scale, Xt
// and Score are NaN.
func Transition(a Args) error {
	n, d, err := a.validate()
	if err != nil || n == 0 || d == 0 {
		return err
	}
	return launch(a, n, d)
}

const op = "ou: transition"

type named struct {
	name string
	tensor.Tensor
}

func (a Args) outputs() []named {
	return []named{{"mean", a.Mean}, {"scale", a.Scale}, {"xt", a.Xt}, {"score", a.Score}}
}

func (a Args) validate() (n, d int, err error) {
	var errs []error
	bad := func(argument, format string, v ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %w: %s", op, argument, gpu.ErrInvalid, fmt.Sprintf(format, v...)))
	}
	var first named
	for _, out := range a.outputs() {
		if first.IsZero() {
			first = out
		}
	}
	switch {
	case first.IsZero():
		return 0, 0, fmt.Errorf("%s: outputs: %w: none given", op, gpu.ErrInvalid)
	case len(first.Shape()) != 2:
		return 0, 0, fmt.Errorf("%s: %s: %w: %d axes, want 2", op, first.name, gpu.ErrInvalid, len(first.Shape()))
	}
	n, d = first.Dim(0), first.Dim(1)
	dtype := first.DType()
	if dtype != tensor.Float32 && dtype != tensor.Float64 {
		bad(first.name, "%v, want f32 or f64", dtype)
	}
	if d > philox.MaxColumns(dtype) {
		bad(first.name, "%d columns, want at most %d", d, philox.MaxColumns(dtype))
	}
	want := []tensor.Arg{
		tensor.Maybe("x0", a.X0, dtype, n, d),
		tensor.Want("lambda", a.Lambda, dtype, d),
		tensor.Maybe("b", a.B, dtype, n),
	}
	for _, out := range a.outputs() {
		want = append(want, tensor.Maybe(out.name, out.Tensor, dtype, n, d))
	}
	if err := tensor.Check(op, first.Device(), want...); err != nil {
		errs = append(errs, err)
	}
	for i, out := range a.outputs() {
		if x0 := a.X0.Buffer(); out.Buffer().Overlaps(x0) && out.Ptr() != x0.Ptr {
			bad(out.name, "overlaps x0, want the same array or another")
		}
		for _, other := range append([]named{{"lambda", a.Lambda}, {"b", a.B}}, a.outputs()[:i]...) {
			if out.Buffer().Overlaps(other.Buffer()) {
				bad(out.name, "overlaps %s", other.name)
			}
		}
	}
	if !(a.B0 >= 0) || math.IsInf(a.B0, 0) {
		bad("b0", "got %v, want at least 0", a.B0)
	}
	if !a.B.IsZero() && a.B0 != 0 {
		bad("b0", "got %v beside b, want 0", a.B0)
	}
	return n, d, errors.Join(errs...)
}
