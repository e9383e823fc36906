package duallse

// #cgo CFLAGS: -O3 -I${SRCDIR}/../include
// #cgo LDFLAGS: -lm
// #include "duallse.h"
//
// #define ENTRIES(name) \
//   int fortet_duallse_##name##_f32_cpu(const void *, int64_t, int64_t, int); \
//   int fortet_duallse_##name##_f64_cpu(const void *, int64_t, int64_t, int)
// ENTRIES(message);
// ENTRIES(centre);
// ENTRIES(leaves);
// ENTRIES(rows);
// ENTRIES(triple);
// ENTRIES(triple_reduce);
// ENTRIES(tuple_weight);
// ENTRIES(tuple_apply);
// ENTRIES(tuple_reduce);
// ENTRIES(psi);
import "C"

import (
	_ "embed"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/tensor"
)

//go:embed duallse.h
var header string

var contract = include.Contract(header)

// pair is a kernel for float32 and one for float64.
type pair struct{ f32, f64 gpu.Kernel }

func kernels(name string, f32, f64 unsafe.Pointer, bytes uintptr) pair {
	one := func(suffix string, cpu unsafe.Pointer) gpu.Kernel {
		return gpu.Kernel{Name: "duallse_" + name + suffix, Op: "duallse", CPU: cpu, ArgsBytes: bytes, Contract: contract}
	}
	return pair{one("_f32", f32), one("_f64", f64)}
}

func (p *pair) of(t tensor.DType) *gpu.Kernel {
	if t == tensor.Float32 {
		return &p.f32
	}
	return &p.f64
}

var (
	message = kernels("message", C.fortet_duallse_message_f32_cpu, C.fortet_duallse_message_f64_cpu, starBytes)
	centre  = kernels("centre", C.fortet_duallse_centre_f32_cpu, C.fortet_duallse_centre_f64_cpu, starBytes)
	leaves  = kernels("leaves", C.fortet_duallse_leaves_f32_cpu, C.fortet_duallse_leaves_f64_cpu, starBytes)
	rows    = kernels("rows", C.fortet_duallse_rows_f32_cpu, C.fortet_duallse_rows_f64_cpu, starBytes)

	triple       = kernels("triple", C.fortet_duallse_triple_f32_cpu, C.fortet_duallse_triple_f64_cpu, tripleBytes)
	tripleReduce = kernels("triple_reduce", C.fortet_duallse_triple_reduce_f32_cpu, C.fortet_duallse_triple_reduce_f64_cpu, tripleBytes)

	tupleWeight = kernels("tuple_weight", C.fortet_duallse_tuple_weight_f32_cpu, C.fortet_duallse_tuple_weight_f64_cpu, tuplesBytes)
	tupleApply  = kernels("tuple_apply", C.fortet_duallse_tuple_apply_f32_cpu, C.fortet_duallse_tuple_apply_f64_cpu, tuplesBytes)
	tupleReduce = kernels("tuple_reduce", C.fortet_duallse_tuple_reduce_f32_cpu, C.fortet_duallse_tuple_reduce_f64_cpu, tuplesBytes)

	psi = kernels("psi", C.fortet_duallse_psi_f32_cpu, C.fortet_duallse_psi_f64_cpu, unsafe.Sizeof(C.fortet_duallse_psi_args{}))
)

const (
	starBytes   = unsafe.Sizeof(C.fortet_duallse_star_args{})
	tripleBytes = unsafe.Sizeof(C.fortet_duallse_triple_args{})
	tuplesBytes = unsafe.Sizeof(C.fortet_duallse_tuples_args{})
)

// Tiles of CPU kernels, as duallse.h states them.
const (
	rowTile     = 32
	columnTile  = 256
	elementTile = 4096
)

func pieces(whole, part int) int { return (whole + part - 1) / part }

func flag(v bool) C.int32_t {
	if v {
		return 1
	}
	return 0
}

func (d Divergence) c() C.fortet_divergence {
	return C.fortet_divergence{alpha: C.double(d.Alpha), delta: C.double(d.Delta), cap: C.double(d.Cap()), kind: C.int32_t(d.Kind)}
}

// doubles is row of a workspace of float64 rows.
func doubles(t tensor.Tensor) *C.double { return (*C.double)(t.Ptr()) }

