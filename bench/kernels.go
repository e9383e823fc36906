package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// kernels measures all families in both precisions: on the CPU at the typical
// size of each, with one worker and with all, and softmin with two; on a GPU at
// the largest size, and of float32 at the typical one, too, and in the precisions
// of tensor cores.
func kernels(ctx context.Context, s *Session) error {
	all, err := gpu.Open(s.Device)
	if err != nil {
		return err
	}
	props := all.Properties()
	if err := all.Close(); err != nil {
		return err
	}
	workers := []int{0}
	if props.Kind == gpu.CPU {
		workers = slices.Compact([]int{1, min(2, props.Workers), props.Workers})
	}
	for _, w := range workers {
		dev, err := gpu.OpenWith(s.Device, gpu.Options{Workers: w})
		if err != nil {
			return err
		}
		families := Families()
		if w == 2 && w < props.Workers {
			families = slices.DeleteFunc(families, func(f Family) bool { return f.Name != "softmin" })
		}
		if err := errors.Join(s.kernelsOn(ctx, dev, families, w), dev.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) kernelsOn(ctx context.Context, dev gpu.Device, families []Family, workers int) error {
	kind := dev.Properties().Kind
	for _, f := range families {
		for _, v := range f.Variants {
			for _, dtype := range v.dtypes() {
				largest := slices.Max(v.Sizes)
				sizes := []int{v.Typical}
				switch {
				case s.Quick:
					sizes = v.Sizes[:1]
				case kind == gpu.CUDA && dtype == tensor.Float32:
					sizes = slices.Compact([]int{v.Typical, largest})
				case kind == gpu.CUDA:
					sizes = []int{largest}
				}
				for _, size := range sizes {
					for _, set := range v.settings(kind, dtype, size) {
						if err := s.variant(ctx, dev, v, set, workers); err != nil {
							return fmt.Errorf("%v, %d %s, %v: %w", v, size, v.Unit, set, err)
						}
					}
				}
			}
		}
	}
	return nil
}

// variant is one row.
func (s *Session) variant(ctx context.Context, dev gpu.Device, v Variant, set Setting, workers int) error {
	p := pace{atLeast: 1500 * time.Millisecond}
	switch {
	case s.Quick:
		p = pace{}
	case dev.Properties().Kind == gpu.CUDA: // where times differ by little
		p = pace{atLeast: 200 * time.Millisecond}
	}
	r, err := s.row(ctx, dev, v, set, p)
	if errors.Is(err, gpu.ErrUnsupported) {
		fmt.Fprintf(s.Log, "%v, %v: %v\n", v, set, err)
		return nil
	}
	if err != nil {
		return err
	}
	r.Workers = workers
	s.add(r)
	return nil
}

// row measures a variant in a setting, and checks the answer.
func (s *Session) row(ctx context.Context, dev gpu.Device, v Variant, set Setting, p pace) (Row, error) {
	if err := ctx.Err(); err != nil {
		return Row{}, err
	}
	c, err := v.Open(dev, set)
	if err != nil {
		return Row{}, err
	}
	defer c.Free()
	if err := errors.Join(c.Run(), dev.Sync()); err != nil { // to warm up
		return Row{}, err
	}
	times, err := timeCase(ctx, dev, c, p)
	if err != nil {
		return Row{}, err
	}
	if err := errors.Join(c.Reset(), c.Run(), dev.Sync()); err != nil {
		return Row{}, err
	}
	worst, budget, err := c.Check()
	if err != nil {
		return Row{}, err
	}
	cost := v.Cost(set)
	if c.Cost != nil {
		cost = *c.Cost
	}
	r := Row{
		Name: v.Name, Engine: Fortet, Status: OK, Work: v.Work(set), Seconds: Sum(times),
		Accuracy: Accuracy{Error: &worst, Budget: budget}, Cost: &cost,
	}
	if r.Precision == "" {
		r.Precision = set.String()
	}
	if !s.Quick {
		ceilings, err := s.ceilings.of(dev, set)
		if err != nil {
			return Row{}, err
		}
		r.Limit = ceilings.limit(cost)
	}
	return r, nil
}

// rate is what a row did a second, in the unit of what there is most of, where
// an exponential counts as 16 floating-point operations, a byte as 12, and an
// integer operation as 2: about what they cost on a CPU, and on a GPU.
func (r Row) rate() (value float64, unit string) {
	if r.Cost == nil {
		return 0, ""
	}
	c := *r.Cost
	most := 0.0
	for _, u := range []struct {
		number, weight float64
		unit           string
	}{
		{c.Matrix.Number + c.Flops.Number, 1, "GFLOP/s"}, {c.Exps.Number, 16, "Gexp/s"},
		{c.Read.Number + c.Written.Number, 12, "GB/s"}, {c.Integers.Number, 2, "Gint/s"},
	} {
		if u.number*u.weight > most {
			most, value, unit = u.number*u.weight, u.number, u.unit
		}
	}
	return value / r.Seconds.Minimum / 1e9, unit
}
