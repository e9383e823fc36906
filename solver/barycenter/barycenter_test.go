package barycenter

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/exact"
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

// near is NaN-proof.
func near(t testing.TB, want, got, budget float64, what string) {
	t.Helper()
	if !(math.Abs(got-want) <= budget) {
		t.Errorf("%s: got %.12g, want %.12g within %.2g", what, got, want, budget)
	}
}

func nearAll(t testing.TB, want, got []float64, budget float64, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	for i := range want {
		near(t, want[i], got[i], budget, fmt.Sprintf("%s[%d]", what, i))
	}
}

func solve(t testing.TB, p Problem, s Settings) *Result {
	t.Helper()
	r, err := Solve(t.Context(), device(t), p, s)
	require.NoError(t, err)
	return r
}

func converged(t testing.TB, p Problem, tolerance float64) *Result {
	t.Helper()
	r := solve(t, p, Settings{Tolerance: tolerance})
	require.Equal(t, solver.Converged, r.Status, "residual %v after %d iterations", r.Certificate.Residual, r.Iterations)
	return r
}

func normals(r *rand.Rand, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = r.NormFloat64()
	}
	return v
}

// random is weights of a mass, the zeros given.
func random(r *rand.Rand, n int, mass float64, zeros ...int) []float64 {
	w := make([]float64, n)
	for i := range w {
		w[i] = 0.1 + r.Float64()
	}
	for _, i := range zeros {
		w[i] = 0
	}
	scaleTo(w, mass)
	return w
}

// small3 is three measures of different sizes in the plane, with zeros among
// the weights, on a support of n points that none of them shares.
func small3(seed uint64, n int) Problem {
	r := rand.New(rand.NewPCG(seed, 3))
	x := normals(r, 2*n)
	p := Problem{
		Support: geometry.Points{X: x, Y: x, N: n, M: n, D: 2},
		Lambda:  []float64{.5, .2, .3}, Epsilon: .7,
	}
	for k, m := range []int{3, 5, 4} {
		g := geometry.Points{X: normals(r, 2*m), Y: x, N: m, M: n, D: 2}
		p.Measures = append(p.Measures, Measure{g, random(r, m, 1, k)})
	}
	return p
}

// grid1 is n points from lo to hi and their costs with each other.
func grid1(n int, lo, hi float64) ([]float64, geometry.Points) {
	x := make([]float64, n)
	for i := range x {
		x[i] = lo + (hi-lo)*float64(i)/float64(n-1)
	}
	return x, geometry.Points{X: x, Y: x, N: n, M: n, D: 1}
}

// normal is the discretised N(mean, std²).
func normal(x []float64, mean, std float64) []float64 {
	w := make([]float64, len(x))
	for i, v := range x {
		w[i] = math.Exp(-(v - mean) * (v - mean) / (2 * std * std))
	}
	scaleTo(w, 1)
	return w
}

func moments(x, w []float64) (mean, variance float64) {
	for i, v := range x {
		mean += w[i] * v
	}
	for i, v := range x {
		variance += w[i] * (v - mean) * (v - mean)
	}
	return mean, variance
}

