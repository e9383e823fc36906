package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/barycenter"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor/npy"
)

// barycenterInput is what the barycentre is of.
type barycenterInput interface {
	size() int
	describe() barycenterProblem
	// solve appends to the parts of the report.
	solve(s *session, dev gpu.Device, lambda []float64, step func(string), r *barycenterReport) ([]float64, error)
	write(out *outputs, found, lambdas [][]float64) error
}

// imageInput is measures on a pixel grid.
type imageInput struct {
	*barycentre
	shape dataset.Shape
	x     [][]float64 // each (H, W, C)
}

func (c *barycentre) readImages() (barycenterInput, error) {
	in := &imageInput{barycentre: c}
	for _, uri := range c.images {
		p, err := load("images", uri)
		if err != nil {
			return nil, err
		}
		if p.Image.Size() == 0 {
			return nil, usagef("--images: %s has no images, want a data set of pictures such as digits", uri)
		}
		if len(in.x) == 0 {
			in.shape = p.Image
		}
		if p.Image != in.shape {
			return nil, usagef("--images: %s has images of shape %v, want %v as %s", uri, p.Image, in.shape, c.images[0])
		}
		if c.mean {
			mean := make([]float64, p.D)
			for i, v := range p.X {
				mean[i%p.D] += v / float64(p.N)
			}
			in.x = append(in.x, mean)
			continue
		}
		for i := range p.N {
			in.x = append(in.x, p.Row(i))
		}
	}
	return in, nil
}

func (in *imageInput) size() int { return len(in.x) }

func (in *imageInput) describe() barycenterProblem {
	p := barycenterProblem{Support: "grid", N: in.shape.H * in.shape.W, D: 2, Image: []int{in.shape.H, in.shape.W, in.shape.C}}
	for range in.x {
		p.M = append(p.M, p.N)
	}
	return p
}

// pixels is the costs between pixels, whose sides are one.
func (in *imageInput) pixels() (geometry.Geometry, error) {
	axis := func(n int) []float64 {
		x := make([]float64, n)
		for i := range x {
			x[i] = float64(i)
		}
		return x
	}
	return geometry.NewGrid(in.ground, axis(in.shape.H), axis(in.shape.W))
}

// solve finds the barycentre of each channel, of mass Σ_k λ_k mass_k.
func (in *imageInput) solve(s *session, dev gpu.Device, lambda []float64, step func(string), r *barycenterReport) ([]float64, error) {
	g, err := in.pixels()
	if err != nil {
		return nil, err
	}
	n, channels := in.shape.H*in.shape.W, in.shape.C
	image := make([]float64, n*channels)
	for channel := range channels {
		p := barycenter.Problem{Support: g, Lambda: lambda, Epsilon: in.epsilon, Scale: in.unit, Debiased: in.debiased}
		mass := 0.0
		for k, x := range in.x {
			w := make([]float64, n)
			sum := 0.0
			for i := range w {
				w[i] = x[i*channels+channel]
				sum += w[i]
			}
			mass += lambda[k] * sum
			for i := range w {
				if sum > 0 {
					w[i] /= sum
				}
			}
			p.Measures = append(p.Measures, barycenter.Measure{Weights: w})
		}
		set := barycenter.Settings{Tolerance: in.tol, MaxIterations: in.maxIter, Precision: precision(s.dtype)}
		set.Trace = func(it sinkhorn.Iteration) {
			step(fmt.Sprintf("channel %d, iteration %d, epsilon %.3g, residual %.2g, %v", channel, it.N, it.Epsilon, it.Error, it.DType))
		}
		res, err := barycenter.Solve(s.ctx, dev, p, set)
		if err != nil {
			return nil, fmt.Errorf("--images: channel %d: %w", channel, err)
		}
		if res.Status == solver.Canceled {
			return nil, s.ctx.Err()
		}
		cert := res.Certificate
		r.Problem.DType = res.Stages[len(res.Stages)-1].DType.String()
		r.Parts = append(r.Parts, barycenterPart{
			Lambda: numbers(lambda), Channel: channel, Epsilon: number(res.Epsilon), Status: res.Status.String(),
			Iterations: res.Iterations, Seconds: number(res.Duration.Seconds()), TransportCost: number(cert.TransportCost),
			Primal: number(cert.Primal), Dual: number(cert.Dual), Gap: number(cert.Gap), Mass: number(cert.Mass),
			MarginalError: numbers(cert.MarginalError), Residual: number(cert.Residual), status: res.Status,
		})
		for i, w := range res.Weights {
			image[i*channels+channel] = mass * w
		}
	}
	return image, nil
}

func (in *imageInput) write(out *outputs, found, lambdas [][]float64) error {
	shape := []int{in.shape.H, in.shape.W}
	if in.shape.C > 1 {
		shape = append(shape, in.shape.C)
	}
	if err := in.writeArray(out, found, shape); err != nil {
		return err
	}
	return out.write("plot", func(w io.Writer) error {
		if in.format == plot.SVG {
			return usagef("--plot: images are drawn as .png only")
		}
		g := plot.Grid{Title: "Barycentre", H: in.shape.H, W: in.shape.W, C: in.shape.C}
		var measures, barycentres []float64
		for _, x := range in.x[:min(len(in.x), shownImages)] {
			measures = append(measures, x...)
		}
		keep := pickTimes(len(found), shownImages)
		for _, i := range keep {
			barycentres = append(barycentres, found[i]...)
		}
		g.Rows = []plot.Row{{Label: "measures", X: measures}, {Label: "barycentre", X: barycentres}}
		if in.interpolate > 0 {
			g.Title = "Barycentres between two images"
			g.Rows = []plot.Row{{X: barycentres}}
			for _, i := range keep {
				g.Columns = append(g.Columns, strconv.FormatFloat(lambdas[i][1], 'g', 2, 64))
			}
		}
		return plot.Encode(w, g, in.format)
	})
}

