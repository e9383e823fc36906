package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor/npy"
)

// types holds an array of every type with its extremes, as testdata/make.py
// writes them.
func types() map[string]*npy.Array {
	zero, inf := math.Copysign(0, -1), math.Inf(-1)
	nan := math.Float64frombits(0x7ff8 << 48) // NumPy's
	return map[string]*npy.Array{
		"f64":    npy.New([]float64{0, zero, 5e-324, math.MaxFloat64, inf, nan}),
		"f32":    npy.New([]float32{0, float32(zero), 1e-45, math.MaxFloat32, float32(inf), float32(nan)}),
		"f16":    npy.New([]npy.Float16{0, 0x8000, 1, 0x7bff, 0xfc00, 0x7e00}),
		"bf16":   npy.New([]npy.BFloat16{0, 0x8000, 0x3f80, 0xc000, 0xff80, 0x7fc0}),
		"bool":   npy.New([]bool{true, false, true}, 1, 3),
		"scalar": npy.Scalar(float32(1.5)),
		"empty":  npy.New([]float32{}, 0, 3),
		"i8":     npy.New([]int8{0, 1, math.MinInt8, math.MaxInt8}),
		"i16":    npy.New([]int16{0, 1, math.MinInt16, math.MaxInt16}),
		"i32":    npy.New([]int32{0, 1, math.MinInt32, math.MaxInt32}),
		"i64":    npy.New([]int64{0, 1, math.MinInt64, math.MaxInt64}),
		"u8":     npy.New([]uint8{0, 1, 0, math.MaxUint8}),
		"u16":    npy.New([]uint16{0, 1, 0, math.MaxUint16}),
		"u32":    npy.New([]uint32{0, 1, 0, math.MaxUint32}),
		"u64":    npy.New([]uint64{0, 1, 0, math.MaxUint64}),

		"a \"quoted\" <näme>&\t\u2028": npy.New([]float32{0, 1, 2, 3, 4, 5}, 2, 3),
	}
}

func encode(t testing.TB, arrays map[string]*npy.Array, metadata map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Write(&b, arrays, metadata))
	return b.Bytes()
}

func data(t testing.TB, a *npy.Array) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, npy.WriteData(&b, a))
	return b.Bytes()
}

// same compares bits, so that NaN equals NaN.
func same(t testing.TB, want, got map[string]*npy.Array) {
	t.Helper()
	require.Len(t, got, len(want))
	for name, a := range want {
		b := got[name]
		require.NoError(t, b.Validate(), name)
		require.Equal(t, a.DType(), b.DType(), name)
		require.Equal(t, a.Shape, b.Shape, name)
		require.Equal(t, data(t, a), data(t, b), name)
	}
}

// readAll reads a whole file from memory.
func readAll(b []byte) (map[string]*npy.Array, map[string]string, error) {
	f, err := NewFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, nil, err
	}
	arrays := map[string]*npy.Array{}
	for _, info := range f.Infos() {
		arrays[info.Name], err = f.Read(info.Name)
		if err != nil {
			return nil, nil, err
		}
	}
	return arrays, f.Metadata(), nil
}

func TestReadsAndWritesWhatTheLibraryWrites(t *testing.T) {
	for name, want := range map[string]struct {
		arrays   map[string]*npy.Array
		metadata map[string]string
	}{
		"types":    {types(), nil},
		"metadata": {map[string]*npy.Array{"w": npy.New([]float32{0, 1, 2})}, map[string]string{"format": "<np>"}},
		"nothing":  {map[string]*npy.Array{}, nil},
	} {
		path := filepath.Join("testdata", name+".safetensors")
		arrays, metadata, err := ReadFile(path)
		require.NoError(t, err)
		same(t, want.arrays, arrays)
		assert.Equal(t, want.metadata, metadata)
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, string(b), string(encode(t, arrays, metadata)))
	}
}

func TestEveryTypeHasASample(t *testing.T) {
	seen := map[npy.DType]bool{}
	for _, a := range types() {
		seen[a.DType()] = true
	}
	assert.Len(t, seen, len(codes))
}

func TestRoundTrip(t *testing.T) {
	metadata := map[string]string{"b": "line\nfeed \x01 \b\f\r\t\x7f \"\\", "a": "größe", "": ""}
	first := encode(t, types(), metadata)
	assert.Zero(t, binary.LittleEndian.Uint64(first)%8)
	for range 10 { // maps are walked in another order every time
		require.Equal(t, first, encode(t, types(), metadata))
	}
	arrays, got, err := readAll(first)
	require.NoError(t, err)
	same(t, types(), arrays)
	assert.Equal(t, metadata, got)
}

