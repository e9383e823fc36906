// Package batch makes training batches on the device: rows drawn from a data
// set, and pairs of bridge matching. Nothing passes through the host, and a
// batch is a pure function of its draw, whatever the device.
package batch

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

const (
	opGather = "batch: gather"
	opBridge = "batch: bridge"
)

// GatherArgs are the arguments of Gather. Rows and Out have one element type,
// Float32 or Float64; all arrays lie on one device and share no memory.
type GatherArgs struct {
	Rows  tensor.Tensor // (N, d), N > 0 and d > 0
	Out   tensor.Tensor // (B, d): output
	Index tensor.Tensor // (B), Int32 or Int64: output, which rows; zero Tensor: not wanted
	Draw  philox.Draw

	// Count (1), Uint32, is added to Draw.Step, modulo 2³², when the kernel
	// runs: a recorded Gather draws anew whenever it has moved. Zero Tensor: 0.
	Count tensor.Tensor
}

// Gather queues the copy of B rows that are drawn uniformly with replacement:
//
//	Out[b] = Rows[⌊u N / 2⁶⁴⌋]
//
// where u are 64 bits of package philox for sample Draw.Index + b: coordinate 0
// of its bits, the low half, and coordinate 1. A row's probability is within
// 2⁻⁶⁴ of 1/N. The same rows are drawn on all devices.
func Gather(a GatherArgs) error {
	if err := a.validate(); err != nil || a.Out.Dim(0) == 0 {
		return err
	}
	return launchGather(&a)
}

func (a *GatherArgs) validate() error {
	n, d, dtype, err := matrix(opGather, "rows", a.Rows)
	if err != nil {
		return err
	}
	b, _, _, err := matrix(opGather, "out", a.Out)
	if err != nil {
		return err
	}
	if n == 0 || d == 0 {
		return fmt.Errorf("%s: rows: %w: empty", opGather, gpu.ErrInvalid)
	}
	index := tensor.Int32
	if a.Index.DType() == tensor.Int64 {
		index = tensor.Int64
	}
	if err := tensor.Check(opGather, a.Rows.Device(),
		tensor.Want("rows", a.Rows, dtype, n, d),
		tensor.Want("out", a.Out, dtype, b, d),
		tensor.Maybe("index", a.Index, index, b),
		tensor.Maybe("count", a.Count, tensor.Uint32, 1),
	); err != nil {
		return err
	}
	rows, out, indices, count := a.Rows.Buffer(), a.Out.Buffer(), a.Index.Buffer(), a.Count.Buffer()
	switch {
	case !a.Index.IsZero() && index == tensor.Int32 && n-1 > math.MaxInt32:
		return fmt.Errorf("%s: index: %w: i32 for %d rows, want i64", opGather, gpu.ErrInvalid, n)
	case rows.Overlaps(out) || rows.Overlaps(indices) || out.Overlaps(indices) || count.Overlaps(out) || count.Overlaps(indices):
		return fmt.Errorf("%s: %w: rows, out, index and count overlap", opGather, gpu.ErrInvalid)
	}
	return nil
}

// gatherTiles is how many tiles the CPU cuts a gather into.
func gatherTiles(b, d int) int {
	rows := max(1, tile/d)
	return (b + rows - 1) / rows
}

// tile is FORTET_BATCH_TILE of batch.h.
const tile = 16384

// BridgeArgs are the arguments of Bridge. All arrays have one element type,
// Float32 or Float64, and lie on one device.
type BridgeArgs struct {
	X0, X1  tensor.Tensor // (B, d): where the bridges begin and end
	Epsilon float64       // ε of the reference √ε W on [0, 1], at least 0 and finite

	// TIn (B) are given times in [0, 1]; zero Tensor: times are drawn from
	// [0, 1 - Safe).
	TIn  tensor.Tensor
	Safe float64 // in [0, 1), usually 1e-2: what is left before 1; 0 where TIn is given

	// Outputs; at least one must be given. Xt and U may each be X0 or X1, and
	// share no memory otherwise.
	T  tensor.Tensor // (B): t; the zero Tensor where TIn is given
	Xt tensor.Tensor // (B, d): x_t
	U  tensor.Tensor // (B, d): the drift that leads to X1

	// Draw says which times and normals: t comes from Draw.Purpose, n from
	// Draw.Purpose + 1, for sample Draw.Index + b.
	Draw philox.Draw
	// Count (1), Uint32, is added to Draw.Step as in GatherArgs.
	Count tensor.Tensor
}

// Bridge queues the training pairs of bridge matching: points of Brownian
// bridges between given ends, at random times, and the drifts there.
//
//	t = (1 - Safe) · uniform
//	x_t = (1 - t) x_0 + t x_1 + √(ε t (1 - t)) n
//	u = (x_1 - x_t) / (1 - t) = x_1 - x_0 - √(ε t / (1 - t)) n
//
// (Gushchin et al., "Light and optimal Schrödinger bridge matching", 2024,
// section 3.2.) u is evaluated by the second form, whose error does not grow
// towards t = 1 but as its variance d ε t / (1 - t) does. Results are bit-equal
// on all devices, and a row's does not depend on the others.
//
// At a given t = 0 the point is X0, at t = 1 it is X1 and, for ε > 0, u is
// infinite. For a time outside [0, 1] and ε > 0 both are NaN.
func Bridge(a BridgeArgs) error {
	b, d, err := a.validate()
	if err != nil || b == 0 {
		return err
	}
	return launchBridge(&a, b, d)
}

