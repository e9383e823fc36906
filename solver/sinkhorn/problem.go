// Package sinkhorn solves entropic optimal transport, which is the static
// Schrödinger bridge, between two weighted sets of points:
//
//	min over P ≥ 0 of  <C, P> + ε KL(P | a⊗b) + D₁(P1 | a) + D₂(Pᵀ1 | b)
//
// where D is what a marginal costs that is not met: infinity, or a penalty, so
// that measures of different masses can be compared and outliers left behind
// (see Penalty). KL is the generalised Kullback–Leibler divergence
// Σ p log(p/q) - p + q. The solution has the form
//
//	P_ij = a_i b_j exp((f_i + g_j - C_ij)/ε)
//
// A Result carries the potentials f and g, how the run ended, and a
// certificate that was evaluated in float64 whatever precision did the work.
// Its Plan gives what one wants next: barycentric and out-of-sample maps,
// drift and score of the bridge, sampled couplings and paths.
package sinkhorn

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/tensor"
)

// Scale says what Problem.Epsilon is measured in.
type Scale int

// The scales of ε.
const (
	Absolute Scale = iota // the cost's own unit
	Mean                  // the mean of the cost under a⊗b
	Std                   // its standard deviation
)

func (s Scale) String() string {
	switch s {
	case Absolute:
		return "absolute"
	case Mean:
		return "mean"
	case Std:
		return "std"
	}
	return fmt.Sprintf("Scale(%d)", int(s))
}

// Problem is what to solve. It is plain data and is never modified.
type Problem struct {
	Geometry geometry.Geometry
	// A: (n) and B: (m) are the weights of the points. nil means uniform with
	// total mass 1. Zeros are allowed. Where both marginals are exact, their
	// masses must agree to six digits; B is then scaled to the mass of A.
	A, B []float64
	// Epsilon > 0 is the strength of the entropy, in units of Scale.
	Epsilon float64
	Scale   Scale
	// Source and Target are the penalties of the marginals; zero values make
	// them exact.
	Source, Target Penalty
}

// Acceleration says how iterates are combined.
type Acceleration int

// The accelerations. Each is safeguarded: a step that does not lower the
// residual is taken back, and plain steps follow.
const (
	Auto        Acceleration = iota // Anderson
	None                            // plain Sinkhorn
	Anderson                        // type II, in the metric of the target's weights
	Overrelaxed                     // both updates over-relaxed, with the factor estimated from the rate
)

func (a Acceleration) String() string {
	switch a {
	case Auto:
		return "auto"
	case None:
		return "none"
	case Anderson:
		return "anderson"
	case Overrelaxed:
		return "overrelax"
	}
	return fmt.Sprintf("Acceleration(%d)", int(a))
}

// Settings say how to solve. The zero value is the documented default.
type Settings struct {
	// Tolerance is the L1 residual of the optimality conditions, relative to
	// the mass of A, at which to stop. 0 means 1e-6. The plan's marginal is
	// compared with
	//
	//	Exact  a
	//	KL     a exp(-f/ρ)
	//	TV     the marginal after one more update: a where |s| ≤ ρ,
	//	       else a exp((±ρ - s)/ε), with s the softmin of the other potential
	//	L2     max(a - f/ρ, 0)
	Tolerance float64
	// MaxIterations bounds the sweeps over all pairs, at every ε and in every
	// precision together. 0 means 10000.
	MaxIterations int
	Acceleration  Acceleration
	Precision     solver.Precision
	// NoAnnealing starts at the problem's ε at once, instead of coming down
	// from a large one with warm starts.
	NoAnnealing bool
	// Start is the potential g to start from: (m), in the cost's unit. It
	// implies NoAnnealing. nil means zeros.
	Start []float64
	// Geometry refines how the cost is kept.
	Geometry geometry.Options
	// Trace is called after each sweep. nil means silence.
	Trace func(Iteration)

	symmetric bool // both sides are one: see symmetricMap
}

// Iteration is what a solver says of itself while it runs.
type Iteration struct {
	N       int     // sweeps so far
	Epsilon float64 // the ε of this sweep
	Error   float64 // L1 residual relative to the mass
	DType   tensor.DType
}

// Validate reports every fault at once.
func (p Problem) Validate() error {
	if p.Geometry == nil {
		return fmt.Errorf("sinkhorn: %w: no geometry", solver.ErrInvalid)
	}
	n, m := p.Geometry.Size()
	errs := []error{p.Geometry.Validate()}
	bad := func(format string, v ...any) {
		errs = append(errs, fmt.Errorf("sinkhorn: %s: %w: %s", v[0], solver.ErrInvalid, fmt.Sprintf(format, v[1:]...)))
	}
	if !(p.Epsilon > 0) || math.IsInf(p.Epsilon, 0) {
		bad("got %v, want a finite number above 0", "epsilon", p.Epsilon)
	}
	if p.Scale < Absolute || p.Scale > Std {
		bad("got %v", "epsilon scale", p.Scale)
	}
	errs = append(errs, p.Source.validate("source"), p.Target.validate("target"))
	ma, errA := measure.CheckWeights("sinkhorn: source weights", p.A, n)
	mb, errB := measure.CheckWeights("sinkhorn: target weights", p.B, m)
	errs = append(errs, errA, errB)
	if errA == nil && errB == nil && p.Source.IsExact() && p.Target.IsExact() && !(math.Abs(ma-mb) <= 1e-6*ma) {
		bad("their masses are %v and %v; exact marginals need equal ones, or a penalty rho", "weights", ma, mb)
	}
	return errors.Join(errs...)
}

// Validate reports every fault at once. m is the number of target points.
func (s Settings) Validate(m int) error {
	var errs []error
	if !(s.Tolerance >= 0) {
		errs = append(errs, fmt.Errorf("sinkhorn: tolerance: %w: got %v, want above 0", solver.ErrInvalid, s.Tolerance))
	}
	if s.MaxIterations < 0 {
		errs = append(errs, fmt.Errorf("sinkhorn: iteration limit: %w: got %d, want above 0", solver.ErrInvalid, s.MaxIterations))
	}
	if s.Acceleration < Auto || s.Acceleration > Overrelaxed {
		errs = append(errs, fmt.Errorf("sinkhorn: acceleration: %w: got %v", solver.ErrInvalid, s.Acceleration))
	}
	if s.Precision < solver.Ladder || s.Precision > solver.Double {
		errs = append(errs, fmt.Errorf("sinkhorn: precision: %w: got %v", solver.ErrInvalid, s.Precision))
	}
	if s.Start != nil && len(s.Start) != m {
		errs = append(errs, fmt.Errorf("sinkhorn: start: %w: %d numbers for %d target points", solver.ErrInvalid, len(s.Start), m))
	}
	for j, g := range s.Start {
		if math.IsNaN(g) || math.IsInf(g, 0) {
			errs = append(errs, fmt.Errorf("sinkhorn: start: %w: entry %d is %v, want a finite number", solver.ErrInvalid, j, g))
			break
		}
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
	if s.Acceleration == Auto {
		s.Acceleration = Anderson
	}
	return s
}
