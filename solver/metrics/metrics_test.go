package metrics

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

var background = context.Background()

// fixedSets are A_i = (sin 1.3i, cos .7i), B_i = (1 + sin(.9i+1), .5 cos(1.1i−.4)).
func fixedSets() (x, y Cloud) {
	x.D, y.D = 2, 2
	for k := range 8 {
		i := float64(k)
		x.X = append(x.X, math.Sin(1.3*i), math.Cos(.7*i))
		y.X = append(y.X, 1+math.Sin(.9*i+1), .5*math.Cos(1.1*i-.4))
	}
	return x, y
}

func normals(seed uint64, n, d int) Cloud {
	r := rand.New(rand.NewPCG(seed, 9))
	c := Cloud{X: make([]float64, n*d), D: d}
	for i := range c.X {
		c.X[i] = r.NormFloat64()
	}
	return c
}

func moved(c Cloud, shift, scale float64) Cloud {
	out := Cloud{X: slices.Clone(c.X), D: c.D, W: c.W}
	for i := range out.X {
		out.X[i] = shift + scale*out.X[i]
	}
	return out
}

func within(t *testing.T, got, want, tol float64, what string) {
	t.Helper()
	if !(math.Abs(got-want) <= tol) {
		t.Fatalf("%s: got %.17g, want %.17g within %g", what, got, want, tol)
	}
}

// digits is the tolerance of a value given to so many decimals.
func digits(n int) float64 { return 0.51 * math.Pow(10, -float64(n)) }

func TestFixedSets(t *testing.T) {
	x, y := fixedSets()
	check := func(what string, want, tol float64) func(float64, error) {
		return func(got float64, err error) {
			t.Helper()
			require.NoError(t, err, what)
			within(t, got, want, tol, what)
		}
	}
	check("w2", 1.1041595517, digits(10))(W2(background, x, y))
	check("w1", 1.0370629848, digits(10))(W1(background, x, y))
	weighted := Cloud{X: x.X, D: 2}
	for i := range 8 {
		weighted.W = append(weighted.W, float64(i+1))
	}
	check("weighted w2", math.Sqrt(1.25491794008), digits(11))(W2(background, weighted, y))
	check("bw2uvp", 145.3982860910, digits(10))(BW2UVP(background, x, y))
	check("fid", 1.0590864132, digits(10))(FID(background, x, y))

	var directions []float64
	for k := range 4 {
		a := float64(k) * math.Pi / 4
		directions = append(directions, math.Cos(a), math.Sin(a))
	}
	check("sliced w2", math.Sqrt(.5298431814647419), 4e-16)(SlicedW2(background, x, y, directions))
	check("sliced w2", .7279032775, digits(10))(SlicedW2(background, x, y, directions))

	check("energy V", .6780706901, digits(10))(Energy(background, x, y, VStatistic))
	check("energy U", .3786643532, digits(10))(Energy(background, x, y, UStatistic))
	check("energy half", .1893321766, digits(10))(Energy(background, x, y, HalfUStatistic))
	check("mmd V", .2431831534, digits(10))(MMD(background, x, y, 1, VStatistic))
	check("mmd U", .1210135916, digits(10))(MMD(background, x, y, 1, UStatistic))
	check("median", 1.1898379487, digits(10))(MedianDistance(background, x, y))
}

