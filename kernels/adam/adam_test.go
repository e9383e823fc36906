package adam_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/adam"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// hyper are the numbers of a step.
type hyper struct{ rate, beta1, beta2, epsilon, decay, ema, clip float64 }

var usual = hyper{rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8}

// state is p, m, v and e.
type state[T kerneltest.Float] struct{ p, m, v, e []T }

func start[T kerneltest.Float](p []T) state[T] {
	s := state[T]{append([]T(nil), p...), make([]T, len(p)), make([]T, len(p)), append([]T(nil), p...)}
	return s
}

// update is the documented algorithm of torch.optim.AdamW, line by line, in T:
// the definition for float64, the naive evaluation for float32.
func (s state[T]) update(g []T, h hyper, step int, norm float64) {
	scale := T(1)
	if h.clip > 0 && norm > h.clip {
		scale = T(h.clip / norm)
	}
	for i := range s.p {
		x := scale * g[i]
		s.p[i] -= T(h.rate) * T(h.decay) * s.p[i]
		s.m[i] = T(h.beta1)*s.m[i] + T(1-h.beta1)*x
		s.v[i] = T(h.beta2)*s.v[i] + T(1-h.beta2)*x*x
		mHat := s.m[i] / T(1-math.Pow(h.beta1, float64(step)))
		vHat := s.v[i] / T(1-math.Pow(h.beta2, float64(step)))
		s.p[i] -= T(h.rate) * mHat / (T(math.Sqrt(float64(vHat))) + T(h.epsilon))
		s.e[i] = T(h.ema)*s.e[i] + T(1-h.ema)*s.p[i]
	}
}

// arrays is a state on a device.
type arrays[T kerneltest.Float] struct{ p, g, m, v, e *kerneltest.Array[T] }

func put[T kerneltest.Float](t testing.TB, dev gpu.Device, s state[T]) arrays[T] {
	return arrays[T]{
		kerneltest.Put(t, dev, s.p), kerneltest.Put(t, dev, make([]T, len(s.p))),
		kerneltest.Put(t, dev, s.m), kerneltest.Put(t, dev, s.v), kerneltest.Put(t, dev, s.e),
	}
}

// args are the arguments of a step with all arrays.
func (a arrays[T]) args(h hyper, step int) adam.Args {
	return adam.Args{
		Params: a.p.Tensor, Gradient: a.g.Tensor, First: a.m.Tensor, Second: a.v.Tensor, EMA: a.e.Tensor,
		Step: step, Rate: h.rate, Beta1: h.beta1, Beta2: h.beta2, Epsilon: h.epsilon, Decay: h.decay, EMADecay: h.ema, Clip: h.clip,
	}
}

func (a arrays[T]) get(t testing.TB) state[T] {
	return state[T]{a.p.Get(t), a.m.Get(t), a.v.Get(t), a.e.Get(t)}
}

// gradients of a step: of many sizes, some zero.
func gradients[T kerneltest.Float](rng *rand.Rand, n int) []T {
	g := make([]T, n)
	for i := range g {
		if rng.IntN(16) > 0 {
			g[i] = T(rng.NormFloat64() * math.Exp(6*rng.Float64()-4))
		}
	}
	return g
}

func widen[T kerneltest.Float](v []T) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}

