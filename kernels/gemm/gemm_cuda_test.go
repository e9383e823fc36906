package gemm_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gemm"
	kt "github.com/fortet/fortet/kernels/kerneltest"
)

// The tensor core precisions. Under emulation all of a tensor core kernel runs but
// the matrix instruction itself, which is computed from the same fragments.

// cudaDevices are the emulation and, where there is one, the GPU.
func cudaDevices(t *testing.T) []kt.Target {
	t.Helper()
	var out []kt.Target
	for _, dev := range kt.Devices(t) {
		if dev.Properties().Kind != gpu.CPU {
			out = append(out, dev)
		}
	}
	if len(out) == 0 {
		t.Log("not run: there is neither emulation nor GPU")
	}
	return out
}

// loss bounds what a precision loses of an element, relative to its scale.
//
// TF32 keeps 11 significant bits: a factor errs by 2^-11 at most, a product by
// 2·2^-11 + 2^-22. bfloat16 keeps 8 bits: a factor less its high half is at most 2^-9 of
// it, the low half's own error 2^-18; two factors and the product of low halves that is left
// out make 3·2^-18, and 2^-26 bounds what is left. Float sums of k products are taken to
// lose one unit 2^-23 each, for tensor cores may truncate, and α, β and bias four.
func loss(p gemm.Precision, k int) float64 {
	sums := 0x1p-23 * float64(k+4)
	if p == gemm.TF32 {
		return 0x1p-10 + 0x1p-22 + sums
	}
	return 3*0x1p-18 + 0x1p-26 + 3*sums
}

var tensorPrecisions = []gemm.Precision{gemm.TF32, gemm.BF16x3}

// Shapes straddle tiles of 128, slices of 32 terms and instructions of 8 and
// 16; copies by pieces and by numbers, along terms and along points; split sums.
var tensorShapes = []shape{
	{m: 5, n: 5, k: 1}, {m: 127, n: 129, k: 31, bias: true}, {m: 64, n: 33, k: 32, tb: true},
	{m: 129, n: 40, k: 36, ta: true, bias: true, pad: 3}, {m: 31, n: 100, k: 64, ta: true, tb: true}, {m: 17, n: 7, k: 300, tb: true, bias: true},
	{batch: 2, m: 9, n: 12, k: 16, sharedB: true, pad: 4}, {m: 3, n: 50, k: 40},
}

func TestTensorDefinition(t *testing.T) {
	for _, dev := range cudaDevices(t) {
		for _, precision := range tensorPrecisions {
			t.Run(dev.Name+"/"+precision.String(), func(t *testing.T) {
				for i, s := range tensorShapes {
					p := random[float32](s, []float64{1, -1.5}[i%2], []float64{0, 0.5}[i%2], uint64(i))
					got := p.run(t, dev.Device, precision)
					p.within(t, got, func(float64) float64 { return loss(precision, s.k) })
					require.NoError(t, kt.BitEqual(got, p.run(t, dev.Device, precision)))
				}
			})
		}
	}
}

// Numbers that a precision represents are multiplied exactly, and small whole
// numbers summed exactly: whatever goes to the wrong place shows. TF32 keeps
// 11 bits; bf16x3 is exact where one factor has 8 and the other 16.
func TestTensorExact(t *testing.T) {
	for _, dev := range cudaDevices(t) {
		for _, precision := range tensorPrecisions {
			for _, s := range []shape{{m: 130, n: 70, k: 50}, {m: 20, n: 20, k: 70, ta: true, tb: true}} {
				p := random[float32](s, 1, 0, 3)
				for i := range p.a {
					p.a[i] = float32(i*7919%2047 - 1023)
				}
				for i := range p.b {
					p.b[i] = float32(i*104729%255 - 127)
				}
				p.within(t, p.run(t, dev.Device, precision), func(float64) float64 { return 0 })
			}
		}
	}
}

// bf16x3 keeps what TF32 cannot: it is of float32's grade.
func TestGrades(t *testing.T) {
	for _, dev := range cudaDevices(t) {
		p := random[float32](shape{m: 40, n: 40, k: 64}, 1, 0, 4)
		worst := map[gemm.Precision]float64{}
		for _, precision := range []gemm.Precision{gemm.Native, gemm.TF32, gemm.BF16x3} {
			for at, v := range p.run(t, dev.Device, precision) {
				want, scale := p.element(0, at/p.n, at%p.n)
				worst[precision] = max(worst[precision], math.Abs(float64(v)-want)/scale)
			}
		}
		require.Less(t, 16*worst[gemm.BF16x3], worst[gemm.TF32])
		require.Less(t, worst[gemm.Native], worst[gemm.BF16x3])
		require.Greater(t, worst[gemm.TF32], 0x1p-14) // it is not the native kernel
	}
}

// NaN and infinities do not get lost.
func TestTensorNotFinite(t *testing.T) {
	for _, dev := range cudaDevices(t) {
		for _, precision := range tensorPrecisions {
			p := random[float32](shape{m: 9, n: 11, k: 20}, 1, 0, 5)
			p.a[2*20+3], p.b[7*11+4] = float32(math.NaN()), float32(math.Inf(-1))
			for at, v := range p.run(t, dev.Device, precision) {
				finite := !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0)
				require.Equal(t, at/11 != 2 && at%11 != 4, finite, "%v: (%d, %d) is %v", precision, at/11, at%11, v)
			}
		}
	}
}
