package langevin

// #cgo CFLAGS: -O3 -std=c11 -I${SRCDIR}/../include
// #cgo LDFLAGS: -lm
// #include "langevin.h"
//
// int fortet_langevin_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_langevin_f64_cpu(const void *, int64_t, int64_t, int);
import "C"

import (
	_ "embed"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

//go:embed langevin.h
var header string

var contract = include.Contract(header)

var (
	stepF32 = kernel("langevin_f32", C.fortet_langevin_f32_cpu)
	stepF64 = kernel("langevin_f64", C.fortet_langevin_f64_cpu)
)

func kernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "langevin", CPU: cpu, ArgsBytes: C.sizeof_fortet_langevin_args, Contract: contract}
}

func launch(a Args) error {
	n, d := a.Y.Dim(0), a.Y.Dim(1)
	args := &C.fortet_langevin_args{
		y: a.Y.Ptr(), score: a.Score.Ptr(), mean: a.Mean.Ptr(), out: a.Out.Ptr(),
		n: C.int64_t(n), d: C.int64_t(d),
		eta: C.double(a.Eta), precision: C.double(a.Precision), scale: C.double(a.scale()),
		draw: C.fortet_draw{
			seed: C.uint64_t(a.Draw.Seed), index: C.uint64_t(a.Draw.Index),
			step: C.uint32_t(a.Draw.Step), purpose: C.uint32_t(a.Draw.Purpose),
		},
	}
	k := stepF32
	if a.Y.DType() == tensor.Float64 {
		k = stepF64
	}
	return a.Y.Device().Launch(k, unsafe.Pointer(args), philox.Tiles(a.Y.DType(), n, d))
}
