package gaussian

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"
)

func mix(weights []float64, components ...Normal) Mixture { return Mixture{weights, components} }

func line(mean, variance float64) Normal { return Isotropic([]float64{mean}, variance) }

func solveMixture(t *testing.T, source, target Mixture, ref Reference) *MixtureBridge {
	t.Helper()
	b, err := SolveMixture(t.Context(), source, target, ref)
	require.NoError(t, err)
	return b
}

func randomMixture(r *rand.Rand, k, d int, low, high float64) Mixture {
	m := Mixture{}
	total := 0.0
	for range k {
		m.Weights = append(m.Weights, r.Float64()+.2)
		m.Components = append(m.Components, randomNormal(r, d, low, high))
		total += m.Weights[len(m.Weights)-1]
	}
	for i := range m.Weights {
		m.Weights[i] /= total
	}
	return m
}

// flow is what is checked of both kinds of bridges.
type flow interface {
	Marginal(t float64) (Mixture, error)
	Drift(t float64) (*MixtureDrift, error)
}

// transports requires of a bridge in one dimension that its drift moves its laws,
// ∂p/∂t = -∂(u p)/∂x + ½ε ∂²p/∂x², by finite differences.
func transports(t *testing.T, b flow, epsilon float64, times, places []float64) {
	t.Helper()
	density := func(when, x float64) float64 {
		m, err := b.Marginal(when)
		require.NoError(t, err)
		f, err := m.Density()
		require.NoError(t, err)
		return math.Exp(f.Log([]float64{x}))
	}
	for _, when := range times {
		drift, err := b.Drift(when)
		require.NoError(t, err)
		const h, dt = 1e-3, 1e-4
		flux := func(x float64) float64 {
			u := []float64{0}
			drift.At(u, []float64{x})
			p := (density(when, x+h) - density(when, x-h)) / (2 * h)
			return u[0]*density(when, x) - epsilon/2*p
		}
		for _, x := range places {
			rate := (density(when+dt, x) - density(when-dt, x)) / (2 * dt)
			require.InDelta(t, -(flux(x+h)-flux(x-h))/(2*h), rate, 2e-4*(1+math.Abs(rate)), "t = %g, x = %g", when, x)
		}
	}
}

func TestMixtureDensity(t *testing.T) {
	m := mix([]float64{.3, .7}, Normal{[]float64{1, 2}, sym(2, 2, .5, .5, 1)}, Isotropic([]float64{-1, 0}, .5))
	f, err := m.Density()
	require.NoError(t, err)
	x := []float64{.4, .9}
	// By the formula, with the inverse and the determinant of [[2, .5], [.5, 1]].
	square := (.6*.6*1 - 2*.6*1.1*.5 + 1.1*1.1*2) / 1.75
	one := .3 / (2 * math.Pi * math.Sqrt(1.75)) * math.Exp(-square/2)
	two := .7 / math.Pi * math.Exp(-(1.4*1.4 + .9*.9))
	require.InDelta(t, math.Log(one+two), f.Log(x), 1e-13)
	p := make([]float64, 2)
	f.Posterior(p, x)
	require.InDelta(t, one/(one+two), p[0], 1e-13)
	require.InDelta(t, 1, p[0]+p[1], 1e-15)
	far := f.Log([]float64{1e5, 0})
	require.False(t, math.IsInf(far, 0) || math.IsNaN(far))

	moments := m.Moments()
	near(t, vec([]float64{-.4, .6}), vec(moments.Mean), 1e-15)
	near(t, sym(2, .3*3+.7*1.5-.16, .15+.3*2+.24, .15+.3*2+.24, .3*5+.7*.5-.36), moments.Cov, 1e-14)
	const n = 50_000
	draws, err := m.Sample(n, 3)
	require.NoError(t, err)
	again, err := m.Sample(5, 3)
	require.NoError(t, err)
	require.Equal(t, draws[:10], again)
	for i := range 2 {
		mean, square, fourth := 0.0, 0.0, 0.0
		for s := range n {
			x := draws[2*s+i]
			mean += x / n
			square += x * x / n
			fourth += x * x * x * x / n
		}
		v := moments.Cov.At(i, i)
		require.InDelta(t, moments.Mean[i], mean, 4*math.Sqrt(v/n))
		require.InDelta(t, v+moments.Mean[i]*moments.Mean[i], square, 4*math.Sqrt((fourth-square*square)/n))
	}
	_, err = mix([]float64{1}, Dirac([]float64{1})).Density()
	require.ErrorIs(t, err, ErrInvalid)
	_, err = m.Sample(0, 1)
	require.ErrorIs(t, err, ErrInvalid)
}

