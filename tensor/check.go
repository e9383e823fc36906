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
	Optional bool // the zero Tensor will do

	// The shape lies in the Arg itself, so that a check allocates nothing.
	rank int
	dims [maxRank]int
}

// maxRank is the most axes that an operation may want.
const maxRank = 6

// Want is an Arg that must be there, of at most six axes.
func Want(name string, t Tensor, dtype DType, shape ...int) Arg {
	a := Arg{Name: name, Tensor: t, DType: dtype, rank: len(shape)}
	copy(a.dims[:len(shape)], shape)
	return a
}

// Maybe is an Arg that may be the zero Tensor.
func Maybe(name string, t Tensor, dtype DType, shape ...int) Arg {
	a := Want(name, t, dtype, shape...)
	a.Optional = true
	return a
}

// Check reports every argument of op that is missing, lies on another device
// than dev, or has another element type or shape than wanted:
//
//	softmin: y: shape (7, 2), want (7, 3)
//
// It allocates nothing where there is nothing to report.
func Check(op string, dev gpu.Device, args ...Arg) error {
	var errs []error
	bad := func(a *Arg, format string, v ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %w: %s", op, a.Name, ErrInvalid, fmt.Sprintf(format, v...)))
	}
	if dev == nil {
		return fmt.Errorf("%s: %w: no device", op, ErrInvalid)
	}
	for i := range args {
		a := &args[i]
		t, want := a.Tensor, a.dims[:a.rank]
		switch {
		case t.IsZero() && a.Optional:
		case t.IsZero():
			bad(a, "missing, want %v %s", a.DType, shapeText(want))
		case !sameMemory(t.dev, dev):
			bad(a, "on %s, want %s", t.dev.Name(), dev.Name())
		case t.dtype != a.DType:
			bad(a, "%v, want %v", t.dtype, a.DType)
		case !slices.Equal(t.shape, want):
			bad(a, "shape %s, want %s", shapeText(t.shape), shapeText(want))
		}
	}
	return errors.Join(errs...)
}

// sameMemory reports whether both devices see the same memory: they are one,
// or streams of one.
func sameMemory(a, b gpu.Device) bool { return a == b || a.Name() == b.Name() }
