// Package tensor gives device buffers a shape and an element type. A Tensor is
// a dense row-major array on a gpu.Device, or a view of one. Host formats live
// below it (npy, safetensors, gorgonia).
package tensor

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unsafe"

	"github.com/fortet/fortet/gpu"
)

// ErrInvalid says that a tensor does not fit where it is given: its shape, its
// element type or its device. The text names operation, argument, what was
// found and what was wanted.
var ErrInvalid = errors.New("invalid tensor")

// DType is an element type.
type DType uint8

// The element types of kernels.
const (
	Float32 DType = iota + 1
	Float64
	Int32
	Uint32
	Int64
)

// Size is the number of bytes of an element.
func (t DType) Size() int {
	switch t {
	case Float32, Int32, Uint32:
		return 4
	case Float64, Int64:
		return 8
	}
	return 0
}

func (t DType) String() string {
	switch t {
	case Float32:
		return "f32"
	case Float64:
		return "f64"
	case Int32:
		return "i32"
	case Uint32:
		return "u32"
	case Int64:
		return "i64"
	}
	return fmt.Sprintf("DType(%d)", int(t))
}

// Element is a Go type that a tensor can hold.
type Element interface {
	float32 | float64 | int32 | uint32 | int64
}

// TypeOf is the DType of T.
func TypeOf[T Element]() DType {
	switch any(*new(T)).(type) {
	case float32:
		return Float32
	case float64:
		return Float64
	case int32:
		return Int32
	case uint32:
		return Uint32
	}
	return Int64
}

// Tensor is a dense row-major array on a device. The zero Tensor is "no
// array", which operations document where they accept it.
type Tensor struct {
	dev   gpu.Device
	buf   gpu.Buffer
	dtype DType
	shape []int
}

// New allocates an uninitialised tensor. Free returns its memory.
func New(dev gpu.Device, dtype DType, shape ...int) (Tensor, error) {
	n, err := count(dtype, shape)
	if err != nil {
		return Tensor{}, err
	}
	buf, err := dev.Alloc(n * dtype.Size())
	if err != nil {
		return Tensor{}, fmt.Errorf("tensor: %v %v: %w", dtype, shapeText(shape), err)
	}
	return Tensor{dev, buf, dtype, slices.Clone(shape)}, nil
}

// From uploads host data. len(data) must be the product of the shape.
func From[T Element](dev gpu.Device, data []T, shape ...int) (Tensor, error) {
	n, err := count(TypeOf[T](), shape)
	if err != nil {
		return Tensor{}, err
	}
	if n != len(data) {
		return Tensor{}, fmt.Errorf("tensor: %w: %d elements for shape %s, want %d", ErrInvalid, len(data), shapeText(shape), n)
	}
	t, err := New(dev, TypeOf[T](), shape...)
	if err != nil {
		return Tensor{}, err
	}
	if err := Set(t, data); err != nil {
		t.Free()
		return Tensor{}, err
	}
	return t, nil
}

// Wrap makes a tensor of memory that the caller owns, for example a buffer of
// another library. Free on it must not be called.
func Wrap(dev gpu.Device, buf gpu.Buffer, dtype DType, shape ...int) (Tensor, error) {
	n, err := count(dtype, shape)
	if err != nil {
		return Tensor{}, err
	}
	if need := n * dtype.Size(); buf.Bytes < need {
		return Tensor{}, fmt.Errorf("tensor: %w: buffer of %d bytes for %v %s, want %d", ErrInvalid, buf.Bytes, dtype, shapeText(shape), need)
	}
	return Tensor{dev, buf, dtype, slices.Clone(shape)}, nil
}

// count is the number of elements of a shape whose bytes fit an int.
func count(dtype DType, shape []int) (int, error) {
	if dtype.Size() == 0 {
		return 0, fmt.Errorf("tensor: %w: %v is no element type", ErrInvalid, dtype)
	}
	n := 1
	for _, s := range shape {
		if s < 0 || (s > 0 && n > math.MaxInt/8/s) {
			return 0, fmt.Errorf("tensor: %w: shape %s", ErrInvalid, shapeText(shape))
		}
		n *= s
	}
	return n, nil
}

