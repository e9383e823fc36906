package philox

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// The known answers of Random123, the authors' own implementation, for
// philox4x32-10.
func TestKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		key           uint64
		counter, want [4]uint32
	}{
		{0, [4]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{math.MaxUint64, [4]uint32{math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32},
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{0x299f31d0a4093822, [4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		require.Equalf(t, c.want, Block(c.key, c.counter), "key %x counter %x", c.key, c.counter)
	}
}

// The kernels' addressing, by a known answer: seed, index, step, purpose and
// block are the key and the counter of the third one.
func TestKnownAnswerOnDevices(t *testing.T) {
	const purpose, block = 0x03, 0x707344
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		out, err := tensor.New(dev.Device, tensor.Uint32, 1, 4*(block+1))
		require.NoError(t, err)
		defer out.Free()
		require.NoError(t, Bits(out, Draw{Seed: 0x299f31d0a4093822, Index: 0x85a308d3243f6a88, Step: 0x13198a2e, Purpose: purpose}))
		got, err := tensor.Values[uint32](out)
		require.NoError(t, err)
		require.Equal(t, []uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}, got[4*block:])
	})
}

// draws are addresses that straddle what an implementation may carry.
var draws = []Draw{
	{},
	{Seed: 42, Index: 7, Step: 3, Purpose: 9},
	{Seed: math.MaxUint64, Index: math.MaxUint32 - 40, Step: math.MaxUint32, Purpose: 255},
	{Seed: 1 << 40, Index: math.MaxUint64 - 5, Step: 1 << 31, Purpose: 128},
}

var shapes = [][2]int{
	{1, 1}, {1, 2}, {3, 3}, {2, 4}, {31, 1}, {33, 2}, {129, 3}, {127, 4}, {128, 5}, {65, 6}, {31, 7}, {17, 8},
	{5, 31}, {5, 32}, {5, 33}, {3, 127}, {3, 128}, {3, 129}, {2, 1031}, {4099, 2}, {1, 16411},
}

// Every kernel on every device is bit-equal to the host.
func TestDevicesEqualHost(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, s := range shapes {
			for _, draw := range draws {
				name := fmt.Sprintf("%v %+v", s, draw)
				require.NoError(t, sameBits(dev.Device, s[0], s[1], draw), name)
				require.NoError(t, same(t, dev.Device, s[0], s[1], draw, Uniform, HostUniform[float32]), name)
				require.NoError(t, same(t, dev.Device, s[0], s[1], draw, Uniform, HostUniform[float64]), name)
				require.NoError(t, same(t, dev.Device, s[0], s[1], draw, Normal, HostNormal[float32]), name)
				require.NoError(t, same(t, dev.Device, s[0], s[1], draw, Normal, HostNormal[float64]), name)
			}
		}
	})
}

func same[T kerneltest.Float](tb testing.TB, dev gpu.Device, n, d int, draw Draw,
	op func(tensor.Tensor, Draw) error, host func([]T, int, Draw) error) error {
	out := kerneltest.Poison[T](tb, dev, n, d)
	if err := op(out.Tensor, draw); err != nil {
		return err
	}
	want := make([]T, n*d)
	if err := host(want, d, draw); err != nil {
		return err
	}
	return kerneltest.BitEqual(out.Get(tb), want)
}

// sameBits puts the array between guards of another number.
func sameBits(dev gpu.Device, n, d int, draw Draw) error {
	const guard, sentinel = 64, 0xdeadbeef
	start := make([]uint32, n*d+2*guard)
	for i := range start {
		start[i] = sentinel
	}
	whole, err := tensor.From(dev, start, len(start))
	if err != nil {
		return err
	}
	defer whole.Free()
	out, err := whole.Rows(guard, guard+n*d).Reshape(n, d)
	if err != nil {
		return err
	}
	if err := Bits(out, draw); err != nil {
		return err
	}
	got, err := tensor.Values[uint32](whole)
	if err != nil {
		return err
	}
	if err := HostBits(start[guard:guard+n*d], d, draw); err != nil {
		return err
	}
	for i := range start {
		if got[i] != start[i] {
			return fmt.Errorf("bits: [%d] got %08x, want %08x", i-guard, got[i], start[i])
		}
	}
	return nil
}

// A draw depends neither on the rows drawn with it nor on the columns beside it.
func TestBatchIndependence(t *testing.T) {
	const n, d, lo, hi, fewer = 257, 6, 100, 231, 3
	draw := Draw{Seed: 5, Index: 1<<32 - 50, Step: 2, Purpose: 1}
	all, part, narrow := make([]float32, n*d), make([]float32, (hi-lo)*d), make([]float32, n*fewer)
	require.NoError(t, HostNormal(all, d, draw))
	later := draw
	later.Index += lo
	require.NoError(t, HostNormal(part, d, later))
	require.NoError(t, kerneltest.BitEqual(part, all[lo*d:hi*d]))
	require.NoError(t, HostNormal(narrow, fewer, draw))
	for i := range n {
		require.NoError(t, kerneltest.BitEqual(narrow[i*fewer:(i+1)*fewer], all[i*d:i*d+fewer]))
	}
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		out := kerneltest.Poison[float32](t, dev.Device, n, d)
		for _, cut := range [][2]int{{0, lo}, {lo, hi}, {hi, n}} {
			at := draw
			at.Index += uint64(cut[0])
			require.NoError(t, Normal(out.Rows(cut[0], cut[1]), at))
		}
		require.NoError(t, kerneltest.BitEqual(out.Get(t), all))
	})
}

