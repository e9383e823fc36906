package sinkhorn

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
)

// onGrid is a problem on a grid, the same between points, and how long a unit of each
// of the grid's coordinates is among those of the points.
func onGrid(g geometry.Grid) (grid, points Problem, units []float64) {
	x, y := [][]float64{{}}, [][]float64{{}}
	for _, a := range g.Axes {
		unit := 1.0
		if a.Weight > 0 {
			unit = math.Sqrt(a.Weight)
		}
		units = append(units, unit)
		if a.Y == nil {
			a.Y = a.X
		}
		extend := func(rows [][]float64, along []float64) (out [][]float64) {
			for _, row := range rows {
				for _, v := range along {
					out = append(out, append(slices.Clone(row), v*unit))
				}
			}
			return out
		}
		x, y = extend(x, a.X), extend(y, a.Y)
	}
	weights := func(n int, seed uint64) []float64 {
		w := cloud(seed, n, 1, 0)
		for i := range w {
			w[i] *= w[i]
			if i%5 == 2 {
				w[i] = 0
			}
		}
		sum := measure.Mass(w)
		for i := range w {
			w[i] /= sum
		}
		return w
	}
	grid = Problem{Geometry: g, A: weights(len(x), 3), B: weights(len(y), 4), Epsilon: .2}
	points = grid
	points.Geometry = geometry.Points{X: slices.Concat(x...), Y: slices.Concat(y...), N: len(x), M: len(y), D: len(units), Ground: g.Ground}
	return grid, points, units
}

// along is v with each coordinate times the power of its unit.
func along(v, units []float64, power float64) []float64 {
	out := slices.Clone(v)
	for i := range out {
		out[i] *= math.Pow(units[i%len(units)], power)
	}
	return out
}

// All that a plan answers on a grid is what it answers between the grid's points.
func TestPlanOnGrid(t *testing.T) {
	dev, ctx := device(t), t.Context()
	line := []float64{-1.2, -.5, 0, .1, .8, 1.5}
	for name, g := range map[string]geometry.Grid{
		"line":        {Axes: []geometry.Axis{{X: line, Y: cloud(8, 9, 1, 0)}}},
		"image":       {Axes: []geometry.Axis{{X: line}, {X: line[1:]}}, Ground: geometry.HalfSqEuclidean},
		"anisotropic": {Axes: []geometry.Axis{{X: line, Weight: 2.5}, {X: line[2:], Y: line[:3], Weight: .3}, {X: line[3:]}}},
		"far":         {Axes: []geometry.Axis{{X: []float64{1000, 1000.5, 1001}}, {X: line, Weight: .5}}},
	} {
		for _, pen := range []Penalty{{}, {KL, .7}} {
			t.Run(fmt.Sprintf("%s/%v", name, pen), func(t *testing.T) {
				grid, points, units := onGrid(g)
				grid.Source, points.Source = pen, pen
				grid.Target, points.Target = pen, pen
				got, want := solve(t, grid, steep).Plan, solve(t, points, steep).Plan
				nearAll(t, want.Matrix(), got.Matrix(), 1e-11, "plan")
				got.F, got.G = want.F, want.G // what follows is from the same potentials
				n, _ := g.Size()
				of := func(name string) func(v []float64, err error) []float64 {
					return func(v []float64, err error) []float64 {
						require.NoError(t, err, name)
						return v
					}
				}
				budget := 1e-11
				if name == "far" {
					budget = 1e-9 // of rounding at coordinates of 1000
				}
				x := cloud(9, 7, len(units), g.Axes[0].X[0])
				there := along(x, units, 1)
				nearAll(t, along(of("map")(want.BarycentricMap(ctx, dev)), units, -1), of("map")(got.BarycentricMap(ctx, dev)), budget, "barycentric map")
				nearAll(t, along(of("map")(want.Map(ctx, dev, there)), units, -1), of("map")(got.Map(ctx, dev, x)), budget, "map")
				for _, at := range []float64{0, .4, 1} {
					rise := 1 / (1 - min(at, latest)) // of the drift towards a target
					nearAll(t, along(of("drift")(want.Drift(ctx, dev, at, there)), units, -1), of("drift")(got.Drift(ctx, dev, at, x)), budget*rise, "drift")
					nearAll(t, along(of("score")(want.Score(ctx, dev, at, there)), units, 1), of("score")(got.Score(ctx, dev, at, x)), budget*rise*20, "score")
				}
				times := []float64{0, .3, .8, 1}
				paths := of("paths")(got.Paths(ctx, 50, times, 3))
				nearAll(t, along(of("paths")(want.Paths(ctx, 50, times, 3)), units, -1), paths, budget, "paths")
				require.Len(t, paths, 50*4*len(units))
				a, err := want.Gradient(ctx, dev)
				require.NoError(t, err)
				b, err := got.Gradient(ctx, dev)
				require.NoError(t, err)
				nearAll(t, along(a.X, units, 1), b.X, budget, "gradient by x")
				nearAll(t, along(a.Y, units, 1), b.Y, budget, "gradient by y")
				nearAll(t, a.A, b.A, budget*10, "gradient by a")
				nearAll(t, a.B, b.B, budget*10, "gradient by b")
				require.Equal(t, b.X, of("gradient")(got.SourceGradient(ctx, dev)))
				require.Len(t, b.X, n*len(units))
				require.NotZero(t, b.X[0]) // not vacuous: the first point has mass
			})
		}
	}
}

