package duallse

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// problem is a star on the host; nil slices are what zero Tensors are.
type problem struct {
	eps, norm            float64
	n, d                 int
	beta, logw, extra, y []float64
	arms                 []leaf
}

type leaf struct {
	m                    int
	gamma, logw, t, cost []float64
	weight               float64
}

// answer is all that LogE computes. spread is the largest Σ|term| of a
// component of a gradient with respect to points, which rounding scales with;
// exponent is the largest |exponent| of a tuple or pair.
type answer struct {
	logE, linear                  float64
	dbeta, dy                     []float64
	dgamma, dt, plan, conditional [][]float64
	spread, exponent              float64
}

// pairCost is Weight c_m(j, k).
func (p problem) pairCost(m, j, k int) float64 {
	a := &p.arms[m]
	if a.cost != nil {
		return a.weight * a.cost[j*a.m+k]
	}
	s := 0.0
	for i := range p.d {
		u := p.y[j*p.d+i] - a.t[k*p.d+i]
		s += u * u
	}
	return a.weight * s
}

func at(v []float64, i int) float64 {
	if v == nil {
		return 0
	}
	return v[i]
}

func logWeight(v []float64, i, n int) float64 {
	if v == nil {
		return -math.Log(float64(n))
	}
	return v[i]
}

// node is the part of a tuple's exponent that belongs to the centre alone.
func (p problem) node(j int) float64 {
	q := 0.0
	for i := range p.d {
		if p.norm != 0 {
			q += p.y[j*p.d+i] * p.y[j*p.d+i]
		}
	}
	return logWeight(p.logw, j, p.n) + at(p.beta, j) + at(p.extra, j) - p.norm*q/p.eps
}

func (p problem) pair(m, j, k int) float64 {
	a := &p.arms[m]
	return logWeight(a.logw, k, a.m) + at(a.gamma, k) - p.pairCost(m, j, k)/p.eps
}

// tuples calls f for every tuple (j, k_1…k_M).
func (p problem) tuples(f func(j int, k []int)) {
	k := make([]int, len(p.arms))
	for j := range p.n {
		for i := range k {
			k[i] = 0
		}
		for done := false; !done; {
			f(j, k)
			done = true
			for i := range k {
				if k[i]++; k[i] < p.arms[i].m {
					done = false
					break
				}
				k[i] = 0
			}
		}
	}
}

// reference is the definition: a sum over all tuples in two passes.
func (p problem) reference() answer {
	exponent := func(j int, k []int) float64 {
		s := p.node(j)
		for m := range p.arms {
			s += p.pair(m, j, k[m])
		}
		return s
	}
	var r answer
	top := math.Inf(-1)
	p.tuples(func(j int, k []int) {
		e := exponent(j, k)
		top = max(top, e)
		if !math.IsInf(e, 0) {
			r.exponent = max(r.exponent, math.Abs(e))
		}
	})
	sum := 0.0
	p.tuples(func(j int, k []int) { sum += math.Exp(exponent(j, k) - top) })
	r.logE = top + math.Log(sum)
	p.allocate(&r)
	p.tuples(func(j int, k []int) {
		w := math.Exp(exponent(j, k) - r.logE)
		r.dbeta[j] += w
		for m := range p.arms {
			r.dgamma[m][k[m]] += w
			r.plan[m][j*p.arms[m].m+k[m]] += w
		}
	})
	for m, a := range p.arms {
		for i, w := range r.plan[m] {
			r.conditional[m][i] = w / r.dbeta[i/a.m]
		}
	}
	p.finish(&r)
	return r
}

func (p problem) allocate(r *answer) {
	r.dbeta, r.dy = make([]float64, p.n), make([]float64, p.n*p.d)
	for _, a := range p.arms {
		r.dgamma = append(r.dgamma, make([]float64, a.m))
		r.dt = append(r.dt, make([]float64, a.m*p.d))
		r.plan = append(r.plan, make([]float64, p.n*a.m))
		r.conditional = append(r.conditional, make([]float64, p.n*a.m))
	}
}

