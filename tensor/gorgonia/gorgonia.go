// Package gorgonia hands arrays to and from gorgonia.org/tensor.
//
// FromDense and ToDense share host memory with a *tensor.Dense and copy
// nothing; Upload, Set, Download and Get move elements between a Dense and a
// device. Elements are float32 or float64.
//
// Only what lies in host memory as it is, row-major, without gaps and without
// a mask, can be shared. A lazily transposed Dense, a slice that skips
// elements, a column-major or masked Dense, and one whose memory a device owns
// are refused by an error that wraps tensor.ErrInvalid. The first three become
// acceptable through their own Materialize or Clone.
//
// Programs that import this package need go4.org/unsafe/assume-no-moving-gc at
// v0.0.0-20231121144256-b99613f794b6 or newer: the version that
// gorgonia.org/tensor v0.9.24 asks for stops at the start of a program that
// today's Go compiles.
package gorgonia

import (
	"fmt"
	"slices"

	gorgonia "gorgonia.org/tensor"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
)

// FromDense returns an array that shares the memory of d. The array keeps
// memory of Go alive; memory that d manages by hand must outlive it.
func FromDense(d *gorgonia.Dense) (*npy.Array, error) {
	a, err := fromDense(d)
	if err != nil {
		return nil, fmt.Errorf("gorgonia: %w", err)
	}
	return a, nil
}

func fromDense(d *gorgonia.Dense) (*npy.Array, error) {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("dense: %s: %w", fmt.Sprintf(format, args...), tensor.ErrInvalid)
	}
	// A Dense that New has not made has no type; asking it for its size or
	// its text would crash.
	if d == nil || d.Dtype().Type == nil {
		return nil, invalid("is nil or empty")
	}
	// This comes before all that could touch the memory.
	if !d.IsNativelyAccessible() {
		return nil, invalid("lies in device memory, want host memory")
	}
	if len(d.Mask()) > 0 {
		return nil, invalid("is masked, want no mask")
	}
	shape := []int(d.Shape())
	if !rowMajor(shape, d.Strides()) {
		return nil, invalid("strides %v of shape %s, want row-major elements without gaps", d.Strides(), npy.FormatShape(shape))
	}
	a := &npy.Array{Shape: slices.Clone(shape)}
	var held int
	n := d.Shape().TotalSize()
	switch d.Dtype() {
	case gorgonia.Float32:
		v := d.Float32s()
		held, a.Data = len(v), v[:min(n, len(v)):min(n, len(v))]
	case gorgonia.Float64:
		v := d.Float64s()
		held, a.Data = len(v), v[:min(n, len(v)):min(n, len(v))]
	default:
		return nil, invalid("elements %v, want float32 or float64", d.Dtype())
	}
	if held < n {
		return nil, invalid("%d elements for shape %s, want %d", held, npy.FormatShape(shape), n)
	}
	return a, nil
}

// rowMajor says whether strides are those of a row-major array without gaps.
// Strides along an extent of 1 do not matter. Gorgonia gives some vectors of
// shape (n, 1) and (1, n) a single stride.
func rowMajor(shape, strides []int) bool {
	if slices.Contains(shape, 0) {
		return true
	}
	var long, along []int // extents that are not 1, and the strides along them
	for i, extent := range shape {
		if extent != 1 {
			long = append(long, extent)
			if len(strides) == len(shape) {
				along = append(along, strides[i])
			}
		}
	}
	if len(strides) != len(shape) {
		return len(long) == 0 || len(long) == 1 && len(strides) == 1 && strides[0] == 1
	}
	want := 1
	for i := len(long) - 1; i >= 0; i-- {
		if along[i] != want {
			return false
		}
		want *= long[i]
	}
	return true
}

// ToDense returns a Dense that shares the memory of a, whose elements must be
// float32 or float64.
func ToDense(a *npy.Array) (*gorgonia.Dense, error) {
	if err := a.Validate(); err != nil {
		return nil, fmt.Errorf("gorgonia: %w: %w", err, tensor.ErrInvalid)
	}
	switch a.Data.(type) {
	case []float32, []float64:
		return gorgonia.New(gorgonia.WithShape(a.Shape...), gorgonia.WithBacking(a.Data)), nil
	}
	return nil, fmt.Errorf("gorgonia: array: elements %v, want float32 or float64: %w", a.DType(), tensor.ErrInvalid)
}

// Upload copies d to a new tensor of dev. Free returns the tensor's memory.
func Upload(dev gpu.Device, d *gorgonia.Dense) (tensor.Tensor, error) {
	a, err := FromDense(d)
	if err != nil {
		return tensor.Tensor{}, err
	}
	var t tensor.Tensor
	switch v := a.Data.(type) {
	case []float32:
		t, err = tensor.From(dev, v, a.Shape...)
	case []float64:
		t, err = tensor.From(dev, v, a.Shape...)
	}
	if err != nil {
		return tensor.Tensor{}, fmt.Errorf("gorgonia: %w", err)
	}
	return t, nil
}

// Download waits for the device and copies t to a new Dense.
func Download(t tensor.Tensor) (*gorgonia.Dense, error) {
	var data any
	var err error
	switch t.DType() {
	case tensor.Float32:
		data, err = tensor.Values[float32](t)
	case tensor.Float64:
		data, err = tensor.Values[float64](t)
	default:
		err = fmt.Errorf("%v: elements, want float32 or float64: %w", t, tensor.ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("gorgonia: %w", err)
	}
	return ToDense(&npy.Array{Shape: slices.Clone(t.Shape()), Data: data})
}

// Set copies d to the whole of t, which has the same shape and type.
func Set(t tensor.Tensor, d *gorgonia.Dense) error {
	a, err := matching(t, d)
	if err != nil {
		return fmt.Errorf("gorgonia: set: %w", err)
	}
	switch v := a.Data.(type) {
	case []float32:
		err = tensor.Set(t, v)
	case []float64:
		err = tensor.Set(t, v)
	}
	if err != nil {
		return fmt.Errorf("gorgonia: %w", err)
	}
	return nil
}

// Get waits for the device and copies the whole of t to d, which has the same
// shape and type.
func Get(t tensor.Tensor, d *gorgonia.Dense) error {
	a, err := matching(t, d)
	if err != nil {
		return fmt.Errorf("gorgonia: get: %w", err)
	}
	switch v := a.Data.(type) {
	case []float32:
		err = tensor.Get(t, v)
	case []float64:
		err = tensor.Get(t, v)
	}
	if err != nil {
		return fmt.Errorf("gorgonia: %w", err)
	}
	return nil
}

// matching returns the memory of d, if t can be copied to or from it.
func matching(t tensor.Tensor, d *gorgonia.Dense) (*npy.Array, error) {
	a, err := fromDense(d)
	if err != nil {
		return nil, err
	}
	want := tensor.Float32
	if a.DType() == npy.F64 {
		want = tensor.Float64
	}
	if t.IsZero() || t.DType() != want || !slices.Equal(t.Shape(), a.Shape) {
		return nil, fmt.Errorf("%v for a dense of %v %s: %w", t, a.DType(), npy.FormatShape(a.Shape), tensor.ErrInvalid)
	}
	return a, nil
}
