package tensor_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

func TestFloat64s(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	v := []float64{1, math.Pi, -1e-3, 0, 1e30, math.Inf(1)}
	for _, dtype := range []tensor.DType{tensor.Float32, tensor.Float64} {
		a, err := tensor.FromFloat64s(dev, dtype, v, 2, 3)
		require.NoError(t, err)
		defer a.Free()
		got, err := tensor.Float64s(a)
		require.NoError(t, err)
		for i, x := range v {
			if dtype == tensor.Float32 {
				x = float64(float32(x))
			}
			require.Equal(t, x, got[i])
		}
		b, err := tensor.New(dev, dtype, 2, 3)
		require.NoError(t, err)
		defer b.Free()
		require.NoError(t, tensor.Copy(b, a))
		copied, err := tensor.Float64s(b)
		require.NoError(t, err)
		require.Equal(t, got, copied)
		flat, err := b.Reshape(6)
		require.NoError(t, err)
		require.ErrorIs(t, tensor.Copy(flat, a), tensor.ErrInvalid)
		require.Error(t, tensor.SetFloat64s(a, v[:5]))
	}
	_, err = tensor.FromFloat64s(dev, tensor.Int32, v, 6)
	require.ErrorIs(t, err, tensor.ErrInvalid)
}

func TestCheckAllocatesNothing(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	a, err := tensor.New(dev, tensor.Float32, 2, 3)
	require.NoError(t, err)
	defer a.Free()
	n := 3
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if err := tensor.Check("op", dev, tensor.Want("a", a, tensor.Float32, 2, n), tensor.Maybe("b", tensor.Tensor{}, tensor.Float64, n)); err != nil {
			t.Error(err)
		}
	}))
}
