package run

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
	"github.com/fortet/fortet/tensor/safetensors"
)

// stopped is a run of 23 steps that was interrupted after a step.
func stopped(t testing.TB, c Config, step int) *Folder {
	t.Helper()
	f := newFolder(t, c)
	q := newToy(t, device(t), 3, c)
	ctx, cancel := canceling(t)
	q.after = func(s int) {
		if s == step {
			cancel()
		}
	}
	r, err := Loop(ctx, f, q, Options{})
	require.NoError(t, err)
	require.Equal(t, Canceled, r.Status)
	return f
}

func flip(t testing.TB, path string, at int, mask byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	b[at] ^= mask
	require.NoError(t, os.WriteFile(path, b, 0o666))
}

// rewrite stores the arrays of a checkpoint anew with other metadata. Unless
// the metadata say otherwise the checksum is right.
func rewrite(t testing.TB, path string, change map[string]string) {
	t.Helper()
	arrays, meta, err := safetensors.ReadFile(path)
	require.NoError(t, err)
	for k, v := range change {
		meta[k] = v
	}
	if _, given := change[checksumKey]; !given {
		meta[checksumKey], err = checksum(meta, arrays)
		require.NoError(t, err)
	}
	require.NoError(t, safetensors.WriteFile(path, arrays, meta))
}

// Whatever happens to the newest checkpoint, it is named, the one before it is
// used, and the run ends as if nothing had been.
func TestDamagedCheckpoint(t *testing.T) {
	dev, c := device(t), config(t)
	want := train(t, dev, c)
	for _, damage := range []struct {
		name string
		do   func(path string)
		want string
	}{
		{"empty", func(p string) { require.NoError(t, os.Truncate(p, 0)) }, "cut short"},
		{"cut", func(p string) { require.NoError(t, os.Truncate(p, 600)) }, "want"},
		{"bit in the header", func(p string) { flip(t, p, 70, 1) }, ""},
		{"bit in the data", func(p string) {
			info, err := os.Stat(p)
			require.NoError(t, err)
			flip(t, p, int(info.Size())-1, 0x80)
		}, "checksum: got"},
		{"version", func(p string) { rewrite(t, p, map[string]string{formatKey: "2"}) }, `format: got version "2", want 1`},
		{"no version", func(p string) { rewrite(t, p, map[string]string{formatKey: ""}) }, `format: got version "", want 1`},
		{"method", func(p string) { rewrite(t, p, map[string]string{methodKey: "lightsb-m"}) }, "method: got lightsb-m, want lightsb"},
		{"unknown method", func(p string) { rewrite(t, p, map[string]string{methodKey: "x"}) }, `method: got "x", want one of lightsb,`},
		{"step", func(p string) { rewrite(t, p, map[string]string{stepKey: "13"}) }, "step: got 13, want 12 as the name says"},
		{"no step", func(p string) { rewrite(t, p, map[string]string{stepKey: "-1"}) }, `step: got "-1"`},
		{"checksum", func(p string) { rewrite(t, p, map[string]string{checksumKey: "0"}) }, "checksum: got"},
		{"nonsense", func(p string) { require.NoError(t, os.WriteFile(p, []byte("nonsense"), 0o666)) }, ""},
	} {
		t.Run(damage.name, func(t *testing.T) {
			f := stopped(t, c, 12)
			path := f.checkpointPath(12)
			damage.do(path)
			f = reopen(t, f)
			from, damaged, err := f.Latest()
			require.NoError(t, err)
			require.Len(t, damaged, 1)
			assert.Equal(t, path, damaged[0].Path)
			require.ErrorContains(t, damaged[0].Err, path)
			require.ErrorContains(t, damaged[0].Err, damage.want)
			require.True(t, errors.Is(damaged[0].Err, ErrInvalid) || errors.Is(damaged[0].Err, npy.ErrFormat))
			require.Equal(t, f.checkpointPath(10), from.Path)
			require.Equal(t, 10, from.Step)

			_, err = Loop(t.Context(), f, newToy(t, dev, 3, c), Options{From: from})
			require.NoError(t, err)
			got := bytesOf(t, f)
			aside := filepath.Join(checkpointsName, "step-000000012.safetensors.damaged")
			require.Contains(t, got, aside, "the damaged checkpoint is for its owner to remove")
			delete(got, aside)
			assert.Equal(t, want, got)
		})
	}
}

func TestAllCheckpointsDamaged(t *testing.T) {
	c := config(t)
	f := stopped(t, c, 12)
	for _, step := range []int{5, 10, 12} {
		require.NoError(t, os.Truncate(f.checkpointPath(step), 20))
	}
	from, damaged, err := f.Latest()
	require.ErrorIs(t, err, ErrNoCheckpoint)
	assert.Nil(t, from)
	require.Len(t, damaged, 3)
	for i, step := range []int{12, 10, 5} {
		assert.Equal(t, f.checkpointPath(step), damaged[i].Path)
		assert.ErrorContains(t, err, f.checkpointPath(step))
	}
	_, err = Loop(t.Context(), f, newToy(t, device(t), 3, c), Options{})
	require.ErrorContains(t, err, "holds checkpoints", "must not begin anew by itself")
}