func TestCRPS(t *testing.T) {
	f := Forecast{N: 20, T: 3, K: 2, Target: []float64{.2, -.1, .9, .4, 1.3, 1.1}}
	for s := range 20 {
		for u := range 3 {
			for k := range 2 {
				f.Samples = append(f.Samples, math.Sin(.37*float64(s)+1.1*float64(u)+.5*float64(k))+.5*float64(u))
			}
		}
	}
	v, err := CRPSSum(background, f)
	require.NoError(t, err)
	within(t, v.Value, .3313950010, digits(10), "CRPS-sum")
	require.Equal(t, 20, v.Floor.Repetitions)
	require.Equal(t, 19, v.Floor.N)
	all, err := CRPS(background, f)
	require.NoError(t, err)
	within(t, all, .3436798432, digits(10), "CRPS over all series")
	losses, err := QuantileLosses(background, f.summed())
	require.NoError(t, err)
	within(t, losses[9], .1949805684, digits(10), "median's quantile loss")

	// The floor of a calibrated forecast agrees with its score on fresh targets.
	r := rand.New(rand.NewPCG(3, 3))
	g := Forecast{N: 100, T: 40, K: 1}
	draw := func(n int) []float64 {
		x := make([]float64, n)
		for i := range x {
			x[i] = 10 + r.NormFloat64()
		}
		return x
	}
	g.Samples = draw(100 * 40)
	var scores []float64
	var floor Floor
	for range 40 {
		g.Target = draw(40)
		v, err := CRPSSum(background, g)
		require.NoError(t, err)
		scores, floor = append(scores, v.Value), v.Floor
	}
	s := summarise(scores)
	standardError := math.Hypot(s.Std/math.Sqrt(40), floor.Std/math.Sqrt(float64(floor.Repetitions)))
	within(t, floor.Mean, s.Mean, 4*standardError, "floor of a calibrated forecast, 4 standard errors")

	for name, bad := range map[string]Forecast{
		"shape":   {N: 1, T: 1, K: 0},
		"target":  {N: 1, T: 2, K: 1, Target: []float64{1}, Samples: []float64{1, 2}},
		"samples": {N: 2, T: 1, K: 1, Target: []float64{1}, Samples: []float64{1}},
		"nan":     {N: 1, T: 1, K: 1, Target: []float64{math.NaN()}, Samples: []float64{1}},
		"zeros":   {N: 1, T: 1, K: 1, Target: []float64{0}, Samples: []float64{1}},
	} {
		_, err := CRPSSum(background, bad)
		require.ErrorIs(t, err, ErrInvalid, name)
	}
}

