package proximal

// #cgo CFLAGS: -I${SRCDIR}/../include -O3 -Wno-psabi
// #cgo LDFLAGS: -lm
// #include "proximal.h"
//
// int fortet_proximal_f32_cpu(const void *, int64_t, int64_t, int);
// int fortet_proximal_f64_cpu(const void *, int64_t, int64_t, int);
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

//go:embed proximal.h
var header string

var contract = include.Contract(header)

var (
	solveF32 = kernel("proximal_f32", C.fortet_proximal_f32_cpu)
	solveF64 = kernel("proximal_f64", C.fortet_proximal_f64_cpu)
)

func kernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "proximal", CPU: cpu, ArgsBytes: C.sizeof_fortet_proximal_args, Contract: contract}
}

// pool recycles argument structs: devices see them through an interface, so
// that each would be garbage.
var pool = sync.Pool{New: func() any { return new(C.fortet_proximal_args) }}

func launch(a Args, dense int) error {
	dev, m := a.X.Device(), &a.Mixture
	warm := C.int64_t(0)
	if a.Warm {
		warm = 1
	}
	args := pool.Get().(*C.fortet_proximal_args)
	defer pool.Put(args)
	*args = C.fortet_proximal_args{
		m: C.fortet_mixture{
			logits: m.Logits.Ptr(), means: m.Means.Ptr(), scales: m.Scales.Ptr(), axes: m.Axes.Ptr(),
			k: C.int64_t(m.Components()), d: C.int64_t(m.Dim()), epsilon: C.double(m.Epsilon),
		},
		x: a.X.Ptr(), t: a.T.Ptr(), y: a.Y.Ptr(),
		value: a.Value.Ptr(), residual: a.Residual.Ptr(), iterations: a.Iterations.Ptr(),
		n: C.int64_t(a.X.Dim(0)), t0: C.double(a.T0), beta: C.double(a.Beta),
		tolerance: C.double(a.Tolerance), max_iterations: C.int64_t(a.MaxIterations), warm: warm,
		dense: C.int64_t(min(dense, C.FORTET_PROXIMAL_DENSE)),
	}
	k := solveF32
	if a.X.DType() == tensor.Float64 {
		k = solveF64
	}
	if dev.Name() != "cpu" {
		bytes := C.fortet_proximal_work(args, C.int64_t(a.X.DType().Size()))
		if bytes > 0 {
			space, err := dev.Alloc(int(bytes))
			if err != nil {
				return fmt.Errorf("%s: workspace of %d bytes: %w", op, bytes, err)
			}
			defer dev.Free(space) // the queue may still use it
			args.work = space.Ptr
		}
	}
	return dev.Launch(k, unsafe.Pointer(args), int(C.fortet_proximal_tiles(args)))
}
