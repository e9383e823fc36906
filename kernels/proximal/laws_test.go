package proximal_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/tensor"
)

// sample is a problem with the floor, with axes where d is odd.
func sample[T kerneltest.Float](seed uint64, n, k, d int, own bool) problem[T] {
	rng := rand.New(rand.NewPCG(seed, uint64(d)))
	const beta = 5
	p := problem[T]{m: random[T](rng, k, d, 0.4, 1.02/(1+beta), 1), beta: beta, t0: 0.8, x: normals[T](rng, n*d, 1.5)}
	if d%2 == 1 {
		p.m = p.m.turned(rng)
	}
	if own {
		p.t = make([]T, n)
		for b := range p.t {
			p.t[b] = T(rng.Float64())
		}
	}
	return p
}

func lawful(dev kerneltest.Target) []int {
	if emulated(dev) {
		return []int{2, 5}
	}
	return []int{1, 2, 3, 6, 9, 18, 21}
}

// The map is monotone: it is the gradient of a convex function.
func TestMonotone(t *testing.T) { each(t, monotone[float32], monotone[float64]) }

func monotone[T kerneltest.Float](t *testing.T, dev kerneltest.Target) {
	n := 24
	if emulated(dev) {
		n = 4
	}
	for _, d := range lawful(dev) {
		p := sample[T](1, n, 9, d, false)
		r := p.solve(t, dev.Device)
		for a := range n {
			for b := range a {
				var product, square, dx float64
				for i := range d {
					x := float64(p.x[a*d+i]) - float64(p.x[b*d+i])
					y := float64(r.y[a*d+i]) - float64(r.y[b*d+i])
					product += x * y
					square += y * y
					dx += x * x
				}
				// x = y + g/β has the slope c at least, so that (x, y) >= c |y|^2.
				late := p.beta * (1 - p.t0)
				least := late / (1 + late)
				slack := 8 * tight[T]() * 5 * math.Sqrt(dx) * float64(d)
				require.Truef(t, product >= least*square-slack, "d = %d: samples %d and %d: %v, want at least %v", d, a, b, product, least*square)
			}
		}
	}
}

// The gradient of the envelope in x is β (x - y).
func TestEnvelope(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, d := range lawful(dev) {
			const h = 1e-4
			p := sample[float64](2, 1, 7, d, false)
			p.tolerance = 1e-13
			x := p.x
			y := p.solve(t, dev.Device).y
			p.x = nil
			for i := range d {
				for _, step := range []float64{h, -h} {
					p.x = append(p.x, x...)
					p.x[len(p.x)-d+i] += step
				}
			}
			value := p.solve(t, dev.Device).value
			got, want := make([]float64, d), make([]float64, d)
			for i := range d {
				got[i] = (value[2*i] - value[2*i+1]) / (2 * h)
				want[i] = p.beta * (x[i] - y[i])
			}
			// The value is of order 10 d: h^2 times a third derivative, and 1e-15 of
			// it over h.
			require.NoError(t, kerneltest.Within(got, want, 2e-5), "d = %d", d)
		}
	})
}

// Samples do not see one another: in another order, alone or in other company,
// and in place of x, the bits are the same. So are those of a repeat.
func TestSamplesAreIndependent(t *testing.T) { each(t, independent[float32], independent[float64]) }

func independent[T kerneltest.Float](t *testing.T, dev kerneltest.Target) {
	n := 67
	if emulated(dev) {
		n = 4
	}
	for i, d := range lawful(dev) {
		p := sample[T](3, n, 11, d, i%2 == 0)
		whole := p.solve(t, dev.Device)
		require.NoError(t, p.verify(whole, 30))
		compare := func(q problem[T], which []int) {
			t.Helper()
			r := q.solve(t, dev.Device)
			for e, b := range which {
				require.NoError(t, kerneltest.BitEqual(r.y[e*d:e*d+d], whole.y[b*d:b*d+d]), "d = %d, sample %d", d, b)
				require.NoError(t, kerneltest.BitEqual(r.value[e:e+1], whole.value[b:b+1]), "d = %d, sample %d", d, b)
				require.NoError(t, kerneltest.BitEqual(r.residual[e:e+1], whole.residual[b:b+1]), "d = %d, sample %d", d, b)
				require.Equal(t, whole.iterations[b], r.iterations[e])
			}
		}
		order := rand.New(rand.NewPCG(5, 5)).Perm(n)
		for _, which := range [][]int{order, order[:1], order[n/2:]} {
			compare(p.rows(which), which)
		}

		mix, _ := put(t, dev.Device, p.m)
		x := kerneltest.Put(t, dev.Device, p.x, n, d)
		a := proximal.Args{Mixture: mix, X: x.Tensor, T0: p.t0, Beta: p.beta, Y: x.Tensor}
		if p.t != nil {
			a.T = kerneltest.Put(t, dev.Device, p.t).Tensor
		}
		require.NoError(t, proximal.Solve(a))
		require.NoError(t, kerneltest.BitEqual(x.Get(t), whole.y), "in place, d = %d", d)
	}
}

