// Package ensemble solves thousands of small entropic transport problems in
// one launch: problem p lies between n_p and m_p weighted points, or has a given
// cost matrix, and an ε of its own,
//
//	min over P ≥ 0 of  <C, P> + ε KL(P | a⊗b) + ρ₁ KL(P1 | a) + ρ₂ KL(Pᵀ1 | b)
//	P_ij = a_i b_j exp((f_i + g_j - C_ij)/ε)
//
// where an infinite ρ makes a marginal exact. Points, weights and potentials of
// all problems are concatenated. Each problem is solved from its costs to its
// report by one worker of the CPU or one block of a GPU, so that its result does
// not depend, bit for bit, on the other problems, nor on the number of workers.
//
// The method is Sinkhorn's, in scaling form with absorption (Schmitzer 2019,
// "Stabilized sparse scaling algorithms for entropy regularized transport
// problems", algorithm 2), so that a sweep multiplies with a matrix and takes no
// exponentials of pairs, under type-II Anderson mixing (Walker and Ni 2011).
// The matrix is made from costs and potentials in float64. Where a sum
// underflows all the same, the sweep is made with log-sum-exps in float64.
package ensemble

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Cost is a ground cost between points.
type Cost int

// The costs.
const (
	SqEuclidean     Cost = iota // |x-y|²
	HalfSqEuclidean             // |x-y|²/2
	Euclidean                   // |x-y|
)

// Columns of Args.Values.
const (
	Epsilon       = iota // absolute
	MeanCost             // under a⊗b
	TransportCost        // <C, P>
	Primal
	Dual
	Mass     // ΣP
	Source   // |P1 - a|₁
	Target   // |Pᵀ1 - b|₁
	Residual // of the optimality condition of b, relative to Σa
	Values   // how many there are
)

// Columns of Args.Counts.
const (
	Status    = iota // how the problem ended
	Sweeps           // over its pairs, at every ε
	Matrices         // how often its matrix was made
	LogSweeps        // sweeps made with log-sum-exps
	Counts           // how many there are
)

// How a problem ended: what Args.Counts holds in column Status.
const (
	Converged = iota + 1 // Residual is at most the tolerance
	MaxSweeps            // the limit came first
	Stalled              // the precision at hand allows no further progress
	Canceled             // Args.Stop was set
	Diverged             // something is not finite, or ε is not above 0
)

// Layout says which points belong to which problem, on a device.
type Layout struct {
	rows, columns, pairs       []int64 // where those of a problem begin, and the total
	onRows, onColumns, onPairs tensor.Tensor
}

// NewLayout lays out len(n) problems of n[p] source and m[p] target points,
// both at least 1. Free returns its memory.
func NewLayout(dev gpu.Device, n, m []int) (*Layout, error) {
	const op = "ensemble: layout"
	if len(n) != len(m) {
		return nil, fmt.Errorf("%s: %w: %d problems by their sources, %d by their targets", op, gpu.ErrInvalid, len(n), len(m))
	}
	l := &Layout{rows: make([]int64, len(n)+1), columns: make([]int64, len(n)+1), pairs: make([]int64, len(n)+1)}
	for p := range n {
		if n[p] < 1 || m[p] < 1 || n[p] > mostPoints || m[p] > mostPoints {
			return nil, fmt.Errorf("%s: %w: problem %d has %d × %d points, want 1 to %d of each", op, gpu.ErrInvalid, p, n[p], m[p], mostPoints)
		}
		l.rows[p+1] = l.rows[p] + int64(n[p])
		l.columns[p+1] = l.columns[p] + int64(m[p])
		l.pairs[p+1] = l.pairs[p] + int64(n[p])*int64(m[p])
	}
	var err error
	for _, v := range []struct {
		to *tensor.Tensor
		v  []int64
	}{{&l.onRows, l.rows}, {&l.onColumns, l.columns}, {&l.onPairs, l.pairs}} {
		if *v.to, err = tensor.From(dev, v.v, len(v.v)); err != nil {
			l.Free()
			return nil, err
		}
	}
	return l, nil
}

// mostPoints keeps n_p m_p far from what does not fit into 64 bits.
const mostPoints = 1 << 24

