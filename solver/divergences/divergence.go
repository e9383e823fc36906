package divergences

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/kernels/fdual"
	"github.com/fortet/fortet/solver"
)

// Family is a family of f-divergences.
type Family int

// The families of D_f(P|R) = Σ R f(P/R), each with f(1) = f'(1) = 0, so that
// ψ = f*, ψ(y) = sup over x ≥ 0 of xy - f(x), has ψ(0) = 0 and ψ'(0) = 1.
const (
	KL               Family = iota // f = x log x - x + 1,              ψ = e^y - 1
	ReverseKL                      // f = -log x + x - 1,               ψ = -log(1-y),          y < 1
	PearsonChi2                    // f = (x-1)²,                       ψ = (1+y/2)₊² - 1
	NeymanChi2                     // f = (1-x)²/x,                     ψ = 2 - 2√(1-y),        y ≤ 1
	SquaredHellinger               // f = (√x-1)²,                      ψ = y/(1-y),            y < 1
	JensenShannon                  // f = x log x - (1+x)log((1+x)/2),  ψ = -log(2-e^y),        y < log 2; twice the divergence
	Alpha                          // f = (x^a-ax+a-1)/(a(a-1)),        ψ = ((1+(a-1)y)₊^(a/(a-1))-1)/a, y < 1/(1-a) if a < 1
	TotalVariation                 // f = |x-1|/2,                      ψ = max(y, -½),         y ≤ ½
)

func (f Family) String() string {
	names := [...]string{"kl", "reverse-kl", "pearson", "neyman", "hellinger", "jensen-shannon", "alpha", "total-variation"}
	if f < 0 || int(f) >= len(names) {
		return fmt.Sprintf("Family(%d)", int(f))
	}
	return names[f]
}

// Divergence is an f-divergence. The zero value is KL.
type Divergence struct {
	Family Family
	Alpha  float64 // a of Alpha; 1 is KL and 0 is ReverseKL, their limits, and what is nearer to these than 1e-7 is refused
	// Delta > 0 smooths total variation: f = |x-1|/2 + Delta (x-1)²/2, whose ψ
	// is the Moreau envelope of max(y, -½) on y ≤ ½ and has a continuous ψ':
	//
	//	ψ' = (1 + (y - clip(y, -½, ½))/Delta)₊
	//
	// 0 is total variation itself. Other families have no Delta.
	Delta float64
}

func (d Divergence) String() string {
	switch {
	case d.Family == Alpha:
		return fmt.Sprintf("alpha(%v)", d.Alpha)
	case d.Family == TotalVariation && d.Delta > 0:
		return fmt.Sprintf("total-variation(smoothed by %v)", d.Delta)
	}
	return d.Family.String()
}

// Validate reports whether d is a divergence.
func (d Divergence) Validate() error {
	switch {
	case d.Family < KL || d.Family > TotalVariation:
		return fmt.Errorf("divergence: %w: got %v", solver.ErrInvalid, d.Family)
	case d.Family == Alpha && (math.IsNaN(d.Alpha) || math.IsInf(d.Alpha, 0)):
		return fmt.Errorf("divergence: alpha: %w: got %v, want a finite number", solver.ErrInvalid, d.Alpha)
	case d.Family == Alpha && tooNear(d.Alpha, 0), d.Family == Alpha && tooNear(d.Alpha, 1):
		return fmt.Errorf("divergence: alpha: %w: got %v, near which f cancels, want %v itself or what is %v away", solver.ErrInvalid, d.Alpha, math.Round(d.Alpha), nearest)
	case d.Family == TotalVariation && (!(d.Delta >= 0) || math.IsInf(d.Delta, 1)):
		return fmt.Errorf("divergence: delta: %w: got %v, want 0 (exact) or above", solver.ErrInvalid, d.Delta)
	case d.Family != TotalVariation && d.Delta != 0:
		return fmt.Errorf("divergence: delta: %w: got %v for %v, which is smooth", solver.ErrInvalid, d.Delta, d.Family)
	}
	return nil
}

// nearest is how near to 0 and 1 an alpha may be: f there loses 1e-16/|a| or
// 1e-16/|a-1|, by which the values of a certificate would be wrong.
const nearest = 1e-7

func tooNear(a, limit float64) bool { return a != limit && math.Abs(a-limit) < nearest }

// law is the form in which kernels know a divergence: scale times one of theirs,
// ψ'(y) = φ(z) with z = 2 half + rate y. z is linear in y, and of a family whose
// domain ends it is the distance from that end, which loses no digits there.
type law struct {
	kind       fdual.Law
	a          float64 // of Power
	scale      float64
	half, rate float64 // each potential carries one half
	delta      float64
}

func (d Divergence) law() law {
	power := func(a, scale float64) law {
		return law{kind: fdual.Power, a: a, scale: scale, half: 0.5, rate: (a - 1) / scale}
	}
	switch d.Family {
	case ReverseKL:
		return power(0, 1)
	case PearsonChi2:
		return power(2, 2)
	case NeymanChi2:
		return power(-1, 2)
	case SquaredHellinger:
		return power(0.5, 0.5)
	case JensenShannon:
		return law{kind: fdual.JensenShannon, scale: 1, half: math.Ln2 / 2, rate: -1}
	case Alpha:
		if d.Alpha != 1 {
			return power(d.Alpha, 1)
		}
	case TotalVariation:
		return law{kind: fdual.TotalVariation, scale: 1, rate: 1, delta: d.Delta}
	}
	return law{kind: fdual.Exp, scale: 1, rate: 1}
}

