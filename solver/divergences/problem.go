// Package divergences solves static bridges whose plan is measured by an
// f-divergence D_f(P|R) = Σ R f(P/R) other than, or as well as, KL. There are two
// problems over the couplings P of a and b:
//
//	Regularised: min <C, P> + ε D_f(P | a⊗b)    P_ij = a_i b_j ψ'((f_i + g_j - C_ij)/ε)
//	Gibbs:       min D_f(P | R)                 P_ij = R_ij ψ'(f_i + g_j)
//	             R_ij = exp(-C_ij/ε) a_i b_j / Z
//
// with ψ = f*, and Z such that R has the mass of a. For KL both are one problem,
// entropic transport: ε KL(P|R) = <C, P> + ε KL(P | a⊗b) + ε log Z, the logarithm
// of a product being a sum. For any other f they differ, in value and in plan.
//
// Regularised transport keeps the cost linear and punishes concentration; as ε
// falls to 0 its plan becomes the optimal transport plan, with exact zeros for
// Pearson's χ² and every alpha above 1. The Gibbs problem asks for the coupling
// nearest to a given law R, that of a Brownian motion for squared distances; it
// never sees the cost but through R, and joining its pairs by Brownian bridges
// gives the process nearest to the reference among those with the marginals a and
// b, since the density depends on the endpoints alone. Of the power families (KL,
// reverse KL, χ², Neyman, Hellinger, alpha) its plan does not depend on Z, of
// Jensen–Shannon and total variation it does; Z is summed over all pairs, in
// logarithms. As ε falls, R and with it the needed densities P/R range over
// exponentially many orders of magnitude: a Gibbs problem wants an ε that is not
// small beside the cost's spread.
//
// The solver alternates between the rows and the columns, whose potentials are
// roots of monotone scalar equations (generalised Sinkhorn: Terjék and
// González-Sánchez, "Optimal transport with f-divergence regularization and
// generalized Sinkhorn algorithm", AISTATS 2022), accelerated by Anderson mixing,
// streaming over the pairs. Where that stalls, which families whose domain ends do
// at a small ε, since their plans come near to a matching, the dual is climbed with
// line searches: along Newton's directions up to 2048 targets and 2²² pairs, for
// which alone an n × m matrix is held, else along those of L-BFGS, which may need
// thousands of sweeps. Total variation, whose ψ' has jumps, is solved as a
// minimum-cost flow where it is small enough, else smoothed (Settings.ExactPairs).
// Every result has a certificate evaluated in float64: the primal and the dual
// value, their gap, and the errors of the marginals.
package divergences

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// Kind is which of the two problems.
type Kind int

// The problems.
const (
	Regularised Kind = iota // min <C, P> + ε D_f(P | a⊗b)
	Gibbs                   // min D_f(P | R), R = exp(-C/ε) a⊗b / Z
)

