package solver

import "github.com/fortet/fortet/tensor"

// Annealing is the ladder of ε that iterative solvers go down, with warm starts:
// from the mean cost by halves, as long as a half is above epsilon, and then
// epsilon.
func Annealing(mean, epsilon float64) []float64 {
	var down []float64
	for e := mean; e*AnnealFactor > epsilon; e *= AnnealFactor {
		down = append(down, e)
	}
	return append(down, epsilon)
}

// Every stage of annealing but the last only has to bring the potentials near
// enough for the next: to CoarseResidual, in at most CoarseSweeps.
const (
	AnnealFactor   = 0.5
	CoarseResidual = 0.01
	CoarseSweeps   = 40
)

// LeaveFactor is how far above its floor an accelerated stage hands over to the
// next precision: mixing solves for small differences of residuals, which
// rounding spoils long before it stops plain steps. With 8, problems of 1024 to
// 2048 points in 2 and 64 dimensions needed fewer sweeps than without (270
// against 484 where it mattered most).
const LeaveFactor = 8

// smallPairs is the number of pairs up to which float64 costs less than the
// second stage of a ladder.
const smallPairs = 1 << 16

// DTypes are the precisions of the iterations over so many pairs of points, in
// order.
func (p Precision) DTypes(pairs int) []tensor.DType {
	switch {
	case p == Single:
		return []tensor.DType{tensor.Float32}
	case p == Double, pairs <= smallPairs:
		return []tensor.DType{tensor.Float64}
	}
	return []tensor.DType{tensor.Float32, tensor.Float64}
}

// Roundoff is the unit roundoff of float32 or float64.
func Roundoff(t tensor.DType) float64 {
	if t == tensor.Float64 {
		return 0x1p-53
	}
	return 0x1p-24
}
