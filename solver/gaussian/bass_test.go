package gaussian

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"
)

func bass(t *testing.T, p BassProblem) *Bass {
	t.Helper()
	s, err := SolveBass(t.Context(), p)
	require.NoError(t, err)
	return s
}

func scalar(m0, v0, m1, v1, eps, beta, T float64) BassProblem {
	return BassProblem{Isotropic([]float64{m0}, v0), Isotropic([]float64{m1}, v1), eps, beta, T}
}

// stateAt gathers what a solution says about a time.
type stateAt struct {
	law                         Normal
	drift, control, on, inverse Affine
	sigma                       *mat.SymDense
}

func at(t *testing.T, s *Bass, when float64) (x stateAt) {
	t.Helper()
	var errs [6]error
	x.law, errs[0] = s.Marginal(when)
	x.drift, errs[1] = s.Drift(when)
	x.control, errs[2] = s.Control(when)
	x.on, errs[3] = s.Map(when)
	x.inverse, errs[4] = s.Inverse(when)
	x.sigma, errs[5] = s.Sigma(when)
	for _, err := range errs {
		require.NoError(t, err)
	}
	return x
}

// constraint is Σ_T as the defining equation gives it from R, by matrix inverses.
func constraint(t *testing.T, s *Bass) *mat.Dense {
	t.Helper()
	d := s.Source.Dim()
	var m mat.Dense
	m.Sub(identity(d, 1), scaledBy(s.T, s.R))
	inv := inverse(t, &m)
	if math.IsInf(s.Beta, 1) {
		return add(product(inv, s.Source.Cov, inv), scaledBy(s.Epsilon*s.T, inv))
	}
	var left, right mat.Dense
	left.Sub(identity(d, s.Beta), s.R)
	right.Sub(&left, scaledBy(s.Beta*s.T, s.R))
	return add(product(inv, s.Source.Cov, inv), scaledBy(s.Epsilon*s.T*s.Beta*s.Beta, product(inverse(t, &left), inverse(t, &right))))
}

