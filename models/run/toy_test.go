package run

import (
	"context"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

func device(t testing.TB) gpu.Device {
	t.Helper()
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dev.Close()) })
	return dev
}

// toy minimises ½|x - c|² with noisy gradients by Adam. Its moments and
// parameters live on the device, and count, an integer, shows that other types
// are saved too.
type toy struct {
	x, m, v, count tensor.Tensor
	seed           uint64
	schedule       Schedule

	hx, hm, hv []float64
	hcount     []int64
	loss       float64
	restored   int

	before func(step int) error // runs first in a Step
	after  func(step int)       // runs last
}

func newToy(t testing.TB, dev gpu.Device, n int, c Config) *toy {
	t.Helper()
	q := &toy{
		seed: c.Seed, schedule: c.Train.Schedule(),
		hx: make([]float64, n), hm: make([]float64, n), hv: make([]float64, n), hcount: make([]int64, 1),
		before: func(int) error { return nil }, after: func(int) {},
	}
	array := func(shape ...int) tensor.Tensor {
		a, err := tensor.FromFloat64s(dev, tensor.Float64, make([]float64, n), shape...)
		require.NoError(t, err)
		t.Cleanup(a.Free)
		return a
	}
	q.x, q.m, q.v = array(n), array(1, n), array(n)
	var err error
	q.count, err = tensor.From(dev, q.hcount)
	require.NoError(t, err)
	t.Cleanup(q.count.Free)
	return q
}

func (q *toy) Step(step int) error {
	if err := q.before(step); err != nil {
		return err
	}
	for _, a := range []struct {
		t tensor.Tensor
		h []float64
	}{{q.x, q.hx}, {q.m, q.hm}, {q.v, q.hv}} {
		if err := tensor.Get(a.t, a.h); err != nil {
			return err
		}
	}
	if err := tensor.Get(q.count, q.hcount); err != nil {
		return err
	}
	q.hcount[0]++
	q.loss = 0
	k := float64(q.hcount[0]) // not step: a resume must bring it back
	noise := float64((q.seed + uint64(step)*2654435761) % 1000)
	for i := range q.hx {
		g := q.hx[i] - float64(i+1) + 1e-3*noise
		q.loss += g * g / 2
		q.hm[i] += 0.1 * (g - q.hm[i])
		q.hv[i] += 0.001 * (g*g - q.hv[i])
		m, v := q.hm[i]/(1-math.Pow(0.9, k)), q.hv[i]/(1-math.Pow(0.999, k))
		q.hx[i] -= q.schedule.Rate(step) * m / (math.Sqrt(v) + 1e-8)
	}
	if err := tensor.Set(q.x, q.hx); err != nil {
		return err
	}
	if err := tensor.Set(q.m, q.hm); err != nil {
		return err
	}
	if err := tensor.Set(q.v, q.hv); err != nil {
		return err
	}
	if err := tensor.Set(q.count, q.hcount); err != nil {
		return err
	}
	q.after(step)
	return nil
}

func (q *toy) Loss() (float64, error) { return q.loss, nil }

func (q *toy) Metrics(step int) ([]Metric, error) {
	return []Metric{{"gradient_norm", math.Sqrt(2 * q.loss)}, {"rate", q.schedule.Rate(step)}}, nil
}

func (q *toy) State() []Named {
	return []Named{{"x", q.x}, {"adam.m", q.m}, {"adam.v", q.v}, {"count", q.count}}
}

func (q *toy) Restored() error {
	q.restored++
	return nil
}

// config is resolved: 23 steps, logged at 3, 6, … 21 and 23, with checkpoints
// at 5, 10, 15, 20 and 23, of which the last 2 stay.
func config(t testing.TB, set ...string) Config {
	t.Helper()
	var c Config
	for _, s := range append([]string{
		"source=moons", "target=8gaussians", "seed=7", "steps=23", "log_every=3", "checkpoint_every=5", "keep=2",
		"lr=0.1", "schedule=cosine", "warmup=4",
	}, set...) {
		require.NoError(t, c.Set(s))
	}
	require.NoError(t, c.Resolve(LightSB))
	return c
}

func newFolder(t testing.TB, c Config) *Folder {
	t.Helper()
	f, err := Create(filepath.Join(t.TempDir(), "run"), c, false)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// reopen opens and locks a folder anew, as the next process would.
func reopen(t testing.TB, f *Folder) *Folder {
	t.Helper()
	require.NoError(t, f.Close())
	g, err := Open(f.Path())
	require.NoError(t, err)
	require.NoError(t, g.Lock())
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	return g
}

// latest is the checkpoint that a resume begins from, nil for none.
func latest(t testing.TB, f *Folder) *Checkpoint {
	t.Helper()
	c, damaged, err := f.Latest()
	require.Empty(t, damaged)
	if err != nil {
		require.ErrorIs(t, err, ErrNoCheckpoint)
	}
	return c
}

// train runs a toy to the end in a new folder and returns the folder's bytes.
func train(t testing.TB, dev gpu.Device, c Config) map[string]string {
	t.Helper()
	f := newFolder(t, c)
	r, err := Loop(t.Context(), f, newToy(t, dev, 3, c), Options{})
	require.NoError(t, err)
	require.NoError(t, r.Err())
	return bytesOf(t, f)
}

// bytesOf is all that two runs must agree in.
func bytesOf(t testing.TB, f *Folder) map[string]string {
	t.Helper()
	all := listing(t, f.Path())
	delete(all, timesName)
	delete(all, lockName)
	return all
}

// listing is the content of every file below a folder; links are not followed.
func listing(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			to, err := os.Readlink(path)
			all[name] = "-> " + to
			return err
		}
		b, err := os.ReadFile(path)
		all[name] = string(b)
		return err
	}))
	return all
}

// canceling is a context that ends when its function is called.
func canceling(t testing.TB) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}
