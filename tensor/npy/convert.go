package npy

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
)

// Float64s returns the elements as float64. Where they already are, it returns
// Data itself; otherwise a new slice: false and true are 0 and 1, integers
// beyond 2^53 are rounded to nearest, ties to even, everything else is exact.
// It returns nil where Data is no slice of an Element type.
func (a *Array) Float64s() []float64 {
	if v, ok := a.Data.([]float64); ok {
		return v
	}
	return floats[float64](a.Data)
}

// Float32s returns the elements as float32. Where they already are, it returns
// Data itself; otherwise a new slice: false and true are 0 and 1, numbers are
// rounded once to nearest, ties to even, so that what is beyond the range of
// float32 becomes an infinity. It returns nil where Data is no slice of an
// Element type.
func (a *Array) Float32s() []float32 {
	if v, ok := a.Data.([]float32); ok {
		return v
	}
	return floats[float32](a.Data)
}

func floats[F float32 | float64](data any) []F {
	switch v := data.(type) {
	case []bool:
		return mapped(v, func(x bool) F {
			if x {
				return 1
			}
			return 0
		})
	case []int8:
		return converted[F](v)
	case []int16:
		return converted[F](v)
	case []int32:
		return converted[F](v)
	case []int64:
		return converted[F](v)
	case []uint8:
		return converted[F](v)
	case []uint16:
		return converted[F](v)
	case []uint32:
		return converted[F](v)
	case []uint64:
		return converted[F](v)
	case []Float16:
		return mapped(v, func(x Float16) F { return F(x.Float64()) })
	case []BFloat16:
		return mapped(v, func(x BFloat16) F { return F(x.Float64()) })
	case []float32:
		return converted[F](v)
	case []float64:
		return converted[F](v)
	}
	return nil
}

func mapped[T Element, U any](from []T, f func(T) U) []U {
	to := make([]U, len(from))
	for i, x := range from {
		to[i] = f(x)
	}
	return to
}

type number interface {
	int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | float32 | float64
}

func converted[F float32 | float64, T number](from []T) []F {
	to := make([]F, len(from))
	for i, x := range from {
		to[i] = F(x)
	}
	return to
}

// Int64s returns the elements as int64: labels, counts, indices. Where they
// already are, it returns Data itself. An element that is no integer in the
// range of int64 is an error that wraps gpu.ErrInvalid.
func (a *Array) Int64s() ([]int64, error) {
	switch v := a.Data.(type) {
	case []int64:
		return v, nil
	case []bool:
		return mapped(v, func(x bool) int64 {
			if x {
				return 1
			}
			return 0
		}), nil
	case []int8:
		return mapped(v, func(x int8) int64 { return int64(x) }), nil
	case []int16:
		return mapped(v, func(x int16) int64 { return int64(x) }), nil
	case []int32:
		return mapped(v, func(x int32) int64 { return int64(x) }), nil
	case []uint8:
		return mapped(v, func(x uint8) int64 { return int64(x) }), nil
	case []uint16:
		return mapped(v, func(x uint16) int64 { return int64(x) }), nil
	case []uint32:
		return mapped(v, func(x uint32) int64 { return int64(x) }), nil
	case []uint64:
		to := make([]int64, len(v))
		for i, x := range v {
			if x > math.MaxInt64 {
				return nil, notInteger(i, x)
			}
			to[i] = int64(x)
		}
		return to, nil
	}
	v := a.Float64s()
	if v == nil {
		return nil, a.Validate()
	}
	to := make([]int64, len(v))
	for i, x := range v {
		// -2^63 is an int64, 2^63 is not; a NaN fails the comparisons.
		if !(x >= -(1<<63) && x < 1<<63 && x == math.Trunc(x)) {
			return nil, notInteger(i, x)
		}
		to[i] = int64(x)
	}
	return to, nil
}

func notInteger(i int, x any) error {
	return fmt.Errorf("npy: element %d: %v, want an integer in the range of int64: %w", i, x, gpu.ErrInvalid)
}
