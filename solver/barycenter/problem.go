// Package barycenter finds entropic Wasserstein barycentres of K weighted sets
// of points. With a fixed support (Benamou, Carlier, Cuturi, Nenna and Peyré,
// "Iterative Bregman projections for regularized transportation problems",
// SIAM J. Sci. Comput. 37, 2015), [Solve] finds the weights b:
//
//	min over b, P_k of  Σ_k λ_k [ <C_k, P_k> + ε KL(P_k | a_k⊗ν) ]
//	where  P_k 1 = a_k,  P_kᵀ1 = b  for all k
//
// ν is a fixed reference on the support and KL the generalised
// Kullback–Leibler divergence Σ p log(p/q) - p + q. The plans have the form
//
//	P_k = a_k ν exp((f_k + g_k - C_k)/ε),   Σ_k λ_k g_k = 0
//
// and the dual is max Σ_k λ_k [<f_k, a_k> - ε(ΣP_k - Σa_k Σν)] over such f, g.
// This is the free node of a star whose leaves are the measures, with pairwise
// entropies: over joint laws π of all leaves and the centre, it minimises
//
//	<Σ_k λ_k C_k, π> + ε Σ_k λ_k KL(π_k,centre | a_k⊗ν)
//
// Of equal λ, that is the multi-marginal problem of cost Σ_k C_k/K at ε/K whose
// centre pays ε(1 - 1/K) KL(b | ν). That last term, and so the reference, is
// what blurs: the barycentre of copies of N(m, s²) under |x-y|² with a uniform
// ν has the variance s² + ε/2.
//
// The debiased barycentre (Janati, Cuturi and Gramfort, "Debiased Sinkhorn
// barycenters", ICML 2020) minimises the Sinkhorn divergences Σ_k λ_k S_ε(a_k, b)
// instead, which do not depend on ν and have no blur. Its condition is
// Σ_k λ_k g_k = d on the support, where d is the potential of the symmetric
// plan Q = ν ν exp((d + d - C)/ε) of b with itself. To take the blur off is a
// deconvolution: details finer than its width, √(ε/2) under |x-y|², hardly count in
// the divergences, converge slowly, and may show as a texture of the barycentre. On
// a grid, an ε of at most the square of the spacing leaves none.
//
// With a free support, [SolveFree] moves the points of the barycentre.
package barycenter

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// Measure is one of the measures whose barycentre is sought.
type Measure struct {
	// Geometry is the costs from the measure's m points to the n points of the
	// support. nil: the measure lives on the support, and Problem.Support holds
	// the costs.
	Geometry geometry.Geometry
	// Weights: (m). nil means uniform with total mass 1. Zeros are allowed.
	Weights []float64
}

// Problem is a barycentre with a fixed support. It is plain data and is never
// modified.
type Problem struct {
	Measures []Measure
	// Lambda are the weights of the measures: (K), of at least 0 and not all 0;
	// they are scaled to the sum 1. nil means equal ones. A measure of λ = 0
	// takes no part.
	Lambda []float64
	// Support is the symmetric costs of the n points of the support with
	// themselves. Debiased needs it, and measures without a Geometry.
	Support geometry.Geometry
	// Reference is ν: (n). nil means uniform with total mass 1. Zeros keep the
	// barycentre away from points.
	Reference []float64
	// Epsilon > 0 is the strength of the entropy, in units of Scale: of Mean and
	// Std, the mean over the measures of those of the cost under a_k⊗ν.
	Epsilon float64
	Scale   sinkhorn.Scale
	// Debiased asks for the barycentre of Sinkhorn divergences.
	Debiased bool
	// Rho is the strength of penalties ρ KL(P_k 1 | a_k) in place of exact
	// marginals, in the cost's unit; masses may then differ. 0 or +Inf: exact,
	// where the masses of all measures must agree to six digits and are scaled to
	// that of the first. A penalty cannot be debiased.
	Rho float64
}

