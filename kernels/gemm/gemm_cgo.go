package gemm

/*
#cgo CFLAGS: -I${SRCDIR}/../include -O3 -Wno-psabi
#include "gemm_cpu.h"
*/
import "C"

import (
	_ "embed"
	"fmt"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/tensor"
)

//go:embed gemm.h
var header string

var contract = include.Contract(header)

// steps are the kernels of an element type on the CPU, in the order in which they run.
type steps struct{ pack, product, finish *gpu.Kernel }

var (
	stepsF32 = steps{
		cpuKernel("gemm_pack_f32", unsafe.Pointer(C.fortet_gemm_pack_f32_cpu)),
		cpuKernel("gemm_f32", unsafe.Pointer(C.fortet_gemm_f32_cpu)),
		cpuKernel("gemm_finish_f32", unsafe.Pointer(C.fortet_gemm_finish_f32_cpu)),
	}
	stepsF64 = steps{
		cpuKernel("gemm_pack_f64", unsafe.Pointer(C.fortet_gemm_pack_f64_cpu)),
		cpuKernel("gemm_f64", unsafe.Pointer(C.fortet_gemm_f64_cpu)),
		cpuKernel("gemm_finish_f64", unsafe.Pointer(C.fortet_gemm_finish_f64_cpu)),
	}
)

// The kernels of other devices, by Precision for float32.
var (
	kernelsF32 = [...]*gpu.Kernel{Native: kernel("gemm_f32"), TF32: kernel("gemm_tf32"), BF16x3: kernel("gemm_bf16x3")}
	kernelF64  = kernel("gemm_f64")
)

func cpuKernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "gemm", CPU: cpu, ArgsBytes: C.sizeof_fortet_gemm_round, Contract: contract}
}

func kernel(name string) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "gemm", ArgsBytes: C.sizeof_fortet_gemm_args, Contract: contract}
}

// Argument structs escape to the device: they are used again.
var rounds = sync.Pool{New: func() any { return new(C.fortet_gemm_round) }}

func launch(a *Args, p *problem) error {
	r := rounds.Get().(*C.fortet_gemm_round)
	defer rounds.Put(r)
	*r = C.fortet_gemm_round{g: C.fortet_gemm_args{
		a: p.a.c(a.A), b: p.b.c(a.B), c: p.c.c(a.C),
		bias: a.Bias.Ptr(), bias_column: 1,
		m: C.int64_t(p.m), n: C.int64_t(p.n), k: C.int64_t(p.k), batch: C.int64_t(p.batch),
		alpha: C.double(a.Alpha), beta: C.double(a.Beta),
	}}
	dev := a.C.Data.Device()
	if dev.Name() == "cpu" {
		if a.Precision != Native {
			return fmt.Errorf("gemm: %w: precision %v needs a GPU", gpu.ErrUnsupported, a.Precision)
		}
		return launchCPU(dev, r, p)
	}
	k := kernelsF32[a.Precision]
	if p.dtype == tensor.Float64 {
		k = kernelF64
	}
	work, err := workspace(dev, C.fortet_gemm_work(&r.g, C.int64_t(p.dtype.Size())))
	if err != nil {
		return err
	}
	defer dev.Free(work) // the queue may still use it
	r.g.work = work.Ptr
	return dev.Launch(k, unsafe.Pointer(&r.g), 0)
}

// launchCPU queues the rounds of gemm_cpu.h.
func launchCPU(dev gpu.Device, r *C.fortet_gemm_round, p *problem) error {
	kernels := &stepsF32
	if p.dtype == tensor.Float64 {
		kernels = &stepsF64
	}
	r.g = C.fortet_gemm_turned(r.g)
	r.plan = C.fortet_gemm_cpu_plan(&r.g, C.int64_t(p.dtype.Size()))
	work, err := workspace(dev, r.plan.bytes)
	if err != nil {
		return err
	}
	defer dev.Free(work)
	r.g.work = work.Ptr
	for ; r.s0 < r.g.batch && r.plan.splits > 0; r.s0 = r.s1 {
		r.s1 = min(r.s0+r.plan.matrices, r.g.batch)
		for r.j0 = 0; r.j0 < r.g.n; r.j0 = r.j1 {
			r.j1 = min(r.j0+r.plan.columns, r.g.n)
			for r.k0 = 0; r.k0 < r.g.k; r.k0 = r.k1 {
				r.k1 = min(r.k0+r.plan.depth, r.g.k)
				if r.plan.few == 0 {
					if err := dev.Launch(kernels.pack, unsafe.Pointer(r), int(C.fortet_gemm_pack_tiles(r))); err != nil {
						return err
					}
				}
				if err := dev.Launch(kernels.product, unsafe.Pointer(r), int(C.fortet_gemm_tiles(r))); err != nil {
					return err
				}
			}
		}
	}
	if r.plan.splits == 1 {
		return nil
	}
	return dev.Launch(kernels.finish, unsafe.Pointer(r), int(C.fortet_gemm_finish_tiles(r)))
}

func workspace(dev gpu.Device, bytes C.int64_t) (gpu.Buffer, error) {
	work, err := dev.Alloc(int(bytes))
	if err != nil {
		return work, fmt.Errorf("gemm: workspace of %d bytes: %w", bytes, err)
	}
	return work, nil
}

// c is op of the matrix as kernels read it.
func (l layout) c(m Matrix) C.fortet_gemm_matrix {
	c := C.fortet_gemm_matrix{row: C.int64_t(l.lead), column: 1, stride: C.int64_t(l.stride)}
	if l.span > 0 {
		c.data = l.memory(m.Data).Ptr
	}
	if m.Transposed {
		c.row, c.column = c.column, c.row
	}
	return c
}
