package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
)

// plotFormat is the format that a path's suffix names; an empty path is no plot.
func plotFormat(path string) (plot.Format, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".svg":
		return plot.SVG, nil
	case ".png", "":
		if path == "" || filepath.Ext(path) != "" {
			return plot.PNG, nil
		}
	}
	return 0, usagef("--plot: got %s, want a name that ends in .png or .svg", path)
}

func cloud(label string, p dataset.Points) plot.Cloud {
	return plot.Cloud{Label: label, D: p.D, X: p.X}
}

// at most so many lines or images: more would not be seen.
const (
	shownLines  = 300
	shownImages = 12
	shownPaths  = 8
)

// planFigure shows where the plan takes the source: as images where the points
// are images, otherwise as clouds with lines.
func planFigure(c clouds, mapped []float64) plot.Figure {
	n, d := c.source.N, c.source.D
	if size := c.source.Image.Size(); size > 0 && c.target.Image == c.source.Image {
		shown := min(n, shownImages)
		rows := []plot.Row{
			{Label: "source", X: c.source.X[:shown*d]},
			{Label: "mean of its targets", X: mapped[:shown*d]},
			{Label: "nearest target to it", X: nearest(mapped[:shown*d], c.target.X, d)},
		}
		im := c.source.Image
		return plot.Grid{Title: "What the plan makes of the source", H: im.H, W: im.W, C: im.C, Rows: rows}
	}
	step := max(1, n/shownLines)
	var from, to []float64
	for i := 0; i < n; i += step {
		from = append(from, c.source.X[i*d:(i+1)*d]...)
		to = append(to, mapped[i*d:(i+1)*d]...)
	}
	return plot.Scatter{
		Title:  "Barycentric map",
		Clouds: []plot.Cloud{cloud("source", c.source), cloud("target", c.target)},
		From:   from, To: to,
	}
}

// nearest returns, for each of x, the nearest of y.
func nearest(x, y []float64, d int) []float64 {
	out := make([]float64, 0, len(x))
	for i := 0; i < len(x); i += d {
		best, at := -1.0, 0
		for j := 0; j < len(y); j += d {
			s := 0.0
			for k := range d {
				t := x[i+k] - y[j+k]
				s += t * t
			}
			if best < 0 || s < best {
				best, at = s, j
			}
		}
		out = append(out, y[at:at+d]...)
	}
	return out
}

func drawPlan(w io.Writer, format plot.Format, c clouds, mapped []float64) error {
	fig := planFigure(c, mapped)
	if _, grid := fig.(plot.Grid); grid && format == plot.SVG {
		return usagef("--plot: images are drawn as .png only")
	}
	return plot.Encode(w, fig, format)
}

// pathFigure shows paths of shape (n, len(times), d).
func pathFigure(x []float64, n int, times []float64, c clouds) plot.Figure {
	d, steps := c.source.D, len(times)
	if im := c.source.Image; im.Size() > 0 && im == c.target.Image {
		shown := min(n, shownPaths)
		// A path that is drawn at many times is shown at a dozen of them.
		keep := pickTimes(steps, shownImages)
		strip := make([]float64, 0, shown*len(keep)*d)
		kept := make([]float64, len(keep))
		for s := range shown {
			for q, at := range keep {
				kept[q] = times[at]
				strip = append(strip, x[(s*steps+at)*d:(s*steps+at+1)*d]...)
			}
		}
		return plot.Strip("Paths of the bridge", strip, shown, kept, im.H, im.W, im.C)
	}
	source, target := cloud("source", c.source), cloud("target", c.target)
	shown := min(n, shownLines)
	return plot.Paths{
		Title: fmt.Sprintf("%d paths of the bridge", shown), N: shown, T: steps, D: d,
		X: x[:shown*steps*d], Times: times, Source: &source, Target: &target,
	}
}

// pickTimes spreads at most k indices over 0 … n-1, both ends included.
func pickTimes(n, k int) []int {
	k = min(n, k)
	out := make([]int, k)
	for i := range out {
		out[i] = i * (n - 1) / max(k-1, 1)
	}
	return out
}
