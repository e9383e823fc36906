package gmm_test

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// The AVX-512 body, compiled for AVX2 and run in its place.
func TestWideBody(t *testing.T) {
	if os.Getenv("FORTET_LONG") != "1" {
		t.Skip("not run: compiles the kernels again (FORTET_LONG=1 runs it)")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("not run: only amd64 has several levels")
	}
	cmd := exec.Command("go", "test", "-count=1", ".")
	cmd.Env = append(os.Environ(), "CGO_CFLAGS=-O3 -DFORTET_WIDE_ON_AVX2", "FORTET_CPU_LEVEL=avx2", "FORTET_NO_EMU=1", "FORTET_LONG=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
