package divergences

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/optimize/convex/lp"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/exact"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

func cloud(seed uint64, n, m, d int, ground geometry.Cost) geometry.Points {
	rng := rand.New(rand.NewPCG(seed, 1))
	v := func(k int, shift float64) []float64 {
		w := make([]float64, k)
		for i := range w {
			w[i] = rng.NormFloat64() + shift
		}
		return w
	}
	g, err := geometry.NewPoints(v(n*d, 0), v(m*d, 0.5), d, ground)
	if err != nil {
		panic(err)
	}
	return g
}

func largestDifference(a, b []float64) float64 {
	worst := 0.0
	for k := range a {
		worst = max(worst, math.Abs(a[k]-b[k]))
		if math.IsNaN(a[k]) || math.IsNaN(b[k]) {
			return math.Inf(1)
		}
	}
	return worst
}

// f = KL is package sinkhorn's problem, regularised and, less ε log Z, Gibbs.
func TestKLIsSinkhorn(t *testing.T) {
	dev := device(t)
	for seed, ground := range []geometry.Cost{geometry.SqEuclidean, geometry.HalfSqEuclidean, geometry.Euclidean, geometry.Cosine} {
		g := cloud(uint64(seed), 40, 33, 2, ground)
		want, err := sinkhorn.Solve(t.Context(), dev, sinkhorn.Problem{Geometry: g, Epsilon: 0.3, Scale: sinkhorn.Mean}, sinkhorn.Settings{Tolerance: 1e-12})
		require.NoError(t, err)
		require.NoError(t, want.Status.Err())
		for _, kind := range []Kind{Regularised, Gibbs} {
			r := solved(t, Problem{Geometry: g, Epsilon: 0.3, Scale: sinkhorn.Mean, Kind: kind}, Settings{Tolerance: 1e-12})
			require.Less(t, largestDifference(want.Plan.Matrix(), r.Plan.Matrix()), 1e-13, "%v %v", ground, kind)
			primal, dual := r.Certificate.Primal, r.Certificate.Dual
			if kind == Gibbs {
				primal, dual = r.Plan.Epsilon*(primal-r.Plan.LogZ), r.Plan.Epsilon*(dual-r.Plan.LogZ)
			}
			require.InDelta(t, want.Certificate.Primal, primal, 1e-10)
			require.InDelta(t, want.Certificate.Dual, dual, 1e-10)
			require.InDelta(t, want.Certificate.TransportCost, r.Certificate.TransportCost, 1e-10)
		}
	}
}

// Masses other than one: of KL as package sinkhorn has it, of the Gibbs problem
// with all of P, R and D_f in proportion.
func TestMass(t *testing.T) {
	dev := device(t)
	g := cloud(3, 12, 9, 2, geometry.SqEuclidean)
	weights := func(n int, mass float64) []float64 {
		w := make([]float64, n)
		for i := range w {
			w[i] = mass / float64(n)
		}
		return w
	}
	want, err := sinkhorn.Solve(t.Context(), dev, sinkhorn.Problem{Geometry: g, Epsilon: 2, A: weights(12, 3), B: weights(9, 3)}, sinkhorn.Settings{Tolerance: 1e-12})
	require.NoError(t, err)
	r := solved(t, Problem{Geometry: g, Epsilon: 2, A: weights(12, 3), B: weights(9, 3)}, Settings{Tolerance: 1e-12})
	require.InDelta(t, want.Certificate.Primal, r.Certificate.Primal, 1e-9)
	require.InDelta(t, want.Certificate.Dual, r.Certificate.Dual, 1e-9)
	for _, d := range all() {
		p := Problem{Geometry: g, Epsilon: 5, Kind: Gibbs, Divergence: d}
		one := solved(t, p, Settings{Tolerance: 1e-9})
		p.A, p.B = weights(12, 3), weights(9, 3)
		three := solved(t, p, Settings{Tolerance: 1e-9})
		require.InDelta(t, 3*one.Certificate.Dual, three.Certificate.Dual, 1e-7, d.String())
		require.InDelta(t, 3*one.Certificate.Primal, three.Certificate.Primal, 1e-7, d.String())
	}
}

