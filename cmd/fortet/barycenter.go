package main

import (
	"fmt"
	"math"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

var barycenterCommand = command{
	name:    "barycenter",
	does:    "Find the entropic Wasserstein barycentre of point clouds or of images",
	usage:   "fortet barycenter (--measure URI --measure URI … | --images URI …) --epsilon E [flags]",
	example: "fortet barycenter --images 'digits?class=3&n=1' --images 'digits?class=8&n=1' --interpolate 7 --epsilon 0.3 --debiased --plot between.png",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &barycentre{flags: f}
		f.StringArrayVar(&c.measures, "measure", nil, "data set of a point cloud, once for each; the points of the barycentre move")
		f.StringArrayVar(&c.measureWeights, "measure-weights", nil, "K=F.npy: weights of the points of cloud K, from 0; uniform without")
		f.StringArrayVar(&c.images, "images", nil, "data set of images, each a measure on the pixel grid; may be repeated")
		f.BoolVar(&c.mean, "mean", false, "the mean image of each --images is a measure, instead of each image")
		f.Float64SliceVar(&c.lambda, "weights", nil, "weights of the measures, as 0.2,0.8; equal without")
		f.IntVar(&c.interpolate, "interpolate", 0, "so many barycentres, from the first of two measures to the second")
		f.IntVar(&c.support, "support", 256, "points of the barycentre of clouds")
		f.BoolVar(&c.grid, "grid", false, "the barycentre lives on the pixel grid of the images, as it always does")
		f.Float64Var(&c.epsilon, "epsilon", 0, "strength of the entropy, above 0; of images, absolute means squared pixels")
		f.StringVar(&c.scale, "epsilon-scale", "absolute", "unit of --epsilon: absolute, mean or std (of the cost)")
		f.StringVar(&c.cost, "cost", "sqeuclidean", "sqeuclidean or halfsqeuclidean")
		f.BoolVar(&c.debiased, "debiased", false, "the barycentre of Sinkhorn divergences, without the blur of the entropy; of images, an epsilon of at most 1 leaves no texture")
		f.Float64Var(&c.tol, "tol", 0, "images: L1 marginal residual to reach (1e-6); clouds: movement of the points relative to their spread (1e-4)")
		f.IntVar(&c.maxIter, "max-iter", 0, "iterations at most (10000 for images, 500 steps for clouds)")
		f.StringVar(&c.out, "out", "", "write the barycentre to this .npy: points (N, d), or an image (H, W) or (H, W, C); one more axis with --interpolate")
		f.StringVar(&c.plot, "plot", "", "draw measures and barycentre to this .png (clouds: or .svg)")
		return c.do
	},
}

type barycentre struct {
	flags                            *pflag.FlagSet
	measures, measureWeights, images []string
	mean, grid, debiased             bool
	lambda                           []float64
	interpolate, support, maxIter    int
	epsilon, tol                     float64
	scale, cost                      string
	out, plot                        string

	unit   sinkhorn.Scale
	ground geometry.Cost
	format plot.Format
}

type barycenterReport struct {
	Problem       barycenterProblem `json:"problem"`
	Status        string            `json:"status"`
	Iterations    int               `json:"iterations"`
	Seconds       number            `json:"seconds"`
	Objective     number            `json:"objective"` // summed over the parts, as is the gap
	Gap           number            `json:"gap"`
	MarginalError []number          `json:"marginal_error"` // the largest over the parts
	Residual      number            `json:"residual"`       // the largest, as is the movement
	Movement      *number           `json:"movement,omitempty"`
	Parts         []barycenterPart  `json:"parts"`
}

type barycenterProblem struct {
	Support      string `json:"support"` // grid or free
	N            int    `json:"n"`
	M            []int  `json:"m"`
	D            int    `json:"d"`
	Image        []int  `json:"image,omitempty"`
	Cost         string `json:"cost"`
	EpsilonScale string `json:"epsilon_scale"`
	Debiased     bool   `json:"debiased"`
	DType        string `json:"dtype"`
	Device       string `json:"device"`
}

// barycenterPart is one barycentre: of a channel, or at a place between two
// measures.
type barycenterPart struct {
	Lambda        []number `json:"lambda"`
	Channel       int      `json:"channel"`
	Epsilon       number   `json:"epsilon"` // absolute
	Status        string   `json:"status"`
	Iterations    int      `json:"iterations"`
	Seconds       number   `json:"seconds"`
	TransportCost number   `json:"transport_cost"`
	Primal        number   `json:"primal"`
	Dual          number   `json:"dual"`
	Gap           number   `json:"gap"`
	Mass          number   `json:"mass"`
	MarginalError []number `json:"marginal_error"`
	Residual      number   `json:"residual"`
	Movement      *number  `json:"movement,omitempty"`

	status solver.Status
}

