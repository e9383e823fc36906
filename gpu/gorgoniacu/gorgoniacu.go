//go:build cu

package gorgoniacu

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"github.com/fortet/fortet/gpu"
)

// Buffer returns bytes of device memory from p on as a buffer, for tensor.Wrap.
// The memory stays the caller's: it must not be given to a device's Free, and
// must live as long as the buffer is in use. An error wraps gpu.ErrInvalid
// where the memory is not inside one allocation of the current context.
func Buffer(p cu.DevicePtr, bytes int) (gpu.Buffer, error) {
	if bytes < 0 {
		return gpu.Buffer{}, fmt.Errorf("gorgoniacu: bytes: %d, want at least 0: %w", bytes, gpu.ErrInvalid)
	}
	size, base, err := p.AddressRange()
	if err != nil {
		return gpu.Buffer{}, fmt.Errorf("gorgoniacu: %v is no device memory of the current context: %w: %w", p, err, gpu.ErrInvalid)
	}
	if held := size - int64(p-base); int64(bytes) > held {
		return gpu.Buffer{}, fmt.Errorf("gorgoniacu: %v: %d bytes until the end of the allocation, want %d: %w", p, held, bytes, gpu.ErrInvalid)
	}
	// The address is no Go memory; reading it as a pointer, in place of a
	// conversion, tells go vet so.
	return gpu.Buffer{Ptr: *(*unsafe.Pointer)(unsafe.Pointer(&p)), Bytes: bytes}, nil
}

// DevicePtr returns the address of a buffer of a CUDA device.
func DevicePtr(b gpu.Buffer) cu.DevicePtr { return cu.DevicePtr(uintptr(b.Ptr)) }

// Queue returns the handle of a stream, which kernels of a device library take
// as their queue. cu.NoStream gives nil, the default stream.
func Queue(s cu.Stream) unsafe.Pointer { return unsafe.Pointer(s.C()) }

// Sync waits for what dev and s have queued. After it, either may use what the
// other one wrote.
func Sync(dev gpu.Device, s cu.Stream) error {
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("gorgoniacu: %w", err)
	}
	if err := s.Synchronize(); err != nil {
		return fmt.Errorf("gorgoniacu: stream: %w: %w", err, gpu.ErrLaunch)
	}
	return nil
}
