package cost_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/cost"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

var kinds = []cost.Kind{cost.SqEuclidean, cost.HalfSqEuclidean, cost.Euclidean, cost.Cosine}

// definition is c(x, y) in float64, two passes for the cosine.
func definition[T kerneltest.Float](k cost.Kind, x, y []T) float64 {
	var square, xx, yy float64
	for i := range x {
		a, b := float64(x[i]), float64(y[i])
		square += (a - b) * (a - b)
		xx += a * a
		yy += b * b
	}
	switch k {
	case cost.HalfSqEuclidean:
		return square / 2
	case cost.Euclidean:
		return math.Sqrt(square)
	case cost.Cosine:
		square = 0
		for i := range x {
			u := float64(x[i])/math.Sqrt(xx) - float64(y[i])/math.Sqrt(yy)
			square += u * u
		}
		return square / 2
	}
	return square
}

// bound is the error that d-term sums in T may have: the subtraction, the
// square and at most d additions, each half a unit, for a squared distance; of
// a cosine besides that of unit vectors whose coordinates, below 1, are a few
// units off, which moves a distance r by as much times r.
func bound[T kerneltest.Float](k cost.Kind, d int, c float64) float64 {
	u := 0x1p-53
	if tensor.TypeOf[T]() == tensor.Float32 {
		u = 0x1p-24
	}
	relative := float64(d+4) * u * c
	if k == cost.Cosine {
		return 2*relative + 4*u*math.Sqrt(2*c) + 16*u*u
	}
	return relative
}

// evaluate runs one batch between guards and answers both outputs.
func evaluate[T kerneltest.Float](t testing.TB, dev gpu.Device, k cost.Kind, x, y []T, b, n, m, d int) (out, outT []T) {
	t.Helper()
	shape := func(points []T, rows int) []int {
		if b > 1 && len(points) == b*rows*d {
			return []int{b, rows, d}
		}
		return []int{rows, d}
	}
	xs, ys := kerneltest.Put(t, dev, x, shape(x, n)...), kerneltest.Put(t, dev, y, shape(y, m)...)
	batch := []int{}
	if b > 1 {
		batch = []int{b}
	}
	a := kerneltest.Poison[T](t, dev, append(batch, n, m)...)
	at := kerneltest.Poison[T](t, dev, append(batch, m, n)...)
	require.NoError(t, cost.Evaluate(cost.Args{X: xs.Tensor, Y: ys.Tensor, Out: a.Tensor, OutT: at.Tensor, Cost: k}))
	xs.Unmodified(t)
	ys.Unmodified(t)
	return a.Get(t), at.Get(t)
}

func normal[T kerneltest.Float](t testing.TB, n, d int, seed uint64) []T {
	v := make([]T, n*d)
	require.NoError(t, philox.HostNormal(v, d, philox.Draw{Seed: seed}))
	return v
}

var sizes = []struct{ n, m, d int }{
	{1, 1, 1}, {1, 7, 2}, {31, 33, 1}, {32, 32, 2}, {33, 31, 3}, {127, 129, 2}, {128, 128, 4}, {129, 127, 5}, {5, 131, 7},
	{131, 5, 8}, {64, 64, 16}, {67, 61, 17}, {4, 4, 33}, {6, 12, 255}, {12, 6, 256}, {7, 11, 257}, {3, 2, 1031}, {257, 130, 3},
}

func TestEvaluate(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { against[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { against[float64](t, dev.Device) })
	})
}

