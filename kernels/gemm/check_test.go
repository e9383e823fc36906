package gemm_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gemm"
	"github.com/fortet/fortet/tensor"
)

// Bad arguments get one clear line each, and nothing runs.
func TestBadArguments(t *testing.T) {
	dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 1})
	require.NoError(t, err)
	defer dev.Close()
	make := func(dtype tensor.DType, shape ...int) tensor.Tensor {
		out, err := tensor.New(dev, dtype, shape...)
		require.NoError(t, err)
		t.Cleanup(out.Free)
		return out
	}
	a, b, c := make(tensor.Float32, 5, 7), make(tensor.Float32, 7, 3), make(tensor.Float32, 5, 3)
	wide := make(tensor.Float32, 16, 16)
	part := func(rows, cols, offset, lead int) gemm.Matrix {
		return gemm.Matrix{Data: wide, Rows: rows, Cols: cols, Offset: offset, Lead: lead}
	}
	for _, test := range []struct {
		name   string
		change func(*gemm.Args)
		is     error
		text   string
	}{
		{"b", func(x *gemm.Args) { x.B = gemm.Of(make(tensor.Float32, 7, 2)) }, tensor.ErrInvalid, "gemm: b: .*shape \\(7, 2\\), want \\(7, 3\\)"},
		{"b transposed", func(x *gemm.Args) { x.B = x.B.T() }, tensor.ErrInvalid, "gemm: b: .*shape \\(7, 3\\), want \\(3, 7\\)"},
		{"a", func(x *gemm.Args) { x.A = gemm.Of(make(tensor.Float32, 4, 7)) }, tensor.ErrInvalid, "gemm: a: .*shape \\(4, 7\\), want \\(5, 7\\)"},
		{"batch of a", func(x *gemm.Args) { x.A = gemm.Of(make(tensor.Float32, 2, 5, 7)) }, tensor.ErrInvalid, "gemm: a: .*shape \\(2, 5, 7\\), want \\(5, 7\\)"},
		{"batches", func(x *gemm.Args) {
			x.A, x.C = gemm.Of(make(tensor.Float32, 2, 5, 7)), gemm.Of(make(tensor.Float32, 4, 5, 3))
		}, tensor.ErrInvalid, "gemm: a: .*shape \\(2, 5, 7\\), want \\(4, 5, 7\\)"},
		{"axes", func(x *gemm.Args) { x.A = gemm.Of(make(tensor.Float32, 35)) }, tensor.ErrInvalid, "gemm: a: .*want two axes"},
		{"type", func(x *gemm.Args) { x.A = gemm.Of(make(tensor.Float64, 5, 7)) }, tensor.ErrInvalid, "gemm: a: .*f64, want f32"},
		{"type of c", func(x *gemm.Args) { x.C = gemm.Of(make(tensor.Int32, 5, 3)) }, tensor.ErrInvalid, "gemm: c: .*i32, want f32 or f64"},
		{"no a", func(x *gemm.Args) { x.A = gemm.Matrix{} }, tensor.ErrInvalid, "gemm: a: .*missing"},
		{"no c", func(x *gemm.Args) { x.C = gemm.Matrix{} }, tensor.ErrInvalid, "gemm: c: .*missing"},
		{"bias", func(x *gemm.Args) { x.Bias = make(tensor.Float32, 4) }, tensor.ErrInvalid, "gemm: bias: .*shape \\(4,\\), want \\(3,\\)"},
		{"alpha", func(x *gemm.Args) { x.Alpha = 0 }, gpu.ErrInvalid, "gemm: alpha: .*got 0, want finite and not 0"},
		{"alpha too large", func(x *gemm.Args) { x.Alpha = 1e39 }, gpu.ErrInvalid, "gemm: alpha: .*got 1e\\+39"},
		{"beta", func(x *gemm.Args) { x.Beta = math.NaN() }, gpu.ErrInvalid, "gemm: beta: .*got NaN"},
		{"beta that vanishes", func(x *gemm.Args) { x.Beta = 1e-60 }, gpu.ErrInvalid, "gemm: beta: .*got 1e-60"},
		{"transposed c", func(x *gemm.Args) { x.C = x.C.T() }, gpu.ErrInvalid, "gemm: c: .*transposed"},
		{"precision", func(x *gemm.Args) { x.Precision = 9 }, gpu.ErrInvalid, "gemm: precision: .*Precision\\(9\\)"},
		{"no tensor cores", func(x *gemm.Args) { x.Precision = gemm.TF32 }, gpu.ErrUnsupported, "gemm: .*tf32"},
		{"outside", func(x *gemm.Args) { x.A = part(5, 7, 186, 16) }, tensor.ErrInvalid, "gemm: a: .*shape \\(5, 7\\) at offset 186 .*does not lie in 256 elements"},
		{"leading dimension", func(x *gemm.Args) { x.A = part(5, 7, 0, 6) }, tensor.ErrInvalid, "gemm: a: .*leading dimension of 7 or more"},
		{"negative", func(x *gemm.Args) { x.A = part(-5, 7, 0, 0) }, tensor.ErrInvalid, "gemm: a: .*shape \\(-5, 7\\)"},
		{"large", func(x *gemm.Args) { x.A = part(5, 7, 0, math.MaxInt) }, tensor.ErrInvalid, "gemm: a: .*does not lie in"},
		{"far", func(x *gemm.Args) { x.A = part(5, 7, math.MaxInt, 0) }, tensor.ErrInvalid, "gemm: a: .*an offset within 256"},
		{"c is a", func(x *gemm.Args) { x.A = part(5, 7, 0, 16); x.C = part(5, 3, 5, 16) }, gpu.ErrInvalid, "gemm: c: .*overlaps a"},
		{"c is b", func(x *gemm.Args) { x.B = part(7, 3, 0, 16); x.C = part(5, 3, 98, 16) }, gpu.ErrInvalid, "gemm: c: .*overlaps b"},
		{"c is bias", func(x *gemm.Args) {
			x.C = part(5, 3, 0, 3)
			bias, err := wide.Rows(0, 1).Reshape(16)
			require.NoError(t, err)
			x.Bias = bias.Rows(0, 3)
		}, gpu.ErrInvalid, "gemm: c: .*overlaps bias"},
		{"matrices of c", func(x *gemm.Args) {
			x.C = gemm.Matrix{Data: wide, Batch: 2, Rows: 5, Cols: 3, Lead: 3, Stride: 14}
		}, gpu.ErrInvalid, "gemm: c: .*14 elements apart overlap"},
	} {
		args := gemm.Args{A: gemm.Of(a), B: gemm.Of(b), C: gemm.Of(c), Alpha: 1}
		test.change(&args)
		err := gemm.Multiply(args)
		require.ErrorIs(t, err, test.is, test.name)
		require.Regexp(t, test.text, err.Error(), test.name)
	}
	// All faults at once.
	err = gemm.Multiply(gemm.Args{A: gemm.Of(make(tensor.Float64, 5, 7)), B: gemm.Matrix{}, C: gemm.Of(c), Beta: math.Inf(1)})
	for _, text := range []string{"gemm: a:", "gemm: b:", "gemm: alpha:", "gemm: beta:"} {
		require.ErrorContains(t, err, text)
	}
	require.Panics(t, func() { gemm.Of(a).Columns(3, 8) })
	// Neighbours in memory do not overlap.
	require.NoError(t, gemm.Multiply(gemm.Args{A: part(5, 7, 0, 16), B: gemm.Of(b), C: part(5, 3, 71, 16), Alpha: 1}))
}

func TestNames(t *testing.T) {
	require.Equal(t, "native tf32 bf16x3 Precision(7)",
		gemm.Native.String()+" "+gemm.TF32.String()+" "+gemm.BF16x3.String()+" "+gemm.Precision(7).String())
}
