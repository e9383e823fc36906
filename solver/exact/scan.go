package exact

import (
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	scanRows = 16  // rows of a tile: one task
	scanCols = 512 // columns of a block: 64 KiB of costs, inside a core's second-level cache
)

// cheapest finds, for every row i, the k columns with the smallest c_ij − v_j
// among those below limit_i (nil: no limit), in increasing order. Missing ones
// are −1 in col. Ties go to the column that is met first; tiles start at
// different columns, so that rows that are all alike do not choose alike.
//
// This is the whole of the n·m work: candidates, pricing and c-transforms. A
// row is read by one worker from first to last, so the result does not depend
// on their number.
func cheapest(ctx context.Context, workers int, t table, v []float64, k int, limit []float64) (col []int32, reduced []float64, err error) {
	n, m := t.size()
	col, reduced = make([]int32, n*k), make([]float64, n*k)
	tiles := (n + scanRows - 1) / scanRows
	err = parallel(ctx, workers, tiles, func(tile int) {
		i0, i1 := tile*scanRows, min((tile+1)*scanRows, n)
		var buffer [scanRows * scanCols]float64
		for i := i0; i < i1; i++ {
			for s := i * k; s < (i+1)*k; s++ {
				col[s], reduced[s] = -1, math.Inf(1)
				if limit != nil {
					reduced[s] = limit[i]
				}
			}
		}
		start := int(int64(i0) * int64(m) / int64(n))
		for _, span := range [2][2]int{{start, m}, {0, start}} {
			for j0 := span[0]; j0 < span[1]; j0 += scanCols {
				if ctx.Err() != nil {
					return
				}
				j1 := min(j0+scanCols, span[1])
				t.block(buffer[:], i0, i1, j0, j1)
				for i := i0; i < i1; i++ {
					costs := buffer[(i-i0)*(j1-j0) : (i-i0+1)*(j1-j0)]
					keepSmallest(costs, v[j0:j1], int32(j0), col[i*k:(i+1)*k], reduced[i*k:(i+1)*k])
				}
			}
		}
	})
	return col, reduced, err
}

// keepSmallest merges costs − v into a sorted list of the smallest so far.
func keepSmallest(costs, v []float64, j0 int32, col []int32, reduced []float64) {
	last := len(reduced) - 1
	worst := reduced[last]
	v = v[:len(costs)]
	for j, c := range costs {
		r := c - v[j]
		if r < worst {
			s := last
			for ; s > 0 && r < reduced[s-1]; s-- {
				col[s], reduced[s] = col[s-1], reduced[s-1]
			}
			col[s], reduced[s] = j0+int32(j), r
			worst = reduced[last]
		}
	}
}

// parallel runs the tasks on workers and returns ctx's error. Tasks watch ctx
// themselves where they are long.
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

// stored evaluates a whole table once.
func stored(ctx context.Context, workers int, t table) (table, error) {
	n, m := t.size()
	c := make([]float64, n*m)
	tiles := (n + 3) / 4
	err := parallel(ctx, workers, tiles, func(tile int) {
		i0, i1 := 4*tile, min(4*tile+4, n)
		t.block(c[i0*m:i1*m], i0, i1, 0, m)
	})
	return denseTable{c, n, m}, err
}
