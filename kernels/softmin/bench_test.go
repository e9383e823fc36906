//go:build cgo

package softmin_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/softmin"
)

// Benchmarks report ns/pair of the fastest whole call, packing included, and limit-%, the
// part of it that cannot be avoided: the larger of d multiply-adds and one
// exponential per pair, at the rates that one core was measured to do them in
// the same run. They fail where the last timed answer is wrong.

func BenchmarkSoftmin(b *testing.B) {
	forEachSetting(b, func(b *testing.B, dev kt.Target, cost softmin.Cost, d int, double bool) {
		if double {
			benchmark[float64](b, dev, cost, d, false)
		} else {
			benchmark[float32](b, dev, cost, d, false)
		}
	})
}

func BenchmarkSweep(b *testing.B) {
	forEachSetting(b, func(b *testing.B, dev kt.Target, cost softmin.Cost, d int, double bool) {
		if double {
			benchmark[float64](b, dev, cost, d, true)
		} else {
			benchmark[float32](b, dev, cost, d, true)
		}
	})
}

func forEachSetting(b *testing.B, body func(b *testing.B, dev kt.Target, cost softmin.Cost, d int, double bool)) {
	for _, workers := range []int{1, 2} {
		d, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(b, err)
		b.Cleanup(func() { d.Close() })
		dev := kt.Target{Name: "cpu", Device: d}
		for _, double := range []bool{false, true} {
			for _, c := range []struct {
				cost softmin.Cost
				d    int
			}{{softmin.SqEuclidean, 2}, {softmin.SqEuclidean, 8}, {softmin.SqEuclidean, 64}, {softmin.SqEuclidean, 512}, {softmin.Matrix, 0}} {
				bits := map[bool]int{false: 32, true: 64}[double]
				b.Run(fmt.Sprintf("f%d/%v/d=%d/workers=%d", bits, c.cost, c.d, workers), func(b *testing.B) {
					body(b, dev, c.cost, c.d, double)
				})
			}
		}
	}
}

func benchmark[T kt.Float](b *testing.B, dev kt.Target, cost softmin.Cost, d int, sweep bool) {
	n, m := 4096, 4096
	if d > 64 {
		n = 1024
	}
	p := large[T](cost, n, m, d)
	a := put(b, dev, p)
	out, col := kt.Poison[T](b, dev.Device, n), kt.Poison[float64](b, dev.Device, m)
	call := func() error { return a.pairs.Softmin(dev.Device, out.Tensor) }
	if sweep {
		call = func() error {
			return a.pairs.Sweep(dev.Device, softmin.SweepArgs{Damp: 1, Out: out.Tensor, Col: col.Tensor})
		}
	}
	best := time.Hour // the least disturbed call
	for b.Loop() {
		start := time.Now()
		require.NoError(b, call())
		require.NoError(b, dev.Sync())
		best = min(best, time.Since(start))
	}
	ns := float64(best.Nanoseconds()) / float64(n) / float64(m)
	b.ReportMetric(ns, "ns/pair")
	b.ReportMetric(0, "ns/op")
	level, double := gpu.BestLevel(), ulp[T]() < 1e-10
	limit := max(float64(d)/softmin.Rate(level, double, false), 1/softmin.Rate(level, double, true))
	b.ReportMetric(100*limit*1e9/float64(dev.Properties().Workers)/ns, "limit-%")
	check(b, p, out.Get(b), col.Get(b), sweep)
}

// large is a problem of benchmark size, without what only apply reads.
func large[T kt.Float](cost softmin.Cost, n, m, d int) problem[T] {
	p := random[T](1, cost, 1, 1, d, 1)
	p.n, p.m, p.k, p.damp, p.epsilon = n, m, 1, 1, 0.05*float64(max(d, 1))
	p.logb, p.loga, p.f, p.v = nil, nil, nil, nil
	fill := func(count int) []T {
		v := make([]T, count)
		state := uint64(count)
		for i := range v {
			state = state*6364136223846793005 + 1442695040888963407
			v[i] = T(float64(state>>11)/(1<<53)*3.4 - 1.7)
		}
		return v
	}
	if cost == softmin.Matrix {
		p.matrix = fill(n * m)
		for i := range p.matrix {
			p.matrix[i] *= p.matrix[i]
		}
	} else {
		p.x, p.y = fill(n*d), fill(m*d)
	}
	p.g = fill(m)
	for j := range p.g {
		p.g[j] *= T(p.epsilon)
	}
	return p
}

// check compares a few rows with the definition, and col with its total.
func check[T kt.Float](b *testing.B, p problem[T], out []T, col []float64, sweep bool) {
	b.Helper()
	for _, i := range []int{0, 1000, p.n - 1} {
		q := p
		q.n, q.f, q.v, q.loga = 1, []T{0}, make([]T, p.m), nil
		if p.cost == softmin.Matrix {
			q.matrix = p.matrix[i*p.m : (i+1)*p.m]
		} else {
			q.x = p.x[i*p.d : (i+1)*p.d]
		}
		want, terms := define[float64](q, false), define[float64](q, q.products())
		naive := define[T](q, q.products())
		budget := max(2*math.Abs(float64(naive.out[0])-want.out[0]), 8*ulp[T]()*p.epsilon*(1+terms.condition))
		require.NoError(b, within(out[i:i+1], want.out, budget), "row %d", i)
	}
	if sweep {
		var total float64
		for _, c := range col {
			total += c
		}
		require.InEpsilon(b, float64(p.n), total, 1e-5)
	}
}