// Free returns the layout's memory.
func (l *Layout) Free() {
	for _, t := range []tensor.Tensor{l.onRows, l.onColumns, l.onPairs} {
		t.Free()
	}
}

// Problems is how many problems there are.
func (l *Layout) Problems() int { return len(l.rows) - 1 }

// Sources is the number of source points of all problems.
func (l *Layout) Sources() int { return int(l.rows[l.Problems()]) }

// Targets is the number of target points of all problems.
func (l *Layout) Targets() int { return int(l.columns[l.Problems()]) }

// Pairs is the number of pairs of all problems.
func (l *Layout) Pairs() int { return int(l.pairs[l.Problems()]) }

func (l *Layout) size(p int) (n, m int64) {
	return l.rows[p+1] - l.rows[p], l.columns[p+1] - l.columns[p]
}

// Args are the arguments of Solve. All arrays lie on one device and are
// Float64 but where stated; P problems have N sources, M targets and T pairs in
// all.
type Args struct {
	Layout *Layout

	// X: (N, d) and Y: (M, d) with Ground, or Costs: (T), the matrices of all
	// problems, each row-major. What is not finite makes its problem Diverged.
	X, Y   tensor.Tensor
	Ground Cost
	Costs  tensor.Tensor

	// A: (N) and B: (M) are weights of at least 0, which each problem has some
	// of; zero Tensors: 1/n_p and 1/m_p. Where both marginals are exact, b is
	// scaled to the mass of a.
	A, B tensor.Tensor
	// Epsilon: (P), above 0; with PerMean in units of the problem's mean cost.
	Epsilon tensor.Tensor
	PerMean bool
	// RhoSource and RhoTarget: (P), above 0, +Inf for an exact marginal; zero
	// Tensors: all exact.
	RhoSource, RhoTarget tensor.Tensor

	// F: (N) and G: (M) receive the potentials, F the one that is optimal for G
	// in float64; both are defined where a weight is 0. With Warm, G is the
	// start of problems where all of it is finite.
	F, G tensor.Tensor
	Warm bool
	// Map: (N, d), or the zero Tensor, receives the barycentric maps
	// Σ_j P_ij y_j / Σ_j P_ij.
	Map tensor.Tensor
	// Values: (P, Values) and Counts: (P, Counts), Int32, receive what holds of
	// the plan of F and G, evaluated in float64, and how the run went.
	Values, Counts tensor.Tensor

	// Only lists the problems to solve, nil for all. What belongs to others is
	// not touched.
	Only []int
	// Sweeps is the arithmetic of the sweeps: Float32 or Float64.
	Sweeps tensor.DType
	// Tolerance is the Residual at which a problem ends.
	Tolerance float64
	// MaxSweeps bounds the sweeps of a problem. With 0 nothing is iterated:
	// what is reported is that of the start.
	MaxSweeps int
	// GiveUp, where not 0, is the number of sweeps in which the residual must
	// halve, or else the problem is Stalled. Sweeps in Float32 then leave out
	// problems that Anneal is for, Stalled with potentials of NaN.
	GiveUp int
	// Plain leaves out the mixing.
	Plain bool
	// Anneal starts a problem whose ε is below Anneal times its mean cost at
	// half the mean cost and halves from there, with warm starts. 0: never.
	Anneal float64
	// Stop, an Int32 tensor of one element, ends all sweeps as soon as it is
	// not 0; problems that have not begun are not touched. It may be written
	// from another stream. The zero Tensor: nothing can.
	Stop tensor.Tensor
}

const op = "ensemble: solve"

// Solve queues the solution of the problems.
func Solve(a Args) error {
	dev, d, err := a.validate()
	if err != nil {
		return err
	}
	order := a.order()
	if len(order) == 0 {
		return nil
	}
	list, err := tensor.From(dev, order, len(order))
	if err != nil {
		return err
	}
	defer list.Free() // the queue may still use it
	return launch(dev, a, d, order, list)
}

// order lists the problems with the most pairs first, so that no worker begins
// a long one last.
func (a *Args) order() []int64 {
	l := a.Layout
	var out []int64
	for _, p := range a.Only {
		out = append(out, int64(p))
	}
	if a.Only == nil {
		out = make([]int64, l.Problems())
		for p := range out {
			out[p] = int64(p)
		}
	}
	pairs := func(p int64) int64 { return l.pairs[p+1] - l.pairs[p] }
	slices.SortStableFunc(out, func(p, q int64) int { return int(pairs(q) - pairs(p)) })
	return out
}

