package bench

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/ensemble"
	"github.com/fortet/fortet/tensor"
)

// Ensemble is many small problems of entropic transport, solved in one launch.
func (families) Ensemble() Family {
	const n, d = 64, 2
	const epsilon, tolerance = 0.05, 1e-6
	// A sweep multiplies with a problem's matrix twice.
	work := func(s Setting, sweeps, matrices float64) Cost {
		pairs := float64(s.Size) * n * n
		return Cost{
			Flops: Count{4 * sweeps * pairs, fmt.Sprintf("4·%.3g·Pnm", sweeps)},
			Exps:  Count{matrices * pairs, fmt.Sprintf("%.3gPnm", matrices)},
			Read:  count("16P(n+m)d", 8, 2*s.Size, n, d), Written: count("8P(n+m)", 8, 2*s.Size, n),
		}
	}
	return Family{Name: "ensemble", Kernel: "ensemble", Variants: []Variant{{
		Name: "small problems", Shape: fmt.Sprintf("n=%d d=%d", n, d), Unit: "problems", Sizes: []int{4, 32, 256, 2048}, Typical: 256,
		Work: func(s Setting) Work {
			return Work{N: n, M: n, D: d, Problems: s.Size, Epsilon: epsilon, Settings: fmt.Sprintf("to a residual of %g", tolerance)}
		},
		Cost: func(s Setting) Cost { return work(s, 20, 4) },
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			data := s
			data.DType = tensor.Float64
			a, problems := newStage(dev, data), s.Size
			sizes, eps := make([]int, problems), make([]float64, problems)
			for p := range sizes {
				sizes[p], eps[p] = n, epsilon
			}
			layout, err := ensemble.NewLayout(dev, sizes, sizes)
			if err != nil {
				return nil, err
			}
			args := ensemble.Args{
				Layout: layout, X: a.normals(problems*n, d), Y: a.normals(problems*n, d), Epsilon: a.put(eps, problems), PerMean: true,
				F: a.out(problems * n), G: a.out(problems * n), Values: a.out(problems, ensemble.Values),
				Counts: a.outOf(tensor.Int32, problems, ensemble.Counts), Sweeps: s.DType, Tolerance: tolerance, MaxSweeps: 2000,
			}
			if a.err == nil {
				a.err = ensemble.Solve(args)
			}
			cost := work(s, 1, 1)
			if a.err == nil {
				counts, err := tensor.Values[int32](args.Counts)
				a.err = err
				sweeps, matrices := 0.0, 0.0
				for p := range problems {
					sweeps += float64(counts[p*ensemble.Counts+ensemble.Sweeps]) / float64(problems)
					matrices += float64(counts[p*ensemble.Counts+ensemble.Matrices]) / float64(problems)
				}
				cost = work(s, sweeps, matrices)
			}
			if a.err != nil {
				layout.Free()
			}
			return a.finish(&Case{
				Cost: &cost, Free: layout.Free,
				Run: func() error { return ensemble.Solve(args) },
				Check: func() (float64, float64, error) {
					var v verdict
					for _, p := range sample(problems) {
						lo, hi := p*n, (p+1)*n
						x, y := a.rows(args.X, lo, hi), a.rows(args.Y, lo, hi)
						f, g := a.rows(args.F, lo, hi), a.rows(args.G, lo, hi)
						eps := a.rows(args.Values, p, p+1)[ensemble.Epsilon]
						mean := 0.0
						for i := range n {
							for j := range n {
								mean += squaredDistance(x[i*d:(i+1)*d], y[j*d:(j+1)*d]) / (n * n)
							}
						}
						v.compare(eps, epsilon*mean, 1e-12*mean)
						// Both marginals in L1: f is exact, g at the tolerance.
						v.compare(Residual(x, y, d, f, g, eps), 0, 1.1*tolerance)
					}
					return v.end(a)
				},
			})
		},
	}}}
}

func squaredDistance(x, y []float64) float64 {
	sum := 0.0
	for k := range x {
		sum += (x[k] - y[k]) * (x[k] - y[k])
	}
	return sum
}
