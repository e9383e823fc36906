package npy

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
)

// samples returns an array of every type with its extremes, as testdata/make.py
// writes them.
func samples() map[string]*Array {
	inf, zero := math.Inf(-1), math.Copysign(0, -1)
	nan := math.Float64frombits(0x7ff8 << 48) // NumPy's
	half := func(v ...float64) (h []Float16) {
		for _, x := range v {
			h = append(h, ToFloat16(x))
		}
		return h
	}
	return map[string]*Array{
		"b1": New([]bool{false, true}),
		"i1": New([]int8{0, 1, math.MinInt8, math.MaxInt8}),
		"i2": New([]int16{0, 1, math.MinInt16, math.MaxInt16}),
		"i4": New([]int32{0, 1, math.MinInt32, math.MaxInt32}),
		"i8": New([]int64{0, 1, math.MinInt64, math.MaxInt64}),
		"u1": New([]uint8{0, 1, 0, math.MaxUint8}),
		"u2": New([]uint16{0, 1, 0, math.MaxUint16}),
		"u4": New([]uint32{0, 1, 0, math.MaxUint32}),
		"u8": New([]uint64{0, 1, 0, math.MaxUint64}),
		"f2": New(half(0, zero, 1.5, 65504, 6e-8, inf, nan)),
		"f4": New([]float32{0, float32(zero), 1.5, math.MaxFloat32, math.SmallestNonzeroFloat32, float32(inf), float32(nan)}),
		"f8": New([]float64{0, zero, 1.5, math.MaxFloat64, math.SmallestNonzeroFloat64, inf, nan}),
	}
}

func encode(t testing.TB, a *Array) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(&b, a))
	return b.Bytes()
}

// same compares shape, type and bits, so that NaN equals NaN and 0 differs
// from -0.
func same(t testing.TB, want, got *Array) {
	t.Helper()
	require.NoError(t, got.Validate())
	require.Equal(t, want.DType(), got.DType())
	require.Equal(t, len(want.Shape), len(got.Shape))
	for i := range want.Shape {
		require.Equal(t, want.Shape, got.Shape, "extent %d", i)
	}
	require.True(t, bytes.Equal(rawBytes(want.Data), rawBytes(got.Data)), "want %v, got %v", want.Data, got.Data)
}

func TestReadsAndWritesWhatNumPyWrites(t *testing.T) {
	for kind, want := range samples() {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join("testdata", kind+".npy")
			got, err := ReadFile(path)
			require.NoError(t, err)
			same(t, want, got)
			bytes, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, bytes, encode(t, want))
		})
	}
}

func TestEveryTypeHasASample(t *testing.T) {
	seen := map[DType]bool{Invalid: true, BF16: true} // .npy has none of them
	for _, a := range samples() {
		seen[a.DType()] = true
	}
	assert.Len(t, seen, len(dtypes))
}

func TestShapes(t *testing.T) {
	for _, shape := range [][]int{{}, {0}, {1}, {5}, {0, 3}, {3, 0}, {2, 3}, {2, 3, 4}, {1, 1, 1, 1, 2}, make([]int, maxDims)} {
		n, err := Count(shape, F32)
		require.NoError(t, err)
		data := make([]float32, n)
		for i := range data {
			data[i] = float32(i) + 0.5
		}
		want := &Array{Shape: shape, Data: data}
		got, err := Read(bytes.NewReader(encode(t, want)), 0)
		require.NoError(t, err, "%v", shape)
		same(t, want, got)
	}
}

// A stream of unknown length is read in growing pieces; sizes straddle the
// first one.
func TestReadsFromPlainReaders(t *testing.T) {
	for _, n := range []int{0, 1, chunk/8 - 1, chunk / 8, chunk/8 + 1, chunk/2 + 13} {
		data := make([]float64, n)
		for i := range data {
			data[i] = float64(i)
		}
		want := New(data)
		b := append(encode(t, want), "rest"...)
		for name, r := range map[string]io.Reader{
			"stream": io.MultiReader(bytes.NewReader(b)),
			"halves": iotest.HalfReader(bytes.NewReader(b)),
			"sized":  bytes.NewReader(b),
		} {
			got, err := Read(r, 0)
			require.NoError(t, err)
			same(t, want, got)
			rest, err := io.ReadAll(r)
			require.NoError(t, err)
			assert.Equal(t, "rest", string(rest), "%s of %d", name, n)
		}
	}
}

