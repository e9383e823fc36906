package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor/npy"
)

var bridgeCommand = command{
	name:    "bridge",
	does:    "Draw paths of the Schrödinger bridge of a solved plan",
	usage:   "fortet bridge --potentials F.npz --source URI --target URI --paths N --times T --out F.npy [flags]",
	example: "fortet bridge --potentials plan.npz --source 'digits?class=3' --target 'digits?class=8' --paths 100 --times 20 --out paths.npy --plot paths.png",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &bridge{}
		f.StringVar(&c.potentials, "potentials", "", ".npz that `fortet solve --potentials` wrote")
		f.StringVar(&c.source, "source", "", "data set of the source, as it was solved")
		f.StringVar(&c.target, "target", "", "data set of the target, as it was solved")
		f.StringVar(&c.cost, "cost", "", "cost that was solved, where the .npz does not say")
		f.IntVar(&c.paths, "paths", 100, "number of paths")
		f.IntVar(&c.times, "times", 11, "number of times, equally spaced from 0 to 1")
		f.StringVar(&c.out, "out", "", "write the paths, (N, T, d), to this .npy")
		f.StringVar(&c.plot, "plot", "", "draw the paths to this .png or .svg")
		return c.do
	},
}

type bridge struct {
	potentials, source, target, cost, out, plot string
	paths, times                                int
}

type bridgeReport struct {
	Paths    int    `json:"paths"`
	Times    int    `json:"times"`
	D        int    `json:"d"`
	Variance number `json:"variance"` // of the reference over [0, 1]
	Seed     uint64 `json:"seed"`
	Out      string `json:"out,omitempty"`
	Plot     string `json:"plot,omitempty"`
}

func (c *bridge) do(s *session, args []string) error {
	switch {
	case len(args) > 0:
		return usagef("bridge: unexpected argument %q", args[0])
	case c.potentials == "":
		return usagef("--potentials is missing, want the .npz of a solved plan")
	case c.out == "" && c.plot == "":
		return usagef("--out is missing, want a .npy to write (or --plot)")
	case c.paths < 1:
		return usagef("--paths: got %d, want at least 1", c.paths)
	case c.times < 2:
		return usagef("--times: got %d, want at least 2", c.times)
	}
	plan, variance, clouds, err := c.read()
	if err != nil {
		return err
	}
	format, err := plotFormat(c.plot)
	if err != nil {
		return err
	}
	var out outputs
	defer out.close()
	if err := out.add("out", c.out); err != nil {
		return err
	}
	if err := out.add("plot", c.plot); err != nil {
		return err
	}
	times := evenTimes(c.times)
	x, err := plan.Paths(s.ctx, c.paths, times, s.seed)
	if err != nil {
		return err
	}
	d := clouds.source.D
	if err := out.write("out", func(w io.Writer) error { return npy.Write(w, npy.New(x, c.paths, c.times, d)) }); err != nil {
		return err
	}
	err = out.write("plot", func(w io.Writer) error {
		return plot.Encode(w, pathFigure(x, c.paths, times, clouds), format)
	})
	if err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	return s.print(bridgeReport{c.paths, c.times, d, number(variance), s.seed, c.out, c.plot})
}

// bridged is a plan of any of the problems that have paths.
type bridged interface {
	Paths(ctx context.Context, k int, times []float64, seed uint64) ([]float64, error)
}

// read puts the plan together from the files, and says the variance of its
// reference over [0, 1].
func (c *bridge) read() (bridged, float64, clouds, error) {
	z, err := npy.ReadNPZFile(c.potentials)
	if err != nil {
		return nil, 0, clouds{}, fmt.Errorf("--potentials: %w", err)
	}
	other, ok, err := divergentPlan(c.potentials, z)
	if err != nil {
		return nil, 0, clouds{}, err
	}
	p, set, err := c.entropic(z)
	if err != nil {
		return nil, 0, set, err
	}
	variance, _ := p.Geometry.Cost().BrownianVariance(p.Epsilon)
	if !ok {
		return p, variance, set, p.Validate()
	}
	other.Geometry, other.A, other.B, other.F, other.G, other.Epsilon = p.Geometry, p.A, p.B, p.F, p.G, p.Epsilon
	return other, variance, set, other.Validate()
}

// entropic is the plan that the file says if it is entropic transport's.
func (c *bridge) entropic(z *npy.Archive) (sinkhorn.Plan, clouds, error) {
	var (
		p   sinkhorn.Plan
		set clouds
		err error
	)
	for _, v := range []struct {
		name string
		to   *[]float64
	}{{"f", &p.F}, {"g", &p.G}, {"a", &p.A}, {"b", &p.B}} {
		a, err := z.Get(v.name)
		if err != nil {
			return p, set, fmt.Errorf("--potentials: %s: %w", c.potentials, err)
		}
		if len(a.Shape) != 1 {
			return p, set, usagef("--potentials: %s: %s has shape %s, want one axis", c.potentials, v.name, npy.FormatShape(a.Shape))
		}
		*v.to = a.Float64s()
	}
	if p.Epsilon, err = scalar(c.potentials, z, "epsilon"); err != nil {
		return p, set, err
	}
	cost, err := c.groundCost(z)
	if err != nil {
		return p, set, err
	}
	if set.source, err = load("source", c.source); err != nil {
		return p, set, err
	}
	if set.target, err = load("target", c.target); err != nil {
		return p, set, err
	}
	if set.source.D != set.target.D {
		return p, set, usagef("--target: %s has dimension %d, want %d as --source %s", c.target, set.target.D, set.source.D, c.source)
	}
	for _, side := range []struct {
		flag, uri string
		n, want   int
	}{{"source", c.source, set.source.N, len(p.F)}, {"target", c.target, set.target.N, len(p.G)}} {
		if side.n != side.want {
			return p, set, usagef("--%s: %s has %d points, but %s was solved for %d", side.flag, side.uri, side.n, c.potentials, side.want)
		}
	}
	p.Geometry, err = geometry.NewPoints(set.source.X, set.target.X, set.source.D, cost)
	return p, set, err
}

// groundCost is what the file says, or the flag, or the default.
func (c *bridge) groundCost(z *npy.Archive) (geometry.Cost, error) {
	costs := []geometry.Cost{geometry.SqEuclidean, geometry.HalfSqEuclidean, geometry.Euclidean, geometry.Cosine}
	if c.cost != "" {
		return parse("cost", c.cost, costs...)
	}
	if !z.Has("cost") {
		return geometry.SqEuclidean, nil
	}
	a, err := z.Get("cost")
	if err != nil {
		return 0, err
	}
	if v := a.Float64s(); len(v) == 1 {
		for _, cost := range costs {
			if v[0] == float64(cost) {
				return cost, nil
			}
		}
	}
	return 0, usagef("--potentials: %s: its cost is none between points; paths need points", c.potentials)
}
