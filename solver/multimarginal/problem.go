// Package multimarginal solves entropic optimal transport between many
// weighted sets of points whose costs stand on the edges of a tree — a chain of
// times, a star around a barycentre, or any other — without ever holding the
// tensor of the plan:
//
//	min over P ≥ 0 of  <Σ_e w_e c_e, P> + ε KL(P | a_1⊗…⊗a_K) + Σ_k ρ_k KL(P_k | a_k)
//
// where P_k is the marginal of node k, an infinite ρ_k makes it exact, and a free
// node has neither. KL is the generalised Kullback–Leibler divergence
// Σ p log(p/q) - p + q. The solution has the form
//
//	P(x_1, …, x_K) = Π_k a_k(x_k) exp((Σ_k f_k(x_k) - Σ_e w_e c_e(x_i, x_j))/ε)
//
// with f_k = 0 at free nodes. Its dual is
//
//	max over f of  Σ_k <a_k, f_k> - ε (ΣP - Π_k Σa_k)
//
// where a penalty replaces <a_k, f_k> by -ρ_k <a_k, exp(-f_k/ρ_k) - 1>, and a free
// node contributes nothing.
//
// # Free nodes
//
// A free node is where a barycentre lives: its law is found, not given. Its
// weights are the reference a_k in KL(P | a_1⊗…⊗a_K), uniform where none are
// given. The plan's marginal there is the answer. It is the entropic
// barycentre with respect to that reference (Benamou, Carlier, Cuturi, Nenna and
// Peyré, "Iterative Bregman projections", 2015), blurred as they all are.
//
// # Method
//
// Messages on the tree (Haasler, Singh, Zhang, Karlsson and Chen,
// "Multimarginal optimal transport and probabilistic graphical models", 2021):
//
//	m_{i→j}(y) = -ε log Σ_x a_i(x) exp((f_i(x) - Σ_{l≠j} m_{l→i}(x) - w c(x, y))/ε)
//
// each of which is one softmin over the pairs of an edge, at ε/w. The marginal of
// node k is a_k exp((f_k - Σ_l m_{l→k})/ε), so that f_k = Σ_l m_{l→k} makes it
// exact: an exact step of ascent in the dual. Given its value, what lies on one
// side of an exact node is independent of what lies on the other, and the marginal
// is known: the problem falls apart there into independent ones, whose potentials
// add. A chain of exact marginals is one problem of two marginals for each edge.
// What remains connected, around free and unbalanced nodes, is swept by a walk
// through the tree that keeps every message current where it is used, at one
// softmin for an inner edge and direction, and one pass for both directions of an
// edge that ends in a leaf.
package multimarginal

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// Problem is what to solve. It is plain data and is never modified.
type Problem struct {
	Nodes []Node
	// Edges make the nodes one tree.
	Edges []Edge
	// Dim is the dimension of all points. It may be 0 where no node has points.
	Dim int
	// Epsilon > 0 is the strength of the entropy, in units of Scale: of the mean
	// and the standard deviation of the summed cost under the product of the
	// weights.
	Epsilon float64
	Scale   sinkhorn.Scale
	// Times are those of the nodes, all different, for paths through them. nil:
	// node k is at time k.
	Times []float64
}

// Node is one marginal.
type Node struct {
	// X are its points, (n, Dim), row-major. nil where every edge of the node
	// brings a Geometry.
	X []float64
	// Weights are those of its points: (n). nil means uniform with total mass 1.
	// Zeros are allowed. The masses of exact marginals must agree to six digits;
	// they are then scaled to that of the first.
	Weights []float64
	// Rho is the strength of the KL penalty that replaces the exact marginal, in
	// the cost's unit. 0 or +Inf: exact.
	Rho float64
	// Free says that the marginal is to be found: Weights are its reference.
	Free bool
}

