package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

func TestUninterruptedRun(t *testing.T) {
	c := config(t)
	dev := device(t)
	f := newFolder(t, c)
	q := newToy(t, dev, 3, c)
	var seen []int
	r, err := Loop(t.Context(), f, q, Options{Progress: func(p Progress) {
		if p.Step%3 == 0 || p.Step == 23 {
			seen = append(seen, p.Step)
		}
		assert.Equal(t, 23, p.Steps)
		assert.True(t, finite(p.Loss) && p.Seconds >= 0)
	}})
	require.NoError(t, err)
	require.NoError(t, r.Err())
	assert.Equal(t, []int{3, 6, 9, 12, 15, 18, 21, 23}, seen)
	assert.Equal(t, Done, r.Status)
	assert.Equal(t, 23, r.Steps)
	assert.Equal(t, f.checkpointPath(23), r.Checkpoint)
	assert.Positive(t, r.Seconds)
	require.Len(t, r.Metrics, 3)
	assert.Equal(t, Metric{"loss", q.loss}, r.Metrics[0])
	assert.Zero(t, q.restored)

	records, err := f.Records()
	require.NoError(t, err)
	require.Len(t, records, 8)
	for i, record := range records {
		assert.Equal(t, seen[i], record.Step)
		assert.Equal(t, "gradient_norm", record.Metrics[1].Name)
	}
	assert.Equal(t, r.Metrics, records[7].Metrics)
	assert.Less(t, records[7].Metrics[0].Value, records[0].Metrics[0].Value/2, "the toy should learn")
	assert.Equal(t, []string{
		".lock", "checkpoints/step-000000020.safetensors", "checkpoints/step-000000023.safetensors",
		"config.yaml", "metrics.jsonl", "times.jsonl",
	}, slices.Sorted(maps.Keys(listing(t, f.Path()))))

	// What the program prints.
	r.Run, r.Seconds, r.Checkpoint = "DIR", 1.5, "C"
	r.Metrics = Metrics{{"dual", 0.25}, {"gap", math.NaN()}}
	text, err := json.Marshal(r)
	require.NoError(t, err)
	assert.JSONEq(t, `{"run":"DIR","method":"lightsb","status":"done","steps":23,"seconds":1.5,"metrics":{"dual":0.25,"gap":null},"checkpoint":"C"}`, string(text))
}

func TestStatusWordsAreTheSolvers(t *testing.T) {
	assert.Equal(t, solver.Canceled.String(), Canceled.String())
	assert.Equal(t, solver.Diverged.String(), Diverged.String())
	assert.Equal(t, "Status(7)", Status(7).String())
}

var errKilled = errors.New("killed")

// A run that is killed in any step, or interrupted after it, ends with the very
// files of the run that was left alone.
func TestResumeAfterEveryStep(t *testing.T) {
	dev := device(t)
	few := []int{1, 5, 12, 22, 23}
	all := make([]int, 23)
	for i := range all {
		all[i] = i + 1
	}
	for _, test := range []struct {
		c     Config
		stops []int
	}{
		{config(t), all}, {config(t, "keep=1"), few},
		{config(t, "checkpoint_every=1", "log_every=1", "keep=3"), few}, {config(t, "checkpoint_every=23", "log_every=23"), few},
	} {
		c := test.c
		want := train(t, dev, c)
		for _, stop := range test.stops {
			for _, kill := range []bool{true, false} {
				f := newFolder(t, c)
				q := newToy(t, dev, 3, c)
				ctx, cancel := canceling(t)
				if kill {
					q.before = func(step int) error {
						if step == stop {
							return errKilled
						}
						return nil
					}
				} else {
					q.after = func(step int) {
						if step == stop {
							cancel()
						}
					}
				}
				r, err := Loop(ctx, f, q, Options{})
				switch {
				case kill:
					require.ErrorIs(t, err, errKilled)
					require.ErrorContains(t, err, fmt.Sprintf("step %d", stop))
				case stop < c.Train.Steps:
					require.NoError(t, err)
					require.Equal(t, Canceled, r.Status)
					require.Equal(t, stop, r.Steps)
					require.Equal(t, f.checkpointPath(stop), r.Checkpoint)
					require.ErrorIs(t, r.Err(), ErrCanceled)
					require.ErrorContains(t, r.Err(), f.checkpointPath(stop))
				default:
					require.NoError(t, err)
					require.Equal(t, Done, r.Status)
				}
				f = reopen(t, f)
				q = newToy(t, dev, 3, c)
				from := latest(t, f)
				r, err = Loop(t.Context(), f, q, Options{From: from})
				require.NoError(t, err)
				require.NoError(t, r.Err())
				require.Equal(t, from != nil, q.restored == 1)
				require.Equal(t, want, bytesOf(t, f), "stopped at %d, kill %v", stop, kill)
			}
		}
	}
}

