package sinkhorn

import "math"

// translation returns the λ that maximises the dual at (f + λ, g - λ),
//
//	Φ(λ) = Σ -φ₁*(-f-λ) + Σ -φ₂*(-g+λ)
//
// which leaves the plan as it is. Where no marginal is exact that is the
// direction in which alternating updates are slow: while the masses do not fit,
// each moves the potentials by ε times the logarithm of their ratio, on a way of
// the size of ρ, and under TV the residual does not fall meanwhile (Séjourné,
// Vialard and Peyré, "Faster unbalanced optimal transport: translation invariant
// Sinkhorn", 2022). It is 0 where 0 is a maximiser, and never beyond the nearest
// one.
func (t task) translation(f, g []float64) float64 {
	slope := func(lambda float64, up bool) float64 {
		return t.source.mass(f, t.a, lambda, up) - t.target.mass(g, t.b, -lambda, !up)
	}
	sign := 1.0
	up := slope(0, true) > 0
	if !up {
		if !(slope(0, false) < 0) {
			return 0
		}
		sign = -1
	}
	// uphill says whether Φ still rises at λ on the way from 0.
	uphill := func(length float64) bool { return sign*slope(sign*length, up) > 0 }
	end := t.target.room(g, t.b) // of the domain of Φ
	if !up {
		end = t.source.room(f, t.a)
	}
	low, high := 0.0, min(t.eps/1024, end)
	for uphill(high) {
		if high == end {
			return sign * end
		}
		low, high = high, min(4*high, end)
	}
	for high-low > high*0x1p-40 {
		mid := low + (high-low)/2
		if uphill(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	return sign * low
}

// mass is the derivative of Σ -φ*(-f-λ) by λ, from above or below where TV has
// a kink.
func (p Penalty) mass(f, w []float64, lambda float64, above bool) float64 {
	s := 0.0
	for i, x := range w {
		switch v := f[i] + lambda; p.Kind {
		case Exact:
			s += x
		case KL:
			if x > 0 {
				s += x * math.Exp(-v/p.Rho)
			}
		case TV:
			if v < p.Rho || v == p.Rho && !above {
				s += x
			}
		case L2:
			s += max(x-v/p.Rho, 0)
		}
	}
	return s
}

// room is how far all potentials may fall without leaving the dual's domain.
func (p Penalty) room(f, w []float64) float64 {
	room := math.Inf(1)
	if p.Kind == TV {
		for i, x := range f {
			if w[i] > 0 {
				room = min(room, x+p.Rho)
			}
		}
	}
	return max(room, 0)
}
