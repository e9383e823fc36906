package fortet_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/fortet"
	"github.com/fortet/fortet/solver/gaussian"
)

// uneven are cells of which the widest are twelve times the narrowest.
func uneven() (x []float64) {
	for v := -3.; v < 3; v += .02 + .3*math.Min(math.Abs(v), 1) {
		x = append(x, v)
	}
	return x
}

// times at which kernels are far narrower than a cell, as wide, and wider, and at
// which the way that is left is.
var times = []float64{0, 1e-300, 1e-12, 1e-8, 1e-4, 1e-3, .01, .03, .1, .3, .5, .7, .9, .97, .99, .999, 1 - 1e-8, 1 - 1e-15, 1}

// The law has mass 1 at every time, and what it was before that says how far it is
// off: nothing where the grid resolves the way from and to both ends.
func TestMass(t *testing.T) {
	dev := cpu(t)
	narrow, wide := law([]float64{0}, []float64{1}), law([]float64{1}, []float64{.3})
	plane := [][]float64{line(-2, 2, 9), uneven()}
	bump := func(t float64, x []float64) float64 { return 6 * t * math.Exp(-4*x[0]*x[0]) }
	for name, c := range map[string]struct {
		axes      [][]float64
		reference fortet.Diffusion
		potential func(float64, []float64) float64
		steps     int
		rough     bool
		off       float64 // Mass from 1, as measured and a half more
	}{
		"fine":           {axes: [][]float64{line(-6, 6, 301)}, reference: fortet.Brownian(.5), off: 2.3e-7},
		"h = .2":         {axes: [][]float64{line(-6, 6, 61)}, reference: fortet.Brownian(.5), off: 2.1e-4},
		"coarsest":       {axes: [][]float64{line(-5.5, 5.5, 17)}, reference: fortet.Brownian(.5), off: 2.5e-2},
		"inwards":        {axes: [][]float64{line(-6, 6, 61)}, reference: fortet.Diffusion{Epsilon: 2, Rate: []float64{9}, Center: []float64{.4}}, off: 4.7e-3},
		"outwards":       {axes: [][]float64{line(-6, 6, 61)}, reference: fortet.Diffusion{Epsilon: .2, Rate: []float64{-1.5}, Center: []float64{.4}}, off: 6.9e-2},
		"uneven":         {axes: [][]float64{uneven()}, reference: fortet.Diffusion{Epsilon: .9, Rate: []float64{.5}}, off: 5.1e-3},
		"uneven, rate 3": {axes: [][]float64{uneven()}, reference: fortet.Diffusion{Epsilon: .9, Rate: []float64{3}}, off: 4.8e-2},
		"steps":          {axes: [][]float64{line(-6, 6, 201)}, reference: fortet.Brownian(.5), potential: bump, steps: 8, off: 1.8e-3},
		"rough plane":    {axes: plane, reference: fortet.Brownian(.6), rough: true, off: 6e-2},
	} {
		t.Run(name, func(t *testing.T) {
			p := fortet.Problem{Axes: c.axes, Reference: c.reference, Potential: c.potential, Steps: c.steps}
			if c.rough {
				n := len(c.axes[0]) * len(c.axes[1])
				p.LogSource, p.LogTarget = rough(1, n), rough(2, n)
			} else {
				p.LogSource, p.LogTarget = normal(t, c.axes, narrow), normal(t, c.axes, wide)
			}
			r := solve(t, dev, p, fortet.Settings{Tolerance: 1e-10})
			for _, when := range times {
				s := at(t, dev, r, when)
				total := 0.
				for i, l := range s.LogMass {
					total += math.Exp(l)
					if !math.IsInf(l, -1) {
						require.InDelta(t, s.LogPhi[i]+s.LogPhiHat[i], l, 1e-12*(1+math.Abs(s.LogPhi[i])))
					}
				}
				require.InDelta(t, 1, total, 1e-12, "at %g", when)
				require.InDelta(t, 1, s.Mass, c.off, "at %g", when)
			}
		})
	}
}

// Cells of very different widths, a drift that no jump between neighbours could have,
// and a φ of exp(20) in the tails: the laws become those of the ends and are near the
// closed form of normal laws.
func TestUnevenCells(t *testing.T) {
	dev := cpu(t)
	x := uneven()
	axes := [][]float64{x}
	source, target := law([]float64{-.5}, []float64{.3}), law([]float64{.5}, []float64{.5})
	for _, rate := range []float64{0, .5, 3} {
		p := fortet.Problem{Axes: axes, LogSource: normal(t, axes, source), LogTarget: normal(t, axes, target), Reference: fortet.Diffusion{Epsilon: .9, Rate: []float64{rate}}}
		r := solve(t, dev, p, fortet.Settings{})
		closed, err := gaussian.Solve(source, target, gaussian.Linear{A: mat.NewDense(1, 1, []float64{-rate}), D: mat.NewSymDense(1, []float64{.9})})
		require.NoError(t, err)
		for _, when := range times {
			s := at(t, dev, r, when)
			want, err := closed.Marginal(when)
			require.NoError(t, err)
			off := 0.
			for i, w := range probabilities(normal(t, axes, gaussian.Normal{Mean: want.Mean, Cov: want.Cov})) {
				off += math.Abs(w - math.Exp(s.LogMass[i]))
			}
			require.LessOrEqual(t, off, .015, "rate %g at %g", rate, when) // a cell is a sixth of a standard deviation and more
			if end := math.Round(when); math.Abs(when-end) < 1e-6 {
				for i, l := range at(t, dev, r, end).LogMass {
					require.InDelta(t, math.Exp(l), math.Exp(s.LogMass[i]), 1e-8)
				}
			}
		}
	}
}

// What the steps do not carry is refused, at the times where it is not.
func TestNotCarried(t *testing.T) {
	dev := cpu(t)
	axes := [][]float64{line(-3, 3, 61)}
	p := fortet.Problem{Axes: axes, LogSource: normal(t, axes, law([]float64{0}, []float64{.5})), LogTarget: normal(t, axes, law([]float64{0}, []float64{.5})),
		Reference: fortet.Brownian(.5), Steps: 2, Potential: func(t float64, x []float64) float64 { return 60 * t * (1 - t) * x[0] * x[0] }}
	r := solve(t, dev, p, fortet.Settings{})
	for _, when := range []float64{0, .5, 1} {
		require.InDelta(t, 1, at(t, dev, r, when).Mass, 1e-8)
	}
	_, err := r.At(t.Context(), dev, .25)
	require.ErrorIs(t, err, solver.ErrInvalid)
	require.ErrorContains(t, err, "at 0.25 the mass is 0.")
	require.ErrorContains(t, err, "this needs more steps")
	r.Status = solver.MaxIterations
	_, err = r.At(t.Context(), dev, .25)
	require.ErrorContains(t, err, "a run that has converged")
}
