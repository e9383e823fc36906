package divergences

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/solver/sinkhorn"
)

func device(t testing.TB) gpu.Device {
	t.Helper()
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { dev.Close() })
	return dev
}

// small is the problem of all tables: weights on (0, 1, 2.5) and (-½, ½, 1½, 3),
// squared distances.
func small(t testing.TB) Problem {
	g, err := geometry.NewPoints([]float64{0, 1, 2.5}, []float64{-.5, .5, 1.5, 3}, 1, geometry.SqEuclidean)
	require.NoError(t, err)
	return Problem{Geometry: g, A: []float64{.2, .3, .5}, B: []float64{.1, .4, .3, .2}, Epsilon: 2}
}

// tight asks for all digits.
var tight = Settings{Tolerance: 1e-13}

func solved(t testing.TB, p Problem, s Settings) *Result {
	t.Helper()
	r, err := Solve(t.Context(), device(t), p, s)
	require.NoError(t, err)
	require.NoError(t, r.Status.Err(), "%v %v: %+v %+v", p.Kind, p.Divergence, r.Certificate, r.Stages)
	return r
}

// The oracle of the two-marginal Gibbs problem, every row of it.
func TestGibbsTable(t *testing.T) {
	for _, c := range []struct {
		d     Divergence
		value float64
		row   []float64
	}{
		{Divergence{Family: KL}, .0712302227, []float64{.061531884, .118778164, .019259782, .000430169}},
		{Divergence{Family: ReverseKL}, .0647634660, []float64{.052075154, .123339883, .02401509, .000569873}},
		{Divergence{Family: PearsonChi2}, .1449202167, []float64{.062206902, .12173563, .015769705, .000287763}},
		{Divergence{Family: NeymanChi2}, .1038663345, []float64{.038821357, .132762687, .027735439, .000680518}},
		{Divergence{Family: SquaredHellinger}, .0346882906, []float64{.060107213, .118175813, .021227365, .000489608}},
		{Divergence{Family: JensenShannon}, .0341789646, []float64{.058503117, .119443522, .021554248, .000499113}},
		{Divergence{Family: Alpha, Alpha: 1.5}, .0720775549, nil},
		{Divergence{Family: Alpha, Alpha: 3}, .0735253726, []float64{.062647337, .124739415, .012613248, 0}},
		{Divergence{Family: Alpha, Alpha: .5}, .0693765811, nil},
		{Divergence{Family: Alpha, Alpha: -1}, .0519331673, nil},
		{Divergence{Family: TotalVariation}, .1008332894, nil},
	} {
		p := small(t)
		p.Kind, p.Divergence = Gibbs, c.d
		r := solved(t, p, tight)
		what := fmt.Sprintf("%v in %d sweeps: %+v", c.d, r.Iterations, r.Certificate)
		require.InDelta(t, c.value, r.Certificate.Primal, 1e-10, what)
		require.InDelta(t, c.value, r.Certificate.Dual, 1e-10, what)
		require.InDelta(t, math.Log(.5182090344087916), r.Plan.LogZ, 1e-15)
		row := make([]float64, 4)
		r.Plan.Row(0, row)
		for j, want := range c.row {
			require.InDelta(t, want, row[j], 5e-10, "%s: P[0,%d]", what, j)
		}
		if c.d.Family != TotalVariation {
			require.LessOrEqual(t, r.Iterations, 40, what)
		}
	}
}

// Of KL, ε times the value is entropic transport's, less ε log Z.
func TestGibbsOfKLIsTransport(t *testing.T) {
	p := small(t)
	p.Kind = Gibbs
	r := solved(t, p, tight)
	require.InDelta(t, .14246044535, 2*r.Certificate.Primal, 5e-11)
}

