// Package softmin is the streaming log-sum-exp over cost, potential and log
// weight that every Sinkhorn-like method iterates, and the application of the
// plan that it defines. Nothing of the size of the plan is stored.
//
// With pairs (i, j) of n sources and m targets, costs c, potentials f and g
// and log weights log b,
//
//	z_ij      = log b_j + (g_j - c_ij) / ε
//	softmin_i = -ε log Σ_j exp z_ij
//	p_ij      = exp(z_ij + f_i / ε)
//
// so that the rows of p sum to one where f = softmin (Feydy et al., AISTATS
// 2019, section 3.1). A zero weight is log b_j = -∞ and a forbidden pair
// c_ij = +∞; either makes p_ij = 0. A row without any finite z has
// softmin_i = +∞. NaN in a row's data makes that row's results NaN; nothing
// hides it. Coordinates of points must be finite.
//
// Three operations on Pairs are offered: Softmin; Sweep, both halves of a
// Sinkhorn iteration for about the price of one; and Apply, which multiplies
// by the plan. They queue work on a device and return. Inputs are not changed
// and must not overlap outputs. Results on a device are a function of the
// arguments alone: bit-equal whenever repeated, whatever the number of workers.
//
// Squared distances of points in more than 8 dimensions are computed from
// inner products of the points less their common centre; their absolute error
// is then that of |x|²+|y|² in the element type, |x| and |y| being distances
// from the centre. In up to 8 dimensions, and for Euclidean in any, coordinates
// are subtracted first.
package softmin

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Cost is the ground cost of Pairs.
type Cost int

// The ground costs.
const (
	SqEuclidean     Cost = iota // |x - y|²
	HalfSqEuclidean             // |x - y|² / 2
	Euclidean                   // |x - y|
	Matrix                      // given, entry by entry
)

func (c Cost) String() string {
	switch c {
	case SqEuclidean:
		return "sqeuclidean"
	case HalfSqEuclidean:
		return "half-sqeuclidean"
	case Euclidean:
		return "euclidean"
	case Matrix:
		return "matrix"
	}
	return fmt.Sprintf("Cost(%d)", int(c))
}

// Precision says how products of float32 coordinates are computed.
type Precision int

// The precisions. Devices without the units for one answer gpu.ErrUnsupported.
const (
	Native Precision = iota // in the element type
	TF32                    // tensor cores, 10 bits of mantissa
	BF16x3                  // tensor cores, three products of split bfloat16
)

func (p Precision) String() string {
	switch p {
	case Native:
		return "native"
	case TF32:
		return "tf32"
	case BF16x3:
		return "bf16x3"
	}
	return fmt.Sprintf("Precision(%d)", int(p))
}

// Pairs are n sources against m targets. All tensors have one element type,
// float32 or float64, and lie on the device that the operation is given.
type Pairs struct {
	X      tensor.Tensor // (n, d) sources; none with Cost Matrix
	Y      tensor.Tensor // (m, d) targets; none with Cost Matrix
	Matrix tensor.Tensor // (n, m) costs, with Cost Matrix only
	G      tensor.Tensor // (m,) potential of the targets; none means 0
	LogB   tensor.Tensor // (m,) log weights of the targets; none means 0

	Epsilon   float64 // > 0 and finite; within 1e±30 for float32, 1e±200 for float64
	Cost      Cost
	Precision Precision
}

// SweepArgs are the arguments of Sweep beside the pairs.
type SweepArgs struct {
	LogA tensor.Tensor // (n,) log weights of the sources; none means 0
	Damp float64       // in (0, 2); 1 for a balanced source, ρ/(ρ+ε) for a KL penalty ρ, times ω if over-relaxed
	Out  tensor.Tensor // (n,) result: softmin, not damped
	Col  tensor.Tensor // (m,) result, always float64: Σ_i w_i p_ij
}

// ApplyArgs are the arguments of Apply beside the pairs. At least one result
// must be asked for.
type ApplyArgs struct {
	F tensor.Tensor // (n,) potential of the sources
	V tensor.Tensor // (m, k) what the plan multiplies; with R only

	Mass tensor.Tensor // (n,) result or none: Σ_j p_ij
	Mean tensor.Tensor // (n,) result or none: Σ_j p_ij c_ij
	R    tensor.Tensor // (n, k) result or none: Σ_j p_ij v_j
	Grad tensor.Tensor // (n, d) result or none: Σ_j p_ij ∂c/∂x (x_i, y_j)
}

