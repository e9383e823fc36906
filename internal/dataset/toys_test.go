package dataset

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// moments of a distribution in the plane.
type moments struct{ mx, my, vx, vy, cxy float64 }

func (m moments) stretched(sx, sy float64) moments {
	return moments{sx * m.mx, sy * m.my, sx * sx * m.vx, sy * sy * m.vy, sx * sy * m.cxy}
}

// curve integrates the moments of a curve over u uniform on [0, 1], by the
// midpoint rule.
func curve(at func(u float64) (x, y float64)) moments {
	const n = 1_000_000
	var m moments
	var xx, yy, xy float64
	for i := range n {
		x, y := at((float64(i) + 0.5) / n)
		m.mx, m.my = m.mx+x/n, m.my+y/n
		xx, yy, xy = xx+x*x/n, yy+y*y/n, xy+x*y/n
	}
	m.vx, m.vy, m.cxy = xx-m.mx*m.mx, yy-m.my*m.my, xy-m.mx*m.my
	return m
}

// TestPlaneMoments compares 200,000 draws with exact moments. The threshold is
// five standard errors of each estimator, themselves estimated from the draws.
func TestPlaneMoments(t *testing.T) {
	rolled := curve(func(u float64) (x, y float64) {
		t := 1.5 * math.Pi * (1 + 2*u)
		return t * math.Cos(t) / 7.5, t * math.Sin(t) / 7.5
	})
	rolled.vx += 0.8 * 0.8 / 7.5 / 7.5
	rolled.vy += 0.8 * 0.8 / 7.5 / 7.5
	halves := curve(func(u float64) (x, y float64) {
		if u < 0.5 {
			return math.Cos(2 * math.Pi * u), math.Sin(2 * math.Pi * u)
		}
		return 1 - math.Cos(2*math.Pi*(u-0.5)), 0.5 - math.Sin(2*math.Pi*(u-0.5))
	})
	// times 3, minus 1, after a shift of mean .1 and variance .04/12 that both
	// coordinates share.
	const shift = 0.2 * 0.2 / 12
	shifted := moments{
		3*(halves.mx+0.1) - 1, 3*(halves.my+0.1) - 1,
		9 * (halves.vx + shift), 9 * (halves.vy + shift), 9 * (halves.cxy + shift),
	}
	plain := moments{3*halves.mx - 1, 3*halves.my - 1, 9 * halves.vx, 9 * halves.vy, 9 * halves.cxy}
	noisy := plain
	noisy.vx += 9 * 0.05 * 0.05
	noisy.vy += 9 * 0.05 * 0.05
	coil := curve(func(u float64) (x, y float64) {
		t := 3*math.Pi*math.Sqrt(u) - math.Pi/2
		return 0.4 * (t + math.Pi) * math.Cos(t), 0.4 * (t + math.Pi) * math.Sin(t)
	})
	coil.vx += 0.4 * 0.4 * 0.25 * 0.25
	coil.vy += 0.4 * 0.4 * 0.25 * 0.25
	// x and y are uniform given the sign, and E[xy | sin x sin y < 0] =
	// −E[x sign sin x]² = −(π/2)².
	board := moments{0, 0, 16 * math.Pi * math.Pi / 12, 16 * math.Pi * math.Pi / 12, -math.Pi * math.Pi / 4}

	for _, c := range []struct {
		uri  string
		want moments
	}{
		{"8gaussians", moments{0, 0, 12.5 + math.Sqrt(0.1), 12.5 + math.Sqrt(0.1), 0}},
		{"8gaussians?noise=code", moments{0, 0, 12.5 + math.Sqrt(0.1), 12.5 + math.Sqrt(0.1), 0}},
		{"8gaussians?noise=paper", moments{0, 0, 12.6, 12.6, 0}},
		{"8gaussians?noise=0.5&radius=2&scale=3", moments{0, 0, 9 * 2.25, 9 * 2.25, 0}},
		{"moons", shifted},
		{"moons?noise=0", plain},
		{"moons?noise=0.05", noisy},
		{"swissroll", rolled},
		{"spiral", coil},
		{"spiral?stretch_y=8", coil.stretched(1, 8)},
		{"checkerboard", board},
		{"checkerboard?stretch_x=6", board.stretched(6, 1)},
		{"normal", moments{0, 0, 1, 1, 0}},
		{"normal?mean=-1,3&std=2,0.5", moments{-1, 3, 4, 0.25, 0}},
	} {
		t.Run(c.uri, func(t *testing.T) {
			const n = 200_000
			p := sample(t, c.uri, n, 7)
			require.Equal(t, 2, p.D)
			for _, e := range []struct {
				name string
				want float64
				of   func(x, y float64) float64
			}{
				{"mean x", c.want.mx, func(x, _ float64) float64 { return x }},
				{"mean y", c.want.my, func(_, y float64) float64 { return y }},
				{"var x", c.want.vx, func(x, _ float64) float64 { return sqr(x - c.want.mx) }},
				{"var y", c.want.vy, func(_, y float64) float64 { return sqr(y - c.want.my) }},
				{"cov", c.want.cxy, func(x, y float64) float64 { return (x - c.want.mx) * (y - c.want.my) }},
			} {
				var sum, sum2 float64
				for i := range n {
					v := e.of(p.X[2*i], p.X[2*i+1])
					sum, sum2 = sum+v, sum2+v*v
				}
				mean := sum / n
				limit := 5 * math.Sqrt((sum2/n-mean*mean)/n)
				if diff := math.Abs(mean - e.want); !(diff <= limit) {
					t.Errorf("%s: %g, want %g within %g", e.name, mean, e.want, limit)
				}
			}
		})
	}
}

