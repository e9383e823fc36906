package npy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func seed(f *testing.F, pattern string) {
	paths, err := filepath.Glob(filepath.Join("testdata", pattern))
	require.NoError(f, err)
	require.NotEmpty(f, paths)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(b)
	}
}

// Any input gives a valid array or an error of the format; a valid one
// survives being written and read; a stream gives what a sized reader gives.
func FuzzRead(f *testing.F) {
	seed(f, "*.npy")
	f.Add(file(1, "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 1099511627776)}", 1, 2))
	f.Add(file(3, "{'descr': '|b1', 'fortran_order': False, 'shape': (2,)}", 1, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Read(bytes.NewReader(b), 0)
		streamed, streamErr := Read(io.MultiReader(bytes.NewReader(b)), 0)
		require.Equal(t, err == nil, streamErr == nil)
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		same(t, a, streamed)
		again := encode(t, a)
		back, err := Read(bytes.NewReader(again), 0)
		require.NoError(t, err)
		same(t, a, back)
		require.Equal(t, again, encode(t, back))
	})
}

func FuzzReadNPZ(f *testing.F) {
	seed(f, "*.npz")
	for _, method := range []Method{Stored, Deflated} {
		var b bytes.Buffer
		require.NoError(f, WriteNPZ(&b, sampleArchive(), method))
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		z, err := readArchive(b, 1<<20)
		if err != nil {
			require.True(t, errors.Is(err, ErrFormat) || errors.Is(err, ErrLimit), "%v", err)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		var again bytes.Buffer
		require.NoError(t, WriteNPZ(&again, z, Stored))
		back, err := readArchive(again.Bytes(), 0)
		require.NoError(t, err)
		sameArchive(t, z, back)
	})
}
