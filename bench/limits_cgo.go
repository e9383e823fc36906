package bench

// #include "limits.h"
// #include <stdlib.h>
import "C"

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
)

// measureCeilings measures what workers cores do together, at the level of
// instructions given by its number, on elements of bits.
func measureCeilings(level gpu.Level, workers, bits int) (Ceilings, error) {
	const bytes = 256 << 20 // beyond the caches
	array := (*C.double)(C.malloc(bytes))
	if array == nil {
		return Ceilings{}, fmt.Errorf("bench: bandwidth: %w: no 256 MiB", gpu.ErrOutOfMemory)
	}
	defer C.free(unsafe.Pointer(array))
	values := unsafe.Slice((*float64)(array), bytes/8)
	for i := range values {
		values[i] = float64(i)
	}
	c := Ceilings{Source: "measured"}
	c.Flops = rate(workers, func(int) float64 {
		var flops C.double
		C.bench_fma(C.int(level), C.int(bits), 4_000_000, &flops)
		return float64(flops)
	})
	c.Exps = rate(workers, func(int) float64 {
		var exps C.double
		C.bench_exp(C.int(level), C.int(bits), 1_500_000, &exps)
		return float64(exps)
	})
	c.Bytes = rate(workers, func(w int) float64 {
		part := len(values) / workers
		C.bench_read((*C.double)(&values[w*part]), C.int64_t(part))
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