func length[T kerneltest.Float](g []T) float64 {
	sum := 0.0
	for _, x := range g {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

// 40 steps with everything on against the definition in float64 of the same
// gradients.
func TestSteps(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { steps[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { steps[float64](t, dev.Device) })
	})
}

func steps[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	rng := rand.New(rand.NewPCG(7, 1))
	for _, n := range []int{1, 2, 3, 31, 32, 33, 127, 128, 129, 513, 4099} {
		for _, h := range []hyper{
			usual,
			{rate: 0.02, beta1: 0.8, beta2: 0.95, epsilon: 1e-4, decay: 0.3, ema: 0.9, clip: 0.7 * math.Sqrt(float64(n))},
			{rate: 0.01, beta1: 0, beta2: 0, epsilon: 1e-6, ema: 0.5},
		} {
			count := 40
			if n > 200 {
				count = 5
			}
			p := gradients[T](rng, n)
			naive, ref := start(p), start(widen(p))
			a := put(t, dev, naive)
			norm := kerneltest.Poison[float64](t, dev, 1)
			for step := 1; step <= count; step++ {
				g := gradients[T](rng, n)
				require.NoError(t, tensor.Set(a.g.Tensor, g))
				args := a.args(h, step)
				if h.clip > 0 {
					require.NoError(t, adam.Norm(adam.NormArgs{Gradient: a.g.Tensor, Norm: norm.Tensor}))
					args.Norm = norm.Tensor
				}
				require.NoError(t, adam.Step(args))
				require.NoError(t, kerneltest.BitEqual(a.g.Get(t), g))
				naive.update(g, h, step, length(g))
				ref.update(widen(g), h, step, length(g))
			}
			got := a.get(t)
			for i, c := range []struct {
				got, naive []T
				ref        []float64
			}{{got.p, naive.p, ref.p}, {got.m, naive.m, ref.m}, {got.v, naive.v, ref.v}, {got.e, naive.e, ref.e}} {
				// In float64 the reference has errors of its own: one of
				// 2⁻⁵³/(1-β) in each average, that of log β times t in the
				// corrections, and all of it in each of the steps.
				require.NoErrorf(t, kerneltest.Close(c.got, c.naive, c.ref, 8*float64(count)), "n %d, %+v, array %d", n, h, i)
			}
		}
	}
}

// The numbers of one step by hand: m = (1-β₁) g, v = (1-β₂) g², so that
// m̂ = g and v̂ = g².
func TestFirstStep(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		a := put(t, dev.Device, start([]float64{1, -2, 3}))
		require.NoError(t, tensor.Set(a.g.Tensor, []float64{0.5, -4, 0}))
		require.NoError(t, adam.Step(a.args(hyper{rate: 0.1, beta1: 0.9, beta2: 0.99, epsilon: 0.5, decay: 0.2, ema: 0.75}, 1)))
		got := a.get(t)
		p := []float64{0.98 - 0.1*0.5, -1.96 + 0.1*4/4.5, 2.94}
		require.NoError(t, kerneltest.Within(got.p, p, 1e-15))
		require.NoError(t, kerneltest.Within(got.m, []float64{0.05, -0.4, 0}, 1e-15))
		require.NoError(t, kerneltest.Within(got.v, []float64{0.0025, 0.16, 0}, 1e-15))
		require.NoError(t, kerneltest.Within(got.e, []float64{0.75 + p[0]/4, -1.5 + p[1]/4, 2.25 + p[2]/4}, 1e-15))
	})
}

// A constant gradient moves by η g / (|g| + ε) in every step, which is what the
// corrections of bias are for; with decay the parameter follows a geometric
// sequence. Late steps, too: 10⁶.
func TestConstantGradient(t *testing.T) {
	const steps = 200
	g, h := []float64{3, -0.25}, hyper{rate: 0.01, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decay: 0.5}
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		a := put(t, dev.Device, start([]float64{1, 1}))
		require.NoError(t, tensor.Set(a.g.Tensor, g))
		want := []float64{1, 1}
		for step := 1; step <= steps; step++ {
			require.NoError(t, adam.Step(a.args(h, step)))
			for i := range want {
				want[i] = want[i]*(1-h.rate*h.decay) - h.rate*g[i]/(math.Abs(g[i])+h.epsilon)
			}
		}
		require.NoError(t, kerneltest.Within(a.p.Get(t), want, 1e-13))

		before := a.get(t)
		h.decay = 0
		require.NoError(t, adam.Step(a.args(h, 1_000_000)))
		for i, p := range a.p.Get(t) {
			m := h.beta1*before.m[i] + (1-h.beta1)*g[i]
			v := h.beta2*before.v[i] + (1-h.beta2)*g[i]*g[i]
			require.InDelta(t, before.p[i]-h.rate*m/(math.Sqrt(v)+h.epsilon), p, 1e-15)
		}
	})
}

