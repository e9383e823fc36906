package exact

import "math"

// tree is a basis of the transport programme: a spanning tree over n sources,
// m sinks and a root. Sources are nodes 0 … n−1, sinks n … n+m−1, the root n+m.
//
// Every arc runs from a source to a sink, so the type of a node says how the arc
// to its parent runs: up from a source, down to a sink. Sources may also hang
// from the root by an artificial arc that never carries mass. The tree is
// strongly feasible: an arc without flow runs up, which is to say that every
// sink receives mass from its parent. Pivots keep it so.
//
// The nodes form a ring in preorder, in which a subtree is a run of size nodes.
// Prices change by subtrees, which is most of the work of a pivot: thread and
// price stand in arrays of their own, so that this reads 12 bytes per node.
type tree struct {
	n     int     // sources
	root  int32   // n + m
	nodes []node  // n + m + 1
	next  []int32 // next node in preorder; the root follows the last
	// price is −u for sources and v for sinks; an arc of the tree has
	// c + price(source) − price(sink) = 0.
	price []float64
}

// node is a place in the tree.
type node struct {
	parent int32
	prev   int32 // in preorder
	last   int32 // last node of the subtree in preorder
	size   int32 // nodes of the subtree, itself included
	flow   int64 // on the arc to the parent
	cost   float64
}

// newTree returns n + m nodes without parents.
func newTree(n, m int) *tree {
	t := &tree{n: n, root: int32(n + m), nodes: make([]node, n+m+1), next: make([]int32, n+m+1), price: make([]float64, n+m+1)}
	for i := range t.nodes {
		t.nodes[i].parent = -1
	}
	return t
}

func (t *tree) isSource(w int32) bool { return int(w) < t.n }

// thread builds the preorder, sizes and last descendants from the parents.
func (t *tree) thread() {
	nodes := t.nodes
	child, sibling := make([]int32, len(nodes)), make([]int32, len(nodes))
	for w := range child {
		child[w] = -1
	}
	for w := range nodes {
		nodes[w].size = 1
		if p := nodes[w].parent; p >= 0 {
			sibling[w], child[p] = child[p], int32(w)
		} else {
			sibling[w] = -1
		}
	}
	order := make([]int32, 0, len(nodes))
	for w := t.root; w >= 0; {
		order = append(order, w)
		if child[w] >= 0 {
			w = child[w]
			continue
		}
		for w >= 0 && sibling[w] < 0 {
			w = nodes[w].parent
		}
		if w >= 0 {
			w = sibling[w]
		}
	}
	for k, w := range order {
		following := order[(k+1)%len(order)]
		t.next[w], nodes[following].prev = following, w
		nodes[w].last = w
	}
	for k := len(order) - 1; k > 0; k-- {
		w := order[k]
		p := &nodes[nodes[w].parent]
		p.size += nodes[w].size
		// Read backwards, the first child that is met ends the subtree.
		if p.last == nodes[w].parent {
			p.last = nodes[w].last
		}
	}
}

// pivot brings the arc i → j of cost c and negative reduced cost r into the
// tree. It sends as much mass around the cycle that the arc closes as the
// cycle's backward arcs allow; of the arcs that block, the last one met from
// the cycle's apex along the arc's direction leaves, which keeps the tree
// strongly feasible (Cunningham 1976).
func (t *tree) pivot(i, j int32, c, r float64) {
	nodes := t.nodes

	// A node with the smaller subtree cannot be an ancestor of the other.
	apex, b := i, j
	for apex != b {
		switch sa, sb := nodes[apex].size, nodes[b].size; {
		case sa < sb:
			apex = nodes[apex].parent
		case sa > sb:
			b = nodes[b].parent
		default:
			apex, b = nodes[apex].parent, nodes[b].parent
		}
	}

	delta, leaving, above, below := int64(math.MaxInt64), int32(-1), j, i
	for w := i; w != apex; w = nodes[w].parent {
		if t.isSource(w) && nodes[w].flow < delta {
			delta, leaving = nodes[w].flow, w
		}
	}
	for w := j; w != apex; w = nodes[w].parent {
		if !t.isSource(w) && nodes[w].flow <= delta {
			delta, leaving = nodes[w].flow, w
			above, below = i, j
		}
	}

	if delta > 0 {
		for w := i; w != apex; w = nodes[w].parent {
			if t.isSource(w) {
				nodes[w].flow -= delta
			} else {
				nodes[w].flow += delta
			}
		}
		for w := j; w != apex; w = nodes[w].parent {
			if t.isSource(w) {
				nodes[w].flow += delta
			} else {
				nodes[w].flow -= delta
			}
		}
	}

	t.move(leaving, below, above, apex, c, delta)

	shift := r // the prices of a subtree that holds the sink fall
	if below == i {
		shift = -r
	}
	if moved := int(nodes[below].size); moved <= len(nodes)/2 {
		t.shift(below, moved, shift)
	} else {
		t.shift(t.next[nodes[below].last], len(nodes)-moved, -shift)
	}
}

