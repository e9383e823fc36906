package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/fdual"
	"github.com/fortet/fortet/tensor"
)

// FDual is the update of f-divergence transport: for every row the root of a
// scalar equation over its pairs, here for the Jensen-Shannon divergence.
func (families) FDual() Family {
	const d = 3
	// steps are the evaluations of a row's sum.
	work := func(s Setting, steps float64) Cost {
		pairs := steps * float64(s.Size) * float64(s.Size)
		times := fmt.Sprintf("%.3gnm", steps)
		return Cost{
			Flops: Count{(2*d + 8) * pairs, fmt.Sprint(2*d+8) + "·" + times}, Exps: Count{pairs, times},
			Read:    count(fmt.Sprintf("%d(n+m)d", s.element()), s.element(), 2, s.Size, d),
			Written: count(fmt.Sprintf("%dn", s.element()), s.element(), s.Size),
		}
	}
	return Family{Name: "fdual", Kernel: "fdual", Variants: []Variant{{
		Name: "Jensen-Shannon update", Shape: "d=3", Unit: "points a side", Sizes: []int{64, 256, 1024, 4096}, Typical: 1024,
		Work: func(s Setting) Work { return Work{N: s.Size, M: s.Size, D: d} },
		Cost: func(s Setting) Cost { return work(s, 6) },
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			a, n := newStage(dev, s), s.Size
			const slope = 1.5 // 1/ε
			x, y, q := a.normals(n, d), a.normals(d, n), a.normals(n)
			p := fdual.Pairs{X: x, YT: y, Q: q, Slope: slope, Shift: -math.Log(float64(n)), Law: fdual.JensenShannon}
			args := fdual.RowsArgs{P: a.out(n), Steps: a.outOf(tensor.Int32, n)}
			if a.err == nil {
				a.err = p.Rows(dev, args)
			}
			cost := work(s, 1)
			if a.err == nil {
				steps, err := tensor.Values[int32](args.Steps)
				a.err = err
				total := 0.0
				for _, k := range steps {
					total += float64(k)
				}
				cost = work(s, total/float64(n))
			}
			return a.finish(&Case{
				Cost: &cost,
				Run:  func() error { return p.Rows(dev, args) },
				Check: func() (float64, float64, error) {
					// The sum of a row is one: Σ_j φ(p + q_j + c_ij/ε)/m with
					// φ = 1/(e^z - 1), whose rate is φ(1 + φ).
					var v verdict
					hy, hq := a.every(y), a.every(q)
					for _, i := range sample(n) {
						hx, root := a.rows(x, i, i+1), a.rows(args.P, i, i+1)[0]
						sum, budget := 0.0, 1.0
						for j := range n {
							c := 0.0
							for k := range d {
								c += (hx[k] - hy[k*n+j]) * (hx[k] - hy[k*n+j])
							}
							phi := 1 / math.Expm1(root+hq[j]+slope*c) / float64(n)
							sum += phi
							budget += phi * (1 + phi*float64(n)) * (math.Abs(root) + math.Abs(hq[j]) + (d+4)*slope*c)
						}
						v.compare(sum, 1, 2*roundings*unit(s.DType)*budget)
					}
					return v.end(a)
				},
			})
		},
	}}}
}
