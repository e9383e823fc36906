package draw

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver"
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

// Frequencies of pairs are those of the plan; entries of zero are never drawn.
func TestPairs(t *testing.T) {
	plan := []float64{.1, 0, .4, 0, 0, 0, .2, .3, 0} // (3, 3), its second row empty
	row := func(i int, out []float64) { copy(out, plan[3*i:3*i+3]) }
	const k = 100_000
	pairs, err := Pairs(t.Context(), 3, 3, k, philox.Draw{Seed: 5}, row)
	require.NoError(t, err)
	count := make([]float64, 9)
	for _, p := range pairs {
		count[3*p.I+p.J]++
	}
	for i, p := range plan {
		require.InDelta(t, k*p, count[i], 5*math.Sqrt(k*p*(1-p)), "entry %d", i)
	}
	few, err := Pairs(t.Context(), 3, 3, 10, philox.Draw{Seed: 5}, row)
	require.NoError(t, err)
	require.Equal(t, pairs[:10], few, "a draw does not depend on how many there are")
	_, err = Pairs(t.Context(), 3, 3, 0, philox.Draw{}, row)
	require.ErrorIs(t, err, solver.ErrInvalid)
	_, err = Pairs(t.Context(), 3, 3, 1, philox.Draw{}, func(int, []float64) {})
	require.ErrorContains(t, err, "mass is 0")
}

func TestBridgesRefuseTimes(t *testing.T) {
	for _, times := range [][]float64{nil, {-.1}, {1.1}, {.5, .4}, {math.NaN()}} {
		_, err := Bridges(t.Context(), 1, 1, times, 1, philox.Draw{}, nil)
		require.ErrorIs(t, err, solver.ErrInvalid, "%v", times)
	}
}
