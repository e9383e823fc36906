package sinkhorn

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
)

// PenaltyKind says what a marginal that need not be met costs.
type PenaltyKind int

// The kinds. With p the marginal of the plan and w the weights, they add to the
// problem
//
//	Exact  0 where p = w, else +∞
//	KL     ρ Σ p log(p/w) - p + w
//	TV     ρ Σ |p - w|, with no factor 1/2
//	L2     (ρ/2) Σ (p - w)², as in POT's mm_unbalanced (Chapel et al. 2021)
//
// ρ is in the cost's unit, of L2 in that over mass. Moving a unit of mass by TV
// is worth while where it costs less than ρ, or the sum of both ρ where both
// sides have it: the rest stays. KL and TV are divergences of measures; L2
// compares weights point by point, so that it does depend on how a measure is
// divided into points, and with n points of weight 1/n it is as strong as a KL
// penalty near p = w where its ρ is n times as large.
//
// Points of weight zero get no mass, whatever the penalty, since the reference
// a⊗b has none there.
const (
	Exact PenaltyKind = iota
	KL
	TV
	L2
)

func (k PenaltyKind) String() string {
	switch k {
	case Exact:
		return "exact"
	case KL:
		return "kl"
	case TV:
		return "tv"
	case L2:
		return "l2"
	}
	return fmt.Sprintf("PenaltyKind(%d)", int(k))
}

// Penalty is what one marginal of a problem costs. The zero value is an exact
// marginal, as is a penalty of strength +Inf.
type Penalty struct {
	Kind PenaltyKind
	Rho  float64 // strength, above 0
}

// IsExact reports whether the marginal must be met.
func (p Penalty) IsExact() bool { return p.Kind == Exact || math.IsInf(p.Rho, 1) }

func (p Penalty) String() string {
	if p.IsExact() {
		return Exact.String()
	}
	return fmt.Sprintf("%v with rho %v", p.Kind, p.Rho)
}

func (p Penalty) validate(side string) error {
	switch {
	case p.Kind < Exact || p.Kind > L2:
		return fmt.Errorf("sinkhorn: %s penalty: %w: got %v", side, solver.ErrInvalid, p.Kind)
	case p.Kind == Exact && !(p.Rho == 0 || math.IsInf(p.Rho, 1)):
		return fmt.Errorf("sinkhorn: %s penalty: %w: got rho %v for an exact marginal, want a kind of penalty or no rho", side, solver.ErrInvalid, p.Rho)
	case p.Kind != Exact && !(p.Rho > 0):
		return fmt.Errorf("sinkhorn: %s penalty: %w: got rho %v for %v, want above 0 (+Inf is exact)", side, solver.ErrInvalid, p.Rho, p.Kind)
	}
	return nil
}

// The functions below are those of one point. In the terms of Séjourné, Feydy,
// Vialard, Trouvé and Peyré ("Sinkhorn divergences for unbalanced optimal
// transport", 2019) the penalty is an entropy φ(p) of the marginal p at a point
// of weight w, the dual sees it as -φ*(-f), and an update of the potential f
// given the softmin s of the other one is their aprox:
//
//	f = argmax -φ*(-f) - ε w exp((f-s)/ε)
//
// whose optimality condition is w exp((f-s)/ε) ∈ ∂φ*(-f): the left side is the
// plan's marginal, the right side what the penalty asks for.

// update is that argmax.
func (p Penalty) update(s, w, eps float64) float64 {
	switch p.Kind {
	case KL:
		return p.Rho / (p.Rho + eps) * s
	case TV:
		return p.project(s)
	case L2:
		return updateL2(s, p.Rho, w, eps)
	}
	return s
}

// damp is the factor of an update that is one, which the sweep over all pairs
// applies by itself.
func (p Penalty) damp(eps float64) (factor float64, ok bool) {
	switch p.Kind {
	case Exact:
		return 1, true
	case KL:
		return p.Rho / (p.Rho + eps), true
	}
	return 0, false
}

// project returns the point nearest to f at which the dual is finite.
func (p Penalty) project(f float64) float64 {
	if p.Kind == TV {
		return min(max(f, -p.Rho), p.Rho)
	}
	return f
}

