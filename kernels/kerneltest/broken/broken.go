// Package broken is a kernel that doubles its input, right and in every way
// wrong that package kerneltest must catch. It is for kerneltest's own tests.
package broken

/*
#cgo CFLAGS: -I${SRCDIR}/../../include
#include "broken.h"
*/
import "C"

import (
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Fault is a way to be wrong.
type Fault int

// The faults.
const (
	None Fault = iota
	LastElement
	ShortTile
	WriteBehind
	WriteBefore
	InputChanged
	OneNaN
	Inaccurate
	OneInfinity
	Unsupported
)

var kernel = gpu.Kernel{
	Name:      "broken",
	Op:        "broken",
	CPU:       unsafe.Pointer(C.fortet_broken_cpu),
	ArgsBytes: unsafe.Sizeof(C.fortet_broken_args{}),
}

// Double computes y = 2x, in the way that fault says. It runs on the CPU only.
func Double(dev gpu.Device, y, x tensor.Tensor, fault Fault) error {
	a := C.fortet_broken_args{x: (*C.float)(x.Ptr()), y: (*C.float)(y.Ptr()), n: C.int64_t(x.Len()), fault: C.int32_t(fault)}
	return dev.Launch(&kernel, unsafe.Pointer(&a), (x.Len()+C.FORTET_BROKEN_TILE-1)/C.FORTET_BROKEN_TILE)
}
