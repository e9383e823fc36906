package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/ou"
	"github.com/fortet/fortet/kernels/philox"
)

// OU is the transition of a diagonal Ornstein-Uhlenbeck process with its score,
// what a step of denoising score matching draws.
func (families) OU() Family {
	f := Family{Name: "ou", Kernel: "ou"}
	for _, d := range []int{2, 64} {
		f.Variants = append(f.Variants, Variant{
			Name: "ou transition", Shape: fmt.Sprintf("d=%d", d), Unit: "rows", Sizes: rowsOf(d), Typical: streamed / d,
			Work: func(s Setting) Work { return Work{N: s.Size, D: d} },
			Cost: func(s Setting) Cost {
				return Cost{
					Flops: count("4nd", 4, s.Size, d), Exps: count("2nd", 2, s.Size, d), Integers: philoxWork(s, d),
					Read:    count(fmt.Sprintf("%dnd", s.element()), s.element(), s.Size, d),
					Written: count(fmt.Sprintf("%dnd", 2*s.element()), 2*s.element(), s.Size, d),
				}
			},
			Open: func(dev gpu.Device, s Setting) (*Case, error) {
				a, n := newStage(dev, s), s.Size
				rates := make([]float64, d)
				for j := range rates {
					rates[j] = 0.5 + float64(j)/float64(d)
				}
				x0, lambda := a.normals(n, d), a.put(rates, d)
				xt, score := a.out(n, d), a.out(n, d)
				args := ou.Args{X0: x0, Lambda: lambda, B0: 0.8, Xt: xt, Score: score, Draw: philox.Draw{Seed: 8, Step: 2}}
				return a.finish(&Case{
					Run: func() error { return ou.Transition(args) },
					Check: func() (float64, float64, error) {
						var v verdict
						for _, span := range spans(n) {
							h, gotX, gotS := a.rows(x0, span[0], span[1]), a.rows(xt, span[0], span[1]), a.rows(score, span[0], span[1])
							for i := range h {
								l := rates[i%d]
								factor, deviation := math.Exp(-args.B0*l/2), math.Sqrt(-math.Expm1(-args.B0*l)/l)
								z, off := drawNormal(args.Draw, s.DType, span[0]+i/d, i%d)
								// λ itself is rounded, and with it factor and deviation.
								rel := 2 * roundings * unit(s.DType)
								v.compare(gotX[i], factor*h[i]+deviation*z, rel*(factor*math.Abs(h[i])+deviation*math.Abs(z))+deviation*off)
								v.compare(gotS[i], -z/deviation, rel*math.Abs(z)/deviation+off/deviation)
							}
						}
						return v.end(a)
					},
				})
			},
		})
	}
	return f
}
