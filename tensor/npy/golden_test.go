package npy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// cube is arange(24).reshape(2, 3, 4).
func cube[T Element](of func(int) T) *Array {
	data := make([]T, 24)
	for i := range data {
		data[i] = of(i)
	}
	return New(data, 2, 3, 4)
}

func float(i int) float32 { return float32(i) }

func TestNumPyLayouts(t *testing.T) {
	for name, want := range map[string]*Array{
		"c_order":     cube(float),
		"fortran":     cube(float),
		"fortran_big": cube(func(i int) int16 { return int16(i) }),
		"big":         samples()["f8"],
		"scalar":      Scalar(3.5),
		"empty":       New([]float32{}, 0, 3),
		"version2":    cube(float),
		"version3":    cube(float),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadFile(filepath.Join("testdata", name+".npy"))
			require.NoError(t, err)
			same(t, want, got)
		})
	}
}

func TestNumPyHeaders(t *testing.T) {
	b, err := os.ReadFile("testdata/headers.json")
	require.NoError(t, err)
	var headers []struct {
		Descr, Header string
		Shape         []int
	}
	require.NoError(t, json.Unmarshal(b, &headers))
	require.NotEmpty(t, headers)
	whole := false // a block of padding where none would be needed
	for _, h := range headers {
		d := U8
		if h.Descr == "<f8" {
			d = F64
		}
		want := []byte{}
		for _, r := range h.Header {
			want = append(want, byte(r)) // Latin-1
		}
		got := appendHeader(nil, d, h.Shape)
		assert.Equal(t, string(want), string(got), "%v", h.Shape)
		assert.Zero(t, len(got)%alignment)
		whole = whole || len(got) >= 64 && got[len(got)-64] == ' '
	}
	assert.True(t, whole, "no header has a whole block of padding")
}

func TestUnsupportedNumPyTypes(t *testing.T) {
	for name, want := range map[string]string{
		"complex":    `header: descr: "<c16" holds complex numbers, which are not read, want real numbers`,
		"text":       `header: descr: "<U1" is not read, want bool, int8 to int64, uint8 to uint64 or float16 to float64`,
		"date":       `header: descr: "<M8[D]" is not read, want bool, int8 to int64, uint8 to uint64 or float16 to float64`,
		"structured": `header: structured elements are not read, want numbers`,
		"object":     `header: descr: "|O" holds Python objects as a pickle, which may run code and is not read, want numbers`,
	} {
		path := filepath.Join("testdata", name+".npy")
		_, err := ReadFile(path)
		require.ErrorIs(t, err, ErrFormat)
		assert.Equal(t, "npy: "+path+": "+want, err.Error())
	}
}