func TestStraightness(t *testing.T) {
	p := Paths{N: 1, T: 101, D: 2, Step: .01}
	for i := range 101 {
		s := float64(i) * .01
		p.X = append(p.X, s*s, math.Sin(3*s))
	}
	v, err := Straightness(background, p)
	require.NoError(t, err)
	within(t, v[0].Value, 2, 1e-10, "t²") // differences of 1 rounded to 2⁻⁵³, over h²
	within(t, v[1].Value, 6.0229617266, 1e-10, "sin 3t")

	line := Paths{N: 3, T: 11, D: 1, Step: .1}
	for i := range 3 {
		for k := range 11 {
			line.X = append(line.X, float64(i)+float64(k)*float64(i+1))
		}
	}
	v, err = Straightness(background, line)
	require.NoError(t, err)
	require.Zero(t, v[0].Value)
	d, err := Deviation(background, line)
	require.NoError(t, err)
	within(t, d.Value, 0, 1e-25, "deviation of lines")
	// x = t²: X_1 − X_0 = 1, dX/dt = 2t, ∫(1 − 2t)² dt = 1/3, by intervals 1/3 − 1/(3n²).
	d, err = Deviation(background, Paths{N: 1, T: 101, D: 1, Step: .01, X: project(p.X, []float64{1, 0})})
	require.NoError(t, err)
	within(t, d.Value, 1./3-1./30000, 1e-12, "deviation of t²")
	for _, bad := range []Paths{{}, {N: 1, T: 3, D: 1, X: []float64{1, 2, 3}}, {N: 1, T: 3, D: 1, X: []float64{1, 2}, Step: 1}, {N: 1, T: 3, D: 1, X: []float64{1, 2, math.Inf(1)}, Step: 1}} {
		_, err := Straightness(background, bad)
		require.ErrorIs(t, err, ErrInvalid)
		_, err = Deviation(background, bad)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

// Every distance is symmetric or knows why not, is invariant under permutations
// and under translation of both clouds, scales as its dimension says, and does
// not see a point split in two of half its weight.
func TestLaws(t *testing.T) {
	x, y := normals(1, 60, 3), moved(normals(2, 45, 3), .4, 1.3)
	directions := RandomDirections(20, 3, 5)
	for _, c := range []struct {
		name      string
		f         func(x, y Cloud) (float64, error)
		power     float64
		symmetric bool
		splits    bool // U-statistics and divisors n − 1 know the number of points
	}{
		{"w2", func(x, y Cloud) (float64, error) { return W2(background, x, y) }, 1, true, true},
		{"w1", func(x, y Cloud) (float64, error) { return W1(background, x, y) }, 1, true, true},
		{"sw2", func(x, y Cloud) (float64, error) { return SlicedW2(background, x, y, directions) }, 1, true, true},
		{"energy", func(x, y Cloud) (float64, error) { return Energy(background, x, y, VStatistic) }, 1, true, true},
		{"energy-u", func(x, y Cloud) (float64, error) { return Energy(background, x, y, UStatistic) }, 1, true, false},
		{"mmd", func(x, y Cloud) (float64, error) { return MMD(background, x, y, 0, VStatistic) }, 0, true, false},
		{"mmd-u", func(x, y Cloud) (float64, error) { return MMD(background, x, y, 0, UStatistic) }, 0, true, false},
		{"fid", func(x, y Cloud) (float64, error) { return FID(background, x, y) }, 2, true, false},
		{"bw2uvp", func(x, y Cloud) (float64, error) { return BW2UVP(background, x, y) }, 0, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := func(x, y Cloud) float64 {
				v, err := c.f(x, y)
				require.NoError(t, err)
				return v
			}
			base := f(x, y)
			require.Positive(t, base)
			tol := 1e-12 * (1 + base)
			if c.symmetric {
				within(t, f(y, x), base, tol, "symmetry")
			}
			within(t, f(moved(x, 0, 4), moved(y, 0, 4)), math.Pow(4, c.power)*base, 16*tol, "scale")
			// 1e6 rounds coordinates to 2⁻³³ of a unit.
			within(t, f(moved(x, 1e6, 1), moved(y, 1e6, 1)), base, 1e-8*(1+base), "translation")
			r := rand.New(rand.NewPCG(7, 7))
			within(t, f(reordered(x, r.Perm(x.N())), y), base, tol, "permutation")
			weights := Cloud{X: x.X, D: x.D, W: slices.Repeat([]float64{7}, x.N())}
			within(t, f(weights, y), base, tol, "equal weights")
			if c.splits {
				s := Cloud{X: append(slices.Clone(x.X), x.X[:3]...), D: 3, W: slices.Repeat([]float64{2}, x.N()+1)}
				s.W[0], s.W[x.N()] = 1, 1
				within(t, f(s, y), base, tol, "split and merge")
				empty := Cloud{X: append(slices.Clone(x.X), 50, 50, 50), D: 3, W: append(slices.Repeat([]float64{2}, x.N()), 0)}
				within(t, f(empty, y), base, tol, "a point without weight")
			}
			if c.name != "energy-u" && c.name != "mmd-u" {
				within(t, f(x, x), 0, 1e-7, "of a cloud to itself")
			}
		})
	}
}

func reordered(c Cloud, rows []int) Cloud {
	out := Cloud{D: c.D}
	for _, i := range rows {
		out.X = append(out.X, c.X[i*c.D:(i+1)*c.D]...)
	}
	return out
}

// The definition of weighted W1 and W2 on the line, by exact transport in a
// plane that the points do not leave.
func TestQuantileCoupling(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 1))
	for _, s := range [][2]int{{1, 1}, {1, 5}, {7, 7}, {30, 17}, {100, 101}} {
		x, y := normals(uint64(s[0]), s[0], 1), normals(uint64(s[1])+100, s[1], 1)
		for i := range x.X {
			x.W = append(x.W, float64(r.IntN(4)))
			x.X[i] = math.Round(4*x.X[i]) / 4
		}
		x.W[0]++
		for range y.X {
			y.W = append(y.W, r.ExpFloat64())
		}
		flat := func(c Cloud) Cloud {
			out := Cloud{D: 2, W: c.W}
			for _, v := range c.X {
				out.X = append(out.X, v, 0)
			}
			return out
		}
		for _, f := range []func(context.Context, Cloud, Cloud) (float64, error){W1, W2} {
			line, err := f(background, x, y)
			require.NoError(t, err)
			plane, err := f(background, flat(x), flat(y))
			require.NoError(t, err)
			within(t, line, plane, 1e-12, "line and plane")
		}
	}
}

// Normal laws whose covariances commute: Σ(√λ − √λ')².
func TestFrechet(t *testing.T) {
	p := Gaussian{Mean: []float64{1, 2, 0}, Cov: []float64{4, 0, 0, 0, 9, 0, 0, 0, 0}}
	q := Gaussian{Mean: []float64{1, 0, 0}, Cov: []float64{1, 0, 0, 0, 0, 0, 0, 0, 16}}
	v, err := Frechet(background, p, q)
	require.NoError(t, err)
	within(t, v, 4+1+9+16, 1e-13, "diagonal covariances, some singular")
	u, err := GaussianBW2UVP(background, p, q)
	require.NoError(t, err)
	within(t, u, 100*v/17, 1e-12, "bw2uvp")
	_, err = Frechet(background, p, Gaussian{Mean: []float64{1}, Cov: []float64{1}})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = Frechet(background, p, Gaussian{Mean: q.Mean, Cov: slices.Repeat([]float64{math.NaN()}, 9)})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = GaussianBW2UVP(background, p, Gaussian{Mean: q.Mean, Cov: make([]float64, 9)})
	require.ErrorIs(t, err, ErrInvalid)
}

