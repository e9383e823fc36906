package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/cost"
)

// Cost is matrices of ground costs.
func (families) Cost() Family {
	f := Family{Name: "cost", Kernel: "cost"}
	for _, v := range []struct {
		kind cost.Kind
		d    int
	}{{cost.SqEuclidean, 2}, {cost.SqEuclidean, 64}, {cost.Cosine, 64}} {
		f.Variants = append(f.Variants, costVariant(v.kind, v.d))
	}
	return f
}

func costVariant(kind cost.Kind, d int) Variant {
	return Variant{
		Name: kind.String() + " cost", Shape: fmt.Sprintf("d=%d", d), Unit: "points a side", Sizes: []int{128, 512, 2048, 4096, 8192}, Typical: 4096,
		Work: func(s Setting) Work { return Work{N: s.Size, M: s.Size, D: d} },
		Cost: func(s Setting) Cost {
			return Cost{
				Flops:   count("3dnm", 3, d, s.Size, s.Size),
				Read:    count(fmt.Sprintf("%d(n+m)d", s.element()), s.element(), 2, s.Size, d),
				Written: count(fmt.Sprintf("%dnm", s.element()), s.element(), s.Size, s.Size),
			}
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			a, n := newStage(dev, s), s.Size
			x, y := a.normals(n, d), a.normals(n, d)
			out := a.out(n, n)
			return a.finish(&Case{
				Run: func() error { return cost.Evaluate(cost.Args{X: x, Y: y, Out: out, Cost: kind}) },
				Check: func() (float64, float64, error) {
					var v verdict
					hy := a.every(y)
					for _, i := range sample(n) {
						hx, got := a.rows(x, i, i+1), a.rows(out, i, i+1)
						for _, j := range sample(n) {
							want := groundCost(kind, hx, hy[j*d:(j+1)*d])
							// d squares and as many sums, a root, a quotient and the last rounding.
							v.compare(got[j], want, float64(d+8)*unit(s.DType)*want)
						}
					}
					return v.end(a)
				},
			})
		},
	}
}

// groundCost is a cost by its definition.
func groundCost(kind cost.Kind, x, y []float64) float64 {
	var diff, xy, xx, yy float64
	for k := range x {
		diff += (x[k] - y[k]) * (x[k] - y[k])
		xy, xx, yy = xy+x[k]*y[k], xx+x[k]*x[k], yy+y[k]*y[k]
	}
	switch kind {
	case cost.SqEuclidean:
		return diff
	case cost.HalfSqEuclidean:
		return diff / 2
	case cost.Euclidean:
		return math.Sqrt(diff)
	case cost.Cosine:
		return 1 - xy/math.Sqrt(xx*yy)
	}
	panic("unreachable")
}
