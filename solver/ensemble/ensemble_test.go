package ensemble_test

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/ensemble"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// clouds makes problems of the given sizes in d dimensions, with weights of
// which a seventh are zero, and the points of each from a random place.
func clouds(seed uint64, n, m []int, d int) ensemble.Problem {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := ensemble.Problem{N: n, M: m, D: d, Epsilon: []float64{0.1}, Scale: ensemble.Mean}
	side := func(points, weights *[]float64, count int) {
		place, total := rng.NormFloat64(), 0.0
		w := make([]float64, count)
		for i := range w {
			for range d {
				*points = append(*points, rng.NormFloat64()+place)
			}
			if w[i] = 0.2 + rng.Float64(); i%7 == 4 {
				w[i] = 0
			}
			total += w[i]
		}
		for _, x := range w {
			*weights = append(*weights, x/total)
		}
	}
	for k := range n {
		side(&p.X, &p.A, n[k])
		side(&p.Y, &p.B, m[k])
	}
	return p
}

var (
	ns = []int{1, 2, 31, 32, 33, 63, 64, 65, 127, 200, 5}
	ms = []int{1, 3, 32, 31, 64, 65, 64, 33, 40, 127, 90}
)

// one is problem k for package sinkhorn.
func one(p ensemble.Problem, k int) sinkhorn.Problem {
	i, j := 0, 0
	for q := range k {
		i, j = i+p.N[q], j+p.M[q]
	}
	n, m := p.N[k], p.M[k]
	q := sinkhorn.Problem{
		Geometry: geometry.Points{X: p.X[i*p.D : (i+n)*p.D], Y: p.Y[j*p.D : (j+m)*p.D], N: n, M: m, D: p.D, Ground: p.Ground},
		A:        p.A[i : i+n], B: p.B[j : j+m], Epsilon: p.Epsilon[k%len(p.Epsilon)], Scale: sinkhorn.Scale(p.Scale),
	}
	for _, side := range []struct {
		to  *sinkhorn.Penalty
		rho []float64
	}{{&q.Source, p.RhoSource}, {&q.Target, p.RhoTarget}} {
		if side.rho != nil && side.rho[k%len(side.rho)] != 0 {
			*side.to = sinkhorn.Penalty{Kind: sinkhorn.KL, Rho: side.rho[k%len(side.rho)]}
		}
	}
	return q
}

func cpu(t testing.TB) gpu.Device {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { dev.Close() })
	return dev
}

// Each problem is solved as package sinkhorn solves it by itself. The dual value
// is concave with the residual for gradient, so that at residual r it is below
// the optimum by no more than r times the distance of the potentials, which
// costs bound.
func TestAgainstSinkhorn(t *testing.T) {
	dev := cpu(t)
	for _, ground := range []geometry.Cost{geometry.SqEuclidean, geometry.HalfSqEuclidean, geometry.Euclidean} {
		for _, unbalanced := range []bool{false, true} {
			for _, precision := range []solver.Precision{solver.Ladder, solver.Single, solver.Double} {
				p := clouds(uint64(ground), ns, ms, 3)
				p.Ground = ground
				if unbalanced {
					p.RhoSource, p.RhoTarget = []float64{2}, make([]float64, len(ns))
					for k := range p.RhoTarget {
						p.RhoTarget[k] = float64(k % 3) // 0 is exact
					}
					for j := range p.B {
						p.B[j] *= 1.2
					}
				}
				r, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{Precision: precision, Map: true})
				require.NoError(t, err)
				require.Equal(t, solver.Converged, r.Status(), "%v %v", ground, precision)
				i := 0
				for k, got := range r.Problems {
					q := one(p, k)
					want, err := sinkhorn.Solve(t.Context(), dev, q, sinkhorn.Settings{Tolerance: 1e-9})
					require.NoError(t, err)
					require.Equal(t, solver.Converged, want.Status)
					require.InEpsilon(t, want.Plan.Epsilon, got.Epsilon, 1e-12)
					c, w := got.Certificate, want.Certificate
					scale := 1 + math.Abs(w.Primal)
					for _, f := range want.Plan.F {
						scale = max(scale, 2*math.Abs(f))
					}
					budget := 4 * 1e-6 * scale
					require.InDelta(t, w.Dual, c.Dual, budget)
					require.InDelta(t, w.Primal, c.Primal, budget)
					require.InDelta(t, c.Primal-c.Dual, c.Gap, 1e-15)
					require.LessOrEqual(t, c.Dual, w.Dual+1e-9*scale, "the dual value exceeds the optimum")
					require.LessOrEqual(t, c.Residual, 1e-6)
					f, g := r.Potentials(k)
					require.Len(t, f, p.N[k])
					require.Len(t, g, p.M[k])

					// Certificate and map are those of the potentials.
					mine := sinkhorn.Plan{Geometry: q.Geometry, A: q.A, B: want.Plan.B, F: f, G: g, Epsilon: got.Epsilon}
					require.NoError(t, mine.Validate())
					y, err := mine.BarycentricMap(t.Context(), dev)
					require.NoError(t, err)
					require.NoError(t, kerneltest.Within(r.Map[i*3:(i+p.N[k])*3], y, 1e-11))
					i += p.N[k]
				}
			}
		}
	}
}