// writeArray writes the barycentres, each of a shape.
func (c *barycentre) writeArray(out *outputs, found [][]float64, shape []int) error {
	return out.write("out", func(w io.Writer) error {
		var all []float64
		for _, f := range found {
			all = append(all, f...)
		}
		if c.interpolate > 0 {
			shape = append([]int{len(found)}, shape...)
		}
		return npy.Write(w, npy.New(all, shape...))
	})
}

// cloudInput is measures of points.
type cloudInput struct {
	*barycentre
	clouds  []dataset.Points
	problem barycenter.FreeProblem
}

func (c *barycentre) readClouds() (barycenterInput, error) {
	in := &cloudInput{barycentre: c}
	for _, uri := range c.measures {
		p, err := load("measure", uri)
		if err != nil {
			return nil, err
		}
		if len(in.clouds) > 0 && p.D != in.clouds[0].D {
			return nil, usagef("--measure: %s has dimension %d, want %d as %s", uri, p.D, in.clouds[0].D, c.measures[0])
		}
		in.clouds = append(in.clouds, p)
		in.problem.Measures = append(in.problem.Measures, barycenter.Cloud{X: p.X})
	}
	for _, text := range c.measureWeights {
		at, path, ok := strings.Cut(text, "=")
		k, err := strconv.Atoi(at)
		if !ok || err != nil || k < 0 || k >= len(in.clouds) {
			return nil, usagef("--measure-weights: got %q, want K=F.npy with K from 0 to %d", text, len(in.clouds)-1)
		}
		w, err := readWeights("measure-weights", path, in.clouds[k].N)
		if err != nil {
			return nil, err
		}
		sum := 0.0
		for _, x := range w {
			sum += x
		}
		if sum > 0 {
			for i := range w {
				w[i] /= sum
			}
		}
		in.problem.Measures[k].Weights = w
	}
	p := &in.problem
	p.D, p.N, p.Ground = in.clouds[0].D, c.support, c.ground
	p.Epsilon, p.Scale, p.Debiased = c.epsilon, c.unit, c.debiased
	return in, p.Validate()
}

func (in *cloudInput) size() int { return len(in.clouds) }

func (in *cloudInput) describe() barycenterProblem {
	p := barycenterProblem{Support: "free", N: in.support, D: in.problem.D}
	for _, c := range in.clouds {
		p.M = append(p.M, c.N)
	}
	return p
}

func (in *cloudInput) solve(s *session, dev gpu.Device, lambda []float64, step func(string), r *barycenterReport) ([]float64, error) {
	p := in.problem
	p.Lambda, p.Seed = lambda, s.seed
	set := barycenter.FreeSettings{Tolerance: in.tol, MaxIterations: in.maxIter}
	set.Transport.Precision = precision(s.dtype)
	set.Trace = func(it barycenter.FreeIteration) {
		step(fmt.Sprintf("step %d, objective %.6g, movement %.2g", it.N, it.Objective, it.Movement))
	}
	res, err := barycenter.SolveFree(s.ctx, dev, p, set)
	if err != nil {
		return nil, err
	}
	if res.Status == solver.Canceled {
		return nil, s.ctx.Err()
	}
	cert := res.Certificate
	movement := number(cert.Movement)
	r.Problem.DType = res.DType.String()
	r.Parts = append(r.Parts, barycenterPart{
		Lambda: numbers(lambda), Epsilon: number(res.Epsilon), Status: res.Status.String(),
		Iterations: res.Iterations, Seconds: number(res.Duration.Seconds()), TransportCost: number(cert.TransportCost),
		Primal: number(cert.Primal), Dual: number(cert.Dual), Gap: number(cert.Gap), Mass: 1,
		MarginalError: numbers(cert.MarginalError), Residual: number(cert.Residual), Movement: &movement, status: res.Status,
	})
	return res.X, nil
}

func (in *cloudInput) write(out *outputs, found, lambdas [][]float64) error {
	d := in.problem.D
	if err := in.writeArray(out, found, []int{in.support, d}); err != nil {
		return err
	}
	return out.write("plot", func(w io.Writer) error {
		fig := plot.Scatter{Title: "Barycentre"}
		for k, c := range in.clouds {
			fig.Clouds = append(fig.Clouds, cloud(in.measures[k], c))
		}
		for i, x := range found {
			label := "barycentre"
			if in.interpolate > 0 {
				label = fmt.Sprintf("at %.2g", lambdas[i][1])
			}
			fig.Clouds = append(fig.Clouds, plot.Cloud{Label: label, D: d, X: x})
		}
		return plot.Encode(w, fig, in.format)
	})
}

// precision is that of --dtype.
func precision(dtype string) solver.Precision {
	switch dtype {
	case "f32":
		return solver.Single
	case "f64":
		return solver.Double
	}
	return solver.Ladder
}
