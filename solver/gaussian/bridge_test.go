package gaussian

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"
)

// references are processes of horizon T in two dimensions.
func references(T float64) map[string]Reference {
	return map[string]Reference{
		"brownian": Brownian{Epsilon: .5, T: T},
		"ou":       OU{Rate: 4, T: T},
		"linear":   Linear{A: mat.NewDense(2, 2, []float64{-.6, .4, -.2, .3}), D: sym(2, .9, .2, .2, .5), T: T},
		"kinetic":  Linear{A: mat.NewDense(2, 2, []float64{0, 1, -1, -.5}), D: sym(2, 0, 0, 0, 1), T: T},
	}
}

// The plan is the coupling of exact marginals whose joint precision has the
// reference's cross block: that characterises it.
func TestPlanCharacterisation(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, d := range []int{1, 2, 3, 7} {
		source, target := randomNormal(r, d, .2, 3), randomNormal(r, d, .1, 5)
		f := mat.DenseCopyOf(randomSPD(r, d, .5, 1.5))
		f.Add(f, product(randomSPD(r, d, .1, .3), randomSPD(r, d, .1, .9)))
		q := randomSPD(r, d, .3, 2)
		p, err := Couple(source, target, f, q)
		require.NoError(t, err)
		joint := p.Joint()
		require.NoError(t, joint.Validate())
		precision := inverse(t, joint.Cov)
		want := product(f.T(), inverse(t, q)) // the density is exp(-|y-Fx|²_{Q⁻¹}/2): cross block -FᵀQ⁻¹
		want.Scale(-1, want)
		near(t, want, precision.Slice(0, d, d, 2*d), 1e-11*size(precision), "cross precision, d =", d)
		near(t, target.Cov, add(product(p.Gain, source.Cov, p.Gain.T()), p.Noise), 1e-13*size(target.Cov), "target covariance")
		mean := apply(p.Gain, source.Mean)
		for i := range mean {
			mean[i] += p.Offset[i]
		}
		near(t, vec(target.Mean), vec(mean), 1e-13, "target mean")

		// Both relative entropies by the formula for two normal laws in 2d dimensions.
		independent := Dirac(joint.Mean)
		free := Dirac(append(append([]float64(nil), source.Mean...), apply(f, source.Mean)...))
		fs := product(f, source.Cov)
		fsf := add(product(fs, f.T()), q)
		for i := range d {
			for j := range d {
				independent.Cov.SetSym(i, j, source.Cov.At(i, j))
				independent.Cov.SetSym(d+i, d+j, target.Cov.At(i, j))
				free.Cov.SetSym(i, j, source.Cov.At(i, j))
				free.Cov.SetSym(d+i, j, fs.At(i, j))
				free.Cov.SetSym(d+i, d+j, fsf.At(i, j))
			}
		}
		require.InDelta(t, kl(t, joint, independent), p.Information, 1e-11)
		require.InDelta(t, kl(t, joint, free), p.KL, 1e-11)
	}
}

func add(a, b mat.Matrix) *mat.Dense {
	var out mat.Dense
	out.Add(a, b)
	return &out
}

func kl(t *testing.T, p, q Normal) float64 {
	t.Helper()
	precision := inverse(t, q.Cov)
	shift := minus(q.Mean, p.Mean)
	logdet := func(s *mat.SymDense) float64 { v, sign := mat.LogDet(s); require.Equal(t, 1.0, sign); return v }
	quadratic := mat.Dot(mat.NewVecDense(len(shift), shift), mat.NewVecDense(len(shift), apply(precision, shift)))
	return (mat.Trace(product(precision, p.Cov)) - float64(p.Dim()) + quadratic + logdet(q.Cov) - logdet(p.Cov)) / 2
}

