package atomicfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func put(text string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteCreatesAndReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.npy")
	require.NoError(t, Write(path, put("old")))
	assert.Equal(t, "old", content(t, path))
	require.NoError(t, Write(path, put("new, and longer")))
	assert.Equal(t, "new, and longer", content(t, path))
	require.NoError(t, Write(path, put("")))
	assert.Equal(t, "", content(t, path))
	assert.Equal(t, []string{"a.npy"}, list(t, dir))
}

// Everything that goes wrong leaves the target and the folder as they were.
func TestFailureLeavesTheTargetAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	require.NoError(t, Write(path, put("old")))
	broken := errors.New("broken")

	err := Write(path, func(w io.Writer) error {
		_, err := w.Write(make([]byte, 1<<20)) // more than is buffered
		require.NoError(t, err)
		return broken
	})
	require.ErrorIs(t, err, broken)
	assert.Equal(t, "write "+path+": broken", err.Error())

	assert.PanicsWithValue(t, "boom", func() {
		_ = Write(path, func(io.Writer) error { panic("boom") })
	})

	f, err := Create(path)
	require.NoError(t, err)
	_, err = f.Write([]byte("half"))
	require.NoError(t, err)
	require.Len(t, list(t, dir), 2, "the temporary should stand beside its target")
	require.NoError(t, f.Close())
	require.NoError(t, f.Close(), "closing twice")
	require.ErrorIs(t, f.Commit(), fs.ErrClosed)

	assert.Equal(t, "old", content(t, path))
	assert.Equal(t, []string{"a"}, list(t, dir))
}

func TestCommitOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	f, err := Create(path)
	require.NoError(t, err)
	_, err = f.Write([]byte("x"))
	require.NoError(t, err)
	_, err = os.Stat(path)
	require.ErrorIs(t, err, fs.ErrNotExist, "the target appeared before Commit")
	require.NoError(t, f.Commit())
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Commit(), fs.ErrClosed)
	_, err = f.Write([]byte("y"))
	require.Error(t, err)
	assert.Equal(t, "x", content(t, path))
}

func TestErrorsNameTheTarget(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	for _, c := range []struct{ path, want string }{
		{dir, "is a folder, want a file"},
		{filepath.Join(dir, "missing", "a"), "no such file or directory"},
		{filepath.Join(file, "a"), "not a directory"},
		{"", "path is empty"},
	} {
		err := Write(c.path, put("x"))
		require.Error(t, err)
		assert.Equal(t, "write "+c.path+": "+c.want, err.Error())
	}
	assert.Equal(t, []string{"file"}, list(t, dir))
}

func TestLongNames(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("n", 255))
	require.NoError(t, Write(path, put("x")))
	assert.Equal(t, "x", content(t, path))
	assert.Len(t, list(t, dir), 1)
}

func TestPermissionsAreKept(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	path := filepath.Join(t.TempDir(), "a")
	for _, mode := range []fs.FileMode{0o600, 0o640, 0o755} {
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Chmod(path, mode))
		require.NoError(t, Write(path, put("x")))
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode())
	}
	if os.Geteuid() != 0 { // root may write anything
		require.NoError(t, os.Chmod(path, 0o400))
		require.ErrorIs(t, Write(path, put("y")), fs.ErrPermission)
		assert.Equal(t, "x", content(t, path))
	}
}

func TestSymbolicLinksAreFollowed(t *testing.T) {
	dir := t.TempDir()
	other := t.TempDir()
	link, target := filepath.Join(dir, "link"), filepath.Join(other, "target")
	if err := os.Symlink(target, link); err != nil {
		t.Skip("this system makes no symbolic links: ", err)
	}
	for _, text := range []string{"through a dangling link", "through a link"} {
		require.NoError(t, Write(link, put(text)))
		assert.Equal(t, text, content(t, target))
	}
	relative := filepath.Join(other, "relative")
	require.NoError(t, os.Symlink("target", relative))
	require.NoError(t, Write(relative, put("relative")))
	assert.Equal(t, "relative", content(t, target))
	assert.Equal(t, []string{"link"}, list(t, dir))
	assert.Equal(t, []string{"relative", "target"}, list(t, other))

	loop := filepath.Join(dir, "loop")
	require.NoError(t, os.Symlink("loop", loop))
	require.Error(t, Write(loop, put("x")))
}

// Writers of one target do not disturb each other, and whoever reads it finds
// one of the texts, whole.
func TestConcurrentWriters(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	text := func(i int) string { return strings.Repeat(fmt.Sprint(i), 100_000) }
	require.NoError(t, Write(path, put(text(0))))
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			for range 5 {
				assert.NoError(t, Write(path, put(text(i))))
			}
		})
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reads := 0
	reader.Go(func() {
		for {
			b, err := os.ReadFile(path)
			if assert.NoError(t, err) && assert.Len(t, b, 100_000) {
				assert.Equal(t, len(b), bytes.Count(b, b[:1]), "a mixture of two texts")
			}
			reads++
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	writers.Wait()
	close(stop)
	reader.Wait()
	assert.Positive(t, reads)
	assert.Equal(t, []string{"a"}, list(t, dir))
}

// What looks nearly like a stale temporary of the target is none.
func TestOnlyOwnTemporariesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	stale := ".a.0123456789abcdef" + suffix
	keep := []string{
		".a.0123456789abcde" + suffix, ".a.0123456789abcdeg" + suffix, ".a.b.0123456789abcdef" + suffix,
		".b.0123456789abcdef" + suffix, "a.0123456789abcdef" + suffix, ".a.0123456789abcdef",
	}
	for _, n := range append([]string{stale}, keep...) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, n), []byte("x"), 0o666))
	}
	require.NoError(t, RemoveStale(filepath.Join(dir, "a")))
	assert.ElementsMatch(t, keep, list(t, dir))
	require.NoError(t, RemoveStale(filepath.Join(dir, "missing", "a")))
}

const childEnv = "FORTET_ATOMICFILE_CHILD"

// TestMain also plays the process that is killed while it writes.
func TestMain(m *testing.M) {
	path := os.Getenv(childEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	f, err := Create(path)
	if err == nil {
		_, err = f.Write([]byte("half"))
	}
	fmt.Println(err)
	select {} // until killed
}

func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	require.NoError(t, Write(path, put("old")))

	exe, err := os.Executable()
	require.NoError(t, err)
	child := exec.Command(exe)
	child.Env = append(os.Environ(), childEnv+"="+path)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	said, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "<nil>\n", said)
	require.Len(t, list(t, dir), 2)

	require.NoError(t, Write(path, put("written meanwhile")))
	assert.Len(t, list(t, dir), 2, "the temporary of a living writer was removed")

	require.NoError(t, child.Process.Kill())
	require.Error(t, child.Wait())
	assert.Equal(t, "written meanwhile", content(t, path))
	require.Len(t, list(t, dir), 2)

	require.NoError(t, Write(path, put("new")))
	assert.Equal(t, "new", content(t, path))
	assert.Equal(t, []string{"a"}, list(t, dir), "the stale temporary was not removed")
}
