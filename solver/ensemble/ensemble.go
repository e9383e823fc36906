// Package ensemble solves thousands of small entropic transport problems of
// different sizes at once. Problem p is
//
//	min over P ≥ 0 of  <C, P> + ε KL(P | a⊗b) + ρ₁ KL(P1 | a) + ρ₂ KL(Pᵀ1 | b)
//	P_ij = a_i b_j exp((f_i + g_j - C_ij)/ε)
//
// with points, weights, ε and penalties of its own, where an infinite ρ makes a
// marginal exact; see package sinkhorn, which solves one large problem. Here one
// worker of the CPU, or one block of a GPU, solves a problem from its costs to
// its certificate (package kernels/ensemble), so that a problem of 64 points takes
// tens of microseconds, and its result does not depend, bit for bit, on what else
// is solved with it, nor on the number of workers.
//
// Memory is that of the points and results of all problems, and for each worker
// the costs of the one that it is at: 8 to 16 bytes a pair.
package ensemble

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
)

// Scale says what Problem.Epsilon is measured in.
type Scale int

// The scales of ε.
const (
	Absolute Scale = iota // the cost's own unit
	Mean                  // the mean of the problem's cost under a⊗b
)

func (s Scale) String() string {
	switch s {
	case Absolute:
		return "absolute"
	case Mean:
		return "mean"
	}
	return fmt.Sprintf("Scale(%d)", int(s))
}

// Problem is the problems to solve, each array being those of all problems one
// after the other. It is plain data and is never modified.
type Problem struct {
	// N and M are the numbers of source and target points of each problem.
	N, M []int
	// X: (ΣN, D) and Y: (ΣM, D) are the points, row-major, and Ground is the
	// cost: SqEuclidean, HalfSqEuclidean or Euclidean.
	X, Y   []float64
	D      int
	Ground geometry.Cost
	// Costs, in place of points, is the cost matrices, each (N_p, M_p) and
	// row-major. Ground is then GivenMatrix.
	Costs []float64
	// A: (ΣN) and B: (ΣM) are the weights. nil means uniform with total mass 1.
	// Zeros are allowed. Where both marginals are exact, a problem's masses must
	// agree to six digits; b is then scaled to the mass of a.
	A, B []float64
	// Epsilon > 0 is the strength of the entropy, in units of Scale: one number
	// for each problem, or one for all.
	Epsilon []float64
	Scale   Scale
	// RhoSource and RhoTarget are the strengths of the KL penalties that replace
	// exact marginals, in the cost's unit: one for each problem, one for all, or
	// nil. 0 or +Inf: exact.
	RhoSource, RhoTarget []float64
}

// Acceleration says how iterates are combined.
type Acceleration int

// The accelerations.
const (
	Auto     Acceleration = iota // Anderson
	None                         // plain Sinkhorn
	Anderson                     // type II with a memory of 16; a step that makes the residual worse is taken back
)

func (a Acceleration) String() string {
	switch a {
	case Auto:
		return "auto"
	case None:
		return "none"
	case Anderson:
		return "anderson"
	}
	return fmt.Sprintf("Acceleration(%d)", int(a))
}

// Settings say how to solve. The zero value is the documented default.
type Settings struct {
	// Tolerance is the L1 marginal residual, relative to the mass of a, at which
	// a problem ends. 0 means 1e-6. With KL penalties the residual is that of the
	// optimality condition Pᵀ1 = b exp(-g/ρ).
	Tolerance float64
	// MaxIterations bounds the sweeps over a problem's pairs, at every ε, in each
	// precision. 0 means 10000.
	MaxIterations int
	Acceleration  Acceleration
	Precision     solver.Precision
	// NoAnnealing starts at the problem's ε at once. Otherwise, where ε is below
	// 1.5 % of the mean cost, it comes down from half the mean cost with warm
	// starts; above, that takes longer.
	NoAnnealing bool
	// Start is the potentials g to start from: (ΣM), in the cost's unit. nil
	// means none.
	Start []float64
	// Map asks for the barycentric maps. It needs points.
	Map bool
}