// finish derives the gradients of points from plan, and Linear.
func (p problem) finish(r *answer) {
	abs := make([]float64, p.n*p.d)
	for j := range p.n {
		if b := math.Exp(logWeight(p.logw, j, p.n)); b != 0 {
			r.linear += b * at(p.beta, j)
		}
		for i := range p.d {
			if p.norm != 0 {
				v := -2 * p.norm / p.eps * r.dbeta[j] * p.y[j*p.d+i]
				r.dy[j*p.d+i] += v
				abs[j*p.d+i] += math.Abs(v)
			}
		}
	}
	for m, a := range p.arms {
		for k := range a.m {
			if b := math.Exp(logWeight(a.logw, k, a.m)); b != 0 {
				r.linear += b * at(a.gamma, k)
			}
		}
		if a.t == nil {
			continue
		}
		absT := make([]float64, a.m*p.d)
		for j := range p.n {
			for k := range a.m {
				for i := range p.d {
					v := 2 * a.weight / p.eps * r.plan[m][j*a.m+k] * (a.t[k*p.d+i] - p.y[j*p.d+i])
					r.dy[j*p.d+i] += v
					r.dt[m][k*p.d+i] -= v
					abs[j*p.d+i] += math.Abs(v)
					absT[k*p.d+i] += math.Abs(v)
				}
			}
		}
		r.spread = max(r.spread, slices.Max(absT))
	}
	if p.d > 0 {
		r.spread = max(r.spread, slices.Max(abs))
	}
}

// messages is the reference for problems too large for tuples: the same sums
// by messages, in float64. TestMessages holds it against reference.
func (p problem) messages() answer {
	var r answer
	p.allocate(&r)
	lse := func(v []float64) float64 {
		top, s := slices.Max(v), 0.0
		for _, x := range v {
			s += math.Exp(x - top)
		}
		return top + math.Log(s)
	}
	s := make([]float64, p.n)
	msg := make([][]float64, len(p.arms))
	for j := range p.n {
		s[j] = p.node(j)
		for m, a := range p.arms {
			z := make([]float64, a.m)
			for k := range z {
				z[k] = p.pair(m, j, k)
				r.exponent = max(r.exponent, math.Abs(z[k]))
			}
			msg[m] = append(msg[m], lse(z))
			s[j] += msg[m][j]
		}
		r.exponent = max(r.exponent, math.Abs(s[j]))
	}
	r.logE = lse(s)
	for j := range p.n {
		r.dbeta[j] = math.Exp(s[j] - r.logE)
		for m, a := range p.arms {
			for k := range a.m {
				w := math.Exp(s[j] - r.logE + p.pair(m, j, k) - msg[m][j])
				r.plan[m][j*a.m+k] = w
				r.conditional[m][j*a.m+k] = math.Exp(p.pair(m, j, k) - msg[m][j])
				r.dgamma[m][k] += w
			}
		}
	}
	p.finish(&r)
	return r
}

// randomProblem draws a star; pattern chooses what is present.
func randomProblem(r *rand.Rand, n, d int, leaves []int, pattern int) problem {
	bit := func(i int) bool { return pattern>>i&1 == 1 }
	normal := func(count int, scale float64) []float64 {
		v := make([]float64, count)
		for i := range v {
			v[i] = scale * r.NormFloat64()
		}
		return v
	}
	weights := func(count int) []float64 {
		v, s := normal(count, 1), 0.0
		for _, x := range v {
			s += math.Exp(x)
		}
		for i := range v {
			v[i] -= math.Log(s)
		}
		return v
	}
	p := problem{eps: 0.3 + r.Float64(), n: n, d: d, y: normal(n*d, 1/math.Sqrt(float64(d)))}
	if bit(0) {
		p.beta = normal(n, 1)
	}
	if bit(1) {
		p.logw = weights(n)
	}
	if bit(2) {
		p.extra = normal(n, 0.5)
	}
	if bit(3) {
		p.norm = 0.3
	}
	for i, m := range leaves {
		a := leaf{m: m, weight: 0.5 + r.Float64()}
		if bit(4) && i%2 == 1 {
			a.cost = normal(n*m, 1)
		} else {
			a.t = normal(m*d, 1/math.Sqrt(float64(d)))
		}
		if !bit(5) {
			a.gamma = normal(m, 1)
		}
		if bit(6) {
			a.logw = weights(m)
		}
		p.arms = append(p.arms, a)
	}
	return p
}

