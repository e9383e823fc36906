package gaussian

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"
)

func fromPotentials(t *testing.T, left, right Mixture, ref Brownian) *PotentialBridge {
	t.Helper()
	b, err := FromPotentials(left, right, ref)
	require.NoError(t, err)
	return b
}

// Every bridge between two normal laws is one of potentials with one component.
func TestPotentialOfOne(t *testing.T) {
	source, target := reference()
	ref := Brownian{Epsilon: .25, T: 2}
	want, err := Solve(source, target, ref)
	require.NoError(t, err)
	s, r, err := LightSB(source, target, .5)
	require.NoError(t, err)
	v := mat.NewSymDense(2, nil)
	v.ScaleSym(.5, s)
	// Left is the source over E[exp(⟨x, Y⟩/ε)], Y ~ Right.
	precision, linear := inverse(t, source.Cov), apply(inverse(t, source.Cov), source.Mean)
	var p mat.Dense
	p.Add(precision, scaledBy(1/.25, v))
	for i := range linear {
		linear[i] -= r[i] / .5
	}
	cov := symmetric(inverse(t, &p))
	left := Normal{apply(cov, linear), cov}
	b := fromPotentials(t, Single(left), Single(Normal{r, v}), ref)
	near(t, want.Joint().Cov, b.Plan.Components[0].Cov, 1e-12)
	near(t, vec(want.Joint().Mean), vec(b.Plan.Components[0].Mean), 1e-12)
	for _, when := range []float64{0, .6, 2} {
		law, err := b.Marginal(when)
		require.NoError(t, err)
		near(t, marginal(t, want, when).Cov, law.Components[0].Cov, 1e-12)
		near(t, vec(marginal(t, want, when).Mean), vec(law.Components[0].Mean), 1e-12)
		drift, err := b.Drift(when)
		require.NoError(t, err)
		a, err := want.Drift(when)
		require.NoError(t, err)
		near(t, a.Gain, drift.drifts[0].Gain, 1e-11)
		near(t, vec(a.Offset), vec(drift.drifts[0].Offset), 1e-11)
	}
}

func onLine() (left, right Mixture, ref Brownian) {
	return mix([]float64{.3, .7}, line(-1, .2), line(1, .15)),
		mix([]float64{.5, .2, .3}, line(-1, .3), line(.5, .1), line(2, .4)), Brownian{Epsilon: .4, T: 1.5}
}

// The closed forms against integrals of the definition on a grid.
func TestPotentialByIntegration(t *testing.T) {
	left, right, ref := onLine()
	b := fromPotentials(t, left, right, ref)
	eps := ref.Epsilon * ref.T
	fl, err := left.Density()
	require.NoError(t, err)
	fr, err := right.Density()
	require.NoError(t, err)
	const n, low, high = 700, -14., 14.
	h := (high - low) / n
	at := func(i int) float64 { return low + float64(i)*h }
	logs := func(f *MixtureDensity) []float64 {
		out := make([]float64, n)
		for i := range out {
			out[i] = f.Log([]float64{at(i)})
		}
		return out
	}
	l, r := logs(fl), logs(fr)
	source, target, total := make([]float64, n), make([]float64, n), 0.0
	for i := range n {
		for j := range n {
			p := math.Exp(l[i] + r[j] + at(i)*at(j)/eps)
			source[i] += p
			target[j] += p
			total += p * h * h
		}
	}
	for _, side := range []struct {
		law    Mixture
		values []float64
	}{{b.Source, source}, {b.Target, target}} {
		f, err := side.law.Density()
		require.NoError(t, err)
		for i := 0; i < n; i += 7 {
			require.InDelta(t, side.values[i]*h/total, math.Exp(f.Log([]float64{at(i)})), 1e-10, "at %g", at(i))
		}
	}
	// Given a start, and at a time on the way.
	for _, x := range []float64{-2, .3, 1.7} {
		law, err := b.Conditional([]float64{x})
		require.NoError(t, err)
		f, err := law.Density()
		require.NoError(t, err)
		sum := 0.0
		for j := range n {
			sum += h * math.Exp(r[j]+x*at(j)/eps)
		}
		for j := 0; j < n; j += 7 {
			require.InDelta(t, math.Exp(r[j]+x*at(j)/eps)/sum, math.Exp(f.Log([]float64{at(j)})), 1e-10)
		}
	}
	for _, when := range []float64{0, .2, 1, 1.4} {
		drift, err := b.Drift(when)
		require.NoError(t, err)
		for _, x := range []float64{-2, .3, 1.7} {
			// h_t(x) = ∫ N(y | x, ε(1-τ)) e^(y²/2ε) Right(y) dy.
			rest := ref.Epsilon * (ref.T - when)
			top, weight, mean := math.Inf(-1), 0.0, 0.0
			term := func(j int) float64 {
				y := at(j)
				return r[j] + y*y/(2*eps) - (y-x)*(y-x)/(2*rest)
			}
			for j := range n {
				top = max(top, term(j))
			}
			for j := range n {
				p := math.Exp(term(j) - top)
				weight += p
				mean += p * at(j)
			}
			got := []float64{0}
			drift.At(got, []float64{x})
			require.InDelta(t, (mean/weight-x)/(ref.T-when), got[0], 1e-9, "drift at %g, %g", when, x)
		}
	}
}