func launchStar(dev gpu.Device, s Star, sz sizes, logZ *float64, out Output, work tensor.Tensor) error {
	m := len(s.Arms)
	a := C.fortet_duallse_star_args{
		potential: s.Potential.Ptr(), logw: s.LogWeight.Ptr(), extra: s.Extra.Ptr(), points: s.Points.Ptr(),
		grad_potential: out.Potential.Ptr(), grad_points: out.Points.Ptr(), value: doubles(out.Value),
		message: doubles(work.Rows(0, m)), log_p: doubles(work.Rows(m, m+1)),
		n: C.int64_t(sz.n), d: C.int64_t(sz.d), epsilon: C.double(s.Epsilon), norm: C.double(s.Norm),
		arms: C.int32_t(m), minus_base: flag(out.Objective == NegativeDual),
	}
	if logZ != nil {
		a.logz, a.fixed_logz = C.double(*logZ), 1
	}
	leafTiles := 0
	for i, arm := range s.Arms {
		var o ArmOutput
		if len(out.Arms) > 0 {
			o = out.Arms[i]
		}
		a.arm[i] = C.fortet_duallse_arm{
			potential: arm.Potential.Ptr(), logw: arm.LogWeight.Ptr(), points: arm.Points.Ptr(), cost: arm.Cost.Ptr(),
			grad_potential: o.Potential.Ptr(), grad_points: o.Points.Ptr(), plan: o.Plan.Ptr(), conditional: o.Conditional.Ptr(),
			count: C.int64_t(sz.arms[i]), weight: C.double(arm.Weight),
		}
		leafTiles += pieces(sz.arms[i], rowTile)
	}
	p := unsafe.Pointer(&a)
	rowTiles := pieces(sz.n, rowTile)
	if err := dev.Launch(message.of(sz.dtype), p, m*rowTiles); err != nil {
		return err
	}
	if err := dev.Launch(centre.of(sz.dtype), p, 1); err != nil {
		return err
	}
	if out.wantsLeaves() {
		if err := dev.Launch(leaves.of(sz.dtype), p, leafTiles); err != nil {
			return err
		}
	}
	if out.wantsRows() {
		return dev.Launch(rows.of(sz.dtype), p, rowTiles)
	}
	return nil
}

func launchTriple(dev gpu.Device, s Star, sz sizes, n2 int, d Divergence, out PenaltyOutput, w penaltyWork) error {
	first, second := s.Arms[0], Arm{}
	if len(s.Arms) == 2 {
		second = s.Arms[1]
	}
	a := C.fortet_duallse_triple_args{
		beta: s.Potential.Ptr(), alpha: first.Potential.Ptr(), gamma: second.Potential.Ptr(),
		logw: s.LogWeight.Ptr(), logw1: first.LogWeight.Ptr(), logw2: second.LogWeight.Ptr(),
		plan: w.plan.Ptr(), conditional: w.conditional.Ptr(),
		grad_beta: out.gradient(0).Ptr(), grad_alpha: out.gradient(1).Ptr(), grad_gamma: out.gradient(2).Ptr(),
		value: doubles(out.Value), logz: doubles(w.prior),
		part: doubles(w.part), part1: doubles(w.part1), part2: doubles(w.part2),
		n: C.int64_t(sz.n), n1: C.int64_t(sz.arms[0]), n2: C.int64_t(n2),
		divergence: d.c(), minus_base: flag(out.Objective == NegativeDual),
	}
	p := unsafe.Pointer(&a)
	if err := dev.Launch(triple.of(sz.dtype), p, sz.n); err != nil {
		return err
	}
	return dev.Launch(tripleReduce.of(sz.dtype), p, 1+pieces(sz.arms[0], columnTile)+pieces(n2, columnTile))
}

func launchTuples(dev gpu.Device, t Tuples, counts []int, tiles int, d Divergence, out PenaltyOutput, work tensor.Tensor) error {
	count := dim(t.Index, 0)
	at := func(offset int) *C.double { return (*C.double)(unsafe.Add(work.Ptr(), 8*offset)) }
	a := C.fortet_duallse_tuples_args{
		index: (*C.int32_t)(t.Index.Ptr()), cost: t.Cost.Ptr(), value: doubles(out.Value),
		y: at(0), q: at(count), part: at(2 * count),
		count: C.int64_t(count), epsilon: C.double(t.Epsilon), marginals: C.int32_t(len(t.Marginals)),
		minus_base: flag(out.Objective == NegativeDual), divergence: d.c(),
	}
	if t.LogZ != nil {
		a.logz, a.fixed_logz = C.double(*t.LogZ), 1
	}
	offset := 2*count + 3*tiles
	for i, m := range t.Marginals {
		a.marginal[i] = C.fortet_duallse_marginal{
			potential: m.Potential.Ptr(), logw: m.LogWeight.Ptr(), grad: out.gradient(i).Ptr(),
			sum: at(offset), size: C.int64_t(counts[i]),
		}
		offset += counts[i]
	}
	p, dtype := unsafe.Pointer(&a), t.Cost.DType()
	if err := dev.Launch(tupleWeight.of(dtype), p, tiles); err != nil {
		return err
	}
	if err := dev.Launch(tupleApply.of(dtype), p, tiles); err != nil {
		return err
	}
	return dev.Launch(tupleReduce.of(dtype), p, 1+len(t.Marginals))
}

func launchPsi(dev gpu.Device, d Divergence, y tensor.Tensor, out PsiOutput) error {
	a := C.fortet_duallse_psi_args{
		y: y.Ptr(), psi: out.Psi.Ptr(), dpsi: out.Derivative.Ptr(), slope: out.Slope.Ptr(),
		n: C.int64_t(y.Len()), divergence: d.c(),
	}
	return dev.Launch(psi.of(y.DType()), unsafe.Pointer(&a), pieces(y.Len(), elementTile))
}
