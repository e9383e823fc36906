package fortet

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Kernels have mass 1, the mean of where they start, and the variance given. The
// fourth cumulant, which makes their error, is not below the least that there is, and
// that of cells of one width is not far above it.
func TestHeat(t *testing.T) {
	const n, mid = 201, 100
	even, odd := make([]float64, n), make([]float64, n)
	for i := range even {
		even[i] = .25 * float64(i)
		odd[i] = .25 * (float64(i) + .4*math.Sin(float64(i)))
	}
	for _, variance := range []float64{1e-300, 1e-12, 1e-3, .004, 1. / 96, .02, .03, .0625, .2, 1} {
		for name, x := range map[string][]float64{"even": even, "uneven": odd} {
			var m [5]float64
			for j, l := range heat(x, variance)[mid*n : (mid+1)*n] {
				for k := range m {
					m[k] += math.Exp(l) * math.Pow(x[j]-x[mid], float64(k))
				}
			}
			require.InDelta(t, 1, m[0], 1e-12, "%s, %g", name, variance)
			require.InDelta(t, 0, m[1], 1e-12*math.Sqrt(variance), "%s, %g", name, variance)
			require.InEpsilon(t, variance, m[2], 1e-11, "%s, %g", name, variance)
			if name == "even" {
				const h2 = .0625
				cumulant := m[4] - 3*variance*variance
				require.GreaterOrEqual(t, cumulant, variance*(h2-3*variance)-1e-12*m[4])
				require.LessOrEqual(t, cumulant, h2*min(h2/11.5, 1.0001*variance))
				if variance >= h2 {
					require.LessOrEqual(t, cumulant, 1e-5*h2*h2)
				}
			}
		}
	}
}

// Where the cells begin to resolve a transition its kernels agree, whatever the drift.
func TestUnresolvedKernel(t *testing.T) {
	for _, rate := range []float64{-2, 0, 1, 6} {
		d := Diffusion{Epsilon: .7, Rate: []float64{rate}, Center: []float64{.3}}
		_, _, variance := d.transition(0, .1)
		h := math.Sqrt(variance)
		x := make([]float64, 15)
		fine := make([]float64, 15)
		for i := range x {
			x[i], fine[i] = h*(1+1e-9)*float64(i-7), h*(1-1e-9)*float64(i-7)
		}
		require.False(t, d.resolved(0, x, .1))
		require.True(t, d.resolved(0, fine, .1))
		got, err := d.logKernel(0, x, .1)
		require.NoError(t, err)
		want, err := d.logKernel(0, fine, .1)
		require.NoError(t, err)
		// The sums over the integers of a normal law of variance s, and of its squares,
		// are off by 2 exp(-2π² s) and 8π² s² exp(-2π² s) of theirs.
		s := variance / math.Exp(-rate*.1) / (h * h)
		for i := range got {
			k := float64(i/15 - i%15)
			require.InDelta(t, want[i], got[i], 1.2*(2+4*math.Pi*math.Pi*(s+k*k))*math.Exp(-2*math.Pi*math.Pi*s)+1e-8*(1+math.Abs(want[i])), "rate %g, %d", rate, i)
		}
	}
}
