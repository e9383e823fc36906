package gaussian

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"
)

func sym(d int, v ...float64) *mat.SymDense { return mat.NewSymDense(d, v) }

// near fails where an entry of got is further than tol from want; NaN fails.
func near(t *testing.T, want, got mat.Matrix, tol float64, what ...any) {
	t.Helper()
	r, c := want.Dims()
	gr, gc := got.Dims()
	require.Equal(t, [2]int{r, c}, [2]int{gr, gc}, what...)
	for i := range r {
		for j := range c {
			if diff := math.Abs(want.At(i, j) - got.At(i, j)); !(diff <= tol) {
				t.Fatalf("%v: [%d, %d]: got %.12g, want %.12g, off by %.3g > %.3g", what, i, j, got.At(i, j), want.At(i, j), diff, tol)
			}
		}
	}
}

func vec(v []float64) mat.Matrix { return mat.NewVecDense(len(v), v) }

func size(m mat.Matrix) float64 { return mat.Norm(m, 2) }

// randomSPD has eigenvalues from low to high, evenly spread in their logarithm.
func randomSPD(r *rand.Rand, d int, low, high float64) *mat.SymDense {
	noise := mat.NewDense(d, d, nil)
	noise.Apply(func(int, int, float64) float64 { return r.NormFloat64() }, noise)
	var qr mat.QR
	qr.Factorize(noise)
	var q mat.Dense
	qr.QTo(&q)
	scaled := mat.DenseCopyOf(&q)
	scaled.Apply(func(_, j int, v float64) float64 {
		return v * low * math.Pow(high/low, float64(j)/math.Max(1, float64(d-1)))
	}, scaled)
	return symmetric(product(scaled, q.T()))
}

func randomNormal(r *rand.Rand, d int, low, high float64) Normal {
	n := Normal{Mean: make([]float64, d), Cov: randomSPD(r, d, low, high)}
	for i := range n.Mean {
		n.Mean[i] = r.NormFloat64()
	}
	return n
}

// The pair that the tables of closed forms use.
func reference() (source, target Normal) {
	return Normal{[]float64{.2, -.1}, sym(2, 1.3, .4, .4, .8)}, Normal{[]float64{1, .5}, sym(2, 2, -.5, -.5, .9)}
}

func centred() (source, target Normal) {
	source, target = reference()
	source.Mean, target.Mean = []float64{0, 0}, []float64{0, 0}
	return source, target
}

func inverse(t *testing.T, m mat.Matrix) *mat.Dense {
	t.Helper()
	var out mat.Dense
	require.NoError(t, out.Inverse(m))
	return &out
}

