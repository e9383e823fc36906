// Package bass1d solves the Schrödinger–Bass problem on the line, on a grid:
//
//	J = inf E ∫₀ᵀ α² + β (σ - √ε)² dt,  dX = α dt + σ dW,  X₀ ~ μ₀, X_T ~ μ_T
//
// between laws given by their densities or by atoms, a point mass as source
// included. It is the reference that approximate solvers are tested against; it
// needs neither a sample nor a network, and is no approximation but for the
// quadrature.
//
// The solution is X_t = Y_t + s(t,Y_t)/β with dY = s dt + √ε dW, s = w_t' and
// w_t = ε log h_t, h_t the heat flow of h_T: a classical bridge Y behind
// increasing maps. The unknown is w_T' on the grid. One iteration evaluates
//
//	w₀ = ε log (G_{εT} * exp(w_T/ε)),  X₀(y) = y + w₀'(y)/β
//	ν₀ = μ₀(X₀) X₀',  ν_T = h_T · G_{εT} * (ν₀/h₀)
//	w_T' ← w_T' + p (F_μT⁻¹∘F_νT - X_T),  X_T(y) = y + w_T'(y)/β
//
// by the trapezoidal rule, which is spectrally accurate for smooth laws, in the
// domain of logarithms throughout, so that no tail underflows. It stops where
// the law of X_T is near the target in the 2-Wasserstein distance, which on the
// line is what the last bracket says.
//
// Every w_T' gives a lower bound of J/2, the dual value. β = +Inf, the
// Schrödinger bridge, is not served here: X_T = Y_T leaves nothing to iterate.
// Any finite β > 0 is.
//
// From a point, w₀(y) is infinite for y other than Y₀ where the target's tails
// are heavier than normal; on the grid it is then a large number that depends
// on the grid, while what is there at Y₀ does not.
//
// Source: LightSBB-M (arXiv 2601.19312) for the problem and its system. The
// fixed step of the iteration there, p = τβ, is replaced: see Solve.
// Results depend on the arguments alone.
package bass1d

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/gaussian"
)

// ErrInvalid is solver.ErrInvalid.
var ErrInvalid = solver.ErrInvalid

const largest = 1e100

func bad(name, format string, v ...any) error {
	return fmt.Errorf("bass1d: %s: %w: %s", name, ErrInvalid, fmt.Sprintf(format, v...))
}

// Problem is plain data.
type Problem struct {
	Source  Law
	Target  Law     // with spread
	Epsilon float64 // variance of the reference per unit of time
	Beta    float64 // price of volatility, finite
	T       float64 // 0 means 1
}

// Settings say how to solve. The zero value is the documented default.
type Settings struct {
	// Low < High bound the grid of Y, on which all laws of Y_t must lie. Both 0:
	// from the Gaussian solution with the same moments and the target's
	// quantiles.
	Low, High float64
	// N is the number of grid points. 0: 1001, or more where the kernel is narrow.
	N int
	// Tolerance is the 2-Wasserstein distance of the law of X_T to the target,
	// relative to the target's standard deviation, at which to stop. 0: 1e-6.
	Tolerance float64
	// MaxIterations bounds the iterations. 0: 2000.
	MaxIterations int
}

// Validate reports every fault at once.
func (p Problem) Validate() error {
	var errs []error
	for _, c := range []struct {
		name string
		law  Law
	}{{"source", p.Source}, {"target", p.Target}} {
		if len(c.law.x) == 0 {
			errs = append(errs, bad(c.name, "no law"))
		} else if !(math.Abs(c.law.x[0]) <= largest) {
			errs = append(errs, bad(c.name, "point %g", c.law.x[0]))
		}
	}
	if n := len(p.Target.x); n == 1 {
		errs = append(errs, bad("target", "a single point, want a law with spread"))
	}
	for _, c := range []struct {
		name string
		v    float64
	}{{"epsilon", p.Epsilon}, {"beta", p.Beta}, {"horizon", horizon(p.T)}} {
		if !(c.v >= 1/largest && c.v <= largest) {
			errs = append(errs, bad(c.name, "got %g, want a finite number above 0", c.v))
		}
	}
	return errors.Join(errs...)
}

// Validate reports every fault at once.
func (s Settings) Validate() error {
	var errs []error
	if s.Low != 0 || s.High != 0 {
		if !(s.Low < s.High) || !(math.Abs(s.Low) <= largest) || !(math.Abs(s.High) <= largest) {
			errs = append(errs, bad("grid", "[%g, %g], want a finite interval", s.Low, s.High))
		}
	}
	if s.N != 0 && (s.N < 21 || s.N > 20001) {
		errs = append(errs, bad("grid", "%d points, want 21 to 20001", s.N))
	}
	if !(s.Tolerance >= 0) {
		errs = append(errs, bad("tolerance", "got %g, want above 0", s.Tolerance))
	}
	if s.MaxIterations < 0 {
		errs = append(errs, bad("iteration limit", "got %d, want above 0", s.MaxIterations))
	}
	return errors.Join(errs...)
}

