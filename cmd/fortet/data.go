package main

import (
	"fmt"
	"io"
	"math"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/tensor/npy"
)

var dataCommand = command{
	name:    "data",
	does:    "Describe a data set, write it to a file, or draw it",
	usage:   "fortet data URI [--out F.npy] [--plot F.png]",
	example: "fortet data '8gaussians?n=2000' --out points.npy --plot points.png",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &data{}
		f.StringVar(&c.out, "out", "", "write the points, (n, d), to this .npy")
		f.StringVar(&c.plot, "plot", "", "draw the points to this .png or .svg")
		f.IntVar(&c.n, "n", 0, "draw this many points; without, what the set has or its URI says")
		return c.do
	},
}

type data struct {
	out, plot string
	n         int
}

type dataReport struct {
	URI    string         `json:"uri"`
	N      int            `json:"n"`
	D      int            `json:"d"`
	Image  []int          `json:"image,omitempty"`
	Names  []string       `json:"columns,omitempty"`
	Labels map[string]int `json:"labels,omitempty"`
	Mean   []number       `json:"mean,omitempty"` // for at most 16 dimensions
	Std    []number       `json:"std,omitempty"`
	Min    number         `json:"min"`
	Max    number         `json:"max"`
	First  []number       `json:"first,omitempty"` // first point
	Out    string         `json:"out,omitempty"`
	Plot   string         `json:"plot,omitempty"`
}

func (c *data) do(s *session, args []string) error {
	if len(args) != 1 {
		return usagef("data: got %d arguments, want one data set; `fortet data --help` lists them", len(args))
	}
	if c.n < 0 {
		return usagef("--n: got %d, want above 0", c.n)
	}
	format, err := plotFormat(c.plot)
	if err != nil {
		return err
	}
	set, err := dataset.Open(args[0])
	if err != nil {
		return err
	}
	var points dataset.Points
	if c.n > 0 {
		points, err = set.Sample(c.n, s.seed)
	} else {
		points, err = set.Load()
	}
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
	if err := out.write("out", func(w io.Writer) error { return npy.Write(w, npy.New(points.X, points.N, points.D)) }); err != nil {
		return err
	}
	err = out.write("plot", func(w io.Writer) error { return plot.Encode(w, dataFigure(args[0], points), format) })
	if err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	return s.print(describeData(args[0], points, c.out, c.plot))
}

func dataFigure(uri string, p dataset.Points) plot.Figure {
	if im := p.Image; im.Size() > 0 {
		const columns = 12
		g := plot.Grid{Title: uri, H: im.H, W: im.W, C: im.C}
		for i := 0; i < min(p.N, 8*columns); i += columns {
			g.Rows = append(g.Rows, plot.Row{X: p.X[i*p.D : min(i+columns, p.N)*p.D]})
		}
		return g
	}
	return plot.Scatter{Title: uri, Clouds: []plot.Cloud{cloud(fmt.Sprintf("%d points", p.N), p)}}
}

func describeData(uri string, p dataset.Points, out, plotted string) dataReport {
	r := dataReport{URI: uri, N: p.N, D: p.D, Names: p.Names, Out: out, Plot: plotted}
	if im := p.Image; im.Size() > 0 {
		r.Image = []int{im.H, im.W, im.C}
	}
	for _, l := range p.Labels {
		if r.Labels == nil {
			r.Labels = map[string]int{}
		}
		name := fmt.Sprint(l)
		if l >= 0 && l < len(p.Classes) {
			name = p.Classes[l]
		}
		r.Labels[name]++
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	mean, square := make([]float64, p.D), make([]float64, p.D)
	for i, x := range p.X {
		lo, hi = min(lo, x), max(hi, x)
		mean[i%p.D] += x / float64(p.N)
	}
	for i, x := range p.X {
		t := x - mean[i%p.D]
		square[i%p.D] += t * t / float64(p.N)
	}
	r.Min, r.Max = number(lo), number(hi)
	if p.D <= 16 {
		for k := range square {
			square[k] = math.Sqrt(square[k])
		}
		r.Mean, r.Std, r.First = numbers(mean), numbers(square), numbers(p.X[:p.D])
	}
	return r
}