func sqr(x float64) float64 { return x * x }

// TestSupport checks what holds for every draw.
func TestSupport(t *testing.T) {
	const n = 20_000
	p := sample(t, "checkerboard?stretch_x=6", n, 1)
	for i := range n {
		x, y := p.X[2*i]/6, p.X[2*i+1]
		require.True(t, math.Sin(x)*math.Sin(y) < 0 && math.Abs(x) < 2*math.Pi && math.Abs(y) < 2*math.Pi, "%g, %g", x, y)
	}
	p = sample(t, "spiral?noise=0", n, 1)
	for i := range n {
		// On the curve the radius is .4(t+π), and t is the angle.
		radius := math.Hypot(p.X[2*i], p.X[2*i+1]) / 0.4
		angle := math.Atan2(p.X[2*i+1], p.X[2*i])
		turns := (radius - math.Pi - angle) / (2 * math.Pi)
		require.True(t, math.Abs(turns-math.Round(turns)) < 1e-9 && radius < 2.5*math.Pi+math.Pi+1e-9, "radius %g, angle %g", radius, angle)
	}
	p = sample(t, "moons", n, 1)
	for i, label := range p.Labels {
		x, y := (p.X[2*i]+1)/3, (p.X[2*i+1]+1)/3
		switch label {
		case 0:
			require.True(t, x >= -1 && x <= 1.2 && y >= 0 && y <= 1.2, "outer: %g, %g", x, y)
		case 1:
			require.True(t, x >= 0 && x <= 2.2 && y >= -0.5 && y <= 0.7, "inner: %g, %g", x, y)
		}
	}
	p = sample(t, "delta?at=1,-2,3", 5, 1)
	require.Equal(t, []float64{1, -2, 3, 1, -2, 3, 1, -2, 3, 1, -2, 3, 1, -2, 3}, p.X)
	p = sample(t, "delta?d=4&at=2", 1, 1)
	require.Equal(t, []float64{2, 2, 2, 2}, p.X)
}

// TestModes: the labels of 8gaussians name the nearest mode, whose masses are
// multinomial: χ² of 7 degrees of freedom is below 29.9 but for 1 in 10,000.
func TestModes(t *testing.T) {
	const n = 80_000
	p := sample(t, "8gaussians?noise=paper", n, 3)
	var count [8]float64
	for i, label := range p.Labels {
		count[label]++
		angle := math.Atan2(p.X[2*i+1], p.X[2*i])
		off := math.Remainder(angle-float64(label)*math.Pi/4, 2*math.Pi)
		require.Less(t, math.Abs(off), math.Pi/8, "draw %d", i) // 6 standard deviations
	}
	var chi2 float64
	for _, c := range count {
		chi2 += sqr(c-n/8) / (n / 8)
	}
	require.Less(t, chi2, 29.9)
}

// TestStudentT holds the empirical distribution against closed forms by
// Kolmogorov's statistic; √n·D is below 1.95 but for 1 in 1000.
func TestStudentT(t *testing.T) {
	const n = 50_000
	for df, cdf := range map[string]func(float64) float64{
		"1": func(x float64) float64 { return 0.5 + math.Atan(x)/math.Pi },
		"2": func(x float64) float64 { return 0.5 + x/(2*math.Sqrt(2+x*x)) },
		"3": func(x float64) float64 {
			z := x / math.Sqrt(3)
			return 0.5 + (z/(1+z*z)+math.Atan(z))/math.Pi
		},
	} {
		p := sample(t, "student-t?df="+df, n, 5)
		slices.Sort(p.X)
		var worst float64
		for i, x := range p.X {
			worst = max(worst, math.Abs(cdf(x)-float64(i)/n), math.Abs(cdf(x)-float64(i+1)/n))
		}
		if stat := worst * math.Sqrt(n); !(stat <= 1.95) {
			t.Errorf("df=%s: √n·D = %g", df, stat)
		}
	}
}