// Generalised Sinkhorn with Pearson's χ²: both printed problems.
func TestRegularisedTable(t *testing.T) {
	p := small(t)
	p.Divergence = Divergence{Family: PearsonChi2}
	r := solved(t, p, tight)
	require.InDelta(t, 1.731453125, r.Certificate.Primal, 1e-12)
	require.InDelta(t, 1.731453125, r.Certificate.Dual, 1e-12)
	require.InDeltaSlice(t, []float64{.044375, .1155, .040125, 0}, r.Plan.Matrix()[:4], 1e-12)
	p.Epsilon = 1
	r = solved(t, p, tight)
	require.InDelta(t, 1.364, r.Certificate.Primal, 1e-12)
	require.InDeltaSlice(t, []float64{.055, .136, .009, 0, .045, .174, .081, 0, 0, .09, .21, .2}, r.Plan.Matrix(), 1e-12)
	sparse, err := r.Plan.Sparse(t.Context())
	require.NoError(t, err)
	require.Equal(t, []int{0, 3, 6, 9}, sparse.Starts)
	require.Equal(t, []int32{0, 1, 2, 0, 1, 2, 1, 2, 3}, sparse.Columns)
	require.InDeltaSlice(t, []float64{.055, .136, .009, .045, .174, .081, .09, .21, .2}, sparse.Values, 1e-12)
}

// sizes of a random instance, some weights zero.
func random(seed uint64, n, m int) Problem {
	rng := rand.New(rand.NewPCG(seed, 3))
	p := Problem{Epsilon: 0.7}
	c := geometry.Matrix{C: make([]float64, n*m), N: n, M: m}
	for k := range c.C {
		c.C[k] = 2 * rng.Float64()
	}
	weights := func(k int) []float64 {
		w, s := make([]float64, k), 0.0
		for i := range w {
			w[i] = 0.2 + rng.Float64()
			if i%4 == 3 {
				w[i] = 0
			}
			s += w[i]
		}
		for i := range w {
			w[i] /= s
		}
		return w
	}
	p.Geometry, p.A, p.B = c, weights(n), weights(m)
	return p
}

// primal is the problem's objective at any coupling, from its definition.
func primal(p Problem, plan []float64) float64 {
	n, m := p.Geometry.Size()
	row, z := make([]float64, m), 0.0
	for i := range n {
		p.Geometry.Row(i, row)
		for j, c := range row {
			z += p.A[i] * p.B[j] * math.Exp(-c/p.Epsilon)
		}
	}
	value := 0.0
	for i := range n {
		p.Geometry.Row(i, row)
		for j, c := range row {
			r := p.A[i] * p.B[j]
			if r == 0 {
				continue
			}
			v := plan[i*m+j]
			if p.Kind == Gibbs {
				r *= math.Exp(-c/p.Epsilon) / z
				value += r * p.Divergence.F(v/r)
			} else {
				value += c*v + p.Epsilon*r*p.Divergence.F(v/r)
			}
		}
	}
	return value
}

// dual is the dual value of potentials, from its definition.
func dual(p Problem, f, g []float64) float64 {
	n, m := p.Geometry.Size()
	row, z, value := make([]float64, m), 0.0, 0.0
	for i := range n {
		p.Geometry.Row(i, row)
		for j, c := range row {
			z += p.A[i] * p.B[j] * math.Exp(-c/p.Epsilon)
		}
		value += p.A[i] * f[i]
	}
	for j := range m {
		value += p.B[j] * g[j]
	}
	for i := range n {
		p.Geometry.Row(i, row)
		for j, c := range row {
			switch r := p.A[i] * p.B[j]; {
			case r == 0:
			case p.Kind == Gibbs:
				value -= r * math.Exp(-c/p.Epsilon) / z * p.Divergence.Psi(f[i]+g[j])
			default:
				value -= p.Epsilon * r * p.Divergence.Psi((f[i]+g[j]-c)/p.Epsilon)
			}
		}
	}
	return value
}