func TestDivergenceOnGrid(t *testing.T) {
	line := []float64{-1.2, -.5, 0, .1, .8, 1.5}
	g := geometry.Grid{Axes: []geometry.Axis{{X: line, Weight: 2.5}, {X: line[2:], Y: line[:3]}}}
	grid, points, units := onGrid(g)
	want, err := SolveDivergence(t.Context(), device(t), points, steep)
	require.NoError(t, err)
	got, err := SolveDivergence(t.Context(), device(t), grid, steep)
	require.NoError(t, err)
	require.Positive(t, want.Value)
	near(t, want.Value, got.Value, 1e-11, "divergence")
	a, err := want.Gradient(t.Context(), device(t))
	require.NoError(t, err)
	b, err := got.Gradient(t.Context(), device(t))
	require.NoError(t, err)
	nearAll(t, along(a.X, units, 1), b.X, 1e-9, "gradient by x")
	nearAll(t, along(a.Y, units, 1), b.Y, 1e-9, "gradient by y")
}

// Axes with given costs have no coordinates to ask about.
func TestPlanOnGridOfGivenCosts(t *testing.T) {
	g := geometry.Grid{Axes: []geometry.Axis{{X: []float64{0, 1, 2}}, {Given: geometry.Matrix{C: []float64{0, 1, 3, .5}, N: 2, M: 2}}}}
	p := Problem{Geometry: g, Epsilon: .5}
	plan, dev, ctx := solve(t, p, Settings{}).Plan, device(t), t.Context()
	for name, ask := range map[string]func() error{
		"barycentric map": func() error { _, err := plan.BarycentricMap(ctx, dev); return err },
		"map":             func() error { _, err := plan.Map(ctx, dev, []float64{0, 0}); return err },
		"drift":           func() error { _, err := plan.Drift(ctx, dev, .5, []float64{0, 0}); return err },
		"score":           func() error { _, err := plan.Score(ctx, dev, .5, []float64{0, 0}); return err },
		"paths":           func() error { _, err := plan.Paths(ctx, 3, []float64{.5}, 1); return err },
		"gradient":        func() error { _, err := plan.SourceGradient(ctx, dev); return err },
	} {
		err := ask()
		require.ErrorIs(t, err, solver.ErrInvalid, name)
		require.ErrorContains(t, err, "a grid with given costs along axis 1, want coordinates", name)
	}
	_, err := SolveDivergence(ctx, dev, p, Settings{})
	require.ErrorIs(t, err, solver.ErrInvalid)
	require.ErrorContains(t, err, "says nothing of the costs within each")
	grad, err := plan.Gradient(ctx, dev)
	require.NoError(t, err)
	require.Nil(t, grad.X)
	require.Nil(t, grad.Y)
	require.Len(t, grad.A, 6)
	require.Len(t, grad.B, 6)
}
