// Package duallse evaluates dual losses of entropic and f-divergence
// multi-marginal transport over the nodes of a batch, with their gradients.
//
// The cost is a star. A centre y_j, j < n, has arms m < M of leaves t_mk, k < n_m:
//
//	c(j, k_1…k_M) = Norm |y_j|² + Σ_m Weight_m c_m(y_j, t_mk),  c_m = |y_j - t_mk|² or a given matrix
//
// One arm is the two-marginal problem, two arms are the chain x - y - t. All
// expectations run over all tuples of the batch (a V-statistic), at the price
// of pairs, since the log-sum-exp passes messages from the leaves to the centre:
//
//	A_m(j) = LSE_k( log b_mk + γ_mk - Weight_m c_m(y_j, t_mk)/ε )
//	log E  = LSE_j( log b_j + β_j + extra_j - Norm |y_j|²/ε + Σ_m A_m(j) )
//
// With zero potentials log E is log Z, the normaliser of the Gibbs prior
// dR = Z⁻¹ exp(-c/ε) ⊗b. Two duals of min KL(π|R) follow (Dual, DualE); the
// first is invariant under shifts of potentials, and both are equal at the optimum.
//
// For another f-divergence the dual is Σ_m ⟨b_m, γ_m⟩ - ∫ψ(Σγ) dR with
// ψ = f* (Terjék and González-Sánchez 2022). It does not factorise: Penalty
// sums over all pairs or triples of a batch without storing them, PenaltyOf
// over given tuples.
//
// Calls check their arguments, queue work on a device and return; Value and
// the gradients are there when the queue has run. Inputs are not changed and
// must not overlap outputs. Element types are float32 and float64, one for all
// arrays of a call; values are float64 in both. Base weights b are exp
// LogWeight, or uniform; they should sum to one, and -∞ is a weight of zero.
// A potential may be -∞ too. A NaN or +∞ makes NaN of what it takes part in.
// Sums have a fixed order: results repeat bit for bit, whatever the number of
// workers. Errors wrap tensor.ErrInvalid, gpu.ErrInvalid or the device's own.
package duallse

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// MaxArms is the largest number of arms of a Star.
const MaxArms = 8

// Arm is a marginal that is tied to the centre by a cost.
type Arm struct {
	Potential tensor.Tensor // γ (n_m); the zero Tensor is zeros
	LogWeight tensor.Tensor // log b (n_m); the zero Tensor is uniform
	Points    tensor.Tensor // t (n_m, d), for the squared Euclidean cost; or
	Cost      tensor.Tensor // c (n, n_m)
	Weight    float64       // of the cost, > 0
}

// Star is a multi-marginal problem over the nodes of a batch.
type Star struct {
	Epsilon   float64       // ε > 0
	Norm      float64       // of the term Norm |y|² of the cost; not 0 needs Points
	Potential tensor.Tensor // β (n); the zero Tensor is zeros
	LogWeight tensor.Tensor // log b (n); the zero Tensor is uniform
	Extra     tensor.Tensor // (n), added to the exponent at the centre; the zero Tensor is zeros
	Points    tensor.Tensor // y (n, d); not needed if all arms have a Cost and Norm = 0
	Arms      []Arm         // 1 to MaxArms
}

// Objective is what gradients with respect to potentials are gradients of.
type Objective int

// The objectives. Gradients with respect to points are the same for both.
const (
	Functional   Objective = iota // log E, or the penalty
	NegativeDual                  // that less Σ ⟨b, potential⟩: the loss to minimise
)

// ArmOutput is what is wanted of an arm; a zero Tensor is not computed.
type ArmOutput struct {
	Potential   tensor.Tensor // ∂/∂γ_k = Σ_j P_jk (n_m)
	Points      tensor.Tensor // ∂/∂t_k = 2 Weight/ε Σ_j P_jk (y_j - t_k) (n_m, d)
	Plan        tensor.Tensor // P_jk (n, n_m); ∂/∂Cost is -Weight/ε times it
	Conditional tensor.Tensor // P_k|j (n, n_m)
}

// Output is what is wanted of a Star; a zero Tensor is not computed.
type Output struct {
	Value     tensor.Tensor // (2) float64: what ReadValue reads
	Potential tensor.Tensor // ∂/∂β_j = P_j (n)
	Points    tensor.Tensor // ∂/∂y_j (n, d)
	Arms      []ArmOutput   // none, or one for each arm
	Objective Objective
}

