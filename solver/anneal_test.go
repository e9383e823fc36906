package solver

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor"
)

func TestAnnealing(t *testing.T) {
	require.Equal(t, []float64{8, 4, 1}, Annealing(8, 1))
	require.Equal(t, []float64{8, 4, 2, 0.9}, Annealing(8, 0.9))
	require.Equal(t, []float64{1}, Annealing(1, 1))
	require.Equal(t, []float64{3}, Annealing(1, 3), "above the mean cost there is nothing to come down from")
	require.Equal(t, []float64{3}, Annealing(math.NaN(), 3))
}

func TestPrecisions(t *testing.T) {
	low, high := tensor.Float32, tensor.Float64
	require.Equal(t, []tensor.DType{high}, Ladder.DTypes(smallPairs))
	require.Equal(t, []tensor.DType{low, high}, Ladder.DTypes(smallPairs+1))
	require.Equal(t, []tensor.DType{low}, Single.DTypes(1))
	require.Equal(t, []tensor.DType{high}, Double.DTypes(1<<40))
	require.Equal(t, math.Nextafter(1, 2)-1, 2*Roundoff(high))
	require.Equal(t, float64(math.Nextafter32(1, 2)-1), 2*Roundoff(low))
}
