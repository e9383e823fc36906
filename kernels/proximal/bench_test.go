package proximal_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/tensor"
)

// BenchmarkSolve is the inner loop of training, a cold start at each end: K = 50
// in the plane and K = 10 in 512 dimensions, batches of 512.
func BenchmarkSolve(b *testing.B) {
	var devices []kerneltest.Target
	for _, workers := range []int{1, 2} {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(b, err)
		b.Cleanup(func() { dev.Close() })
		devices = append(devices, kerneltest.Target{Name: fmt.Sprintf("cpu/workers=%d", workers), Device: dev})
	}
	if dev, err := gpu.Open("cuda"); err == nil {
		b.Cleanup(func() { dev.Close() })
		devices = append(devices, kerneltest.Target{Name: "cuda", Device: dev})
	}
	for _, dev := range devices {
		for _, s := range []size{{512, 50, 2}, {512, 10, 512}} {
			for _, t0 := range []float64{0, 1} {
				name := fmt.Sprintf("%s/d=%d/K=%d/t=%v", dev.Name, s.d, s.k, t0)
				b.Run(name+"/float32", func(b *testing.B) { benchmark[float32](b, dev, s, t0) })
				b.Run(name+"/float64", func(b *testing.B) { benchmark[float64](b, dev, s, t0) })
			}
		}
	}
}

func benchmark[T kerneltest.Float](b *testing.B, dev kerneltest.Target, s size, t0 float64) {
	rng := rand.New(rand.NewPCG(1, 2))
	const beta = 10
	p := problem[T]{m: random[T](rng, s.k, s.d, 1, 1.0001/(1+beta), 3), beta: beta, t0: t0}
	// At the end samples lie about the modes, as targets do about centres.
	p.x = normals[T](rng, s.n*s.d, 1)
	for i := range p.x {
		if t0 == 1 {
			p.x[i] = p.x[i]*0.5 + p.m.means[(i/s.d%s.k)*s.d+i%s.d]*T((1+beta)/float64(beta))
		}
	}
	mix, _ := put(b, dev.Device, p.m)
	x, y := kerneltest.Put(b, dev.Device, p.x, s.n, s.d), kerneltest.Poison[T](b, dev.Device, s.n, s.d)
	value, residual := kerneltest.Poison[T](b, dev.Device, s.n), kerneltest.Poison[T](b, dev.Device, s.n)
	count, err := tensor.From(dev.Device, make([]int32, s.n), s.n)
	require.NoError(b, err)
	defer count.Free()
	a := proximal.Args{
		Mixture: mix, X: x.Tensor, T0: t0, Beta: beta, Tolerance: 1e-5,
		Y: y.Tensor, Value: value.Tensor, Residual: residual.Tensor, Iterations: count,
	}
	best := time.Hour // the least disturbed call
	for b.Loop() {
		start := time.Now()
		if err := proximal.Solve(a); err != nil {
			b.Fatal(err)
		}
		if err := dev.Sync(); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Since(start))
	}
	b.ReportMetric(float64(best.Nanoseconds())/1000, "µs/call")
	b.ReportMetric(0, "ns/op")
	r := result[T]{y: y.Get(b), value: value.Get(b), residual: residual.Get(b)}
	r.iterations, err = tensor.Values[int32](count)
	require.NoError(b, err)
	total := 0.0
	for _, i := range r.iterations {
		total += float64(i)
	}
	b.ReportMetric(total/float64(s.n), "steps/sample")
	p.tolerance = a.Tolerance
	require.NoError(b, p.verify(r, 50))
}
