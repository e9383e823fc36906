package measure

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver"
)

func TestWeights(t *testing.T) {
	require.Equal(t, []float64{.25, .25, .25, .25}, Weights(nil, 4))
	w := []float64{0, 3}
	own := Weights(w, 2)
	own[0] = 7
	require.Equal(t, []float64{0, 3}, w, "a copy")
	require.Equal(t, 3., Mass(w))
	require.Zero(t, Mass(nil))
	require.Equal(t, []float64{math.Inf(-1), math.Log(3)}, Logs(w))
}

func TestChecks(t *testing.T) {
	mass, err := CheckWeights("w", []float64{0, 2, 1}, 3)
	require.NoError(t, err)
	require.Equal(t, 3., mass)
	mass, err = CheckWeights("w", nil, 3)
	require.NoError(t, err)
	require.Equal(t, 1., mass)
	nan, inf := math.NaN(), math.Inf(1)
	for text, w := range map[string][]float64{
		"2 weights for 3 points": {1, 2}, "weight 1 is -1": {1, -1, 1}, "weight 0 is NaN": {nan, 1, 1},
		"weight 2 is +Inf": {1, 1, inf}, "sum to 0": {0, 0, 0}, "sum to +Inf": {math.MaxFloat64, math.MaxFloat64, 0},
	} {
		_, err := CheckWeights("w", w, 3)
		require.ErrorIs(t, err, solver.ErrInvalid)
		require.ErrorContains(t, err, text)
	}
	require.NoError(t, CheckFinite("f", []float64{1, -2}, 2))
	require.ErrorContains(t, CheckFinite("f", []float64{1}, 2), "1 numbers, want 2")
	require.ErrorContains(t, CheckFinite("f", []float64{1, inf}, 2), "entry 1 is +Inf")
	require.ErrorContains(t, CheckFinite("f", []float64{nan, 1}, 2), "entry 0 is NaN")
}
