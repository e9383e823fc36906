// Package gemm multiplies matrices: for every matrix of a batch
//
//	C = α op(A) op(B) + β C + 1 biasᵀ
//
// with op the identity or the transposition, op(A) of shape (m, k), op(B) (k, n),
// C (m, n), and a bias (n) that is added to every row, in float32 or float64.
// It is the operation GEMM of Dongarra, Du Croz, Hammarling and Duff, "A set of
// level 3 basic linear algebra subprograms", 1990, for rows that follow each
// other, as tensors have them, with a batch and a bias.
package gemm

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Precision says how products of float32 are computed. It is never chosen for
// the caller.
type Precision int

// The precisions. Devices without the units for one answer gpu.ErrUnsupported.
// Sums are float32 in all of them. Where op(A) has at most four rows or op(B)
// at most four columns, memory is the limit, and the last two compute as Native does.
const (
	Native Precision = iota // in the element type
	TF32                    // tensor cores: factors keep 10 bits of mantissa
	BF16x3                  // tensor cores: three products of factors split in two bfloat16, which keep 16 bits
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

// Args are the arguments of Multiply. All arrays have one element type, Float32
// or Float64, and lie on one device. C shares no memory with the others: the
// ranges from the first to the last element of each must not overlap.
type Args struct {
	A, B, C Matrix
	Bias    tensor.Tensor // (n): added to every row of C; zero Tensor: none

	Alpha float64 // α, finite and not 0, also as an element; 1 for a plain product
	Beta  float64 // β, finite, also as an element; where it is 0, C is not read

	Precision Precision // Native for Float64
}

// Multiply queues C = α op(A) op(B) + β C + 1 biasᵀ and returns. The batch is
// C's; an A or B without a batch serves every matrix of it. Where k is 0 there
// remains β C + 1 biasᵀ; without any element of C there is nothing to do.
//
// Results on a device are a function of the arguments alone: bit-equal whenever
// repeated, whatever the number of workers. Sums over k are summed in parts, so
// that rounding grows with the length of a part and the number of parts. NaN and infinities
// of A, B, and of C unless β is 0, reach the result as IEEE 754 passes them on;
// with TF32 and BF16x3 what is not finite stays so, but an infinity may become NaN, and
// elements beyond 3.38e38 count as infinite.
//
// Errors wrap tensor.ErrInvalid or gpu.ErrInvalid for arguments that do not
// fit, gpu.ErrUnsupported for a precision that the device lacks, and
// gpu.ErrOutOfMemory where the workspace has no room: on a CPU at most 16 MiB
// and a few copies of C where that is small, elsewhere the latter.
func Multiply(a Args) error {
	p, err := a.check()
	if err != nil {
		return err
	}
	if p.m == 0 || p.n == 0 || p.batch == 0 {
		return nil
	}
	return launch(&a, &p)
}

// problem is what check found.
type problem struct {
	m, n, k, batch int
	a, b, c        layout // as they are stored
	dtype          tensor.DType
}

func (a *Args) check() (problem, error) {
	var p problem
	dev, dtype := a.C.Data.Device(), a.C.Data.DType()
	switch {
	case a.C.Data.IsZero():
		return p, fmt.Errorf("gemm: c: %w: missing", tensor.ErrInvalid)
	case dtype != tensor.Float32 && dtype != tensor.Float64:
		return p, fmt.Errorf("gemm: c: %w: %v, want f32 or f64", tensor.ErrInvalid, dtype)
	case a.C.Transposed:
		return p, fmt.Errorf("gemm: c: %w: transposed, want op on a and b alone", gpu.ErrInvalid)
	}
	p.dtype = dtype
	var errA, errB, errC error
	p.a, errA = a.A.layout("a", dev, dtype)
	p.b, errB = a.B.layout("b", dev, dtype)
	p.c, errC = a.C.layout("c", dev, dtype)
	if err := errors.Join(errA, errB, errC, a.numbers(dtype)); err != nil {
		return p, err
	}
	p.m, p.n, p.k, p.batch = p.c.rows, p.c.cols, p.a.cols, 1
	if a.A.Transposed {
		p.k = p.a.rows
	}
	if p.c.batched {
		p.batch = p.c.batch
	}
	if err := errors.Join(
		p.a.want("a", a.A.Transposed, p.m, p.k, p.c),
		p.b.want("b", a.B.Transposed, p.k, p.n, p.c),
		tensor.Check("gemm", dev, tensor.Maybe("bias", a.Bias, dtype, p.n)),
		p.c.apart(),
	); err != nil {
		return p, err
	}
	c := p.c.memory(a.C.Data)
	for i, o := range [...]gpu.Buffer{p.a.memory(a.A.Data), p.b.memory(a.B.Data), a.Bias.Buffer()} {
		if c.Overlaps(o) {
			return p, fmt.Errorf("gemm: c: %w: overlaps %s", gpu.ErrInvalid, [...]string{"a", "b", "bias"}[i])
		}
	}
	return p, nil
}

// numbers reports what is wrong with the numbers.
func (a *Args) numbers(dtype tensor.DType) error {
	element := func(v float64) float64 {
		if dtype == tensor.Float32 {
			return float64(float32(v))
		}
		return v
	}
	finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	var errs []error
	if v := element(a.Alpha); !finite(v) || v == 0 {
		errs = append(errs, fmt.Errorf("gemm: alpha: %w: got %v, want finite and not 0 as %v", gpu.ErrInvalid, a.Alpha, dtype))
	}
	if v := element(a.Beta); !finite(v) || (v == 0) != (a.Beta == 0) {
		errs = append(errs, fmt.Errorf("gemm: beta: %w: got %v, want finite as %v", gpu.ErrInvalid, a.Beta, dtype))
	}
	switch {
	case a.Precision < Native || a.Precision > BF16x3:
		errs = append(errs, fmt.Errorf("gemm: precision: %w: got %v", gpu.ErrInvalid, a.Precision))
	case a.Precision != Native && dtype != tensor.Float32:
		errs = append(errs, fmt.Errorf("gemm: precision: %w: got %v for %v, want native", gpu.ErrInvalid, a.Precision, dtype))
	}
	return errors.Join(errs...)
}
