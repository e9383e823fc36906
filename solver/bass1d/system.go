package bass1d

import (
	"math"
)

// system is a problem on a grid, with room for one evaluation.
type system struct {
	Problem
	n        int
	y        []float64
	dx       float64
	heat     *heat
	constant float64 // log of dx/√(2πεT): sums become integrals
}

// state is everything at one w_T'.
type state struct {
	g    []float64 // w_T' on the grid
	w    []float64 // its integral
	w0   []float64 // w_0 on the grid, s0 = w_0', ds0 = w_0''
	s0   []float64
	ds0  []float64
	logh []float64 // log h_0
	from []point   // the law of Y_0, where the source has atoms
	nu0  []float64 // log density of Y_0 on the grid, else
	nuT  []float64 // log density of Y_T
	move []float64 // F_μT⁻¹(F_νT(y)) - X_T(y)

	residual     float64 // W₂ of the law of X_T to the target
	dual, primal float64
	mass         float64 // of Y_0 that the grid holds, before normalisation
}

// point is an atom of Y_0 and what is known there.
type point struct{ y, logp, logh, w0, s0, ds0 float64 }

func (s *system) evaluate(g []float64) *state {
	st := &state{g: g, w: integral(g, s.dx), w0: make([]float64, s.n), s0: make([]float64, s.n), ds0: make([]float64, s.n),
		logh: make([]float64, s.n), nuT: make([]float64, s.n)}
	a := make([]float64, s.n)
	for j, w := range st.w {
		a[j] = w / s.Epsilon
	}
	s.heat.apply(st.logh, st.s0, st.ds0, a)
	for i := range s.n {
		st.logh[i] += s.constant
		st.w0[i] = s.Epsilon * st.logh[i]
		st.s0[i] /= s.T
		st.ds0[i] = (st.ds0[i]/(s.Epsilon*s.T) - 1) / s.T
	}
	s.push(st, a)
	s.compare(st)
	s.values(st)
	return st
}

// push takes the source back to Y_0 and from there to Y_T.
func (s *system) push(st *state, a []float64) {
	if s.Source.logf == nil {
		for k, x := range s.Source.x {
			p := s.invert(st, a, x)
			p.logp = math.Log(s.Source.mass[k])
			st.from = append(st.from, p)
			if math.Abs(p.y+p.s0/s.Beta-x) <= 1e-6*(s.y[s.n-1]-s.y[0]) {
				st.mass += s.Source.mass[k]
			}
		}
		for j, z := range s.y {
			st.nuT[j] = a[j] + st.flow(z, s.Epsilon*s.T)
		}
	} else {
		st.nu0 = make([]float64, s.n)
		ratio := make([]float64, s.n)
		for i, y := range s.y {
			slope := 1 + st.ds0[i]/s.Beta
			st.nu0[i] = math.Inf(-1)
			if slope > 0 {
				st.nu0[i] = s.Source.logDensity(y+st.s0[i]/s.Beta) + math.Log(slope)
			}
		}
		st.mass = normalise(st.nu0, s.dx)
		for i := range s.n {
			ratio[i] = st.nu0[i] - st.logh[i]
		}
		s.heat.apply(st.nuT, nil, nil, ratio)
		for j := range s.n {
			st.nuT[j] += a[j]
		}
	}
	normalise(st.nuT, s.dx)
}

// flow is the logarithm of Σ over the atoms of Y_0 of p/h₀ exp(-(z-y)²/(2v)).
func (st *state) flow(z, v float64) float64 {
	exponent := func(p point) float64 { return p.logp - p.logh - (z-p.y)*(z-p.y)/(2*v) }
	top := math.Inf(-1)
	for _, p := range st.from {
		top = max(top, exponent(p))
	}
	total := 0.0
	for _, p := range st.from {
		total += math.Exp(exponent(p) - top)
	}
	return top + math.Log(total)
}

