package sinkhorn

import (
	"context"
	"fmt"
	"math"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/draw"
	"github.com/fortet/fortet/solver/measure"
)

// Purposes of draws: what keeps those of one seed apart from each other.
const (
	drawPair = 1
	drawPath = 2 // the step counts times
)

// Pair is a draw from a plan: indices of a source and a target point.
type Pair struct{ I, J int }

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
func (p Plan) Sample(ctx context.Context, k int, seed uint64) ([]Pair, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if k < 1 {
		return nil, fmt.Errorf("plan: sample: %w: got %d draws, want at least 1", solver.ErrInvalid, k)
	}
	n, m := p.Geometry.Size()
	cumulative := make([]float64, n)
	err := parallel.Each(ctx, 0, n, func(i int) {
		if p.A[i] == 0 {
			return
		}
		row := make([]float64, m)
		p.row(i, row)
		cumulative[i] = measure.Mass(row)
	})
	if err != nil {
		return nil, err
	}
	draw.Cumulate(cumulative)
	if mass := cumulative[n-1]; !(mass > 0) || math.IsInf(mass, 1) {
		return nil, fmt.Errorf("plan: sample: %w: its mass is %v, want a finite number above 0", solver.ErrInvalid, mass)
	}
	// Of draw s, the first uniform chooses the source point, the second the target.
	uniforms := make([]float64, 2*k)
	if err := philox.HostUniform(uniforms, 2, philox.Draw{Seed: seed, Purpose: drawPair}); err != nil {
		return nil, err
	}
	pairs := make([]Pair, k)
	bySource := map[int][]int{} // draws of each source point
	for s := range pairs {
		pairs[s].I = draw.Pick(cumulative, uniforms[2*s])
		bySource[pairs[s].I] = append(bySource[pairs[s].I], s)
	}
	sources := make([]int, 0, len(bySource))
	for i := range bySource {
		sources = append(sources, i)
	}
	err = parallel.Each(ctx, 0, len(sources), func(q int) {
		i := sources[q]
		row := make([]float64, m)
		p.row(i, row)
		draw.Cumulate(row)
		for _, s := range bySource[i] {
			pairs[s].J = draw.Pick(row, uniforms[2*s+1])
		}
	})
	return pairs, err
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