// Softmin queues out_i = softmin_i, for out of shape (n,).
//
// Errors wrap tensor.ErrInvalid or gpu.ErrInvalid for arguments that do not
// fit, gpu.ErrUnsupported for a precision that the device lacks, and
// gpu.ErrOutOfMemory where the workspace has no room.
func (p Pairs) Softmin(dev gpu.Device, out tensor.Tensor) error {
	s, err := p.check("softmin", dev)
	if err != nil {
		return err
	}
	if err := tensor.Check("softmin", dev, tensor.Want("out", out, s.dtype, s.n)); err != nil {
		return err
	}
	return launchSoftmin(dev, p, s, out)
}

// Sweep queues, in one pass over the pairs,
//
//	out_i = softmin_i
//	w_i   = exp(log a_i + (damp - 1) out_i / ε)
//	col_j = Σ_i w_i p_ij    with f = softmin in p
//
// col is then the second marginal, over b, of the plan of the potentials
// (damp out, g): col_j = b_j exactly where g solves its own half of the Sinkhorn
// iteration, whose next g is g_j + ε (log b_j - log col_j). A row of
// softmin_i = +∞ adds nothing to col. col_j = 0 where every term underflows
// the element type; Softmin of the transposed pairs still has its logarithm.
//
// Errors are those of Softmin.
func (p Pairs) Sweep(dev gpu.Device, a SweepArgs) error {
	s, err := p.check("sweep", dev)
	if err != nil {
		return err
	}
	var damp error
	if !(a.Damp > 0 && a.Damp < 2) {
		damp = fmt.Errorf("sweep: damp: %w: got %v, want in (0, 2)", gpu.ErrInvalid, a.Damp)
	}
	if err := errors.Join(damp, tensor.Check("sweep", dev,
		tensor.Maybe("log a", a.LogA, s.dtype, s.n),
		tensor.Want("out", a.Out, s.dtype, s.n),
		tensor.Want("col", a.Col, tensor.Float64, s.m))); err != nil {
		return err
	}
	return launchSweep(dev, p, s, a)
}

// Apply queues the products of the plan p of the potentials F and G that are
// asked for: its row sums, mean costs, product with V, and the gradient of
// Σ_j p_ij c(x_i, y_j) in x_i for p held fixed, in which Euclidean counts a pair
// of equal points as zero. Where f = softmin, that gradient is the gradient of
// softmin_i.
//
// Errors are those of Softmin.
func (p Pairs) Apply(dev gpu.Device, a ApplyArgs) error {
	s, err := p.check("apply", dev)
	if err != nil {
		return err
	}
	k := 0
	switch v, r := !a.V.IsZero(), !a.R.IsZero(); {
	case v != r:
		return fmt.Errorf("apply: v, r: %w: got %v and %v, want both or neither", tensor.ErrInvalid, a.V, a.R)
	case v && (len(a.V.Shape()) != 2 || a.V.Dim(1) < 1):
		return fmt.Errorf("apply: v: %w: got %v, want shape (%d, k)", tensor.ErrInvalid, a.V, s.m)
	case v:
		k = a.V.Dim(1)
	}
	switch {
	case p.Cost == Matrix && !a.Grad.IsZero():
		return fmt.Errorf("apply: grad: %w: a cost matrix has no gradient", gpu.ErrInvalid)
	case a.Mass.IsZero() && a.Mean.IsZero() && a.R.IsZero() && a.Grad.IsZero():
		return fmt.Errorf("apply: %w: no result is asked for", gpu.ErrInvalid)
	}
	if err := tensor.Check("apply", dev,
		tensor.Want("f", a.F, s.dtype, s.n),
		tensor.Maybe("v", a.V, s.dtype, s.m, k),
		tensor.Maybe("mass", a.Mass, s.dtype, s.n),
		tensor.Maybe("mean", a.Mean, s.dtype, s.n),
		tensor.Maybe("r", a.R, s.dtype, s.n, k),
		tensor.Maybe("grad", a.Grad, s.dtype, s.n, s.d)); err != nil {
		return err
	}
	return launchApply(dev, p, s, a, k)
}

