package divergences

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/kernels/fdual"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/draw"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
)

// Plan is a solved problem:
//
//	Regularised: P_ij = a_i b_j ψ'((f_i + g_j - C_ij)/ε)
//	Gibbs:       P_ij = exp(-C_ij/ε - log Z) a_i b_j ψ'(f_i + g_j)
//
// Its questions are answered in float64, streaming over the pairs. A plan made of
// its exported fields alone loses what f_i + g_j rounds away beside the end of ψ's
// domain; one from Solve does not. The plan of an exact total variation is no
// function of its potentials, and is Given.
type Plan struct {
	Geometry   geometry.Geometry
	A, B       []float64 // (n), (m) weights
	F, G       []float64 // (n), (m) potentials, in the cost's unit, or without one
	Epsilon    float64   // absolute
	Divergence Divergence
	Kind       Kind
	LogZ       float64 // of Gibbs
	// Given is the plan itself: (n, m), row-major, of a total variation that was
	// solved exactly; nil for all others.
	Given []float64

	p, q []float64 // the potentials in the law's z, where Solve left them
}

// Validate reports what does not fit together, as in a plan read from files.
func (p Plan) Validate() error {
	if p.Geometry == nil {
		return fmt.Errorf("plan: %w: no geometry", solver.ErrInvalid)
	}
	n, m := p.Geometry.Size()
	var errs []error
	for _, v := range []struct {
		name string
		v    []float64
		n    int
	}{{"f", p.F, n}, {"g", p.G, m}, {"a", p.A, n}, {"b", p.B, m}} {
		errs = append(errs, measure.CheckFinite("plan: "+v.name, v.v, v.n))
	}
	if !(p.Epsilon > 0) || math.IsInf(p.Epsilon, 0) {
		errs = append(errs, fmt.Errorf("plan: epsilon: %w: got %v, want a finite number above 0", solver.ErrInvalid, p.Epsilon))
	}
	if p.Kind < Regularised || p.Kind > Gibbs {
		errs = append(errs, fmt.Errorf("plan: problem: %w: got %v", solver.ErrInvalid, p.Kind))
	}
	switch exact := p.Divergence.Family == TotalVariation && p.Divergence.Delta == 0; {
	case exact && p.Given == nil:
		errs = append(errs, fmt.Errorf("plan: divergence: %w: the potentials of total variation do not say what its plan is", solver.ErrInvalid))
	case !exact && p.Given != nil:
		errs = append(errs, fmt.Errorf("plan: given: %w: the potentials of %v say what its plan is, want no matrix", solver.ErrInvalid, p.Divergence))
	case exact && len(p.Given) != n*m:
		errs = append(errs, fmt.Errorf("plan: given: %w: %d numbers, want %d × %d", solver.ErrInvalid, len(p.Given), n, m))
	}
	for k, x := range p.Given {
		if !(x >= 0) || math.IsInf(x, 1) {
			errs = append(errs, fmt.Errorf("plan: given: %w: entry %d is %v, want a finite number of at least 0", solver.ErrInvalid, k, x))
			break
		}
	}
	return errors.Join(append(errs, p.Divergence.Validate(), validCosts(p.Geometry))...)
}

// potentials are those of the law's z.
func (p Plan) potentials() (own, other []float64) {
	if p.p != nil || p.Given != nil {
		return p.p, p.q
	}
	l := p.Divergence.law()
	unit := 1.0
	if p.Kind == Regularised {
		unit = p.Epsilon
	}
	own, other = make([]float64, len(p.F)), make([]float64, len(p.G))
	for i, f := range p.F {
		own[i] = l.half + l.rate*f/unit
	}
	for j, g := range p.G {
		other[j] = l.half + l.rate*g/unit
	}
	return own, other
}

// rows answers a function that writes row i of the plan: (m).
func (p Plan) rows() func(i int, out []float64) {
	_, m := p.Geometry.Size()
	if p.Given != nil {
		return func(i int, out []float64) { copy(out, p.Given[i*m:(i+1)*m]) }
	}
	own, other := p.potentials()
	l := p.Divergence.law()
	return func(i int, out []float64) {
		p.Geometry.Row(i, out)
		for j, c := range out {
			out[j] = 0
			w := p.A[i] * p.B[j]
			if w == 0 {
				continue
			}
			z := own[i] + other[j]
			switch {
			case p.Kind == Regularised:
				z -= l.rate * c / p.Epsilon
			case l.kind == fdual.Exp: // R may underflow where P does not
				z -= c/p.Epsilon + p.LogZ
			default:
				w *= math.Exp(-c/p.Epsilon - p.LogZ)
			}
			if w > 0 {
				out[j] = w * l.density(z)
			}
		}
	}
}

// Row writes row i of the plan to out: (m).
func (p Plan) Row(i int, out []float64) { p.rows()(i, out) }

// Matrix returns the plan itself: (n, m), row-major. It is for plans that fit
// into memory.
func (p Plan) Matrix() []float64 {
	n, m := p.Geometry.Size()
	out := make([]float64, n*m)
	row := p.rows()
	_ = parallel.Each(context.Background(), 0, n, func(i int) { row(i, out[i*m:(i+1)*m]) })
	return out
}

// CSR is a sparse matrix by rows: the entries of row i are Columns[k], Values[k]
// for Starts[i] ≤ k < Starts[i+1], columns ascending.
type CSR struct {
	N, M    int
	Starts  []int // (n+1)
	Columns []int32
	Values  []float64
}