// Random small instances against the definition alone: the plan has the
// marginals, its objective written out is the certificate's, and no feasible
// direction leads down. The directions (+ at (i,j) and (k,l), - at (i,l) and (k,j)) span
// all changes of a coupling, and the objective is convex and smooth where P > 0, so that
// this proves it optimal.
func TestRandomInstancesAreOptimal(t *testing.T) {
	for _, kind := range []Kind{Regularised, Gibbs} {
		for _, d := range all() {
			if d.Family == TotalVariation && d.Delta == 0 {
				continue // see TestVariationAgainstLP
			}
			for seed := range uint64(3) {
				p := random(seed, 3+int(seed), 5)
				p.Divergence, p.Kind = d, kind
				tolerance := 1e-12
				if d.Family == Alpha && d.Alpha > 2 {
					// ψ' has an infinite slope where it becomes 0: one unit in the last
					// place of y is 10⁻⁴ of an entry there.
					tolerance = 1e-8
				}
				r := solved(t, p, Settings{Tolerance: tolerance})
				plan := r.Plan.Matrix()
				n, m := p.Geometry.Size()
				for i := range n {
					require.InDelta(t, p.A[i], measure.Mass(plan[i*m:(i+1)*m]), 10*tolerance)
				}
				for j := range m {
					s := 0.0
					for i := range n {
						s += plan[i*m+j]
					}
					require.InDelta(t, p.B[j], s, 10*tolerance)
				}
				value := primal(p, plan)
				if d.Family != TotalVariation {
					require.InDelta(t, dual(p, r.Plan.F, r.Plan.G), r.Certificate.Dual, (1e-9+tolerance)*(1+math.Abs(value)), "%v %v", kind, d)
					require.InDelta(t, value, r.Certificate.Primal, (1e-9+tolerance)*(1+math.Abs(value)), "%v %v", kind, d)
					require.InDelta(t, 0, r.Certificate.Gap, (1e-9+tolerance)*(1+math.Abs(value)), "%v %v", kind, d)
				} else {
					require.GreaterOrEqual(t, r.Certificate.Gap, -1e-9, "%v %v", kind, d)
				}
				for i := range n {
					for k := range n {
						for j := range m {
							for l := range m {
								if i == k || j == l || p.A[i]*p.A[k]*p.B[j]*p.B[l] == 0 {
									continue
								}
								const h = 1e-5
								if plan[i*m+l] < h || plan[k*m+j] < h {
									continue
								}
								q := append([]float64(nil), plan...)
								q[i*m+j] += h
								q[k*m+l] += h
								q[i*m+l] -= h
								q[k*m+j] -= h
								require.GreaterOrEqual(t, primal(p, q), value-1e-10-tolerance, "%v %v: direction %d %d %d %d", kind, d, i, j, k, l)
							}
						}
					}
				}
			}
		}
	}
}

// Cancellation stops a run within a sweep, wherever it is.
func TestCanceled(t *testing.T) {
	p := random(3, 40, 41)
	p.Divergence = Divergence{Family: NeymanChi2}
	for _, last := range []int{1, 2, 105} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, err := Solve(ctx, device(t), p, Settings{Tolerance: 1e-300, NoAcceleration: true, Trace: func(i sinkhorn.Iteration) {
			if i.N == last {
				cancel()
			}
		}})
		require.NoError(t, err)
		require.Equal(t, solver.Canceled, r.Status)
		require.Equal(t, last, r.Iterations)
	}
	for _, d := range all() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p.Divergence = d
		if r, err := Solve(ctx, device(t), p, Settings{}); err == nil {
			require.Equal(t, solver.Canceled, r.Status)
		} else {
			require.ErrorIs(t, err, context.Canceled)
		}
	}
	// An exact flow, once it runs.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q := random(8, 150, 150)
	costs := q.Geometry.(geometry.Matrix).C
	f := newFlow(150, 150, costs, costs, make([]int64, len(costs)), apportion(q.A, 1), apportion(q.B, 1))
	require.ErrorIs(t, f.solve(ctx), context.Canceled)
}
