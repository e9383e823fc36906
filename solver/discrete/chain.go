package discrete

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver/draw"
)

// Chain is a bridge problem whose reference is a Markov chain of N steps.
// Matrices and laws are not modified; a bridge keeps the matrices.
type Chain struct {
	// Transitions holds the matrix P_ij of the probabilities to go from i to j:
	// one for all steps, or one for each. Rows sum to one within 1e-6, and are
	// taken as divided by their sums.
	Transitions []*Matrix
	// Steps is N. 0 means as many as there are matrices.
	Steps int
	// Marginals are the laws that the path has to have, (states) each, by step
	// from 0 to N: Ends for a bridge between two laws. Masses are one within
	// 1e-6, and are taken as divided by their sums. Zeros are allowed.
	Marginals map[int][]float64
	// Initial is the law, or measure, of X_0 under the reference, by which KL is
	// measured: (states). nil means the source, so that KL is that of the moves
	// alone; it is needed where Marginals has no step 0.
	Initial []float64
}

// Validate reports every fault at once, but the entries of one matrix, of which
// it names the first.
func (c Chain) Validate() error {
	var errs []error
	n := c.steps()
	switch k := len(c.Transitions); {
	case k == 0:
		return bad("transition", "no matrix")
	case c.Steps < 0 || n > maxSteps:
		errs = append(errs, bad("steps", "got %d, want 1 to %d", c.Steps, maxSteps))
	case k > 1 && k != n:
		errs = append(errs, bad("transition", "%d matrices for %d steps, want one, or one for each", k, n))
	}
	states, err := checkMatrices("transition", c.Transitions, checkTransition)
	errs = append(errs, err)
	if states > 0 {
		errs = append(errs, checkMarginals("step", states, n, c.Marginals, c.Initial)...)
	}
	return errors.Join(errs...)
}

// maxSteps keeps the list of steps small beside the laws.
const maxSteps = 10_000_000

func (c Chain) steps() int {
	if c.Steps == 0 {
		return len(c.Transitions)
	}
	return c.Steps
}

// checkMatrices returns the number of states, 0 where no matrix is there.
func checkMatrices(what string, list []*Matrix, check func(string, *Matrix) error) (states int, err error) {
	var errs []error
	seen := map[*Matrix]bool{}
	for k, m := range list {
		name := what
		if len(list) > 1 {
			name = fmt.Sprintf("%s %d", what, k)
		}
		switch {
		case m == nil || m.n == 0:
			errs = append(errs, bad(name, "no matrix"))
		case seen[m]:
		case states != 0 && m.n != states:
			errs = append(errs, bad(name, "%d states, want %d as those before", m.n, states))
		default:
			states = m.n
			errs = append(errs, check(name, m))
		}
		seen[m] = true
	}
	return states, errors.Join(errs...)
}

// ChainBridge is the path law that solves a Chain: a Markov chain with the
// kernels Q_t. Its methods may be called concurrently.
type ChainBridge struct {
	Solution
	*path
	transitions []*Matrix
}

// SolveChain solves c. An error says that it could not run, or, where it wraps
// solver.ErrInfeasible, that no path law has these marginals; how a run ended is
// Status. Cancellation of ctx stops it within one step.
//
// A sweep takes two products with each step's matrix, and one exponential and
// one logarithm for each state.
func SolveChain(ctx context.Context, c Chain, set Settings) (*ChainBridge, error) {
	if err := errors.Join(c.Validate(), set.Validate()); err != nil {
		return nil, err
	}
	b := &ChainBridge{}
	prepared := map[*Matrix]*transition{}
	var steps []step
	for t := range c.steps() {
		m := c.Transitions[0]
		if len(c.Transitions) > 1 {
			m = c.Transitions[t]
		}
		if prepared[m] == nil {
			prepared[m] = newTransition(m)
		}
		steps = append(steps, prepared[m])
		b.transitions = append(b.transitions, m)
	}
	s := newSequence(c.Transitions[0].n, steps, c.Marginals, c.Initial)
	s.what = "step"
	s.length = func(from, to int) string {
		if to-from == 1 {
			return "1 step"
		}
		return fmt.Sprintf("%d steps", to-from)
	}
	var err error
	b.path, b.Solution, err = s.solve(ctx, set.withDefaults())
	if err != nil {
		return nil, err
	}
	return b, nil
}

// States is the number of states.
func (b *ChainBridge) States() int { return b.transitions[0].n }

// Steps is N.
func (b *ChainBridge) Steps() int { return len(b.transitions) }

// ready says whether there is a law to ask.
func (p *path) ready(s Solution) error {
	if p == nil {
		return fmt.Errorf("discrete: no bridge: %w", s.Status.Err())
	}
	return nil
}

// Marginals is the law of every step: (N+1, states), row-major. It takes one
// pass along the path.
func (b *ChainBridge) Marginals(ctx context.Context) ([]float64, error) {
	if err := b.ready(b.Solution); err != nil {
		return nil, err
	}
	return b.marginals(ctx)
}

// Potentials are log φ_t and log φ̂_t, (states) each, t from 0 to N: their sum is
// the logarithm of the law of X_t. They are defined up to a constant that one has
// more and the other less. -Inf says that a state leads to no target, or comes
// from no source. The ψ of the first given marginal is a part of φ̂, all others of
// φ.
func (b *ChainBridge) Potentials(ctx context.Context, t int) (phi, hat []float64, err error) {
	if err := b.ready(b.Solution); err != nil {
		return nil, nil, err
	}
	if err := b.checkPlace(t, b.Steps()); err != nil {
		return nil, nil, err
	}
	w := b.walk()
	if err := w.to(ctx, t); err != nil {
		return nil, nil, err
	}
	phi = make([]float64, b.States())
	err = w.phi(ctx, phi)
	return phi, w.forward, err
}

