//go:build cgo

package collective

/*
#cgo CFLAGS: -I${SRCDIR}/../../kernels/include
#include <stdlib.h>
#include "fortet.h"
#include "../cuda/nccl.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/fortet/fortet/gpu"
)

var (
	ncclID        = kernel("id", nil)
	ncclOpen      = kernel("open", nil)
	ncclGather    = kernel("gather", nil)
	ncclSum       = kernel("sum", nil)
	ncclBroadcast = kernel("broadcast", nil)
	ncclError     = kernel("error", nil)
	ncclClose     = kernel("close", nil)
	ncclAbort     = kernel("abort", nil)
)

// ncclGroup is a group of processes with a GPU each (see Open).
type ncclGroup struct {
	member
	group *C.fortet_nccl_group // C memory: what is queued writes to it
	mpi   Group                // that the id came through, or nil
	mark  gpu.Buffer           // what Barrier adds up
	args  C.fortet_nccl_args   // of the call under way
}

func openNCCL(dev gpu.Device) (Group, error) {
	if dev.Properties().Kind == gpu.CPU {
		return nil, fmt.Errorf("nccl: %w: device %s, want a GPU", gpu.ErrInvalid, dev.Name())
	}
	place, how, err := ncclPlace()
	if err != nil {
		return nil, fmt.Errorf("nccl: %w: %w", ErrUnavailable, err)
	}
	g := &ncclGroup{
		member: member{name: "nccl", rank: place.rank, size: place.size, dev: dev},
		group:  (*C.fortet_nccl_group)(C.calloc(1, C.sizeof_fortet_nccl_group)),
	}
	if g.group == nil {
		panic("collective: out of host memory") // as Go's own allocations do
	}
	g.group.rank, g.group.size = C.int32_t(g.rank), C.int32_t(g.size)
	if err := g.join(how); err != nil {
		return nil, errors.Join(fmt.Errorf("nccl: %w: %w", ErrUnavailable, err), g.Close())
	}
	return g, nil
}

func (g *ncclGroup) join(how bootstrap) (err error) {
	if g.mark, err = g.dev.Alloc(4); err != nil {
		return err
	}
	if how == byMPI {
		if g.mpi, err = openMPI(g.dev); err != nil {
			return fmt.Errorf("the ranks cannot find each other: neither NCCL_COMM_ID nor MASTER_ADDR and MASTER_PORT is set, and %w", err)
		}
		if g.mpi.Rank() != g.rank || g.mpi.Size() != g.size {
			return fmt.Errorf("rank %d of %d to the launcher, %d of %d to MPI", g.rank, g.size, g.mpi.Rank(), g.mpi.Size())
		}
	}
	// With NCCL_COMM_ID every rank makes the same id; else rank 0's goes round.
	if how != byMPI || g.rank == 0 {
		if err := g.launch(ncclID, C.fortet_nccl_args{}); err != nil {
			return err
		}
	}
	if how == byMPI {
		if err := g.shareID(); err != nil {
			return err
		}
	}
	return g.launch(ncclOpen, C.fortet_nccl_args{})
}

// shareID gives rank 0's id to all.
func (g *ncclGroup) shareID() error {
	id := unsafe.Slice((*byte)(unsafe.Pointer(&g.group.id[0])), C.FORTET_NCCL_ID_BYTES)
	b, err := g.dev.Alloc(len(id))
	if err != nil {
		return err
	}
	defer g.dev.Free(b)
	if err := g.dev.Upload(b, id); err != nil {
		return err
	}
	if err := g.mpi.Broadcast(b, 0); err != nil {
		return err
	}
	return g.dev.Download(id, b)
}

// launch calls an entry of the device library. NCCL's words stand in the group.
func (g *ncclGroup) launch(k *gpu.Kernel, args C.fortet_nccl_args) error {
	args.group = g.group
	g.args = args
	g.group.text[0] = 0
	err := g.dev.Launch(k, unsafe.Pointer(&g.args), 0)
	if text := C.GoString(&g.group.text[0]); err != nil && text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

func (g *ncclGroup) Gather(out, in gpu.Buffer) error {
	if err := g.checkGather(out, in); err != nil || in.Bytes == 0 {
		return err
	}
	return g.launch(ncclGather, C.fortet_nccl_args{in: in.Ptr, out: out.Ptr, bytes: C.int64_t(in.Bytes)})
}

func (g *ncclGroup) Sum(v gpu.Buffer, of Element) error {
	if err := g.checkSum(v, of); err != nil || v.Bytes == 0 {
		return err
	}
	return g.launch(ncclSum, C.fortet_nccl_args{in: v.Ptr, out: v.Ptr, bytes: C.int64_t(v.Bytes), element: C.int32_t(of)})
}

func (g *ncclGroup) Broadcast(v gpu.Buffer, root int) error {
	if err := g.checkBroadcast(root); err != nil || v.Bytes == 0 {
		return err
	}
	return g.launch(ncclBroadcast, C.fortet_nccl_args{in: v.Ptr, out: v.Ptr, bytes: C.int64_t(v.Bytes), root: C.int32_t(root)})
}

// Barrier also tells of what went wrong inside NCCL since the last one.
func (g *ncclGroup) Barrier() error {
	if err := g.open("barrier"); err != nil {
		return err
	}
	if err := g.Sum(g.mark, Float32); err != nil {
		return err
	}
	if err := g.dev.Sync(); err != nil {
		return fmt.Errorf("nccl: barrier: %w", err)
	}
	return g.launch(ncclError, C.fortet_nccl_args{})
}

// Close waits for the queue.
func (g *ncclGroup) Close() error {
	if g.closed {
		return nil
	}
	g.closed = true
	var errs []error
	if g.group.comm != nil {
		end := ncclClose
		if err := g.dev.Sync(); err != nil {
			errs = append(errs, fmt.Errorf("nccl: close: %w", err))
			end = ncclAbort
		}
		errs = append(errs, g.launch(end, C.fortet_nccl_args{}))
	}
	g.dev.Free(g.mark)
	if g.mpi != nil {
		errs = append(errs, g.mpi.Close())
	}
	C.free(unsafe.Pointer(g.group))
	g.group = nil
	return errors.Join(errs...)
}
