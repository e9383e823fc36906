package fold

// #cgo CFLAGS: -O3 -std=c11 -I${SRCDIR}/../include
// #include "fold.h"
//
// int fortet_fold_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_fold_f64_cpu(const void *, int64_t, int64_t, int);
import "C"

import (
	_ "embed"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/tensor"
)

//go:embed fold.h
var header string

var contract = include.Contract(header)

var (
	single = kernel("fold_f32", C.fortet_fold_f32_cpu)
	double = kernel("fold_f64", C.fortet_fold_f64_cpu)
)

func kernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "fold", CPU: cpu, ArgsBytes: C.sizeof_fortet_fold_args, Contract: contract}
}

// The constant of fold.h.
var _ [0]struct{} = [tile - C.FORTET_FOLD_TILE]struct{}{}

// Argument structs escape to the device: they are used again.
var pool = sync.Pool{New: func() any { return new(C.fortet_fold_args) }}

func launch(out, in tensor.Tensor, m int) error {
	k := single
	if in.DType() == tensor.Float64 {
		k = double
	}
	p := pool.Get().(*C.fortet_fold_args)
	defer pool.Put(p)
	*p = C.fortet_fold_args{
		in: in.Ptr(), out: out.Ptr(), rows: C.int64_t(in.Dim(0)), width: C.int64_t(in.Dim(1)), m: C.int64_t(m),
	}
	return in.Device().Launch(k, unsafe.Pointer(p), (m+tile-1)/tile)
}
