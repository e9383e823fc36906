package gmm

import (
	"errors"
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// SampleArgs are the arguments of Sample. The arrays of the mixture, X0, T, X1
// and Xt have one element type; all arrays lie on one device.
type SampleArgs struct {
	Mixture
	X0 tensor.Tensor // (n, d): where the bridge begins

	// T (n) are the times of Xt, in [0, 1]; zero Tensor: T0 for all. T0 is 0
	// where T is given.
	T  tensor.Tensor
	T0 float64

	// Outputs; at least one must be given. X1 and Xt may each be X0, and share
	// no memory otherwise.
	X1        tensor.Tensor // (n, d): x_1
	Xt        tensor.Tensor // (n, d): x_t
	Component tensor.Tensor // (n), Int32: j

	// Draw says which uniforms and normals, for sample Draw.Index + i: j comes
	// from Draw.Purpose, n from Draw.Purpose + 1, n' from Draw.Purpose + 2.
	Draw philox.Draw
}

const opSample = "gmm: sample"

// Sample queues the drawing of points of the bridge, given where it begins:
// exactly in law and in one step.
//
//	w_j ∝ exp(log α_j + [2 r_jᵀ x_0 + x_0ᵀ (S_j - I) x_0] / (2ε))
//	j   = the first component with w_0 + … + w_j > uniform
//	x_1 = r_j + S_j x_0 + √ε A_jᵀ diag(s_j)^½ n
//	x_t = (1 - t) x_0 + t x_1 + √(ε t (1 - t)) n'
//
// (Korotin, Gushchin and Burnaev, "Light Schrödinger bridge", 2024, proposition
// 3.3 and section 3.4.) Results are bit-equal on all devices, and a row's does
// not depend on the others. The uniform has 23 bits in float32: a component of
// weight below 1.2e-7 may never be drawn.
//
// A row whose weights are not numbers (x_0 or the mixture holds a NaN, all log
// α are -∞, or a product overflows) has component -1 and NaN for x_1 and x_t.
// Time is n K d operations, n K d² with Axes. Above d = 8 a GPU takes as many
// components as its shared memory has room for, about 28,000 in float64, else
// the error wraps gpu.ErrUnsupported.
func Sample(a SampleArgs) error {
	if err := a.validate(); err != nil || a.X0.Dim(0) == 0 {
		return err
	}
	return launchSample(&a)
}

func (a *SampleArgs) validate() error {
	m := &a.Mixture
	if err := m.Check(opSample); err != nil {
		return err
	}
	if a.X0.IsZero() || len(a.X0.Shape()) != 2 {
		return fmt.Errorf("%s: x0: %w: %v, want (n, %d)", opSample, gpu.ErrInvalid, a.X0, m.Dim())
	}
	n, d, dtype := a.X0.Dim(0), m.Dim(), m.Logits.DType()
	if err := tensor.Check(opSample, m.Logits.Device(),
		tensor.Want("x0", a.X0, dtype, n, d),
		tensor.Maybe("t", a.T, dtype, n),
		tensor.Maybe("x1", a.X1, dtype, n, d),
		tensor.Maybe("xt", a.Xt, dtype, n, d),
		tensor.Maybe("component", a.Component, tensor.Int32, n),
	); err != nil {
		return err
	}
	if a.sound(d, dtype) {
		return nil
	}
	return a.fault(d, dtype)
}

// sound reports whether nothing is wrong but what Check finds.
func (a *SampleArgs) sound(d int, dtype tensor.DType) bool {
	return !(a.X1.IsZero() && a.Xt.IsZero() && a.Component.IsZero()) && !a.overlap() &&
		a.T0 >= 0 && a.T0 <= 1 && (a.T.IsZero() || a.T0 == 0) &&
		a.Draw.Purpose <= maxPurpose && d <= philox.MaxColumns(dtype)
}

// maxPurpose leaves room for two more.
const maxPurpose = 253

// overlap reports whether an output shares memory with what it must not.
func (a *SampleArgs) overlap() bool {
	x0, m := a.X0.Buffer(), &a.Mixture
	outputs := [...]gpu.Buffer{a.X1.Buffer(), a.Xt.Buffer(), a.Component.Buffer()}
	inputs := [...]gpu.Buffer{a.T.Buffer(), m.Logits.Buffer(), m.Means.Buffer(), m.Scales.Buffer(), m.Axes.Buffer()}
	for i, out := range outputs {
		if out.Overlaps(x0) && (i == 2 || out.Ptr != x0.Ptr) {
			return true
		}
		for _, in := range inputs {
			if out.Overlaps(in) {
				return true
			}
		}
		for _, other := range outputs[:i] {
			if out.Overlaps(other) {
				return true
			}
		}
	}
	return false
}

func (a *SampleArgs) fault(d int, dtype tensor.DType) error {
	var errs []error
	bad := func(wrong bool, argument, format string, v ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf("%s: %s: %w: %s", opSample, argument, gpu.ErrInvalid, fmt.Sprintf(format, v...)))
		}
	}
	bad(a.X1.IsZero() && a.Xt.IsZero() && a.Component.IsZero(), "outputs", "none given")
	bad(a.overlap(), "outputs", "overlap each other or an input, want x1 and xt to be x0 or another array")
	bad(!(a.T0 >= 0 && a.T0 <= 1), "t0", "got %v, want in [0, 1]", a.T0)
	bad(!a.T.IsZero() && a.T0 != 0, "t0", "got %v beside t, want 0", a.T0)
	bad(a.Draw.Purpose > maxPurpose, "draw", "purpose %d, want at most %d", a.Draw.Purpose, maxPurpose)
	bad(d > philox.MaxColumns(dtype), "x0", "%d columns, want at most %d", d, philox.MaxColumns(dtype))
	return errors.Join(errs...)
}

// sampleRows is FORTET_GMM_SAMPLE_ROWS of gmm_sample.h.
const sampleRows = 64