// Settings say how to solve. The zero value is the documented default.
type Settings struct {
	// Tolerance is the residual at which to stop: the largest over the measures
	// of the L1 distance between the second marginal of a plan and the
	// barycentre, relative to its mass. 0 means 1e-6.
	Tolerance float64
	// MaxIterations bounds the iterations at every ε and in every precision
	// together. Each takes a pass over all pairs in both directions. 0 means
	// 10000.
	MaxIterations int
	// Acceleration is Anderson (the default) or None.
	Acceleration sinkhorn.Acceleration
	Precision    solver.Precision
	// NoAnnealing starts at the problem's ε at once, instead of coming down
	// from a large one with warm starts.
	NoAnnealing bool
	// Geometry refines how costs are kept.
	Geometry geometry.Options
	// Trace is called after each iteration. nil means silence.
	Trace func(sinkhorn.Iteration)
}

// faults collects errors of an argument.
type faults struct{ errs []error }

func (f *faults) bad(what, format string, v ...any) {
	f.errs = append(f.errs, fmt.Errorf("barycenter: %s: %w: %s", what, solver.ErrInvalid, fmt.Sprintf(format, v...)))
}

// weights checks w and returns its total, which is 1 for nil.
func (f *faults) weights(what string, w []float64, n int) float64 {
	if w == nil {
		return 1
	}
	if len(w) != n {
		f.bad(what, "%d weights for %d points", len(w), n)
		return math.NaN()
	}
	return f.atLeastZero(what, w)
}

func (f *faults) atLeastZero(what string, w []float64) float64 {
	sum := 0.0
	for i, x := range w {
		if !(x >= 0) || math.IsInf(x, 1) {
			f.bad(what, "weight %d is %v, want a finite number of at least 0", i, x)
			return math.NaN()
		}
		sum += x
	}
	if !(sum > 0) || math.IsInf(sum, 1) {
		f.bad(what, "they sum to %v, want a finite number above 0", sum)
		return math.NaN()
	}
	return sum
}

// lambda checks the weights of k measures.
func (f *faults) lambda(l []float64, k int) {
	switch {
	case l == nil:
	case len(l) != k:
		f.bad("lambda", "%d weights for %d measures", len(l), k)
	default:
		f.atLeastZero("lambda", l)
	}
}

func (f *faults) epsilon(eps float64, scale sinkhorn.Scale) {
	if !(eps > 0) || math.IsInf(eps, 0) {
		f.bad("epsilon", "got %v, want a finite number above 0", eps)
	}
	if scale < sinkhorn.Absolute || scale > sinkhorn.Std {
		f.bad("epsilon scale", "got %v", scale)
	}
}

// masses reports the first mass that is not that of the first measure.
func (f *faults) masses(m []float64) {
	for k, x := range m {
		if math.Abs(x-m[0]) > 1e-6*m[0] {
			f.bad(fmt.Sprintf("measure %d", k), "its mass is %v, want %v as of measure 0", x, m[0])
			return
		}
	}
}

func balanced(rho float64) bool { return rho == 0 || math.IsInf(rho, 1) }

// size is the number of points of the support, as the first geometry has it.
func (p Problem) size() (int, bool) {
	if p.Support != nil {
		n, _ := p.Support.Size()
		return n, true
	}
	for _, m := range p.Measures {
		if m.Geometry != nil {
			_, n := m.Geometry.Size()
			return n, true
		}
	}
	return 0, false
}

