package gemm_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gemm"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// Benchmarks report GFLOP/s of the fastest whole call, packing included. They
// fail where the last timed answer is wrong.

func BenchmarkMultiply(b *testing.B) {
	shapes := []shape{
		{m: 512, n: 512, k: 512}, {m: 2048, n: 2048, k: 2048}, // the targets
		{m: 512, n: 512, k: 512, tb: true}, {m: 65536, n: 64, k: 64}, {m: 64, n: 64, k: 65536, ta: true}, {batch: 512, m: 64, n: 64, k: 64},
	}
	eachSetting(b, shapes, func(b *testing.B, dev kt.Target, s shape, double bool) {
		if double {
			benchmark[float64](b, dev, s)
		} else {
			benchmark[float32](b, dev, s)
		}
	})
}

// Shapes whose limit is the reading of B (or A): GFLOP/s are half the GB/s in
// float32 at m = 1.
func BenchmarkFew(b *testing.B) {
	shapes := []shape{
		{m: 1, n: 4096, k: 4096}, {m: 1, n: 4096, k: 4096, tb: true}, {m: 4096, n: 1, k: 4096}, {m: 4, n: 4096, k: 4096},
		{m: 5, n: 4096, k: 4096}, {m: 1, n: 256, k: 256}, {m: 4096, n: 4096, k: 4},
	}
	eachSetting(b, shapes, func(b *testing.B, dev kt.Target, s shape, double bool) {
		if double {
			benchmark[float64](b, dev, s)
		} else {
			benchmark[float32](b, dev, s)
		}
	})
}

func eachSetting(b *testing.B, shapes []shape, body func(*testing.B, kt.Target, shape, bool)) {
	for _, workers := range []int{1, 2} {
		d, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(b, err)
		b.Cleanup(func() { d.Close() })
		for _, s := range shapes {
			for _, double := range []bool{false, true} {
				bits := map[bool]int{false: 32, true: 64}[double]
				b.Run(fmt.Sprintf("f%d/%v/workers=%d", bits, s, workers), func(b *testing.B) {
					body(b, kt.Target{Name: "cpu", Device: d}, s, double)
				})
			}
		}
	}
}

func benchmark[T kt.Float](b *testing.B, dev kt.Target, s shape) {
	p := random[T](s, 1, 0, 1)
	a := p.put(b, dev.Device)
	best := time.Hour // the least disturbed call
	for b.Loop() {
		start := time.Now()
		require.NoError(b, gemm.Multiply(a.args))
		require.NoError(b, dev.Sync())
		best = min(best, time.Since(start))
	}
	flops := 2 * float64(max(s.batch, 1)) * float64(s.m) * float64(s.n) * float64(s.k)
	b.ReportMetric(flops/float64(best.Nanoseconds()), "GFLOP/s")
	b.ReportMetric(0, "ns/op")

	got, err := tensor.Values[T](a.c.Tensor)
	require.NoError(b, err)
	for _, at := range [][2]int{{0, 0}, {s.m - 1, s.n - 1}, {s.m / 2, s.n / 3}} {
		want, scale := p.element(max(s.batch, 1)-1, at[0], at[1])
		v := float64(got[len(got)-s.m*s.n+at[0]*s.n+at[1]])
		require.LessOrEqual(b, math.Abs(v-want), float64(s.k)*ulp[T]()*scale)
	}
}
