// Package gmm is Gaussian-mixture potentials, the light Schrödinger bridges of
// Korotin, Gushchin and Burnaev ("Light Schrödinger bridge", 2024) and of
// Gushchin et al. ("Light and optimal Schrödinger bridge matching", 2024): value,
// drift and its Jacobian, losses and their parameter gradients.
//
// On the time interval [0, 1] of the reference √ε W the potential of a mixture is
//
//	v(y)   = Σ_j α_j N(y | r_j, ε S_j),   h_t(x) = E exp(|x₁|²/2ε) v(x₁),  x₁ = x + √(ε(1-t)) n
//	D_j    = (1-t) I + t S_j
//	ℓ_j    = log α_j - ½ log det D_j + [2 r_jᵀD_j⁻¹x + xᵀ(S_j-I)D_j⁻¹x - t r_jᵀD_j⁻¹r_j] / 2ε
//	L_t(x) = log Σ_j exp ℓ_j = log h_t(x) + (d/2) log 2πε,     w_j = exp(ℓ_j - L_t)
//	g_j    = D_j⁻¹ (r_j + (S_j-I) x),   g = ε ∇ log h_t = Σ_j w_j g_j
//	Dg     = Σ_j w_j D_j⁻¹(S_j-I) + (1/ε) Σ_j w_j (g_j-g)(g_j-g)ᵀ
//
// so that the plan is π(x₁|x₀) = exp(⟨x₀,x₁⟩/ε) v(x₁) / c(x₀) with
// log c(x) = L_0(x) + |x|²/2ε, and L_1(y) = log v(y) + |y|²/2ε + (d/2) log 2πε. These forms, unlike the papers',
// cancel nothing towards t = 0 or t = 1. S_j = A_jᵀ diag(s_j) A_j; where the axes
// A_j are the unit vectors everything takes O(K d) operations a sample, otherwise
// O(K d²).
//
// Every function queues its work on the mixture's device. Results repeat bit for
// bit and do not depend on the number of workers. A component of log α_j = -∞ is
// dead: it has no weight and no gradient. Errors wrap gpu.ErrInvalid or
// tensor.ErrInvalid; nothing has been queued then.
package gmm

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// ScalesArgs are the arguments of Scales. Both arrays have one shape, are
// Float32 or Float64, and lie on one device.
type ScalesArgs struct {
	Raw   tensor.Tensor
	Out   tensor.Tensor // may be Raw
	Floor float64       // at least 0 and finite
}

// Scales queues Out = Floor + exp(Raw), which makes eigenvalues of S of
// unconstrained parameters, with Raw clamped to [-14, 14], so that nothing made
// of s comes near the limits of float32.
func Scales(a ScalesArgs) error {
	const op = "gmm: scales"
	if a.Raw.IsZero() {
		return missing(op, "raw")
	}
	if err := checkType(op, "raw", a.Raw.DType()); err != nil {
		return err
	}
	if err := tensor.Check(op, a.Raw.Device(), tensor.Want("out", a.Out, a.Raw.DType(), a.Raw.Shape()...)); err != nil {
		return err
	}
	if !(a.Floor >= 0) || math.IsInf(a.Floor, 0) {
		return invalid(op, "floor", "got %v, want at least 0", a.Floor)
	}
	if a.Out.Ptr() != a.Raw.Ptr() && a.Out.Buffer().Overlaps(a.Raw.Buffer()) {
		return invalid(op, "out", "overlaps raw, want the same array or another")
	}
	if a.Raw.Len() == 0 {
		return nil
	}
	return launchScales(a)
}

func invalid(op, argument, format string, v ...any) error {
	return fmt.Errorf("%s: %s: %w: %s", op, argument, gpu.ErrInvalid, fmt.Sprintf(format, v...))
}

func missing(op, argument string) error { return invalid(op, argument, "missing") }

func checkType(op, argument string, t tensor.DType) error {
	if t != tensor.Float32 && t != tensor.Float64 {
		return invalid(op, argument, "%v, want f32 or f64", t)
	}
	return nil
}

// checkTime reports a time that is not in [0, 1].
func checkTime(op, argument string, t float64) error {
	if !(t >= 0 && t <= 1) {
		return invalid(op, argument, "got %v, want a time in [0, 1]", t)
	}
	return nil
}

// checkFinite reports a number that is not finite.
func checkFinite(op, argument string, v float64) error {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return invalid(op, argument, "got %v, want a finite number", v)
	}
	return nil
}

// checkRows answers the rows of x, an array (n, d) of the mixture's type.
func checkRows(op, argument string, m Mixture, x tensor.Tensor) (int, error) {
	if x.IsZero() {
		return 0, missing(op, argument)
	}
	if len(x.Shape()) != 2 {
		return 0, invalid(op, argument, "%d axes, want 2", len(x.Shape()))
	}
	return x.Dim(0), tensor.Check(op, m.Logits.Device(), tensor.Want(argument, x, m.Logits.DType(), x.Dim(0), m.Dim()))
}

type named struct {
	name string
	tensor.Tensor
}

func (m Mixture) arrays() [4]named {
	return [4]named{{"logits", m.Logits}, {"means", m.Means}, {"scales", m.Scales}, {"axes", m.Axes}}
}

// checkApart reports an output that shares memory with an input or with another
// output.
func checkApart(op string, m Mixture, outputs, inputs []named) error {
	arrays := m.arrays()
	for i, out := range outputs {
		for _, others := range [3][]named{arrays[:], inputs, outputs[:i]} {
			for _, other := range others {
				if out.Buffer().Overlaps(other.Buffer()) {
					return invalid(op, out.name, "overlaps %s", other.name)
				}
			}
		}
	}
	return nil
}

func pieces(whole, part int) int { return (whole + part - 1) / part }