// Validate reports every fault at once, and names the problem where it lies.
func (p Problem) Validate() error {
	var errs []error
	bad := func(format string, v ...any) {
		errs = append(errs, fmt.Errorf("ensemble: %s: %w: %s", v[0], solver.ErrInvalid, fmt.Sprintf(format, v[1:]...)))
	}
	if len(p.N) != len(p.M) {
		return fmt.Errorf("ensemble: sizes: %w: %d problems by their sources, %d by their targets", solver.ErrInvalid, len(p.N), len(p.M))
	}
	n, m, pairs := 0, 0, 0
	for i := range p.N {
		if p.N[i] < 1 || p.M[i] < 1 || p.N[i] > mostPoints || p.M[i] > mostPoints {
			bad("%d × %d points, want 1 to %d of each", at("sizes", i), p.N[i], p.M[i], mostPoints)
			continue
		}
		n, m, pairs = n+p.N[i], m+p.M[i], pairs+p.N[i]*p.M[i]
	}
	if len(errs) > 0 {
		return errors.Join(errs...) // nothing else can be told apart
	}
	if p.Scale < Absolute || p.Scale > Mean {
		bad("got %v", "epsilon scale", p.Scale)
	}
	errs = append(errs, p.validateCosts(n, m, pairs)...)
	count := len(p.N)
	for _, c := range []struct {
		name  string
		v     []float64
		may   bool
		wrong func(float64) bool
		want  string
	}{
		{"epsilon", p.Epsilon, false, func(x float64) bool { return !(x > 0) || math.IsInf(x, 0) }, "a finite number above 0"},
		{"source penalty rho", p.RhoSource, true, func(x float64) bool { return !(x >= 0) }, "0 (exact) or above"},
		{"target penalty rho", p.RhoTarget, true, func(x float64) bool { return !(x >= 0) }, "0 (exact) or above"},
	} {
		if len(c.v) != count && len(c.v) != 1 && !(c.may && c.v == nil) {
			bad("%d numbers for %d problems, want one each or one for all", c.name, len(c.v), count)
			continue
		}
		for i, x := range c.v {
			if c.wrong(x) {
				bad("got %v, want %s", at(c.name, i), x, c.want)
			}
		}
	}
	weighed := true
	for _, w := range []struct {
		name string
		v    []float64
		n    int
	}{{"source weights", p.A, n}, {"target weights", p.B, m}} {
		if w.v != nil && len(w.v) != w.n {
			bad("%d weights for %d points", w.name, len(w.v), w.n)
			weighed = false
		}
	}
	if weighed && len(errs) == 0 {
		errs = append(errs, p.validateWeights()...)
	}
	if p.Scale == Mean && len(errs) == 0 {
		errs = append(errs, p.validateMeans()...)
	}
	return errors.Join(errs...)
}

// mostPoints of one problem: beyond, package sinkhorn streams over the pairs.
const mostPoints = 1 << 20

func at(name string, problem int) string { return fmt.Sprintf("problem %d: %s", problem, name) }

func (p Problem) validateCosts(n, m, pairs int) (errs []error) {
	bad := func(format string, v ...any) {
		errs = append(errs, fmt.Errorf("ensemble: %s: %w: %s", v[0], solver.ErrInvalid, fmt.Sprintf(format, v[1:]...)))
	}
	type array struct {
		name        string
		v           []float64
		want, width int
		sizes       []int
	}
	var arrays []array
	switch p.Ground {
	case geometry.GivenMatrix:
		sizes := make([]int, len(p.N))
		for i := range sizes {
			sizes[i] = p.N[i] * p.M[i]
		}
		arrays = []array{{"cost matrix", p.Costs, pairs, 1, sizes}}
		if p.X != nil || p.Y != nil {
			bad("points beside a given matrix", "cost")
		}
	case geometry.SqEuclidean, geometry.HalfSqEuclidean, geometry.Euclidean:
		if p.D < 1 {
			bad("got %d, want at least 1", "dimension", p.D)
			return errs
		}
		arrays = []array{{"source points", p.X, n * p.D, p.D, p.N}, {"target points", p.Y, m * p.D, p.D, p.M}}
		if p.Costs != nil {
			bad("a matrix beside cost %v; want cost %v", "cost", p.Ground, geometry.GivenMatrix)
		}
	default:
		bad("got %v, want %v, %v, %v or %v", "cost", p.Ground, geometry.SqEuclidean, geometry.HalfSqEuclidean, geometry.Euclidean, geometry.GivenMatrix)
	}
	for _, a := range arrays {
		if len(a.v) != a.want {
			bad("%d numbers, want %d", a.name, len(a.v), a.want)
			continue
		}
		first := 0
		for i, size := range a.sizes {
			for k, x := range a.v[first : first+size*a.width] {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					bad("number %d is %v, want a finite number", at(a.name, i), k, x)
					break
				}
			}
			first += size * a.width
		}
	}
	return errs
}