// TestIndependence: correlations that should be 0 are within 5/√n of it.
func TestIndependence(t *testing.T) {
	const n = 100_000
	one := sample(t, "normal?d=1", n+1, 1).X
	for name, pair := range map[string][2][]float64{
		"next draw":        {one[:n], one[1:]},
		"next seed":        {one[:n], sample(t, "normal?d=1", n, 2).X},
		"another set":      {one[:n], sample(t, "normal?d=1&mean=0&std=1", n, 1).X},
		"next draw, index": {indices(t, n+1, "")[:n], indices(t, n+1, "")[1:]},
		"another class":    {indices(t, n, "?class=3"), indices(t, n, "?class=1")},
	} {
		if r := correlation(pair[0], pair[1]); !(math.Abs(r) <= 5/math.Sqrt(n)) {
			t.Errorf("%s: correlation %g", name, r)
		}
	}
}

// indices returns which rows of the digits n draws take.
func indices(t *testing.T, n int, query string) []float64 {
	t.Helper()
	s, err := Open("digits" + query)
	require.NoError(t, err)
	table := s.(*table)
	st := newStream(table.key, 4)
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(st.at(uint64(i)).IntN(table.rows()))
	}
	return x
}

func correlation(x, y []float64) float64 {
	n := float64(len(x))
	var mx, my, xx, yy, xy float64
	for i := range x {
		mx, my = mx+x[i]/n, my+y[i]/n
	}
	for i := range x {
		a, b := x[i]-mx, y[i]-my
		xx, yy, xy = xx+a*a, yy+b*b, xy+a*b
	}
	return xy / math.Sqrt(xx*yy)
}

func sample(t *testing.T, uri string, n int, seed uint64) Points {
	t.Helper()
	s, err := Open(uri)
	require.NoError(t, err)
	p, err := s.Sample(n, seed)
	require.NoError(t, err)
	require.Equal(t, n, p.N)
	require.Len(t, p.X, p.N*p.D)
	return p
}

// TestDrawIsPure: draw i is the same whatever is drawn with it.
func TestDrawIsPure(t *testing.T) {
	for _, uri := range []string{
		"8gaussians", "moons", "swissroll", "spiral", "checkerboard", "normal?d=3", "student-t?d=2", "delta",
		"digits", "digits?class=3&n=20&seed=9",
	} {
		s, err := Open(uri)
		require.NoError(t, err)
		d := s.Dim()
		whole, err := s.Sample(257, 11)
		require.NoError(t, err)
		again, err := s.Sample(100, 11)
		require.NoError(t, err)
		require.Equal(t, whole.X[:100*d], again.X, uri)
		for _, first := range []int{0, 1, 32, 200} {
			part := make([]float64, 57*d)
			require.NoError(t, s.Draw(part, 11, uint64(first)))
			require.Equal(t, whole.X[first*d:(first+57)*d], part, uri)
		}
		if uri != "delta" {
			other, err := s.Sample(257, 12)
			require.NoError(t, err)
			require.NotEqual(t, whole.X, other.X, uri)
		}
		require.ErrorIs(t, s.Draw(make([]float64, d), 0, math.MaxUint64), nil)
		if d > 1 {
			require.ErrorIs(t, s.Draw(make([]float64, d+1), 0, 0), ErrInvalid)
		}
		_, err = s.Sample(-1, 0)
		require.ErrorIs(t, err, ErrInvalid)
		_, err = s.Sample(math.MaxInt, 0)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

func TestGeneratorLoad(t *testing.T) {
	for uri, n := range map[string]int{"moons": 1000, "moons?n=17&seed=3": 17} {
		s, err := Open(uri)
		require.NoError(t, err)
		_, finite := s.Finite()
		require.False(t, finite)
		p, err := s.Load()
		require.NoError(t, err)
		require.Equal(t, n, p.N)
	}
	require.Equal(t, load(t, "moons?n=17&seed=3").X, sample(t, "moons", 17, 3).X)
	// The order of options and the values of n and seed do not change draws.
	require.Equal(t, load(t, "8gaussians?n=5&noise=paper&radius=2").X, load(t, "8gaussians?radius=2&noise=paper&n=9").X[:10])

	s, err := Open("normal?mean=1e308&std=1e308")
	require.NoError(t, err)
	_, err = s.Load()
	require.ErrorIs(t, err, ErrInvalid)
}

func load(t *testing.T, uri string) Points {
	t.Helper()
	s, err := Open(uri)
	require.NoError(t, err)
	require.Equal(t, uri, s.URI())
	p, err := s.Load()
	require.NoError(t, err)
	require.Len(t, p.X, p.N*p.D)
	require.Equal(t, s.Dim(), p.D)
	require.Equal(t, s.Image(), p.Image)
	return p
}

func BenchmarkDraw(b *testing.B) {
	for _, uri := range []string{"8gaussians", "checkerboard", "normal?d=64", "digits"} {
		b.Run(uri, func(b *testing.B) {
			s, err := Open(uri)
			require.NoError(b, err)
			dst := make([]float64, 1024*s.Dim())
			b.SetBytes(int64(8 * len(dst)))
			for i := range b.N {
				require.NoError(b, s.Draw(dst, 1, uint64(i)*1024))
			}
		})
	}
}
