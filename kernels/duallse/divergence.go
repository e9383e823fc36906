package duallse

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Kind is a family of f-divergences.
type Kind int

// The divergences D_f(π|R) = ∫f(dπ/dR)dR, all with f(1) = f'(1) = 0, so that
// ψ = f* has ψ(0) = 0 and ψ'(0) = 1.
const (
	KL             Kind = iota // f = x log x - x + 1,              ψ = e^y - 1
	ReverseKL                  // f = -log x + x - 1,               ψ = -log(1-y),          y < 1
	Pearson                    // f = (x-1)²,                       ψ = (1+y/2)₊² - 1
	Neyman                     // f = (1-x)²/x,                     ψ = 2 - 2√(1-y),        y < 1
	Hellinger                  // f = (√x-1)²,                      ψ = y/(1-y),            y < 1
	JensenShannon              // f = x log x - (1+x)log((1+x)/2),  ψ = -log(2-e^y),        y < log 2
	Alpha                      // f = (x^a-ax+a-1)/(a(a-1)),        ψ = ((1+(a-1)y)₊^(a/(a-1))-1)/a, y < 1/(1-a) if a < 1
	TotalVariation             // f = |x-1|/2,                      ψ = max(y, -½),         y ≤ ½
)

func (k Kind) String() string {
	names := [...]string{"kl", "reverse-kl", "pearson", "neyman", "hellinger", "jensen-shannon", "alpha", "total-variation"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return names[k]
}

// DefaultDelta is the Delta of a Divergence that has none.
const DefaultDelta = 1e-3

// minDelta32 is the least Delta in float32: closer to the end of the domain,
// its unit in the last place is a tenth of the distance.
const minDelta32 = 1e-6

// Divergence is an f-divergence. The zero value is KL.
//
// Where the domain of ψ ends at some y_max, ψ is continued by its tangent line
// from Cap = y_max - Delta on. The dual then stays concave and finite, and is
// the dual of the same problem with the constraint dπ/dR ≤ ψ'(Cap). The end of
// total variation's domain is a cliff; it is continued by y + (y-½)²/(2 Delta),
// the conjugate of |x-1|/2 + Delta (x-1)₊²/2.
type Divergence struct {
	Kind  Kind
	Alpha float64 // a of Alpha; 1 is KL and 0 is ReverseKL, their limits
	Delta float64 // > 0 and less than y_max; 0 is DefaultDelta
}

// canonical replaces defaults and limits.
func (d Divergence) canonical() Divergence {
	if d.Delta == 0 {
		d.Delta = DefaultDelta
	}
	if d.Kind == Alpha && d.Alpha == 1 {
		d.Kind = KL
	}
	if d.Kind == Alpha && d.Alpha == 0 {
		d.Kind = ReverseKL
	}
	return d
}

// Validate reports whether d is a divergence.
func (d Divergence) Validate() error {
	d = d.canonical()
	switch end := d.end(); {
	case d.Kind < KL || d.Kind > TotalVariation:
		return fmt.Errorf("duallse: divergence: %w: got %v", gpu.ErrInvalid, d.Kind)
	case d.Kind == Alpha && (math.IsNaN(d.Alpha) || math.IsInf(d.Alpha, 0)):
		return fmt.Errorf("duallse: divergence: alpha: %w: got %v, want a finite number", gpu.ErrInvalid, d.Alpha)
	case !(d.Delta > 0 && d.Delta < end) || math.IsInf(d.Delta, 1):
		return fmt.Errorf("duallse: divergence: delta: %w: got %v, want > 0 and < %v", gpu.ErrInvalid, d.Delta, end)
	}
	return nil
}

// end is the end y_max of ψ's domain.
func (d Divergence) end() float64 {
	switch {
	case d.Kind == ReverseKL || d.Kind == Neyman || d.Kind == Hellinger:
		return 1
	case d.Kind == JensenShannon:
		return math.Ln2
	case d.Kind == Alpha && d.Alpha < 1:
		return 1 / (1 - d.Alpha)
	case d.Kind == TotalVariation:
		return 0.5
	}
	return math.Inf(1)
}

// Cap is where ψ goes over into its continuation: +∞ where the domain is R.
func (d Divergence) Cap() float64 {
	d = d.canonical()
	if d.Kind == TotalVariation {
		return 0.5
	}
	return d.end() - d.Delta
}

// F is f(x) for x ≥ 0, of the divergence itself, without what Delta adds to it.
func (d Divergence) F(x float64) float64 {
	d = d.canonical()
	xlog := func(v float64) float64 {
		if x == 0 {
			return 0
		}
		return x * math.Log(v)
	}
	switch a := d.Alpha; d.Kind {
	case ReverseKL:
		return -math.Log(x) + x - 1
	case Pearson:
		return (x - 1) * (x - 1)
	case Neyman:
		return (1 - x) * (1 - x) / x
	case Hellinger:
		return (math.Sqrt(x) - 1) * (math.Sqrt(x) - 1)
	case JensenShannon:
		return xlog(x) - (1+x)*math.Log((1+x)/2)
	case Alpha:
		return (math.Pow(x, a) - a*x + a - 1) / (a * (a - 1))
	case TotalVariation:
		return math.Abs(x-1) / 2
	}
	return xlog(x) - x + 1
}

// Psi is ψ(y) with its continuation, ψ'(y), the density dπ/dR of the plan with
// potentials' sum y, and the slope (log ψ')'(y), by which the gradient of a
// potential is multiplied in the drift of a Langevin sampler. The slope is 0
// where ψ' is 0 or constant; ψ' of total variation at its kink -½ is 0.
func (d Divergence) Psi(y float64) (psi, derivative, slope float64) {
	d = d.canonical()
	if math.IsNaN(y) {
		return y, y, y
	}
	if d.Kind == TotalVariation {
		over := max(y-0.5, 0)
		if y <= -0.5 {
			return -0.5, 0, 0
		}
		derivative = 1 + over/d.Delta
		if over > 0 {
			slope = 1 / d.Delta / derivative
		}
		return y + over*over/(2*d.Delta), derivative, slope
	}
	end := d.Cap()
	v := min(y, end)
	switch d.Kind {
	case ReverseKL:
		psi, derivative, slope = -math.Log1p(-v), 1/(1-v), 1/(1-v)
	case Pearson:
		if v <= -2 {
			return -1, 0, 0
		}
		psi, derivative, slope = v+v*v/4, 1+v/2, 1/(2+v)
	case Neyman:
		r := math.Sqrt(1 - v)
		psi, derivative, slope = 2*v/(1+r), 1/r, 1/(2*(1-v))
	case Hellinger:
		psi, derivative, slope = v/(1-v), 1/((1-v)*(1-v)), 2/(1-v)
	case JensenShannon:
		e := math.Exp(v)
		psi, derivative, slope = -math.Log1p(-math.Expm1(v)), e/(2-e), 2/(2-e)
	case Alpha:
		w := (d.Alpha - 1) * v
		if w <= -1 {
			return -1 / d.Alpha, 0, 0
		}
		l := math.Log1p(w) / (d.Alpha - 1)
		psi, derivative, slope = math.Expm1(l*d.Alpha)/d.Alpha, math.Exp(l), 1/(1+w)
	default:
		psi, derivative, slope = math.Expm1(v), math.Exp(v), 1
	}
	if y > end {
		return psi + derivative*(y-end), derivative, 0
	}
	return psi, derivative, slope
}

// PsiOutput is what is wanted of Evaluate, each of y's shape (n) and type; a
// zero Tensor is not computed.
type PsiOutput struct {
	Psi, Derivative, Slope tensor.Tensor
}

// Evaluate queues Divergence.Psi of each element of y (n).
func Evaluate(dev gpu.Device, d Divergence, y tensor.Tensor, out PsiOutput) error {
	const op = "duallse: psi"
	if dev == nil {
		return fmt.Errorf("%s: device: %w: got none", op, gpu.ErrInvalid)
	}
	if err := d.check(op, y.DType()); err != nil {
		return err
	}
	if y.DType() != tensor.Float32 && y.DType() != tensor.Float64 {
		return fmt.Errorf("%s: y: %w: %v, want f32 or f64", op, tensor.ErrInvalid, y)
	}
	n := dim(y, 0)
	if n < 1 {
		return fmt.Errorf("%s: y: %w: %v, want (n,) with n > 0", op, tensor.ErrInvalid, y)
	}
	if err := tensor.Check(op, dev,
		tensor.Want("y", y, y.DType(), n),
		tensor.Maybe("psi", out.Psi, y.DType(), n),
		tensor.Maybe("derivative", out.Derivative, y.DType(), n),
		tensor.Maybe("slope", out.Slope, y.DType(), n)); err != nil {
		return err
	}
	return launchPsi(dev, d.canonical(), y, out)
}

// check is Validate for an element type.
func (d Divergence) check(op string, t tensor.DType) error {
	if err := d.Validate(); err != nil {
		return err
	}
	if c := d.canonical(); t == tensor.Float32 && c.Delta < minDelta32 {
		return fmt.Errorf("%s: divergence: delta: %w: got %v, want at least %v in f32", op, gpu.ErrInvalid, c.Delta, minDelta32)
	}
	return nil
}
