// Package draw holds the draws that solvers share: from a list of weights, and
// of a Brownian bridge. They take uniforms and normals and make no randomness of
// their own.
package draw

import (
	"math"
	"sort"
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
