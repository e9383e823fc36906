package gorgonia

import (
	"errors"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gorgonia "gorgonia.org/tensor"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
)

var shapes = [][]int{{}, {1}, {6}, {0}, {0, 3}, {6, 1}, {1, 6}, {1, 1, 1}, {2, 3}, {2, 3, 4}, {2, 1, 3}}

func ramp[T float32 | float64](n int) []T {
	v := make([]T, n)
	for i := range v {
		v[i] = T(i) + 0.5
	}
	return v
}

func array[T float32 | float64](t *testing.T, shape ...int) *npy.Array {
	t.Helper()
	n, err := npy.Count(shape, npy.F64)
	require.NoError(t, err)
	return &npy.Array{Shape: shape, Data: ramp[T](n)}
}

func slice(t *testing.T, d *gorgonia.Dense, s ...gorgonia.Slice) *gorgonia.Dense {
	t.Helper()
	v, err := d.Slice(s...)
	require.NoError(t, err)
	return v.(*gorgonia.Dense)
}

func address(data any) unsafe.Pointer {
	switch v := data.(type) {
	case []float32:
		return unsafe.Pointer(unsafe.SliceData(v))
	case []float64:
		return unsafe.Pointer(unsafe.SliceData(v))
	}
	return nil
}

func TestThereAndBackSharesMemory(t *testing.T) {
	for _, shape := range shapes {
		for _, a := range []*npy.Array{array[float32](t, shape...), array[float64](t, shape...)} {
			d, err := ToDense(a)
			require.NoError(t, err, "%v", shape)
			assert.Equal(t, shape, append([]int{}, d.Shape()...))
			back, err := FromDense(d)
			require.NoError(t, err, "%v", shape)
			require.NoError(t, back.Validate())
			assert.Equal(t, a.Data, back.Data)
			assert.Equal(t, shape, append([]int{}, back.Shape...))
			if a.Len() > 0 {
				assert.Equal(t, address(a.Data), address(back.Data), "shape %v was copied", shape)
			}
		}
	}
	a := npy.New([]float32{1, 2, 3, 4}, 2, 2)
	d, err := ToDense(a)
	require.NoError(t, err)
	require.NoError(t, d.SetAt(float32(9), 1, 0))
	assert.Equal(t, []float32{1, 2, 9, 4}, a.Data)
}

func TestContiguousViews(t *testing.T) {
	m := gorgonia.New(gorgonia.WithShape(4, 3), gorgonia.WithBacking(ramp[float64](12)))
	rows, err := FromDense(slice(t, m, gorgonia.S(1, 3)))
	require.NoError(t, err)
	assert.Equal(t, []int{2, 3}, rows.Shape)
	assert.Equal(t, ramp[float64](12)[3:9], rows.Data)
	assert.Equal(t, 6, cap(rows.Data.([]float64)), "append would overwrite what is outside of the view")

	row, err := FromDense(slice(t, m, gorgonia.S(2)))
	require.NoError(t, err)
	assert.Equal(t, []int{3}, row.Shape)
	assert.Equal(t, ramp[float64](12)[6:9], row.Data)

	element, err := FromDense(slice(t, m, gorgonia.S(1), gorgonia.S(2)))
	require.NoError(t, err)
	assert.Empty(t, element.Shape)
	assert.Equal(t, []float64{5.5}, element.Data)

	column := gorgonia.New(gorgonia.WithShape(6, 1), gorgonia.WithBacking(ramp[float64](6)))
	require.NoError(t, column.T())
	turned, err := FromDense(column)
	require.NoError(t, err)
	assert.Equal(t, []int{1, 6}, turned.Shape)
	assert.Equal(t, ramp[float64](6), turned.Data)

	scalar, err := FromDense(gorgonia.New(gorgonia.FromScalar(3.5)))
	require.NoError(t, err)
	assert.Equal(t, []float64{3.5}, scalar.Data)
}

// inaccessible is an engine whose memory the host must not touch.
type inaccessible struct{ gorgonia.StdEng }

func (inaccessible) AllocAccessible() bool { return false }