// Without weight on the past the averages are what they are of, exactly.
func TestNoMemory(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		g := []float32{1.1, -3e-5, 0}
		a := put(t, dev.Device, state[float32]{[]float32{1, 2, 3}, []float32{7e9, 8, 9}, []float32{1e20, 11, 12}, []float32{5, 6, 7}})
		require.NoError(t, tensor.Set(a.g.Tensor, g))
		require.NoError(t, adam.Step(a.args(hyper{rate: 0.1, epsilon: 1e-8}, 3)))
		got := a.get(t)
		require.Equal(t, g, got.m)
		require.Equal(t, []float32{g[0] * g[0], g[1] * g[1], 0}, got.v)
		require.Equal(t, got.p, got.e)
	})
}

// Clipping is a step with the gradient scaled; a longer norm than the
// gradient's own may be given; below the bound nothing happens.
func TestClip(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	p, g := gradients[float64](rng, 37), gradients[float64](rng, 37)
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		run := func(g []float64, clip float64, norm float64) state[float64] {
			a := put(t, dev.Device, start(p))
			require.NoError(t, tensor.Set(a.g.Tensor, g))
			h := usual
			h.clip = clip
			args := a.args(h, 1)
			if norm >= 0 {
				args.Norm = kerneltest.Put(t, dev.Device, []float64{norm}).Tensor
			}
			require.NoError(t, adam.Step(args))
			return a.get(t)
		}
		quarter := make([]float64, len(g))
		for i := range g {
			quarter[i] = g[i] / 4
		}
		plain := run(g, 0, -1)
		for i, c := range []struct{ got, want state[float64] }{
			{run(g, 2, 8), run(quarter, 0, -1)},
			{run(g, 8, 8), plain},
			{run(g, 8, 0), plain},
			{run(g, 0, 1e300), plain},
		} {
			require.NoError(t, kerneltest.BitEqual(c.got.m, c.want.m), i)
			require.NoError(t, kerneltest.BitEqual(c.got.v, c.want.v), i)
			require.NoError(t, kerneltest.BitEqual(c.got.p, c.want.p), i)
		}
	})
}

// A gradient that holds a NaN or an infinity changes nothing.
func TestBrokenStep(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { brokenStep[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { brokenStep[float64](t, dev.Device) })
	})
}

func brokenStep[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	const n = 4101
	rng := rand.New(rand.NewPCG(1, 1))
	s := state[T]{gradients[T](rng, n), gradients[T](rng, n), make([]T, n), gradients[T](rng, n)}
	h := hyper{rate: 1, beta1: 0.5, beta2: 0.5, epsilon: 1, decay: 0.1, ema: 0.5, clip: 1}
	inf := math.Inf(1)
	for _, bad := range [][]float64{{math.NaN()}, {inf}, {-inf}, {inf, -inf}, {math.NaN(), inf}} {
		for _, at := range []int{0, 4096, n - 2} {
			a := put(t, dev, s)
			g := gradients[T](rng, n)
			hasNaN := false
			for i, x := range bad {
				g[(at+i)%n] = T(x)
				hasNaN = hasNaN || math.IsNaN(x)
			}
			require.NoError(t, tensor.Set(a.g.Tensor, g))
			norm := kerneltest.Poison[float64](t, dev, 1)
			require.NoError(t, adam.Norm(adam.NormArgs{Gradient: a.g.Tensor, Norm: norm.Tensor}))
			got := norm.Get(t)[0]
			require.Equal(t, hasNaN, math.IsNaN(got), "%v at %d: %v", bad, at, got)
			require.Equal(t, !hasNaN, math.IsInf(got, 1), "%v at %d: %v", bad, at, got)
			args := a.args(h, 1)
			args.Norm = norm.Tensor
			require.NoError(t, adam.Step(args))
			for _, array := range []*kerneltest.Array[T]{a.p, a.m, a.v, a.e} {
				array.Unmodified(t)
			}
		}
	}
}

// Squares beyond the range of float32 leave v and so all that comes finite.
func TestHugeGradient(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		a := put(t, dev.Device, start([]float32{1, 1}))
		for step, g := range [][]float32{{1e25, -1e25}, {1, 0}, {-2, 1e-3}} {
			require.NoError(t, tensor.Set(a.g.Tensor, g))
			norm := kerneltest.Poison[float64](t, dev.Device, 1)
			require.NoError(t, adam.Norm(adam.NormArgs{Gradient: a.g.Tensor, Norm: norm.Tensor}))
			require.InEpsilon(t, length(g), norm.Get(t)[0], 1e-15)
			require.NoError(t, adam.Step(a.args(usual, step+1)))
		}
		got := a.get(t)
		for _, v := range [][]float32{got.p, got.m, got.v} {
			for _, x := range v {
				require.False(t, math.IsNaN(float64(x)) || math.IsInf(float64(x), 0), "%+v", got)
			}
		}
	})
}