// Of one component each it is the Schrödinger bridge.
func TestMixtureOfOne(t *testing.T) {
	source, target := reference()
	for _, ref := range []Reference{Brownian{Epsilon: .5, T: 2}, OU{Rate: 4}} {
		b := solveMixture(t, Single(source), Single(target), ref)
		want, err := Solve(source, target, ref)
		require.NoError(t, err)
		require.InDelta(t, want.KL, b.Bound, 1e-14)
		for _, when := range []float64{0, .3, ref.Horizon()} {
			law, err := b.Marginal(when)
			require.NoError(t, err)
			require.Equal(t, []float64{1}, law.Weights)
			near(t, marginal(t, want, when).Cov, law.Components[0].Cov, 0)
			drift, err := b.Drift(when)
			require.NoError(t, err)
			a, err := want.Drift(when)
			require.NoError(t, err)
			x, got, expected := []float64{.3, -2}, make([]float64, 2), make([]float64, 2)
			drift.At(got, x)
			a.At(expected, x)
			near(t, vec(expected), vec(got), 1e-15)
		}
	}
}

// gridKL is the relative entropy of the bridge between two densities on a line
// to Brownian motion from the source, by Sinkhorn's iteration on a grid: for
// smooth densities the sums are as good as integrals.
func gridKL(t *testing.T, source, target Mixture, epsilon float64) float64 {
	t.Helper()
	const n, low, high = 241, -9., 9.
	h := (high - low) / (n - 1)
	a, b := make([]float64, n), make([]float64, n)
	fa, err := source.Density()
	require.NoError(t, err)
	fb, err := target.Density()
	require.NoError(t, err)
	k := make([]float64, n*n)
	at := func(i int) float64 { return low + float64(i)*h }
	for i := range n {
		a[i], b[i] = h*math.Exp(fa.Log([]float64{at(i)})), h*math.Exp(fb.Log([]float64{at(i)}))
		for j := range n {
			k[i*n+j] = h / math.Sqrt(2*math.Pi*epsilon) * math.Exp(-(at(i)-at(j))*(at(i)-at(j))/(2*epsilon))
		}
	}
	u, v := make([]float64, n), slices.Repeat([]float64{1}, n)
	for range 300 {
		for i := range u {
			s := 0.0
			for j, x := range v {
				s += k[i*n+j] * x
			}
			u[i] = a[i] / s
		}
		for j := range v {
			s := 0.0
			for i, x := range u {
				s += k[i*n+j] * x
			}
			v[j] = b[j] / s
		}
	}
	kl := 0.0
	for i := range n {
		for j := range n {
			if p := u[i] * k[i*n+j] * v[j]; p > 0 {
				kl += p * math.Log(u[i]*v[j]/a[i])
			}
		}
	}
	return kl
}

