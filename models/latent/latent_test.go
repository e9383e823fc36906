package latent

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/tensor/npy"
	"github.com/fortet/fortet/tensor/safetensors"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
)

// decaying is data (n, d) with covariances of a decaying spectrum and a mean.
func decaying(n, d int, rate float64) []float64 {
	r := rand.New(rand.NewPCG(uint64(n), uint64(d)))
	rank := min(n, d)
	left, right := mat.NewDense(n, rank, nil), mat.NewDense(rank, d, nil)
	left.Apply(func(_, j int, _ float64) float64 { return r.NormFloat64() * math.Pow(float64(j+1), -rate) }, left)
	right.Apply(func(int, int, float64) float64 { return r.NormFloat64() }, right)
	var x mat.Dense
	x.Mul(left, right)
	x.Apply(func(_, j int, v float64) float64 { return v + 10*math.Sin(float64(j)) }, &x)
	return x.RawMatrix().Data
}

// spectrum is the definition: eigenvalues, descending, of the covariance.
func spectrum(t *testing.T, x []float64, n, d int) []float64 {
	t.Helper()
	var cov mat.SymDense
	stat.CovarianceMatrix(&cov, mat.NewDense(n, d, x), nil)
	var e mat.EigenSym
	require.True(t, e.Factorize(&cov, false))
	v := e.Values(nil)
	for i := range len(v) / 2 {
		v[i], v[len(v)-1-i] = v[len(v)-1-i], v[i]
	}
	return v
}

func fit(t *testing.T, x []float64, n, d, k int) *PCA {
	t.Helper()
	before := append([]float64(nil), x...)
	p, err := Fit(x, n, d, k)
	require.NoError(t, err)
	require.Equal(t, before, x, "Fit modified its input")
	require.NoError(t, p.Validate())
	require.Equal(t, 1.0, p.Scale)
	require.LessOrEqual(t, departure(p.Basis, k, d), 1e-13*float64(d))
	for j := range k {
		row, at := p.Basis[j*d:(j+1)*d], 0
		for i, v := range row {
			if math.Abs(v) > math.Abs(row[at])*(1+1e-6) {
				at = i
			}
		}
		require.Positive(t, row[at], "sign of component %d", j)
	}
	return p
}

// nearly fails where values are further apart than tol, or not numbers.
func nearly(t *testing.T, want, got []float64, tol float64, what ...any) {
	t.Helper()
	require.Len(t, got, len(want), what...)
	for i := range want {
		if diff := math.Abs(want[i] - got[i]); !(diff <= tol) {
			t.Fatalf("%v: [%d]: got %g, want %g", what, i, got[i], want[i])
		}
	}
}

// Explained variances are eigenvalues of the covariance, and the latents of the
// data have them and no correlation; Decode∘Encode is the orthogonal projection.
func TestLaws(t *testing.T) {
	for _, c := range []struct{ n, d, k int }{{2, 1, 1}, {2, 5, 1}, {50, 7, 7}, {50, 7, 3}, {7, 50, 6}, {31, 33, 10}, {33, 31, 31}, {129, 64, 20}, {64, 257, 63}} {
		x := decaying(c.n, c.d, .5)
		p := fit(t, x, c.n, c.d, c.k)
		values := spectrum(t, x, c.n, c.d)
		tol := 1e-11 * values[0]
		nearly(t, values[:c.k], p.Variance, tol, c)
		require.InEpsilon(t, sum(values), p.Total, 1e-12)
		require.InEpsilon(t, sum(values[:c.k])/sum(values), p.Explained(), 1e-12)

		z := make([]float64, c.n*c.k)
		require.NoError(t, p.Encode(z, x))
		var cov mat.SymDense
		stat.CovarianceMatrix(&cov, mat.NewDense(c.n, c.k, z), nil)
		for i := range c.k {
			for j := range c.k {
				want := 0.0
				if i == j {
					want = p.Variance[i]
				}
				require.InDelta(t, want, cov.At(i, j), tol, "%v: covariance of latents", c)
			}
			require.InDelta(t, 0, stat.Mean(mat.Col(nil, i, mat.NewDense(c.n, c.k, z)), nil), 1e-12*math.Sqrt(values[0]))
		}
		back := make([]float64, len(x))
		require.NoError(t, p.Decode(back, z))
		again := make([]float64, len(z))
		require.NoError(t, p.Encode(again, back))
		nearly(t, z, again, 1e-12*(1+math.Sqrt(values[0])), c, "projection")
		// The error is what the other components hold.
		missed := 0.0
		for i := range x {
			missed += (x[i] - back[i]) * (x[i] - back[i]) / float64(c.n-1)
		}
		require.InDelta(t, sum(values[c.k:]), missed, 1e-10*p.Total, "%v", c)
	}
}