// The number of workers is not in the results.
func TestWorkers(t *testing.T) {
	for _, d := range []int{2, 3, 17} {
		var first result[float32]
		for _, workers := range []int{1, 2, 5} {
			dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
			require.NoError(t, err)
			r := sample[float32](4, 301, 13, d, true).solve(t, dev)
			t.Cleanup(func() { dev.Close() })
			if workers == 1 {
				first = r
			}
			require.NoError(t, kerneltest.BitEqual(r.y, first.y))
			require.NoError(t, kerneltest.BitEqual(r.value, first.value))
		}
	}
}

// A start near the solution saves steps, one at it all of them; too few steps
// leave a point that is better than the start, with its residual.
func TestStart(t *testing.T) { each(t, start[float32], start[float64]) }

func start[T kerneltest.Float](t *testing.T, dev kerneltest.Target) {
	n := 33
	if emulated(dev) {
		n = 3
	}
	for _, d := range lawful(dev) {
		for _, withoutH := range []bool{false, true} {
			p := sample[T](5, n, 7, d, false)
			p.withoutH = withoutH
			cold := p.solve(t, dev.Device)
			require.NoError(t, p.verify(cold, 30))
			p.start = cold.y
			warm := p.solve(t, dev.Device)
			require.NoError(t, p.verify(warm, 1)) // a stalled sample may find a step
			total, again := int32(0), int32(0)
			for b := range n {
				total += cold.iterations[b]
				again += warm.iterations[b]
			}
			require.Greater(t, total, int32(n), "the test is vacuous")
			require.LessOrEqual(t, again, int32(n/8), "d = %d", d)

			p.start, p.most = nil, 1
			one := p.solve(t, dev.Device)
			p.honest(t, one)
			for b := range n {
				require.LessOrEqual(t, one.iterations[b], int32(1))
			}
		}
	}
}

// Solving allocates nothing.
func TestAllocations(t *testing.T) {
	dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 2})
	require.NoError(t, err)
	defer dev.Close()
	for _, d := range []int{2, 20} {
		p := sample[float32](6, 40, 5, d, true)
		mix, _ := put(t, dev, p.m)
		a := proximal.Args{
			Mixture: mix, X: kerneltest.Put(t, dev, p.x, 40, d).Tensor, T: kerneltest.Put(t, dev, p.t).Tensor, Beta: p.beta,
			Y: kerneltest.Poison[float32](t, dev, 40, d).Tensor, Value: kerneltest.Poison[float32](t, dev, 40).Tensor,
			Residual: kerneltest.Poison[float32](t, dev, 40).Tensor,
		}
		require.Zero(t, testing.AllocsPerRun(50, func() {
			if err := proximal.Solve(a); err != nil {
				t.Fatal(err)
			}
		}))
	}
	// The same through the device library, workspace included.
	emu, err := gpu.Open("emu")
	if err != nil {
		t.Logf("not run: emulation: %v", err)
		return
	}
	defer emu.Close()
	p := sample[float32](6, 1, 2, 5, false)
	mix, _ := put(t, emu, p.m)
	a := proximal.Args{Mixture: mix, X: kerneltest.Put(t, emu, p.x, 1, 5).Tensor, Beta: 1e9, Y: kerneltest.Poison[float32](t, emu, 1, 5).Tensor}
	require.Zero(t, testing.AllocsPerRun(5, func() {
		if err := proximal.Solve(a); err != nil {
			t.Fatal(err)
		}
	}))
	require.NoError(t, emu.Sync())
}

// A recorded call is repeated by its graph.
func TestGraph(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, d := range []int{2, 5} {
			p := sample[float64](7, 3, 4, d, false)
			want := p.solve(t, dev.Device)
			mix, _ := put(t, dev.Device, p.m)
			y := kerneltest.Poison[float64](t, dev.Device, 3, d)
			a := proximal.Args{Mixture: mix, X: kerneltest.Put(t, dev.Device, p.x, 3, d).Tensor, T0: p.t0, Beta: p.beta, Y: y.Tensor}
			g, err := dev.Record(func() error { return proximal.Solve(a) })
			require.NoError(t, err)
			for range 2 {
				require.NoError(t, tensor.Set(y.Tensor, make([]float64, 3*d)))
				require.NoError(t, g.Replay())
				require.NoError(t, kerneltest.BitEqual(y.Get(t), want.y))
			}
			require.NoError(t, g.Close())
		}
	})
}
