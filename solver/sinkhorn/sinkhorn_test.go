package sinkhorn

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
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

// instance is the two-marginal example of Fortet's test values: three points
// against four on a line.
func instance(cost geometry.Cost, eps float64) Problem {
	return Problem{
		Geometry: geometry.Points{X: []float64{0, 1, 2.5}, Y: []float64{-.5, .5, 1.5, 3}, N: 3, M: 4, D: 1, Ground: cost},
		A:        []float64{.2, .3, .5}, B: []float64{.1, .4, .3, .2}, Epsilon: eps,
	}
}

func solve(t testing.TB, p Problem, s Settings) *Result {
	t.Helper()
	r, err := Solve(t.Context(), device(t), p, s)
	require.NoError(t, err)
	return r
}

func TestKnownPlan(t *testing.T) {
	r := solve(t, instance(geometry.SqEuclidean, .5), Settings{Tolerance: 1e-11})
	require.Equal(t, solver.Converged, r.Status)
	p := r.Plan
	var f, g []float64
	for _, v := range p.F {
		f = append(f, v-p.F[0])
	}
	for _, v := range p.G {
		g = append(g, v+p.F[0])
	}
	nearAll(t, []float64{0, .291804026, 2.292154494}, f, 2e-9, "f - f0")
	nearAll(t, []float64{1.030680114, .384049832, -.969762489, -1.695583941}, g, 2e-9, "g + f0")
	c := r.Certificate
	near(t, .5270816481, c.TransportCost, 1e-9, "<C,P>")
	near(t, .8602608645, c.Primal, 1e-9, "primal")
	near(t, .8602608645, c.Dual, 1e-9, "dual")
	near(t, .6663584326, (c.Primal-c.TransportCost)/.5, 1e-9, "KL")
	near(t, 1, c.Mass, 1e-10, "mass")
	nearAll(t, []float64{.095305975, .104598195, .00009583, 0}, p.Matrix()[:4], 1e-8, "P[0]")
	bary, err := p.BarycentricMap(t.Context(), device(t))
	require.NoError(t, err)
	nearAll(t, []float64{.023949276, .531258191, 2.071665375}, bary, 2e-9, "barycentric map")

	near(t, 1.1291409852394123, solve(t, instance(geometry.SqEuclidean, 1), Settings{Tolerance: 1e-12}).Certificate.Dual, 1e-11, "dual at ε = 1")
}

func TestKnownDivergence(t *testing.T) {
	d, err := SolveDivergence(t.Context(), device(t), instance(geometry.SqEuclidean, .5), Settings{Tolerance: 1e-10})
	require.NoError(t, err)
	require.Equal(t, solver.Converged, d.Status())
	near(t, .4797114733, d.AA.Value, 1e-9, "OT(a,a)")
	near(t, .5696937149, d.BB.Value, 1e-9, "OT(b,b)")
	near(t, .3355582703, d.Value, 1e-9, "divergence")
}

func TestKnownUnbalanced(t *testing.T) {
	p := instance(geometry.SqEuclidean, .5)
	for j := range p.B {
		p.B[j] *= 1.3
	}
	p.Source, p.Target = Penalty{KL, 1}, Penalty{KL, 1}
	r := solve(t, p, Settings{Tolerance: 1e-11})
	require.Equal(t, solver.Converged, r.Status)
	nearAll(t, []float64{-.032133099, -.08757805, .365545039}, r.Plan.F, 2e-9, "f")
	nearAll(t, []float64{.716470556, .440384933, .406502564, .153974342}, r.Plan.G, 2e-9, "g")
	near(t, .8808984194, r.Certificate.Mass, 1e-9, "mass")
	near(t, .7477539515, r.Certificate.Primal, 1e-9, "primal")
	near(t, .7477539515, r.Certificate.Dual, 1e-9, "dual")
}

