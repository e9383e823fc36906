// Package langevin is a step of the unadjusted Langevin algorithm, which
// samples from a density of which the score is known, with its noise fused:
//
//	y ← y + η (score - precision (y - mean)) + √(2 η temperature) n
//
// n are the standard normals that package philox draws for (seed, sample,
// step, purpose, coordinate). The quadratic part serves targets of the form
// grad potential minus a Gaussian term whose mean differs by sample, as
// conditional sampling from bridge potentials has.
//
// Alone, the quadratic part contracts by 1 - η precision a step and has the
// stationary variance temperature / (precision (1 - η precision / 2)); it is
// stable for η < 2 / precision (Roberts and Tweedie, "Exponential convergence
// of Langevin distributions and their discrete approximations", 1996).
package langevin

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// Args are the arguments of Step. Arrays are (n, d) of one element type,
// Float32 or Float64, on one device.
type Args struct {
	Y     tensor.Tensor
	Score tensor.Tensor // zero Tensor: zeros
	Mean  tensor.Tensor // zero Tensor: zeros; not read where Precision is 0
	Out   tensor.Tensor // may be Y, Score or Mean

	Eta         float64 // step size, at least 0; with 0, Out is Y
	Temperature float64 // at least 0; with 0, no noise is drawn
	Precision   float64 // of the quadratic part

	// Draw says which noise. Index is the sample of row 0; a sampler counts
	// Step up.
	Draw philox.Draw
}

// Step queues one step. Results are bit-equal on all devices, and a row's does
// not depend on the others. It answers gpu.ErrInvalid or tensor.ErrInvalid for
// arguments that do not fit together.
func Step(a Args) error {
	if err := a.validate(); err != nil {
		return err
	}
	if a.Y.Len() == 0 {
		return nil
	}
	return launch(a)
}

const op = "langevin: step"

func (a Args) validate() error {
	if a.Y.IsZero() {
		return fmt.Errorf("%s: y: %w: missing", op, gpu.ErrInvalid)
	}
	dtype, shape := a.Y.DType(), a.Y.Shape()
	var errs []error
	bad := func(argument, format string, v ...any) {
		errs = append(errs, fmt.Errorf("%s: %s: %w: %s", op, argument, gpu.ErrInvalid, fmt.Sprintf(format, v...)))
	}
	if dtype != tensor.Float32 && dtype != tensor.Float64 {
		bad("y", "%v, want f32 or f64", dtype)
	}
	if len(shape) != 2 {
		bad("y", "%d axes, want 2", len(shape))
	} else if shape[1] > philox.MaxColumns(dtype) {
		bad("y", "%d columns, want at most %d", shape[1], philox.MaxColumns(dtype))
	}
	if err := tensor.Check(op, a.Y.Device(),
		tensor.Maybe("score", a.Score, dtype, shape...),
		tensor.Maybe("mean", a.Mean, dtype, shape...),
		tensor.Want("out", a.Out, dtype, shape...),
	); err != nil {
		errs = append(errs, err)
	}
	for _, in := range []struct {
		name string
		tensor.Tensor
	}{{"y", a.Y}, {"score", a.Score}, {"mean", a.Mean}} {
		if in.Ptr() != a.Out.Ptr() && in.Buffer().Overlaps(a.Out.Buffer()) {
			bad("out", "overlaps %s, want the same array or another", in.name)
		}
	}
	finite := func(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
	if !(a.Eta >= 0 && finite(a.Eta)) {
		bad("eta", "got %v, want at least 0", a.Eta)
	}
	if !(a.Temperature >= 0 && finite(a.Temperature)) {
		bad("temperature", "got %v, want at least 0", a.Temperature)
	}
	if !finite(a.Precision) {
		bad("precision", "got %v, want a finite number", a.Precision)
	}
	return errors.Join(errs...)
}

// scale is √(2 η temperature).
func (a Args) scale() float64 { return math.Sqrt(2 * a.Eta * a.Temperature) }
