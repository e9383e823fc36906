package bench

// #include "limits.h"
// #include <stdlib.h>
import "C"

import (
	"fmt"
	"runtime"
	"sync"
	"time"
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
// what work returns.
func rate(workers int, work func(worker int) float64) float64 {
	best := 0.0
	for range 7 {
		var wait sync.WaitGroup
		done := make([]float64, workers)
		start := time.Now()
		for w := range workers {
			wait.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				done[w] = work(w)
			})
		}
		wait.Wait()
		total := 0.0
		for _, d := range done {
			total += d
		}
		best = max(best, total/time.Since(start).Seconds())
	}
	return best
}
