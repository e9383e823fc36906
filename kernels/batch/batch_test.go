package batch_test

import (
	"fmt"
	"math"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/batch"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// chosen are the rows that the definition draws, from the host's bits.
func chosen(t testing.TB, n, b int, draw philox.Draw) []int64 {
	t.Helper()
	words := make([]uint32, 2*b)
	require.NoError(t, philox.HostBits(words, 2, draw))
	out := make([]int64, b)
	for i := range out {
		high, _ := bits.Mul64(uint64(words[2*i+1])<<32|uint64(words[2*i]), uint64(n))
		out[i] = int64(high)
	}
	return out
}

func normals[T kerneltest.Float](t testing.TB, n, d int, draw philox.Draw) []T {
	t.Helper()
	v := make([]T, n*d)
	require.NoError(t, philox.HostNormal(v, d, draw))
	return v
}

// integers is an index array on a device, full of -1.
func integers[T int32 | int64](t testing.TB, dev gpu.Device, n int) tensor.Tensor {
	t.Helper()
	v := make([]T, n)
	for i := range v {
		v[i] = -1
	}
	out, err := tensor.From(dev, v, n)
	require.NoError(t, err)
	t.Cleanup(out.Free)
	return out
}

func TestGather(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { gather[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { gather[float64](t, dev.Device) })
	})
}

func gather[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	for _, s := range []struct{ n, d, b int }{
		{1, 1, 1}, {1, 5, 33}, {2, 1, 127}, {7, 2, 129}, {31, 3, 32}, {32, 4, 31}, {33, 5, 128}, {127, 8, 33}, {129, 131, 17},
		{3, 16385, 3}, {1000, 2, 8193}, {5, 2, 0},
	} {
		rows := normals[T](t, s.n, s.d, philox.Draw{Seed: 1})
		draw := philox.Draw{Seed: 9, Index: math.MaxUint64 - 20, Step: uint32(s.n), Purpose: 200}
		want := make([]T, 0, s.b*s.d)
		index := chosen(t, s.n, s.b, draw)
		for _, i := range index {
			want = append(want, rows[int(i)*s.d:(int(i)+1)*s.d]...)
		}
		in := kerneltest.Put(t, dev, rows, s.n, s.d)
		i32, i64 := integers[int32](t, dev, s.b), integers[int64](t, dev, s.b)
		for _, to := range []tensor.Tensor{{}, i32, i64} {
			out := kerneltest.Poison[T](t, dev, s.b, s.d)
			require.NoError(t, batch.Gather(batch.GatherArgs{Rows: in.Tensor, Out: out.Tensor, Index: to, Draw: draw}))
			require.NoError(t, kerneltest.BitEqual(out.Get(t), want), "%+v", s)
			in.Unmodified(t)
		}
		got64, err := tensor.Values[int64](i64)
		require.NoError(t, err)
		require.Equal(t, index, got64)
		got32, err := tensor.Values[int32](i32)
		require.NoError(t, err)
		for i, v := range got32 {
			require.EqualValues(t, index[i], v)
		}
	}
}

// Every row is drawn as often as every other one: a row's count among b draws
// has the standard deviation √(b/n), and χ² of n - 1 degrees of freedom the
// mean n - 1 and the standard deviation √(2(n-1)).
func TestGatherIsUniform(t *testing.T) {
	const n, b, sigmas = 137, 1 << 17, 5
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	in, out := kerneltest.Put(t, dev, make([]float32, n), n, 1), kerneltest.Poison[float32](t, dev, b, 1)
	index := integers[int32](t, dev, b)
	require.NoError(t, batch.Gather(batch.GatherArgs{Rows: in.Tensor, Out: out.Tensor, Index: index, Draw: philox.Draw{Seed: 77}}))
	got, err := tensor.Values[int32](index)
	require.NoError(t, err)
	var count [n]float64
	for _, i := range got {
		count[i]++
	}
	chi2, expected := 0.0, float64(b)/n
	for i, c := range count {
		require.LessOrEqual(t, math.Abs(c-expected), sigmas*math.Sqrt(expected), "row %d", i)
		chi2 += (c - expected) * (c - expected) / expected
	}
	require.LessOrEqual(t, math.Abs(chi2-(n-1)), sigmas*math.Sqrt(2*(n-1)))
}