func against[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	for _, s := range sizes {
		x, y := normal[T](t, s.n, s.d, 1), normal[T](t, s.m, s.d, 2)
		for i := range min(s.n, s.m) { // some pairs that are close, and some equal
			if i%5 == 0 {
				copy(y[i*s.d:(i+1)*s.d], x[i*s.d:])
				if i%2 == 0 {
					y[i*s.d] += y[i*s.d] / 4096
				}
			}
		}
		for _, k := range kinds {
			out, outT := evaluate(t, dev, k, x, y, 1, s.n, s.m, s.d)
			for i := range s.n {
				for j := range s.m {
					xi, yj := x[i*s.d:(i+1)*s.d], y[j*s.d:(j+1)*s.d]
					want, got := definition(k, xi, yj), out[i*s.m+j]
					if diff := math.Abs(float64(got) - want); !(diff <= bound[T](k, s.d, want)) {
						t.Fatalf("%v %+v [%d, %d]: got %v, want %v: |diff| %.3g > %.3g", k, s, i, j, got, want, diff, bound[T](k, s.d, want))
					}
					if outT[j*s.n+i] != got {
						t.Fatalf("%v %+v: out_t[%d, %d] is %v, out[%d, %d] %v", k, s, j, i, outT[j*s.n+i], i, j, got)
					}
				}
			}
		}
	}
}

// Each problem of a batch is the problem by itself, shared clouds included, and
// one output the same without the other.
func TestBatch(t *testing.T) {
	const b, n, m, d = 5, 37, 130, 3
	x, y := normal[float32](t, b*n, d, 3), normal[float32](t, b*m, d, 4)
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, k := range kinds {
			out, outT := evaluate(t, dev.Device, k, x, y, b, n, m, d)
			sharedX, _ := evaluate(t, dev.Device, k, x[:n*d], y, b, n, m, d)
			_, sharedY := evaluate(t, dev.Device, k, x, y[:m*d], b, n, m, d)
			for q := range b {
				one, oneT := evaluate(t, dev.Device, k, x[q*n*d:(q+1)*n*d], y[q*m*d:(q+1)*m*d], 1, n, m, d)
				require.NoError(t, kerneltest.BitEqual(one, out[q*n*m:(q+1)*n*m]))
				require.NoError(t, kerneltest.BitEqual(oneT, outT[q*n*m:(q+1)*n*m]))
				one, _ = evaluate(t, dev.Device, k, x[:n*d], y[q*m*d:(q+1)*m*d], 1, n, m, d)
				require.NoError(t, kerneltest.BitEqual(one, sharedX[q*n*m:(q+1)*n*m]))
				_, oneT = evaluate(t, dev.Device, k, x[q*n*d:(q+1)*n*d], y[:m*d], 1, n, m, d)
				require.NoError(t, kerneltest.BitEqual(oneT, sharedY[q*n*m:(q+1)*n*m]))
			}
			xs, ys := kerneltest.Put(t, dev.Device, x, b, n, d), kerneltest.Put(t, dev.Device, y, b, m, d)
			alone, aloneT := kerneltest.Poison[float32](t, dev.Device, b, n, m), kerneltest.Poison[float32](t, dev.Device, b, m, n)
			require.NoError(t, cost.Evaluate(cost.Args{X: xs.Tensor, Y: ys.Tensor, Out: alone.Tensor, Cost: k}))
			require.NoError(t, cost.Evaluate(cost.Args{X: xs.Tensor, Y: ys.Tensor, OutT: aloneT.Tensor, Cost: k}))
			require.NoError(t, kerneltest.BitEqual(alone.Get(t), out))
			require.NoError(t, kerneltest.BitEqual(aloneT.Get(t), outT))
		}
	})
}

