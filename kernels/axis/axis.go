// Package axis is the log-sum-exp along one axis of an array with a matrix of
// logarithms: the pass that separable kernels on grids are made of. With in:
// (outer, n, inner) and logk: (m, n),
//
//	z_j   = logk_ij + in_ojr
//	out   = scale log Σ_j exp z_j + add          for every o, i, r
//	mass  = exp(out)                             in float64
//
// A kernel K on a grid that is a product over its axes is applied by one such
// pass for each axis, in Σ n_a operations an element instead of Π n_a.
//
// The logarithms are those of the z themselves, as near to them as if each sum
// were taken relative to its own largest term: no tail is lost, however far
// below the largest element of in or logk it lies. (A convolution by Fourier
// transform loses everything below 10⁻¹⁴ of the largest.)
//
// An element of -∞ is a weight of zero; a sum without any other has the
// logarithm -∞. A z of +∞ makes a result +∞, and a NaN, which -∞ + ∞ is too,
// makes it NaN. Where add is -∞, out is -∞ and mass 0 whatever the sum is,
// unless that is NaN.
package axis

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Args are the arguments of LogSumExp. All arrays but Mass have one element
// type, Float32 or Float64, and lie on one device.
type Args struct {
	In    tensor.Tensor // (outer, n, inner)
	LogK  tensor.Tensor // (m, n)
	Add   tensor.Tensor // (outer, m, inner); none means 0
	Scale float64       // finite; 0 means 1

	// Outputs (outer, m, inner); at least one must be given. They may not overlap
	// any input, but that Out may be Add.
	Out  tensor.Tensor
	Mass tensor.Tensor // always Float64
}

const op = "axis: log-sum-exp"

// LogSumExp queues the computation of the outputs that are given. Results are a
// function of the arguments alone on a device: bit-equal whenever repeated,
// whatever the number of workers.
//
// Errors wrap tensor.ErrInvalid or gpu.ErrInvalid for arguments that do not fit,
// and gpu.ErrOutOfMemory where the workspace, of about the size of LogK, has no
// room.
func LogSumExp(a Args) error {
	s, err := a.validate()
	if err != nil {
		return err
	}
	if a.Scale == 0 {
		a.Scale = 1
	}
	return launch(a, s)
}

type sizes struct {
	outer, n, m, inner int
	dtype              tensor.DType
}

func (a Args) validate() (s sizes, err error) {
	var errs []error
	bad := func(argument, format string, v ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %w: %s", op, argument, gpu.ErrInvalid, fmt.Sprintf(format, v...)))
	}
	for _, t := range []struct {
		name string
		tensor.Tensor
		axes int
	}{{"in", a.In, 3}, {"logk", a.LogK, 2}} {
		switch {
		case t.IsZero():
			bad(t.name, "missing")
		case len(t.Shape()) != t.axes:
			bad(t.name, "%d axes, want %d", len(t.Shape()), t.axes)
		}
	}
	if a.Out.IsZero() && a.Mass.IsZero() {
		bad("out", "neither it nor mass is given")
	}
	if len(errs) > 0 {
		return s, errors.Join(errs...)
	}
	s = sizes{a.In.Dim(0), a.In.Dim(1), a.LogK.Dim(0), a.In.Dim(2), a.In.DType()}
	if s.dtype != tensor.Float32 && s.dtype != tensor.Float64 {
		bad("in", "%v, want f32 or f64", s.dtype)
	}
	if s.outer < 1 || s.n < 1 || s.m < 1 || s.inner < 1 {
		bad("in", "an axis of length 0")
	}
	errs = append(errs, tensor.Check(op, a.In.Device(),
		tensor.Want("logk", a.LogK, s.dtype, s.m, s.n),
		tensor.Maybe("add", a.Add, s.dtype, s.outer, s.m, s.inner),
		tensor.Maybe("out", a.Out, s.dtype, s.outer, s.m, s.inner),
		tensor.Maybe("mass", a.Mass, tensor.Float64, s.outer, s.m, s.inner)))
	if math.IsNaN(a.Scale) || math.IsInf(a.Scale, 0) {
		bad("scale", "got %v, want a finite number", a.Scale)
	}
	out, mass, add := a.Out.Buffer(), a.Mass.Buffer(), a.Add.Buffer()
	for _, o := range []struct {
		name string
		gpu.Buffer
	}{{"out", out}, {"mass", mass}} {
		if o.Overlaps(a.In.Buffer()) || o.Overlaps(a.LogK.Buffer()) || o.Overlaps(add) && (o.name == "mass" || o.Ptr != add.Ptr) {
			bad(o.name, "overlaps an input")
		}
	}
	if out.Overlaps(mass) {
		bad("mass", "overlaps out")
	}
	return s, errors.Join(errs...)
}