var lengths = []int{1, 31, 32, 33, 255, 256, 257, 4095, 4096, 4097, 3*4096 + 1, 40009}

// The norm is the root of the sum of squares: 4096 n additions of terms of one
// sign have a relative error of at most (16 + 13 + chunks / 256) 2⁻⁵³ in this
// order, half of it in the root.
func TestNorm(t *testing.T) {
	t.Run("float32", norms[float32])
	t.Run("float64", norms[float64])
}

func norms[T kerneltest.Float](t *testing.T) {
	first := map[int]float64{}
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, n := range lengths {
			g := make([]T, n)
			require.NoError(t, philox.HostNormal(g, 1, philox.Draw{Seed: uint64(n)}))
			array := kerneltest.Put(t, dev.Device, g)
			norm, partial := kerneltest.Poison[float64](t, dev.Device, 1), kerneltest.Poison[float64](t, dev.Device, adam.Chunks(n))
			require.NoError(t, adam.Norm(adam.NormArgs{Gradient: array.Tensor, Norm: norm.Tensor, Partial: partial.Tensor}))
			array.Unmodified(t)
			got := norm.Get(t)
			partial.Get(t)        // its guards
			sum, lost := 0.0, 0.0 // compensated
			for _, x := range g {
				y := float64(x)*float64(x) - lost
				next := sum + y
				lost = (next - sum) - y
				sum = next
			}
			want := math.Sqrt(sum)
			require.NoError(t, kerneltest.Within(got, []float64{want}, 20*0x1p-53*want), "n %d", n)

			// Its own room, and all devices: the same bits.
			again := kerneltest.Poison[float64](t, dev.Device, 1)
			require.NoError(t, adam.Norm(adam.NormArgs{Gradient: array.Tensor, Norm: again.Tensor}))
			require.NoError(t, kerneltest.BitEqual(again.Get(t), got))
			if before, ok := first[n]; ok {
				require.NoError(t, kerneltest.BitEqual(got, []float64{before}), "n %d", n)
			}
			first[n] = got[0]
		}
		zero := kerneltest.Put(t, dev.Device, make([]T, 5))
		norm := kerneltest.Poison[float64](t, dev.Device, 1)
		require.NoError(t, adam.Norm(adam.NormArgs{Gradient: zero.Tensor, Norm: norm.Tensor}))
		require.Equal(t, []float64{0}, norm.Get(t))
	})
}

// All devices and any number of workers agree bit for bit, aligned or not, and
// a vector that is cut agrees with the whole.
func TestDevicesAgree(t *testing.T) {
	t.Run("float32", agree[float32])
	t.Run("float64", agree[float64])
}

func agree[T kerneltest.Float](t *testing.T) {
	const n, cut = 16384 + 1031, 16384 - 3
	h := hyper{rate: 0.01, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, decay: 0.1, ema: 0.9, clip: 20}
	var first []T
	run := func(t *testing.T, dev gpu.Device) {
		rng := rand.New(rand.NewPCG(4, 4))
		a := put(t, dev, start(gradients[T](rng, n)))
		norm := kerneltest.Poison[float64](t, dev, 1)
		for step := 1; step <= 3; step++ {
			require.NoError(t, tensor.Set(a.g.Tensor, gradients[T](rng, n)))
			require.NoError(t, adam.Norm(adam.NormArgs{Gradient: a.g.Tensor, Norm: norm.Tensor}))
			args := a.args(h, step)
			args.Norm = norm.Tensor
			if step < 3 {
				require.NoError(t, adam.Step(args))
				continue
			}
			for _, part := range [][2]int{{0, cut}, {cut, n}} { // the second one is not aligned
				piece := args
				for _, x := range []*tensor.Tensor{&piece.Params, &piece.Gradient, &piece.First, &piece.Second, &piece.EMA} {
					*x = x.Rows(part[0], part[1])
				}
				require.NoError(t, adam.Step(piece))
			}
		}
		got := a.get(t)
		all := append(append(append(got.p, got.m...), got.v...), got.e...)
		if first == nil {
			first = all
		}
		require.NoError(t, kerneltest.BitEqual(all, first))
	}
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) { run(t, dev.Device) })
	for _, workers := range []int{1, 2, 5} {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(t, err)
		t.Cleanup(func() { dev.Close() })
		run(t, dev)
	}
}