// The laws of every bridge: exact ends, the drift transports the marginals, the
// score is that of the marginal, the process is the same seen from a later time.
func TestBridgeLaws(t *testing.T) {
	source, target := reference()
	for _, T := range []float64{1, 2.5} {
		for name, ref := range references(T) {
			t.Run(fmt.Sprint(name, T), func(t *testing.T) {
				b, err := Solve(source, target, ref)
				require.NoError(t, err)
				_, noise := ref.sde(2)
				for _, tau := range []float64{1e-3, .3, .5, .9, .999} {
					at := tau * T
					const h = 1e-4
					low, high := marginal(t, b, at-h*T), marginal(t, b, at+h*T)
					here := marginal(t, b, at)
					drift, err := b.Drift(at)
					require.NoError(t, err)
					k := drift.Gain
					rate := add(add(product(k, here.Cov), product(here.Cov, k.T())), noise)
					var diff mat.Dense
					diff.Sub(high.Cov, low.Cov)
					diff.Scale(1/(2*h*T), &diff)
					near(t, rate, &diff, 2e-6, "dΣ/dt at", tau)
					push := make([]float64, 2)
					drift.At(push, here.Mean)
					velocity := minus(high.Mean, low.Mean)
					near(t, vec([]float64{velocity[0] / (2 * h * T), velocity[1] / (2 * h * T)}), vec(push), 2e-6, "dm/dt at", tau)

					score, err := b.Score(at)
					require.NoError(t, err)
					near(t, identity(2, -1), product(score.Gain, here.Cov), 1e-12, "score")
					zero := make([]float64, 2)
					score.At(zero, here.Mean)
					near(t, vec([]float64{0, 0}), vec(zero), 1e-12, "score at the mean")

					// A bridge restarted from X_t is the rest of the bridge.
					if tau == .3 || tau == .9 {
						rest, err := Solve(here, target, later(ref, T-at))
						require.NoError(t, err)
						for _, sigma := range []float64{0, .5, 1} {
							want, err := b.Drift(at + sigma*(T-at))
							require.NoError(t, err)
							got, err := rest.Drift(sigma * (T - at))
							require.NoError(t, err)
							near(t, want.Gain, got.Gain, 2e-11*(1+size(want.Gain)), "restart", tau, sigma)
							near(t, vec(want.Offset), vec(got.Offset), 2e-11*(1+size(want.Gain)), "restart", tau, sigma)
						}
						require.Less(t, rest.KL, b.KL)
					}
				}
				// The potential is a gradient, and bounded at both ends.
				for _, at := range []float64{0, .4 * T, T} {
					p, err := b.Potential(at)
					require.NoError(t, err)
					near(t, p.Gain, p.Gain.T(), 1e-12*(1+size(p.Gain)), "symmetry at", at)
				}
				ends := marginal(t, b, T*(1-1e-9))
				near(t, target.Cov, ends.Cov, 1e-7)
				ends = marginal(t, b, T*1e-9)
				near(t, source.Cov, ends.Cov, 1e-7)
			})
		}
	}
}

func marginal(t *testing.T, b *Bridge, at float64) Normal {
	t.Helper()
	n, err := b.Marginal(at)
	require.NoError(t, err)
	return n
}

func later(ref Reference, T float64) Reference {
	switch r := ref.(type) {
	case Brownian:
		r.T = T
		return r
	case OU:
		r.T = T
		return r
	case Linear:
		r.T = T
		return r
	}
	panic("unknown reference")
}

// Brownian motion and OU are linear processes.
func TestReferencesAgree(t *testing.T) {
	source, target := reference()
	for _, c := range []struct{ short, long Reference }{
		{Brownian{Epsilon: .5, T: 1.5}, Linear{A: mat.NewDense(2, 2, nil), D: identity(2, .5), T: 1.5}},
		{OU{Rate: 4, T: 1.5}, Linear{A: mat.DenseCopyOf(identity(2, -2)), D: identity(2, 4), T: 1.5}},
		{OU{Rate: 30}, Linear{A: mat.DenseCopyOf(identity(2, -15)), D: identity(2, 30)}},
	} {
		a, err := Solve(source, target, c.short)
		require.NoError(t, err)
		b, err := Solve(source, target, c.long)
		require.NoError(t, err)
		require.InDelta(t, a.KL, b.KL, 1e-12)
		require.InDelta(t, a.Information, b.Information, 1e-12)
		near(t, a.Cross(), b.Cross(), 1e-13)
		for _, at := range []float64{0, .2, .7, 1} {
			at *= c.short.Horizon()
			near(t, marginal(t, a, at).Cov, marginal(t, b, at).Cov, 1e-12)
			da, err := a.Drift(at)
			require.NoError(t, err)
			db, err := b.Drift(at)
			require.NoError(t, err)
			near(t, da.Gain, db.Gain, 1e-11*(1+size(da.Gain)))
			near(t, vec(da.Offset), vec(db.Offset), 1e-11*(1+size(da.Gain)))
		}
	}
	// The transition of dX = -½b D X dt + √b dW with a D that is not symmetric.
	b := 1.2875
	a := mat.NewDense(2, 2, []float64{1.2, .3, -.1, .8})
	a.Scale(-b/2, a)
	k := Linear{A: a, D: identity(2, b)}.over(1, 2)
	near(t, mat.NewDense(2, 2, []float64{.458726136, -.101522276, .033840759, .594089171}), k.f, 6e-10)
	near(t, sym(2, .66001653, -.042520923, -.042520923, .802075959), k.q, 6e-10)
}

