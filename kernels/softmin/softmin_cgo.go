package softmin

/*
#cgo CFLAGS: -I${SRCDIR}/../include -O3 -Wno-psabi
#cgo LDFLAGS: -lm
#include "softmin_cpu.h"
*/
import "C"

import (
	_ "embed"
	"fmt"
	"time"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/tensor"
)

//go:embed softmin.h
var header string

var contract = include.Contract(header)

// steps are the kernels of one operation in one precision. The CPU runs pack,
// main and finish, where there are such; other devices run main alone.
type steps struct{ pack, main, finish *gpu.Kernel }

// variants are the steps of one operation in every precision. The last two
// have no CPU kernels.
type variants struct{ f32, f64, tf32, bf16x3 steps }

var (
	softminKernels = variants{
		f32: steps{
			softminKernel("softmin_pack_f32", unsafe.Pointer(C.fortet_softmin_pack_f32)),
			softminKernel("softmin_f32", unsafe.Pointer(C.fortet_softmin_f32_cpu)), nil},
		f64: steps{
			softminKernel("softmin_pack_f64", unsafe.Pointer(C.fortet_softmin_pack_f64)),
			softminKernel("softmin_f64", unsafe.Pointer(C.fortet_softmin_f64_cpu)), nil},
		tf32:   steps{main: softminKernel("softmin_tf32", nil)},
		bf16x3: steps{main: softminKernel("softmin_bf16x3", nil)},
	}
	sweepKernels = variants{
		f32: steps{
			sweepKernel("sweep_pack_f32", unsafe.Pointer(C.fortet_sweep_pack_f32)),
			sweepKernel("sweep_f32", unsafe.Pointer(C.fortet_sweep_f32_cpu)),
			sweepKernel("sweep_finish_f32", unsafe.Pointer(C.fortet_sweep_finish_f32))},
		f64: steps{
			sweepKernel("sweep_pack_f64", unsafe.Pointer(C.fortet_sweep_pack_f64)),
			sweepKernel("sweep_f64", unsafe.Pointer(C.fortet_sweep_f64_cpu)),
			sweepKernel("sweep_finish_f64", unsafe.Pointer(C.fortet_sweep_finish_f64))},
		tf32:   steps{main: sweepKernel("sweep_tf32", nil)},
		bf16x3: steps{main: sweepKernel("sweep_bf16x3", nil)},
	}
	applyKernels = variants{
		f32: steps{
			applyKernel("apply_pack_f32", unsafe.Pointer(C.fortet_apply_pack_f32)),
			applyKernel("apply_f32", unsafe.Pointer(C.fortet_apply_f32_cpu)), nil},
		f64: steps{
			applyKernel("apply_pack_f64", unsafe.Pointer(C.fortet_apply_pack_f64)),
			applyKernel("apply_f64", unsafe.Pointer(C.fortet_apply_f64_cpu)), nil},
		tf32:   steps{main: applyKernel("apply_tf32", nil)},
		bf16x3: steps{main: applyKernel("apply_bf16x3", nil)},
	}
)

func softminKernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "softmin", CPU: cpu, ArgsBytes: C.sizeof_fortet_softmin_args, Contract: contract}
}

func sweepKernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "softmin", CPU: cpu, ArgsBytes: C.sizeof_fortet_sweep_args, Contract: contract}
}

func applyKernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "softmin", CPU: cpu, ArgsBytes: C.sizeof_fortet_apply_args, Contract: contract}
}

func (v *variants) of(p Pairs, s sizes) *steps {
	switch {
	case p.Precision == TF32:
		return &v.tf32
	case p.Precision == BF16x3:
		return &v.bf16x3
	case s.dtype == tensor.Float64:
		return &v.f64
	}
	return &v.f32
}

func launchSoftmin(dev gpu.Device, p Pairs, s sizes, out tensor.Tensor) error {
	args := &C.fortet_softmin_args{pairs: p.c(s), out: out.Ptr()}
	c := call{C.FORTET_OP_SOFTMIN, p, s, 0, &args.pairs, &args.work, unsafe.Pointer(args)}
	return c.launch(dev, &softminKernels)
}

