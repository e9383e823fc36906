package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fortet/fortet/gpu/collective"
)

// Trainer is what Loop drives. A step must be a function of the state, the
// step's number and the run's configuration: nothing else of an earlier step
// may enter, or a resume does not end where the uninterrupted run does.
type Trainer interface {
	// Step queues training step number step, counted from 1, on the device.
	// It does not wait, and allocates no Go memory.
	Step(step int) error
	// Loss waits for the device and returns the loss of the last step queued.
	// It changes nothing.
	Loss() (float64, error)
	// Metrics waits for the device and returns what is worth logging beside
	// the loss after a step, the last one queued: names as dual or
	// gradient_norm, always the same in the same order. It changes nothing.
	Metrics(step int) ([]Metric, error)
	// State is all that a resume needs: parameters, moments, averages. Every
	// call returns the same arrays, whose floating-point elements are finite
	// in a healthy run.
	State() []Named
}

// Restorer is a Trainer that holds arrays beside State which follow from it.
type Restorer interface {
	// Restored brings them up to date after State was loaded.
	Restored() error
}

// Restore loads a checkpoint into a Trainer.
func Restore(t Trainer, c *Checkpoint) error {
	if err := c.Restore(t.State()); err != nil {
		return err
	}
	if r, ok := t.(Restorer); ok {
		return r.Restored()
	}
	return nil
}

// Progress is how far a loop is.
type Progress struct {
	Step, Steps int
	Loss        float64
	Seconds     float64 // of training, in all sessions
}

// Options of Loop. The zero value begins a run and tells nobody.
type Options struct {
	// From is the checkpoint to go on from, as Latest found it; those of later
	// steps get the suffix .damaged. nil begins at step 1, for which the
	// folder must not hold checkpoints.
	From *Checkpoint
	// Progress is called at least at every logged step.
	Progress func(Progress)

	// Group is the processes that train the run together; nil: this one alone.
	// All must call Loop, with the same configuration. Process 0 has the folder
	// and From; the others have a Follower, begin where process 0 does, with its
	// state, and read and write nothing.
	Group collective.Group
	// Fast is for trainers: that processes may exchange sums that depend on how
	// many they are. All must have the same.
	Fast bool
}

// patience is how long steps are queued before the device is waited for, so
// that an interruption is answered soon and progress shows what was done.
const patience = 100 * time.Millisecond

// Loop trains until all steps of the folder's configuration are made, the
// context is canceled, or something is not finite. The folder's lock must be
// held.
//
// It logs at multiples of log_every and at the last step, and writes
// checkpoints at multiples of checkpoint_every, at the last step, and when
// canceled. Before a checkpoint is written the loss, the metrics due and every
// floating-point element of the state are seen to be finite: a bad state is
// never saved. An error means that the run could not go on: the device, the
// disk or an argument failed; the checkpoints written before are good.
//
// The processes of a group end with the same status after the same step. Where
// one cannot go on, those that could get an error that wraps ErrElsewhere; see
// Known for one that failed inside of a step.
func Loop(ctx context.Context, f *Folder, t Trainer, o Options) (*Result, error) {
	l, err := newLoop(ctx, f, t, o)
	if err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	status, err := l.run(ctx)
	if err := errors.Join(err, l.close()); err != nil {
		last := ""
		if l.saved != "" {
			last = "; the last good checkpoint is " + l.saved
		}
		name := f.path
		if f.follows() {
			name = fmt.Sprintf("process %d of %d", o.Group.Rank(), o.Group.Size())
		}
		return nil, fmt.Errorf("run: %s: step %d: %w%s", name, l.step, err, last)
	}
	r := &Result{
		Run: f.path, Method: f.config.Method, Status: status, Steps: l.step, Seconds: l.seconds(),
		Checkpoint: l.saved, Reason: l.reason,
	}
	if l.metrics != nil && l.metrics.last != nil {
		r.Metrics = l.metrics.last.Metrics
	}
	return r, nil
}

type loop struct {
	Train
	folder   *Folder
	trainer  Trainer
	progress func(Progress)
	snapshot *snapshot // nil: of a follower
	team     *team     // nil: this process is alone

	metrics, times *journal // nil: of a follower
	canceled       bool     // as all of the team know
	kept           int      // the step of the last checkpoint
	step           int      // the last one queued
	begun          int      // the step that this session began after
	healthy        int      // the last step at which all was finite
	saved          string
	reason         string // what is not finite; "": nothing
	start, looked  time.Time
	before         float64 // seconds of earlier sessions
}

func newLoop(ctx context.Context, f *Folder, t Trainer, o Options) (*loop, error) {
	l := &loop{folder: f, trainer: t, Train: f.config.Train, progress: o.Progress}
	if l.progress == nil {
		l.progress = func(Progress) {}
	}
	if o.Group != nil {
		var err error
		if l.team, err = newTeam(o.Group, t.State()[0].Tensor.Device()); err != nil {
			return nil, err
		}
	}
	err := l.open(o)
	if l.team != nil {
		err = l.join(ctx, o, err)
	}
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	l.start = time.Now()
	l.looked = l.start
	return l, nil
}