// MATH.md E.1: (a,x), (b,y) of D.6, |x-y|², ε = 0.5 and 1; and E.3 with b × 1.3.
func TestKnownValues(t *testing.T) {
	x, y := []float64{0, 1, 2.5}, []float64{-0.5, 0.5, 1.5, 3}
	a, b := []float64{0.2, 0.3, 0.5}, []float64{0.1, 0.4, 0.3, 0.2}
	p := ensemble.Problem{
		N: []int{3, 3, 3}, M: []int{4, 4, 4}, D: 1, Epsilon: []float64{0.5, 1, 0.5},
		RhoSource: []float64{0, math.Inf(1), 1}, RhoTarget: []float64{0, 0, 1},
	}
	for k := range 3 {
		p.X, p.Y, p.A = append(p.X, x...), append(p.Y, y...), append(p.A, a...)
		for _, w := range b {
			if k == 2 {
				w *= 1.3
			}
			p.B = append(p.B, w)
		}
	}
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		r, err := ensemble.Solve(t.Context(), dev.Device, p, ensemble.Settings{Tolerance: 1e-13, Map: true})
		require.NoError(t, err)
		require.Equal(t, solver.Converged, r.Status())
		first := r.Problems[0].Certificate
		require.InDelta(t, 0.5270816481, first.TransportCost, 1e-10)
		require.InDelta(t, 0.8602608645, first.Primal, 1e-10)
		require.InDelta(t, 0.8602608645, first.Dual, 1e-10)
		require.InDelta(t, 0.6663584326, (first.Primal-first.TransportCost)/0.5, 1e-9)
		f, g := r.Potentials(0)
		for i, want := range []float64{0, 0.291804026, 2.292154494} {
			require.InDelta(t, want, f[i]-f[0], 1e-9)
		}
		for j, want := range []float64{1.030680114, 0.384049832, -0.969762489, -1.695583941} {
			require.InDelta(t, want, g[j]+f[0], 1e-9)
		}
		for i, want := range []float64{0.023949276, 0.531258191, 2.071665375} {
			require.InDelta(t, want, r.Map[i], 1e-9)
		}
		require.InDelta(t, 1.1291409852394123, r.Problems[1].Certificate.Primal, 1e-12)
		third := r.Problems[2].Certificate
		require.InDelta(t, 0.8808984194, third.Mass, 1e-10)
		require.InDelta(t, 0.7477539515, third.Primal, 1e-10)
		require.InDelta(t, 0.7477539515, third.Dual, 1e-10)
		f, g = r.Potentials(2)
		for i, want := range []float64{-0.032133099, -0.08757805, 0.365545039} {
			require.InDelta(t, want, f[i], 1e-9)
		}
		for j, want := range []float64{0.716470556, 0.440384933, 0.406502564, 0.153974342} {
			require.InDelta(t, want, g[j], 1e-9)
		}
	})
}

