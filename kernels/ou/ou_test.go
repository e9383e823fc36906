package ou_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/ou"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// transition is the definition.
func transition(b, lambda float64) (factor, scale float64) {
	if lambda == 0 {
		return 1, math.Sqrt(b)
	}
	return math.Exp(-0.5 * b * lambda), math.Sqrt(-math.Expm1(-b*lambda) / lambda)
}

// result is the four outputs of a transition of rows of d.
type result[T kerneltest.Float] struct{ mean, scale, xt, score []T }

// run asks for all outputs.
func run[T kerneltest.Float](t testing.TB, dev gpu.Device, x0, lambda, b []T, b0 float64, draw philox.Draw) result[T] {
	t.Helper()
	d := len(lambda)
	n := len(x0) / d
	in, rate := kerneltest.Put(t, dev, x0, n, d), kerneltest.Put(t, dev, lambda)
	args := ou.Args{X0: in.Tensor, Lambda: rate.Tensor, B0: b0, Draw: draw}
	inputs := []*kerneltest.Array[T]{in, rate}
	if b != nil {
		times := kerneltest.Put(t, dev, b)
		args.B = times.Tensor
		inputs = append(inputs, times)
	}
	var out [4]*kerneltest.Array[T]
	for i := range out {
		out[i] = kerneltest.Poison[T](t, dev, n, d)
	}
	args.Mean, args.Scale, args.Xt, args.Score = out[0].Tensor, out[1].Tensor, out[2].Tensor, out[3].Tensor
	require.NoError(t, ou.Transition(args))
	for _, a := range inputs {
		a.Unmodified(t)
	}
	return result[T]{out[0].Get(t), out[1].Get(t), out[2].Get(t), out[3].Get(t)}
}

func machine[T kerneltest.Float]() float64 {
	if tensor.TypeOf[T]() == tensor.Float32 {
		return 0x1p-24
	}
	return 0x1p-53
}

var shapes = [][2]int{{1, 1}, {31, 1}, {127, 2}, {33, 3}, {32, 4}, {17, 5}, {129, 7}, {3, 128}, {2, 131}, {1031, 8}}

// Every output against the definition in float64 of the same float32 inputs.
// The bound is relative and for each element: the exponent b λ / 2 is rounded,
// which moves F by half a unit times its own size; besides, a few roundings.
func TestTransition(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { definition[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { definition[float64](t, dev.Device) })
	})
}

func definition[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	rng := rand.New(rand.NewPCG(2, 5))
	for _, s := range shapes {
		n, d := s[0], s[1]
		x0, lambda, b, noise := make([]T, n*d), make([]T, d), make([]T, n), make([]T, n*d)
		for i := range x0 {
			x0[i] = T(rng.NormFloat64())
		}
		for j := range lambda {
			// From far below rounding to steep, of both signs, and zero.
			lambda[j] = T(math.Copysign(math.Exp(30*rng.Float64()-27), rng.Float64()-0.4))
			if rng.IntN(8) == 0 {
				lambda[j] = 0
			}
		}
		for i := range b {
			b[i] = T(4 * rng.Float64())
		}
		draw := philox.Draw{Seed: 3, Index: 1<<32 - 2, Step: uint32(n), Purpose: 7}
		require.NoError(t, philox.HostNormal(noise, d, draw))
		for _, perSample := range []bool{true, false} {
			var got result[T]
			if perSample {
				got = run(t, dev, x0, lambda, b, 0, draw)
			} else {
				got = run(t, dev, x0, lambda, nil, float64(b[0]), draw)
			}
			for e := range x0 {
				integral := b[0]
				if perSample {
					integral = b[e/d]
				}
				rate := lambda[e%d]
				f, l := transition(float64(integral), float64(rate))
				x, z := float64(x0[e]), float64(noise[e])
				u := machine[T]()
				relative := u * (8 + math.Abs(float64(integral)*float64(rate)))
				name := fmt.Sprintf("shape %v: b %v lambda %v x0 %v", s, integral, rate, x)
				require.NoError(t, kerneltest.Within(got.mean[e:e+1], []float64{f * x}, relative*math.Abs(f*x)), name)
				require.NoError(t, kerneltest.Within(got.scale[e:e+1], []float64{l}, relative*l), name)
				require.NoError(t, kerneltest.Within(got.xt[e:e+1], []float64{f*x + l*z}, relative*(math.Abs(f*x)+math.Abs(l*z))), name)
				require.NoError(t, kerneltest.Within(got.score[e:e+1], []float64{-z / l}, relative*math.Abs(z/l)), name)
			}
		}
	}
}