// The plan of a power family does not depend on the reference's normaliser, that
// of Jensen-Shannon does: by 3.8e-3 in the small problem.
func TestNormaliser(t *testing.T) {
	dev := device(t)
	for _, d := range all() {
		if d.Family == TotalVariation {
			continue
		}
		p := small(t)
		p.Kind, p.Divergence = Gibbs, d
		with := solved(t, p, tight)
		task, err := p.task(t.Context(), dev)
		require.NoError(t, err)
		task.logZ = 0
		without := &Result{}
		require.NoError(t, without.iterations(t.Context(), dev, task, tight.withDefaults()))
		require.NoError(t, without.Status.Err(), d.String())
		diff := largestDifference(with.Plan.Matrix(), without.Plan.Matrix())
		if d.Family == JensenShannon {
			require.InDelta(t, 3.8e-3, diff, 5e-5)
		} else {
			require.Less(t, diff, 2e-12, d.String())
		}
	}
}

// Scaling costs and ε by one factor scales the regularised values and leaves the
// plans and the Gibbs values; permuting points permutes plans; exchanging sides
// transposes them.
func TestScalePermuteTranspose(t *testing.T) {
	value := func(r *Result) float64 {
		if r.Plan.Divergence.Family == TotalVariation {
			return r.Certificate.Primal // the potentials, and with them the bound, are not unique
		}
		return r.Certificate.Dual
	}
	for _, kind := range []Kind{Regularised, Gibbs} {
		for _, d := range all() {
			p := random(4, 5, 4)
			p.Kind, p.Divergence = kind, d
			s := Settings{Tolerance: 1e-9}
			r := solved(t, p, s)
			c := p.Geometry.(geometry.Matrix)
			plan := r.Plan.Matrix()
			unique := d.Family != TotalVariation || d.Delta > 0

			scaled, factor := p, 1.0
			if kind == Regularised {
				factor = 8
			}
			g := geometry.Matrix{C: make([]float64, len(c.C)), N: c.N, M: c.M}
			for k, x := range c.C {
				g.C[k] = 8 * x
			}
			scaled.Geometry, scaled.Epsilon = g, 8*p.Epsilon
			q := solved(t, scaled, s)
			require.InDelta(t, factor*value(r), value(q), 1e-6, "%v %v", kind, d)
			if unique {
				require.Less(t, largestDifference(plan, q.Plan.Matrix()), 1e-6, "%v %v", kind, d)
			}

			turned := p
			turned.Geometry, turned.A, turned.B = c.Transpose(), p.B, p.A
			q = solved(t, turned, s)
			require.InDelta(t, value(r), value(q), 1e-6, "%v %v", kind, d)
			if unique {
				back := geometry.Matrix{C: q.Plan.Matrix(), N: c.M, M: c.N}.Transpose().(geometry.Matrix)
				require.Less(t, largestDifference(plan, back.C), 1e-6, "%v %v", kind, d)
			}

			order := []int{3, 0, 4, 2, 1}
			permuted := p
			g = geometry.Matrix{N: c.N, M: c.M}
			permuted.A = nil
			var want []float64
			for _, i := range order {
				g.C = append(g.C, c.C[i*c.M:(i+1)*c.M]...)
				permuted.A = append(permuted.A, p.A[i])
				want = append(want, plan[i*c.M:(i+1)*c.M]...)
			}
			permuted.Geometry = g
			q = solved(t, permuted, s)
			require.InDelta(t, value(r), value(q), 1e-6, "%v %v", kind, d)
			if unique {
				require.Less(t, largestDifference(want, q.Plan.Matrix()), 1e-6, "%v %v", kind, d)
			}
		}
	}
}