func TestUniformRange(t *testing.T) {
	for _, w := range []uint32{0, 1, 1 << 9, 1<<31 - 1, 1 << 31, math.MaxUint32 - 1, math.MaxUint32} {
		want := (float64(w>>9) + 0.5) / (1 << 23)
		require.Equal(t, want, float64(uniform32(w)))
		require.True(t, 0 < want && want < 1)
	}
	for _, w := range []uint64{0, 1, 1 << 12, 1<<63 - 1, 1 << 63, math.MaxUint64} {
		u := uniform64(w)
		require.Equal(t, (2*float64(w>>12)+1)/(1<<53), u)
		require.True(t, 0 < u && u < 1)
	}
}

func TestErrors(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	put := func(dtype tensor.DType, shape ...int) tensor.Tensor {
		return kerneltest.New(t, dev, dtype, shape...)
	}
	fails := func(err error, text string) {
		t.Helper()
		require.ErrorIs(t, err, gpu.ErrInvalid)
		require.ErrorContains(t, err, text)
	}
	fails(Normal(tensor.Tensor{}, Draw{}), "philox: normal: out: invalid argument: missing")
	fails(Normal(put(tensor.Uint32, 2, 2), Draw{}), "philox: normal: out: invalid argument: u32, want one of [f32 f64]")
	fails(Bits(put(tensor.Float32, 2, 2), Draw{}), "f32, want one of [u32]")
	fails(Uniform(put(tensor.Float32, 4), Draw{}), "1 axes, want 2")
	fails(Uniform(put(tensor.Float64, 0, 1<<26), Draw{}), "67108864 columns, want at most 33554432")
	fails(HostNormal(make([]float64, 7), 2, Draw{}), "7 elements, want a multiple of 2 columns")
	fails(HostBits(make([]uint32, 4), 0, Draw{}), "4 elements, want a multiple of 0 columns")
	fails(HostUniform(make([]float32, 4), -4, Draw{}), "4 elements, want a multiple of -4 columns")
	require.NoError(t, Normal(put(tensor.Float32, 0, 3), Draw{}))
	require.NoError(t, Normal(put(tensor.Float32, 3, 0), Draw{}))
}

// Whatever the shape and the address, a device gives what the host gives.
func FuzzNormal(f *testing.F) {
	f.Add(3, 5, uint64(1), uint64(2), uint32(3), uint8(4))
	f.Add(0, 0, uint64(0), uint64(1<<64-1), uint32(0), uint8(255))
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, n, d int, seed, index uint64, step uint32, purpose uint8) {
		n, d = int(uint(n)%300), int(uint(d)%300)
		draw := Draw{seed, index, step, purpose}
		if n*d == 0 {
			out, err := tensor.New(dev, tensor.Float32, n, d)
			require.NoError(t, err)
			defer out.Free()
			require.NoError(t, Normal(out, draw))
			return
		}
		require.NoError(t, same(t, dev, n, d, draw, Normal, HostNormal[float32]))
		require.NoError(t, same(t, dev, n, d, draw, Normal, HostNormal[float64]))
	})
}

// ExampleNormal draws four samples of two normals on the CPU; the third sample
// drawn alone is the same.
func ExampleNormal() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	all, _ := tensor.New(dev, tensor.Float64, 4, 2)
	third, _ := tensor.New(dev, tensor.Float64, 1, 2)
	defer all.Free()
	defer third.Free()

	draw := Draw{Seed: 2026, Step: 10}
	if err := Normal(all, draw); err != nil {
		fmt.Println(err)
		return
	}
	draw.Index += 2
	if err := Normal(third, draw); err != nil {
		fmt.Println(err)
		return
	}
	a, _ := tensor.Values[float64](all)
	b, _ := tensor.Values[float64](third)
	fmt.Printf("%.4f\n%.4f\n", a, b)
	// Output:
	// [-1.8126 2.2804 -1.4454 0.7231 -1.0700 -0.0521 1.1772 0.0953]
	// [-1.0700 -0.0521]
}

// ExampleStream draws on the host.
func ExampleStream() {
	s := NewStream(Draw{Seed: 1940})
	fmt.Printf("%.6f %.6f %.6f\n", s.NormFloat64(), s.NormFloat64(), s.Float64())
	// Output:
	// 0.392419 -0.408140 0.879217
}

func BenchmarkNormal(b *testing.B) {
	for _, dev := range kerneltest.Hardware(b) {
		for _, dtype := range []tensor.DType{tensor.Float32, tensor.Float64} {
			for _, d := range []int{2, 64} {
				b.Run(fmt.Sprintf("%s/%v/d=%d", dev.Name, dtype, d), func(b *testing.B) {
					const elements = 1 << 20
					out, err := tensor.New(dev.Device, dtype, elements/d, d)
					require.NoError(b, err)
					defer out.Free()
					b.SetBytes(int64(elements * dtype.Size()))
					for b.Loop() {
						if err := Normal(out, Draw{Seed: 1}); err != nil {
							b.Fatal(err)
						}
					}
					require.NoError(b, dev.Sync())
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/elements, "ns/normal")
					if dtype == tensor.Float32 {
						agrees[float32](b, out, d)
					} else {
						agrees[float64](b, out, d)
					}
				})
			}
		}
	}
}

// agrees fails a benchmark whose last row is not the host's.
func agrees[T kerneltest.Float](b *testing.B, out tensor.Tensor, d int) {
	n := out.Dim(0)
	want := make([]T, d)
	require.NoError(b, HostNormal(want, d, Draw{Seed: 1, Index: uint64(n - 1)}))
	got, err := tensor.Values[T](out.Rows(n-1, n))
	require.NoError(b, err)
	require.NoError(b, kerneltest.BitEqual(got, want))
}

func BenchmarkHostNormal(b *testing.B) {
	dst := make([]float64, 1<<14)
	for b.Loop() {
		if err := HostNormal(dst, 2, Draw{Seed: 1}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(dst)), "ns/normal")
}
