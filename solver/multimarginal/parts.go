package multimarginal

// part is a piece of the tree that is independent of the rest: edges that are
// connected without passing an exact node. Its exact nodes are leaves.
type part struct {
	root     int
	members  []int // root first, each before its children
	children map[int][]branch
	size     int // of the state: a message to the parent for each edge
	pairs    int
}

// branch is an edge of a part from a node to a child of it.
type branch struct {
	edge, node int
	leaf       bool
	at         int // where the child's message begins in the state
}

// parts cuts the tree at its exact nodes.
func (t *task) parts() []*part {
	var parts []*part
	taken := make([]bool, len(t.edges))
	for e := range t.edges {
		if taken[e] {
			continue
		}
		p := &part{root: t.rootOf(e), children: map[int][]branch{}}
		t.grow(p, p.root, -1, taken)
		parts = append(parts, p)
	}
	return parts
}

// rootOf chooses the root of the part of edge e: of a single edge the second
// node, otherwise a node that is no leaf, so that every edge with a leaf has it
// below.
func (t *task) rootOf(e int) int {
	for _, k := range []int{t.edges[e].j, t.edges[e].i} {
		if !t.nodes[k].exact() && len(t.near[k]) > 1 {
			return k
		}
	}
	return t.edges[e].j
}

// grow adds what hangs on node k, which was reached through edge from.
func (t *task) grow(p *part, k, from int, taken []bool) {
	p.members = append(p.members, k)
	if t.nodes[k].exact() && k != p.root {
		return
	}
	for _, e := range t.near[k] {
		// Other edges of an exact root are parts of their own.
		if e == from || taken[e] || t.nodes[k].exact() && len(p.children[k]) > 0 {
			continue
		}
		c := t.edges[e].other(k)
		taken[e] = true
		p.children[k] = append(p.children[k], branch{
			edge: e, node: c, at: p.size,
			leaf: t.nodes[c].exact() || len(t.near[c]) == 1,
		})
		p.size += t.nodes[k].n
		p.pairs += t.nodes[k].n * t.nodes[c].n
		t.grow(p, c, e, taken)
	}
}