// ε → ∞ gives the product, in both problems; ε → 0 of the regularised one the
// optimal transport.
func TestLimits(t *testing.T) {
	for _, d := range all() {
		p := small(t)
		p.Divergence = d
		product := make([]float64, 12)
		for k := range product {
			product[k] = p.A[k/4] * p.B[k%4]
		}
		for _, kind := range []Kind{Regularised, Gibbs} {
			p.Kind, p.Epsilon = kind, 1e7
			r := solved(t, p, Settings{Tolerance: 1e-7})
			require.Less(t, largestDifference(product, r.Plan.Matrix()), 1e-6, "%v %v", kind, d)
		}
		p.Kind, p.Epsilon = Regularised, 1e-3
		settings := Settings{Tolerance: 1e-5}
		r, err := Solve(t.Context(), device(t), p, settings)
		require.NoError(t, err)
		require.GreaterOrEqual(t, r.Certificate.Dual, -1.0)
		// <C, P> + ε D is at least the optimum .475, and D at the optimal plan is finite
		// or grows as the logarithm or the root of 1/ε.
		require.InDelta(t, .475, r.Certificate.TransportCost, 0.1, "%v: %+v %v", d, r.Certificate, r.Status)
		p.Epsilon = 1e-2
		coarser, err := Solve(t.Context(), device(t), p, settings)
		require.NoError(t, err)
		require.LessOrEqual(t, r.Certificate.TransportCost, coarser.Certificate.TransportCost+1e-4, d.String())
		if d.Family == PearsonChi2 || d.Family == TotalVariation && d.Delta == 0 {
			require.InDelta(t, .475, r.Certificate.TransportCost, 1e-4, "%v: %+v %v", d, r.Certificate, r.Status)
		}
	}
}

// Total variation as a linear programme, solved by gonum's simplex: variables P,
// S, and slacks of S >= |P - R|.
func TestVariationAgainstLP(t *testing.T) {
	for _, kind := range []Kind{Regularised, Gibbs} {
		for seed := range uint64(12) {
			n, m := 2+int(seed%3), 3+int(seed%2)
			p := random(seed, n, m)
			for i := range p.A { // no empty rows: gonum's simplex wants full rank
				p.A[i] = 1/float64(2*n) + p.A[i]/2
			}
			for j := range p.B {
				p.B[j] = 1/float64(2*m) + p.B[j]/2
			}
			p.Kind, p.Divergence = kind, Divergence{Family: TotalVariation}
			r := solved(t, p, Settings{})
			pairs := n * m
			rows := n + m - 1 + 2*pairs
			a, b, c := mat.NewDense(rows, 4*pairs, nil), make([]float64, rows), make([]float64, 4*pairs)
			cost, z := p.Geometry.(geometry.Matrix).C, 0.0
			for k, x := range cost {
				z += p.A[k/m] * p.B[k%m] * math.Exp(-x/p.Epsilon)
			}
			for k, x := range cost {
				i, j := k/m, k%m
				ref := p.A[i] * p.B[j]
				c[pairs+k] = 0.5
				if kind == Gibbs {
					ref *= math.Exp(-x/p.Epsilon) / z
				} else {
					c[k], c[pairs+k] = x, p.Epsilon/2
				}
				a.Set(i, k, 1)
				if j < m-1 {
					a.Set(n+j, k, 1)
				}
				up, down := n+m-1+2*k, n+m+2*k
				a.Set(up, k, 1) // P - S + s = R
				a.Set(up, pairs+k, -1)
				a.Set(up, 2*pairs+k, 1)
				a.Set(down, k, 1) // P + S - s' = R
				a.Set(down, pairs+k, 1)
				a.Set(down, 3*pairs+k, -1)
				b[up], b[down] = ref, ref
			}
			copy(b, p.A)
			copy(b[n:], p.B[:m-1])
			want, _, err := lp.Simplex(c, a, b, 1e-12, nil)
			require.NoError(t, err)
			require.InDelta(t, want, r.Certificate.Primal, 1e-9, "%v seed %d", kind, seed)
			require.InDelta(t, want, r.Certificate.Dual, 1e-9, "%v seed %d", kind, seed)
			require.Less(t, r.Certificate.Residual, 1e-14)
			require.InDelta(t, primal(p, r.Plan.Matrix()), r.Certificate.Primal, 1e-12)
			f := make([]float64, n)
			for i := range f {
				f[i] = r.Plan.F[i] - 1e-14 // y = ½ up to rounding
			}
			require.InDelta(t, dual(p, f, r.Plan.G), r.Certificate.Dual, 1e-12)

			// The smoothed problem brackets it.
			smooth := solved(t, p, Settings{ExactPairs: -1, Tolerance: 1e-10})
			require.Equal(t, DefaultDelta, smooth.Plan.Divergence.Delta)
			require.LessOrEqual(t, smooth.Certificate.Dual, want+1e-9)
			require.GreaterOrEqual(t, smooth.Certificate.Primal, want-1e-9)
			p.Divergence.Delta = DefaultDelta / 25
			smoother := solved(t, p, Settings{Tolerance: 1e-9})
			require.Less(t, smoother.Certificate.Gap, max(smooth.Certificate.Gap/2, 1e-8))
		}
	}
}

