package bass1d

import (
	"math"
	"slices"
	"sort"
)

// Law is a probability law on the line: a density, or atoms. It is made by
// Density, Normal, Atoms or Dirac, and is not modified.
type Law struct {
	logf func(float64) float64 // log density; nil: atoms
	x    []float64             // ascending: nodes of a density, or the atoms
	mass []float64             // weights of the nodes in sums, total 1
	// Probabilities at most x_k, and above x_k. Both, so that each tail is known
	// relative to itself.
	lower, upper []float64
	cell         []float64 // densities: probability between nodes k and k+1
	at           []float64 // densities: density at the nodes times the step
	norm         float64   // densities: log of the integral of exp logf
}

// cells of a density's table.
const cells = 4000

// Density is the law on [low, high] with density proportional to exp logf. It
// is tabulated at 4001 equidistant nodes, between which logf should be smooth;
// the interval should leave out no more than what may be neglected.
func Density(logf func(x float64) float64, low, high float64) (Law, error) {
	if !(low < high) || !(math.Abs(low) <= largest) || !(math.Abs(high) <= largest) {
		return Law{}, bad("density", "interval [%g, %g], want a finite one", low, high)
	}
	if logf == nil {
		return Law{}, bad("density", "no function")
	}
	l := Law{logf: logf, x: make([]float64, cells+1), mass: make([]float64, cells+1), cell: make([]float64, cells)}
	h := (high - low) / cells
	top := math.Inf(-1)
	values := make([]float64, 2*cells+1)
	for i := range values {
		x := low + float64(i)*h/2
		v := logf(x)
		if math.IsNaN(v) || math.IsInf(v, 1) {
			return Law{}, bad("density", "its logarithm is %g at %g, want a number or -Inf", v, x)
		}
		values[i] = v
		top = max(top, v)
	}
	if math.IsInf(top, -1) {
		return Law{}, bad("density", "zero on the whole of [%g, %g]", low, high)
	}
	total := 0.0
	for k := range l.x {
		l.x[k] = low + float64(k)*h
		l.mass[k] = math.Exp(values[2*k] - top)
		if k > 0 {
			l.cell[k-1] = (math.Exp(values[2*k-2]-top) + 4*math.Exp(values[2*k-1]-top) + math.Exp(values[2*k]-top)) / 6
			total += l.cell[k-1]
		}
	}
	l.norm = top + math.Log(total*h)
	l.at = append([]float64(nil), l.mass...)
	scale(l.at, 1/total)
	l.mass[0] /= 2
	l.mass[cells] /= 2
	scale(l.mass, 1/sum(l.mass))
	scale(l.cell, 1/total)
	l.lower, l.upper = make([]float64, cells+1), make([]float64, cells+1)
	for k, m := range l.cell {
		l.lower[k+1] = l.lower[k] + m
	}
	for k := cells - 1; k >= 0; k-- {
		l.upper[k] = l.upper[k+1] + l.cell[k]
	}
	return l, nil
}

// Normal is N(mean, variance), up to twelve standard deviations.
func Normal(mean, variance float64) (Law, error) {
	if !(variance >= 1/largest) || !(variance <= largest) || !(math.Abs(mean) <= largest) {
		return Law{}, bad("normal", "mean %g and variance %g, want finite ones, the second above 0", mean, variance)
	}
	s := math.Sqrt(variance)
	return Density(func(x float64) float64 { return -(x - mean) * (x - mean) / (2 * variance) }, mean-12*s, mean+12*s)
}

// Atoms is the law with the weights w, of which only ratios matter, at the
// points x; nil means equal weights, as a sample has.
func Atoms(x, w []float64) (Law, error) {
	if len(x) == 0 || w != nil && len(w) != len(x) {
		return Law{}, bad("atoms", "%d points with %d weights", len(x), len(w))
	}
	order := make([]int, len(x))
	total := 0.0
	for i, v := range x {
		if !(math.Abs(v) <= largest) {
			return Law{}, bad("atoms", "point %d is %g, want a finite number", i, v)
		}
		order[i] = i
		if w == nil {
			total++
			continue
		}
		if !(w[i] >= 0 && w[i] <= largest) {
			return Law{}, bad("atoms", "weight %d is %g, want a finite number of at least 0", i, w[i])
		}
		total += w[i]
	}
	if !(total > 0) {
		return Law{}, bad("atoms", "weights sum to %g, want more than 0", total)
	}
	slices.SortStableFunc(order, func(i, j int) int {
		if x[i] < x[j] {
			return -1
		} else if x[i] > x[j] {
			return 1
		}
		return 0
	})
	l := Law{}
	for _, i := range order {
		p := 1 / total
		if w != nil {
			p = w[i] / total
		}
		if n := len(l.x); n > 0 && l.x[n-1] == x[i] {
			l.mass[n-1] += p
		} else if p > 0 {
			l.x, l.mass = append(l.x, x[i]), append(l.mass, p)
		}
	}
	n := len(l.x)
	l.lower, l.upper = make([]float64, n), make([]float64, n)
	below, above := 0.0, 0.0
	for k := range n {
		below += l.mass[k]
		l.lower[k] = below
		l.upper[n-1-k] = above
		above += l.mass[n-1-k]
	}
	return l, nil
}

// Dirac is the point mass at x, which may be a source.
func Dirac(x float64) Law {
	return Law{x: []float64{x}, mass: []float64{1}, lower: []float64{1}, upper: []float64{0}}
}

// logDensity is that of a density, normalised; -Inf outside of its interval.
func (l Law) logDensity(x float64) float64 {
	if x < l.x[0] || x > l.x[len(l.x)-1] {
		return math.Inf(-1)
	}
	return l.logf(x) - l.norm
}

func (l Law) moments() (mean, variance float64) {
	for k, p := range l.mass {
		mean += p * l.x[k]
	}
	for k, p := range l.mass {
		variance += p * (l.x[k] - mean) * (l.x[k] - mean)
	}
	return mean, variance
}

// quantile is where the probabilities below and above are these; the smaller
// one is used. Between nodes a density is taken as exponential.
func (l Law) quantile(below, above float64) float64 {
	last := len(l.x) - 1
	var k int // the first node with at least so much below it
	if below <= above {
		k = sort.Search(last, func(k int) bool { return l.lower[k] >= below })
	} else {
		k = sort.Search(last, func(k int) bool { return l.upper[k] <= above })
	}
	if l.logf == nil || k == 0 {
		return l.x[k]
	}
	k--
	m := l.cell[k]
	if m == 0 {
		return l.x[k]
	}
	part := (below - l.lower[k]) / m
	if below > above {
		part = 1 - (above-l.upper[k+1])/m
	}
	part = min(1, max(0, part))
	slope := l.logf(l.x[k+1]) - l.logf(l.x[k])
	if math.Abs(slope) > 1e-6 && math.Abs(slope) < 700 {
		start := part
		part = math.Log1p(part*math.Expm1(slope)) / slope
		f0, f1 := l.at[k]/m, l.at[k+1]/m
		for range 4 {
			if math.Abs(slope) > 1 {
				break
			}
			u := part
			v := 1 - u
			part -= (hermite(u, 1, 0, 1, f0, f1) - start) / (6*u*v + f0*v*(1-3*u) + f1*u*(3*u-2))
			part = min(1, max(0, part))
		}
	}
	return l.x[k] + part*(l.x[k+1]-l.x[k])
}

func sum(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v
	}
	return s
}

func scale(x []float64, c float64) {
	for i := range x {
		x[i] *= c
	}
}
