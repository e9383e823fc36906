package gmm_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// model is a mixture on the host, in the arithmetic of T. s holds eigenvalues;
// axes, in rows, are nil for a diagonal model.
type model[T kerneltest.Float] struct {
	k, d           int
	eps            T
	la, r, s, axes []T
}

// in is the model in other arithmetic.
func in[T, S kerneltest.Float](m model[S]) model[T] {
	return model[T]{m.k, m.d, T(m.eps), cast[T](m.la), cast[T](m.r), cast[T](m.s), cast[T](m.axes)}
}

func cast[T, S kerneltest.Float](v []S) []T {
	if v == nil {
		return nil
	}
	out := make([]T, len(v))
	for i := range v {
		out[i] = T(v[i])
	}
	return out
}

// random is a model whose numbers, but those of axes, are exact in float32.
// Eigenvalues reach from exp(-2) to exp(1).
func random(rng *rand.Rand, k, d int, eps float64, turned bool) model[float64] {
	m := model[float64]{k: k, d: d, eps: eps}
	for range k {
		m.la = append(m.la, rng.NormFloat64())
	}
	for range k * d {
		m.r = append(m.r, rng.NormFloat64())
		m.s = append(m.s, math.Exp(3*rng.Float64()-2))
	}
	m = in[float64](in[float32](m))
	for range k {
		if turned {
			m.axes = append(m.axes, rotation(rng, d)...)
		}
	}
	return m
}

// rotation is an orthonormal basis: Gram and Schmidt of normal vectors, twice.
func rotation(rng *rand.Rand, d int) []float64 {
	a := normals(rng, d*d)
	for range 2 {
		for p := range d {
			row := a[p*d : p*d+d]
			for q := range p {
				other := a[q*d : q*d+d]
				c := dot(row, other)
				for i := range row {
					row[i] -= c * other[i]
				}
			}
			length := math.Sqrt(dot(row, row))
			for i := range row {
				row[i] /= length
			}
		}
	}
	return a
}

// normals are normal numbers that are exact in float32.
func normals(rng *rand.Rand, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = float64(float32(rng.NormFloat64()))
	}
	return out
}

func uniforms(rng *rand.Rand, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = float64(float32(rng.Float64()))
	}
	return out
}

func dot[T kerneltest.Float](a, b []T) (sum T) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

func apply[T kerneltest.Float](f func(float64) float64, v T) T { return T(f(float64(v))) }

// matrix is (d, d), or (d) and diagonal.
type matrix[T kerneltest.Float] struct {
	d int
	v []T
}

func (s matrix[T]) diagonal() bool { return len(s.v) == s.d }

// covariance is S_j.
func (m model[T]) covariance(j int) matrix[T] {
	s := m.s[j*m.d : j*m.d+m.d]
	if m.axes == nil {
		return matrix[T]{m.d, s}
	}
	v := make([]T, m.d*m.d)
	for k := range m.d {
		axis := m.axes[(j*m.d+k)*m.d:][:m.d]
		for p := range m.d {
			for q := range m.d {
				v[p*m.d+q] += axis[p] * s[k] * axis[q]
			}
		}
	}
	return matrix[T]{m.d, v}
}

// shifted is a I + b S.
func (s matrix[T]) shifted(a, b T) matrix[T] {
	v := make([]T, len(s.v))
	for i := range v {
		v[i] = b * s.v[i]
		if s.diagonal() || i/s.d == i%s.d {
			v[i] += a
		}
	}
	return matrix[T]{s.d, v}
}

func (s matrix[T]) times(x []T) []T {
	out := make([]T, s.d)
	for p := range out {
		if s.diagonal() {
			out[p] = s.v[p] * x[p]
		} else {
			out[p] = dot(s.v[p*s.d:p*s.d+s.d], x)
		}
	}
	return out
}

// solve is S⁻¹ x, with log det S, by elimination.
func (s matrix[T]) solve(x []T) (out []T, logdet T) {
	d := s.d
	out = append(out, x...)
	if s.diagonal() {
		for p := range out {
			out[p] /= s.v[p]
			logdet += apply(math.Log, s.v[p])
		}
		return out, logdet
	}
	a := append([]T(nil), s.v...)
	for p := range d {
		logdet += apply(math.Log, a[p*d+p])
		for i := p + 1; i < d; i++ {
			f := a[i*d+p] / a[p*d+p]
			for q := p; q < d; q++ {
				a[i*d+q] -= f * a[p*d+q]
			}
			out[i] -= f * out[p]
		}
	}
	for p := d - 1; p >= 0; p-- {
		out[p] = (out[p] - dot(a[p*d+p+1:p*d+d], out[p+1:])) / a[p*d+p]
	}
	return out, logdet
}

