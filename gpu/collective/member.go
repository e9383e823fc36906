package collective

import (
	"fmt"
	"unsafe"

	"github.com/fortet/fortet/gpu"
)

// member is what every group knows of itself, and how it checks its calls.
type member struct {
	name       string
	rank, size int
	dev        gpu.Device
	closed     bool
}

func (m *member) Name() string { return m.name }
func (m *member) Rank() int    { return m.rank }
func (m *member) Size() int    { return m.size }

func (m *member) open(call string) error {
	if m.closed {
		return m.invalid(call, "the group is closed")
	}
	return nil
}

func (m *member) invalid(call, format string, v ...any) error {
	return fmt.Errorf("%s: %s: %w: %s", m.name, call, gpu.ErrInvalid, fmt.Sprintf(format, v...))
}

func (m *member) checkGather(out, in gpu.Buffer) error {
	if err := m.open("gather"); err != nil {
		return err
	}
	// Not Size times in, which may overflow.
	if m.size > 0 && (out.Bytes%m.size != 0 || out.Bytes/m.size != in.Bytes) {
		return m.invalid("gather", "out has %d bytes, want %d, of each of %d ranks", out.Bytes, in.Bytes, m.size)
	}
	if out.Overlaps(in) && in.Ptr != m.part(out).Ptr {
		return m.invalid("gather", "in lies in out, and is not its part of rank %d", m.rank)
	}
	return nil
}

// part is this rank's part of the out of Gather.
func (m *member) part(out gpu.Buffer) gpu.Buffer {
	n := out.Bytes / m.size
	return out.Slice(m.rank*n, n)
}

func (m *member) checkSum(v gpu.Buffer, of Element) error {
	if err := m.open("sum"); err != nil {
		return err
	}
	switch n := of.Bytes(); {
	case of != Float32 && of != Float64:
		return m.invalid("sum", "%v, want f32 or f64", of)
	case v.Bytes%n != 0:
		return m.invalid("sum", "%d bytes, want a multiple of %d for %v", v.Bytes, n, of)
	case uintptr(v.Ptr)%uintptr(n) != 0:
		return m.invalid("sum", "the buffer is not aligned to %d bytes for %v", n, of)
	}
	return nil
}

func (m *member) checkBroadcast(root int) error {
	if err := m.open("broadcast"); err != nil {
		return err
	}
	if root < 0 || root >= m.size {
		return m.invalid("broadcast", "root %d, want 0 to %d", root, m.size-1)
	}
	return nil
}

// hostBytes is device memory that is host memory.
func hostBytes(b gpu.Buffer) []byte { return unsafe.Slice((*byte)(b.Ptr), b.Bytes) }
