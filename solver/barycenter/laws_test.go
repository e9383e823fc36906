package barycenter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

func TestLaws(t *testing.T) {
	for _, debiased := range []bool{false, true} {
		p := small3(5, 6)
		p.Debiased = debiased
		want := converged(t, p, 1e-11)
		same := func(q Problem, what string, factor float64) *Result {
			r := converged(t, q, 1e-11)
			for i, w := range want.Weights {
				near(t, factor*w, r.Weights[i], 2e-9, fmt.Sprintf("%s, debiased %v", what, debiased))
			}
			return r
		}
		moved := func(f func(float64) float64) Problem {
			q := p
			move := func(g geometry.Geometry) geometry.Geometry {
				h := g.(geometry.Points)
				h.X, h.Y = append([]float64(nil), h.X...), append([]float64(nil), h.Y...)
				for i := range h.X {
					h.X[i] = f(h.X[i])
				}
				for i := range h.Y {
					h.Y[i] = f(h.Y[i])
				}
				return h
			}
			q.Support = move(p.Support)
			q.Measures = nil
			for _, m := range p.Measures {
				q.Measures = append(q.Measures, Measure{move(m.Geometry), m.Weights})
			}
			return q
		}

		q := p
		q.Measures = []Measure{p.Measures[2], p.Measures[0], p.Measures[1]}
		q.Lambda = []float64{.3, .5, .2}
		same(q, "permutation", 1)

		q = p
		q.Measures = append([]Measure{p.Measures[0]}, p.Measures...)
		q.Lambda = []float64{1, 4, 2, 3} // of any sum
		same(q, "a measure in two parts", 1)

		same(moved(func(v float64) float64 { return v + 100 }), "translation", 1)

		q = moved(func(v float64) float64 { return 3 * v })
		q.Epsilon *= 9
		r := same(q, "scale", 1)
		near(t, 9*want.Certificate.Dual, r.Certificate.Dual, 1e-8, "dual of the scaled problem")

		q = p
		q.Measures = nil
		for _, m := range p.Measures {
			w := append([]float64(nil), m.Weights...)
			scaleTo(w, 4)
			q.Measures = append(q.Measures, Measure{m.Geometry, w})
		}
		same(q, "mass", 4)

		q = p
		q.Epsilon, q.Scale = 1, sinkhorn.Mean
		unit := solve(t, q, Settings{}).Epsilon
		q.Epsilon = p.Epsilon / unit
		same(q, "epsilon in units of the mean cost", 1)
		q.Epsilon, q.Scale = 1, sinkhorn.Std
		q.Epsilon = p.Epsilon / solve(t, q, Settings{}).Epsilon
		same(q, "epsilon in units of the standard deviation", 1)

		// The same costs as matrices, and a measure on the support.
		q = p
		matrix := func(g geometry.Geometry) geometry.Geometry {
			n, m := g.Size()
			c := geometry.Matrix{C: make([]float64, n*m), N: n, M: m}
			for i := range n {
				g.Row(i, c.C[i*m:(i+1)*m])
			}
			return c
		}
		q.Support = matrix(p.Support)
		q.Measures = nil
		for _, m := range p.Measures {
			q.Measures = append(q.Measures, Measure{matrix(m.Geometry), m.Weights})
		}
		same(q, "matrices", 1)

		b := random(rand.New(rand.NewPCG(1, 1)), 6, 1)
		q.Measures, q.Lambda = []Measure{{Weights: b}, p.Measures[1]}, nil
		onSupport := converged(t, q, 1e-11)
		q.Measures = []Measure{{p.Support, b}, p.Measures[1]}
		nearAll(t, onSupport.Weights, converged(t, q, 1e-11).Weights, 1e-9, "measure on the support")
	}
}

// A grid as geometry finds what its points do.
func TestGrid(t *testing.T) {
	grid, err := geometry.NewGrid(geometry.SqEuclidean, []float64{0, 1, 2, 3}, []float64{0, 1, 2.5, 3, 4})
	require.NoError(t, err)
	points, err := grid.Points()
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(12, 12))
	for _, debiased := range []bool{false, true} {
		p := Problem{Support: grid, Epsilon: .3, Debiased: debiased, Measures: []Measure{{Weights: random(r, 20, 1, 3, 4, 5)}, {Weights: random(r, 20, 1, 0)}}}
		want := converged(t, p, 1e-9)
		p.Support = points
		got := converged(t, p, 1e-9)
		nearAll(t, want.Weights, got.Weights, 1e-6, "weights")
		near(t, want.Certificate.TransportCost, got.Certificate.TransportCost, 1e-7, "transport cost")
		near(t, want.Certificate.Dual, got.Certificate.Dual, 1e-9, "dual")
	}
}

// A strong penalty is an exact marginal; a weak one lets masses go.
func TestPenalty(t *testing.T) {
	p := small3(6, 6)
	want := converged(t, p, 1e-11)
	p.Rho = math.Inf(1)
	require.Equal(t, want.Weights, converged(t, p, 1e-11).Weights)
	p.Rho = 1e7
	nearAll(t, want.Weights, converged(t, p, 1e-11).Weights, 1e-6, "strong penalty")
	p.Rho = .5
	mass := converged(t, p, 1e-10).Certificate.Mass
	require.Less(t, mass, .9)
	require.Greater(t, mass, 0.)
}
