package run

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func put(t testing.TB, path ...string) string {
	t.Helper()
	name := filepath.Join(path...)
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o777))
	require.NoError(t, os.WriteFile(name, []byte("precious"), 0o666))
	return name
}

func TestCreateAndOpen(t *testing.T) {
	c := config(t)
	f, err := Create(filepath.Join(t.TempDir(), "a", "b", "run")+"/", c, false)
	require.NoError(t, err)
	assert.Equal(t, c, f.Config())
	for _, dir := range []string{filepath.Dir(f.Sample("x")), filepath.Dir(f.Plot("x.png")), filepath.Dir(f.checkpointPath(1))} {
		assert.DirExists(t, dir)
	}
	assert.Equal(t, filepath.Join(f.Path(), "samples", "final.npy"), f.Sample("final"))
	assert.Equal(t, filepath.Join(f.Path(), "plots", "loss.svg"), f.Plot("loss.svg"))
	assert.Equal(t, filepath.Join(f.Path(), "report.html"), f.Report())
	assert.Equal(t, filepath.Join(f.Path(), "pca.safetensors"), f.PCA())

	_, err = Create(f.Path(), c, false)
	require.ErrorIs(t, err, ErrExists)
	require.ErrorIs(t, err, ErrInvalid)
	assert.ErrorContains(t, err, f.Path()+": holds a run already; --resume goes on with it, --force removes it")

	g, err := Open(f.Path() + "/")
	require.NoError(t, err)
	assert.Equal(t, c, g.Config())
	records, err := g.Records()
	require.NoError(t, err)
	assert.Empty(t, records)
	require.ErrorIs(t, g.Lock(), ErrLocked)
	require.NoError(t, f.Close())
	require.NoError(t, f.Close(), "closing twice")
	require.NoError(t, g.Lock())
	require.NoError(t, g.Lock(), "locking twice")
	require.NoError(t, g.Close())

	// A folder that exists and is empty will do, and what a killed Create left.
	empty := t.TempDir()
	for range 2 {
		f, err = Create(empty, c, false)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.NoError(t, os.Remove(filepath.Join(empty, configName)))
		put(t, empty, ".config.yaml.0011223344556677.fortet-partial")
	}
}

// full is a folder with everything that a run may have.
func full(t testing.TB) string {
	t.Helper()
	f := stopped(t, config(t), 12)
	for _, name := range []string{
		f.Sample("a"), f.Plot("a.png"), f.Plot("b.svg"), f.Report(), f.PCA(), f.checkpointPath(20) + ".damaged",
		filepath.Join(f.Path(), ".metrics.jsonl.0011223344556677.fortet-partial"),
		filepath.Join(f.Path(), "samples", ".a.npy.0011223344556677.fortet-partial"),
	} {
		put(t, name)
	}
	require.NoError(t, f.Close())
	return f.Path()
}

func TestForceRemovesARun(t *testing.T) {
	path := full(t)
	c := config(t, "seed=8")
	f, err := Create(path, c, true)
	require.NoError(t, err)
	defer f.Close()
	got := listing(t, path)
	assert.Len(t, got, 2, "%v", got)
	assert.Contains(t, got[configName], "seed: 8\n")
	assert.Nil(t, latest(t, f))

	// A run of another version, which Open refuses, is a run too.
	text := strings.Replace(got[configName], "version: 1\n", "version: 99\n", 1)
	require.NotEqual(t, got[configName], text)
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile(filepath.Join(path, configName), []byte(text+"unheard: of\n"), 0o666))
	_, err = Open(path)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, filepath.Join(path, configName)+": config: version: got 99, want 1: another version of fortet wrote this")
	require.NotContains(t, err.Error(), "unheard")
	_, err = Create(path, c, false)
	require.ErrorIs(t, err, ErrExists)
	g, err := Create(path, c, true)
	require.NoError(t, err)
	require.NoError(t, g.Close())
}

