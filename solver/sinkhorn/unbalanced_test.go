package sinkhorn

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/exact"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
)

// primal is the value of a plan by its definition.
func primal(p Problem, plan []float64) float64 {
	n, m := p.Geometry.Size()
	row, col, c := make([]float64, n), make([]float64, m), make([]float64, m)
	s := 0.0
	for i := range n {
		p.Geometry.Row(i, c)
		for j := range m {
			q, ab := plan[i*m+j], p.A[i]*p.B[j]
			row[i] += q
			col[j] += q
			s += q*c[j] + p.Epsilon*(ab-q)
			if q > 0 {
				s += p.Epsilon * q * math.Log(q/ab)
			}
		}
	}
	return s + amount(p.Source, row, p.A) + amount(p.Target, col, p.B)
}

// newton maximises the dual of a small problem over both potentials at once,
// with barriers in place of the bounds of TV. Its own primal value says how far
// off it can be.
func newton(t *testing.T, p Problem) (value float64, plan []float64) {
	n, m := p.Geometry.Size()
	cost := make([]float64, n*m)
	for i := range n {
		p.Geometry.Row(i, cost[i*m:(i+1)*m])
	}
	side := func(k int) (Penalty, float64) {
		if k < n {
			return p.Source, p.A[k]
		}
		return p.Target, p.B[k-n]
	}
	z := make([]float64, n+m)
	evaluate := func(z []float64, mu, eps float64) (v float64, grad []float64, hess *mat.SymDense) {
		grad, hess = make([]float64, n+m), mat.NewSymDense(n+m, nil)
		for k, f := range z {
			q, w := side(k)
			var d1, d2 float64
			switch q.Kind {
			case Exact:
				v, d1 = v+w*f, w
			case KL:
				e := w * math.Exp(-f/q.Rho)
				v, d1, d2 = v+q.Rho*(w-e), e, e/q.Rho
			case L2:
				v, d1, d2 = v+w*f-f*f/(2*q.Rho), w-f/q.Rho, 1/q.Rho
			case TV:
				low, high := f+q.Rho, q.Rho-f
				if low <= 0 || high <= 0 {
					return math.Inf(-1), nil, nil
				}
				v += w*f + mu*(math.Log(low)+math.Log(high))
				d1, d2 = w+mu/low-mu/high, mu/(low*low)+mu/(high*high)
			}
			grad[k] = d1
			hess.SetSym(k, k, d2)
		}
		for i := range n {
			for j := range m {
				q := p.A[i] * p.B[j] * math.Exp((z[i]+z[n+j]-cost[i*m+j])/eps)
				v -= eps * (q - p.A[i]*p.B[j])
				grad[i] -= q
				grad[n+j] -= q
				hess.SetSym(i, i, hess.At(i, i)+q/eps)
				hess.SetSym(n+j, n+j, hess.At(n+j, n+j)+q/eps)
				hess.SetSym(i, n+j, q/eps)
			}
		}
		return v, grad, hess
	}
	// Down to ε and to no barrier, from where Newton's method cannot fail.
	for mu, eps := .1, max(2, p.Epsilon); mu > 1e-11; mu, eps = mu/5, max(eps/2, p.Epsilon) {
		for range 60 {
			v, grad, hess := evaluate(z, mu, eps)
			var chol mat.Cholesky
			require.True(t, chol.Factorize(hess), "the dual is not strictly concave")
			var step mat.VecDense
			if err := chol.SolveVecTo(&step, mat.NewVecDense(n+m, grad)); err != nil {
				require.IsType(t, mat.Condition(0), err) // the step is there, if not a perfect one
			}
			rise := mat.Dot(&step, mat.NewVecDense(n+m, grad))
			length := 1.0
			for ; length > 1e-12; length /= 2 {
				next := slices.Clone(z)
				for k := range next {
					next[k] += length * step.AtVec(k)
				}
				if u, _, _ := evaluate(next, mu, eps); u >= v+length*rise/4 || rise < 1e-14 && u >= v-1e-14 {
					z = next
					break
				}
			}
			if rise < 1e-24 || length <= 1e-12 {
				break
			}
		}
	}
	plan = make([]float64, n*m)
	for i := range n {
		for j := range m {
			plan[i*m+j] = p.A[i] * p.B[j] * math.Exp((z[i]+z[n+j]-cost[i*m+j])/p.Epsilon)
		}
	}
	value, _, _ = evaluate(z, 0, p.Epsilon)
	return value, plan
}

