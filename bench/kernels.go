package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/fortet/fortet/gpu"
	kernel "github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

// kernels measures softmin and sweep: points in few and many dimensions and a
// cost matrix, in both precisions, on one worker and on two.
func kernels(ctx context.Context, s *Session) error {
	n, shapes, workers := 4096, []int{2, 64, 512, 0}, []int{1, 2}
	if s.Quick {
		n, shapes = 256, []int{2, 16, 0}
	}
	if s.Device != "cpu" {
		workers = []int{0}
		if !s.Quick {
			n = 16384
		}
	}
	for _, w := range workers {
		dev, err := gpu.OpenWith(s.Device, gpu.Options{Workers: w})
		if err != nil {
			return err
		}
		err = errors.Join(
			kernelsIn[float32](ctx, s, dev, w, n, shapes),
			kernelsIn[float64](ctx, s, dev, w, n, shapes),
			dev.Close())
		if err != nil {
			return err
		}
	}
	return nil
}

func kernelsIn[T number](ctx context.Context, s *Session, dev gpu.Device, workers, n int, shapes []int) error {
	var one T
	bits := 64
	if any(one) == any(float32(0)) {
		bits = 32
	}
	limits, err := ceilings(dev, workers, bits, s.Quick)
	if err != nil {
		return err
	}
	for _, d := range shapes {
		precisions := []kernel.Precision{kernel.Native}
		if dev.Properties().Kind == gpu.CUDA && bits == 32 && d > 8 {
			precisions = append(precisions, kernel.TF32, kernel.BF16x3)
		}
		for _, p := range precisions {
			if err := measure[T](ctx, s, dev, job{workers, n, d, bits, p, limits}); err != nil {
				return err
			}
		}
	}
	return nil
}

// job is a shape of pairs in a precision.
type job struct {
	workers, n, d, bits int
	precision           kernel.Precision
	limits              *Ceilings
}

func measure[T number](ctx context.Context, s *Session, dev gpu.Device, j job) error {
	host := newPairs[T](j.n, j.d)
	var free []tensor.Tensor
	defer func() {
		for _, t := range free {
			t.Free()
		}
	}()
	var failed error
	put := func(v []T, shape ...int) tensor.Tensor {
		t, err := upload(dev, v, shape...)
		failed = errors.Join(failed, err)
		free = append(free, t)
		return t
	}
	p := kernel.Pairs{Epsilon: host.eps, Precision: j.precision, G: put(host.g, host.m), LogB: put(host.logb, host.m)}
	if j.d == 0 {
		p.Cost, p.Matrix = kernel.Matrix, put(host.matrix, host.n, host.m)
	} else {
		p.X, p.Y = put(host.x, host.n, j.d), put(host.y, host.m, j.d)
	}
	loga := make([]T, host.n)
	for i := range loga {
		loga[i] = T(-math.Log(float64(host.n)))
	}
	a := kernel.SweepArgs{LogA: put(loga, host.n), Damp: 1, Out: put(make([]T, host.n), host.n)}
	col, err := tensor.From(dev, make([]float64, host.m), host.m)
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	free = append(free, col)
	a.Col = col

	atLeast := 2 * time.Second
	if s.Quick {
		atLeast = 0
	}
	precision := fmt.Sprintf("f%d", j.bits)
	if j.precision != kernel.Native {
		precision = j.precision.String()
	}
	for _, op := range []struct {
		name string
		run  func() error
	}{
		{"softmin", func() error { return p.Softmin(dev, a.Out) }},
		{"sweep", func() error { return p.Sweep(dev, a) }},
	} {
		r := Row{
			Name: op.name, Engine: Fortet, Status: OK,
			Work: Work{N: host.n, M: host.m, D: j.d, Epsilon: 0.05, Precision: precision, Workers: j.workers},
		}
		// Outputs are poisoned, so that an operation that does nothing is wrong.
		if err := poison(a.Out, a.Col, host.n, host.m); err != nil {
			return err
		}
		times, err := repeat(ctx, atLeast, func() error { return errors.Join(op.run(), dev.Sync()) })
		if errors.Is(err, gpu.ErrUnsupported) {
			fmt.Fprintf(s.Log, "%s %v: %v\n", op.name, r.Work, err)
			continue
		}
		if err != nil {
			return err
		}
		r.Seconds = Sum(times)
		out, cols := make([]T, host.n), make([]float64, host.m)
		if err := errors.Join(download(a.Out, out), tensor.Get(a.Col, cols)); err != nil {
			return err
		}
		worst, budget := compareSoftmin(host, out)
		if op.name == "sweep" {
			worst2, budget2 := compareColumns(host, out, cols)
			worst, budget = maxNaN(worst, worst2), maxNaN(budget, budget2)
		}
		switch j.precision { // the unit roundoff of products, instead of float32's
		case kernel.TF32:
			budget *= 0x1p-11 / 0x1p-24
		case kernel.BF16x3:
			budget *= 0x1p-16 / 0x1p-24
		}
		r.Error, r.Budget = &worst, budget
		if j.limits != nil {
			r.Limit = j.limits.pairsLimit(host.n, host.m, j.d, j.bits/8)
		}
		s.add(r)
	}
	return nil
}

