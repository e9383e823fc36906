package main

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/solver"
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
