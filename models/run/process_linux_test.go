package run

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const childEnv = "FORTET_RUN_CHILD"

// child starts this test binary again, to run one test with childEnv set.
func child(t *testing.T, test, path string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	c := exec.Command(exe, "-test.run=^"+test+"$", "-test.v")
	c.Env = append(os.Environ(), childEnv+"="+path)
	return c
}

// limitFiles bounds the size of files until the end of the test.
func limitFiles(t *testing.T, bytes int64) {
	t.Helper()
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
	t.Cleanup(func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)) })
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(bytes), Max: limit.Max}))
}

// A process that is killed while it trains leaves a run that goes on to the
// end of the uninterrupted one. While it lives, nobody else may train the run
// or remove it.
func TestKilledProcess(t *testing.T) {
	c := config(t)
	if path := os.Getenv(childEnv); path != "" {
		f, err := Create(path, c, false)
		require.NoError(t, err)
		q := newToy(t, device(t), 3, c)
		q.before = func(step int) error {
			if step == 18 {
				fmt.Println("\nhere")
				time.Sleep(time.Hour) // until killed
			}
			return nil
		}
		_, err = Loop(t.Context(), f, q, Options{})
		require.NoError(t, err)
		return
	}
	path := filepath.Join(t.TempDir(), "run")
	process := child(t, "TestKilledProcess", path)
	out, err := process.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, process.Start())
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "here"; {
	}
	before := listing(t, path)

	f, err := Open(path)
	require.NoError(t, err, "reading needs no lock")
	assert.Equal(t, 15, latest(t, f).Step)
	for _, err := range []error{f.Lock(), func() error { _, err := Create(path, c, true); return err }()} {
		require.ErrorIs(t, err, ErrLocked)
		require.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, fmt.Sprintf("process %d on ", process.Process.Pid))
	}
	assert.Equal(t, before, listing(t, path), "a run in use was touched")

	require.NoError(t, process.Process.Kill())
	require.Error(t, process.Wait())
	dev := device(t)
	f = reopen(t, f)
	_, err = Loop(t.Context(), f, newToy(t, dev, 3, c), Options{From: latest(t, f)})
	require.NoError(t, err)
	assert.Equal(t, train(t, dev, c), bytesOf(t, f))
}

// The system cuts off the second checkpoint in the middle, by a limit on the
// size of files that stands for the full disk. The first one stays good.
func TestFullDisk(t *testing.T) {
	c := config(t)
	const n = 20_000
	if path := os.Getenv(childEnv); path != "" {
		f, err := Create(path, c, false)
		require.NoError(t, err)
		q := newToy(t, device(t), n, c)
		q.after = func(step int) {
			if step == 7 {
				limitFiles(t, 100_000)
			}
		}
		_, err = Loop(t.Context(), f, q, Options{})
		require.ErrorIs(t, err, syscall.EFBIG)
		require.ErrorContains(t, err, "step 10: ")
		require.ErrorContains(t, err, f.checkpointPath(10)+": file too large")
		require.ErrorContains(t, err, "the last good checkpoint is "+f.checkpointPath(5))
		return
	}
	path := filepath.Join(t.TempDir(), "run")
	out, err := child(t, "TestFullDisk", path).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "PASS: TestFullDisk")
	f, err := Open(path)
	require.NoError(t, err)
	require.NoError(t, f.Lock())
	defer f.Close()
	files, err := os.ReadDir(filepath.Join(path, checkpointsName))
	require.NoError(t, err)
	require.Len(t, files, 1, "half a checkpoint was left")
	assert.Equal(t, 5, latest(t, f).Step)
	r, err := Loop(t.Context(), f, newToy(t, device(t), n, c), Options{From: latest(t, f)})
	require.NoError(t, err)
	assert.Equal(t, Done, r.Status)
}

// The same under the journal: the line that could not be written whole is cut
// off by the resume.
func TestFullJournal(t *testing.T) {
	c := config(t)
	dev := device(t)
	if path := os.Getenv(childEnv); path != "" {
		f, err := Create(path, c, false)
		require.NoError(t, err)
		q := newToy(t, dev, 3, c)
		q.after = func(step int) {
			if step == 11 {
				info, err := os.Stat(filepath.Join(path, metricsName))
				require.NoError(t, err)
				limitFiles(t, info.Size()+20) // in the middle of the next line
			}
		}
		_, err = Loop(t.Context(), f, q, Options{})
		require.ErrorIs(t, err, syscall.EFBIG)
		require.ErrorContains(t, err, metricsName+": file too large")
		return
	}
	path := filepath.Join(t.TempDir(), "run")
	out, err := child(t, "TestFullJournal", path).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "PASS: TestFullJournal")
	text, err := os.ReadFile(filepath.Join(path, metricsName))
	require.NoError(t, err)
	require.NotEqual(t, byte('\n'), text[len(text)-1], "the test should cut a line")
	f, err := Open(path)
	require.NoError(t, err)
	require.NoError(t, f.Lock())
	defer f.Close()
	_, err = Loop(t.Context(), f, newToy(t, dev, 3, c), Options{From: latest(t, f)})
	require.NoError(t, err)
	assert.Equal(t, train(t, dev, c), bytesOf(t, f))
}

// A journal that is no file is neither read, for it may have no end, nor cut.
func TestJournalIsAFile(t *testing.T) {
	f := newFolder(t, config(t))
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(f.Path(), metricsName)))
	_, err := Loop(t.Context(), f, newToy(t, device(t), 3, f.Config()), Options{})
	require.ErrorIs(t, err, ErrInvalid)
	assert.ErrorContains(t, err, metricsName+": is not a regular file")
	_, err = ReadCheckpoint("/dev/zero")
	require.ErrorIs(t, err, ErrInvalid)
}
