package bench

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/fold"
)

// Fold is the sum of rows, what parts of a sum are put together by.
func (families) Fold() Family {
	const width = 1024
	return Family{Name: "fold", Kernel: "fold", Variants: []Variant{{
		Name: "sum of rows", Shape: fmt.Sprintf("width %d", width), Unit: "rows", Sizes: []int{16, 256, 4096, 1 << 14, 1 << 16}, Typical: 1 << 14,
		Work: func(s Setting) Work { return Work{N: s.Size, D: width} },
		Cost: func(s Setting) Cost {
			return Cost{
				Flops: count("nd", s.Size, width), Read: count(fmt.Sprintf("%dnd", s.element()), s.element(), s.Size, width),
				Written: count(fmt.Sprintf("%dd", s.element()), s.element(), width),
			}
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			a, n := newStage(dev, s), s.Size
			in, out := a.normals(n, width), a.out(width)
			return a.finish(&Case{
				Run: func() error { return fold.Rows(out, in) },
				Check: func() (float64, float64, error) {
					var v verdict
					want, size := make([]float64, width), make([]float64, width)
					const most = 1024
					for lo := 0; lo < n; lo += most {
						for i, x := range a.rows(in, lo, min(lo+most, n)) {
							want[i%width] += x
							size[i%width] += math.Abs(x)
						}
					}
					// float64 is added along a tree, and here one by one; float32 in float64.
					for j, x := range a.every(out) {
						v.compare(x, want[j], 0x1p-52*size[j]*float64(bits.Len(uint(n))+8)+unit(s.DType)*math.Abs(want[j]))
					}
					return v.end(a)
				},
			})
		},
	}}}
}
