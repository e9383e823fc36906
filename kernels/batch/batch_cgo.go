package batch

// #cgo CFLAGS: -O3 -std=c11 -I${SRCDIR}/../include
// #cgo LDFLAGS: -lm
// #include "batch.h"
//
// int fortet_batch_gather_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_batch_gather_f64_cpu(const void *, int64_t, int64_t, int);
// int fortet_batch_bridge_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_batch_bridge_f64_cpu(const void *, int64_t, int64_t, int);
import "C"

import (
	_ "embed"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

//go:embed batch.h
var header string

var contract = include.Contract(header)

var (
	gatherF32 = kernel("batch_gather_f32", C.fortet_batch_gather_f32_cpu, C.sizeof_fortet_batch_gather_args)
	gatherF64 = kernel("batch_gather_f64", C.fortet_batch_gather_f64_cpu, C.sizeof_fortet_batch_gather_args)
	bridgeF32 = kernel("batch_bridge_f32", C.fortet_batch_bridge_f32_cpu, C.sizeof_fortet_batch_bridge_args)
	bridgeF64 = kernel("batch_bridge_f64", C.fortet_batch_bridge_f64_cpu, C.sizeof_fortet_batch_bridge_args)
)

func kernel(name string, cpu unsafe.Pointer, bytes uintptr) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "batch", CPU: cpu, ArgsBytes: bytes, Contract: contract}
}

// The constant of batch.h.
var _ [0]struct{} = [tile - C.FORTET_BATCH_TILE]struct{}{}

// Argument structs escape to the device: they are used again.
var (
	gatherArgs = sync.Pool{New: func() any { return new(C.fortet_batch_gather_args) }}
	bridgeArgs = sync.Pool{New: func() any { return new(C.fortet_batch_bridge_args) }}
)

func launchGather(a *GatherArgs) error {
	k := gatherF32
	if a.Rows.DType() == tensor.Float64 {
		k = gatherF64
	}
	b, d := a.Out.Dim(0), a.Out.Dim(1)
	p := gatherArgs.Get().(*C.fortet_batch_gather_args)
	defer gatherArgs.Put(p)
	*p = C.fortet_batch_gather_args{
		rows: a.Rows.Ptr(), out: a.Out.Ptr(),
		n: C.int64_t(a.Rows.Dim(0)), d: C.int64_t(d), batch: C.int64_t(b), draw: draw(a.Draw),
		count: (*C.uint32_t)(a.Count.Ptr()),
	}
	if a.Index.DType() == tensor.Int64 {
		p.index64 = (*C.int64_t)(a.Index.Ptr())
	} else {
		p.index32 = (*C.int32_t)(a.Index.Ptr())
	}
	return a.Out.Device().Launch(k, unsafe.Pointer(p), gatherTiles(b, d))
}

func launchBridge(a *BridgeArgs, b, d int) error {
	k, dtype := bridgeF32, a.X0.DType()
	if dtype == tensor.Float64 {
		k = bridgeF64
	}
	p := bridgeArgs.Get().(*C.fortet_batch_bridge_args)
	defer bridgeArgs.Put(p)
	*p = C.fortet_batch_bridge_args{
		x0: a.X0.Ptr(), x1: a.X1.Ptr(), given: a.TIn.Ptr(), t: a.T.Ptr(), xt: a.Xt.Ptr(), u: a.U.Ptr(),
		n: C.int64_t(b), d: C.int64_t(d), epsilon: C.double(a.Epsilon), safe: C.double(a.Safe), draw: draw(a.Draw),
		count: (*C.uint32_t)(a.Count.Ptr()),
	}
	return a.X0.Device().Launch(k, unsafe.Pointer(p), philox.Tiles(dtype, b, d))
}

func draw(d philox.Draw) C.fortet_draw {
	return C.fortet_draw{
		seed: C.uint64_t(d.Seed), index: C.uint64_t(d.Index),
		step: C.uint32_t(d.Step), purpose: C.uint32_t(d.Purpose),
	}
}
