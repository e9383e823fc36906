package multimarginal

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/tensor"
)

// Certificate is what holds of the plan of the returned potentials, evaluated
// in float64 over all pairs, whatever precision found them.
type Certificate struct {
	// TransportCost is <Σ_e w_e c_e, P>, and EdgeCost its part of each edge,
	// weight included.
	TransportCost float64
	EdgeCost      []float64
	// Primal is TransportCost + ε KL(P | a_1⊗…⊗a_K), plus the marginal penalties.
	Primal float64
	// Dual is the dual value of the potentials, a lower bound of the optimum.
	Dual float64
	// Gap is Primal - Dual, computed without the terms that cancel.
	Gap float64
	// Mass is ΣP.
	Mass float64
	// MarginalError is the L1 distance of the plan's marginal from the weights of
	// each node, 0 for a free one.
	MarginalError []float64
	// Residual is the L1 residual of the optimality conditions, summed over the
	// nodes that are not free and relative to the mass of the first exact one (or,
	// without any, of the first that is not free): of exact marginals that is their
	// MarginalError, with a penalty the marginal is compared with a exp(-f/ρ).
	Residual float64
}

// Evaluate returns the plan of given potentials f, a list for each node in the
// cost's unit, and its certificate. nil stands for zeros; a free node takes none.
func Evaluate(ctx context.Context, dev gpu.Device, p Problem, f [][]float64) (Plan, Certificate, error) {
	t, err := p.task(ctx)
	if err != nil {
		return Plan{}, Certificate{}, err
	}
	given := make([][]float64, len(t.nodes))
	var bad faults
	if len(f) != len(t.nodes) {
		bad.add("potentials", "got %d lists, want one for each of %d nodes", len(f), len(t.nodes))
		return Plan{}, Certificate{}, errors.Join(bad...)
	}
	for k, n := range t.nodes {
		given[k] = make([]float64, n.n)
		where := fmt.Sprintf("potential of node %d", k)
		switch {
		case f[k] == nil:
			continue
		case n.free:
			bad.add(where, "the node is free, want none")
		case len(f[k]) != n.n:
			bad.add(where, "%d numbers for %d points", len(f[k]), n.n)
		default:
			copy(given[k], f[k])
			for x, v := range f[k] {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					bad.add(where, "entry %d is %v, want a finite number", x, v)
					break
				}
			}
		}
	}
	if len(bad) > 0 {
		return Plan{}, Certificate{}, errors.Join(bad...)
	}
	b, err := t.open(dev, tensor.Float64, geometry.Options{CacheBytes: -1})
	if err != nil {
		return Plan{}, Certificate{}, err
	}
	defer b.close()
	plan, c, err := b.certify(ctx, t.plan(given))
	if err == nil && (math.IsNaN(c.Primal) || math.IsNaN(c.Dual)) {
		err = fmt.Errorf("multimarginal: potentials: %w: their plan has no finite value", solver.ErrInvalid)
	}
	return plan, c, err
}

// certify passes messages both ways along every edge, leaves to root and back.
// The potentials of points without weight, which nothing depends on, become those
// that the optimality condition gives them.
func (b *bench) certify(ctx context.Context, p Plan) (Plan, Certificate, error) {
	var (
		order = b.walk()
		sum   = make([][]float64, len(b.nodes)) // of the messages into a node
		into  = make([][]float64, 2*len(b.edges))
		c     = Certificate{EdgeCost: make([]float64, len(b.edges)), MarginalError: make([]float64, len(b.nodes))}
	)
	for k := range sum {
		sum[k] = make([]float64, b.nodes[k].n)
	}
	send := func(e, to int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, at := b.edges[e].other(to), b.slot(e, to)
		h := make([]float64, b.nodes[from].n)
		for x, f := range p.F[from] {
			h[x] = f - sum[from][x]
			if back := into[at^1]; back != nil {
				h[x] += back[x]
			}
		}
		p.cavity[at^1] = h
		into[at] = make([]float64, b.nodes[to].n)
		if err := b.message(into[at], e, to, h, b.eps, false); err != nil {
			return err
		}
		for x, m := range into[at] {
			sum[to][x] += m
		}
		return nil
	}
	for i := len(order) - 1; i >= 0; i-- {
		if err := send(order[i].edge, order[i].parent); err != nil {
			return p, c, err
		}
	}
	for _, s := range order {
		if err := send(s.edge, s.child); err != nil {
			return p, c, err
		}
	}
	if err := b.edgeCosts(&c, p, sum, into); err != nil {
		return p, c, err
	}
	b.values(&c, p, sum)
	return p, c, nil
}

