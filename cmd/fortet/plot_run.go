package main

import (
	"fmt"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/models/run"
)

type plotRunReport struct {
	Run   string   `json:"run"`
	Step  int      `json:"step"`
	Plots []string `json:"plots"`
}

// run draws the training curve, draws and paths of a run into its folder.
func (c *plotFile) run(s *session, path string) error {
	for _, flag := range [][2]string{{"out", c.out}, {"with", c.with}, {"image", c.image}, {"title", c.title}} {
		if flag[1] != "" {
			return usagef("--%s: %s is a run, whose pictures go to its own folder plots", flag[0], path)
		}
	}
	m, f, err := openModel(s.ctx, s, path)
	if err != nil {
		return err
	}
	defer m.Close()
	records, err := f.Records()
	if err != nil {
		return err
	}
	out := plotRunReport{Run: path, Step: m.Step}
	write := func(name string, fig plot.Figure) error {
		out.Plots = append(out.Plots, f.Plot(name))
		return plot.Write(f.Plot(name), fig)
	}
	if len(records) > 0 {
		if err := write("training.png", trainingFigure(records)); err != nil {
			return err
		}
	}
	starts, err := m.Starts(1000, s.seed)
	if err != nil {
		return err
	}
	ends, err := m.Draw(s.ctx, starts.X, 0, s.seed)
	if err != nil {
		return err
	}
	target := dataset.Points{N: starts.N, D: starts.D, X: ends, Image: starts.Image}
	if err := write("samples.png", sampleFigure(starts, target)); err != nil {
		return err
	}
	times := evenTimes(11)
	const shown = 200
	few := dataset.Points{N: min(shown, starts.N), D: starts.D, X: starts.X[:min(shown, starts.N)*starts.D], Image: starts.Image}
	paths, err := m.DrawPaths(s.ctx, few.X, times, s.seed)
	if err != nil {
		return err
	}
	if err := write("paths.png", pathFigure(paths, few.N, times, clouds{starts, target})); err != nil {
		return err
	}
	return s.print(out)
}

// trainingFigure shows the loss of every logged step.
func trainingFigure(records []run.Record) plot.Figure {
	curve := plot.Series{Label: "loss"}
	for _, r := range records {
		for _, m := range r.Metrics {
			if m.Name == "loss" {
				curve.X = append(curve.X, float64(r.Step))
				curve.Y = append(curve.Y, m.Value)
			}
		}
	}
	return plot.Curves{Title: fmt.Sprintf("Training, %d steps", records[len(records)-1].Step), XLabel: "step", YLabel: "loss of the minibatch", Series: []plot.Series{curve}}
}
