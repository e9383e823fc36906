package fortet_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver/fortet"
)

// Paths have the laws of the slices, and their moves the plan's covariances, to
// four standard errors; a path does not depend on how many there are.
func TestPaths(t *testing.T) {
	const k = 6000
	dev := cpu(t)
	axes := [][]float64{line(-3.5, 3.5, 49), line(-3, 3.5, 45)}
	source, target := normal(t, axes, law([]float64{-.5, 0}, []float64{.5, .2, .2, .4})), normal(t, axes, law([]float64{.8, .3}, []float64{.3, -.1, -.1, .5}))
	bump := func(t float64, x []float64) float64 { return 6 * math.Exp(-4*(x[0]*x[0]+x[1]*x[1])) }
	for name, p := range map[string]fortet.Problem{
		"brownian":  {Reference: fortet.Brownian(.5)},
		"ou":        {Reference: fortet.Diffusion{Epsilon: 1, Rate: []float64{1, -.5}, Center: []float64{.2, 0}}},
		"potential": {Reference: fortet.Brownian(.5), Potential: bump, Steps: 12},
		"given":     {Reference: fortet.Given{LogKernels: [][]float64{mehler(axes[0], .5, 1, .1), mehler(axes[1], .5, .5, .1)}}, Steps: 10},
	} {
		t.Run(name, func(t *testing.T) {
			p.Axes, p.LogSource, p.LogTarget = axes, source, target
			r := solve(t, dev, p, fortet.Settings{})
			times := []float64{0, .1, .17, .5, .53, 1}
			if name == "given" {
				times = []float64{0, .1, .3, .5, .9, 1}
			}
			paths, err := r.Paths(t.Context(), dev, k, times, 5)
			require.NoError(t, err)
			for q, when := range times {
				s := at(t, dev, r, when)
				mean, cov := moments(axes, s.LogMass)
				var first, second [2]float64
				cross := 0.
				for i := range k {
					x := paths[(i*len(times)+q)*2:]
					for a := range 2 {
						first[a] += x[a] / k
						second[a] += (x[a] - mean[a]) * (x[a] - mean[a]) / k
					}
					cross += (x[0] - mean[0]) * (x[1] - mean[1]) / k
				}
				for a := range 2 {
					v := cov.At(a, a)
					require.InDelta(t, mean[a], first[a], 4*math.Sqrt(v/k), "mean at %g", when)
					require.InDelta(t, v, second[a], 4*v*math.Sqrt(2./k)+1e-3, "variance at %g", when)
				}
				require.InDelta(t, cov.At(0, 1), cross, 4*math.Sqrt(cov.At(0, 0)*cov.At(1, 1)*2/k), "covariance at %g", when)
			}
			few, err := r.Paths(t.Context(), dev, 7, times, 5)
			require.NoError(t, err)
			require.Equal(t, few, paths[:len(few)])
			other, err := r.Paths(t.Context(), dev, 7, times, 6)
			require.NoError(t, err)
			require.NotEqual(t, few, other)
			if name == "given" {
				_, err := r.Paths(t.Context(), dev, 7, []float64{.15}, 5)
				require.ErrorContains(t, err, "multiple of 1/10")
			}
		})
	}
}

// The joint law of both ends is the plan's.
func TestPathsPlan(t *testing.T) {
	const k, n = 40000, 6
	dev := cpu(t)
	axes := [][]float64{line(0, 1, 3), {0, .8}}
	p := fortet.Problem{Axes: axes, LogSource: rough(3, n), LogTarget: rough(9, n), Reference: fortet.Brownian(.7)}
	r := solve(t, dev, p, fortet.Settings{Tolerance: 1e-12})
	paths, err := r.Paths(t.Context(), dev, k, []float64{0, 1}, 2)
	require.NoError(t, err)
	count := map[[4]float64]float64{}
	for i := range k {
		count[[4]float64(paths[4*i:])]++
	}
	for i := range n {
		for j := range n {
			x, y := centre(axes, i), centre(axes, j)
			l := r.LogPhiHat0[i] + r.LogPhi1[j] + math.Log(.5) + math.Log(.8)
			for a := range 2 {
				l -= (x[a]-y[a])*(x[a]-y[a])/1.4 + math.Log(2*math.Pi*.7)/2
			}
			w := math.Exp(l)
			require.InDelta(t, w, count[[4]float64{x[0], x[1], y[0], y[1]}]/k, 4*math.Sqrt(w*(1-w)/k), "%v to %v", x, y)
		}
	}
}
