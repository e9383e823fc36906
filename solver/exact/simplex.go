package exact

import (
	"context"
	"math"
	"slices"
)

// arcs are the columns of the restricted programme.
type arcs struct {
	source, sink []int32 // node numbers
	cost         []float64
}

func (a *arcs) add(source, sink int32, cost float64) {
	a.source = append(a.source, source)
	a.sink = append(a.sink, sink)
	a.cost = append(a.cost, cost)
}

func (a *arcs) len() int { return len(a.cost) }

// programme is the transport problem restricted to some arcs.
type programme struct {
	tree    *tree
	arcs    arcs
	table   table
	bound   float64 // of |c|
	dim     int
	pivots  int
	largest float64 // largest |price| at the last refresh
	next    int     // where the search for an entering arc goes on
}

// newProgramme starts from a greedy plan: arcs in the order of their reduced
// costs against the potentials u, v each take what mass they can, and what
// remains is sent to the cheapest sinks left. Each step empties a node, which
// becomes the child of the other (the sink, where both run empty), so the plan
// is a forest, strongly feasible when its sources at the top hang from the root.
func newProgramme(ctx context.Context, t table, bound float64, dim int, supply, demand []int64, u, v []float64, candidates arcs) (*programme, error) {
	n, m := t.size()
	p := &programme{tree: newTree(n, m), arcs: candidates, table: t, bound: bound, dim: dim}
	left := slices.Concat(supply, demand)

	reduced := make([]float64, candidates.len())
	order := make([]int32, candidates.len())
	for k := range order {
		order[k] = int32(k)
		reduced[k] = candidates.cost[k] - u[candidates.source[k]] - v[int(candidates.sink[k])-n]
	}
	slices.SortFunc(order, func(a, b int32) int {
		switch {
		case reduced[a] < reduced[b]:
			return -1
		case reduced[a] > reduced[b]:
			return 1
		}
		return int(a - b)
	})
	for _, k := range order {
		if i, j := candidates.source[k], candidates.sink[k]; left[i] > 0 && left[j] > 0 {
			p.assign(i, j, candidates.cost[k], left)
		}
	}
	if err := p.assignRest(ctx, left, v); err != nil {
		return nil, err
	}

	// The artificial arcs get the costs that make u the potentials of the tops.
	nodes := p.tree.nodes
	for i := range n {
		if nodes[i].parent < 0 {
			nodes[i].cost = u[i]
			nodes[i].parent = p.tree.root
		}
	}
	p.tree.thread()
	p.refresh()
	return p, nil
}

// assign sends all the mass it can along i → j.
func (p *programme) assign(i, j int32, cost float64, left []int64) {
	amount := min(left[i], left[j])
	left[i] -= amount
	left[j] -= amount
	child, parent := i, j
	if left[j] == 0 {
		child, parent = j, i
	}
	nd := &p.tree.nodes[child]
	nd.parent, nd.flow, nd.cost = parent, amount, cost
}

// assignRest sends what the candidates left over: every source to the sinks
// that are cheapest for it among those not yet full.
func (p *programme) assignRest(ctx context.Context, left []int64, v []float64) error {
	n, m := p.table.size()
	var open []int32
	for j := n; j < n+m; j++ {
		if left[j] > 0 {
			open = append(open, int32(j))
		}
	}
	// Where much is left, the simplex mends a short search faster than a long
	// one could avoid it.
	look := max(1, assignWork/(p.dim*(len(open)+1)))
	for i := int32(0); int(i) < n; i++ {
		for left[i] > 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			best, at := math.Inf(1), 0
			for k, j := range open[:min(look, len(open))] {
				if r := p.table.at(int(i), int(j)-n) - v[int(j)-n]; r < best {
					best, at = r, k
				}
			}
			j := open[at]
			p.assign(i, j, p.table.at(int(i), int(j)-n), left)
			if left[j] == 0 {
				open = slices.Delete(open, at, at+1)
			}
		}
	}
	return nil
}

const (
	assignWork   = 1 << 28 // coordinates that the search for leftover mass may read
	checkPivots  = 256     // pivots between two looks at the context
	refreshEvery = 8       // times the number of nodes: pivots between refreshes
)

func (p *programme) refresh() { p.largest = p.tree.refresh() }

// tolerance is the reduced cost below which an arc counts as violated. It lies
// above what rounding can pretend: prices that are some 2⁻⁵³ off relative to the
// largest, after the shifts of the pivots since they were refreshed, and a
// cost's own error. Every pivot then moves prices by more than their rounding, so that
// Cunningham's argument against cycling holds in float64.
func (p *programme) tolerance() float64 {
	return max(0x1p-44, float64(p.dim+8)*0x1p-51) * max(p.largest, p.bound/16)
}

// optimise pivots until no arc of the restricted programme is violated.
//
// Entering arcs are found by block search: arcs are read in turn, and the most
// violated one of the first block that has any enters.
func (p *programme) optimise(ctx context.Context) error {
	a, price := &p.arcs, p.tree.price
	if a.len() == 0 {
		return nil
	}
	block := max(64, int(math.Sqrt(float64(a.len()))))
	fresh, sinceRefresh := false, 0
	tol := p.tolerance()
	k := p.next % a.len()
	for seen := 0; ; {
		best, enter := -tol, -1
		for scanned := 0; scanned < block; {
			stop := min(k+block-scanned, a.len())
			source, sink, cost := a.source[k:stop], a.sink[k:stop], a.cost[k:stop]
			for e, c := range cost {
				if r := c + price[source[e]] - price[sink[e]]; r < best {
					best, enter = r, k+e
				}
			}
			scanned += stop - k
			seen += stop - k
			if k = stop; k == a.len() {
				k = 0
			}
		}
		if enter < 0 {
			if seen < a.len() {
				continue
			}
			if fresh {
				p.next = k
				return nil
			}
		} else {
			p.tree.pivot(a.source[enter], a.sink[enter], a.cost[enter], best)
			p.pivots++
			seen, fresh = 0, false
			sinceRefresh++
			if p.pivots%checkPivots == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if enter < 0 || sinceRefresh >= refreshEvery*len(price) {
			p.refresh()
			tol = p.tolerance()
			seen, sinceRefresh, fresh = 0, 0, true
		}
	}
}

// potentials returns u and v of the current tree.
func (p *programme) potentials() (u, v []float64) {
	n := p.tree.n
	u, v = make([]float64, n), make([]float64, len(p.tree.price)-1-n)
	for i := range u {
		u[i] = -p.tree.price[i]
	}
	copy(v, p.tree.price[n:])
	return u, v
}