// LogE queues log E of a star and its gradients. Work: 2d operations and one
// exponential for each pair and pass; there is a pass for log E, one for the
// gradients of arms, and one for that of Points, Plan or Conditional.
// Workspace: (M+1) n float64.
func LogE(dev gpu.Device, s Star, out Output) error {
	const op = "duallse"
	if dev == nil {
		return fmt.Errorf("%s: device: %w: got none", op, gpu.ErrInvalid)
	}
	sz, err := s.check(dev, op)
	if err != nil {
		return err
	}
	if err := out.check(dev, op, s, sz); err != nil {
		return err
	}
	return evaluate(dev, op, s, sz, nil, out)
}

// evaluate is LogE of checked arguments, with the marginal of the centre
// normalised by *logZ where that is not nil.
func evaluate(dev gpu.Device, op string, s Star, sz sizes, logZ *float64, out Output) error {
	work, err := tensor.New(dev, tensor.Float64, len(s.Arms)+1, sz.n)
	if err != nil {
		return fmt.Errorf("%s: workspace: %w", op, err)
	}
	defer work.Free()
	return launchStar(dev, s, sz, logZ, out, work)
}

// sizes are what the arrays of a Star agree on.
type sizes struct {
	n, d  int
	dtype tensor.DType
	arms  []int
}

// dim is axis i of t, or 0 where t has no such axis.
func dim(t tensor.Tensor, i int) int {
	if i >= len(t.Shape()) {
		return 0
	}
	return t.Dim(i)
}

// sizes takes sizes from the first arrays that have them; check compares.
func (s Star) sizes() sizes {
	sz := sizes{d: dim(s.Points, 1)}
	first := func(t tensor.Tensor, n *int, axis int) {
		if sz.dtype == 0 && !t.IsZero() {
			sz.dtype = t.DType()
		}
		if *n == 0 {
			*n = dim(t, axis)
		}
	}
	for _, t := range []tensor.Tensor{s.Points, s.Potential, s.LogWeight, s.Extra} {
		first(t, &sz.n, 0)
	}
	for _, a := range s.Arms {
		m := 0
		first(a.Cost, &sz.n, 0)
		first(a.Points, &m, 0)
		first(a.Cost, &m, 1)
		sz.arms = append(sz.arms, m)
	}
	return sz
}

func positive(v float64) bool { return v > 0 && !math.IsInf(v, 1) }

func (s Star) check(dev gpu.Device, op string) (sizes, error) {
	sz := s.sizes()
	var errs []error
	bad := func(format string, v ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{op}, v...)...))
	}
	if !positive(s.Epsilon) {
		bad("epsilon: %w: got %v, want a finite number > 0", gpu.ErrInvalid, s.Epsilon)
	}
	if math.IsNaN(s.Norm) || math.IsInf(s.Norm, 0) {
		bad("norm: %w: got %v, want a finite number", gpu.ErrInvalid, s.Norm)
	}
	if len(s.Arms) < 1 || len(s.Arms) > MaxArms {
		bad("arms: %w: got %d, want 1 to %d", gpu.ErrInvalid, len(s.Arms), MaxArms)
	}
	if len(errs) > 0 {
		return sz, errors.Join(errs...)
	}
	if sz.dtype != tensor.Float32 && sz.dtype != tensor.Float64 {
		return sz, fmt.Errorf("%s: %w: element type %v, want f32 or f64", op, tensor.ErrInvalid, sz.dtype)
	}
	needPoints := s.Norm != 0
	for _, a := range s.Arms {
		needPoints = needPoints || !a.Points.IsZero()
	}
	args := []tensor.Arg{
		tensor.Maybe("potential", s.Potential, sz.dtype, sz.n),
		tensor.Maybe("log weight", s.LogWeight, sz.dtype, sz.n),
		tensor.Maybe("extra", s.Extra, sz.dtype, sz.n),
		tensor.Want("points", s.Points, sz.dtype, sz.n, sz.d),
	}
	args[len(args)-1].Optional = !needPoints
	if sz.n < 1 {
		bad("%w: no centre", tensor.ErrInvalid)
	}
	if !s.Points.IsZero() && sz.d < 1 {
		bad("points: %w: %v, want (n, d) with d > 0", tensor.ErrInvalid, s.Points)
	}
	for i, a := range s.Arms {
		name := func(what string) string { return fmt.Sprintf("arm %d: %s", i, what) }
		if !positive(a.Weight) {
			bad("%s: %w: got %v, want a finite number > 0", name("weight"), gpu.ErrInvalid, a.Weight)
		}
		if a.Points.IsZero() == a.Cost.IsZero() {
			bad("%s: %w: want points or a cost, and not both", name("cost"), tensor.ErrInvalid)
			continue
		}
		if sz.arms[i] < 1 {
			bad("%s: %w: no leaves", name("cost"), tensor.ErrInvalid)
		}
		args = append(args,
			tensor.Maybe(name("potential"), a.Potential, sz.dtype, sz.arms[i]),
			tensor.Maybe(name("log weight"), a.LogWeight, sz.dtype, sz.arms[i]),
			tensor.Maybe(name("points"), a.Points, sz.dtype, sz.arms[i], sz.d),
			tensor.Maybe(name("cost"), a.Cost, sz.dtype, sz.n, sz.arms[i]))
	}
	return sz, errors.Join(append(errs, tensor.Check(op, dev, args...))...)
}

