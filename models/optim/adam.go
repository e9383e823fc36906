// Package optim holds optimisers: the state between the steps of training, and
// one call a step. The arithmetic is that of kernels/adam.
package optim

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/kernels/adam"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor"
)

// Settings of Adam. The zero value is Kingma and Ba's, without clipping, decay
// or average.
type Settings struct {
	Beta1, Beta2 float64 // decay of the moments: 0.9 and 0.999
	Epsilon      float64 // added to the root of the second moment: 1e-8
	WeightDecay  float64 // decoupled (Loshchilov and Hutter 2019)
	Clip         float64 // the largest global L2 norm of a gradient; 0: any
	Average      float64 // decay of the moving average of the parameters; 0: none
}

// withDefaults fills in what is zero.
func (s Settings) withDefaults() Settings {
	if s.Beta1 == 0 {
		s.Beta1 = 0.9
	}
	if s.Beta2 == 0 {
		s.Beta2 = 0.999
	}
	if s.Epsilon == 0 {
		s.Epsilon = 1e-8
	}
	return s
}

// Validate reports every fault at once.
func (s Settings) Validate() error {
	var errs []error
	within := func(name string, v, lo, hi float64) {
		if !(v >= lo && v < hi) {
			errs = append(errs, fmt.Errorf("optim: %s: got %v, want at least %v and less than %v", name, v, lo, hi))
		}
	}
	within("beta1", s.Beta1, 0, 1)
	within("beta2", s.Beta2, 0, 1)
	within("epsilon", s.Epsilon, 0, math.Inf(1))
	within("weight decay", s.WeightDecay, 0, math.Inf(1))
	within("clip", s.Clip, 0, math.Inf(1))
	within("average", s.Average, 0, 1)
	return errors.Join(errs...)
}

// Adam minimises by the method of Kingma and Ba (2015). All that changes from
// step to step lies on the device: the number of the step, and a table of rates
// and corrections that the host computes for many steps at once. So a Step that
// was recorded is the next step each time that it is replayed.
type Adam struct {
	settings                Settings
	schedule                run.Schedule
	params, gradient        tensor.Tensor
	first, second, averaged tensor.Tensor
	norm, partial           tensor.Tensor

	count, table tensor.Tensor // (1) and (ahead, 3)
	begun        []uint32      // what is uploaded to count
	rows         []float64     // to table
	next         int           // the step that count stands before; 0: unknown
	filled       int           // the table holds the steps after number ahead·filled; -1: none
}

// ahead is how many steps the table holds: its upload, and what the host
// computes for it, are nothing beside so many steps.
const ahead = 256

// NewAdam begins with zero moments and, where an average is wanted, with the
// present parameters as the average. params and gradient are vectors of one
// length, and stay the caller's.
func NewAdam(params, gradient tensor.Tensor, s Settings, schedule run.Schedule) (*Adam, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	a := &Adam{
		settings: s.withDefaults(), schedule: schedule, params: params, gradient: gradient,
		begun: make([]uint32, 1), rows: make([]float64, ahead*adam.Columns), filled: -1,
	}
	n, dev, dtype := params.Len(), params.Device(), params.DType()
	zeros := make([]float64, n)
	var errs []error
	array := func(v []float64) tensor.Tensor {
		t, err := tensor.FromFloat64s(dev, dtype, v, len(v))
		errs = append(errs, err)
		return t
	}
	a.first, a.second = array(zeros), array(zeros)
	var err [4]error
	a.norm, err[0] = tensor.From(dev, []float64{0}, 1)
	a.partial, err[1] = tensor.New(dev, tensor.Float64, adam.Chunks(n))
	a.count, err[2] = tensor.From(dev, a.begun, 1)
	a.table, err[3] = tensor.New(dev, tensor.Float64, ahead, adam.Columns)
	errs = append(errs, err[:]...)
	if s.Average > 0 {
		now, err := tensor.Float64s(params)
		errs = append(errs, err)
		a.averaged = array(now)
	}
	if err := errors.Join(errs...); err != nil {
		a.Free()
		return nil, err
	}
	return a, nil
}

// Free returns the memory.
func (a *Adam) Free() {
	for _, t := range []tensor.Tensor{a.first, a.second, a.averaged, a.norm, a.partial, a.count, a.table} {
		t.Free()
	}
}

// Make makes step number step, counted from 1: queue must queue Step once, by a
// call or as a part of a graph. Where step does not follow the one before, and
// every 256 steps, it uploads first, which is ordered in the queue and may not
// stand inside of a record.
func (a *Adam) Make(step int, queue func() error) error {
	if step != a.next {
		a.next = 0
		a.begun[0] = uint32(step - 1)
		if err := tensor.Set(a.count, a.begun); err != nil {
			return err
		}
	}
	if block := (step - 1) / ahead; block != a.filled {
		a.filled = -1
		for i := range ahead {
			at := block*ahead + i + 1
			row := adam.Row(at, a.schedule.Rate(at), a.settings.Beta1, a.settings.Beta2, a.settings.WeightDecay)
			copy(a.rows[i*adam.Columns:], row[:])
		}
		if err := tensor.Set(a.table, a.rows); err != nil {
			return err
		}
		a.filled = block
	}
	a.next = 0 // what a queue that failed has counted is unknown
	if err := queue(); err != nil {
		return err
	}
	a.next = step + 1
	return nil
}

// Count (1), Uint32, is one less than the number of the step being made, until
// its Step runs: what draws of the step add to 1.
func (a *Adam) Count() tensor.Tensor { return a.count }

// Step queues a step. A gradient that is not finite changes nothing, and Norm
// tells.
func (a *Adam) Step() error {
	if err := adam.Norm(adam.NormArgs{Gradient: a.gradient, Partial: a.partial, Norm: a.norm, Count: a.count}); err != nil {
		return err
	}
	return adam.Step(adam.Args{
		Params: a.params, Gradient: a.gradient, First: a.first, Second: a.second, EMA: a.averaged, Norm: a.norm,
		Table: a.table, Count: a.count, Beta1: a.settings.Beta1, Beta2: a.settings.Beta2, Epsilon: a.settings.Epsilon,
		Decay: a.settings.WeightDecay, EMADecay: a.settings.Average, Clip: a.settings.Clip,
	})
}

// Norm waits for the device and returns the gradient's norm at the last step.
func (a *Adam) Norm() (float64, error) {
	var norm [1]float64
	err := tensor.Get(a.norm, norm[:])
	return norm[0], err
}

// Averaged is the moving average of the parameters, or the parameters
// themselves where none is kept.
func (a *Adam) Averaged() tensor.Tensor {
	if a.averaged.IsZero() {
		return a.params
	}
	return a.averaged
}

// StateAverage is the name of the moving average in State.
const StateAverage = "average"

// State is what a checkpoint must hold beside the parameters.
func (a *Adam) State() []run.Named {
	s := []run.Named{{Name: "adam.first", Tensor: a.first}, {Name: "adam.second", Tensor: a.second}}
	if !a.averaged.IsZero() {
		s = append(s, run.Named{Name: StateAverage, Tensor: a.averaged})
	}
	return s
}
