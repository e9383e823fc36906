//go:build cgo && !windows

package gpu

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/kernels/include"
)

func TestFindLibrary(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "libfortet_cuda.so")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	t.Setenv("FORTET_CUDA_LIB", file)
	path, tried := findLibrary(CUDA)
	assert.Equal(t, file, path)
	assert.Equal(t, []string{file}, tried)

	t.Setenv("FORTET_CUDA_LIB", filepath.Join(dir, "none.so"))
	path, tried = findLibrary(CUDA)
	assert.Empty(t, path, "an explicit path is not replaced by another one")
	assert.Len(t, tried, 1)

	t.Setenv("FORTET_CUDA_LIB", "")
	inner := filepath.Join(dir, "a", "b")
	require.NoError(t, os.MkdirAll(inner, 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "lib"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), nil, 0o600))
	t.Chdir(inner)
	path, tried = findLibrary(CUDA)
	assert.Empty(t, path)
	assert.Len(t, tried, 3, "beside the executable, in lib, in the module's lib")
	require.NoError(t, os.Rename(file, filepath.Join(dir, "lib", "libfortet_cuda.so")))
	path, _ = findLibrary(CUDA)
	assert.True(t, strings.HasSuffix(path, filepath.Join("lib", "libfortet_cuda.so")), path)
}

// compileLibrary compiles C source to a shared library.
func compileLibrary(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	src, lib := filepath.Join(dir, "lib.c"), filepath.Join(dir, "lib.so")
	require.NoError(t, os.WriteFile(src, []byte(source), 0o600))
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	out, err := exec.Command(cc, "-shared", "-fPIC", "-I../kernels/include", "-o", lib, src).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return lib
}

func TestOpenRefusesOtherLibraries(t *testing.T) {
	other := strings.Repeat("0", 64)
	lib := compileLibrary(t, `
		#include "device.h"
		const char *fortet_abi_hash(void) { return "`+other+`"; }
		const fortet_device_api *fortet_device(void) { return 0; }`)
	_, err := openLibrary(lib, 0)
	require.ErrorIs(t, err, ErrContract)
	assert.ErrorContains(t, err, other)
	assert.ErrorContains(t, err, include.Hash())
	_, err = deviceCount(lib)
	assert.ErrorIs(t, err, ErrContract)

	_, err = openLibrary(compileLibrary(t, `int fortet_something_else;`), 0)
	assert.ErrorIs(t, err, ErrContract)

	garbage := filepath.Join(t.TempDir(), "garbage.so")
	require.NoError(t, os.WriteFile(garbage, []byte("not an ELF file"), 0o600))
	_, err = openLibrary(garbage, 0)
	require.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, garbage)
}
