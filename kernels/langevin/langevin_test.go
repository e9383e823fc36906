package langevin_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/langevin"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// definition is the step in float64; naive is the same in the kernel's type.
func definition[T kerneltest.Float](y, score, mean, noise []T, eta, temperature, precision float64) (ref []float64, naive []T) {
	ref, naive = make([]float64, len(y)), make([]T, len(y))
	for i := range y {
		s, m := T(0), T(0)
		if score != nil {
			s = score[i]
		}
		if mean != nil {
			m = mean[i]
		}
		g := float64(s) - precision*(float64(y[i])-float64(m))
		ref[i] = float64(y[i]) + eta*g + math.Sqrt(2*eta*temperature)*float64(noise[i])
		naive[i] = y[i] + T(eta)*(s-T(precision)*(y[i]-m)) + T(math.Sqrt(2*eta*temperature))*noise[i]
	}
	return ref, naive
}

var shapes = [][2]int{{1, 1}, {31, 1}, {127, 2}, {33, 3}, {32, 4}, {17, 5}, {129, 7}, {3, 128}, {2, 131}, {2053, 8}}

var settings = []langevin.Args{
	{Eta: 0.01, Temperature: 1, Draw: philox.Draw{Seed: 1}},
	{Eta: 0.3, Temperature: 0.5, Precision: 2.5, Draw: philox.Draw{Seed: 2, Index: 1<<32 - 3, Step: 70, Purpose: 200}},
	{Eta: 0.1, Temperature: 0, Precision: -1},
	{Eta: 5e-5, Temperature: 1, Precision: 114.3},
}

func TestStep(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { step[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { step[float64](t, dev.Device) })
	})
}

func step[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	rng := rand.New(rand.NewPCG(1, 9))
	for _, s := range shapes {
		n, d := s[0], s[1]
		for _, a := range settings {
			for present := range 4 {
				random := func() []T {
					v := make([]T, n*d)
					for i := range v {
						v[i] = T(rng.NormFloat64())
					}
					return v
				}
				y, noise := random(), make([]T, n*d)
				require.NoError(t, philox.HostNormal(noise, d, a.Draw))
				inputs := []*kerneltest.Array[T]{kerneltest.Put(t, dev, y, n, d)}
				var score, mean []T
				a.Y = inputs[0].Tensor
				if present&1 != 0 {
					score = random()
					inputs = append(inputs, kerneltest.Put(t, dev, score, n, d))
					a.Score = inputs[len(inputs)-1].Tensor
				}
				if present&2 != 0 {
					mean = random()
					inputs = append(inputs, kerneltest.Put(t, dev, mean, n, d))
					a.Mean = inputs[len(inputs)-1].Tensor
				}
				out := kerneltest.Poison[T](t, dev, n, d)
				a.Out = out.Tensor
				require.NoError(t, langevin.Step(a))
				got := out.Get(t)
				for _, in := range inputs {
					in.Unmodified(t)
				}
				ref, naive := definition(y, score, mean, noise, a.Eta, a.Temperature, a.Precision)
				require.NoError(t, kerneltest.Close(got, naive, ref, 4), "shape %v, %+v", s, a)

				// In place of each input: the same bits.
				for _, in := range inputs {
					a.Out = in.Tensor
					require.NoError(t, langevin.Step(a))
					require.NoError(t, kerneltest.BitEqual(in.Get(t), got), "in place, shape %v", s)
					require.NoError(t, tensor.Set(in.Tensor, pick(in, inputs, y, score, mean)))
				}
				a.Score, a.Mean = tensor.Tensor{}, tensor.Tensor{}
			}
		}
	}
}

// pick is the host copy of one of the inputs.
func pick[T kerneltest.Float](in *kerneltest.Array[T], inputs []*kerneltest.Array[T], y, score, mean []T) []T {
	switch {
	case in == inputs[0]:
		return y
	case score != nil && in == inputs[1]:
		return score
	}
	return mean
}

