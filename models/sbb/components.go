package sbb

import (
	"context"
	"errors"

	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/tensor"
)

// Occupation is the share of target points that every component accounts for:
// the mean over rows of its weight at t = 1 where Y is for X_1 at the row. It
// sums to one.
func (b *Bridge) Occupation(ctx context.Context, target []float64) ([]float64, error) {
	n, err := b.rows("target", target)
	if err != nil {
		return nil, err
	}
	d, k := b.params.D, b.params.K
	out := make([]float64, k)
	err = b.each(ctx, n, func(c *chunk, lo, hi int) error {
		weights, err := tensor.New(b.dev, b.dtype, hi-lo, k)
		if err != nil {
			return err
		}
		defer weights.Free()
		if err := errors.Join(c.load(target[lo*d:hi*d], 1), c.invert(1)); err != nil {
			return err
		}
		if err := gmm.Evaluate(gmm.EvaluateArgs{Mixture: b.q.Mixture(), X: c.y, T0: 1, Weights: weights}); err != nil {
			return err
		}
		w, err := tensor.Float64s(weights)
		if err != nil {
			return err
		}
		for i, v := range w {
			out[i%k] += v / float64(n)
		}
		return nil
	})
	return out, err
}

// DeadComponents counts the components that account for less than a thousandth
// of an equal share of the target.
func (b *Bridge) DeadComponents(ctx context.Context, target []float64) (int, error) {
	shares, err := b.Occupation(ctx, target)
	dead := 0
	for _, s := range shares {
		if !(s >= 1e-3/float64(len(shares))) {
			dead++
		}
	}
	return dead, err
}
