package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/multimarginal"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor/npy"
)

var multimarginalCommand = command{
	name:    "multimarginal",
	does:    "Solve a bridge between many data sets, with costs on the edges of a tree",
	usage:   "fortet multimarginal --marginal URI --marginal URI … --edge i,j[,weight] … --epsilon E [flags]\n  fortet multimarginal --marginal URI --marginal URI … --times t0,t1,… --epsilon VARIANCE [flags]",
	example: "fortet multimarginal --marginal '8gaussians?n=500' --marginal 'moons?n=400' --marginal 'swissroll?n=300' --times 0,1,2.5 --epsilon 0.5 --paths 100 --paths-out paths.npy --plot paths.png",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &multimarginalRun{flags: f}
		f.StringArrayVar(&c.marginals, "marginal", nil, "data set of a node, as fortet data --help lists them; give one for each node")
		f.StringArrayVar(&c.edges, "edge", nil, "i,j or i,j,weight: a cost between two nodes, which count from 0; together they make a tree")
		f.StringArrayVar(&c.weights, "marginal-weights", nil, "i=F.npy: weights of node i; uniform without")
		f.StringArrayVar(&c.free, "free", nil, "i=N: node i is a barycentre on N points drawn by the seed from the pooled data sets, which take the other numbers in their order")
		f.StringArrayVar(&c.rho, "rho", nil, "i=R: KL penalty in place of the exact marginal of node i")
		f.StringVar(&c.cost, "cost", "sqeuclidean", "sqeuclidean, halfsqeuclidean, euclidean or cosine, on every edge")
		f.Float64Var(&c.epsilon, "epsilon", 0, "strength of the entropy, above 0; with --times and without --edge, the reference's variance per unit of time")
		f.StringVar(&c.scale, "epsilon-scale", "absolute", "unit of --epsilon: absolute, mean or std (of the summed cost)")
		f.Float64SliceVar(&c.times, "times", nil, "t0,t1,…: time of each node; without --edge, nodes that follow each other are joined with the cost |x-y|²/(2Δt)")
		f.Float64Var(&c.tol, "tol", 1e-6, "L1 marginal residual to reach, summed over the nodes, relative to the mass")
		f.IntVar(&c.maxIter, "max-iter", 10000, "sweeps at most")
		f.StringVar(&c.acceleration, "acceleration", "auto", "auto, none or anderson")
		f.StringVar(&c.potentials, "potentials", "", "write f0, f1, …, w0, w1, … and epsilon to this .npz, and of a free node i its points xi and their marginal pi")
		f.IntVar(&c.couplings, "couplings", 0, "number of tuples to draw from the plan")
		f.StringVar(&c.couplingsOut, "couplings-out", "", "write their indices, (N, nodes), to this .npy")
		f.IntVar(&c.paths, "paths", 0, "number of paths to draw through all nodes, which must be a chain in time")
		f.Float64SliceVar(&c.pathsTimes, "paths-times", nil, "times of the paths; 11 of equal distance without")
		f.StringVar(&c.pathsOut, "paths-out", "", "write the paths, (N, T, d), to this .npy")
		f.StringVar(&c.plot, "plot", "", "draw the paths, or without --paths the data sets and drawn tuples, to this .png or .svg")
		return c.do
	},
}

type multimarginalRun struct {
	marginals, edges, weights, free, rho []string
	cost, scale, acceleration            string
	epsilon, tol                         float64
	maxIter, couplings, paths            int
	times, pathsTimes                    []float64
	potentials, couplingsOut, pathsOut   string
	plot                                 string
	format                               plot.Format
	flags                                *pflag.FlagSet

	problem multimarginal.Problem
	clouds  []dataset.Points // of the nodes
	labels  []string
}

type nodeReport struct {
	N    int    `json:"n"`
	Free bool   `json:"free,omitempty"`
	Rho  number `json:"rho,omitempty"`
}

type edgeReport struct {
	I      int    `json:"i"`
	J      int    `json:"j"`
	Weight number `json:"weight"`
	Cost   number `json:"transport_cost"` // the edge's part, weight included
}

type treeReport struct {
	Nodes        []nodeReport `json:"nodes"`
	Edges        []edgeReport `json:"edges"`
	D            int          `json:"d"`
	Cost         string       `json:"cost"`
	Epsilon      number       `json:"epsilon"` // absolute
	EpsilonScale string       `json:"epsilon_scale"`
	DType        string       `json:"dtype"` // of the last iterations
	Device       string       `json:"device"`
}

type partReport struct {
	Edges []int `json:"edges"`
	stageReport
}

type multimarginalReport struct {
	Problem       treeReport   `json:"problem"`
	Status        string       `json:"status"`
	Iterations    int          `json:"iterations"`
	Seconds       number       `json:"seconds"`
	TransportCost number       `json:"transport_cost"`
	Primal        number       `json:"primal"`
	Dual          number       `json:"dual"`
	Gap           number       `json:"gap"`
	Mass          number       `json:"mass"`
	MarginalError []number     `json:"marginal_error"`
	Residual      number       `json:"residual"`
	Stages        []partReport `json:"stages"`
}

