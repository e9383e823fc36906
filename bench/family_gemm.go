package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gemm"
)

// GEMM is the product of square matrices.
func (families) GEMM() Family {
	return Family{Name: "gemm", Kernel: "gemm", Variants: []Variant{{
		Name: "gemm", Unit: "rows and columns", Sizes: []int{128, 256, 512, 1024, 2048, 4096}, Typical: 1024, Tensor: true,
		Work: func(s Setting) Work { return Work{N: s.Size, M: s.Size, D: s.Size} },
		Cost: func(s Setting) Cost {
			n, e := s.Size, s.element()
			return Cost{
				Matrix: count("2nmd", 2, n, n, n),
				Read:   count(fmt.Sprintf("%d(n+m)d", e), e, 2, n, n), Written: count(fmt.Sprintf("%dnm", e), e, n, n),
			}
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			a, n := newStage(dev, s), s.Size
			x, y, out := a.normals(n, n), a.normals(n, n), a.out(n, n)
			args := gemm.Args{A: gemm.Of(x), B: gemm.Of(y), C: gemm.Of(out), Alpha: 1}
			switch s.Precision {
			case TF32:
				args.Precision = gemm.TF32
			case BF16x3:
				args.Precision = gemm.BF16x3
			}
			return a.finish(&Case{
				Run: func() error { return gemm.Multiply(args) },
				Check: func() (float64, float64, error) {
					var v verdict
					hy := a.every(y)
					for _, i := range few(n, n, n) {
						hx, got := a.rows(x, i, i+1), a.rows(out, i, i+1)
						for _, j := range sample(n) {
							want, size := 0.0, 0.0
							for k := range n {
								want += hx[k] * hy[k*n+j]
								size += math.Abs(hx[k] * hy[k*n+j])
							}
							// The roundings of n sums, each of numbers of about √n by then, add
							// up to about n units as a random walk, as the sum of sizes does.
							v.compare(got[j], want, roundings*unit(s.DType)*size*coarser(s.Precision))
						}
					}
					return v.end(a)
				},
			})
		},
	}}}
}
