// Package proximal is the proximal map of a Gaussian-mixture potential, for a
// batch of samples:
//
//	y = argmin_y w_t(y) + β/2 |x - y|²,   w_t = ε L_t
//
// with the mixture's L_t and drift g = ∇w_t of package gmm. Its condition
// y + g(t, y)/β = x says that it inverts the transport map of a
// Schrödinger–Bass bridge, and its least value is the Moreau envelope of w_t,
// whose gradient is β (x - y) = g(t, y).
//
// Where S_j ≥ I/(1+β) for all components ("the S-floor"), the objective is
// convex and strictly so for t < 1: y is unique. Without the floor it need not
// be, and y is where a descent from the start ended: a stationary point, in
// general a local minimum, whose objective is not above the start's by more
// than its rounding.
//
// The method is Newton's on F(y) = g(t, y) + β (y - x) with the symmetric
// matrix H = Dg + βI, shifted where it is not positive definite, and a line
// search on the objective (Nocedal and Wright, "Numerical Optimization", 2006,
// chapters 3 and 7). Up to sixteen dimensions (four on a GPU) H is formed and
// factored; above that, conjugate gradients take its products with vectors,
// O(K d) each, and O(K d²) with axes. Where the solution lies on the border of
// components, Newton's method feels its way along a crease of width ε/|g_i - g_j|:
// two to six steps are usual for |g_i - g_j|² about εβ or less, tens for hundreds
// of times that, and more where the S_j differ much. Such a sample may end
// undone after the default fifty steps; its residual tells.
package proximal

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/tensor"
)

// Args are the arguments of Solve. X is (n, d) of the mixture's element type,
// on its device; so are the other arrays but Iterations, which is Int32.
type Args struct {
	Mixture gmm.Mixture

	X  tensor.Tensor // (n, d)
	T  tensor.Tensor // (n): times in [0, 1], which are not checked; zero Tensor: T0 for all
	T0 float64       // in [0, 1]

	// Beta is the weight β > 0 of the quadratic. With +Inf, or more than the
	// element type holds, Y is X and Value is w_t(x).
	Beta float64

	// A sample is done where |y + g/β - x| ≤ Tolerance max(1, |x|).
	// Zero: 1e-5 in Float32, 1e-10 in Float64.
	Tolerance float64
	// MaxIterations is the most Newton steps of a sample. Zero: 50.
	MaxIterations int

	// Warm takes the start from Y; else the start is X.
	Warm bool
	// Y (n, d) receives y. It may be X where Warm is false.
	Y tensor.Tensor

	// What follows may be zero Tensors.

	Value      tensor.Tensor // (n): w_t(y) + β/2 |x - y|²
	Residual   tensor.Tensor // (n): |y + g/β - x| / max(1, |x|), as evaluated at y
	Iterations tensor.Tensor // (n) Int32: Newton steps made
}

// Solve queues the map. A sample that is not done after MaxIterations, or that
// rounding keeps from coming nearer, leaves the best point that it found, with
// its residual. Where the objective or its gradient is not finite at the start,
// which in Float32 begins where |x|²/ε or |g|² overflow, y is x, and value and
// residual are +Inf; for finite arguments no result is ever NaN.
//
// A row's results do not depend on the other rows, bit for bit, nor on the
// number of workers; they do on the device and its level. Solve answers
// gpu.ErrInvalid or tensor.ErrInvalid for arguments that do not fit together.
// An empty batch is no error.
func Solve(a Args) error { return solve(a, largestDense) }

const (
	op = "proximal: solve"

	// largestDense is the largest d at which H is formed, FORTET_PROXIMAL_DENSE.
	largestDense = 16

	defaultIterations  = 50
	defaultTolerance32 = 1e-5
	defaultTolerance64 = 1e-10
)

// solve is Solve with another bound for forming H.
func solve(a Args, dense int) error {
	if err := a.Mixture.Check(op); err != nil {
		return err
	}
	if err := a.validate(); err != nil {
		return err
	}
	if a.X.Dim(0) == 0 {
		return nil
	}
	if a.MaxIterations == 0 {
		a.MaxIterations = defaultIterations
	}
	if a.Tolerance == 0 {
		a.Tolerance = defaultTolerance64
		if a.X.DType() == tensor.Float32 {
			a.Tolerance = defaultTolerance32
		}
	}
	return launch(a, dense)
}

func (a *Args) validate() error {
	if a.X.IsZero() || len(a.X.Shape()) != 2 {
		return fmt.Errorf("%s: x: %w: %v, want (n, d)", op, gpu.ErrInvalid, a.X)
	}
	dtype, n, d := a.Mixture.Means.DType(), a.X.Dim(0), a.Mixture.Dim()
	errs := tensor.Check(op, a.Mixture.Means.Device(),
		tensor.Want("x", a.X, dtype, n, d),
		tensor.Maybe("t", a.T, dtype, n),
		tensor.Want("y", a.Y, dtype, n, d),
		tensor.Maybe("value", a.Value, dtype, n),
		tensor.Maybe("residual", a.Residual, dtype, n),
		tensor.Maybe("iterations", a.Iterations, tensor.Int32, n))
	bad := func(argument, format string, v ...any) {
		errs = errors.Join(errs, fmt.Errorf("%s: %s: %w: %s", op, argument, gpu.ErrInvalid, fmt.Sprintf(format, v...)))
	}
	if !(a.Beta > 0) {
		bad("beta", "got %v, want a positive number or +Inf", a.Beta)
	}
	if a.T.IsZero() && !(a.T0 >= 0 && a.T0 <= 1) {
		bad("t0", "got %v, want a time in [0, 1]", a.T0)
	}
	if !(a.Tolerance >= 0) || math.IsInf(a.Tolerance, 0) {
		bad("tolerance", "got %v, want a positive number, or 0 for the default", a.Tolerance)
	}
	if a.MaxIterations < 0 || a.MaxIterations > math.MaxInt32 {
		bad("max iterations", "got %d, want a positive 32-bit number, or 0 for the default", a.MaxIterations)
	}
	arrays := [...]struct {
		name string
		gpu.Buffer
	}{
		{"y", a.Y.Buffer()}, {"value", a.Value.Buffer()}, {"residual", a.Residual.Buffer()}, {"iterations", a.Iterations.Buffer()},
		{"x", a.X.Buffer()}, {"t", a.T.Buffer()}, {"logits", a.Mixture.Logits.Buffer()}, {"means", a.Mixture.Means.Buffer()},
		{"scales", a.Mixture.Scales.Buffer()}, {"axes", a.Mixture.Axes.Buffer()},
	}
	const outputs = 4
	for i := range outputs {
		for j := i + 1; j < len(arrays); j++ {
			out, other := &arrays[i], &arrays[j]
			inPlace := out.name == "y" && other.name == "x" && !a.Warm && out.Ptr == other.Ptr
			if !inPlace && out.Overlaps(other.Buffer) {
				bad(out.name, "overlaps %s", other.name)
			}
		}
	}
	return errs
}