// inverse is S⁻¹ in full, by Gauss and Jordan.
func (s matrix[T]) inverse() []T {
	d := s.d
	a, out := append([]T(nil), s.v...), make([]T, d*d)
	for p := range d {
		out[p*d+p] = 1
		if s.diagonal() {
			out[p*d+p] = 1 / s.v[p]
		}
	}
	if s.diagonal() {
		return out
	}
	for p := range d {
		pivot := 1 / a[p*d+p]
		for q := range d {
			a[p*d+q] *= pivot
			out[p*d+q] *= pivot
		}
		for i := range d {
			if f := a[i*d+p]; i != p {
				for q := range d {
					a[i*d+q] -= f * a[p*d+q]
					out[i*d+q] -= f * out[p*d+q]
				}
			}
		}
	}
	return out
}

// point is what the definitions of the package say at one (t, x).
type point[T kerneltest.Float] struct {
	value   T
	weights []T
	g       [][]T // of components
	drift   []T
}

func (m model[T]) at(t T, x []T) point[T] {
	p := point[T]{weights: make([]T, m.k), drift: make([]T, m.d)}
	top := T(math.Inf(-1))
	for j := range m.k {
		s, r := m.covariance(j), m.r[j*m.d:j*m.d+m.d]
		stretch := s.shifted(1-t, t)
		y, logdet := stretch.solve(x)
		u, _ := stretch.solve(r)
		p.weights[j] = m.la[j] - logdet/2 + (2*dot(r, y)+dot(s.shifted(-1, 1).times(x), y)-t*dot(r, u))/(2*m.eps)
		top = max(top, p.weights[j])
		num := s.shifted(-1, 1).times(x)
		for i := range num {
			num[i] += r[i]
		}
		g, _ := stretch.solve(num)
		p.g = append(p.g, g)
	}
	var sum T
	for j, ell := range p.weights {
		p.weights[j] = apply(math.Exp, ell-top)
		sum += p.weights[j]
	}
	p.value = top + apply(math.Log, sum)
	for j, g := range p.g {
		p.weights[j] /= sum
		for i := range g {
			p.drift[i] += p.weights[j] * g[i]
		}
	}
	return p
}

// jacobian is Dg.
func (m model[T]) jacobian(t T, p point[T]) []T {
	out := make([]T, m.d*m.d)
	for j, g := range p.g {
		s := m.covariance(j)
		stretch, slope := s.shifted(1-t, t), s.shifted(-1, 1)
		inverse := matrix[T]{m.d, stretch.inverse()}
		for q := range m.d {
			column := make([]T, m.d)
			if s.diagonal() {
				column[q] = slope.v[q] / stretch.v[q]
			} else {
				column = inverse.times(slope.v[q*m.d : q*m.d+m.d])
			}
			for i := range m.d {
				rank := (g[i] - p.drift[i]) * (g[q] - p.drift[q]) / m.eps
				out[i*m.d+q] += p.weights[j] * (column[i] + rank)
			}
		}
	}
	return out
}

// gradient is a loss and its derivatives, where raw and turn are made of s. size
// is what the largest terms of a sample add up to over all samples: sums err by
// units of that, however much of it cancels.
type gradient[T kerneltest.Float] struct {
	loss                []T
	la, r, raw, turn, s []T // s: by S, (k, d, d) or (k, d)
	size                struct{ la, r, s float64 }
}

func (m model[T]) zeroGradient() gradient[T] {
	n := m.k * m.d
	g := gradient[T]{loss: make([]T, 1), la: make([]T, m.k), r: make([]T, n), raw: make([]T, n), s: make([]T, n)}
	if m.axes != nil {
		g.turn, g.s = make([]T, n*m.d), make([]T, n*m.d)
	}
	return g
}

// add is A.3 for one sample, in unit coordinates: a is the derivative of the loss
// by ell_j, pull that by g_j, both of component j; pull may be nil.
func (m model[T]) add(to *gradient[T], j int, t T, x, g []T, a T, pull []T) {
	d := m.d
	r := m.r[j*d : j*d+d]
	stretch := m.covariance(j).shifted(1-t, t)
	lag := make([]T, d)
	for i := range lag {
		lag[i] = x[i] - t*r[i]
	}
	h, _ := stretch.solve(lag)
	q := make([]T, d)
	if pull != nil {
		q, _ = stretch.solve(pull)
	}
	to.la[j] += a
	size := math.Abs(float64(a))
	to.size.la += size
	var most, pull2 float64
	for i := range d {
		to.r[j*d+i] += q[i] + a*h[i]/m.eps
		most, pull2 = max(most, math.Abs(float64(h[i]))), max(pull2, math.Abs(float64(q[i])))
	}
	to.size.r += pull2 + size*most/float64(m.eps)
	to.size.s += pull2*most + size*(most*most/float64(m.eps)+1)
	if m.axes == nil {
		for i := range d {
			k := j*d + i
			D, s := stretch.v[i], m.s[k]
			num := 2*r[i]*x[i] + (s-1)*x[i]*x[i] - t*r[i]*r[i]
			to.s[k] += a * (-t/(2*D) + x[i]*x[i]/(2*m.eps*D) - t*num/(2*m.eps*D*D))
			if pull != nil {
				to.s[k] += pull[i] * (x[i] - t*g[i]) / D
			}
		}
		return
	}
	inverse := stretch.inverse()
	for p := range d {
		for i := range d {
			to.s[(j*d+p)*d+i] += (q[p]*h[i]+h[p]*q[i])/2 + a/2*(h[p]*h[i]/m.eps-t*inverse[p*d+i])
		}
	}
}