// Steps whose numbers come from a table by a count are those of the numbers
// themselves, bit for bit: recorded once and replayed, and over more steps than
// the table has rows.
func TestTable(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { tabled[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { tabled[float64](t, dev.Device) })
	})
}

func tabled[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	const n, rows, begin, end = 4097, 3, 5, 12
	h := hyper{beta1: 0.9, beta2: 0.99, epsilon: 1e-8, decay: 0.1, ema: 0.9, clip: 20}
	rate := func(step int) float64 { return 0.01 / float64(step) }
	p := gradients[T](rand.New(rand.NewPCG(6, 6)), n)
	plain, launched, replayed := put(t, dev, start(p)), put(t, dev, start(p)), put(t, dev, start(p))
	norm := kerneltest.Poison[float64](t, dev, 1)
	values := make([]float64, rows*adam.Columns)
	table := kerneltest.Put(t, dev, values, rows, adam.Columns)
	var counts [2]tensor.Tensor
	for i := range counts {
		var err error
		counts[i], err = tensor.From(dev, []uint32{begin - 1}, 1)
		require.NoError(t, err)
		defer counts[i].Free()
	}
	queue := func(a arrays[T], count tensor.Tensor) error {
		if err := adam.Norm(adam.NormArgs{Gradient: a.g.Tensor, Norm: norm.Tensor, Count: count}); err != nil {
			return err
		}
		args := a.args(h, 0)
		args.Norm, args.Table, args.Count = norm.Tensor, table.Tensor, count
		return adam.Step(args)
	}
	graph, err := dev.Record(func() error { return queue(replayed, counts[1]) })
	require.NoError(t, err)
	defer func() { require.NoError(t, graph.Close()) }()
	rng := rand.New(rand.NewPCG(7, 7))
	for step := begin; step < end; step++ {
		g := gradients[T](rng, n)
		for _, a := range []arrays[T]{plain, launched, replayed} {
			require.NoError(t, tensor.Set(a.g.Tensor, g))
		}
		for of := (step - 1) / rows * rows; of < (step-1)/rows*rows+rows; of++ {
			row := adam.Row(of+1, rate(of+1), h.beta1, h.beta2, h.decay)
			copy(values[of%rows*adam.Columns:], row[:])
		}
		require.NoError(t, tensor.Set(table.Tensor, values))
		at := h
		at.rate = rate(step)
		require.NoError(t, adam.Norm(adam.NormArgs{Gradient: plain.g.Tensor, Norm: norm.Tensor}))
		args := plain.args(at, step)
		args.Norm = norm.Tensor
		require.NoError(t, adam.Step(args))
		require.NoError(t, queue(launched, counts[0]))
		require.NoError(t, graph.Replay())
		want := plain.get(t)
		for _, a := range []arrays[T]{launched, replayed} {
			got := a.get(t)
			for i, c := range [][2][]T{{got.p, want.p}, {got.m, want.m}, {got.v, want.v}, {got.e, want.e}} {
				require.NoError(t, kerneltest.BitEqual(c[0], c[1]), "step %d, array %d", step, i)
			}
		}
	}
	for _, count := range counts {
		got, err := tensor.Values[uint32](count)
		require.NoError(t, err)
		require.Equal(t, []uint32{end - 1}, got)
	}
	require.NoError(t, kerneltest.BitEqual(table.Get(t), values))
}

