package sinkhorn

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
)

// everyRank runs solve on ranks of a local group and returns what each found.
func everyRank[T any](t *testing.T, device string, ranks int, solve func(dev gpu.Device, group collective.Group) (T, error)) []T {
	t.Helper()
	devs := make([]gpu.Device, ranks)
	for r := range devs {
		dev, err := gpu.OpenWith(device, gpu.Options{Workers: 1})
		require.NoError(t, err)
		t.Cleanup(func() { dev.Close() })
		devs[r] = dev
	}
	out, errs := make([]T, ranks), make([]error, ranks)
	var all sync.WaitGroup
	for r, group := range collective.Local(ranks, devs...) {
		all.Go(func() {
			if out[r], errs[r] = solve(devs[r], group); errs[r] != nil {
				group.Close()
			}
		})
	}
	all.Wait()
	for r, err := range errs {
		require.NoError(t, err, "rank %d of %d", r, ranks)
	}
	return out
}

// same compares results bit by bit.
func same(t *testing.T, want, got *Result, what string) {
	t.Helper()
	require.NoError(t, kerneltest.BitEqual(got.Plan.F, want.Plan.F), "%s: f", what)
	require.NoError(t, kerneltest.BitEqual(got.Plan.G, want.Plan.G), "%s: g", what)
	require.Equal(t, want.Status, got.Status, what)
	require.Equal(t, want.Iterations, got.Iterations, what)
	require.Equal(t, want.Stages, got.Stages, what)
	require.NoError(t, kerneltest.BitEqual(certificateNumbers(got.Certificate), certificateNumbers(want.Certificate)), "%s: certificate", what)
}

func certificateNumbers(c Certificate) []float64 {
	return []float64{c.TransportCost, c.Primal, c.Dual, c.Gap, c.Mass, c.Source, c.Target, c.Residual}
}

// Potentials, certificate and status have the same bits on all ranks and whatever
// the number of processes, and are a solution.
func TestShardedSolve(t *testing.T) {
	weights := func(n int) []float64 {
		w := make([]float64, n)
		for i := range w {
			w[i] = float64(i % 5) // zeros among them
		}
		return w
	}
	for _, c := range []struct {
		name     string
		device   string
		n, m, d  int
		shards   int
		settings Settings
		change   func(*Problem)
	}{
		{name: "double", n: 90, m: 70, d: 3},
		{name: "single", n: 90, m: 70, d: 3, settings: Settings{Precision: solver.Single, Tolerance: 1e-4}},
		{name: "ladder", n: 261, m: 257, d: 2},
		{name: "cached", n: 90, m: 70, d: 16, shards: 16},
		{name: "overrelaxed", n: 60, m: 50, d: 2, settings: Settings{Acceleration: Overrelaxed}},
		{name: "kl", n: 60, m: 50, d: 2, change: func(p *Problem) { p.Source, p.Target = Penalty{Kind: KL, Rho: 2}, Penalty{Kind: KL, Rho: 3} }},
		{name: "tv", n: 40, m: 50, d: 2, change: func(p *Problem) { p.Source = Penalty{Kind: TV, Rho: 1} }},
		{name: "l2", n: 40, m: 50, d: 2, change: func(p *Problem) { p.Target = Penalty{Kind: L2, Rho: 1} }},
		{name: "zeros", n: 51, m: 64, d: 2, change: func(p *Problem) {
			p.A, p.B = weights(51), weights(64)
			scale := measure.Mass(p.A) / measure.Mass(p.B)
			for j := range p.B {
				p.B[j] *= scale
			}
		}},
		{name: "mean", n: 33, m: 31, d: 2, change: func(p *Problem) {
			q := p.Geometry.(geometry.Points)
			q.Ground = geometry.Euclidean
			p.Geometry, p.Scale, p.Epsilon = q, Mean, 0.1
		}},
		{name: "three points", n: 3, m: 2, d: 1},
		{name: "one point", n: 1, m: 5, d: 2},
		{name: "odd shards", n: 50, m: 40, d: 2, shards: 7},
		{name: "emulation", device: "emu", n: 19, m: 17, d: 2, settings: Settings{Precision: solver.Single, Tolerance: 1e-3}},
		{name: "matrix", n: 31, m: 27, d: 2, change: func(p *Problem) {
			m := geometry.Matrix{C: make([]float64, 31*27), N: 31, M: 27}
			for i := range 31 {
				p.Geometry.Row(i, m.C[i*27:(i+1)*27])
			}
			p.Geometry = m
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			device := "cpu"
			if c.device != "" {
				device = c.device
			}
			x, y := cloudsOf(c.n, c.m, c.d)
			points, err := geometry.NewPoints(x, y, c.d, geometry.SqEuclidean)
			require.NoError(t, err)
			p := Problem{Geometry: points, Epsilon: 0.3}
			if c.change != nil {
				c.change(&p)
			}
			dev, err := gpu.OpenWith(device, gpu.Options{Workers: 2})
			require.NoError(t, err)
			t.Cleanup(func() { dev.Close() })
			whole, err := Solve(t.Context(), dev, p, c.settings)
			require.NoError(t, err)
			var first *Result
			counts := []int{1, 2, 3, 4}
			if device == "emu" {
				counts = counts[:2]
			}
			for _, ranks := range counts {
				for r, got := range everyRank(t, device, ranks, func(dev gpu.Device, group collective.Group) (*Result, error) {
					team, ctx := geometry.Join(t.Context(), dev, group)
					q := p
					q.Geometry = geometry.Sharded{Geometry: p.Geometry, Team: team, Shards: c.shards}
					return Solve(ctx, dev, q, c.settings)
				}) {
					if first == nil {
						first = got
					}
					same(t, first, got, fmt.Sprintf("rank %d of %d", r, ranks))
				}
			}
			// The same solution as without shards, to what both residuals allow.
			require.Equal(t, whole.Status, first.Status)
			require.Equal(t, solver.Converged, first.Status)
			scale := math.Abs(whole.Certificate.Primal) + 1
			tolerance := c.settings.withDefaults().Tolerance
			require.InDelta(t, whole.Certificate.Dual, first.Certificate.Dual, 20*tolerance*scale)
			require.LessOrEqual(t, first.Certificate.Residual, tolerance)
		})
	}
}

