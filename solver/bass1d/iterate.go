package bass1d

import (
	"context"
	"math"

	"github.com/fortet/fortet/solver"
	"gonum.org/v1/gonum/mat"
)

// iterate climbs the dual. In one dimension the dual's derivative along a
// change of w_T' by p(F_μT⁻¹(F_νT(y)) - X_T(y)) is not negative, for every p ≥ 0,
// so that a step short enough goes up; and up to p = β the map X_T stays
// increasing, being a mean of increasing maps. The plain iteration is
// p = τβ with a fixed τ, which diverges where β is large or tails are heavy.
// Here p starts from what a Gaussian needs and is halved where the dual and the
// residual both get worse, down to a step that is taken in any case: on a coarse
// grid neither is exactly monotone. Between such steps Anderson's combination of
// the last iterates is tried, and kept only where it lowers the residual and
// leaves X_T increasing.
func (r *Result) iterate(ctx context.Context, g []float64, goal float64, limit int) solver.Status {
	s := r.system
	st := s.evaluate(g)
	p := s.Beta / (1 + s.Beta*s.T)
	shortest := p / 64
	var past history
	r.state = st
	for last := 0; ; { // the iteration of the best state
		if st.residual < r.state.residual {
			r.state, last = st, r.Iterations
		}
		switch {
		case !finite(st):
			return solver.Diverged
		case st.residual <= goal:
			return solver.Converged
		case ctx.Err() != nil:
			return solver.Canceled
		case r.Iterations >= limit:
			return solver.MaxIterations
		case r.Iterations > last+patience:
			return solver.Stalled
		}
		r.Iterations++
		past.add(st)
		if g := past.combine(st, p, s); g != nil {
			if next := s.evaluate(g); finite(next) && next.residual < st.residual {
				st = next
				continue
			}
			past.forget()
		}
		next := s.evaluate(along(st.g, p, st.move))
		for !better(next, st) {
			if p *= 0.5; p < shortest {
				p = shortest
				break
			}
			if ctx.Err() != nil {
				return solver.Canceled
			}
			next = s.evaluate(along(st.g, p, st.move))
		}
		st = next
		p = min(0.9*s.Beta, 1.1*p)
	}
}

// patience is how many iterations may pass without a new best one.
const patience = 300

// history holds the last iterates and their moves, newest last.
type history struct{ g, move [][]float64 }

// depth is the number of differences that are combined.
const depth = 8

func (h *history) forget() { h.g, h.move = nil, nil }

func (h *history) add(st *state) {
	h.g, h.move = append(h.g, st.g), append(h.move, st.move)
	if len(h.g) > depth+1 {
		h.g, h.move = h.g[1:], h.move[1:]
	}
}

// combine is Anderson's type II step with mixing p, in the metric of Y_T's law;
// nil where there is none.
func (h *history) combine(st *state, p float64, s *system) []float64 {
	m := len(h.g) - 1
	if m < 1 {
		return nil
	}
	left, right := mat.NewDense(s.n, m, nil), mat.NewVecDense(s.n, nil)
	for j, l := range st.nuT {
		weight := math.Exp(l / 2)
		right.SetVec(j, weight*st.move[j])
		for k := range m {
			left.Set(j, k, weight*(h.move[k+1][j]-h.move[k][j]))
		}
	}
	var gamma mat.VecDense
	if err := gamma.SolveVec(left, right); err != nil {
		return nil
	}
	g := along(st.g, p, st.move)
	for k := range m {
		c := gamma.AtVec(k)
		for j := range g {
			g[j] -= c * (h.g[k+1][j] - h.g[k][j] + p*(h.move[k+1][j]-h.move[k][j]))
		}
	}
	for j := range s.n - 1 {
		if !(s.dx+(g[j+1]-g[j])/s.Beta >= -1e-9*s.dx) {
			return nil
		}
	}
	return g
}

// better says whether a step is taken.
func better(next, now *state) bool {
	return finite(next) && (next.residual <= now.residual || next.dual > now.dual+1e-12*(1+math.Abs(now.dual)))
}

// finite says whether a state is one, with the law of Y_0 on the grid.
func finite(st *state) bool {
	v := st.residual + st.dual + st.primal
	return !math.IsNaN(v) && !math.IsInf(v, 0) && math.Abs(st.mass-1) < 1e-3
}

func along(g []float64, p float64, move []float64) []float64 {
	out := make([]float64, len(g))
	for j := range g {
		out[j] = g[j] + p*move[j]
	}
	return out
}
