package fortet_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/fortet"
)

func TestInvalid(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	good := func() fortet.Problem {
		return fortet.Problem{Axes: [][]float64{line(0, 1, 5)}, LogSource: make([]float64, 5), LogTarget: make([]float64, 5), Reference: fortet.Brownian(1)}
	}
	require.NoError(t, good().Validate())
	for name, change := range map[string]func(*fortet.Problem){
		"0 axes":                 func(p *fortet.Problem) { p.Axes = nil },
		"4 axes":                 func(p *fortet.Problem) { x := p.Axes[0]; p.Axes = [][]float64{x, x, x, x} },
		"at least 2":             func(p *fortet.Problem) { p.Axes = [][]float64{{1}} },
		"coordinate 1 is NaN":    func(p *fortet.Problem) { p.Axes = [][]float64{{1, nan}} },
		"coordinate 2 is 1":      func(p *fortet.Problem) { p.Axes = [][]float64{{0, 1, 1}} },
		"4 numbers for 5 cells":  func(p *fortet.Problem) { p.LogSource = make([]float64, 4) },
		"cell 3 is NaN":          func(p *fortet.Problem) { p.LogTarget = []float64{0, 0, 0, nan, 0} },
		"cell 0 is +Inf":         func(p *fortet.Problem) { p.LogTarget = []float64{inf, 0, 0, 0, 0} },
		"all cells are empty":    func(p *fortet.Problem) { p.LogTarget = []float64{-inf, -inf, -inf, -inf, -inf} },
		"reference":              func(p *fortet.Problem) { p.Reference = nil },
		"epsilon":                func(p *fortet.Problem) { p.Reference = fortet.Brownian(-1) },
		"rate":                   func(p *fortet.Problem) { p.Reference = fortet.Diffusion{Epsilon: 1, Rate: []float64{1, 2}} },
		"of axis 0 is NaN":       func(p *fortet.Problem) { p.Reference = fortet.Diffusion{Epsilon: 1, Center: []float64{nan}} },
		"0 for 1 axes":           func(p *fortet.Problem) { p.Reference = fortet.Given{} },
		"24 numbers, want 5 × 5": func(p *fortet.Problem) { p.Reference = fortet.Given{LogKernels: [][]float64{make([]float64, 24)}} },
		"steps: invalid problem": func(p *fortet.Problem) { p.Steps = -1 },
		"logarithm (1, 2) is NaN": func(p *fortet.Problem) {
			k := make([]float64, 25)
			k[7] = nan
			p.Reference = fortet.Given{LogKernels: [][]float64{k}}
		},
		"too coarse for epsilon 0.": func(p *fortet.Problem) { p.Reference = fortet.Brownian(.06) },
	} {
		p := good()
		change(&p)
		err := p.Validate()
		require.ErrorIs(t, err, solver.ErrInvalid, name)
		require.ErrorContains(t, err, name)
		_, err = fortet.Solve(t.Context(), cpu(t), p, fortet.Settings{})
		require.ErrorIs(t, err, solver.ErrInvalid)
	}
	p := good()
	p.Axes, p.Reference = [][]float64{line(0, 2, 5)}, fortet.Brownian(.01)
	require.ErrorContains(t, p.Validate(), "grid spacing 0.5 is too coarse for epsilon 0.01: want at most 0.1")
	p.Potential, p.Steps = func(float64, []float64) float64 { return 0 }, 25
	require.ErrorContains(t, p.Validate(), "for epsilon 0.01 in 25 steps: want at most 0.02")
	p.LogSource = nil
	require.ErrorContains(t, p.Validate(), "source") // and the spacing
	require.ErrorContains(t, p.Validate(), "too coarse")

	p = good()
	p.Potential = func(t float64, x []float64) float64 {
		if t == .5 && x[0] == .25 {
			return nan
		}
		return 0
	}
	p.Steps = 2
	_, err := fortet.Solve(t.Context(), cpu(t), p, fortet.Settings{})
	require.ErrorIs(t, err, solver.ErrInvalid)
	require.ErrorContains(t, err, "potential: invalid problem: at time 0.5 and [0.25] it is NaN")
	for _, s := range []fortet.Settings{{Tolerance: -1}, {Tolerance: nan}, {MaxIterations: -1}, {Acceleration: 7}, {Precision: -1}} {
		_, err := fortet.Solve(t.Context(), cpu(t), good(), s)
		require.ErrorIs(t, err, solver.ErrInvalid, "%+v", s)
	}
	r := solve(t, cpu(t), good(), fortet.Settings{})
	for _, when := range []float64{-.1, 1.1, nan} {
		_, err := r.At(t.Context(), cpu(t), when)
		require.ErrorIs(t, err, solver.ErrInvalid)
		_, err = r.Paths(t.Context(), cpu(t), 1, []float64{when}, 1)
		require.ErrorIs(t, err, solver.ErrInvalid)
	}
	for _, times := range [][]float64{nil, {.5, .2}} {
		_, err := r.Paths(t.Context(), cpu(t), 1, times, 1)
		require.ErrorIs(t, err, solver.ErrInvalid)
	}
	_, err = r.Paths(t.Context(), cpu(t), 0, []float64{.5}, 1)
	require.ErrorIs(t, err, solver.ErrInvalid)
	_, err = fortet.LogMass([][]float64{{1, 0}}, func([]float64) float64 { return 0 })
	require.ErrorIs(t, err, solver.ErrInvalid)
}
