package draw

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPickNeverDrawsWeightZero(t *testing.T) {
	w := []float64{0, 2, 0, 1, 0}
	Cumulate(w)
	require.Equal(t, []float64{0, 2, 2, 3, 3}, w)
	for _, u := range []float64{0, .3, 2. / 3, .7, math.Nextafter(1, 0), 1} {
		want := 1
		if u >= 2./3 {
			want = 3
		}
		require.Equal(t, want, Pick(w, u), "u = %v", u)
	}
}

// A bridge drawn in two steps has the law of one drawn at once.
func TestBridge(t *testing.T) {
	const n, end, variance = 200_000, 2., 3.
	r := rand.New(rand.NewPCG(1, 2))
	var sum, square float64
	for range n {
		mid, at := []float64{0}, []float64{0}
		Bridge(mid, []float64{1}, []float64{5}, []float64{r.NormFloat64()}, 0, .5, end, variance)
		Bridge(at, mid, []float64{5}, []float64{r.NormFloat64()}, .5, 1.2, end, variance)
		sum += at[0]
		square += at[0] * at[0]
	}
	mean := sum / n
	v := square/n - mean*mean
	wantMean, wantVar := 1+1.2/2*4, variance*1.2*.8/2
	require.InDelta(t, wantMean, mean, 4*math.Sqrt(wantVar/n))
	require.InDelta(t, wantVar, v, 4*wantVar*math.Sqrt(2./n))
	out := []float64{0}
	Bridge(out, []float64{1}, []float64{5}, []float64{9}, 0, 2, end, variance)
	require.Equal(t, []float64{5}, out, "at its end")
}
