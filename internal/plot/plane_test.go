package plot

import (
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPlane: a cloud that varies along two orthogonal directions of five
// dimensions, more along the first, is seen from the front.
func TestPlane(t *testing.T) {
	const d, n = 5, 1200
	u := []float64{0.6, 0, 0.8, 0, 0}
	v := []float64{0, -1, 0, 0, 0}
	x := make([]float64, n*d)
	for i := range n {
		a, b := 3*math.Sin(float64(i)), math.Cos(1.7*float64(i))
		for k := range d {
			x[i*d+k] = 7 + a*u[k] + b*v[k]
		}
	}
	p := newPlane(d, x[:300], x[300:])
	for k := range d {
		// The sample correlation of a and b over the 400 rows used tilts the
		// axes a little.
		require.InDelta(t, u[k], p.axes[0][k], 0.02)
		require.InDelta(t, -v[k], p.axes[1][k], 0.02) // oriented: the largest component is positive
	}
	// Up to that tilt distances in the plane are those in space.
	for i := 1; i < n; i += 97 {
		q, r := p.at(x[:d]), p.at(x[i*d:(i+1)*d])
		var want float64
		for k := range d {
			want += (x[k] - x[i*d+k]) * (x[k] - x[i*d+k])
		}
		got := math.Hypot(q.x-r.x, q.y-r.y)
		require.False(t, !(math.Abs(got-math.Sqrt(want)) <= 1e-9), "row %d: %g, want %g", i, got, math.Sqrt(want))
	}
	// Fewer points than dimensions.
	p = newPlane(3, []float64{0, 0, 0, 0, 2, 0})
	require.InDelta(t, 2, p.at([]float64{0, 2, 0}).x-p.at([]float64{0, 0, 0}).x, 1e-12)
}

// TestTicks: ticks lie in the range, ascend, and their labels say where they
// are to within a hundredth of their distance.
func TestTicks(t *testing.T) {
	ranges := [][2]float64{{0, 1}, {-1, 1}, {0, 0.147}, {3.2, 3.9}, {1e-7, 5e-7}, {-2e8, 7e8}, {999.9, 1000.1}, {0, 1e100}, {1e5, 1.00001e5}}
	for _, r := range ranges {
		ticks := linearTicks{}.Ticks(r[0], r[1])
		require.GreaterOrEqual(t, len(ticks), 4, "%v", r)
		require.LessOrEqual(t, len(ticks), 12, "%v", r)
		for i, k := range ticks {
			require.True(t, k.Value >= r[0] && k.Value <= r[1], "%v: %g", r, k.Value)
			v, err := strconv.ParseFloat(k.Label, 64)
			require.NoError(t, err)
			step := ticks[1].Value - ticks[0].Value
			require.False(t, !(math.Abs(v-k.Value) <= 0.01*step), "%v: %q at %g", r, k.Label, k.Value)
			if i > 0 {
				require.Greater(t, k.Value, ticks[i-1].Value)
			}
		}
	}
	for _, r := range [][2]float64{{1, 100}, {0.9, 30}, {2, 7}, {1e-9, 1}, {1e-100, 1e100}, {1, 1.001}, {0.00011, 0.0021}, {1e-5, 1e-3}} {
		ticks := logTicks{}.Ticks(r[0], r[1])
		labels := 0
		for i, k := range ticks {
			require.True(t, k.Value >= r[0] && k.Value <= r[1], "%v: %g", r, k.Value)
			if i > 0 {
				require.Greater(t, k.Value, ticks[i-1].Value)
			}
			if k.Label == "" {
				continue
			}
			labels++
			v, err := strconv.ParseFloat(k.Label, 64)
			require.NoError(t, err)
			require.False(t, !(math.Abs(v/k.Value-1) <= 1e-4), "%v: %q at %g", r, k.Label, k.Value)
		}
		require.GreaterOrEqual(t, labels, 2, "%v", r)
		require.LessOrEqual(t, labels, 12, "%v", r)
	}
}

// TestHistogram: the area is the share of the points inside the range.
func TestHistogram(t *testing.T) {
	x := []float64{-2, -1, -0.5, 0, 0.1, 0.1, 1, 3}
	outline := histogram(x, -1, 1, 4)
	var area float64
	for i := 1; i < len(outline); i++ {
		area += (outline[i].x - outline[i-1].x) * outline[i].y
	}
	require.InDelta(t, 6./8, area, 1e-15)
	require.Equal(t, point{-1, 0}, outline[0])
	require.Equal(t, point{1, 0}, outline[len(outline)-1])
}

// TestTimeColor: lightness rises with time, so that the order is also seen
// without colours.
func TestTimeColor(t *testing.T) {
	last := -1.
	for i := range 101 {
		c := timeColor(float64(i) / 100)
		light := 0.2126*math.Pow(float64(c.R)/255, 2.2) + 0.7152*math.Pow(float64(c.G)/255, 2.2) + 0.0722*math.Pow(float64(c.B)/255, 2.2)
		require.Greater(t, light, last-1e-3, "t = %d/100", i)
		last = light
	}
}
