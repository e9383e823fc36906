package tensor

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fortet/fortet/gpu"
)

// Arg is one argument of an operation, with what the operation wants of it.
type Arg struct {
	Name     string
	Tensor   Tensor
	DType    DType
	Shape    []int
	Optional bool // the zero Tensor will do
}

// Want is an Arg that must be there.
func Want(name string, t Tensor, dtype DType, shape ...int) Arg {
	return Arg{name, t, dtype, shape, false}
}

// Maybe is an Arg that may be the zero Tensor.
func Maybe(name string, t Tensor, dtype DType, shape ...int) Arg {
	return Arg{name, t, dtype, shape, true}
}

// Check reports every argument of op that is missing, lies on another device
// than dev, or has another element type or shape than wanted:
//
//	softmin: y: shape (7, 2), want (7, 3)
func Check(op string, dev gpu.Device, args ...Arg) error {
	var errs []error
	bad := func(a Arg, format string, v ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %w: %s", op, a.Name, ErrInvalid, fmt.Sprintf(format, v...)))
	}
	if dev == nil {
		return fmt.Errorf("%s: %w: no device", op, ErrInvalid)
	}
	for _, a := range args {
		t := a.Tensor
		switch {
		case t.IsZero() && a.Optional:
		case t.IsZero():
			bad(a, "missing, want %v %s", a.DType, shapeText(a.Shape))
		case !sameMemory(t.dev, dev):
			bad(a, "on %s, want %s", t.dev.Name(), dev.Name())
		case t.dtype != a.DType:
			bad(a, "%v, want %v", t.dtype, a.DType)
		case !slices.Equal(t.shape, a.Shape):
			bad(a, "shape %s, want %s", shapeText(t.shape), shapeText(a.Shape))
		}
	}
	return errors.Join(errs...)
}

// sameMemory reports whether both devices see the same memory: they are one,
// or streams of one.
func sameMemory(a, b gpu.Device) bool { return a == b || a.Name() == b.Name() }
