package proximal_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/tensor"
)

// mixture is a Gaussian-mixture potential on the host.
type mixture[T kerneltest.Float] struct {
	k, d                      int
	logits, means, scales, ax []T // ax nil: the unit vectors
	epsilon                   float64
}

// modelA is the model of which test vectors are known.
func modelA[T kerneltest.Float]() mixture[T] {
	return mixture[T]{
		k: 3, d: 2, epsilon: 0.5,
		logits: []T{-0.3, 0.2, -1.1},
		means:  []T{1, -.5, -.8, .6, .3, 1.4},
		scales: []T{.40, 1.50, .90, .25, 2.00, .70},
	}
}

// turned gives the mixture axes, rotations of a chain of planes.
func (m mixture[T]) turned(rng *rand.Rand) mixture[T] {
	m.ax = make([]T, m.k*m.d*m.d)
	for j := range m.k {
		q := make([]float64, m.d*m.d)
		for i := range m.d {
			q[i*m.d+i] = 1
		}
		for i := range m.d - 1 {
			c, s := math.Cos(3*rng.Float64()), 0.0
			s = math.Sqrt(1 - c*c)
			for e := range m.d {
				a, b := q[i*m.d+e], q[(i+1)*m.d+e]
				q[i*m.d+e], q[(i+1)*m.d+e] = c*a+s*b, c*b-s*a
			}
		}
		for i, v := range q {
			m.ax[j*m.d*m.d+i] = T(v)
		}
	}
	return m
}

// random is a mixture with S at least floor.
func random[T kerneltest.Float](rng *rand.Rand, k, d int, epsilon, floor, spread float64) mixture[T] {
	m := mixture[T]{k: k, d: d, epsilon: epsilon, logits: make([]T, k), means: make([]T, k*d), scales: make([]T, k*d)}
	for i := range m.logits {
		m.logits[i] = T(rng.NormFloat64())
	}
	for i := range m.means {
		m.means[i] = T(spread * rng.NormFloat64())
		m.scales[i] = T(floor + 0.3*math.Exp(rng.NormFloat64()))
	}
	return m
}

// at evaluates w_t and g at y in the type R, by two passes.
func at[R, T kerneltest.Float](m mixture[T], t float64, y []R) (w R, g []R) {
	eps := R(m.epsilon)
	ell := make([]R, m.k)
	each := make([][]R, m.k)
	top := R(math.Inf(-1))
	for j := range m.k {
		component := make([]R, m.d)
		ell[j] = R(m.logits[j])
		for i := range m.d {
			z, r := y[i], R(m.means[j*m.d+i])
			var axis []T
			if m.ax != nil {
				axis = m.ax[(j*m.d+i)*m.d : (j*m.d+i+1)*m.d]
				z, r = 0, 0
				for e, v := range axis {
					z += R(v) * y[e]
					r += R(v) * R(m.means[j*m.d+e])
				}
			}
			s := R(m.scales[j*m.d+i])
			D := (1 - R(t)) + R(t)*s
			ell[j] += -R(math.Log(float64(D)))/2 + (2*r*z+(s-1)*z*z-R(t)*r*r)/D/(2*eps)
			drift := (r + (s-1)*z) / D
			if axis == nil {
				component[i] = drift
			}
			for e, v := range axis {
				component[e] += R(v) * drift
			}
		}
		each[j] = component
		top = max(top, ell[j])
	}
	var sum R
	g = make([]R, m.d)
	for j := range m.k {
		p := R(math.Exp(float64(ell[j] - top)))
		sum += p
		for i := range m.d {
			g[i] += p * each[j][i]
		}
	}
	for i := range g {
		g[i] /= sum
	}
	return eps * (top + R(math.Log(float64(sum)))), g
}

// miss is |y + g/β - x| / max(1, |x|) in float64, and the error of evaluating it
// plainly in T: that of float32, times the ratio of the roundings.
func miss[T kerneltest.Float](m mixture[T], t, beta float64, x, y []T) (residual, lost float64) {
	y64, y32 := make([]float64, m.d), make([]float32, m.d)
	for i := range y {
		y64[i], y32[i] = float64(y[i]), float32(y[i])
	}
	_, g := at(m, t, y64)
	_, low := at(m, t, y32)
	var square, sum, far float64
	for i := range y {
		v := y64[i] + g[i]/beta - float64(x[i])
		e := (float64(low[i]) - g[i]) / beta
		sum += v * v
		far += e * e
		square += float64(x[i]) * float64(x[i])
	}
	scale := max(1, math.Sqrt(square))
	return math.Sqrt(sum) / scale, (math.Sqrt(far)/scale/0x1p-23 + 4) * ulp[T]()
}

// envelope is w_t(y) + β/2 |x - y|² in the type R.
func envelope[R, T kerneltest.Float](m mixture[T], t, beta float64, x, y []T) R {
	at64 := make([]R, m.d)
	var away R
	for i := range y {
		at64[i] = R(y[i])
		away += (R(x[i]) - R(y[i])) * (R(x[i]) - R(y[i]))
	}
	w, _ := at(m, t, at64)
	return w + R(beta)/2*away
}

func ulp[T kerneltest.Float]() float64 {
	if tensor.TypeOf[T]() == tensor.Float32 {
		return 0x1p-23
	}
	return 0x1p-52
}

// problem is a call on the host.
type problem[T kerneltest.Float] struct {
	m         mixture[T]
	x, t      []T // t nil: t0
	start     []T // nil: cold
	t0, beta  float64
	tolerance float64
	most      int
	withoutH  bool
}

