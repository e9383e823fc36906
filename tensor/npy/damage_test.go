package npy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// file puts a header of the given version and text before the data.
func file(version byte, text string, data ...byte) []byte {
	b := append([]byte(magic), version, 0)
	if version == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	}
	return append(append(b, text...), data...)
}

// allocated returns the bytes that f takes from the heap.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestEveryTruncationIsFound(t *testing.T) {
	for name, a := range samples() {
		b := encode(t, a)
		for n := range b {
			_, err := Read(bytes.NewReader(b[:n]), 0)
			require.ErrorIs(t, err, ErrFormat, "%s cut after %d bytes", name, n)
			_, err = Read(io.MultiReader(bytes.NewReader(b[:n])), 0)
			require.ErrorIs(t, err, ErrFormat, "stream of %s cut after %d bytes", name, n)
		}
	}
}

func TestTruncationsSayWhatIsMissing(t *testing.T) {
	b := encode(t, New([]float64{1, 2, 3}))
	for n, want := range map[int]string{
		0:          "header: cut short after 0 bytes, want at least 8",
		7:          "header: cut short after 7 bytes, want at least 8",
		9:          "header length: cut short after 1 bytes, want 2",
		50:         "header: cut short after 40 bytes, want 118",
		len(b) - 5: "data: 19 bytes, want 24 for float64 of shape (3,)",
	} {
		_, err := Read(bytes.NewReader(b[:n]), 0)
		require.EqualError(t, err, "npy: "+want)
	}
	_, err := Read(io.MultiReader(bytes.NewReader(b[:len(b)-5])), 0)
	require.EqualError(t, err, "npy: data: cut short after 19 bytes, want 24")
}

func TestBytesBehindTheArray(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.npy")
	require.NoError(t, os.WriteFile(path, append(encode(t, Scalar(1.0)), 0), 0o666))
	_, err := ReadFile(path)
	require.EqualError(t, err, "npy: "+path+": data: bytes follow the array, want the end of the file")
	require.ErrorIs(t, err, ErrFormat)
}

// Headers that promise more than there is cost no memory.
func TestLyingShapesAllocateLittle(t *testing.T) {
	for _, shape := range []string{"(1099511627776,)", "(1048576, 1048576)", "(4294967296, 100000000)"} {
		b := file(1, "{'descr': '<f8', 'fortran_order': False, 'shape': "+shape+"}\n", 1, 2, 3)
		for name, r := range map[string]io.Reader{"sized": bytes.NewReader(b), "stream": io.MultiReader(bytes.NewReader(b))} {
			var err error
			got := allocated(func() { _, err = Read(r, 0) })
			require.ErrorIs(t, err, ErrFormat)
			assert.Less(t, got, uint64(4*chunk), "%s of shape %s", name, shape)
		}
	}
	b := append([]byte(magic), 2, 0, 0xff, 0xff, 0xff, 0xff)
	var err error
	got := allocated(func() { _, err = Read(bytes.NewReader(b), 0) })
	require.EqualError(t, err, "npy: header: claims 4294967295 bytes, want at most 65536")
	assert.Less(t, got, uint64(chunk))
}