// What only looks like a checkpoint is none.
func TestOtherFilesAmongCheckpoints(t *testing.T) {
	f := stopped(t, config(t), 12)
	dir := filepath.Join(f.Path(), checkpointsName)
	for _, name := range []string{"step-99.safetensors", "step-000000099.safetensors.damaged", ".step-000000098.safetensors.0011223344556677.fortet-partial", "last.safetensors"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o666))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "step-000000097.safetensors"), 0o777))
	assert.Equal(t, 12, latest(t, f).Step)
	require.NoError(t, os.RemoveAll(dir))
	assert.Nil(t, latest(t, f))
}

// encoded is a checkpoint of a state of all element types.
func encoded(t testing.TB) []byte {
	t.Helper()
	dev := device(t)
	var state []Named
	add := func(name string, a tensor.Tensor, err error) {
		require.NoError(t, err)
		t.Cleanup(a.Free)
		state = append(state, Named{name, a})
	}
	a, err := tensor.From(dev, []float32{1, 2, 3}, 3)
	add("f32", a, err)
	a, err = tensor.From(dev, []float64{-1e300, 5}, 1, 2)
	add("f64", a, err)
	a, err = tensor.From(dev, []int32{-7}, 1)
	add("i32", a, err)
	a, err = tensor.From(dev, []uint32{7}, 1)
	add("u32", a, err)
	a, err = tensor.From(dev, []int64{1 << 40}, 1)
	add("i64", a, err)
	a, err = tensor.New(dev, tensor.Float32, 0, 4)
	add("empty", a, err)
	s, err := newSnapshot(state)
	require.NoError(t, err)
	bad, err := s.take()
	require.NoError(t, err)
	require.Empty(t, bad)
	path := filepath.Join(t.TempDir(), "c")
	require.NoError(t, s.write(path, LightSBM, 120))
	b, err := os.ReadFile(path)
	require.NoError(t, err)

	// While we are here: it restores.
	c, err := ReadCheckpoint(path)
	require.NoError(t, err)
	assert.Equal(t, 120, c.Step)
	assert.Equal(t, LightSBM, c.Method)
	for name, want := range map[string][]float64{"f32": {1, 2, 3}, "f64": {-1e300, 5}, "i32": {-7}, "u32": {7}, "i64": {1 << 40}, "empty": {}} {
		got, err := c.Floats(name)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err = c.Floats("none")
	require.ErrorIs(t, err, ErrInvalid)
	assert.ErrorContains(t, err, path+`: array "none": missing`)
	for _, n := range state {
		require.NoError(t, upload(n.Tensor, blank(t, n.Tensor).Data))
	}
	require.NoError(t, c.Restore(state))
	again, err := newSnapshot(state)
	require.NoError(t, err)
	_, err = again.take()
	require.NoError(t, err)
	require.Equal(t, s.arrays, again.arrays)
	require.Equal(t, []float32{1, 2, 3}, again.arrays["f32"].Data)
	return b
}

func blank(t testing.TB, x tensor.Tensor) *npy.Array {
	t.Helper()
	a, err := newArray(x)
	require.NoError(t, err)
	return a
}

// No single bit and no byte of a checkpoint can be wrong unnoticed.
func TestEveryBitIsChecked(t *testing.T) {
	good := encoded(t)
	_, err := decodeCheckpoint(bytes.NewReader(good), int64(len(good)))
	require.NoError(t, err)
	b := slices.Clone(good)
	for i := range b {
		for _, mask := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			b[i] ^= mask
			if _, err := decodeCheckpoint(bytes.NewReader(b), int64(len(b))); err == nil {
				t.Errorf("byte %d (%q) xor %d went unnoticed", i, good[i], mask)
			}
			b[i] ^= mask
		}
	}
	for n := range good {
		if _, err := decodeCheckpoint(bytes.NewReader(good[:n]), int64(n)); err == nil {
			t.Errorf("a cut after %d bytes went unnoticed", n)
		}
	}
	longer := append(good, 0)
	_, err = decodeCheckpoint(bytes.NewReader(longer), int64(len(longer)))
	require.ErrorIs(t, err, npy.ErrFormat)
}

func FuzzCheckpoint(f *testing.F) {
	good := encoded(f)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(bytes.Replace(good, []byte(`"120"`), []byte(`"121"`), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCheckpoint(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, npy.ErrFormat) {
				t.Fatalf("neither invalid nor malformed: %v", err)
			}
			return
		}
		if c.Step < 1 || c.Method < 1 {
			t.Fatalf("%+v", c)
		}
		if err := c.Restore(nil); (err == nil) != (len(c.arrays) == 0) {
			t.Fatal(err)
		}
	})
}

// Equal states give equal files: no time, no path, no host is in them.
func TestCheckpointsAreReproducible(t *testing.T) {
	assert.Equal(t, encoded(t), encoded(t))
	assert.False(t, strings.Contains(string(encoded(t)), t.TempDir()))
}