func (o Output) check(dev gpu.Device, op string, s Star, sz sizes) error {
	if o.Objective != Functional && o.Objective != NegativeDual {
		return fmt.Errorf("%s: objective: %w: got %d", op, gpu.ErrInvalid, int(o.Objective))
	}
	if len(o.Arms) != 0 && len(o.Arms) != len(s.Arms) {
		return fmt.Errorf("%s: output: %w: %d arms, want none or %d", op, gpu.ErrInvalid, len(o.Arms), len(s.Arms))
	}
	if !o.Points.IsZero() && s.Points.IsZero() {
		return fmt.Errorf("%s: gradient of points: %w: the centre has no points", op, tensor.ErrInvalid)
	}
	args := []tensor.Arg{
		tensor.Maybe("value", o.Value, tensor.Float64, 2),
		tensor.Maybe("gradient of potential", o.Potential, sz.dtype, sz.n),
		tensor.Maybe("gradient of points", o.Points, sz.dtype, sz.n, sz.d),
	}
	for i, a := range o.Arms {
		name := func(what string) string { return fmt.Sprintf("arm %d: %s", i, what) }
		if !a.Points.IsZero() && s.Arms[i].Points.IsZero() {
			return fmt.Errorf("%s: %s: %w: the arm has no points", op, name("gradient of points"), tensor.ErrInvalid)
		}
		args = append(args,
			tensor.Maybe(name("gradient of potential"), a.Potential, sz.dtype, sz.arms[i]),
			tensor.Maybe(name("gradient of points"), a.Points, sz.dtype, sz.arms[i], sz.d),
			tensor.Maybe(name("plan"), a.Plan, sz.dtype, sz.n, sz.arms[i]),
			tensor.Maybe(name("conditional"), a.Conditional, sz.dtype, sz.n, sz.arms[i]))
	}
	return tensor.Check(op, dev, args...)
}

// wantsLeaves and wantsRows say which passes an Output needs.
func (o Output) wantsLeaves() bool {
	for _, a := range o.Arms {
		if !a.Potential.IsZero() || !a.Points.IsZero() {
			return true
		}
	}
	return false
}

func (o Output) wantsRows() bool {
	for _, a := range o.Arms {
		if !a.Plan.IsZero() || !a.Conditional.IsZero() {
			return true
		}
	}
	return !o.Points.IsZero()
}

// Value is what LogE tells of a Star.
type Value struct {
	LogE   float64 // log E
	Linear float64 // Σ_j b_j β_j + Σ_mk b_mk γ_mk
}

// ReadValue waits for the queue and reads Output.Value.
func ReadValue(t tensor.Tensor) (Value, error) {
	var v [2]float64
	if t.DType() != tensor.Float64 || t.Len() != len(v) {
		return Value{}, fmt.Errorf("duallse: value: %w: %v, want f64 (2,)", tensor.ErrInvalid, t)
	}
	if err := tensor.Get(t, v[:]); err != nil {
		return Value{}, fmt.Errorf("duallse: value: %w", err)
	}
	return Value{v[0], v[1]}, nil
}

// Dual is the dual of min KL(π|R) in Donsker and Varadhan's form,
// Linear - (log E - log Z): a lower bound, invariant under shifts of potentials.
func (v Value) Dual(logZ float64) float64 { return v.Linear - (v.LogE - logZ) }

// DualE is the dual with ψ(y) = e^y - 1: Linear - (E/Z - 1). It is at most Dual.
func (v Value) DualE(logZ float64) float64 { return v.Linear - math.Expm1(v.LogE-logZ) }
