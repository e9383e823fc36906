// Package exact solves the optimal transport linear programme
//
//	min Σ_ij P_ij c_ij   over P ≥ 0, P1 = a, Pᵀ1 = b
//
// to a certified optimum for tens of thousands of points on each side, without
// ever holding the n × m matrix of costs.
//
// The method is column generation around a network simplex. A restricted
// programme holds a few dozen arcs per point. Its simplex method works on
// integer masses and keeps the spanning tree strongly feasible (Cunningham,
// "A network simplex method", Mathematical Programming 11, 1976), so that it
// cannot cycle however many ties the data hold. A streaming pass then prices
// all n·m arcs against the potentials and adds the violated ones, until there
// are none. The first arcs and the first potentials come from the same problem
// on cells of neighbouring points, solved before (a multiscale warm start in
// the manner of Schmitzer, "A sparse multi-scale algorithm for dense optimal
// transport", J. Math. Imaging Vis. 56, 2016).
//
// Every result carries its proof: potentials u, v with u_i + v_j ≤ c_ij for all
// pairs up to a stated rounding slack, and the gap between the cost of the plan
// and the value of the potentials.
package exact

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// ErrInvalid says that a caller's argument is wrong.
var ErrInvalid = errors.New("invalid argument")

// Problem is a balanced transport problem.
type Problem struct {
	// Costs gives c_ij: Points, Matrix or Func.
	Costs Costs
	// A and B are the masses of the n sources and m sinks: finite, not
	// negative, not all zero. nil means 1/n (1/m) each. Their sums must agree to
	// a relative 1e-9; B is then rescaled to the sum of A.
	A, B []float64
}

// Solver holds what can be chosen. The zero value is ready to use. The result
// does not depend on Workers.
type Solver struct {
	// Workers is the number of goroutines that price arcs; 0 means GOMAXPROCS.
	// The simplex itself runs on one.
	Workers int
	// Neighbours is the number of arcs per point that the restricted programme
	// starts with; 0 means 20.
	Neighbours int
	// MaxRounds bounds the rounds of pricing; 0 means 1000, far beyond what
	// has been seen to be needed (a dozen).
	MaxRounds int
}

// Status says how a run ended.
type Status int

// The ends of a run.
const (
	// Converged: no arc of the full problem is violated.
	Converged Status = iota
	// MaxIterations: MaxRounds was reached. The plan is feasible, the
	// potentials are too, and Gap says how far they are apart.
	MaxIterations
)

func (s Status) String() string {
	switch s {
	case Converged:
		return "converged"
	case MaxIterations:
		return "max iterations"
	}
	return fmt.Sprintf("Status(%d)", int(s))
}

// Err is nil only for Converged.
func (s Status) Err() error {
	if s == Converged {
		return nil
	}
	return fmt.Errorf("exact: stopped before the optimum: %s", s)
}

// Entry is one non-zero of a transport plan: Mass goes from source I to sink J.
type Entry struct {
	I, J int
	Mass float64
}

// Result is a transport plan with the proof of its optimality.
type Result struct {
	Status Status
	// Cost is Σ P_ij c_ij, not normalised by the mass.
	Cost float64
	// Dual is Σ a_i u_i + Σ b_j v_j.
	Dual float64
	// Gap is Cost − Dual, computed before the potentials are rounded to the
	// caller's frame. The true optimum lies in
	// [Cost − Gap − mass·Slack, Cost + mass·Slack].
	Gap float64
	// Slack bounds the rounding of the certificate: u_i + v_j ≤ c_ij + Slack
	// for all pairs, with c_ij evaluated in float64 from the caller's data.
	Slack float64
	// Plan lists the non-zeros by increasing (I, J); at most n + m − 1 of them.
	Plan []Entry
	// U and V are the potentials, of length n and m, also of points without mass.
	U, V []float64

	Rounds int // pricing passes over all arcs of the finest level
	Pivots int // simplex pivots on all levels
	Arcs   int // the most arcs that the restricted programme held
}

const (
	defaultNeighbours = 20
	defaultMaxRounds  = 1000
)

// Solve finds an optimal plan. It stops with ctx's error, wrapped, within some
// milliseconds of ctx being done; otherwise an error wraps ErrInvalid.
func (s Solver) Solve(ctx context.Context, p Problem) (*Result, error) {
	if s.Workers < 0 || s.Neighbours < 0 || s.MaxRounds < 0 {
		return nil, fmt.Errorf("exact: solver: %w: got workers %d, neighbours %d, rounds %d, want none negative",
			ErrInvalid, s.Workers, s.Neighbours, s.MaxRounds)
	}
	if s.Neighbours == 0 {
		s.Neighbours = defaultNeighbours
	}
	if s.MaxRounds == 0 {
		s.MaxRounds = defaultMaxRounds
	}
	if p.Costs == nil {
		return nil, fmt.Errorf("exact: costs: %w: got nil, want Points, Matrix or Func", ErrInvalid)
	}
	n, m, err := p.Costs.check()
	if err != nil {
		return nil, err
	}
	masses, err := newMasses(p.A, p.B, n, m)
	if err != nil {
		return nil, err
	}
	return s.run(ctx, p.Costs, masses)
}

// run solves the problem on the points that carry mass and extends the
// potentials to the others.
func (s Solver) run(ctx context.Context, costs Costs, w *masses) (*Result, error) {
	frame, err := costs.frame(ctx, w)
	if err != nil {
		return nil, err
	}
	res := &Result{}
	prog, err := s.multiscale(ctx, frame, w.supply, w.demand, res)
	if err != nil {
		return nil, fmt.Errorf("exact: %w", err)
	}
	if err := s.certify(ctx, frame, w, prog, res); err != nil {
		return nil, fmt.Errorf("exact: %w", err)
	}
	if math.IsNaN(res.Cost) || math.IsInf(res.Cost, 0) {
		return nil, fmt.Errorf("exact: costs: %w: the transport cost overflows float64", ErrInvalid)
	}
	return res, nil
}
