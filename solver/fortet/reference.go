package fortet

import (
	"errors"
	"fmt"
	"math"
)

// Reference is the process that the bridge is nearest to: a Diffusion or Given
// kernels. Its axes are independent of each other.
type Reference interface {
	// check says what is wrong with it on a grid, in so many steps.
	check(axes [][]float64, steps int) error
	// logKernel is the logarithm of the kernel of an axis over a duration: (n, n),
	// from rows to columns. It is exact at durations of a step.
	logKernel(axis int, x []float64, duration float64) ([]float64, error)
}

// Diffusion is Brownian motion or, with rates, an Ornstein-Uhlenbeck process:
// along each axis
//
//	dX = -Rate (X - Center) dt + √Epsilon dW
type Diffusion struct {
	Epsilon      float64   // variance per unit of time
	Rate, Center []float64 // for each axis; nil means 0
}

// Brownian is √epsilon times Brownian motion, whose bridge has the plan of cost
// |x-y|²/2 at the same epsilon.
func Brownian(epsilon float64) Diffusion { return Diffusion{Epsilon: epsilon} }

func (d Diffusion) rate(axis int) (rate, center float64) {
	if d.Rate != nil {
		rate = d.Rate[axis]
	}
	if d.Center != nil {
		center = d.Center[axis]
	}
	return rate, center
}

// transition is the normal law of X_{s+duration} given X_s = x along an axis:
// mean shift + factor x.
func (d Diffusion) transition(axis int, duration float64) (shift, factor, variance float64) {
	rate, center := d.rate(axis)
	if rate == 0 {
		return 0, 1, d.Epsilon * duration
	}
	return -center * math.Expm1(-rate*duration), math.Exp(-rate * duration), -d.Epsilon * math.Expm1(-2*rate*duration) / (2 * rate)
}

// drift is that of the reference.
func (d Diffusion) drift(axis int, x float64) float64 {
	rate, center := d.rate(axis)
	return -rate * (x - center)
}

func (d Diffusion) check(axes [][]float64, steps int) error {
	var errs []error
	if !(d.Epsilon > 0) || math.IsInf(d.Epsilon, 1) {
		errs = append(errs, bad("epsilon", "got %v, want a finite number above 0", d.Epsilon))
	}
	for _, v := range []struct {
		name string
		v    []float64
	}{{"rate", d.Rate}, {"center", d.Center}} {
		if v.v != nil && len(v.v) != len(axes) {
			errs = append(errs, bad(v.name, "%d numbers for %d axes", len(v.v), len(axes)))
		}
		for a, x := range v.v {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				errs = append(errs, bad(v.name, "of axis %d is %v, want a finite number", a, x))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for a, x := range axes {
		_, _, variance := d.transition(a, 1/float64(steps))
		if h := spacing(x); !(h <= math.Sqrt(variance)) {
			of := ""
			if steps > 1 {
				of = fmt.Sprintf(" in %d steps", steps)
			}
			errs = append(errs, bad(fmt.Sprintf("axis %d", a), "grid spacing %.4g is too coarse for epsilon %g%s: want at most %.4g", h, d.Epsilon, of, math.Sqrt(variance)))
		}
	}
	return errors.Join(errs...)
}

// spacing is the largest one.
func spacing(x []float64) float64 {
	h := 0.0
	for i := 1; i < len(x); i++ {
		h = max(h, x[i]-x[i-1])
	}
	return h
}

// resolved says whether the grid resolves the kernel of a duration.
func (d Diffusion) resolved(axis int, x []float64, duration float64) bool {
	_, _, variance := d.transition(axis, duration)
	return spacing(x) <= math.Sqrt(variance)
}

// logKernel is the density of the transition times the width of the cell that is
// reached, where the grid resolves it. Elsewhere, with x and y relative to the center
// and the transition's factor F and variance v, it is
//
//	log W(x, y) - (log F + ((1-F) y² - F(1-F) x²)/v)/2
//
// with W the kernel of heat on the cells of variance v/F. With a normal density W,
// both are one: (y - F x)² = F (y-x)² + (1-F) y² - F(1-F) x². So the drift, which may
// be far too strong for jumps between neighbours, needs no cells to be carried by.
func (d Diffusion) logKernel(axis int, x []float64, duration float64) ([]float64, error) {
	shift, factor, variance := d.transition(axis, duration)
	n := len(x)
	if !d.resolved(axis, x, duration) {
		_, center := d.rate(axis)
		out := heat(x, variance/factor)
		for i := range out {
			from, to := x[i/n]-center, x[i%n]-center
			out[i] -= (math.Log(factor) + (1-factor)*(to*to-factor*from*from)/variance) / 2
		}
		return out, nil
	}
	at := widths(x)
	for j, w := range at {
		at[j] = math.Log(w) - math.Log(2*math.Pi*variance)/2
	}
	out := make([]float64, 0, n*n)
	for _, from := range x {
		for j, to := range x {
			z := to - (shift + factor*from)
			out = append(out, at[j]-z*z/(2*variance))
		}
	}
	return out, nil
}

// Given is a reference that is known by the kernels of one of its steps: any
// matrices of weights, which need be neither symmetric nor stochastic.
type Given struct {
	// LogKernels are, for each axis, the logarithms of the weights from cell i to
	// cell j of a step: (n, n), row-major; -Inf is a transition that does not happen.
	LogKernels [][]float64
}

func (g Given) check(axes [][]float64, _ int) error {
	if len(g.LogKernels) != len(axes) {
		return bad("kernels", "%d for %d axes", len(g.LogKernels), len(axes))
	}
	var errs []error
	for a, k := range g.LogKernels {
		name, n := fmt.Sprintf("kernel of axis %d", a), len(axes[a])
		if len(k) != n*n {
			errs = append(errs, bad(name, "%d numbers, want %d × %d", len(k), n, n))
			continue
		}
		for i, v := range k {
			if math.IsNaN(v) || math.IsInf(v, 1) {
				errs = append(errs, bad(name, "logarithm (%d, %d) is %v, want a number below +Inf", i/n, i%n, v))
				break
			}
		}
	}
	return errors.Join(errs...)
}

func (g Given) logKernel(axis int, _ []float64, _ float64) ([]float64, error) {
	return g.LogKernels[axis], nil
}
