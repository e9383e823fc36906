package philox

// #cgo CFLAGS: -O3 -std=c11 -I${SRCDIR}/../include
// #cgo LDFLAGS: -lm
// #include "philox.h"
//
// int fortet_philox_bits_cpu(const void *, int64_t, int64_t, int);
// int fortet_philox_uniform_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_philox_uniform_f64_cpu(const void *, int64_t, int64_t, int);
// int fortet_philox_normal_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_philox_normal_f64_cpu(const void *, int64_t, int64_t, int);
import "C"

import (
	_ "embed"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/tensor"
)

//go:embed philox.h
var header string

var contract = include.Contract(header)

var (
	bits       = kernel("philox_bits", C.fortet_philox_bits_cpu)
	uniformF32 = kernel("philox_uniform_f32", C.fortet_philox_uniform_f32_cpu)
	uniformF64 = kernel("philox_uniform_f64", C.fortet_philox_uniform_f64_cpu)
	normalF32  = kernel("philox_normal_f32", C.fortet_philox_normal_f32_cpu)
	normalF64  = kernel("philox_normal_f64", C.fortet_philox_normal_f64_cpu)
)

func kernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "philox", CPU: cpu, ArgsBytes: C.sizeof_fortet_philox_args, Contract: contract}
}

func (k kind) of(t tensor.DType) *gpu.Kernel {
	switch {
	case k == bitsKernel:
		return bits
	case k == uniformKernel && t == tensor.Float32:
		return uniformF32
	case k == uniformKernel:
		return uniformF64
	case t == tensor.Float32:
		return normalF32
	}
	return normalF64
}

func launch(k kind, out tensor.Tensor, n, d int, draw Draw) error {
	args := &C.fortet_philox_args{
		out: out.Ptr(), n: C.int64_t(n), d: C.int64_t(d),
		draw: C.fortet_draw{
			seed: C.uint64_t(draw.Seed), index: C.uint64_t(draw.Index),
			step: C.uint32_t(draw.Step), purpose: C.uint32_t(draw.Purpose),
		},
	}
	return out.Device().Launch(k.of(out.DType()), unsafe.Pointer(args), Tiles(out.DType(), n, d))
}
