// Package fold adds rows in a fixed order, that of a balanced binary tree:
//
//	out_j = Σ_s in_sj          for in: (rows, width), out: (m), m ≤ width
//
// Neighbours are added first: rows 0 and 1, 2 and 3, …, then the pairs' sums,
// and so on; what has no neighbour goes up as it is. So the fold of an aligned
// group of 2^k rows is one of the sums on the way, and the fold of such folds
// has the bits of the fold of all rows. Parts of a sum may be added wherever
// they lie, and the sum does not show where that was.
//
// That holds of float64. Elements of float32 are added in float64 and rounded
// once, at the end: their sum is the nearest float32 but for the rounding of
// the sums in float64.
package fold

import (
	"errors"
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

const op = "fold"

// Rows queues the sum of the rows of in: (rows, width), Float32 or Float64, into
// out: (m) of the same type on the same device, where 1 ≤ m ≤ width: the first m
// columns are added. out may share no memory with in. One row is copied.
//
// It reads rows·m elements and writes m, and is bound by that. Results are
// bit-equal on all devices, but for the payload of NaN. Errors wrap
// tensor.ErrInvalid or gpu.ErrInvalid.
func Rows(out, in tensor.Tensor) error {
	switch {
	case in.IsZero():
		return fmt.Errorf("%s: in: %w: missing", op, gpu.ErrInvalid)
	case out.IsZero():
		return fmt.Errorf("%s: out: %w: missing", op, gpu.ErrInvalid)
	}
	var errs []error
	bad := func(argument, format string, v ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %w: %s", op, argument, gpu.ErrInvalid, fmt.Sprintf(format, v...)))
	}
	if t := in.DType(); t != tensor.Float32 && t != tensor.Float64 {
		bad("in", "%v, want f32 or f64", t)
	}
	if len(in.Shape()) != 2 {
		bad("in", "%d axes, want 2", len(in.Shape()))
	}
	if len(out.Shape()) != 1 {
		bad("out", "%d axes, want 1", len(out.Shape()))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	m := out.Dim(0)
	if in.Dim(0) < 1 || in.Dim(1) < 1 {
		bad("in", "shape (%d, %d), want at least one row and one column", in.Dim(0), in.Dim(1))
	} else if m < 1 || m > in.Dim(1) {
		bad("out", "%d columns, want 1 to %d", m, in.Dim(1))
	}
	if out.Buffer().Overlaps(in.Buffer()) {
		bad("out", "overlaps in")
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := tensor.Check(op, in.Device(), tensor.Want("out", out, in.DType(), m)); err != nil {
		return err
	}
	return launch(out, in, m)
}

// tile is FORTET_FOLD_TILE of fold.h.
const tile = 8192