func (p problem[T]) n() int { return len(p.x) / p.m.d }

func (p problem[T]) time(b int) float64 {
	if p.t != nil {
		return float64(p.t[b])
	}
	return p.t0
}

// rows is the problem of the given samples.
func (p problem[T]) rows(which []int) problem[T] {
	q := p
	q.x, q.t, q.start = nil, nil, nil
	d := p.m.d
	for _, b := range which {
		q.x = append(q.x, p.x[b*d:b*d+d]...)
		if p.t != nil {
			q.t = append(q.t, p.t[b])
		}
		if p.start != nil {
			q.start = append(q.start, p.start[b*d:b*d+d]...)
		}
	}
	return q
}

// result is what a call gives.
type result[T kerneltest.Float] struct {
	y, value, residual []T
	iterations         []int32
}

// put puts the mixture on a device; check fails the test where it was changed.
func put[T kerneltest.Float](tb testing.TB, dev gpu.Device, m mixture[T]) (gmm.Mixture, func()) {
	arrays := []*kerneltest.Array[T]{
		kerneltest.Put(tb, dev, m.logits), kerneltest.Put(tb, dev, m.means, m.k, m.d), kerneltest.Put(tb, dev, m.scales, m.k, m.d),
	}
	out := gmm.Mixture{Logits: arrays[0].Tensor, Means: arrays[1].Tensor, Scales: arrays[2].Tensor, Epsilon: m.epsilon}
	if m.ax != nil {
		arrays = append(arrays, kerneltest.Put(tb, dev, m.ax, m.k, m.d, m.d))
		out.Axes = arrays[3].Tensor
	}
	return out, func() {
		for _, a := range arrays {
			a.Unmodified(tb)
		}
	}
}

// solve runs the problem on a device.
func (p problem[T]) solve(tb testing.TB, dev gpu.Device) result[T] {
	tb.Helper()
	n, d := p.n(), p.m.d
	mix, unmodified := put(tb, dev, p.m)
	x := kerneltest.Put(tb, dev, p.x, n, d)
	y := kerneltest.Poison[T](tb, dev, n, d)
	value, residual := kerneltest.Poison[T](tb, dev, n), kerneltest.Poison[T](tb, dev, n)
	count, err := tensor.From(dev, make([]int32, n), n)
	require.NoError(tb, err)
	defer count.Free()
	a := proximal.Args{
		Mixture: mix, X: x.Tensor, T0: p.t0, Beta: p.beta, Tolerance: p.tolerance, MaxIterations: p.most,
		Y: y.Tensor, Value: value.Tensor, Residual: residual.Tensor, Iterations: count,
	}
	if p.t != nil {
		t := kerneltest.Put(tb, dev, p.t)
		defer t.Unmodified(tb)
		a.T = t.Tensor
	}
	if p.start != nil {
		a.Warm = true
		require.NoError(tb, tensor.Set(y.Tensor, p.start))
	}
	call := proximal.Solve
	if p.withoutH {
		call = proximal.SolveWithoutH
	}
	require.NoError(tb, call(a))
	out := result[T]{y: y.Get(tb), value: value.Get(tb), residual: residual.Get(tb)}
	out.iterations, err = tensor.Values[int32](count)
	require.NoError(tb, err)
	x.Unmodified(tb)
	unmodified()
	return out
}

// tight is the tolerance that the zero value means.
func tight[T kerneltest.Float]() float64 {
	if tensor.TypeOf[T]() == tensor.Float32 {
		return 1e-5
	}
	return 1e-10
}

// verify compares results with the definition: the inverse property to the
// tolerance of the call, and to what a plain evaluation of the drift loses, and
// the envelope.
func (p problem[T]) verify(r result[T], limit int32) error {
	tolerance := p.tolerance
	if tolerance == 0 {
		tolerance = tight[T]()
	}
	d := p.m.d
	want, naive := make([]float64, p.n()), make([]T, p.n())
	misses, worst := p.misses(r)
	for b := range p.n() {
		x, y := p.x[b*d:b*d+d], r.y[b*d:b*d+d]
		if !(float64(r.residual[b]) <= tolerance+2*worst) || r.iterations[b] > limit || r.iterations[b] < 0 {
			return fmt.Errorf("sample %d: residual %v after %d iterations; evaluation loses %v", b, r.residual[b], r.iterations[b], worst)
		}
		if !(misses[b] <= tolerance+2*worst) {
			return fmt.Errorf("sample %d: |y + g/β - x| = %v, reported %v; evaluation loses %v", b, misses[b], r.residual[b], worst)
		}
		want[b] = envelope[float64](p.m, p.time(b), p.beta, x, y)
		naive[b] = envelope[T](p.m, p.time(b), p.beta, x, y)
	}
	return kerneltest.Close(r.value, naive, want, 64)
}

// misses are the residuals of all samples, and the most that evaluation loses:
// twice what a plain one does, as the kernels round r/D and (S - 1)/D where that
// rounds their sum.
func (p problem[T]) misses(r result[T]) (residuals []float64, worst float64) {
	d := p.m.d
	for b := range p.n() {
		v, lost := miss(p.m, p.time(b), p.beta, p.x[b*d:b*d+d], r.y[b*d:b*d+d])
		residuals = append(residuals, v)
		worst = max(worst, 2*lost)
	}
	return residuals, worst
}

// normals are samples.
func normals[T kerneltest.Float](rng *rand.Rand, n int, scale float64) []T {
	v := make([]T, n)
	for i := range v {
		v[i] = T(scale * rng.NormFloat64())
	}
	return v
}
