package mixture_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor"
)

// counted is a group that counts the bytes that reach this process.
type counted struct {
	collective.Group
	bytes float64
}

func (c *counted) Gather(out, in gpu.Buffer) error {
	c.bytes += float64(out.Bytes - in.Bytes)
	return c.Group.Gather(out, in)
}

func (c *counted) Sum(v gpu.Buffer, of collective.Element) error {
	c.bytes += 2 * float64(v.Bytes) * float64(c.Size()-1) / float64(c.Size())
	return c.Group.Sum(v, of)
}

// processes runs body in so many, each on a device of its own.
func processes(t *testing.T, n int, body func(rank int, dev gpu.Device, group collective.Group) error) {
	t.Helper()
	devs, errs := make([]gpu.Device, n), make([]error, n)
	for i := range devs {
		devs[i] = cpu(t)
	}
	var wait sync.WaitGroup
	for i, g := range collective.Local(n, devs...) {
		wait.Go(func() { errs[i] = body(i, devs[i], g) })
	}
	wait.Wait()
	for rank, err := range errs {
		require.NoError(t, err, "rank %d", rank)
	}
}

// What is exchanged in a step is what Traffic says.
func TestTraffic(t *testing.T) {
	for _, full := range []bool{false, true} {
		for _, terms := range []int{1, 2} {
			for _, n := range []int{1, 2, 4} {
				for _, fast := range []bool{false, true} {
					const steps, batch = 5, 256
					layout := mixture.Layout{K: 2, D: 2}
					if full {
						layout.Covariance = mixture.Full
					}
					want := mixture.Traffic(layout, tensor.Float32, batch, terms, n, fast)
					processes(t, n, func(rank int, dev gpu.Device, group collective.Group) error {
						x, err := tensor.FromFloat64s(dev, tensor.Float32, []float64{1, 2, 3, 4}, 2, 2)
						if err != nil {
							return err
						}
						defer x.Free()
						q, err := mixture.NewPotential(dev, tensor.Float32, example(full), 0)
						if err != nil {
							return err
						}
						c := &counted{Group: group}
						r, err := mixture.NewTrainer(q, mixture.Training{
							Source: x, Target: x, Batch: batch, Group: c, Fast: fast, Schedule: run.Schedule{Peak: .1},
						}, terms, func() error { return nil })
						if err != nil {
							return err
						}
						defer r.Free()
						for step := 1; step <= steps; step++ {
							if err := r.Step(step); err != nil {
								return err
							}
						}
						if got := c.bytes / steps; !(math.Abs(got-want) <= 1e-9*want) || n > 1 && want == 0 {
							return fmt.Errorf("%v bytes a step, want %v: %d processes, %d terms, fast %v", got, want, n, terms, fast)
						}
						return nil
					})
				}
			}
		}
	}
}

// A kernel that divides the weight of a part by its rows, and rounds, gets what
// it gets of all rows; and rows come together in their order.
func TestParts(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 7, 8} {
		for _, fast := range []bool{false, true} {
			batch := 32 * n
			if fast {
				batch += n / 2 // no part of which is as large as the others
			}
			processes(t, n, func(rank int, dev gpu.Device, group collective.Group) error {
				x, err := tensor.FromFloat64s(dev, tensor.Float32, []float64{1, 2, 3, 4}, 2, 2)
				if err != nil {
					return err
				}
				defer x.Free()
				q, err := mixture.NewPotential(dev, tensor.Float32, example(false), 0)
				if err != nil {
					return err
				}
				r, err := mixture.NewTrainer(q, mixture.Training{Source: x, Target: x, Batch: batch, Group: group, Fast: fast}, 2, nil)
				if err != nil {
					return err
				}
				defer r.Free()
				rows := r.X0.Dim(0)
				for i := range 1000 {
					w := math.Exp(20 * math.Sin(float64(i)))
					for _, w := range []float64{w, -w, 1, -1, 1. / 3} {
						if got, want := float32(r.Weight(w)/float64(rows)), float32(w/float64(batch)); got != want {
							return fmt.Errorf("weight %v of %d of %d rows: %v, want %v", w, rows, batch, got, want)
						}
					}
				}
				first := batch * rank / n
				own := make([]float64, rows)
				for i := range own {
					own[i] = float64(first + i)
				}
				v, err := tensor.FromFloat64s(dev, tensor.Float32, own, rows)
				if err != nil {
					return err
				}
				defer v.Free()
				all, err := r.Rows(v)
				if err != nil {
					return err
				}
				if len(all) != batch {
					return fmt.Errorf("%d rows, want %d", len(all), batch)
				}
				for i, v := range all {
					if v != float64(i) {
						return fmt.Errorf("row %d is %v", i, v)
					}
				}
				return nil
			})
		}
	}
}
