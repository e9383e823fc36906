package light_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/models/light"
	"github.com/fortet/fortet/models/run"
)

// ended is how a process of a group ended.
type ended struct {
	r   *run.Result
	err error
}

// shared trains the run in f by processes on devices, and answers how each
// ended; each sees its options before.
func shared(t *testing.T, f *run.Folder, devs []gpu.Device, with func(rank int, o *run.Options) context.Context) []ended {
	t.Helper()
	all := make([]ended, len(devs))
	var wait sync.WaitGroup
	for i, g := range collective.Local(len(devs), devs...) {
		folder, o := run.Follower(f.Config()), run.Options{Group: g}
		if i == 0 {
			folder = f
		}
		ctx := with(i, &o)
		wait.Go(func() {
			r, err := light.Train(ctx, devs[i], folder, o)
			all[i] = ended{r, err}
		})
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("somebody waits for ever")
	}
	return all
}

func cpus(t *testing.T, n int) []gpu.Device {
	t.Helper()
	devs := make([]gpu.Device, n)
	for i := range devs {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 1})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, dev.Close()) })
		devs[i] = dev
	}
	return devs
}

// Any number of processes leaves what one does, bit for bit.
func TestProcesses(t *testing.T) {
	sets := append(files(t), "train.steps=6", "train.log_every=1", "train.checkpoint_every=3", "light.outer=2",
		"train.schedule=cosine", "train.clip=0.3", "train.ema=0.9", "train.lr=0.05")
	plain := func(int, *run.Options) context.Context { return t.Context() }
	for _, method := range methods {
		for _, c := range []struct {
			sizes    []int
			settings []string
		}{
			{[]int{1, 2, 4}, []string{"train.batch=128"}},
			{[]int{3}, []string{"train.batch=192"}},
			{[]int{2, 4}, []string{"train.batch=256", "light.covariance=full", "dtype=f64"}},
		} {
			alone := begin(t, method, append(sets, c.settings...)...)
			whole, err := light.Train(t.Context(), cpus(t, 1)[0], alone, run.Options{})
			require.NoError(t, err)
			want := state(t, alone)
			for _, n := range c.sizes {
				f := begin(t, method, append(sets, c.settings...)...)
				devs := cpus(t, n)
				devs[n-1] = launching{devs[n-1]} // one that cannot record is as good
				all := shared(t, f, devs, plain)
				for _, e := range all {
					require.NoError(t, e.err)
					require.NoError(t, e.r.Err())
				}
				require.Equal(t, want, state(t, f), "%v, %d processes, %v", method, n, c.settings)
				require.Equal(t, whole.Metrics, all[0].r.Metrics)
			}
		}
	}
}

// The emulation's processes exchange between two graphs as those of the CPU do.
func TestProcessesOnDevices(t *testing.T) {
	sets := append(files(t), "train.steps=4", "train.batch=64", "dtype=f64")
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		alone, f := begin(t, run.LightSBB, sets...), begin(t, run.LightSBB, sets...)
		_, err := light.Train(t.Context(), dev.Device, alone, run.Options{})
		require.NoError(t, err)
		other, err := dev.Stream()
		require.NoError(t, err)
		defer func() { require.NoError(t, other.Close()) }()
		for _, e := range shared(t, f, []gpu.Device{dev.Device, other}, func(int, *run.Options) context.Context { return t.Context() }) {
			require.NoError(t, e.err)
		}
		require.Equal(t, state(t, alone), state(t, f))
	})
}

// A step of processes is two replays beside the exchange.
func TestProcessesReplay(t *testing.T) {
	cpus := cpus(t, 2)
	counts := func(steps string) fake.Counts {
		counting := fake.New(cpus[0], fake.Fail{})
		f := begin(t, run.LightSBM, append(files(t), "train.batch=64", "train.steps="+steps)...)
		for _, e := range shared(t, f, []gpu.Device{counting, cpus[1]}, func(int, *run.Options) context.Context { return t.Context() }) {
			require.NoError(t, e.err)
		}
		return counting.Counts()
	}
	few, many := counts("5"), counts("200")
	require.Equal(t, 2*4, few.Replay)
	require.Equal(t, 2*199, many.Replay)
	require.Equal(t, few.Launch, many.Launch)
}

