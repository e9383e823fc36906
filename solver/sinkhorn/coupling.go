package sinkhorn

import (
	"context"
	"fmt"
	"math"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/draw"
)

// Purposes of draws: what keeps those of one seed apart from each other.
const (
	drawPair = 1
	drawPath = 2 // the step counts times
)

// Matrix returns the plan itself: (n, m), row-major. It is for plans that fit
// into memory.
func (p Plan) Matrix() []float64 {
	n, m := p.Geometry.Size()
	out := make([]float64, n*m)
	_ = parallel.Each(context.Background(), 0, n, func(i int) {
		row := out[i*m : (i+1)*m]
		p.row(i, row)
	})
	return out
}

// row writes row i of the plan.
func (p Plan) row(i int, out []float64) {
	p.Geometry.Row(i, out)
	for j, c := range out {
		out[j] = 0
		if w := p.A[i] * p.B[j]; w > 0 {
			out[j] = w * math.Exp((p.F[i]+p.G[j]-c)/p.Epsilon)
		}
	}
}

// Sample draws k pairs from the plan, normalised to mass one. Draw s is a
// function of the plan, the seed and s alone.
func (p Plan) Sample(ctx context.Context, k int, seed uint64) ([]draw.Pair, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	n, m := p.Geometry.Size()
	pairs, err := draw.Pairs(ctx, n, m, k, philox.Draw{Seed: seed, Purpose: drawPair}, p.row)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return pairs, nil
}

// Paths draws k paths of the Schrödinger bridge at ascending times in [0, 1]:
// pairs from the plan, joined by Brownian bridges of the reference's variance.
// The result is (k, len(times), d), row-major. Path s is a function of the
// plan, the times, the seed and s alone.
func (p Plan) Paths(ctx context.Context, k int, times []float64, seed uint64) ([]float64, error) {
	g, u, err := p.cloud()
	if err != nil {
		return nil, err
	}
	variance, ok := g.Ground.BrownianVariance(p.Epsilon)
	if !ok {
		return nil, fmt.Errorf("plan: paths: %w: cost %v belongs to no Brownian motion, want sqeuclidean or halfsqeuclidean", solver.ErrInvalid, g.Ground)
	}
	if err := draw.CheckTimes(times); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	pairs, err := p.Sample(ctx, k, seed)
	if err != nil {
		return nil, err
	}
	d := g.D
	out, err := draw.Bridges(ctx, k, d, times, variance, philox.Draw{Seed: seed, Purpose: drawPath}, func(s int) (x, y []float64) {
		return g.X[pairs[s].I*d : (pairs[s].I+1)*d], g.Y[pairs[s].J*d : (pairs[s].J+1)*d]
	})
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return u.own(out), nil
}