// All devices agree bit for bit.
func TestDevicesAgree(t *testing.T) {
	const n, d = 203, 7
	y, score, mean := make([]float32, n*d), make([]float32, n*d), make([]float32, n*d)
	for _, v := range [][]float32{y, score, mean} {
		require.NoError(t, philox.HostNormal(v, d, philox.Draw{Seed: uint64(len(v)), Purpose: uint8(v[0])}))
	}
	var first []float32
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		out := kerneltest.Poison[float32](t, dev.Device, n, d)
		require.NoError(t, langevin.Step(langevin.Args{
			Y:     kerneltest.Put(t, dev.Device, y, n, d).Tensor,
			Score: kerneltest.Put(t, dev.Device, score, n, d).Tensor,
			Mean:  kerneltest.Put(t, dev.Device, mean, n, d).Tensor,
			Out:   out.Tensor, Eta: 0.07, Temperature: 0.9, Precision: 1.3, Draw: philox.Draw{Seed: 4, Step: 5},
		}))
		got := out.Get(t)
		if first == nil {
			first = got
		}
		require.NoError(t, kerneltest.BitEqual(got, first))
	})
}

// η = 0 is the identity.
func TestZeroStepIsIdentity(t *testing.T) {
	const n, d = 33, 5
	y := make([]float64, n*d)
	require.NoError(t, philox.HostNormal(y, d, philox.Draw{}))
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		out := kerneltest.Poison[float64](t, dev.Device, n, d)
		in := kerneltest.Put(t, dev.Device, y, n, d)
		require.NoError(t, langevin.Step(langevin.Args{Y: in.Tensor, Score: in.Tensor, Out: out.Tensor, Temperature: 1, Precision: 3}))
		require.NoError(t, kerneltest.BitEqual(out.Get(t), y))
	})
}

// Rows [lo, hi) of a step are the step of those rows with Index lo higher.
func TestBatchIndependence(t *testing.T) {
	const n, d, cut = 150, 3, 61
	y := make([]float32, n*d)
	require.NoError(t, philox.HostNormal(y, d, philox.Draw{Seed: 6}))
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		whole, parts := kerneltest.Put(t, dev.Device, y, n, d), kerneltest.Put(t, dev.Device, y, n, d)
		a := langevin.Args{Y: whole.Tensor, Out: whole.Tensor, Eta: 0.1, Temperature: 1, Precision: 1, Draw: philox.Draw{Seed: 12, Index: 1<<32 - 30}}
		for a.Draw.Step = 0; a.Draw.Step < 3; a.Draw.Step++ {
			require.NoError(t, langevin.Step(a))
			for _, rows := range [][2]int{{cut, n}, {0, cut}} {
				b := a
				b.Y = parts.Rows(rows[0], rows[1])
				b.Out = b.Y
				b.Draw.Index += uint64(rows[0])
				require.NoError(t, langevin.Step(b))
			}
		}
		require.NoError(t, kerneltest.BitEqual(whole.Get(t), parts.Get(t)))
	})
}

// The chain on a Gaussian of precision p contracts by 1 - ηp and settles at
// the variance 1 / (p (1 - ηp/2)) about the samples' means. n samples estimate
// a mean with standard error √(v/n) and a variance with v √(2/n).
func TestGaussianChain(t *testing.T) {
	const (
		n, d      = 1 << 15, 4
		precision = 114.314286
		eta       = 5e-3 // as many contractions in 60 steps as 5000 of 5e-5
		steps     = 60
		start     = 3.0
		sigmas    = 5
	)
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	y, mean := make([]float64, n*d), make([]float64, n*d)
	for i := range y {
		mean[i] = float64(i%5) - 2
		y[i] = mean[i] + start
	}
	state, about := kerneltest.Put(t, dev, y, n, d), kerneltest.Put(t, dev, mean, n, d)
	a := langevin.Args{Y: state.Tensor, Mean: about.Tensor, Out: state.Tensor, Eta: eta, Temperature: 1, Precision: precision, Draw: philox.Draw{Seed: 31}}

	variance, offset := 0.0, start
	const count = n * d
	for step := range steps {
		a.Draw.Step = uint32(step)
		require.NoError(t, langevin.Step(a))
		// The law of the chain, exactly.
		contraction := 1 - eta*precision
		offset *= contraction
		variance = contraction*contraction*variance + 2*eta
		if step%20 != 2 && step != steps-1 {
			continue
		}
		m, v := 0.0, 0.0
		got := state.Get(t)
		for i, x := range got {
			m += x - mean[i]
			v += (x - mean[i] - offset) * (x - mean[i] - offset)
		}
		m, v = m/count, v/count
		require.Truef(t, math.Abs(m-offset) <= sigmas*math.Sqrt(variance/count), "step %d: mean offset %v, want %v", step, m, offset)
		require.Truef(t, math.Abs(v-variance) <= sigmas*variance*math.Sqrt(2.0/count), "step %d: variance %v, want %v", step, v, variance)
	}
	stationary := 1 / (precision * (1 - eta*precision/2))
	require.InEpsilon(t, stationary, variance, 1e-12)
	about.Unmodified(t)
}

