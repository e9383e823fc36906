// Package draw holds the draws that solvers share: from a list of weights, and
// of Brownian bridges.
package draw

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/measure"
)

// Cumulate turns weights into cumulative weights, in place.
func Cumulate(v []float64) {
	for i := 1; i < len(v); i++ {
		v[i] += v[i-1]
	}
}

// Pick is the first index whose cumulative weight exceeds u times the total, u
// in [0, 1]: never one of weight zero where the total is above zero.
func Pick(cumulative []float64, u float64) int {
	last := len(cumulative) - 1
	x := u * cumulative[last]
	i := sort.Search(last, func(i int) bool { return cumulative[i] > x })
	for i > 0 && cumulative[i] == cumulative[i-1] { // rounding led past the end
		i--
	}
	return i
}

// Bridge draws a Brownian bridge of the given variance per unit of time at time
// t that is at x at time s <= t and will be at y at time end:
//
//	N(x + (t-s)/(end-s) (y-x), σ² (t-s)(end-t)/(end-s))
//
// to, x, y and the standard normals noise: (d). to may be x.
func Bridge(to, x, y, noise []float64, s, t, end, variance float64) {
	if t >= end || s >= end {
		copy(to, y)
		return
	}
	w := (t - s) / (end - s)
	std := math.Sqrt(variance * w * (end - t))
	for k := range to {
		to[k] = x[k] + w*(y[k]-x[k]) + std*noise[k]
	}
}

// Pair is a draw from a plan: indices of a source and a target point.
type Pair struct{ I, J int }

// Pairs draws k pairs from a plan of n rows and m columns, normalised to mass
// one: row writes row i of it to out: (m), for several i at a time. Draw s is a
// function of the plan and of sample s of r alone.
func Pairs(ctx context.Context, n, m, k int, r philox.Draw, row func(i int, out []float64)) ([]Pair, error) {
	if k < 1 {
		return nil, fmt.Errorf("sample: %w: got %d draws, want at least 1", solver.ErrInvalid, k)
	}
	cumulative := make([]float64, n)
	err := parallel.Each(ctx, 0, n, func(i int) {
		out := make([]float64, m)
		row(i, out)
		cumulative[i] = measure.Mass(out)
	})
	if err != nil {
		return nil, err
	}
	Cumulate(cumulative)
	if mass := cumulative[n-1]; !(mass > 0) || math.IsInf(mass, 1) {
		return nil, fmt.Errorf("sample: %w: the plan's mass is %v, want a finite number above 0", solver.ErrInvalid, mass)
	}
	// Of draw s, the first uniform chooses the source point, the second the target.
	uniforms := make([]float64, 2*k)
	if err := philox.HostUniform(uniforms, 2, r); err != nil {
		return nil, err
	}
	pairs := make([]Pair, k)
	bySource := map[int][]int{} // draws of each source point
	for s := range pairs {
		pairs[s].I = Pick(cumulative, uniforms[2*s])
		bySource[pairs[s].I] = append(bySource[pairs[s].I], s)
	}
	sources := slices.Collect(maps.Keys(bySource))
	err = parallel.Each(ctx, 0, len(sources), func(q int) {
		out := make([]float64, m)
		row(sources[q], out)
		Cumulate(out)
		for _, s := range bySource[sources[q]] {
			pairs[s].J = Pick(out, uniforms[2*s+1])
		}
	})
	return pairs, err
}

// CheckTimes says what is wrong with times of paths, which Bridges says too: so
// that one can know before ends are drawn.
func CheckTimes(times []float64) error {
	if len(times) == 0 {
		return fmt.Errorf("paths: %w: no times", solver.ErrInvalid)
	}
	for q, t := range times {
		if !(t >= 0 && t <= 1) || q > 0 && t < times[q-1] {
			return fmt.Errorf("paths: %w: time %d is %v, want ascending times from 0 to 1", solver.ErrInvalid, q, t)
		}
	}
	return nil
}

// Bridges draws k Brownian bridges of the given variance over the unit of time at
// ascending times in [0, 1]: bridge i goes from the first to the second point that
// ends returns of it, each (d). The result is (k, len(times), d), row-major.
// Bridge i takes its normals from sample i of r, whose step counts times.
func Bridges(ctx context.Context, k, d int, times []float64, variance float64, r philox.Draw, ends func(i int) (x, y []float64)) ([]float64, error) {
	if err := CheckTimes(times); err != nil {
		return nil, err
	}
	steps := len(times)
	out := make([]float64, k*steps*d)
	noise := make([]float64, k*d)
	for q, t := range times {
		r.Step = uint32(q)
		if err := philox.HostNormal(noise, d, r); err != nil {
			return nil, err
		}
		last := 0.0
		if q > 0 {
			last = times[q-1]
		}
		err := parallel.Each(ctx, 0, k, func(i int) {
			at, y := ends(i)
			if q > 0 {
				at = out[(i*steps+q-1)*d : (i*steps+q)*d]
			}
			Bridge(out[(i*steps+q)*d:(i*steps+q+1)*d], at, y, noise[i*d:(i+1)*d], last, t, 1, variance)
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