// Edge is a cost between two nodes.
type Edge struct {
	I, J int
	// Cost is between the points of the nodes.
	Cost geometry.Cost
	// Weight multiplies the cost; 0 means 1.
	Weight float64
	// Geometry, of as many points as the nodes have, is used in place of the nodes'
	// points and Cost. nil: there is none.
	Geometry geometry.Geometry
}

// Chain is the problem whose solution is the Schrödinger bridge of a Brownian
// motion of the given variance per unit of time through marginals at ascending
// times: points[k] is (n_k, dim), weights[k] may be nil, and weights too. The
// edges cost |x-y|²/(2(t_{k+1}-t_k)), and ε is the variance.
func Chain(points, weights [][]float64, dim int, times []float64, variance float64) (Problem, error) {
	var errs []error
	if len(times) != len(points) {
		errs = append(errs, fmt.Errorf("multimarginal: chain: times: %w: got %d, want one for each of %d nodes", solver.ErrInvalid, len(times), len(points)))
	}
	if weights != nil && len(weights) != len(points) {
		errs = append(errs, fmt.Errorf("multimarginal: chain: weights: %w: got %d lists, want one for each of %d nodes", solver.ErrInvalid, len(weights), len(points)))
	}
	for k, t := range times {
		if k > 0 && !(t > times[k-1]) {
			errs = append(errs, fmt.Errorf("multimarginal: chain: times: %w: time %d is %v after %v, want ascending ones", solver.ErrInvalid, k, t, times[k-1]))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Problem{}, err
	}
	p := Problem{Dim: dim, Epsilon: variance, Times: times}
	for k, x := range points {
		node := Node{X: x}
		if weights != nil {
			node.Weights = weights[k]
		}
		p.Nodes = append(p.Nodes, node)
		if k > 0 {
			p.Edges = append(p.Edges, Edge{I: k - 1, J: k, Cost: geometry.HalfSqEuclidean, Weight: 1 / (times[k] - times[k-1])})
		}
	}
	return p, p.Validate()
}

// Validate reports every fault at once.
func (p Problem) Validate() error {
	_, err := p.graph()
	return err
}

// faults collects what is wrong.
type faults []error

func (f *faults) add(where, format string, v ...any) {
	*f = append(*f, fmt.Errorf("multimarginal: %s: %w: %s", where, solver.ErrInvalid, fmt.Sprintf(format, v...)))
}

// graph checks the problem and fills in its defaults, but for ε, which costs
// work.
func (p Problem) graph() (*task, error) {
	var f faults
	t := &task{nodes: make([]node, len(p.Nodes)), edges: make([]edge, len(p.Edges)), times: p.Times}
	if len(p.Nodes) < 2 {
		f.add("nodes", "got %d, want at least 2", len(p.Nodes))
	}
	if !(p.Epsilon > 0) || math.IsInf(p.Epsilon, 0) {
		f.add("epsilon", "got %v, want a finite number above 0", p.Epsilon)
	}
	if p.Scale < sinkhorn.Absolute || p.Scale > sinkhorn.Std {
		f.add("epsilon scale", "got %v", p.Scale)
	}
	if p.Dim < 0 {
		f.add("dimension", "got %d, want at least 0", p.Dim)
	}
	p.checkTimes(&f)
	ends := t.tree(p, &f)
	good := make([]bool, len(p.Nodes)) // a node whose points are right
	for k := range p.Nodes {
		good[k] = t.points(p, k, &f)
	}
	for e := range p.Edges {
		if ends[e] {
			t.geometry(p, e, good, &f)
		}
	}
	t.weights(p, &f)
	return t, errors.Join(f...)
}

func (p Problem) checkTimes(f *faults) {
	if p.Times == nil {
		return
	}
	if len(p.Times) != len(p.Nodes) {
		f.add("times", "got %d, want one for each of %d nodes", len(p.Times), len(p.Nodes))
		return
	}
	seen := map[float64]int{}
	for k, t := range p.Times {
		if math.IsNaN(t) || math.IsInf(t, 0) {
			f.add("times", "time %d is %v, want a finite number", k, t)
		}
		if other, twice := seen[t]; twice {
			f.add("times", "nodes %d and %d are both at %v, want different times", other, k, t)
		}
		seen[t] = k
	}
}

// tree checks that the edges make a tree, and reports which of them join two
// nodes that exist.
func (t *task) tree(p Problem, f *faults) (ends []bool) {
	ends = make([]bool, len(p.Edges))
	if len(p.Edges) == 0 {
		f.add("edges", "there are none, want a tree over %d nodes", len(p.Nodes))
		return ends
	}
	root := make([]int, len(p.Nodes)) // the component of a node, as a forest of sets
	for k := range root {
		root[k] = k
	}
	find := func(k int) int {
		for root[k] != k {
			k = root[k]
		}
		return k
	}
	seen := map[[2]int]int{}
	t.near = make([][]int, len(p.Nodes))
	for e, edge := range p.Edges {
		i, j := min(edge.I, edge.J), max(edge.I, edge.J)
		where := fmt.Sprintf("edge %d", e)
		t.edges[e].i, t.edges[e].j, t.edges[e].weight = edge.I, edge.J, edge.Weight
		if edge.Weight == 0 {
			t.edges[e].weight = 1
		} else if !(edge.Weight > 0) || math.IsInf(edge.Weight, 0) {
			f.add(where, "its weight is %v, want a finite number above 0 (0 means 1)", edge.Weight)
		}
		if i < 0 || j >= len(p.Nodes) {
			f.add(where, "it joins nodes %d and %d, want nodes from 0 to %d", edge.I, edge.J, len(p.Nodes)-1)
			continue
		}
		if i == j {
			f.add(where, "it joins node %d to itself", i)
			continue
		}
		ends[e] = true
		if first, twice := seen[[2]int{i, j}]; twice {
			f.add(where, "it joins nodes %d and %d as edge %d does", edge.I, edge.J, first)
			continue
		}
		seen[[2]int{i, j}] = e
		if a, b := find(i), find(j); a == b {
			f.add(where, "it closes a cycle, nodes %d and %d being connected without it; want a tree", edge.I, edge.J)
		} else {
			root[max(a, b)] = min(a, b)
		}
		t.near[i] = append(t.near[i], e)
		t.near[j] = append(t.near[j], e)
	}
	for k := 1; k < len(p.Nodes); k++ {
		if find(k) != 0 {
			f.add(fmt.Sprintf("node %d", k), "no path of edges joins it to node 0")
		}
	}
	return ends
}

// points checks the points of a node and finds how many it has, as far as the
// node itself says so.
func (t *task) points(p Problem, k int, f *faults) bool {
	where := fmt.Sprintf("node %d", k)
	x, d := p.Nodes[k].X, p.Dim
	if x == nil {
		t.nodes[k].n = len(p.Nodes[k].Weights)
		return true
	}
	if d < 1 || len(x) == 0 || len(x)%d != 0 {
		f.add(where, "it has %d coordinates, want points of dimension %d", len(x), d)
		t.nodes[k].n = len(p.Nodes[k].Weights)
		return false
	}
	t.nodes[k].n = len(x) / d
	for i, v := range x {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			f.add(where, "point %d, coordinate %d is %v, want a finite number", i/d, i%d, v)
			return false
		}
	}
	return true
}

