package bass1d

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/gaussian"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mathext"
)

func normal(t *testing.T, mean, variance float64) Law {
	t.Helper()
	l, err := Normal(mean, variance)
	require.NoError(t, err)
	return l
}

// bimodal is ½N(-2, ¼) + ½N(2, ¼), studentT the t law of five degrees of freedom.
func bimodal(t *testing.T) Law {
	t.Helper()
	l, err := Density(func(x float64) float64 {
		a, b := -2*(x-2)*(x-2), -2*(x+2)*(x+2)
		return max(a, b) + math.Log1p(math.Exp(-math.Abs(a-b)))
	}, -8, 8)
	require.NoError(t, err)
	return l
}

func studentT(t *testing.T, to float64) Law {
	t.Helper()
	l, err := Density(func(x float64) float64 { return -3 * math.Log1p(x*x/5) }, -to, to)
	require.NoError(t, err)
	return l
}

func solve(t *testing.T, p Problem, s Settings) *Result {
	t.Helper()
	r, err := Solve(t.Context(), p, s)
	require.NoError(t, err)
	require.NoError(t, r.Status.Err(), "after %d iterations at residual %g", r.Iterations, r.Residual)
	require.InDelta(t, 1, r.Mass, 1e-9)
	return r
}

func at(t *testing.T, r *Result, when float64) *Slice {
	t.Helper()
	s, err := r.At(when)
	require.NoError(t, err)
	return s
}

// The convolution against its definition.
func TestHeat(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 16, 17, 18, 63, 257} {
		for _, v := range []float64{1e-3, .05, 1, 40} {
			dx := .1
			h := newHeat(n, dx, v)
			a, out, mean, variance := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
			for j := range a {
				a[j] = 30*math.Sin(float64(j)*dx) + r.NormFloat64() + float64(j)*dx*200
			}
			h.apply(out, mean, variance, a)
			only := make([]float64, n)
			h.apply(only, nil, nil, a)
			for i := range n {
				top := math.Inf(-1)
				term := func(j int) float64 { return a[j] - float64((i-j)*(i-j))*dx*dx/(2*v) }
				for j := range n {
					top = max(top, term(j))
				}
				s0, s1 := 0.0, 0.0
				for j := range n {
					s0 += math.Exp(term(j) - top)
					s1 += math.Exp(term(j)-top) * float64(j-i) * dx
				}
				s2 := 0.0
				for j := range n {
					d := float64(j-i)*dx - s1/s0
					s2 += math.Exp(term(j)-top) * d * d
				}
				scale := math.Abs(top) + 1
				require.InDelta(t, top+math.Log(s0), out[i], 1e-13*scale+1e-12, "n %d, v %g, row %d", n, v, i)
				require.InDelta(t, s1/s0, mean[i], 1e-11, "mean, n %d, v %g, row %d", n, v, i)
				require.InDelta(t, s2/s0, variance[i], 1e-10, "variance, n %d, v %g, row %d", n, v, i)
				require.InDelta(t, out[i], only[i], 1e-13*scale)
			}
		}
	}
	h := newHeat(3, 1, 1)
	nothing, out := []float64{math.Inf(-1), math.Inf(-1), math.Inf(-1)}, make([]float64, 3)
	h.apply(out, nil, nil, nothing)
	require.Equal(t, nothing, out)
}

func TestLaws(t *testing.T) {
	n := normal(t, 1, 4)
	for _, p := range []float64{1e-20, 1e-9, .01, .3, .5} {
		q := mathext.NormalQuantile(p)
		require.InEpsilon(t, 1+2*q, n.quantile(p, 1-p)+1e-300, 1e-7)
		require.InEpsilon(t, 1-2*q, n.quantile(1-p, p), 1e-7)
	}
	mean, variance := n.moments()
	require.InDelta(t, 1, mean, 1e-12)
	require.InDelta(t, 4, variance, 1e-11)
	require.InDelta(t, -math.Log(2*math.Sqrt(2*math.Pi)), n.logDensity(1), 1e-12)
	require.True(t, math.IsInf(n.logDensity(1e9), -1))

	a, err := Atoms([]float64{3, -1, 3, 7, 5}, []float64{1, 2, 1, 4, 0})
	require.NoError(t, err)
	require.Equal(t, []float64{-1, 3, 7}, a.x)
	require.Equal(t, []float64{.25, .25, .5}, a.mass)
	for _, c := range []struct{ p, x float64 }{{1e-9, -1}, {.2, -1}, {.3, 3}, {.49, 3}, {.51, 7}, {.999, 7}} {
		require.Equal(t, c.x, a.quantile(c.p, 1-c.p), "%g", c.p)
	}
	uniform, err := Density(func(float64) float64 { return 0 }, 2, 4)
	require.NoError(t, err)
	require.InDelta(t, 2.5, uniform.quantile(.25, .75), 1e-12)
	gap, err := Density(func(x float64) float64 {
		if math.Abs(x) < 1 {
			return math.Inf(-1)
		}
		return 0
	}, -2, 2)
	require.NoError(t, err)
	require.InDelta(t, -1.5, gap.quantile(.25, .75), 1e-3)
}

