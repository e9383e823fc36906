package fdual

// #cgo CFLAGS: -O3 -std=c11 -I${SRCDIR}/../include
// #cgo LDFLAGS: -lm
// #include "fdual.h"
//
// int fortet_fdual_rows_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_fdual_rows_f64_cpu(const void *, int64_t, int64_t, int);
// int fortet_fdual_eval_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_fdual_eval_f64_cpu(const void *, int64_t, int64_t, int);
import "C"

import (
	_ "embed"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

//go:embed fdual.h
var header string

var contract = include.Contract(header)

var (
	rowsF32 = kernel("fdual_rows_f32", C.fortet_fdual_rows_f32_cpu, C.sizeof_fortet_fdual_rows_args)
	rowsF64 = kernel("fdual_rows_f64", C.fortet_fdual_rows_f64_cpu, C.sizeof_fortet_fdual_rows_args)
	evalF32 = kernel("fdual_eval_f32", C.fortet_fdual_eval_f32_cpu, C.sizeof_fortet_fdual_eval_args)
	evalF64 = kernel("fdual_eval_f64", C.fortet_fdual_eval_f64_cpu, C.sizeof_fortet_fdual_eval_args)
)

func kernel(name string, cpu unsafe.Pointer, bytes uintptr) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "fdual", CPU: cpu, ArgsBytes: bytes, Contract: contract}
}

// Argument structs escape from a launch: devices see them through an interface.
var (
	rowsArgs = sync.Pool{New: func() any { return new(C.fortet_fdual_rows_args) }}
	evalArgs = sync.Pool{New: func() any { return new(C.fortet_fdual_eval_args) }}
)

// c is the pairs as kernels read them.
func (p Pairs) c(s sizes) C.fortet_fdual_pairs {
	laws := [...]C.int32_t{
		Exp:            C.FORTET_FDUAL_EXP,
		Power:          C.FORTET_FDUAL_POWER,
		JensenShannon:  C.FORTET_FDUAL_JS,
		TotalVariation: C.FORTET_FDUAL_TV,
	}
	costs := [...]C.int32_t{
		softmin.SqEuclidean:     C.FORTET_SQEUCLIDEAN,
		softmin.HalfSqEuclidean: C.FORTET_HALF_SQEUCLIDEAN,
		softmin.Euclidean:       C.FORTET_EUCLIDEAN,
		softmin.Matrix:          C.FORTET_MATRIX,
	}
	return C.fortet_fdual_pairs{
		x: p.X.Ptr(), yt: p.YT.Ptr(), matrix: p.Matrix.Ptr(), q: p.Q.Ptr(), logb: p.LogB.Ptr(),
		n: C.int64_t(s.n), m: C.int64_t(s.m), d: C.int64_t(s.d),
		slope: C.double(p.Slope), decay: C.double(p.Decay), shift: C.double(p.Shift),
		a: C.double(p.A), delta: C.double(p.Delta), law: laws[p.Law], cost: costs[p.Cost],
	}
}

func tiles(s sizes) int { return (s.n + C.FORTET_FDUAL_ROWS - 1) / C.FORTET_FDUAL_ROWS }

func launchRows(dev gpu.Device, p Pairs, s sizes, a RowsArgs) error {
	args := rowsArgs.Get().(*C.fortet_fdual_rows_args)
	defer rowsArgs.Put(args)
	*args = C.fortet_fdual_rows_args{
		pairs: p.c(s), start: a.Start.Ptr(), p: a.P.Ptr(),
		mass: (*C.double)(a.Mass.Ptr()), steps: (*C.int32_t)(a.Steps.Ptr()),
	}
	k := rowsF32
	if s.dtype == tensor.Float64 {
		k = rowsF64
	}
	return dev.Launch(k, unsafe.Pointer(args), tiles(s))
}

func launchEval(dev gpu.Device, p Pairs, s sizes, a EvalArgs) error {
	args := evalArgs.Get().(*C.fortet_fdual_eval_args)
	defer evalArgs.Put(args)
	*args = C.fortet_fdual_eval_args{
		pairs: p.c(s), p: a.P.Ptr(),
		mass: (*C.double)(a.Mass.Ptr()), cost: (*C.double)(a.Mean.Ptr()),
		f: (*C.double)(a.F.Ptr()), psi: (*C.double)(a.Psi.Ptr()), edge: (*C.double)(a.Edge.Ptr()),
	}
	k := evalF32
	if s.dtype == tensor.Float64 {
		k = evalF64
	}
	return dev.Launch(k, unsafe.Pointer(args), tiles(s))
}