func TestMoments(t *testing.T) {
	// 0, 0, 0, 4: mean 1, central moments (divisor 4) 3, 6, 21.
	c := Cloud{X: []float64{0, 5, 0, 5, 0, 5, 4, 5}, D: 2}
	for _, shift := range []float64{0, 1e6} {
		m, err := MomentsOf(background, moved(c, shift, 1))
		require.NoError(t, err)
		within(t, m.Mean[0], 1+shift, 0, "mean")
		within(t, m.Cov[0], 4, 1e-15, "variance, divisor n − 1")
		within(t, m.Std[0], 2, 1e-15, "std")
		within(t, m.Skewness[0], 6/math.Pow(3, 1.5), 1e-14, "skewness")
		within(t, m.Kurtosis[0], 21./9-3, 1e-14, "kurtosis")
		require.Zero(t, m.Skewness[1])
		require.Zero(t, m.Kurtosis[1])
	}
	one, err := MomentsOf(background, Cloud{X: []float64{1e6, 2}, D: 2})
	require.NoError(t, err)
	require.Equal(t, []float64{0, 0, 0, 0}, one.Cov)

	// Weights count as repetitions, up to the divisor 1 − Σw².
	w, err := MomentsOf(background, Cloud{X: []float64{0, 4}, D: 1, W: []float64{3, 1}})
	require.NoError(t, err)
	within(t, w.Cov[0], 3/(1-10./16), 1e-14, "weighted variance")
	within(t, w.Skewness[0], 6/math.Pow(3, 1.5), 1e-14, "weighted skewness")
}

func TestModes(t *testing.T) {
	centres := []float64{-10, 0, 10, 0, 0, 50}
	c := Cloud{X: []float64{-11, 0, -9, 0, 10, 2, 10, 0, 10, 4, 13, 30}, D: 2}
	m, err := Modes(background, c, centres, 5)
	require.NoError(t, err)
	within(t, m.Mass[0], 2./6, 1e-15, "mass")
	within(t, m.Mass[1], 3./6, 1e-15, "mass")
	within(t, m.Mass[2], 1./6, 1e-15, "mass")
	within(t, m.Outliers, 1./6, 1e-15, "outliers")
	within(t, m.ModeStd[0], math.Sqrt(1./2), 1e-15, "std of a mode")
	within(t, m.ModeStd[1], math.Sqrt(8./6), 1e-15, "std of a mode")
	require.Zero(t, m.ModeStd[2])
	within(t, m.Std, 1, 1e-15, "std within modes") // (2 + 8) / (5 points × 2 axes)
	tv, err := TotalVariation(m.Mass, []float64{1. / 3, 1. / 3, 1. / 3})
	require.NoError(t, err)
	within(t, tv, 1./6, 1e-15, "total variation")
	_, err = TotalVariation([]float64{1}, nil)
	require.ErrorIs(t, err, ErrInvalid)
	for _, bad := range [][]float64{nil, {1}, {1, math.NaN()}} {
		_, err := Modes(background, c, bad, 1)
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, err = Modes(background, c, centres, -1)
	require.ErrorIs(t, err, ErrInvalid)
}

func TestRandomDirections(t *testing.T) {
	u := RandomDirections(1000, 3, 1)
	require.Equal(t, u, RandomDirections(1000, 3, 1))
	require.NotEqual(t, u, RandomDirections(1000, 3, 2))
	mean := make([]float64, 3)
	for k := range 1000 {
		within(t, math.Sqrt(squaredDistance(u[3*k:3*k+3], []float64{0, 0, 0})), 1, 1e-15, "length")
		for i := range mean {
			mean[i] += u[3*k+i] / 1000
		}
	}
	for _, v := range mean { // each coordinate has variance 1/3
		within(t, v, 0, 4*math.Sqrt(1./3/1000), "mean direction, 4 standard errors")
	}
}