// Symmetry and identity: c(x, x) = 0 and c(x, y) = c(y, x), bit for bit;
// c(x + v, y + v) = c(x, y) where nothing is rounded; Euclidean distances obey
// the triangle inequality; |tx - ty|² = t² |x - y|² for a power of two; the
// cosine does not see lengths.
func TestLaws(t *testing.T) {
	const n, d = 45, 6
	x := normal[float64](t, n, d, 5)
	for i := range x {
		x[i] = math.Round(x[i]*1024) / 1024
	}
	moved, twice := make([]float64, len(x)), make([]float64, len(x))
	for i, v := range x {
		moved[i], twice[i] = v+1<<20, 2*v
	}
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, k := range kinds {
			out, outT := evaluate(t, dev.Device, k, x, x, 1, n, n, d)
			require.NoError(t, kerneltest.BitEqual(out, outT))
			for i := range n {
				require.Zero(t, out[i*n+i])
			}
			scaled, _ := evaluate(t, dev.Device, k, twice, twice, 1, n, n, d)
			for e, c := range out {
				require.True(t, c >= 0)
				require.Equal(t, c*map[cost.Kind]float64{cost.SqEuclidean: 4, cost.HalfSqEuclidean: 4, cost.Euclidean: 2, cost.Cosine: 1}[k], scaled[e])
			}
			if k != cost.Cosine {
				shifted, _ := evaluate(t, dev.Device, k, moved, moved, 1, n, n, d)
				require.NoError(t, kerneltest.BitEqual(shifted, out))
			}
			if k == cost.Euclidean {
				for e := range n * n * n {
					i, j, l := e/n/n, e/n%n, e%n
					require.True(t, out[i*n+l] <= (out[i*n+j]+out[j*n+l])*(1+0x1p-49))
				}
			}
		}
	})
}

// Points far from the origin and near each other: the expanded form would
// lose every digit.
func TestNoCancellation(t *testing.T) {
	const d, far, step = 64, 4096, 1.0 / 512
	x, y := make([]float32, d), make([]float32, d)
	for i := range x {
		x[i], y[i] = far, far+step
	}
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		out, _ := evaluate(t, dev.Device, cost.SqEuclidean, x, y, 1, 1, 1, d)
		require.Equal(t, []float32{d * step * step}, out)
	})
}

// What is not finite, or has no direction, spoils its own costs alone.
func TestExceptionalPoints(t *testing.T) {
	const n, m, d = 40, 35, 19
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, k := range kinds {
			for _, v := range []float32{0, inf, nan} {
				x, y := normal[float32](t, n, d, 6), normal[float32](t, m, d, 7)
				for c := range d {
					x[33*d+c] = 0
				}
				x[33*d+18] = v
				out, _ := evaluate(t, dev.Device, k, x, y, 1, n, m, d)
				for e, c := range out {
					switch {
					case e/m != 33 || (v == 0 && k != cost.Cosine):
						require.False(t, math.IsNaN(float64(c)) || math.IsInf(float64(c), 0), "%v: [%d, %d] %v", k, e/m, e%m, c)
					case v == inf && k != cost.Cosine:
						require.Equal(t, inf, c)
					default:
						require.True(t, math.IsNaN(float64(c)), "%v of %v: %v", k, v, c)
					}
				}
			}
		}
	})
}

// Results do not depend on the number of workers, and repeat.
func TestRepeats(t *testing.T) {
	const n, m, d = 300, 200, 20
	x, y := normal[float32](t, n, d, 8), normal[float32](t, m, d, 9)
	var first []float32
	for _, workers := range []int{1, 2, 5, 5} {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(t, err)
		t.Cleanup(func() { dev.Close() })
		out, _ := evaluate(t, dev, cost.Cosine, x, y, 1, n, m, d)
		if first == nil {
			first = out
		}
		require.NoError(t, kerneltest.BitEqual(out, first))
	}
}