// Given matrices say the same as points.
func TestMatrices(t *testing.T) {
	dev := cpu(t)
	p := clouds(5, ns, ms, 2)
	q := p
	q.X, q.Y, q.D, q.Ground = nil, nil, 0, geometry.GivenMatrix
	for k := range ns {
		points := one(p, k).Geometry
		row := make([]float64, ms[k])
		for i := range ns[k] {
			points.Row(i, row)
			q.Costs = append(q.Costs, row...)
		}
	}
	r, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{Tolerance: 1e-9})
	require.NoError(t, err)
	s, err := ensemble.Solve(t.Context(), dev, q, ensemble.Settings{Tolerance: 1e-9})
	require.NoError(t, err)
	require.Equal(t, solver.Converged, s.Status())
	for k := range ns {
		require.InDelta(t, r.Problems[k].Certificate.Dual, s.Problems[k].Certificate.Dual, 1e-7)
	}
}

// float64 goes on with what float32 cannot do, and says with how many.
func TestLadder(t *testing.T) {
	dev := cpu(t)
	p := clouds(6, ns, ms, 3)
	r, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{Tolerance: 1e-10})
	require.NoError(t, err)
	require.Equal(t, solver.Converged, r.Status())
	require.Greater(t, r.Repeated, 5)
	single, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{Tolerance: 1e-10, Precision: solver.Single})
	require.NoError(t, err)
	require.Equal(t, solver.Stalled, single.Status())
	for k, o := range single.Problems {
		require.Equal(t, o.Status == solver.Converged, o.Certificate.Residual <= 1e-10, "problem %d", k)
		require.Less(t, o.Certificate.Residual, 1e-5)
	}
	easy, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{Tolerance: 1e-4})
	require.NoError(t, err)
	require.Zero(t, easy.Repeated)
}

// ε → ∞ gives the product of the marginals; shifting both clouds, or scaling
// costs and ε together, changes nothing else.
func TestLaws(t *testing.T) {
	dev := cpu(t)
	p := clouds(7, ns, ms, 2)
	solve := func(p ensemble.Problem) *ensemble.Result {
		r, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{Tolerance: 1e-11, Map: true})
		require.NoError(t, err)
		require.Equal(t, solver.Converged, r.Status())
		return r
	}
	plain := solve(p)
	moved, scaled := p, p
	moved.X, moved.Y = make([]float64, len(p.X)), make([]float64, len(p.Y))
	scaled.X, scaled.Y = make([]float64, len(p.X)), make([]float64, len(p.Y))
	for i, x := range p.X {
		moved.X[i], scaled.X[i] = x+8, 4*x
	}
	for j, y := range p.Y {
		moved.Y[j], scaled.Y[j] = y+8, 4*y
	}
	m, s := solve(moved), solve(scaled)
	for k, o := range plain.Problems {
		require.InDelta(t, o.Certificate.Dual, m.Problems[k].Certificate.Dual, 1e-8)
		require.InDelta(t, 16*o.Certificate.Dual, s.Problems[k].Certificate.Dual, 16*1e-8)
	}
	p.Epsilon = []float64{1e9}
	product := solve(p)
	i, j := 0, 0
	for k := range ns {
		mean := make([]float64, 2)
		for q := j; q < j+ms[k]; q++ {
			mean[0] += p.B[q] * p.Y[2*q]
			mean[1] += p.B[q] * p.Y[2*q+1]
		}
		for q := i; q < i+ns[k]; q++ {
			require.NoError(t, kerneltest.Within(product.Map[2*q:2*q+2], mean, 1e-6))
		}
		i, j = i+ns[k], j+ms[k]
	}
}