// small4 is a random problem of 4 against 5 points with masses 1 and 3.
func small4(seed uint64, eps float64, source, target Penalty) Problem {
	w := cloud(seed+50, 9, 1, 0)
	for i := range w {
		w[i] = .2 + math.Abs(w[i])
	}
	a, b := w[:4], w[4:]
	sa, sb := measure.Mass(a), measure.Mass(b)
	for i := range a {
		a[i] /= sa
	}
	for j := range b {
		b[j] *= 3 / sb
	}
	return Problem{
		Geometry: geometry.Points{X: cloud(seed, 4, 2, 0), Y: cloud(seed+1, 5, 2, .5), N: 4, M: 5, D: 2},
		A:        a, B: b, Epsilon: eps, Source: source, Target: target,
	}
}

// penalties are all combinations that admit any masses.
func penalties(rho float64) [][2]Penalty {
	var out [][2]Penalty
	for _, s := range []PenaltyKind{Exact, KL, TV, L2} {
		for _, t := range []PenaltyKind{Exact, KL, TV, L2} {
			if s == Exact && t == Exact {
				continue
			}
			pair := [2]Penalty{{s, rho}, {t, .8 * rho}}
			for k := range pair {
				if pair[k].Kind == Exact {
					pair[k].Rho = 0
				}
			}
			out = append(out, pair)
		}
	}
	return out
}

func TestUnequalMassAgainstNewton(t *testing.T) {
	const slack = 1e-9 // the barriers' 2 × 1e-11 per potential and Newton's rounding
	for seed := range uint64(3) {
		for _, eps := range []float64{.05, .4} {
			for _, rho := range []float64{.3, 2} {
				for _, pair := range penalties(rho) {
					t.Run(fmt.Sprintf("%v/%v/%v, %v", seed, eps, pair[0], pair[1]), func(t *testing.T) {
						p := small4(seed, eps, pair[0], pair[1])
						want, plan := newton(t, p)
						r := solve(t, p, Settings{Tolerance: 1e-11, MaxIterations: 100000})
						require.Equal(t, solver.Converged, r.Status, "residual %v", r.Certificate.Residual)
						near(t, want, r.Certificate.Dual, slack, "dual")
						nearAll(t, plan, r.Plan.Matrix(), 1e-7, "plan")
						near(t, primal(p, r.Plan.Matrix()), r.Certificate.Primal, 1e-12, "primal")
						if pair[0].Kind != Exact && pair[1].Kind != Exact {
							near(t, want, primal(p, plan), slack, "the oracle's own gap")
							if !(r.Certificate.Gap >= -1e-13 && r.Certificate.Gap <= 1e-10) {
								t.Errorf("gap %v", r.Certificate.Gap)
							}
						}
					})
				}
			}
		}
	}
}

// Strong penalties recover balance where the masses are equal: TV at any ρ
// above the potentials, the others with an error of order 1/ρ. Weak ones leave
// the minimiser of the rest, a⊗b exp(-C/ε).
func TestLimitsOfPenalties(t *testing.T) {
	p := instance(geometry.SqEuclidean, .5)
	balanced := solve(t, p, Settings{Tolerance: 1e-12})
	for _, kind := range []PenaltyKind{KL, TV, L2} {
		for _, sides := range []int{1, 2, 3} {
			with := func(rho float64) *Result {
				q := p
				if sides&1 != 0 {
					q.Source = Penalty{kind, rho}
				}
				if sides&2 != 0 {
					q.Target = Penalty{kind, rho}
				}
				r := solve(t, q, Settings{Tolerance: 1e-12})
				require.Equal(t, solver.Converged, r.Status)
				return r
			}
			budget := 100 / 1e6
			if kind == TV {
				budget = 1e-10
			}
			strong := with(1e6)
			near(t, balanced.Certificate.Dual, strong.Certificate.Dual, budget, fmt.Sprintf("%v on %d: dual", kind, sides))
			nearAll(t, balanced.Plan.Matrix(), strong.Plan.Matrix(), budget, fmt.Sprintf("%v on %d: plan", kind, sides))
			infinite := with(math.Inf(1))
			require.Equal(t, balanced.Plan.G, infinite.Plan.G, "infinite rho")
			if sides == 3 {
				weak := with(1e-9)
				c := make([]float64, 4)
				for i, a := range p.A {
					p.Geometry.Row(i, c)
					for j, b := range p.B {
						near(t, a*b*math.Exp(-c[j]/.5), weak.Plan.Matrix()[i*4+j], 1e-8, fmt.Sprintf("%v: plan without penalty", kind))
					}
				}
			}
		}
	}
	q := p
	q.Source, q.Target = Penalty{TV, 4}, Penalty{TV, 4}
	nearAll(t, balanced.Plan.Matrix(), solve(t, q, Settings{Tolerance: 1e-12}).Plan.Matrix(), 1e-10, "TV above the potentials")
}

