package discrete

import (
	"context"
	"fmt"
	"math"
	"strings"

	"gonum.org/v1/gonum/floats"

	"github.com/fortet/fortet/solver/exact"
)

// reachable says whether every state with mass can be reached from, and
// reaches, one with mass at the marginals beside it.
func (s *sequence) reachable(ctx context.Context) error {
	var lines []string
	have := make([]bool, s.states)
	for i, x := range s.initial {
		have[i] = !math.IsInf(x, -1)
	}
	at := 0
	for k, t := range s.at {
		for ; at < t; at++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			have = s.steps[at].successors(have)
		}
		from := "where the reference begins"
		if k > 0 {
			from = "any " + s.name(k-1) + " state"
		}
		lines = s.missed(lines, k, have, func(i int) string {
			if t == 0 {
				return fmt.Sprintf("%s state %d (mass %.6g) has no mass under the reference's initial law", s.name(k), i, s.law[k][i])
			}
			return fmt.Sprintf("%s state %d (mass %.6g) cannot be reached from %s in %s", s.name(k), i, s.law[k][i], from, s.span(k))
		})
		have = s.marked(k)
	}
	for k := len(s.at) - 2; k >= 0; k-- {
		have = s.marked(k + 1)
		for t := s.at[k+1] - 1; t >= s.at[k]; t-- {
			if err := ctx.Err(); err != nil {
				return err
			}
			have = s.steps[t].predecessors(have)
		}
		lines = s.missed(lines, k, have, func(i int) string {
			return fmt.Sprintf("%s state %d (mass %.6g) cannot reach any %s state in %s", s.name(k), i, s.law[k][i], s.name(k+1), s.span(k+1))
		})
	}
	if len(lines) > 0 {
		return infeasible("%s", strings.Join(lines, "; "))
	}
	return nil
}

func (s *sequence) marked(k int) []bool {
	out := make([]bool, s.states)
	for _, i := range s.support[k] {
		out[i] = true
	}
	return out
}

// named is how many states of one kind a message names.
const named = 3

func (s *sequence) missed(lines []string, k int, have []bool, say func(int) string) []string {
	missing := 0
	for _, i := range s.support[k] {
		if have[i] {
			continue
		}
		if missing++; missing <= named {
			lines = append(lines, say(i))
		}
	}
	if missing > named {
		lines = append(lines, fmt.Sprintf("and %d more", missing-named))
	}
	return lines
}

// name is what a marginal is called.
func (s *sequence) name(k int) string {
	switch s.at[k] {
	case 0:
		return "source"
	case len(s.steps):
		return "target"
	}
	return fmt.Sprintf("%s %d", s.what, s.at[k])
}

// span is the way from the marginal before k to k.
func (s *sequence) span(k int) string {
	from := 0
	if k > 0 {
		from = s.at[k-1]
	}
	return s.length(from, s.at[k])
}

const (
	// wordBudget bounds the work on sets of reachable states: some seconds.
	wordBudget = 1 << 31
	// pairBudget bounds the pairs of states whose transport is solved exactly.
	pairBudget = 1 << 24
	// slack is the mass that may be out of place: what rounding makes of laws
	// that fit exactly.
	slack = 1e-9
	// dust is the mass that rounding leaves in entries of a plan.
	dust = 1e-13
)

// examine asks, where the size allows an exact answer, whether there is a law
// with the marginals at all, and says by an error why not. Where there is one,
// but some pairs of states can have no mass in any, no finite ψ solves the
// problem: those pairs vanish only as differences of log ψ go to infinity.
// examine then moves ψ far into that direction, so that what is left of them is
// below rounding, and returns true. (The limit is the solution: Borwein, Lewis
// and Nussbaum, "Entropy minimization, DAD problems, and doubly stochastic
// kernels", 1994.)
func (c *scaling) examine(ctx context.Context, g []float64) (changed bool, err error) {
	c.checked = true
	for k := 1; k < len(c.at); k++ {
		pairs, err := c.pairs(ctx, k)
		if err != nil {
			return false, err
		}
		if pairs == nil {
			continue
		}
		plan, err := pairs.plan(ctx, c.law[k-1], c.law[k])
		if err != nil {
			return false, err
		}
		if err := c.hall(pairs, plan, k); err != nil {
			return false, err
		}
		rows, columns := pairs.levels(plan)
		for p, i := range pairs.from {
			if k > 1 && rows[p] > 0 {
				c.psi[k-1][i] -= levelHeight * float64(rows[p])
				changed = true
			}
		}
		for q, j := range pairs.to {
			if columns[q] > 0 {
				c.psi[k][j] += levelHeight * float64(columns[q])
				changed = true
			}
		}
	}
	if changed {
		c.get(g)
	}
	return changed, nil
}

// levelHeight makes what must vanish exp(-46) = 1e-20 times what it is.
const levelHeight = 46

// pairs says between which states with mass at two marginals there are paths.
type pairs struct {
	from, to []int
	words    int
	sets     []uint64 // (len(from), words): bit q of row p is to[q]
}

func (p *pairs) has(i, j int) bool { return p.sets[i*p.words+j/64]>>(j%64)&1 != 0 }

