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
	return launch(dev, C.FORTET_OP_SOFTMIN, softminKernels.of(p, s), &args.pairs, s, &args.work, unsafe.Pointer(args))
}

func launchSweep(dev gpu.Device, p Pairs, s sizes, a SweepArgs) error {
	args := &C.fortet_sweep_args{
		pairs: p.c(s),
		loga:  a.LogA.Ptr(),
		damp:  C.double(a.Damp),
		out:   a.Out.Ptr(),
		col:   (*C.double)(a.Col.Ptr()),
	}
	return launch(dev, C.FORTET_OP_SWEEP, sweepKernels.of(p, s), &args.pairs, s, &args.work, unsafe.Pointer(args))
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
	return launch(dev, C.FORTET_OP_APPLY, applyKernels.of(p, s), &args.pairs, s, &args.work, unsafe.Pointer(args))
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

// launch queues the steps of an operation with a workspace, whose address it
// writes to *work, a field of args as pairs is.
func launch(dev gpu.Device, op C.int32_t, k *steps, pairs *C.fortet_pairs, s sizes, work *unsafe.Pointer, args unsafe.Pointer) error {
	cpu := dev.Name() == "cpu"
	if cpu && k.main.CPU == nil {
		return fmt.Errorf("%s: %w: tensor-core precisions need a GPU", k.main.Name, gpu.ErrUnsupported)
	}
	var plan C.fortet_softmin_plan
	bytes := C.fortet_softmin_work(op, pairs, C.int64_t(s.dtype.Size()))
	if cpu {
		C.fortet_softmin_cpu_plan(op, pairs, C.int32_t(s.dtype.Size()), &plan)
		bytes = plan.bytes
	}
	space, err := dev.Alloc(int(bytes))
	if err != nil {
		return fmt.Errorf("%s: workspace of %d bytes: %w", k.main.Name, bytes, err)
	}
	defer dev.Free(space) // the queue may still use it
	*work = space.Ptr
	if !cpu {
		return dev.Launch(k.main, args, 0)
	}
	if err := dev.Launch(k.pack, args, int(plan.pack_tiles)); err != nil {
		return err
	}
	if err := dev.Launch(k.main, args, int(plan.tiles)); err != nil || k.finish == nil {
		return err
	}
	return dev.Launch(k.finish, args, int(plan.finish_tiles))
}