// A start at the solution is done in one sweep.
func TestStart(t *testing.T) {
	dev := cpu(t)
	p := clouds(8, ns, ms, 2)
	r, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{Tolerance: 1e-9})
	require.NoError(t, err)
	again, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{Tolerance: 1e-8, Precision: solver.Double, Start: r.G})
	require.NoError(t, err)
	for _, o := range again.Problems {
		require.Equal(t, 1, o.Iterations)
	}
}

// The Sinkhorn divergence is that of package sinkhorn; of a measure with itself
// it vanishes.
func TestDivergence(t *testing.T) {
	dev := cpu(t)
	for _, rho := range [][]float64{nil, {1.5}} {
		p := clouds(9, ns, ms, 2)
		p.RhoSource, p.RhoTarget = rho, rho
		if rho != nil {
			for j := range p.B {
				p.B[j] *= 1.2
			}
		}
		d, err := ensemble.SolveDivergence(t.Context(), dev, p, ensemble.Settings{Tolerance: 1e-9})
		require.NoError(t, err)
		require.Equal(t, solver.Converged, d.Status())
		for k := range ns {
			want, err := sinkhorn.SolveDivergence(t.Context(), dev, one(p, k), sinkhorn.Settings{Tolerance: 1e-9})
			require.NoError(t, err)
			require.InDelta(t, want.Value, d.Value[k], 1e-7, "problem %d", k)
			require.InDelta(t, want.MassTerm, d.MassTerm[k], 1e-12)
		}
	}
	p := clouds(10, ns, ns, 2)
	p.Y, p.B = p.X, p.A
	p.Scale = ensemble.Absolute // costs of a single point are zero
	d, err := ensemble.SolveDivergence(t.Context(), dev, p, ensemble.Settings{Tolerance: 1e-9})
	require.NoError(t, err)
	for k := range ns {
		require.InDelta(t, 0, d.Value[k], 1e-8)
	}
}

// Once the context is done, nothing begins; while sweeps run, they end.
func TestCancel(t *testing.T) {
	dev := cpu(t)
	p := clouds(11, ns, ms, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := ensemble.Solve(ctx, dev, p, ensemble.Settings{})
	require.NoError(t, err)
	require.Equal(t, solver.Canceled, r.Status())
	for _, o := range r.Problems {
		require.Equal(t, solver.Canceled, o.Status)
		require.Zero(t, o.Iterations)
	}
	many := make([]int, 40)
	for k := range many {
		many[k] = 200
	}
	p = clouds(11, many, many, 2)
	p.Epsilon = []float64{0.01} // which takes plain sweeps minutes
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	r, err = ensemble.Solve(ctx, dev, p, ensemble.Settings{Tolerance: 1e-12, MaxIterations: 1 << 30, Acceleration: ensemble.None, NoAnnealing: true})
	require.NoError(t, err)
	require.Equal(t, solver.Canceled, r.Status())
	require.Less(t, time.Since(start), 20*time.Second)
}

// Results are bit-equal whatever the number of workers, and inputs stay as they are.
func TestWorkers(t *testing.T) {
	p := clouds(12, ns, ms, 2)
	x := append([]float64(nil), p.X...)
	var want *ensemble.Result
	for _, workers := range []int{1, 3} {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(t, err)
		defer dev.Close()
		r, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{Map: true})
		require.NoError(t, err)
		require.Positive(t, r.Duration)
		r.Duration = 0
		if want == nil {
			want = r
		}
		require.Equal(t, want, r)
	}
	require.Equal(t, x, p.X)
}

// Memory on the device is given back, and is that of inputs and results.
func TestMemory(t *testing.T) {
	dev := cpu(t)
	p := clouds(13, ns, ms, 2)
	_, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{})
	require.NoError(t, err)
	stats := dev.Memory()
	require.Zero(t, stats.InUse)
	points := int64(0)
	for k := range ns {
		points += int64(ns[k] + ms[k])
	}
	// Points, weight and potential of each in float64; 200 bytes a problem; and
	// blocks of 256 bytes.
	require.LessOrEqual(t, stats.HighWater, points*4*8+int64(len(ns))*200+20*512)
}