func TestArraysCanFollowEachOther(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, Write(&b, New([]int32{1, 2})))
	require.NoError(t, Write(&b, Scalar(3.5)))
	first, err := Read(&b, 0)
	require.NoError(t, err)
	second, err := Read(&b, 0)
	require.NoError(t, err)
	assert.Equal(t, []int32{1, 2}, first.Data)
	assert.Equal(t, []float64{3.5}, second.Data)
	_, err = Read(&b, 0)
	assert.ErrorIs(t, err, ErrFormat)
}

func TestLimit(t *testing.T) {
	b := encode(t, New(make([]float64, 10)))
	_, err := Read(bytes.NewReader(b), 80)
	require.NoError(t, err)
	_, err = Read(bytes.NewReader(b), 79)
	require.ErrorIs(t, err, ErrLimit)
	assert.Equal(t, "npy: data: float64 of shape (10,) has 80 bytes, limit 79: array file exceeds the limit", err.Error())
}

func TestFloats(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		a    *Array
		f64  []float64
		f32  []float32
		ints []int64 // nil: an error
	}{
		{New([]bool{true, false}), []float64{1, 0}, []float32{1, 0}, []int64{1, 0}},
		{New([]int8{-128}), []float64{-128}, []float32{-128}, []int64{-128}},
		{New([]int16{-32768}), []float64{-32768}, []float32{-32768}, []int64{-32768}},
		{New([]int32{math.MaxInt32}), []float64{2147483647}, []float32{2147483648}, []int64{2147483647}},
		// 2^24+1 is a tie that goes to the even 2^24; 2^53+1 likewise.
		{New([]int64{1<<24 + 1, 1<<53 + 1, math.MinInt64}), []float64{1<<24 + 1, 1 << 53, -1 << 63}, []float32{1 << 24, 1 << 53, -1 << 63}, []int64{1<<24 + 1, 1<<53 + 1, math.MinInt64}},
		// Rounding to float64 first would make a tie of it, and 2^60 of the tie.
		{New([]int64{1<<60 + 1<<36 + 1}), []float64{1<<60 + 1<<36}, []float32{1<<60 + 1<<37}, []int64{1<<60 + 1<<36 + 1}},
		{New([]uint8{255}), []float64{255}, []float32{255}, []int64{255}},
		{New([]uint16{65535}), []float64{65535}, []float32{65535}, []int64{65535}},
		{New([]uint32{math.MaxUint32}), []float64{4294967295}, []float32{4294967296}, []int64{4294967295}},
		{New([]uint64{math.MaxInt64}), []float64{1 << 63}, []float32{1 << 63}, []int64{math.MaxInt64}},
		{New([]uint64{math.MaxUint64}), []float64{1 << 64}, []float32{1 << 64}, nil},
		{New([]Float16{0x3c00, 0x7c00}), []float64{1, inf}, []float32{1, float32(inf)}, nil},
		{New([]BFloat16{0x3f80, 0xc000}), []float64{1, -2}, []float32{1, -2}, []int64{1, -2}},
		{New([]float32{0.5}), []float64{0.5}, []float32{0.5}, nil},
		{New([]float64{1e300, -1 << 63}), []float64{1e300, -1 << 63}, []float32{float32(inf), -1 << 63}, nil},
		{New([]float64{-1 << 63, 3}), []float64{-1 << 63, 3}, []float32{-1 << 63, 3}, []int64{math.MinInt64, 3}},
		{New([]float64{1 << 63}), []float64{1 << 63}, []float32{1 << 63}, nil},
		{New([]int8{}), []float64{}, []float32{}, []int64{}},
	} {
		what := fmt.Sprintf("%v %v", c.a.DType(), c.a.Data)
		assert.Equal(t, c.f64, c.a.Float64s(), what)
		assert.Equal(t, c.f32, c.a.Float32s(), what)
		ints, err := c.a.Int64s()
		if c.ints == nil {
			assert.ErrorIs(t, err, gpu.ErrInvalid, what)
			continue
		}
		assert.NoError(t, err, what)
		assert.Equal(t, c.ints, ints, what)
	}
	_, err := New([]float64{math.NaN()}).Int64s()
	assert.EqualError(t, err, "npy: element 0: NaN, want an integer in the range of int64: invalid argument")
	assert.True(t, math.IsNaN(New([]Float16{0x7e00}).Float64s()[0]))
	assert.True(t, math.IsNaN(float64(New([]float64{math.NaN()}).Float32s()[0])))
}