// Interrupted again and again, also before the first step of a session.
func TestResumeManyTimes(t *testing.T) {
	dev, c := device(t), config(t)
	want := train(t, dev, c)
	f := newFolder(t, c)
	steps := 0
	for session := 0; ; session++ {
		require.Less(t, session, 50)
		q := newToy(t, dev, 3, c)
		ctx, cancel := canceling(t)
		made := 0
		q.after = func(int) {
			if made++; made == session%3 {
				cancel()
			}
		}
		if session%3 == 0 {
			cancel()
		}
		r, err := Loop(ctx, f, q, Options{From: latest(t, f)})
		require.NoError(t, err)
		require.Equal(t, steps+made, r.Steps)
		steps = r.Steps
		if r.Status == Done {
			break
		}
		require.Equal(t, Canceled, r.Status)
		f = reopen(t, f)
	}
	assert.Equal(t, want, bytesOf(t, f))

	// A run that is done has nothing left to do.
	f = reopen(t, f)
	q := newToy(t, dev, 3, c)
	q.before = func(int) error { return errKilled }
	r, err := Loop(t.Context(), f, q, Options{From: latest(t, f)})
	require.NoError(t, err)
	assert.Equal(t, Done, r.Status)
	assert.Len(t, r.Metrics, 3)
	assert.Equal(t, want, bytesOf(t, f))
}

func TestSecondsGoOn(t *testing.T) {
	dev, c := device(t), config(t)
	f := newFolder(t, c)
	q := newToy(t, dev, 3, c)
	ctx, cancel := canceling(t)
	q.after = func(step int) {
		if step == 10 {
			cancel()
		}
	}
	_, err := Loop(ctx, f, q, Options{})
	require.NoError(t, err)
	times := filepath.Join(f.Path(), timesName)
	require.NoError(t, os.WriteFile(times, []byte(`{"step":3,"seconds":1}`+"\n"+`{"step":9,"seconds":1000}`+"\n"), 0o666))
	r, err := Loop(t.Context(), f, newToy(t, dev, 3, c), Options{From: latest(t, f)})
	require.NoError(t, err)
	assert.Greater(t, r.Seconds, 1000.0)
	assert.Less(t, r.Seconds, 1100.0)
}

// What is not finite stops the run, names the step and what it was, and is
// never saved.
func TestDivergence(t *testing.T) {
	dev := device(t)
	nan, inf := math.NaN(), math.Inf(1)
	for _, test := range []struct {
		name string
		at   int
		do   func(q *toy)
		step int
		want string
	}{
		{"loss", 12, func(q *toy) { q.loss = nan }, 12, "step 12: the loss is NaN"},
		{"loss between two looks", 13, func(q *toy) { q.loss = inf }, 13, "the loss is +Inf"},
		{"state", 14, func(q *toy) { setFirst(q.x, inf) }, 15, "the loss is +Inf"},
		{"state alone", 15, func(q *toy) { setFirst(q.m, nan) }, 15, "step 15: element 0 of adam.m is not finite"},
		{"metric", 18, func(q *toy) { q.loss = -1 }, 18, "step 18: gradient_norm is NaN"},
		{"at the end", 23, func(q *toy) { q.loss = nan }, 23, "step 23: the loss is NaN"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := config(t)
			f := newFolder(t, c)
			q := newToy(t, dev, 3, c)
			bad := false
			q.after = func(step int) {
				if bad = bad || step == test.at; step == test.at || bad && test.name == "loss between two looks" {
					test.do(q)
				}
			}
			r, err := Loop(t.Context(), f, q, Options{})
			require.NoError(t, err)
			assert.Equal(t, Diverged, r.Status)
			assert.GreaterOrEqual(t, r.Steps, test.step)
			assert.Contains(t, r.Reason, test.want)
			require.ErrorIs(t, r.Err(), ErrDiverged)
			good := (test.at - 1) / 5 * 5
			assert.ErrorContains(t, r.Err(), f.checkpointPath(good))
			assert.Equal(t, f.checkpointPath(good), r.Checkpoint)
			assert.Equal(t, good, latest(t, f).Step, "a bad state was saved")
			for _, m := range r.Metrics {
				assert.True(t, finite(m.Value))
			}
			text, err := os.ReadFile(filepath.Join(f.Path(), metricsName))
			require.NoError(t, err)
			assert.NotContains(t, string(text), "null")
		})
	}
}

