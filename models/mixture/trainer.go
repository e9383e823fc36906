package mixture

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/kernels/batch"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/models/optim"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor"
)

// Purposes of the random draws of training; sampling has others.
const (
	purposeSource = 16 + iota
	purposeTarget
	purposeBridge // and the next two
)

// Training is what the training of every light bridge has: data on the device,
// minibatches, the potential, its optimiser.
type Training struct {
	Source, Target tensor.Tensor // (N0, D) and (N1, D), in the model's coordinates
	Batch          int           // rows of a minibatch of each
	Seed           uint64
	Schedule       run.Schedule
	Optimiser      optim.Settings

	// Group is the processes that make every step together, each on its part of
	// the minibatch, with equal Training; nil: this one alone. Their parameters
	// are equal, and bit-equal to those of one process, unless Fast: then less is
	// exchanged, and roundings depend on the number of processes.
	Group collective.Group
	Fast  bool
}

// Trainer draws minibatches and descends; between, a loss fills Partial. Nothing
// in the launches of a step depends on its number, which lies on the device. So
// the first step is launched, the second one recorded, and every other one the
// replay of one graph.
type Trainer struct {
	Training
	Potential *Potential
	X0, X1    tensor.Tensor // (n, D): this process's rows of the minibatch
	Partial   tensor.Tensor // partial sums of the loss over them

	adam   *optim.Adam
	share  share
	all    tensor.Tensor // partial sums of all rows: Partial, where one process has all
	sums   func() error
	queue  func() error // one step: how it is queued next
	graphs []gpu.Graph  // of a step, in their order
}

// NewTrainer takes over the potential, unless it fails. sums queues the loss of
// the minibatch and its gradient, a mean over the rows of each of so many terms
// with weights that Weight gives: the partial sums of gmm's losses, into Partial.
// Where the device can record, it is called in the first two steps alone, so that
// it must queue the same launches every time.
func NewTrainer(q *Potential, t Training, terms int, sums func() error) (*Trainer, error) {
	if t.Batch <= 0 {
		return nil, fmt.Errorf("%w: batch: got %d, want at least 1", ErrInvalid, t.Batch)
	}
	dtype := q.flat.DType()
	for _, a := range []struct {
		name string
		tensor.Tensor
	}{{"source", t.Source}, {"target", t.Target}} {
		if s := a.Shape(); a.IsZero() || len(s) != 2 || s[0] == 0 || s[1] != q.d || a.DType() != dtype {
			return nil, fmt.Errorf("%w: %s: %v, want %v (n, %d) with n > 0", ErrInvalid, a.name, a.Tensor, dtype, q.d)
		}
	}
	part, err := newShare(t, q.at)
	if err != nil {
		return nil, err
	}
	r := &Trainer{Training: t, Potential: q, share: part, sums: sums}
	r.queue = r.first
	var errs []error
	array := func(shape ...int) tensor.Tensor {
		a, err := tensor.New(q.dev, dtype, shape...)
		errs = append(errs, err)
		return a
	}
	partial := func(rows int) tensor.Tensor {
		chunks, width := gmm.PartialShape(q.at, slices.Repeat([]int{rows}, terms)...)
		return array(chunks, width)
	}
	r.X0, r.X1, r.Partial = array(part.rows, q.d), array(part.rows, q.d), partial(part.rows)
	if r.all = r.Partial; part.group != nil && !t.Fast {
		if r.all = partial(t.Batch); errors.Join(errs...) == nil {
			r.share.swap(r.all, r.Partial, terms)
		}
	}
	r.adam, err = optim.NewAdam(q.flat, q.gradient, t.Optimiser, t.Schedule)
	if err := errors.Join(append(errs, err)...); err != nil {
		r.Release()
		return nil, err
	}
	return r, nil
}

// Free returns the memory, that of the potential too.
func (r *Trainer) Free() {
	r.Release()
	r.Potential.Free()
}

// Release returns all memory but that of the potential.
func (r *Trainer) Release() {
	for _, g := range r.graphs {
		_ = g.Close() // it fails where the device did, which has told
	}
	if r.all.Ptr() != r.Partial.Ptr() {
		r.all.Free()
	}
	for _, t := range []tensor.Tensor{r.X0, r.X1, r.Partial} {
		t.Free()
	}
	if r.adam != nil {
		r.adam.Free()
	}
}

