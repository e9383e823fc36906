package main

import (
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/models/light"
	"github.com/fortet/fortet/tensor/npy"
)

var sampleCommand = command{
	name:    "sample",
	does:    "Draw from a trained bridge",
	usage:   "fortet sample RUN [--n N | --from URI] [--out F.npy] [--times T --paths-out F.npy] [--plot F.png]",
	example: "fortet sample run --n 10000 --out points.npy --plot points.png",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &sample{flags: f}
		f.IntVar(&c.n, "n", 1000, "how many; starts are drawn from the run's source")
		f.StringVar(&c.from, "from", "", "data set to start from, every row once")
		f.IntVar(&c.steps, "steps", 0, "Euler-Maruyama steps; 0: exact, without steps")
		f.StringVar(&c.out, "out", "", "write the ends, (n, d), to this .npy")
		f.IntVar(&c.times, "times", 11, "number of times of paths, equally spaced from 0 to 1")
		f.StringVar(&c.pathsOut, "paths-out", "", "write paths, (n, T, d), to this .npy")
		f.StringVar(&c.plot, "plot", "", "draw the ends, or the paths if --times is given, to this .png or .svg")
		return c.do
	},
}

type sample struct {
	n, steps, times           int
	from, out, pathsOut, plot string
	flags                     *pflag.FlagSet
}

type sampleReport struct {
	Run   string `json:"run"`
	Step  int    `json:"step"` // of the checkpoint
	N     int    `json:"n"`
	D     int    `json:"d"`
	Seed  uint64 `json:"seed"`
	Out   string `json:"out,omitempty"`
	Paths string `json:"paths,omitempty"`
	Plot  string `json:"plot,omitempty"`
}

func (c *sample) check(args []string) error {
	switch {
	case len(args) != 1:
		return usagef("sample: got %d arguments, want the folder of one run", len(args))
	case c.n < 1:
		return usagef("--n: got %d, want at least 1", c.n)
	case c.from != "" && c.flags.Changed("n"):
		return usagef("--n and --from exclude each other; a data set takes ?n=N")
	case c.steps < 0:
		return usagef("--steps: got %d, want at least 0", c.steps)
	case c.times < 2:
		return usagef("--times: got %d, want at least 2", c.times)
	case c.out == "" && c.pathsOut == "" && c.plot == "":
		return usagef("--out is missing, want a .npy to write (or --paths-out, or --plot)")
	case c.steps > 0 && c.drawPaths():
		return usagef("--steps: paths are exact at their times and take no steps")
	}
	return nil
}

func (c *sample) drawPaths() bool { return c.pathsOut != "" || c.flags.Changed("times") }

func (c *sample) do(s *session, args []string) error {
	if err := c.check(args); err != nil {
		return err
	}
	format, err := plotFormat(c.plot)
	if err != nil {
		return err
	}
	m, _, err := openModel(s.ctx, s, args[0])
	if err != nil {
		return err
	}
	defer m.Close()
	starts, err := c.starts(s, m)
	if err != nil {
		return err
	}
	var out outputs
	defer out.close()
	for _, f := range [][2]string{{"out", c.out}, {"paths-out", c.pathsOut}, {"plot", c.plot}} {
		if err := out.add(f[0], f[1]); err != nil {
			return err
		}
	}
	ends, err := m.Draw(s.ctx, starts.X, c.steps, s.seed)
	if err != nil {
		return err
	}
	target := dataset.Points{N: starts.N, D: starts.D, X: ends, Image: starts.Image}
	figure := plot.Figure(nil)
	if c.drawPaths() {
		times := evenTimes(c.times)
		paths, err := m.DrawPaths(s.ctx, starts.X, times, s.seed)
		if err != nil {
			return err
		}
		if err := out.write("paths-out", func(w io.Writer) error {
			return npy.Write(w, npy.New(paths, starts.N, c.times, starts.D))
		}); err != nil {
			return err
		}
		figure = pathFigure(paths, starts.N, times, clouds{starts, target})
	} else {
		figure = sampleFigure(starts, target)
	}
	if err := out.write("out", func(w io.Writer) error { return npy.Write(w, npy.New(ends, starts.N, starts.D)) }); err != nil {
		return err
	}
	if err := out.write("plot", func(w io.Writer) error { return plot.Encode(w, figure, format) }); err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	return s.print(sampleReport{args[0], m.Step, starts.N, starts.D, s.seed, c.out, c.pathsOut, c.plot})
}

// starts are the rows of --from, or draws from the run's own source.
func (c *sample) starts(s *session, m *light.Model) (dataset.Points, error) {
	if c.from == "" {
		return m.Starts(c.n, s.seed)
	}
	p, err := load("from", c.from)
	if err != nil {
		return p, err
	}
	if p.D != m.DataDim() {
		return p, usagef("--from: %s has dimension %d, want %d as the run", c.from, p.D, m.DataDim())
	}
	return p, nil
}

// sampleFigure shows starts and ends.
func sampleFigure(starts, ends dataset.Points) plot.Figure {
	if im := starts.Image; im.Size() > 0 {
		shown := min(starts.N, shownImages) * starts.D
		return plot.Grid{Title: "Starts and ends of the bridge", H: im.H, W: im.W, C: im.C, Rows: []plot.Row{
			{Label: "start", X: starts.X[:shown]}, {Label: "end", X: ends.X[:shown]},
		}}
	}
	return plot.Scatter{
		Title:  fmt.Sprintf("%d draws from the bridge", starts.N),
		Clouds: []plot.Cloud{cloud("start", starts), cloud("end", ends)},
	}
}