// A training loop makes no garbage.
func TestNoAllocation(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	a := put(t, dev, start(make([]float32, 70001)))
	norm := kerneltest.Poison[float64](t, dev, 1)
	partial := kerneltest.Poison[float64](t, dev, adam.Chunks(70001))
	args := a.args(usual, 0)
	args.Norm = norm.Tensor
	require.Zero(t, testing.AllocsPerRun(50, func() {
		args.Step++
		if adam.Norm(adam.NormArgs{Gradient: a.g.Tensor, Norm: norm.Tensor, Partial: partial.Tensor}) != nil || adam.Step(args) != nil {
			t.Fatal("failed")
		}
	}))
	count, err := tensor.From(dev, []uint32{0}, 1)
	require.NoError(t, err)
	defer count.Free()
	args.Table, args.Count, args.Step, args.Rate = kerneltest.Put(t, dev, make([]float64, 6), 2, 3).Tensor, count, 0, 0
	require.Zero(t, testing.AllocsPerRun(50, func() {
		if adam.Norm(adam.NormArgs{Gradient: a.g.Tensor, Norm: norm.Tensor, Partial: partial.Tensor, Count: count}) != nil || adam.Step(args) != nil {
			t.Fatal("failed")
		}
	}))
}

func TestErrors(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	make := func(dtype tensor.DType, shape ...int) tensor.Tensor {
		return kerneltest.New(t, dev, dtype, shape...)
	}
	f := tensor.Float32
	big, norm := make(f, 20), make(tensor.Float64, 1)
	count, table := make(tensor.Uint32, 1), make(tensor.Float64, 4, adam.Columns)
	inside, err := tensor.Wrap(dev, norm.Buffer().Slice(0, 4), tensor.Uint32, 1) // in the memory of another array
	require.NoError(t, err)
	good := adam.Args{
		Params: make(f, 5), Gradient: make(f, 5), First: make(f, 5), Second: make(f, 5), EMA: make(f, 5), Norm: norm,
		Step: 1, Rate: 1e-3, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8,
	}
	for _, c := range []struct {
		change func(*adam.Args)
		is     error
		text   string
	}{
		{func(a *adam.Args) { a.Params = tensor.Tensor{} }, gpu.ErrInvalid, "params: invalid argument: missing"},
		{func(a *adam.Args) { a.Params = make(f, 5, 1) }, gpu.ErrInvalid, "params: invalid argument: 2 axes, want 1"},
		{func(a *adam.Args) { a.Params = make(tensor.Int32, 5) }, gpu.ErrInvalid, "params: invalid argument: i32, want f32 or f64"},
		{func(a *adam.Args) { a.Gradient = make(f, 6) }, tensor.ErrInvalid, "gradient: invalid tensor: shape (6,), want (5,)"},
		{func(a *adam.Args) { a.First = tensor.Tensor{} }, tensor.ErrInvalid, "first: invalid tensor: missing"},
		{func(a *adam.Args) { a.Second = make(tensor.Float64, 5) }, tensor.ErrInvalid, "second: invalid tensor: f64, want f32"},
		{func(a *adam.Args) { a.EMA = make(f, 4) }, tensor.ErrInvalid, "ema"},
		{func(a *adam.Args) { a.Norm = make(f, 1) }, tensor.ErrInvalid, "norm: invalid tensor: f32, want f64"},
		{func(a *adam.Args) { a.First, a.Second = big.Rows(0, 5), big.Rows(4, 9) }, gpu.ErrInvalid, "second: invalid argument: overlaps first"},
		{func(a *adam.Args) { a.Gradient = a.Params }, gpu.ErrInvalid, "gradient: invalid argument: overlaps params"},
		{func(a *adam.Args) { a.Step = 0 }, gpu.ErrInvalid, "step: invalid argument: got 0, want at least 1, or 0 with a table"},
		{func(a *adam.Args) { a.Rate = math.NaN() }, gpu.ErrInvalid, "rate"},
		{func(a *adam.Args) { a.Rate = -1 }, gpu.ErrInvalid, "rate"},
		{func(a *adam.Args) { a.Beta1 = 1 }, gpu.ErrInvalid, "beta1"},
		{func(a *adam.Args) { a.Beta2 = math.NaN() }, gpu.ErrInvalid, "beta2"},
		{func(a *adam.Args) { a.Epsilon = 0 }, gpu.ErrInvalid, "epsilon"},
		{func(a *adam.Args) { a.Epsilon = 1e-60 }, gpu.ErrInvalid, "epsilon"},
		{func(a *adam.Args) { a.Decay = math.Inf(1) }, gpu.ErrInvalid, "decay"},
		{func(a *adam.Args) { a.EMADecay = 1 }, gpu.ErrInvalid, "ema decay"},
		{func(a *adam.Args) { a.EMA, a.EMADecay = tensor.Tensor{}, 0.5 }, gpu.ErrInvalid, "ema decay"},
		{func(a *adam.Args) { a.Clip = -1 }, gpu.ErrInvalid, "clip"},
		{func(a *adam.Args) { a.Norm, a.Clip = tensor.Tensor{}, 1 }, gpu.ErrInvalid, "clip"},
		{func(a *adam.Args) { a.Count = count }, gpu.ErrInvalid, "table: invalid argument: no tensor, want (rows, 3) with rows > 0"},
		{func(a *adam.Args) { a.Table = make(tensor.Float64, 0, 3) }, gpu.ErrInvalid, "table: invalid argument"},
		{func(a *adam.Args) { a.Table, a.Count = make(tensor.Float64, 4, 2), count }, tensor.ErrInvalid, "table: invalid tensor: shape (4, 2), want (4, 3)"},
		{func(a *adam.Args) { a.Table = table }, tensor.ErrInvalid, "count: invalid tensor: missing"},
		{func(a *adam.Args) { a.Table, a.Count = table, make(tensor.Int32, 1) }, tensor.ErrInvalid, "count: invalid tensor: i32, want u32"},
		{func(a *adam.Args) { a.Table, a.Count = table, count }, gpu.ErrInvalid, "step: invalid argument: got 1, want at least 1, or 0 with a table"},
		{func(a *adam.Args) { a.Table, a.Count, a.Step = table, count, 0 }, gpu.ErrInvalid, "rate: invalid argument: got 0.001"},
		{func(a *adam.Args) { a.Table, a.Count, a.Step, a.Rate = table, inside, 0, 0 }, gpu.ErrInvalid, "count: invalid argument: overlaps norm"},
	} {
		args := good
		c.change(&args)
		err := adam.Step(args)
		require.ErrorIs(t, err, c.is, c.text)
		require.ErrorContains(t, err, c.text)
	}
	good.Params, good.Gradient, good.First, good.Second, good.EMA = make(f, 0), make(f, 0), make(f, 0), make(f, 0), make(f, 0)
	require.NoError(t, adam.Step(good))

	for _, c := range []struct {
		args adam.NormArgs
		is   error
		text string
	}{
		{adam.NormArgs{Norm: norm}, gpu.ErrInvalid, "gradient: invalid argument: missing"},
		{adam.NormArgs{Gradient: make(f, 0), Norm: norm}, gpu.ErrInvalid, "gradient: invalid argument: empty"},
		{adam.NormArgs{Gradient: big}, tensor.ErrInvalid, "norm: invalid tensor: missing"},
		{adam.NormArgs{Gradient: make(f, 4097), Norm: norm, Partial: make(tensor.Float64, 1)}, tensor.ErrInvalid, "partial"},
		{adam.NormArgs{Gradient: big, Norm: norm, Partial: norm}, gpu.ErrInvalid, "overlap"},
		{adam.NormArgs{Gradient: big, Norm: norm, Count: inside}, gpu.ErrInvalid, "overlap"},
		{adam.NormArgs{Gradient: big, Norm: norm, Count: make(f, 1)}, tensor.ErrInvalid, "count: invalid tensor: f32, want u32"},
	} {
		err := adam.Norm(c.args)
		require.ErrorIs(t, err, c.is, c.text)
		require.ErrorContains(t, err, c.text)
	}
}