// pairs are the outputs of Bridge.
type pairs[T kerneltest.Float] struct{ t, xt, u []T }

// bridge asks for all outputs; given may be nil.
func bridge[T kerneltest.Float](t testing.TB, dev gpu.Device, x0, x1, given []T, d int, epsilon, safe float64, draw philox.Draw) pairs[T] {
	t.Helper()
	n := len(x0) / d
	from, to := kerneltest.Put(t, dev, x0, n, d), kerneltest.Put(t, dev, x1, n, d)
	xt, u := kerneltest.Poison[T](t, dev, n, d), kerneltest.Poison[T](t, dev, n, d)
	args := batch.BridgeArgs{X0: from.Tensor, X1: to.Tensor, Epsilon: epsilon, Safe: safe, Xt: xt.Tensor, U: u.Tensor, Draw: draw}
	times := kerneltest.Poison[T](t, dev, n)
	if given != nil {
		times = kerneltest.Put(t, dev, given)
		args.TIn = times.Tensor
	} else {
		args.T = times.Tensor
	}
	require.NoError(t, batch.Bridge(args))
	from.Unmodified(t)
	to.Unmodified(t)
	if given != nil {
		times.Unmodified(t)
	}
	return pairs[T]{times.Get(t), xt.Get(t), u.Get(t)}
}

func machine[T kerneltest.Float]() float64 {
	if tensor.TypeOf[T]() == tensor.Float32 {
		return 0x1p-24
	}
	return 0x1p-53
}

// Every element against the definition in float64. Each factor √(ε t (1-t)) or
// √(ε t / (1-t)) takes four roundings before its root and one in it, the sums
// three, ε one: eight in all of the sizes of the terms.
func TestBridge(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { bridges[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { bridges[float64](t, dev.Device) })
	})
}

func bridges[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	for _, s := range [][2]int{{1, 1}, {31, 1}, {127, 2}, {33, 3}, {32, 4}, {17, 5}, {129, 7}, {3, 128}, {2, 131}, {2, 1031}, {1031, 8}} {
		n, d := s[0], s[1]
		draw := philox.Draw{Seed: 3, Index: 1<<32 - 2, Step: uint32(n), Purpose: 253}
		x0, x1 := normals[T](t, n, d, philox.Draw{Seed: 1}), normals[T](t, n, d, philox.Draw{Seed: 2})
		const epsilon, safe = 0.3, 0.01
		got := bridge(t, dev, x0, x1, nil, d, epsilon, safe, draw)

		uniform := make([]T, n)
		require.NoError(t, philox.HostUniform(uniform, 1, draw))
		for i, u := range uniform {
			require.NoError(t, kerneltest.BitEqual(got.t[i:i+1], []T{T(1-safe) * u}))
			require.True(t, got.t[i] > 0 && got.t[i] < T(1-safe))
		}
		draw.Purpose++
		noise := normals[T](t, n, d, draw)
		for e := range x0 {
			at := float64(got.t[e/d])
			a, b, z := float64(x0[e]), float64(x1[e]), float64(noise[e])
			spread := math.Sqrt(epsilon * at * (1 - at))
			xt := (1-at)*a + at*b + spread*z
			u := (b - xt) / (1 - at)
			budget := 8 * machine[T]()
			require.NoError(t, kerneltest.Within(got.xt[e:e+1], []float64{xt}, budget*(math.Abs(a)+math.Abs(b)+math.Abs(spread*z))), s)
			require.NoError(t, kerneltest.Within(got.u[e:e+1], []float64{u}, budget*(math.Abs(a)+math.Abs(b)+math.Abs(spread*z)/(1-at))+
				0x1p-50*(math.Abs(b)+math.Abs(xt))/(1-at)), s) // the second term: of this reference
		}

		// The same times, given.
		draw.Purpose--
		given := bridge(t, dev, x0, x1, got.t, d, epsilon, 0, draw)
		require.NoError(t, kerneltest.BitEqual(given.xt, got.xt))
		require.NoError(t, kerneltest.BitEqual(given.u, got.u))
	}
}