func (c *multimarginalRun) report(dev gpu.Device, r *multimarginal.Result) multimarginalReport {
	p, cert := c.problem, r.Certificate
	out := multimarginalReport{
		Problem: treeReport{
			D: p.Dim, Cost: p.Edges[0].Cost.String(), Epsilon: number(r.Plan.Epsilon), EpsilonScale: c.scale, Device: dev.Name(),
		},
		Status: r.Status.String(), Iterations: r.Iterations, Seconds: number(r.Duration.Seconds()),
		TransportCost: number(cert.TransportCost), Primal: number(cert.Primal), Dual: number(cert.Dual), Gap: number(cert.Gap),
		Mass: number(cert.Mass), MarginalError: numbers(cert.MarginalError), Residual: number(cert.Residual),
	}
	for k, node := range p.Nodes {
		out.Problem.Nodes = append(out.Problem.Nodes, nodeReport{c.clouds[k].N, node.Free, number(node.Rho)})
	}
	for e, edge := range p.Edges {
		report := edgeReport{I: edge.I, J: edge.J, Weight: number(edge.Weight)}
		if cert.EdgeCost != nil {
			report.Cost = number(cert.EdgeCost[e])
		}
		out.Problem.Edges = append(out.Problem.Edges, report)
	}
	for _, s := range r.Stages {
		out.Problem.DType = s.DType.String()
		out.Stages = append(out.Stages, partReport{s.Edges, stageReport{number(s.Epsilon), s.DType.String(), s.Cached, s.Iterations, number(s.Error)}})
	}
	return out
}

func (c *multimarginalRun) do(s *session, args []string) error {
	if len(args) > 0 {
		return usagef("multimarginal: unexpected argument %q", args[0])
	}
	settings, err := c.settings(s)
	if err != nil {
		return err
	}
	if err := c.read(s); err != nil {
		return err
	}
	if err := c.outputsFit(); err != nil {
		return err
	}
	var out outputs
	defer out.close()
	for _, f := range [][2]string{{"potentials", c.potentials}, {"couplings-out", c.couplingsOut}, {"paths-out", c.pathsOut}, {"plot", c.plot}} {
		if err := out.add(f[0], f[1]); err != nil {
			return err
		}
	}
	dev, err := s.open()
	if err != nil {
		return err
	}
	bar := s.progress("multimarginal")
	first := 0.0
	settings.Trace = func(it multimarginal.Iteration) {
		if it.N == 1 {
			first = max(it.Error, c.tol)
		}
		part := math.Log(first/max(it.Error, c.tol)) / math.Log(max(first/c.tol, 1.0001))
		bar.update((float64(it.Part)+part)/float64(it.Parts),
			fmt.Sprintf("part %d of %d, sweep %d, epsilon %.3g, residual %.2g, %v", it.Part+1, it.Parts, it.N, it.Epsilon, it.Error, it.DType))
	}
	r, err := multimarginal.Solve(s.ctx, dev, c.problem, settings)
	bar.finish()
	if err != nil {
		return err
	}
	if r.Status == solver.Canceled {
		return s.ctx.Err()
	}
	if r.Status != solver.Diverged {
		if err := c.write(s, &out, r.Plan); err != nil {
			return err
		}
	}
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	if err := s.print(c.report(dev, r)); err != nil {
		return err
	}
	return notConverged(r.Status, r.Certificate.Residual, c.tol)
}

func (c *multimarginalRun) settings(s *session) (multimarginal.Settings, error) {
	set := multimarginal.Settings{Tolerance: c.tol, MaxIterations: c.maxIter}
	switch {
	case !c.flags.Changed("epsilon"):
		return set, usagef("--epsilon is missing, want a number above 0")
	case !(c.epsilon > 0) || math.IsInf(c.epsilon, 0):
		return set, usagef("--epsilon: got %v, want a finite number above 0", c.epsilon)
	case !(c.tol > 0) || math.IsInf(c.tol, 0):
		return set, usagef("--tol: got %v, want a finite number above 0", c.tol)
	case c.maxIter < 1:
		return set, usagef("--max-iter: got %d, want at least 1", c.maxIter)
	}
	var err error
	if set.Acceleration, err = parse("acceleration", c.acceleration, sinkhorn.Auto, sinkhorn.None, sinkhorn.Anderson); err != nil {
		return set, err
	}
	switch s.dtype {
	case "f32":
		set.Precision = solver.Single
	case "f64":
		set.Precision = solver.Double
	}
	return set, nil
}

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

