package softmin_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/softmin"
)

// problem is the arguments of all three operations.
type problem[T kt.Float] struct {
	n, m, d, k   int
	cost         softmin.Cost
	epsilon      float64
	damp         float64
	x, y, matrix []T
	g, logb      []T
	loga, f      []T
	v            []T
}

func (p problem[T]) String() string {
	return fmt.Sprintf("%v,n=%d,m=%d,d=%d,eps=%g", p.cost, p.n, p.m, p.d, p.epsilon)
}

// random is a problem with normal points, potentials of the size of epsilon
// and uneven weights. f is near softmin, so that the plan is of order one.
func random[T kt.Float](seed uint64, cost softmin.Cost, n, m, d int, epsilon float64) problem[T] {
	r := rand.New(rand.NewPCG(seed, 17))
	normals := func(count int, scale float64) []T {
		s := make([]T, count)
		for i := range s {
			s[i] = T(scale * r.NormFloat64())
		}
		return s
	}
	p := problem[T]{n: n, m: m, d: d, k: 1 + int(seed%11), cost: cost, epsilon: epsilon, damp: 1.3 - 0.3*float64(seed%4)}
	if cost == softmin.Matrix {
		p.d = 0
		p.matrix = normals(n*m, 1)
		for i := range p.matrix {
			p.matrix[i] *= p.matrix[i]
		}
	} else {
		p.x, p.y = normals(n*d, 1), normals(m*d, 1)
	}
	p.g, p.logb, p.loga, p.v = normals(m, epsilon), normals(m, 1), normals(n, 1), normals(m*p.k, 1)
	for j := range p.logb {
		p.logb[j] -= T(math.Log(float64(m)))
	}
	for i := range p.loga {
		p.loga[i] -= T(math.Log(float64(n)))
	}
	return p.settle(r)
}

// settle sets f to softmin, and something of the size of epsilon more.
func (p problem[T]) settle(r *rand.Rand) problem[T] {
	p.f = make([]T, p.n)
	for i, s := range define[float64](p, false).out {
		if math.IsInf(s, 0) || math.IsNaN(s) {
			s = 0
		}
		p.f[i] = T(s + 0.5*p.epsilon*r.NormFloat64())
	}
	return p
}

// results are what the three operations compute.
type results[E kt.Float] struct {
	out, swept           []E // softmin, by itself and by sweep
	col                  []float64
	mass, mean, r, grad  []E
	condition            float64 // largest mean over a row's softmax of |log b| + (|g| + |terms of c|) / ε
	massScale, distScale float64 // largest Σ p, and largest Σ p |∂c/∂x| or so
}