// at is F and L of one (b, lambda), in float64.
func at(t *testing.T, dev gpu.Device, b, lambda float64) (factor, scale float64) {
	t.Helper()
	r := run(t, dev, []float64{1}, []float64{lambda}, []float64{b}, 0, philox.Draw{})
	return r.mean[0], r.scale[0]
}

// The values of a linear schedule from 0.1 to 10 at time 1/2: b = 1.2875.
func TestValues(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		r := run(t, dev.Device, []float64{1, 1}, []float64{.7, 1.9}, nil, 1.2875, philox.Draw{})
		require.NoError(t, kerneltest.Within(r.mean, []float64{.637229759, .294309013}, 5e-10))
		require.NoError(t, kerneltest.Within(r.scale, []float64{.921131474, .693345135}, 5e-10))
	})
}

// Chapman and Kolmogorov: b1, then b2 is b1 + b2.
func TestComposition(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, lambda := range []float64{-3, -1e-9, 0, 1e-14, 1e-3, 1, 7} {
			for _, b := range [][2]float64{{0.25, 0.5}, {1e-6, 2}, {3, 1.0 / 1024}} {
				f1, l1 := at(t, dev.Device, b[0], lambda)
				f2, l2 := at(t, dev.Device, b[1], lambda)
				f, l := at(t, dev.Device, b[0]+b[1], lambda)
				tolerance := 0x1p-52 * (12 + math.Abs(lambda)*(b[0]+b[1]))
				require.InEpsilon(t, f1*f2, f, tolerance)
				require.InEpsilon(t, f2*f2*l1*l1+l2*l2, l*l, tolerance)
			}
		}
	})
}

// λ → 0 from both sides: F = 1 - bλ/2, Σ = b (1 - bλ/2) to first order.
func TestSmallRate(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		const b = 0.7
		for _, size := range []float64{0, 5e-324, 1e-300, 1e-20, 1e-16, 1e-12, 1e-10} {
			for _, lambda := range []float64{size, -size} {
				f, l := at(t, dev.Device, b, lambda)
				require.InEpsilon(t, 1-b*lambda/2, f, 4*0x1p-52)
				require.InEpsilon(t, b*(1-b*lambda/2), l*l, 8*0x1p-52)
			}
		}
	})
}

// Where F leaves the range of numbers, Σ does what it should.
func TestExtremes(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, c := range []struct{ b, lambda, f, sigma float64 }{
			{1e4, 2, 0, 0.5},
			{1e300, 1e300, 0, 1e-300},
			{1e4, -2, math.Inf(1), math.Inf(1)},
			{1420, 1, math.Exp(-710), 1}, // below the normal numbers
			{0, 3, 1, 0},
			{0, 0, 1, 0},
			{0, -3, 1, 0},
		} {
			f, l := at(t, dev.Device, c.b, c.lambda)
			require.NoError(t, kerneltest.Within([]float64{f}, []float64{c.f}, 1e-12*c.f), "%+v", c) // |w| is 710 units
			require.NoError(t, kerneltest.Within([]float64{l}, []float64{math.Sqrt(c.sigma)}, 1e-15*math.Sqrt(c.sigma)), "%+v", c)
		}
		for _, c := range [][2]float64{{-1, 1}, {math.NaN(), 1}, {1, math.NaN()}} {
			_, l := at(t, dev.Device, c[0], c[1])
			require.True(t, math.IsNaN(l), "b %v lambda %v", c[0], c[1])
		}
		// float32 has another range.
		r := run(t, dev.Device, []float32{1, 1, 1}, []float32{2, -2, 190}, nil, 100, philox.Draw{})
		require.Equal(t, []float32{float32(math.Exp(-100)), float32(math.Inf(1)), 0}, r.mean)
	})
}

// b = 0 is the identity, and the score of a point mass infinite.
func TestNoTime(t *testing.T) {
	const n, d = 9, 3
	draw := philox.Draw{Seed: 1}
	noise, x0 := make([]float32, n*d), make([]float32, n*d)
	require.NoError(t, philox.HostNormal(noise, d, draw))
	require.NoError(t, philox.HostNormal(x0, d, philox.Draw{Seed: 2}))
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		r := run(t, dev.Device, x0, []float32{1, 0, -2}, nil, 0, draw)
		require.NoError(t, kerneltest.BitEqual(r.mean, x0))
		require.NoError(t, kerneltest.BitEqual(r.xt, x0))
		require.Equal(t, make([]float32, n*d), r.scale)
		for i, z := range noise {
			require.Equal(t, float32(math.Inf(-int(math.Copysign(1, float64(z))))), r.score[i])
		}
	})
}