func shapeText(shape []int) string {
	s := make([]string, len(shape))
	for i, n := range shape {
		s[i] = fmt.Sprint(n)
	}
	if len(s) == 1 {
		return "(" + s[0] + ",)"
	}
	return "(" + strings.Join(s, ", ") + ")"
}

// Set uploads data to the whole of t.
func Set[T Element](t Tensor, data []T) error {
	if t.dtype != TypeOf[T]() || t.Len() != len(data) {
		return fmt.Errorf("tensor: set: %w: %d %v for %v", ErrInvalid, len(data), TypeOf[T](), t)
	}
	return t.dev.Upload(t.buf, asBytes(data))
}

// Get waits for the queue and downloads the whole of t into data.
func Get[T Element](t Tensor, data []T) error {
	if t.dtype != TypeOf[T]() || t.Len() != len(data) {
		return fmt.Errorf("tensor: get: %w: %v for %d %v", ErrInvalid, t, len(data), TypeOf[T]())
	}
	return t.dev.Download(asBytes(data), t.buf)
}

// Values downloads t into a new slice.
func Values[T Element](t Tensor) ([]T, error) {
	data := make([]T, t.Len())
	return data, Get(t, data)
}

func asBytes[T Element](v []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(*new(T))))
}

// IsZero reports whether t is the zero Tensor, "no array".
func (t Tensor) IsZero() bool { return t.dev == nil }

// Device is where t lives.
func (t Tensor) Device() gpu.Device { return t.dev }

// Buffer is the memory of t.
func (t Tensor) Buffer() gpu.Buffer { return t.buf }

// Ptr is the address of t's memory, nil for the zero Tensor: what argument
// structs of kernels hold.
func (t Tensor) Ptr() unsafe.Pointer { return t.buf.Ptr }

// DType is the element type.
func (t Tensor) DType() DType { return t.dtype }

// Shape is the shape; it must not be changed.
func (t Tensor) Shape() []int { return t.shape }

// Dim is the size of axis i.
func (t Tensor) Dim(i int) int { return t.shape[i] }

// Len is the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, s := range t.shape {
		n *= s
	}
	return n
}

// Rows is the view of rows [lo, hi) of the first axis. It panics where the
// range lies outside, as slicing does.
func (t Tensor) Rows(lo, hi int) Tensor {
	if len(t.shape) == 0 || lo < 0 || hi < lo || hi > t.shape[0] {
		panic(fmt.Sprintf("tensor: rows [%d:%d] of %v", lo, hi, t))
	}
	row := t.dtype.Size()
	for _, s := range t.shape[1:] {
		row *= s
	}
	shape := slices.Clone(t.shape)
	shape[0] = hi - lo
	return Tensor{t.dev, t.buf.Slice(lo*row, (hi-lo)*row), t.dtype, shape}
}

// Reshape is the view with another shape of as many elements.
func (t Tensor) Reshape(shape ...int) (Tensor, error) {
	n, err := count(t.dtype, shape)
	if err != nil {
		return Tensor{}, err
	}
	if n != t.Len() {
		return Tensor{}, fmt.Errorf("tensor: reshape: %w: %v to %s", ErrInvalid, t, shapeText(shape))
	}
	return Tensor{t.dev, t.buf, t.dtype, slices.Clone(shape)}, nil
}

// Free returns the memory of t to its device. Views share their tensor's
// memory: free the tensor that New or From returned, once. Freeing the zero
// Tensor does nothing.
func (t Tensor) Free() {
	if t.dev != nil {
		t.dev.Free(t.buf)
	}
}

// String describes t without touching its memory.
func (t Tensor) String() string {
	if t.IsZero() {
		return "no tensor"
	}
	return fmt.Sprintf("%v %s on %s", t.dtype, shapeText(t.shape), t.dev.Name())
}
