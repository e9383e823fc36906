package fold_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/fold"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// tree is the definition: level by level, a list that halves.
func tree[T kerneltest.Float](in []T, rows, width, m int) []T {
	out := make([]T, m)
	for j := range out {
		var v []float64
		for s := range rows {
			v = append(v, float64(in[s*width+j]))
		}
		for len(v) > 1 {
			var up []float64
			for i := 0; i < len(v); i += 2 {
				if i+1 < len(v) {
					up = append(up, v[i]+v[i+1])
				} else {
					up = append(up, v[i])
				}
			}
			v = up
		}
		out[j] = T(v[0])
	}
	return out
}

// numbers are of many sizes and both signs, so that the order shows.
func numbers[T kerneltest.Float](rng *rand.Rand, n int) []T {
	v := make([]T, n)
	for i := range v {
		v[i] = T(rng.NormFloat64() * math.Exp(20*rng.Float64()-10))
	}
	return v
}

// Every device gives the bits of the definition.
func TestTree(t *testing.T) {
	t.Run("float32", trees[float32])
	t.Run("float64", trees[float64])
}

func trees[T kerneltest.Float](t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	shapes := [][3]int{{1, 8193, 8193}, {2, 1, 1}, {3, 8200, 8191}, {8, 16390, 16385}, {1025, 3, 2}}
	for rows := 1; rows <= 33; rows++ {
		shapes = append(shapes, [3]int{rows, 130, 127}, [3]int{rows, 129, 129})
	}
	for _, rows := range []int{63, 64, 65, 71, 127, 129, 257} {
		shapes = append(shapes, [3]int{rows, 31, 31})
	}
	kerneltest.Each(t, func(t *testing.T, target kerneltest.Target) {
		dev := target.Device
		for _, s := range shapes {
			v := numbers[T](rng, s[0]*s[1])
			in := kerneltest.Put(t, dev, v, s[0], s[1])
			out := kerneltest.Poison[T](t, dev, s[2])
			require.NoError(t, fold.Rows(out.Tensor, in.Tensor))
			in.Unmodified(t)
			require.NoError(t, kerneltest.BitEqual(out.Get(t), tree(v, s[0], s[1], s[2])), "shape %v", s)
		}
	})
}

// The order matters in these tests: that of the rows gives other bits.
func TestOrderShows(t *testing.T) {
	const rows, m = 9, 200
	v := numbers[float64](rand.New(rand.NewPCG(3, 3)), rows*m)
	want, differ := tree(v, rows, m, m), 0
	for j := range m {
		sum := 0.0
		for s := range rows {
			sum += v[s*m+j]
		}
		if sum != want[j] {
			differ++
		}
	}
	require.Greater(t, differ, m/4)
}

// The fold of folds of aligned groups is the fold, whatever the size of the
// groups.
func TestFoldOfFolds(t *testing.T) {
	const m = 77
	rng := rand.New(rand.NewPCG(5, 5))
	kerneltest.Each(t, func(t *testing.T, target kerneltest.Target) {
		dev := target.Device
		for _, rows := range []int{1, 2, 5, 8, 13, 16, 33, 100} {
			in := kerneltest.Put(t, dev, numbers[float64](rng, rows*m), rows, m)
			whole := kerneltest.Poison[float64](t, dev, m)
			require.NoError(t, fold.Rows(whole.Tensor, in.Tensor))
			for size := 1; size < 2*rows; size *= 2 {
				groups := (rows + size - 1) / size
				parts := kerneltest.Poison[float64](t, dev, groups, m)
				for g := range groups {
					part := in.Tensor.Rows(g*size, min((g+1)*size, rows))
					to, err := parts.Tensor.Rows(g, g+1).Reshape(m)
					require.NoError(t, err)
					require.NoError(t, fold.Rows(to, part))
				}
				got := kerneltest.Poison[float64](t, dev, m)
				require.NoError(t, fold.Rows(got.Tensor, parts.Tensor))
				require.NoError(t, kerneltest.BitEqual(got.Get(t), whole.Get(t)), "%d rows in groups of %d", rows, size)
			}
		}
	})
}