// define is the definition in the precision of E: two passes over each row,
// nothing else. With products, squared distances are |x|² + |y|² - 2<x, y>
// of points less the mean of y.
func define[E, T kt.Float](p problem[T], products bool) results[E] {
	exp := func(z E) E { return E(math.Exp(float64(z))) }
	eps, d := E(p.epsilon), p.d
	x, y := convert[E](p.x), convert[E](p.y)
	if products {
		for k := range d {
			var mean float64
			for j := range p.m {
				mean += float64(p.y[j*d+k]) / float64(p.m)
			}
			for i := range p.n {
				x[i*d+k] -= E(mean)
			}
			for j := range p.m {
				y[j*d+k] -= E(mean)
			}
		}
	}
	cost := func(i, j int) (c, terms E) {
		if p.cost == softmin.Matrix {
			c = E(p.matrix[i*p.m+j])
			return c, E(math.Abs(float64(c)))
		}
		var xx, yy, xy, dd E
		for k := range d {
			a, b := x[i*d+k], y[j*d+k]
			xx += E(a * a)
			yy += E(b * b)
			xy += E(a * b)
			dd += E((a - b) * (a - b))
		}
		c = dd
		if products {
			c = max(0, E(xx+yy)-2*xy)
		}
		switch p.cost {
		case softmin.HalfSqEuclidean:
			c, xx, yy = c/2, xx/2, yy/2
		case softmin.Euclidean:
			c = E(math.Sqrt(float64(c)))
		}
		if products {
			return c, xx + yy
		}
		return c, c
	}
	slope := func(i, j, k int, c E) E {
		t := x[i*d+k] - y[j*d+k]
		switch p.cost {
		case softmin.SqEuclidean:
			return 2 * t
		case softmin.Euclidean:
			if c == 0 {
				return 0
			}
			return t / c
		}
		return t
	}

	w := results[E]{
		out: make([]E, p.n), col: make([]float64, p.m), mass: make([]E, p.n), mean: make([]E, p.n),
		r: make([]E, p.n*p.k), grad: make([]E, p.n*d),
	}
	z, c, terms := make([]E, p.m), make([]E, p.m), make([]E, p.m)
	for i := range p.n {
		top := E(math.Inf(-1))
		for j := range z {
			c[j], terms[j] = cost(i, j)
			z[j] = E(at(p.logb, j)) + E((E(at(p.g, j))-c[j])/eps)
			top = max(top, z[j]) // NaN if z is
		}
		if math.IsInf(float64(top), -1) {
			w.out[i] = E(math.Inf(1))
			continue
		}
		var sum E
		for j := range z {
			sum += exp(z[j] - top)
		}
		lse := top + E(math.Log(float64(sum)))
		w.out[i] = -eps * lse
		wi := exp(E(at(p.loga, i)) + E(E(p.damp-1)*w.out[i]/eps))
		var condition, dist float64
		for j := range z {
			if math.IsInf(float64(z[j]), -1) {
				continue // p = 0, by convention
			}
			share := exp(z[j] - lse)
			w.col[j] = float64(E(w.col[j]) + E(wi*share))
			condition += float64(share) * (math.Abs(at(p.logb, j)) + (math.Abs(at(p.g, j))+float64(terms[j]))/p.epsilon)

			pij := exp(z[j] + E(E(p.f[i])/eps))
			w.mass[i] += pij
			w.mean[i] += E(pij * c[j])
			for k := range p.k {
				w.r[i*p.k+k] += E(pij * E(p.v[j*p.k+k]))
			}
			var steepest float64
			for k := range d {
				s := slope(i, j, k, c[j])
				w.grad[i*d+k] += E(pij * s)
				steepest = max(steepest, math.Abs(float64(s)))
				if products {
					steepest = max(steepest, math.Abs(float64(x[i*d+k])), math.Abs(float64(y[j*d+k])))
				}
			}
			dist += float64(pij) * steepest
		}
		w.condition = max(w.condition, condition)
		w.massScale = max(w.massScale, float64(w.mass[i]))
		w.distScale = max(w.distScale, dist)
	}
	return w
}

func convert[E, T kt.Float](v []T) []E {
	out := make([]E, len(v))
	for i := range v {
		out[i] = E(v[i])
	}
	return out
}

// at is element i of an optional array.
func at[T kt.Float](v []T, i int) float64 {
	if v == nil {
		return 0
	}
	return float64(v[i])
}

// arrays are a problem's inputs on a device.
type arrays[T kt.Float] struct {
	pairs   softmin.Pairs
	loga, f *kt.Array[T]
	v       *kt.Array[T]
	inputs  []*kt.Array[T]
}

func put[T kt.Float](tb testing.TB, dev kt.Target, p problem[T]) arrays[T] {
	tb.Helper()
	var a arrays[T]
	place := func(v []T, shape ...int) *kt.Array[T] {
		if v == nil {
			return &kt.Array[T]{}
		}
		b := kt.Put(tb, dev.Device, v, shape...)
		a.inputs = append(a.inputs, b)
		return b
	}
	a.pairs = softmin.Pairs{
		X: place(p.x, p.n, p.d).Tensor, Y: place(p.y, p.m, p.d).Tensor,
		Matrix: place(p.matrix, p.n, p.m).Tensor,
		G:      place(p.g, p.m).Tensor, LogB: place(p.logb, p.m).Tensor,
		Epsilon: p.epsilon, Cost: p.cost,
	}
	a.loga, a.f, a.v = place(p.loga, p.n), place(p.f, p.n), place(p.v, p.m, p.k)
	return a
}

func (a arrays[T]) unmodified(tb testing.TB) {
	tb.Helper()
	for _, v := range a.inputs {
		v.Unmodified(tb)
	}
}

// runSoftmin is softmin on a device.
func runSoftmin[T kt.Float](tb testing.TB, dev kt.Target, p problem[T]) []T {
	tb.Helper()
	a := put(tb, dev, p)
	out := kt.Poison[T](tb, dev.Device, p.n)
	require.NoError(tb, a.pairs.Softmin(dev.Device, out.Tensor))
	a.unmodified(tb)
	return out.Get(tb)
}