func TestMixtureBound(t *testing.T) {
	for _, c := range []struct {
		source, target Mixture
		epsilon, slack float64
	}{
		{Single(line(0, 1)), Single(line(1, .3)), .5, 1e-9},
		{mix([]float64{.5, .5}, line(-2, .3), line(2, .3)), mix([]float64{.3, .7}, line(-1, .5), line(3, .2)), 1, math.Inf(1)},
		{Single(line(0, .5)), mix([]float64{.5, .5}, line(-2.5, .3), line(2.5, .3)), 2, math.Inf(1)},
		// Components that keep apart: nothing is lost.
		{mix([]float64{.5, .5}, line(-4, .1), line(4, .1)), mix([]float64{.5, .5}, line(-5, .3), line(5, .2)), .5, 1e-6},
	} {
		b := solveMixture(t, c.source, c.target, Brownian{Epsilon: c.epsilon})
		exact := gridKL(t, c.source, c.target, c.epsilon)
		t.Logf("bound %g, exact %g", b.Bound, exact)
		require.GreaterOrEqual(t, b.Bound, exact-1e-9)
		require.LessOrEqual(t, b.Bound, exact+c.slack)
		// The energy of the drift is between the two.
		energy := 0.0
		const steps, grid = 40, 400
		for k := range steps {
			when := (float64(k) + .5) / steps
			law, err := b.Marginal(when)
			require.NoError(t, err)
			density, err := law.Density()
			require.NoError(t, err)
			drift, err := b.Drift(when)
			require.NoError(t, err)
			for i := range grid {
				x, u := []float64{-10 + 20*float64(i)/grid}, []float64{0}
				drift.At(u, x)
				energy += u[0] * u[0] * math.Exp(density.Log(x)) * 20 / grid / steps
			}
		}
		kl := energy / (2 * c.epsilon)
		require.GreaterOrEqual(t, kl, exact-1e-3*exact)
		require.LessOrEqual(t, kl, b.Bound+1e-3*exact)
	}
}

// The coupling is the best one: no other vertex of a small polytope is better,
// and costs that are values of transport give the same.
func TestMixtureCoupling(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 10 {
		source, target := randomMixture(r, 2, 2, .2, 2), randomMixture(r, 2, 2, .2, 2)
		b := solveMixture(t, source, target, Brownian{Epsilon: .7})
		kl, value := make([]float64, 4), make([]float64, 4)
		for p := range 4 {
			one, err := Solve(source.Components[p/2], target.Components[p%2], Brownian{Epsilon: .7})
			require.NoError(t, err)
			kl[p], value[p] = one.KL, one.Value(.7)
		}
		best, bestValue, lambda := math.Inf(1), math.Inf(1), []float64(nil)
		a, c := source.Weights[0], target.Weights[0]
		for _, first := range []float64{max(0, a+c-1), min(a, c)} {
			vertex := []float64{first, a - first, c - first, 1 - a - c + first}
			cost, entropic := 0.0, 0.0
			for p, l := range vertex {
				cost += l * kl[p]
				entropic += l * value[p]
			}
			require.Equal(t, cost < best, entropic < bestValue)
			if cost < best {
				best, bestValue, lambda = cost, entropic, vertex
			}
		}
		require.InDelta(t, best, b.Bound, 1e-12)
		near(t, vec(lambda), vec(b.Coupling), 1e-12)
		rows, columns := []float64{0, 0}, []float64{0, 0}
		for p, l := range b.Coupling {
			rows[p/2] += l
			columns[p%2] += l
		}
		near(t, vec(source.Weights), vec(rows), 1e-15)
		near(t, vec(target.Weights), vec(columns), 1e-15)
		require.LessOrEqual(t, len(b.Pairs), 3)
	}
}

func TestMixtureTransports(t *testing.T) {
	source := mix([]float64{.4, .6}, line(-1, .4), line(1.5, .2))
	target := mix([]float64{.5, .3, .2}, line(-2, .2), line(0, .5), line(2, .3))
	b := solveMixture(t, source, target, Brownian{Epsilon: .8})
	transports(t, b, .8, []float64{.1, .5, .9}, []float64{-2, -.7, 0, .4, 1.6})
	for when, want := range map[float64]Mixture{0: source, 1: target} {
		law, err := b.Marginal(when)
		require.NoError(t, err)
		f, err := law.Density()
		require.NoError(t, err)
		g, err := want.Density()
		require.NoError(t, err)
		for _, x := range []float64{-3, -1, 0, .5, 2} {
			require.InDelta(t, g.Log([]float64{x}), f.Log([]float64{x}), 1e-12)
		}
	}
	// A point is a source like any other.
	point := solveMixture(t, Single(Dirac([]float64{.5})), target, Brownian{Epsilon: .8})
	transports(t, point, .8, []float64{.3, .9}, []float64{-1, 0, .8})
	_, err := point.Drift(0)
	require.ErrorIs(t, err, ErrInvalid)
}

