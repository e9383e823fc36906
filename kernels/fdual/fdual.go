// Package fdual is the update that f-divergence transport iterates: for every
// row, the root of a monotone scalar equation over all its pairs, found by
// Newton's method inside a bracket. Nothing of the size of the plan is stored.
//
// With costs c, weights and a density φ = ψ' that is the derivative of the
// divergence's conjugate, written in a variable z that is linear in the
// potentials (see Law),
//
//	z_ij = p_i + q_j + Slope c_ij
//	w_ij = exp(log b_j - Decay c_ij + Shift)
//	Rows: p_i such that Σ_j w_ij φ(z_ij) = 1
//
// which is the update of generalised Sinkhorn (Terjék and González-Sánchez 2022)
// with Decay = 0, and that of the bridge with a Gibbs reference with Slope = 0.
// Eval sums what a certificate needs over the rows of given potentials.
//
// A zero weight is log b_j = -∞, a forbidden pair a matrix entry of +∞. A row
// without any pair, or whose root lies outside of the element type, has
// p_i = NaN; NaN in a row's data makes that row's results NaN. Coordinates of
// points must be finite.
package fdual

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

// Law is a family of densities φ. y is the argument of ψ'.
type Law int

// The laws. Power with A < 1 and JensenShannon live on z > 0 and fall, the others
// rise in z; z leaves no cancellation before the end of a domain.
const (
	Exp            Law = iota // φ = e^z, z = y: KL
	Power                     // φ = z₊^(1/(A-1)), z = 1 + (A-1) y: the alpha divergences
	JensenShannon             // φ = 1/(e^z - 1), z = log 2 - y
	TotalVariation            // φ = (1 + (z - clip(z, -½, ½))/Delta)₊, z = y: |x-1|/2 + Delta (x-1)²/2
)

func (l Law) String() string {
	switch l {
	case Exp:
		return "exp"
	case Power:
		return "power"
	case JensenShannon:
		return "jensen-shannon"
	case TotalVariation:
		return "total-variation"
	}
	return fmt.Sprintf("Law(%d)", int(l))
}

// Pairs are n sources against m targets. All tensors have one element type,
// float32 or float64, and lie on the device that the operation is given.
type Pairs struct {
	X      tensor.Tensor // (n, d) sources; none with Cost Matrix
	YT     tensor.Tensor // (d, m) targets, transposed; none with Cost Matrix
	Matrix tensor.Tensor // (n, m) costs, with Cost Matrix only; +∞ forbids a pair
	Q      tensor.Tensor // (m,) potential of the targets
	LogB   tensor.Tensor // (m,) log weights of the targets; none means 0

	Slope float64 // of the cost in z: at most 0 where φ rises, at least 0 where it falls
	Decay float64 // of the cost in the log weight, at least 0
	Shift float64 // added to log weights
	Law   Law
	A     float64 // of Power, neither 1 nor infinite
	Delta float64 // of TotalVariation, above 0
	Cost  softmin.Cost
}

// RowsArgs are the arguments of Rows beside the pairs.
type RowsArgs struct {
	Start tensor.Tensor // (n,) where to begin; none means wherever is safe
	P     tensor.Tensor // (n,) result; may be Start
	Mass  tensor.Tensor // (n,) result or none, always float64: Σ_j w_ij φ at Start, +∞ outside of the domain
	Steps tensor.Tensor // (n,) result or none, int32: evaluations of the sum
}

// EvalArgs are the arguments of Eval beside the pairs. Results are float64,
// summed in float64 whatever the element type; at least one must be asked for.
type EvalArgs struct {
	P tensor.Tensor // (n,) potential of the sources

	Mass tensor.Tensor // (n,) or none: Σ_j w_ij φ
	Mean tensor.Tensor // (n,) or none: Σ_j w_ij φ c_ij
	F    tensor.Tensor // (n,) or none: Σ_j w_ij f(φ)
	Psi  tensor.Tensor // (n,) or none: Σ_j w_ij ψ
	Edge tensor.Tensor // (n,) or none: the z of the largest φ among pairs of weight above 0
}

// Rows queues p_i such that Σ_j w_ij φ(z_ij) = 1, for every row, to a few units
// in the last place of that sum. Where φ has flat parts (TotalVariation), a Start
// that is a root is kept.
//
// Errors wrap tensor.ErrInvalid or gpu.ErrInvalid for arguments that do not fit.
func (p Pairs) Rows(dev gpu.Device, a RowsArgs) error {
	const op = "fdual: rows"
	s, err := p.check(op, dev)
	if err != nil {
		return err
	}
	if err := tensor.Check(op, dev,
		tensor.Maybe("start", a.Start, s.dtype, s.n),
		tensor.Want("p", a.P, s.dtype, s.n),
		tensor.Maybe("mass", a.Mass, tensor.Float64, s.n),
		tensor.Maybe("steps", a.Steps, tensor.Int32, s.n)); err != nil {
		return err
	}
	if a.Start.IsZero() && !a.Mass.IsZero() {
		return fmt.Errorf("%s: mass: %w: asked for without a start, where it is taken", op, gpu.ErrInvalid)
	}
	for _, in := range []tensor.Tensor{p.X, p.YT, p.Matrix, p.Q, p.LogB} {
		if a.P.Buffer().Overlaps(in.Buffer()) {
			return fmt.Errorf("%s: p: %w: overlaps an input", op, gpu.ErrInvalid)
		}
	}
	return launchRows(dev, p, s, a)
}