func TestDataIsAligned(t *testing.T) {
	b := encode(t, types(), map[string]string{"odd": "."})
	f, err := NewFile(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	assert.Zero(t, f.data%8)
	for _, info := range f.Infos() {
		assert.Zero(t, info.Begin%int64(info.DType.Bytes()), info.Name)
	}
}

func TestOpenReadsOneByOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.safetensors")
	require.NoError(t, WriteFile(path, types(), map[string]string{"step": "7"}))
	f, err := Open(path)
	require.NoError(t, err)
	defer func() { assert.NoError(t, f.Close()) }()
	assert.Equal(t, map[string]string{"step": "7"}, f.Metadata())
	infos := f.Infos()
	require.Len(t, infos, len(types()))
	infos[0].Shape[0] = 99 // a copy
	for _, info := range f.Infos() {
		want := types()[info.Name]
		assert.Equal(t, want.Shape, info.Shape)
		assert.Equal(t, want.DType(), info.DType)
		for range 2 {
			got, err := f.Read(info.Name)
			require.NoError(t, err)
			same(t, map[string]*npy.Array{"": want}, map[string]*npy.Array{"": got})
		}
	}
	_, err = f.Read("missing")
	require.EqualError(t, err, "safetensors: "+path+`: no array "missing": invalid argument`)

	_, err = Open(path + ".missing")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, _, err = ReadFile(filepath.Dir(path))
	require.ErrorIs(t, err, gpu.ErrInvalid)
	require.NoError(t, os.Truncate(path, 20))
	_, err = Open(path)
	require.ErrorIs(t, err, npy.ErrFormat)
	require.ErrorContains(t, err, path)
}

func TestUnwritable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	one := npy.Scalar(1.0)
	for _, c := range []struct {
		name     string
		a        *npy.Array
		metadata map[string]string
		want     string
	}{
		{"a", nil, nil, `array "a": npy: array is nil`},
		{"a", npy.New([]float32{1}, 2), nil, `array "a": npy: data: 1 elements, want 2 for shape (2,)`},
		{"__metadata__", one, nil, `array "__metadata__": the format keeps this name for metadata`},
		{"\xff", one, nil, `array "\xff": the name is not UTF-8`},
		{"a", one, map[string]string{"k": "\xff"}, `metadata: "k": "\xff" is not UTF-8`},
	} {
		arrays := map[string]*npy.Array{c.name: c.a}
		require.EqualError(t, Write(io.Discard, arrays, c.metadata), "safetensors: "+c.want+": invalid argument")
		require.EqualError(t, WriteFile(path, arrays, c.metadata), "safetensors: "+path+": "+c.want+": invalid argument")
		require.NoFileExists(t, path)
	}
}

// file puts a header's length and text before n bytes of data.
func file(text string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	return append(append(b, text...), make([]byte, n)...)
}

