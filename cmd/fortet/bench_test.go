package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/bench"
)

// The comparison is a table for people and one object for programs, whose rows
// are results.
func TestBench(t *testing.T) {
	t.Chdir(t.TempDir()) // with nothing of the project in it
	out := filepath.Join(t.TempDir(), "rows.jsonl")
	code, stdout, stderr := call(t, "bench", "--quick", "--device", "cpu", "--family", "ou,adam", "--out", out)
	require.Equal(t, exitDone, code, stderr)
	var v struct {
		Devices  []map[string]any
		Families []struct {
			Family, Operation, Shape, DType, Unit string
			Devices                               []map[string]any
		}
		Rows []bench.Row
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &v))
	require.Len(t, v.Devices, 1)
	require.Equal(t, "cpu", v.Devices[0]["name"])
	require.Len(t, v.Families, 3)
	require.Equal(t, "ou", v.Families[0].Family)
	require.Equal(t, "f32", v.Families[0].DType)
	require.Contains(t, v.Families[0].Devices[0], "seconds")
	for _, r := range v.Rows {
		require.NoError(t, r.Validate())
	}
	rows, err := bench.ReadRows(out)
	require.NoError(t, err)
	require.Equal(t, v.Rows, rows)
	for _, want := range []string{"cpu: ", "operation", "adam step", "ou transition d=64", "GB/s"} {
		require.Contains(t, stderr, want)
	}
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	require.Len(t, lines, 1+1+1+3, stderr) // the device, an empty line, the header, the operations
	require.Equal(t, strings.Index(lines[2], "device"), strings.Index(lines[3], "cpu"), "columns are aligned")
}

// Without a GPU it says why there is none, and compares what there is.
func TestBenchWithoutGPU(t *testing.T) {
	t.Setenv("FORTET_CUDA_LIB", filepath.Join(t.TempDir(), "none.so"))
	code, stdout, stderr := call(t, "bench", "--quick", "--family", "adam", "--dtype", "f64")
	require.Equal(t, exitDone, code, stderr)
	require.Contains(t, stderr, "cuda: none: ")
	require.Contains(t, stderr, "none.so")
	require.Contains(t, stderr, "f64")
	require.Contains(t, stdout, `"absent"`)
	code, _, stderr = call(t, "bench", "--quick", "--family", "adam", "--device", "cuda")
	require.Equal(t, exitUsage, code, stderr)
	require.Contains(t, stderr, "none.so")
}

func TestBenchSuite(t *testing.T) {
	v := object(t, exitDone, "bench", "--suite", "kernels", "--quick", "--device", "cpu", "--quiet")
	rows, ok := at(t, v, "rows").([]any)
	require.True(t, ok)
	require.Greater(t, len(rows), 100)
	for _, r := range rows {
		require.Equal(t, "kernels", at(t, r, "suite"))
		require.Equal(t, "ok", at(t, r, "status"))
		require.NotEmpty(t, at(t, r, "commit"))
	}
}

func TestBenchUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"x"}, `unexpected argument "x"`},
		{[]string{"--family", "nosuch"}, "want one of adam, "},
		{[]string{"--suite", "nosuch"}, "want one of kernels, "},
		{[]string{"--peers"}, "--suite"},
		{[]string{"--suite", "kernels", "--family", "ou"}, "want one of both"},
		{[]string{"--suite", "kernels", "--dtype", "f32"}, "--dtype"},
		{[]string{"--suite", "kernels", "--workers", "1"}, "--workers"},
		{[]string{"--suite", "static", "--peers", "--quick"}, "project's folder"},
		{[]string{"--device", "nosuch"}, "nosuch"},
		{[]string{"--out", filepath.Join("no", "such", "folder")}, "--out"},
	} {
		code, stdout, stderr := call(t, append([]string{"bench"}, c.args...)...)
		require.Equal(t, exitUsage, code, "%v: %s", c.args, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.want)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}

// An interrupted comparison prints no object and leaves no file.
func TestBenchInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := filepath.Join(t.TempDir(), "rows.jsonl")
	var stdout, stderr bytes.Buffer
	code := execute(ctx, []string{"bench", "--device", "cpu", "--family", "adam", "--out", out}, &stdout, &stderr)
	require.Equal(t, exitInterrupted, code)
	require.Empty(t, stdout.String())
	_, err := os.Stat(out)
	require.ErrorIs(t, err, os.ErrNotExist)
}
