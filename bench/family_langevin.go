package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/langevin"
	"github.com/fortet/fortet/kernels/philox"
)

// Langevin is a step of the unadjusted Langevin algorithm: points and score are
// read, new points are written, noise is drawn on the way.
func (families) Langevin() Family {
	f := Family{Name: "langevin", Kernel: "langevin"}
	for _, d := range []int{2, 64} {
		f.Variants = append(f.Variants, Variant{
			Name: "langevin step", Shape: fmt.Sprintf("d=%d", d), Unit: "rows", Sizes: rowsOf(d), Typical: streamed / d,
			Work: func(s Setting) Work { return Work{N: s.Size, D: d} },
			Cost: func(s Setting) Cost {
				return Cost{
					Flops: count("5nd", 5, s.Size, d), Exps: count("2nd", 2, s.Size, d), Integers: philoxWork(s, d),
					Read:    count(fmt.Sprintf("%dnd", 2*s.element()), 2*s.element(), s.Size, d),
					Written: count(fmt.Sprintf("%dnd", s.element()), s.element(), s.Size, d),
				}
			},
			Open: func(dev gpu.Device, s Setting) (*Case, error) {
				a, n := newStage(dev, s), s.Size
				y, score, out := a.normals(n, d), a.normals(n, d), a.out(n, d)
				args := langevin.Args{Y: y, Score: score, Out: out, Eta: 0.05, Temperature: 0.7, Draw: philox.Draw{Seed: 7, Step: 9}}
				return a.finish(&Case{
					Run: func() error { return langevin.Step(args) },
					Check: func() (float64, float64, error) {
						var v verdict
						scale := math.Sqrt(2 * args.Eta * args.Temperature)
						for _, span := range spans(n) {
							hy, hs, got := a.rows(y, span[0], span[1]), a.rows(score, span[0], span[1]), a.rows(out, span[0], span[1])
							for i := range got {
								z, off := drawNormal(args.Draw, s.DType, span[0]+i/d, i%d)
								// Each of the terms and the sums is rounded, and the constants were.
								size := math.Abs(hy[i]) + args.Eta*math.Abs(hs[i]) + scale*math.Abs(z)
								v.compare(got[i], hy[i]+args.Eta*hs[i]+scale*z, roundings*unit(s.DType)*size+scale*off)
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

// rowsOf are row counts of arrays (n, d) from 2¹² to 2²⁶ elements. Those of 2²⁴
// are more than a CPU's caches hold, and those of 2²⁶ than any cache; smaller ones
// stay in it, as they do between the steps of a sampler.
func rowsOf(d int) []int {
	return []int{1 << 12 / d, 1 << 15 / d, 1 << 18 / d, 1 << 21 / d, streamed / d, 1 << 26 / d}
}

// streamed is the number of elements at which a CPU's memory is what is measured.
const streamed = 1 << 24
