package gmm

import (
	"github.com/fortet/fortet/tensor"
)

// EvaluateArgs are the arguments of Evaluate. All arrays have the mixture's
// element type and lie on its device.
type EvaluateArgs struct {
	Mixture
	X  tensor.Tensor // (n, d)
	T  tensor.Tensor // (n): times in [0, 1]; zero Tensor: T0 for all
	T0 float64       // in [0, 1]; 0 where T is given
	V  tensor.Tensor // (n, d): for Product alone

	// Outputs; at least one must be given. None may share memory with another
	// array.
	Value    tensor.Tensor // (n): L_t(x) = log h_t(x) + (d/2) log 2πε
	Drift    tensor.Tensor // (n, d): g = ε ∇ log h_t
	Weights  tensor.Tensor // (n, K): w; at t = 0 those of the plan π(·|x)
	Jacobian tensor.Tensor // (n, d, d): Dg, symmetric
	Product  tensor.Tensor // (n, d): Dg v
	Trace    tensor.Tensor // (n): tr Dg
	Norm2    tensor.Tensor // (n): |Dg|², the sum of the squares of its entries
}

// Evaluate queues the computation of the outputs that are given at each (t, x).
// Value, Drift, Weights, Product and Trace take O(K d) operations a sample,
// Jacobian and Norm2 O(K d²); with axes, O(K d²) and O(K d³). A row's results do
// not depend on the other rows. One time for all samples is faster than as many
// equal ones. On a GPU, mixtures of so many components or coordinates that a
// sample's intermediate results do not fit into shared memory are
// gpu.ErrUnsupported.
func Evaluate(a EvaluateArgs) error {
	const op = "gmm: evaluate"
	if err := a.Mixture.Check(op); err != nil {
		return err
	}
	n, err := checkRows(op, "x", a.Mixture, a.X)
	if err != nil {
		return err
	}
	outputs := [...]named{
		{"value", a.Value}, {"drift", a.Drift}, {"weights", a.Weights}, {"jacobian", a.Jacobian},
		{"product", a.Product}, {"trace", a.Trace}, {"norm2", a.Norm2},
	}
	none := true
	for _, out := range outputs {
		none = none && out.IsZero()
	}
	if none {
		return invalid(op, "outputs", "none given")
	}
	dtype, k, d := a.Logits.DType(), a.Components(), a.Dim()
	if err := tensor.Check(op, a.Logits.Device(),
		tensor.Maybe("t", a.T, dtype, n),
		tensor.Maybe("v", a.V, dtype, n, d),
		tensor.Maybe("value", a.Value, dtype, n),
		tensor.Maybe("drift", a.Drift, dtype, n, d),
		tensor.Maybe("weights", a.Weights, dtype, n, k),
		tensor.Maybe("jacobian", a.Jacobian, dtype, n, d, d),
		tensor.Maybe("product", a.Product, dtype, n, d),
		tensor.Maybe("trace", a.Trace, dtype, n),
		tensor.Maybe("norm2", a.Norm2, dtype, n),
	); err != nil {
		return err
	}
	if err := checkTime(op, "t0", a.T0); err != nil {
		return err
	}
	if !a.T.IsZero() && a.T0 != 0 {
		return invalid(op, "t0", "got %v beside t, want 0", a.T0)
	}
	if a.V.IsZero() != a.Product.IsZero() {
		return invalid(op, "v", "v and product go together")
	}
	if err := checkApart(op, a.Mixture, outputs[:], []named{{"x", a.X}, {"t", a.T}, {"v", a.V}}); err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	return launchEvaluate(a, n)
}
