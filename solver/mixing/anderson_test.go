package mixing

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Of a linear map in n dimensions, n steps and one more end at the fixed point,
// where the plain iteration is far from it.
func TestLinear(t *testing.T) {
	rates := []float64{.99, .9, .5, -.3}
	step := func(out, g []float64) {
		for i, r := range rates {
			out[i] = r*g[i] + 1
		}
	}
	a := NewAnderson([]float64{1, 2, 3, 4})
	g, image := make([]float64, 4), make([]float64, 4)
	for range 6 {
		step(image, g)
		a.Mix(g, g, image)
	}
	for i, r := range rates {
		want := 1 / (1 - r)
		require.LessOrEqual(t, math.Abs(g[i]-want), 1e-6*want, "coordinate %d", i)
	}
	a.Forget()
	step(image, g)
	a.Mix(g, g, image)
	require.Equal(t, image, g, "without a memory, a step is plain")
}

func ExampleAnderson() {
	// The fixed point of the cosine.
	a := NewAnderson([]float64{1})
	x, image := []float64{1}, []float64{0}
	for range 7 {
		image[0] = math.Cos(x[0])
		a.Mix(x, x, image)
	}
	fmt.Printf("%.10f\n", x[0])
	// Output: 0.7390851332
}

// Products of earlier residuals are kept; they are those of the residuals.
func TestGramIsKept(t *testing.T) {
	w := []float64{1, 2, .5}
	a := NewAnderson(w)
	g, image := []float64{1, 2, 3}, make([]float64, 3)
	for range window + 5 {
		for i := range g {
			image[i] = math.Cos(g[i]*float64(i+1)) + g[(i+1)%3]/3
		}
		a.Mix(g, g, image)
		require.Len(t, a.gram, len(a.dR))
		for p, row := range a.gram {
			require.Len(t, row, p+1)
			for q, v := range row {
				require.Equal(t, weightedDot(w, a.dR[q], a.dR[p]), v)
			}
		}
	}
	require.Len(t, a.dR, window)

	w[1] = 7
	a.Reweigh()
	require.Equal(t, weightedDot(w, a.dR[3], a.dR[5]), a.gram[5][3])
}