func setFirst(t tensor.Tensor, x float64) {
	v, err := tensor.Float64s(t)
	if err == nil {
		v[0] = x
		err = tensor.SetFloat64s(t, v)
	}
	if err != nil {
		panic(err)
	}
}

// A state that went bad is not saved either when the run is interrupted.
func TestDivergenceSeenWhenCanceled(t *testing.T) {
	dev, c := device(t), config(t)
	f := newFolder(t, c)
	q := newToy(t, dev, 3, c)
	ctx, cancel := canceling(t)
	q.after = func(step int) {
		if step == 7 {
			setFirst(q.v, math.NaN())
			cancel()
		}
	}
	r, err := Loop(ctx, f, q, Options{})
	require.NoError(t, err)
	assert.Equal(t, Diverged, r.Status)
	assert.Equal(t, 5, latest(t, f).Step)

	// Before the first checkpoint there is none to name.
	f = newFolder(t, c)
	q = newToy(t, dev, 3, c)
	q.after = func(int) { q.loss = math.NaN() }
	r, err = Loop(t.Context(), f, q, Options{})
	require.NoError(t, err)
	assert.ErrorContains(t, r.Err(), "there is no checkpoint yet")
	assert.Empty(t, r.Checkpoint)
}

func TestLoopRefuses(t *testing.T) {
	dev, c := device(t), config(t)
	f := newFolder(t, c)
	q := newToy(t, dev, 3, c)
	unlocked, err := Open(f.Path())
	require.NoError(t, err)
	_, err = Loop(t.Context(), unlocked, q, Options{})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "the lock is not held")

	_, err = Loop(t.Context(), f, q, Options{})
	require.NoError(t, err)
	_, err = Loop(t.Context(), f, q, Options{})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "holds checkpoints, the newest of step 23")

	// A state of another shape names every array that differs, and is left
	// alone.
	from := latest(t, f)
	other := newToy(t, dev, 4, c)
	state := append(other.State()[:3:3], Named{"other", other.count})
	err = from.Restore(state)
	require.ErrorIs(t, err, ErrInvalid)
	for _, want := range []string{
		`array "x": got float64 (3,), want float64 (4,)`, `array "adam.m": got float64 (1, 3), want float64 (1, 4)`,
		`array "other": missing, want int64 ()`, `array "count": unknown`,
	} {
		assert.ErrorContains(t, err, want)
	}
	assert.NotContains(t, err.Error(), "other\": unknown")

	f.config.Train.Steps = 20
	_, err = Loop(t.Context(), f, q, Options{From: from})
	require.ErrorContains(t, err, "is of step 23, want at most the 20 steps")
}

type named struct {
	*toy
	metrics []Metric
	state   []Named
}

func (n named) Metrics(int) ([]Metric, error) { return n.metrics, nil }
func (n named) State() []Named                { return n.state }

func TestNamesMustDiffer(t *testing.T) {
	dev, c := device(t), config(t)
	q := newToy(t, dev, 3, c)
	for _, m := range [][]Metric{{{"step", 1}}, {{"loss", 1}}, {{"a", 1}, {"a", 2}}} {
		_, err := Loop(t.Context(), newFolder(t, c), named{q, m, q.State()}, Options{})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "the name is taken")
	}
	_, err := Loop(t.Context(), newFolder(t, c), named{q, nil, []Named{{"x", q.x}, {"x", q.m}}}, Options{})
	require.ErrorContains(t, err, `array "x" appears twice`)
	_, err = Loop(t.Context(), newFolder(t, c), named{q, nil, []Named{{"x", tensor.Tensor{}}}}, Options{})
	require.ErrorContains(t, err, `array "x": no tensor cannot be saved`)
}

// Whatever call of the device fails, the loop says so, and the run ends as it
// would have without the failure once it is resumed.
func TestDeviceFailures(t *testing.T) {
	c := config(t)
	cpu := device(t)
	want := train(t, cpu, c)
	for _, fail := range []fake.Fail{{Download: 30}, {Upload: 41}, {Download: 2}, {Download: 22}} {
		dev := fake.New(cpu, fail)
		f := newFolder(t, c)
		_, err := Loop(t.Context(), f, newToy(t, dev, 3, c), Options{})
		require.ErrorIs(t, err, gpu.ErrLaunch)
		f = reopen(t, f)
		_, err = Loop(t.Context(), f, newToy(t, cpu, 3, c), Options{From: latest(t, f)})
		require.NoError(t, err)
		assert.Equal(t, want, bytesOf(t, f), "%+v", fail)
	}
	// Restoring fails: no step is made.
	f := newFolder(t, c)
	q := newToy(t, cpu, 3, c)
	q.before = func(step int) error {
		if step == 8 {
			return errKilled
		}
		return nil
	}
	_, err := Loop(t.Context(), f, q, Options{})
	require.ErrorIs(t, err, errKilled)
	require.ErrorContains(t, err, "the last good checkpoint is "+f.checkpointPath(5))
	q = newToy(t, fake.New(cpu, fake.Fail{Upload: 7}), 3, c) // 4 of newToy itself
	q.before = func(int) error { panic("stepped") }
	_, err = Loop(t.Context(), f, q, Options{From: latest(t, f)})
	require.ErrorIs(t, err, gpu.ErrLaunch)
}

