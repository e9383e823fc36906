package gpu

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync"
	"unsafe"
)

// rawAllocator is where a pool gets its memory from. Addresses are aligned to
// 256 bytes. rawAlloc wraps ErrOutOfMemory where there is no room.
type rawAllocator interface {
	rawAlloc(bytes int) (unsafe.Pointer, error)
	rawFree(unsafe.Pointer)
}

// A pool is one queue's view of the memory of a device. Views of one device
// (see branch) share blocks, accounting and lock; they differ in what they
// may reuse:
//
//   - A block that a queue freed is at once free for that queue's own
//     allocations, because whatever uses it next comes later in the queue.
//   - It becomes free for the other queues when its queue has been waited for
//     (see settled).
//   - A block freed between beginRecord and endRecord is held for the graph,
//     whose replays will write to it, until release.
//
// All methods are safe for concurrent use.
type pool struct {
	heap *heap

	// The rest is guarded by heap.mu.
	recording int      // depth of beginRecord
	held      []Buffer // freed while recording
	closed    bool
}

// heap is what the queues of one device share.
type heap struct {
	mu     sync.Mutex
	raw    rawAllocator
	blocks map[unsafe.Pointer]*block // every block of the device
	idle   map[int][]*block          // by size: free blocks, the latest last
	stats  MemoryStats
	views  int // pools not yet closed
}

// block is a piece of device memory of a size class.
type block struct {
	ptr   unsafe.Pointer
	size  int
	asked int   // bytes of the Buffer that was handed out
	state state // who has it
	queue *pool // who freed it; nil: free for all
}

type state int

const (
	blockIdle  state = iota
	blockInUse       // handed out
	blockHeld        // freed by its owner, kept for a graph
)

// granule is the least block, and the alignment that Device.Alloc promises.
const granule = 256

// sizeClass rounds up to multiples of granule up to 2 KiB, and above that to
// eight classes an octave, so that less than an eighth of a block is waste.
func sizeClass(bytes int) int {
	step := granule
	if bytes > 8*granule {
		step = 1 << (bits.Len(uint(bytes-1)) - 4)
	}
	return max(granule, (bytes+step-1)/step*step)
}

// newPool returns the pool of a device's first queue.
func newPool(raw rawAllocator) *pool {
	return &pool{heap: &heap{
		raw:    raw,
		blocks: map[unsafe.Pointer]*block{},
		idle:   map[int][]*block{},
		views:  1,
	}}
}

// branch returns the view of another queue of the same device.
func (p *pool) branch() *pool {
	h := p.heap
	h.mu.Lock()
	defer h.mu.Unlock()
	h.views++
	return &pool{heap: h}
}

// alloc hands out a buffer of so many bytes; with 0 bytes one that has an
// address but no room. When the device is full, the free blocks of all queues
// are given back to it and it is asked once more.
func (p *pool) alloc(bytes int) (Buffer, error) {
	if bytes < 0 {
		return Buffer{}, fmt.Errorf("alloc of %d bytes: %w, want no less than 0", bytes, ErrInvalid)
	}
	if bytes > math.MaxInt/2 {
		return Buffer{}, fmt.Errorf("alloc of %d bytes: %w", bytes, ErrOutOfMemory)
	}
	h := p.heap
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.closed {
		return Buffer{}, fmt.Errorf("alloc of %d bytes: %w: the device is closed", bytes, ErrInvalid)
	}
	size := sizeClass(bytes)
	b := h.reuse(size, p)
	if b == nil {
		ptr, err := h.raw.rawAlloc(size)
		if errors.Is(err, ErrOutOfMemory) && h.trim() {
			ptr, err = h.raw.rawAlloc(size)
		}
		if err != nil {
			return Buffer{}, fmt.Errorf("alloc of %d bytes (%d in use, %d reserved): %w", bytes, h.stats.InUse, h.stats.Reserved, err)
		}
		b = &block{ptr: ptr, size: size}
		h.blocks[ptr] = b
		h.stats.Reserved += int64(size)
	}
	b.state, b.asked, b.queue = blockInUse, bytes, nil
	h.stats.InUse += int64(size)
	h.stats.HighWater = max(h.stats.HighWater, h.stats.InUse)
	return Buffer{Ptr: b.ptr, Bytes: bytes}, nil
}