// Kernel is Q_t, the probabilities to go from a state at step t to one at t+1, t
// from 0 to N-1, with the pattern of the reference's matrix. The rows of states
// that lead to no target are zero.
func (b *ChainBridge) Kernel(ctx context.Context, t int) (*Matrix, error) {
	if err := b.ready(b.Solution); err != nil {
		return nil, err
	}
	if err := b.checkPlace(t, b.Steps()-1); err != nil {
		return nil, err
	}
	return b.kernel(ctx, b.walk(), t)
}

// Kernels calls visit with each kernel in turn, and stops with its error. It
// takes one pass along the path.
func (b *ChainBridge) Kernels(ctx context.Context, visit func(t int, q *Matrix) error) error {
	if err := b.ready(b.Solution); err != nil {
		return err
	}
	w := b.walk()
	for t := range b.Steps() {
		q, err := b.kernel(ctx, w, t)
		if err != nil {
			return err
		}
		if err := visit(t, q); err != nil {
			return err
		}
	}
	return nil
}

func (b *ChainBridge) kernel(ctx context.Context, w *walk, t int) (*Matrix, error) {
	h, err := w.h(ctx, t+1)
	if err != nil {
		return nil, err
	}
	m := b.transitions[t]
	e := w.host.buffer(0, m.n)
	if _, err := w.host.exponentials(ctx, e, h); err != nil {
		return nil, err
	}
	val := make([]float64, len(m.val))
	err = w.host.each(ctx, len(m.cut)-1, func(k int) {
		for i := m.cut[k]; i < m.cut[k+1]; i++ {
			m.tilted(i, h, e, val[m.ptr[i]:m.ptr[i+1]])
		}
	})
	return m.with(val), err
}

// tilted writes the entries of row i times exp(x), of sum one. e is exp(x) up to
// a factor. The row stays zero where all are.
func (s *sparse) tilted(i int, x, e, out []float64) {
	low := s.ptr[i]
	total := s.dot(i, e)
	if total >= tiny {
		for k := range out {
			out[k] = s.val[low+k] * e[s.idx[low+k]] / total
		}
		return
	}
	sum := s.logDot(i, x)
	for k := range out {
		if v := x[s.idx[low+k]]; !math.IsInf(v, -1) && s.val[low+k] > 0 {
			out[k] = math.Exp(math.Log(s.val[low+k]) + v - sum)
		} else {
			out[k] = 0
		}
	}
}

// Purposes of draws: what keeps those of one seed apart from each other.
const (
	drawChain = 1 // the step counts steps
	drawJump  = 2
)

// Paths draws n paths: (n, N+1), row-major, of states. Path s is a function of the
// bridge, the seed and s alone.
func (b *ChainBridge) Paths(ctx context.Context, n int, seed uint64) ([]int32, error) {
	if err := b.ready(b.Solution); err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, bad("paths", "got %d, want at least 1", n)
	}
	length := b.Steps() + 1
	out := make([]int32, n*length)
	w := b.walk()
	at, err := w.begin(ctx, n, seed, drawChain)
	if err != nil {
		return nil, err
	}
	uniforms := make([]float64, n)
	for t := range length {
		for s, i := range at {
			out[s*length+t] = i
		}
		if t == b.Steps() {
			break
		}
		h, err := w.h(ctx, t+1)
		if err != nil {
			return nil, err
		}
		if err := philox.HostUniform(uniforms, 1, philox.Draw{Seed: seed, Step: uint32(t + 1), Purpose: drawChain}); err != nil {
			return nil, err
		}
		m := b.transitions[t]
		e := w.host.buffer(0, m.n)
		if _, err := w.host.exponentials(ctx, e, h); err != nil {
			return nil, err
		}
		groups := group(at, m.n)
		err = w.host.each(ctx, len(groups), func(k int) {
			i := int(at[groups[k][0]])
			columns, _ := m.Row(i)
			row := make([]float64, len(columns))
			m.tilted(i, h, e, row)
			draw.Cumulate(row)
			for _, s := range groups[k] {
				at[s] = columns[draw.Pick(row, uniforms[s])]
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// begin draws X_0 of n paths.
func (w *walk) begin(ctx context.Context, n int, seed uint64, purpose uint8) ([]int32, error) {
	phi, law := make([]float64, w.states), make([]float64, w.states)
	if err := w.phi(ctx, phi); err != nil {
		return nil, err
	}
	lawOf(law, phi, w.forward)
	draw.Cumulate(law)
	uniforms := make([]float64, n)
	if err := philox.HostUniform(uniforms, 1, philox.Draw{Seed: seed, Purpose: purpose}); err != nil {
		return nil, err
	}
	at := make([]int32, n)
	for s, u := range uniforms {
		at[s] = int32(draw.Pick(law, u))
	}
	return at, nil
}

// group lists the paths that are in the same state.
func group(at []int32, states int) [][]int {
	ptr := make([]int, states+1)
	for _, i := range at {
		ptr[i+1]++
	}
	for i := range states {
		ptr[i+1] += ptr[i]
	}
	order := make([]int, len(at))
	next := append([]int(nil), ptr[:states]...)
	for s, i := range at {
		order[next[i]] = s
		next[i]++
	}
	var groups [][]int
	for i := range states {
		if ptr[i+1] > ptr[i] {
			groups = append(groups, order[ptr[i]:ptr[i+1]])
		}
	}
	return groups
}