// Outputs do not depend on which others are asked for, and the one that is X0
// does not disturb the others.
func TestOptionalOutputs(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { optional[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { optional[float64](t, dev.Device) })
	})
}

func optional[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	for _, d := range []int{3, 8} {
		const n = 101
		x0, lambda := make([]T, n*d), make([]T, d)
		draw := philox.Draw{Seed: 4}
		require.NoError(t, philox.HostNormal(x0, d, philox.Draw{Seed: 5}))
		require.NoError(t, philox.HostUniform(lambda, d, draw))
		full := run(t, dev, x0, lambda, nil, 1.5, draw)
		want := [][]T{full.mean, full.scale, full.xt, full.score}
		for mask := 1; mask < 16; mask++ {
			for inPlace := -1; inPlace < 4; inPlace++ {
				in := kerneltest.Put(t, dev, x0, n, d)
				args := ou.Args{X0: in.Tensor, Lambda: kerneltest.Put(t, dev, lambda).Tensor, B0: 1.5, Draw: draw}
				out := make([]*kerneltest.Array[T], 4)
				for i, field := range []*tensor.Tensor{&args.Mean, &args.Scale, &args.Xt, &args.Score} {
					if mask>>i&1 == 1 {
						out[i] = in
						if i != inPlace {
							out[i] = kerneltest.Poison[T](t, dev, n, d)
						}
						*field = out[i].Tensor
					}
				}
				require.NoError(t, ou.Transition(args))
				for i, a := range out {
					if a != nil {
						require.NoError(t, kerneltest.BitEqual(a.Get(t), want[i]), "outputs %04b, in place %d: %d", mask, inPlace, i)
					}
				}
			}
		}
		// No x0 is an x0 of zeros.
		zero := run(t, dev, make([]T, n*d), lambda, nil, 1.5, draw)
		out := kerneltest.Poison[T](t, dev, n, d)
		require.NoError(t, ou.Transition(ou.Args{Lambda: kerneltest.Put(t, dev, lambda).Tensor, B0: 1.5, Draw: draw, Xt: out.Tensor}))
		require.NoError(t, kerneltest.BitEqual(out.Get(t), zero.xt))
	}
}

// All devices agree bit for bit, and with a batch that is cut.
func TestDevicesAgree(t *testing.T) {
	t.Run("float32", agree[float32])
	t.Run("float64", agree[float64])
}

func agree[T kerneltest.Float](t *testing.T) {
	const n, d, cut = 211, 5, 77
	x0, b, lambda := make([]T, n*d), make([]T, n), make([]T, d)
	require.NoError(t, philox.HostNormal(x0, d, philox.Draw{Seed: 5}))
	require.NoError(t, philox.HostUniform(b, 1, philox.Draw{Seed: 6}))
	require.NoError(t, philox.HostNormal(lambda, d, philox.Draw{Seed: 7}))
	for i := range b {
		b[i] *= 20
	}
	draw := philox.Draw{Seed: 8, Index: math.MaxUint64 - 50, Step: 4, Purpose: 3}
	var first result[T]
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		got := run(t, dev.Device, x0, lambda, b, 0, draw)
		if first.xt == nil {
			first = got
		}
		later := draw
		later.Index += cut
		tail := run(t, dev.Device, x0[cut*d:], lambda, b[cut:], 0, later)
		for i, pair := range [][2][]T{{got.mean, first.mean}, {got.scale, first.scale}, {got.xt, first.xt}, {got.score, first.score},
			{tail.xt, got.xt[cut*d:]}, {tail.score, got.score[cut*d:]}} {
			require.NoError(t, kerneltest.BitEqual(pair[0], pair[1]), i)
		}
	})
}

