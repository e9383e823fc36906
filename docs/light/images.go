package main

import (
	"fmt"
	"math"
	"path/filepath"

	"github.com/fortet/fortet/docs/internal/page"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/solver/metrics"
)

// imageResult are bridges from one class of CIFAR-10 to another.
type imageResult struct {
	From, To   string
	PCA        int
	Components int
	Explained  float64 // part of the variance that the components explain
	Rows       []imageRow
}

type imageRow struct {
	Epsilon float64
	Beta    string
	// Distances between principal components of ends and target, with those of
	// the source, and of two halves of the target, for comparison.
	W2, Energy             metrics.Value
	BeforeW2, BeforeEnergy float64
	Seconds                float64
}

// imageCount of a picture.
const imageCount = 10

func images(l *lab) (out imageResult, err error) {
	out = imageResult{From: "automobile", To: "truck", PCA: 512, Components: 10}
	folder := filepath.Join(l.data, "cifar10")
	uri := func(class string) string { return "cifar10:" + folder + "?class=" + class }
	list, err := metrics.Parse("w2,energy")
	if err != nil {
		return out, err
	}
	var fig plot.Grid
	for _, c := range []struct{ epsilon, beta float64 }{{.002, math.Inf(1)}, {.002, 1}, {.02, math.Inf(1)}, {.02, 1}} {
		b, err := l.train(run.LightSBB, run.Config{
			Data:  run.Data{Source: uri(out.From), Target: uri(out.To), PCA: out.PCA},
			Train: run.Train{Steps: 2000, Batch: 128},
			Light: run.Light{Components: out.Components, Epsilon: c.epsilon, Beta: run.Number(c.beta)},
		})
		if err != nil {
			return out, err
		}
		defer b.Close()
		source, err := b.Source().Load()
		if err != nil {
			return out, err
		}
		target, err := b.Target().Load()
		if err != nil {
			return out, err
		}
		ends, err := b.Draw(l.ctx, source.X, 0, 1)
		if err != nil {
			return out, err
		}
		out.Explained = b.PCA.Explained()
		row := imageRow{Epsilon: c.epsilon, Beta: price(c.beta), Seconds: b.seconds}
		encode := func(x []float64) (metrics.Cloud, error) {
			z, err := b.Encode(x)
			return metrics.Cloud{X: z, D: out.PCA}, err
		}
		z0, err := encode(source.X)
		if err != nil {
			return out, err
		}
		z1, err := encode(target.X)
		if err != nil {
			return out, err
		}
		ze, err := encode(ends)
		if err != nil {
			return out, err
		}
		for i, to := range []struct {
			after  *metrics.Value
			before *float64
		}{{&row.W2, &row.BeforeW2}, {&row.Energy, &row.BeforeEnergy}} {
			if *to.after, err = list[i].Compute(l.ctx, ze, z1, metrics.Options{}); err != nil {
				return out, err
			}
			before, err := list[i].Compute(l.ctx, z0, z1, metrics.Options{Repetitions: 1})
			if err != nil {
				return out, err
			}
			*to.before = before.Value
		}
		out.Rows = append(out.Rows, row)
		size := imageCount * source.D
		if fig.Rows == nil {
			projected, err := b.Decode(z0.X[:imageCount*out.PCA])
			if err != nil {
				return out, err
			}
			fig = plot.Grid{
				Title: fmt.Sprintf("From %s to %s", out.From, out.To), H: source.Image.H, W: source.Image.W, C: source.Image.C,
				Rows: []plot.Row{{Label: "start", X: source.X[:size]}, {Label: "in 512 components", X: projected}},
			}
		}
		fig.Rows = append(fig.Rows, plot.Row{Label: fmt.Sprintf("end, ε = %v, β = %s", c.epsilon, price(c.beta)), X: ends[:size]})
	}
	return out, l.picture("light_cifar.png", fig)
}

// Table is a row for each bridge.
func (r imageResult) Table() string {
	var rows [][]string
	for _, c := range r.Rows {
		rows = append(rows, []string{
			page.Num(3, c.Epsilon), c.Beta, page.Num(4, c.W2.Value), page.Num(4, c.BeforeW2), page.Num(4, c.W2.Floor.Mean),
			page.Num(3, c.Energy.Value), page.Num(3, c.BeforeEnergy), page.Num(3, c.Energy.Floor.Mean), page.Num(2, c.Seconds),
		})
	}
	return page.Table([]string{"ε", "β", "W2 of the ends", "of the starts", "floor", "energy distance", "of the starts", "floor", "s"}, rows)
}

// open reads a data set.
func open(uri string) (dataset.Points, error) {
	s, err := dataset.Open(uri)
	if err != nil {
		return dataset.Points{}, err
	}
	return s.Load()
}
