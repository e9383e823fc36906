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

// Adam minimises by the method of Kingma and Ba (2015).
type Adam struct {
	settings                Settings
	params, gradient        tensor.Tensor
	first, second, averaged tensor.Tensor
	norm, partial           tensor.Tensor
}

// NewAdam begins with zero moments and, where an average is wanted, with the
// present parameters as the average. params and gradient are vectors of one
// length, and stay the caller's.
func NewAdam(params, gradient tensor.Tensor, s Settings) (*Adam, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	a := &Adam{settings: s.withDefaults(), params: params, gradient: gradient}
	n, dev, dtype := params.Len(), params.Device(), params.DType()
	zeros := make([]float64, n)
	var errs []error
	array := func(v []float64) tensor.Tensor {
		t, err := tensor.FromFloat64s(dev, dtype, v, len(v))
		errs = append(errs, err)
		return t
	}
	a.first, a.second = array(zeros), array(zeros)
	var err1, err2 error
	a.norm, err1 = tensor.From(dev, []float64{0}, 1)
	a.partial, err2 = tensor.New(dev, tensor.Float64, adam.Chunks(n))
	errs = append(errs, err1, err2)
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
	for _, t := range []tensor.Tensor{a.first, a.second, a.averaged, a.norm, a.partial} {
		t.Free()
	}
}

// Step queues step number step, counted from 1, at a learning rate. A gradient
// that is not finite changes nothing, and Norm tells.
func (a *Adam) Step(step int, rate float64) error {
	if err := adam.Norm(adam.NormArgs{Gradient: a.gradient, Partial: a.partial, Norm: a.norm}); err != nil {
		return err
	}
	return adam.Step(adam.Args{
		Params: a.params, Gradient: a.gradient, First: a.first, Second: a.second, EMA: a.averaged, Norm: a.norm,
		Step: step, Rate: rate, Beta1: a.settings.Beta1, Beta2: a.settings.Beta2, Epsilon: a.settings.Epsilon,
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