func TestValidate(t *testing.T) {
	good := func() ensemble.Problem { return clouds(14, []int{2, 3}, []int{3, 2}, 2) }
	require.NoError(t, good().Validate())
	for _, c := range []struct {
		change func(*ensemble.Problem)
		text   string
	}{
		{func(p *ensemble.Problem) { p.N = p.N[:1] }, "1 problems by their sources, 2 by their targets"},
		{func(p *ensemble.Problem) { p.M = []int{3, 0} }, "problem 1: sizes"},
		{func(p *ensemble.Problem) { p.X[2*2+1] = math.NaN() }, "problem 1: source points: invalid problem: number 1 is NaN"},
		{func(p *ensemble.Problem) { p.Y = p.Y[1:] }, "target points: invalid problem: 9 numbers, want 10"},
		{func(p *ensemble.Problem) { p.D = 0 }, "dimension"},
		{func(p *ensemble.Problem) { p.Ground = geometry.Cosine }, "cost: invalid problem: got cosine"},
		{func(p *ensemble.Problem) { p.Costs = []float64{1} }, "a matrix beside"},
		{func(p *ensemble.Problem) { p.Ground = geometry.GivenMatrix }, "points beside"},
		{func(p *ensemble.Problem) { p.Epsilon = nil }, "epsilon: invalid problem: 0 numbers for 2 problems"},
		{func(p *ensemble.Problem) { p.Epsilon = []float64{1, -1} }, "problem 1: epsilon: invalid problem: got -1"},
		{func(p *ensemble.Problem) { p.Scale = 2 }, "epsilon scale"},
		{func(p *ensemble.Problem) { p.RhoTarget = []float64{1, math.NaN()} }, "problem 1: target penalty rho"},
		{func(p *ensemble.Problem) { p.A = p.A[1:] }, "source weights: invalid problem: 4 weights for 5 points"},
		{func(p *ensemble.Problem) { p.B[4] = -1 }, "problem 1: invalid problem: target weight 1 is -1"},
		{func(p *ensemble.Problem) { p.A[0], p.A[1] = 0, 0 }, "problem 0: invalid problem: its source weights sum to 0"},
		{func(p *ensemble.Problem) { p.B[0] = 3 }, "problem 0: invalid problem: the masses"},
		{func(p *ensemble.Problem) { copy(p.X, make([]float64, 4)); copy(p.Y, make([]float64, 6)) }, "problem 0: epsilon scale mean"},
	} {
		p := good()
		c.change(&p)
		err := p.Validate()
		require.ErrorIs(t, err, solver.ErrInvalid)
		require.ErrorContains(t, err, c.text)
		_, err = ensemble.Solve(t.Context(), cpu(t), p, ensemble.Settings{})
		require.ErrorContains(t, err, c.text)
	}
	p := good()
	p.Epsilon = []float64{0, math.Inf(1)}
	p.X[0] = math.Inf(1)
	for _, text := range []string{"problem 0: epsilon", "problem 1: epsilon", "problem 0: source points"} {
		require.ErrorContains(t, p.Validate(), text)
	}
	err := ensemble.Settings{Tolerance: -1, MaxIterations: -1, Acceleration: 9, Precision: 9, Start: []float64{1}}.Validate(5)
	for _, text := range []string{"tolerance", "iteration limit", "Acceleration(9)", "Precision(9)", "1 numbers for 5"} {
		require.ErrorContains(t, err, text)
	}
	require.ErrorContains(t, ensemble.Settings{Start: []float64{math.NaN()}}.Validate(1), "entry 0")
	r, err := ensemble.Solve(t.Context(), cpu(t), ensemble.Problem{D: 1, Epsilon: []float64{1}}, ensemble.Settings{})
	require.NoError(t, err)
	require.Equal(t, solver.Converged, r.Status())
}