// validateWeights looks at the weights of each problem, whose numbers fit.
func (p Problem) validateWeights() (errs []error) {
	bad := func(problem int, format string, v ...any) {
		errs = append(errs, fmt.Errorf("ensemble: problem %d: %w: %s", problem, solver.ErrInvalid, fmt.Sprintf(format, v...)))
	}
	i0, j0 := 0, 0
	for k := range p.N {
		i1, j1 := i0+p.N[k], j0+p.M[k]
		ma, wrongA := mass("source", p.A, i0, i1)
		mb, wrongB := mass("target", p.B, j0, j1)
		for _, wrong := range []string{wrongA, wrongB} {
			if wrong != "" {
				bad(k, "%s", wrong)
			}
		}
		if wrongA == "" && wrongB == "" && exact(of(p.RhoSource, k)) && exact(of(p.RhoTarget, k)) && !(math.Abs(ma-mb) <= 1e-6*ma) {
			bad(k, "the masses of its weights are %v and %v; exact marginals need equal ones, or a penalty rho", ma, mb)
		}
		i0, j0 = i1, j1
	}
	return errs
}

// validateMeans finds the problems whose mean cost is no unit for ε.
func (p Problem) validateMeans() (errs []error) {
	live := func(w []float64, k int) bool { return w == nil || w[k] > 0 }
	i0, j0, pair := 0, 0, 0
	for k := range p.N {
		i1, j1 := i0+p.N[k], j0+p.M[k]
		usable := false
		if p.Ground == geometry.GivenMatrix {
			mean := 0.0
			for i := i0; i < i1; i++ {
				for j := j0; j < j1; j++ {
					if live(p.A, i) && live(p.B, j) {
						mean += weight(p.A, i) * weight(p.B, j) * p.Costs[pair]
					}
					pair++
				}
			}
			usable = mean > 0
		} else {
			// It is 0 where all points with weight are one.
			var first []float64
			differs := func(v, w []float64, from, to int) bool {
				for i := from; i < to; i++ {
					if !live(w, i) {
						continue
					}
					x := v[i*p.D : (i+1)*p.D]
					if first == nil {
						first = x
					}
					if !slices.Equal(first, x) {
						return true
					}
				}
				return false
			}
			usable = differs(p.X, p.A, i0, i1) || differs(p.Y, p.B, j0, j1)
		}
		if !usable {
			errs = append(errs, fmt.Errorf("ensemble: problem %d: epsilon scale %v: %w: the mean cost is not above 0; use an absolute epsilon", k, p.Scale, solver.ErrInvalid))
		}
		i0, j0 = i1, j1
	}
	return errs
}

func weight(w []float64, k int) float64 {
	if w == nil {
		return 1
	}
	return w[k]
}

// mass is the total of w[from:to], 1 for nil, and what is wrong with it.
func mass(side string, w []float64, from, to int) (total float64, wrong string) {
	if w == nil {
		return 1, ""
	}
	for i, x := range w[from:to] {
		if !(x >= 0) || math.IsInf(x, 1) {
			return 0, fmt.Sprintf("%s weight %d is %v, want a finite number of at least 0", side, i, x)
		}
		total += x
	}
	if !(total > 0) || math.IsInf(total, 1) {
		return 0, fmt.Sprintf("its %s weights sum to %v, want a finite number above 0", side, total)
	}
	return total, ""
}

func exact(rho float64) bool { return rho == 0 || math.IsInf(rho, 1) }

// of is the number of problem p in v: its own, the one of all, or 0.
func of(v []float64, p int) float64 {
	switch len(v) {
	case 0:
		return 0
	case 1:
		return v[0]
	}
	return v[p]
}

// Validate reports every fault at once. m is the number of target points of all
// problems.
func (s Settings) Validate(m int) error {
	var errs []error
	bad := func(format string, v ...any) {
		errs = append(errs, fmt.Errorf("ensemble: %s: %w: %s", v[0], solver.ErrInvalid, fmt.Sprintf(format, v[1:]...)))
	}
	if !(s.Tolerance >= 0) || math.IsInf(s.Tolerance, 1) {
		bad("got %v, want a finite number above 0", "tolerance", s.Tolerance)
	}
	if s.MaxIterations < 0 || s.MaxIterations > math.MaxInt32 {
		bad("got %d, want above 0", "iteration limit", s.MaxIterations)
	}
	if s.Acceleration < Auto || s.Acceleration > Anderson {
		bad("got %v", "acceleration", s.Acceleration)
	}
	if s.Precision < solver.Ladder || s.Precision > solver.Double {
		bad("got %v", "precision", s.Precision)
	}
	if s.Start != nil && len(s.Start) != m {
		bad("%d numbers for %d target points", "start", len(s.Start), m)
	}
	for j, g := range s.Start {
		if math.IsNaN(g) || math.IsInf(g, 0) {
			bad("entry %d is %v, want a finite number", "start", j, g)
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
	return s
}