func (a *Args) validate() (dev gpu.Device, d int, err error) {
	if a.Layout == nil {
		return nil, 0, fmt.Errorf("%s: layout: %w: missing", op, gpu.ErrInvalid)
	}
	l := a.Layout
	dev = l.onRows.Device()
	var errs []error
	bad := func(argument, format string, v ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %w: %s", op, argument, gpu.ErrInvalid, fmt.Sprintf(format, v...)))
	}
	problems, n, m := l.Problems(), l.Sources(), l.Targets()
	f64 := tensor.Float64
	want := []tensor.Arg{
		tensor.Maybe("a", a.A, f64, n), tensor.Maybe("b", a.B, f64, m),
		tensor.Want("epsilon", a.Epsilon, f64, problems),
		tensor.Maybe("source rho", a.RhoSource, f64, problems), tensor.Maybe("target rho", a.RhoTarget, f64, problems),
		tensor.Want("f", a.F, f64, n), tensor.Want("g", a.G, f64, m),
		tensor.Want("values", a.Values, f64, problems, Values), tensor.Want("counts", a.Counts, tensor.Int32, problems, Counts),
		tensor.Maybe("stop", a.Stop, tensor.Int32, 1),
	}
	if a.Costs.IsZero() {
		if !a.X.IsZero() && len(a.X.Shape()) == 2 {
			d = a.X.Dim(1)
		}
		if d < 1 {
			bad("x", "%v, want (%d, d) with d of at least 1", a.X, n)
		} else {
			want = append(want, tensor.Want("x", a.X, f64, n, d), tensor.Want("y", a.Y, f64, m, d), tensor.Maybe("map", a.Map, f64, n, d))
		}
		if a.Ground < SqEuclidean || a.Ground > Euclidean {
			bad("ground cost", "got %d", a.Ground)
		}
	} else {
		want = append(want, tensor.Want("costs", a.Costs, f64, l.Pairs()))
		if !a.X.IsZero() || !a.Y.IsZero() || !a.Map.IsZero() {
			bad("costs", "given beside points or a map, which needs points")
		}
	}
	errs = append(errs, tensor.Check(op, dev, want...))
	outputs := []struct {
		name string
		tensor.Tensor
	}{{"f", a.F}, {"g", a.G}, {"map", a.Map}, {"values", a.Values}, {"counts", a.Counts}}
	for i, out := range outputs {
		others := []tensor.Tensor{a.X, a.Y, a.Costs, a.A, a.B, a.Epsilon, a.RhoSource, a.RhoTarget, a.Stop}
		for _, other := range outputs[:i] {
			others = append(others, other.Tensor)
		}
		for _, other := range others {
			if out.Buffer().Overlaps(other.Buffer()) {
				bad(out.name, "overlaps another argument")
				break
			}
		}
	}
	if a.Sweeps != tensor.Float32 && a.Sweeps != f64 {
		bad("sweeps", "%v, want f32 or f64", a.Sweeps)
	}
	if !(a.Tolerance > 0) || math.IsInf(a.Tolerance, 0) {
		bad("tolerance", "got %v, want a finite number above 0", a.Tolerance)
	}
	if a.MaxSweeps < 0 || a.MaxSweeps > math.MaxInt32 {
		bad("sweep limit", "got %d, want 0 to %d", a.MaxSweeps, math.MaxInt32)
	}
	if a.GiveUp < 0 || a.GiveUp > math.MaxInt32 {
		bad("give up", "got %d, want 0 to %d", a.GiveUp, math.MaxInt32)
	}
	if !(a.Anneal >= 0) || math.IsInf(a.Anneal, 0) {
		bad("annealing", "got %v, want 0 (none) or a finite number above", a.Anneal)
	}
	seen := map[int]bool{}
	for _, p := range a.Only {
		if p < 0 || p >= problems || seen[p] {
			bad("problems", "%d of %d is not there, or twice", p, problems)
			break
		}
		seen[p] = true
	}
	return dev, d, errors.Join(errs...)
}
