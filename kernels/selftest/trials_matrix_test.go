package selftest_test

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gemm"
	"github.com/fortet/fortet/tensor"
)

// matrices are products: of tiles, of few rows and few columns, in batches, and on
// tensor cores.
func matrices() []trial {
	var list []trial
	for _, shape := range []struct {
		name        string
		m, n, k     int // small
		M, N, K     int // on a GPU
		batch       int
		left, right bool // transposed
		precision   gemm.Precision
	}{
		{"plain", 130, 67, 37, 2051, 1031, 203, 1, false, false, gemm.Native},
		{"long sums", 17, 19, 300, 129, 131, 60_001, 1, true, false, gemm.Native},
		{"batch", 9, 33, 20, 101, 207, 65, 3, false, true, gemm.Native},
		{"few rows", 3, 70, 50, 3, 30_011, 301, 1, false, false, gemm.Native},
		{"few columns", 70, 2, 50, 30_011, 2, 301, 1, true, true, gemm.Native},
		{"TF32", 130, 67, 37, 2051, 1031, 203, 1, false, true, gemm.TF32},
		{"BF16x3", 130, 67, 37, 2051, 1031, 203, 1, false, true, gemm.BF16x3},
	} {
		tr := trial{name: fmt.Sprintf("gemm %s", shape.name)}
		if shape.precision != gemm.Native {
			tr.only = tensor.Float32
		}
		tr.lay = func(s *stage) func() error {
			m, n, k := s.pick(shape.m, shape.M), s.pick(shape.n, shape.N), s.pick(shape.k, shape.K)
			side := func(rows, cols int, transposed bool) (gemm.Matrix, float64) {
				if transposed {
					rows, cols = cols, rows
				}
				t, radius := s.points(shape.batch*rows, cols, 0)
				if shape.batch > 1 {
					t = s.view(t, shape.batch, rows, cols)
				}
				if transposed {
					return gemm.Of(t).T(), radius
				}
				return gemm.Of(t), radius
			}
			a, ra := side(m, k, shape.left)
			b, rb := side(k, n, shape.right)
			a0 := gemm.Args{A: a, B: b, Bias: s.normal(n), Alpha: 0.5, Beta: 0.25, Precision: shape.precision}
			if s.dev.Properties().Kind == gpu.CPU {
				a0.Precision = gemm.Native // what tensor cores are compared with
			}
			if shape.batch > 1 {
				a0.C = gemm.Of(s.updated("product", near, s.draw(shape.batch*m*n), shape.batch, m, n))
			} else {
				a0.C = gemm.Of(s.updated("product", near, s.draw(m*n), m, n))
			}
			switch shape.precision { // both factors are rounded; A's rows and B's columns have at most these norms
			case gemm.TF32:
				s.within(2 * 0x1p-11 * ra * rb)
			case gemm.BF16x3:
				s.within(2 * 0x1p-16 * ra * rb)
			}
			return func() error { return gemm.Multiply(a0) }
		}
		list = append(list, tr)
	}
	return list
}