// As ε vanishes, TV becomes partial transport: mass that would cost more than
// the sum of both ρ stays. That is exact transport with a dump on either side.
// The entropy of the exact plan bounds what ε adds.
func TestPartialTransport(t *testing.T) {
	const n, m, rho1, rho2 = 12, 15, .4, .3
	x, y := cloud(31, n, 2, 0), cloud(32, m, 2, .7)
	a, b := make([]float64, n), make([]float64, m)
	for i := range a {
		a[i] = 1. / n
	}
	for j := range b {
		b[j] = float64(1+j%4) / (m * 1.25)
	}
	g := geometry.Points{X: x, Y: y, N: n, M: m, D: 2}
	c := make([]float64, (n+1)*(m+1))
	for i := range n {
		g.Row(i, c[i*(m+1):i*(m+1)+m])
		c[i*(m+1)+m] = rho1
	}
	for j := range m {
		c[n*(m+1)+j] = rho2
	}
	lp, err := exact.Solver{}.Solve(t.Context(), exact.Problem{
		Costs: exact.Matrix{C: c, N: n + 1, M: m + 1},
		A:     append(slices.Clone(a), measure.Mass(b)), B: append(slices.Clone(b), measure.Mass(a)),
	})
	require.NoError(t, err)
	kl, moved := measure.Mass(a)*measure.Mass(b), 0.0
	for _, e := range lp.Plan {
		if e.I < n && e.J < m {
			kl += e.Mass*math.Log(e.Mass/(a[e.I]*b[e.J])) - e.Mass
			moved += e.Mass
		}
	}
	if !(moved > .1 && moved < .95) {
		t.Fatalf("the exact plan moves %v, want some but not all", moved)
	}
	for _, eps := range []float64{.1, .01, .002} {
		r := solve(t, Problem{Geometry: g, A: a, B: b, Epsilon: eps, Source: Penalty{TV, rho1}, Target: Penalty{TV, rho2}}, Settings{Tolerance: 1e-9, MaxIterations: 50000})
		require.Equal(t, solver.Converged, r.Status)
		if v := r.Certificate.Dual; !(v >= lp.Cost-1e-9 && v <= lp.Cost+eps*kl+1e-9) {
			t.Errorf("ε %v: value %v outside of [%v, %v]", eps, v, lp.Cost, lp.Cost+eps*kl)
		}
		if eps == .002 {
			near(t, moved, r.Certificate.Mass, .02, "mass moved")
		}
	}
}