func TestInvalid(t *testing.T) {
	good := Isotropic([]float64{0, 0}, 1)
	nan, inf := math.NaN(), math.Inf(1)
	normals := map[string]Normal{
		"empty":         {},
		"no covariance": {Mean: []float64{1}},
		"sizes":         {Mean: []float64{1}, Cov: sym(2, 1, 0, 0, 1)},
		"NaN mean":      {Mean: []float64{0, nan}, Cov: sym(2, 1, 0, 0, 1)},
		"Inf mean":      {Mean: []float64{0, inf}, Cov: sym(2, 1, 0, 0, 1)},
		"NaN":           {Mean: []float64{0, 0}, Cov: sym(2, 1, nan, nan, 1)},
		"NaN variance":  {Mean: []float64{0, 0}, Cov: sym(2, nan, 0, 0, 1)},
		"Inf":           {Mean: []float64{0, 0}, Cov: sym(2, inf, 0, 0, 1)},
		"indefinite":    {Mean: []float64{0, 0}, Cov: sym(2, 1, 2, 2, 1)},
		"negative":      Isotropic([]float64{0, 0}, -1),
	}
	singular := map[string]Normal{
		"zero":      Dirac([]float64{0, 0}),
		"rank one":  {Mean: []float64{0, 0}, Cov: sym(2, 1, 1, 1, 1)},
		"near rank": {Mean: []float64{0, 0}, Cov: sym(2, 1, 1, 1, 1+1e-16)},
		"flat":      {Mean: []float64{0, 0}, Cov: sym(2, 1, 0, 0, 0)},
	}
	check := func(t *testing.T, err error) {
		t.Helper()
		require.ErrorIs(t, err, ErrInvalid)
		require.Contains(t, err.Error(), "gaussian: ")
	}
	bass := func(p BassProblem) error { _, err := SolveBass(t.Context(), p); return err }
	for name, n := range normals {
		t.Run(name, func(t *testing.T) {
			check(t, n.Validate())
			_, err := Transport(n, good, 1)
			check(t, err)
			_, err = Transport(good, n, 1)
			check(t, err)
			_, err = Solve(n, good, Brownian{Epsilon: 1})
			check(t, err)
			check(t, bass(BassProblem{Source: n, Target: good, Epsilon: 1, Beta: 1}))
			check(t, bass(BassProblem{Source: good, Target: n, Epsilon: 1, Beta: 1}))
		})
	}
	for name, n := range singular {
		t.Run("singular/"+name, func(t *testing.T) {
			check(t, n.Validate())
			_, err := Transport(good, n, 1)
			check(t, err)
			_, err = Transport(n, good, 0)
			check(t, err)
			check(t, bass(BassProblem{Source: good, Target: n, Epsilon: 1, Beta: 1}))
			_, err = Transport(n, good, 1)
			require.NoError(t, err, "a singular source has a plan")
			require.NoError(t, bass(BassProblem{Source: n, Target: good, Epsilon: 1, Beta: 1}))
		})
	}
	for _, v := range []float64{0, -1, nan, inf, -inf, 1e-200, 1e200} {
		if v != 0 {
			_, err := Transport(good, good, v)
			check(t, err)
			_, err = Solve(good, good, OU{Rate: 1, T: v})
			check(t, err)
			check(t, bass(BassProblem{Source: good, Target: good, Epsilon: 1, Beta: 1, T: v}))
		}
		_, _, err := LightSB(good, good, v)
		check(t, err)
		_, err = Solve(good, good, Brownian{Epsilon: v})
		check(t, err)
		_, err = Solve(good, good, OU{Rate: v})
		check(t, err)
		check(t, bass(BassProblem{Source: good, Target: good, Epsilon: v, Beta: 1}))
		if !math.IsInf(v, 1) {
			check(t, bass(BassProblem{Source: good, Target: good, Epsilon: 1, Beta: v}))
		}
	}
	wide := Isotropic([]float64{0, 0, 0}, 1)
	_, err := Transport(good, wide, 1)
	check(t, err)
	check(t, bass(BassProblem{Source: good, Target: wide, Epsilon: 1, Beta: 1}))
	eye := mat.NewDense(2, 2, []float64{1, 0, 0, 1})
	for _, c := range []struct {
		f *mat.Dense
		q *mat.SymDense
	}{{nil, good.Cov}, {eye, nil}, {eye, wide.Cov}, {mat.NewDense(2, 3, nil), good.Cov}, {eye, sym(2, 1, 1, 1, 1)}, {eye, sym(2, -1, 0, 0, -1)}, {mat.NewDense(2, 2, []float64{1, nan, 0, 1}), good.Cov}} {
		_, err := Couple(good, good, c.f, c.q)
		check(t, err)
	}
	for _, l := range []Linear{{}, {A: eye}, {A: eye, D: wide.Cov}, {A: eye, D: sym(2, 1, 2, 2, 1)}, {A: eye, D: good.Cov, T: -1}, {A: mat.NewDense(2, 2, []float64{nan, 0, 0, 0}), D: good.Cov}} {
		_, err := Solve(good, good, l)
		check(t, err)
	}
	_, err = Solve(wide, wide, Linear{A: eye, D: good.Cov})
	check(t, err)
	_, err = Solve(good, good, Linear{A: eye, D: sym(2, 1, 0, 0, 0)})
	check(t, err)
	_, err = Solve(good, good, nil)
	check(t, err)

	b, err := Solve(Dirac([]float64{0, 0}), good, Brownian{Epsilon: 1, T: 2})
	require.NoError(t, err)
	s, err := SolveBass(t.Context(), BassProblem{Source: good, Target: good, Epsilon: 1, Beta: 1, T: 2})
	require.NoError(t, err)
	for _, at := range []float64{-1e-9, 2.0000001, nan, inf} {
		errs := make([]error, 9)
		_, errs[0] = b.Marginal(at)
		_, errs[1] = b.Drift(at)
		_, errs[2] = b.Score(at)
		_, errs[3] = s.Marginal(at)
		_, errs[4] = s.Drift(at)
		_, errs[5] = s.Control(at)
		_, errs[6] = s.Sigma(at)
		_, errs[7] = s.Map(at)
		_, errs[8] = s.Inverse(at)
		for _, err := range errs {
			check(t, err)
		}
	}
	_, err = b.Score(0)
	check(t, err)
}

// Arguments are copied, not kept.
func TestArgumentsStayTheCallers(t *testing.T) {
	source, target := reference()
	b, err := Solve(source, target, Brownian{Epsilon: .5})
	require.NoError(t, err)
	s, err := SolveBass(t.Context(), BassProblem{Source: source, Target: target, Epsilon: .5, Beta: 4})
	require.NoError(t, err)
	before, err := b.Marginal(.3)
	require.NoError(t, err)
	bassBefore, err := s.Marginal(.3)
	require.NoError(t, err)
	source.Cov.SetSym(0, 0, 77)
	target.Mean[1] = 77
	after, err := b.Marginal(.3)
	require.NoError(t, err)
	bassAfter, err := s.Marginal(.3)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Equal(t, bassBefore, bassAfter)
}

func TestErrorsNameEveryFault(t *testing.T) {
	err := BassProblem{Source: Isotropic([]float64{0}, -1), Target: Dirac([]float64{0}), Epsilon: -1, Beta: 0, T: -2}.Validate()
	require.ErrorIs(t, err, ErrInvalid)
	for _, word := range []string{"source", "target", "epsilon", "beta", "horizon"} {
		require.ErrorContains(t, err, word)
	}
	require.True(t, errors.Is(err, ErrInvalid))
}