// rounded is the problem that elements of type T can hold.
func rounded[T kerneltest.Float](p problem) problem {
	round := func(v []float64) []float64 {
		v = slices.Clone(v)
		for i := range v {
			v[i] = float64(T(v[i]))
		}
		return v
	}
	p.beta, p.logw, p.extra, p.y = round(p.beta), round(p.logw), round(p.extra), round(p.y)
	p.arms = slices.Clone(p.arms)
	for i, a := range p.arms {
		p.arms[i].gamma, p.arms[i].logw, p.arms[i].t, p.arms[i].cost = round(a.gamma), round(a.logw), round(a.t), round(a.cost)
	}
	return p
}

func convert[T kerneltest.Float](v []float64) []T {
	out := make([]T, len(v))
	for i, x := range v {
		out[i] = T(x)
	}
	return out
}

// loaded is a problem on a device, with poisoned outputs for everything.
type loaded[T kerneltest.Float] struct {
	star   Star
	out    Output
	inputs []*kerneltest.Array[T]

	value             *kerneltest.Array[float64]
	dbeta, dy         *kerneltest.Array[T]
	dgamma, dt        []*kerneltest.Array[T]
	plan, conditional []*kerneltest.Array[T]
}

func load[T kerneltest.Float](tb testing.TB, dev gpu.Device, p problem) *loaded[T] {
	tb.Helper()
	l := &loaded[T]{}
	put := func(v []float64, shape ...int) tensor.Tensor {
		if v == nil {
			return tensor.Tensor{}
		}
		a := kerneltest.Put(tb, dev, convert[T](v), shape...)
		l.inputs = append(l.inputs, a)
		return a.Tensor
	}
	l.star = Star{Epsilon: p.eps, Norm: p.norm, Potential: put(p.beta, p.n), LogWeight: put(p.logw, p.n),
		Extra: put(p.extra, p.n), Points: put(p.y, p.n, p.d)}
	l.value, l.dbeta = kerneltest.Poison[float64](tb, dev, 2), kerneltest.Poison[T](tb, dev, p.n)
	l.out = Output{Value: l.value.Tensor, Potential: l.dbeta.Tensor}
	if p.y != nil {
		l.dy = kerneltest.Poison[T](tb, dev, p.n, p.d)
		l.out.Points = l.dy.Tensor
	}
	for _, a := range p.arms {
		l.star.Arms = append(l.star.Arms, Arm{Potential: put(a.gamma, a.m), LogWeight: put(a.logw, a.m),
			Points: put(a.t, a.m, p.d), Cost: put(a.cost, p.n, a.m), Weight: a.weight})
		dgamma, plan := kerneltest.Poison[T](tb, dev, a.m), kerneltest.Poison[T](tb, dev, p.n, a.m)
		conditional := kerneltest.Poison[T](tb, dev, p.n, a.m)
		l.dgamma, l.plan, l.conditional = append(l.dgamma, dgamma), append(l.plan, plan), append(l.conditional, conditional)
		o := ArmOutput{Potential: dgamma.Tensor, Plan: plan.Tensor, Conditional: conditional.Tensor}
		var dt *kerneltest.Array[T]
		if a.t != nil {
			dt = kerneltest.Poison[T](tb, dev, a.m, p.d)
			o.Points = dt.Tensor
		}
		l.dt = append(l.dt, dt)
		l.out.Arms = append(l.out.Arms, o)
	}
	return l
}

// run is LogE; all outputs one after another are returned for bit comparison.
func (l *loaded[T]) run(tb testing.TB, dev gpu.Device) []T {
	tb.Helper()
	if err := LogE(dev, l.star, l.out); err != nil {
		tb.Fatal(err)
	}
	for _, in := range l.inputs {
		in.Unmodified(tb)
	}
	all := l.dbeta.Get(tb)
	for _, list := range [][]*kerneltest.Array[T]{{l.dy}, l.dgamma, l.dt, l.plan, l.conditional} {
		for _, a := range list {
			if a != nil {
				all = append(all, a.Get(tb)...)
			}
		}
	}
	return all
}