func (c *barycentre) do(s *session, args []string) error {
	if len(args) > 0 {
		return usagef("barycenter: unexpected argument %q", args[0])
	}
	if err := c.check(); err != nil {
		return err
	}
	var err error
	if c.format, err = plotFormat(c.plot); err != nil {
		return err
	}
	var input barycenterInput
	if len(c.images) > 0 {
		input, err = c.readImages()
	} else {
		input, err = c.readClouds()
	}
	if err != nil {
		return err
	}
	lambdas, err := c.lambdas(input.size())
	if err != nil {
		return err
	}
	var out outputs
	defer out.close()
	for _, f := range [][2]string{{"out", c.out}, {"plot", c.plot}} {
		if err := out.add(f[0], f[1]); err != nil {
			return err
		}
	}
	dev, err := s.open()
	if err != nil {
		return err
	}
	report := barycenterReport{Problem: input.describe()}
	report.Problem.Cost, report.Problem.EpsilonScale, report.Problem.Debiased = c.cost, c.scale, c.debiased
	report.Problem.Device = dev.Name()
	bar := s.progress("barycenter")
	found := make([][]float64, len(lambdas))
	for i, lambda := range lambdas {
		step := func(text string) {
			bar.update(float64(i)/float64(len(lambdas)), fmt.Sprintf("barycentre %d of %d, %s", i+1, len(lambdas), text))
		}
		if found[i], err = input.solve(s, dev, lambda, step, &report); err != nil {
			break
		}
	}
	bar.finish()
	if err != nil {
		return err
	}
	status, worst := report.summarise()
	if status != solver.Diverged {
		if err := input.write(&out, found, lambdas); err != nil {
			return err
		}
	}
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	if err := s.print(report); err != nil {
		return err
	}
	return notConverged(status, worst, c.tol)
}

// check is what can be said of the flags alone.
func (c *barycentre) check() error {
	var err error
	if c.unit, err = parse("epsilon-scale", c.scale, sinkhorn.Absolute, sinkhorn.Mean, sinkhorn.Std); err != nil {
		return err
	}
	if c.ground, err = parse("cost", c.cost, geometry.SqEuclidean, geometry.HalfSqEuclidean); err != nil {
		return err
	}
	free := len(c.measures) > 0
	switch changed := c.flags.Changed; {
	case !free && len(c.images) == 0:
		return usagef("--measure or --images is missing, want the measures whose barycentre is sought")
	case free && len(c.images) > 0:
		return usagef("--measure and --images exclude each other")
	case free && c.grid:
		return usagef("--grid: clouds have no pixel grid, want --images, or --support N")
	case !free && changed("support"):
		return usagef("--support: the barycentre of images lives on their pixels, want --grid or no flag")
	case !free && changed("measure-weights"):
		return usagef("--measure-weights: the weights of an image are its pixels")
	case free && c.mean:
		return usagef("--mean: clouds have no mean image, want --images")
	case c.support < 1:
		return usagef("--support: got %d, want at least 1", c.support)
	case !changed("epsilon"):
		return usagef("--epsilon is missing, want a number above 0")
	case !(c.epsilon > 0) || math.IsInf(c.epsilon, 0):
		return usagef("--epsilon: got %v, want a finite number above 0", c.epsilon)
	case changed("tol") && (!(c.tol > 0) || math.IsInf(c.tol, 0)):
		return usagef("--tol: got %v, want a finite number above 0", c.tol)
	case changed("max-iter") && c.maxIter < 1:
		return usagef("--max-iter: got %d, want at least 1", c.maxIter)
	case changed("interpolate") && c.interpolate < 2:
		return usagef("--interpolate: got %d, want at least 2", c.interpolate)
	case changed("interpolate") && c.lambda != nil:
		return usagef("--interpolate and --weights exclude each other")
	case !changed("tol") && free:
		c.tol = 1e-4
	case !changed("tol"):
		c.tol = 1e-6
	}
	return nil
}

// lambdas are the weights of each barycentre of k measures.
func (c *barycentre) lambdas(k int) ([][]float64, error) {
	switch {
	case c.interpolate > 0:
		if k != 2 {
			return nil, usagef("--interpolate: got %d measures, want 2", k)
		}
		out := make([][]float64, c.interpolate)
		for i := range out {
			t := float64(i) / float64(c.interpolate-1)
			out[i] = []float64{1 - t, t}
		}
		return out, nil
	case c.lambda == nil:
		l := make([]float64, k)
		for i := range l {
			l[i] = 1 / float64(k)
		}
		return [][]float64{l}, nil
	case len(c.lambda) != k:
		return nil, usagef("--weights: got %d numbers for %d measures", len(c.lambda), k)
	}
	sum := 0.0
	for _, l := range c.lambda {
		if !(l >= 0) || math.IsInf(l, 1) {
			return nil, usagef("--weights: got %v, want finite numbers of at least 0", l)
		}
		sum += l
	}
	if !(sum > 0) {
		return nil, usagef("--weights: they are all 0, want one above")
	}
	l := make([]float64, k)
	for i, v := range c.lambda {
		l[i] = v / sum
	}
	return [][]float64{l}, nil
}

// summarise fills in what is said of all parts together.
func (r *barycenterReport) summarise() (status solver.Status, worst float64) {
	status = solver.Converged
	r.MarginalError = make([]number, len(r.Problem.M))
	for _, p := range r.Parts {
		r.Iterations += p.Iterations
		r.Seconds += p.Seconds
		r.Objective += p.Dual
		r.Gap += p.Gap
		r.Residual = max(r.Residual, p.Residual)
		if p.Movement != nil {
			m := *p.Movement
			if r.Movement != nil {
				m = max(m, *r.Movement)
			}
			r.Movement = &m
		}
		for k, e := range p.MarginalError {
			if e > r.MarginalError[k] {
				r.MarginalError[k] = e
			}
		}
		if p.status != solver.Converged && (status == solver.Converged || p.status == solver.Diverged) {
			status = p.status
		}
	}
	r.Status = status.String()
	if r.Movement != nil {
		return status, float64(*r.Movement)
	}
	return status, float64(r.Residual)
}
