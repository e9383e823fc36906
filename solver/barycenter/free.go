package barycenter

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

// Cloud is a measure of m points.
type Cloud struct {
	X []float64 // (m, D), row-major
	// Weights: (m). nil means uniform with total mass 1. Zeros are allowed.
	Weights []float64
}

// FreeProblem is a barycentre of N points of given weights w whose positions x
// are sought (Cuturi and Doucet, "Fast computation of Wasserstein barycenters",
// ICML 2014):
//
//	min over x of  Σ_k λ_k OT(b, a_k),   b = Σ_i w_i δ(x_i)
//
// with OT(b, a) = min <C, P> + ε KL(P | w⊗a), or, debiased, of Σ_k λ_k OT(b, a_k)
// - OT(b, b)/2, which is up to a constant the mean of the Sinkhorn divergences.
// The problem is not convex: what is found is a stationary point.
type FreeProblem struct {
	Measures []Cloud
	D        int
	// Lambda are the weights of the measures, as of Problem.
	Lambda []float64
	// N is how many points the barycentre has.
	N int
	// Weights: (N). nil means uniform with the mass of the measures, which must
	// agree to six digits.
	Weights []float64
	// Start is where the points begin: (N, D). nil: at points of the measure of
	// largest λ, drawn evenly along its weights, moved to the mean of all
	// measures and jittered by a hundredth of its spread, since points that
	// coincide would stay together.
	Start []float64
	// Seed is that of the draws of Start.
	Seed uint64
	// Ground is SqEuclidean or HalfSqEuclidean.
	Ground geometry.Cost
	// Epsilon > 0 is the strength of the entropy, in units of Scale: of Mean and
	// Std, the mean over the measures of those of the cost from where the points
	// begin.
	Epsilon  float64
	Scale    sinkhorn.Scale
	Debiased bool
}

// FreeSettings say how to solve. The zero value is the documented default.
type FreeSettings struct {
	// Tolerance is the movement at which to stop: the root mean square, under w,
	// of the step that the fixed-point map would take, relative to the root mean
	// square distance of the measures from their means. 0 means 1e-4. Half the
	// gradient of the objective in x_i is w_i times that step.
	Tolerance float64
	// MaxIterations bounds the steps. 0 means 500.
	MaxIterations int
	// NoAcceleration takes plain steps instead of Anderson's. Both are taken only
	// where they do not raise the objective.
	NoAcceleration bool
	// Transport are the settings of the transport problems of each step. Its Start
	// is not used.
	Transport sinkhorn.Settings
	// Trace is called after each step. nil means silence.
	Trace func(FreeIteration)
}

// FreeIteration is what SolveFree says of itself while it runs.
type FreeIteration struct {
	N         int // steps so far
	Objective float64
	Movement  float64
}

// FreeResult is what SolveFree found, however it ended.
type FreeResult struct {
	X       []float64 // (N, D)
	Weights []float64 // (N)
	// Plans are those from the barycentre to the measures; empty for a measure of
	// λ = 0. Self is the plan of the barycentre with itself, where debiased.
	Plans       []sinkhorn.Plan
	Self        sinkhorn.Plan
	Epsilon     float64 // absolute
	Status      solver.Status
	Iterations  int          // steps
	Sweeps      int          // of the transport problems, in all steps
	DType       tensor.DType // of the last of them
	Objectives  []float64    // the dual objective before the first and after each step
	Certificate FreeCertificate
	Duration    time.Duration
}

// FreeCertificate is what holds at the returned points, evaluated in float64.
type FreeCertificate struct {
	// MarginalError are the L1 errors of both marginals of each plan: (K). NaN for a
	// measure of λ = 0.
	MarginalError []float64
	// TransportCost is Σ_k λ_k <C_k, P_k>.
	TransportCost float64
	// Primal and Dual are the values of the objective from the primal and the dual
	// values of its transport problems. Gap is their difference.
	Primal, Dual, Gap float64
	// Movement is the residual of stationarity; see FreeSettings.Tolerance.
	Movement float64
	// Residual is the largest of MarginalError and that of Self, relative to the
	// mass.
	Residual float64
}

// Validate reports every fault at once.
func (p FreeProblem) Validate() error {
	var f faults
	if len(p.Measures) == 0 {
		f.bad("measures", "there are none, want at least one")
	}
	if p.D < 1 {
		f.bad("dimension", "got %d, want at least 1", p.D)
		return errors.Join(f.errs...)
	}
	if p.Ground != geometry.SqEuclidean && p.Ground != geometry.HalfSqEuclidean {
		f.bad("cost", "got %v, want sqeuclidean or halfsqeuclidean, whose means are barycentres", p.Ground)
	}
	f.epsilon(p.Epsilon, p.Scale)
	f.lambda(p.Lambda, len(p.Measures))
	var masses []float64
	for k, m := range p.Measures {
		what := fmt.Sprintf("measure %d", k)
		f.points(what, m.X, p.D)
		if s := f.weights(what+": weights", m.Weights, len(m.X)/p.D); !math.IsNaN(s) {
			masses = append(masses, s)
		}
	}
	if p.N < 1 || p.N > math.MaxInt/8/p.D {
		f.bad("barycentre", "%d points, want at least 1", p.N)
		return errors.Join(f.errs...)
	}
	if p.Weights != nil {
		if s := f.weights("barycentre: weights", p.Weights, p.N); !math.IsNaN(s) && len(masses) > 0 && math.Abs(s-masses[0]) > 1e-6*masses[0] {
			f.bad("barycentre: weights", "their mass is %v, want %v as of the measures", s, masses[0])
		}
	}
	if p.Start != nil {
		f.points("start", p.Start, p.D)
		if len(p.Start) != p.N*p.D {
			f.bad("start", "%d numbers, want %d × %d", len(p.Start), p.N, p.D)
		}
	}
	if len(masses) == len(p.Measures) && len(masses) > 0 {
		f.masses(masses)
	}
	return errors.Join(f.errs...)
}

// points checks an array of points.
func (f *faults) points(what string, x []float64, d int) {
	if len(x) == 0 || len(x)%d != 0 {
		f.bad(what, "%d numbers, want a positive multiple of the dimension %d", len(x), d)
	}
	for i, v := range x {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			f.bad(what, "point %d, coordinate %d is %v, want a finite number", i/d, i%d, v)
			return
		}
	}
}

// Validate reports every fault at once.
func (s FreeSettings) Validate() error {
	var f faults
	if !(s.Tolerance >= 0) {
		f.bad("tolerance", "got %v, want above 0", s.Tolerance)
	}
	if s.MaxIterations < 0 {
		f.bad("iteration limit", "got %d, want above 0", s.MaxIterations)
	}
	t := s.Transport
	t.Start = nil
	f.errs = append(f.errs, t.Validate(0))
	return errors.Join(f.errs...)
}
