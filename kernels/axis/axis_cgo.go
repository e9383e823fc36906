package axis

// #cgo CFLAGS: -I${SRCDIR}/../include -O3 -Wno-psabi
// #cgo LDFLAGS: -lm
// #include "axis_cpu.h"
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

//go:embed axis.h
var header string

var contract = include.Contract(header)

// steps are the kernels of one element type. Devices other than the CPU run
// pass alone.
type steps struct{ scan, prepare, pass *gpu.Kernel }

var (
	single = steps{
		kernel("axis_scan_f32", C.fortet_axis_scan_f32),
		kernel("axis_prepare_f32", C.fortet_axis_prepare_f32),
		kernel("axis_f32", C.fortet_axis_f32_cpu)}
	double = steps{
		kernel("axis_scan_f64", C.fortet_axis_scan_f64),
		kernel("axis_prepare_f64", C.fortet_axis_prepare_f64),
		kernel("axis_f64", C.fortet_axis_f64_cpu)}
)

func kernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: name, Op: "axis", CPU: cpu, ArgsBytes: C.sizeof_fortet_axis_args, Contract: contract}
}

// Argument structs escape to the device: they are used again.
var pool = sync.Pool{New: func() any { return new(C.fortet_axis_args) }}

func launch(a Args, s sizes) error {
	k, element := &single, C.int32_t(4)
	if s.dtype == tensor.Float64 {
		k, element = &double, 8
	}
	p := pool.Get().(*C.fortet_axis_args)
	defer pool.Put(p)
	*p = C.fortet_axis_args{
		in: a.In.Ptr(), logk: a.LogK.Ptr(), add: a.Add.Ptr(), out: a.Out.Ptr(), mass: (*C.double)(a.Mass.Ptr()),
		outer: C.int64_t(s.outer), n: C.int64_t(s.n), m: C.int64_t(s.m), inner: C.int64_t(s.inner),
		scale: C.double(a.Scale),
	}
	dev := a.In.Device()
	if dev.Name() != "cpu" {
		return dev.Launch(k.pass, unsafe.Pointer(p), 0)
	}
	var plan C.fortet_axis_plan
	C.fortet_axis_cpu_plan(p, element, &plan)
	if plan.direct != 0 {
		return dev.Launch(k.pass, unsafe.Pointer(p), int(plan.tiles))
	}
	work, err := dev.Alloc(int(plan.bytes))
	if err != nil {
		return fmt.Errorf("%s: workspace of %d bytes: %w", op, plan.bytes, err)
	}
	defer dev.Free(work)
	p.work = work.Ptr
	if err := dev.Launch(k.scan, unsafe.Pointer(p), int(plan.prepare_tiles)); err != nil {
		return err
	}
	if err := dev.Launch(k.prepare, unsafe.Pointer(p), int(plan.prepare_tiles)); err != nil {
		return err
	}
	return dev.Launch(k.pass, unsafe.Pointer(p), int(plan.tiles))
}