// geometry finds the geometry of an edge.
func (t *task) geometry(p Problem, e int, good []bool, f *faults) {
	where := fmt.Sprintf("edge %d", e)
	edge := p.Edges[e]
	if edge.Geometry == nil {
		x, y := p.Nodes[edge.I].X, p.Nodes[edge.J].X
		for _, k := range []int{edge.I, edge.J} {
			if p.Nodes[k].X == nil && good[k] {
				f.add(where, "node %d has no points, want points or a geometry", k)
				good[k] = false
			}
		}
		if !good[edge.I] || !good[edge.J] {
			return
		}
		g, err := geometry.NewPoints(x, y, p.Dim, edge.Cost)
		if err != nil {
			*f = append(*f, fmt.Errorf("multimarginal: %s: %w", where, err))
			return
		}
		t.edges[e].geom = g
		return
	}
	if err := edge.Geometry.Validate(); err != nil {
		*f = append(*f, fmt.Errorf("multimarginal: %s: %w", where, err))
		return
	}
	t.edges[e].geom = edge.Geometry
	n, m := edge.Geometry.Size()
	for _, end := range []struct{ k, n int }{{edge.I, n}, {edge.J, m}} {
		at := &t.nodes[end.k].n
		if *at == 0 {
			*at = end.n
		} else if *at != end.n {
			f.add(where, "its geometry has %d points for node %d, want %d", end.n, end.k, *at)
		}
	}
}