// The iteration itself, from w_T' = 0 and not from the answer, against the
// closed form.
func TestGaussian(t *testing.T) {
	for _, c := range []struct{ m0, v0, m1, v1, eps, beta, T float64 }{
		{0, 1, 0, .1, 1, 10, 0}, {0, 1, 0, .1, 1, .5, 0}, {0, 1, 0, 4, 1, 2, 0}, {.3, 1.5, 1.2, .6, .7, 3, 2}, {0, 1, .5, .3, 1, 100, 0},
	} {
		exact, err := gaussian.SolveBass(t.Context(), gaussian.BassProblem{
			Source: gaussian.Isotropic([]float64{c.m0}, c.v0), Target: gaussian.Isotropic([]float64{c.m1}, c.v1), Epsilon: c.eps, Beta: c.beta, T: c.T})
		require.NoError(t, err)
		p := Problem{Source: normal(t, c.m0, c.v0), Target: normal(t, c.m1, c.v1), Epsilon: c.eps, Beta: c.beta, T: horizon(c.T)}
		s, g, err := start(t.Context(), p, Settings{N: 401})
		require.NoError(t, err)
		clear(g)
		r := &Result{Problem: p, system: s}
		require.Equal(t, solver.Converged, r.iterate(t.Context(), g, 1e-8, 200), "%+v", c)
		t.Logf("%+v: %d iterations", c, r.Iterations)
		require.InDelta(t, exact.Dual, r.state.dual, 1e-7)
		require.InDelta(t, exact.Dual, r.state.primal, 1e-7)
		for _, when := range []float64{0, .5 * exact.T, exact.T} {
			slice := at(t, r, when)
			control, err := exact.Control(when)
			require.NoError(t, err)
			on, err := exact.Map(when)
			require.NoError(t, err)
			sigma, err := exact.Sigma(when)
			require.NoError(t, err)
			law, err := exact.Marginal(when)
			require.NoError(t, err)
			inverse, err := exact.Inverse(when)
			require.NoError(t, err)
			centre := inverse.Gain.At(0, 0)*law.Mean[0] + inverse.Offset[0]
			spread := inverse.Gain.At(0, 0) * math.Sqrt(law.Cov.At(0, 0))
			for _, u := range []float64{-2.5, -1, 0, .3, 2} {
				y := centre + u*spread
				x, score, vol := slice.At(y)
				want := control.Gain.At(0, 0)*y + control.Offset[0]
				require.InDelta(t, want, score, 2e-5*(1+c.beta), "score at t = %g, y = %g of %+v", when, y, c)
				require.InDelta(t, on.Gain.At(0, 0)*y+on.Offset[0], x, 2e-5)
				require.InDelta(t, sigma.At(0, 0), vol, 2e-4)
			}
		}
	}
}

// N(0,1) → N(0,.1) at beta 10: the exact value is -3.795775, which the
// iteration with a fixed step met as -3.795888 after 101 iterations.
func TestGaussianValue(t *testing.T) {
	p := Problem{Source: normal(t, 0, 1), Target: normal(t, 0, .1), Epsilon: 1, Beta: 10, T: 1}
	s, g, err := start(t.Context(), p, Settings{Low: -7.5, High: 7.5, N: 601})
	require.NoError(t, err)
	clear(g)
	r := &Result{Problem: p, system: s}
	require.Equal(t, solver.Converged, r.iterate(t.Context(), g, 1e-8, 101))
	_, score, _ := at(t, r, 1).At(1)
	require.InDelta(t, -3.795775, score, 2e-6)
}