// Scaling x by c and ε by c² scales the plan; a rotation and a shift turn and
// shift it; a Brownian plan reversed is its transpose.
func TestSymmetries(t *testing.T) {
	source, target := reference()
	p, err := Transport(source, target, .5)
	require.NoError(t, err)
	c := 7.5
	scale := func(n Normal) Normal {
		n = n.clone()
		n.Cov.ScaleSym(c*c, n.Cov)
		for i := range n.Mean {
			n.Mean[i] *= c
		}
		return n
	}
	scaled, err := Transport(scale(source), scale(target), .5*c*c)
	require.NoError(t, err)
	near(t, p.Gain, scaled.Gain, 1e-14)
	require.InDelta(t, p.KL, scaled.KL, 1e-13)
	require.InDelta(t, c*c*p.Value(.5), scaled.Value(.5*c*c), 1e-11)

	turn := mat.NewDense(2, 2, []float64{math.Cos(.7), -math.Sin(.7), math.Sin(.7), math.Cos(.7)})
	rotate := func(n Normal) Normal {
		return Normal{apply(turn, n.Mean), symmetric(product(turn, n.Cov, turn.T()))}
	}
	rotated, err := Transport(rotate(source), rotate(target), .5)
	require.NoError(t, err)
	near(t, product(turn, p.Gain, turn.T()), rotated.Gain, 1e-14)
	require.InDelta(t, p.Value(.5), rotated.Value(.5), 1e-13)

	reversed, err := Transport(target, source, .5)
	require.NoError(t, err)
	near(t, p.Cross(), reversed.Cross().T(), 1e-14)
	require.InDelta(t, p.Value(.5), reversed.Value(.5), 1e-13)
}

// ε → ∞ gives independence, ε → 0 optimal transport, of which commuting
// covariances have the elementary form.
func TestLimitsOfEpsilon(t *testing.T) {
	source, target := reference()
	far, err := Transport(source, target, 1e9)
	require.NoError(t, err)
	near(t, mat.NewDense(2, 2, nil), far.Gain, 1e-8)
	require.InDelta(t, 0, far.Information, 1e-8)
	ot, err := Transport(source, target, 0)
	require.NoError(t, err)
	near(t, target.Cov, product(ot.Gain, source.Cov, ot.Gain.T()), 1e-14)
	near(t, ot.Gain, ot.Gain.T(), 0)
	require.True(t, math.IsInf(ot.Information, 1))
	last := ot.Cost()
	for _, eps := range []float64{1e-12, 1e-9, 1e-6, 1e-3, 1, 1e3} {
		p, err := Transport(source, target, eps)
		require.NoError(t, err)
		near(t, ot.Gain, p.Gain, 2*eps+1e-14)
		require.GreaterOrEqual(t, p.Value(eps), last, "the value grows with ε")
		require.GreaterOrEqual(t, p.Cost(), ot.Cost())
		last = p.Value(eps)
	}
	s0, t0 := centred()
	centredOT, err := Transport(s0, t0, 0)
	require.NoError(t, err)
	require.InDelta(t, .41489009453207215, 2*centredOT.Cost(), 1e-15)

	a, b := Normal{[]float64{0, 1}, sym(2, 4, 0, 0, 9)}, Normal{[]float64{3, 1}, sym(2, 1, 0, 0, 25)}
	p, err := Transport(a, b, 0)
	require.NoError(t, err)
	near(t, sym(2, .5, 0, 0, 5./3), p.Gain, 1e-15)
	require.InDelta(t, 9+1+4, 2*p.Cost(), 1e-14)
}