func (k Kind) String() string {
	switch k {
	case Regularised:
		return "regularised"
	case Gibbs:
		return "gibbs"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Problem is what to solve. It is plain data and is never modified.
type Problem struct {
	// Geometry gives the costs. Those of a geometry.Matrix may be +Inf, which
	// forbids a pair; others are finite.
	Geometry geometry.Geometry
	// A: (n) and B: (m) are the weights of the points. nil means uniform with
	// total mass 1. Zeros are allowed. Their masses must agree to six digits; B
	// is then scaled to the mass of A.
	A, B []float64
	// Epsilon > 0 is the strength of the divergence, or the temperature of the
	// reference, in units of Scale.
	Epsilon    float64
	Scale      sinkhorn.Scale
	Divergence Divergence
	Kind       Kind
}

// Settings say how to solve. The zero value is the documented default.
type Settings struct {
	// Tolerance is the L1 marginal residual, relative to the mass of A, at
	// which to stop. 0 means 1e-6.
	Tolerance float64
	// MaxIterations bounds the sweeps, each over all pairs by rows and by columns, at
	// every ε and in every precision together. 0 means 10000. An exact flow takes
	// as many pivots as it needs.
	MaxIterations int
	// Precision is which arithmetic does the iterations; see there.
	Precision solver.Precision
	// NoAcceleration leaves out Anderson mixing.
	NoAcceleration bool
	// NoAnnealing starts a regularised problem at its ε at once, instead of
	// coming down from a large one with warm starts.
	NoAnnealing bool
	// ExactPairs is the largest n × m up to which total variation is solved as a
	// flow, in memory of some 60 bytes a pair. Above it, it is smoothed with Delta =
	// DefaultDelta. 0 means 262144; negative means never.
	ExactPairs int
	// Trace is called after each sweep. nil means silence.
	Trace func(sinkhorn.Iteration)
}

// DefaultDelta is the smoothing of a total variation that is too large to be
// solved exactly.
const DefaultDelta = 0.05

// Validate reports every fault at once.
func (p Problem) Validate() error {
	if p.Geometry == nil {
		return fmt.Errorf("divergences: %w: no geometry", solver.ErrInvalid)
	}
	if _, ok := p.Geometry.(geometry.Sharded); ok {
		return fmt.Errorf("divergences: %w: its rows are shared by processes, which this solver cannot do", solver.ErrInvalid)
	}
	n, m := p.Geometry.Size()
	errs := []error{validCosts(p.Geometry), p.Divergence.Validate()}
	bad := func(what, format string, v ...any) {
		errs = append(errs, fmt.Errorf("divergences: %s: %w: %s", what, solver.ErrInvalid, fmt.Sprintf(format, v...)))
	}
	if !(p.Epsilon > 0) || math.IsInf(p.Epsilon, 0) {
		bad("epsilon", "got %v, want a finite number above 0", p.Epsilon)
	}
	if p.Scale < sinkhorn.Absolute || p.Scale > sinkhorn.Std {
		bad("epsilon scale", "got %v", p.Scale)
	}
	if p.Kind < Regularised || p.Kind > Gibbs {
		bad("problem", "got %v, want regularised or gibbs", p.Kind)
	}
	ma, errA := measure.CheckWeights("divergences: source weights", p.A, n)
	mb, errB := measure.CheckWeights("divergences: target weights", p.B, m)
	errs = append(errs, errA, errB)
	if errA == nil && errB == nil && !(math.Abs(ma-mb) <= 1e-6*ma) {
		bad("weights", "their masses are %v and %v, want equal ones", ma, mb)
	}
	return errors.Join(errs...)
}

// validCosts is Geometry.Validate, which lets +Inf in a matrix pass.
func validCosts(g geometry.Geometry) error {
	c, ok := g.(geometry.Matrix)
	if !ok || !forbids(g) {
		return g.Validate()
	}
	if len(c.C) != c.N*c.M {
		return g.Validate()
	}
	finite := c
	finite.C = make([]float64, len(c.C))
	for k, x := range c.C {
		if !math.IsInf(x, 1) {
			finite.C[k] = x
		}
	}
	return finite.Validate()
}

// forbids says whether a cost is +∞.
func forbids(g geometry.Geometry) bool {
	c, ok := g.(geometry.Matrix)
	if !ok {
		return false
	}
	for _, x := range c.C {
		if math.IsInf(x, 1) {
			return true
		}
	}
	return false
}

// Validate reports every fault at once.
func (s Settings) Validate() error {
	var errs []error
	if !(s.Tolerance >= 0) || math.IsInf(s.Tolerance, 0) {
		errs = append(errs, fmt.Errorf("divergences: tolerance: %w: got %v, want above 0", solver.ErrInvalid, s.Tolerance))
	}
	if s.MaxIterations < 0 {
		errs = append(errs, fmt.Errorf("divergences: iteration limit: %w: got %d, want above 0", solver.ErrInvalid, s.MaxIterations))
	}
	if s.Precision < solver.Ladder || s.Precision > solver.Double {
		errs = append(errs, fmt.Errorf("divergences: precision: %w: got %v", solver.ErrInvalid, s.Precision))
	}
	return errors.Join(errs...)
}

func (s Settings) withDefaults() Settings {
	if s.Tolerance == 0 {
		s.Tolerance = 1e-6
	}
	if s.MaxIterations == 0 {
		s.MaxIterations = 10000
	}
	if s.ExactPairs == 0 {
		s.ExactPairs = 1 << 18
	}
	return s
}
