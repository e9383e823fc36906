package run

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
)

// ErrElsewhere says that this process stopped because another one of its group
// failed, which says why.
var ErrElsewhere = errors.New("another process failed")

// told is an error that all processes know of.
type told struct{ error }

func (e told) Unwrap() error { return e.error }

// Known reports whether all processes of the group know that this one ended with
// err. Where they do not, they wait for this one in the middle of a step: it must
// exchange nothing more with them, and end, for their launcher to end them.
func Known(err error) bool {
	var t told
	return errors.As(err, &t)
}

// Follower is what a process of a group has in the place of the folder, which
// process 0 has: the configuration, and nothing on a disk.
func Follower(c Config) *Folder { return &Folder{config: c} }

// follows reports whether f is a Follower.
func (f *Folder) follows() bool { return f.path == "" }

// note is what processes tell each other when they meet.
type note struct {
	state int64 // what follows, the greatest of all counts
	a, b  int64
}

const (
	stateFine int64 = iota
	stateCanceled
	stateDiverged
	stateFailed
)

const noteBytes = 3 * 8

// team is the group that trains a run together. Its processes meet at steps that
// all know: at those that are logged or saved, and in between about ten times a
// second of process 0, which tells the next such step at every meeting. There
// they tell each other how they are. So all stop after the same step, be it that
// one is interrupted or that one cannot go on, and nobody waits for one that has
// left. A device or a group that fails inside of a step cannot be told of; then
// whoever started the processes has to end them, as mpirun does once one exits.
type team struct {
	collective.Group
	dev    gpu.Device
	buffer gpu.Buffer
	host   []byte

	meeting int // the next step after which all meet
	last    int // the one before
	since   time.Time
}

// newTeam is nil for a process that is alone.
func newTeam(group collective.Group, dev gpu.Device) (*team, error) {
	if group == nil || group.Size() == 1 {
		return nil, nil
	}
	t := &team{Group: group, dev: dev, host: make([]byte, noteBytes*group.Size())}
	var err error
	t.buffer, err = dev.Alloc(len(t.host))
	return t, err
}

func (t *team) free() { t.dev.Free(t.buffer) }

// tell is what all tell.
func (t *team) tell(mine note) ([]note, error) {
	at := noteBytes * t.Rank()
	for i, v := range []int64{mine.state, mine.a, mine.b} {
		binary.LittleEndian.PutUint64(t.host[at+8*i:], uint64(v))
	}
	own := t.buffer.Slice(at, noteBytes)
	if err := t.dev.Upload(own, t.host[at:at+noteBytes]); err != nil {
		return nil, err
	}
	if err := t.Gather(t.buffer, own); err != nil {
		return nil, err
	}
	if err := t.dev.Download(t.host, t.buffer); err != nil {
		return nil, err
	}
	all := make([]note, t.Size())
	for rank := range all {
		word := func(i int) int64 { return int64(binary.LittleEndian.Uint64(t.host[noteBytes*rank+8*i:])) }
		all[rank] = note{word(0), word(1), word(2)}
	}
	return all, nil
}

// settle is tell of processes of which one may have failed: all get an error,
// that one its own.
func (t *team) settle(err error, mine note) ([]note, error) {
	if err != nil {
		mine.state = stateFailed
	}
	all, failed := t.tell(mine)
	switch {
	case failed != nil:
		return nil, errors.Join(err, failed)
	case err != nil:
		return nil, told{err}
	}
	for rank, n := range all {
		if n.state == stateFailed {
			return nil, told{fmt.Errorf("%w: number %d of %d", ErrElsewhere, rank, t.Size())}
		}
	}
	return all, nil
}

// worst is the state of the one that is worst off, and who that is.
func worst(all []note) (state int64, rank int) {
	for i, n := range all {
		if n.state > state {
			state, rank = n.state, i
		}
	}
	return state, rank
}

// Agree is err where this process failed, an error that wraps ErrElsewhere where
// another one of the group did, and nil where none did. All must call it, at the
// same place; without a group it is err. One that has no memory left for the few
// bytes of this exchange cannot tell the others.
func Agree(group collective.Group, dev gpu.Device, err error) error {
	t, failed := newTeam(group, dev)
	if t == nil || failed != nil {
		return errors.Join(err, failed)
	}
	defer t.free()
	_, err = t.settle(err, note{})
	return err
}