// invert finds Y_0 of an atom, the y with y + w_0'(y)/β = x, by a bracket of
// grid points and Newton's method on the sums themselves, off the grid.
func (s *system) invert(st *state, a []float64, x float64) point {
	low, high := s.y[0], s.y[s.n-1]
	for i, y := range s.y {
		if y+st.s0[i]/s.Beta <= x {
			low = y
		} else {
			high = y
			break
		}
	}
	p := point{}
	y := (low + high) / 2
	for range 60 {
		p = s.off(a, y)
		f := y + p.s0/s.Beta - x
		if f > 0 {
			high = y
		} else {
			low = y
		}
		next := y - f/(1+p.ds0/s.Beta)
		if !(next >= low && next <= high) {
			next = (low + high) / 2
		}
		if math.Abs(next-y) <= 1e-14*(1+math.Abs(y)) {
			break
		}
		y = next
	}
	return p
}

// off is w_0 and its derivatives at any y.
func (s *system) off(a []float64, y float64) point {
	v := 2 * s.Epsilon * s.T
	top := math.Inf(-1)
	for j, z := range s.y {
		top = max(top, a[j]-(z-y)*(z-y)/v)
	}
	s0, s1, s2 := 0.0, 0.0, 0.0
	for j, z := range s.y {
		d := z - y
		p := math.Exp(a[j] - d*d/v - top)
		s0 += p
		s1 += p * d
		s2 += p * d * d
	}
	m := s1 / s0
	logh := top + math.Log(s0) + s.constant
	return point{y: y, logh: logh, w0: s.Epsilon * logh, s0: m / s.T, ds0: ((s2/s0-m*m)/(s.Epsilon*s.T) - 1) / s.T}
}

// trusted is the tail probability below which the monotone map to the target
// is continued as a straight line.
const trusted = 1e-10

// compare finds the map that would make X_T's law the target.
func (s *system) compare(st *state) {
	below, above := cumulative(st.nuT, s.dx)
	to := make([]float64, s.n)
	first, last := s.n, -1
	for j := range s.n {
		if min(below[j], above[j]) >= trusted {
			to[j] = s.Target.quantile(below[j], above[j])
			first, last = min(first, j), j
		}
	}
	st.move = make([]float64, s.n)
	if last-first < 4 {
		st.residual = math.NaN() // the law of Y_T has no place on this grid
		return
	}
	left, right := max(0, (to[first+4]-to[first])/4), max(0, (to[last]-to[last-4])/4)
	total := 0.0
	for j := range s.n {
		switch {
		case j < first:
			to[j] = to[first] - float64(first-j)*left
		case j > last:
			to[j] = to[last] + float64(j-last)*right
		}
		st.move[j] = to[j] - s.y[j] - st.g[j]/s.Beta
		if p := math.Exp(st.nuT[j]); p > 0 {
			total += p * st.move[j] * st.move[j] * s.dx
		}
	}
	st.residual = math.Sqrt(total)
}

