// Package npy reads and writes arrays in NumPy's formats: .npy, one array, and
// .npz, a zip archive of named arrays.
//
// An Array lives in host memory and is always row-major and in the machine's
// byte order, whatever the file held. Files of all three format versions, of
// both byte orders, in C and in Fortran order are read. What is written is
// what numpy.save writes, byte for byte: C order, little-endian, the data
// aligned to 64 bytes, version 1 of the format.
//
// Only numbers and booleans are arrays here. Complex numbers, strings, dates
// and structured types are refused, and so are object arrays, which hold
// pickles: unpickling runs code.
//
// Input is not trusted. Memory is taken as bytes arrive or after the size of
// the input was found to suffice, sizes that overflow are errors, and every
// error of the input wraps ErrFormat. Reference: numpy.lib.format, NEP 1.
package npy

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/fortet/fortet/gpu"
)

// Sentinel errors of reading.
var (
	// ErrFormat says that the input is not an array that this package reads:
	// damaged, cut short, contradictory, or of a type it does not know.
	ErrFormat = errors.New("malformed or unsupported array file")
	// ErrLimit says that the input holds more than the caller allowed.
	ErrLimit = errors.New("array file exceeds the limit")
)

// DType is the type of an array's elements.
type DType int

// The types of elements. BF16 (bfloat16) exists for package safetensors; .npy
// has no such type and Write refuses it.
const (
	Invalid DType = iota
	Bool
	I8
	I16
	I32
	I64
	U8
	U16
	U32
	U64
	F16
	BF16
	F32
	F64
)

var dtypes = [...]struct {
	name  string // as NumPy calls it
	descr string // as .npy files do; "" where they cannot
	bytes int
}{
	Invalid: {"invalid", "", 0},
	Bool:    {"bool", "|b1", 1},
	I8:      {"int8", "|i1", 1},
	I16:     {"int16", "<i2", 2},
	I32:     {"int32", "<i4", 4},
	I64:     {"int64", "<i8", 8},
	U8:      {"uint8", "|u1", 1},
	U16:     {"uint16", "<u2", 2},
	U32:     {"uint32", "<u4", 4},
	U64:     {"uint64", "<u8", 8},
	F16:     {"float16", "<f2", 2},
	BF16:    {"bfloat16", "", 2},
	F32:     {"float32", "<f4", 4},
	F64:     {"float64", "<f8", 8},
}

func (d DType) String() string {
	if d < 0 || int(d) >= len(dtypes) {
		return fmt.Sprintf("DType(%d)", int(d))
	}
	return dtypes[d].name
}

// Bytes returns the size of one element; 0 for what is no type.
func (d DType) Bytes() int {
	if d < 0 || int(d) >= len(dtypes) {
		return 0
	}
	return dtypes[d].bytes
}

// Element lists the Go types that an array can hold.
type Element interface {
	bool | int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 |
		Float16 | BFloat16 | float32 | float64
}

// Array is an array in host memory.
type Array struct {
	// Shape holds the extents; empty for a scalar. An extent may be 0.
	Shape []int
	// Data is a slice of one of the Element types, row-major, whose length
	// is the product of the shape.
	Data any
}

// New returns an array that shares data. Without a shape it is
// one-dimensional. A shape that does not fit is found by Validate, which
// everything that writes calls.
func New[T Element](data []T, shape ...int) *Array {
	if len(shape) == 0 {
		shape = []int{len(data)}
	}
	return &Array{Shape: append([]int(nil), shape...), Data: data}
}

// Scalar returns an array without dimensions.
func Scalar[T Element](x T) *Array {
	return &Array{Shape: []int{}, Data: []T{x}}
}

// DType returns the type of the elements, Invalid where Data is no slice of an
// Element type.
func (a *Array) DType() DType {
	d, _ := dtypeOf(a.Data)
	return d
}

// Len returns the number of elements that Data holds.
func (a *Array) Len() int {
	_, n := dtypeOf(a.Data)
	return n
}

func dtypeOf(data any) (DType, int) {
	switch v := data.(type) {
	case []bool:
		return Bool, len(v)
	case []int8:
		return I8, len(v)
	case []int16:
		return I16, len(v)
	case []int32:
		return I32, len(v)
	case []int64:
		return I64, len(v)
	case []uint8:
		return U8, len(v)
	case []uint16:
		return U16, len(v)
	case []uint32:
		return U32, len(v)
	case []uint64:
		return U64, len(v)
	case []Float16:
		return F16, len(v)
	case []BFloat16:
		return BF16, len(v)
	case []float32:
		return F32, len(v)
	case []float64:
		return F64, len(v)
	}
	return Invalid, 0
}

// Validate says whether shape and data belong together; its errors wrap
// gpu.ErrInvalid.
func (a *Array) Validate() error {
	if err := a.validate(); err != nil {
		return fmt.Errorf("npy: %w", err)
	}
	return nil
}

func (a *Array) validate() error {
	if a == nil {
		return fmt.Errorf("array is nil: %w", gpu.ErrInvalid)
	}
	d, got := dtypeOf(a.Data)
	if d == Invalid {
		return fmt.Errorf("data: type %T, want a slice of bool, intN, uintN, Float16, BFloat16, float32 or float64: %w", a.Data, gpu.ErrInvalid)
	}
	want, err := Count(a.Shape, d)
	if err != nil {
		return fmt.Errorf("%w: %w", err, gpu.ErrInvalid)
	}
	if got != want {
		return fmt.Errorf("data: %d elements, want %d for shape %s: %w", got, want, FormatShape(a.Shape), gpu.ErrInvalid)
	}
	return nil
}

// maxDims is what NumPy 2 allows.
const maxDims = 64

// Count returns the number of elements of a shape, or why elements of type d
// in that shape cannot be addressed: an extent is negative, there are more
// than 64, or the bytes of the extents that are not 0 overflow int.
func Count(shape []int, d DType) (int, error) {
	if len(shape) > maxDims {
		return 0, fmt.Errorf("shape: %d dimensions, want at most %d", len(shape), maxDims)
	}
	limit := math.MaxInt / max(d.Bytes(), 1)
	count, empty := 1, false
	for _, extent := range shape {
		switch {
		case extent < 0:
			return 0, fmt.Errorf("shape: %s, want extents that are not negative", FormatShape(shape))
		case extent == 0:
			empty = true
		case count > limit/extent:
			return 0, fmt.Errorf("shape: %s of %v overflows", FormatShape(shape), d)
		default:
			count *= extent
		}
	}
	if empty {
		return 0, nil
	}
	return count, nil
}

// FormatShape writes a shape as Python does: (), (3,), (3, 4).
func FormatShape(shape []int) string {
	var b strings.Builder
	b.WriteByte('(')
	for i, extent := range shape {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, extent)
	}
	if len(shape) == 1 {
		b.WriteByte(',')
	}
	b.WriteByte(')')
	return b.String()
}