// A point as source: the bridge is Föllmer's, its plan the target itself.
func TestDiracSource(t *testing.T) {
	_, target := reference()
	source := Dirac([]float64{.3, .7})
	for name, ref := range references(1) {
		b, err := Solve(source, target, ref)
		require.NoError(t, err, name)
		near(t, target.Cov, b.Noise, 1e-14, name)
		near(t, mat.NewDense(2, 2, nil), b.Cross(), 0, name)
		require.InDelta(t, 0, b.Information, 1e-15)
		k := ref.over(1, 2)
		require.InDelta(t, kl(t, target, Normal{apply(k.f, source.Mean), k.q}), b.KL, 1e-12, name)
		end := marginal(t, b, 1-1e-9)
		near(t, target.Cov, end.Cov, 1e-7, name)
	}
	// δ₀ → N(0, ε): the reference itself.
	b, err := Solve(Dirac([]float64{0}), Isotropic([]float64{0}, 2), Brownian{Epsilon: 2})
	require.NoError(t, err)
	for _, at := range []float64{0, .5, 1} {
		drift, err := b.Drift(at)
		require.NoError(t, err)
		near(t, mat.NewDense(1, 1, nil), drift.Gain, 1e-15)
		require.InDelta(t, 0, b.KL, 1e-15)
	}
	// A source of rank one is the limit of regular ones.
	line := Normal{[]float64{0, 0}, sym(2, 1, 2, 2, 4)}
	fat := Normal{[]float64{0, 0}, sym(2, 1+1e-10, 2, 2, 4+1e-10)}
	p, err := Transport(line, target, .5)
	require.NoError(t, err)
	q, err := Transport(fat, target, .5)
	require.NoError(t, err)
	near(t, p.Gain, q.Gain, 1e-8)
}

// Whatever the scales, the plan solves its equation to the accuracy that the
// conditioning of the covariances leaves.
func TestIllConditioned(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, s0 := range []float64{1e-8, 1, 1e8} {
		for _, s1 := range []float64{1e-8, 1, 1e8} {
			for _, eps := range []float64{1e-8, 1e-3, 1, 1e8} {
				for _, spread := range []float64{1, 1e4, 1e8} {
					d := 4
					source := randomNormal(r, d, s0/math.Sqrt(spread), s0*math.Sqrt(spread))
					target := randomNormal(r, d, s1/math.Sqrt(spread), s1*math.Sqrt(spread))
					b, err := Solve(source, target, Brownian{Epsilon: eps})
					require.NoError(t, err)
					near(t, target.Cov, add(product(b.Gain, source.Cov, b.Gain.T()), b.Noise), 1e-13*spread*size(target.Cov), s0, s1, eps, spread)
					require.NoError(t, Normal{target.Mean, b.Noise}.check("noise"))
					require.False(t, math.IsNaN(b.KL) || math.IsInf(b.KL, 0) || b.KL < -1e-9, "%g %g %g: KL %g", s0, s1, eps, b.KL)
					drift, err := b.Drift(1)
					require.NoError(t, err)
					require.NoError(t, finite("drift", drift.Gain))
				}
			}
		}
	}
	// Variances 16 orders of magnitude apart: the small one keeps its leading digits.
	graded := Normal{[]float64{0, 0}, sym(2, 1e-8, .3, .3, 1e8)}
	p, err := Transport(graded, Normal{[]float64{0, 0}, sym(2, 1e-6, -.5, -.5, 1e6)}, 1e-3)
	require.NoError(t, err)
	got := add(product(p.Gain, graded.Cov, p.Gain.T()), p.Noise)
	require.InEpsilon(t, 1e-6, got.At(0, 0), 1e-4)
	require.InEpsilon(t, 1e6, got.At(1, 1), 1e-12)
}