func TestFloatsShareWhatNeedsNoConversion(t *testing.T) {
	a, b := New([]float64{1}), New([]float32{1})
	a.Float64s()[0] = 2
	b.Float32s()[0] = 2
	assert.Equal(t, []float64{2}, a.Data)
	assert.Equal(t, []float32{2}, b.Data)
	a.Float32s()[0] = 3
	assert.Equal(t, []float64{2}, a.Data)
}

func TestNewCopiesTheShapeAndSharesTheData(t *testing.T) {
	shape, data := []int{1, 2}, []float32{1, 2}
	a := New(data, shape...)
	shape[0], data[0] = 7, 7
	assert.Equal(t, []int{1, 2}, a.Shape)
	assert.Equal(t, []float32{7, 2}, a.Data)
	assert.Equal(t, 2, a.Len())
}

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		a    *Array
		want string
	}{
		{nil, "array is nil"},
		{&Array{}, "data: type <nil>, want a slice of bool, intN, uintN, Float16, BFloat16, float32 or float64"},
		{&Array{Data: []int{1}}, "data: type []int, want a slice of bool, intN, uintN, Float16, BFloat16, float32 or float64"},
		{New([]float32{1, 2}, 3), "data: 2 elements, want 3 for shape (3,)"},
		{New([]float32{1, 2}, 2, -1), "shape: (2, -1), want extents that are not negative"},
		{New([]float32{}, 0, math.MaxInt32, math.MaxInt32), "shape: (0, 2147483647, 2147483647) of float32 overflows"},
		{New([]float32{1}, make([]int, 65)...), "shape: 65 dimensions, want at most 64"},
		{&Array{Data: []float32{}}, "data: 0 elements, want 1 for shape ()"},
	} {
		require.EqualError(t, c.a.Validate(), "npy: "+c.want+": invalid argument")
		var b bytes.Buffer
		err := Write(&b, c.a)
		require.ErrorIs(t, err, gpu.ErrInvalid)
		assert.Zero(t, b.Len())
		path := filepath.Join(dir, "a.npy")
		require.EqualError(t, WriteFile(path, c.a), "npy: "+path+": "+c.want+": invalid argument")
		require.NoFileExists(t, path)
	}
	bf := New([]BFloat16{0})
	require.NoError(t, bf.Validate())
	require.EqualError(t, Write(io.Discard, bf), "npy: data: bfloat16, want a type that .npy files can hold: invalid argument")
}

func TestDTypeStrings(t *testing.T) {
	assert.Equal(t, "float32", F32.String())
	assert.Equal(t, "DType(99)", DType(99).String())
	assert.Equal(t, "DType(-1)", DType(-1).String())
	assert.Zero(t, DType(99).Bytes())
	assert.Zero(t, Invalid.Bytes())
	assert.Equal(t, 2, BF16.Bytes())
}

func TestWriteFileReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npy")
	for _, want := range []*Array{New([]float64{1, 2, 3}), Scalar(int8(1))} {
		require.NoError(t, WriteFile(path, want))
		got, err := ReadFile(path)
		require.NoError(t, err)
		same(t, want, got)
	}
}

// failing accepts n bytes.
type failing struct{ n int }

func (w *failing) Write(p []byte) (int, error) {
	if len(p) > w.n {
		n := w.n
		w.n = 0
		return n, io.ErrShortWrite
	}
	w.n -= len(p)
	return len(p), nil
}

func TestWriteReportsEveryFailure(t *testing.T) {
	a := New([]float64{1, 2, 3})
	size := len(encode(t, a))
	for n := range size {
		require.ErrorIs(t, Write(&failing{n}, a), io.ErrShortWrite, "after %d bytes", n)
	}
	require.NoError(t, Write(&failing{size}, a))
}

// What a big-endian machine does to write little-endian data is done here to
// write big-endian data.
func TestBytesAreTurnedRoundOnOtherMachines(t *testing.T) {
	file, err := os.ReadFile("testdata/big.npy")
	require.NoError(t, err)
	a := samples()["f8"]
	var b bytes.Buffer
	require.NoError(t, writeRaw(&b, rawBytes(a.Data), 8, littleEndian()))
	assert.Equal(t, file[len(file)-8*a.Len():], b.Bytes())

	long := make([]uint16, chunk/2+3) // more than one piece
	for i := range long {
		long[i] = uint16(i)
	}
	b.Reset()
	require.NoError(t, writeRaw(&b, bytesOf(long), 2, true))
	swapBytes(b.Bytes(), 2)
	assert.True(t, bytes.Equal(bytesOf(long), b.Bytes()))
	require.ErrorIs(t, writeRaw(&failing{chunk}, bytesOf(long), 2, true), io.ErrShortWrite)
}
