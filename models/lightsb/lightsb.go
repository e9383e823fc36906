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

// NewLikelihood takes over the potential, unless it fails.
func NewLikelihood(q *mixture.Potential, t mixture.Training) (*Likelihood, error) {
	l := &Likelihood{}
	var err error
	if l.Trainer, err = mixture.NewTrainer(q, t, 2, l.sums); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Likelihood) sums() error {
	return gmm.Likelihood(gmm.LikelihoodArgs{
		Mixture: l.Potential.Mixture(),
		Terms:   [2]gmm.Term{{X: l.X0, T: 0, Weight: l.Weight(1)}, {X: l.X1, T: 1, Weight: l.Weight(-1)}},
		Partial: l.Partial,
	})
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
}

// NewMatching takes over the potential, unless it fails. safe in (0, 1) keeps times away from 1,
// where the variance of the target is without bound; the papers have 1e-2.
func NewMatching(q *mixture.Potential, t mixture.Training, safe float64) (*Matching, error) {
	if !(safe > 0 && safe < 1) {
		return nil, fmt.Errorf("%w: safe: got %v, want a number between 0 and 1", ErrInvalid, safe)
	}
	m := &Matching{safe: safe}
	var err error
	if m.Trainer, err = mixture.NewTrainer(q, t, 1, m.sums); err != nil {
		return nil, err
	}
	dev, dtype, d := m.X0.Device(), m.X0.DType(), m.X0.Dim(1)
	var errs [3]error
	n := m.X0.Dim(0)
	m.t, errs[0] = tensor.New(dev, dtype, n)
	m.xt, errs[1] = tensor.New(dev, dtype, n, d)
	m.u, errs[2] = tensor.New(dev, dtype, n, d)
	if err := errors.Join(errs[:]...); err != nil {
		m.Release()
		return nil, err
	}
	return m, nil
}

// Free returns the memory, that of the potential too.
func (m *Matching) Free() {
	m.Release()
	m.Potential.Free()
}

// Release returns all memory but that of the potential.
func (m *Matching) Release() {
	for _, t := range []tensor.Tensor{m.t, m.xt, m.u} {
		t.Free()
	}
	m.Trainer.Release()
}

func (m *Matching) sums() error {
	if err := m.Bridges(m.safe, m.t, m.xt, m.u); err != nil {
		return err
	}
	return gmm.Match(gmm.MatchArgs{
		Mixture: m.Potential.Mixture(), X: m.xt, U: m.u, T: m.t,
		Weight: m.Weight(1 / float64(m.xt.Dim(1))), Partial: m.Partial,
	})
}
