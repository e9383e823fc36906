package fortet

import (
	"math"

	"gonum.org/v1/gonum/mat"
)

// heat is the logarithm of a kernel on the cells, from rows to columns, that has as
// mean the cell where it starts, and the variance given, whatever that is next to the
// cells' widths: values of a normal density narrower than a cell say nothing of its
// masses. What leaves the grid is lost.
//
// A kernel of variance v between cells of width h has a fourth cumulant of at least
// v (h² - 3v), since x⁴ ≥ h² x² at cells. lattice has little more than that where it is
// above 0, and soon none where it is not: it differs from the heat kernel by up to
// h⁴/280 times fourth derivatives of what it is applied to, walk by v h²/24.
func heat(x []float64, variance float64) []float64 {
	if h, ok := even(x); ok {
		return lattice(len(x), variance/(h*h))
	}
	out := walk(x, variance)
	for i, v := range out {
		out[i] = math.Log(v)
	}
	return out
}

// even says whether all cells have one width.
func even(x []float64) (h float64, ok bool) {
	n := len(x)
	h = (x[n-1] - x[0]) / float64(n-1)
	for i := 1; i < n; i++ {
		if math.Abs(x[i]-x[i-1]-h) > 1e-9*h {
			return h, false
		}
	}
	return h, true
}

// lattice is the normal law on the integers, of weights exp(-k²/2s), with the s of
// which its variance is the one given: that itself, as exp(-2π² s) falls, so that it
// becomes the kernel of resolved transitions.
func lattice(n int, variance float64) []float64 {
	moments := func(s float64) (mass, square float64) {
		mass = 1
		for k := 1.0; ; k++ {
			w := 2 * math.Exp(-k*k/(2*s))
			mass, square = mass+w, square+w*k*k
			if w*k*k <= 1e-18*square {
				return mass, square / mass
			}
		}
	}
	low, high := 0.0, variance+1 // s exceeds its variance by less than 0.1
	for {
		s := (low + high) / 2
		mass, square := moments(s)
		if s > low && s < high {
			if square < variance {
				low = s
			} else {
				high = s
			}
			continue
		}
		out := make([]float64, n*n)
		for i := range out {
			k := float64(i/n - i%n)
			out[i] = -k*k/(2*s) - math.Log(mass)
		}
		return out
	}
}

// walk is the kernel of the random walk between neighbouring cells of different
// widths.
//
// It is the exponential of its generator, by uniformisation.
func walk(x []float64, variance float64) []float64 {
	n := len(x)
	up, down := make([]float64, n), make([]float64, n) // rates, at a variance of 1 per unit of time
	fastest := 0.0
	for i := range x {
		left, right := x[max(i, 1)]-x[max(i, 1)-1], x[min(i, n-2)+1]-x[min(i, n-2)]
		up[i], down[i] = 1/(right*(left+right)), 1/(left*(left+right))
		fastest = max(fastest, up[i]+down[i])
	}
	mean := fastest * variance
	if mean > 200 { // of cells of very different widths: exp(-mean) must not underflow
		half := mat.NewDense(n, n, walk(x, variance/2))
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
				v := row[j] * variance / float64(jumps)
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
