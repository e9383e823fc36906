//go:build cgo

package collective

/*
#cgo CFLAGS: -O3 -std=c11
#include <string.h>
#include "../cuda/nccl.h"

enum { COPY_TILE = 1 << 20 };

static int copy_cpu(const void *args, int64_t begin, int64_t end, int level) {
	const fortet_nccl_args *a = args;
	(void)level;
	const int64_t at = begin * COPY_TILE, stop = end * COPY_TILE < a->bytes ? end * COPY_TILE : a->bytes;
	memcpy((char *)a->out + at, (const char *)a->in + at, (size_t)(stop - at));
	return 0;
}
static void *copy_cpu_entry(void) { return (void *)copy_cpu; }
*/
import "C"

import (
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/cuda"
	"github.com/fortet/fortet/kernels/include"
)

var contract = include.Contract(cuda.NCCL)

func kernel(name string, cpu unsafe.Pointer) *gpu.Kernel {
	return &gpu.Kernel{Name: "nccl_" + name, Op: "nccl", CPU: cpu, ArgsBytes: C.sizeof_fortet_nccl_args, Contract: contract}
}

var copyKernel = kernel("copy", C.copy_cpu_entry())

// copyArgs recycles argument structs, which escape through the Device interface.
var copyArgs = sync.Pool{New: func() any { return new(C.fortet_nccl_args) }}

// copyBuffer queues the copying of in to out, which do not overlap.
func copyBuffer(dev gpu.Device, out, in gpu.Buffer) error {
	args := copyArgs.Get().(*C.fortet_nccl_args)
	defer copyArgs.Put(args)
	*args = C.fortet_nccl_args{in: in.Ptr, out: out.Ptr, bytes: C.int64_t(in.Bytes)}
	return dev.Launch(copyKernel, unsafe.Pointer(args), (in.Bytes+C.COPY_TILE-1)/C.COPY_TILE)
}
