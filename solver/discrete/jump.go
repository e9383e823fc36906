package discrete

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
)

// Jump is a bridge problem whose reference is a Markov jump process in
// continuous time. Its generator is constant on each of the pieces of time;
// between two pieces, and at both ends, lies a knot. Matrices and laws are not
// modified.
type Jump struct {
	// Generators holds the matrix G_ij of the rates to jump from i to j, per unit
	// of time: one for all pieces, or one for each. Rates off the diagonal are at
	// least 0, rows sum to zero within 1e-6 of their size; the diagonal is taken
	// as minus the sum of the others.
	Generators []*Matrix
	// Durations are those of the pieces, each above 0.
	Durations []float64
	// Marginals are the laws that the path has to have, (states) each, by knot
	// from 0 to the number of pieces. See Chain.
	Marginals map[int][]float64
	// Initial is as that of a Chain.
	Initial []float64
}

// maxProducts is how many products one piece may take.
const maxProducts = 1e9

// Validate reports every fault at once, but the entries of one matrix, of which
// it names the first.
func (j Jump) Validate() error {
	var errs []error
	if len(j.Generators) == 0 {
		return bad("generator", "no matrix")
	}
	n := len(j.Durations)
	if n == 0 {
		errs = append(errs, bad("durations", "none, want one for each piece of time"))
	}
	for k, d := range j.Durations {
		if !(d > 0) || math.IsInf(d, 1) {
			errs = append(errs, bad("durations", "piece %d lasts %v, want a finite time above 0", k, d))
		}
	}
	if k := len(j.Generators); k > 1 && k != n {
		errs = append(errs, bad("generator", "%d matrices for %d pieces of time, want one, or one for each", k, n))
	}
	states, err := checkMatrices("generator", j.Generators, checkGenerator)
	errs = append(errs, err)
	if err == nil {
		for k, d := range j.Durations {
			if g := j.generator(k); g != nil {
				if products := newRates(g).fastest() * d; !(products <= maxProducts) {
					errs = append(errs, bad("generator", "its largest rate times the duration of piece %d is %.3g, which takes as many products; want at most %g", k, products, maxProducts))
				}
			}
		}
	}
	if states > 0 {
		errs = append(errs, checkMarginals("knot", states, n, j.Marginals, j.Initial)...)
	}
	return errors.Join(errs...)
}

func (j Jump) generator(piece int) *Matrix {
	if len(j.Generators) == 1 {
		return j.Generators[0]
	}
	if piece < len(j.Generators) {
		return j.Generators[piece]
	}
	return nil
}

// JumpBridge is the path law that solves a Jump problem: a jump process with the
// rates of At. Its methods may be called concurrently.
type JumpBridge struct {
	Solution
	*path            // on a grid of time that is finer than the knots
	times  []float64 // of the steps of path
	rates  []*Matrix // of the steps of path
	knots  []float64
	states int
}

// short is the mean number of jumps of the uniformised chain in one step of the
// fine grid.
const short = 32

// SolveJump solves j. An error says that it could not run, or, where it wraps
// solver.ErrInfeasible, that no path law has these marginals; how a run ended is
// Status. Cancellation of ctx stops it within one product.
//
// A sweep takes two times Λτ + 9√(Λτ) products with the generator's matrix for a
// piece of duration τ, Λ the largest rate out of a state; more where entries of
// exp(τG) that are below e^-700 matter. Certificate.Truncation bounds what the
// series leave out.
func SolveJump(ctx context.Context, j Jump, set Settings) (*JumpBridge, error) {
	if err := errors.Join(j.Validate(), set.Validate()); err != nil {
		return nil, err
	}
	set = set.withDefaults()
	b := &JumpBridge{states: j.Generators[0].n, knots: []float64{0}}
	prepared, completed := map[*Matrix]*flow{}, map[*Matrix]*Matrix{}
	var coarse, fine []step
	places := []int{0} // of the knots on the fine grid
	for k, d := range j.Durations {
		g := j.generator(k)
		if prepared[g] == nil {
			completed[g] = newRates(g).matrix()
			prepared[g] = newFlow(g, 0)
		}
		f := prepared[g]
		coarse = append(coarse, f.lasting(d))
		parts := max(1, int(math.Ceil(f.rate*d/short)))
		part := f.lasting(d / float64(parts))
		for q := range parts {
			b.times = append(b.times, b.knots[k]+d*float64(q)/float64(parts))
			b.rates = append(b.rates, completed[g])
			fine = append(fine, part)
		}
		b.knots = append(b.knots, b.knots[k]+d)
		places = append(places, len(fine))
	}
	b.times = append(b.times, b.Horizon())
	s := newSequence(b.states, coarse, j.Marginals, j.Initial)
	s.what = "knot"
	s.length = func(from, to int) string { return fmt.Sprintf("time %.6g", b.knots[to]-b.knots[from]) }
	p, solution, err := s.solve(ctx, set)
	if err != nil {
		return nil, err
	}
	b.Solution = solution
	if p == nil {
		return b, nil
	}
	on := *s
	on.steps, on.at = fine, slices.Clone(s.at)
	for k, t := range s.at {
		on.at[k] = places[t]
	}
	if b.path, err = on.path(ctx, p.psi, set); err != nil {
		b.Status, err = canceled(err)
		return b, err
	}
	return b, nil
}

// States is the number of states.
func (b *JumpBridge) States() int { return b.states }