// At the ends the point is x0 and x1; outside there is none; without noise u is
// the straight line's.
func TestEnds(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		const n, d = 9, 3
		x0, x1 := normals[float32](t, n, d, philox.Draw{Seed: 1}), normals[float32](t, n, d, philox.Draw{Seed: 2})
		draw := philox.Draw{Seed: 5}
		at := func(time float32, epsilon float64) pairs[float32] {
			given := make([]float32, n)
			for i := range given {
				given[i] = time
			}
			return bridge(t, dev.Device, x0, x1, given, d, epsilon, 0, draw)
		}
		draw.Purpose = 1
		noise := normals[float32](t, n, d, draw)
		draw.Purpose = 0
		line := make([]float32, n*d)
		for i := range line {
			line[i] = x1[i] - x0[i]
		}
		start, end := at(0, 2), at(1, 2)
		require.NoError(t, kerneltest.BitEqual(start.xt, x0))
		require.NoError(t, kerneltest.BitEqual(start.u, line))
		require.NoError(t, kerneltest.BitEqual(end.xt, x1))
		for i, u := range end.u {
			require.Equal(t, float32(math.Inf(-int(math.Copysign(1, float64(noise[i]))))), u)
		}
		require.NoError(t, kerneltest.BitEqual(at(0.625, 0).u, line))
		for _, time := range []float32{-0.01, 1.01, float32(math.NaN())} {
			out := at(time, 2)
			for i := range out.xt {
				require.True(t, out.xt[i] != out.xt[i] && out.u[i] != out.u[i], "t = %v", time)
			}
		}
		// Near the end u stays u: t x0 + … does not cancel.
		near := at(1-0x1p-20, 2)
		for i, u := range near.u {
			time := 1 - 0x1p-20
			want := float64(x1[i]) - float64(x0[i]) - math.Sqrt(2*time/(1-time))*float64(noise[i])
			require.NoError(t, kerneltest.Within([]float32{u}, []float64{want}, 8*0x1p-24*(math.Abs(want)+math.Abs(float64(x0[i]))+math.Abs(float64(x1[i])))))
		}
	})
}

// Outputs do not depend on which others are asked for, nor on being an input.
func TestOptionalOutputs(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { optional[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { optional[float64](t, dev.Device) })
	})
}

func optional[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	for _, d := range []int{3, 8} {
		const n = 67
		draw := philox.Draw{Seed: 4}
		x0, x1 := normals[T](t, n, d, philox.Draw{Seed: 1}), normals[T](t, n, d, philox.Draw{Seed: 2})
		full := bridge(t, dev, x0, x1, nil, d, 0.7, 0.1, draw)
		for mask := 1; mask < 8; mask++ {
			for _, place := range []string{"apart", "straight", "crossed"} {
				from, to := kerneltest.Put(t, dev, x0, n, d), kerneltest.Put(t, dev, x1, n, d)
				args := batch.BridgeArgs{X0: from.Tensor, X1: to.Tensor, Epsilon: 0.7, Safe: 0.1, Draw: draw}
				times, xt, u := kerneltest.Poison[T](t, dev, n), kerneltest.Poison[T](t, dev, n, d), kerneltest.Poison[T](t, dev, n, d)
				switch place {
				case "straight":
					xt, u = from, to
				case "crossed":
					xt, u = to, from
				}
				if mask&1 != 0 {
					args.T = times.Tensor
				}
				if mask&2 != 0 {
					args.Xt = xt.Tensor
				}
				if mask&4 != 0 {
					args.U = u.Tensor
				}
				require.NoError(t, batch.Bridge(args))
				if mask&1 != 0 {
					require.NoError(t, kerneltest.BitEqual(times.Get(t), full.t), "%s %03b", place, mask)
				}
				if mask&2 != 0 {
					require.NoError(t, kerneltest.BitEqual(xt.Get(t), full.xt), "%s %03b", place, mask)
				}
				if mask&4 != 0 {
					require.NoError(t, kerneltest.BitEqual(u.Get(t), full.u), "%s %03b", place, mask)
				}
			}
		}
	}
}

