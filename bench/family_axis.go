package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/axis"
)

// Axis is the log-sum-exp along one axis of a grid of three, by which a heat
// kernel is applied: along the last axis, whose elements follow each other, and
// along the first.
func (families) Axis() Family {
	f := Family{Name: "axis", Kernel: "axis"}
	for _, first := range []bool{false, true} {
		shape := "last of three"
		if first {
			shape = "first of three"
		}
		f.Variants = append(f.Variants, Variant{
			Name: "log-sum-exp along an axis", Shape: shape, Unit: "points an axis", Sizes: []int{16, 32, 64, 128, 256}, Typical: 64,
			Work: func(s Setting) Work {
				return Work{N: s.Size, M: s.Size, D: 3, Settings: "along the " + shape + " axes"}
			},
			// A product of matrices of exponentials, and a logarithm of each sum.
			Cost: func(s Setting) Cost {
				n, e := s.Size, s.element()
				return Cost{
					Matrix: count("2n⁴", 2, n, n, n, n), Exps: count("2n³", 2, n, n, n),
					Read: count(fmt.Sprintf("%dn³", e), e, n, n, n), Written: count(fmt.Sprintf("%dn³", e), e, n, n, n),
				}
			},
			Open: func(dev gpu.Device, s Setting) (*Case, error) { return openAxis(dev, s, first) },
		})
	}
	return f
}

func openAxis(dev gpu.Device, s Setting, first bool) (*Case, error) {
	a, n := newStage(dev, s), s.Size
	outer, inner := n*n, 1
	if first {
		outer, inner = 1, n*n
	}
	kernel := make([]float64, n*n)
	deviation := float64(n) / 8
	for i := range n {
		for j := range n {
			kernel[i*n+j] = -float64((i-j)*(i-j)) / (2 * deviation * deviation)
		}
	}
	in, logk, out := a.normals(outer, n, inner), a.put(kernel, n, n), a.out(outer, n, inner)
	return a.finish(&Case{
		Run: func() error { return axis.LogSumExp(axis.Args{In: in, LogK: logk, Out: out}) },
		Check: func() (float64, float64, error) {
			var v verdict
			hk := a.every(logk)
			block := func(o int) (x, y []float64) { return a.rows(in, o, o+1), a.rows(out, o, o+1) }
			x, y := block(0)
			for _, o := range sample(outer * inner) {
				if !first {
					x, y = block(o)
				}
				r := o % inner
				for _, i := range sample(n) {
					sum, size, most := 0.0, 0.0, math.Inf(-1)
					for j := range n {
						most = max(most, hk[i*n+j]+x[j*inner+r])
					}
					for j := range n {
						e := math.Exp(hk[i*n+j] + x[j*inner+r] - most)
						sum += e
						size += e * (math.Abs(hk[i*n+j]) + math.Abs(x[j*inner+r]))
					}
					want := most + math.Log(sum)
					v.compare(y[i*inner+r], want, roundings*unit(s.DType)*(1+2*size/sum+math.Abs(want)))
				}
			}
			return v.end(a)
		},
	})
}
