package gpu

/*
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

typedef int (*tiles_fn)(const void *, int64_t, int64_t, int);

static int call_tiles(void *f, const void *args, int64_t begin, int64_t end, int level) {
	return ((tiles_fn)f)(args, begin, end, level);
}

// The best level that processor and operating system offer.
static int best_level(void) {
#if defined(__x86_64__) && defined(__GNUC__)
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
	    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) return 3;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 2;
#endif
	return 1;
}

// Arrays of megabytes are aligned to, and asked as, huge pages: a streaming
// kernel walks far more small pages than the processor can keep translations for.
static void *host_alloc(size_t n) {
	const size_t huge = (size_t)2 << 20;
	void *p = 0;
	if (posix_memalign(&p, n >= huge ? huge : 256, n ? n : 1)) return 0;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
	if (n >= huge) madvise(p, n, MADV_HUGEPAGE);
#endif
	return p;
}

static int64_t physical_memory(void) {
	return (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
}
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// CPUOptions configure the CPU device. The zero value uses every core and the
// best instructions.
type CPUOptions struct {
	Workers int   // 0: runtime.GOMAXPROCS(0)
	Level   Level // Best: what the processor has
}

// BestLevel is the highest level that this processor has.
func BestLevel() Level { return Level(C.best_level()) }

// OpenCPU opens the CPU as a device. Results of kernels depend on the level,
// but not on the number of workers.
func OpenCPU(o CPUOptions) (Device, error) {
	switch {
	case o.Workers < 0:
		return nil, fmt.Errorf("gpu: CPU workers: %w: got %d, want 0 (all cores) or more", ErrInvalid, o.Workers)
	case o.Level < Best || o.Level > AVX512:
		return nil, fmt.Errorf("gpu: CPU level: %w: got %v", ErrInvalid, o.Level)
	case o.Level > BestLevel():
		return nil, fmt.Errorf("gpu: CPU level %v: %w: the processor has %v", o.Level, ErrUnavailable, BestLevel())
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Level == Best {
		o.Level = BestLevel()
	}
	s := &crew{level: o.Level, size: o.Workers, jobs: make(chan *job)}
	s.refs.Store(1)
	for range o.Workers - 1 {
		go s.work()
	}
	return &cpuDevice{crew: s, pool: newPool(hostMemory{})}, nil
}

// hostMemory is what the CPU's pool takes memory from.
type hostMemory struct{}

func (hostMemory) rawAlloc(bytes int) (unsafe.Pointer, error) {
	p := C.host_alloc(C.size_t(bytes))
	if p == nil {
		return nil, fmt.Errorf("cpu: %d bytes: %w", bytes, ErrOutOfMemory)
	}
	return p, nil
}

func (hostMemory) rawFree(p unsafe.Pointer) { C.free(p) }

// crew is the workers that all streams of a CPU device share.
type crew struct {
	level Level
	size  int
	jobs  chan *job
	mu    sync.Mutex // one launch at a time has the workers
	job   job
	refs  atomic.Int64 // open queues
}

// job is one launch: workers take tiles from next until none is left.
type job struct {
	fn, args unsafe.Pointer
	tiles    int64
	next     atomic.Int64
	status   atomic.Int64
	done     sync.WaitGroup
}

func (c *crew) work() {
	for j := range c.jobs {
		c.share(j)
		j.done.Done()
	}
}

// share computes tiles until none is left.
func (c *crew) share(j *job) {
	for {
		t := j.next.Add(1) - 1
		if t >= j.tiles {
			return
		}
		if rc := C.call_tiles(j.fn, j.args, C.int64_t(t), C.int64_t(t+1), C.int(c.level)); rc != 0 {
			j.status.CompareAndSwap(0, int64(rc))
			j.next.Store(j.tiles)
		}
	}
}

func (c *crew) run(fn, args unsafe.Pointer, tiles int) int {
	if tiles <= 0 {
		return statusOK
	}
	if tiles == 1 || c.size == 1 {
		return int(C.call_tiles(fn, args, 0, C.int64_t(tiles), C.int(c.level)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	j := &c.job
	j.fn, j.args, j.tiles = fn, args, int64(tiles)
	j.next.Store(0)
	j.status.Store(0)
	help := min(c.size, tiles) - 1
	j.done.Add(help)
	for range help {
		c.jobs <- j
	}
	c.share(j)
	j.done.Wait()
	j.args = nil
	return int(j.status.Load())
}

// cpuDevice is one queue. The CPU runs every launch before Launch returns, so
// that queue is always empty.
type cpuDevice struct {
	crew      *crew
	pool      *pool // this queue's view of the memory
	recording *cpuGraph
	closed    bool
}

func (d *cpuDevice) Name() string { return "cpu" }

func (d *cpuDevice) Properties() Properties {
	return Properties{
		Kind:        CPU,
		Model:       processorName(),
		Features:    d.crew.level.String(),
		Workers:     d.crew.size,
		MemoryBytes: int64(C.physical_memory()),
	}
}

// processorName is the processor's own name where the system tells it.
func processorName() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

func (d *cpuDevice) Alloc(bytes int) (Buffer, error) { return d.pool.alloc(bytes) }
func (d *cpuDevice) Free(b Buffer)                   { d.pool.free(b) }
func (d *cpuDevice) Memory() MemoryStats             { return d.pool.stats() }

func (d *cpuDevice) Upload(dst Buffer, src []byte) error {
	if err := d.checkCopy("upload", dst.Bytes, len(src)); err != nil {
		return err
	}
	copy(unsafe.Slice((*byte)(dst.Ptr), dst.Bytes), src)
	return nil
}

func (d *cpuDevice) Download(dst []byte, src Buffer) error {
	if err := d.checkCopy("download", src.Bytes, len(dst)); err != nil {
		return err
	}
	copy(dst, unsafe.Slice((*byte)(src.Ptr), src.Bytes))
	return nil
}

func (d *cpuDevice) checkCopy(what string, device, host int) error {
	if d.recording != nil {
		return fmt.Errorf("cpu: %s: %w: not inside Record", what, ErrInvalid)
	}
	if device != host {
		return fmt.Errorf("cpu: %s: %w: %d bytes on the host, %d on the device", what, ErrInvalid, host, device)
	}
	return nil
}

func (d *cpuDevice) Launch(k *Kernel, args unsafe.Pointer, tiles int) error {
	if k.CPU == nil {
		return fmt.Errorf("cpu: %s: %w", k.Name, ErrUnsupported)
	}
	if d.recording != nil {
		d.recording.add(k, args, tiles)
		return nil
	}
	if rc := d.crew.run(k.CPU, args, tiles); rc != statusOK {
		return statusError("cpu: "+k.Name, rc, "")
	}
	return nil
}

func (d *cpuDevice) Sync() error {
	if d.recording != nil {
		return fmt.Errorf("cpu: sync: %w: not inside Record", ErrInvalid)
	}
	d.pool.settled()
	return nil
}

func (d *cpuDevice) Stream() (Device, error) {
	d.crew.refs.Add(1)
	return &cpuDevice{crew: d.crew, pool: d.pool.branch()}, nil
}

func (d *cpuDevice) Close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	if d.crew.refs.Add(-1) == 0 {
		close(d.crew.jobs)
	}
	return d.pool.close()
}

// cpuGraph is a flat list of launches with their arguments in C memory.
type cpuGraph struct {
	crew  *crew
	pool  *pool
	calls []cpuCall
	held  []Buffer
}

type cpuCall struct {
	kernel *Kernel
	args   unsafe.Pointer
	tiles  int
}

func (g *cpuGraph) add(k *Kernel, args unsafe.Pointer, tiles int) {
	p := C.malloc(C.size_t(max(k.ArgsBytes, 1)))
	C.memcpy(p, args, C.size_t(k.ArgsBytes))
	g.calls = append(g.calls, cpuCall{k, p, tiles})
}

func (d *cpuDevice) Record(body func() error) (Graph, error) {
	if d.recording != nil {
		return nil, fmt.Errorf("cpu: record: %w: a recording is under way", ErrInvalid)
	}
	g := &cpuGraph{crew: d.crew, pool: d.pool}
	d.recording = g
	d.pool.beginRecord()
	err := body()
	g.held = d.pool.endRecord()
	d.recording = nil
	if err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (g *cpuGraph) Replay() error {
	for _, c := range g.calls {
		if rc := g.crew.run(c.kernel.CPU, c.args, c.tiles); rc != statusOK {
			return statusError("cpu: "+c.kernel.Name, rc, "")
		}
	}
	return nil
}

func (g *cpuGraph) Close() error {
	for _, c := range g.calls {
		C.free(c.args)
	}
	g.calls = nil
	g.pool.release(g.held)
	g.held = nil
	return nil
}

// cpuEvent is a moment on the clock: a CPU queue is empty whenever it is marked.
type cpuEvent time.Time

func (d *cpuDevice) Mark() (Event, error) { return cpuEvent(time.Now()), nil }
func (d *cpuDevice) Wait(Event) error     { return nil }

func (cpuEvent) Sync() error { return nil }
func (cpuEvent) Close()      {}
func (e cpuEvent) Since(earlier Event) (time.Duration, error) {
	o, ok := earlier.(cpuEvent)
	if !ok {
		return 0, fmt.Errorf("cpu: event: %w: the earlier one is of another device", ErrInvalid)
	}
	return time.Time(e).Sub(time.Time(o)), nil
}