// The sample has the moments of the transition, and its score those of a
// score: mean 0, variance 1/Σ, and E score (x_t - F x_0) = -1. n samples
// estimate a mean of variance v to √(v/n), a variance to v √(2/n).
func TestMoments(t *testing.T) {
	const n, sigmas, b = 1 << 17, 5, 1.2875
	lambda := []float64{0.7, 1.9, -0.5, 0}
	x0 := make([]float64, n*len(lambda))
	for i := range x0 {
		x0[i] = 2
	}
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	r := run(t, dev, x0, lambda, nil, b, philox.Draw{Seed: 2024})
	for j, rate := range lambda {
		f, l := transition(b, rate)
		var mean, variance, score, information, product float64
		for i := j; i < len(x0); i += len(lambda) {
			x := r.xt[i] - 2*f
			mean += x / n
			variance += x * x / n
			score += r.score[i] / n
			information += r.score[i] * r.score[i] / n
			product += r.score[i] * x / n
		}
		check := func(what string, got, want, standardError float64) {
			require.Truef(t, math.Abs(got-want) <= sigmas*standardError, "lambda %v: %s %v, want %v", rate, what, got, want)
		}
		check("mean", mean, 0, l/math.Sqrt(n))
		check("variance", variance, l*l, l*l*math.Sqrt(2.0/n))
		check("score", score, 0, 1/l/math.Sqrt(n))
		check("information", information, 1/(l*l), math.Sqrt(2.0/n)/(l*l))
		check("product", product, -1, math.Sqrt(2.0/n))
	}
}

func TestErrors(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	put := func(dtype tensor.DType, shape ...int) tensor.Tensor {
		return kerneltest.New(t, dev, dtype, shape...)
	}
	f := tensor.Float32
	big := put(f, 5, 3)
	x, lambda, out := put(f, 4, 3), put(f, 3), put(f, 4, 3)
	for _, c := range []struct {
		args ou.Args
		is   error
		text string
	}{
		{ou.Args{X0: x, Lambda: lambda}, gpu.ErrInvalid, "outputs: invalid argument: none given"},
		{ou.Args{Mean: out}, tensor.ErrInvalid, "lambda: invalid tensor: missing"},
		{ou.Args{Lambda: put(f, 4), Mean: out}, tensor.ErrInvalid, "lambda: invalid tensor: shape (4,), want (3,)"},
		{ou.Args{Lambda: lambda, X0: put(f, 3, 4), Mean: out}, tensor.ErrInvalid, "x0"},
		{ou.Args{Lambda: lambda, B: put(f, 3), Mean: out}, tensor.ErrInvalid, "b: invalid tensor: shape (3,), want (4,)"},
		{ou.Args{Lambda: lambda, B: put(f, 4), B0: 1, Mean: out}, gpu.ErrInvalid, "b0: invalid argument: got 1 beside b, want 0"},
		{ou.Args{Lambda: lambda, B0: -1, Mean: out}, gpu.ErrInvalid, "b0: invalid argument: got -1, want at least 0"},
		{ou.Args{Lambda: lambda, B0: math.NaN(), Mean: out}, gpu.ErrInvalid, "b0"},
		{ou.Args{Lambda: lambda, B0: math.Inf(1), Mean: out}, gpu.ErrInvalid, "b0"},
		{ou.Args{Lambda: lambda, Mean: out, Score: put(tensor.Float64, 4, 3)}, tensor.ErrInvalid, "score: invalid tensor: f64, want f32"},
		{ou.Args{Lambda: lambda, Mean: out, Xt: out}, gpu.ErrInvalid, "xt: invalid argument: overlaps mean"},
		{ou.Args{Lambda: lambda, X0: big.Rows(0, 4), Xt: big.Rows(1, 5)}, gpu.ErrInvalid, "xt: invalid argument: overlaps x0"},
		{ou.Args{Lambda: lambda, Mean: put(f, 12)}, gpu.ErrInvalid, "mean: invalid argument: 1 axes, want 2"},
		{ou.Args{Lambda: put(tensor.Int32, 3), Mean: put(tensor.Int32, 4, 3)}, gpu.ErrInvalid, "mean: invalid argument: i32, want f32 or f64"},
	} {
		err := ou.Transition(c.args)
		require.ErrorIs(t, err, c.is)
		require.ErrorContains(t, err, c.text)
	}
	require.NoError(t, ou.Transition(ou.Args{Lambda: lambda, Mean: put(f, 0, 3)}))
}

