package gmm_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// A step of training, with the sizes of the published experiments. ns/term is a
// sample, a component and a coordinate. Every row checks its last answer.
func BenchmarkTraining(b *testing.B) {
	for _, dev := range kerneltest.Devices(b) {
		if p := dev.Properties(); p.Kind == gpu.Emulation || p.Kind == gpu.CPU && p.Features != gpu.BestLevel().String() {
			continue
		}
		for _, s := range []size{{512, 50, 2, false}, {512, 10, 512, false}, {512, 50, 2, true}} {
			m := random(rand.New(rand.NewPCG(9, 2)), s.k, s.d, .1*float64(s.d), s.turned)
			b.Run(fmt.Sprintf("%s/f32/%v", dev.Name, s), func(b *testing.B) { training[float32](b, dev, m, s) })
			b.Run(fmt.Sprintf("%s/f64/%v", dev.Name, s), func(b *testing.B) { training[float64](b, dev, m, s) })
		}
	}
}

func training[T kerneltest.Float](b *testing.B, target kerneltest.Target, m model[float64], s size) {
	dev := target.Device
	if target.Properties().Kind == gpu.CPU { // all cores
		cpu, err := gpu.Open("cpu")
		require.NoError(b, err)
		b.Cleanup(func() { cpu.Close() })
		dev = cpu
	}
	l := loop[T](b, dev, m, s.n)
	rate := func(b *testing.B, terms int) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(terms*s.k*s.d), "ns/term")
	}
	rng := rand.New(rand.NewPCG(9, 3))
	download := func(v tensor.Tensor) []T {
		out, err := tensor.Values[T](v)
		require.NoError(b, err)
		return out
	}
	check := func(b *testing.B, r gmm.ReduceArgs, want gradient[float64], body func(in inputs) gradient[float32]) {
		b.Helper()
		got := gradient[T]{loss: download(r.Loss), la: download(r.DLogits), r: download(r.DMeans), raw: download(r.DRaw)}
		want.turn = nil
		same(b, got, naive(rng, m, l.x, l.u, nil, l.t, body), want, "answer")
	}
	times := func(b *testing.B, steps ...func() error) {
		for b.Loop() {
			for _, step := range steps {
				if err := step(); err != nil {
					b.Fatal(err)
				}
			}
		}
		require.NoError(b, dev.Sync())
	}
	b.Run("evaluate", func(b *testing.B) {
		times(b, func() error { return gmm.Evaluate(l.evaluate) })
		rate(b, s.n)
		last := s.n - 1
		x := l.x[last*s.d:]
		within(b, download(l.evaluate.Drift.Rows(last, s.n)), m.at(l.t[last], x).drift, 0,
			naive(rng, m, x, nil, nil, l.t[last:], func(in inputs) []float32 { return in.at(in.times[0], in.x).drift }),
			func(v []float32) []float32 { return v }, "answer")
	})
	b.Run("match", func(b *testing.B) {
		times(b, func() error { return gmm.Match(l.match) }, func() error { return gmm.Reduce(l.reduce) })
		rate(b, s.n)
		check(b, l.reduce, m.match(0, l.x, l.u, l.t, 1), func(in inputs) gradient[float32] {
			return in.match(0, in.x, in.u, in.times, 1)
		})
	})
	b.Run("likelihood", func(b *testing.B) {
		r := l.reduce
		r.Partial = l.likelihood.Partial
		times(b, func() error { return gmm.Likelihood(l.likelihood) }, func() error { return gmm.Reduce(r) })
		rate(b, 2*s.n)
		check(b, r, m.likelihood(0, term[float64]{l.x, 0, 1}, term[float64]{l.u, 1, -1}), func(in inputs) gradient[float32] {
			return in.likelihood(0, term[float32]{in.x, 0, 1}, term[float32]{in.u, 1, -1})
		})
	})
}