// Values of an independent grid solver of lower order; its dual, .855804, and
// primal, .855659, differ by its quadrature, between the two of which ours lies
// to 2e-4.
func TestBimodal(t *testing.T) {
	p := Problem{Source: normal(t, 0, 1), Target: bimodal(t), Epsilon: 1, Beta: 10}
	r := solve(t, p, Settings{Low: -7.5, High: 7.5, N: 501})
	require.InDelta(t, .855804, r.Dual, 4e-5)
	require.InDelta(t, .855659, r.Primal, 2e-4)
	require.InDelta(t, .8558316, r.Dual, 1e-6) // the same on 1001 points and on a wider grid
	require.InDelta(t, r.Dual, r.Primal, 5e-6)
	require.Less(t, r.Iterations, 100)
	start, end := at(t, r, 0), at(t, r, 1)
	for _, c := range []struct{ y, wT, w0, sigma float64 }{
		{.3, 4.06304, .56730, .96210}, {.6, 3.68977, .86554, .83183}, {1.2, 2.57361, .80346, .80671}, {1.8, 1.39983, .45492, .80228},
	} {
		_, wT, sigma := end.At(c.y)
		_, w0, _ := start.At(c.y)
		require.InDelta(t, c.wT, wT, 1e-3, "w_T'(%g)", c.y)
		require.InDelta(t, c.w0, w0, 2e-4, "w_0'(%g)", c.y)
		require.InDelta(t, c.sigma, sigma, 1e-3, "sigma_T(%g)", c.y)
	}

	// Laws of the path: s(t, Y_t) is a martingale, and J the integral of its cost.
	cost := make([]float64, 33)
	for k := range cost {
		slice := at(t, r, float64(k)/32)
		h := slice.Y[1] - slice.Y[0]
		total, mean := 0.0, 0.0
		for j, d := range slice.Density {
			total += h * d
			mean += h * d * slice.Score[j]
			if d > 0 {
				off := slice.Sigma[j] - 1
				cost[k] += h * d * (slice.Score[j]*slice.Score[j] + p.Beta*off*off)
			}
			if d > 1e-12 && j > 0 {
				require.Greater(t, slice.X[j], slice.X[j-1], "X_t increases")
			}
		}
		require.InDelta(t, 1, total, 1e-9)
		require.InDelta(t, 0, mean, p.Beta*r.Residual)
	}
	integral := 0.0
	for k := 0; k < 32; k += 2 {
		integral += (cost[k] + 4*cost[k+1] + cost[k+2]) / 32 / 3
	}
	require.InDelta(t, integral/2, r.Primal, 1e-3)
}

// fromPoint is the problem from δ₀ over unit time by another road: by duality
// of the classical bridge it is the static problem
//
//	J/2 = min over ν of ε KL(ν ‖ N(0,ε)) + β/2 W₂(ν, μ)²,
//
// convex in the increasing map Y(x) that takes μ to ν. Newton's method on nodes
// sinh(u); the Hessian is tridiagonal. x at the places y comes second.
func fromPoint(logf func(float64) float64, beta, eps, to float64, n int, where ...float64) (float64, []float64) {
	h := 2 * math.Asinh(to) / float64(n-1)
	x, w, y := make([]float64, n), make([]float64, n), make([]float64, n)
	total := 0.0
	for i := range x {
		u := -math.Asinh(to) + float64(i)*h
		x[i] = math.Sinh(u)
		y[i] = x[i] * beta / (1 + beta)
		w[i] = math.Exp(logf(x[i])) * math.Cosh(u) * h
		total += w[i]
	}
	scale(w, 1/total)
	p, l := make([]float64, n-1), make([]float64, n-1)
	for i := range p {
		middle := (x[i] + x[i+1]) / 2
		l[i] = logf(middle) - math.Log(total)
		p[i] = math.Exp(l[i]) * (x[i+1] - x[i])
	}
	value := func(y []float64) float64 {
		f := 0.0
		for i := range p {
			d := (y[i+1] - y[i]) / (x[i+1] - x[i])
			if !(d > 0) {
				return math.Inf(1)
			}
			f += eps * p[i] * (l[i] - math.Log(d) + math.Log(2*math.Pi*eps)/2)
		}
		for i := range y {
			f += w[i] * (y[i]*y[i]/2 + beta/2*(x[i]-y[i])*(x[i]-y[i]))
		}
		return f
	}
	f := value(y)
	for range 100 {
		g, d, q := make([]float64, n), make([]float64, n), make([]float64, n)
		for i := range y {
			g[i] += w[i] * (y[i] - beta*(x[i]-y[i]))
			d[i] += w[i] * (1 + beta)
			if i < n-1 {
				e := y[i+1] - y[i]
				g[i] += eps * p[i] / e
				g[i+1] -= eps * p[i] / e
				q[i] = eps * p[i] / e / e
				d[i] += q[i]
				d[i+1] += q[i]
			}
		}
		step := make([]float64, n)
		for i := 1; i < n; i++ {
			m := q[i-1] / d[i-1]
			d[i] -= m * q[i-1]
			g[i] += m * g[i-1]
		}
		for i := n - 1; i >= 0; i-- {
			step[i] = -g[i] / d[i]
			if i < n-1 {
				step[i] += q[i] * step[i+1] / d[i]
			}
		}
		c, next := 1.0, along(y, 1, step)
		for value(next) > f+1e-15 && c > 1e-9 {
			c /= 2
			next = along(y, c, step)
		}
		done := math.Abs(value(next)-f) < 1e-14
		y, f = next, value(next)
		if done {
			break
		}
	}
	var out []float64
	for _, v := range where {
		for i := range y {
			if y[i] > v {
				out = append(out, x[i-1]+(v-y[i-1])/(y[i]-y[i-1])*(x[i]-x[i-1]))
				break
			}
		}
	}
	return f, out
}

