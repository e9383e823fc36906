package gemm_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gemm"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// shapes straddle register tiles (6 or 12 rows, 4 to 32 columns), blocks of 60
// and 64 to 512, the GPU's 64 and 128, slices of 16 and 32 terms, chunks of 128
// to 256; products with few rows or columns; all four transpositions; padding.
var shapes = []shape{
	{m: 1, n: 1, k: 1},
	{m: 1, n: 1, k: 7, tb: true, bias: true},
	{m: 7, n: 8, k: 31, ta: true},
	{m: 8, n: 7, k: 32, tb: true, bias: true, pad: 3},
	{m: 31, n: 33, k: 32, pad: 1},
	{m: 33, n: 31, k: 129, ta: true, tb: true, bias: true},
	{m: 127, n: 65, k: 17, tb: true, pad: 4},
	{m: 129, n: 127, k: 5, ta: true, bias: true, pad: 4},
	{m: 64, n: 128, k: 16, pad: 4},
	{m: 61, n: 131, k: 257},
	{m: 5, n: 5, k: 1, tb: true},
	{m: 5, n: 641, k: 2, bias: true},
	{m: 130, n: 5, k: 3, ta: true, tb: true},
	// Few rows or columns: sums of rows and dot products, vectors with steps.
	{m: 1, n: 521, k: 33, bias: true},
	{m: 2, n: 37, k: 513, tb: true, pad: 2},
	{m: 3, n: 129, k: 64, ta: true, bias: true, pad: 1},
	{m: 4, n: 67, k: 127, ta: true, tb: true},
	{m: 131, n: 1, k: 129, bias: true},
	{m: 131, n: 1, k: 65, tb: true, pad: 5},
	{m: 67, n: 2, k: 31, ta: true, bias: true, pad: 1},
	{m: 7, n: 3, k: 600},
	{m: 33, n: 4, k: 8, ta: true, tb: true, bias: true},
	// Split sums.
	{m: 6, n: 9, k: 4099, bias: true},
	{m: 1, n: 3, k: 5000, tb: true},
	// Batches.
	{batch: 3, m: 7, n: 9, k: 11, bias: true},
	{batch: 5, m: 33, n: 8, k: 16, ta: true, sharedB: true, pad: 2},
	{batch: 2, m: 70, n: 70, k: 40, tb: true, sharedA: true},
	{batch: 4, m: 1, n: 33, k: 12, sharedB: true, bias: true},
	{batch: 4, m: 19, n: 1, k: 12, sharedA: true, bias: true},
	{batch: 1, m: 13, n: 6, k: 4200, ta: true},
}

// Every shape on every device, with α and β in turn, against the definition.
func TestDefinition(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		t.Run("float32", func(t *testing.T) { define[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { define[float64](t, dev.Device) })
	})
}

func define[T kt.Float](t *testing.T, dev gpu.Device) {
	for i, s := range shapes {
		numbers := [][2]float64{{1, 0}, {-0.75, 1}, {2.5, -0.5}}[i%3]
		p := random[T](s, numbers[0], numbers[1], uint64(i))
		p.verify(t, p.run(t, dev, gemm.Native))
	}
}

// Larger than the packed columns of a round (16 MiB): rounds of columns and of
// terms, and of matrices, on the CPU alone. Some elements are looked at.
func TestRounds(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	for _, s := range []shape{
		{m: 7, n: 70, k: 70000, tb: true},           // terms, in split sums
		{m: 5, n: 540, k: 8300},                     // columns and terms
		{batch: 80, m: 6, n: 230, k: 300, tb: true}, // matrices
	} {
		p := random[float32](s, 1.5, -1, 3)
		got := p.run(t, dev, gemm.Native)
		for at := 0; at < len(got); at += 1 + len(got)/500 {
			want, scale := p.element(at/(s.m*s.n), at/s.n%s.m, at%s.n)
			if diff := math.Abs(float64(got[at]) - want); !(diff <= floor*ulp[float32]()*scale) {
				t.Fatalf("%v: element %d: got %v, want %v", s, at, got[at], want)
			}
		}
	}
}

// k = 0 is an empty sum; nothing at all is asked of an empty C.
func TestEmpty(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, n := range []int{1, 9} {
			for _, beta := range []float64{0, 2} {
				p := random[float32](shape{m: 5, n: n, bias: beta == 0}, 1, beta, 1)
				s := p.put(t, dev.Device)
				require.NoError(t, gemm.Multiply(s.args))
				p.verify(t, s.c.Get(t))
			}
		}
		none, err := tensor.New(dev.Device, tensor.Float32, 0, 3)
		require.NoError(t, err)
		defer none.Free()
		b := kt.Put(t, dev.Device, make([]float32, 12), 4, 3)
		a, err := tensor.New(dev.Device, tensor.Float32, 0, 4)
		require.NoError(t, err)
		defer a.Free()
		require.NoError(t, gemm.Multiply(gemm.Args{A: gemm.Of(a), B: gemm.Of(b.Tensor), C: gemm.Of(none), Alpha: 1}))
	})
}

// NaN and infinities of A and B reach the elements that IEEE 754 says, and no others.
func TestNotFinite(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, s := range []shape{{m: 9, n: 13, k: 40, bias: true}, {m: 3, n: 13, k: 40}, {m: 13, n: 2, k: 40}, {m: 9, n: 7, k: 4500}} {
			p := random[float64](s, -2, 0.5, 4)
			a, b, c := p.operands()
			nan, inf := math.NaN(), math.Inf(1)
			p.a[a.at(0, 1, 5)], p.a[a.at(0, 2, 6)] = nan, inf
			p.b[b.at(0, 39, 0)], p.b[b.at(0, 6, 1)] = -inf, 0 // 0 · inf at (2, 1)
			got := p.run(t, dev.Device, gemm.Native)
			for i := range s.m {
				for j := range s.n {
					want, _ := p.element(0, i, j)
					v := got[c.at(0, i, j)]
					switch {
					case math.IsNaN(want) || math.IsInf(want, 0):
						if math.IsNaN(want) != math.IsNaN(v) || math.IsInf(want, 0) && want != v {
							t.Fatalf("%v: (%d, %d): got %v, want %v", s, i, j, v, want)
						}
					default:
						require.InDelta(t, want, v, 1e-9, "%v: (%d, %d)", s, i, j)
					}
				}
			}
		}
	})
}