func TestMalformed(t *testing.T) {
	entry := func(name string, begin, end int) string {
		return fmt.Sprintf(`"%s":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`, name, end-begin, begin, end)
	}
	good := file("{"+entry("b", 2, 5)+","+entry("a", 0, 2)+"}  ", 5)
	_, _, err := readAll(good)
	require.NoError(t, err)
	for n := range good {
		_, _, err := readAll(good[:n])
		require.ErrorIs(t, err, npy.ErrFormat, "cut after %d bytes", n)
	}

	for _, c := range []struct {
		text string
		n    int
		want string
	}{
		{"", 0, `header: begins with "", want '{'`},
		{" {}", 0, `header: begins with " ", want '{'`},
		{"[]", 0, `header: begins with "[", want '{'`},
		{"{", 0, "header: JSON is cut short"},
		{"{}\x00", 0, `header: "\x00" follows, want spaces`},
		{"{}\n", 0, `header: "\n" follows, want spaces`},
		{"{}{}", 0, `header: "{}" follows, want spaces`},
		{"{\xff}", 0, "header: is not UTF-8"},
		{"{1:2}", 0, "header: JSON at byte 1: invalid character '1'"},
		{"{}", 1, "data: 1 bytes, want 0, where the last array ends"},
		{"{" + entry("a", 0, 2) + "}", 3, "data: 3 bytes, want 2, where the last array ends"},
		{"{" + entry("a", 0, 2) + "}", 1, "data: 1 bytes, want 2, where the last array ends"},
		{"{" + entry("a", 1, 2) + "}", 2, `array "a": data begins at 1, want 0, where the one before it ends`},
		{"{" + entry("a", 0, 2) + "," + entry("b", 3, 4) + "}", 4, `array "b": data begins at 3, want 2, where the one before it ends`},
		{"{" + entry("a", 0, 2) + "," + entry("b", 1, 4) + "}", 4, `array "b": data begins at 1, want 2, where the one before it ends`},
		{"{" + entry("a", 0, 2) + "," + entry("b", 0, 2) + "}", 2, `array "b": data begins at 0, want 2, where the one before it ends`},
		{"{" + entry("a", 0, 2) + "," + entry("a", 2, 4) + "}", 4, `header: name "a" appears twice`},
		{"{" + entry("a", 0, 2) + "," + entry(`\u0061`, 2, 4) + "}", 4, `header: name "a" appears twice`},
		{`{"__metadata__":{},"__metadata__":{}}`, 0, `header: name "__metadata__" appears twice`},
		{`{"__metadata__":{"k":"1","k":"2"}}`, 0, `__metadata__: key "k" appears twice`},
		{`{"__metadata__":{"k":1}}`, 0, `__metadata__: got "1", want a string`},
		{`{"__metadata__":[]}`, 0, `__metadata__: got "[", want "{"`},
		{`{"a":1}`, 0, `array "a": got "1", want "{"`},
		{`{"a":null}`, 0, `array "a": got "<nil>", want "{"`},
		{`{"a":{}}`, 0, `array "a": no key "dtype"`},
		{`{"a":{"dtype":"F32","dtype":"F32"}}`, 0, `array "a": key "dtype" appears twice`},
		{`{"a":{"dtype":"F8_E4M3"}}`, 0, `array "a": dtype: "F8_E4M3" is not read, want BOOL, I8 to I64, U8 to U64, F16, BF16, F32 or F64`},
		{`{"a":{"dtype":7}}`, 0, `array "a": got "7", want a string`},
		{`{"a":{"strides":[1]}}`, 0, `array "a": key "strides", want dtype, shape and data_offsets`},
		{`{"a":{"shape":{}}}`, 0, `array "a": shape: got "{", want "["`},
		{`{"a":{"shape":[-1]}}`, 0, `array "a": shape: got -1, want an integer that is not negative`},
		{`{"a":{"shape":[1.0]}}`, 0, `array "a": shape: got 1.0, want an integer that is not negative`},
		{`{"a":{"shape":[1e2]}}`, 0, `array "a": shape: got 1e2, want an integer that is not negative`},
		{`{"a":{"shape":["1"]}}`, 0, `array "a": shape: got "1", want an integer`},
		{`{"a":{"shape":[[1]]}}`, 0, `array "a": shape: got "[", want an integer`},
		{`{"a":{"shape":[99999999999999999999]}}`, 0, `array "a": shape: 99999999999999999999 overflows`},
		{`{"a":{"shape":[` + strings.Repeat("1,", 64) + `1]}}`, 0, `array "a": shape: more than 64 numbers`},
		{`{"a":{"data_offsets":[0]}}`, 0, `array "a": data_offsets: 1 numbers, want 2`},
		{`{"a":{"data_offsets":[0,1,2]}}`, 0, `array "a": data_offsets: more than 2 numbers`},
		{`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1, `array "a": data_offsets: [1, 0], want an end that is not before the beginning`},
		{`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}`, 1, `array "a": data_offsets [0, 1] hold 1 bytes, want 2 for uint8 of shape (2,)`},
		{`{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0, `array "a": shape: (4294967296, 4294967296) of float64 overflows`},
		{`{"a":{"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]}}`, 1, `data: 1 bytes, want 9223372036854775807, where the last array ends`},
	} {
		_, _, err := readAll(file(c.text, c.n))
		require.ErrorIs(t, err, npy.ErrFormat, c.text)
		require.NotContains(t, err.Error(), "\n")
		if strings.Contains(c.want, "invalid character") {
			assert.ErrorContains(t, err, c.want)
			continue
		}
		assert.Equal(t, "safetensors: "+c.want, err.Error(), c.text)
	}

	bad := file(`{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}`, 1)
	bad[len(bad)-1] = 2
	_, _, err = readAll(bad)
	require.EqualError(t, err, `safetensors: array "a": data: element 0: 2 is no bool, want 0 or 1`)
	require.ErrorIs(t, err, npy.ErrFormat)
}

func TestLyingLengthsAllocateLittle(t *testing.T) {
	for length, want := range map[uint64]string{
		math.MaxUint64: "header: claims 18446744073709551615 bytes, want at most 100000000",
		100_000_001:    "header: claims 100000001 bytes, want at most 100000000",
		100_000_000:    "header: claims 100000000 bytes, have 3",
		4:              "header: claims 4 bytes, have 3",
	} {
		b := append(binary.LittleEndian.AppendUint64(nil, length), "{} "...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := readAll(b)
		runtime.ReadMemStats(&after)
		require.EqualError(t, err, "safetensors: "+want)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	}
}

// An error of the disk is no error of the format, also where the file shrinks
// under the reader.
func TestReadErrors(t *testing.T) {
	b := encode(t, types(), nil)
	_, err := NewFile(broken{}, int64(len(b)))
	require.ErrorIs(t, err, errBroken)
	require.NotErrorIs(t, err, npy.ErrFormat)

	f, err := NewFile(bytes.NewReader(b[:len(b)-4]), int64(len(b)))
	require.NoError(t, err)
	_, err = f.Read("u64")
	require.NoError(t, err)
	_, err = f.Read("bool")
	require.ErrorIs(t, err, npy.ErrFormat)
	require.NoError(t, f.Close())
}

var errBroken = errors.New("broken disk")

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

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
	size := len(encode(t, types(), nil))
	for n := range size {
		require.ErrorIs(t, Write(&failing{n}, types(), nil), io.ErrShortWrite, "after %d bytes", n)
	}
	require.NoError(t, Write(&failing{size}, types(), nil))
}