// Eval queues the sums that are asked for, over each row. f and ψ are those of
// the unscaled divergences: KL, alpha, Jensen-Shannon and total variation
// without its smoothing.
//
// Errors are those of Rows.
func (p Pairs) Eval(dev gpu.Device, a EvalArgs) error {
	const op = "fdual: eval"
	s, err := p.check(op, dev)
	if err != nil {
		return err
	}
	if a.Mass.IsZero() && a.Mean.IsZero() && a.F.IsZero() && a.Psi.IsZero() && a.Edge.IsZero() {
		return fmt.Errorf("%s: %w: no result is asked for", op, gpu.ErrInvalid)
	}
	if err := tensor.Check(op, dev,
		tensor.Want("p", a.P, s.dtype, s.n),
		tensor.Maybe("mass", a.Mass, tensor.Float64, s.n),
		tensor.Maybe("mean", a.Mean, tensor.Float64, s.n),
		tensor.Maybe("f", a.F, tensor.Float64, s.n),
		tensor.Maybe("psi", a.Psi, tensor.Float64, s.n),
		tensor.Maybe("edge", a.Edge, tensor.Float64, s.n)); err != nil {
		return err
	}
	return launchEval(dev, p, s, a)
}

// rises says whether φ does.
func (p Pairs) rises() bool { return p.Law != JensenShannon && (p.Law != Power || p.A > 1) }

// sizes are what check found.
type sizes struct {
	n, m, d int
	dtype   tensor.DType
}

// check reports whatever is wrong with the pairs.
func (p Pairs) check(op string, dev gpu.Device) (sizes, error) {
	var s sizes
	var errs []error
	invalid := func(argument string, sentinel error, format string, v ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %w: %s", op, argument, sentinel, fmt.Sprintf(format, v...)))
	}
	if dev == nil {
		return s, fmt.Errorf("%s: device: %w: got none", op, gpu.ErrInvalid)
	}
	if p.Law < Exp || p.Law > TotalVariation {
		invalid("law", gpu.ErrInvalid, "got %v", p.Law)
	}
	if p.Cost < softmin.SqEuclidean || p.Cost > softmin.Matrix {
		invalid("cost", gpu.ErrInvalid, "got %v", p.Cost)
	}
	if p.Law == Power && (p.A == 1 || math.IsNaN(p.A) || math.IsInf(p.A, 0)) {
		invalid("a", gpu.ErrInvalid, "got %v, want a finite number other than 1", p.A)
	}
	if p.Law == TotalVariation && (!(p.Delta > 0) || math.IsInf(p.Delta, 0)) {
		invalid("delta", gpu.ErrInvalid, "got %v, want above 0", p.Delta)
	}
	if bad := p.Slope > 0 == p.rises() && p.Slope != 0; bad || math.IsNaN(p.Slope) || math.IsInf(p.Slope, 0) {
		invalid("slope", gpu.ErrInvalid, "got %v, want at most 0 for a law that rises, at least 0 for one that falls", p.Slope)
	}
	if !(p.Decay >= 0) || math.IsInf(p.Decay, 0) {
		invalid("decay", gpu.ErrInvalid, "got %v, want at least 0", p.Decay)
	}
	if math.IsNaN(p.Shift) || math.IsInf(p.Shift, 0) {
		invalid("shift", gpu.ErrInvalid, "got %v, want a finite number", p.Shift)
	}
	first, name := p.X, "x"
	if p.Cost == softmin.Matrix {
		first, name = p.Matrix, "matrix"
		if !p.X.IsZero() || !p.YT.IsZero() {
			invalid("x, y", tensor.ErrInvalid, "got %v and %v, want none with a cost matrix", p.X, p.YT)
		}
	} else if !p.Matrix.IsZero() {
		invalid("matrix", tensor.ErrInvalid, "got %v, want none with cost %v", p.Matrix, p.Cost)
	}
	if len(errs) == 0 && len(first.Shape()) != 2 {
		invalid(name, tensor.ErrInvalid, "got %v, want two axes", first)
	}
	if len(errs) == 0 && p.Cost != softmin.Matrix && len(p.YT.Shape()) != 2 {
		invalid("y", tensor.ErrInvalid, "got %v, want two axes", p.YT)
	}
	if len(errs) > 0 {
		return s, errors.Join(errs...)
	}
	if s.dtype = first.DType(); s.dtype != tensor.Float32 && s.dtype != tensor.Float64 {
		return s, fmt.Errorf("%s: %s: %w: got %v, want f32 or f64", op, name, tensor.ErrInvalid, first)
	}
	s.n, s.m = first.Dim(0), first.Dim(1)
	if p.Cost != softmin.Matrix {
		s.d, s.m = first.Dim(1), p.YT.Dim(1)
	}
	const limit = 1 << 40
	if s.n < 1 || s.m < 1 || (p.Cost != softmin.Matrix && s.d < 1) || s.n > limit || s.m > limit {
		return s, fmt.Errorf("%s: %w: %d by %d pairs of dimension %d, want at least one of each", op, tensor.ErrInvalid, s.n, s.m, s.d)
	}
	return s, tensor.Check(op, dev, p.args(s)...)
}

// args are the tensors of the pairs with what is wanted of them.
func (p Pairs) args(s sizes) []tensor.Arg {
	potentials := []tensor.Arg{
		tensor.Want("q", p.Q, s.dtype, s.m),
		tensor.Maybe("log b", p.LogB, s.dtype, s.m),
	}
	if p.Cost == softmin.Matrix {
		return append(potentials, tensor.Want("matrix", p.Matrix, s.dtype, s.n, s.m))
	}
	return append(potentials,
		tensor.Want("x", p.X, s.dtype, s.n, s.d),
		tensor.Want("y", p.YT, s.dtype, s.d, s.m))
}