// falls says whether φ falls in z: the families whose domain ends.
func (l law) falls() bool { return l.rate < 0 }

// density is φ(z), +∞ outside of the domain. That of total variation needs a
// delta.
func (l law) density(z float64) float64 {
	switch {
	case math.IsNaN(z):
		return z
	case l.kind == fdual.Exp:
		return math.Exp(z)
	case l.kind == fdual.TotalVariation:
		return max(1+(z-min(max(z, -0.5), 0.5))/l.delta, 0)
	case l.falls() && z <= 0:
		return math.Inf(1)
	case l.kind == fdual.JensenShannon:
		return 1 / math.Expm1(z)
	case z <= 0:
		return 0
	case l.a == 0:
		return 1 / z
	case l.a == 2:
		return z
	}
	return math.Pow(z, 1/(l.a-1))
}

// F is f(x) for x ≥ 0; f(0) is the limit, which is +∞ for some.
func (d Divergence) F(x float64) float64 {
	if math.IsNaN(x) || x < 0 {
		return math.NaN()
	}
	xlog := func(v float64) float64 {
		if x == 0 {
			return 0
		}
		return x * math.Log(v)
	}
	switch a := d.Alpha; {
	case d.Family == ReverseKL, d.Family == Alpha && a == 0:
		return -math.Log(x) + x - 1
	case d.Family == PearsonChi2:
		return (x - 1) * (x - 1)
	case d.Family == NeymanChi2:
		return (1 - x) * (1 - x) / x
	case d.Family == SquaredHellinger:
		return (math.Sqrt(x) - 1) * (math.Sqrt(x) - 1)
	case d.Family == JensenShannon:
		return xlog(x) - (1+x)*math.Log((1+x)/2)
	case d.Family == Alpha && a != 1:
		return (math.Pow(x, a) - a*x + a - 1) / (a * (a - 1))
	case d.Family == TotalVariation:
		return math.Abs(x-1)/2 + d.Delta*(x-1)*(x-1)/2
	}
	return xlog(x) - x + 1
}

// Domain is the largest y at which ψ is finite, or the supremum of them: +∞
// where there is none.
func (d Divergence) Domain() float64 {
	l := d.law()
	switch {
	case l.falls():
		return -2 * l.half / l.rate
	case d.Family == TotalVariation && d.Delta == 0:
		return 0.5
	}
	return math.Inf(1)
}

// Psi is ψ(y), the conjugate of f: +∞ outside of the domain.
func (d Divergence) Psi(y float64) float64 {
	l := d.law()
	switch {
	case math.IsNaN(y):
		return y
	case y > d.Domain():
		return math.Inf(1)
	}
	switch l.kind {
	case fdual.Exp:
		return math.Expm1(y)
	case fdual.JensenShannon:
		return -math.Log1p(-math.Expm1(y))
	case fdual.TotalVariation:
		if d.Delta == 0 {
			return max(y, -0.5)
		}
		// sup over x: at x = ψ'(y).
		x := l.density(y)
		return x*y - d.F(x)
	}
	t := l.rate * y // z - 1
	switch {
	case l.a == 0:
		return -math.Log1p(t)
	case t <= -1 && !l.falls():
		return -l.scale / l.a
	}
	return l.scale * math.Expm1(math.Log1p(t)*l.a/(l.a-1)) / l.a
}

// Density is ψ'(y), the ratio dP/dR at y: +∞ from the end of the domain on. That
// of total variation without smoothing is set-valued at ±½ and given as the
// smaller value.
func (d Divergence) Density(y float64) float64 {
	l := d.law()
	switch {
	case d.Family == TotalVariation && d.Delta == 0:
		switch {
		case math.IsNaN(y):
			return y
		case y <= -0.5:
			return 0
		case y > 0.5:
			return math.Inf(1)
		}
		return 1
	}
	return l.density(2*l.half + l.rate*y)
}

// Slope is (log ψ')'(y), by which the gradient of a potential enters the score of
// the plan: 0 where ψ' is 0 or constant.
func (d Divergence) Slope(y float64) float64 {
	l := d.law()
	z := 2*l.half + l.rate*y
	switch {
	case math.IsNaN(y):
		return y
	case l.kind == fdual.Exp:
		return 1
	case y > d.Domain():
		return math.NaN()
	case l.kind == fdual.JensenShannon:
		return 2 / (2 - math.Exp(y))
	case l.kind == fdual.TotalVariation:
		if phi := d.Density(y); d.Delta > 0 && phi > 0 && math.Abs(y) > 0.5 {
			return 1 / (d.Delta * phi)
		}
		return 0
	case z <= 0 && !l.falls():
		return 0
	}
	return 1 / (l.scale * z)
}