// weights checks the weights and the penalties and fills in their defaults.
func (t *task) weights(p Problem, f *faults) {
	first, free := -1, 0 // the first exact node; how many are free
	for k, in := range p.Nodes {
		where, out := fmt.Sprintf("node %d", k), &t.nodes[k]
		out.free, out.rho = in.Free, in.Rho
		if in.Rho == 0 {
			out.rho = math.Inf(1)
		}
		switch {
		case !(in.Rho >= 0):
			f.add(where, "its penalty rho is %v, want 0 (exact) or above", in.Rho)
		case in.Free && in.Rho > 0:
			f.add(where, "it is free, and has a penalty rho of %v, want one of both", in.Rho)
		}
		if in.Free {
			free++
		}
		if !out.weigh(in.Weights, where, f) || !out.exact() {
			continue
		}
		if first < 0 {
			first = k
		} else if want := t.nodes[first].mass; !(math.Abs(out.mass-want) <= 1e-6*want) {
			f.add(where, "its mass is %v, that of node %d is %v; exact marginals need equal ones, or a penalty rho", out.mass, first, want)
		} else {
			// Six digits were asked for; the plan wants them all.
			c := want / out.mass
			for i := range out.a {
				out.a[i] *= c
			}
			out.mass = want
		}
	}
	if len(p.Nodes) > 0 && free == len(p.Nodes) {
		f.add("nodes", "all of them are free, want a marginal of at least one")
	}
	t.outer = 1
	for k := range t.nodes {
		t.outer *= t.nodes[k].mass
		t.nodes[k].loga = measure.Logs(t.nodes[k].a)
	}
	if len(*f) == 0 && (math.IsInf(t.outer, 0) || t.outer == 0) {
		f.add("weights", "the product of the %d masses is %v, want weights of a smaller or larger scale", len(p.Nodes), t.outer)
	}
	for k := range t.nodes {
		if !t.nodes[k].free {
			t.mass = t.nodes[k].mass
			break
		}
	}
	if first >= 0 {
		t.mass = t.nodes[first].mass
	}
}

// weigh sets the weights of a node, uniform where there are none.
func (n *node) weigh(w []float64, where string, f *faults) bool {
	if w == nil {
		n.a = make([]float64, n.n)
		for i := range n.a {
			n.a[i] = 1 / float64(n.n)
		}
		n.mass = 1
		return n.n > 0
	}
	if len(w) != n.n {
		f.add(where, "it has %d weights for %d points", len(w), n.n)
		return false
	}
	n.a = append([]float64{}, w...)
	for i, x := range w {
		if !(x >= 0) || math.IsInf(x, 1) {
			f.add(where, "weight %d is %v, want a finite number of at least 0", i, x)
			return false
		}
		n.mass += x
	}
	if !(n.mass > 0) || math.IsInf(n.mass, 1) {
		f.add(where, "its weights sum to %v, want a finite number above 0", n.mass)
		return false
	}
	return true
}
