package main

import (
	"fmt"
	"math"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/divergences"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor/npy"
)

// problemFlags are the flags that solve and divergence share.
type problemFlags struct {
	source, target               string
	sourceWeights, targetWeights string
	cost, costMatrix             string
	epsilon                      float64
	scale                        string
	rhoSource, rhoTarget         float64
	penalty                      string
	penaltySource, penaltyTarget string
	divergence, problem          string
	tol                          float64
	maxIter                      int
	acceleration                 string
	sharing
	flags *pflag.FlagSet
}

func (p *problemFlags) declare(f *pflag.FlagSet) {
	p.flags = f
	f.StringVar(&p.source, "source", "", "data set of the source (see below)")
	f.StringVar(&p.target, "target", "", "data set of the target")
	f.StringVar(&p.sourceWeights, "source-weights", "", ".npy of the source's weights; uniform without")
	f.StringVar(&p.targetWeights, "target-weights", "", ".npy of the target's weights")
	f.StringVar(&p.cost, "cost", "sqeuclidean", "sqeuclidean, halfsqeuclidean, euclidean or cosine")
	f.StringVar(&p.costMatrix, "cost-matrix", "", ".npy of the costs between all points, instead of --cost")
	f.Float64Var(&p.epsilon, "epsilon", 0, "strength of the entropy, above 0")
	f.StringVar(&p.scale, "epsilon-scale", "absolute", "unit of --epsilon: absolute, mean or std (of the cost)")
	f.Float64Var(&p.rhoSource, "rho-source", 0, "strength of a penalty in place of the exact source marginal, in the cost's unit")
	f.Float64Var(&p.rhoTarget, "rho-target", 0, "strength of a penalty in place of the exact target marginal")
	f.StringVar(&p.penalty, "penalty", "kl", "what the penalties of --rho-source and --rho-target are: kl, tv (rho sum |p-a|) or l2 (rho/2 sum (p-a)^2)")
	f.StringVar(&p.penaltySource, "penalty-source", "", "the source's, if not --penalty")
	f.StringVar(&p.penaltyTarget, "penalty-target", "", "the target's, if not --penalty")
	f.StringVar(&p.divergence, "divergence", "kl", "regulariser: kl")
	f.StringVar(&p.problem, "problem", "regularised", "regularised: min <C,P> + epsilon KL(P | a x b)")
	f.Float64Var(&p.tol, "tol", 1e-6, "L1 marginal residual to reach, relative to the mass")
	f.IntVar(&p.maxIter, "max-iter", 10000, "sweeps over all pairs at most")
	f.StringVar(&p.acceleration, "acceleration", "auto", "auto, none, anderson or overrelax")
	p.sharing.declare(f)
}

// clouds are the two data sets of a problem; empty where a cost matrix is given
// without them.
type clouds struct {
	source, target dataset.Points
}

// read checks the flags and reads the files that they name, of entropic transport.
func (p *problemFlags) read() (sinkhorn.Problem, clouds, error) {
	if p.problem != "regularised" {
		return sinkhorn.Problem{}, clouds{}, usagef("--problem: got %q, want regularised", p.problem)
	}
	if d, _, err := p.regulariser(); err != nil || d.Family != divergences.KL {
		return sinkhorn.Problem{}, clouds{}, usagef("--divergence: got %q, want kl", p.divergence)
	}
	for _, r := range []struct {
		flag string
		v    float64
	}{{"rho-source", p.rhoSource}, {"rho-target", p.rhoTarget}} {
		if !(r.v >= 0) || r.v == 0 && p.flags.Changed(r.flag) {
			return sinkhorn.Problem{}, clouds{}, usagef("--%s: got %v, want a number above 0 (inf is exact)", r.flag, r.v)
		}
	}
	source, target, err := p.penalties()
	if err != nil {
		return sinkhorn.Problem{}, clouds{}, err
	}
	prob, c, err := p.input()
	if err != nil {
		return prob, c, err
	}
	prob.Source, prob.Target = source, target
	return prob, c, prob.Validate()
}

// input is what all problems share: the strength, the costs and the weights.
func (p *problemFlags) input() (sinkhorn.Problem, clouds, error) {
	var (
		prob sinkhorn.Problem
		c    clouds
		err  error
	)
	if !p.flags.Changed("epsilon") {
		return prob, c, usagef("--epsilon is missing, want a number above 0")
	}
	if !(p.epsilon > 0) || math.IsInf(p.epsilon, 0) {
		return prob, c, usagef("--epsilon: got %v, want a finite number above 0", p.epsilon)
	}
	if !(p.tol > 0) || math.IsInf(p.tol, 0) {
		return prob, c, usagef("--tol: got %v, want a finite number above 0", p.tol)
	}
	if p.maxIter < 1 {
		return prob, c, usagef("--max-iter: got %d, want at least 1", p.maxIter)
	}
	prob.Epsilon = p.epsilon
	if prob.Scale, err = parse("epsilon-scale", p.scale, sinkhorn.Absolute, sinkhorn.Mean, sinkhorn.Std); err != nil {
		return prob, c, err
	}
	if prob.Geometry, err = p.geometry(&c); err != nil {
		return prob, c, err
	}
	n, m := prob.Geometry.Size()
	if prob.A, err = readWeights("source-weights", p.sourceWeights, n); err != nil {
		return prob, c, err
	}
	prob.B, err = readWeights("target-weights", p.targetWeights, m)
	return prob, c, err
}

