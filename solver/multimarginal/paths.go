package multimarginal

import (
	"context"
	"fmt"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/draw"
	"github.com/fortet/fortet/solver/geometry"
)

// Paths draws n paths of the bridge through all marginals at ascending times
// between the first and the last of the nodes' (Problem.Times): tuples from the
// plan, joined by Brownian bridges of the variance that belongs to each edge's
// cost, which is |x-y|² or |x-y|²/2. The edges must form the chain of the nodes in
// the order of their times. The result is (n, len(times), dim), row-major. At the
// time of a node a path is at the point drawn there. Path s is a function of the
// plan, the times, the seed and s alone.
func (p Plan) Paths(ctx context.Context, n int, times []float64, seed uint64) ([]float64, error) {
	if err := p.solved(); err != nil {
		return nil, err
	}
	c, err := p.task.chain(times)
	if err != nil {
		return nil, err
	}
	tuples, err := p.Sample(ctx, n, seed)
	if err != nil {
		return nil, err
	}
	k, d, steps := len(p.Weights), c.d, len(times)
	out := make([]float64, n*steps*d)
	noise := make([]float64, n*d)
	for q, t := range times {
		if err := philox.HostNormal(noise, d, philox.Draw{Seed: seed, Step: uint32(q), Purpose: drawPath}); err != nil {
			return nil, err
		}
		link := c.at(t)
		err := parallel.Each(ctx, 0, n, func(s int) {
			x, y := link.from.point(tuples[s*k+link.from.node], d), link.to.point(tuples[s*k+link.to.node], d)
			last := link.from.time
			if q > 0 && times[q-1] > last { // go on from where the path is
				last = times[q-1]
				x = out[(s*steps+q-1)*d : (s*steps+q)*d]
			}
			to := out[(s*steps+q)*d : (s*steps+q+1)*d]
			draw.Bridge(to, x, y, noise[s*d:(s+1)*d], last, t, link.to.time, link.rate)
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// At draws n points of the bridge's law at one time, (n, dim): those of its paths.
func (p Plan) At(ctx context.Context, n int, t float64, seed uint64) ([]float64, error) {
	return p.Paths(ctx, n, []float64{t}, seed)
}

// ValidatePaths reports why Plan.Paths has none at these times, as it does itself:
// so that one can know before the problem is solved.
func (p Problem) ValidatePaths(times []float64) error {
	t, err := p.graph()
	if err != nil {
		return err
	}
	t.eps = p.Epsilon
	_, err = t.chain(times)
	return err
}

// chain is a plan whose nodes follow each other in time.
type chain struct {
	d     int
	links []link
}

// link joins two nodes that follow each other; rate is the variance of its
// reference per unit of time.
type link struct {
	from, to stop
	rate     float64
}

type stop struct {
	node int
	time float64
	x    []float64
}

func (s stop) point(i, d int) []float64 { return s.x[i*d : (i+1)*d] }

// chain checks that there are paths at the times asked for.
func (t *task) chain(times []float64) (chain, error) {
	var c chain
	bad := func(format string, v ...any) error {
		return fmt.Errorf("multimarginal: plan: paths: %w: %s", solver.ErrInvalid, fmt.Sprintf(format, v...))
	}
	at := t.times
	if at == nil {
		at = make([]float64, len(t.nodes))
		for k := range at {
			at[k] = float64(k)
		}
	}
	after := map[int]link{} // by the earlier node
	first := 0
	for k, time := range at {
		if time < at[first] {
			first = k
		}
	}
	for e := range t.edges {
		edge := &t.edges[e]
		g, ok := geometry.Whole(edge.geom).(geometry.Points)
		rate, brownian := edge.geom.Cost().BrownianVariance(t.eps / edge.weight)
		if !ok || !brownian {
			return c, bad("edge %d: cost %v belongs to no Brownian motion, want sqeuclidean or halfsqeuclidean", e, edge.geom.Cost())
		}
		from, to := stop{edge.i, at[edge.i], g.X}, stop{edge.j, at[edge.j], g.Y}
		if from.time > to.time {
			from, to = to, from
		}
		for k, time := range at {
			if time > from.time && time < to.time {
				return c, bad("edge %d joins nodes %d and %d, but node %d is between them in time; want a chain", e, edge.i, edge.j, k)
			}
		}
		after[from.node] = link{from, to, rate / (to.time - from.time)}
		c.d = g.D
	}
	// A tree all of whose edges join neighbours in time is their chain.
	for k := first; len(c.links) < len(t.edges); k = after[k].to.node {
		c.links = append(c.links, after[k])
	}
	low, high := c.links[0].from.time, c.links[len(c.links)-1].to.time
	if len(times) == 0 {
		return c, bad("no times")
	}
	for i, time := range times {
		if !(time >= low && time <= high) || i > 0 && time < times[i-1] {
			return c, bad("time %d is %v, want ascending times from %v to %v", i, time, low, high)
		}
	}
	return c, nil
}

// at is the link that time t belongs to.
func (c chain) at(t float64) link {
	for _, l := range c.links {
		if t <= l.to.time {
			return l
		}
	}
	return c.links[len(c.links)-1]
}