// The largest flow that a test can afford, with its certificate.
func TestVariationOfClouds(t *testing.T) {
	for _, kind := range []Kind{Regularised, Gibbs} {
		p := Problem{Geometry: cloud(1, 150, 130, 2, geometry.SqEuclidean), Epsilon: 1, Scale: sinkhorn.Mean, Kind: kind, Divergence: Divergence{Family: TotalVariation}}
		r := solved(t, p, Settings{})
		require.Less(t, r.Certificate.Residual, 1e-13)
		require.InDelta(t, 0, r.Certificate.Gap, 1e-11, "%v: %+v in %d pivots", kind, r.Certificate, r.Iterations)
		require.Greater(t, r.Certificate.Divergence, 0.01)
	}
}

// A problem large enough for the ladder, in both precisions; what float64 says of
// it, and with several workers to the bit.
func TestPrecisions(t *testing.T) {
	p := Problem{Geometry: cloud(7, 259, 257, 3, geometry.SqEuclidean), Epsilon: 1, Scale: sinkhorn.Mean}
	for _, c := range []struct {
		kind Kind
		d    Divergence
	}{
		{Regularised, Divergence{Family: PearsonChi2}}, {Regularised, Divergence{Family: ReverseKL}},
		{Gibbs, Divergence{Family: SquaredHellinger}}, {Gibbs, Divergence{Family: Alpha, Alpha: 1.3}}, {Gibbs, Divergence{}},
	} {
		p.Kind, p.Divergence = c.kind, c.d
		var first *Result
		for _, workers := range []int{1, 3} {
			dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
			require.NoError(t, err)
			defer dev.Close()
			r, err := Solve(t.Context(), dev, p, Settings{Tolerance: 1e-9})
			require.NoError(t, err)
			what := fmt.Sprintf("%v %v: %v %+v", c.kind, c.d, r.Stages, r.Certificate)
			require.NoError(t, r.Status.Err(), what)
			require.Less(t, math.Abs(r.Certificate.Gap), 1e-6*(1+math.Abs(r.Certificate.Primal)), what)
			require.Equal(t, tensor.Float64, r.Stages[len(r.Stages)-1].DType)
			if first == nil {
				first = r
			}
			require.Equal(t, first.Plan.F, r.Plan.F)
			require.Equal(t, first.Certificate, r.Certificate)
		}
		single, err := Solve(t.Context(), device(t), p, Settings{Tolerance: 1e-3, Precision: solver.Single})
		require.NoError(t, err)
		require.NoError(t, single.Status.Err(), "%v %v: %+v", c.kind, c.d, single.Stages)
		require.InDelta(t, first.Certificate.Dual, single.Certificate.Dual, 1e-2*(1+math.Abs(first.Certificate.Dual)))
	}
}