// Lengths times λ and ε and ρ times λ² give values times λ². Permuted points
// give permuted plans. A point that is split changes nothing but under L2,
// which counts points.
func TestLawsOfPenalties(t *testing.T) {
	for _, pair := range penalties(.6) {
		t.Run(fmt.Sprintf("%v, %v", pair[0], pair[1]), func(t *testing.T) {
			s := Settings{Tolerance: 1e-12, MaxIterations: 100000}
			p := small4(7, .2, pair[0], pair[1])
			r := solve(t, p, s)
			require.Equal(t, solver.Converged, r.Status)
			g := p.Geometry.(geometry.Points)

			q := p
			big := g
			big.X, big.Y = scaled(g.X, 4), scaled(g.Y, 4)
			q.Geometry, q.Epsilon = big, 16*p.Epsilon
			q.Source.Rho, q.Target.Rho = 16*q.Source.Rho, 16*q.Target.Rho
			near(t, 16*r.Certificate.Dual, solve(t, q, s).Certificate.Dual, 1e-10, "scaled")

			q = p
			turned := g
			turned.X, q.A = append(slices.Clone(g.X[2:]), g.X[:2]...), append(slices.Clone(p.A[1:]), p.A[0])
			q.Geometry = turned
			plan := r.Plan.Matrix()
			nearAll(t, append(slices.Clone(plan[5:]), plan[:5]...), solve(t, q, s).Plan.Matrix(), 1e-10, "permuted")

			q = p
			split := g
			split.X, split.N = append(slices.Clone(g.X), g.X[:2]...), 5
			q.Geometry = split
			q.A = append([]float64{p.A[0] / 4}, append(slices.Clone(p.A[1:]), p.A[0]*3/4)...)
			after := solve(t, q, s).Certificate.Dual
			if pair[0].Kind != L2 {
				near(t, r.Certificate.Dual, after, 1e-10, "split")
			} else if !(math.Abs(r.Certificate.Dual-after) > 1e-6) {
				t.Errorf("split: the dual stays at %v", after)
			}
		})
	}
}

func TestPenaltiesAndZeroWeights(t *testing.T) {
	for _, pair := range penalties(.6) {
		p := small4(3, .2, pair[0], pair[1])
		without := p
		g := p.Geometry.(geometry.Points)
		sub := g
		sub.X, sub.N, sub.Y, sub.M = g.X[2:], 3, g.Y[:8], 4
		without.Geometry, without.A, without.B = sub, p.A[1:], p.B[:4]
		p.A, p.B = slices.Clone(p.A), slices.Clone(p.B)
		p.A[0], p.B[4] = 0, 0
		r, w := solve(t, p, Settings{Tolerance: 1e-12}), solve(t, without, Settings{Tolerance: 1e-12})
		require.Equal(t, solver.Converged, r.Status)
		name := fmt.Sprintf("%v, %v", pair[0], pair[1])
		near(t, w.Certificate.Dual, r.Certificate.Dual, 1e-10, name)
		for k, v := range r.Plan.Matrix() {
			if v != 0 && (k/5 == 0 || k%5 == 4) {
				t.Errorf("%s: entry %d of the plan is %v", name, k, v)
			}
		}
		require.NoError(t, r.Plan.Validate(), name)
	}
}

// Masses 1 and 3, all kinds on one side or both, with every acceleration, from
// the coarsest ε or at once, in float32 first: all find the value of float64.
func TestAllRoadsWithPenalties(t *testing.T) {
	for _, pair := range [][2]Penalty{{{}, {TV, 2}}, {{TV, 2}, {}}, {{TV, 2}, {TV, 2}}, {{}, {L2, 400}}, {{L2, 400}, {}}, {{L2, 400}, {KL, 1}}} {
		p := clouds(8, 270, 250, 2, geometry.SqEuclidean)
		p.Epsilon, p.Source, p.Target = .03, pair[0], pair[1]
		p.B = make([]float64, 250)
		for j := range p.B {
			p.B[j] = 3. / 250
		}
		want := solve(t, p, Settings{Tolerance: 1e-10, Precision: solver.Double})
		require.Equal(t, solver.Converged, want.Status)
		for _, acceleration := range []Acceleration{None, Anderson, Overrelaxed} {
			for _, direct := range []bool{false, true} {
				r := solve(t, p, Settings{Tolerance: 1e-5, Acceleration: acceleration, NoAnnealing: direct})
				name := fmt.Sprintf("%v, %v, %v, direct %v", pair[0], pair[1], acceleration, direct)
				require.Equal(t, solver.Converged, r.Status, name)
				// The dual is flat at its maximum; how steep it is near it, the
				// size of the potentials bounds.
				near(t, want.Certificate.Dual, r.Certificate.Dual, 1e-4, name)
			}
		}
	}
}

