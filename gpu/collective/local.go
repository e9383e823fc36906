package collective

import (
	"fmt"
	"strings"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
)

// Local returns size ranks inside this process, for tests and examples. Each
// is used by a goroutine of its own, on a device or a stream of its own:
// devs[i] is that of rank i. It panics where there are not size of them.
//
// Sum adds in the order of ranks. What other groups cannot see is an error of
// all ranks here: calls or sizes that differ, a rank that left. Calls wait for
// the queue, and cannot be recorded.
func Local(size int, devs ...gpu.Device) []Group {
	if size < 1 || len(devs) != size {
		panic(fmt.Sprintf("collective: local: %d devices for %d ranks, want one each, and a rank at least", len(devs), size))
	}
	table := &table{slots: make([]slot, size)}
	table.arrival.L = &table.mu
	groups := make([]Group, size)
	for i, dev := range devs {
		groups[i] = &local{
			member: member{name: "local", rank: i, size: size, dev: dev},
			host:   dev.Properties().Kind == gpu.CPU,
			table:  table,
		}
	}
	return groups
}

// table is where the ranks meet: each lays down what it brings, all wait, all
// read, all wait again.
type table struct {
	mu      sync.Mutex
	arrival sync.Cond
	slots   []slot
	arrived int
	round   uint64
	left    error // who left while others stay
}

// slot is what a rank brings. Its rank writes it before the first wait, the
// others read it before the second.
type slot struct {
	call string // with its arguments, which must agree
	data []byte
	err  error
}

// meet waits for all ranks.
func (t *table) meet() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left != nil {
		return t.left
	}
	round := t.round
	t.arrived++
	if t.arrived == len(t.slots) {
		t.arrived = 0
		t.round++
		t.arrival.Broadcast()
		return nil
	}
	for t.round == round && t.left == nil {
		t.arrival.Wait()
	}
	if t.round == round {
		return t.left
	}
	return nil
}

func (t *table) leave(rank int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left == nil {
		t.left = fmt.Errorf("%w: rank %d has left", ErrExchange, rank)
	}
	t.arrival.Broadcast()
}

// agree reports what the ranks brought that cannot be exchanged.
func (t *table) agree() error {
	for rank, s := range t.slots {
		if s.err != nil {
			return fmt.Errorf("%w: rank %d: %w", ErrExchange, rank, s.err)
		}
	}
	for rank, s := range t.slots {
		if first := t.slots[0]; s.call != first.call || len(s.data) != len(first.data) {
			return fmt.Errorf("%w: rank 0 calls %s of %d bytes, rank %d %s of %d", gpu.ErrInvalid,
				first.call, len(first.data), rank, s.call, len(s.data))
		}
	}
	return nil
}

type local struct {
	member
	host   bool // buffers are host memory
	table  *table
	staged []float64 // what this rank brings, where its buffers are no host memory
	result []float64 // what it takes home
}

// room makes *v hold n bytes at least, and answers n bytes of it.
func room(v *[]float64, n int) []byte {
	if len(*v) < (n+7)/8 {
		*v = make([]float64, (n+7)/8)
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(*v))), n)
}

// bring is b on the host, once all that was queued has run.
func (l *local) bring(b gpu.Buffer) ([]byte, error) {
	if l.host {
		return hostBytes(b), l.dev.Sync()
	}
	staged := room(&l.staged, b.Bytes)
	return staged, l.dev.Download(staged, b)
}

// exchange lays down data, and calls read while all ranks' lie there.
func (l *local) exchange(call string, data []byte, err error, read func(all []slot)) error {
	what := l.name + ": " + strings.Fields(call)[0]
	l.table.slots[l.rank] = slot{call, data, err}
	if err := l.table.meet(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	differ := l.table.agree()
	if differ == nil {
		read(l.table.slots)
	}
	if err := l.table.meet(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if differ != nil {
		return fmt.Errorf("%s: %w", what, differ)
	}
	return nil
}

func (l *local) Gather(out, in gpu.Buffer) error {
	data, err := []byte(nil), l.checkGather(out, in)
	if err != nil && l.closed {
		return err
	}
	if err == nil {
		data, err = l.bring(in)
	}
	var result []byte
	if l.host {
		result = hostBytes(out)
	} else {
		result = room(&l.result, out.Bytes)
	}
	err = l.exchange("gather", data, err, func(all []slot) {
		for rank, s := range all {
			if to := result[rank*len(s.data):][:len(s.data)]; len(to) > 0 && &to[0] != &s.data[0] {
				copy(to, s.data)
			}
		}
	})
	if err != nil || l.host {
		return err
	}
	return l.dev.Upload(out, result)
}

func (l *local) Sum(v gpu.Buffer, of Element) error {
	data, err := []byte(nil), l.checkSum(v, of)
	if err != nil && l.closed {
		return err
	}
	if err == nil {
		data, err = l.bring(v)
	}
	result := room(&l.result, v.Bytes)
	err = l.exchange("sum "+of.String(), data, err, func(all []slot) {
		copy(result, all[0].data)
		for _, s := range all[1:] {
			if of == Float32 {
				add(view[float32](result), view[float32](s.data))
			} else {
				add(view[float64](result), view[float64](s.data))
			}
		}
	})
	if err != nil {
		return err
	}
	return l.dev.Upload(v, result)
}

func view[T any](b []byte) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(*new(T))))
}

func add[T float32 | float64](v, w []T) {
	for i, x := range w {
		v[i] += x
	}
}

func (l *local) Broadcast(v gpu.Buffer, root int) error {
	data, err := []byte(nil), l.checkBroadcast(root)
	if err != nil && l.closed {
		return err
	}
	if err == nil {
		data, err = l.bring(v)
	}
	result := room(&l.result, v.Bytes)
	err = l.exchange(fmt.Sprintf("broadcast from %d", root), data, err, func(all []slot) { copy(result, all[root].data) })
	if err != nil || l.rank == root {
		return err
	}
	return l.dev.Upload(v, result)
}

func (l *local) Barrier() error {
	if err := l.open("barrier"); err != nil {
		return err
	}
	return l.exchange("barrier", nil, l.dev.Sync(), func([]slot) {})
}

func (l *local) Close() error {
	if !l.closed {
		l.closed = true
		l.table.leave(l.rank)
	}
	return nil
}
