// Package measure holds what solvers do with lists of weights.
package measure

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
)

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

// CheckWeights returns the total of the weights of n points, 1 for nil, or what
// is wrong with them; name says whose they are.
func CheckWeights(name string, w []float64, n int) (float64, error) {
	if w == nil {
		return 1, nil
	}
	if len(w) != n {
		return 0, fmt.Errorf("%s: %w: %d weights for %d points", name, solver.ErrInvalid, len(w), n)
	}
	for i, x := range w {
		if !(x >= 0) || math.IsInf(x, 1) {
			return 0, fmt.Errorf("%s: %w: weight %d is %v, want a finite number of at least 0", name, solver.ErrInvalid, i, x)
		}
	}
	mass := Mass(w)
	if !(mass > 0) || math.IsInf(mass, 1) {
		return 0, fmt.Errorf("%s: %w: they sum to %v, want a finite number above 0", name, solver.ErrInvalid, mass)
	}
	return mass, nil
}

// CheckFinite says what is wrong with n numbers that should be finite.
func CheckFinite(name string, v []float64, n int) error {
	if len(v) != n {
		return fmt.Errorf("%s: %w: %d numbers, want %d", name, solver.ErrInvalid, len(v), n)
	}
	for i, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%s: %w: entry %d is %v, want a finite number", name, solver.ErrInvalid, i, x)
		}
	}
	return nil
}
