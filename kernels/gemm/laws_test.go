package gemm_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/kernels/gemm"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// multiply is α op(A) op(B) for new arrays.
func multiply[T kt.Float](t *testing.T, dev kt.Target, alpha float64, a, b gemm.Matrix, m, n int) *kt.Array[T] {
	t.Helper()
	c := kt.Poison[T](t, dev.Device, m, n)
	require.NoError(t, gemm.Multiply(gemm.Args{A: a, B: b, C: gemm.Of(c.Tensor), Alpha: alpha}))
	return c
}

// A product with the identity is exact, from either side and in either form.
func TestIdentity(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, n := range []int{1, 4, 7, 33, 129} {
			p := random[float32](shape{m: n, n: n, k: n}, 1, 0, 1)
			one := make([]float32, n*n)
			for i := range n {
				one[i*n+i] = 1
			}
			a, e := gemm.Of(kt.Put(t, dev.Device, p.a, n, n).Tensor), gemm.Of(kt.Put(t, dev.Device, one, n, n).Tensor)
			for _, c := range []*kt.Array[float32]{
				multiply[float32](t, dev, 1, a, e, n, n), multiply[float32](t, dev, 1, e, a, n, n),
				multiply[float32](t, dev, 1, a, e.T(), n, n), multiply[float32](t, dev, 1, e.T(), a, n, n),
			} {
				require.NoError(t, kt.BitEqual(c.Get(t), p.a))
			}
			// (Aᵀ E)ᵀ
			for i, v := range multiply[float32](t, dev, 1, a.T(), e, n, n).Get(t) {
				require.Equal(t, p.a[i%n*n+i/n], v)
			}
		}
	})
}

// A power of two goes through a product unchanged, wherever it is.
func TestScalar(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, s := range []shape{{m: 33, n: 65, k: 70}, {m: 2, n: 40, k: 70}, {m: 9, n: 9, k: 4200}} {
			p := random[float32](s, 1, 0, 2)
			once := p.run(t, dev.Device, gemm.Native)
			p.alpha = 4
			four := p.run(t, dev.Device, gemm.Native)
			p.alpha = 1
			for i := range p.b {
				p.b[i] *= 4
			}
			inside := p.run(t, dev.Device, gemm.Native)
			for i := range once {
				once[i] *= 4
			}
			require.NoError(t, kt.BitEqual(four, once), "%v", s)
			require.NoError(t, kt.BitEqual(inside, once), "%v", s)
		}
	})
}

// Whole numbers are summed exactly, so that the sum over k may be split
// anywhere, with β = 1, and the transpose of a product is that of its factors
// in the other order.
func TestSplitAndTranspose(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, s := range []shape{{m: 37, n: 41, k: 300}, {m: 3, n: 41, k: 300}, {m: 6, n: 7, k: 4200}} {
			p := random[float64](s, 1, 0, 3)
			for _, v := range [][]float64{p.a, p.b} {
				for i := range v {
					v[i] = math.Round(8 * v[i])
				}
			}
			a, b := gemm.Of(kt.Put(t, dev.Device, p.a, s.m, s.k).Tensor), kt.Put(t, dev.Device, p.b, s.k, s.n)
			whole := multiply[float64](t, dev, 1, a, gemm.Of(b.Tensor), s.m, s.n).Get(t)
			for i, v := range whole {
				want, _ := p.element(0, i/s.n, i%s.n)
				require.Equal(t, want, v)
			}
			cut := s.k / 3
			c := multiply[float64](t, dev, 1, a.Columns(0, cut), gemm.Of(b.Rows(0, cut)), s.m, s.n)
			require.NoError(t, gemm.Multiply(gemm.Args{A: a.Columns(cut, s.k), B: gemm.Of(b.Rows(cut, s.k)), C: gemm.Of(c.Tensor),
				Alpha: 1, Beta: 1}))
			require.NoError(t, kt.BitEqual(c.Get(t), whole), "%v", s)
			for i, v := range multiply[float64](t, dev, 1, gemm.Of(b.Tensor).T(), a.T(), s.n, s.m).Get(t) {
				require.Equal(t, whole[i%s.m*s.n+i/s.m], v)
			}
		}
	})
}

// A calculation allocates nothing on the host once it has run.
func TestAllocations(t *testing.T) {
	for _, dev := range kt.Hardware(t) {
		p := random[float32](shape{m: 9, n: 8, k: 7, bias: true}, 1, 0, 4)
		s := p.put(t, dev.Device)
		require.Zero(t, testing.AllocsPerRun(20, func() {
			if err := gemm.Multiply(s.args); err != nil {
				t.Fatal(err)
			}
		}))
		require.NoError(t, dev.Sync())
		require.Equal(t, tensor.Float32, s.args.C.Data.DType())
	}
}
