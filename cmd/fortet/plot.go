package main

import (
	"fmt"
	"io"
	"math"
	"os"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/tensor/npy"
)

var plotCommand = command{
	name:    "plot",
	does:    "Draw a run, or a file of points (n, d), paths (N, T, d) or images, as PNG or SVG",
	usage:   "fortet plot F.npy --out F.png [--with URI] [--image HxWxC]\n  fortet plot RUN",
	example: "fortet plot paths.npy --out paths.png",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &plotFile{}
		f.StringVar(&c.out, "out", "", ".png or .svg to write; default: the file's name with .png")
		f.StringVar(&c.with, "with", "", "data set to draw beside the points")
		f.StringVar(&c.image, "image", "", "shape of a point as an image: HxW or HxWxC")
		f.StringVar(&c.title, "title", "", "title of the picture")
		return c.do
	},
}

type plotFile struct{ out, with, image, title string }

type plotReport struct {
	File  string `json:"file"`
	Shape []int  `json:"shape"`
	As    string `json:"as"` // clouds, paths, images or image strips
	Out   string `json:"out"`
}

func (c *plotFile) do(s *session, args []string) error {
	if len(args) != 1 {
		return usagef("plot: got %d arguments, want one .npy or the folder of one run", len(args))
	}
	path := args[0]
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return c.run(s, path)
	}
	if c.out == "" {
		c.out = path + ".png"
	}
	format, err := plotFormat(c.out)
	if err != nil {
		return err
	}
	a, err := npy.ReadFile(path)
	if err != nil {
		return err
	}
	x := a.Float64s()
	for i, v := range x {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return usagef("%s: number %d is %v, want finite numbers", path, i, v)
		}
	}
	if c.title == "" {
		c.title = path
	}
	fig, as, err := c.figure(path, x, a.Shape)
	if err != nil {
		return err
	}
	var out outputs
	defer out.close()
	if err := out.add("out", c.out); err != nil {
		return err
	}
	if err := out.write("out", func(w io.Writer) error { return plot.Encode(w, fig, format) }); err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	return s.print(plotReport{path, a.Shape, as, c.out})
}

// figure decides by the shape what the numbers are.
func (c *plotFile) figure(path string, x []float64, shape []int) (plot.Figure, string, error) {
	im, err := c.shape()
	if err != nil {
		return nil, "", err
	}
	if len(shape) < 2 || len(shape) > 3 || len(x) == 0 {
		return nil, "", usagef("%s has shape %s, want points (n, d) or paths (N, T, d)", path, npy.FormatShape(shape))
	}
	d := shape[len(shape)-1]
	if im.Size() > 0 && im.Size() != d {
		return nil, "", usagef("--image: %s has %d values, want the %d of a point in %s", c.image, im.Size(), d, path)
	}
	if len(shape) == 3 {
		n, steps := shape[0], shape[1]
		if im.Size() > 0 {
			points := dataset.Points{D: d, Image: im}
			return pathFigure(x, n, evenTimes(steps), clouds{points, points}), "image strips", nil
		}
		return plot.Paths{Title: c.title, N: n, T: steps, D: d, X: x, Times: evenTimes(steps)}, "paths", nil
	}
	if im.Size() > 0 {
		return dataFigure(c.title, dataset.Points{N: shape[0], D: d, X: x, Image: im}), "images", nil
	}
	fig := plot.Scatter{Title: c.title, Clouds: []plot.Cloud{{Label: path, D: d, X: x}}}
	if c.with != "" {
		p, err := load("with", c.with)
		if err != nil {
			return nil, "", err
		}
		if p.D != d {
			return nil, "", usagef("--with: %s has dimension %d, want %d as %s", c.with, p.D, d, path)
		}
		fig.Clouds = append(fig.Clouds, cloud(c.with, p))
	}
	return fig, "clouds", nil
}

func (c *plotFile) shape() (dataset.Shape, error) {
	if c.image == "" {
		return dataset.Shape{}, nil
	}
	im := dataset.Shape{C: 1}
	var rest string
	n, _ := fmt.Sscanf(c.image+" ", "%dx%dx%d%s", &im.H, &im.W, &im.C, &rest)
	if n < 3 {
		im.C = 1
		n, _ = fmt.Sscanf(c.image, "%dx%d%s", &im.H, &im.W, &rest)
	}
	if n < 2 || rest != "" || im.H < 1 || im.W < 1 || im.C != 1 && im.C != 3 {
		return im, usagef("--image: got %q, want HxW or HxWx3, as 8x8", c.image)
	}
	return im, nil
}

func evenTimes(n int) []float64 {
	t := make([]float64, n)
	for i := range t {
		t[i] = float64(i) / float64(max(n-1, 1))
	}
	return t
}