func launchSweep(dev gpu.Device, p Pairs, s sizes, a SweepArgs) error {
	args := &C.fortet_sweep_args{
		pairs: p.c(s),
		loga:  a.LogA.Ptr(),
		damp:  C.double(a.Damp),
		out:   a.Out.Ptr(),
		col:   (*C.double)(a.Col.Ptr()),
	}
	c := call{C.FORTET_OP_SWEEP, p, s, 0, &args.pairs, &args.work, unsafe.Pointer(args)}
	return c.launch(dev, &sweepKernels)
}

func launchApply(dev gpu.Device, p Pairs, s sizes, a ApplyArgs, k int) error {
	args := &C.fortet_apply_args{
		pairs: p.c(s),
		f:     a.F.Ptr(),
		v:     a.V.Ptr(),
		k:     C.int64_t(k),
		mass:  a.Mass.Ptr(),
		mean:  a.Mean.Ptr(),
		r:     a.R.Ptr(),
		grad:  a.Grad.Ptr(),
	}
	c := call{C.FORTET_OP_APPLY, p, s, k, &args.pairs, &args.work, unsafe.Pointer(args)}
	return c.launch(dev, &applyKernels)
}

// c is the pairs as kernels read them.
func (p Pairs) c(s sizes) C.fortet_pairs {
	costs := [...]C.int32_t{
		SqEuclidean:     C.FORTET_SQEUCLIDEAN,
		HalfSqEuclidean: C.FORTET_HALF_SQEUCLIDEAN,
		Euclidean:       C.FORTET_EUCLIDEAN,
		Matrix:          C.FORTET_MATRIX,
	}
	return C.fortet_pairs{
		x: p.X.Ptr(), y: p.Y.Ptr(), matrix: p.Matrix.Ptr(), g: p.G.Ptr(), logb: p.LogB.Ptr(),
		n: C.int64_t(s.n), m: C.int64_t(s.m), d: C.int64_t(s.d),
		epsilon: C.double(p.Epsilon),
		cost:    costs[p.Cost],
	}
}

// call is one operation on its way to a device.
type call struct {
	op   C.int32_t
	p    Pairs
	s    sizes
	k    int             // columns of V
	cp   *C.fortet_pairs // the pairs in args
	work *unsafe.Pointer // and its workspace
	args unsafe.Pointer
}

// launch queues the steps of the call, with a workspace.
func (c call) launch(dev gpu.Device, v *variants) error {
	k := v.of(c.p, c.s)
	element := C.int32_t(c.s.dtype.Size())
	cpu := dev.Name() == "cpu"
	var plan C.fortet_softmin_plan
	var bytes C.int64_t
	switch {
	case cpu && k.main.CPU == nil:
		return fmt.Errorf("%s: %w: tensor-core precisions need a GPU", k.main.Name, gpu.ErrUnsupported)
	case cpu:
		C.fortet_softmin_cpu_plan(c.op, c.cp, element, &plan)
		bytes = plan.bytes
	default:
		bytes = C.fortet_softmin_work(c.op, C.int32_t(c.p.Precision), c.cp, C.int64_t(element), C.int64_t(c.k))
	}
	space, err := dev.Alloc(int(bytes))
	if err != nil {
		return fmt.Errorf("%s: workspace of %d bytes: %w", k.main.Name, bytes, err)
	}
	defer dev.Free(space) // the queue may still use it
	*c.work = space.Ptr
	if !cpu {
		return dev.Launch(k.main, c.args, 0)
	}
	if err := dev.Launch(k.pack, c.args, int(plan.pack_tiles)); err != nil {
		return err
	}
	if err := dev.Launch(k.main, c.args, int(plan.tiles)); err != nil || k.finish == nil {
		return err
	}
	return dev.Launch(k.finish, c.args, int(plan.finish_tiles))
}

// rate is how many multiply-adds, or exponentials of the kernels' own kind,
// one core does per second: the limits that benchmarks compare with.
func rate(level gpu.Level, double, exponentials bool) float64 {
	kind := C.int(0)
	if exponentials {
		kind = 1
	}
	best := 0.0
	for range 50 {
		start := time.Now()
		var count C.double
		if double {
			count = C.fortet_softmin_rate_f64(kind, 100, C.int(level))
		} else {
			count = C.fortet_softmin_rate_f32(kind, 100, C.int(level))
		}
		best = max(best, float64(count)/time.Since(start).Seconds())
	}
	return best
}