// Share is, in all processes of the group, what process 0 calls it with. All
// must call it, at the same place.
func Share(group collective.Group, dev gpu.Device, data []byte) ([]byte, error) {
	t, err := newTeam(group, dev)
	if t == nil || err != nil {
		return data, err
	}
	defer t.free()
	all, err := t.settle(nil, note{a: int64(len(data))})
	if err != nil {
		return nil, err
	}
	buffer, err := dev.Alloc(int(all[0].a))
	if err := Agree(group, dev, err); err != nil {
		dev.Free(buffer)
		return nil, err
	}
	defer dev.Free(buffer)
	if t.Rank() == 0 {
		if err := dev.Upload(buffer, data); err != nil {
			return nil, err
		}
	}
	if err := t.Broadcast(buffer, 0); err != nil {
		return nil, err
	}
	out := make([]byte, buffer.Bytes)
	return out, dev.Download(out, buffer)
}

// fingerprint is equal for processes that may train together: all of the
// configuration but the device, how they exchange, and the arrays of the state.
func fingerprint(c Config, o Options, state []Named) (int64, error) {
	c.Device = ""
	text, err := c.YAML()
	if err != nil {
		return 0, err
	}
	h := fnv.New64a()
	h.Write(text) // never fails
	fmt.Fprintf(h, "%v\n", o.Fast)
	for _, s := range state {
		fmt.Fprintf(h, "%q %v %v\n", s.Name, s.Tensor.DType(), s.Tensor.Shape())
	}
	return int64(h.Sum64()), nil
}

// join makes processes begin alike: they see that they train the same, and take
// over the step and the state of process 0. err is what keeps this one from it.
func (l *loop) join(ctx context.Context, o Options, err error) error {
	t := l.team
	state := l.trainer.State()
	print, failed := fingerprint(l.folder.config, o, state)
	mine := note{a: print, b: int64(l.step)}
	if ctx.Err() != nil {
		mine.state = stateCanceled
	}
	all, err := t.settle(errors.Join(err, failed), mine)
	if err != nil {
		return err
	}
	for rank, n := range all {
		if n.a != all[0].a {
			return told{invalid("process %d of %d trains another configuration, or was built from another commit, than process 0", rank, t.Size())}
		}
	}
	for _, s := range state {
		if err := t.Broadcast(s.Tensor.Buffer(), 0); err != nil {
			return fmt.Errorf("state: array %q: %w", s.Name, err)
		}
	}
	if r, ok := l.trainer.(Restorer); ok && t.Rank() > 0 {
		err = r.Restored()
	}
	if _, err := t.settle(err, note{}); err != nil {
		return err
	}
	first := int(all[0].b)
	l.step, l.begun, l.healthy, l.kept = first, first, first, first
	how, _ := worst(all)
	l.canceled = how == stateCanceled
	t.meeting, t.last, t.since = first+1, first, time.Now()
	return nil
}

// meet is where all meet after a step. err is what keeps this one from going on.
func (l *loop) meet(ctx context.Context, err error) error {
	t := l.team
	mine := note{}
	switch {
	case l.reason != "":
		mine.state = stateDiverged
	case ctx.Err() != nil:
		mine.state = stateCanceled
	}
	made, took := l.step-t.last, time.Since(t.since)
	// Steps of which the first ones took little time may yet take long.
	mine.a = max(1, min(4*int64(made), int64(float64(made)*patience.Seconds()/max(took.Seconds(), 1e-9))))
	all, err := t.settle(err, mine)
	if err != nil {
		return err
	}
	state, rank := worst(all)
	if state == stateDiverged && l.reason == "" {
		l.diverged(fmt.Sprintf("process %d of %d found a number that is not finite", rank, t.Size()))
	}
	l.canceled = state == stateCanceled
	t.meeting, t.last, t.since = l.step+int(all[0].a), l.step, time.Now()
	return nil
}