// Whatever the arguments: an error or the definition, never a crash.
func FuzzTransition(f *testing.F) {
	f.Add(3, 5, 5, 0.1, 1.0, uint64(1))
	f.Add(3, 5, 3, math.NaN(), math.Inf(-1), uint64(0))
	f.Add(1, 1, 1, 1e9, -1e-9, uint64(7))
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, n, d, d2 int, b, lambda float64, seed uint64) {
		small := func(v int) int { return int(uint(v) % 70) }
		n, d, d2 = small(n), small(d), small(d2)
		rates := make([]float64, d2)
		for i := range rates {
			rates[i] = lambda
		}
		mean, scale := kerneltest.Poison[float64](t, dev, n, d), kerneltest.Poison[float64](t, dev, n, d)
		err := ou.Transition(ou.Args{Lambda: kerneltest.Put(t, dev, rates).Tensor, B0: b, Mean: mean.Tensor, Scale: scale.Tensor, Draw: philox.Draw{Seed: seed}})
		require.Equal(t, d != d2 || !(b >= 0) || math.IsInf(b, 0), err != nil, "%v", err)
		got := scale.Get(t)
		mean.Get(t)
		if err != nil || math.IsNaN(b*lambda) || math.IsInf(lambda, 0) {
			return
		}
		for _, l := range got {
			_, want := transition(b, lambda)
			if want*want < 1e-290 || math.Abs(b*lambda) > 1400 {
				continue // b λ or Σ may leave the range of numbers on the way
			}
			require.NoError(t, kerneltest.Within([]float64{l}, []float64{want}, 0x1p-53*(8+b*math.Abs(lambda))*want))
		}
	})
}

// ExampleTransition noises a point to time 1/2 of a variance-preserving process.
func ExampleTransition() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	x0, _ := tensor.From(dev, []float64{1, -1}, 1, 2)
	lambda, _ := tensor.From(dev, []float64{1, 1}, 2)
	mean, _ := tensor.New(dev, tensor.Float64, 1, 2)
	scale, _ := tensor.New(dev, tensor.Float64, 1, 2)
	xt, _ := tensor.New(dev, tensor.Float64, 1, 2)
	for _, t := range []tensor.Tensor{x0, lambda, mean, scale, xt} {
		defer t.Free()
	}
	if err := ou.Transition(ou.Args{
		X0: x0, Lambda: lambda, B0: 1.2875,
		Mean: mean, Scale: scale, Xt: xt, Draw: philox.Draw{Seed: 1},
	}); err != nil {
		fmt.Println(err)
		return
	}
	for _, t := range []tensor.Tensor{mean, scale, xt} {
		v, _ := tensor.Values[float64](t)
		fmt.Printf("%.4f\n", v)
	}
	// Output:
	// [0.5253 -0.5253]
	// [0.8509 0.8509]
	// [0.1814 -0.7324]
}

func BenchmarkTransition(b *testing.B) {
	for _, dev := range kerneltest.Hardware(b) {
		for _, dtype := range []tensor.DType{tensor.Float32, tensor.Float64} {
			for _, noise := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/%v/noise=%v", dev.Name, dtype, noise), func(b *testing.B) {
					const n, d = 1 << 14, 64
					put := func(shape ...int) tensor.Tensor {
						t, err := tensor.New(dev.Device, dtype, shape...)
						require.NoError(b, err)
						b.Cleanup(t.Free)
						return t
					}
					a := ou.Args{X0: put(n, d), Lambda: put(d), B: put(n), Mean: put(n, d), Scale: put(n, d)}
					require.NoError(b, philox.Normal(a.X0, philox.Draw{}))
					for _, t := range []tensor.Tensor{a.Lambda, a.B} {
						column, err := t.Reshape(t.Len(), 1)
						require.NoError(b, err)
						require.NoError(b, philox.Uniform(column, philox.Draw{Seed: 1}))
					}
					arrays := 3
					if noise {
						a.Xt, a.Score = put(n, d), put(n, d)
						arrays = 5
					}
					b.SetBytes(int64(arrays * n * d * dtype.Size()))
					for b.Loop() {
						a.Draw.Step++
						if err := ou.Transition(a); err != nil {
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
func agrees[T kerneltest.Float](b *testing.B, a ou.Args) {
	n := a.X0.Dim(0)
	values := func(t tensor.Tensor) []T {
		v, err := tensor.Values[T](t)
		require.NoError(b, err)
		return v
	}
	x0, mean, scale := values(a.X0.Rows(n-1, n)), values(a.Mean.Rows(n-1, n)), values(a.Scale.Rows(n-1, n))
	lambda, integral := values(a.Lambda), values(a.B)[n-1]
	for j, x := range x0 {
		f, l := transition(float64(integral), float64(lambda[j]))
		require.NoError(b, kerneltest.Within(mean[j:j+1], []float64{f * float64(x)}, 8*machine[T]()*math.Abs(f*float64(x))))
		require.NoError(b, kerneltest.Within(scale[j:j+1], []float64{l}, 8*machine[T]()*l))
	}
}
