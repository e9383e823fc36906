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
		cumulative[i] = total(row)
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
	g, err := p.points()
	if err != nil {
		return nil, err
	}
	variance, ok := g.Ground.BrownianVariance(p.Epsilon)
	if !ok {
		return nil, fmt.Errorf("plan: paths: %w: cost %v belongs to no Brownian motion, want sqeuclidean or halfsqeuclidean", solver.ErrInvalid, g.Ground)
	}
	if len(times) == 0 {
		return nil, fmt.Errorf("plan: paths: %w: no times", solver.ErrInvalid)
	}
	for i, t := range times {
		if !(t >= 0 && t <= 1) || i > 0 && t < times[i-1] {
			return nil, fmt.Errorf("plan: paths: %w: time %d is %v, want ascending times from 0 to 1", solver.ErrInvalid, i, t)
		}
	}
	pairs, err := p.Sample(ctx, k, seed)
	if err != nil {
		return nil, err
	}
	d, steps := g.D, len(times)
	out := make([]float64, k*steps*d)
	noise := make([]float64, k*d)
	for q, t := range times {
		if err := philox.HostNormal(noise, d, philox.Draw{Seed: seed, Step: uint32(q), Purpose: drawPath}); err != nil {
			return nil, err
		}
		last := 0.0
		if q > 0 {
			last = times[q-1]
		}
		err := parallel.Each(ctx, 0, k, func(s int) {
			at := g.X[pairs[s].I*d : (pairs[s].I+1)*d]
			if q > 0 {
				at = out[(s*steps+q-1)*d : (s*steps+q)*d]
			}
			y := g.Y[pairs[s].J*d : (pairs[s].J+1)*d]
			draw.Bridge(out[(s*steps+q)*d:(s*steps+q+1)*d], at, y, noise[s*d:(s+1)*d], last, t, 1, variance)
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