// Densities over many orders of magnitude: the reference hardly reaches the last
// target, and the families whose domain ends still put its mass there.
func TestFarReference(t *testing.T) {
	for _, d := range all() {
		if d.Family == TotalVariation || d.Family == Alpha && (d.Alpha < -1 || d.Alpha > 3) {
			continue
		}
		p := small(t)
		p.Kind, p.Divergence, p.Epsilon = Gibbs, d, 0.12
		r, err := Solve(t.Context(), device(t), p, Settings{Tolerance: 1e-9})
		require.NoError(t, err)
		require.NoError(t, r.Status.Err(), "%v: %+v %+v", d, r.Certificate, r.Stages)
		require.Greater(t, r.Certificate.LargestDensity, 5.0, d.String())
		require.Less(t, math.Abs(r.Certificate.Gap), 1e-6*(1+math.Abs(r.Certificate.Primal)), "%v: %+v", d, r.Certificate)
	}
	g, err := geometry.NewPoints([]float64{0, 1, 2.5}, []float64{0, 1, 30}, 1, geometry.SqEuclidean)
	require.NoError(t, err)
	p := Problem{Geometry: g, Kind: Gibbs, Divergence: Divergence{Family: ReverseKL}, Epsilon: 1}
	_, err = Solve(t.Context(), device(t), p, Settings{})
	require.ErrorIs(t, err, solver.ErrInfeasible)
	require.ErrorContains(t, err, "target point 2")
	require.ErrorContains(t, err, "use a larger epsilon, or kl")
}

// Costs of +∞ forbid pairs.
func TestForbiddenPairs(t *testing.T) {
	inf := math.Inf(1)
	p := Problem{Geometry: geometry.Matrix{C: []float64{0, 1, inf, 1, 0, 1, inf, 1, 0}, N: 3, M: 3}, Epsilon: 1}
	for _, kind := range []Kind{Regularised, Gibbs} {
		for _, d := range all() {
			p.Kind, p.Divergence = kind, d
			r, err := Solve(t.Context(), device(t), p, Settings{Tolerance: 1e-9})
			if kind == Regularised && math.IsInf(d.F(0), 1) {
				require.ErrorIs(t, err, solver.ErrInfeasible, d.String())
				require.ErrorContains(t, err, "pair (0, 2)")
				continue
			}
			require.NoError(t, err, "%v %v", kind, d)
			require.NoError(t, r.Status.Err(), "%v %v: %+v", kind, d, r.Certificate)
			plan := r.Plan.Matrix()
			require.Zero(t, plan[2])
			require.Zero(t, plan[6])
			require.InDelta(t, 1.0/3, plan[0]+plan[1], 1e-8)
			require.False(t, math.IsInf(r.Certificate.Primal, 0), "%v %v", kind, d)
			if d.Family != TotalVariation || d.Delta == 0 {
				require.InDelta(t, 0, r.Certificate.Gap, 1e-7, "%v %v", kind, d)
			}
		}
	}
	p.Geometry = geometry.Matrix{C: []float64{0, inf, inf, 1, inf, inf, 1, 1, 0}, N: 3, M: 3}
	p.Divergence = Divergence{}
	_, err := Solve(t.Context(), device(t), p, Settings{})
	require.ErrorIs(t, err, solver.ErrInfeasible)
	require.ErrorContains(t, err, "+Inf")
	p.Scale = sinkhorn.Mean
	_, err = Solve(t.Context(), device(t), p, Settings{})
	require.ErrorIs(t, err, solver.ErrInvalid)
}

// Optimal transport by package exact, as the limit of quadratic regularisation on
// clouds, whose plan is as sparse.
func TestSmallEpsilonIsExact(t *testing.T) {
	g := cloud(5, 30, 30, 2, geometry.SqEuclidean)
	want, err := exact.Solver{}.Solve(t.Context(), exact.Problem{Costs: exact.Func{N: 30, M: 30, Cost: func(i, j int) float64 {
		row := make([]float64, 30)
		g.Row(i, row)
		return row[j]
	}}})
	require.NoError(t, err)
	r := solved(t, Problem{Geometry: g, Epsilon: 2e-3, Divergence: Divergence{Family: PearsonChi2}}, Settings{Tolerance: 1e-5, MaxIterations: 50000})
	// D of a permutation is n - 1.
	require.GreaterOrEqual(t, r.Certificate.TransportCost, want.Cost-1e-3)
	require.LessOrEqual(t, r.Certificate.Primal, want.Cost+2e-3*29+1e-3)
	require.GreaterOrEqual(t, r.Certificate.Dual, want.Cost)
	sparse, err := r.Plan.Sparse(t.Context())
	require.NoError(t, err)
	require.Less(t, len(sparse.Values), 150)
}
