// Package gpu is the device seam: where arrays live and where kernels run.
//
// A Device is hardware plus one in-order queue. The CPU is a device like any
// other; the CUDA device and its emulation are two builds of the same shared
// library, opened at run time (see Open). Operations are not methods: every
// folder of kernels/ describes its operation to a device by a Kernel.
package gpu

import (
	"errors"
	"fmt"
	"time"
	"unsafe"
)

// Sentinel errors. Every error of this package wraps one of them.
var (
	// ErrUnavailable says that a device is not there, and why.
	ErrUnavailable = errors.New("device unavailable")
	// ErrNoLibrary and ErrNoDevice come with ErrUnavailable where nothing is
	// broken: no device library is installed, or no driver and card.
	ErrNoLibrary = errors.New("no device library")
	ErrNoDevice  = errors.New("no device")
	// ErrUnsupported says that a device is there but cannot run the kernel asked for.
	ErrUnsupported = errors.New("not supported on this device")
	// ErrOutOfMemory says that the device has no room for an allocation.
	ErrOutOfMemory = errors.New("out of device memory")
	// ErrInvalid says that a caller's argument is wrong.
	ErrInvalid = errors.New("invalid argument")
	// ErrContract says that a device library was built from other headers than this program.
	ErrContract = errors.New("device library does not match this program")
	// ErrLaunch says that a kernel failed on the device.
	ErrLaunch = errors.New("kernel failed")
)

// Kind says what a device is made of.
type Kind int

// The kinds of device.
const (
	CPU       Kind = iota // C kernels on a pool of workers
	CUDA                  // an NVIDIA GPU
	Emulation             // the CUDA sources, run on the CPU by fibers: for tests
)

func (k Kind) String() string {
	switch k {
	case CPU:
		return "cpu"
	case CUDA:
		return "cuda"
	case Emulation:
		return "emu"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Properties describe a device.
type Properties struct {
	Kind        Kind
	Model       string // the hardware's own name
	Features    string // "avx2", "sm_90", …
	Workers     int    // CPU workers or multiprocessors
	MemoryBytes int64  // total memory of the device
	Driver      string // CUDA driver and runtime version; empty elsewhere
	Library     string // path of the device library; empty for the CPU
	Fallback    error  // why "auto" took this device and no GPU; nil otherwise
}

// Buffer is device memory: an address that the host must not follow, and a
// length in bytes. It is never Go heap memory, so it may cross cgo freely.
// The zero Buffer is "no array", which kernels document as an option.
type Buffer struct {
	Ptr   unsafe.Pointer
	Bytes int
}

// Slice returns the n bytes that begin at off, sharing memory. It panics where
// the range does not lie inside the buffer, as slicing does.
func (b Buffer) Slice(off, n int) Buffer {
	if off < 0 || n < 0 || off > b.Bytes-n {
		panic(fmt.Sprintf("gpu: slice [%d:+%d] of a buffer of %d bytes", off, n, b.Bytes))
	}
	return Buffer{unsafe.Add(b.Ptr, off), n}
}

// Overlaps reports whether both buffers share memory.
func (b Buffer) Overlaps(o Buffer) bool {
	within := func(p unsafe.Pointer, b Buffer) bool {
		return uintptr(p) >= uintptr(b.Ptr) && uintptr(p)-uintptr(b.Ptr) < uintptr(b.Bytes)
	}
	return b.Bytes > 0 && o.Bytes > 0 && (within(b.Ptr, o) || within(o.Ptr, b))
}

// Kernel describes an operation to every device. Kernels are package-level
// values of the operations' folders and are never changed.
type Kernel struct {
	// Name is the entry point without its prefix: a device library exports
	//	int fortet_<Name>(void *stream, const void *args)
	Name string
	// Op is the folder of kernels/ that the operation lives in: a device
	// library exports its Contract as
	//	const char *fortet_<Op>_contract(void)
	Op string
	// CPU is the C function
	//	int f(const void *args, int64_t begin, int64_t end, int level)
	// that computes the tiles [begin, end) of the operation with the
	// instructions of level. Tiles are independent of each other, so that
	// results do not depend on the number of workers. nil: no CPU path.
	CPU unsafe.Pointer
	// ArgsBytes is the size of the argument struct.
	ArgsBytes uintptr
	// Contract is the hash of the shared headers and the operation's own
	// (include.Contract); a device library built from others is refused.
	Contract string
}

// Device is hardware plus one in-order queue. Calls on one Device must not
// overlap, except Alloc, Free and Memory, which are safe at any time.
type Device interface {
	// Name is what Open accepts: "cpu", "cuda:0", "emu".
	Name() string
	Properties() Properties

	// Alloc returns uninitialised memory aligned to 256 bytes. It comes from
	// the device's pool.
	Alloc(bytes int) (Buffer, error)
	// Free returns memory to the pool. What is queued may still use it: the
	// pool hands it out again only to work that comes later in the queue.
	// Inside Record, memory is kept until the graph is closed.
	Free(Buffer)
	// Memory reports the pool's accounting.
	Memory() MemoryStats

	// Upload copies host memory to the device. src may be reused on return.
	Upload(dst Buffer, src []byte) error
	// Download waits for the queue and copies device memory to the host.
	Download(dst []byte, src Buffer) error

	// Launch queues a kernel. args points to its C argument struct and is
	// copied or used before Launch returns. tiles is the number of
	// independent pieces that CPU workers share; other devices ignore it.
	Launch(k *Kernel, args unsafe.Pointer, tiles int) error
	// Record runs body, in which launches are noted but not run, and returns
	// them as a graph. Upload, Download and Sync are errors inside body.
	Record(body func() error) (Graph, error)
	// Sync waits for the queue and reports what failed in it.
	Sync() error

	// Stream opens another in-order queue on the same hardware and pool.
	Stream() (Device, error)
	// Mark returns an event that happens when all that is queued has run.
	Mark() (Event, error)
	// Wait holds the queue until an event of another stream has happened.
	Wait(Event) error

	// Close releases the queue, and with the last queue the pool.
	Close() error
}

// Graph is a recorded sequence of launches.
type Graph interface {
	// Replay queues all launches once more, with the arguments of the record.
	Replay() error
	Close() error
}

// Event is a moment in a queue.
type Event interface {
	// Sync waits for the event.
	Sync() error
	// Since returns the time between an earlier event and this one; both
	// must have happened.
	Since(earlier Event) (time.Duration, error)
	Close()
}

// MemoryStats is the accounting of a device's pool, in bytes.
type MemoryStats struct {
	InUse     int64 // handed out now
	HighWater int64 // the most that was ever handed out at once
	Reserved  int64 // taken from the device, handed out or kept for reuse
}

// Status codes that C kernels and device libraries answer with; fortet.h has
// the same list.
const (
	statusOK          = 0
	statusInvalid     = 1
	statusOutOfMemory = 2
	statusUnsupported = 3
)

// statusError turns a status code into an error. text is the device's own
// explanation, or empty.
func statusError(what string, code int, text string) error {
	if text != "" {
		text = ": " + text
	}
	switch code {
	case statusOK:
		return nil
	case statusInvalid:
		return fmt.Errorf("%s: %w%s", what, ErrInvalid, text)
	case statusOutOfMemory:
		return fmt.Errorf("%s: %w%s", what, ErrOutOfMemory, text)
	case statusUnsupported:
		return fmt.Errorf("%s: %w%s", what, ErrUnsupported, text)
	}
	return fmt.Errorf("%s: %w (code %d)%s", what, ErrLaunch, code, text)
}
