package divergences

import (
	"context"
	"math"
)

// flow is a transport problem in which a pair's first units are cheaper:
//
//	min Σ_ij low_ij T_ij + high_ij Q_ij   over T, Q ≥ 0, T ≤ room,
//	T + Q with the row sums supply and the column sums demand
//
// with low ≤ high, solved by the network simplex method with bounded arcs. Masses
// are integers, and the spanning tree is kept strongly feasible (Cunningham 1976),
// so that it cannot cycle whatever ties there are. Arc 2k of pair k = i m + j is T,
// arc 2k+1 is Q; behind them come the arcs between the nodes and the root.
type flow struct {
	n, m       int
	low, high  []float64 // (n m)
	room       []int64   // (n m)
	amount     []int64   // flow of every arc
	state      []int8    // of every arc: at 0, in the tree, at its room
	artificial float64   // cost of the arcs to the root
	reversed   []bool    // (n+m) whether node v's arc to the root runs from the root

	parent, depth      []int32
	arc                []int   // to the parent
	up                 []bool  // whether it runs to the parent
	child, left, right []int32 // the children of a node, as a list of siblings
	price              []float64
	stack              []int32
	pivots             int
}

const (
	atZero int8 = 1
	inTree int8 = 0
	atRoom int8 = -1
)

func newFlow(n, m int, low, high []float64, room, supply, demand []int64) *flow {
	nodes := n + m + 1
	f := &flow{
		n: n, m: m, low: low, high: high, room: room,
		amount: make([]int64, 2*n*m+n+m), state: make([]int8, 2*n*m+n+m), reversed: make([]bool, n+m),
		parent: make([]int32, nodes), depth: make([]int32, nodes), arc: make([]int, nodes), up: make([]bool, nodes),
		child: make([]int32, nodes), left: make([]int32, nodes), right: make([]int32, nodes), price: make([]float64, nodes),
	}
	for k := range 2 * n * m {
		f.state[k] = atZero
	}
	for k, c := range high {
		f.artificial = max(f.artificial, math.Abs(c), math.Abs(low[k]))
	}
	f.artificial = 2*f.artificial + 1 // a detour over the root costs more than any arc
	root := int32(n + m)
	for v := range f.child {
		f.child[v], f.left[v], f.right[v] = -1, -1, -1
	}
	f.parent[root], f.arc[root] = -1, -1
	for v := range n + m {
		e := 2*n*m + v
		mass := int64(0)
		if v < n {
			mass = supply[v]
		} else {
			mass = demand[v-n]
			f.reversed[v] = mass > 0 // an arc without flow runs up
		}
		f.amount[e] = mass
		f.arc[v], f.up[v] = e, !f.reversed[v]
		f.depth[v] = 1
		f.price[v] = -f.artificial
		if f.reversed[v] {
			f.price[v] = f.artificial
		}
		f.hang(int32(v), root)
	}
	return f
}

// ends are the nodes of an arc.
func (f *flow) ends(e int) (from, to int32) {
	if k := e >> 1; k < f.n*f.m {
		return int32(k / f.m), int32(f.n + k%f.m)
	}
	v := int32(e - 2*f.n*f.m)
	if f.reversed[v] {
		return int32(f.n + f.m), v
	}
	return v, int32(f.n + f.m)
}

func (f *flow) cost(e int) float64 {
	switch k := e >> 1; {
	case k >= f.n*f.m:
		return f.artificial
	case e&1 == 0:
		return f.low[k]
	default:
		return f.high[k]
	}
}

// left over on an arc.
func (f *flow) rest(e int) int64 {
	if k := e >> 1; k < f.n*f.m && e&1 == 0 {
		return f.room[k] - f.amount[e]
	}
	return math.MaxInt64
}

func (f *flow) hang(v, parent int32) {
	f.parent[v] = parent
	f.left[v], f.right[v] = -1, f.child[parent]
	if first := f.child[parent]; first >= 0 {
		f.left[first] = v
	}
	f.child[parent] = v
}

func (f *flow) cut(v int32) {
	if l := f.left[v]; l >= 0 {
		f.right[l] = f.right[v]
	} else {
		f.child[f.parent[v]] = f.right[v]
	}
	if r := f.right[v]; r >= 0 {
		f.left[r] = f.left[v]
	}
}