// δ₀ → t₅ at beta 2. A grid solver with a fixed step gave the maps 1.026691,
// 2.217176 and 3.641098, which the static problem confirms, and J/2 = .067227,
// which it does not: its minimum is lower.
func TestHeavyTails(t *testing.T) {
	logf := func(x float64) float64 { return -3 * math.Log1p(x*x/5) }
	value, x := fromPoint(logf, 2, 1, 60, 4001, 1, 2, 3)
	for i, v := range []float64{1.026691, 2.217176, 3.641098} {
		require.InDelta(t, v, x[i], 1.5e-5)
	}
	require.Less(t, value, .067227)
	r := solve(t, Problem{Source: Dirac(0), Target: studentT(t, 60), Epsilon: 1, Beta: 2}, Settings{N: 401, Tolerance: 1e-4})
	t.Log(r.Iterations, "iterations, J/2", r.Dual, "static", value)
	require.InDelta(t, value, r.Dual, 1e-5)
	require.InDelta(t, value, r.Primal, 1e-5)
	end := at(t, r, 1)
	for i, y := range []float64{1, 2, 3} {
		got, _, _ := end.At(y)
		require.InDelta(t, x[i], got, 1e-3)
		left, _, _ := end.At(-y)
		require.InDelta(t, -got, left, 1e-3)
	}
	require.Equal(t, 1, len(at(t, r, 0).Atoms))
	require.InDelta(t, 0, at(t, r, 0).Atoms[0], 1e-6)
}

func TestHeavyTailsLong(t *testing.T) {
	if os.Getenv("FORTET_LONG") != "1" {
		t.Skip("not run: heavy tails at the betas where a fixed step diverges (FORTET_LONG=1 runs it)")
	}
	logf := func(x float64) float64 { return -3 * math.Log1p(x*x/5) }
	for _, beta := range []float64{.5, 2, 10, 100} {
		value, x := fromPoint(logf, beta, 1, 60, 8001, 1, 2, 3)
		r := solve(t, Problem{Source: Dirac(0), Target: studentT(t, 60), Epsilon: 1, Beta: beta}, Settings{Tolerance: 1e-5})
		t.Logf("beta %g: %d iterations, J/2 %.8f, static %.8f", beta, r.Iterations, r.Dual, value)
		require.InDelta(t, value, r.Dual, 2e-5)
		for i, y := range []float64{1, 2, 3} {
			got, _, _ := at(t, r, 1).At(y)
			require.InDelta(t, x[i], got, 2e-4)
		}
	}
}

