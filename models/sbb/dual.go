package sbb

import (
	"errors"

	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/tensor"
)

// Floor is the lower bound of scales under which the transport map of every
// potential is monotone at all times, and its inversion convex, for every
// β > 0: (1 + margin) / (1 + β). It is no restriction: Gaussians above it reach
// every target variance. For β = ∞ it is 0.
func Floor(beta, margin float64) float64 { return (1 + margin) / (1 + beta) }

// Dual maximises the dual of ½J,
//
//	D = mean_b [w_1(y1_b) + β/2 |x1_b - y1_b|²] - mean_b [w_0(y0_b) + β/2 |x0_b - y0_b|²]
//
// where y = Z(t, x) inverts the transport map: without simulation, and without
// alternation. By the envelope theorem its gradient is that of the values w at
// y held fixed.
type Dual struct {
	*mixture.Trainer
	beta   float64
	y0, y1 tensor.Tensor // (n, d)
	v0, v1 tensor.Tensor // (n): v(0, x0), v(1, x1)
}

// NewDual takes over the potential, unless it fails. Its floor should be
// Floor(β, 1e-4 or more).
func NewDual(q *mixture.Potential, beta float64, t mixture.Training) (*Dual, error) {
	if err := validBeta(beta); err != nil {
		return nil, err
	}
	l := &Dual{beta: beta}
	var err error
	if l.Trainer, err = mixture.NewTrainer(q, t, 2, l.sums); err != nil {
		return nil, err
	}
	dev, dtype, d := l.X0.Device(), l.X0.DType(), l.X0.Dim(1)
	var errs [4]error
	n := l.X0.Dim(0)
	l.y0, errs[0] = tensor.New(dev, dtype, n, d)
	l.y1, errs[1] = tensor.New(dev, dtype, n, d)
	l.v0, errs[2] = tensor.New(dev, dtype, n)
	l.v1, errs[3] = tensor.New(dev, dtype, n)
	if err := errors.Join(errs[:]...); err != nil {
		l.Release()
		return nil, err
	}
	return l, nil
}

// Free returns the memory, that of the potential too.
func (l *Dual) Free() {
	l.Release()
	l.Potential.Free()
}

// Release returns all memory but that of the potential.
func (l *Dual) Release() {
	for _, t := range []tensor.Tensor{l.y0, l.y1, l.v0, l.v1} {
		t.Free()
	}
	l.Trainer.Release()
}

func (l *Dual) sums() error {
	m := l.Potential.Mixture()
	if err := proximal.Solve(proximal.Args{Mixture: m, X: l.X0, T0: 0, Beta: l.beta, Y: l.y0, Value: l.v0}); err != nil {
		return err
	}
	if err := proximal.Solve(proximal.Args{Mixture: m, X: l.X1, T0: 1, Beta: l.beta, Y: l.y1, Value: l.v1}); err != nil {
		return err
	}
	return gmm.Likelihood(gmm.LikelihoodArgs{
		Mixture: m,
		Terms:   [2]gmm.Term{{X: l.y0, T: 0, Weight: l.Weight(m.Epsilon)}, {X: l.y1, T: 1, Weight: l.Weight(-m.Epsilon)}},
		Partial: l.Partial,
	})
}

// Loss waits for the device and returns -D of the last minibatch, in the
// coordinates of the potential. All processes of a group must ask for it.
func (l *Dual) Loss() (float64, error) {
	v0, err0 := l.Rows(l.v0)
	v1, err1 := l.Rows(l.v1)
	if err := errors.Join(err0, err1); err != nil {
		return 0, err
	}
	sum := 0.0
	for i := range v0 {
		sum += v0[i] - v1[i]
	}
	return sum / float64(len(v0)), nil
}