// The values that the literature's setting gives: η = 5e-5 at precision 114.314286.
func TestStationaryVarianceFormula(t *testing.T) {
	const precision, eta = 114.314286, 5e-5
	require.InDelta(t, 0.0087728847, 1/(precision*(1-eta*precision/2)), 5e-11)
	require.InDelta(t, 3.6e-13, math.Pow(1-eta*precision, 5000), 5e-15)
}

func TestErrors(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	put := func(dtype tensor.DType, shape ...int) tensor.Tensor {
		return kerneltest.New(t, dev, dtype, shape...)
	}
	whole := put(tensor.Float32, 5, 3)
	y, out := whole.Rows(0, 4), put(tensor.Float32, 4, 3)
	for _, c := range []struct {
		args langevin.Args
		is   error
		text string
	}{
		{langevin.Args{}, gpu.ErrInvalid, "y: invalid argument: missing"},
		{langevin.Args{Y: y}, tensor.ErrInvalid, "out: invalid tensor: missing"},
		{langevin.Args{Y: y, Out: put(tensor.Float32, 3, 4)}, tensor.ErrInvalid, "out: invalid tensor: shape (3, 4), want (4, 3)"},
		{langevin.Args{Y: y, Out: put(tensor.Float64, 4, 3)}, tensor.ErrInvalid, "out: invalid tensor: f64, want f32"},
		{langevin.Args{Y: y, Out: out, Score: put(tensor.Float32, 4)}, tensor.ErrInvalid, "score"},
		{langevin.Args{Y: y, Out: out, Mean: put(tensor.Float32, 4, 4)}, tensor.ErrInvalid, "mean"},
		{langevin.Args{Y: y, Out: whole.Rows(1, 5)}, gpu.ErrInvalid, "out: invalid argument: overlaps y"},
		{langevin.Args{Y: y, Out: out, Eta: -1}, gpu.ErrInvalid, "eta: invalid argument: got -1"},
		{langevin.Args{Y: y, Out: out, Eta: math.NaN()}, gpu.ErrInvalid, "eta"},
		{langevin.Args{Y: y, Out: out, Temperature: math.Inf(1)}, gpu.ErrInvalid, "temperature"},
		{langevin.Args{Y: y, Out: out, Precision: math.NaN()}, gpu.ErrInvalid, "precision"},
		{langevin.Args{Y: put(tensor.Int32, 4, 3), Out: put(tensor.Int32, 4, 3)}, gpu.ErrInvalid, "y: invalid argument: i32, want f32 or f64"},
		{langevin.Args{Y: put(tensor.Float32, 12), Out: put(tensor.Float32, 12)}, gpu.ErrInvalid, "y: invalid argument: 1 axes, want 2"},
	} {
		err := langevin.Step(c.args)
		require.ErrorIs(t, err, c.is)
		require.ErrorContains(t, err, c.text)
	}
	empty := put(tensor.Float32, 0, 3)
	require.NoError(t, langevin.Step(langevin.Args{Y: empty, Out: empty, Eta: 1}))
}