func (a *BridgeArgs) validate() (b, d int, err error) {
	b, d, dtype, err := matrix(opBridge, "x0", a.X0)
	if err != nil {
		return 0, 0, err
	}
	switch {
	case d == 0:
		return 0, 0, fmt.Errorf("%s: x0: %w: no columns", opBridge, gpu.ErrInvalid)
	case d > philox.MaxColumns(dtype):
		return 0, 0, fmt.Errorf("%s: x0: %w: %d columns, want at most %d", opBridge, gpu.ErrInvalid, d, philox.MaxColumns(dtype))
	case a.T.IsZero() && a.Xt.IsZero() && a.U.IsZero():
		return 0, 0, fmt.Errorf("%s: outputs: %w: none given", opBridge, gpu.ErrInvalid)
	}
	if err := tensor.Check(opBridge, a.X0.Device(),
		tensor.Want("x0", a.X0, dtype, b, d),
		tensor.Want("x1", a.X1, dtype, b, d),
		tensor.Maybe("tin", a.TIn, dtype, b),
		tensor.Maybe("t", a.T, dtype, b),
		tensor.Maybe("xt", a.Xt, dtype, b, d),
		tensor.Maybe("u", a.U, dtype, b, d),
		tensor.Maybe("count", a.Count, tensor.Uint32, 1),
	); err != nil {
		return 0, 0, err
	}
	if a.overlap() || !a.numbers() {
		return 0, 0, a.fault()
	}
	return b, d, nil
}

// overlap reports whether an output shares memory with what it must not.
func (a *BridgeArgs) overlap() bool {
	t, xt, u, given, count := a.T.Buffer(), a.Xt.Buffer(), a.U.Buffer(), a.TIn.Buffer(), a.Count.Buffer()
	for _, end := range [...]gpu.Buffer{a.X0.Buffer(), a.X1.Buffer()} {
		for _, out := range [...]gpu.Buffer{xt, u} {
			if out.Overlaps(end) && out.Ptr != end.Ptr {
				return true
			}
		}
		if t.Overlaps(end) {
			return true
		}
	}
	if count.Overlaps(t) || count.Overlaps(xt) || count.Overlaps(u) {
		return true
	}
	return xt.Overlaps(u) || xt.Overlaps(given) || u.Overlaps(given) || t.Overlaps(xt) || t.Overlaps(u) || t.Overlaps(given)
}

func (a *BridgeArgs) numbers() bool {
	drawn := a.TIn.IsZero()
	return a.Epsilon >= 0 && !math.IsInf(a.Epsilon, 0) && a.Safe >= 0 && a.Safe < 1 &&
		(drawn || a.Safe == 0 && a.T.IsZero()) && a.Draw.Purpose < math.MaxUint8
}

func (a *BridgeArgs) fault() error {
	var errs []error
	bad := func(wrong bool, argument, format string, v ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf("%s: %s: %w: %s", opBridge, argument, gpu.ErrInvalid, fmt.Sprintf(format, v...)))
		}
	}
	drawn := a.TIn.IsZero()
	bad(a.overlap(), "outputs", "overlap each other or an input, want xt and u to be x0, x1 or another array")
	bad(!(a.Epsilon >= 0) || math.IsInf(a.Epsilon, 0), "epsilon", "got %v, want a finite number of at least 0", a.Epsilon)
	bad(!(a.Safe >= 0 && a.Safe < 1), "safe", "got %v, want in [0, 1)", a.Safe)
	bad(!drawn && a.Safe != 0, "safe", "got %v beside tin, want 0", a.Safe)
	bad(!drawn && !a.T.IsZero(), "t", "given beside tin")
	bad(a.Draw.Purpose == math.MaxUint8, "draw", "purpose %d, want one that has a next one", a.Draw.Purpose)
	return errors.Join(errs...)
}

// matrix is the shape and the element type of an argument (n, d).
func matrix(op, name string, t tensor.Tensor) (n, d int, dtype tensor.DType, err error) {
	switch {
	case t.IsZero():
		return 0, 0, 0, fmt.Errorf("%s: %s: %w: missing", op, name, gpu.ErrInvalid)
	case len(t.Shape()) != 2:
		return 0, 0, 0, fmt.Errorf("%s: %s: %w: %d axes, want 2", op, name, gpu.ErrInvalid, len(t.Shape()))
	case t.DType() != tensor.Float32 && t.DType() != tensor.Float64:
		return 0, 0, 0, fmt.Errorf("%s: %s: %w: %v, want f32 or f64", op, name, gpu.ErrInvalid, t.DType())
	}
	return t.Dim(0), t.Dim(1), t.DType(), nil
}
