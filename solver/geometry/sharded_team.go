package geometry

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

// Team is the processes that share the rows of geometries. They agree on when to
// stop: see Join.
type Team struct {
	group collective.Group
	dev   gpu.Device
	wish  context.Context // of this process
	stop  context.CancelFunc
}

// Join makes a team of a group, which exchanges memory of dev, and a context for
// the solver. A process that stopped on its own would leave the others waiting.
// So the solver's context is not done when ctx is: it is done on all ranks in the
// same call to an operator of a Sharded geometry, once ctx is done on one of them.
// It has ctx's values, but no deadline.
func Join(ctx context.Context, dev gpu.Device, group collective.Group) (*Team, context.Context) {
	agreed, stop := context.WithCancel(context.WithoutCancel(ctx))
	return &Team{group, dev, ctx, stop}, agreed
}

// Rank is this process's number, from 0.
func (t *Team) Rank() int { return t.group.Rank() }

// Size is how many processes there are.
func (t *Team) Size() int { return t.group.Size() }

// header precedes what a rank sends: two numbers, which are added up over all
// ranks, and are zero where all goes on.
type header struct{ stop, failed float64 }

const headerBytes = 16

func (t *Team) header(failed error) header {
	var h header
	if t.wish.Err() != nil {
		h.stop = 1
	}
	if failed != nil {
		h.failed = 1
	}
	return h
}

func (h header) bytes() []byte { return asBytes([]float64{h.stop, h.failed}) }

func readHeader(b []byte) header {
	v := floats(b[:headerBytes])
	return header{v[0], v[1]}
}

// gather is what all ranks send, in their order; all send as much. stop says that
// one of them was to stop: the team's context is done then.
func (t *Team) gather(mine []byte) (out [][]byte, stop bool, err error) {
	block, size := headerBytes+len(mine), t.Size()
	all, err := t.dev.Alloc(block * size)
	if err != nil {
		return nil, false, err
	}
	defer t.dev.Free(all)
	part := all.Slice(block*t.Rank(), block)
	if err := t.dev.Upload(part, append(t.header(nil).bytes(), mine...)); err != nil {
		return nil, false, err
	}
	if err := t.group.Gather(all, part); err != nil {
		return nil, false, err
	}
	host := make([]byte, block*size)
	if err := t.dev.Download(host, all); err != nil {
		return nil, false, err
	}
	for r := range size {
		b := host[r*block:][:block]
		stop = stop || readHeader(b).stop > 0
		out = append(out, b[headerBytes:])
	}
	if stop {
		t.stop()
	}
	return out, stop, nil
}

// reasons are the errors that keep their meaning on the way to other ranks.
var reasons = []error{nil, gpu.ErrOutOfMemory, gpu.ErrUnsupported, solver.ErrInvalid, gpu.ErrInvalid, tensor.ErrInvalid, gpu.ErrLaunch}

// remoteError is an error of another rank.
type remoteError struct {
	text   string
	reason error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.reason }

// settle lets all ranks know how each one's opening went. All must have found the
// same fingerprint.
func (t *Team) settle(op *sharded, failed error, fingerprint uint64) error {
	const room = 512
	mine := make([]byte, room)
	binary.LittleEndian.PutUint64(mine, fingerprint)
	if failed != nil {
		mine[8] = byte(len(reasons)) // none of them
		for k, r := range reasons {
			if r != nil && errors.Is(failed, r) {
				mine[8] = byte(k)
				break
			}
		}
		copy(mine[10:], failed.Error())
	} else if op.cached {
		mine[9] = 1
	}
	all, _, err := t.gather(mine)
	if err != nil {
		return fmt.Errorf("geometry: sharded: open: %w", err)
	}
	for r, said := range all {
		if code := int(said[8]); code > 0 {
			var reason error
			if code < len(reasons) {
				reason = reasons[code]
			}
			return &remoteError{fmt.Sprintf("geometry: sharded: rank %d: %s", r, bytes.TrimRight(said[10:], "\x00")), reason}
		}
	}
	cached := true
	for r, said := range all {
		if got := binary.LittleEndian.Uint64(said); got != binary.LittleEndian.Uint64(all[0]) {
			return fmt.Errorf("geometry: sharded: %w: rank %d has other data or settings than rank 0; all processes must read the same", solver.ErrInvalid, r)
		}
		cached = cached && said[9] == 1
	}
	op.cached = cached
	return nil
}