func TestKnownBridge(t *testing.T) {
	r := solve(t, instance(geometry.HalfSqEuclidean, .5), Settings{Tolerance: 1e-12})
	u, err := r.Plan.Drift(t.Context(), device(t), 0, []float64{0, 1, 2.5})
	require.NoError(t, err)
	nearAll(t, []float64{.122750862, -.395563684, -.511762134}, u, 2e-9, "u(0, X)")
	u, err = r.Plan.Drift(t.Context(), device(t), .5, []float64{.8})
	require.NoError(t, err)
	near(t, -.47051943475, u[0], 1e-10, "u(.5, .8)")

	// The same bridge from the cost |x-y|² at twice the ε.
	twice := solve(t, instance(geometry.SqEuclidean, 1), Settings{Tolerance: 1e-12})
	v, err := twice.Plan.Drift(t.Context(), device(t), .5, []float64{.8})
	require.NoError(t, err)
	near(t, u[0], v[0], 1e-10, "drift of either convention")
}

// The score is the gradient of the log-density of the bridge, which is a
// mixture over pairs of Gaussians around the segments that join them.
func TestScoreIsGradientOfLogDensity(t *testing.T) {
	r := solve(t, instance(geometry.HalfSqEuclidean, .5), Settings{Tolerance: 1e-13})
	plan := r.Plan.Matrix()
	g := r.Plan.Geometry.(geometry.Points)
	for _, at := range []float64{.2, .5, .9} {
		logp := func(z float64) float64 {
			s := 0.0
			for i, x := range g.X {
				for j, y := range g.Y {
					d := z - (1-at)*x - at*y
					s += plan[i*4+j] * math.Exp(-d*d/(2*.5*at*(1-at)))
				}
			}
			return math.Log(s)
		}
		score, err := r.Plan.Score(t.Context(), device(t), at, []float64{.8})
		require.NoError(t, err)
		const h = 1e-5
		near(t, (logp(.8+h)-logp(.8-h))/(2*h), score[0], 1e-7, fmt.Sprintf("score at %v", at))
	}
}

// cloud is n normal points around a centre.
func cloud(seed uint64, n, d int, shift float64) []float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	v := make([]float64, n*d)
	for i := range v {
		v[i] = r.NormFloat64() + shift
	}
	return v
}

func clouds(seed uint64, n, m, d int, cost geometry.Cost) Problem {
	return Problem{Geometry: geometry.Points{X: cloud(seed, n, d, 0), Y: cloud(seed+1, m, d, .5), N: n, M: m, D: d, Ground: cost}, Epsilon: .1, Scale: Mean}
}

// The certificate is what its fields say of the plan, written out.
func TestCertificateIsOfThePlan(t *testing.T) {
	for _, cost := range []geometry.Cost{geometry.SqEuclidean, geometry.HalfSqEuclidean, geometry.Euclidean, geometry.Cosine} {
		for _, pen := range []Penalty{{}, {KL, .7}, {TV, .7}, {L2, 30}} {
			t.Run(fmt.Sprintf("%v/%v", cost, pen), func(t *testing.T) {
				p := clouds(3, 70, 51, 3, cost)
				p.Source, p.Target = pen, pen
				p.A = make([]float64, 70)
				for i := range p.A {
					p.A[i] = float64(i%5) / 140 // a fifth of the weights is zero
				}
				r := solve(t, p, Settings{})
				require.Equal(t, solver.Converged, r.Status)
				n, m := p.Geometry.Size()
				plan, c := r.Plan.Matrix(), make([]float64, m)
				var cost, kl, mass, source, target float64
				col := make([]float64, m)
				row := make([]float64, n)
				for i := range n {
					p.Geometry.Row(i, c)
					for j := range m {
						q := plan[i*m+j]
						ab := r.Plan.A[i] * r.Plan.B[j]
						kl += ab - q
						if q > 0 {
							kl += q * math.Log(q/ab)
						}
						cost += q * c[j]
						mass += q
						row[i] += q
						col[j] += q
					}
				}
				primal := cost + r.Plan.Epsilon*kl
				for i := range row {
					source += math.Abs(row[i] - r.Plan.A[i])
				}
				for j := range col {
					target += math.Abs(col[j] - r.Plan.B[j])
				}
				primal += amount(pen, row, r.Plan.A) + amount(pen, col, r.Plan.B)
				got := r.Certificate
				near(t, cost, got.TransportCost, 1e-12*(1+cost), "transport cost")
				near(t, primal, got.Primal, 1e-11*(1+primal), "primal")
				near(t, mass, got.Mass, 1e-13, "mass")
				near(t, source, got.Source, 1e-13, "source error")
				near(t, target, got.Target, 1e-13, "target error")
				near(t, got.Primal-got.Dual, got.Gap, 0, "gap")
				if pen.IsExact() && !(got.Target <= 1e-6 && got.Source <= 1e-12) {
					t.Errorf("marginal errors %v and %v, want at most the tolerance", got.Source, got.Target)
				}
				// Of TV the gap is of the order of the residual, else of its square.
				if most := map[PenaltyKind]float64{KL: 1e-9, TV: 2e-6, L2: 1e-9}[pen.Kind]; most > 0 && !(got.Gap >= -1e-12 && got.Gap <= most) {
					t.Errorf("gap %v, want it small and not negative", got.Gap)
				}
			})
		}
	}
}