// penalties are those of the source and the target.
func (p *problemFlags) penalties() (source, target sinkhorn.Penalty, err error) {
	if p.flags.Changed("penalty") && p.rhoSource == 0 && p.rhoTarget == 0 {
		return source, target, usagef("--penalty %s has no strength, want --rho-source, --rho-target or both", p.penalty)
	}
	for _, side := range []struct {
		to       *sinkhorn.Penalty
		name     string
		own, rho string
		strength float64
	}{
		{&source, p.penaltySource, "penalty-source", "rho-source", p.rhoSource},
		{&target, p.penaltyTarget, "penalty-target", "rho-target", p.rhoTarget},
	} {
		flag, name := side.own, side.name
		if !p.flags.Changed(flag) {
			flag, name = "penalty", p.penalty
		}
		kind, err := parse(flag, name, sinkhorn.KL, sinkhorn.TV, sinkhorn.L2)
		if err != nil {
			return source, target, err
		}
		switch {
		case side.strength > 0:
			*side.to = sinkhorn.Penalty{Kind: kind, Rho: side.strength}
		case flag == side.own:
			return source, target, usagef("--%s %s has no strength, want --%s", flag, name, side.rho)
		}
	}
	return source, target, nil
}

func (p *problemFlags) geometry(c *clouds) (geometry.Geometry, error) {
	var err error
	if p.costMatrix != "" && p.source == "" && p.target == "" {
		return readMatrix(p.costMatrix)
	}
	if c.source, err = load("source", p.source); err != nil {
		return nil, err
	}
	if c.target, err = load("target", p.target); err != nil {
		return nil, err
	}
	if p.costMatrix != "" {
		if p.flags.Changed("cost") {
			return nil, usagef("--cost and --cost-matrix exclude each other")
		}
		g, err := readMatrix(p.costMatrix)
		if err != nil {
			return nil, err
		}
		if g.N != c.source.N || g.M != c.target.N {
			return nil, usagef("--cost-matrix: %s has shape (%d, %d), want (%d, %d) for these data sets", p.costMatrix, g.N, g.M, c.source.N, c.target.N)
		}
		return g, nil
	}
	cost, err := parse("cost", p.cost, geometry.SqEuclidean, geometry.HalfSqEuclidean, geometry.Euclidean, geometry.Cosine)
	if err != nil {
		return nil, err
	}
	if c.source.D != c.target.D {
		return nil, usagef("--target: %s has dimension %d, want %d as --source %s", p.target, c.target.D, c.source.D, p.source)
	}
	return geometry.NewPoints(c.source.X, c.target.X, c.source.D, cost)
}

// settings are the solver's.
func (p *problemFlags) settings(s *session) (sinkhorn.Settings, error) {
	set := sinkhorn.Settings{Tolerance: p.tol, MaxIterations: p.maxIter}
	var err error
	if set.Acceleration, err = parse("acceleration", p.acceleration, sinkhorn.Auto, sinkhorn.None, sinkhorn.Anderson, sinkhorn.Overrelaxed); err != nil {
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

// trace shows the residual's way to the tolerance as progress.
func trace(p *progress, tol float64) func(sinkhorn.Iteration) {
	first := 0.0
	return func(it sinkhorn.Iteration) {
		if first == 0 {
			first = max(it.Error, tol)
		}
		p.update(math.Log(first/max(it.Error, tol))/math.Log(max(first/tol, 1.0001)),
			fmt.Sprintf("sweep %d, epsilon %.3g, residual %.2g, %v", it.N, it.Epsilon, it.Error, it.DType))
	}
}

// parse finds the value that a flag's text names.
func parse[T fmt.Stringer](flag, text string, values ...T) (T, error) {
	var known string
	for i, v := range values {
		if v.String() == text {
			return v, nil
		}
		switch {
		case i == 0:
		case i == len(values)-1:
			known += " or "
		default:
			known += ", "
		}
		known += v.String()
	}
	var zero T
	return zero, usagef("--%s: got %q, want %s", flag, text, known)
}

func load(flag, uri string) (dataset.Points, error) {
	if uri == "" {
		return dataset.Points{}, usagef("--%s is missing, want a data set", flag)
	}
	set, err := dataset.Open(uri)
	if err != nil {
		return dataset.Points{}, fmt.Errorf("--%s: %w", flag, err)
	}
	points, err := set.Load()
	if err != nil {
		return dataset.Points{}, fmt.Errorf("--%s: %w", flag, err)
	}
	return points, nil
}

func readArray(flag, path string) (*npy.Array, error) {
	a, err := npy.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return a, nil
}

func readWeights(flag, path string, n int) ([]float64, error) {
	if path == "" {
		return nil, nil
	}
	a, err := readArray(flag, path)
	if err != nil {
		return nil, err
	}
	if len(a.Shape) != 1 || a.Shape[0] != n {
		return nil, usagef("--%s: %s has shape %s, want (%d,)", flag, path, npy.FormatShape(a.Shape), n)
	}
	return a.Float64s(), nil
}

func readMatrix(path string) (geometry.Matrix, error) {
	a, err := readArray("cost-matrix", path)
	if err != nil {
		return geometry.Matrix{}, err
	}
	if len(a.Shape) != 2 {
		return geometry.Matrix{}, usagef("--cost-matrix: %s has shape %s, want (n, m)", path, npy.FormatShape(a.Shape))
	}
	return geometry.Matrix{C: a.Float64s(), N: a.Shape[0], M: a.Shape[1]}, nil
}
