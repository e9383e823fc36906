package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/adam"
)

// Adam is a step on a flat vector of parameters.
func (families) Adam() Family {
	const step = 10
	rate, beta1, beta2, tiny := 1e-3, 0.9, 0.999, 1e-8 // no constants: 1 - β is that of rounded ones
	// rest is 1 - βᵗ = (1 - β) Σ_{i<t} βⁱ, in which nothing cancels.
	rest := func(beta float64) float64 {
		sum, power := 0.0, 1.0
		for range step {
			sum, power = sum+power, power*beta
		}
		return (1 - beta) * sum
	}
	return Family{Name: "adam", Kernel: "adam", Variants: []Variant{{
		Name: "adam step", Unit: "parameters", Sizes: rowsOf(1), Typical: streamed,
		Work: func(s Setting) Work { return Work{N: s.Size} },
		Cost: func(s Setting) Cost {
			return Cost{
				Flops: count("12n", 12, s.Size), Exps: count("n", s.Size),
				Read:    count(fmt.Sprintf("%dn", 4*s.element()), 4*s.element(), s.Size),
				Written: count(fmt.Sprintf("%dn", 3*s.element()), 3*s.element(), s.Size),
			}
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			a, n := newStage(dev, s), s.Size
			p0, g, m0, root := a.normals(n), a.normals(n), a.normals(n), a.normals(n)
			if a.err != nil {
				return a.finish(&Case{})
			}
			// Second moments are squares.
			h := a.every(root)
			for i := range h {
				h[i] *= h[i]
			}
			v0 := a.put(h, n)
			p, m, v := a.state(p0), a.state(m0), a.state(v0)
			return a.finish(&Case{
				Run: func() error {
					return adam.Step(adam.Args{
						Params: p, Gradient: g, First: m, Second: v, Step: step, Rate: rate, Beta1: beta1, Beta2: beta2, Epsilon: tiny,
					})
				},
				Check: func() (float64, float64, error) {
					var verdict verdict
					u := roundings * unit(s.DType)
					for _, span := range spans(n) {
						read := [4][]float64{a.rows(p0, span[0], span[1]), a.rows(g, span[0], span[1]), a.rows(m0, span[0], span[1]), a.rows(v0, span[0], span[1])}
						gotP, gotM, gotV := a.rows(p, span[0], span[1]), a.rows(m, span[0], span[1]), a.rows(v, span[0], span[1])
						for i := range gotP {
							p, g, m, v := read[0][i], read[1][i], read[2][i], read[3][i]
							first, second := beta1*m+(1-beta1)*g, beta2*v+(1-beta2)*g*g
							size := beta1*math.Abs(m) + (1-beta1)*math.Abs(g)
							scale := rate / rest(beta1) / (math.Sqrt(second/rest(beta2)) + tiny)
							verdict.compare(gotM[i], first, u*size)
							verdict.compare(gotV[i], second, u*second)
							verdict.compare(gotP[i], p-scale*first, u*(math.Abs(p)+2*scale*size))
						}
					}
					return verdict.end(a)
				},
			})
		},
	}}}
}