// laws checks a solution against everything that it has to satisfy.
func laws(t *testing.T, s *Bass) {
	t.Helper()
	d := s.Source.Dim()
	tol := 1e-10
	near(t, s.Target.Cov, constraint(t, s), tol*size(s.Target.Cov), "defining equation")
	require.LessOrEqual(t, s.Residual, tol)
	require.InDelta(t, s.J/2, s.Dual, tol*(1+math.Abs(s.J)))
	values, _, err := eigen(s.R)
	require.NoError(t, err)
	if !math.IsInf(s.Beta, 1) {
		require.Less(t, values[d-1], s.Beta/(1+s.Beta*s.T))
	}
	values, _, err = eigen(s.S)
	require.NoError(t, err)
	require.Greater(t, values[0], 1/(1+s.Beta*s.T)*(1-1e-12), "the floor of S")
	start, end := at(t, s, 0), at(t, s, s.T)
	near(t, s.Source.Cov, start.law.Cov, tol*size(s.Source.Cov))
	near(t, s.Target.Cov, end.law.Cov, tol*size(s.Target.Cov))
	near(t, s.R, end.drift.Gain, tol*(1+size(s.R)))

	// Behind X is a Brownian Schrödinger bridge Y between its own marginals.
	y0, yT := image(start.inverse, start.law), image(end.inverse, end.law)
	if y0.Validate() == nil {
		gain, offset, err := LightSB(y0, yT, s.Epsilon*s.T)
		require.NoError(t, err)
		near(t, gain, s.S, tol*(1+size(gain)), "S")
		near(t, vec(offset), vec(s.Offset), tol*(1+size(vec(offset))), "r")
		near(t, s.Cross, product(start.on.Gain, y0.Cov, gain, end.on.Gain), tol*(1+size(s.Cross)), "Cov(X₀, X_T)")
	}

	cost := make([]float64, 0, 65)
	shift := squares(minus(s.Target.Mean, s.Source.Mean)) / (s.T * s.T)
	for k := range cap(cost) {
		when := s.T * float64(k) / 64
		x := at(t, s, when)
		near(t, identity(d, 1), product(x.on.Gain, x.inverse.Gain), 1e-9, "map and inverse")
		near(t, x.sigma, scaledBy(math.Sqrt(s.Epsilon), x.on.Gain), tol*(1+size(x.sigma)))
		if !math.IsInf(s.Beta, 1) { // α(t, X) = s(t, Y), X = Y + s/β
			y := make([]float64, d)
			for i := range y {
				y[i] = math.Sin(float64(i) + 3*when)
			}
			sy, xy, ax := make([]float64, d), make([]float64, d), make([]float64, d)
			x.control.At(sy, y)
			x.on.At(xy, y)
			x.drift.At(ax, xy)
			near(t, vec(sy), vec(ax), 1e-9*(1+size(vec(sy))), "drift of X is control of Y")
			for i := range y {
				require.InDelta(t, y[i]+sy[i]/s.Beta, xy[i], 1e-9*(1+math.Abs(xy[i])))
			}
		}
		var off mat.Dense
		off.Sub(x.sigma, identity(d, math.Sqrt(s.Epsilon)))
		pay := shift + mat.Trace(product(x.drift.Gain, x.law.Cov, x.drift.Gain))
		if !math.IsInf(s.Beta, 1) {
			pay += s.Beta * squares(off.RawMatrix().Data)
		}
		cost = append(cost, pay)
		if k%16 == 8 { // V' = qV + Vq + σσᵀ
			h := 1e-4 * s.T
			low, high := at(t, s, when-h), at(t, s, when+h)
			var diff mat.Dense
			diff.Sub(high.law.Cov, low.law.Cov)
			diff.Scale(1/(2*h), &diff)
			rate := add(add(product(x.drift.Gain, x.law.Cov), product(x.law.Cov, x.drift.Gain)), product(x.sigma, x.sigma))
			near(t, rate, &diff, 1e-5*(1+size(rate)), "variance equation")
			var push = make([]float64, d)
			x.drift.At(push, x.law.Mean)
			near(t, scaledBy(1/s.T, vec(minus(s.Target.Mean, s.Source.Mean))), vec(push), 1e-9*(1+size(vec(s.Target.Mean))), "mean")
		}
	}
	// J is the time integral of its integrand (Simpson; smooth where R is moderate).
	integral := 0.0
	for k := 0; k < 64; k += 2 {
		integral += (cost[k] + 4*cost[k+1] + cost[k+2]) * s.T / 64 / 3
	}
	require.InDelta(t, s.J, integral, 1e-3*(1e-6+s.J), "J as an integral")
}

func image(a Affine, n Normal) Normal {
	mean := make([]float64, n.Dim())
	a.At(mean, n.Mean)
	return Normal{mean, symmetric(product(a.Gain, n.Cov, a.Gain.T()))}
}

func TestBassLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	inf := math.Inf(1)
	for _, d := range []int{1, 2, 5} {
		for _, beta := range []float64{.5, 1, 4, 100, 1e6, inf} {
			for _, T := range []float64{0, 2} {
				p := BassProblem{randomNormal(r, d, .3, 3), randomNormal(r, d, .2, 6), .7, beta, T}
				s := bass(t, p)
				laws(t, s)
				require.LessOrEqual(t, s.Iterations, 20)
			}
		}
	}
	laws(t, bass(t, BassProblem{Source: Dirac([]float64{1, 2}), Target: randomNormal(r, 2, .3, 4), Epsilon: .7, Beta: 3}))
	flat := Normal{[]float64{0, 0}, sym(2, 1, 2, 2, 4)}
	laws(t, bass(t, BassProblem{Source: flat, Target: randomNormal(r, 2, .3, 4), Epsilon: .7, Beta: 3}))
}

