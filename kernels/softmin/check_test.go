package softmin_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

func openCPU(tb testing.TB) gpu.Device {
	tb.Helper()
	dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 2})
	require.NoError(tb, err)
	tb.Cleanup(func() { dev.Close() })
	return dev
}

func zeros(tb testing.TB, dev gpu.Device, dtype tensor.DType, shape ...int) tensor.Tensor {
	tb.Helper()
	t, err := tensor.New(dev, dtype, shape...)
	require.NoError(tb, err)
	tb.Cleanup(t.Free)
	return t
}

func TestArgumentErrors(t *testing.T) {
	dev := openCPU(t)
	f32, f64 := tensor.Float32, tensor.Float64
	good := softmin.Pairs{X: zeros(t, dev, f32, 5, 3), Y: zeros(t, dev, f32, 7, 3), Epsilon: 1}
	out, col := zeros(t, dev, f32, 5), zeros(t, dev, f64, 7)
	require.NoError(t, good.Softmin(dev, out))

	matrix := zeros(t, dev, f32, 5, 7)
	for _, c := range []struct {
		name   string
		change func(*softmin.Pairs)
		is     error
		text   string
	}{
		{"no x", func(p *softmin.Pairs) { p.X = tensor.Tensor{} }, tensor.ErrInvalid, "softmin: x: "},
		{"no y", func(p *softmin.Pairs) { p.Y = tensor.Tensor{} }, tensor.ErrInvalid, "softmin: y: "},
		{"x of one axis", func(p *softmin.Pairs) { p.X = zeros(t, dev, f32, 5) }, tensor.ErrInvalid, "two axes"},
		{"no sources", func(p *softmin.Pairs) { p.X = zeros(t, dev, f32, 0, 3) }, tensor.ErrInvalid, "0 by 7"},
		{"no targets", func(p *softmin.Pairs) { p.Y = zeros(t, dev, f32, 0, 3) }, tensor.ErrInvalid, "5 by 0"},
		{"no dimensions", func(p *softmin.Pairs) { p.X, p.Y = zeros(t, dev, f32, 5, 0), zeros(t, dev, f32, 7, 0) }, tensor.ErrInvalid, "dimension"},
		{"other dimension", func(p *softmin.Pairs) { p.Y = zeros(t, dev, f32, 7, 2) }, tensor.ErrInvalid, "y: invalid tensor: shape (7, 2), want (7, 3)"},
		{"other type", func(p *softmin.Pairs) { p.Y = zeros(t, dev, f64, 7, 3) }, tensor.ErrInvalid, "y: "},
		{"integers", func(p *softmin.Pairs) { p.X = zeros(t, dev, tensor.Int32, 5, 3) }, tensor.ErrInvalid, "want f32 or f64"},
		{"g", func(p *softmin.Pairs) { p.G = zeros(t, dev, f32, 6) }, tensor.ErrInvalid, "g: "},
		{"log b", func(p *softmin.Pairs) { p.LogB = zeros(t, dev, f64, 7) }, tensor.ErrInvalid, "log b: "},
		{"epsilon 0", func(p *softmin.Pairs) { p.Epsilon = 0 }, gpu.ErrInvalid, "epsilon"},
		{"epsilon below 0", func(p *softmin.Pairs) { p.Epsilon = -1 }, gpu.ErrInvalid, "epsilon"},
		{"epsilon NaN", func(p *softmin.Pairs) { p.Epsilon = math.NaN() }, gpu.ErrInvalid, "epsilon"},
		{"epsilon infinite", func(p *softmin.Pairs) { p.Epsilon = math.Inf(1) }, gpu.ErrInvalid, "epsilon"},
		{"epsilon outside float32", func(p *softmin.Pairs) { p.Epsilon = 1e-40 }, gpu.ErrInvalid, "epsilon"},
		{"cost", func(p *softmin.Pairs) { p.Cost = 9 }, gpu.ErrInvalid, "Cost(9)"},
		{"precision", func(p *softmin.Pairs) { p.Precision = 9 }, gpu.ErrInvalid, "Precision(9)"},
		{"tensor cores", func(p *softmin.Pairs) { p.Precision = softmin.TF32 }, gpu.ErrUnsupported, "need a GPU"},
		{"matrix and points", func(p *softmin.Pairs) { p.Matrix = matrix }, tensor.ErrInvalid, "matrix: "},
		{"points and matrix", func(p *softmin.Pairs) { p.Matrix, p.Cost = matrix, softmin.Matrix }, tensor.ErrInvalid, "x, y: "},
		{"no matrix", func(p *softmin.Pairs) { *p = softmin.Pairs{Epsilon: 1, Cost: softmin.Matrix} }, tensor.ErrInvalid, "matrix: "},
	} {
		p := good
		c.change(&p)
		err := p.Softmin(dev, out)
		if assert.ErrorIs(t, err, c.is, c.name) {
			assert.ErrorContains(t, err, c.text, c.name)
		}
		assert.Error(t, p.Sweep(dev, softmin.SweepArgs{Damp: 1, Out: out, Col: col}), c.name)
		assert.Error(t, p.Apply(dev, softmin.ApplyArgs{F: out, Mass: out}), c.name)
	}

	assert.ErrorIs(t, good.Softmin(nil, out), gpu.ErrInvalid)
	assert.ErrorContains(t, good.Softmin(dev, zeros(t, dev, f32, 6)), "softmin: out: ")
	assert.ErrorContains(t, good.Softmin(dev, tensor.Tensor{}), "softmin: out: ")

	for _, damp := range []float64{0, -1, 2, math.NaN()} {
		assert.ErrorIs(t, good.Sweep(dev, softmin.SweepArgs{Damp: damp, Out: out, Col: col}), gpu.ErrInvalid)
	}
	assert.ErrorContains(t, good.Sweep(dev, softmin.SweepArgs{Damp: 1, Out: out, Col: zeros(t, dev, f32, 7)}), "sweep: col: ")
	assert.ErrorContains(t, good.Sweep(dev, softmin.SweepArgs{Damp: 1, Col: col}), "sweep: out: ")
	assert.ErrorContains(t, good.Sweep(dev, softmin.SweepArgs{Damp: 1, Out: out, Col: col, LogA: col}), "sweep: log a: ")

	v, r := zeros(t, dev, f32, 7, 2), zeros(t, dev, f32, 5, 2)
	assert.ErrorContains(t, good.Apply(dev, softmin.ApplyArgs{F: out}), "no result")
	assert.ErrorContains(t, good.Apply(dev, softmin.ApplyArgs{Mass: out}), "apply: f: ")
	assert.ErrorContains(t, good.Apply(dev, softmin.ApplyArgs{F: out, V: v}), "both or neither")
	assert.ErrorContains(t, good.Apply(dev, softmin.ApplyArgs{F: out, R: r}), "both or neither")
	assert.ErrorContains(t, good.Apply(dev, softmin.ApplyArgs{F: out, V: out, R: r}), "apply: v: ")
	assert.ErrorContains(t, good.Apply(dev, softmin.ApplyArgs{F: out, V: v, R: v}), "apply: r: ")
	assert.ErrorContains(t, good.Apply(dev, softmin.ApplyArgs{F: out, Grad: r}), "apply: grad: ")
	given := softmin.Pairs{Matrix: matrix, Epsilon: 1, Cost: softmin.Matrix}
	assert.ErrorContains(t, given.Apply(dev, softmin.ApplyArgs{F: out, Grad: r}), "no gradient")
}