func TestHeaders(t *testing.T) {
	const ok = "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }"
	for _, text := range []string{
		ok,
		ok + "\n",
		"  \t" + strings.ReplaceAll(ok, " ", " \n ") + strings.Repeat(" ", 300),
		strings.ReplaceAll(ok, " ", ""),
		`{"shape": (2,), "fortran_order": True, "descr": "|u1"}`,
		"{'descr': '<u1', 'fortran_order': False, 'shape': (2L,)}",
		"{'descr': '>u1', 'fortran_order': False, 'shape': (2,)}",
		"{'descr': '=u1', 'fortran_order': False, 'shape': (1, 2)}",
		"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2,)}",
		"{'descr': '|u1', 'fortran_order': False, 'shape': (02,)}",
	} {
		for _, version := range []byte{1, 2, 3} {
			a, err := Read(bytes.NewReader(file(version, text, 7, 8)), 0)
			require.NoError(t, err, "%q", text)
			assert.Equal(t, []uint8{7, 8}, a.Data)
		}
	}
	long := strings.Repeat("9", 100)
	for text, want := range map[string]string{
		"":                                 `byte 0: got "", want '{'`,
		"\x00":                             `byte 0: got "\x00", want '{'`,
		"[]":                               `byte 0: got "[]", want '{'`,
		"{}":                               `no key "descr"`,
		"{":                                `byte 1: got "", want a string`,
		"{'descr'":                         `byte 8: got "", want ':'`,
		"{'descr':":                        `byte 9: got "", want a string`,
		"{'descr: '|u1'":                   `byte 10: got "|u1'", want ':'`,
		"{'descr":                          `byte 1: got "'descr", want a string without escapes that ends`,
		`{'de\x73cr': '|u1'}`:              `byte 1: got "'de\\x73cr': '|u1'}", want a string without escapes that ends`,
		ok[:len(ok)-1]:                     `byte 56: got "", want a string`,
		ok + "x":                           `byte 57: got "x", want the end`,
		ok + "\x00":                        `byte 57: got "\x00", want the end`,
		ok + ok:                            `byte 57: got "{'descr': '|u1', 'fo", want the end`,
		"{'descr': '|u1', 'descr': '|u1'}": `key "descr" appears twice`,
		"{'descr': '|u1', 'x': 1}":         `key "x", want descr, fortran_order and shape`,
		"{'shape': (1,), 'descr': '|u1'}":  `no key "fortran_order"`,
		"{'fortran_order': 0}":             `byte 18: got "0}", want True or False`,
		"{'fortran_order': Truely}":        `byte 22: got "ly}", want ',' or '}'`,
		"{'shape': 3}":                     `byte 10: got "3}", want a tuple of integers`,
		"{'shape': (3)}":                   `shape: (3) is an integer, want the tuple (3,)`,
		"{'shape': [3]}":                   `byte 10: got "[3]}", want a tuple of integers`,
		"{'shape': (3 4)}":                 `byte 13: got "4)}", want ',' or ')'`,
		"{'shape': (,)}":                   `byte 11: got ",)}", want an integer`,
		"{'shape': (3,,)}":                 `byte 13: got ",)}", want an integer`,
		"{'shape': (3.5,)}":                `byte 12: got ".5,)}", want ',' or ')'`,
		"{'shape': (-,)}":                  `byte 11: got "-,)}", want an integer`,
		"{'shape': (+1,)}":                 `byte 11: got "+1,)}", want an integer`,
		"{'shape': (1e3,)}":                `byte 12: got "e3,)}", want ',' or ')'`,
		"{'shape': (" + long + ",)}":       `shape: extent ` + long[:40] + ` overflows`,
		"{'shape': (" + strings.Repeat("1,", 65) + ")}":           `shape: more than 64 dimensions`,
		"{'shape': ((1,),)}":                                      `byte 11: got "(1,),)}", want an integer`,
		"{'shape': (":                                             `byte 11: got "", want an integer`,
		"{'descr': '|u1', 'fortran_order': True, 'shape': (-1,)}": `shape: (-1,), want extents that are not negative`,
		"{'descr': '<f8', 'fortran_order': True, 'shape': (4294967296,4294967296)}":   `shape: (4294967296, 4294967296) of float64 overflows`,
		"{'descr': '<f8', 'fortran_order': True, 'shape': (0,4294967296,4294967296)}": `shape: (0, 4294967296, 4294967296) of float64 overflows`,
		"{'descr': 'f8'}":           `descr: got "f8", want a byte order and a type such as '<f4'`,
		"{'descr': ''}":             `descr: got "", want a byte order and a type such as '<f4'`,
		"{'descr': '<'}":            `descr: got "<", want a byte order and a type such as '<f4'`,
		"{'descr': '|f8'}":          `descr: "|f8" has no byte order, want '<' or '>'`,
		"{'descr': '<f16'}":         `descr: "<f16" is not read, want bool, int8 to int64, uint8 to uint64 or float16 to float64`,
		"{'descr': '|V2'}":          `descr: "|V2" is not read, want bool, int8 to int64, uint8 to uint64 or float16 to float64`,
		"{'descr': ('<f8')}":        `byte 10: got "('<f8')}", want a string`,
		"{'descr': [('x', '<f8')]}": `structured elements are not read, want numbers`,
	} {
		_, err := Read(bytes.NewReader(file(1, text, 7, 8)), 0)
		require.ErrorIs(t, err, ErrFormat, "%q", text)
		assert.Equal(t, "npy: header: "+want, err.Error(), "%q", text)
	}
}

func TestOtherFilesAreTold(t *testing.T) {
	for content, want := range map[string]string{
		"PK\x03\x04rest of it":  "this is a zip archive, want .npy; read it as .npz",
		"PK":                    "this is a zip archive, want .npy; read it as .npz",
		"\x80\x04\x95pickled..": "this is a Python pickle, which may run code and is not read, want .npy",
		"1,2,3\n4,5,6\n":        `begins with "1,2,3\n", want "\x93NUMPY"`,
		"1":                     `begins with "1", want "\x93NUMPY"`,
		magic + "\x00\x00":      "format version 0.0, want 1.0, 2.0 or 3.0",
		magic + "\x04\x00":      "format version 4.0, want 1.0, 2.0 or 3.0",
		magic + "\x01\x01":      "format version 1.1, want 1.0, 2.0 or 3.0",
	} {
		_, err := Read(strings.NewReader(content), 0)
		require.EqualError(t, err, "npy: header: "+want)
		require.ErrorIs(t, err, ErrFormat)
	}
}

func TestBoolsMustBeBools(t *testing.T) {
	_, err := Read(bytes.NewReader(file(1, "{'descr': '|b1', 'fortran_order': False, 'shape': (3,)}", 0, 1, 2)), 0)
	require.EqualError(t, err, "npy: data: element 2: 2 is no bool, want 0 or 1")
}

// An error of the disk is no error of the format.
func TestReadErrorsPassThrough(t *testing.T) {
	broken := errors.New("broken disk")
	b := encode(t, New(make([]float64, 10)))
	for n := range b {
		r := io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken))
		_, err := Read(r, 0)
		require.ErrorIs(t, err, broken)
		require.NotErrorIs(t, err, ErrFormat)
	}
	_, err := ReadFile(filepath.Join(t.TempDir(), "missing.npy"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = ReadFile(t.TempDir())
	require.Error(t, err)
}
