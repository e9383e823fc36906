package run

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
)

// member is one process of a group, as a test sees it.
type member struct {
	toy    *toy
	folder *Folder
	o      Options
	ctx    context.Context
	cancel context.CancelFunc
	r      *Result
	err    error
}

// group makes processes of which the first has a new folder.
func group(t *testing.T, n int, c Config) []*member {
	t.Helper()
	devs, all := make([]gpu.Device, n), make([]*member, n)
	for i := range n {
		devs[i] = device(t)
	}
	for i, g := range collective.Local(n, devs...) {
		m := &member{toy: newToy(t, devs[i], 3, c), folder: Follower(c), o: Options{Group: g}}
		m.ctx, m.cancel = canceling(t)
		all[i] = m
	}
	all[0].folder = newFolder(t, c)
	return all
}

// together runs all processes to their ends, which none may wait for in vain.
func together(t *testing.T, all []*member) {
	t.Helper()
	var wait sync.WaitGroup
	for _, m := range all {
		wait.Go(func() { m.r, m.err = Loop(m.ctx, m.folder, m.toy, m.o) })
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("somebody waits for ever")
	}
}

// A group leaves the files of one process, and all its processes the same state.
func TestGroup(t *testing.T) {
	c := config(t)
	want := train(t, device(t), c)
	for _, n := range []int{1, 2, 4} {
		all := group(t, n, c)
		together(t, all)
		for _, m := range all {
			require.NoError(t, m.err)
			require.NoError(t, m.r.Err())
			require.Equal(t, 23, m.r.Steps)
			require.Equal(t, all[0].toy.hx, m.toy.hx)
		}
		require.Equal(t, want, bytesOf(t, all[0].folder))
	}
}

// Whoever is interrupted, all stop after the same step, with one checkpoint; and
// go on from it, the followers with nothing but what process 0 sends them.
func TestGroupIsInterrupted(t *testing.T) {
	c := config(t, "log_every=1000", "checkpoint_every=1000", "steps=60")
	want := train(t, device(t), c)
	for _, who := range []int{0, 2} {
		for _, stop := range []int{0, 1, 30} {
			all := group(t, 3, c)
			for i, m := range all {
				m.toy.after = func(step int) {
					time.Sleep(time.Duration(5+i) * time.Millisecond) // of different speeds
					if i == who && step == stop {
						m.cancel()
					}
				}
			}
			if stop == 0 {
				all[who].cancel()
			}
			together(t, all)
			steps := all[0].r.Steps
			for _, m := range all {
				require.NoError(t, m.err)
				require.Equal(t, Canceled, m.r.Status)
				require.Equal(t, steps, m.r.Steps)
			}
			require.GreaterOrEqual(t, steps, stop)
			require.Less(t, steps, 60)
			if stop == 0 {
				require.Zero(t, steps)
			}
			f := reopen(t, all[0].folder)
			again := group(t, 3, c)
			again[0].folder, again[0].o.From = f, latest(t, f)
			together(t, again)
			for _, m := range again {
				require.NoError(t, m.err)
				require.NoError(t, m.r.Err())
			}
			require.Equal(t, want, bytesOf(t, f))
		}
	}
}