func TestErrors(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	put := func(dtype tensor.DType, shape ...int) tensor.Tensor {
		return kerneltest.New(t, dev, dtype, shape...)
	}
	f := tensor.Float32
	x, y, out := put(f, 4, 3), put(f, 5, 3), put(f, 4, 5)
	whole := put(f, 8, 5)
	for _, c := range []struct {
		args cost.Args
		is   error
		text string
	}{
		{cost.Args{}, gpu.ErrInvalid, "x: invalid argument: missing"},
		{cost.Args{X: x, Y: y}, gpu.ErrInvalid, "out: invalid argument: missing, and out_t is, too"},
		{cost.Args{X: x, Y: y, Out: out, Cost: 4}, gpu.ErrInvalid, "cost: invalid argument: got Kind(4)"},
		{cost.Args{X: x, Y: y, Out: out, Cost: -1}, gpu.ErrInvalid, "cost"},
		{cost.Args{X: put(f, 12), Y: y, Out: out}, gpu.ErrInvalid, "x: invalid argument: 1 axes, want 2 or 3"},
		{cost.Args{X: put(f, 4, 0), Y: put(f, 5, 0), Out: out}, gpu.ErrInvalid, "points of 0 coordinates"},
		{cost.Args{X: put(tensor.Int32, 4, 3), Y: y, Out: out}, gpu.ErrInvalid, "x: invalid argument: i32, want f32 or f64"},
		{cost.Args{X: x, Y: put(f, 5, 2), Out: out}, tensor.ErrInvalid, "y: invalid tensor: shape (5, 2), want (5, 3)"},
		{cost.Args{X: x, Y: put(tensor.Float64, 5, 3), Out: out}, tensor.ErrInvalid, "y: invalid tensor: f64, want f32"},
		{cost.Args{X: x, Y: y, Out: put(f, 5, 4)}, tensor.ErrInvalid, "out: invalid tensor: shape (5, 4), want (4, 5)"},
		{cost.Args{X: x, Y: y, OutT: out}, tensor.ErrInvalid, "out_t: invalid tensor: shape (4, 5), want (5, 4)"},
		{cost.Args{X: put(f, 2, 4, 3), Y: y, Out: out}, tensor.ErrInvalid, "out: invalid tensor: shape (4, 5), want (2, 4, 5)"},
		{cost.Args{X: put(f, 2, 4, 3), Y: put(f, 3, 5, 3), Out: put(f, 2, 4, 5)}, tensor.ErrInvalid, "y: invalid tensor: shape (3, 5, 3), want (2, 5, 3)"},
		{cost.Args{X: whole.Rows(0, 4), Y: put(f, 5, 5), Out: whole.Rows(3, 7)}, gpu.ErrInvalid, "out: invalid argument: overlaps x"},
		{cost.Args{X: put(f, 5, 3), Y: y, Out: whole.Rows(0, 5), OutT: whole.Rows(2, 7)}, gpu.ErrInvalid, "out_t: invalid argument: overlaps out"},
	} {
		err := cost.Evaluate(c.args)
		require.ErrorIs(t, err, c.is)
		require.ErrorContains(t, err, c.text)
	}
	for _, s := range [][3]int{{0, 5, 2}, {4, 0, 2}, {4, 5, 0}} {
		require.NoError(t, cost.Evaluate(cost.Args{X: put(f, s[2], s[0], 3), Y: put(f, s[2], s[1], 3), Out: put(f, s[2], s[0], s[1])}))
	}
}

// Whatever the shapes: an error or the definition, never a crash.
func FuzzEvaluate(f *testing.F) {
	f.Add(2, 3, 4, 5, 2, 3, 4, 5, 0, uint64(1))
	f.Add(1, 3, 4, 5, 1, 4, 3, 5, 3, uint64(2))
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, b, n, m, d, b2, n2, m2, d2, kind int, seed uint64) {
		small := func(v int) int { return int(uint(v) % 45) }
		b, n, m, d, b2, n2, m2, d2 = small(b)%4, small(n), small(m), small(d), small(b2)%4, small(n2), small(m2), small(d2)
		rng := rand.New(rand.NewPCG(seed, 0))
		fill := func(n int) []float64 {
			v := make([]float64, n)
			for i := range v {
				v[i] = rng.NormFloat64()
			}
			return v
		}
		x, y := fill(b*n*d), fill(b2*m*d2)
		out := kerneltest.Poison[float64](t, dev, b, n2, m2)
		err := cost.Evaluate(cost.Args{
			X: kerneltest.Put(t, dev, x, b, n, d).Tensor, Y: kerneltest.Put(t, dev, y, b2, m, d2).Tensor,
			Out: out.Tensor, Cost: cost.Kind(kind),
		})
		fits := b == b2 && n == n2 && m == m2 && d == d2 && d > 0 && kind >= 0 && kind <= int(cost.Cosine)
		require.Equal(t, fits, err == nil, "%v", err)
		got := out.Get(t)
		for e := range got {
			if err != nil {
				break
			}
			q, i, j := e/(n*m), e/m%n, e%m
			want := definition(cost.Kind(kind), x[(q*n+i)*d:(q*n+i+1)*d], y[(q*m+j)*d:(q*m+j+1)*d])
			require.NoError(t, kerneltest.Within(got[e:e+1], []float64{want}, 2*bound[float64](cost.Kind(kind), d, want)))
		}
	})
}