// moments of the columns of paths at each time.
func sampled(paths []float64, n, times, d, q int) Normal {
	out := Dirac(make([]float64, d))
	for s := range n {
		for i := range d {
			out.Mean[i] += paths[(s*times+q)*d+i] / float64(n)
		}
	}
	for s := range n {
		for i := range d {
			for j := i; j < d; j++ {
				x, y := paths[(s*times+q)*d+i]-out.Mean[i], paths[(s*times+q)*d+j]-out.Mean[j]
				out.Cov.SetSym(i, j, out.Cov.At(i, j)+x*y/float64(n))
			}
		}
	}
	return out
}

func TestMixturePaths(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	const n = 10_000
	times := []float64{0, .2, .2, .7, 1}
	for _, ref := range []Reference{Brownian{Epsilon: .8}, OU{Rate: 2}, Linear{A: mat.NewDense(2, 2, []float64{-.5, 1, -.3, -.2}), D: sym(2, 1, .2, .2, .6)}} {
		b := solveMixture(t, randomMixture(r, 2, 2, .3, 1), randomMixture(r, 3, 2, .3, 1), ref)
		paths, err := b.Paths(t.Context(), n, times, 4)
		require.NoError(t, err)
		again, err := b.Paths(t.Context(), 3, times, 4)
		require.NoError(t, err)
		require.Equal(t, paths[:len(again)], again)
		for q, when := range times {
			law, err := b.Marginal(when)
			require.NoError(t, err)
			want, got := law.Moments(), sampled(paths, n, len(times), 2, q)
			for i := range 2 {
				require.InDelta(t, want.Mean[i], got.Mean[i], 4*math.Sqrt(want.Cov.At(i, i)/n), "mean at %g", when)
				for j := range 2 {
					// Of a mixture, fourth moments are below three times the
					// squares of the second ones for a normal law; with room.
					require.InDelta(t, want.Cov.At(i, j), got.Cov.At(i, j), 5*math.Sqrt(3*want.Cov.At(i, i)*want.Cov.At(j, j)/n), "covariance at %g", when)
				}
			}
		}
		for _, bad := range [][]float64{nil, {-1}, {.5, .2}, {2}, {math.NaN()}} {
			_, err := b.Paths(t.Context(), 2, bad, 0)
			require.ErrorIs(t, err, ErrInvalid)
		}
		_, err = b.Paths(t.Context(), 0, times, 0)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

func TestMixtureInvalid(t *testing.T) {
	good := Single(Isotropic([]float64{0, 0}, 1))
	for _, c := range []struct {
		m    Mixture
		want string
	}{
		{Mixture{}, "no components"},
		{Mixture{[]float64{1, 0}, good.Components}, "2 weights, want 1"},
		{Mixture{[]float64{.5}, good.Components}, "weights of sum 0.5, want 1"},
		{mix([]float64{1.5, -.5}, good.Components[0], good.Components[0]), "weight 1 is -0.5"},
		{mix([]float64{math.NaN()}, good.Components[0]), "weight 0 is NaN"},
		{mix([]float64{.5, .5}, good.Components[0], line(0, 1)), "component 1: invalid problem: dimension 1, want 2"},
		{mix([]float64{1}, Isotropic([]float64{0, 0}, -1)), "eigenvalue"},
	} {
		require.ErrorIs(t, c.m.Validate(), ErrInvalid)
		_, err := SolveMixture(t.Context(), c.m, good, Brownian{Epsilon: 1})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, c.want)
	}
	_, err := SolveMixture(t.Context(), good, good, nil)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = SolveMixture(t.Context(), good, good, Brownian{})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = SolveMixture(t.Context(), good, Single(Dirac([]float64{0, 0})), Brownian{Epsilon: 1})
	require.ErrorContains(t, err, "source component 0 to target component 0")
	b := solveMixture(t, good, good, Brownian{Epsilon: 1})
	_, err = b.Marginal(2)
	require.ErrorIs(t, err, ErrInvalid)
}
