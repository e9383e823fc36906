package mixing

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// norm is the largest of |v|.
func norm(v []float64) float64 {
	m := 0.0
	for _, x := range v {
		m = max(m, math.Abs(x)) // NaN stays
	}
	return m
}

// iterate runs a map with zero as its fixed point, by the size of its steps, and
// returns how many evaluations it took, at most limit.
func iterate(step func(out, g []float64), state []float64, tolerance float64, accelerate bool, limit int) int {
	s := NewSafeguard(make([]float64, len(state)), 0, accelerate)
	for i := range s.mixer.w {
		s.mixer.w[i] = 1
	}
	image := make([]float64, len(state))
	for k := 1; k <= limit; k++ {
		step(image, state)
		r := make([]float64, len(state))
		for i := range r {
			r[i] = image[i] - state[i]
		}
		switch residual := norm(r); {
		case residual <= tolerance:
			return k
		case s.Worse(residual):
			s.TakeBack(state)
		default:
			s.Step(state, image, residual)
		}
	}
	return limit
}

// Where the map is smooth, it is faster than plain steps by far.
func TestSafeguardAccelerates(t *testing.T) {
	step := func(out, g []float64) {
		for i, r := range []float64{.99, .9, .5} {
			out[i] = r * math.Sin(g[i])
		}
	}
	plain := iterate(step, []float64{1, 1, 1}, 1e-8, false, 100_000)
	mixed := iterate(step, []float64{1, 1, 1}, 1e-8, true, 100_000)
	require.Less(t, plain, 100_000)
	require.Less(t, 10*mixed, plain, "%d mixed, %d plain", mixed, plain)
}

// Where mixing throws the iterate out of the map's domain every time, it does
// as plain steps do, but for the steps that were taken back.
func TestSafeguardTakesBack(t *testing.T) {
	step := func(out, g []float64) {
		out[0] = g[0] * g[0] / (g[0] + 1e-3) * 0.999 // NaN from where mixing overshoots below 0
		if g[0] < 0 {
			out[0] = math.NaN()
		}
	}
	plain := iterate(step, []float64{1}, 1e-6, false, 100_000)
	mixed := iterate(step, []float64{1}, 1e-6, true, 100_000)
	require.Less(t, plain, 100_000)
	require.LessOrEqual(t, mixed, 2*plain+maxPenalty)
}

func TestSafeguardSteps(t *testing.T) {
	s := NewSafeguard([]float64{1}, 1, true)
	g := []float64{4}
	require.False(t, s.Mixes(), "the first is plain, as asked")
	s.Step(g, []float64{2}, 4)
	require.Equal(t, []float64{2}, g)
	require.False(t, s.Worse(math.NaN()), "a plain step is never taken back")

	s.Step(g, []float64{1}, 2)
	require.True(t, s.Mixed())
	require.False(t, s.Worse(4))
	require.True(t, s.Worse(4.1))
	require.True(t, s.Worse(math.NaN()))
	s.TakeBack(g)
	require.Equal(t, []float64{1}, g, "the plain step")
	require.False(t, s.Mixes())

	// One plain step for the first bad one, two for the second.
	s.Step(g, []float64{.5}, 1)
	require.True(t, s.Mixes())
	s.Step(g, []float64{.25}, .5)
	s.TakeBack(g)
	for range 2 {
		require.False(t, s.Mixes())
		s.Step(g, []float64{g[0] / 2}, g[0])
	}
	require.True(t, s.Mixes())

	s.Step(g, []float64{g[0] / 2}, g[0])
	want := g[0]
	s.Refuse(g)
	require.Equal(t, s.fallback, g)
	require.False(t, s.Mixed())
	require.False(t, math.IsNaN(want))

	s.Rest(3)
	for range 3 {
		require.False(t, s.Mixes())
		s.Step(g, []float64{g[0] / 2}, g[0])
	}
	require.True(t, s.Mixes())
	require.False(t, NewSafeguard([]float64{1}, 0, false).Mixes())
}
