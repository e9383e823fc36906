package metrics

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// parallel runs the tasks on workers and returns ctx's error. A task writes only
// what is its own, so that results do not depend on the number of workers.
func parallel(ctx context.Context, workers, tasks int, task func(int)) error {
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(workers, tasks) {
		group.Go(func() {
			for ctx.Err() == nil {
				k := int(next.Add(1)) - 1
				if k >= tasks {
					return
				}
				task(k)
			}
		})
	}
	group.Wait()
	return ctx.Err()
}

// uninterruptible runs f, which cannot be stopped, on a goroutine of its own
// and leaves it to itself where ctx is done first.
func uninterruptible(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
