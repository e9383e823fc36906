package bench

// #include "limits.h"
// #include <stdlib.h>
// #include <string.h>
import "C"

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
)

// measureUnits measures what the arithmetic units of workers cores do together,
// at the level of instructions, on elements of bits.
func measureUnits(level gpu.Level, workers, bits int) (Ceilings, error) {
	c := Ceilings{Source: "measured"}
	c.Flops = rate(workers, func(int) float64 {
		var flops C.double
		C.bench_fma(C.int(level), C.int(bits), 4_000_000, &flops)
		return float64(flops)
	})
	c.Matrix = c.Flops
	c.Exps = rate(workers, func(int) float64 {
		var exps C.double
		C.bench_exp(C.int(level), C.int(bits), 1_500_000, &exps)
		return float64(exps)
	})
	c.Integers = rate(workers, func(int) float64 {
		var ops C.double
		C.bench_int(C.int(level), 1_000_000, &ops)
		return float64(ops)
	})
	return c, nil
}

// measureMemory measures what workers cores together read, write and copy by the
// C library's memset and memcpy, which know the stores that pass the caches.
func measureMemory(workers int) (Ceilings, error) {
	cache := largestCache()
	bytes := min(max(256<<20, 4*int(cache)), 1<<30) // beyond the caches
	array := (*C.double)(C.malloc(C.size_t(2 * bytes)))
	if array == nil {
		return Ceilings{}, fmt.Errorf("bench: bandwidth: %w: no %d MiB", gpu.ErrOutOfMemory, 2*bytes>>20)
	}
	defer C.free(unsafe.Pointer(array))
	values := unsafe.Slice((*float64)(array), 2*bytes/8)
	for i := range values {
		values[i] = float64(i)
	}
	values, room := values[:bytes/8], values[bytes/8:]
	c := Ceilings{Cache: 2 * cache}
	part := len(values) / workers
	c.Read = rate(workers, func(w int) float64 {
		C.bench_read((*C.double)(&values[w*part]), C.int64_t(part))
		return float64(part) * 8
	})
	c.Copy = rate(workers, func(w int) float64 {
		C.memcpy(unsafe.Pointer(&room[w*part]), unsafe.Pointer(&values[w*part]), C.size_t(part*8))
		return float64(part) * 16
	})
	c.Write = rate(workers, func(w int) float64 {
		C.memset(unsafe.Pointer(&room[w*part]), 1, C.size_t(part*8))
		return float64(part) * 8
	})
	return c, nil
}

// rate is the best of some runs of work by all workers at once, in units of
// what work returns a second. Seconds are those that each worker's thread had a
// core, so that another program on the machine does not lower the ceiling.
func rate(workers int, work func(worker int) float64) float64 {
	best := 0.0
	for range 7 {
		var wait sync.WaitGroup
		rates := make([]float64, workers)
		for w := range workers {
			wait.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				start := C.bench_thread_time()
				done := work(w)
				rates[w] = done / float64(C.bench_thread_time()-start)
			})
		}
		wait.Wait()
		total := 0.0
		for _, r := range rates {
			total += r
		}
		best = max(best, total)
	}
	return best
}
