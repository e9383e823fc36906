package multimarginal

import (
	"context"
	"fmt"
	"math"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// task is a validated problem with its defaults filled in.
type task struct {
	nodes []node
	edges []edge
	near  [][]int // edges of each node
	times []float64
	eps   float64
	mass  float64 // that residuals are relative to
	outer float64 // mass of the product of the weights
}

type node struct {
	n       int
	a, loga []float64
	mass    float64
	rho     float64 // +Inf: exact, unless free
	free    bool
}

// exact says that the marginal is prescribed.
func (n *node) exact() bool { return !n.free && math.IsInf(n.rho, 1) }

// damp is the factor of an update: f = damp Σ m.
func (n *node) damp(eps float64) float64 {
	switch {
	case n.free:
		return 0
	case math.IsInf(n.rho, 1):
		return 1
	}
	return n.rho / (n.rho + eps)
}

// wanted is the marginal that the optimality condition asks for where the
// potential is f.
func (n *node) wanted(x int, f float64) float64 {
	if math.IsInf(n.rho, 1) {
		return n.a[x]
	}
	return n.a[x] * math.Exp(-f/n.rho)
}

type edge struct {
	i, j   int
	weight float64
	geom   geometry.Geometry
	mean   float64 // of the weighted cost
}

// other is the end of the edge that is not k.
func (e *edge) other(k int) int { return e.i + e.j - k }

// task checks the problem and finds the absolute ε.
func (p Problem) task(ctx context.Context) (*task, error) {
	t, err := p.graph()
	if err != nil {
		return nil, err
	}
	sum := 0.0
	for k := range t.edges {
		e := &t.edges[k]
		mean, err := e.geom.Mean(ctx, t.nodes[e.i].a, t.nodes[e.j].a)
		if err != nil {
			return nil, fmt.Errorf("multimarginal: edge %d: %w", k, err)
		}
		e.mean = e.weight * mean
		sum += e.mean
	}
	t.eps = p.Epsilon
	switch p.Scale {
	case sinkhorn.Mean:
		t.eps *= sum
	case sinkhorn.Std:
		std, err := t.std(ctx)
		if err != nil {
			return nil, err
		}
		t.eps *= std
	}
	if !(t.eps > 0) || math.IsInf(t.eps, 0) {
		return nil, fmt.Errorf("multimarginal: epsilon scale %v: %w: epsilon becomes %v because the costs do not vary; use an absolute epsilon", p.Scale, solver.ErrInvalid, t.eps)
	}
	return t, nil
}

// std is the standard deviation of the summed cost under the product of the
// weights. The costs of two edges that share a node depend on each other through
// it alone, so that with u_e the mean of an edge's cost given the point of node k,
//
//	Var Σ c_e = Σ_e Var c_e + Σ_k (Var Σ_{e∋k} u_e - Σ_{e∋k} Var u_e)
func (t *task) std(ctx context.Context) (float64, error) {
	variance := 0.0
	for k := range t.edges {
		e := &t.edges[k]
		std, err := e.geom.Std(ctx, t.nodes[e.i].a, t.nodes[e.j].a)
		if err != nil {
			return 0, err
		}
		variance += e.weight * e.weight * std * std
	}
	for k, near := range t.near {
		if len(near) < 2 {
			continue
		}
		node := &t.nodes[k]
		sum := make([]float64, node.n)
		for _, at := range near {
			u, err := t.conditional(ctx, at, k)
			if err != nil {
				return 0, err
			}
			for x := range u {
				u[x] *= t.edges[at].weight
				sum[x] += u[x]
			}
			variance -= varianceOf(u, node.a, node.mass)
		}
		variance += varianceOf(sum, node.a, node.mass)
	}
	return math.Sqrt(max(variance, 0)), nil
}

// conditional is the mean of the cost of edge e given each point of node k.
func (t *task) conditional(ctx context.Context, e, k int) ([]float64, error) {
	g := t.edges[e].geom
	if t.edges[e].j == k {
		g = g.Transpose()
	}
	n, m := g.Size()
	other := &t.nodes[t.edges[e].other(k)]
	u := make([]float64, n)
	if p, ok := geometry.Whole(g).(geometry.Points); ok && (p.Ground == geometry.SqEuclidean || p.Ground == geometry.HalfSqEuclidean) {
		squaredMeans(u, p, other)
		return u, nil
	}
	err := parallel.Each(ctx, 0, n, func(i int) {
		row := make([]float64, m)
		g.Row(i, row)
		for j, c := range row {
			u[i] += other.a[j] / other.mass * c
		}
	})
	return u, err
}

// squaredMeans is E|x - Y|² = |x - EY|² + E|Y - EY|², or half of it, for all x.
func squaredMeans(u []float64, p geometry.Points, target *node) {
	center, spread := make([]float64, p.D), 0.0
	for j := range p.M {
		for q := range p.D {
			center[q] += target.a[j] / target.mass * p.Y[j*p.D+q]
		}
	}
	square := func(v []float64) (s float64) {
		for q, c := range center {
			s += (v[q] - c) * (v[q] - c)
		}
		return s
	}
	for j := range p.M {
		spread += target.a[j] / target.mass * square(p.Y[j*p.D:])
	}
	scale := 1.0
	if p.Ground == geometry.HalfSqEuclidean {
		scale = 0.5
	}
	for i := range u {
		u[i] = scale * (square(p.X[i*p.D:]) + spread)
	}
}

func varianceOf(v, w []float64, mass float64) float64 {
	mean, s := 0.0, 0.0
	for i, x := range v {
		mean += w[i] / mass * x
	}
	for i, x := range v {
		s += w[i] / mass * (x - mean) * (x - mean)
	}
	return s
}