// One row is copied, bit for bit, and what is not finite is not hidden.
func TestSpecial(t *testing.T) {
	inf, nan, zero := math.Inf(1), math.NaN(), math.Copysign(0, -1)
	kerneltest.Each(t, func(t *testing.T, target kerneltest.Target) {
		dev := target.Device
		row := []float32{float32(zero), 0, float32(inf), float32(-inf), math.SmallestNonzeroFloat32, math.MaxFloat32}
		in, out := kerneltest.Put(t, dev, row, 1, len(row)), kerneltest.Poison[float32](t, dev, len(row))
		require.NoError(t, fold.Rows(out.Tensor, in.Tensor))
		require.NoError(t, kerneltest.BitEqual(out.Get(t), row))

		// 3 rows: the third has no neighbour.
		v := []float64{
			zero, inf, inf, nan, 1,
			zero, 1, -inf, 1, inf,
			zero, -1, 5, 1, nan,
		}
		wide, sums := kerneltest.Put(t, dev, v, 3, 5), kerneltest.Poison[float64](t, dev, 5)
		require.NoError(t, fold.Rows(sums.Tensor, wide.Tensor))
		got := sums.Get(t)
		require.True(t, got[0] == 0 && math.Signbit(got[0]), "sum of -0 is %v", got[0])
		require.Equal(t, inf, got[1])
		require.True(t, math.IsNaN(got[2]) && math.IsNaN(got[3]) && math.IsNaN(got[4]), "%v", got)

		// Added in float32, half would be lost.
		half := kerneltest.Put(t, dev, []float32{1, 0x1p-24, 0x1p-24}, 3, 1)
		one := kerneltest.Poison[float32](t, dev, 1)
		require.NoError(t, fold.Rows(one.Tensor, half.Tensor))
		require.Equal(t, []float32{1 + 0x1p-23}, one.Get(t))
	})
}

func TestWorkers(t *testing.T) {
	const rows, m = 21, 3*8192 + 5
	v := numbers[float32](rand.New(rand.NewPCG(6, 6)), rows*m)
	want := tree(v, rows, m, m)
	for _, workers := range []int{1, 2, 5} {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(t, err)
		t.Cleanup(func() { dev.Close() })
		in, out := kerneltest.Put(t, dev, v, rows, m), kerneltest.Poison[float32](t, dev, m)
		require.NoError(t, fold.Rows(out.Tensor, in.Tensor))
		require.NoError(t, kerneltest.BitEqual(out.Get(t), want))
	}
}

func TestNoAllocation(t *testing.T) {
	dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 2})
	require.NoError(t, err)
	t.Cleanup(func() { dev.Close() })
	in, out := kerneltest.Put(t, dev, make([]float64, 3*20000), 3, 20000), kerneltest.Poison[float64](t, dev, 20000)
	require.LessOrEqual(t, testing.AllocsPerRun(50, func() {
		if fold.Rows(out.Tensor, in.Tensor) != nil {
			t.Fatal("failed")
		}
	}), 1.0) // the shape that is wanted
}

