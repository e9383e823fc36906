package run

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
)

func open(t testing.TB, uri string) dataset.Source {
	t.Helper()
	s, err := dataset.Open(uri)
	require.NoError(t, err)
	return s
}

func pooled(t testing.TB, dev gpu.Device, uri string, o PoolOptions) tensor.Tensor {
	t.Helper()
	x, err := Pool(t.Context(), dev, open(t, uri), o)
	require.NoError(t, err)
	t.Cleanup(x.Free)
	return x
}

func values(t testing.TB, x tensor.Tensor) []float64 {
	t.Helper()
	v, err := tensor.Float64s(x)
	require.NoError(t, err)
	return v
}

func TestPool(t *testing.T) {
	dev := device(t)
	// More rows than go through the host at once, and not a multiple.
	n := 2*chunkRows + 17
	x := pooled(t, dev, "moons", PoolOptions{Rows: n, Seed: 5, DType: F64})
	want, err := open(t, "moons").Sample(n, 5)
	require.NoError(t, err)
	assert.Equal(t, []int{n, 2}, x.Shape())
	assert.Equal(t, want.X, values(t, x))

	// Fewer rows are the first of more, and float32 is float64 rounded.
	y := pooled(t, dev, "moons", PoolOptions{Rows: 100, Seed: 5})
	assert.Equal(t, tensor.Float32, y.DType())
	for i, v := range values(t, y) {
		require.Equal(t, float64(float32(want.X[i])), v)
	}
	for _, other := range []PoolOptions{{Rows: 100, Seed: 6}, {Rows: 100, Seed: 5, Stream: 1}, {Rows: 100, Seed: 5, Stream: 2}} {
		z := values(t, pooled(t, dev, "moons", other))
		again, err := open(t, "moons").Sample(100, StreamSeed(other.Seed, other.Stream))
		require.NoError(t, err)
		require.Equal(t, float64(float32(again.X[7])), z[7])
		same := 0
		for i, v := range z {
			if float64(float32(want.X[i])) == v {
				same++
			}
		}
		assert.Less(t, same, 5, "%+v", other)
	}

	// A finite set is taken whole, in order, whatever Rows says.
	digits := open(t, "digits?class=3")
	all, err := digits.Load()
	require.NoError(t, err)
	x = pooled(t, dev, "digits?class=3", PoolOptions{Rows: 10, Seed: 1, Stream: 1, DType: F64})
	assert.Equal(t, []int{all.N, 64}, x.Shape())
	assert.Equal(t, all.X, values(t, x))
}

func TestPoolDefaultIsBounded(t *testing.T) {
	dev := device(t)
	assert.Equal(t, []int{1 << 18, 1}, pooled(t, dev, "delta", PoolOptions{}).Shape())
	p := pool{PoolOptions: PoolOptions{Rows: 1000, Dim: 1 << 23}}
	assert.Equal(t, 16, p.bounded(), "512 MiB")
	p.Dim = 1 << 30
	assert.Equal(t, 1, p.bounded(), "one row always")
}

func TestPoolEncodes(t *testing.T) {
	dev := device(t)
	sum := func(dst, src []float64) error {
		for i := range dst {
			dst[i] = src[2*i] + src[2*i+1]
		}
		return nil
	}
	for _, uri := range []string{"moons", "npy:" + filepath.Join(t.TempDir(), "a.npy")} {
		if uri != "moons" {
			require.NoError(t, npy.WriteFile(uri[4:], npy.New([]float64{1, 2, 3, 4, 5, 6}, 3, 2)))
		}
		o := PoolOptions{Rows: chunkRows + 3, Seed: 2, DType: F64}
		plain := values(t, pooled(t, dev, uri, o))
		o.Encode, o.Dim = sum, 1
		x := pooled(t, dev, uri, o)
		assert.Equal(t, []int{len(plain) / 2, 1}, x.Shape())
		for i, v := range values(t, x) {
			require.Equal(t, plain[2*i]+plain[2*i+1], v)
		}
	}
}