// One that cannot go on ends all, and only it says why.
func TestGroupFails(t *testing.T) {
	c := config(t)
	for _, test := range []struct {
		name   string
		broken int
		do     func(t *testing.T, m *member)
		want   string
	}{
		{"lock", 0, func(t *testing.T, m *member) { require.NoError(t, m.folder.Close()) }, "the lock is not held"},
		{"folder", 1, func(t *testing.T, m *member) { m.folder = newFolder(t, c) }, "want a Follower"},
		{"restore", 0, func(t *testing.T, m *member) { m.o.From = &Checkpoint{Path: "P", Step: 5} }, `array "x": missing`},
		{"disk", 0, func(t *testing.T, m *member) {
			m.toy.before = func(step int) error {
				if step == 9 {
					require.NoError(t, os.RemoveAll(filepath.Join(m.folder.Path(), checkpointsName)))
				}
				return nil
			}
		}, "step 10"},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := group(t, 3, c)
			test.do(t, all[test.broken])
			together(t, all)
			for i, m := range all {
				if i == test.broken {
					require.ErrorContains(t, m.err, test.want)
					require.NotErrorIs(t, m.err, ErrElsewhere)
				} else {
					require.ErrorIs(t, m.err, ErrElsewhere)
				}
				require.True(t, Known(m.err))
			}
		})
	}

	// In the middle of a step nobody can be told; who leaves the group, as a
	// process that ends does, ends the others.
	lost := group(t, 2, c)
	lost[1].toy.before = func(step int) error {
		if step == 9 {
			return errors.Join(errKilled, lost[1].o.Group.Close())
		}
		return nil
	}
	together(t, lost)
	require.ErrorIs(t, lost[1].err, errKilled)
	require.ErrorIs(t, lost[0].err, collective.ErrExchange)
	for _, m := range lost {
		require.False(t, Known(m.err))
	}
	require.Equal(t, 5, latest(t, lost[0].folder).Step)

	// Processes that do not train the same.
	all := group(t, 2, c)
	all[1].folder = Follower(config(t, "seed=8"))
	together(t, all)
	for _, m := range all {
		require.ErrorIs(t, m.err, ErrInvalid)
		require.ErrorContains(t, m.err, "process 1 of 2 trains another configuration")
	}
	all = group(t, 2, c)
	all[1].o.Fast = true
	together(t, all)
	require.ErrorIs(t, all[0].err, ErrInvalid)
	all = group(t, 2, c)
	all[1].toy = newToy(t, all[1].toy.x.Device(), 4, c)
	together(t, all)
	require.ErrorIs(t, all[0].err, ErrInvalid)

	_, err := Loop(t.Context(), Follower(c), newToy(t, device(t), 3, c), Options{})
	require.ErrorContains(t, err, "got a Follower")
}

// What is not finite on one process ends all.
func TestGroupDiverges(t *testing.T) {
	c := config(t)
	for _, who := range []int{0, 2} {
		all := group(t, 3, c)
		q := all[who].toy
		q.after = func(step int) {
			if step == 12 {
				q.loss = math.NaN()
			}
		}
		together(t, all)
		for _, m := range all {
			require.NoError(t, m.err)
			require.Equal(t, Diverged, m.r.Status)
			require.Equal(t, 12, m.r.Steps)
		}
		require.Contains(t, all[who].r.Reason, "step 12: the loss is NaN")
		require.Equal(t, 10, latest(t, all[0].folder).Step)
	}
}

func TestAgreeAndShare(t *testing.T) {
	const n = 3
	devs := make([]gpu.Device, n)
	for i := range devs {
		devs[i] = device(t)
	}
	before := devs[0].Memory().InUse
	boom := errors.New("boom")
	agreed, fine, shared := make([]error, n), make([]error, n), make([]string, n)
	var wait sync.WaitGroup
	for i, g := range collective.Local(n, devs...) {
		wait.Go(func() {
			var mine error
			var data []byte
			if i == 1 {
				mine = boom
			}
			if i == 0 {
				data = []byte("all of it")
			}
			agreed[i], fine[i] = Agree(g, devs[i], mine), Agree(g, devs[i], nil)
			got, err := Share(g, devs[i], data)
			assert.NoError(t, err)
			shared[i] = string(got)
		})
	}
	wait.Wait()
	require.ErrorIs(t, agreed[1], boom)
	for i := range n {
		if i != 1 {
			require.ErrorIs(t, agreed[i], ErrElsewhere)
			require.ErrorContains(t, agreed[i], "number 1 of 3")
		}
		require.NoError(t, fine[i])
		require.Equal(t, "all of it", shared[i])
	}
	require.Equal(t, before, devs[0].Memory().InUse)
	require.ErrorIs(t, Agree(nil, nil, boom), boom)
	alone, err := Share(nil, nil, []byte("x"))
	require.NoError(t, err)
	require.Equal(t, []byte("x"), alone)
}