// outputsFit checks that what is to be written can be, before any work.
func (c *multimarginalRun) outputsFit() error {
	var err error
	switch {
	case c.couplings < 0 || c.flags.Changed("couplings") && c.couplings == 0:
		return usagef("--couplings: got %d, want at least 1", c.couplings)
	case (c.couplings > 0) != (c.couplingsOut != ""):
		return usagef("--couplings and --couplings-out belong together, want both or neither")
	case c.paths < 0 || c.flags.Changed("paths") && c.paths == 0:
		return usagef("--paths: got %d, want at least 1", c.paths)
	case c.paths > 0 && c.pathsOut == "" && c.plot == "":
		return usagef("--paths-out is missing, want a .npy to write (or --plot)")
	case c.paths == 0 && (c.pathsOut != "" || c.pathsTimes != nil):
		return usagef("--paths is missing, want how many")
	}
	if c.format, err = plotFormat(c.plot); err != nil {
		return err
	}
	if c.paths == 0 {
		return nil
	}
	if c.pathsTimes == nil {
		first, last := 0.0, float64(len(c.problem.Nodes)-1)
		if c.times != nil {
			first, last = slices.Min(c.times), slices.Max(c.times)
		}
		const equal = 11
		for i := range equal {
			c.pathsTimes = append(c.pathsTimes, first+(last-first)*float64(i)/(equal-1))
		}
		c.pathsTimes[equal-1] = last
	}
	if c.plot != "" && len(c.pathsTimes) < 2 {
		return usagef("--paths-times: got one time, want at least 2 to --plot")
	}
	return c.problem.ValidatePaths(c.pathsTimes)
}

func (c *multimarginalRun) write(s *session, out *outputs, p multimarginal.Plan) error {
	err := out.write("potentials", func(w io.Writer) error { return c.writePotentials(w, p) })
	if err != nil {
		return err
	}
	if c.couplings > 0 {
		tuples, err := p.Sample(s.ctx, c.couplings, s.seed)
		if err != nil {
			return err
		}
		indices := make([]int64, len(tuples))
		for i, x := range tuples {
			indices[i] = int64(x)
		}
		err = out.write("couplings-out", func(w io.Writer) error {
			return npy.Write(w, npy.New(indices, c.couplings, len(c.problem.Nodes)))
		})
		if err != nil {
			return err
		}
	}
	if c.paths == 0 {
		return out.write("plot", func(w io.Writer) error { return c.drawTuples(s, w, p) })
	}
	x, err := p.Paths(s.ctx, c.paths, c.pathsTimes, s.seed)
	if err != nil {
		return err
	}
	d := c.problem.Dim
	err = out.write("paths-out", func(w io.Writer) error {
		return npy.Write(w, npy.New(x, c.paths, len(c.pathsTimes), d))
	})
	if err != nil {
		return err
	}
	return out.write("plot", func(w io.Writer) error {
		ends := clouds{source: c.clouds[0], target: c.clouds[len(c.clouds)-1]}
		if c.times != nil {
			ends.source = c.clouds[slices.Index(c.times, slices.Min(c.times))]
			ends.target = c.clouds[slices.Index(c.times, slices.Max(c.times))]
		}
		return plot.Encode(w, pathFigure(x, c.paths, c.pathsTimes, ends), c.format)
	})
}

func (c *multimarginalRun) writePotentials(w io.Writer, p multimarginal.Plan) error {
	var z npy.Archive
	for k := range p.F {
		z.Set(fmt.Sprintf("f%d", k), npy.New(p.F[k], len(p.F[k])))
		z.Set(fmt.Sprintf("w%d", k), npy.New(p.Weights[k], len(p.Weights[k])))
		if c.problem.Nodes[k].Free {
			z.Set(fmt.Sprintf("x%d", k), npy.New(c.clouds[k].X, c.clouds[k].N, c.clouds[k].D))
			z.Set(fmt.Sprintf("p%d", k), npy.New(p.Marginals[k], len(p.Marginals[k])))
		}
	}
	z.Set("epsilon", npy.Scalar(p.Epsilon))
	return npy.WriteNPZ(w, &z, npy.Stored)
}

// drawTuples shows the data sets, and lines along the edges of some tuples. Of a
// free node it shows the points that the tuples drew.
func (c *multimarginalRun) drawTuples(s *session, w io.Writer, p multimarginal.Plan) error {
	k, d := len(c.problem.Nodes), c.problem.Dim
	n := max(1, shownLines/len(c.problem.Edges))
	tuples, err := p.Sample(s.ctx, n, s.seed)
	if err != nil {
		return err
	}
	fig := plot.Scatter{Title: "Tuples of the plan"}
	at := func(s, node int) []float64 { return c.clouds[node].Row(tuples[s*k+node]) }
	for node, points := range c.clouds {
		shown := cloud(c.labels[node], points)
		if c.problem.Nodes[node].Free {
			shown.X = nil
			for s := range n {
				shown.X = append(shown.X, at(s, node)...)
			}
		}
		shown.D = d
		fig.Clouds = append(fig.Clouds, shown)
	}
	for _, edge := range c.problem.Edges {
		for s := range n {
			fig.From = append(fig.From, at(s, edge.I)...)
			fig.To = append(fig.To, at(s, edge.J)...)
		}
	}
	return plot.Encode(w, fig, c.format)
}
