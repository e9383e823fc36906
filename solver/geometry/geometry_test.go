package geometry

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

func normals(seed uint64, n int, shift float64) []float64 {
	r := rand.New(rand.NewPCG(seed, 0))
	v := make([]float64, n)
	for i := range v {
		v[i] = r.NormFloat64() + shift
	}
	return v
}

func near(t *testing.T, want, got, budget float64, what string) {
	t.Helper()
	if !(math.Abs(got-want) <= budget) {
		t.Errorf("%s: got %.15g, want %.15g within %.2g", what, got, want, budget)
	}
}

// definition is the cost, written out.
func definition(c Cost, x, y []float64) float64 {
	var s, xx, yy, xy float64
	for k := range x {
		s += (x[k] - y[k]) * (x[k] - y[k])
		xx, yy, xy = xx+x[k]*x[k], yy+y[k]*y[k], xy+x[k]*y[k]
	}
	switch c {
	case SqEuclidean:
		return s
	case HalfSqEuclidean:
		return s / 2
	case Euclidean:
		return math.Sqrt(s)
	}
	return 1 - xy/math.Sqrt(xx*yy)
}

func TestRowsAndMoments(t *testing.T) {
	const n, m, d = 23, 31, 4
	for cost := SqEuclidean; cost <= Cosine; cost++ {
		p, err := NewPoints(normals(1, n*d, 3), normals(2, m*d, -1), d, cost)
		require.NoError(t, err)
		a, b := make([]float64, n), make([]float64, m)
		var sa, sb float64
		for i := range a {
			a[i] = float64(i % 4)
			sa += a[i]
		}
		for j := range b {
			b[j] = 1 + float64(j%3)
			sb += b[j]
		}
		var mean, square float64
		row := make([]float64, m)
		matrix := Matrix{N: n, M: m}
		for i := range n {
			p.Row(i, row)
			matrix.C = append(matrix.C, row...)
			for j := range m {
				c := definition(cost, p.X[i*d:(i+1)*d], p.Y[j*d:(j+1)*d])
				near(t, c, row[j], 1e-13*(1+c), "row")
				w := a[i] * b[j] / (sa * sb)
				mean += w * c
				square += w * c * c
			}
		}
		std := math.Sqrt(square - mean*mean)
		for _, g := range []Geometry{p, matrix} {
			got, err := g.Mean(t.Context(), a, b)
			require.NoError(t, err)
			near(t, mean, got, 1e-12*(1+mean), fmt.Sprintf("%v mean", g.Cost()))
			got, err = g.Std(t.Context(), a, b)
			require.NoError(t, err)
			near(t, std, got, 1e-10*(1+mean), fmt.Sprintf("%v std", g.Cost()))
			back := g.Transpose().Transpose()
			require.Equal(t, g, back)
		}
	}
}

// run computes softmin and sweep of an operator.
func run(t *testing.T, g Geometry, dtype tensor.DType, o Options, eps float64) (out, col, transposed []float64, cached bool) {
	t.Helper()
	dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 2})
	require.NoError(t, err)
	defer dev.Close()
	op, err := g.Open(dev, dtype, o)
	require.NoError(t, err)
	defer op.Close()
	n, m := g.Size()
	vector := func(k int, seed uint64) tensor.Tensor {
		v, err := upload(dev, dtype, normals(seed, k, 0), k)
		require.NoError(t, err)
		return v
	}
	read := func(v tensor.Tensor) []float64 {
		if v.DType() == tensor.Float64 {
			w, err := tensor.Values[float64](v)
			require.NoError(t, err)
			return w
		}
		s, err := tensor.Values[float32](v)
		require.NoError(t, err)
		w := make([]float64, len(s))
		for i, x := range s {
			w[i] = float64(x)
		}
		return w
	}
	outT, colT, back := vector(n, 0), tensor.Tensor{}, vector(m, 0)
	colT, err = tensor.New(dev, tensor.Float64, m)
	require.NoError(t, err)
	gT, a, b := vector(m, 5), vector(n, 6), vector(m, 7)
	require.NoError(t, op.Sweep(outT, colT, gT, a, b, 1, eps))
	tr, err := op.Transposed()
	require.NoError(t, err)
	require.NoError(t, tr.Softmin(back, outT, a, eps))
	out, col, transposed, cached = read(outT), read(colT), read(back), op.Cached()
	for _, v := range []tensor.Tensor{outT, colT, back, gT, a, b} {
		v.Free()
	}
	op.Close()
	require.Zero(t, dev.Memory().InUse, "the operator gives its memory back")
	return
}

// Whether the cost is streamed, cached or given, and wherever the points lie,
// the answers agree within the rounding of float64.
func TestStreamedCachedAndGivenAgree(t *testing.T) {
	const n, m, d = 70, 90, 20
	for cost := SqEuclidean; cost <= Cosine; cost++ {
		p, err := NewPoints(normals(1, n*d, 100), normals(2, m*d, 101), d, cost)
		require.NoError(t, err)
		matrix := Matrix{C: make([]float64, n*m), N: n, M: m}
		for i := range n {
			p.Row(i, matrix.C[i*m:(i+1)*m])
		}
		out, col, back, cached := run(t, p, tensor.Float64, Options{CacheBytes: -1}, 3)
		require.False(t, cached)
		for _, other := range []struct {
			name string
			g    Geometry
		}{{"cached", p}, {"given", matrix}} {
			out2, col2, back2, cached := run(t, other.g, tensor.Float64, Options{}, 3)
			require.True(t, cached, other.name)
			for i := range out {
				near(t, out[i], out2[i], 1e-9, other.name+" softmin")
			}
			for j := range col {
				near(t, col[j], col2[j], 1e-9*(1+col[j]), other.name+" column sum")
				near(t, back[j], back2[j], 1e-9, other.name+" transposed softmin")
			}
		}
	}
}

func TestInvalid(t *testing.T) {
	nan := math.NaN()
	for name, g := range map[string]Geometry{
		"empty":        Points{D: 1},
		"no dimension": Points{X: []float64{1}, Y: []float64{1}, N: 1, M: 1},
		"length":       Points{X: []float64{1, 2, 3}, Y: []float64{1, 2}, N: 2, M: 1, D: 2},
		"NaN":          Points{X: []float64{nan}, Y: []float64{1}, N: 1, M: 1, D: 1},
		"Inf":          Points{X: []float64{1}, Y: []float64{math.Inf(-1)}, N: 1, M: 1, D: 1},
		"cost":         Points{X: []float64{1}, Y: []float64{1}, N: 1, M: 1, D: 1, Ground: GivenMatrix},
		"cosine of 0":  Points{X: []float64{0, 0}, Y: []float64{1, 1}, N: 1, M: 1, D: 2, Ground: Cosine},
		"matrix":       Matrix{C: []float64{1, 2, 3}, N: 2, M: 2},
		"matrix NaN":   Matrix{C: []float64{1, nan}, N: 1, M: 2},
		"overflow":     Matrix{N: math.MaxInt / 2, M: 4},
	} {
		require.ErrorIs(t, g.Validate(), solver.ErrInvalid, name)
	}
	_, err := Points{X: []float64{1}, Y: []float64{1}, N: 1, M: 1, D: 1}.Mean(t.Context(), []float64{1, 2}, nil)
	require.ErrorIs(t, err, solver.ErrInvalid)
}