// Infinite beta is the Schrödinger bridge; finite ones come to it like 1/β.
func TestBassLimit(t *testing.T) {
	source, target := reference()
	b, err := Solve(source, target, Brownian{Epsilon: .5, T: 2})
	require.NoError(t, err)
	s := bass(t, BassProblem{source, target, .5, math.Inf(1), 2})
	near(t, b.Cross(), s.Cross, 1e-14)
	require.InDelta(t, 2*.5*b.KL, s.J, 1e-13) // E∫|α|² = 2ε KL
	for _, when := range []float64{0, .6, 2} {
		x := at(t, s, when)
		near(t, marginal(t, b, when).Cov, x.law.Cov, 1e-14)
		drift, err := b.Drift(when)
		require.NoError(t, err)
		near(t, drift.Gain, x.drift.Gain, 1e-13)
		near(t, vec(drift.Offset), vec(x.drift.Offset), 1e-13)
		near(t, identity(2, math.Sqrt(.5)), x.sigma, 1e-15)
	}
	last := 0.0
	for _, beta := range []float64{1e-3, .1, .5, 1, 4, 100, 1e6, 1e12} {
		f := bass(t, BassProblem{source, target, .5, beta, 2})
		require.Greater(t, f.J, last, "J grows with beta")
		last = f.J
		if beta >= 100 {
			near(t, s.Cross, f.Cross, 2/beta+1e-12)
		}
	}
	require.InDelta(t, s.J, last, 1e-11)
}

// Time and space in other units: with ε' = εT, β' = βT on [0, 1] the same plan
// and J = J'/T; with x scaled by c, ε by c² and J by c².
func TestBassUnits(t *testing.T) {
	source, target := reference()
	long := bass(t, BassProblem{source, target, .5, 3, 2})
	short := bass(t, BassProblem{source, target, 1, 6, 0})
	near(t, short.Cross, long.Cross, 1e-14)
	near(t, short.S, long.S, 1e-14)
	require.InDelta(t, short.J/2, long.J, 1e-14)
	c := 1e3
	scale := func(n Normal) Normal {
		n = n.clone()
		n.Cov.ScaleSym(c*c, n.Cov)
		for i := range n.Mean {
			n.Mean[i] *= c
		}
		return n
	}
	wide := bass(t, BassProblem{scale(source), scale(target), .5 * c * c, 3, 2})
	near(t, long.R, wide.R, 1e-13)
	require.InEpsilon(t, c*c*long.J, wide.J, 1e-13)
}

// Independent coordinates do not mix, in whatever basis they are given.
func TestBassSeparates(t *testing.T) {
	for beta, want := range map[float64]float64{2: 4.15491296, 10: 5.30297361, 100: 5.81764892} {
		target := Normal{[]float64{0, 0}, sym(2, 10, 0, 0, .1)}
		s := bass(t, BassProblem{Source: Isotropic([]float64{0, 0}, 1), Target: target, Epsilon: 1, Beta: beta})
		require.InDelta(t, want, s.J, 6e-9)
		turn := mat.NewDense(2, 2, []float64{.6, -.8, .8, .6})
		target.Cov = symmetric(product(turn, target.Cov, turn.T()))
		turned := bass(t, BassProblem{Source: s.Source, Target: target, Epsilon: 1, Beta: beta})
		require.InDelta(t, s.J, turned.J, 1e-12)
		near(t, product(turn, s.R, turn.T()), turned.R, 1e-12)
	}
}

// Non-commuting covariances at all scales: the solver converges, to the
// accuracy that their conditioning leaves.
func TestBassIllConditioned(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	worst := 0
	for _, beta := range []float64{1e-4, .5, 1, 30, 1e6, math.Inf(1)} {
		for _, s0 := range []float64{1e-8, 1e-3, 1, 1e8} {
			for _, s1 := range []float64{1e-8, 1, 1e3, 1e8} {
				for _, spread := range []float64{1, 1e3, 1e8} {
					d := 3
					low, high := 1/math.Sqrt(spread), math.Sqrt(spread)
					p := BassProblem{Source: randomNormal(r, d, s0*low, s0*high), Target: randomNormal(r, d, s1*low, s1*high), Epsilon: 1, Beta: beta}
					s, err := SolveBass(t.Context(), p)
					require.NoError(t, err, "beta %g, %g → %g, spread %g", beta, s0, s1, spread)
					tol := 1e-10
					if spread == 1e8 {
						tol = acceptable
					}
					require.LessOrEqual(t, s.Residual, tol, "beta %g, %g → %g, spread %g", beta, s0, s1, spread)
					end, err := s.Marginal(1)
					require.NoError(t, err)
					near(t, s.Target.Cov, end.Cov, 2*tol*size(s.Target.Cov), "beta", beta, s0, s1, spread)
					require.InEpsilon(t, s.J/2, s.Dual, 1e-5, "beta %g, %g → %g, spread %g", beta, s0, s1, spread)
					worst = max(worst, s.Iterations)
				}
			}
		}
	}
	t.Log("most Newton steps:", worst)
	require.Less(t, worst, newtons)
}