// One global scale: distances between latents stay proportional to those of
// the projections, and variances average one.
func TestNormalize(t *testing.T) {
	const n, d, k = 60, 9, 4
	x := decaying(n, d, 1)
	p := fit(t, x, n, d, k)
	plain, scaled, back, again := make([]float64, n*k), make([]float64, n*k), make([]float64, n*d), make([]float64, n*d)
	require.NoError(t, p.Encode(plain, x))
	require.NoError(t, p.Decode(back, plain))
	p.Normalize()
	require.NoError(t, p.Encode(scaled, x))
	require.NoError(t, p.Decode(again, scaled))
	nearly(t, back, again, 1e-11)
	mean := 0.0
	for j := range k {
		mean += stat.Variance(mat.Col(nil, j, mat.NewDense(n, k, scaled)), nil) / k
	}
	require.InDelta(t, 1, mean, 1e-12)
	for i := range plain {
		require.InDelta(t, p.Scale*plain[i], scaled[i], 1e-12)
	}
}

// A shift of the data moves the mean alone; a permutation of rows changes
// nothing; scaling multiplies variances.
func TestSymmetries(t *testing.T) {
	const n, d, k = 40, 6, 3
	x := decaying(n, d, 1)
	p := fit(t, x, n, d, k)
	moved, permuted, scaled := make([]float64, n*d), make([]float64, n*d), make([]float64, n*d)
	for i := range n {
		for j := range d {
			moved[i*d+j] = x[i*d+j] + 1000
			scaled[i*d+j] = x[i*d+j] * 0x1p40
			permuted[(i*7%n)*d+j] = x[i*d+j]
		}
	}
	q := fit(t, moved, n, d, k)
	nearly(t, p.Basis, q.Basis, 1e-10)
	nearly(t, p.Variance, q.Variance, 1e-9)
	q = fit(t, permuted, n, d, k)
	nearly(t, p.Basis, q.Basis, 1e-12)
	q = fit(t, scaled, n, d, k)
	nearly(t, p.Basis, q.Basis, 1e-13)
	require.InEpsilon(t, p.Variance[0]*0x1p80, q.Variance[0], 1e-12)
	require.Equal(t, p, fit(t, x, n, d, k), "repeats are bit-equal")
}

// The randomised range finder explains nearly what the best subspace does, and
// never more.
func TestRandomised(t *testing.T) {
	for _, c := range []struct {
		n, d, k int
		rate    float64
	}{{450, 600, 30, 1}, {600, 450, 60, .5}, {420, 500, 1, 0}} {
		require.Greater(t, min(c.n, c.d), dense)
		x := decaying(c.n, c.d, c.rate)
		p := fit(t, x, c.n, c.d, c.k)
		values := spectrum(t, x, c.n, c.d)
		best := sum(values[:c.k])
		got := sum(p.Variance)
		require.LessOrEqual(t, got, best*(1+1e-12))
		require.GreaterOrEqual(t, got, best*(1-2e-3), "%v: explained %g of %g", c, got, best)
		for j, v := range p.Variance {
			require.LessOrEqual(t, v, values[j]*(1+1e-10))
		}
		if c.rate == 1 {
			nearly(t, values[:c.k/2], p.Variance[:c.k/2], 1e-6*values[0])
		}
		z, back := make([]float64, c.n*c.k), make([]float64, c.n*c.d)
		require.NoError(t, p.Encode(z, x))
		require.NoError(t, p.Decode(back, z))
		missed := 0.0
		for i := range x {
			missed += (x[i] - back[i]) * (x[i] - back[i]) / float64(c.n-1)
		}
		require.InEpsilon(t, p.Total-got, missed, 1e-9, "variances are those of the components found")
	}
}

// Where data span less than k dimensions, the rest of the basis is orthonormal
// all the same, and has no variance.
func TestRankDeficient(t *testing.T) {
	for _, c := range []struct{ n, d int }{{30, 6}, {6, 30}, {450, 430}} {
		x := make([]float64, c.n*c.d)
		for i := range c.n {
			for j := range c.d {
				x[i*c.d+j] = math.Sin(float64(i))*float64(j%3) + 2
			}
		}
		p := fit(t, x, c.n, c.d, 4)
		require.InEpsilon(t, p.Total, p.Variance[0], 1e-12)
		require.InDelta(t, 0, p.Variance[1], 1e-12*p.Total)
		require.InDelta(t, 1, p.Explained(), 1e-12)
	}
}

func TestDigits(t *testing.T) {
	source, err := dataset.Open("digits?class=3")
	require.NoError(t, err)
	points, err := source.Load()
	require.NoError(t, err)
	p := fit(t, points.X, points.N, points.D, 20)
	require.Greater(t, p.Explained(), .9)
	all := fit(t, points.X, points.N, points.D, points.D) // some pixels are constant
	require.InDelta(t, 1, all.Explained(), 1e-12)
	z, back := make([]float64, points.N*points.D), make([]float64, points.N*points.D)
	require.NoError(t, all.Encode(z, points.X))
	require.NoError(t, all.Decode(back, z))
	nearly(t, points.X, back, 1e-12)
}

