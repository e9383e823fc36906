package atomicfile

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFullDevice(t *testing.T) {
	err := Write("/dev/full", put("x"))
	require.ErrorIs(t, err, syscall.ENOSPC)
	assert.Equal(t, "write /dev/full: no space left on device", err.Error())
	info, err := os.Stat("/dev/full")
	require.NoError(t, err)
	assert.NotZero(t, info.Mode()&os.ModeDevice, "the device was replaced")
	assert.NoError(t, Write("/dev/null", put("x")))
}

func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	got := make(chan string)
	go func() {
		b, err := os.ReadFile(path)
		got <- fmt.Sprint(string(b), err)
	}()
	require.NoError(t, Write(path, put("through")))
	assert.Equal(t, "through<nil>", <-got)
}

const limitEnv = "FORTET_ATOMICFILE_LIMIT"

// A write that the system cuts off in the middle of the temporary: a limit of
// 100 kB on the size of files stands for the full disk.
func TestFullDisk(t *testing.T) {
	if path := os.Getenv(limitEnv); path != "" {
		limit := syscall.Rlimit{Cur: 100_000, Max: 100_000}
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
		err := Write(path, func(w io.Writer) error {
			for range 4 {
				if _, err := w.Write(make([]byte, 1<<18)); err != nil {
					return fmt.Errorf("data: %w", err)
				}
			}
			return nil
		})
		require.ErrorIs(t, err, syscall.EFBIG)
		assert.Equal(t, "data: write "+path+": file too large", err.Error())
		return
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	require.NoError(t, Write(path, put("old")))
	exe, err := os.Executable()
	require.NoError(t, err)
	child := exec.Command(exe, "-test.run=^TestFullDisk$", "-test.v")
	child.Env = append(os.Environ(), limitEnv+"="+path)
	out, err := child.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "PASS: TestFullDisk")
	assert.Equal(t, "old", content(t, path))
	assert.Equal(t, []string{"a"}, list(t, dir))
}