// The iterative Newton step of large dimensions, which the small ones of these
// tests do not take.
func TestBassLarge(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, beta := range []float64{.5, 10} {
		p := BassProblem{Source: randomNormal(r, 40, .1, 10), Target: randomNormal(r, 40, .1, 10), Epsilon: .5, Beta: beta}
		s := bass(t, p)
		near(t, p.Target.Cov, constraint(t, s), 1e-10*size(p.Target.Cov))
		require.InDelta(t, s.J/2, s.Dual, 1e-9*s.J)
	}
	// Both steps solve the same equation.
	e := equation{a: .4, u: .3, sigma0: randomSPD(r, 6, .1, 10), sigma1: randomSPD(r, 6, .1, 10)}
	_, vectors, err := eigen(randomSPD(r, 6, .1, 10))
	require.NoError(t, err)
	h := e.hessian(e.at(vectors, []float64{-2, -1, 0, 1, 1, 2}))
	want, got, image := h.direct(), h.iterate(t.Context(), 1e-13), mat.NewDense(6, 6, nil)
	near(t, want, got, 1e-10*size(want))
	h.apply(image, want)
	near(t, scaledBy(-1, h.gradient), image, 1e-11*size(h.gradient))
}

// H is the derivative of the gradient, which is that of φ.
func TestBassDerivatives(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	e := equation{a: .4, u: .3, sigma0: randomSPD(r, 3, .1, 10), sigma1: randomSPD(r, 3, .1, 10)}
	values, vectors, err := eigen(randomSPD(r, 3, .3, 3))
	require.NoError(t, err)
	for i := range values {
		values[i] = math.Log(values[i])
	}
	p := e.at(vectors, values)
	step := mat.DenseCopyOf(randomSPD(r, 3, .1, 1))
	change := p.logarithmic(step)
	const small = 1e-5
	low, err := e.move(p, change, -small)
	require.NoError(t, err)
	high, err := e.move(p, change, small)
	require.NoError(t, err)
	require.InDelta(t, dot(p.gradient, step), (high.phi-low.phi)/(2*small), 1e-7*math.Abs(p.phi))
	plain := func(q *point) *mat.Dense { return product(q.vectors, q.gradient, q.vectors.T()) }
	var diff mat.Dense
	diff.Sub(plain(high), plain(low))
	diff.Scale(1/(2*small), &diff)
	image := mat.NewDense(3, 3, nil)
	e.hessian(p).apply(image, step)
	near(t, product(p.vectors, image, p.vectors.T()), &diff, 1e-7*size(image))
}