// A point, and two: sources without a density.
func TestAtoms(t *testing.T) {
	r := solve(t, Problem{Source: Dirac(0), Target: normal(t, 0, 4), Epsilon: 1, Beta: 10}, Settings{N: 301})
	require.InDelta(t, .7069565509, r.Dual, 1e-8)
	_, _, sigma := at(t, r, 0).At(0)
	require.InDelta(t, 1.2485232025, sigma, 1e-7)
	_, _, sigma = at(t, r, 1).At(.5)
	require.InDelta(t, 1.0713075057, sigma, 1e-6)

	pair, err := Atoms([]float64{-1, 1}, nil)
	require.NoError(t, err)
	split := solve(t, Problem{Source: pair, Target: bimodal(t), Epsilon: .5, Beta: 4}, Settings{N: 401, Tolerance: 1e-5})
	require.InDelta(t, split.Dual, split.Primal, 1e-5)
	start := at(t, split, 0)
	require.InDelta(t, -start.Atoms[0], start.Atoms[1], 1e-5)
	for i, y := range start.Atoms {
		x, _, _ := start.At(y)
		require.InDelta(t, pair.x[i], x, 1e-5, "X₀ takes Y₀ to the source")
	}
	half := at(t, split, .5)
	total := 0.0
	for _, d := range half.Density {
		total += d * (half.Y[1] - half.Y[0])
	}
	require.InDelta(t, 1, total, 1e-9)

	// Many atoms are nearly a density.
	points := make([]float64, 40)
	for i := range points {
		points[i] = mathext.NormalQuantile((float64(i) + .5) / 40)
	}
	many, err := Atoms(points, nil)
	require.NoError(t, err)
	exact, err := gaussian.SolveBass(t.Context(), gaussian.BassProblem{
		Source: gaussian.Isotropic([]float64{0}, 1), Target: gaussian.Isotropic([]float64{1}, .5), Epsilon: 1, Beta: 2})
	require.NoError(t, err)
	near := solve(t, Problem{Source: many, Target: normal(t, 1, .5), Epsilon: 1, Beta: 2}, Settings{N: 201, Tolerance: 1e-5})
	require.InDelta(t, exact.Dual, near.Dual, .02)
	// A sample as target: the map is a staircase, which a grid meets to its step.
	exact, err = gaussian.SolveBass(t.Context(), gaussian.BassProblem{
		Source: gaussian.Isotropic([]float64{0}, 1), Target: gaussian.Isotropic([]float64{0}, 1), Epsilon: 1, Beta: 2})
	require.NoError(t, err)
	sample, err := Solve(t.Context(), Problem{Source: normal(t, 0, 1), Target: many, Epsilon: 1, Beta: 2}, Settings{N: 401, Tolerance: 1e-2, MaxIterations: 60})
	require.NoError(t, err)
	require.Less(t, sample.Residual, .05)
	require.InDelta(t, exact.Dual, sample.Dual, .02)
}

// A common shift changes nothing, a common scale c multiplies J by c² with ε;
// ε' = εT and β' = βT on [0, 1] is the same problem with J = J'/T.
func TestUnits(t *testing.T) {
	mixture := func(shift, c float64) Law {
		l, err := Density(func(x float64) float64 {
			x = (x - shift) / c
			a, b := math.Log(.3)-2*(x-2)*(x-2), math.Log(.7)-(x+1)*(x+1)
			return max(a, b) + math.Log1p(math.Exp(-math.Abs(a-b)))
		}, shift-9*c, shift+9*c)
		require.NoError(t, err)
		return l
	}
	s := Settings{N: 301}
	r := solve(t, Problem{Source: normal(t, 0, 1), Target: mixture(0, 1), Epsilon: 1, Beta: 3}, s)
	moved := solve(t, Problem{Source: normal(t, 50, 1), Target: mixture(50, 1), Epsilon: 1, Beta: 3}, s)
	require.InDelta(t, r.Dual, moved.Dual, 1e-6)
	scaled := solve(t, Problem{Source: normal(t, 0, 100), Target: mixture(0, 10), Epsilon: 100, Beta: 3}, s)
	require.InDelta(t, 100*r.Dual, scaled.Dual, 1e-4)
	slow := solve(t, Problem{Source: normal(t, 0, 1), Target: mixture(0, 1), Epsilon: .5, Beta: 1.5, T: 2}, s)
	require.InDelta(t, r.Dual/2, slow.Dual, 1e-6)
	_, want, _ := at(t, r, .25).At(.7)
	_, got, _ := at(t, slow, .5).At(.7)
	require.InDelta(t, want/2, got, 1e-5)
}

