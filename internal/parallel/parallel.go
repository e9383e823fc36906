// Package parallel shares a loop out among the cores of the host.
package parallel

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Each calls task for 0 … n-1 on workers goroutines and returns ctx's error;
// 0 workers means one for each core. Once ctx is done, no further task begins.
// A task writes only what is its own, so that results do not depend on the
// number of workers.
func Each(ctx context.Context, workers, n int, task func(int)) error {
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(workers, n) {
		group.Go(func() {
			for ctx.Err() == nil {
				k := int(next.Add(1)) - 1
				if k >= n {
					return
				}
				task(k)
			}
		})
	}
	group.Wait()
	return ctx.Err()
}