// step is an edge on the way from node 0 to the leaves.
type step struct{ edge, parent, child int }

// walk lists the edges, each after the one that leads to it from node 0.
func (t *task) walk() []step {
	steps := make([]step, 0, len(t.edges))
	from := make([]int, len(t.nodes))
	from[0] = -1
	queue := []int{0}
	for len(queue) > 0 {
		k := queue[0]
		queue = queue[1:]
		for _, e := range t.near[k] {
			if e == from[k] {
				continue
			}
			c := t.edges[e].other(k)
			from[c] = e
			queue = append(queue, c)
			steps = append(steps, step{e, k, c})
		}
	}
	return steps
}

// edgeCosts fills in the marginals of the plan and its cost along every edge:
// the mean cost of a row's conditional law, weighted by the marginal.
func (b *bench) edgeCosts(c *Certificate, p Plan, sum, into [][]float64) error {
	for k := range b.nodes {
		damp := b.nodes[k].damp(b.eps)
		for x, a := range b.nodes[k].a {
			if a == 0 {
				p.F[k][x] = damp * sum[k][x]
				continue
			}
			p.Marginals[k][x] = a * math.Exp((p.F[k][x]-sum[k][x])/b.eps)
		}
	}
	for e := range b.edges {
		edge := &b.edges[e]
		i, j, w := edge.i, edge.j, edge.weight
		op, err := b.operator(e, i, false)
		if err != nil {
			return err
		}
		h := p.cavity[b.slot(e, j)]
		shift := middle(h, b.nodes[j].a)
		if err := b.give(j, h, shift, w); err != nil {
			return err
		}
		rows := b.host[i]
		for x, m := range into[b.slot(e, i)] {
			rows[x] = (m + shift) / w
		}
		if err := tensor.SetFloat64s(b.given[i], rows); err != nil {
			return err
		}
		err = op.Apply(geometry.Apply{F: b.given[i], G: b.given[j], LogB: b.logw[j], Mean: b.found[i]}, b.eps/w)
		if err != nil {
			return err
		}
		mean := b.back[i]
		if err := tensor.GetFloat64s(b.found[i], mean); err != nil {
			return err
		}
		for x, q := range p.Marginals[i] {
			if q > 0 {
				c.EdgeCost[e] += w * q * mean[x]
			}
		}
		c.TransportCost += c.EdgeCost[e]
	}
	return nil
}

// values fills in what follows from the marginals.
func (t *task) values(c *Certificate, p Plan, sum [][]float64) {
	potential, penalties, linear := 0.0, 0.0, 0.0
	for k := range t.nodes {
		node, marginal := &t.nodes[k], p.Marginals[k]
		if k == 0 {
			for _, q := range marginal {
				c.Mass += q
			}
		}
		if node.free {
			continue
		}
		lost, off, pay := 0.0, 0.0, 0.0
		for x, a := range node.a {
			if a == 0 {
				continue
			}
			q, f := marginal[x], p.F[k][x]
			off += math.Abs(q - a)
			lost += math.Abs(q - node.wanted(x, f))
			potential += q * f
			if node.exact() {
				linear += a * f
				c.Gap += (q - a) * f
				continue
			}
			// KL of a_k exp z, which is what the marginal is, from a_k.
			z := (f - sum[k][x]) / t.eps
			fine := node.rho * (q*z - a*math.Expm1(z))
			gain := -node.rho * a * math.Expm1(-f/node.rho)
			pay += fine
			linear += gain
			c.Gap += q*f + fine - gain
		}
		c.MarginalError[k] = off
		c.Residual += lost / t.mass
		penalties += pay
	}
	c.Primal = potential - t.eps*(c.Mass-t.outer) + penalties
	c.Dual = linear - t.eps*(c.Mass-t.outer)
}
