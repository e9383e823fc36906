package sinkhorn

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
)

func TestDivergenceOfUnequalMasses(t *testing.T) {
	for _, ground := range []geometry.Cost{geometry.SqEuclidean, geometry.Euclidean, geometry.Cosine} {
		for _, pen := range []Penalty{{KL, .8}, {TV, .8}, {L2, 4}} {
			t.Run(fmt.Sprintf("%v/%v", ground, pen), func(t *testing.T) {
				p := small4(5, .3, pen, pen)
				g := p.Geometry.(geometry.Points)
				g.Ground = ground
				p.Geometry = g
				s := Settings{Tolerance: 1e-11, MaxIterations: 50000}
				d, err := SolveDivergence(t.Context(), device(t), p, s)
				require.NoError(t, err)
				require.Equal(t, solver.Converged, d.Status())
				near(t, .15*4, d.MassTerm, 1e-12, "mass term")
				// The bound that shows that it cannot be negative.
				bound := 0.0
				all := geometry.Points{X: append(slices.Clone(g.X), g.Y...), N: 9, D: 2, Ground: ground}
				all.Y, all.M = all.X, 9
				v, c := make([]float64, 9), make([]float64, 9)
				for i := range v {
					if i < 4 {
						v[i] = p.A[i] * math.Exp(d.AA.Plan.F[i]/p.Epsilon)
					} else {
						v[i] = -p.B[i-4] * math.Exp(d.BB.Plan.F[i-4]/p.Epsilon)
					}
				}
				for i := range v {
					all.Row(i, c)
					for j := range v {
						bound += p.Epsilon / 2 * v[i] * v[j] * math.Exp(-c[j]/p.Epsilon)
					}
				}
				if !(bound > 1e-3 && d.Value >= bound-1e-9) {
					t.Errorf("divergence %v, want at least %v", d.Value, bound)
				}

				q := p
				same := g
				same.Y, same.M = g.X, 4
				q.Geometry, q.B = same, p.A
				d, err = SolveDivergence(t.Context(), device(t), q, s)
				require.NoError(t, err)
				near(t, 0, d.Value, 1e-9, "divergence of equal measures")
			})
		}
	}
	for _, pair := range [][2]Penalty{{{KL, 1}, {}}, {{KL, 1}, {KL, 2}}, {{KL, 1}, {TV, 1}}} {
		_, err := SolveDivergence(t.Context(), device(t), small4(5, .3, pair[0], pair[1]), Settings{})
		require.ErrorIs(t, err, solver.ErrInvalid)
		require.ErrorContains(t, err, "same on both sides")
	}
}