// Horizon is the time of the last knot.
func (b *JumpBridge) Horizon() float64 { return b.knots[len(b.knots)-1] }

// Knots are the times between the pieces, with both ends.
func (b *JumpBridge) Knots() []float64 { return slices.Clone(b.knots) }

// Moment is what a JumpBridge says about a time.
type Moment struct {
	Time float64
	// Marginal is the law of X_t: (states).
	Marginal []float64
	// Phi and Hat are log φ_t and log φ̂_t: (states), their sum the logarithm of
	// the law, up to the same constant at all times.
	Phi, Hat []float64
	// Rates holds G_ij φ_t(j)/φ_t(i), and minus their sums on the diagonal. The
	// rows of states that lead to no target are zero. Where a marginal is given
	// at t and the process goes on, these are the rates after t; at the end,
	// those that rates come to before it.
	Rates *Matrix
}

// At evaluates the bridge at times in [0, Horizon], in any order.
func (b *JumpBridge) At(ctx context.Context, times ...float64) ([]Moment, error) {
	if err := b.ready(b.Solution); err != nil {
		return nil, err
	}
	for _, t := range times {
		if !(t >= 0 && t <= b.Horizon()) {
			return nil, bad("time", "got %v, want 0 to %v", t, b.Horizon())
		}
	}
	order := make([]int, len(times))
	for k := range order {
		order[k] = k
	}
	sort.SliceStable(order, func(x, y int) bool { return times[order[x]] < times[order[y]] })
	out := make([]Moment, len(times))
	w := b.walk()
	for _, k := range order {
		m, err := b.moment(ctx, w, times[k])
		if err != nil {
			return nil, err
		}
		out[k] = m
	}
	return out, nil
}

// moment evaluates at t; w is at no later step.
func (b *JumpBridge) moment(ctx context.Context, w *walk, t float64) (Moment, error) {
	m := Moment{Time: t, Marginal: make([]float64, b.states), Phi: make([]float64, b.states), Hat: make([]float64, b.states)}
	last := len(b.steps) - 1
	// The last step that begins at t or before.
	q := min(sort.Search(len(b.times), func(i int) bool { return b.times[i] > t })-1, last)
	if t == b.Horizon() {
		q = last + 1
	}
	if err := w.to(ctx, q); err != nil {
		return m, err
	}
	rates := b.rates[min(q, last)]
	if q > last {
		if err := w.phi(ctx, m.Phi); err != nil {
			return m, err
		}
		copy(m.Hat, w.forward)
	} else {
		f := b.steps[q].(*flow)
		h, err := w.h(ctx, q+1)
		if err != nil {
			return m, err
		}
		if err := f.lasting(b.times[q+1]-t).back(ctx, w.host, m.Phi, h); err != nil {
			return m, err
		}
		from := slices.Clone(w.forward)
		if q != b.at[0] {
			w.weigh(q, from)
		}
		if err := f.lasting(t-b.times[q]).forth(ctx, w.host, m.Hat, from); err != nil {
			return m, err
		}
	}
	lawOf(m.Marginal, m.Phi, m.Hat)
	m.Rates = tiltedRates(rates, m.Phi)
	return m, nil
}

// tiltedRates are the rates of a process that is conditioned by φ.
func tiltedRates(g *Matrix, phi []float64) *Matrix {
	val := make([]float64, len(g.val))
	for i := range g.n {
		if math.IsInf(phi[i], -1) {
			continue
		}
		diagonal, sum := 0, 0.0
		for k := g.ptr[i]; k < g.ptr[i+1]; k++ {
			switch j := g.idx[k]; {
			case int(j) == i:
				diagonal = k
			case g.val[k] > 0:
				val[k] = math.Exp(math.Log(g.val[k]) + phi[j] - phi[i])
				sum += val[k]
			}
		}
		val[diagonal] = -sum
	}
	return g.with(val)
}

// rates are those of a generator, without its diagonal.
type rates struct {
	*Matrix
	out []float64 // of each state
}

func newRates(g *Matrix) rates {
	r := rates{g, make([]float64, g.n)}
	for i := range g.n {
		for k := g.ptr[i]; k < g.ptr[i+1]; k++ {
			if int(g.idx[k]) != i {
				r.out[i] += g.val[k]
			}
		}
	}
	return r
}

func (r rates) fastest() float64 { return slices.Max(r.out) }

// matrix is the generator with its whole diagonal.
func (r rates) matrix() *Matrix {
	s := r.onDiagonal(func(i int) float64 { return -r.out[i] }, 1)
	return newMatrix(s)
}

// onDiagonal is the matrix with the rates times scale off the diagonal, which
// is as given.
func (r rates) onDiagonal(diagonal func(i int) float64, scale float64) sparse {
	s := sparse{n: r.n, ptr: make([]int, r.n+1)}
	for i := range r.n {
		columns, entries := r.Row(i)
		below := sort.Search(len(columns), func(k int) bool { return int(columns[k]) >= i })
		for k, j := range columns[:below] {
			s.idx, s.val = append(s.idx, j), append(s.val, entries[k]*scale)
		}
		s.idx, s.val = append(s.idx, int32(i)), append(s.val, diagonal(i))
		if below < len(columns) && int(columns[below]) == i {
			below++
		}
		for k, j := range columns[below:] {
			s.idx, s.val = append(s.idx, j), append(s.val, entries[below+k]*scale)
		}
		s.ptr[i+1] = len(s.idx)
	}
	return s
}