// ExampleEvaluate is the squared distances of three points to two.
func ExampleEvaluate() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	x, _ := tensor.From(dev, []float64{0, 0, 1, 0, 3, 4}, 3, 2)
	y, _ := tensor.From(dev, []float64{0, 0, 0, 1}, 2, 2)
	out, _ := tensor.New(dev, tensor.Float64, 3, 2)
	defer x.Free()
	defer y.Free()
	defer out.Free()
	if err := cost.Evaluate(cost.Args{X: x, Y: y, Out: out, Cost: cost.SqEuclidean}); err != nil {
		fmt.Println(err)
		return
	}
	c, _ := tensor.Values[float64](out)
	for i := range 3 {
		fmt.Println(c[2*i : 2*i+2])
	}
	// Output:
	// [0 1]
	// [1 2]
	// [25 18]
}

func BenchmarkEvaluate(b *testing.B) {
	for _, dev := range kerneltest.Hardware(b) {
		for _, dtype := range []tensor.DType{tensor.Float32, tensor.Float64} {
			for _, d := range []int{2, 64, 512} {
				for _, transposed := range []bool{false, true} {
					b.Run(fmt.Sprintf("%s/%v/d=%d/transposed=%v", dev.Name, dtype, d, transposed), func(b *testing.B) {
						const n = 2048
						put := func(shape ...int) tensor.Tensor {
							t, err := tensor.New(dev.Device, dtype, shape...)
							require.NoError(b, err)
							b.Cleanup(t.Free)
							return t
						}
						a := cost.Args{X: put(n, d), Y: put(n, d), Out: put(n, n)}
						require.NoError(b, philox.Normal(a.X, philox.Draw{Seed: 1}))
						require.NoError(b, philox.Normal(a.Y, philox.Draw{Seed: 2}))
						bytes := n * n * dtype.Size()
						if transposed {
							a.OutT = put(n, n)
							bytes *= 2
						}
						b.SetBytes(int64(bytes))
						for b.Loop() {
							if err := cost.Evaluate(a); err != nil {
								b.Fatal(err)
							}
						}
						require.NoError(b, dev.Sync())
						perPair := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / (n * n)
						b.ReportMetric(perPair, "ns/pair")
						b.ReportMetric(3*float64(d)/perPair, "GFLOP/s") // subtract, multiply, add
						if dtype == tensor.Float32 {
							agrees[float32](b, a)
						} else {
							agrees[float64](b, a)
						}
					})
				}
			}
		}
	}
}

// agrees fails a benchmark whose last row is not the definition's.
func agrees[T kerneltest.Float](b *testing.B, a cost.Args) {
	n, d := a.X.Dim(0), a.X.Dim(1)
	values := func(t tensor.Tensor) []T {
		v, err := tensor.Values[T](t)
		require.NoError(b, err)
		return v
	}
	x, y, out := values(a.X.Rows(n-1, n)), values(a.Y), values(a.Out.Rows(n-1, n))
	for j, got := range out {
		want := definition(a.Cost, x, y[j*d:(j+1)*d])
		require.NoError(b, kerneltest.Within([]T{got}, []float64{want}, bound[T](a.Cost, d, want)))
	}
}