// shift adds s to the prices of count nodes from w on in preorder.
func (t *tree) shift(w int32, count int, s float64) {
	next, price := t.next, t.price
	for range count {
		price[w] += s
		w = next[w]
	}
}

// move cuts the subtree of leaving off its parent and hangs it below the node
// above, turned around so that it now hangs by its node below, on an arc with
// the given cost and flow. apex is a common ancestor of both places.
func (t *tree) move(leaving, below, above, apex int32, cost float64, flow int64) {
	nodes, next := t.nodes, t.next
	count, end := nodes[leaving].size, nodes[leaving].last
	parent := nodes[leaving].parent

	// Close the ring where the subtree was.
	before, after := nodes[leaving].prev, next[end]
	next[before], nodes[after].prev = after, before
	for w := parent; w != apex; w = nodes[w].parent {
		nodes[w].size -= count
	}
	for w := parent; w >= 0 && nodes[w].last == end; w = nodes[w].parent {
		nodes[w].last = before
	}

	// Turn it around. Its new preorder is the run of below, followed, for each
	// node w on the path up to leaving, by the run of w without that of the
	// path's node under it: a piece before the inner run and one behind it.
	inner := nodes[below]
	resume, tail := next[inner.last], inner.last
	up := inner.parent
	nodes[below].parent, nodes[below].flow, nodes[below].cost, nodes[below].size = above, flow, cost, count
	for under := below; under != leaving; {
		w, outer := up, nodes[up]
		nd := &nodes[w]
		nd.parent, nd.flow, nd.cost, nd.size = under, inner.flow, inner.cost, count-inner.size
		following := resume
		if outer.last != inner.last {
			following = next[outer.last]
		}
		next[tail], nd.prev, tail = w, tail, inner.prev
		if outer.last != inner.last {
			next[tail], nodes[resume].prev, tail = resume, tail, outer.last
		}
		inner, resume, under, up = outer, following, w, outer.parent
	}
	for w := leaving; w != above; w = nodes[w].parent {
		nodes[w].last = tail
	}

	// Open the ring behind above.
	following := next[above]
	next[above], nodes[below].prev = below, above
	next[tail], nodes[following].prev = following, tail
	for w := above; w != apex; w = nodes[w].parent {
		nodes[w].size += count
	}
	for w := above; w >= 0 && nodes[w].last == above; w = nodes[w].parent {
		nodes[w].last = tail
	}
}

// refresh recomputes all prices from the arcs' costs, carrying the rounding of
// every sum along, so that prices have no error that grows with the depth. It
// returns the largest price in absolute value.
func (t *tree) refresh() float64 {
	nodes, price := t.nodes, t.price
	rest := make([]float64, len(nodes))
	price[t.root] = 0
	largest := 0.0
	for w := t.next[t.root]; w != t.root; w = t.next[w] {
		p, c := nodes[w].parent, nodes[w].cost
		if t.isSource(w) {
			c = -c
		}
		// Knuth's exact sum of two numbers.
		a := price[p]
		s := a + c
		z := s - a
		e := (a - (s - z)) + (c - z) + rest[p]
		price[w] = s + e
		rest[w] = e - (price[w] - s)
		largest = max(largest, math.Abs(price[w]))
	}
	return largest
}