func TestPotentialTransports(t *testing.T) {
	left, right, ref := onLine()
	b := fromPotentials(t, left, right, ref)
	transports(t, b, ref.Epsilon, []float64{.1, .8, 1.4}, []float64{-3, -1.2, 0, .9, 2.5})
	// At the horizon the drift is the limit from before it.
	last, err := b.Drift(ref.T)
	require.NoError(t, err)
	before, err := b.Drift(ref.T * (1 - 1e-9))
	require.NoError(t, err)
	x, u := []float64{0}, []float64{0}
	last.At(x, []float64{.7})
	before.At(u, []float64{.7})
	require.InDelta(t, u[0], x[0], 1e-7)
}

// It is the bridge: Sinkhorn's plan between its marginals is its plan.
func TestPotentialIsOptimal(t *testing.T) {
	left, right, ref := onLine()
	b := fromPotentials(t, left, right, ref)
	eps := ref.Epsilon * ref.T
	kl := gridKL(t, b.Source, b.Target, eps)
	// KL of the plan to the source followed by Brownian motion, by quadrature.
	plan, err := b.Plan.Density()
	require.NoError(t, err)
	source, err := b.Source.Density()
	require.NoError(t, err)
	want := 0.0
	const n, low, high = 241, -9., 9.
	h := (high - low) / (n - 1)
	for i := range n {
		for j := range n {
			x, y := low+float64(i)*h, low+float64(j)*h
			log := plan.Log([]float64{x, y})
			want += h * h * math.Exp(log) * (log - source.Log([]float64{x}) + (x-y)*(x-y)/(2*eps) + math.Log(2*math.Pi*eps)/2)
		}
	}
	require.InDelta(t, want, kl, 1e-6)
	upper := solveMixture(t, b.Source, b.Target, ref)
	require.GreaterOrEqual(t, upper.Bound, kl)
}

func TestPotentialInTwoDimensions(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	left, right := randomMixture(r, 2, 2, .1, .3), randomMixture(r, 3, 2, .1, .3)
	b := fromPotentials(t, left, right, Brownian{Epsilon: .8})
	// The cross block of every component's precision is -I/ε (Bunne et al.).
	for _, n := range b.Plan.Components {
		near(t, identity(2, -1/.8), inverse(t, n.Cov).Slice(0, 2, 2, 4), 1e-9)
	}
	require.InDelta(t, 1, sum(b.Plan.Weights), 1e-14)
	const n = 10_000
	times := []float64{0, .4, 1}
	paths, err := b.Paths(t.Context(), n, times, 5)
	require.NoError(t, err)
	for q, when := range times {
		law, err := b.Marginal(when)
		require.NoError(t, err)
		want, got := law.Moments(), sampled(paths, n, len(times), 2, q)
		for i := range 2 {
			require.InDelta(t, want.Mean[i], got.Mean[i], 4*math.Sqrt(want.Cov.At(i, i)/n))
			for j := range 2 {
				require.InDelta(t, want.Cov.At(i, j), got.Cov.At(i, j), 5*math.Sqrt(3*want.Cov.At(i, i)*want.Cov.At(j, j)/n))
			}
		}
	}
	// Drift is ε∇log h, so that its Jacobian is symmetric.
	drift, err := b.Drift(.3)
	require.NoError(t, err)
	at := func(x, y float64) (u [2]float64) {
		drift.At(u[:], []float64{x, y})
		return u
	}
	const d = 1e-5
	right1, left1, up, down := at(.3+d, -.2), at(.3-d, -.2), at(.3, -.2+d), at(.3, -.2-d)
	require.InDelta(t, right1[1]-left1[1], up[0]-down[0], 1e-9)
}

func TestPotentialInvalid(t *testing.T) {
	left, right, ref := onLine()
	_, err := FromPotentials(left, Single(Isotropic([]float64{0, 0}, 1)), ref)
	require.ErrorContains(t, err, "dimension 2, want 1 as left")
	_, err = FromPotentials(Mixture{}, right, ref)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = FromPotentials(left, right, Brownian{})
	require.ErrorIs(t, err, ErrInvalid)
	// √(P V) has to be below ε.
	_, err = FromPotentials(Single(line(0, 1)), Single(line(0, 1)), Brownian{Epsilon: .9})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "smaller variances")
	fromPotentials(t, Single(line(0, 1)), Single(line(0, 1)), Brownian{Epsilon: 1.1})
	b := fromPotentials(t, left, right, ref)
	_, err = b.Conditional([]float64{1, 2})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = b.Marginal(-1)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = b.Drift(2)
	require.ErrorIs(t, err, ErrInvalid)
}

func sum(x []float64) (s float64) {
	for _, v := range x {
		s += v
	}
	return s
}
