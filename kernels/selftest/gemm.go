package selftest

import (
	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gemm"
	"github.com/fortet/fortet/tensor"
)

// products checks a product of a transpose with a bias, and one of a single row.
func products(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	const depth = 41
	left, hl := a.normal(n, depth)
	right, hr := a.normal(m, depth) // transposed
	bias, hb := a.normal(m)
	out, row := a.empty(tensor.Float32, n, m), a.empty(tensor.Float32, 1, m)
	if a.err != nil {
		return a.err
	}
	b := gemm.Of(right).T()
	a.err = gemm.Multiply(gemm.Args{A: gemm.Of(left), B: b, C: gemm.Of(out), Bias: bias, Alpha: 2})
	var want []float64
	for i := range n {
		for j := range m {
			sum := 0.0
			for k := range depth {
				sum += hl[i*depth+k] * hr[j*depth+k]
			}
			want = append(want, 2*sum+hb[j])
		}
	}
	if err := a.compare("product", out, want); err != nil {
		return err
	}
	a.err = gemm.Multiply(gemm.Args{A: gemm.Of(left.Rows(0, 1)), B: b, C: gemm.Of(row), Bias: bias, Alpha: 2})
	return a.compare("row of a product", row, want[:m])
}
