package geometry

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/cost"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

// pairs is the operator of points or of a matrix on a device.
type pairs struct {
	dev        gpu.Device
	dtype      tensor.DType
	n, m, d    int
	cost       Cost
	x, y       tensor.Tensor // of points
	matrix     tensor.Tensor // given or cached
	given      Matrix        // what matrix was uploaded from; zero for points
	transposed *pairs
	borrowed   bool // x and y belong to the operator that this one transposes
}

// defaultCache is how much a cached cost may take where Options do not say.
const defaultCache = 1 << 30

// cacheWins decides whether reading a cost from memory beats computing it
// again. A streamed pair costs d multiply-adds, a cached one a read of memory.
// The dimensions at which both take the same time were measured by
// BenchmarkCacheCrossover; they are a rule and not a measurement at run time
// so that results repeat to the bit.
func cacheWins(kind gpu.Kind, dtype tensor.DType, p Points, o Options) bool {
	limit := o.CacheBytes
	if limit == 0 {
		limit = defaultCache
	}
	if int64(p.N) > limit/int64(p.M)/int64(dtype.Size()) {
		return false
	}
	if kind != gpu.CPU {
		return p.D >= 512
	}
	return p.D >= 12
}

// cache computes the cost matrix. Where there is no room for it, the operator
// goes on without.
func (p *pairs) cache() error {
	c, err := tensor.New(p.dev, p.dtype, p.n, p.m)
	if err != nil {
		return nil
	}
	kinds := map[Cost]cost.Kind{SqEuclidean: cost.SqEuclidean, HalfSqEuclidean: cost.HalfSqEuclidean, Euclidean: cost.Euclidean}
	if err := cost.Evaluate(cost.Args{X: p.x, Y: p.y, Out: c, Cost: kinds[p.cost]}); err != nil {
		c.Free()
		return fmt.Errorf("geometry: cache: %w", err)
	}
	p.matrix = c
	return nil
}

// kernel is the argument of the softmin kernels.
func (p *pairs) kernel(g, logb tensor.Tensor, epsilon float64, points bool) softmin.Pairs {
	k := softmin.Pairs{G: g, LogB: logb, Epsilon: epsilon}
	if !p.matrix.IsZero() && !points {
		k.Matrix, k.Cost = p.matrix, softmin.Matrix
		return k
	}
	k.X, k.Y = p.x, p.y
	switch p.cost {
	case SqEuclidean:
		k.Cost = softmin.SqEuclidean
	case HalfSqEuclidean:
		k.Cost = softmin.HalfSqEuclidean
	case Euclidean:
		k.Cost = softmin.Euclidean
	}
	return k
}

func (p *pairs) Softmin(out, g, logb tensor.Tensor, epsilon float64) error {
	return p.kernel(g, logb, epsilon, false).Softmin(p.dev, out)
}

func (p *pairs) Sweep(out, col, g, loga, logb tensor.Tensor, damp, epsilon float64) error {
	return p.kernel(g, logb, epsilon, false).Sweep(p.dev, softmin.SweepArgs{LogA: loga, Damp: damp, Out: out, Col: col})
}

func (p *pairs) Apply(a Apply, epsilon float64) error {
	points := !a.Grad.IsZero() // a matrix has no gradient
	return p.kernel(a.G, a.LogB, epsilon, points).Apply(p.dev, softmin.ApplyArgs{
		F: a.F, V: a.V, Mass: a.Mass, Mean: a.Mean, R: a.R, Grad: a.Grad,
	})
}

func (p *pairs) Transposed() (Operator, error) {
	if p.transposed != nil {
		return p.transposed, nil
	}
	t := &pairs{dev: p.dev, dtype: p.dtype, n: p.m, m: p.n, d: p.d, cost: p.cost, x: p.y, y: p.x, borrowed: true}
	if p.cost == GivenMatrix {
		var err error
		g := p.given.Transpose().(Matrix)
		if t.matrix, err = upload(p.dev, p.dtype, g.C, g.N, g.M); err != nil {
			return nil, err
		}
		t.given = g
	}
	p.transposed = t
	return t, nil
}

func (p *pairs) Cached() bool { return !p.matrix.IsZero() }

func (p *pairs) Close() {
	if p.transposed != nil {
		p.transposed.Close()
	}
	if !p.borrowed {
		p.x.Free()
		p.y.Free()
	}
	p.matrix.Free()
	p.x, p.y, p.matrix, p.transposed = tensor.Tensor{}, tensor.Tensor{}, tensor.Tensor{}, nil // closing twice is harmless
}