func horizon(t float64) float64 {
	if t == 0 {
		return 1
	}
	return t
}

// Result is what Solve found, however it ended.
type Result struct {
	Problem    Problem
	Status     solver.Status
	Iterations int
	// Residual is the 2-Wasserstein distance of the law of X_T to the target.
	Residual float64
	// Dual is a lower bound of J/2, up to quadrature; Primal is J/2 of the
	// process found, which ends in the target only up to Residual. Both are
	// J/2 of the solution where Status is Converged.
	Dual, Primal float64
	// Mass is how much of Y_0's law the grid holds. Where it is not 1 to a
	// thousandth, the grid is too small or misplaced, and Status is Diverged.
	Mass float64

	system *system
	state  *state
}

// Solve solves p. An error says that it could not run; how a run ended is
// Result.Status. Cancellation of ctx stops it within one iteration.
//
// It starts from the solution for normal laws with the same moments. The step p
// adapts: every p between 0 and β keeps X_T increasing, and small ones raise the
// dual, so that a step after which dual and residual are both worse is halved.
// A fixed p = τβ diverges where β is large against ε/(T·variance). Steps are
// combined by Anderson's method where that helps: the bimodal example of the
// tests takes some 30 iterations, and more than a thousand without.
//
// An iteration costs about 2n² multiplications, and n exponentials for every
// atom of the source.
func Solve(ctx context.Context, p Problem, settings Settings) (*Result, error) {
	if err := errors.Join(p.Validate(), settings.Validate()); err != nil {
		return nil, err
	}
	p.T = horizon(p.T)
	s, g, err := start(ctx, p, settings)
	if err != nil {
		return nil, err
	}
	_, variance := p.Target.moments()
	goal := settings.Tolerance
	if goal == 0 {
		goal = 1e-6
	}
	goal *= math.Sqrt(variance)
	limit := settings.MaxIterations
	if limit == 0 {
		limit = 2000
	}
	r := &Result{Problem: p, system: s}
	r.Status = r.iterate(ctx, g, goal, limit)
	r.Residual, r.Dual, r.Primal, r.Mass = r.state.residual, r.state.dual, r.state.primal, r.state.mass
	return r, nil
}

// start lays out the grid and gives the w_T' of the Gaussian problem with the
// same moments.
func start(ctx context.Context, p Problem, settings Settings) (*system, []float64, error) {
	m0, v0 := p.Source.moments()
	m1, v1 := p.Target.moments()
	twin, err := gaussian.SolveBass(ctx, gaussian.BassProblem{
		Source: gaussian.Isotropic([]float64{m0}, v0), Target: gaussian.Isotropic([]float64{m1}, v1),
		Epsilon: p.Epsilon, Beta: p.Beta, T: p.T,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("bass1d: the Gaussian problem with the same moments: %w", err)
	}
	control, err0 := twin.Control(p.T)
	from, err1 := twin.Inverse(0)
	to, err2 := twin.Inverse(p.T)
	if err := errors.Join(err0, err1, err2); err != nil {
		return nil, nil, err
	}
	spread := math.Sqrt(p.Epsilon * p.T)
	low, high := settings.Low, settings.High
	if low == 0 && high == 0 {
		low, high = math.Inf(1), math.Inf(-1)
		include := func(x, margin float64, a gaussian.Affine) {
			y := a.Gain.At(0, 0)*x + a.Offset[0]
			low, high = min(low, y-margin), max(high, y+margin)
		}
		for _, tail := range []float64{1e-9, 1 - 1e-9} {
			include(p.Source.quantile(tail, 1-tail), 7*spread, from)
			include(p.Target.quantile(tail, 1-tail), spread, to)
		}
	}
	n := settings.N
	if n == 0 {
		n = min(8001, max(1001, int((high-low)/spread*4)|1))
	}
	s := &system{Problem: p, n: n, y: make([]float64, n), dx: (high - low) / float64(n-1)}
	if !(s.dx <= spread) {
		return nil, nil, bad("grid", "step %g on [%g, %g] with %d points, want at most √(epsilon T) = %g", s.dx, low, high, n, spread)
	}
	g := make([]float64, n)
	for j := range n {
		s.y[j] = low + float64(j)*s.dx
		g[j] = control.Gain.At(0, 0)*s.y[j] + control.Offset[0]
	}
	s.heat = newHeat(n, s.dx, p.Epsilon*p.T)
	s.constant = math.Log(s.dx / (math.Sqrt(2*math.Pi) * spread))
	return s, g, nil
}
