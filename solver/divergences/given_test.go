package divergences

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
)

// A plan of an exact total variation made anew from its exported fields is the plan.
func TestGivenPlan(t *testing.T) {
	p := small(t)
	p.Kind, p.Divergence = Gibbs, Divergence{Family: TotalVariation}
	plan := solved(t, p, tight).Plan
	again := Plan{Geometry: plan.Geometry, A: plan.A, B: plan.B, F: plan.F, G: plan.G,
		Epsilon: plan.Epsilon, Divergence: plan.Divergence, Kind: plan.Kind, LogZ: plan.LogZ, Given: plan.Given}
	require.NoError(t, again.Validate())
	require.Equal(t, plan.Matrix(), again.Matrix())
	for text, change := range map[string]func(*Plan){
		"do not say":           func(p *Plan) { p.Given = nil },
		"5 numbers, want 3":    func(p *Plan) { p.Given = p.Given[:5] },
		"entry 0 is NaN":       func(p *Plan) { p.Given = append([]float64{math.NaN()}, p.Given[1:]...) },
		"want no matrix":       func(p *Plan) { p.Divergence = Divergence{} },
		"a finite number of a": func(p *Plan) { p.Given = append([]float64{math.Inf(1)}, p.Given[1:]...) },
	} {
		bad := again
		change(&bad)
		require.ErrorIs(t, bad.Validate(), solver.ErrInvalid)
		require.ErrorContains(t, bad.Validate(), text)
	}
}

// Means of any function of the target, also where costs come from no points and
// where a source point has no mass.
func TestTransport(t *testing.T) {
	p := small(t)
	p.A = []float64{.5, 0, .5}
	y := p.Geometry.(geometry.Points).Y
	v := make([]float64, 8) // y and 1
	for j := range 4 {
		v[2*j], v[2*j+1] = y[j], 1
	}
	for _, d := range all() {
		for _, kind := range []Kind{Regularised, Gibbs} {
			p.Kind, p.Divergence = kind, d
			plan := solved(t, p, Settings{Tolerance: 1e-9}).Plan
			bary, err := plan.BarycentricMap(t.Context())
			require.NoError(t, err)
			c := make([]float64, 12)
			for i := range 3 {
				plan.Geometry.Row(i, c[4*i:4*i+4])
			}
			plan.Geometry = geometry.Matrix{C: c, N: 3, M: 4}
			got, err := plan.Transport(t.Context(), v, 2)
			require.NoError(t, err)
			if plan.Given != nil { // a row that nothing says
				require.InDelta(t, 1, bary[1], 0)
				bary[1] = .1*-.5 + .4*.5 + .3*1.5 + .2*3
			}
			for i := range 3 {
				require.InDelta(t, bary[i], got[2*i], 1e-12, "%v %v", kind, d)
				require.InDelta(t, 1, got[2*i+1], 1e-14, "%v %v", kind, d)
			}
		}
	}
	plan := solved(t, p, tight).Plan
	for _, bad := range []struct {
		v []float64
		k int
	}{{v, 0}, {v, 3}, {nil, 1}} {
		_, err := plan.Transport(t.Context(), bad.v, bad.k)
		require.ErrorIs(t, err, solver.ErrInvalid)
	}
}