// projectAll projects potentials in place.
func (p Penalty) projectAll(f []float64) {
	if p.Kind == TV {
		for i, x := range f {
			f[i] = p.project(x)
		}
	}
}

// wanted is the marginal that the optimality condition asks for at a potential
// f, s being its softmin. Of TV the condition at f is a set, which jumps with f
// at ±ρ: what is wanted is the marginal after an update, so that the residual
// is zero at solutions alone and continuous.
func (p Penalty) wanted(w, f, s, eps float64) float64 {
	switch p.Kind {
	case KL:
		return w * math.Exp(-f/p.Rho)
	case TV:
		return w * math.Exp((p.project(s)-s)/eps)
	case L2:
		return max(w-f/p.Rho, 0)
	}
	return w
}

// value is Σ φ(p), 0 for an exact marginal.
func (p Penalty) value(marginal, w []float64) float64 {
	if p.Kind == Exact {
		return 0
	}
	s := 0.0
	for i, x := range marginal {
		switch p.Kind {
		case KL:
			s += w[i] - x
			if x > 0 {
				s += x * math.Log(x/w[i])
			}
		case TV:
			s += math.Abs(x - w[i])
		case L2:
			s += (x - w[i]) * (x - w[i]) / 2
		}
	}
	return p.Rho * s
}

// dual is Σ -φ*(-f).
func (p Penalty) dual(f, w []float64) float64 {
	s := 0.0
	for i, x := range w {
		switch {
		case x == 0:
		case p.Kind == KL:
			s -= p.Rho * x * math.Expm1(-f[i]/p.Rho)
		case p.Kind == TV && f[i] < -p.Rho:
			return math.Inf(-1)
		case p.Kind == TV:
			s += x * min(f[i], p.Rho)
		case p.Kind == L2:
			v := min(f[i], p.Rho*x)
			s += v * (x - v/(2*p.Rho))
		default:
			s += x * f[i]
		}
	}
	return s
}

// slope is the derivative of -φ*(-f) by the weight w.
func (p Penalty) slope(f, w float64) float64 {
	switch p.Kind {
	case KL:
		return -p.Rho * math.Expm1(-f/p.Rho)
	case TV:
		return min(f, p.Rho)
	case L2:
		return min(f, p.Rho*w)
	}
	return f
}

// updateL2 is the root f of w exp((f-s)/ε) = w - f/ρ. In y = (f-s)/ε, the
// logarithm of p/w, with κ = ρw/ε and σ = s/ε, it is that of
//
//	h(y) = y + κ (exp(y) - 1) + σ
//
// and κ exp(y) is Wright's omega function of log κ + κ - σ. h is increasing and
// convex, so that Newton's iterates fall to the root from any point above it;
// they start from the lowest of three bounds, which is close to the root
// whatever the sizes of κ and σ.
func updateL2(s, rho, w, eps float64) float64 {
	kappa, sigma := rho*w/eps, s/eps
	switch {
	case kappa == 0:
		return 0
	case math.IsInf(kappa, 1):
		return s
	case math.IsInf(sigma, 1):
		return rho * w
	}
	var y float64
	if sigma < 0 { // κ (exp(y) - 1) = -σ - y, which is at most -σ
		y = min(-sigma, math.Log1p(-sigma/kappa))
	}
	// v = κ exp(y) solves v + log v = z, and W(x) ≤ log(1 + x).
	logKappa := math.Log(kappa)
	switch z := logKappa + kappa - sigma; {
	case z < -30:
		y = min(y, kappa-sigma)
	case z < 30:
		y = min(y, math.Log(math.Log1p(math.Exp(z)))-logKappa)
	default:
		y = min(y, math.Log(z)-logKappa)
	}
	for range newtonSteps {
		e := kappa * math.Exp(y)
		next := y - (y+kappa*math.Expm1(y)+sigma)/(1+e)
		if !(next < y) {
			break
		}
		y = next
	}
	// Either form of f; the one that does not subtract close numbers.
	if kappa*math.Exp(y) < 1 {
		return -rho * w * math.Expm1(y)
	}
	return s + eps*y
}

// newtonSteps bounds a loop that ends by itself after ten steps at most over
// the whole range of κ and σ.
const newtonSteps = 64
