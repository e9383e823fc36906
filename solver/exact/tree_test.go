package exact

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// checkTree verifies a tree from its parents alone: preorder, sizes, last
// descendants, prices, strong feasibility, and the conservation of mass.
func checkTree(t *testing.T, tree *tree, supply, demand []int64) {
	t.Helper()
	nodes := tree.nodes
	count, depth := len(nodes), func(w int32) int {
		d := 0
		for ; w != tree.root; w = nodes[w].parent {
			d++
			require.LessOrEqual(t, d, len(nodes), "parents form a circle")
		}
		return d
	}
	sizes := make([]int32, count)
	net := make([]int64, count)
	for w := range nodes {
		depth(int32(w))
		for a := int32(w); a >= 0; a = nodes[a].parent {
			sizes[a]++
		}
		if int32(w) == tree.root {
			continue
		}
		p, f := nodes[w].parent, nodes[w].flow
		require.GreaterOrEqual(t, f, int64(0))
		require.NotEqual(t, tree.isSource(int32(w)), p != tree.root && tree.isSource(p), "an arc joins a source and a sink")
		if p == tree.root {
			require.True(t, tree.isSource(int32(w)), "a sink hangs from the root")
			require.Zero(t, f, "mass on an artificial arc")
		}
		c := nodes[w].cost
		if tree.isSource(int32(w)) {
			net[w] -= f
			net[p] += f
			c = -c
		} else {
			require.Positive(t, f, "a sink without flow from its parent: not strongly feasible")
			net[p] -= f
			net[w] += f
		}
		if d := tree.price[p] + c - tree.price[w]; !(math.Abs(d) <= 1e-12*(1+math.Abs(c)+math.Abs(tree.price[w]))) {
			t.Fatalf("price of node %d is off by %g", w, d)
		}
	}
	for i, s := range supply {
		require.Equal(t, -s, net[i])
	}
	for j, d := range demand {
		require.Equal(t, d, net[tree.n+j])
	}
	order := make([]int, count)
	for k, w := 0, tree.root; k < count; k++ {
		order[w] = k
		require.Equal(t, w, nodes[tree.next[w]].prev)
		w = tree.next[w]
		require.Equal(t, k == count-1, w == tree.root)
	}
	for w := range nodes {
		require.Equal(t, sizes[w], nodes[w].size)
		require.Equal(t, order[w]+int(sizes[w])-1, order[nodes[w].last], "last descendant of node %d", w)
		if p := nodes[w].parent; p >= 0 {
			require.True(t, order[p] < order[w] && order[w] < order[p]+int(sizes[p]), "a subtree is not a run")
		}
	}
}

func TestTreeAfterEveryPivot(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pivots, degenerate := 0, 0
	for rep := range 80 {
		n, m := 1+r.IntN(12), 1+r.IntN(12)
		if rep%2 == 0 {
			m = n
		}
		supply, demand := make([]int64, n), make([]int64, m)
		for i := range supply {
			supply[i] = int64(m)
		}
		for j := range demand {
			demand[j] = int64(n)
		}
		table := denseTable{lattice(r, n*m, 4), n, m}
		u, v := normals(r, n), normals(r, m)
		var all arcs
		for i := range n {
			for j := range m {
				all.add(int32(i), int32(n+j), table.at(i, j))
			}
		}
		p, err := newProgramme(context.Background(), table, 4, 1, supply, demand, u, v, all)
		require.NoError(t, err)
		checkTree(t, p.tree, supply, demand)
		objective := func() float64 {
			s := 0.0
			for _, nd := range p.tree.nodes {
				s += float64(nd.flow) * nd.cost
			}
			return s
		}
		// Any violated arc may enter.
		for range 10000 {
			k, start := -1, r.IntN(all.len())
			for e := range all.len() {
				e = (e + start) % all.len()
				if all.cost[e]+p.tree.price[all.source[e]]-p.tree.price[all.sink[e]] < -1e-9 {
					k = e
					break
				}
			}
			if k < 0 {
				break
			}
			i, j := all.source[k], all.sink[k]
			before := objective()
			p.tree.pivot(i, j, all.cost[k], all.cost[k]+p.tree.price[i]-p.tree.price[j])
			checkTree(t, p.tree, supply, demand)
			after := objective()
			require.LessOrEqual(t, after, before+1e-9)
			pivots++
			if after > before-1e-9 {
				degenerate++
			}
		}
		for e := range all.len() {
			require.GreaterOrEqual(t, all.cost[e]+p.tree.price[all.source[e]]-p.tree.price[all.sink[e]], -1e-9, "not optimal after 10000 pivots")
		}
	}
	require.Greater(t, pivots, 500, "too few pivots to mean anything")
	require.Greater(t, degenerate, 100, "too few degenerate pivots to mean anything")
}

func TestMassesAreExact(t *testing.T) {
	third := 1.0 / 3
	w, err := newMasses([]float64{third, third, third}, nil, 3, 7)
	require.NoError(t, err)
	require.Equal(t, []int64{7, 7, 7}, w.supply)
	require.Equal(t, []int64{3, 3, 3, 3, 3, 3, 3}, w.demand)

	w, err = newMasses([]float64{1e-30, math.Pi, 0, 1}, []float64{math.Pi + 1}, 4, 1)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 3}, w.source)
	var sum int64
	for k, s := range w.supply {
		require.Positive(t, s)
		within(t, w.mass(s), w.a[w.source[k]], 0x1p-52*w.total, "mass")
		sum += s
	}
	require.Equal(t, w.units, sum)
	require.Equal(t, []int64{sum}, w.demand)
}
