// Package measure holds what solvers do with lists of weights.
package measure

import "math"

// Weights are a copy of w, or n equal ones of total mass 1 where w is nil.
func Weights(w []float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = 1 / float64(n)
	}
	copy(out, w)
	return out
}

// Mass is Σw.
func Mass(w []float64) float64 {
	s := 0.0
	for _, x := range w {
		s += x
	}
	return s
}

// Logs are the logarithms of weights, -Inf of zeros.
func Logs(w []float64) []float64 {
	l := make([]float64, len(w))
	for i, x := range w {
		l[i] = math.Log(x)
	}
	return l
}