func TestPoolErrors(t *testing.T) {
	dev := device(t)
	broken := errors.New("broken")
	inUse := dev.Memory().InUse
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		ctx  context.Context
		dev  gpu.Device
		uri  string
		o    PoolOptions
		is   error
		want string
	}{
		{t.Context(), dev, "moons", PoolOptions{Rows: -1}, ErrInvalid, "pool: moons: rows: got -1, want at least 0"},
		{t.Context(), dev, "moons", PoolOptions{DType: DType(tensor.Int32)}, ErrInvalid, "element type: got DType(3), want f32 or f64"},
		{t.Context(), dev, "moons", PoolOptions{Encode: func(_, _ []float64) error { return nil }}, ErrInvalid, "dimension: got 0, want at least 1"},
		{t.Context(), dev, "moons", PoolOptions{Dim: 1, Encode: func(_, _ []float64) error { return broken }}, broken, "pool: moons: broken"},
		{t.Context(), dev, "delta?at=0,1e39", PoolOptions{Rows: 3}, ErrInvalid, "row 0, coordinate 1: 1e+39, want a number that is finite as f32"},
		{t.Context(), dev, "moons", PoolOptions{Rows: 3, DType: F64, Dim: 2, Encode: func(dst, _ []float64) error { dst[3] = math.NaN(); return nil }}, ErrInvalid, "row 1, coordinate 1: NaN"},
		{t.Context(), dev, "student-t?df=1e-3", PoolOptions{Rows: 1000}, dataset.ErrInvalid, "want a finite number"},
		{t.Context(), fake.New(dev, fake.Fail{Alloc: 1}), "moons", PoolOptions{}, gpu.ErrOutOfMemory, "pool: moons: "},
		{t.Context(), fake.New(dev, fake.Fail{Upload: 2}), "moons", PoolOptions{}, gpu.ErrLaunch, "pool: moons: "},
		{canceled, dev, "moons", PoolOptions{}, context.Canceled, "pool: moons: "},
	} {
		x, err := Pool(test.ctx, test.dev, open(t, test.uri), test.o)
		require.ErrorIs(t, err, test.is)
		require.ErrorContains(t, err, test.want)
		require.True(t, x.IsZero())
	}
	assert.Equal(t, inUse, dev.Memory().InUse, "an error leaks device memory")
}

func TestSchedule(t *testing.T) {
	near := func(want, got float64) {
		t.Helper()
		if !(math.Abs(got-want) <= 1e-15) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	constant := Schedule{Peak: 0.5}
	near(0.5, constant.Rate(1))
	near(0.5, constant.Rate(1000))
	warm := Schedule{Peak: 2, Warmup: 4, Steps: 10}
	for step, want := range []float64{0.5, 1, 1.5, 2, 2, 2} {
		near(want, warm.Rate(step+1))
	}
	cosine := Schedule{Peak: 2, Decay: Cosine, Warmup: 4, Steps: 12}
	near(1.5, cosine.Rate(3))
	near(2, cosine.Rate(5))
	near(1, cosine.Rate(9))
	near(1+math.Sqrt2/2, cosine.Rate(7))
	for step := 5; step < 12; step++ {
		assert.Greater(t, cosine.Rate(step), cosine.Rate(step+1))
	}
	assert.Positive(t, cosine.Rate(12))
	assert.Equal(t, cosine.Rate(12), cosine.Rate(1000))
	assert.Equal(t, 3.0, Schedule{Peak: 3, Decay: Cosine}.Rate(1), "no steps: no decay")
	c := config(t)
	assert.Equal(t, Schedule{0.1, Cosine, 4, 23}, c.Train.Schedule())
	assert.Zero(t, testing.AllocsPerRun(10, func() { cosine.Rate(7) }), fmt.Sprint(cosine))
}