// All devices agree bit for bit, and with a batch that is cut.
func TestDevicesAgree(t *testing.T) {
	t.Run("float32", agree[float32])
	t.Run("float64", agree[float64])
}

func agree[T kerneltest.Float](t *testing.T) {
	const n, d, cut = 4211, 5, 77
	x0, x1 := normals[T](t, n, d, philox.Draw{Seed: 1}), normals[T](t, n, d, philox.Draw{Seed: 2})
	draw := philox.Draw{Seed: 8, Index: math.MaxUint64 - 50, Step: 4, Purpose: 3}
	var first pairs[T]
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		got := bridge(t, dev.Device, x0, x1, nil, d, 1.3, 1e-2, draw)
		if first.t == nil {
			first = got
		}
		later := draw
		later.Index += cut
		tail := bridge(t, dev.Device, x0[cut*d:], x1[cut*d:], nil, d, 1.3, 1e-2, later)
		for i, pair := range [][2][]T{{got.t, first.t}, {got.xt, first.xt}, {got.u, first.u},
			{tail.t, got.t[cut:]}, {tail.xt, got.xt[cut*d:]}, {tail.u, got.u[cut*d:]}} {
			require.NoError(t, kerneltest.BitEqual(pair[0], pair[1]), i)
		}
	})
}

// Between fixed ends, per coordinate: t is uniform on [0, 1-s), and of the
// residuals r = x_t - (1-t) x_0 - t x_1 and w = u - (x_1 - x_0)
//
//	E r = 0,  E r² = ε E t(1-t),  E w r = -ε E t,  E r² / t(1-t) = ε
//
// with thresholds of five standard errors, which the moments of normals give:
// E r⁴ = 3 ε² E t²(1-t)² and E w²r² = 3 ε² E t².
func TestMoments(t *testing.T) {
	const n, sigmas, epsilon, safe = 1 << 17, 5, 0.8, 0.05
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	x0, x1 := make([]float64, n), make([]float64, n)
	for i := range x0 {
		x0[i], x1[i] = 2, -1
	}
	got := bridge(t, dev, x0, x1, nil, 1, epsilon, safe, philox.Draw{Seed: 2025})
	const b = 1 - safe
	power := func(k float64) float64 { return math.Pow(b, k) / (k + 1) } // E t^k
	var time, time2, residual, square, product, ratio float64
	for i, at := range got.t {
		r, w := got.xt[i]-2*(1-at)+at, got.u[i]+3
		time += at / n
		time2 += at * at / n
		residual += r / n
		square += r * r / n
		product += w * r / n
		ratio += r * r / (at * (1 - at)) / n
	}
	check := func(what string, got, want, variance float64) {
		t.Helper()
		require.LessOrEqualf(t, math.Abs(got-want), sigmas*math.Sqrt(variance/n), "%s: %v, want %v", what, got, want)
	}
	spread, spread2 := power(1)-power(2), power(2)-2*power(3)+power(4) // E t(1-t) and E t²(1-t)²
	check("t", time, power(1), power(2)-power(1)*power(1))
	check("t²", time2, power(2), power(4)-power(2)*power(2))
	check("r", residual, 0, epsilon*spread)
	check("r²", square, epsilon*spread, 3*epsilon*epsilon*spread2-epsilon*epsilon*spread*spread)
	check("w r", product, -epsilon*power(1), 3*epsilon*epsilon*power(2)-epsilon*epsilon*power(1)*power(1))
	check("r²/t(1-t)", ratio, epsilon, 2*epsilon*epsilon)
}

// With a count the draws are those of a step that is so much later, also of a
// launch that was recorded before the count moved, and modulo 2³².
func TestCount(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { counted[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { counted[float64](t, dev.Device) })
	})
}