// solve pivots until no arc is violated, by more than rounding of the prices.
func (f *flow) solve(ctx context.Context) error {
	pairs := f.n * f.m
	block := max(64, int(math.Sqrt(float64(pairs))))
	tolerance := 0x1p-44 * f.artificial
	k, seen := 0, 0
	fresh := false
	for {
		best, enter := tolerance, -1
		for range block {
			i := k / f.m
			gain := f.price[i] - f.price[f.n+k-i*f.m]
			if s := f.state[2*k]; s != inTree {
				if v := -float64(s) * (f.low[k] + gain); v > best && f.room[k] > 0 {
					best, enter = v, 2*k
				}
			}
			if s := f.state[2*k+1]; s != inTree {
				if v := -float64(s) * (f.high[k] + gain); v > best {
					best, enter = v, 2*k+1
				}
			}
			seen++
			if k++; k == pairs {
				k = 0
			}
		}
		if enter >= 0 {
			f.pivot(enter)
			seen, fresh = 0, false
			if f.pivots++; f.pivots%256 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		if seen >= pairs {
			if fresh {
				return nil
			}
			f.refresh()
			seen, fresh = 0, true
		}
	}
}

// pivot sends along an arc what the cycle that it closes lets through. Of the
// arcs that block, the last one met from the cycle's apex along its direction
// leaves.
func (f *flow) pivot(enter int) {
	from, to := f.ends(enter)
	first, second := from, to
	if f.state[enter] == atRoom {
		first, second = to, from
	}
	apex, other := first, second
	for apex != other {
		if f.depth[apex] >= f.depth[other] {
			apex = f.parent[apex]
		} else {
			other = f.parent[other]
		}
	}
	delta := f.rest(enter)
	if f.state[enter] == atRoom {
		delta = f.amount[enter]
	}
	leaving, below, above := int32(-1), first, second
	for v := first; v != apex; v = f.parent[v] { // the cycle runs down to first
		d := f.rest(f.arc[v])
		if f.up[v] {
			d = f.amount[f.arc[v]]
		}
		if d < delta {
			delta, leaving = d, v
		}
	}
	for v := second; v != apex; v = f.parent[v] {
		d := f.rest(f.arc[v])
		if !f.up[v] {
			d = f.amount[f.arc[v]]
		}
		if d <= delta {
			delta, leaving, below, above = d, v, second, first
		}
	}
	if delta > 0 {
		f.amount[enter] += int64(f.state[enter]) * delta
		for v := first; v != apex; v = f.parent[v] {
			if f.up[v] {
				f.amount[f.arc[v]] -= delta
			} else {
				f.amount[f.arc[v]] += delta
			}
		}
		for v := second; v != apex; v = f.parent[v] {
			if f.up[v] {
				f.amount[f.arc[v]] += delta
			} else {
				f.amount[f.arc[v]] -= delta
			}
		}
	}
	if leaving < 0 { // from one bound to the other
		f.state[enter] = -f.state[enter]
		return
	}
	out := f.arc[leaving]
	f.state[enter], f.state[out] = inTree, atZero
	if f.amount[out] > 0 {
		f.state[out] = atRoom
	}
	// Turn the path from below up to leaving around, and hang it below above.
	reduced := f.cost(enter) + f.price[from] - f.price[to]
	v, parent, arc, up := below, above, enter, below == from
	for {
		next, nextArc, nextUp := f.parent[v], f.arc[v], f.up[v]
		f.cut(v)
		f.hang(v, parent)
		f.arc[v], f.up[v] = arc, up
		if v == leaving {
			break
		}
		v, parent, arc, up = next, v, nextArc, !nextUp
	}
	shift := reduced
	if below == from {
		shift = -reduced
	}
	f.walk(below, func(v int32) {
		f.depth[v] = f.depth[f.parent[v]] + 1
		f.price[v] += shift
	})
}

// walk visits a subtree, parents first.
func (f *flow) walk(top int32, visit func(int32)) {
	f.stack = append(f.stack[:0], top)
	for len(f.stack) > 0 {
		v := f.stack[len(f.stack)-1]
		f.stack = f.stack[:len(f.stack)-1]
		visit(v)
		for c := f.child[v]; c >= 0; c = f.right[c] {
			f.stack = append(f.stack, c)
		}
	}
}

// refresh computes the prices anew from the tree, without the rounding of the
// shifts.
func (f *flow) refresh() {
	f.walk(int32(f.n+f.m), func(v int32) {
		switch p := f.parent[v]; {
		case p < 0:
			f.price[v] = 0
		case f.up[v]: // cost + price(v) - price(p) = 0
			f.price[v] = f.price[p] - f.cost(f.arc[v])
		default:
			f.price[v] = f.price[p] + f.cost(f.arc[v])
		}
	})
}
