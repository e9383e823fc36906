package ou

// #cgo CFLAGS: -O3 -std=c11 -I${SRCDIR}/../include
// #cgo LDFLAGS: -lm
// #include "ou.h"
//
// int fortet_ou_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_ou_f64_cpu(const void *, int64_t, int64_t, int);
import "C"

import (
	_ "embed"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

//go:embed ou.h
var header string

var contract = include.Contract(header)

var (
	transitionF32 = kernel("ou_f32", C.fortet_ou_f32_cpu)
	transitionF64 = kernel("ou_f64", C.fortet_ou_f64_cpu)
)

func kernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "ou", CPU: cpu, ArgsBytes: C.sizeof_fortet_ou_args, Contract: contract}
}

func launch(a Args, n, d int) error {
	args := &C.fortet_ou_args{
		x0: a.X0.Ptr(), lambda: a.Lambda.Ptr(), b: a.B.Ptr(),
		mean: a.Mean.Ptr(), scale: a.Scale.Ptr(), xt: a.Xt.Ptr(), score: a.Score.Ptr(),
		n: C.int64_t(n), d: C.int64_t(d), b0: C.double(a.B0),
		draw: C.fortet_draw{
			seed: C.uint64_t(a.Draw.Seed), index: C.uint64_t(a.Draw.Index),
			step: C.uint32_t(a.Draw.Step), purpose: C.uint32_t(a.Draw.Purpose),
		},
	}
	k, dtype := transitionF32, a.Lambda.DType()
	if dtype == tensor.Float64 {
		k = transitionF64
	}
	return a.Lambda.Device().Launch(k, unsafe.Pointer(args), philox.Tiles(dtype, n, d))
}