// sizes are what check found.
type sizes struct {
	n, m, d int
	dtype   tensor.DType
}

// check reports whatever is wrong with the pairs, for operation op.
func (p Pairs) check(op string, dev gpu.Device) (sizes, error) {
	var s sizes
	invalid := func(format string, v ...any) error { return fmt.Errorf("%s: %w", op, fmt.Errorf(format, v...)) }
	if dev == nil {
		return s, invalid("%w: no device", gpu.ErrInvalid)
	}
	if p.Cost < SqEuclidean || p.Cost > Matrix {
		return s, invalid("cost: %w: got %v", gpu.ErrInvalid, p.Cost)
	}
	if p.Precision < Native || p.Precision > BF16x3 {
		return s, invalid("precision: %w: got %v", gpu.ErrInvalid, p.Precision)
	}
	if !(p.Epsilon > 0) || math.IsInf(p.Epsilon, 0) {
		return s, invalid("epsilon: %w: got %v, want > 0 and finite", gpu.ErrInvalid, p.Epsilon)
	}
	first, name := p.X, "x"
	if p.Cost == Matrix {
		first, name = p.Matrix, "matrix"
		if !p.X.IsZero() || !p.Y.IsZero() {
			return s, invalid("x, y: %w: got %v and %v, want none with a cost matrix", tensor.ErrInvalid, p.X, p.Y)
		}
	} else if !p.Matrix.IsZero() {
		return s, invalid("matrix: %w: got %v, want none with cost %v", tensor.ErrInvalid, p.Matrix, p.Cost)
	}
	if len(first.Shape()) != 2 {
		return s, invalid("%s: %w: got %v, want two axes", name, tensor.ErrInvalid, first)
	}
	if s.dtype = first.DType(); s.dtype != tensor.Float32 && s.dtype != tensor.Float64 {
		return s, invalid("%s: %w: got %v, want f32 or f64", name, tensor.ErrInvalid, first)
	}
	// 1/ε, and differences of costs over ε, must not leave the element type.
	least := 1e-30
	if s.dtype == tensor.Float64 {
		least = 1e-200
	}
	if p.Epsilon < least || p.Epsilon > 1/least {
		return s, invalid("epsilon: %w: got %v, want %v to %v for %v", gpu.ErrInvalid, p.Epsilon, least, 1/least, s.dtype)
	}
	if p.Precision != Native && s.dtype != tensor.Float32 {
		return s, invalid("precision: %w: got %v for %v, want native", gpu.ErrInvalid, p.Precision, s.dtype)
	}
	s.n = first.Dim(0)
	if p.Cost == Matrix {
		s.m = first.Dim(1)
	} else {
		if len(p.Y.Shape()) != 2 {
			return s, invalid("y: %w: got %v, want two axes", tensor.ErrInvalid, p.Y)
		}
		s.m, s.d = p.Y.Dim(0), first.Dim(1)
		if s.d < 1 {
			return s, invalid("x: %w: got %v, want one dimension or more", tensor.ErrInvalid, p.X)
		}
	}
	// Kernels index pairs, and points padded to whole blocks, by int64.
	const limit = 1 << 40
	if s.n < 1 || s.m < 1 || s.n > limit || s.m > limit || s.n > math.MaxInt64/256/s.m {
		return s, invalid("%w: %d by %d pairs, want at least one and few enough to count", tensor.ErrInvalid, s.n, s.m)
	}
	return s, tensor.Check(op, dev, p.args(s)...)
}

// args are the tensors of the pairs with what is wanted of them.
func (p Pairs) args(s sizes) []tensor.Arg {
	potentials := []tensor.Arg{
		tensor.Maybe("g", p.G, s.dtype, s.m),
		tensor.Maybe("log b", p.LogB, s.dtype, s.m),
	}
	if p.Cost == Matrix {
		return append(potentials, tensor.Want("matrix", p.Matrix, s.dtype, s.n, s.m))
	}
	return append(potentials,
		tensor.Want("x", p.X, s.dtype, s.n, s.d),
		tensor.Want("y", p.Y, s.dtype, s.m, s.d))
}
