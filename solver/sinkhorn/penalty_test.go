package sinkhorn

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// amount is what a marginal p costs at weights w, by its definition.
func amount(p Penalty, marginal, w []float64) float64 {
	s := 0.0
	for i, x := range marginal {
		switch p.Kind {
		case KL:
			s += p.Rho * (w[i] - x)
			if x > 0 {
				s += p.Rho * x * math.Log(x/w[i])
			}
		case TV:
			s += p.Rho * math.Abs(x-w[i])
		case L2:
			s += p.Rho / 2 * math.Pow(x-w[i], 2)
		}
	}
	return s
}

// The root f of w exp((f-s)/ε) = w - f/ρ from its parametrisation: y = (f-s)/ε
// and κ = ρw/ε give σ = -y - κ(exp(y) - 1), which rounding of σ moves by no
// more than it moves y (1 + κ exp(y)).
func TestUpdateL2(t *testing.T) {
	for _, kappa := range []float64{1e-300, 1e-30, 1e-8, .1, 1, 7, 1e3, 1e8, 1e30} {
		for _, y := range []float64{-1e8, -700, -30, -2, -.3, -1e-6, -1e-14, 0, 1e-14, 1e-6, .3, 2, 30, 700, 1e8} {
			if y > 300-math.Log(kappa) {
				continue // σ overflows
			}
			sigma := -y - kappa*math.Expm1(y)
			slack := 0x1p-51 * (math.Abs(y) + kappa*math.Abs(math.Expm1(y))) / (1 + kappa*math.Exp(y))
			for _, eps := range []float64{1, 1e-3} {
				w := .25
				rho := kappa * eps / w
				f := updateL2(sigma*eps, rho, w, eps)
				// Where κ exp(y) is small, f is ρ times the mass that is missing.
				budget := eps*slack + 0x1p-50*math.Abs(sigma*eps)
				if kappa*math.Exp(y) < .5 {
					budget = rho*w*math.Exp(y)*slack + 0x1p-50*rho*w*math.Abs(math.Expm1(y))
				}
				near(t, -rho*w*math.Expm1(y), f, budget+eps*slack*min(1, kappa*math.Exp(y)), fmt.Sprintf("f at κ %v, y %v, ε %v", kappa, y, eps))
			}
		}
	}
	require.Zero(t, updateL2(3, 1, 0, .1), "no weight")
	require.Equal(t, 3., updateL2(3, math.MaxFloat64, 1, 1e-10), "a penalty that is all but exact")
	require.Equal(t, .5, updateL2(math.Inf(1), 2, .25, .1), "out of reach: no mass")
}

// An update maximises -φ*(-f) - ε w exp((f-s)/ε), -φ*(-f) is the least of
// φ(p) + pf over p ≥ 0, and slope is its derivative by w.
func TestPenaltyFunctions(t *testing.T) {
	const w, eps = .3, .2
	for _, p := range []Penalty{{KL, .7}, {TV, .7}, {L2, 2.5}} {
		least := func(f float64) float64 {
			best := math.Inf(1)
			for k := range 40001 {
				q := float64(k) * 1e-4
				best = min(best, amount(p, []float64{q}, []float64{w})+q*f)
			}
			return best
		}
		for _, f := range []float64{-.69, -.4, 0, .2, .5, 1.2} {
			near(t, least(f), p.dual([]float64{f}, []float64{w}), 1e-7, fmt.Sprintf("%v: -φ*(-%v)", p, f))
			h := 1e-6
			near(t, (p.dual([]float64{f}, []float64{w + h})-p.dual([]float64{f}, []float64{w - h}))/(2*h), p.slope(f, w), 1e-8, "slope")
		}
		for _, s := range []float64{-3, -.5, 0, .1, .6, 4} {
			value := func(f float64) float64 { return p.dual([]float64{f}, []float64{w}) - eps*w*math.Exp((f-s)/eps) }
			f := p.update(s, w, eps)
			for _, d := range []float64{-.1, -1e-3, 1e-3, .1} {
				if !(value(f) >= value(f+d)) {
					t.Errorf("%v: update of %v is %v, but %v is better", p, s, f, f+d)
				}
			}
			marginal := w * math.Exp((f-s)/eps)
			near(t, p.wanted(w, f, s, eps), marginal, 1e-14*(1+marginal), fmt.Sprintf("%v: marginal wanted at the update of %v", p, s))
			near(t, amount(p, []float64{marginal}, []float64{w}), p.value([]float64{marginal}, []float64{w}), 1e-14*(1+marginal*marginal), "φ")
		}
	}
	require.Equal(t, math.Inf(-1), Penalty{TV, .7}.dual([]float64{-.8}, []float64{w}))
	require.Zero(t, Penalty{L2, 2}.wanted(.3, .7, 0, eps), "beyond ρw no mass is wanted")
	require.Zero(t, Penalty{TV, .7}.dual([]float64{-.8}, []float64{0}), "a point without weight does not count")
}

// The translation is the best of a grid around it, and 0 where that is best.
func TestTranslation(t *testing.T) {
	f, g := []float64{-.3, .1, .7}, []float64{-.5, 0, .2, .6}
	for _, pair := range penalties(1) {
		for _, mass := range []float64{.4, 1, 2.5} {
			problem := task{a: []float64{.2, .5, .3}, b: scaled([]float64{.1, .2, .3, .4}, mass), source: pair[0], target: pair[1], eps: .1}
			value := func(lambda float64) float64 {
				return problem.source.dual(shift(f, lambda), problem.a) + problem.target.dual(shift(g, -lambda), problem.b)
			}
			lambda := problem.translation(f, g)
			best := math.Inf(-1)
			for k := -4000; k <= 4000; k++ {
				best = max(best, value(float64(k)*1e-3))
			}
			if !(value(lambda) >= best-1e-12) {
				t.Errorf("%v, %v, mass %v: translation %v has value %v, another %v", pair[0], pair[1], mass, lambda, value(lambda), best)
			}
			if again := problem.translation(shift(f, lambda), shift(g, -lambda)); !(math.Abs(again) <= 1e-10) {
				t.Errorf("%v, %v, mass %v: a second translation by %v", pair[0], pair[1], mass, again)
			}
		}
	}
	// Kinks of either side: masses balance neither before nor after it.
	for _, pair := range [][2]Penalty{{{TV, .7}, {}}, {{}, {TV, .6}}} {
		problem := task{a: []float64{.2, .5, .3}, b: []float64{.1, .2, .3, .25}, source: pair[0], target: pair[1], eps: .1}
		if pair[0].Kind == Exact {
			problem.b[3] = .6
		}
		require.Zero(t, problem.translation(f, g))
	}
}