// run is all three operations on a device.
func run[T kt.Float](tb testing.TB, dev kt.Target, p problem[T]) results[T] {
	tb.Helper()
	a := put(tb, dev, p)
	out, again, col := kt.Poison[T](tb, dev.Device, p.n), kt.Poison[T](tb, dev.Device, p.n), kt.Poison[float64](tb, dev.Device, p.m)
	mass, mean := kt.Poison[T](tb, dev.Device, p.n), kt.Poison[T](tb, dev.Device, p.n)
	r := kt.Poison[T](tb, dev.Device, p.n, p.k)
	apply := softmin.ApplyArgs{F: a.f.Tensor, V: a.v.Tensor, Mass: mass.Tensor, Mean: mean.Tensor, R: r.Tensor}
	grad := &kt.Array[T]{}
	if p.cost != softmin.Matrix {
		grad = kt.Poison[T](tb, dev.Device, p.n, p.d)
		apply.Grad = grad.Tensor
	}
	require.NoError(tb, a.pairs.Softmin(dev.Device, out.Tensor))
	require.NoError(tb, a.pairs.Sweep(dev.Device, softmin.SweepArgs{
		LogA: a.loga.Tensor, Damp: p.damp, Out: again.Tensor, Col: col.Tensor}))
	require.NoError(tb, a.pairs.Apply(dev.Device, apply))
	a.unmodified(tb)
	w := results[T]{out: out.Get(tb), swept: again.Get(tb), col: col.Get(tb), mass: mass.Get(tb), mean: mean.Get(tb), r: r.Get(tb)}
	if p.cost != softmin.Matrix {
		w.grad = grad.Get(tb)
	}
	return w
}

// products reports whether the operation is documented to use inner products.
func (p problem[T]) products() bool {
	return p.d > 8 && (p.cost == softmin.SqEuclidean || p.cost == softmin.HalfSqEuclidean)
}

// verify compares results with the definition.
//
// The budget of a float32 result is twice the error of the naive evaluation in
// float32, and at least four units in the last place of what that evaluation
// adds up, since on few numbers it may be right by luck. z has terms of the size
// of condition, so that is condition for -softmin / ε and for the logarithm of
// every p. The naive float64 evaluation being the reference itself, float64
// results get what sums of d terms, and the exponential, may lose: d + 8 units.
func verify[T kt.Float](tb testing.TB, p problem[T], got results[T]) {
	tb.Helper()
	want := define[float64](p, false)
	naive := define[T](p, p.products())
	if p.products() {
		terms := define[float64](p, true)
		want.condition, want.distScale = terms.condition, terms.distScale
	}
	units := 4.0
	if ulp[T]() < 1e-10 {
		units = float64(p.d) + 8
	}
	units *= ulp[T]() * (1 + want.condition)
	budget := func(naive, want []float64, scale float64) float64 {
		b := units * scale
		if ulp[T]() > 1e-10 {
			for i := range want {
				if e := math.Abs(naive[i] - want[i]); e > b/2 && !math.IsInf(e, 0) {
					b = 2 * e
				}
			}
		}
		return b
	}
	require.NoError(tb, within(got.col, want.col, budget(naive.col, want.col, largest(want.col))), "col of %v", p)
	for _, c := range []struct {
		name       string
		got, naive []T
		want       []float64
		scale      float64
	}{
		{"softmin", got.out, naive.out, want.out, p.epsilon},
		{"softmin by sweep", got.swept, naive.out, want.out, p.epsilon},
		{"mass", got.mass, naive.mass, want.mass, want.massScale},
		{"mean", got.mean, naive.mean, want.mean, largest(want.mean) + 1e-30},
		{"r", got.r, naive.r, want.r, want.massScale * largest(p.v)},
		{"grad", got.grad, naive.grad, want.grad, want.distScale},
	} {
		if len(c.got) == 0 {
			continue
		}
		b := budget(convert[float64](c.naive), c.want, c.scale)
		require.NoError(tb, within(c.got, c.want, b), "%s of %v", c.name, p)
	}
}

// within is kt.Within, with NaN where NaN is wanted.
func within[T kt.Float](got []T, want []float64, budget float64) error {
	got, want = slices.Clone(got), slices.Clone(want)
	for i := range min(len(got), len(want)) {
		if want[i] != want[i] && got[i] != got[i] {
			got[i], want[i] = 0, 0
		}
	}
	return kt.Within(got, want, budget)
}

func ulp[T kt.Float]() float64 {
	if T(1)+T(0x1p-40) == 1 {
		return 0x1p-23
	}
	return 0x1p-52
}

func largest[T kt.Float](v []T) float64 {
	var top float64
	for _, x := range v {
		if a := math.Abs(float64(x)); a > top && !math.IsInf(a, 0) {
			top = a
		}
	}
	return top
}
