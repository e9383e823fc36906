package run_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor"
)

// halving is the smallest Trainer: x <- x - rate · x.
type halving struct {
	x        tensor.Tensor // (1)
	schedule run.Schedule
}

func (h halving) Step(step int) error {
	var x [1]float64
	if err := tensor.Get(h.x, x[:]); err != nil {
		return err
	}
	x[0] -= h.schedule.Rate(step) * x[0]
	return tensor.Set(h.x, x[:])
}

func (h halving) Loss() (float64, error) {
	var x [1]float64
	err := tensor.Get(h.x, x[:])
	return x[0] * x[0] / 2, err
}

func (h halving) Metrics(step int) ([]run.Metric, error) {
	return []run.Metric{{Name: "rate", Value: h.schedule.Rate(step)}}, nil
}

func (h halving) State() []run.Named { return []run.Named{{Name: "x", Tensor: h.x}} }

// A run of ten steps that is interrupted after six, and resumed.
func Example() {
	if err := example(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// canceled after 6 steps
	// done after 10 steps: loss 4.76837158203125e-07, rate 0.5
}

func example() error {
	dir, err := os.MkdirTemp("", "fortet")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	dev, err := gpu.Open("cpu")
	if err != nil {
		return err
	}
	defer dev.Close()

	c := run.Config{Data: run.Data{Source: "normal", Target: "moons"}}
	for _, s := range []string{"steps=10", "train.lr=0.5", "schedule=constant"} {
		if err := c.Set(s); err != nil {
			return err
		}
	}
	if err := c.Resolve(run.LightSB); err != nil {
		return err
	}
	folder, err := run.Create(filepath.Join(dir, "first"), c, false)
	if err != nil {
		return err
	}
	defer folder.Close()

	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	for from := (*run.Checkpoint)(nil); ; {
		x, err := tensor.From(dev, []float64{1}, 1)
		if err != nil {
			return err
		}
		r, err := run.Loop(ctx, folder, halving{x, c.Train.Schedule()}, run.Options{
			From: from,
			Progress: func(p run.Progress) {
				if p.Step == 6 {
					interrupt()
				}
			},
		})
		x.Free()
		if err != nil {
			return err
		}
		if r.Err() == nil {
			fmt.Printf("%v after %d steps: %s %v, %s %v\n", r.Status, r.Steps, r.Metrics[0].Name, r.Metrics[0].Value, r.Metrics[1].Name, r.Metrics[1].Value)
			return nil
		}
		fmt.Printf("%v after %d steps\n", r.Status, r.Steps)
		ctx = context.Background()
		if from, _, err = folder.Latest(); err != nil {
			return err
		}
	}
}
