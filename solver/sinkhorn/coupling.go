package sinkhorn

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sort"
	"sync"

	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver"
)

// Purposes of draws: what keeps those of one seed apart from each other.
const (
	drawPair = 1 // coordinate 0: the source point, 1: the target point
	drawPath = 2 // step s: the normals of time s
)

// Pair is a draw from a plan: indices of a source and a target point.
type Pair struct{ I, J int }

// Matrix returns the plan itself: (n, m), row-major. It is for plans that fit
// into memory.
func (p Plan) Matrix() []float64 {
	n, m := p.Geometry.Size()
	out := make([]float64, n*m)
	eachRow(n, func(i int) {
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

// eachRow calls do for 0 … n-1 on all cores.
func eachRow(n int, do func(i int)) {
	var wg sync.WaitGroup
	workers := min(runtime.GOMAXPROCS(0), n)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	wg.Wait()
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
	eachRow(n, func(i int) {
		if ctx.Err() != nil || p.A[i] == 0 {
			return
		}
		row := make([]float64, m)
		p.row(i, row)
		cumulative[i] = total(row)
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	accumulate(cumulative)
	if mass := cumulative[n-1]; !(mass > 0) || math.IsInf(mass, 1) {
		return nil, fmt.Errorf("plan: sample: %w: its mass is %v, want a finite number above 0", solver.ErrInvalid, mass)
	}
	pairs := make([]Pair, k)
	bySource := map[int][]int{} // draws of each source point
	for s := range pairs {
		pairs[s].I = pick(cumulative, philox.Uniform(seed, uint64(s), 0, drawPair, 0))
		bySource[pairs[s].I] = append(bySource[pairs[s].I], s)
	}
	sources := make([]int, 0, len(bySource))
	for i := range bySource {
		sources = append(sources, i)
	}
	eachRow(len(sources), func(q int) {
		if ctx.Err() != nil {
			return
		}
		i := sources[q]
		row := make([]float64, m)
		p.row(i, row)
		accumulate(row)
		for _, s := range bySource[i] {
			pairs[s].J = pick(row, philox.Uniform(seed, uint64(s), 0, drawPair, 1))
		}
	})
	return pairs, ctx.Err()
}

func accumulate(v []float64) {
	for i := 1; i < len(v); i++ {
		v[i] += v[i-1]
	}
}

// pick is the first index whose cumulative weight exceeds u times the total:
// never one of weight zero.
func pick(cumulative []float64, u float64) int {
	last := len(cumulative) - 1
	x := u * cumulative[last]
	i := sort.Search(last, func(i int) bool { return cumulative[i] > x })
	for i > 0 && cumulative[i] == cumulative[i-1] { // rounding led past the end
		i--
	}
	return i
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
	eachRow(k, func(s int) {
		x, y := g.X[pairs[s].I*d:(pairs[s].I+1)*d], g.Y[pairs[s].J*d:(pairs[s].J+1)*d]
		at, last := x, 0.0
		for q, t := range times {
			to := out[(s*steps+q)*d : (s*steps+q+1)*d]
			bridge(to, at, y, last, t, variance, seed, uint64(s), uint32(q))
			at, last = to, t
		}
	})
	return out, ctx.Err()
}

// bridge draws a Brownian bridge at time t that is at x at time s and will be
// at y at time 1: N(x + (t-s)/(1-s) (y-x), σ² (t-s)(1-t)/(1-s)).
func bridge(to, x, y []float64, s, t, variance float64, seed, index uint64, step uint32) {
	if t >= 1 || s >= 1 {
		copy(to, y)
		return
	}
	w := (t - s) / (1 - s)
	std := math.Sqrt(variance * w * (1 - t))
	for k := range to {
		to[k] = x[k] + w*(y[k]-x[k])
		if std > 0 {
			to[k] += std * philox.Normal(seed, index, step, drawPath, k)
		}
	}
}
