package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/tensor"
)

// Proximal is the inverse of the transport map of a Schrödinger-Bass bridge: a
// Newton method for every row.
func (families) Proximal() Family {
	f := Family{Name: "proximal", Kernel: "proximal"}
	for _, s := range [][2]int{{50, 2}, {10, 512}} {
		f.Variants = append(f.Variants, proximalVariant(s[0], s[1]))
	}
	return f
}

func proximalVariant(k, d int) Variant {
	sizes := []int{64, 512, 4096, 32768}
	if d > 8 {
		sizes = []int{16, 128, 512, 2048}
	}
	const beta, t = 10, 0.4
	// steps are those of a row, beside the evaluation at its start.
	work := func(s Setting, steps float64) Cost {
		c := evaluations(s, fmt.Sprintf("%.3gn", 1+steps), (1+steps)*float64(s.Size), k, d)
		c.Written = count(fmt.Sprintf("%dnd", s.element()), s.element(), s.Size, d)
		return c
	}
	return Variant{
		Name: "proximal map", Shape: mixtureShape(k, d), Unit: "rows", Sizes: sizes, Typical: 512,
		Work: func(s Setting) Work {
			return Work{N: s.Size, D: d, K: k, Settings: fmt.Sprintf("β=%d, t=%g", beta, t)}
		},
		Cost: func(s Setting) Cost { return work(s, 4) },
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			a := newStage(dev, s)
			m, x := a.mixture(k, d), a.normals(s.Size, d)
			args := proximal.Args{
				Mixture: m.Mixture, X: x, T0: t, Beta: beta, Y: a.out(s.Size, d),
				Iterations: a.outOf(tensor.Int32, s.Size),
			}
			if a.err == nil {
				a.err = proximal.Solve(args)
			}
			cost := work(s, 0)
			if a.err == nil {
				steps, err := tensor.Values[int32](args.Iterations)
				a.err = err
				total := 0.0
				for _, n := range steps {
					total += float64(n)
				}
				cost = work(s, total/float64(s.Size))
			}
			tolerance := 1e-5
			if s.DType == tensor.Float64 {
				tolerance = 1e-10
			}
			return a.finish(&Case{
				Cost: &cost,
				Run:  func() error { return proximal.Solve(args) },
				Check: func() (float64, float64, error) {
					var v verdict
					for _, i := range sample(s.Size) {
						hx, y := a.rows(x, i, i+1), a.rows(args.Y, i, i+1)
						// y + g(t, y)/β = x to the tolerance and the rounding of g and of y.
						g, size := m.drift(t, y)
						off, norm, rounding := 0.0, 0.0, 0.0
						for j := range y {
							r := y[j] + g[j]/beta - hx[j]
							off += r * r
							norm += hx[j] * hx[j]
							e := unit(s.DType) * roundings * (math.Abs(y[j]) + math.Abs(hx[j]) + size[j]/beta)
							rounding += e * e
						}
						v.compare(math.Sqrt(off), 0, tolerance*max(1, math.Sqrt(norm))+math.Sqrt(rounding))
					}
					return v.end(a)
				},
			})
		},
	}
}