// Sparse returns the plan's entries above 0. Of Pearson's χ², every alpha above 1
// and total variation most are exactly 0; of others none is.
func (p Plan) Sparse(ctx context.Context) (CSR, error) {
	if err := p.Validate(); err != nil {
		return CSR{}, err
	}
	n, m := p.Geometry.Size()
	columns, values := make([][]int32, n), make([][]float64, n)
	row := p.rows()
	err := parallel.Each(ctx, 0, n, func(i int) {
		v := make([]float64, m)
		row(i, v)
		for j, x := range v {
			if x > 0 {
				columns[i], values[i] = append(columns[i], int32(j)), append(values[i], x)
			}
		}
	})
	if err != nil {
		return CSR{}, err
	}
	out := CSR{N: n, M: m, Starts: make([]int, n+1)}
	for i := range n {
		out.Columns, out.Values = append(out.Columns, columns[i]...), append(out.Values, values[i]...)
		out.Starts[i+1] = len(out.Columns)
	}
	return out, nil
}

// points is the plan's geometry where it has points.
func (p Plan) points() (geometry.Points, error) {
	if err := p.Validate(); err != nil {
		return geometry.Points{}, err
	}
	g, ok := p.Geometry.(geometry.Points)
	if !ok {
		return g, fmt.Errorf("plan: %w: its geometry is a %v, which has no points", solver.ErrInvalid, p.Geometry.Cost())
	}
	return g, nil
}

// BarycentricMap returns (Σ_j P_ij y_j) / (Σ_j P_ij) for every source point:
// (n, d). A point without mass, whose row is empty, is mapped by the row that it
// would have, which total variation solved exactly does not know: there it stays.
func (p Plan) BarycentricMap(ctx context.Context) ([]float64, error) {
	g, err := p.points()
	if err != nil {
		return nil, err
	}
	return p.mean(ctx, g.Y, g.D, func(i int) []float64 { return g.X[i*g.D : (i+1)*g.D] })
}

// Transport is the plan's mean of any function of the target: v: (m, k), given at
// the target points, becomes (n, k) at the source points. The barycentric map is
// that of v = y. A source point without mass is treated as there, except that an
// exact total variation gives it the mean of v under b.
func (p Plan) Transport(ctx context.Context, v []float64, k int) ([]float64, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	_, m := p.Geometry.Size()
	if k < 1 || len(v) != m*k {
		return nil, fmt.Errorf("plan: v: %w: %d numbers, want %d × %d", solver.ErrInvalid, len(v), m, k)
	}
	all := average(p.B, v, k)
	return p.mean(ctx, v, k, func(int) []float64 { return all })
}

// mean returns the means of v: (m, k) under the rows, and what empty says of
// those without mass.
func (p Plan) mean(ctx context.Context, v []float64, k int, empty func(i int) []float64) ([]float64, error) {
	n, m := p.Geometry.Size()
	filled := p
	filled.A = make([]float64, n)
	for i := range filled.A {
		filled.A[i] = 1
	}
	row := filled.rows()
	out := make([]float64, n*k)
	err := parallel.Each(ctx, 0, n, func(i int) {
		w := make([]float64, m)
		row(i, w)
		to := average(w, v, k)
		if to == nil {
			to = empty(i)
		}
		copy(out[i*k:(i+1)*k], to)
	})
	return out, err
}

// average is the mean of the rows of v: (m, k) with the weights w: (m); nil
// where they sum to 0.
func average(w, v []float64, k int) []float64 {
	mass, out := 0.0, make([]float64, k)
	for j, x := range w {
		if x == 0 {
			continue
		}
		mass += x
		for c := range out {
			out[c] += x * v[j*k+c]
		}
	}
	if mass == 0 {
		return nil
	}
	for c := range out {
		out[c] /= mass
	}
	return out
}

// Purposes of draws: what keeps those of one seed apart from each other.
const (
	drawPair = 1
	drawPath = 2 // the step counts times
)

// Sample draws k pairs from the plan, normalised to mass one. Draw s is a
// function of the plan, the seed and s alone.
func (p Plan) Sample(ctx context.Context, k int, seed uint64) ([]draw.Pair, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	n, m := p.Geometry.Size()
	pairs, err := draw.Pairs(ctx, n, m, k, philox.Draw{Seed: seed, Purpose: drawPair}, p.rows())
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return pairs, nil
}

// Paths draws k paths of the bridge at ascending times in [0, 1]: pairs from the
// plan, joined by Brownian bridges of the reference's variance. The result is
// (k, len(times), d), row-major. Path s is a function of the plan, the times, the
// seed and s alone.
//
// Of a Gibbs problem with squared distances they are the process nearest to the
// reference Brownian motion in D_f, whatever f, since dP/dR depends on the
// endpoints alone. A regularised problem has no reference process unless f is KL.
func (p Plan) Paths(ctx context.Context, k int, times []float64, seed uint64) ([]float64, error) {
	g, err := p.points()
	if err != nil {
		return nil, err
	}
	if p.Kind != Gibbs && p.Divergence.law() != (Divergence{}).law() {
		return nil, fmt.Errorf("plan: paths: %w: transport regularised by %v is no bridge of a process; solve the gibbs problem", solver.ErrInvalid, p.Divergence)
	}
	variance, ok := g.Ground.BrownianVariance(p.Epsilon)
	if !ok {
		return nil, fmt.Errorf("plan: paths: %w: cost %v belongs to no Brownian motion, want sqeuclidean or halfsqeuclidean", solver.ErrInvalid, g.Ground)
	}
	if err := draw.CheckTimes(times); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	pairs, err := p.Sample(ctx, k, seed)
	if err != nil {
		return nil, err
	}
	d := g.D
	out, err := draw.Bridges(ctx, k, d, times, variance, philox.Draw{Seed: seed, Purpose: drawPath}, func(s int) (x, y []float64) {
		return g.X[pairs[s].I*d : (pairs[s].I+1)*d], g.Y[pairs[s].J*d : (pairs[s].J+1)*d]
	})
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return out, nil
}