// newPairs is a problem of n×n pairs at ε = 0.05 of the mean cost, with
// potentials of its size. d = 0 is a matrix of distances in two dimensions.
func newPairs[T number](n, d int) *pairs[T] {
	dim := max(d, 2)
	x, y := clouds(n, n, dim)
	p := &pairs[T]{n: n, m: n, d: dim, x: convert[T](x), y: convert[T](y), eps: 0.05 * meanCost(x, y, dim)}
	r := rand.New(rand.NewPCG(1, 2))
	p.g, p.logb = make([]T, n), make([]T, n)
	for j := range n {
		p.g[j], p.logb[j] = T(3*p.eps*r.NormFloat64()), T(-math.Log(float64(n)))
	}
	if d == 0 {
		p.matrix = make([]T, n*n)
		for i := range n {
			for j := range n {
				u, v := x[2*i]-y[2*j], x[2*i+1]-y[2*j+1]
				p.matrix[i*n+j] = T(u*u + v*v)
			}
		}
	}
	return p
}

func convert[T number](v []float64) []T {
	w := make([]T, len(v))
	for i, x := range v {
		w[i] = T(x)
	}
	return w
}

// upload and download pass a slice of either type to tensor.
func upload[T number](dev gpu.Device, v []T, shape ...int) (tensor.Tensor, error) {
	switch v := any(v).(type) {
	case []float32:
		return tensor.From(dev, v, shape...)
	case []float64:
		return tensor.From(dev, v, shape...)
	}
	panic("unreachable")
}

func download[T number](t tensor.Tensor, v []T) error {
	if v, ok := any(v).([]float32); ok {
		return tensor.Get(t, v)
	}
	return tensor.Get(t, any(v).([]float64))
}

// poison fills the results with NaN.
func poison(out, col tensor.Tensor, n, m int) error {
	nan, nan32 := make([]float64, max(n, m)), make([]float32, n)
	for i := range nan {
		nan[i] = math.NaN()
	}
	for i := range nan32 {
		nan32[i] = float32(math.NaN())
	}
	if out.DType() == tensor.Float32 {
		return errors.Join(tensor.Set(out, nan32), tensor.Set(col, nan[:m]))
	}
	return errors.Join(tensor.Set(out, nan[:n]), tensor.Set(col, nan[:m]))
}

// ceilings are those of the CPU as measured now, or of a GPU that is known.
// nil where neither is.
func ceilings(dev gpu.Device, workers, bits int, quick bool) (*Ceilings, error) {
	props := dev.Properties()
	switch {
	case props.Kind == gpu.CPU && !quick:
		level, err := gpu.ParseLevel(props.Features)
		if err != nil {
			return nil, err
		}
		c, err := measureCeilings(level, workers, bits)
		return &c, err
	case props.Kind == gpu.CUDA && strings.Contains(props.Model, "H100") && bits == 32:
		// NVIDIA H100 SXM5 datasheet: 66.9 TFLOP/s float32, 3.35 TB/s. 16
		// exponentials a cycle on each of 132 multiprocessors at 1.755 GHz.
		return &Ceilings{Flops: 66.9e12, Exps: 3.7e12, Bytes: 3.35e12, Source: "H100 SXM5 datasheet"}, nil
	}
	return nil, nil
}