func counted[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	const n, d, b, begin = 91, 3, 129, math.MaxUint32 - 1
	rows := kerneltest.Put(t, dev, normals[T](t, n, d, philox.Draw{Seed: 1}), n, d)
	count, err := tensor.From(dev, []uint32{7}, 1)
	require.NoError(t, err)
	defer count.Free()
	draw := philox.Draw{Seed: 5, Index: 3, Step: begin, Purpose: 9}
	x0, x1, times := kerneltest.Poison[T](t, dev, b, d), kerneltest.Poison[T](t, dev, b, d), kerneltest.Poison[T](t, dev, b)
	xt, u := kerneltest.Poison[T](t, dev, b, d), kerneltest.Poison[T](t, dev, b, d)
	launch := func(draw philox.Draw, count tensor.Tensor) error {
		for purpose, out := range []tensor.Tensor{x0.Tensor, x1.Tensor} {
			of := draw
			of.Purpose += uint8(purpose)
			if err := batch.Gather(batch.GatherArgs{Rows: rows.Tensor, Out: out, Draw: of, Count: count}); err != nil {
				return err
			}
		}
		draw.Purpose += 2
		return batch.Bridge(batch.BridgeArgs{
			X0: x0.Tensor, X1: x1.Tensor, Epsilon: 0.4, Safe: 0.1, T: times.Tensor, Xt: xt.Tensor, U: u.Tensor, Draw: draw, Count: count,
		})
	}
	get := func() (all []T) {
		for _, a := range []*kerneltest.Array[T]{x0, x1, times, xt, u} {
			all = append(all, a.Get(t)...)
		}
		return all
	}
	graph, err := dev.Record(func() error { return launch(draw, count) })
	require.NoError(t, err)
	defer func() { require.NoError(t, graph.Close()) }()
	var before []T
	for _, c := range []uint32{0, 1, 2, 3, 1 << 31} {
		at := draw
		at.Step += c
		require.NoError(t, launch(at, tensor.Tensor{}))
		want := get()
		require.Error(t, kerneltest.BitEqual(want, before), "two steps drew the same")
		before = want
		require.NoError(t, tensor.Set(count, []uint32{c}))
		require.NoError(t, launch(draw, count))
		require.NoError(t, kerneltest.BitEqual(get(), want), "count %d", c)
		require.NoError(t, tensor.Set(count, []uint32{c + 5}))
		require.NoError(t, launch(draw, count))
		require.NoError(t, tensor.Set(count, []uint32{c}))
		require.NoError(t, graph.Replay())
		require.NoError(t, kerneltest.BitEqual(get(), want), "replayed at count %d", c)
	}
}

