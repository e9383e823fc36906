package measure

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
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
