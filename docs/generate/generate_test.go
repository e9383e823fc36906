package main

import (
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReplace(t *testing.T) {
	text := "a\n" + begin + "old\n" + end + "b\n"
	got, err := replace([]byte(text), []byte("\nnew\n\n"))
	require.NoError(t, err)
	require.Equal(t, "a\n"+begin+"new\n"+end+"b\n", string(got))
	again, err := replace(got, []byte("new"))
	require.NoError(t, err)
	require.Equal(t, got, again)
	for _, bad := range []string{"", begin, end + begin} {
		_, err := replace([]byte(bad), nil)
		require.Error(t, err)
	}
}

func TestRecord(t *testing.T) {
	r := &record{Name: "r", Command: "fortet solve --source 'csv:a.csv?where=x==1' \\\n  --map m.npy --epsilon 0.1",
		Result: map[string]any{"a": map[string]any{"b": 1.5, "c": "text", "d": nil}}}
	for flag, want := range map[string]string{"source": "csv:a.csv?where=x==1", "map": "m.npy", "epsilon": "0.1"} {
		got, err := r.Flag(flag)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := r.Flag("plan")
	require.ErrorContains(t, err, "no --plan")
	x, err := r.Get("a.b")
	require.NoError(t, err)
	require.Equal(t, 1.5, x)
	x, err = r.Get("a.d")
	require.NoError(t, err)
	require.True(t, math.IsNaN(x))
	for _, path := range []string{"a.c", "a.x", "a.b.c", ""} {
		_, err := r.Get(path)
		require.Error(t, err, path)
	}
}

// newBook is a book whose commands run in an empty folder without data.
func newBook(t *testing.T) *book {
	t.Helper()
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "docs", "data"), 0o777))
	return &book{ctx: t.Context(), root: root, work: t.TempDir(), log: io.Discard, records: map[string]*record{}}
}

func TestCommands(t *testing.T) {
	b := newBook(t)
	r, err := b.run("one", `echo note >&2; echo '{"x": 1}'; echo '{"x": 2}'`)
	require.NoError(t, err)
	x, err := r.Get("x")
	require.NoError(t, err)
	require.Equal(t, 2., x)
	require.Equal(t, "note", r.Stderr)
	require.FileExists(t, b.file("one"))

	_, err = b.run("one", "true")
	require.ErrorContains(t, err, "two commands")
	_, err = b.run("two", "echo no >&2; exit 2")
	require.ErrorContains(t, err, "exit code 2, want 0: no")
	_, err = b.fails(2, "three", "exit 2")
	require.NoError(t, err)
	_, err = b.fails(2, "four", "true")
	require.ErrorContains(t, err, "exit code 0, want 2")
	_, err = b.run("five", "echo text")
	require.ErrorContains(t, err, "no JSON")
	require.NoFileExists(t, b.file("five"))
	_, err = b.kept("five")
	require.Error(t, err)
}

func TestMissingData(t *testing.T) {
	b := newBook(t)
	const command = `cat data/x.json`
	_, err := b.run("x", command)
	require.ErrorContains(t, err, "needs data/x.json")

	require.NoError(t, os.Mkdir(filepath.Join(b.work, "data"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(b.work, "data", "x.json"), []byte(`{"x": 3}`), 0o666))
	b.Machine.Commit = "abc"
	_, err = b.run("x", command)
	require.NoError(t, err)

	// Without its data the result that was kept stays, with its provenance.
	later := newBook(t)
	later.root, later.Machine.Commit = b.root, "def"
	r, err := later.run("x", command)
	require.NoError(t, err)
	require.True(t, r.skipped)
	require.Equal(t, "abc", r.Machine.Commit)
	x, err := r.Get("x")
	require.NoError(t, err)
	require.Equal(t, 3., x)
	_, err = later.picture(r, "x.png", "")
	require.ErrorContains(t, err, "its picture is not here")

	other := newBook(t)
	other.root = b.root
	_, err = other.run("x", command+" #")
	require.ErrorContains(t, err, "another command")
}