func TestBassScalarValues(t *testing.T) {
	for _, c := range []struct{ beta, v, r, q0, sigma0, sigmaT, cov, j float64 }{
		{2, 10, 0.5121260333, 1.0497096962, 2.1046200219, 1.3441998750, 2.0497096962, 2.9055164745},
		{2, .1, -3.6718677803, -0.7859528465, 0.7178872401, 0.3526175287, 0.2140471535, 1.2493964852},
		{10, 10, 0.6141332565, 1.5915682472, 1.1892824125, 1.0654317042, 2.5915682472, 3.4875310875},
		{10, .1, -6.1180498008, -0.8595120815, 0.9208516851, 0.6204224533, 0.1404879185, 1.8154425208},
		{100, 10, 0.6284750346, 1.6916091597, 1.0172071697, 1.0063244982, 2.6916091597, 3.5922457502},
		{100, .1, -9.0781423870, -0.9007753650, 0.9910726616, 0.9167739550, 0.0992246350, 2.2254031687},
	} {
		s := bass(t, scalar(0, 1, 0, c.v, 1, c.beta, 0))
		x0, xT := at(t, s, 0), at(t, s, 1)
		got := []float64{s.R.At(0, 0), xT.drift.Gain.At(0, 0), x0.drift.Gain.At(0, 0), x0.sigma.At(0, 0), xT.sigma.At(0, 0), s.Cross.At(0, 0), s.J}
		near(t, vec([]float64{c.r, c.r, c.q0, c.sigma0, c.sigmaT, c.cov, c.j}), vec(got), 6e-11, "beta", c.beta, "variance", c.v)
	}
	s := bass(t, scalar(0, 1.5, 1.2, .6, .7, 3, 2))
	x0, xT := at(t, s, 0), at(t, s, 2)
	near(t, vec([]float64{-0.8099446486, 0.5725432756, .7584964053, .6587969934, 1.2733081803}),
		vec([]float64{s.R.At(0, 0), s.Cross.At(0, 0), x0.sigma.At(0, 0), xT.sigma.At(0, 0), s.J}), 6e-11)
	require.InDelta(t, 0.27665409015+1.2*1.2/2/2, s.Dual, 6e-12)
	laws(t, s)
	// S of LightSBB-M's one component.
	for beta, want := range map[float64]float64{10: .2085169, 2: .4357745, .5: .7055961} {
		require.InDelta(t, want, bass(t, scalar(0, 1, 0, .1, 1, beta, 0)).S.At(0, 0), 6e-8)
	}
}

func TestBassMatrixValues(t *testing.T) {
	source, target := centred()
	for _, c := range []struct{ beta, r11, r12, r22, j float64 }{
		{4, -0.013661801, -0.383898257, -0.328179204, 0.3568427134},
		{1, -.022151784, -.305624088, -.274781201, .2843441402},
	} {
		s := bass(t, BassProblem{Source: source, Target: target, Epsilon: .5, Beta: c.beta})
		near(t, sym(2, c.r11, c.r12, c.r12, c.r22), s.R, 6e-10)
		require.InDelta(t, c.j, s.J, 6e-11)
		if c.beta == 4 {
			near(t, mat.NewDense(2, 2, []float64{1.31204642, -.078071042, .18695834, .548289732}), s.Cross, 6e-9)
		}
	}
	s := bass(t, BassProblem{Source: source, Target: target, Epsilon: .5, Beta: 1e6})
	near(t, mat.NewDense(2, 2, []float64{1.3258985, -.1232612, .1700158, .5268247}), s.Cross, 1e-7)
}

func TestBassDirac(t *testing.T) {
	for _, beta := range []float64{.5, 2, 10, 1e6, math.Inf(1)} { // the reference itself
		s := bass(t, scalar(0, 0, 0, 1, 1, beta, 0))
		require.InDelta(t, 0, s.R.At(0, 0), 1e-15)
		require.InDelta(t, 0, s.J, 1e-15)
		for _, when := range []float64{0, .5, 1} {
			require.InDelta(t, 1, at(t, s, when).sigma.At(0, 0), 1e-15)
		}
	}
	for _, c := range []struct{ beta, r, sigma0, sigmaT float64 }{
		{2, .4514162296, 1.6990558469, 1.2915026221},
		{10, .6656119305, 1.2485232025, 1.0713075057},
	} {
		s := bass(t, scalar(0, 0, 0, 4, 1, c.beta, 0))
		require.InDelta(t, c.r, s.R.At(0, 0), 6e-11)
		require.InDelta(t, c.sigma0, at(t, s, 0).sigma.At(0, 0), 6e-11)
		require.InDelta(t, c.sigmaT, at(t, s, 1).sigma.At(0, 0), 6e-11)
		require.Zero(t, s.Cross.At(0, 0))
		if c.beta == 10 {
			require.InDelta(t, 0.7069565509, s.Dual, 6e-11)
		}
		laws(t, s)
	}
}

func TestBassCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	source, target := reference()
	_, err := SolveBass(ctx, BassProblem{Source: source, Target: target, Epsilon: 1, Beta: 1})
	require.ErrorIs(t, err, context.Canceled)
}
