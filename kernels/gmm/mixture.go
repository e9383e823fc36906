package gmm

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Mixture is a Gaussian-mixture potential of K components in d dimensions: the
// h of the package comment, by log α, r, and S = Aᵀ diag(s) A. All arrays have
// one element type, Float32 or Float64, and lie on one device.
type Mixture struct {
	Logits tensor.Tensor // (K): log α_j, of any sum
	Means  tensor.Tensor // (K, d): r_j
	Scales tensor.Tensor // (K, d): eigenvalues of S_j, positive
	// Axes (K, d, d) holds in its rows the orthonormal eigenvectors of S_j.
	// The zero Tensor means the unit vectors: S_j is diagonal.
	Axes    tensor.Tensor
	Epsilon float64 // ε of the reference √ε W on [0, 1], positive and finite
}

// Components is K.
func (m Mixture) Components() int { return m.Logits.Len() }

// Dim is d.
func (m Mixture) Dim() int {
	if len(m.Means.Shape()) != 2 {
		return 0
	}
	return m.Means.Dim(1)
}

// Check reports what is wrong with the mixture as the argument of an operation.
// It does not look at the values of the arrays.
func (m Mixture) Check(op string) error {
	if m.Logits.IsZero() || len(m.Logits.Shape()) != 1 || m.Logits.Dim(0) == 0 {
		return fmt.Errorf("%s: logits: %w: %v, want (K) with K > 0", op, gpu.ErrInvalid, m.Logits)
	}
	if m.Means.IsZero() || len(m.Means.Shape()) != 2 || m.Means.Dim(1) == 0 {
		return fmt.Errorf("%s: means: %w: %v, want (K, d) with d > 0", op, gpu.ErrInvalid, m.Means)
	}
	dtype, k, d := m.Logits.DType(), m.Components(), m.Dim()
	if dtype != tensor.Float32 && dtype != tensor.Float64 {
		return fmt.Errorf("%s: logits: %w: %v, want f32 or f64", op, gpu.ErrInvalid, dtype)
	}
	if !(m.Epsilon > 0) || math.IsInf(m.Epsilon, 0) {
		return fmt.Errorf("%s: epsilon: %w: got %v, want a positive finite number", op, gpu.ErrInvalid, m.Epsilon)
	}
	return tensor.Check(op, m.Logits.Device(),
		tensor.Want("logits", m.Logits, dtype, k),
		tensor.Want("means", m.Means, dtype, k, d),
		tensor.Want("scales", m.Scales, dtype, k, d),
		tensor.Maybe("axes", m.Axes, dtype, k, d, d))
}
