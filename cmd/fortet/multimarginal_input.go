package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/multimarginal"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// read puts the problem together from the flags and the files that they name.
func (c *multimarginalRun) read(s *session) error {
	total := len(c.marginals) + len(c.free)
	if len(c.marginals) == 0 || total < 2 {
		return usagef("--marginal: got %d data sets and %d free nodes, want two nodes or more", len(c.marginals), len(c.free))
	}
	free, err := assigned(c.free, "free", total, func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return 0, fmt.Errorf("got %q points, want a number above 0", text)
		}
		return n, nil
	})
	if err != nil {
		return err
	}
	p := &c.problem
	p.Nodes, p.Times, p.Epsilon = make([]multimarginal.Node, total), c.times, c.epsilon
	if p.Scale, err = parse("epsilon-scale", c.scale, sinkhorn.Absolute, sinkhorn.Mean, sinkhorn.Std); err != nil {
		return err
	}
	if err := c.load(s, free); err != nil {
		return err
	}
	files, err := assigned(c.weights, "marginal-weights", total, func(text string) (string, error) { return text, nil })
	if err != nil {
		return err
	}
	for k, path := range files {
		if p.Nodes[k].Weights, err = readWeights("marginal-weights", path, c.clouds[k].N); err != nil {
			return err
		}
	}
	rho, err := assigned(c.rho, "rho", total, func(text string) (float64, error) {
		r, err := strconv.ParseFloat(text, 64)
		if err != nil || !(r > 0) {
			return 0, fmt.Errorf("got %q, want a number above 0 (inf is exact)", text)
		}
		return r, nil
	})
	if err != nil {
		return err
	}
	for k, r := range rho {
		p.Nodes[k].Rho = r
	}
	if err := c.tree(); err != nil {
		return err
	}
	return p.Validate()
}

// assigned reads flags of the form i=value, i a node.
func assigned[T any](texts []string, flag string, nodes int, read func(string) (T, error)) (map[int]T, error) {
	out := map[int]T{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		k, err := strconv.Atoi(name)
		if !ok || err != nil {
			return nil, usagef("--%s: got %q, want the form i=value, i the number of a node", flag, text)
		}
		if k < 0 || k >= nodes {
			return nil, usagef("--%s: got node %d, want 0 to %d", flag, k, nodes-1)
		}
		if _, twice := out[k]; twice {
			return nil, usagef("--%s: node %d is given twice", flag, k)
		}
		if out[k], err = read(value); err != nil {
			return nil, usagef("--%s: node %d: %v", flag, k, err)
		}
	}
	return out, nil
}

// load reads the data sets and draws the points of the free nodes.
func (c *multimarginalRun) load(s *session, free map[int]int) error {
	total := len(c.problem.Nodes)
	c.clouds, c.labels = make([]dataset.Points, total), make([]string, total)
	next, firstSet := 0, -1
	var pool []float64
	for k := range total {
		if _, ok := free[k]; ok {
			continue
		}
		uri := c.marginals[next]
		next++
		points, err := load("marginal", uri)
		if err != nil {
			return err
		}
		if firstSet < 0 {
			firstSet = k
		} else if want := c.clouds[firstSet].D; points.D != want {
			return usagef("--marginal: %s has dimension %d, want %d as %s", uri, points.D, want, c.labels[firstSet])
		}
		c.clouds[k], c.labels[k] = points, uri
		pool = append(pool, points.X...)
	}
	d := c.clouds[firstSet].D
	for k := range total {
		n, ok := free[k]
		if !ok {
			continue
		}
		if n > len(pool)/d {
			return usagef("--free: node %d: got %d points, want at most the %d of all data sets", k, n, len(pool)/d)
		}
		x, err := drawnFrom(pool, d, n, s.seed, uint32(k))
		if err != nil {
			return err
		}
		c.clouds[k], c.labels[k] = dataset.Points{N: n, D: d, X: x, Image: c.clouds[firstSet].Image}, fmt.Sprintf("free node %d", k)
		c.problem.Nodes[k].Free = true
	}
	c.problem.Dim = d
	for k := range total {
		c.problem.Nodes[k].X = c.clouds[k].X
	}
	return nil
}

// drawnFrom draws n different points of a pool: those with the smallest of their
// uniforms.
func drawnFrom(pool []float64, d, n int, seed uint64, node uint32) ([]float64, error) {
	u := make([]float64, len(pool)/d)
	if err := philox.HostUniform(u, 1, philox.Draw{Seed: seed, Step: node, Purpose: drawSupport}); err != nil {
		return nil, err
	}
	order := make([]int, len(u))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(u[a], u[b]) })
	x := make([]float64, 0, n*d)
	for _, i := range order[:n] {
		x = append(x, pool[i*d:(i+1)*d]...)
	}
	return x, nil
}

// drawSupport keeps the draws of free nodes' points apart from those of plans with
// the same seed.
const drawSupport = 16

// tree reads the edges, or makes the chain of the times.
func (c *multimarginalRun) tree() error {
	p := &c.problem
	cost, err := parse("cost", c.cost, geometry.SqEuclidean, geometry.HalfSqEuclidean, geometry.Euclidean, geometry.Cosine)
	if err != nil {
		return err
	}
	if c.times != nil && len(c.times) != len(p.Nodes) {
		return usagef("--times: got %d, want one for each of the %d nodes", len(c.times), len(p.Nodes))
	}
	for _, text := range c.edges {
		fields := strings.Split(text, ",")
		if len(fields) != 2 && len(fields) != 3 {
			return usagef("--edge: got %q, want i,j or i,j,weight", text)
		}
		edge := multimarginal.Edge{Cost: cost, Weight: 1}
		var errI, errJ, errW error
		edge.I, errI = strconv.Atoi(fields[0])
		edge.J, errJ = strconv.Atoi(fields[1])
		if len(fields) == 3 {
			edge.Weight, errW = strconv.ParseFloat(fields[2], 64)
		}
		if errI != nil || errJ != nil || errW != nil || !(edge.Weight > 0) {
			return usagef("--edge: got %q, want two nodes and a weight above 0", text)
		}
		p.Edges = append(p.Edges, edge)
	}
	if len(c.edges) > 0 {
		return nil
	}
	if c.times == nil {
		return usagef("--edge is missing, want a tree over %d nodes, or --times", len(p.Nodes))
	}
	// ε is the variance of the Brownian motion, whichever of both costs is meant.
	if _, ok := cost.BrownianVariance(1); !ok {
		return usagef("--cost: %v belongs to no Brownian motion, want sqeuclidean or halfsqeuclidean, or --edge beside --times", cost)
	}
	order := make([]int, len(p.Nodes))
	for k := range order {
		order[k] = k
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(c.times[a], c.times[b]) })
	for i := 1; i < len(order); i++ {
		gap := c.times[order[i]] - c.times[order[i-1]]
		if !(gap > 0) || math.IsInf(gap, 0) {
			return usagef("--times: got %v, want different finite times", c.times)
		}
		p.Edges = append(p.Edges, multimarginal.Edge{I: order[i-1], J: order[i], Cost: geometry.HalfSqEuclidean, Weight: 1 / gap})
	}
	return nil
}