// A training loop makes no garbage.
func TestNoAllocation(t *testing.T) {
	const n, b, d = 1000, 10007, 3
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	rows := kerneltest.Put(t, dev, make([]float32, n*d), n, d)
	x0, x1 := kerneltest.Poison[float32](t, dev, b, d), kerneltest.Poison[float32](t, dev, b, d)
	args := batch.BridgeArgs{X0: x0.Tensor, X1: x1.Tensor, Epsilon: 1, T: kerneltest.Poison[float32](t, dev, b).Tensor, Xt: x0.Tensor, U: x1.Tensor}
	from := batch.GatherArgs{Rows: rows.Tensor, Out: x0.Tensor, Index: integers[int64](t, dev, b)}
	to := batch.GatherArgs{Rows: rows.Tensor, Out: x1.Tensor, Draw: philox.Draw{Purpose: 1}}
	count, err := tensor.From(dev, []uint32{0}, 1)
	require.NoError(t, err)
	defer count.Free()
	to.Count, args.Count = count, count
	require.Zero(t, testing.AllocsPerRun(50, func() {
		from.Draw.Step++
		if batch.Gather(from) != nil || batch.Gather(to) != nil || batch.Bridge(args) != nil {
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
	big, rows := make(f, 9, 3), make(f, 5, 3)
	inside := func(of tensor.Tensor) tensor.Tensor { // a count in the memory of an output
		count, err := tensor.Wrap(dev, of.Buffer().Slice(4, 4), tensor.Uint32, 1)
		require.NoError(t, err)
		return count
	}
	for _, c := range []struct {
		args batch.GatherArgs
		is   error
		text string
	}{
		{batch.GatherArgs{Out: rows}, gpu.ErrInvalid, "rows: invalid argument: missing"},
		{batch.GatherArgs{Rows: rows}, gpu.ErrInvalid, "out: invalid argument: missing"},
		{batch.GatherArgs{Rows: make(f, 5), Out: rows}, gpu.ErrInvalid, "rows: invalid argument: 1 axes, want 2"},
		{batch.GatherArgs{Rows: make(tensor.Int32, 5, 3), Out: rows}, gpu.ErrInvalid, "rows: invalid argument: i32, want f32 or f64"},
		{batch.GatherArgs{Rows: make(f, 0, 3), Out: rows}, gpu.ErrInvalid, "rows: invalid argument: empty"},
		{batch.GatherArgs{Rows: make(f, 5, 0), Out: make(f, 5, 0)}, gpu.ErrInvalid, "rows: invalid argument: empty"},
		{batch.GatherArgs{Rows: rows, Out: make(f, 4, 2)}, tensor.ErrInvalid, "out: invalid tensor: shape (4, 2), want (4, 3)"},
		{batch.GatherArgs{Rows: rows, Out: make(tensor.Float64, 4, 3)}, tensor.ErrInvalid, "out: invalid tensor: f64, want f32"},
		{batch.GatherArgs{Rows: rows, Out: big, Index: make(tensor.Int32, 4)}, tensor.ErrInvalid, "index: invalid tensor: shape (4,), want (9,)"},
		{batch.GatherArgs{Rows: rows, Out: big, Index: make(f, 9)}, tensor.ErrInvalid, "index: invalid tensor: f32, want i32"},
		{batch.GatherArgs{Rows: big.Rows(0, 5), Out: big.Rows(4, 9)}, gpu.ErrInvalid, "rows, out, index and count overlap"},
		{batch.GatherArgs{Rows: rows, Out: big, Count: make(tensor.Uint32, 2)}, tensor.ErrInvalid, "count: invalid tensor: shape (2,), want (1,)"},
		{batch.GatherArgs{Rows: rows, Out: big, Count: make(tensor.Int32, 1)}, tensor.ErrInvalid, "count: invalid tensor: i32, want u32"},
		{batch.GatherArgs{Rows: rows, Out: big, Count: inside(big)}, gpu.ErrInvalid, "rows, out, index and count overlap"},
	} {
		err := batch.Gather(c.args)
		require.ErrorIs(t, err, c.is, c.text)
		require.ErrorContains(t, err, c.text)
	}
	require.NoError(t, batch.Gather(batch.GatherArgs{Rows: rows, Out: make(f, 0, 3)}))

	x0, x1, out, times := make(f, 4, 3), make(f, 4, 3), make(f, 4, 3), make(f, 4)
	drawn := make(f, 4)
	good := batch.BridgeArgs{X0: x0, X1: x1, Epsilon: 1, Xt: out}
	for _, c := range []struct {
		change func(*batch.BridgeArgs)
		is     error
		text   string
	}{
		{func(a *batch.BridgeArgs) { a.X0 = tensor.Tensor{} }, gpu.ErrInvalid, "x0: invalid argument: missing"},
		{func(a *batch.BridgeArgs) { a.X0 = make(f, 4, 0) }, gpu.ErrInvalid, "x0: invalid argument: no columns"},
		{func(a *batch.BridgeArgs) { a.X1 = tensor.Tensor{} }, tensor.ErrInvalid, "x1: invalid tensor: missing"},
		{func(a *batch.BridgeArgs) { a.X1 = make(f, 3, 3) }, tensor.ErrInvalid, "x1: invalid tensor: shape (3, 3), want (4, 3)"},
		{func(a *batch.BridgeArgs) { a.TIn = make(f, 3) }, tensor.ErrInvalid, "tin: invalid tensor: shape (3,), want (4,)"},
		{func(a *batch.BridgeArgs) { a.U = make(tensor.Float64, 4, 3) }, tensor.ErrInvalid, "u: invalid tensor: f64, want f32"},
		{func(a *batch.BridgeArgs) { a.Xt = tensor.Tensor{} }, gpu.ErrInvalid, "outputs: invalid argument: none given"},
		{func(a *batch.BridgeArgs) { a.Epsilon = -1 }, gpu.ErrInvalid, "epsilon"},
		{func(a *batch.BridgeArgs) { a.Epsilon = math.NaN() }, gpu.ErrInvalid, "epsilon"},
		{func(a *batch.BridgeArgs) { a.Epsilon = math.Inf(1) }, gpu.ErrInvalid, "epsilon"},
		{func(a *batch.BridgeArgs) { a.Safe = 1 }, gpu.ErrInvalid, "safe: invalid argument: got 1, want in [0, 1)"},
		{func(a *batch.BridgeArgs) { a.Safe = math.NaN() }, gpu.ErrInvalid, "safe"},
		{func(a *batch.BridgeArgs) { a.TIn, a.Safe = times, 0.1 }, gpu.ErrInvalid, "safe: invalid argument: got 0.1 beside tin, want 0"},
		{func(a *batch.BridgeArgs) { a.TIn, a.T = times, make(f, 4) }, gpu.ErrInvalid, "t: invalid argument: given beside tin"},
		{func(a *batch.BridgeArgs) { a.Draw.Purpose = 255 }, gpu.ErrInvalid, "draw: invalid argument: purpose 255"},
		{func(a *batch.BridgeArgs) { a.U = out }, gpu.ErrInvalid, "outputs: invalid argument: overlap"},
		{func(a *batch.BridgeArgs) { a.Count = make(f, 1) }, tensor.ErrInvalid, "count: invalid tensor: f32, want u32"},
		{func(a *batch.BridgeArgs) { a.Count = inside(out) }, gpu.ErrInvalid, "outputs: invalid argument: overlap"},
		{func(a *batch.BridgeArgs) { a.T, a.Count = drawn, inside(drawn) }, gpu.ErrInvalid, "outputs: invalid argument: overlap"},
		{func(a *batch.BridgeArgs) { a.X0, a.Xt = big.Rows(0, 4), big.Rows(1, 5) }, gpu.ErrInvalid, "outputs: invalid argument: overlap"},
	} {
		args := good
		c.change(&args)
		err := batch.Bridge(args)
		require.ErrorIs(t, err, c.is, c.text)
		require.ErrorContains(t, err, c.text)
	}
	empty := make(f, 0, 3)
	require.NoError(t, batch.Bridge(batch.BridgeArgs{X0: empty, X1: empty, Xt: make(f, 0, 3)}))
}

// Whatever the shapes: an error or the definition, never a crash.
func FuzzBridge(f *testing.F) {
	f.Add(3, 5, 5, 0.1, 0.01, uint64(1))
	f.Add(3, 5, 4, math.NaN(), 2.0, uint64(0))
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, n, d, d2 int, epsilon, safe float64, seed uint64) {
		small := func(v int) int { return int(uint(v) % 70) }
		n, d, d2 = small(n), small(d), small(d2)
		x0, x1 := kerneltest.Put(t, dev, make([]float64, n*d), n, d), kerneltest.Put(t, dev, make([]float64, n*d2), n, d2)
		xt := kerneltest.Poison[float64](t, dev, n, d)
		err := batch.Bridge(batch.BridgeArgs{X0: x0.Tensor, X1: x1.Tensor, Epsilon: epsilon, Safe: safe, Xt: xt.Tensor, Draw: philox.Draw{Seed: seed}})
		good := d == d2 && d > 0 && epsilon >= 0 && !math.IsInf(epsilon, 0) && safe >= 0 && safe < 1
		require.Equal(t, good, err == nil, "%v", err)
		for _, x := range xt.Get(t) {
			if err == nil {
				require.LessOrEqual(t, math.Abs(x), 9*math.Sqrt(epsilon)/2)
			}
		}
	})
}

// ExampleGather draws two of three rows.
func ExampleGather() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	rows, _ := tensor.From(dev, []float32{0, 0, 1, 10, 2, 20}, 3, 2)
	out, _ := tensor.New(dev, tensor.Float32, 2, 2)
	defer rows.Free()
	defer out.Free()
	if err := batch.Gather(batch.GatherArgs{Rows: rows, Out: out, Draw: philox.Draw{Seed: 2}}); err != nil {
		fmt.Println(err)
		return
	}
	v, _ := tensor.Values[float32](out)
	fmt.Println(v)
	// Output:
	// [1 10 0 0]
}

// ExampleBridge is a training pair in the middle of a bridge from 0 to 1.
func ExampleBridge() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	x0, _ := tensor.From(dev, []float64{0}, 1, 1)
	x1, _ := tensor.From(dev, []float64{1}, 1, 1)
	t, _ := tensor.From(dev, []float64{0.5}, 1)
	xt, _ := tensor.New(dev, tensor.Float64, 1, 1)
	u, _ := tensor.New(dev, tensor.Float64, 1, 1)
	for _, a := range []tensor.Tensor{x0, x1, t, xt, u} {
		defer a.Free()
	}
	if err := batch.Bridge(batch.BridgeArgs{X0: x0, X1: x1, Epsilon: 0.1, TIn: t, Xt: xt, U: u, Draw: philox.Draw{Seed: 1}}); err != nil {
		fmt.Println(err)
		return
	}
	point, _ := tensor.Values[float64](xt)
	drift, _ := tensor.Values[float64](u)
	fmt.Printf("%.4f %.4f, straight on %.4f\n", point, drift, 2*(1-point[0]))
	// Output:
	// [0.6066] [0.7868], straight on 0.7868
}