// The plans satisfy the conditions of optimality, written out, and the
// certificate is what its fields say of them.
func TestConditionsAndCertificate(t *testing.T) {
	for _, c := range []struct {
		name string
		f    func(*Problem)
	}{
		{"plain", func(*Problem) {}},
		{"reference", func(p *Problem) { p.Reference = []float64{.1, 0, .3, .4, .2, .6} }},
		{"mass", func(p *Problem) {
			for k := range p.Measures {
				scaleTo(p.Measures[k].Weights, 2.5)
			}
		}},
		{"debiased", func(p *Problem) { p.Debiased = true }},
		{"debiased, reference and mass", func(p *Problem) {
			p.Debiased, p.Reference = true, []float64{.1, 0, .3, .4, .2, .6}
			for k := range p.Measures {
				scaleTo(p.Measures[k].Weights, 2.5)
			}
		}},
		{"penalty", func(p *Problem) {
			p.Rho = .8
			scaleTo(p.Measures[1].Weights, 1.7)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := small3(1, 6)
			c.f(&p)
			r := converged(t, p, 1e-11)
			n := 6
			nu := measure.Weights(p.Reference, n)
			var primal, dual, transport float64
			mean := make([]float64, n)
			for k, m := range p.Measures {
				plan := r.Plans[k]
				require.Equal(t, nu, plan.B)
				l, size := p.Lambda[k], len(m.Weights)
				row, col, cost := make([]float64, size), make([]float64, n), make([]float64, n)
				mass := 0.0
				for i := range size {
					m.Geometry.Row(i, cost)
					for j := range n {
						q := m.Weights[i] * nu[j] * math.Exp((plan.F[i]+plan.G[j]-cost[j])/p.Epsilon)
						row[i] += q
						col[j] += q
						mass += q
						transport += l * q * cost[j]
						if q > 0 {
							primal += l * (q*cost[j] + p.Epsilon*q*math.Log(q/(m.Weights[i]*nu[j])))
						}
					}
				}
				entropy := p.Epsilon * (mass - measure.Mass(m.Weights)*measure.Mass(nu))
				primal -= l * entropy
				dual -= l * entropy
				for i, a := range m.Weights {
					want := a
					if p.Rho > 0 {
						want = a * math.Exp(-plan.F[i]/p.Rho)
						dual += l * p.Rho * (a - want)
						if a > 0 {
							primal += l * p.Rho * (want*math.Log(want/a) - want + a)
						}
					} else {
						dual += l * a * plan.F[i]
					}
					near(t, want, row[i], 1e-13, fmt.Sprintf("first marginal of plan %d", k))
				}
				nearAll(t, r.Weights, col, 1e-10, fmt.Sprintf("second marginal of plan %d", k))
				near(t, distance(col, r.Weights), r.Certificate.MarginalError[k], 1e-13, "marginal error")
				for j := range n {
					mean[j] += l * plan.G[j]
				}
			}
			if p.Debiased {
				nearAll(t, r.D, mean, 1e-13, "mean of g against d")
				q, cost := make([]float64, n), make([]float64, n)
				for i := range n {
					p.Support.Row(i, cost)
					for j := range n {
						v := nu[i] * nu[j] * math.Exp((r.D[i]+r.D[j]-cost[j])/p.Epsilon)
						q[i] += v
						if v > 0 {
							primal -= v * (cost[j] + p.Epsilon*math.Log(v/(nu[i]*nu[j]))) / 2
						}
					}
				}
				nearAll(t, r.Weights, q, 1e-10, "marginal of the symmetric plan")
				entropy := p.Epsilon / 2 * (measure.Mass(q) - measure.Mass(nu)*measure.Mass(nu))
				primal += entropy
				dual += entropy
				near(t, distance(q, r.Weights), r.Certificate.SymmetricError, 1e-13, "symmetric error")
			} else {
				nearAll(t, make([]float64, n), mean, 1e-13, "mean of g")
			}
			near(t, transport, r.Certificate.TransportCost, 1e-12, "transport cost")
			near(t, primal, r.Certificate.Primal, 1e-12, "primal")
			near(t, dual, r.Certificate.Dual, 1e-12, "dual")
			near(t, 0, r.Certificate.Gap, 1e-9, "gap")
			near(t, measure.Mass(r.Weights), r.Certificate.Mass, 1e-14, "mass")
			if p.Rho == 0 {
				near(t, measure.Mass(p.Measures[0].Weights), measure.Mass(r.Weights), 1e-13, "mass of the barycentre")
			}
		})
	}
}

// Of equal λ, the barycentre is the centre of the dense tensor of all measures
// and the support, of cost Σ C_k/K at ε/K, whose centre pays ε(1 - 1/K) KL(b | ν):
// its potential is damped by (K-1)/K.
func TestStarIsATensor(t *testing.T) {
	const n, k = 6, 3
	p := small3(2, n)
	p.Lambda = nil
	r := converged(t, p, 1e-12)
	sizes := []int{3, 5, 4}
	cost := make([][][]float64, k)
	for q, m := range p.Measures {
		cost[q] = make([][]float64, sizes[q])
		for i := range cost[q] {
			cost[q][i] = make([]float64, n)
			m.Geometry.Row(i, cost[q][i])
		}
	}
	pot := [][]float64{make([]float64, 3), make([]float64, 5), make([]float64, 4), make([]float64, n)}
	eps := p.Epsilon / k
	// marginal sums the tensor over all indices but one, by its definition.
	marginal := func(side int) []float64 {
		out := make([]float64, len(pot[side]))
		var at [k + 1]int
		for at[0] = range pot[0] {
			for at[1] = range pot[1] {
				for at[2] = range pot[2] {
					for at[3] = range pot[3] {
						e, w := 0.0, 1.0/n
						for q := range k {
							e += pot[q][at[q]] - cost[q][at[q]][at[k]]/k
							w *= p.Measures[q].Weights[at[q]]
						}
						out[at[side]] += w * math.Exp((e+pot[k][at[k]])/eps)
					}
				}
			}
		}
		return out
	}
	for range 400 {
		for side := range pot {
			for i, v := range marginal(side) {
				switch {
				case side == k:
					// 0 = ρ log b/ν + ε/K log(b/Σπ) with ρ = ε(K-1)/K
					pot[k][i] = -float64(k-1) / k * eps * math.Log(v/math.Exp(pot[k][i]/eps)*n)
				case v > 0:
					pot[side][i] -= eps * math.Log(v/p.Measures[side].Weights[i])
				}
			}
		}
	}
	nearAll(t, marginal(k), r.Weights, 1e-10, "centre of the star")
}