// reuse takes the latest idle block of a size that queue p may have, or nil.
func (h *heap) reuse(size int, p *pool) *block {
	list := h.idle[size]
	for i, b := range slices.Backward(list) {
		if b.queue == nil || b.queue == p {
			h.idle[size] = slices.Delete(list, i, i+1)
			return b
		}
	}
	return nil
}

// trim gives idle blocks back to the device and reports whether there were
// any. Devices wait for what still uses a block before they free it.
func (h *heap) trim() bool {
	found := false
	for size, list := range h.idle {
		for _, b := range list {
			h.raw.rawFree(b.ptr)
			delete(h.blocks, b.ptr)
			h.stats.Reserved -= int64(size)
			found = true
		}
	}
	clear(h.idle)
	return found
}

// free takes a buffer back. The zero Buffer is ignored, and so is a buffer
// that is not in use here, except under build tag invariants, where it panics.
func (p *pool) free(buf Buffer) {
	if buf.Ptr == nil {
		return
	}
	h := p.heap
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.blocks[buf.Ptr]
	switch {
	case b == nil:
		misuse("gpu: free of %p (%d bytes), which this device did not hand out, or of a part of a buffer", buf.Ptr, buf.Bytes)
		return
	case b.state != blockInUse:
		misuse("gpu: free of %p (%d bytes), which was freed before", buf.Ptr, buf.Bytes)
		return
	case b.asked != buf.Bytes:
		misuse("gpu: free of %d bytes at %p, where %d were handed out", buf.Bytes, buf.Ptr, b.asked)
	}
	if p.recording > 0 {
		b.state = blockHeld
		p.held = append(p.held, Buffer{b.ptr, b.asked})
		return
	}
	h.putBack(b, p)
}

// putBack makes a block idle: for its queue at once, for the others later.
func (h *heap) putBack(b *block, queue *pool) {
	b.state, b.queue = blockIdle, queue
	h.idle[b.size] = append(h.idle[b.size], b)
	h.stats.InUse -= int64(b.size)
}

// settled says that this queue has run dry: what it freed is free for all.
func (p *pool) settled() {
	h := p.heap
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.views > 1 {
		h.share(p)
	}
}

// share makes the idle blocks of a queue free for all.
func (h *heap) share(queue *pool) {
	for _, list := range h.idle {
		for _, b := range list {
			if b.queue == queue {
				b.queue = nil
			}
		}
	}
}

// stats counts whole blocks, so that the sums are what the device is short of.
func (p *pool) stats() MemoryStats {
	p.heap.mu.Lock()
	defer p.heap.mu.Unlock()
	return p.heap.stats
}

// beginRecord makes free keep what it takes, until endRecord.
func (p *pool) beginRecord() {
	p.heap.mu.Lock()
	defer p.heap.mu.Unlock()
	p.recording++
}

// endRecord ends the record and returns what was freed in it. Held buffers
// count as in use until release.
func (p *pool) endRecord() (held []Buffer) {
	p.heap.mu.Lock()
	defer p.heap.mu.Unlock()
	if p.recording == 0 {
		misuse("gpu: endRecord without beginRecord")
		return nil
	}
	p.recording--
	if p.recording > 0 {
		return nil // a record inside a record belongs to the outer one
	}
	held, p.held = p.held, nil
	return held
}

// release returns what a closed graph held.
func (p *pool) release(held []Buffer) {
	h := p.heap
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, buf := range held {
		b := h.blocks[buf.Ptr]
		if b == nil || b.state != blockHeld {
			misuse("gpu: release of %p (%d bytes), which is not held", buf.Ptr, buf.Bytes)
			continue
		}
		h.putBack(b, p)
	}
}

// close ends this view. The last one gives all memory back to the device, and
// reports an error if some of it had not been freed. What a queue freed before
// its view was closed must no longer be in use.
func (p *pool) close() error {
	h := p.heap
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	h.views--
	if h.views > 0 {
		h.share(p)
		return nil
	}
	leaked, bytes := 0, 0
	for _, b := range h.blocks {
		if b.state != blockIdle {
			leaked++
			bytes += b.asked
		}
		h.raw.rawFree(b.ptr)
	}
	clear(h.blocks)
	clear(h.idle)
	h.stats.InUse, h.stats.Reserved = 0, 0
	if leaked > 0 {
		return fmt.Errorf("close: %w: %d buffers (%d bytes) were not freed", ErrInvalid, leaked, bytes)
	}
	return nil
}