func TestRefusedDenses(t *testing.T) {
	m := func() *gorgonia.Dense {
		return gorgonia.New(gorgonia.WithShape(4, 3), gorgonia.WithBacking(ramp[float64](12)))
	}
	transposed := m()
	require.NoError(t, transposed.T())
	sliceOfTransposed := m()
	require.NoError(t, sliceOfTransposed.T())
	cube := gorgonia.New(gorgonia.WithShape(2, 2, 3), gorgonia.WithBacking(ramp[float32](12)))
	square := gorgonia.New(gorgonia.WithShape(3, 3), gorgonia.WithBacking(ramp[float64](9)))
	require.NoError(t, square.T())
	for want, d := range map[string]*gorgonia.Dense{
		"is nil or empty": new(gorgonia.Dense),
		"strides [1 3] of shape (3, 4), want row-major elements without gaps": transposed,
		"strides [1 3] of shape (3, 3), want row-major elements without gaps": square,
		"strides [3] of shape (4,), want row-major elements without gaps":     slice(t, sliceOfTransposed, gorgonia.S(1)),
		"strides [3 1] of shape (4, 2), want row-major elements without gaps": slice(t, m(), nil, gorgonia.S(0, 2)),
		"strides [6 1] of shape (2, 3), want row-major elements without gaps": slice(t, m(), gorgonia.S(0, 4, 2)),
		"strides [1 4] of shape (4, 3), want row-major elements without gaps": gorgonia.New(gorgonia.WithShape(4, 3), gorgonia.AsFortran(ramp[float64](12))),
		"is masked, want no mask":               gorgonia.New(gorgonia.WithShape(2), gorgonia.WithBacking(ramp[float64](2), []bool{true, false})),
		"elements int, want float32 or float64": gorgonia.New(gorgonia.WithShape(2), gorgonia.WithBacking([]int{1, 2})),
		// Reading there would be a segmentation fault.
		"lies in device memory, want host memory": gorgonia.New(gorgonia.WithShape(4), gorgonia.Of(gorgonia.Float64),
			gorgonia.WithEngine(inaccessible{}), gorgonia.FromMemory(0x1000, 32)),
	} {
		_, err := FromDense(d)
		require.EqualError(t, err, "gorgonia: dense: "+want+": invalid tensor")
		require.ErrorIs(t, err, tensor.ErrInvalid)
	}
	_, err := FromDense(nil)
	require.ErrorIs(t, err, tensor.ErrInvalid)
	_, err = FromDense(slice(t, cube, nil, gorgonia.S(1)))
	require.ErrorIs(t, err, tensor.ErrInvalid)

	copied, err := FromDense(transposed.Materialize().(*gorgonia.Dense))
	require.NoError(t, err)
	assert.Equal(t, []int{3, 4}, copied.Shape)
	assert.Equal(t, []float64{0.5, 3.5, 6.5, 9.5}, copied.Data.([]float64)[:4])
}

func TestRefusedArrays(t *testing.T) {
	for want, a := range map[string]*npy.Array{
		"npy: array is nil: invalid argument: invalid tensor":                                       nil,
		"npy: data: 2 elements, want 3 for shape (3,): invalid argument: invalid tensor":            npy.New([]float32{1, 2}, 3),
		"array: elements int32, want float32 or float64: invalid tensor":                            npy.New([]int32{1}),
		"npy: shape: (2, -1), want extents that are not negative: invalid argument: invalid tensor": npy.New([]float32{1}, 2, -1),
	} {
		_, err := ToDense(a)
		require.EqualError(t, err, "gorgonia: "+want)
	}
}

func openDevice(t *testing.T) gpu.Device {
	t.Helper()
	dev, err := gpu.Open("cpu")
	if errors.Is(err, gpu.ErrUnavailable) {
		t.Skip("this build has no CPU device: ", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, dev.Close()) })
	return dev
}

func TestDeviceRoundTrip(t *testing.T) {
	dev := openDevice(t)
	for _, shape := range shapes {
		for _, a := range []*npy.Array{array[float32](t, shape...), array[float64](t, shape...)} {
			d, err := ToDense(a)
			require.NoError(t, err)
			up, err := Upload(dev, d)
			require.NoError(t, err, "%v", shape)
			assert.True(t, slices.Equal(shape, up.Shape()))
			down, err := Download(up)
			require.NoError(t, err)
			got, err := FromDense(down)
			require.NoError(t, err)
			assert.Equal(t, a.Data, got.Data)

			zero := gorgonia.New(gorgonia.WithShape(shape...), gorgonia.Of(d.Dtype()))
			if a.Len() > 0 {
				require.NoError(t, Set(up, zero))
				require.NoError(t, Get(up, d))
				want, err := FromDense(zero)
				require.NoError(t, err)
				assert.Equal(t, want.Data, a.Data, "Get did not write to the memory of d")
			}
			up.Free()
		}
	}
	assert.Zero(t, dev.Memory().InUse)
}

func TestRefusedTransfers(t *testing.T) {
	dev := openDevice(t)
	up, err := Upload(dev, gorgonia.New(gorgonia.WithShape(2, 3), gorgonia.WithBacking(ramp[float32](6))))
	require.NoError(t, err)
	defer up.Free()
	for name, d := range map[string]*gorgonia.Dense{
		"shape": gorgonia.New(gorgonia.WithShape(3, 2), gorgonia.WithBacking(ramp[float32](6))),
		"type":  gorgonia.New(gorgonia.WithShape(2, 3), gorgonia.WithBacking(ramp[float64](6))),
		"nil":   nil,
	} {
		assert.ErrorIs(t, Set(up, d), tensor.ErrInvalid, name)
		assert.ErrorIs(t, Get(up, d), tensor.ErrInvalid, name)
	}
	fine := gorgonia.New(gorgonia.WithShape(2, 3), gorgonia.WithBacking(ramp[float32](6)))
	assert.ErrorIs(t, Set(tensor.Tensor{}, fine), tensor.ErrInvalid)
	assert.ErrorIs(t, Get(tensor.Tensor{}, fine), tensor.ErrInvalid)
	_, err = Download(tensor.Tensor{})
	assert.ErrorIs(t, err, tensor.ErrInvalid)
	_, err = Upload(dev, nil)
	assert.ErrorIs(t, err, tensor.ErrInvalid)
	integers, err := tensor.From(dev, []int32{1, 2}, 2)
	require.NoError(t, err)
	defer integers.Free()
	_, err = Download(integers)
	assert.ErrorIs(t, err, tensor.ErrInvalid)
}