// gaussianVariance is the variance S of the barycentre of Gaussians of
// standard deviations s, from the fixed point of the quadratic potentials: with q
// the precision that a plan gives its second marginal, the mean of q is 2/ε,
// or debiased that of the plan of the barycentre with itself.
func gaussianVariance(lambda, s []float64, eps float64, debiased bool) float64 {
	f := func(v float64) float64 {
		sum := -4*v + eps
		if debiased {
			sum = -math.Sqrt(eps*eps + 16*v*v)
		}
		for k, l := range lambda {
			sum += l * math.Sqrt(eps*eps+16*v*s[k]*s[k])
		}
		return sum
	}
	lo, hi := 1e-3, 1e3
	for range 200 {
		if mid := math.Sqrt(lo * hi); f(mid) > 0 {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

func TestGaussians(t *testing.T) {
	x, support := grid1(161, -4, 12)
	lambda := []float64{.2, .5, .3}
	means := []float64{2, 4, 7}
	for _, c := range []struct {
		std      []float64
		eps      float64
		debiased bool
		want     float64 // closed form
	}{
		{[]float64{.8, .8, .8}, .5, false, .64 + .25},
		{[]float64{.8, .8, .8}, .5, true, .64},
		{[]float64{.5, .8, 1}, .5, false, 0},
		{[]float64{.5, .8, 1}, .5, true, 0},
		{[]float64{.5, .8, 1}, 2, false, 0},
	} {
		t.Run(fmt.Sprintf("%v/%v/%v", c.std, c.eps, c.debiased), func(t *testing.T) {
			if c.want == 0 {
				c.want = gaussianVariance(lambda, c.std, c.eps, c.debiased)
			} else {
				near(t, c.want, gaussianVariance(lambda, c.std, c.eps, c.debiased), 1e-12, "closed form")
			}
			p := Problem{Support: support, Lambda: lambda, Epsilon: c.eps, Debiased: c.debiased}
			for k := range lambda {
				p.Measures = append(p.Measures, Measure{Weights: normal(x, means[k], c.std[k])})
			}
			r := converged(t, p, 1e-7)
			m, v := moments(x, r.Weights)
			near(t, 4.5, m, 1e-6, "mean")
			near(t, c.want, v, 2e-5, "variance")
			nearAll(t, normal(x, 4.5, math.Sqrt(c.want)), r.Weights, 2e-6, "density")
		})
	}
}

// A measure is its own debiased barycentre, alone, among copies, and where λ
// leaves it alone; the plain one is blurred by the kernel exp(-C/ε). To undo a
// blur magnifies residuals, here ten-thousand-fold, so that the debiased one is
// asked to be a thousand times nearer than the plain one at a residual of 1e-9.
func TestOneMeasure(t *testing.T) {
	x, support := grid1(60, 0, 6)
	a := normal(x, 2, .3)
	for i, v := range normal(x, 4, .5) {
		a[i] = .4*a[i] + .6*v
	}
	other := normal(x, 1, .5)
	for name, p := range map[string]Problem{
		"alone":  {Measures: []Measure{{Weights: a}}},
		"copies": {Measures: []Measure{{Weights: a}, {Weights: a}, {Weights: a}}},
		"lambda": {Measures: []Measure{{Weights: other}, {Weights: a}, {Weights: other}}, Lambda: []float64{0, 2, 0}},
	} {
		p.Support, p.Epsilon, p.Debiased = support, .05, true
		r := converged(t, p, 1e-9)
		sharp := distance(a, r.Weights)
		p.Debiased = false
		r = converged(t, p, 1e-10)
		blurred := make([]float64, len(x))
		for i, u := range x {
			row := make([]float64, len(x))
			for j, v := range x {
				row[j] = math.Exp(-(u - v) * (u - v) / .05)
			}
			scaleTo(row, a[i])
			for j, v := range row {
				blurred[j] += v
			}
		}
		near(t, 0, distance(blurred, r.Weights), 1e-9, name+": plain")
		near(t, 0, sharp, 1e-3*distance(a, r.Weights), name+": debiased")
		if name == "lambda" {
			require.True(t, math.IsNaN(r.Certificate.MarginalError[0]))
			require.Nil(t, r.Plans[0].F)
			require.NotNil(t, r.Plans[1].F)
		}
	}
}

// The debiased barycentre has a lower mean Sinkhorn divergence than any other
// weights, and its primal value is that of package sinkhorn.
func TestDebiasedMinimisesTheDivergence(t *testing.T) {
	p := small3(4, 6)
	p.Debiased = true
	r := converged(t, p, 1e-11)
	dev := device(t)
	divergence := func(b []float64) (mean, transport float64) {
		for k, m := range p.Measures {
			d, err := sinkhorn.SolveDivergence(t.Context(), dev, sinkhorn.Problem{Geometry: m.Geometry, A: m.Weights, B: b, Epsilon: p.Epsilon}, sinkhorn.Settings{Tolerance: 1e-11})
			require.NoError(t, err)
			require.Equal(t, solver.Converged, d.Status())
			mean += p.Lambda[k] * d.Value
			transport += p.Lambda[k] * (d.Value + d.AA.Value/2)
		}
		return mean, transport
	}
	best, transport := divergence(r.Weights)
	near(t, transport, r.Certificate.Primal, 1e-9, "primal")
	rnd := rand.New(rand.NewPCG(9, 9))
	for _, size := range []float64{1e-3, .1, 1} {
		b := append([]float64(nil), r.Weights...)
		for i := range b {
			b[i] *= math.Exp(size * rnd.NormFloat64())
		}
		scaleTo(b, 1)
		v, _ := divergence(b)
		require.Greater(t, v, best, "size %v", size)
	}
}

// As ε falls, the transport cost of two measures becomes that of the linear
// programme, Σ_ij P_ij min_l (λ₁ c_il + λ₂ c'_jl). P*, its plan, is a candidate, so
// that 0 <= <C, P> - LP <= ε KL(P* | a⊗ν) <= ε log(1/min ν).
func TestLinearProgramme(t *testing.T) {
	for seed := range uint64(3) {
		p := small3(10+seed, 7)
		p.Measures, p.Lambda, p.Epsilon = p.Measures[:2], []float64{.6, .4}, .02
		n1, n2 := len(p.Measures[0].Weights), len(p.Measures[1].Weights)
		row1, row2 := make([]float64, 7), make([]float64, 7)
		c := make([]float64, n1*n2)
		for i := range n1 {
			p.Measures[0].Geometry.Row(i, row1)
			for j := range n2 {
				p.Measures[1].Geometry.Row(j, row2)
				c[i*n2+j] = math.Inf(1)
				for l := range row1 {
					c[i*n2+j] = min(c[i*n2+j], .6*row1[l]+.4*row2[l])
				}
			}
		}
		lp, err := exact.Solver{}.Solve(t.Context(), exact.Problem{Costs: exact.Matrix{C: c, N: n1, M: n2}, A: p.Measures[0].Weights, B: p.Measures[1].Weights})
		require.NoError(t, err)
		r := solve(t, p, Settings{Tolerance: 1e-9, MaxIterations: 20000})
		excess := r.Certificate.TransportCost - lp.Cost
		if !(excess >= -1e-6 && excess <= p.Epsilon*math.Log(7)) {
			t.Errorf("seed %d: transport cost %v, linear programme %v (%v)", seed, r.Certificate.TransportCost, lp.Cost, r.Status)
		}
	}
}

// Three measures on a line: the exact barycentre averages quantiles, here onto
// points of the support.
func TestQuantiles(t *testing.T) {
	_, support := grid1(13, 0, 12)
	p := Problem{Support: support, Epsilon: .05, Debiased: false}
	for _, at := range [][]int{{0, 3, 6}, {3, 3, 9}, {6, 9, 12}} {
		w := make([]float64, 13)
		for _, i := range at {
			w[i] += 1.0 / 3
		}
		p.Measures = append(p.Measures, Measure{Weights: w})
	}
	r := solve(t, p, Settings{Tolerance: 1e-9})
	want := make([]float64, 13)
	want[3], want[5], want[9] = 1.0/3, 1.0/3, 1.0/3
	nearAll(t, want, r.Weights, 1e-6, "weights")
}
