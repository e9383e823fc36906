// Package geometry says where the points are and what moving costs, and
// answers the questions that solvers ask of it on a device: the softmin over
// all pairs, a whole Sinkhorn sweep, and the application of a plan. The cost
// matrix need not exist; a geometry decides by itself whether to stream the
// cost or to cache it where that is faster and fits.
package geometry

import (
	"context"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

// Geometry is n points, m points, and a cost between them. Implementations
// are values that are not changed once they are in use.
type Geometry interface {
	// Size returns n and m.
	Size() (n, m int)
	// Dim returns the dimension of the points, 0 where there are no points.
	Dim() int
	// Cost names the cost.
	Cost() Cost
	// Validate reports every fault at once.
	Validate() error
	// Mean returns the mean of the cost under the product of the weights a (n)
	// and b (m); nil weights are uniform.
	Mean(ctx context.Context, a, b []float64) (float64, error)
	// Std returns its standard deviation.
	Std(ctx context.Context, a, b []float64) (float64, error)
	// Row writes the costs c_i1 … c_im of source point i to out: (m).
	Row(i int, out []float64)
	// Transpose is the same geometry with the roles of both sides exchanged.
	Transpose() Geometry
	// Open prepares the geometry on a device in a precision. The caller
	// closes the operator.
	Open(dev gpu.Device, dtype tensor.DType, o Options) (Operator, error)
}

// Options refine Open. The zero value is the default.
type Options struct {
	// CacheBytes is how much device memory a cached cost matrix may take. 0
	// means 1 GiB; negative means never to cache.
	CacheBytes int64
}

// Operator is a geometry on a device, in one precision. All vectors are
// tensors of that precision on that device, except where noted; see package
// kernels/softmin for the formulas.
type Operator interface {
	// Softmin computes out_i = -ε log Σ_j exp(logb_j + (g_j - c_ij)/ε) with
	// g, logb: (m), out: (n).
	Softmin(out, g, logb tensor.Tensor, epsilon float64) error
	// Sweep computes out = softmin(g) and the second marginal col: (m), a
	// float64 tensor, of the plan of potentials (damp·out, g) and weights
	// (exp loga, exp logb), in one pass over the pairs.
	Sweep(out, col, g, loga, logb tensor.Tensor, damp, epsilon float64) error
	// Apply applies P_ij = exp(logb_j + (f_i + g_j - c_ij)/ε); outputs may be
	// the zero Tensor.
	Apply(a Apply, epsilon float64) error
	// Transposed is the operator of the transposed geometry. It belongs to
	// this one and is closed with it.
	Transposed() (Operator, error)
	// Cached reports whether the cost matrix is held in memory.
	Cached() bool
	Close()
}

// Apply is the argument of Operator.Apply.
type Apply struct {
	F, G, LogB tensor.Tensor
	V          tensor.Tensor // (m, k)
	Mass       tensor.Tensor // (n): Σ_j P_ij
	Mean       tensor.Tensor // (n): Σ_j P_ij c_ij
	R          tensor.Tensor // (n, k): Σ_j P_ij v_j
	Grad       tensor.Tensor // (n, d): Σ_j P_ij ∂c/∂x(x_i, y_j)
}

// Cost is a ground cost.
type Cost int

// The costs. The entropic plan of SqEuclidean at ε is that of HalfSqEuclidean
// at ε/2, and the Brownian motion that it bridges has variance ε/2 and ε.
const (
	SqEuclidean     Cost = iota // |x-y|²
	HalfSqEuclidean             // |x-y|²/2
	Euclidean                   // |x-y|
	Cosine                      // 1 - <x,y>/(|x||y|)
	GivenMatrix                 // a matrix
)

func (c Cost) String() string {
	switch c {
	case SqEuclidean:
		return "sqeuclidean"
	case HalfSqEuclidean:
		return "halfsqeuclidean"
	case Euclidean:
		return "euclidean"
	case Cosine:
		return "cosine"
	case GivenMatrix:
		return "matrix"
	}
	return fmt.Sprintf("Cost(%d)", int(c))
}

// BrownianVariance is the variance over [0, 1] of the Brownian motion whose
// Schrödinger bridge has the entropic plan of cost c at ε as its endpoints'
// law; ok is false where there is none.
func (c Cost) BrownianVariance(epsilon float64) (variance float64, ok bool) {
	switch c {
	case SqEuclidean:
		return epsilon / 2, true
	case HalfSqEuclidean:
		return epsilon, true
	}
	return 0, false
}

// checkPoints reports the first element of v that is not finite, and sizes
// that do not fit.
func checkPoints(name string, v []float64, n, d int) error {
	if n < 1 || d < 1 {
		return fmt.Errorf("geometry: %s: %w: %d points of dimension %d, want at least one of each", name, solver.ErrInvalid, n, d)
	}
	if n > math.MaxInt/8/d || len(v) != n*d {
		return fmt.Errorf("geometry: %s: %w: %d numbers, want %d × %d", name, solver.ErrInvalid, len(v), n, d)
	}
	for i, x := range v {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("geometry: %s: %w: point %d, coordinate %d is %v, want a finite number", name, solver.ErrInvalid, i/d, i%d, x)
		}
	}
	return nil
}

// checkWeights is what Mean and Std want of their weights.
func checkWeights(a, b []float64, n, m int) error {
	if a != nil && len(a) != n {
		return fmt.Errorf("geometry: source: %w: %d weights for %d points", solver.ErrInvalid, len(a), n)
	}
	if b != nil && len(b) != m {
		return fmt.Errorf("geometry: target: %w: %d weights for %d points", solver.ErrInvalid, len(b), m)
	}
	return nil
}