// Summed gradients are those of one process but for their rounding, which the
// steps then carry on; all processes agree to the bit, or the checkpoint could
// not be resumed by any number of them. Batches may be cut unequally.
func TestFastSum(t *testing.T) {
	sets := append(files(t), "train.steps=6", "train.log_every=1", "train.batch=101", "dtype=f64", "train.lr=0.05")
	for _, method := range methods {
		for _, covariance := range []string{"diagonal", "full"} {
			settings := append(sets, "light.covariance="+covariance)
			alone := begin(t, method, settings...)
			want, err := light.Train(t.Context(), cpus(t, 1)[0], alone, run.Options{})
			require.NoError(t, err)
			f := begin(t, method, settings...)
			all := shared(t, f, cpus(t, 3), func(_ int, o *run.Options) context.Context {
				o.Fast = true
				return t.Context()
			})
			for _, e := range all {
				require.NoError(t, e.err)
			}
			for _, name := range []string{"loss", "gradient_norm", "dual"} {
				x := metric(t, want.Metrics, name)
				require.InDelta(t, x, metric(t, all[0].r.Metrics, name), 1e-9*(1+math.Abs(x)), "%v %s", method, name)
			}
		}
	}
}

// What cannot be cut without a change of bits is refused by all processes.
func TestProcessesRefuse(t *testing.T) {
	for _, c := range []struct {
		n        int
		fast     bool
		settings []string
		want     string
	}{
		{2, false, []string{"train.batch=100"}, "batch of 100 rows in 2 processes: want a multiple of 64 of at most 4096, or the fast sum"},
		{2, false, []string{"train.batch=8192"}, "of at most 4096"},
		{3, false, []string{"train.batch=192", "dtype=f64"}, "want a power of two of processes in float64, or the fast sum"},
		{3, true, []string{"train.batch=2"}, "want a row for each"},
	} {
		f := begin(t, run.LightSB, append(append(files(t), "train.steps=3"), c.settings...)...)
		devs := cpus(t, c.n)
		for _, e := range shared(t, f, devs, func(_ int, o *run.Options) context.Context {
			o.Fast = c.fast
			return t.Context()
		}) {
			require.ErrorContains(t, e.err, c.want)
		}
		for _, dev := range devs {
			require.Zero(t, dev.Memory().InUse)
		}
	}
}

// Interrupted in one process, a run goes on with more of them, or one, to the
// end of the one that was left alone; principal components come from process 0.
func TestProcessesResume(t *testing.T) {
	digits := []string{"data.source=digits?class=3", "data.target=digits?class=8", "data.pca=4"}
	for _, c := range []struct {
		method   run.Method
		settings []string
	}{{run.LightSBBM, files(t)}, {run.LightSB, digits}} {
		settings := append(c.settings, "train.batch=128", "train.steps=12", "train.log_every=1", "train.keep=1", "light.components=3", "light.outer=3", "train.ema=0.9")
		alone := begin(t, c.method, settings...)
		_, err := light.Train(t.Context(), cpus(t, 1)[0], alone, run.Options{})
		require.NoError(t, err)
		want := state(t, alone)
		for _, then := range []int{1, 2, 4} {
			f := begin(t, c.method, settings...)
			all := shared(t, f, cpus(t, 2), func(rank int, o *run.Options) context.Context {
				ctx, cancel := context.WithCancel(t.Context())
				t.Cleanup(cancel)
				o.Progress = func(p run.Progress) {
					if rank == 1 && p.Step == 5 {
						cancel()
					}
				}
				return ctx
			})
			for _, e := range all {
				require.NoError(t, e.err)
				require.ErrorIs(t, e.r.Err(), run.ErrCanceled)
				require.Equal(t, 5, e.r.Steps)
			}
			from, _, err := f.Latest()
			require.NoError(t, err)
			for _, e := range shared(t, f, cpus(t, then), func(rank int, o *run.Options) context.Context {
				if rank == 0 {
					o.From = from
				}
				return t.Context()
			}) {
				require.NoError(t, e.err)
			}
			require.Equal(t, want, state(t, f), "%v, gone on with %d", c.method, then)
		}
	}
}

// One that cannot begin ends all.
func TestProcessesFailAtTheStart(t *testing.T) {
	for _, alloc := range []int{2, 5, 9, 13} { // the first is that of the exchange itself
		devs := cpus(t, 2)
		failing := fake.New(devs[1], fake.Fail{Alloc: alloc})
		f := begin(t, run.LightSBM, append(files(t), "train.batch=64", "train.steps=2")...)
		all := shared(t, f, []gpu.Device{devs[0], failing}, func(int, *run.Options) context.Context { return t.Context() })
		require.ErrorIs(t, all[1].err, gpu.ErrOutOfMemory, "allocation %d", alloc)
		require.ErrorIs(t, all[0].err, run.ErrElsewhere)
	}
}