// Where one thing in the folder is not a run's, force removes nothing at all.
func TestForceRemovesNothingElse(t *testing.T) {
	c := config(t)
	outside := t.TempDir()
	secret := put(t, outside, "secret.npy")
	link := func(t testing.TB, to, name string) {
		t.Helper()
		if err := os.Symlink(to, name); err != nil {
			t.Skip("this system makes no symbolic links: ", err)
		}
	}
	for _, test := range []struct {
		name string
		do   func(path string)
		want string
	}{
		{"a file", func(p string) { put(t, p, "thesis.tex") }, "thesis.tex"},
		{"a hidden file", func(p string) { put(t, p, ".bashrc") }, ".bashrc"},
		{"a file among samples", func(p string) { put(t, p, "samples", "notes.txt") }, "samples/notes.txt"},
		{"a file among plots", func(p string) { put(t, p, "plots", "a.npy") }, "plots/a.npy"},
		{"a file among checkpoints", func(p string) { put(t, p, "checkpoints", "final.safetensors") }, "checkpoints/final.safetensors"},
		{"a folder", func(p string) { put(t, p, "code", "main.go") }, "code"},
		{"an empty folder", func(p string) { require.NoError(t, os.Mkdir(filepath.Join(p, "code"), 0o777)) }, "code"},
		{"a folder among samples", func(p string) { put(t, p, "samples", "old", "a.npy") }, "samples/old"},
		{"a folder named as a sample", func(p string) { put(t, p, "samples", "a.npy.npy", "a.npy") }, "samples/a.npy.npy"},
		{"a link", func(p string) { link(t, secret, filepath.Join(p, "samples", "b.npy")) }, "samples/b.npy"},
		{"a link to a folder", func(p string) {
			require.NoError(t, os.RemoveAll(filepath.Join(p, "samples")))
			link(t, outside, filepath.Join(p, "samples"))
		}, "samples"},
		{"a link as the lock", func(p string) {
			require.NoError(t, os.Remove(filepath.Join(p, lockName)))
			link(t, secret, filepath.Join(p, lockName))
		}, ".lock"},
		{"no configuration", func(p string) { require.NoError(t, os.Remove(filepath.Join(p, configName))) }, "no run, want a new folder"},
		{"another configuration", func(p string) {
			require.NoError(t, os.WriteFile(filepath.Join(p, configName), []byte("server:\n  version: 1\n"), 0o666))
		}, "no run, want a new folder"},
		{"a link as the configuration", func(p string) {
			config := filepath.Join(p, configName)
			require.NoError(t, os.Rename(config, filepath.Join(outside, "config.yaml")))
			link(t, filepath.Join(outside, "config.yaml"), config)
		}, "no run, want a new folder"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := full(t)
			test.do(path)
			before, beside := listing(t, path), listing(t, outside)
			_, err := Create(path, c, true)
			require.ErrorIs(t, err, ErrInvalid)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, path)
			assert.Equal(t, before, listing(t, path))
			assert.Equal(t, beside, listing(t, outside))
		})
	}

	// A link to a run is no run to remove.
	path := full(t)
	before := listing(t, path)
	name := filepath.Join(t.TempDir(), "link")
	link(t, path, name)
	for _, n := range []string{name, name + "/"} {
		_, err := Create(n, c, true)
		require.ErrorContains(t, err, "is a symbolic link")
		_, err = Create(n, c, false)
		require.ErrorIs(t, err, ErrExists)
	}
	assert.Equal(t, before, listing(t, path))
}

func TestCreateRefuses(t *testing.T) {
	c := config(t)
	dir := t.TempDir()
	put(t, dir, "photos", "a.png")
	for _, force := range []bool{false, true} {
		_, err := Create(filepath.Join(dir, "photos"), c, force)
		require.ErrorIs(t, err, ErrInvalid)
		require.NotErrorIs(t, err, ErrExists)
		require.ErrorContains(t, err, "is not empty (a.png) and no run, want a new folder")
		_, err = Create(filepath.Join(dir, "photos", "a.png"), c, force)
		require.ErrorContains(t, err, "is a file, want a folder")
		_, err = Create(filepath.Join(dir, "photos", "a.png", "run"), c, force)
		var path *fs.PathError
		require.ErrorAs(t, err, &path)
	}
	assert.Len(t, listing(t, dir), 1)

	_, err := Create(filepath.Join(dir, "run"), Config{}, false)
	require.ErrorContains(t, err, "is not resolved")
	broken := c
	broken.Train.Batch = -1
	_, err = Create(filepath.Join(dir, "run"), broken, false)
	require.ErrorContains(t, err, "train.batch: got -1")
	assert.NoDirExists(t, filepath.Join(dir, "run"))
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, dir+": is no run")
	require.NoError(t, os.WriteFile(filepath.Join(dir, configName), []byte("train:\n  lr: 0.1\n"), 0o666))
	_, err = Open(dir)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "no version")
	require.NoError(t, os.WriteFile(filepath.Join(dir, configName), []byte("version: 1\nmethod: lightsb\n"), 0o666))
	_, err = Open(dir)
	require.ErrorContains(t, err, "data.source: missing")

	// A link in the place of the lock would be written through.
	f := newFolder(t, config(t))
	require.NoError(t, f.Close())
	lock := filepath.Join(f.Path(), lockName)
	require.NoError(t, os.Remove(lock))
	require.NoError(t, os.Symlink(configName, lock))
	require.ErrorContains(t, f.Lock(), "is not a regular file")
	g, err := Open(f.Path())
	require.NoError(t, err)
	require.Equal(t, f.Config(), g.Config())
}

// Folders that may not be written, and ones that vanish.
func TestUnwritableFolder(t *testing.T) {
	c := config(t)
	dev := device(t)
	if os.Geteuid() != 0 { // root may write anything
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o500))
		_, err := Create(filepath.Join(dir, "run"), c, false)
		require.ErrorIs(t, err, fs.ErrPermission)
		f := newFolder(t, c)
		checkpoints := filepath.Join(f.Path(), checkpointsName)
		require.NoError(t, os.Chmod(checkpoints, 0o500))
		_, err = Loop(t.Context(), f, newToy(t, dev, 3, c), Options{})
		require.ErrorIs(t, err, fs.ErrPermission)
		require.NoError(t, os.Chmod(checkpoints, 0o700))
	}
	f := newFolder(t, c)
	q := newToy(t, dev, 3, c)
	q.after = func(step int) {
		if step == 8 {
			require.NoError(t, os.Rename(filepath.Join(f.Path(), checkpointsName), filepath.Join(f.Path(), "moved")))
		}
	}
	_, err := Loop(t.Context(), f, q, Options{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, f.checkpointPath(10))
	require.NoError(t, os.Rename(filepath.Join(f.Path(), "moved"), filepath.Join(f.Path(), checkpointsName)))
	r, err := Loop(t.Context(), f, newToy(t, dev, 3, c), Options{From: latest(t, f)})
	require.NoError(t, err)
	assert.Equal(t, Done, r.Status)
	assert.Equal(t, train(t, dev, c), bytesOf(t, f))
	require.False(t, errors.Is(r.Err(), ErrCanceled))
}
