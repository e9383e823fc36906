// Package lightsb trains the light Schrödinger bridge, the Schrödinger bridge
// of the reference √ε W on [0, 1] with a Gaussian-mixture potential
//
//	π(x0, x1) = μ0(x0) exp(<x0, x1>/ε) v(x1) / c(x0),  v(y) = Σ_j α_j N(y | r_j, ε S_j)
//
// by maximum likelihood (Korotin, Gushchin and Burnaev, "Light Schrödinger
// bridge", 2024) or by bridge matching within the optimal class (Gushchin,
// Kholkin, Burnaev and Korotin, "Light and optimal Schrödinger bridge matching",
// 2024). A trained potential is used as the bridge of package sbb with β = ∞.
package lightsb

import (
	"errors"
	"fmt"

	"github.com/fortet/fortet/kernels/batch"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/tensor"
)

// ErrInvalid is wrapped by the errors of this package that say what is wrong
// with an argument.
var ErrInvalid = errors.New("invalid light bridge")

// Likelihood minimises
//
//	mean log c(x0) - mean log v(x1) = mean L_0(x0) - mean L_1(x1) + const
//
// over unpaired minibatches (LightSB). Its excess over the minimum is
// KL(π* | π).
type Likelihood struct{ *mixture.Trainer }

// NewLikelihood takes over the potential.
func NewLikelihood(q *mixture.Potential, t mixture.Training) (*Likelihood, error) {
	r, err := mixture.NewTrainer(q, t)
	if err != nil {
		return nil, err
	}
	return &Likelihood{r}, nil
}

// Step queues one step.
func (l *Likelihood) Step(step int) error {
	if err := l.Draw(step); err != nil {
		return err
	}
	if err := gmm.Likelihood(gmm.LikelihoodArgs{
		Mixture: l.Potential.Mixture(),
		Terms:   [2]gmm.Term{{X: l.X0, T: 0, Weight: 1}, {X: l.X1, T: 1, Weight: -1}},
		Partial: l.Partial,
	}); err != nil {
		return err
	}
	return l.Descend(step, l.Partial)
}

// Matching minimises
//
//	mean over rows and coordinates of |g(t, x_t) - (x1 - x_t)/(1-t)|²
//
// over Brownian bridges x_t between rows of source and target drawn
// independently, t uniform on [0, 1 - Safe] (LightSB-M). Its minimiser within
// the class is the Schrödinger bridge, whichever the coupling.
type Matching struct {
	*mixture.Trainer
	safe     float64
	t, xt, u tensor.Tensor
	partial  tensor.Tensor // the rows of Partial that one term takes
}

// NewMatching takes over the potential. safe in (0, 1) keeps times away from 1,
// where the variance of the target is without bound; the papers have 1e-2.
func NewMatching(q *mixture.Potential, t mixture.Training, safe float64) (*Matching, error) {
	if !(safe > 0 && safe < 1) {
		return nil, fmt.Errorf("%w: safe: got %v, want a number between 0 and 1", ErrInvalid, safe)
	}
	r, err := mixture.NewTrainer(q, t)
	if err != nil {
		return nil, err
	}
	m := &Matching{Trainer: r, safe: safe}
	dev, dtype, d := r.X0.Device(), r.X0.DType(), r.X0.Dim(1)
	var errs [3]error
	m.t, errs[0] = tensor.New(dev, dtype, t.Batch)
	m.xt, errs[1] = tensor.New(dev, dtype, t.Batch, d)
	m.u, errs[2] = tensor.New(dev, dtype, t.Batch, d)
	chunks, _ := gmm.PartialShape(q.Mixture(), t.Batch)
	m.partial = r.Partial.Rows(0, chunks)
	if err := errors.Join(errs[:]...); err != nil {
		m.Free()
		return nil, err
	}
	return m, nil
}

// Free returns the memory.
func (m *Matching) Free() {
	for _, t := range []tensor.Tensor{m.t, m.xt, m.u} {
		t.Free()
	}
	m.Trainer.Free()
}

// Step queues one step.
func (m *Matching) Step(step int) error {
	if err := m.Draw(step); err != nil {
		return err
	}
	if err := batch.Bridge(batch.BridgeArgs{
		X0: m.X0, X1: m.X1, Epsilon: m.Potential.Mixture().Epsilon, Safe: m.safe,
		T: m.t, Xt: m.xt, U: m.u, Draw: m.BridgeDraw(step),
	}); err != nil {
		return err
	}
	if err := gmm.Match(gmm.MatchArgs{
		Mixture: m.Potential.Mixture(), X: m.xt, U: m.u, T: m.t,
		Weight: 1 / float64(m.xt.Dim(1)), Partial: m.partial,
	}); err != nil {
		return err
	}
	return m.Descend(step, m.partial)
}
