//go:build cgo

package gpu

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestProbeIsQuiet: a driver that prints does not disturb the program's output.
func TestProbeIsQuiet(t *testing.T) {
	out, err := os.CreateTemp(t.TempDir(), "stdout")
	require.NoError(t, err)
	defer out.Close()
	lib := compileLibrary(t, deviceLibrary("", `puts("noise"); fflush(stdout); fputs("noise", stderr); *n = 1; return 0;`))
	stdout, err := syscall.Dup(1)
	require.NoError(t, err)
	defer func() { _ = syscall.Close(stdout) }()
	require.NoError(t, syscall.Dup3(int(out.Fd()), 1, 0))
	n, probeErr := probe(lib, 10*time.Second)
	require.NoError(t, syscall.Dup3(stdout, 1, 0))
	require.NoError(t, probeErr)
	assert.Equal(t, 1, n)
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	assert.Empty(t, string(text))
}