// idle does nothing: what is left are the loop's own costs.
type idle struct{ *toy }

func (idle) Step(int) error                { return nil }
func (idle) Metrics(int) ([]Metric, error) { return nil, nil }

func TestStepsAllocateNothing(t *testing.T) {
	dev := device(t)
	cost := func(steps string) uint64 {
		c := config(t, "steps="+steps, "log_every="+steps, "checkpoint_every="+steps)
		f := newFolder(t, c)
		q := idle{newToy(t, dev, 3, c)}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Loop(t.Context(), f, q, Options{})
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		return after.Mallocs - before.Mallocs
	}
	few, many := cost("10"), cost("100010")
	assert.Less(t, many, few+1000, "100,000 steps allocate")
}

// The journal is cut back to the checkpoint, whatever a kill left behind it.
func TestJournalIsCutBack(t *testing.T) {
	dev, c := device(t), config(t)
	want := train(t, dev, c)
	for _, tail := range []string{"", "{", `{"step":12,"loss":1}` + "\n", `{"step":12,"loss":1}` + "\n" + `{"step":15,`, "\x00\x00\x00\n\x00", "nonsense\n"} {
		f := newFolder(t, c)
		q := newToy(t, dev, 3, c)
		ctx, cancel := canceling(t)
		q.after = func(step int) {
			if step == 10 {
				cancel()
			}
		}
		_, err := Loop(ctx, f, q, Options{})
		require.NoError(t, err)
		for _, name := range []string{metricsName, timesName} {
			file, err := os.OpenFile(filepath.Join(f.Path(), name), os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = file.WriteString(tail)
			require.NoError(t, err)
			require.NoError(t, file.Close())
		}
		_, err = Loop(t.Context(), f, newToy(t, dev, 3, c), Options{From: latest(t, f)})
		require.NoError(t, err)
		assert.Equal(t, want, bytesOf(t, f), "%q", tail)
	}
}

func TestDamagedJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), metricsName)
	for text, want := range map[string]string{
		`{"step":1}` + "\n{}\n" + `{"step":3}` + "\n":                   "line 2: got \"{}\", want an object with a step",
		`{"loss":1}` + "\n" + `{"step":3}` + "\n":                       `line 1: got "loss": 1, want a step from 1 first`,
		`{"step":1.5}` + "\n" + `{"step":3}` + "\n":                     `line 1: got "step": 1.5, want a step`,
		`{"step":2}` + "\n" + `{"step":2}` + "\n" + `{"step":3}` + "\n": "line 2: step 2 after step 2",
		`{"step":1,"x":"y"}` + "\n" + `{"step":3}` + "\n":               "want names and numbers",
		`{"step":1}{}` + "\n" + `{"step":3}` + "\n":                     "want one object",
		"[1]\n" + `{"step":3}` + "\n":                                   "want an object",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
		_, _, err := readJournal(path, 3)
		require.ErrorIs(t, err, ErrInvalid, text)
		require.ErrorContains(t, err, want)
		require.True(t, strings.HasPrefix(err.Error(), path), err.Error())
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"step":1,"loss":0.5}`))
	f.Add([]byte(`{"step":1e2,"a\n":-0,"b":1e-300}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseRecord(line)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := r.append(nil)
		require.NoError(t, err)
		back, err := parseRecord(again[:len(again)-1])
		require.NoError(t, err, "%s", again)
		require.Equal(t, r, back)
	})
}

func TestCanceledBeforeTheFirstStep(t *testing.T) {
	dev, c := device(t), config(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := newFolder(t, c)
	r, err := Loop(ctx, f, newToy(t, dev, 3, c), Options{})
	require.NoError(t, err)
	assert.Equal(t, Canceled, r.Status)
	assert.Zero(t, r.Steps)
	assert.ErrorContains(t, r.Err(), "there is no checkpoint yet")
	assert.Nil(t, latest(t, f))
}
