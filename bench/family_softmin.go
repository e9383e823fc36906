package bench

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/fortet/fortet/gpu"
	kernel "github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

// Softmin is the log-sum-exp over all pairs and the sweep, which is both halves
// of a Sinkhorn iteration, over points and over a cost matrix (d = 0).
func (families) Softmin() Family {
	f := Family{Name: "softmin", Kernel: "softmin"}
	for _, d := range []int{2, 3, 64, 512, 0} {
		f.Variants = append(f.Variants, pairsVariant("softmin", d), pairsVariant("sweep", d))
	}
	return f
}

// pairsEpsilon is ε in units of the mean cost.
const pairsEpsilon = 0.05

func pairsVariant(name string, d int) Variant {
	v := Variant{
		Name: name, Shape: fmt.Sprintf("d=%d", d), Unit: "points a side",
		Sizes: []int{64, 256, 1024, 4096, 16384}, Typical: 4096, Tensor: d > 8,
		Work: func(s Setting) Work { return Work{N: s.Size, M: s.Size, D: d, Epsilon: pairsEpsilon} },
		Cost: func(s Setting) Cost {
			n, e := s.Size, s.element()
			c := Cost{Exps: count("nm", n, n), Written: count(fmt.Sprintf("%dn", e), e, n)}
			flops, points := count("2dnm", 2, d, n, n), count(fmt.Sprintf("%d(n+m)d", e), e, 2, n, d)
			switch {
			case d == 0:
				c.Read = count(fmt.Sprintf("%dnm", e), e, n, n)
			case d > 8:
				c.Matrix, c.Read = flops, points
			default:
				c.Flops, c.Read = flops, points
			}
			if name == "sweep" {
				c.Written = c.Written.plus(count("8m", 8, n))
			}
			return c
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			if s.DType == tensor.Float32 {
				return openPairs[float32](dev, s, name, d)
			}
			return openPairs[float64](dev, s, name, d)
		},
	}
	if d == 0 { // beyond, a matrix takes gigabytes
		v.Shape, v.Sizes = "matrix", []int{64, 256, 1024, 4096, 8192}
	}
	return v
}

func openPairs[T number](dev gpu.Device, s Setting, name string, d int) (*Case, error) {
	a, n, host := newStage(dev, s), s.Size, newPairs[T](s.Size, d)
	put := func(v []T, shape ...int) tensor.Tensor {
		if a.err != nil {
			return tensor.Tensor{}
		}
		return a.keep(upload(dev, v, shape...))
	}
	p := kernel.Pairs{Epsilon: host.eps, G: put(host.g, n), LogB: put(host.logb, n)}
	switch s.Precision {
	case TF32:
		p.Precision = kernel.TF32
	case BF16x3:
		p.Precision = kernel.BF16x3
	}
	if d == 0 {
		p.Cost, p.Matrix = kernel.Matrix, put(host.matrix, n, n)
	} else {
		p.X, p.Y = put(host.x, n, d), put(host.y, n, d)
	}
	out := a.out(n)
	c := &Case{Run: func() error { return p.Softmin(dev, out) }}
	sweep := kernel.SweepArgs{Damp: 1, Out: out}
	if name == "sweep" {
		loga := make([]T, n)
		for i := range loga {
			loga[i] = T(-math.Log(float64(n)))
		}
		sweep.LogA, sweep.Col = put(loga, n), a.outOf(tensor.Float64, n)
		c.Run = func() error { return p.Sweep(dev, sweep) }
	}
	c.Check = func() (worst, budget float64, err error) {
		got := make([]T, n)
		if err := download(out, got); err != nil {
			return 0, 0, err
		}
		worst, budget = compareSoftmin(host, got)
		if name == "sweep" {
			col := make([]float64, n)
			if err := tensor.Get(sweep.Col, col); err != nil {
				return 0, 0, err
			}
			worst2, budget2 := compareColumns(host, got, col)
			worst, budget = maxNaN(worst, worst2), maxNaN(budget, budget2)
		}
		return worst, budget * coarser(s.Precision), nil
	}
	return a.finish(c)
}

// coarser is the unit roundoff of products in a precision over that of float32.
func coarser(p Precision) float64 {
	switch p {
	case TF32:
		return 0x1p-11 / 0x1p-24
	case BF16x3:
		return 0x1p-16 / 0x1p-24
	}
	return 1
}

// newPairs is a problem of n×n pairs with potentials of the size of ε. d = 0 is
// a matrix of distances in two dimensions.
func newPairs[T number](n, d int) *pairs[T] {
	dim := max(d, 2)
	x, y := clouds(n, n, dim)
	p := &pairs[T]{n: n, m: n, d: dim, x: convert[T](x), y: convert[T](y), eps: pairsEpsilon * meanCost(x, y, dim)}
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
