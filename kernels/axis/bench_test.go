//go:build cgo

package axis_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/axis"
	kt "github.com/fortet/fortet/kernels/kerneltest"
)

// BenchmarkLogSumExp reports ns/term of the fastest call, a term being one of the
// outer·n·m·inner exponentials of the definition. The kernels are heat kernels of
// a standard deviation of so many cells. It fails where the last answer is wrong.
func BenchmarkLogSumExp(b *testing.B) {
	for _, dev := range kt.Hardware(b) {
		for _, s := range [][4]int{{1, 64, 64, 64}, {64, 64, 64, 1}, {1, 48, 48, 48 * 48}, {48, 48, 48, 48}, {48 * 48, 48, 48, 1}, {1, 601, 601, 1}, {1, 512, 512, 512}} {
			for _, std := range []float64{20, 1.5} {
				b.Run(fmt.Sprintf("%s/f32/%v/std=%g", dev.Name, s, std), func(b *testing.B) { benchmark[float32](b, dev.Device, s, std) })
				b.Run(fmt.Sprintf("%s/f64/%v/std=%g", dev.Name, s, std), func(b *testing.B) { benchmark[float64](b, dev.Device, s, std) })
			}
		}
	}
}

func benchmark[T kt.Float](b *testing.B, dev gpu.Device, s [4]int, std float64) {
	outer, n, m, inner := s[0], s[1], s[2], s[3]
	p := problem[T]{outer: outer, n: n, m: m, inner: inner, scale: 1, in: make([]T, outer*n*inner), logk: make([]T, m*n)}
	for i := range m {
		for j := range n {
			p.logk[i*n+j] = T(-float64((i-j)*(i-j)) / (2 * std * std))
		}
	}
	for i := range p.in {
		p.in[i] = T(20 * math.Sin(float64(i)))
	}
	in, logk, out := kt.Put(b, dev, p.in, outer, n, inner), kt.Put(b, dev, p.logk, m, n), kt.Poison[T](b, dev, outer, m, inner)
	best := time.Hour // the least disturbed call
	for b.Loop() {
		start := time.Now()
		require.NoError(b, axis.LogSumExp(axis.Args{In: in.Tensor, LogK: logk.Tensor, Out: out.Tensor}))
		require.NoError(b, dev.Sync())
		best = min(best, time.Since(start))
	}
	b.ReportMetric(float64(best.Nanoseconds())/float64(outer*n*m*inner), "ns/term")
	b.ReportMetric(float64(best.Microseconds()), "µs/call")
	b.ReportMetric(0, "ns/op")

	got := out.Get(b)
	q := p // the last column, by itself
	q.outer, q.inner, q.in = 1, 1, make([]T, n)
	for j := range n {
		q.in[j] = p.in[((outer-1)*n+j)*inner+inner-1]
	}
	last := make([]T, m)
	for i := range last {
		last[i] = got[((outer-1)*m+i)*inner+inner-1]
	}
	require.NoError(b, kt.Close(last, define[T](q), define[float64](q), 8))
}