// Whatever the arguments: an error or a finite step, never a crash.
func FuzzStep(f *testing.F) {
	f.Add(5, 5, 1, 1e-3, 0.9, 0.999, 1e-8, 0.1)
	f.Add(5, 6, 1, 1e-3, 0.9, 0.999, 1e-8, 0.1)
	f.Add(3, 3, 0, math.NaN(), 1.0, -1.0, 0.0, math.Inf(1))
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, n, other, step int, rate, beta1, beta2, epsilon, g float64) {
		n, other = int(uint(n)%70), int(uint(other)%70)
		p := make([]float64, n)
		a := put(t, dev, start(p))
		gradient := make([]float64, other)
		for i := range gradient {
			gradient[i] = g
		}
		args := a.args(hyper{rate: rate, beta1: beta1, beta2: beta2, epsilon: epsilon}, step)
		args.Gradient = kerneltest.Put(t, dev, gradient).Tensor
		err := adam.Step(args)
		below := func(x float64) bool { return x >= 0 && x < 1 }
		good := n == other && step >= 1 && rate >= 0 && !math.IsInf(rate, 0) && below(beta1) && below(beta2) && epsilon > 0 && !math.IsInf(epsilon, 0)
		require.Equal(t, good, err == nil, "%v", err)
		got := a.get(t)
		if err != nil || math.IsNaN(g) || math.Abs(g) > 1e100 || math.Abs(g) < 1e-100 || rate > 1e100 || epsilon > 1e100 || beta1 > 0.999999 || beta2 > 0.999999 || step > 1<<20 {
			return
		}
		first, second := 1-math.Pow(beta1, float64(step)), 1-math.Pow(beta2, float64(step))
		m, v := (1-beta1)*g/first, (1-beta2)*g*g/second
		for _, x := range got.p {
			want := -rate * m / (math.Sqrt(v) + epsilon)
			require.NoError(t, kerneltest.Within([]float64{x}, []float64{want}, 1e-9*math.Abs(want)))
		}
	})
}

