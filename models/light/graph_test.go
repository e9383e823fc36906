package light_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/models/light"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor/npy"
)

var methods = []run.Method{run.LightSB, run.LightSBM, run.LightSBB, run.LightSBBM}

// files are two small data sets: certificates of generators are estimated from
// many rows, which takes the emulation minutes.
func files(t *testing.T) []string {
	t.Helper()
	var settings []string
	for key, uri := range map[string]string{"data.source": "normal", "data.target": "moons"} {
		set, err := dataset.Open(uri)
		require.NoError(t, err)
		points, err := set.Sample(100, 1)
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "x.npy")
		require.NoError(t, npy.WriteFile(path, npy.New(points.X, points.N, points.D)))
		settings = append(settings, key+"=npy:"+path)
	}
	return append(settings, "train.batch=40", "light.components=3")
}

// begin makes the folder of a run.
func begin(t *testing.T, method run.Method, settings ...string) *run.Folder {
	t.Helper()
	var c run.Config
	for _, s := range append([]string{"device=cpu"}, settings...) {
		require.NoError(t, c.Set(s))
	}
	require.NoError(t, c.Resolve(method))
	require.NoError(t, light.Check(c))
	f, err := run.Create(filepath.Join(t.TempDir(), "run"), c, false)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// state is what a run leaves that does not depend on the clock: checkpoints and
// metrics.
func state(t *testing.T, f *run.Folder) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(f.Path(), func(path string, d fs.DirEntry, err error) error {
		if name := d.Name(); err != nil || d.IsDir() || name == "times.jsonl" || name == ".lock" {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(f.Path(), path)
		all[name] = string(b)
		return err
	}))
	require.Greater(t, len(all), 2)
	return all
}

// launching is a device that cannot record.
type launching struct{ gpu.Device }

func (launching) Record(func() error) (gpu.Graph, error) {
	return nil, fmt.Errorf("record: %w", gpu.ErrUnsupported)
}

// Steps that are replayed end where steps that are launched do, bit for bit:
// with all that an optimiser can do, and a rate that changes in every step.
func TestGraph(t *testing.T) {
	sets := append(files(t), "train.steps=5", "train.log_every=1", "light.outer=2", "train.checkpoint_every=2")
	busy := []string{"train.lr=0.05", "train.schedule=cosine", "train.warmup=2", "train.clip=0.3", "train.ema=0.9", "train.weight_decay=0.01"}
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		all := [][]string{busy, append([]string{"light.covariance=full", "dtype=f64"}, busy...), nil}
		if dev.Properties().Kind == gpu.Emulation {
			all = all[:1] // it is slow
		}
		for _, method := range methods {
			for _, settings := range all {
				settings = append(settings, sets...)
				replayed, launched := begin(t, method, settings...), begin(t, method, settings...)
				r, err := light.Train(t.Context(), dev.Device, replayed, run.Options{})
				require.NoError(t, err)
				require.NoError(t, r.Err())
				_, err = light.Train(t.Context(), launching{dev.Device}, launched, run.Options{})
				require.NoError(t, err)
				require.Equal(t, state(t, launched), state(t, replayed), "%v: %v", method, settings)
			}
		}
	})
}

// After the second step there is one replay a step, and nothing else.
func TestStepsAreReplays(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	sets := files(t)
	for _, method := range methods {
		for _, covariance := range []string{"diagonal", "full"} {
			counts := func(steps int) fake.Counts {
				counting := fake.New(dev, fake.Fail{})
				f := begin(t, method, append(sets, fmt.Sprintf("train.steps=%d", steps), "train.log_every=1000", "train.checkpoint_every=1000",
					"light.outer=2", "light.covariance="+covariance)...)
				_, err := light.Train(t.Context(), counting, f, run.Options{})
				require.NoError(t, err)
				return counting.Counts()
			}
			few, many := counts(10), counts(250)
			require.Equal(t, 9, few.Replay)
			require.Equal(t, 249, many.Replay)
			require.Equal(t, 1, many.Record)
			require.Equal(t, few.Launch, many.Launch)
			if covariance == "diagonal" { // of full ones the host turns the axes
				require.Equal(t, few.Upload, many.Upload)
			}
		}
	}
}

// A run that is interrupted after any step, and goes on, leaves what the
// uninterrupted one does: also where the device's table of rates begins anew.
func TestResume(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	sets := append(files(t), "train.log_every=1", "light.outer=3", "train.schedule=cosine", "train.ema=0.9", "train.keep=1")
	check := func(method run.Method, steps int, stops ...int) {
		settings := append(sets, fmt.Sprintf("train.steps=%d", steps))
		whole := begin(t, method, settings...)
		_, err := light.Train(t.Context(), dev, whole, run.Options{})
		require.NoError(t, err)
		want := state(t, whole)
		for _, stop := range stops {
			f := begin(t, method, settings...)
			ctx, cancel := context.WithCancel(t.Context())
			r, err := light.Train(ctx, dev, f, run.Options{Progress: func(p run.Progress) {
				if p.Step == stop {
					cancel()
				}
			}})
			cancel()
			require.NoError(t, err)
			require.ErrorIs(t, r.Err(), run.ErrCanceled)
			require.Equal(t, stop, r.Steps)
			from, _, err := f.Latest()
			require.NoError(t, err)
			_, err = light.Train(t.Context(), dev, f, run.Options{From: from})
			require.NoError(t, err)
			require.Equal(t, want, state(t, f), "%v, stopped after %d", method, stop)
		}
	}
	for _, method := range methods {
		check(method, 7, 1, 2, 3, 4, 5, 6)
	}
	check(run.LightSB, 515, 255, 256, 257, 512)
}

// Whatever call of the device fails in a step, the run says so and goes on from
// its last checkpoint to where the one without a failure ends.
func TestStepFails(t *testing.T) {
	cpu, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer cpu.Close()
	settings := append(files(t), "train.steps=6", "train.checkpoint_every=2")
	whole := begin(t, run.LightSBB, settings...)
	_, err = light.Train(t.Context(), cpu, whole, run.Options{})
	require.NoError(t, err)
	want := state(t, whole)
	before := cpu.Memory().InUse
	for _, fail := range []fake.Fail{{Launch: 5}, {Record: 1}, {Launch: 15}, {Replay: 1}, {Replay: 3}} {
		f := begin(t, run.LightSBB, settings...)
		_, err := light.Train(t.Context(), fake.New(cpu, fail), f, run.Options{})
		require.ErrorIs(t, err, gpu.ErrLaunch, "%+v", fail)
		require.Equal(t, before, cpu.Memory().InUse, "%+v", fail)
		from, _, err := f.Latest()
		if !errors.Is(err, run.ErrNoCheckpoint) {
			require.NoError(t, err)
		}
		_, err = light.Train(t.Context(), cpu, f, run.Options{From: from})
		require.NoError(t, err)
		require.Equal(t, want, state(t, f), "%+v", fail)
	}
}