func TestInvalid(t *testing.T) {
	x := decaying(10, 4, 1)
	with := func(v float64) []float64 { y := append([]float64(nil), x...); y[13] = v; return y }
	constant := make([]float64, 40)
	for i := range constant {
		constant[i] = []float64{.1, 1e9, -3.3, 0}[i%4]
	}
	for name, c := range map[string]struct {
		x       []float64
		n, d, k int
	}{
		"k = 0": {x, 10, 4, 0}, "k negative": {x, 10, 4, -1}, "k > d": {x, 10, 4, 5}, "k > n-1": {x, 4, 10, 4},
		"short": {x[:39], 10, 4, 2}, "empty": {nil, 0, 4, 1}, "no columns": {nil, 10, 0, 1}, "one row": {x, 1, 40, 1}, "negative": {x, -10, -4, 1},
		"NaN": {with(math.NaN()), 10, 4, 2}, "Inf": {with(math.Inf(-1)), 10, 4, 2}, "huge": {with(1e200), 10, 4, 2},
		"constant": {constant, 10, 4, 2}, "zero": {make([]float64, 40), 10, 4, 2},
	} {
		_, err := Fit(c.x, c.n, c.d, c.k)
		require.ErrorIs(t, err, ErrInvalid, name)
		require.ErrorContains(t, err, "latent: ", name)
	}
	p := fit(t, x, 10, 4, 2)
	require.NoError(t, p.Encode(nil, nil))
	require.NoError(t, p.Decode(nil, nil))
	require.ErrorIs(t, p.Encode(make([]float64, 2), make([]float64, 5)), ErrInvalid)
	require.ErrorIs(t, p.Encode(make([]float64, 3), make([]float64, 4)), ErrInvalid)
	require.ErrorIs(t, p.Decode(make([]float64, 4), make([]float64, 3)), ErrInvalid)
	require.ErrorIs(t, p.Decode(make([]float64, 5), make([]float64, 2)), ErrInvalid)
	require.ErrorIs(t, new(PCA).Encode(make([]float64, 1), make([]float64, 1)), ErrInvalid)
}

func TestFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pca.safetensors")
	p := fit(t, decaying(30, 8, 1), 30, 8, 3)
	p.Normalize()
	require.NoError(t, p.Save(path))
	q, err := Load(path)
	require.NoError(t, err)
	require.Equal(t, p, q)

	_, err = Load(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	arrays, meta, err := safetensors.ReadFile(path)
	require.NoError(t, err)
	for name, spoil := range map[string]func(map[string]*npy.Array){
		"missing":    func(a map[string]*npy.Array) { delete(a, "scale") },
		"type":       func(a map[string]*npy.Array) { a["scale"] = npy.Scalar(float32(1)) },
		"axes":       func(a map[string]*npy.Array) { a["mean"] = npy.New(make([]float64, 8), 8, 1) },
		"length":     func(a map[string]*npy.Array) { a["mean"] = npy.New(make([]float64, 7)) },
		"empty":      func(a map[string]*npy.Array) { a["basis"] = npy.New([]float64{}, 0, 8) },
		"NaN":        func(a map[string]*npy.Array) { a["mean"] = npy.New([]float64{0, 0, 0, math.NaN(), 0, 0, 0, 0}) },
		"scale":      func(a map[string]*npy.Array) { a["scale"] = npy.Scalar(-1.0) },
		"order":      func(a map[string]*npy.Array) { a["variance"] = npy.New([]float64{1, 2, 3}) },
		"orthogonal": func(a map[string]*npy.Array) { a["basis"] = npy.New(make([]float64, 24), 3, 8) },
	} {
		changed := map[string]*npy.Array{}
		for k, v := range arrays {
			changed[k] = v
		}
		spoil(changed)
		require.NoError(t, safetensors.WriteFile(path, changed, meta))
		_, err := Load(path)
		require.Error(t, err, name)
	}
	require.NoError(t, safetensors.WriteFile(path, arrays, nil))
	_, err = Load(path)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorIs(t, new(PCA).Save(path), ErrInvalid)
}

// BenchmarkFit measures the sizes of pictures; the last is only run on demand.
func BenchmarkFit(b *testing.B) {
	for _, c := range []struct {
		name    string
		n, d, k int
	}{{"digits", 1797, 64, 16}, {"dense", 400, 3072, 128}, {"pictures", 2000, 3072, 512}} {
		b.Run(c.name, func(b *testing.B) {
			if c.n*c.d > 2e6 && os.Getenv("FORTET_LONG") != "1" {
				b.Skip("FORTET_LONG=1 runs this size")
			}
			x := decaying(c.n, c.d, .5)
			explained := 0.0
			for b.Loop() {
				p, err := Fit(x, c.n, c.d, c.k)
				if err != nil {
					b.Fatal(err)
				}
				explained = p.Explained()
			}
			b.ReportMetric(explained, "explained")
		})
	}
}