func TestEndings(t *testing.T) {
	p := Problem{Source: normal(t, 0, 1), Target: bimodal(t), Epsilon: 1, Beta: 10}
	r, err := Solve(t.Context(), p, Settings{N: 401, MaxIterations: 3})
	require.NoError(t, err)
	require.Equal(t, solver.MaxIterations, r.Status)
	require.Equal(t, 3, r.Iterations)
	require.Error(t, r.Status.Err())
	full := solve(t, p, Settings{N: 401, Tolerance: 1e-4})
	require.Less(t, r.Dual, full.Dual+1e-9, "the dual comes from below")
	again := solve(t, p, Settings{N: 401, Tolerance: 1e-4})
	require.Equal(t, full.state.g, again.state.g, "repeats are bit-equal")

	p.T = 1
	s, g, err := start(t.Context(), p, Settings{N: 201})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	stopped := &Result{system: s}
	require.Equal(t, solver.Canceled, stopped.iterate(ctx, g, 1e-6, 100))
	require.Zero(t, stopped.Iterations)
	_, err = Solve(ctx, p, Settings{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestInvalid(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	good := Problem{Source: Dirac(0), Target: normal(t, 0, 1), Epsilon: 1, Beta: 1}
	for name, spoil := range map[string]func(*Problem, *Settings){
		"no source": func(p *Problem, _ *Settings) { p.Source = Law{} },
		"no target": func(p *Problem, _ *Settings) { p.Target = Law{} },
		"NaN point": func(p *Problem, _ *Settings) { p.Source = Dirac(nan) },
		"point":     func(p *Problem, _ *Settings) { p.Target = Dirac(1) },
		"epsilon":   func(p *Problem, _ *Settings) { p.Epsilon = 0 },
		"epsilon-":  func(p *Problem, _ *Settings) { p.Epsilon = nan },
		"beta":      func(p *Problem, _ *Settings) { p.Beta = -1 },
		"beta Inf":  func(p *Problem, _ *Settings) { p.Beta = inf },
		"horizon":   func(p *Problem, _ *Settings) { p.T = -1 },
		"grid":      func(_ *Problem, s *Settings) { s.Low, s.High = 1, -1 },
		"grid NaN":  func(_ *Problem, s *Settings) { s.Low = nan },
		"coarse":    func(_ *Problem, s *Settings) { s.Low, s.High, s.N = -100, 100, 101 },
		"small":     func(_ *Problem, s *Settings) { s.N = 5 },
		"tolerance": func(_ *Problem, s *Settings) { s.Tolerance = nan },
		"limit":     func(_ *Problem, s *Settings) { s.MaxIterations = -1 },
	} {
		p, s := good, Settings{}
		spoil(&p, &s)
		_, err := Solve(t.Context(), p, s)
		require.ErrorIs(t, err, ErrInvalid, name)
		require.ErrorContains(t, err, "bass1d: ", name)
	}
	for name, f := range map[string]func() (Law, error){
		"interval": func() (Law, error) { return Density(math.Sqrt, 1, 1) },
		"infinite": func() (Law, error) { return Density(math.Sqrt, 0, inf) },
		"function": func() (Law, error) { return Density(nil, 0, 1) },
		"NaN":      func() (Law, error) { return Density(math.Sqrt, -1, 1) },
		"zero":     func() (Law, error) { return Density(func(float64) float64 { return -inf }, -1, 1) },
		"variance": func() (Law, error) { return Normal(0, 0) },
		"mean":     func() (Law, error) { return Normal(nan, 1) },
		"none":     func() (Law, error) { return Atoms(nil, nil) },
		"weights":  func() (Law, error) { return Atoms([]float64{1, 2}, []float64{1}) },
		"negative": func() (Law, error) { return Atoms([]float64{1, 2}, []float64{1, -1}) },
		"zeros":    func() (Law, error) { return Atoms([]float64{1, 2}, []float64{0, 0}) },
		"point":    func() (Law, error) { return Atoms([]float64{1, nan}, nil) },
	} {
		_, err := f()
		require.ErrorIs(t, err, ErrInvalid, name)
	}
	// A grid that misses the laws is no error, but no solution either.
	r, err := Solve(t.Context(), good, Settings{Low: 50, High: 60})
	require.NoError(t, err)
	require.Error(t, r.Status.Err())
	r = solve(t, good, Settings{N: 201})
	for _, when := range []float64{-1, 1.1, nan, 1e-9, 1 - 1e-9} {
		_, err := r.At(when)
		require.ErrorIs(t, err, ErrInvalid)
	}
}