// cloudsOf are two clouds that overlap.
func cloudsOf(n, m, d int) (x, y []float64) {
	x, y = make([]float64, n*d), make([]float64, m*d)
	for i := range x {
		x[i] = math.Sin(float64(3*i*i + 1))
	}
	for j := range y {
		y[j] = 0.3 + math.Cos(float64(5*j*j+2))
	}
	return x, y
}

// Other solvers' problems: the divergence with its gradient, and the maps of a
// plan, agree on all ranks and with the whole geometry.
func TestShardedPlan(t *testing.T) {
	const n, m, d = 40, 30, 2
	x, y := cloudsOf(n, m, d)
	for _, cost := range []geometry.Cost{geometry.SqEuclidean, geometry.Cosine} {
		points, err := geometry.NewPoints(x, y, d, cost)
		require.NoError(t, err)
		p := Problem{Geometry: points, Epsilon: 0.4}
		type answers struct{ value, gradient, mapped []float64 }
		solve := func(ctx context.Context, dev gpu.Device, g geometry.Geometry) (a answers, err error) {
			q := p
			q.Geometry = g
			div, err := SolveDivergence(ctx, dev, q, Settings{Tolerance: 1e-9})
			if err != nil {
				return a, err
			}
			grad, err := div.Gradient(ctx, dev)
			if err != nil {
				return a, err
			}
			a.value, a.gradient = []float64{div.Value}, append(append(grad.X, grad.A...), append(grad.Y, grad.B...)...)
			a.mapped, err = div.AB.Plan.BarycentricMap(ctx, dev)
			if err != nil {
				return a, err
			}
			more, err := div.AB.Plan.Map(ctx, dev, x[:4])
			a.mapped = append(a.mapped, more...)
			return a, err
		}
		dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: 2})
		require.NoError(t, err)
		t.Cleanup(func() { dev.Close() })
		whole, err := solve(t.Context(), dev, points)
		require.NoError(t, err)
		var first *answers
		for _, ranks := range []int{1, 3} {
			for _, a := range everyRank(t, "cpu", ranks, func(dev gpu.Device, group collective.Group) (answers, error) {
				team, ctx := geometry.Join(t.Context(), dev, group)
				return solve(ctx, dev, geometry.Sharded{Geometry: points, Team: team})
			}) {
				if first == nil {
					first = &a
				}
				require.NoError(t, kerneltest.BitEqual(a.value, first.value))
				require.NoError(t, kerneltest.BitEqual(a.gradient, first.gradient))
				require.NoError(t, kerneltest.BitEqual(a.mapped, first.mapped))
			}
		}
		// Both solutions are within their residual.
		require.NoError(t, kerneltest.Within(first.value, whole.value, 1e-7))
		require.NoError(t, kerneltest.Within(first.gradient, whole.gradient, 1e-6))
		require.NoError(t, kerneltest.Within(first.mapped, whole.mapped, 1e-6))
	}
}

// A context that is done on one rank stops all of them, after the same sweep and
// with the same potentials.
func TestShardedCanceled(t *testing.T) {
	x, y := cloudsOf(60, 50, 2)
	points, err := geometry.NewPoints(x, y, 2, geometry.SqEuclidean)
	require.NoError(t, err)
	results := everyRank(t, "cpu", 3, func(dev gpu.Device, group collective.Group) (*Result, error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		team, agreed := geometry.Join(ctx, dev, group)
		settings := Settings{Tolerance: 1e-14, Trace: func(i Iteration) {
			if group.Rank() == 2 && i.N == 7 {
				cancel()
			}
		}}
		return Solve(agreed, dev, Problem{Geometry: geometry.Sharded{Geometry: points, Team: team}, Epsilon: 0.01}, settings)
	})
	for r, res := range results {
		require.Equal(t, solver.Canceled, res.Status, "rank %d", r)
		require.Equal(t, results[0].Iterations, res.Iterations)
		require.Equal(t, 8, res.Iterations) // the sweep in which the others hear of it
		require.NoError(t, kerneltest.BitEqual(res.Plan.G, results[0].Plan.G))
	}
	// Before the first sweep.
	results = everyRank(t, "cpu", 2, func(dev gpu.Device, group collective.Group) (*Result, error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if group.Rank() == 1 {
			cancel()
		}
		team, agreed := geometry.Join(ctx, dev, group)
		return Solve(agreed, dev, Problem{Geometry: geometry.Sharded{Geometry: points, Team: team}, Epsilon: 0.01}, Settings{})
	})
	for _, res := range results {
		require.Equal(t, solver.Canceled, res.Status)
		require.Zero(t, res.Iterations)
	}
}