// pairs returns nil where there is nothing to ask, since all pairs have paths,
// or where the question is too large.
func (c *scaling) pairs(ctx context.Context, k int) (*pairs, error) {
	p := &pairs{from: c.support[k-1], to: c.support[k]}
	p.words = (len(p.to) + 63) / 64
	if len(p.from)*len(p.to) > pairBudget || c.states*p.words > wordBudget>>8 {
		return nil, nil
	}
	budget := wordBudget
	sets, next := make([]uint64, c.states*p.words), make([]uint64, c.states*p.words)
	for q, j := range p.to {
		sets[j*p.words+q/64] |= 1 << (q % 64)
	}
	for t := c.at[k] - 1; t >= c.at[k-1]; t-- {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !c.steps[t].pull(next, sets, p.words, &budget) {
			return nil, nil
		}
		sets, next = next, sets
	}
	p.sets = make([]uint64, 0, len(p.from)*p.words)
	for _, i := range p.from {
		p.sets = append(p.sets, sets[i*p.words:(i+1)*p.words]...)
	}
	for i := range p.from {
		for j := range p.to {
			if !p.has(i, j) {
				return p, nil
			}
		}
	}
	return nil, nil
}

// plan transports with as little mass as possible between states without paths.
func (p *pairs) plan(ctx context.Context, mu, nu []float64) ([]exact.Entry, error) {
	problem := exact.Problem{A: gather(mu, p.from), B: gather(nu, p.to)}
	problem.Costs = exact.Func{N: len(p.from), M: len(p.to), Cost: func(i, j int) float64 {
		if p.has(i, j) {
			return 0
		}
		return 1
	}}
	r, err := exact.Solver{}.Solve(ctx, problem)
	if err != nil {
		return nil, err
	}
	if err := r.Status.Err(); err != nil {
		return nil, err
	}
	return r.Plan, nil
}

func gather(x []float64, at []int) []float64 {
	out := make([]float64, len(at))
	for k, i := range at {
		out[k] = x[i]
	}
	return out
}

// hall is an error where a plan of least mass between states without paths has
// such mass. Its reason are sources that together have more mass than all
// states that they reach: those found by following, from a source whose mass
// went astray, paths forth and plan entries back.
func (c *scaling) hall(p *pairs, plan []exact.Entry, k int) error {
	astray, total := make([]float64, len(p.from)), 0.0
	senders := make([][]int, len(p.to))
	for _, e := range plan {
		switch {
		case !p.has(e.I, e.J):
			astray[e.I] += e.Mass
			total += e.Mass
		case e.Mass > dust:
			senders[e.J] = append(senders[e.J], e.I)
		}
	}
	if total <= slack {
		return nil
	}
	source, target := make([]bool, len(p.from)), make([]bool, len(p.to))
	queue := []int{floats.MaxIdx(astray)}
	source[queue[0]] = true
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for j := range p.to {
			if target[j] || !p.has(i, j) {
				continue
			}
			target[j] = true
			for _, s := range senders[j] {
				if !source[s] {
					source[s] = true
					queue = append(queue, s)
				}
			}
		}
	}
	senderNames, have, senderCount := c.listed(k-1, p.from, source)
	targetNames, room, _ := c.listed(k, p.to, target)
	reach := "together reach"
	if senderCount == 1 {
		reach = "reaches"
	}
	return infeasible("%s %s with mass %.9g %s in %s only %s %s, with mass %.9g",
		c.name(k-1), senderNames, have, reach, c.span(k), c.name(k), targetNames, room)
}

// listed names the states that are marked, adds up their mass and counts them.
func (c *scaling) listed(k int, states []int, marked []bool) (list string, total float64, count int) {
	var names []string
	for p, in := range marked {
		if !in {
			continue
		}
		total += c.law[k][states[p]]
		if count++; count <= 8 {
			names = append(names, fmt.Sprint(states[p]))
		}
	}
	list = strings.Join(names, ", ")
	if count > 8 {
		list += fmt.Sprintf(" and %d more", count-8)
	}
	if count == 1 {
		return "state " + list, total, count
	}
	return "states " + list, total, count
}

// levels numbers the states so that along a path from i to j the number stays
// or, where no plan can use the path, falls. Those are the paths between
// different strong components of the graph of paths forth and plan entries
// back: a cycle in it is a change of the plan that leaves its marginals alone.
func (p *pairs) levels(plan []exact.Entry) (from, to []int) {
	n := len(p.from)
	back := make([][]int, len(p.to))
	for _, e := range plan {
		if p.has(e.I, e.J) && e.Mass > dust {
			back[e.J] = append(back[e.J], e.I)
		}
	}
	var (
		order, low = make([]int, n+len(p.to)), make([]int, n+len(p.to))
		level      = make([]int, n+len(p.to))
		open       = make([]bool, n+len(p.to))
		stack      []int
		count      int
		visit      func(v int)
	)
	eachNext := func(v int, do func(w int)) {
		if v >= n {
			for _, i := range back[v-n] {
				do(i)
			}
			return
		}
		for j := range p.to {
			if p.has(v, j) {
				do(n + j)
			}
		}
	}
	visit = func(v int) { // Tarjan's algorithm: components come after those that they lead to
		count++
		order[v], low[v] = count, count
		stack = append(stack, v)
		open[v] = true
		eachNext(v, func(w int) {
			if order[w] == 0 {
				visit(w)
			}
			if open[w] {
				low[v] = min(low[v], low[w])
			}
		})
		if low[v] != order[v] {
			return
		}
		first := len(stack) - 1
		for stack[first] != v {
			first--
		}
		component := stack[first:]
		stack = stack[:first]
		for _, u := range component {
			open[u] = false
		}
		inside := map[int]bool{}
		for _, u := range component {
			inside[u] = true
		}
		top := 0
		for _, u := range component {
			eachNext(u, func(w int) {
				if !inside[w] {
					top = max(top, level[w]+1)
				}
			})
		}
		for _, u := range component {
			level[u] = top
		}
	}
	for v := range order {
		if order[v] == 0 {
			visit(v)
		}
	}
	return level[:n], level[n:]
}