func TestErrors(t *testing.T) {
	dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 1})
	require.NoError(t, err)
	t.Cleanup(func() { dev.Close() })
	other, err := gpu.Open("emu")
	if err == nil {
		t.Cleanup(func() { other.Close() })
	}
	f64 := func(shape ...int) tensor.Tensor { return kerneltest.New(t, dev, tensor.Float64, shape...) }
	big := f64(40)
	within, err := big.Rows(0, 30).Reshape(3, 10)
	require.NoError(t, err)
	for _, c := range []struct {
		out, in tensor.Tensor
		is      error
		text    string
	}{
		{f64(3), tensor.Tensor{}, gpu.ErrInvalid, "in: invalid argument: missing"},
		{tensor.Tensor{}, f64(3, 3), gpu.ErrInvalid, "out: invalid argument: missing"},
		{f64(3), f64(3), gpu.ErrInvalid, "in: invalid argument: 1 axes, want 2"},
		{f64(3, 1), f64(3, 3), gpu.ErrInvalid, "out: invalid argument: 2 axes, want 1"},
		{f64(3), f64(0, 3), gpu.ErrInvalid, "shape (0, 3), want at least one row"},
		{f64(4), f64(3, 3), gpu.ErrInvalid, "out: invalid argument: 4 columns, want 1 to 3"},
		{f64(0), f64(3, 3), gpu.ErrInvalid, "out: invalid argument: 0 columns"},
		{big.Rows(29, 39), within, gpu.ErrInvalid, "out: invalid argument: overlaps in"},
		{kerneltest.New(t, dev, tensor.Float32, 3), f64(3, 3), tensor.ErrInvalid, "out: invalid tensor: f32, want f64"},
		{kerneltest.New(t, dev, tensor.Int32, 3), kerneltest.New(t, dev, tensor.Int32, 3, 3), gpu.ErrInvalid, "in: invalid argument: i32, want f32 or f64"},
	} {
		err := fold.Rows(c.out, c.in)
		require.ErrorIs(t, err, c.is, c.text)
		require.ErrorContains(t, err, c.text)
	}
	require.NoError(t, fold.Rows(big.Rows(30, 40), within))
	if other != nil {
		err := fold.Rows(f64(3), kerneltest.New(t, other, tensor.Float64, 3, 3))
		require.ErrorContains(t, err, "out: invalid tensor: on cpu, want emu")
	}
}

// Whatever the shapes: an error, or the tree.
func FuzzRows(f *testing.F) {
	f.Add(3, 5, 4, uint64(1))
	f.Add(0, 5, 4, uint64(1))
	f.Add(17, 1, 2, uint64(2))
	dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 2})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { dev.Close() })
	f.Fuzz(func(t *testing.T, rows, width, m int, seed uint64) {
		rows, width, m = int(uint(rows)%70), int(uint(width)%200), int(uint(m)%200)
		v := numbers[float64](rand.New(rand.NewPCG(seed, 0)), rows*width)
		in, out := kerneltest.Put(t, dev, v, rows, width), kerneltest.Poison[float64](t, dev, m)
		err := fold.Rows(out.Tensor, in.Tensor)
		require.Equal(t, rows > 0 && m > 0 && m <= width, err == nil, "%v", err)
		if err == nil {
			require.NoError(t, kerneltest.BitEqual(out.Get(t), tree(v, rows, width, m)))
		}
	})
}

// ExampleRows adds three rows of two numbers.
func ExampleRows() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	in, err := tensor.From(dev, []float64{1, 2, 10, 20, 100, 200}, 3, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer in.Free()
	out, err := tensor.New(dev, tensor.Float64, 2)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer out.Free()
	if err := fold.Rows(out, in); err != nil {
		fmt.Println(err)
		return
	}
	v, err := tensor.Values[float64](out)
	fmt.Println(v, err)
	// Output:
	// [111 222] <nil>
}

func BenchmarkRows(b *testing.B) {
	for _, dev := range kerneltest.Hardware(b) {
		for _, rows := range []int{2, 8, 64} {
			b.Run(fmt.Sprintf("%s/%d/f32", dev.Name, rows), func(b *testing.B) { benchmark[float32](b, dev.Device, rows) })
			b.Run(fmt.Sprintf("%s/%d/f64", dev.Name, rows), func(b *testing.B) { benchmark[float64](b, dev.Device, rows) })
		}
	}
}

func benchmark[T kerneltest.Float](b *testing.B, dev gpu.Device, rows int) {
	m := (1 << 22) / rows
	v := numbers[T](rand.New(rand.NewPCG(1, 1)), rows*m)
	in, out := kerneltest.Put(b, dev, v, rows, m), kerneltest.Poison[T](b, dev, m)
	b.SetBytes(int64((rows + 1) * m * tensor.TypeOf[T]().Size()))
	for b.Loop() {
		if err := fold.Rows(out.Tensor, in.Tensor); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, dev.Sync())
	require.NoError(b, kerneltest.BitEqual(out.Get(b), tree(v, rows, m, m)))
}
