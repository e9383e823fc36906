// Package cost evaluates ground costs of all pairs of two point clouds, of one
// problem or of a batch of them, and the transposed matrix in the same pass:
//
//	out[q, i, j] = out_t[q, j, i] = c(x[q, i], y[q, j])
//
// It is for solvers that keep the cost in memory because recomputing it every
// iteration, as package softmin does, would cost more.
//
// Coordinates are subtracted before they are squared, for any dimension d,
// instead of expanding |x|² + |y|² - 2⟨x, y⟩: equal points have cost 0, costs
// are never negative, and a squared distance has a relative error of at most
// d + 2 units of rounding, however close the points. The price is one
// subtraction a coordinate, which many processors do beside the multiplication.
package cost

import (
	"errors"
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Kind is a ground cost.
type Kind int

// The ground costs. Sums of squares must be in the range of the element type.
const (
	SqEuclidean     Kind = iota // |x - y|²
	HalfSqEuclidean             // |x - y|² / 2
	Euclidean                   // |x - y|
	// Cosine is 1 - ⟨x, y⟩ / (|x| |y|), evaluated as |x/|x| - y/|y||² / 2. A
	// point at the origin has no direction: its costs are NaN.
	Cosine
)

func (k Kind) String() string {
	switch k {
	case SqEuclidean:
		return "sqeuclidean"
	case HalfSqEuclidean:
		return "half-sqeuclidean"
	case Euclidean:
		return "euclidean"
	case Cosine:
		return "cosine"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Args are the arguments of Evaluate. All arrays have one element type,
// Float32 or Float64, and lie on one device. Leading axes (b) are there for a
// batch of b problems; then either of X and Y may do without and is shared.
// Outputs overlap neither inputs nor each other; at least one must be given.
type Args struct {
	X    tensor.Tensor // (n, d) or (b, n, d)
	Y    tensor.Tensor // (m, d) or (b, m, d)
	Out  tensor.Tensor // (n, m) or (b, n, m)
	OutT tensor.Tensor // (m, n) or (b, m, n)
	Cost Kind
}

// Evaluate queues the evaluation. Results on a device are bit-equal whenever
// repeated, whatever the number of workers, and do not depend on the other
// problems of a batch. It answers gpu.ErrInvalid or tensor.ErrInvalid for
// arguments that do not fit together.
func Evaluate(a Args) error {
	s, err := a.validate()
	if err != nil || s.batch == 0 || s.n == 0 || s.m == 0 {
		return err
	}
	return launch(a, s)
}

type sizes struct {
	batch, n, m, d   int
	xStride, yStride int // elements from one problem to the next
}

const op = "cost: evaluate"

func (a Args) validate() (sizes, error) {
	var errs []error
	bad := func(argument, format string, v ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %w: %s", op, argument, gpu.ErrInvalid, fmt.Sprintf(format, v...)))
	}
	points := func(name string, t tensor.Tensor) {
		switch axes := len(t.Shape()); {
		case t.IsZero():
			bad(name, "missing")
		case axes != 2 && axes != 3:
			bad(name, "%d axes, want 2 or 3", axes)
		case t.Dim(axes-1) == 0:
			bad(name, "points of 0 coordinates, want at least 1")
		case t.DType() != tensor.Float32 && t.DType() != tensor.Float64:
			bad(name, "%v, want f32 or f64", t.DType())
		}
	}
	points("x", a.X)
	points("y", a.Y)
	if a.Cost < SqEuclidean || a.Cost > Cosine {
		bad("cost", "got %v", a.Cost)
	}
	if a.Out.IsZero() && a.OutT.IsZero() {
		bad("out", "missing, and out_t is, too")
	}
	if len(errs) > 0 {
		return sizes{}, errors.Join(errs...)
	}

	last := func(t tensor.Tensor, i int) int { return t.Dim(len(t.Shape()) - i) }
	s := sizes{batch: 1, n: last(a.X, 2), m: last(a.Y, 2), d: last(a.X, 1)}
	var batch []int // leading axes of the outputs
	wantX, wantY := []int{s.n, s.d}, []int{s.m, s.d}
	if len(a.X.Shape()) == 3 || len(a.Y.Shape()) == 3 {
		s.batch = a.Y.Dim(0)
		if len(a.X.Shape()) == 3 {
			s.batch = a.X.Dim(0)
			s.xStride = s.n * s.d
			wantX = []int{s.batch, s.n, s.d}
		}
		if len(a.Y.Shape()) == 3 {
			s.yStride = s.m * s.d
			wantY = []int{s.batch, s.m, s.d}
		}
		batch = []int{s.batch}
	}
	dtype := a.X.DType()
	shape := func(axes ...int) []int { return append(append([]int{}, batch...), axes...) }
	if err := tensor.Check(op, a.X.Device(),
		tensor.Want("x", a.X, dtype, wantX...),
		tensor.Want("y", a.Y, dtype, wantY...),
		tensor.Maybe("out", a.Out, dtype, shape(s.n, s.m)...),
		tensor.Maybe("out_t", a.OutT, dtype, shape(s.m, s.n)...),
	); err != nil {
		errs = append(errs, err)
	}
	for _, in := range []struct {
		name string
		tensor.Tensor
	}{{"x", a.X}, {"y", a.Y}} {
		if in.Buffer().Overlaps(a.Out.Buffer()) {
			bad("out", "overlaps %s", in.name)
		}
		if in.Buffer().Overlaps(a.OutT.Buffer()) {
			bad("out_t", "overlaps %s", in.name)
		}
	}
	if a.Out.Buffer().Overlaps(a.OutT.Buffer()) {
		bad("out_t", "overlaps out")
	}
	return s, errors.Join(errs...)
}
