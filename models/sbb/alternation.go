package sbb

import (
	"errors"
	"fmt"

	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/models/lightsb"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor"
)

// Alternation is the published LightSBB-M: it repeats, outer times,
//
//  1. y0 = Z(0, x0), y1 = Z(1, x1) with the inverse transport map of the
//     present potential, held fixed (the first time y = x),
//  2. bridge matching (lightsb.Matching) between y0 and y1, from where it was.
//
// The steps of 2 are all of one graph: y0 and y1 are new, their arrays are not.
// It converges where the target is wider than the source and, at large β, near
// it otherwise; Dual needs no such care. The inverse is exact, by Newton's
// method, where the papers' program has x - s/β or a network.
type Alternation struct {
	*lightsb.Matching
	beta   float64
	every  int                // steps of an outer iteration
	fixed  *mixture.Potential // that of the present inverse
	x0, x1 tensor.Tensor      // the data; the trainer's are y0 and y1
	pulls  tensor.Tensor      // (1) Float64: how often endpoints were computed
}

// NewAlternation takes over both potentials, unless it fails. They have equal
// shapes and floors: fixed is room for a copy.
func NewAlternation(q, fixed *mixture.Potential, beta, safe float64, outer, steps int, t mixture.Training) (*Alternation, error) {
	if err := validBeta(beta); err != nil {
		return nil, err
	}
	if outer < 1 || steps < outer {
		return nil, fmt.Errorf("%w: %d outer iterations in %d steps, want at least 1, and a step for each", ErrInvalid, outer, steps)
	}
	a := &Alternation{beta: beta, every: (steps + outer - 1) / outer, fixed: fixed, x0: t.Source, x1: t.Target}
	var err0, err1 error
	t.Source, err0 = tensor.New(a.x0.Device(), a.x0.DType(), a.x0.Shape()...)
	t.Target, err1 = tensor.New(a.x1.Device(), a.x1.DType(), a.x1.Shape()...)
	pulls, err2 := tensor.From(a.x0.Device(), []float64{0}, 1)
	a.pulls = pulls
	err := errors.Join(err0, err1, err2)
	if err == nil {
		a.Matching, err = lightsb.NewMatching(q, t, safe)
	}
	if err != nil {
		for _, array := range []tensor.Tensor{t.Source, t.Target, a.pulls} {
			array.Free()
		}
		return nil, err
	}
	if err := errors.Join(tensor.Copy(t.Source, a.x0), tensor.Copy(t.Target, a.x1)); err != nil {
		a.Release()
		return nil, err
	}
	return a, nil
}

// Free returns the memory, that of the potentials too.
func (a *Alternation) Free() {
	a.Release()
	a.fixed.Free()
	a.Potential.Free()
}

// Release returns all memory but that of the potentials.
func (a *Alternation) Release() {
	for _, array := range []tensor.Tensor{a.Source, a.Target, a.pulls} {
		array.Free()
	}
	a.Matching.Release()
}

// Step queues one step, the first of an outer iteration after new endpoints.
func (a *Alternation) Step(step int) error {
	if first := (step-1)%a.every == 0; first && step > 1 {
		if err := a.fixed.CopyFrom(a.Potential); err != nil {
			return err
		}
		if err := errors.Join(a.pull(), tensor.Set(a.pulls, []float64{float64((step - 1) / a.every)})); err != nil {
			return err
		}
	}
	return a.Matching.Step(step)
}

// pull computes all endpoints with the fixed potential. Rows do not depend on
// each other, so that they need not be done at once.
func (a *Alternation) pull() error {
	m := a.fixed.Mixture()
	return errors.Join(
		proximal.Solve(proximal.Args{Mixture: m, X: a.x0, T0: 0, Beta: a.beta, Y: a.Source}),
		proximal.Solve(proximal.Args{Mixture: m, X: a.x1, T0: 1, Beta: a.beta, Y: a.Target}))
}

// Restored brings what is not part of State to the state of a checkpoint.
func (a *Alternation) Restored() error {
	if err := errors.Join(a.Matching.Restored(), a.fixed.Restored()); err != nil {
		return err
	}
	var pulls [1]float64
	if err := tensor.Get(a.pulls, pulls[:]); err != nil || pulls[0] == 0 {
		return err
	}
	return a.pull()
}

// State is what a checkpoint must hold.
func (a *Alternation) State() []run.Named {
	s := append(a.Matching.State(), run.Named{Name: "pulls", Tensor: a.pulls})
	for _, f := range a.fixed.State() {
		s = append(s, run.Named{Name: "fixed." + f.Name, Tensor: f.Tensor})
	}
	return s
}