// Bit-equal when repeated, and whatever the number of workers.
func TestRepeats(t *testing.T) {
	some := []shape{{m: 129, n: 200, k: 300, tb: true}, {m: 6, n: 9, k: 4099}, {m: 3, n: 700, k: 90}, {batch: 40, m: 6, n: 7, k: 8}}
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, s := range some {
			p := random[float32](s, 1, 0, 5)
			first := p.run(t, dev.Device, gemm.Native)
			require.NoError(t, kt.BitEqual(first, p.run(t, dev.Device, gemm.Native)), "%v", s)
		}
	})
	for _, s := range some {
		p := random[float32](s, 1, 0, 5)
		var first []float32
		for _, workers := range []int{1, 2, 7} {
			dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, dev.Close()) })
			got := p.run(t, dev, gemm.Native)
			if first == nil {
				first = got
			}
			require.NoError(t, kt.BitEqual(first, got), "%v with %d workers", s, workers)
		}
	}
}

// A recorded product can be replayed with other numbers in its arrays.
func TestRecord(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		p := random[float32](shape{m: 9, n: 6, k: 4100, bias: true}, 1, 0, 6)
		s := p.put(t, dev.Device)
		g, err := dev.Record(func() error { return gemm.Multiply(s.args) })
		require.NoError(t, err)
		defer g.Close()
		other := random[float32](p.shape, 1, 0, 7)
		require.NoError(t, tensor.Set(s.a.Tensor, other.a))
		require.NoError(t, tensor.Set(s.b.Tensor, other.b))
		require.NoError(t, tensor.Set(s.bias.Tensor, other.bias))
		require.NoError(t, g.Replay())
		other.verify(t, s.c.Get(t))
	})
}

// The matrices of a batch may lie side by side, as the heads of an attention do.
func TestBeside(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		const heads, m, n, k = 3, 5, 4, 6
		p := random[float64](shape{batch: heads, m: m, n: n, k: k}, 1, 0, 8)
		a, b := kt.Put(t, dev.Device, p.a, heads, m, k), kt.Put(t, dev.Device, p.b, heads, k, n)
		c := kt.Poison[float64](t, dev.Device, m, heads*n)
		require.NoError(t, gemm.Multiply(gemm.Args{A: gemm.Of(a.Tensor), B: gemm.Of(b.Tensor), Alpha: 1,
			C: gemm.Matrix{Data: c.Tensor, Batch: heads, Rows: m, Cols: n, Lead: heads * n, Stride: n}}))
		for at, v := range c.Get(t) {
			want, scale := p.element(at%(heads*n)/n, at/(heads*n), at%n)
			require.InDelta(t, want, v, floor*ulp[float64]()*scale)
		}
	})
}

// 64 matrices or more than a GPU's grid has room for in its third axis.
func TestManyMatrices(t *testing.T) {
	for _, dev := range kt.Devices(t) {
		if dev.Name != "cpu-"+gpu.BestLevel().String() && dev.Name != "cuda" {
			continue // a fiber for every thread would take minutes
		}
		p := random[float32](shape{batch: 70000, m: 2, n: 2, k: 2}, 1, 0, 9)
		p.verify(t, p.run(t, dev.Device, gemm.Native))
	}
}

func FuzzMultiply(f *testing.F) {
	f.Add(uint8(3), uint8(4), uint8(5), uint8(0), uint8(0), int8(0), uint8(0), false, false)
	f.Add(uint8(0), uint8(0), uint8(0), uint8(2), uint8(7), int8(-1), uint8(3), true, false)
	f.Fuzz(func(t *testing.T, m, n, k, batch, lead uint8, offset int8, stride uint8, ta, tb bool) {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 1})
		require.NoError(t, err)
		defer dev.Close()
		memory := func(value float64) tensor.Tensor {
			t, err := tensor.From(dev, slices.Repeat([]float64{value}, 4096), 64, 64)
			if err != nil {
				panic(err)
			}
			return t
		}
		a, b, c := memory(1), memory(1), memory(7)
		matrix := func(data tensor.Tensor, rows, cols uint8, transposed bool) gemm.Matrix {
			if transposed {
				rows, cols = cols, rows
			}
			return gemm.Matrix{Data: data, Rows: int(rows), Cols: int(cols), Batch: int(batch), Lead: int(lead), Offset: int(offset),
				Stride: int(stride), Transposed: transposed}
		}
		out := matrix(c, m, n, false)
		if err := gemm.Multiply(gemm.Args{A: matrix(a, m, k, ta), B: matrix(b, k, n, tb), C: out, Alpha: 1}); err != nil {
			return
		}
		// All products are k, and nothing else is written.
		v, err := tensor.Values[float64](c)
		require.NoError(t, err)
		if m == 0 && n == 0 && batch == 0 {
			return // means the data's own shape
		}
		written := 0
		for _, x := range v {
			if x != 7 || k == 7 {
				written++
				require.Equal(t, float64(k), x)
			}
		}
		if k != 7 {
			require.Equal(t, max(int(batch), 1)*int(m)*int(n), written)
		}
	})
}