// S(λx, λy; λ²ε) = λ² S(x, y; ε) for the squared cost, whatever the precision.
func TestScaling(t *testing.T) {
	p := clouds(5, 300, 280, 2, geometry.SqEuclidean)
	q := p
	g := p.Geometry.(geometry.Points)
	g.X, g.Y = scaled(g.X, 8), scaled(g.Y, 8)
	q.Geometry = g
	a, b := solve(t, p, Settings{}), solve(t, q, Settings{})
	near(t, 64*a.Certificate.Dual, b.Certificate.Dual, 1e-9*b.Certificate.Dual, "dual")
	near(t, 64*a.Plan.Epsilon, b.Plan.Epsilon, 1e-12*b.Plan.Epsilon, "epsilon in units of the mean cost")
}

func scaled(v []float64, c float64) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = c * x
	}
	return w
}

func TestSwappingSides(t *testing.T) {
	p := clouds(6, 90, 130, 3, geometry.SqEuclidean)
	q := p
	q.Geometry = p.Geometry.Transpose()
	a, b := solve(t, p, Settings{Tolerance: 1e-10}), solve(t, q, Settings{Tolerance: 1e-10})
	near(t, a.Certificate.Dual, b.Certificate.Dual, 1e-9, "dual")
	near(t, a.Certificate.TransportCost, b.Certificate.TransportCost, 1e-9, "cost")
}

// Large ε: the plan becomes the product. Small ε: the cost becomes that of the
// exact plan, 0.475 for the instance.
func TestLimits(t *testing.T) {
	p := instance(geometry.SqEuclidean, 1e5)
	plan := solve(t, p, Settings{}).Plan.Matrix()
	for i, a := range p.A {
		for j, b := range p.B {
			near(t, a*b, plan[i*4+j], 1e-4, "product plan")
		}
	}
	r := solve(t, instance(geometry.SqEuclidean, 2e-3), Settings{Tolerance: 1e-9, MaxIterations: 200000})
	near(t, .475, r.Certificate.TransportCost, 1e-4, "exact cost")
}

func TestSplittingAPointChangesNothing(t *testing.T) {
	p := instance(geometry.SqEuclidean, .5)
	q := p
	g := p.Geometry.(geometry.Points)
	g.X, g.N = []float64{0, 1, 1, 2.5}, 4
	q.Geometry, q.A = g, []float64{.2, .1, .2, .5}
	near(t, solve(t, p, Settings{Tolerance: 1e-11}).Certificate.Dual, solve(t, q, Settings{Tolerance: 1e-11}).Certificate.Dual, 1e-10, "dual")
}

func TestMatrixEqualsPoints(t *testing.T) {
	p := clouds(7, 60, 40, 5, geometry.SqEuclidean)
	c := make([]float64, 60*40)
	for i := range 60 {
		p.Geometry.Row(i, c[i*40:(i+1)*40])
	}
	q := p
	q.Geometry = geometry.Matrix{C: c, N: 60, M: 40}
	a, b := solve(t, p, Settings{Tolerance: 1e-10}), solve(t, q, Settings{Tolerance: 1e-10})
	near(t, a.Certificate.Dual, b.Certificate.Dual, 1e-10, "dual")
	q.Scale, p.Scale, q.Epsilon, p.Epsilon = Std, Std, .2, .2
	a, b = solve(t, p, Settings{}), solve(t, q, Settings{})
	near(t, a.Plan.Epsilon, b.Plan.Epsilon, 1e-12, "epsilon in units of the standard deviation")
}