// finish turns the derivatives by S into those by raw and by turns.
func (m model[T]) finish(g gradient[T], floor T) gradient[T] {
	d := m.d
	for i := range g.raw {
		if m.axes == nil {
			g.raw[i] = g.s[i] * (m.s[i] - floor)
			continue
		}
		j, p := i/d, i%d
		s := matrix[T]{d, g.s[j*d*d : (j+1)*d*d]}
		for q := range d {
			entry := dot(m.axes[i*d:i*d+d], s.times(m.axes[(j*d+q)*d:][:d]))
			if p == q {
				g.raw[i] = entry * (m.s[i] - floor)
			}
			g.turn[i*d+q] = 2 * entry * (m.s[i] - m.s[j*d+q])
		}
	}
	return g
}

// term is a gmm.Term on the host.
type term[T kerneltest.Float] struct {
	x         []T
	t, weight T
}

func (m model[T]) likelihood(floor T, terms ...term[T]) gradient[T] {
	out := m.zeroGradient()
	for _, term := range terms {
		n := len(term.x) / m.d
		for b := range n {
			x := term.x[b*m.d : b*m.d+m.d]
			p := m.at(term.t, x)
			share := term.weight / T(n)
			out.loss[0] += share * p.value
			for j, w := range p.weights {
				m.add(&out, j, term.t, x, p.g[j], share*w, nil)
			}
		}
	}
	return m.finish(out, floor)
}

func (m model[T]) match(floor T, x, u, t []T, weight T) gradient[T] {
	out := m.zeroGradient()
	for b := range t {
		x, u := x[b*m.d:b*m.d+m.d], u[b*m.d:b*m.d+m.d]
		p := m.at(t[b], x)
		share := weight / T(len(t))
		e := make([]T, m.d)
		for i := range e {
			gap := p.drift[i] - u[i]
			out.loss[0] += share * gap * gap
			e[i] = 2 * share * gap
		}
		for j, w := range p.weights {
			var a T
			pull := make([]T, m.d)
			for i := range e {
				a += w * e[i] * (p.g[j][i] - p.drift[i])
				pull[i] = w * e[i]
			}
			m.add(&out, j, t[b], x, p.g[j], a, pull)
		}
	}
	return m.finish(out, floor)
}

// inputs are a model and samples for naive evaluations.
type inputs struct {
	model[float32]
	x, u, y, times []float32
}

// naive is what body, a plain evaluation in float32, makes of the inputs and of
// 23 sets that are a unit in the last place off, which shows how far the
// problem itself carries roundings.
func naive[R any](rng *rand.Rand, m model[float64], x, u, y, times []float64, body func(in inputs) R) []R {
	var out []R
	for trial := range 24 {
		move := func(v []float64) []float32 {
			w := cast[float32](v)
			for i := range w {
				if trial > 0 {
					w[i] *= 1 + float32(rng.IntN(3)-1)*0x1p-23
				}
			}
			return w
		}
		f := in[float32](m)
		f.la, f.r, f.s = move(m.la), move(m.r), move(m.s)
		out = append(out, body(inputs{f, move(x), move(u), move(y), cast[float32](times)}))
	}
	return out
}

// within is kerneltest.Close for both types. The budget of float32 is twice the
// error of the worst naive evaluation, or 16 units of the largest value, or of
// scale, where that is more. For float64 it is that in its own units and, since
// the reference is then itself a naive evaluation, half as much again for the
// reference's own error.
func within[T kerneltest.Float, R any](t testing.TB, got []T, ref []float64, scale float64, naive []R, of func(R) []float32, name string) {
	t.Helper()
	var worst float64
	for i, r := range ref {
		if math.IsNaN(r) || math.IsInf(r, 0) {
			t.Fatalf("%s: reference [%d] is %v", name, i, r)
		}
		for _, n := range naive {
			worst = max(worst, math.Abs(float64(of(n)[i])-r))
		}
		scale = max(scale, math.Abs(r))
	}
	budget := max(2*worst, 16*0x1p-23*scale)
	if tensor.TypeOf[T]() == tensor.Float64 {
		budget *= 1.5 * 0x1p-29
	}
	require.NoError(t, kerneltest.Within(got, ref, budget), name)
}
