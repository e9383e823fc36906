// Package collective lets several processes compute as one: each holds a part
// of the rows, and four calls exchange what all must know. A Group is the
// processes that were started together, by mpirun, Slurm or Kubernetes; this
// package starts none and moves no byte itself: MPI carries host memory, NCCL
// the memory of GPUs.
package collective

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

// Group is the processes that compute together, as one of them sees it. Its
// buffers lie on the device that it was opened with. Every call is ordered in
// that device's queue like a launch, and must be made by all ranks, in the same
// order, with the same sizes.
//
// A call that fails leaves the group useless: the others may wait for ever.
type Group interface {
	// Name is what Open takes.
	Name() string
	// Rank is this process's number, from 0; Size is how many there are.
	Rank() int
	Size() int

	// Gather fills out with the in of all ranks, in their order. All are of the
	// same length; out is Size times as long, and in may be this rank's part of
	// it. What arrives is what was sent, bit for bit.
	Gather(out, in gpu.Buffer) error
	// Sum replaces v by its sum over all ranks. All get the same bits; in which
	// order was added is not promised.
	Sum(v gpu.Buffer, of Element) error
	// Broadcast replaces v by that of rank root.
	Broadcast(v gpu.Buffer, root int) error
	// Barrier returns once all ranks have called it, and what was queued before
	// it has run.
	Barrier() error

	// Close leaves the group. It does not close the device.
	Close() error
}

// Element is what Sum adds.
type Element int

// The elements.
const (
	Float32 Element = iota
	Float64
)

// Bytes is the size of an element.
func (e Element) Bytes() int {
	if e == Float32 {
		return 4
	}
	return 8
}

func (e Element) String() string {
	switch e {
	case Float32:
		return "f32"
	case Float64:
		return "f64"
	}
	return fmt.Sprintf("Element(%d)", int(e))
}
