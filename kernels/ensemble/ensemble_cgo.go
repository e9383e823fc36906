package ensemble

// #cgo CFLAGS: -I${SRCDIR}/../include -O3 -Wno-psabi
// #cgo LDFLAGS: -lm
// #include "ensemble.h"
//
// int fortet_ensemble_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_ensemble_f64_cpu(const void *, int64_t, int64_t, int);
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

//go:embed ensemble.h
var header string

var contract = include.Contract(header)

var (
	solveF32 = kernel("ensemble_f32", C.fortet_ensemble_f32_cpu)
	solveF64 = kernel("ensemble_f64", C.fortet_ensemble_f64_cpu)
)

func kernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "ensemble", CPU: cpu, ArgsBytes: C.sizeof_fortet_ensemble_args, Contract: contract}
}

// pool recycles argument structs: devices see them through an interface, so
// that each would be garbage.
var pool = sync.Pool{New: func() any { return new(C.fortet_ensemble_args) }}

func flag(v bool) C.int32_t {
	if v {
		return 1
	}
	return 0
}

func doubles(t tensor.Tensor) *C.double { return (*C.double)(t.Ptr()) }
func longs(t tensor.Tensor) *C.int64_t  { return (*C.int64_t)(t.Ptr()) }
func ints(t tensor.Tensor) *C.int32_t   { return (*C.int32_t)(t.Ptr()) }

func launch(dev gpu.Device, a Args, d int, order []int64, list tensor.Tensor) error {
	var nMost, mMost int64
	for _, p := range order {
		n, m := a.Layout.size(int(p))
		nMost, mMost = max(nMost, n), max(mMost, m)
	}
	args := pool.Get().(*C.fortet_ensemble_args)
	defer pool.Put(args)
	*args = C.fortet_ensemble_args{
		x: doubles(a.X), y: doubles(a.Y), matrix: doubles(a.Costs), a: doubles(a.A), b: doubles(a.B),
		rows: longs(a.Layout.onRows), columns: longs(a.Layout.onColumns), pairs: longs(a.Layout.onPairs), order: longs(list),
		stop: ints(a.Stop), epsilon: doubles(a.Epsilon), rho1: doubles(a.RhoSource), rho2: doubles(a.RhoTarget),
		f: doubles(a.F), g: doubles(a.G), _map: doubles(a.Map), values: doubles(a.Values), counts: ints(a.Counts),
		count: C.int64_t(len(order)), d: C.int64_t(d), n_most: C.int64_t(nMost), m_most: C.int64_t(mMost),
		tolerance: C.double(a.Tolerance), anneal: C.double(a.Anneal),
		cost: C.int32_t(a.Ground), mean: flag(a.PerMean), warm: flag(a.Warm), mix: flag(!a.Plain),
		max_sweeps: C.int32_t(a.MaxSweeps), give_up: C.int32_t(a.GiveUp),
	}
	k := solveF32
	if a.Sweeps == tensor.Float64 {
		k = solveF64
	}
	if dev.Name() != "cpu" {
		bytes := C.fortet_ensemble_work(args, C.int64_t(a.Sweeps.Size()))
		space, err := dev.Alloc(int(bytes))
		if err != nil {
			return fmt.Errorf("%s: workspace of %d bytes: %w", op, bytes, err)
		}
		defer dev.Free(space) // the queue may still use it
		args.work = space.Ptr
	}
	return dev.Launch(k, unsafe.Pointer(args), len(order))
}