// Each result of apply may be asked for alone, with the same bits.
func TestApplyParts(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, d := range []int{3, 12} {
			p := random[float32](9, softmin.SqEuclidean, 30, 70, d, float64(d))
			all := run(t, dev, p)
			a := put(t, dev, p)
			mass, mean := kt.Poison[float32](t, dev.Device, p.n), kt.Poison[float32](t, dev.Device, p.n)
			r, grad := kt.Poison[float32](t, dev.Device, p.n, p.k), kt.Poison[float32](t, dev.Device, p.n, d)
			for _, part := range []softmin.ApplyArgs{{Mass: mass.Tensor}, {Mean: mean.Tensor}, {V: a.v.Tensor, R: r.Tensor}, {Grad: grad.Tensor}} {
				part.F = a.f.Tensor
				require.NoError(t, a.pairs.Apply(dev.Device, part))
			}
			require.NoError(t, kt.BitEqual(mass.Get(t), all.mass))
			require.NoError(t, kt.BitEqual(mean.Get(t), all.mean))
			require.NoError(t, kt.BitEqual(r.Get(t), all.r))
			require.NoError(t, kt.BitEqual(grad.Get(t), all.grad))
		}
	})
}

// Whatever the shapes, a call is refused or right.
func FuzzShapes(f *testing.F) {
	f.Add(uint8(5), uint8(7), uint8(3), uint8(3), uint8(0), false)
	f.Add(uint8(0), uint8(7), uint8(3), uint8(3), uint8(1), true)
	f.Add(uint8(99), uint8(65), uint8(9), uint8(9), uint8(2), false)
	f.Add(uint8(13), uint8(129), uint8(1), uint8(1), uint8(3), true)
	f.Add(uint8(3), uint8(9), uint8(2), uint8(4), uint8(0), false)
	dev := kt.Target{Name: "cpu", Device: openCPU(f)}
	f.Fuzz(func(t *testing.T, n, m, d, dy, cost uint8, double bool) {
		c := softmin.Cost(cost % 4)
		if n == 0 || m == 0 || d == 0 || d != dy && c != softmin.Matrix {
			p := softmin.Pairs{X: zeros(t, dev.Device, tensor.Float32, int(n), int(d)), Y: zeros(t, dev.Device, tensor.Float32, int(m), int(dy)), Epsilon: 1, Cost: c}
			require.Error(t, p.Softmin(dev.Device, zeros(t, dev.Device, tensor.Float32, int(n))))
			return
		}
		if double {
			p := random[float64](uint64(n), c, int(n), int(m), int(d), float64(d))
			verify(t, p, run(t, dev, p))
		} else {
			p := random[float32](uint64(n), c, int(n), int(m), int(d), float64(d))
			verify(t, p, run(t, dev, p))
		}
	})
}