// Step queues training step number step, counted from 1.
func (r *Trainer) Step(step int) error {
	if err := r.adam.Make(step, r.queue); err != nil {
		return err
	}
	return r.Potential.turnAxes()
}

// first launches a step, which also has the device load its kernels: a record
// might not allow that.
func (r *Trainer) first() error {
	if err := r.launch(); err != nil {
		return err
	}
	r.queue = r.second
	return nil
}

// second records a step and queues it. Devices that cannot record launch.
func (r *Trainer) second() error {
	pieces := []func() error{r.launch}
	if !r.share.recordable() {
		pieces = []func() error{r.before, r.after}
	}
	for _, piece := range pieces {
		graph, err := r.X0.Device().Record(piece)
		switch {
		case errors.Is(err, gpu.ErrUnsupported):
			r.queue = r.launch
			return r.launch()
		case err != nil:
			return err
		}
		r.graphs = append(r.graphs, graph)
	}
	if r.queue = r.replay; len(r.graphs) == 1 {
		r.queue = r.graphs[0].Replay
	}
	return r.queue()
}

// replay queues a step whose exchange stands between two graphs.
func (r *Trainer) replay() error {
	if err := r.graphs[0].Replay(); err != nil {
		return err
	}
	if err := r.exchange(); err != nil {
		return err
	}
	return r.graphs[1].Replay()
}

// launch queues all of a step but the turn of axes, which the host makes.
func (r *Trainer) launch() error {
	if err := r.before(); err != nil {
		return err
	}
	if err := r.exchange(); err != nil {
		return err
	}
	return r.after()
}

// before queues what needs this process's rows alone.
func (r *Trainer) before() error {
	if err := r.draw(r.Source, r.X0, purposeSource); err != nil {
		return err
	}
	if err := r.draw(r.Target, r.X1, purposeTarget); err != nil {
		return err
	}
	if err := r.sums(); err != nil || !r.Fast {
		return err
	}
	return r.Potential.Reduce(r.Partial)
}

// after queues the rest.
func (r *Trainer) after() error {
	if !r.Fast {
		if err := r.Potential.Reduce(r.all); err != nil {
			return err
		}
	}
	if err := r.adam.Step(); err != nil {
		return err
	}
	return r.Potential.scale()
}

// draw queues one side of the minibatch: rows uniform with replacement.
func (r *Trainer) draw(rows, out tensor.Tensor, purpose uint8) error {
	return batch.Gather(batch.GatherArgs{Rows: rows, Out: out, Draw: r.of(purpose), Count: r.adam.Count()})
}

// of is the randomness of a step for a purpose, with the count of steps made.
func (r *Trainer) of(purpose uint8) philox.Draw {
	return philox.Draw{Seed: r.Seed, Index: uint64(r.share.first), Step: 1, Purpose: purpose}
}

// Bridges queues pairs of bridge matching between the rows of the minibatch.
func (r *Trainer) Bridges(safe float64, t, xt, u tensor.Tensor) error {
	return batch.Bridge(batch.BridgeArgs{
		X0: r.X0, X1: r.X1, Epsilon: r.Potential.epsilon, Safe: safe, T: t, Xt: xt, U: u,
		Draw: r.of(purposeBridge), Count: r.adam.Count(),
	})
}

// Loss waits for the device and returns the loss of the last step.
func (r *Trainer) Loss() (float64, error) {
	v, err := tensor.Float64s(r.Potential.loss)
	if err != nil {
		return 0, err
	}
	return v[0], nil
}

// GradientNorm waits for the device and returns the norm at the last step.
func (r *Trainer) GradientNorm() (float64, error) { return r.adam.Norm() }

// Average waits for the device and returns the moving average of the
// parameters, or the parameters where none is kept.
func (r *Trainer) Average() (Parameters, error) { return r.Potential.ParametersOf(r.adam.Averaged()) }

// Restored brings what is not part of State to the state of a checkpoint.
func (r *Trainer) Restored() error { return r.Potential.Restored() }

// State is what a checkpoint must hold.
func (r *Trainer) State() []run.Named { return append(r.Potential.State(), r.adam.State()...) }