// Each precision and acceleration finds the same plan; the certificate says
// how well.
func TestAllRoadsLeadToOnePlan(t *testing.T) {
	p := clouds(8, 400, 350, 2, geometry.SqEuclidean)
	p.Epsilon = .02
	want := solve(t, p, Settings{Tolerance: 1e-10, Precision: solver.Double}).Certificate
	for _, precision := range []solver.Precision{solver.Ladder, solver.Single, solver.Double} {
		for _, acceleration := range []Acceleration{Auto, None, Anderson, Overrelaxed} {
			for _, direct := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v/%v/direct=%v", precision, acceleration, direct), func(t *testing.T) {
					tol := 1e-6
					if precision == solver.Single {
						tol = 1e-4
					}
					r := solve(t, p, Settings{Tolerance: tol, Precision: precision, Acceleration: acceleration, NoAnnealing: direct})
					require.Equal(t, solver.Converged, r.Status, "residual %v", r.Certificate.Residual)
					if !(r.Certificate.Residual <= tol) {
						t.Errorf("residual %v above %v", r.Certificate.Residual, tol)
					}
					near(t, want.Dual, r.Certificate.Dual, 10*tol, "dual")
				})
			}
		}
	}
}

// Acceleration may cost a few sweeps where it does not help, never more.
func TestAccelerationIsNotWorseThanPlain(t *testing.T) {
	for _, eps := range []float64{.02, .1, .5} {
		for seed := range uint64(4) {
			p := clouds(20+seed, 120, 120, 2+int(seed), geometry.SqEuclidean)
			p.Epsilon = eps
			plain := solve(t, p, Settings{Acceleration: None, Precision: solver.Double, MaxIterations: 50000})
			for _, a := range []Acceleration{Anderson, Overrelaxed} {
				r := solve(t, p, Settings{Acceleration: a, Precision: solver.Double, MaxIterations: 50000})
				t.Logf("ε %v, seed %d: %v %d sweeps, plain %d", eps, seed, a, r.Iterations, plain.Iterations)
				require.Equal(t, solver.Converged, r.Status)
				if r.Iterations > plain.Iterations+10 {
					t.Errorf("ε %v, seed %d: %v took %d sweeps, plain %d", eps, seed, a, r.Iterations, plain.Iterations)
				}
			}
		}
	}
}

func TestHardInputs(t *testing.T) {
	far := clouds(9, 200, 200, 2, geometry.SqEuclidean)
	g := far.Geometry.(geometry.Points)
	near0 := solve(t, far, Settings{})
	g.X, g.Y = shift(g.X, 1e6), shift(g.Y, 1e6)
	far.Geometry = g
	r := solve(t, far, Settings{})
	require.Equal(t, solver.Converged, r.Status)
	near(t, near0.Certificate.Dual, r.Certificate.Dual, 1e-5*near0.Certificate.Dual, "dual of points around 1e6")

	one := Problem{Geometry: geometry.Points{X: []float64{1, 2}, Y: []float64{4, 6}, N: 1, M: 1, D: 2}, Epsilon: .1}
	r = solve(t, one, Settings{})
	require.Equal(t, solver.Converged, r.Status)
	near(t, 25, r.Certificate.TransportCost, 1e-12, "cost of one pair")
	near(t, 25, r.Certificate.Dual, 1e-10, "dual of one pair")

	same := Problem{Geometry: geometry.Points{X: make([]float64, 20), Y: make([]float64, 30), N: 10, M: 15, D: 2}, Epsilon: .1}
	r = solve(t, same, Settings{})
	require.Equal(t, solver.Converged, r.Status)
	near(t, 0, r.Certificate.Dual, 1e-12, "dual of coinciding points")

	tiny := clouds(10, 256, 256, 2, geometry.SqEuclidean)
	tiny.Epsilon = 1e-4
	r = solve(t, tiny, Settings{MaxIterations: 3000})
	if r.Status == solver.Converged && !(r.Certificate.Residual <= 1e-6) {
		t.Errorf("said to be converged at residual %v", r.Certificate.Residual)
	}
	for i, v := range append(append([]float64{}, r.Plan.F...), r.Plan.G...) {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatalf("potential %d is %v", i, v)
		}
	}
}

