package tensor

import (
	"fmt"
	"slices"

	"github.com/fortet/fortet/gpu"
)

// FromFloat64s uploads v, rounded to dtype, which is Float32 or Float64.
func FromFloat64s(dev gpu.Device, dtype DType, v []float64, shape ...int) (Tensor, error) {
	if dtype == Float64 {
		return From(dev, v, shape...)
	}
	t, err := New(dev, dtype, shape...)
	if err != nil {
		return Tensor{}, err
	}
	if err := SetFloat64s(t, v); err != nil {
		t.Free()
		return Tensor{}, err
	}
	return t, nil
}

// SetFloat64s uploads v to the whole of t, rounded to its type, which is
// Float32 or Float64.
func SetFloat64s(t Tensor, v []float64) error {
	switch t.dtype {
	case Float64:
		return Set(t, v)
	case Float32:
		w := make([]float32, len(v))
		for i, x := range v {
			w[i] = float32(x)
		}
		return Set(t, w)
	}
	return fmt.Errorf("tensor: %w: %v, want f32 or f64", ErrInvalid, t.dtype)
}

// Float64s waits for the queue and downloads t, Float32 or Float64, into a new
// slice.
func Float64s(t Tensor) ([]float64, error) {
	v := make([]float64, t.Len())
	return v, GetFloat64s(t, v)
}

// GetFloat64s is Float64s into v, which has as many elements as t.
func GetFloat64s(t Tensor, v []float64) error {
	switch t.dtype {
	case Float64:
		return Get(t, v)
	case Float32:
		w := make([]float32, len(v))
		if err := Get(t, w); err != nil {
			return err
		}
		for i, x := range w {
			v[i] = float64(x)
		}
		return nil
	}
	return fmt.Errorf("tensor: %w: %v, want f32 or f64", ErrInvalid, t.dtype)
}

// Copy copies src to dst, of the same shape and type, by way of the host: for
// what happens rarely.
func Copy(dst, src Tensor) error {
	if dst.dtype != src.dtype || !slices.Equal(dst.shape, src.shape) {
		return fmt.Errorf("tensor: copy: %w: %v, want %v", ErrInvalid, dst, src)
	}
	bytes := make([]byte, src.buf.Bytes)
	if err := src.dev.Download(bytes, src.buf); err != nil {
		return err
	}
	return dst.dev.Upload(dst.buf, bytes)
}