// values are the dual value of w_T and the cost of its process, both of ½J:
//
//	dual   = E_μT ψ - E_μ0 v(0,·),  ψ(x) = min_y w_T(y) + β/2 (x-y)², v likewise
//	primal = E[w_T(Y_T) + w_T'(Y_T)²/(2β)] - E[w_0(Y_0) + w_0'(Y_0)²/(2β)]
//
// the second because s(t, Y_t) is a martingale: the time integral of the cost
// is a difference of ends.
func (s *system) values(st *state) {
	source := 0.0
	for _, p := range st.from {
		source += math.Exp(p.logp) * (p.w0 + p.s0*p.s0/(2*s.Beta))
	}
	for i, l := range st.nu0 {
		if p := math.Exp(l); p > 0 {
			source += p * s.dx * (st.w0[i] + st.s0[i]*st.s0[i]/(2*s.Beta))
		}
	}
	target := 0.0
	for j, l := range st.nuT {
		if p := math.Exp(l); p > 0 {
			target += p * s.dx * (st.w[j] + st.g[j]*st.g[j]/(2*s.Beta))
		}
	}
	st.primal = target - source

	psi := 0.0
	c := 0
	at := func(j int) float64 { return s.y[j] + st.g[j]/s.Beta }
	for k, x := range s.Target.x {
		for c < s.n-2 && at(c+1) < x {
			c++
		}
		// Linear in the cell of the map, cubic in that of w: an error of y
		// enters squared, since ψ is a minimum over y.
		part := 0.5
		if width := at(c+1) - at(c); width > 1e-12*s.dx {
			part = (x - at(c)) / width
		}
		w := 0.0
		if part < 0 || part > 1 { // off the grid: w continues as a parabola
			edge := 0
			if part > 1 {
				edge = c + 1
			}
			d := (part - float64(edge-c)) * s.dx
			w = st.w[edge] + d*st.g[edge] + d*d/2*(st.g[c+1]-st.g[c])/s.dx
		} else {
			w = hermite(part, s.dx, st.w[c], st.w[c+1], st.g[c], st.g[c+1])
		}
		y := s.y[c] + part*s.dx
		psi += s.Target.mass[k] * (w + s.Beta/2*(x-y)*(x-y))
	}
	st.dual = psi - source
}

// hermite is the cubic with these values and slopes at the ends of a cell.
func hermite(u, h, f0, f1, g0, g1 float64) float64 {
	v := 1 - u
	return f0*v*v*(1+2*u) + f1*u*u*(1+2*v) + h*u*v*(g0*v-g1*u)
}

// integral is the integral of g from the middle of the grid, by the cubic
// through four points in each cell.
func integral(g []float64, h float64) []float64 {
	n := len(g)
	w := make([]float64, n)
	for j := range n - 1 {
		area := h / 2 * (g[j] + g[j+1])
		if j > 0 && j < n-2 {
			area = h / 24 * (13*(g[j]+g[j+1]) - g[j-1] - g[j+2])
		}
		w[j+1] = w[j] + area
	}
	middle := w[n/2]
	for j := range w {
		w[j] -= middle
	}
	return w
}

// derivative is by central differences of fourth order.
func derivative(g []float64, h float64) []float64 {
	n := len(g)
	d := make([]float64, n)
	for j := range n {
		switch {
		case j > 1 && j < n-2:
			d[j] = (8*(g[j+1]-g[j-1]) - g[j+2] + g[j-2]) / (12 * h)
		default:
			a, b := max(0, j-1), min(n-1, j+1)
			d[j] = (g[b] - g[a]) / (float64(b-a) * h)
		}
	}
	return d
}

// cumulative integrates a density, given by its logarithm, from both ends: by
// Simpson's rule with the middle of each cell from the cubic through four
// logarithms, which keeps the digits of the tails.
func cumulative(logs []float64, h float64) (below, above []float64) {
	n := len(logs)
	below, above = make([]float64, n), make([]float64, n)
	area := make([]float64, n-1)
	for j := range area {
		middle := (logs[j] + logs[j+1]) / 2
		if j > 0 && j < n-2 {
			if m := (9*(logs[j]+logs[j+1]) - logs[j-1] - logs[j+2]) / 16; math.Abs(m-middle) < 10 {
				middle = m
			}
		}
		area[j] = h / 6 * (math.Exp(logs[j]) + 4*math.Exp(middle) + math.Exp(logs[j+1]))
		below[j+1] = below[j] + area[j]
	}
	for j := n - 2; j >= 0; j-- {
		above[j] = above[j+1] + area[j]
	}
	return below, above
}

// normalise makes a log density integrate to one and returns what it did before.
func normalise(logs []float64, h float64) float64 {
	top := math.Inf(-1)
	for _, v := range logs {
		top = max(top, v)
	}
	total := 0.0
	for _, v := range logs {
		total += math.Exp(v - top)
	}
	shift := top + math.Log(total*h)
	for i := range logs {
		logs[i] -= shift
	}
	return math.Exp(shift)
}
