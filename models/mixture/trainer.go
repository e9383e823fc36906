package mixture

import (
	"errors"
	"fmt"

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
}

// Trainer draws minibatches and descends. A loss fills its Partial between.
type Trainer struct {
	Training
	Potential *Potential
	X0, X1    tensor.Tensor // (Batch, D): the minibatch
	Partial   tensor.Tensor // partial sums of a loss over two terms of Batch rows

	adam *optim.Adam
	loss tensor.Tensor // (1)
}

// NewTrainer takes over the potential.
func NewTrainer(q *Potential, t Training) (*Trainer, error) {
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
	r := &Trainer{Training: t, Potential: q}
	var errs []error
	array := func(shape ...int) tensor.Tensor {
		a, err := tensor.New(q.dev, dtype, shape...)
		errs = append(errs, err)
		return a
	}
	chunks, width := gmm.PartialShape(q.at, t.Batch, t.Batch)
	r.X0, r.X1, r.Partial, r.loss = array(t.Batch, q.d), array(t.Batch, q.d), array(chunks, width), array(1)
	var err error
	r.adam, err = optim.NewAdam(q.flat, q.gradient, t.Optimiser)
	if err := errors.Join(append(errs, err)...); err != nil {
		r.Free()
		return nil, err
	}
	return r, nil
}

// Free returns the memory, that of the potential too.
func (r *Trainer) Free() {
	for _, t := range []tensor.Tensor{r.X0, r.X1, r.Partial, r.loss} {
		t.Free()
	}
	if r.adam != nil {
		r.adam.Free()
	}
	r.Potential.Free()
}

// Draw queues the minibatch of a step: rows of source and target, uniform with
// replacement, independent of each other.
func (r *Trainer) Draw(step int) error {
	if err := batch.Gather(batch.GatherArgs{Rows: r.Source, Out: r.X0, Draw: r.draw(step, purposeSource)}); err != nil {
		return err
	}
	return batch.Gather(batch.GatherArgs{Rows: r.Target, Out: r.X1, Draw: r.draw(step, purposeTarget)})
}

// BridgeDraw is the randomness of the bridges of a step.
func (r *Trainer) BridgeDraw(step int) philox.Draw { return r.draw(step, purposeBridge) }

func (r *Trainer) draw(step int, purpose uint8) philox.Draw {
	return philox.Draw{Seed: r.Seed, Step: uint32(step), Purpose: purpose}
}

// Descend queues the step that the partial sums of a loss ask for: Partial, or
// its first rows.
func (r *Trainer) Descend(step int, partial tensor.Tensor) error {
	if err := r.Potential.Reduce(partial, r.loss); err != nil {
		return err
	}
	if err := r.adam.Step(step, r.Schedule.Rate(step)); err != nil {
		return err
	}
	return r.Potential.Update()
}

// Loss waits for the device and returns the loss of the last step.
func (r *Trainer) Loss() (float64, error) {
	v, err := tensor.Float64s(r.loss)
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