// ExampleStep finds the minimum of (x-3)² + (y+1)².
func ExampleStep() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	zeros := []float64{0, 0}
	p, _ := tensor.From(dev, zeros, 2)
	g, _ := tensor.From(dev, zeros, 2)
	m, _ := tensor.From(dev, zeros, 2)
	v, _ := tensor.From(dev, zeros, 2)
	norm, _ := tensor.New(dev, tensor.Float64, 1)
	for _, t := range []tensor.Tensor{p, g, m, v, norm} {
		defer t.Free()
	}
	for step := 1; step <= 400; step++ {
		x, _ := tensor.Values[float64](p)
		_ = tensor.Set(g, []float64{2 * (x[0] - 3), 2 * (x[1] + 1)})
		if err := adam.Norm(adam.NormArgs{Gradient: g, Norm: norm}); err != nil {
			fmt.Println(err)
			return
		}
		if err := adam.Step(adam.Args{
			Params: p, Gradient: g, First: m, Second: v, Norm: norm, Clip: 1,
			Step: step, Rate: 0.1, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8,
		}); err != nil {
			fmt.Println(err)
			return
		}
	}
	x, _ := tensor.Values[float64](p)
	fmt.Printf("%.3f\n", x)
	// Output:
	// [3.000 -1.000]
}

func BenchmarkStep(b *testing.B) {
	for _, dev := range kerneltest.Hardware(b) {
		b.Run(dev.Name+"/f32", func(b *testing.B) { benchmark[float32](b, dev.Device) })
		b.Run(dev.Name+"/f64", func(b *testing.B) { benchmark[float64](b, dev.Device) })
	}
}

func benchmark[T kerneltest.Float](b *testing.B, dev gpu.Device) {
	const n = 1 << 20
	g := make([]T, n)
	require.NoError(b, philox.HostNormal(g, 1, philox.Draw{}))
	a := put(b, dev, start(g))
	require.NoError(b, tensor.Set(a.g.Tensor, g))
	norm, partial := kerneltest.Poison[float64](b, dev, 1), kerneltest.Poison[float64](b, dev, adam.Chunks(n))
	args := a.args(hyper{rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, ema: 0.999, clip: 1e6}, 0)
	args.Norm = norm.Tensor
	b.SetBytes(int64(10 * n * tensor.TypeOf[T]().Size()))
	for b.Loop() {
		args.Step++
		if err := adam.Norm(adam.NormArgs{Gradient: a.g.Tensor, Norm: norm.Tensor, Partial: partial.Tensor}); err != nil {
			b.Fatal(err)
		}
		if err := adam.Step(args); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, dev.Sync())
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
	// A constant gradient moves by η in every step, whatever its size.
	x := a.p.Get(b)[n-1]
	want := float64(g[n-1]) - math.Copysign(1e-3*float64(args.Step), float64(g[n-1]))
	require.InDelta(b, want, float64(x), 1e-2*1e-3*float64(args.Step)+1e-4)
}
