package multimarginal

import (
	"context"
	"fmt"
	"math"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/draw"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// Plan is a solved coupling of all nodes. Its questions are answered in float64,
// streaming over pairs.
type Plan struct {
	Weights   [][]float64 // a_k: (n_k), those of exact nodes scaled to one mass
	F         [][]float64 // potentials f_k: (n_k), in the cost's unit; zeros of a free node
	Marginals [][]float64 // P_k: (n_k)
	Epsilon   float64     // absolute

	task *task
	// cavity is, for each edge, the potentials of its two ends as if it were the
	// only one: f less the messages of all other edges. Those of end I come first.
	cavity [][]float64
}

// plan is the plan of potentials, without what certify finds.
func (t *task) plan(f [][]float64) Plan {
	p := Plan{
		Weights: make([][]float64, len(t.nodes)), F: f, Marginals: make([][]float64, len(t.nodes)), Epsilon: t.eps,
		task: t, cavity: make([][]float64, 2*len(t.edges)),
	}
	for k := range t.nodes {
		p.Weights[k] = t.nodes[k].a
		p.Marginals[k] = make([]float64, t.nodes[k].n)
	}
	return p
}

var errUnsolved = fmt.Errorf("multimarginal: plan: %w: it was not solved", solver.ErrInvalid)

// solved reports a plan that has no marginals, as of a run that was canceled.
func (p Plan) solved() error {
	if p.task == nil || p.cavity[0] == nil {
		return errUnsolved
	}
	return nil
}

// Edge is the plan of the two nodes of edge e, summed over all others:
//
//	P_ij = a_i b_j exp((F_i + G_j - c_ij)/ε_e)   with ε_e = ε/w_e
//
// where F and G hold the potentials and what the rest of the tree sends. Its
// Geometry is the edge's cost without the weight, so that its barycentric maps,
// drifts, and paths are those of the edge: over a unit of time, from node I to
// node J.
func (p Plan) Edge(e int) (sinkhorn.Plan, error) {
	if err := p.solved(); err != nil {
		return sinkhorn.Plan{}, err
	}
	if e < 0 || e >= len(p.task.edges) {
		return sinkhorn.Plan{}, fmt.Errorf("multimarginal: plan: edge: %w: got %d, want 0 to %d", solver.ErrInvalid, e, len(p.task.edges)-1)
	}
	edge := &p.task.edges[e]
	return sinkhorn.Plan{
		Geometry: edge.geom,
		A:        p.Weights[edge.i], B: p.Weights[edge.j],
		F: divided(p.cavity[2*e], edge.weight), G: divided(p.cavity[2*e+1], edge.weight),
		Epsilon: p.Epsilon / edge.weight,
	}, nil
}

func divided(v []float64, c float64) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = x / c
	}
	return w
}

// Purposes of draws: what keeps those of one seed apart from each other.
const (
	drawPoint = 1 // a column for each node
	drawPath  = 2 // the step counts times
)

// Sample draws n tuples of points from the plan, normalised to mass one: the
// result is (n, K), row-major, the index of a point for each node. They are drawn
// from node 0 outwards, each given its neighbour. Draw s is a function of the plan,
// the seed and s alone.
func (p Plan) Sample(ctx context.Context, n int, seed uint64) ([]int, error) {
	if err := p.solved(); err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, fmt.Errorf("multimarginal: plan: sample: %w: got %d draws, want at least 1", solver.ErrInvalid, n)
	}
	k := len(p.Weights)
	uniforms := make([]float64, n*k)
	if err := philox.HostUniform(uniforms, k, philox.Draw{Seed: seed, Purpose: drawPoint}); err != nil {
		return nil, err
	}
	first := append([]float64{}, p.Marginals[0]...)
	draw.Cumulate(first)
	if mass := first[len(first)-1]; !(mass > 0) || math.IsInf(mass, 1) {
		return nil, fmt.Errorf("multimarginal: plan: sample: %w: its mass is %v, want a finite number above 0", solver.ErrInvalid, mass)
	}
	out := make([]int, n*k)
	for s := range n {
		out[s*k] = draw.Pick(first, uniforms[s*k])
	}
	for _, step := range p.task.walk() {
		if err := p.extend(ctx, step, out, uniforms); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// extend draws the child of an edge given its parent, for all draws. The draws
// that share a parent's point share its row of the plan.
func (p Plan) extend(ctx context.Context, to step, out []int, uniforms []float64) error {
	k := len(p.Weights)
	edge := &p.task.edges[to.edge]
	g, h := edge.geom, p.cavity[2*to.edge+1]
	if edge.i == to.child {
		g, h = g.Transpose(), p.cavity[2*to.edge]
	}
	loga := p.task.nodes[to.child].loga
	sharing := make([][]int, len(p.Weights[to.parent]))
	for s := range len(out) / k {
		x := out[s*k+to.parent]
		sharing[x] = append(sharing[x], s)
	}
	return parallel.Each(ctx, 0, len(sharing), func(x int) {
		if len(sharing[x]) == 0 {
			return
		}
		row := make([]float64, len(loga))
		g.Row(x, row)
		top := math.Inf(-1)
		for y, c := range row {
			row[y] = loga[y] + (h[y]-edge.weight*c)/p.Epsilon
			top = max(top, row[y])
		}
		for y, z := range row {
			row[y] = math.Exp(z - top)
		}
		draw.Cumulate(row)
		for _, s := range sharing[x] {
			out[s*k+to.child] = draw.Pick(row, uniforms[s*k+to.child])
		}
	})
}
