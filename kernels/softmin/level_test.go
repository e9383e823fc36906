package softmin_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// The AVX-512 body runs on processors that have AVX-512; kerneltest.Devices
// logs where that is not so. What can be checked anywhere is that it is
// compiled to what it should be, and, by TestWideBody, that its tiles and tails
// are right.

func long(t *testing.T) {
	t.Helper()
	if os.Getenv("FORTET_LONG") != "1" {
		t.Skip("not run: compiles the kernels again (FORTET_LONG=1 runs it)")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("not run: only amd64 has several levels")
	}
}

// The kernels of every level multiply-add in registers of its own width.
func TestInstructions(t *testing.T) {
	long(t)
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	object := filepath.Join(t.TempDir(), "softmin.o")
	out, err := exec.Command(cc, "-O3", "-Wno-psabi", "-I../include", "-c", "softmin_cpu.c", "-o", object).CombinedOutput()
	require.NoError(t, err, "%s", out)
	text, err := exec.Command("objdump", "-d", "--no-show-raw-insn", object).Output()
	require.NoError(t, err)
	count := map[string]int{}
	function, header := "", regexp.MustCompile(`^[0-9a-f]+ <.*_(baseline|avx2|avx512)[^>]*>:`)
	fma := regexp.MustCompile(`vfn?m(?:add|sub)\d+p[sd].*%([xyz]mm)`)
	for line := range bytes.Lines(text) {
		if m := header.FindSubmatch(line); m != nil {
			function = string(m[1])
		}
		if m := fma.FindSubmatch(line); m != nil {
			count[function+" "+string(m[1])]++
		}
	}
	require.Greater(t, count["avx512 zmm"], 500, "%v", count)
	require.Greater(t, count["avx2 ymm"], 500, "%v", count)
	require.Zero(t, count["avx2 zmm"], "%v", count)
	require.Zero(t, count["baseline zmm"]+count["baseline ymm"]+count["baseline xmm"], "%v", count)
}

// The AVX-512 body, compiled for AVX2 and run in its place.
func TestWideBody(t *testing.T) {
	long(t)
	cmd := exec.Command("go", "test", "-count=1", "-run", "TestDefinition|TestAwkwardData|TestRows|TestNaN|TestMany|TestWorkers", ".")
	cmd.Env = append(os.Environ(), "CGO_CFLAGS=-O3 -DFORTET_WIDE_ON_AVX2", "FORTET_CPU_LEVEL=avx2", "FORTET_NO_EMU=1", "FORTET_LONG=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