// Under TV, potentials of clusters move by a fixed small step per sweep, while
// the residual does not fall: that is no reason to give up.
func TestPlateauIsNotAStall(t *testing.T) {
	const n = 60
	x, y := cloud(1, n, 2, 0), cloud(2, n, 2, 0)
	a, b := make([]float64, n), make([]float64, n)
	for i := range n {
		a[i], b[i] = 1./n, 1./n
		x[2*i] += float64(i%3) * 10
		y[2*i] += float64(i%3) * 10
		if i%3 == 1 {
			a[i] *= 1.2
		}
	}
	p := Problem{Geometry: geometry.Points{X: x, Y: y, N: n, M: n, D: 2}, Epsilon: .1, A: a, B: b, Source: Penalty{TV, 5}, Target: Penalty{TV, 5}}
	for _, s := range []Settings{{}, {NoAnnealing: true}} {
		r := solve(t, p, s)
		require.Equal(t, solver.Converged, r.Status, "direct %v", s.NoAnnealing)
		near(t, 1, r.Certificate.Mass, 1e-5, "mass that has a counterpart")
	}
}

// Wherever it is stopped and wherever it started, the dual is a bound: also
// where the target takes more than its weights, with potentials at -ρ.
func TestDualIsFinite(t *testing.T) {
	p := clouds(9, 40, 30, 2, geometry.SqEuclidean)
	p.Epsilon, p.Target = .02, Penalty{TV, .4}
	p.A = make([]float64, 40)
	for i := range p.A {
		p.A[i] = 3. / 40
	}
	want := solve(t, p, Settings{Tolerance: 1e-10})
	require.Contains(t, want.Plan.G, -.4)
	for _, acceleration := range []Acceleration{None, Anderson, Overrelaxed} {
		for sweeps := 1; sweeps < 60; sweeps++ {
			c := solve(t, p, Settings{Acceleration: acceleration, MaxIterations: sweeps, Start: cloud(10, 30, 1, -4)}).Certificate
			if !(c.Dual > -100 && c.Dual <= want.Certificate.Dual+1e-9) {
				t.Errorf("%v, %d sweeps: dual %v, want at most %v", acceleration, sweeps, c.Dual, want.Certificate.Dual)
			}
		}
	}
}

// Where ρ is a thousand times ε, masses that differ are no reason for thousands
// of sweeps.
func TestStrongPenaltiesTakeFewSweeps(t *testing.T) {
	for _, pen := range []Penalty{{TV, 100}, {L2, 1e4}} {
		p := clouds(8, 100, 90, 2, geometry.SqEuclidean)
		p.Scale, p.Source = Absolute, pen
		p.B = make([]float64, 90)
		for j := range p.B {
			p.B[j] = 3. / 90
		}
		r := solve(t, p, Settings{Acceleration: None, NoAnnealing: true})
		t.Logf("%v: %d sweeps", pen, r.Iterations)
		require.Equal(t, solver.Converged, r.Status)
		require.Less(t, r.Iterations, 1000) // 65 and 523, without translations more than 10000
	}
}

func TestPenaltiesRepeatToTheBit(t *testing.T) {
	p := clouds(11, 300, 260, 3, geometry.SqEuclidean)
	p.Source, p.Target = Penalty{TV, 1}, Penalty{L2, 100}
	a := solve(t, p, Settings{})
	require.Equal(t, solver.Converged, a.Status)
	for _, workers := range []int{1, 3} {
		dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: workers})
		require.NoError(t, err)
		b, err := Solve(t.Context(), dev, p, Settings{})
		require.NoError(t, err)
		require.Equal(t, a.Plan.G, b.Plan.G)
		require.Equal(t, a.Certificate, b.Certificate)
		require.NoError(t, dev.Close())
	}
}

func TestDeviceFailuresWithPenalties(t *testing.T) {
	p := clouds(14, 60, 70, 2, geometry.SqEuclidean)
	p.Source, p.Target = Penalty{TV, 1}, Penalty{L2, 100}
	failed := 0
	for k := 1; k < 30; k++ {
		for _, fail := range []fake.Fail{{Alloc: k}, {Launch: k}} {
			dev := fake.New(device(t), fail)
			r, err := Solve(t.Context(), dev, p, Settings{MaxIterations: 6})
			if err == nil {
				_, err = r.Plan.Gradient(t.Context(), dev)
			}
			if err != nil {
				failed++
				require.Contains(t, err.Error(), "fake", "%+v", fail)
			}
			require.Zero(t, dev.Memory().InUse, "%+v", fail)
		}
	}
	require.Greater(t, failed, 20)
}
