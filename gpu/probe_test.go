//go:build cgo && !windows

package gpu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/kernels/include"
)

// deviceLibrary is C source of a library with the right hash whose count runs
// the given body.
func deviceLibrary(extra, count string) string {
	return `
		#include "device.h"
		#include <signal.h>
		#include <stdio.h>
		#include <stdlib.h>
		#include <unistd.h>
		` + extra + `
		static int count(int *n) { ` + count + ` }
		static const char *error(void) { return "the text of the driver"; }
		static fortet_device_api table = { .count = count, .error = error };
		const char *fortet_abi_hash(void) { return "` + include.Hash() + `"; }
		const fortet_device_api *fortet_device(void) { return &table; }`
}

func TestProbe(t *testing.T) {
	n, err := probe(compileLibrary(t, deviceLibrary("", "*n = 3; return 0;")), 10*time.Second)
	require.NoError(t, err)
	assert.Equal(t, 3, n)

	n, err = probe(emulation(t), 10*time.Second)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
}

// TestProbeSurvives: what a broken driver does ends the child and is told.
func TestProbeSurvives(t *testing.T) {
	zeros := strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		source string
		is     error
		text   []string
	}{
		"refuses": {deviceLibrary("", "*n = 0; return 1035;"), ErrUnavailable, []string{"the text of the driver"}},
		"crashes in its constructor": {
			deviceLibrary("__attribute__((constructor)) static void start(void) { *(volatile int *)0 = 1; }", "*n = 1; return 0;"),
			ErrUnavailable, []string{"crashed", "segmentation"},
		},
		"crashes in count": {deviceLibrary("", "return *(volatile int *)0;"), ErrUnavailable, []string{"crashed", "segmentation"}},
		"aborts":           {deviceLibrary("", "abort();"), ErrUnavailable, []string{"crashed", "abort"}},
		"raises":           {deviceLibrary("", "raise(SIGFPE); return 0;"), ErrUnavailable, []string{"crashed", "floating point"}},
		"exits":            {deviceLibrary("", "exit(0);"), ErrUnavailable, []string{"ended the process"}},
		"closes the pipe":  {deviceLibrary("", "*n = 1; for (int i = 0; i < 64; i++) close(i); return 0;"), ErrUnavailable, []string{"ended the process"}},
		"hangs":            {deviceLibrary("", "for (;;) pause();"), ErrUnavailable, []string{"did not answer within 300ms"}},
		"hangs and ignores signals": {
			deviceLibrary("", "for (int s = 1; s < 32; s++) signal(s, SIG_IGN); for (;;) pause();"),
			ErrUnavailable, []string{"did not answer within 300ms"},
		},
		"other hash": {
			`const char *fortet_abi_hash(void) { return "` + zeros + `"; } int fortet_device;`,
			ErrContract, []string{zeros, include.Hash()},
		},
		"missing symbol":  {`const char *fortet_abi_hash(void) { return ""; }`, ErrContract, []string{"fortet_device"}},
		"missing library": {"", ErrUnavailable, []string{"none.so"}},
		"garbage":         {"", ErrUnavailable, []string{"garbage.so"}},
	} {
		t.Run(name, func(t *testing.T) {
			var lib string
			switch name {
			case "missing library":
				lib = filepath.Join(t.TempDir(), "none.so")
			case "garbage":
				lib = filepath.Join(t.TempDir(), "garbage.so")
				require.NoError(t, os.WriteFile(lib, []byte("\x7fELF and then nothing"), 0o600))
			default:
				lib = compileLibrary(t, c.source)
			}
			timeout := 10 * time.Second
			if strings.HasPrefix(name, "hangs") {
				timeout = 300 * time.Millisecond
			}
			start := time.Now()
			n, err := probe(lib, timeout)
			assert.Zero(t, n)
			require.ErrorIs(t, err, c.is)
			for _, text := range c.text {
				assert.ErrorContains(t, err, text)
			}
			assert.Less(t, time.Since(start), 5*time.Second)
		})
	}
}

// TestProbeInThisProcess: where a library is loaded already, no child is
// needed, and none would tell more.
func TestProbeInThisProcess(t *testing.T) {
	lib := compileLibrary(t, deviceLibrary("static int calls;", "*n = ++calls; return 0;"))
	for range 2 {
		n, err := probe(lib, 10*time.Second)
		require.NoError(t, err)
		assert.Equal(t, 1, n, "each child counts for itself")
	}
	_, err := loadLibrary(lib)
	require.NoError(t, err)
	for want := 1; want <= 2; want++ {
		n, err := probe(lib, 10*time.Second)
		require.NoError(t, err)
		assert.Equal(t, want, n)
	}

	t.Setenv("FORTET_PROBE", "off")
	off := compileLibrary(t, deviceLibrary("static int calls;", "*n = ++calls; return 0;"))
	for want := 1; want <= 2; want++ {
		n, err := probe(off, 10*time.Second)
		require.NoError(t, err)
		assert.Equal(t, want, n)
	}
}

// TestProbeIsFast guards the start of a program on a machine without a GPU.
func TestProbeIsFast(t *testing.T) {
	lib := compileLibrary(t, deviceLibrary("", "return 2;"))
	best := time.Hour
	for range 5 {
		start := time.Now()
		_, err := probe(lib, 10*time.Second)
		require.ErrorIs(t, err, ErrUnavailable)
		best = min(best, time.Since(start))
	}
	t.Logf("best of 5: %v", best)
	assert.Less(t, best, 100*time.Millisecond)
}
