package safetensors

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor/npy"
)

// Any input gives valid arrays or an error of the format; what is valid
// survives being written and read, and writing settles at once.
func FuzzRead(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.safetensors")
	require.NoError(f, err)
	require.NotEmpty(f, paths)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add(file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"BOOL","shape":[0,1],"data_offsets":[2,2]}} `, 2))
	f.Add(file(`{"__metadata__":{"\ud800":"\u0000"}}`, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		arrays, metadata, err := readAll(b)
		if err != nil {
			require.ErrorIs(t, err, npy.ErrFormat)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		again := encode(t, arrays, metadata)
		back, text, err := readAll(again)
		require.NoError(t, err)
		same(t, arrays, back)
		if len(metadata) > 0 {
			require.Equal(t, metadata, text)
		}
		require.Equal(t, again, encode(t, back, text))
	})
}