func shift(v []float64, c float64) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = x + c
	}
	return w
}

func TestRepeatsToTheBit(t *testing.T) {
	p := clouds(11, 500, 400, 3, geometry.SqEuclidean)
	a := solve(t, p, Settings{})
	for _, workers := range []int{1, 2, 5} {
		dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: workers})
		require.NoError(t, err)
		b, err := Solve(t.Context(), dev, p, Settings{})
		require.NoError(t, err)
		require.Equal(t, a.Plan.G, b.Plan.G, "workers = %d", workers)
		require.Equal(t, a.Certificate, b.Certificate)
		require.NoError(t, dev.Close())
	}
}

func TestCancellation(t *testing.T) {
	p := clouds(12, 300, 300, 2, geometry.SqEuclidean)
	p.Epsilon = .001
	ctx, cancel := context.WithCancel(t.Context())
	last := 0
	r, err := Solve(ctx, device(t), p, Settings{Tolerance: 1e-12, Trace: func(it Iteration) {
		last = it.N
		if it.N == 7 {
			cancel()
		}
	}})
	require.NoError(t, err)
	require.Equal(t, solver.Canceled, r.Status)
	require.Equal(t, 7, last, "sweeps after cancellation")
	require.Error(t, r.Status.Err())
}

func TestIterationLimit(t *testing.T) {
	p := clouds(13, 200, 200, 2, geometry.SqEuclidean)
	p.Epsilon = .001
	r := solve(t, p, Settings{MaxIterations: 5})
	require.Equal(t, solver.MaxIterations, r.Status)
	require.Equal(t, 5, r.Iterations)
	if !(r.Certificate.Residual > 1e-6) {
		t.Errorf("five sweeps reached %v", r.Certificate.Residual)
	}
}

// A device that fails at any moment gives an error, no crash, and its memory
// back.
func TestDeviceFailures(t *testing.T) {
	p := clouds(14, 300, 300, 2, geometry.SqEuclidean)
	for k := 1; k < 40; k++ {
		for _, fail := range []fake.Fail{{Alloc: k}, {Launch: k}} {
			dev := fake.New(device(t), fail)
			_, err := Solve(t.Context(), dev, p, Settings{MaxIterations: 6})
			if err != nil && !errors.Is(err, gpu.ErrOutOfMemory) && !errors.Is(err, gpu.ErrLaunch) {
				t.Errorf("%+v: %v", fail, err)
			}
			if in := dev.Memory().InUse; in != 0 {
				t.Fatalf("%+v: %d bytes still in use", fail, in)
			}
		}
	}
}

func TestInvalidProblems(t *testing.T) {
	nan := math.NaN()
	for name, change := range map[string]func(*Problem, *Settings){
		"no geometry":      func(p *Problem, _ *Settings) { p.Geometry = nil },
		"epsilon 0":        func(p *Problem, _ *Settings) { p.Epsilon = 0 },
		"epsilon NaN":      func(p *Problem, _ *Settings) { p.Epsilon = nan },
		"epsilon inf":      func(p *Problem, _ *Settings) { p.Epsilon = math.Inf(1) },
		"weights short":    func(p *Problem, _ *Settings) { p.A = p.A[:2] },
		"weights negative": func(p *Problem, _ *Settings) { p.A = []float64{-.2, .7, .5} },
		"weights NaN":      func(p *Problem, _ *Settings) { p.A = []float64{nan, .7, .5} },
		"weights zero":     func(p *Problem, _ *Settings) { p.A = make([]float64, 3) },
		"masses differ":    func(p *Problem, _ *Settings) { p.A = []float64{1, 1, 1} },
		"rho negative":     func(p *Problem, _ *Settings) { p.Source = Penalty{KL, -1} },
		"rho NaN":          func(p *Problem, _ *Settings) { p.Target = Penalty{L2, nan} },
		"rho of nothing":   func(p *Problem, _ *Settings) { p.Source = Penalty{Rho: 1} },
		"rho missing":      func(p *Problem, _ *Settings) { p.Source = Penalty{Kind: TV} },
		"unknown penalty":  func(p *Problem, _ *Settings) { p.Target = Penalty{L2 + 1, 1} },
		"tolerance":        func(_ *Problem, s *Settings) { s.Tolerance = -1 },
		"iterations":       func(_ *Problem, s *Settings) { s.MaxIterations = -1 },
		"start short":      func(_ *Problem, s *Settings) { s.Start = []float64{1} },
		"points NaN": func(p *Problem, _ *Settings) {
			p.Geometry = geometry.Points{X: []float64{0, nan, 1}, Y: []float64{0, 1, 2, 3}, N: 3, M: 4, D: 1}
		},
		"scale of nothing": func(p *Problem, _ *Settings) {
			p.Geometry, p.Scale = geometry.Points{X: make([]float64, 3), Y: make([]float64, 4), N: 3, M: 4, D: 1}, Mean
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := instance(geometry.SqEuclidean, .5), Settings{}
			change(&p, &s)
			_, err := Solve(t.Context(), device(t), p, s)
			require.ErrorIs(t, err, solver.ErrInvalid)
		})
	}
}