// Validate reports every fault at once.
func (p Problem) Validate() error {
	var f faults
	if len(p.Measures) == 0 {
		f.bad("measures", "there are none, want at least one")
		return f.errs[0]
	}
	n, ok := p.size()
	if !ok {
		f.bad("support", "no geometry says where it is")
		return f.errs[0]
	}
	f.epsilon(p.Epsilon, p.Scale)
	f.lambda(p.Lambda, len(p.Measures))
	f.weights("reference", p.Reference, n)
	if !(p.Rho >= 0) {
		f.bad("penalty rho", "got %v, want 0 (exact) or above", p.Rho)
	}
	if p.Debiased && p.Support == nil {
		f.bad("support", "debiasing needs the costs of the support with itself")
	}
	if p.Debiased && !balanced(p.Rho) {
		f.bad("penalty rho", "got %v with debiasing, want exact marginals", p.Rho)
	}
	if p.Support != nil {
		f.support(p.Support)
	}
	masses := make([]float64, 0, len(p.Measures))
	for k, m := range p.Measures {
		what := fmt.Sprintf("measure %d", k)
		points := n
		switch {
		case m.Geometry != nil:
			var to int
			if points, to = m.Geometry.Size(); to != n {
				f.bad(what, "its geometry ends at %d points, want the %d of the support", to, n)
			}
			if p.Support != nil && p.Support.Dim() > 0 && m.Geometry.Dim() > 0 && p.Support.Dim() != m.Geometry.Dim() {
				f.bad(what, "points of dimension %d, want %d as the support", m.Geometry.Dim(), p.Support.Dim())
			}
			if err := m.Geometry.Validate(); err != nil {
				f.errs = append(f.errs, fmt.Errorf("barycenter: %s: %w", what, err))
			}
		case p.Support == nil:
			f.bad(what, "it has no geometry, and there is no support that it could live on")
		}
		if s := f.weights(what+": weights", m.Weights, points); !math.IsNaN(s) {
			masses = append(masses, s)
		}
	}
	if balanced(p.Rho) && len(masses) == len(p.Measures) {
		f.masses(masses)
	}
	return errors.Join(f.errs...)
}

// symmetryRows is how many rows of a support's costs are compared with the
// columns of the same points.
const symmetryRows = 16

// support checks that the costs of the support with itself are that.
func (f *faults) support(g geometry.Geometry) {
	if err := g.Validate(); err != nil {
		f.errs = append(f.errs, fmt.Errorf("barycenter: support: %w", err))
		return
	}
	n, m := g.Size()
	if n != m {
		f.bad("support", "costs between %d and %d points, want those of one set with itself", n, m)
		return
	}
	k := min(n, symmetryRows)
	rows, at := make([][]float64, k), make([]int, k)
	for i := range rows {
		at[i] = i * (n - 1) / max(k-1, 1)
		rows[i] = make([]float64, n)
		g.Row(at[i], rows[i])
	}
	for i := range rows {
		for j := range i {
			c, d := rows[i][at[j]], rows[j][at[i]]
			if !(math.Abs(c-d) <= 1e-9*(math.Abs(c)+math.Abs(d))) {
				f.bad("support", "the cost from point %d to %d is %v and back %v, want a symmetric one", at[i], at[j], c, d)
				return
			}
		}
	}
}

// Validate reports every fault at once.
func (s Settings) Validate() error {
	var f faults
	if !(s.Tolerance >= 0) {
		f.bad("tolerance", "got %v, want above 0", s.Tolerance)
	}
	if s.MaxIterations < 0 {
		f.bad("iteration limit", "got %d, want above 0", s.MaxIterations)
	}
	if s.Acceleration < sinkhorn.Auto || s.Acceleration > sinkhorn.Anderson {
		f.bad("acceleration", "got %v, want auto, none or anderson", s.Acceleration)
	}
	if s.Precision < solver.Ladder || s.Precision > solver.Double {
		f.bad("precision", "got %v", s.Precision)
	}
	return errors.Join(f.errs...)
}

func (s Settings) withDefaults() Settings {
	if s.Tolerance == 0 {
		s.Tolerance = 1e-6
	}
	if s.MaxIterations == 0 {
		s.MaxIterations = 10000
	}
	if s.Acceleration == sinkhorn.Auto {
		s.Acceleration = sinkhorn.Anderson
	}
	return s
}
