package parallel

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEach(t *testing.T) {
	for _, workers := range []int{0, 1, 3, 100} {
		for _, n := range []int{0, 1, 2, 31, 1000} {
			calls := make([]int32, n)
			require.NoError(t, Each(t.Context(), workers, n, func(i int) { atomic.AddInt32(&calls[i], 1) }))
			for i, k := range calls {
				require.EqualValues(t, 1, k, "task %d of %d on %d workers", i, n, workers)
			}
		}
	}
}

func TestEachStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var calls atomic.Int32
	err := Each(ctx, 4, 1_000_000, func(int) {
		if calls.Add(1) == 10 {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, int(calls.Load()), 1000)
}