// open makes folder and trainer ready.
func (l *loop) open(o Options) error {
	f := l.folder
	switch leads := l.team == nil || l.team.Rank() == 0; {
	case leads && f.follows():
		return invalid("got a Follower, want the folder of the run")
	case leads && f.lock == nil:
		return invalid("%s: the lock is not held", f.path)
	case !leads && (!f.follows() || o.From != nil):
		return invalid("process %d of %d: got a folder or a checkpoint, want a Follower", l.team.Rank(), l.team.Size())
	case !leads:
		return nil
	}
	var err error
	if l.snapshot, err = newSnapshot(l.trainer.State()); err != nil {
		return err
	}
	if err := l.begin(o.From); err != nil {
		return err
	}
	if l.metrics, err = openJournal(filepath.Join(f.path, metricsName), l.step); err != nil {
		return err
	}
	if l.times, err = openJournal(filepath.Join(f.path, timesName), l.step); err != nil {
		return err
	}
	if last := l.times.last; last != nil && len(last.Metrics) > 0 {
		l.before = last.Metrics[0].Value
	}
	return nil
}

// begin brings trainer and folder to the step that the loop begins after.
func (l *loop) begin(from *Checkpoint) error {
	if from == nil {
		steps, err := l.folder.steps()
		if err == nil && len(steps) > 0 {
			err = invalid("%s: holds checkpoints, the newest of step %d, want to resume from one", l.folder.path, steps[0])
		}
		return err
	}
	if from.Step > l.Steps {
		return invalid("%s: is of step %d, want at most the %d steps of the run", from.Path, from.Step, l.Steps)
	}
	if err := Restore(l.trainer, from); err != nil {
		return err
	}
	l.step, l.begun, l.healthy, l.kept, l.saved = from.Step, from.Step, from.Step, from.Step, from.Path
	return l.folder.setAside(from.Step)
}

func (l *loop) close() error {
	var errs []error
	for _, j := range []*journal{l.metrics, l.times} {
		if j != nil {
			errs = append(errs, j.close())
		}
	}
	if l.team != nil {
		l.team.free()
	}
	return errors.Join(errs...)
}

func (l *loop) seconds() float64 { return l.before + time.Since(l.start).Seconds() }

func (l *loop) run(ctx context.Context) (Status, error) {
	for l.step < l.Steps {
		if l.team == nil {
			l.canceled = ctx.Err() != nil
		}
		if l.canceled {
			return l.cancel()
		}
		l.step++
		if err := l.trainer.Step(l.step); err != nil {
			return 0, err
		}
		last := l.step == l.Steps
		due, save := last || l.step%l.LogEvery == 0, last || l.step%l.CheckpointEvery == 0
		if !due && !save && !l.pause() {
			continue
		}
		err := l.look(due)
		if err == nil && save && l.reason == "" {
			err = l.save()
		}
		if l.team != nil {
			err = l.meet(ctx, err)
		}
		if err != nil {
			return 0, err
		}
		if l.reason != "" {
			return Diverged, nil
		}
	}
	return Done, nil
}

// pause reports whether the device is to be waited for between the steps that
// are logged or saved.
func (l *loop) pause() bool {
	if l.team != nil {
		return l.step == l.team.meeting
	}
	return time.Since(l.looked) >= patience
}

// cancel leaves a checkpoint of the last step.
func (l *loop) cancel() (Status, error) {
	if l.step == l.begun || l.kept == l.step {
		return Canceled, nil
	}
	err := l.look(false)
	if err == nil && l.reason == "" {
		err = l.save()
	}
	if l.team != nil {
		_, err = l.team.settle(err, note{})
	}
	if err != nil {
		return 0, err
	}
	if l.reason != "" {
		return Diverged, nil
	}
	return Canceled, nil
}

// look waits for the device, reports progress and, if due, logs. It sets reason
// if something is not finite.
func (l *loop) look(due bool) error {
	loss, err := l.trainer.Loss()
	if err != nil {
		return err
	}
	seconds := l.seconds()
	l.looked = time.Now()
	if !finite(loss) {
		l.diverged(fmt.Sprintf("the loss is %v", loss))
		return nil
	}
	l.progress(Progress{l.step, l.Steps, loss, seconds})
	if !due {
		l.healthy = l.step
		return nil
	}
	more, err := l.trainer.Metrics(l.step)
	if err != nil {
		return err
	}
	metrics := append(Metrics{{"loss", loss}}, more...)
	for i, m := range metrics {
		for _, other := range metrics[:i] {
			if m.Name == stepName || m.Name == other.Name {
				return invalid("metric %s: the name is taken", quote(m.Name))
			}
		}
		if !finite(m.Value) {
			l.diverged(fmt.Sprintf("%s is %v", m.Name, m.Value))
			return nil
		}
	}
	l.healthy = l.step
	if l.folder.follows() {
		return nil
	}
	return errors.Join(
		l.metrics.add(Record{l.step, metrics}),
		l.times.add(Record{l.step, Metrics{{"seconds", seconds}}}),
	)
}

// diverged notes what is wrong. The device was not looked at between healthy
// and here, so that any step between may be the one that went wrong.
func (l *loop) diverged(what string) {
	l.reason = fmt.Sprintf("step %d: %s", l.step, what)
	if l.healthy > 0 && l.healthy < l.step-1 {
		l.reason += fmt.Sprintf(" (all was finite at step %d)", l.healthy)
	}
}

// save writes a checkpoint, unless the state is not finite.
func (l *loop) save() error {
	l.kept = l.step
	if l.folder.follows() {
		return nil
	}
	bad, err := l.snapshot.take()
	if err != nil {
		return err
	}
	if bad != "" {
		l.diverged(bad)
		return nil
	}
	if err := l.metrics.sync(); err != nil {
		return err
	}
	path := l.folder.checkpointPath(l.step)
	if err := l.snapshot.write(path, l.folder.config.Method, l.step); err != nil {
		return err
	}
	l.saved = path
	return l.folder.prune(l.step, l.CheckpointEvery, l.Keep)
}