func TestBrownianValues(t *testing.T) {
	source, target := centred()
	b, err := Solve(source, target, Brownian{Epsilon: .5})
	require.NoError(t, err)
	near(t, mat.NewDense(2, 2, []float64{1.325898596, -.123261422, .170015754, .526824551}), b.Cross(), 6e-10)
	near(t, sym(2, 1.47887741, .16081841, .16081841, .799266312), marginal(t, b, .3).Cov, 6e-10)
	drift, err := b.Drift(.3)
	require.NoError(t, err)
	near(t, sym(2, .08675474, -.360283301, -.360283301, -.214359081), drift.Gain, 6e-10)
	require.InDelta(t, 1.0129765751161186, b.Information, 1e-14)
	require.InDelta(t, 1.1537651406340834, b.Value(.5), 1e-14)

	// The same in other units of time.
	slow, err := Solve(source, target, Brownian{Epsilon: .125, T: 4})
	require.NoError(t, err)
	near(t, b.Gain, slow.Gain, 1e-15)
	slowly, err := slow.Drift(1.2)
	require.NoError(t, err)
	slowly.Gain.Scale(4, slowly.Gain)
	near(t, drift.Gain, slowly.Gain, 1e-14)
}

func TestOUValues(t *testing.T) {
	source, target := centred()
	b, err := Solve(source, target, OU{Rate: 4})
	require.NoError(t, err)
	near(t, mat.NewDense(2, 2, []float64{.317262129, -.037946969, .052340647, .071261086}), b.Cross(), 6e-10)
	near(t, sym(2, 1.147054052, .096192885, .096192885, .929970955), marginal(t, b, .3).Cov, 6e-10)
	a, err := b.Potential(.3)
	require.NoError(t, err)
	near(t, sym(2, .056222351, -.02953396, -.02953396, -.006524004), a.Gain, 6e-10)
}

func TestLinearValues(t *testing.T) {
	source, target := centred()
	p, err := Couple(source, target, mat.NewDense(2, 2, []float64{.6, .2, -.1, .5}), sym(2, .7, .1, .1, .4))
	require.NoError(t, err)
	near(t, mat.NewDense(2, 2, []float64{1.177727015, -.298232494, .283859705, .347239446}), p.Cross(), 6e-10)
}

func TestLightSBValues(t *testing.T) {
	source, target := reference()
	const eps = .5
	s, r, err := LightSB(source, target, eps)
	require.NoError(t, err)
	near(t, sym(2, 1.128082471, -.351521543, -.351521543, .834291461), s, 6e-10)
	near(t, vec([]float64{.739231351, .653733455}), vec(r), 6e-10)
	near(t, target.Cov, add(product(s, source.Cov, s), scaledBy(eps, s)), 1e-14)
	// Population value of E log c(x₀) - E log v(x₁).
	loss := (mat.Trace(product(s, source.Cov)) + mat.Inner(mat.NewVecDense(2, source.Mean), s, mat.NewVecDense(2, source.Mean)) +
		2*mat.Dot(mat.NewVecDense(2, r), mat.NewVecDense(2, source.Mean))) / (2 * eps)
	inv := inverse(t, s)
	gap := minus(target.Mean, r)
	loss += (mat.Trace(product(inv, target.Cov)) + mat.Inner(mat.NewVecDense(2, gap), inv, mat.NewVecDense(2, gap))) / (2 * eps)
	logdet, _ := mat.LogDet(s)
	loss += logdet/2 + math.Log(2*math.Pi*eps)
	require.InDelta(t, 6.049474250606756, loss, 1e-13)

	s, r, err = LightSB(Isotropic([]float64{0}, 1), Isotropic([]float64{.8}, 2.25), .5)
	require.NoError(t, err)
	require.InDelta(t, 1.2706906325745548, s.At(0, 0), 1e-15)
	require.InDelta(t, .8, r[0], 1e-15)
}

func scaledBy(c float64, m mat.Matrix) *mat.Dense {
	var out mat.Dense
	out.Scale(c, m)
	return &out
}