func BenchmarkBridge(b *testing.B) {
	for _, dev := range kerneltest.Hardware(b) {
		for _, d := range []int{2, 64} {
			b.Run(fmt.Sprintf("%s/f32/d=%d", dev.Name, d), func(b *testing.B) { benchmark[float32](b, dev.Device, d) })
			b.Run(fmt.Sprintf("%s/f64/d=%d", dev.Name, d), func(b *testing.B) { benchmark[float64](b, dev.Device, d) })
		}
	}
}

// benchmark is a batch of bridge matching: two gathers and a bridge.
func benchmark[T kerneltest.Float](b *testing.B, dev gpu.Device, d int) {
	n := 1 << 20 / d
	rows := kerneltest.Put(b, dev, normals[T](b, n, d, philox.Draw{}), n, d)
	x0, x1, u := kerneltest.Poison[T](b, dev, n, d), kerneltest.Poison[T](b, dev, n, d), kerneltest.Poison[T](b, dev, n, d)
	times := kerneltest.Poison[T](b, dev, n)
	args := batch.BridgeArgs{X0: x0.Tensor, X1: x1.Tensor, Epsilon: 1, Safe: 1e-2, T: times.Tensor, Xt: x0.Tensor, U: u.Tensor, Draw: philox.Draw{Purpose: 2}}
	from := batch.GatherArgs{Rows: rows.Tensor, Out: x0.Tensor}
	to := batch.GatherArgs{Rows: rows.Tensor, Out: x1.Tensor, Draw: philox.Draw{Purpose: 1}}
	b.SetBytes(int64(8 * n * d * tensor.TypeOf[T]().Size()))
	for b.Loop() {
		from.Draw.Step++
		to.Draw.Step++
		args.Draw.Step++
		for _, err := range []error{batch.Gather(from), batch.Gather(to), batch.Bridge(args)} {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	require.NoError(b, dev.Sync())
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n*d), "ns/element")
	// (1-t) u = x1 - xt, element by element.
	t, xt, end, drift := times.Get(b), x0.Get(b), x1.Get(b), u.Get(b)
	for i := range drift {
		near := 1 - float64(t[i/d])
		require.InDelta(b, float64(end[i]-xt[i]), near*float64(drift[i]), 64*machine[T]()*(1+math.Abs(near*float64(drift[i]))+math.Abs(float64(end[i]))))
	}
}
