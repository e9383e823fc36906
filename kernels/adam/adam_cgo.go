package adam

// #cgo CFLAGS: -O3 -std=c11 -I${SRCDIR}/../include
// #cgo LDFLAGS: -lm
// #include "adam.h"
//
// int fortet_adam_squares_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_adam_squares_f64_cpu(const void *, int64_t, int64_t, int);
// int fortet_adam_norm_cpu(const void *, int64_t, int64_t, int);
// int fortet_adam_step_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_adam_step_f64_cpu(const void *, int64_t, int64_t, int);
import "C"

import (
	_ "embed"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/tensor"
)

//go:embed adam.h
var header string

var contract = include.Contract(header)

var (
	squaresF32 = kernel("adam_squares_f32", C.fortet_adam_squares_f32_cpu, C.sizeof_fortet_adam_norm_args)
	squaresF64 = kernel("adam_squares_f64", C.fortet_adam_squares_f64_cpu, C.sizeof_fortet_adam_norm_args)
	norm       = kernel("adam_norm", C.fortet_adam_norm_cpu, C.sizeof_fortet_adam_norm_args)
	stepF32    = kernel("adam_step_f32", C.fortet_adam_step_f32_cpu, C.sizeof_fortet_adam_step_args)
	stepF64    = kernel("adam_step_f64", C.fortet_adam_step_f64_cpu, C.sizeof_fortet_adam_step_args)
)

func kernel(name string, cpu unsafe.Pointer, bytes uintptr) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "adam", CPU: cpu, ArgsBytes: bytes, Contract: contract}
}

// The constants of adam.h.
var (
	_ [0]struct{} = [chunk - C.FORTET_ADAM_CHUNK]struct{}{}
	_ [0]struct{} = [tile - C.FORTET_ADAM_TILE]struct{}{}
)

// Argument structs escape to the device: they are used again.
var (
	stepArgs = sync.Pool{New: func() any { return new(C.fortet_adam_step_args) }}
	normArgs = sync.Pool{New: func() any { return new(C.fortet_adam_norm_args) }}
)

func launchStep(a *Args) error {
	n, k := a.Params.Len(), stepF32
	if a.Params.DType() == tensor.Float64 {
		k = stepF64
	}
	p := stepArgs.Get().(*C.fortet_adam_step_args)
	defer stepArgs.Put(p)
	*p = C.fortet_adam_step_args{
		gradient: a.Gradient.Ptr(), params: a.Params.Ptr(), first: a.First.Ptr(), second: a.Second.Ptr(),
		ema: a.EMA.Ptr(), norm: (*C.double)(a.Norm.Ptr()), n: C.int64_t(n),
		epsilon: C.double(a.Epsilon),
		blend1:  C.double(1 - a.Beta1), blend2: C.double(1 - a.Beta2), blend3: C.double(1 - a.EMADecay),
		clip: C.double(a.Clip),
	}
	if a.Table.IsZero() {
		row := Row(a.Step, a.Rate, a.Beta1, a.Beta2, a.Decay)
		p.rate, p.root, p.shrink = C.double(row[0]), C.double(row[1]), C.double(row[2])
	} else {
		p.table, p.count, p.rows = (*C.double)(a.Table.Ptr()), (*C.uint32_t)(a.Count.Ptr()), C.int64_t(a.Table.Dim(0))
	}
	return a.Params.Device().Launch(k, unsafe.Pointer(p), (n+tile-1)/tile)
}

func launchNorm(a *NormArgs, partial gpu.Buffer) error {
	n, k := a.Gradient.Len(), squaresF32
	if a.Gradient.DType() == tensor.Float64 {
		k = squaresF64
	}
	p := normArgs.Get().(*C.fortet_adam_norm_args)
	defer normArgs.Put(p)
	*p = C.fortet_adam_norm_args{
		gradient: a.Gradient.Ptr(), partial: (*C.double)(partial.Ptr), norm: (*C.double)(a.Norm.Ptr()),
		count: (*C.uint32_t)(a.Count.Ptr()), n: C.int64_t(n),
	}
	dev := a.Gradient.Device()
	if err := dev.Launch(k, unsafe.Pointer(p), Chunks(n)); err != nil {
		return err
	}
	return dev.Launch(norm, unsafe.Pointer(p), 1)
}
