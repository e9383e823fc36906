package cost

// #cgo CFLAGS: -O3 -I${SRCDIR}/../include
// #cgo LDFLAGS: -lm
// #include "cost.h"
//
// int fortet_cost_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_cost_f64_cpu(const void *, int64_t, int64_t, int);
import "C"

import (
	_ "embed"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/tensor"
)

//go:embed cost.h
var header string

var contract = include.Contract(header)

var (
	costF32 = kernel("cost_f32", C.fortet_cost_f32_cpu)
	costF64 = kernel("cost_f64", C.fortet_cost_f64_cpu)
)

func kernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "cost", CPU: cpu, ArgsBytes: C.sizeof_fortet_cost_args, Contract: contract}
}

func (k Kind) c() C.int32_t {
	return [...]C.int32_t{
		SqEuclidean:     C.FORTET_SQEUCLIDEAN,
		HalfSqEuclidean: C.FORTET_HALF_SQEUCLIDEAN,
		Euclidean:       C.FORTET_EUCLIDEAN,
		Cosine:          C.FORTET_COSINE,
	}[k]
}

func launch(a Args, s sizes) error {
	args := &C.fortet_cost_args{
		x: a.X.Ptr(), y: a.Y.Ptr(), out: a.Out.Ptr(), out_t: a.OutT.Ptr(),
		batch: C.int64_t(s.batch), n: C.int64_t(s.n), m: C.int64_t(s.m), d: C.int64_t(s.d),
		x_stride: C.int64_t(s.xStride), y_stride: C.int64_t(s.yStride),
		cost: a.Cost.c(),
	}
	pieces := func(whole, part int) int { return (whole + part - 1) / part }
	tiles := s.batch * pieces(s.n, C.FORTET_COST_ROWS) * pieces(s.m, C.FORTET_COST_COLUMNS)
	k := costF32
	if a.X.DType() == tensor.Float64 {
		k = costF64
	}
	return a.X.Device().Launch(k, unsafe.Pointer(args), tiles)
}