// Whatever the arguments: an error or the definition, never a crash.
func FuzzStep(f *testing.F) {
	f.Add(3, 5, 3, 5, 0.1, 1.0, 2.0, uint64(1))
	f.Add(3, 5, 5, 3, math.NaN(), -1.0, math.Inf(1), uint64(0))
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, n, d, n2, d2 int, eta, temperature, precision float64, seed uint64) {
		small := func(v int) int { return int(uint(v) % 70) }
		n, d, n2, d2 = small(n), small(d), small(n2), small(d2)
		y := make([]float64, n*d)
		require.NoError(t, philox.HostNormal(y, max(d, 1), philox.Draw{Seed: seed + 1}))
		in, out := kerneltest.Put(t, dev, y, n, d), kerneltest.Poison[float64](t, dev, n2, d2)
		draw := philox.Draw{Seed: seed, Index: seed}
		err := langevin.Step(langevin.Args{Y: in.Tensor, Out: out.Tensor, Eta: eta, Temperature: temperature, Precision: precision, Draw: draw})
		bad := n != n2 || d != d2 || !(eta >= 0) || !(temperature >= 0) || math.IsInf(eta, 0) || math.IsInf(temperature, 0) || math.IsNaN(precision-precision)
		require.Equal(t, bad, err != nil, "%v", err)
		in.Unmodified(t)
		if got := out.Get(t); err == nil && math.Abs(precision) < 1e100 && eta < 1e100 && temperature < 1e100 {
			noise := make([]float64, n*d)
			require.NoError(t, philox.HostNormal(noise, max(d, 1), draw))
			ref, naive := definition(y, nil, nil, noise, eta, temperature, precision)
			require.NoError(t, kerneltest.Close(got, naive, ref, 4*max(1, eta*math.Abs(precision))))
		}
	})
}

// ExampleStep samples from a normal about 2 with variance 1/4, starting far off.
func ExampleStep() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	const n = 20000
	start, about := make([]float32, n), make([]float32, n)
	for i := range start {
		start[i], about[i] = 100, 2
	}
	y, _ := tensor.From(dev, start, n, 1)
	mean, _ := tensor.From(dev, about, n, 1)
	defer y.Free()
	defer mean.Free()
	for step := range 500 {
		if err := langevin.Step(langevin.Args{
			Y: y, Mean: mean, Out: y, Eta: 0.01, Temperature: 1, Precision: 4,
			Draw: philox.Draw{Seed: 1, Step: uint32(step)},
		}); err != nil {
			fmt.Println(err)
			return
		}
	}
	v, _ := tensor.Values[float32](y)
	m, s := 0.0, 0.0
	for _, x := range v {
		m += float64(x) / n
		s += float64(x) * float64(x) / n
	}
	fmt.Printf("mean %.2f variance %.2f\n", m, s-m*m)
	// Output:
	// mean 2.00 variance 0.26
}

func BenchmarkStep(b *testing.B) {
	for _, dev := range kerneltest.Hardware(b) {
		for _, dtype := range []tensor.DType{tensor.Float32, tensor.Float64} {
			for _, temperature := range []float64{0, 1} {
				b.Run(fmt.Sprintf("%s/%v/temperature=%v", dev.Name, dtype, temperature), func(b *testing.B) {
					const n, d = 1 << 14, 64
					var arrays [4]tensor.Tensor
					for i := range arrays {
						var err error
						arrays[i], err = tensor.New(dev.Device, dtype, n, d)
						require.NoError(b, err)
						defer arrays[i].Free()
						require.NoError(b, philox.Normal(arrays[i], philox.Draw{Step: uint32(i)}))
					}
					a := langevin.Args{Y: arrays[0], Score: arrays[1], Mean: arrays[2], Out: arrays[3], Eta: 0.01, Temperature: temperature, Precision: 1}
					b.SetBytes(int64(4 * n * d * dtype.Size()))
					for b.Loop() {
						a.Draw.Step++
						if err := langevin.Step(a); err != nil {
							b.Fatal(err)
						}
					}
					require.NoError(b, dev.Sync())
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(n*d), "ns/element")
					if dtype == tensor.Float32 {
						agrees[float32](b, a)
					} else {
						agrees[float64](b, a)
					}
				})
			}
		}
	}
}

// agrees fails a benchmark whose last row is not the definition's.
func agrees[T kerneltest.Float](b *testing.B, a langevin.Args) {
	last := func(t tensor.Tensor) []T {
		v, err := tensor.Values[T](t.Rows(t.Dim(0)-1, t.Dim(0)))
		require.NoError(b, err)
		return v
	}
	noise := make([]T, a.Y.Dim(1))
	draw := a.Draw
	draw.Index += uint64(a.Y.Dim(0) - 1)
	require.NoError(b, philox.HostNormal(noise, len(noise), draw))
	ref, naive := definition(last(a.Y), last(a.Score), last(a.Mean), noise, a.Eta, a.Temperature, a.Precision)
	require.NoError(b, kerneltest.Close(last(a.Out), naive, ref, 4))
}