// Marginals of many draws are those of the plan; the threshold is five
// standard errors of a count.
func TestSampledPairs(t *testing.T) {
	r := solve(t, instance(geometry.SqEuclidean, .5), Settings{Tolerance: 1e-10})
	const k = 200000
	pairs, err := r.Plan.Sample(t.Context(), k, 5)
	require.NoError(t, err)
	counts := make([]float64, 12)
	for _, p := range pairs {
		counts[p.I*4+p.J]++
	}
	for q, want := range r.Plan.Matrix() {
		near(t, want, counts[q]/k, 5*math.Sqrt(want*(1-want)/k)+1e-9, fmt.Sprintf("frequency of pair %d", q))
	}
	again, err := r.Plan.Sample(t.Context(), 10, 5)
	require.NoError(t, err)
	require.Equal(t, pairs[:10], again, "draws must not depend on how many there are")
}

// At time t a path is (1-t)x + ty plus noise of variance ε t(1-t); the paths'
// moments are checked to five standard errors, jointly at two times.
func TestPathMoments(t *testing.T) {
	one := Problem{Geometry: geometry.Points{X: []float64{1}, Y: []float64{3}, N: 1, M: 1, D: 1, Ground: geometry.HalfSqEuclidean}, Epsilon: .8}
	r := solve(t, one, Settings{})
	const k = 100000
	x, err := r.Plan.Paths(t.Context(), k, []float64{0, .3, .7, 1}, 11)
	require.NoError(t, err)
	var m1, m2, c11, c22, c12 float64
	for s := range k {
		a, b := x[4*s+1]-1.6, x[4*s+2]-2.4
		m1, m2 = m1+a/k, m2+b/k
		c11, c22, c12 = c11+a*a/k, c22+b*b/k, c12+a*b/k
		if x[4*s] != 1 || x[4*s+3] != 3 {
			t.Fatalf("path %d goes from %v to %v", s, x[4*s], x[4*s+3])
		}
	}
	v := .8 * .3 * .7
	se := 5 * math.Sqrt(v/k)
	near(t, 0, m1, se, "mean at .3")
	near(t, 0, m2, se, "mean at .7")
	near(t, v, c11, 5*v*math.Sqrt(2.0/k), "variance at .3")
	near(t, v, c22, 5*v*math.Sqrt(2.0/k), "variance at .7")
	near(t, .8*.3*.3, c12, 5*v*math.Sqrt(2.0/k), "covariance")
}

// Out-of-sample points that are sample points get the same image.
func TestMapExtendsTheBarycentricMap(t *testing.T) {
	p := clouds(15, 80, 90, 3, geometry.Euclidean)
	r := solve(t, p, Settings{})
	dev := device(t)
	bary, err := r.Plan.BarycentricMap(t.Context(), dev)
	require.NoError(t, err)
	x := p.Geometry.(geometry.Points).X
	mapped, err := r.Plan.Map(t.Context(), dev, x[:30])
	require.NoError(t, err)
	nearAll(t, bary[:30], mapped, 1e-10, "map")
	_, err = r.Plan.Drift(t.Context(), dev, .5, x[:3])
	require.ErrorIs(t, err, solver.ErrInvalid, "the Euclidean cost has no Brownian motion")
}
