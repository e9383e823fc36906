package fortet

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
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

func (d Diffusion) logKernel(axis int, x []float64, duration float64) ([]float64, error) {
	if !d.resolved(axis, x, duration) {
		out := d.walk(axis, x, duration)
		for i, v := range out {
			out[i] = math.Log(v)
		}
		return out, nil
	}
	shift, factor, variance := d.transition(axis, duration)
	at := widths(x)
	for j, w := range at {
		at[j] = math.Log(w) - math.Log(2*math.Pi*variance)/2
	}
	out := make([]float64, 0, len(x)*len(x))
	for _, from := range x {
		for j, to := range x {
			z := to - (shift + factor*from)
			out = append(out, at[j]-z*z/(2*variance))
		}
	}
	return out, nil
}

// walk is the kernel of the random walk between neighbouring cells with the
// diffusion's drift and variance, which is one at every duration: where a kernel is
// narrower than a cell, its values at the cells say nothing of it. It differs from
// the diffusion's by duration·h² times fourth derivatives of what it is applied to,
// and durations that are not resolved are below h²/ε.
//
// It is the exponential of its generator, by uniformisation.
func (d Diffusion) walk(axis int, x []float64, duration float64) []float64 {
	n := len(x)
	up, down := make([]float64, n), make([]float64, n) // rates
	fastest := 0.0
	for i := range x {
		left, right := x[max(i, 1)]-x[max(i, 1)-1], x[min(i, n-2)+1]-x[min(i, n-2)]
		b := d.drift(axis, x[i])
		up[i], down[i] = (d.Epsilon+b*left)/(right*(left+right)), (d.Epsilon-b*right)/(left*(left+right))
		if up[i] < 0 || down[i] < 0 { // upwind
			up[i], down[i] = d.Epsilon/(right*(left+right))+max(b, 0)/right, d.Epsilon/(left*(left+right))+max(-b, 0)/left
		}
		fastest = max(fastest, up[i]+down[i])
	}
	mean := fastest * duration
	if mean > 200 { // of cells of very different widths: exp(-mean) must not underflow
		half := mat.NewDense(n, n, d.walk(axis, x, duration/2))
		out := mat.NewDense(n, n, nil)
		out.Mul(half, half)
		return out.RawMatrix().Data
	}
	// Row i of a power: one more jump, to a neighbour or to where it is.
	term, next, out := make([]float64, n*n), make([]float64, n*n), make([]float64, n*n)
	for i := range n {
		term[i*n+i] = math.Exp(-mean)
	}
	for jumps := 0; ; { // term has the walks of so many jumps
		for i := range n {
			for j := max(i-jumps, 0); j <= min(i+jumps, n-1); j++ {
				out[i*n+j] += term[i*n+j]
			}
		}
		if float64(jumps) > mean+12*math.Sqrt(mean)+40 {
			return out
		}
		jumps++
		for i := range n {
			row, to := term[i*n:(i+1)*n], next[i*n:(i+1)*n]
			low, high := max(i-jumps, 0), min(i+jumps, n-1)
			clear(to[low : high+1])
			for j := low; j <= high; j++ { // beyond its reach, row is 0
				v := row[j] * duration / float64(jumps)
				to[j] += v * (fastest - up[j] - down[j])
				if j < high {
					to[j+1] += v * up[j]
				}
				if j > low {
					to[j-1] += v * down[j]
				}
			}
		}
		term, next = next, term
	}
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
