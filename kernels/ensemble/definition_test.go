package ensemble_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/ensemble"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// problem is one problem by itself.
type problem struct {
	n, m       int
	x, y       []float64 // (n, d), (m, d)
	cost       []float64 // (n, m)
	a, b       []float64
	eps        float64 // absolute
	rho1, rho2 float64
}

const dim = 3

// random makes a problem of standard normal points with weights that differ, a
// seventh of them zero, and ε of frac times the mean cost.
func random(rng *rand.Rand, n, m int, ground ensemble.Cost, frac float64) problem {
	p := problem{n: n, m: m, rho1: math.Inf(1), rho2: math.Inf(1)}
	points := func(k int, shift float64) []float64 {
		v := make([]float64, k*dim)
		for i := range v {
			v[i] = rng.NormFloat64() + shift
		}
		return v
	}
	weights := func(k int) []float64 {
		w, total := make([]float64, k), 0.0
		for i := range w {
			w[i] = 0.2 + rng.Float64()
			if i%7 == 3 {
				w[i] = 0
			}
			total += w[i]
		}
		for i := range w {
			w[i] /= total
		}
		return w
	}
	p.x, p.y = points(n, 0), points(m, 0.5)
	p.a, p.b = weights(n), weights(m)
	p.cost = make([]float64, n*m)
	mean := 0.0
	for e := range p.cost {
		s := 0.0
		for k := range dim {
			t := p.x[e/m*dim+k] - p.y[e%m*dim+k]
			s += t * t
		}
		switch ground {
		case ensemble.HalfSqEuclidean:
			s /= 2
		case ensemble.Euclidean:
			s = math.Sqrt(s)
		}
		p.cost[e] = s
		mean += p.a[e/m] * p.b[e%m] * s
	}
	p.eps = frac * mean
	return p
}

// batch is problems on a device, each array between guards.
type batch struct {
	ensemble.Args
	problems []problem
	inputs   []*kerneltest.Array[float64]
	f, g, to *kerneltest.Array[float64]
	values   *kerneltest.Array[float64]
	counts   tensor.Tensor
}

// put uploads problems, as points or as matrices.
func put(t testing.TB, dev gpu.Device, problems []problem, matrices bool) *batch {
	b := &batch{problems: problems}
	var n, m []int
	var x, y, c, a, w, eps, rho1, rho2 []float64
	penalty := false
	for _, p := range problems {
		n, m = append(n, p.n), append(m, p.m)
		x, y, c = append(x, p.x...), append(y, p.y...), append(c, p.cost...)
		a, w = append(a, p.a...), append(w, p.b...)
		eps, rho1, rho2 = append(eps, p.eps), append(rho1, p.rho1), append(rho2, p.rho2)
		penalty = penalty || !math.IsInf(p.rho1, 1) || !math.IsInf(p.rho2, 1)
	}
	input := func(v []float64, shape ...int) tensor.Tensor {
		array := kerneltest.Put(t, dev, v, shape...)
		b.inputs = append(b.inputs, array)
		return array.Tensor
	}
	layout, err := ensemble.NewLayout(dev, n, m)
	require.NoError(t, err)
	t.Cleanup(layout.Free)
	b.f, b.g = kerneltest.Poison[float64](t, dev, len(a)), kerneltest.Poison[float64](t, dev, len(w))
	b.values = kerneltest.Poison[float64](t, dev, len(n), ensemble.Values)
	b.counts = kerneltest.New(t, dev, tensor.Int32, len(n), ensemble.Counts)
	require.NoError(t, tensor.Set(b.counts, make([]int32, len(n)*ensemble.Counts)))
	b.Args = ensemble.Args{
		Layout: layout, A: input(a), B: input(w), Epsilon: input(eps), F: b.f.Tensor, G: b.g.Tensor,
		Values: b.values.Tensor, Counts: b.counts, Sweeps: tensor.Float64, Tolerance: 1e-10, MaxSweeps: 3000,
	}
	if matrices {
		b.Costs = input(c)
	} else {
		b.X, b.Y = input(x, len(a), dim), input(y, len(w), dim)
		b.to = kerneltest.Poison[float64](t, dev, len(a), dim)
		b.Map = b.to.Tensor
	}
	if penalty {
		b.RhoSource, b.RhoTarget = input(rho1), input(rho2)
	}
	return b
}

// answer is what came back of one problem.
type answer struct {
	f, g, to, values []float64
	counts           []int32
}

// solve runs the kernel and checks that it wrote where it may.
func (b *batch) solve(t testing.TB) []answer {
	require.NoError(t, ensemble.Solve(b.Args))
	f, g, values := b.f.Get(t), b.g.Get(t), b.values.Get(t)
	var to []float64
	if b.to != nil {
		to = b.to.Get(t)
	}
	for _, in := range b.inputs {
		in.Unmodified(t)
	}
	counts, err := tensor.Values[int32](b.counts)
	require.NoError(t, err)
	out := make([]answer, len(b.problems))
	i, j := 0, 0
	for k, p := range b.problems {
		out[k] = answer{f: f[i : i+p.n], g: g[j : j+p.m], values: values[k*ensemble.Values : (k+1)*ensemble.Values],
			counts: counts[k*ensemble.Counts : (k+1)*ensemble.Counts]}
		if to != nil {
			out[k].to = to[i*dim : (i+p.n)*dim]
		}
		i, j = i+p.n, j+p.m
	}
	return out
}

// lse is log Σ exp.
func lse(z []float64) float64 {
	top := math.Inf(-1)
	for _, v := range z {
		top = max(top, v)
	}
	s := 0.0
	for _, v := range z {
		s += math.Exp(v - top)
	}
	return top + math.Log(s)
}

func (p problem) damps() (d1, d2 float64) {
	d1, d2 = 1, 1
	if !math.IsInf(p.rho1, 1) {
		d1 = p.rho1 / (p.rho1 + p.eps)
	}
	if !math.IsInf(p.rho2, 1) {
		d2 = p.rho2 / (p.rho2 + p.eps)
	}
	return d1, d2
}

// softF and softG are both halves of Sinkhorn's map, by their definition.
func (p problem) softF(g []float64) []float64 {
	d1, _ := p.damps()
	f, z := make([]float64, p.n), make([]float64, p.m)
	for i := range f {
		for j := range z {
			z[j] = math.Log(p.b[j]) + (g[j]-p.cost[i*p.m+j])/p.eps
		}
		f[i] = -d1 * p.eps * lse(z)
	}
	return f
}

func (p problem) softG(f []float64) []float64 {
	_, d2 := p.damps()
	g, z := make([]float64, p.m), make([]float64, p.n)
	for j := range g {
		for i := range z {
			z[i] = math.Log(p.a[i]) + (f[i]-p.cost[i*p.m+j])/p.eps
		}
		g[j] = -d2 * p.eps * lse(z)
	}
	return g
}

// sinkhorn is plain Sinkhorn in the log domain until nothing moves.
func (p problem) sinkhorn() (f, g []float64) {
	g = make([]float64, p.m)
	for range 20000 {
		f = p.softF(g)
		next, moved := p.softG(f), 0.0
		for j := range g {
			moved = max(moved, math.Abs(next[j]-g[j]))
		}
		g = next
		if moved <= 1e-14*p.eps {
			break
		}
	}
	return p.softF(g), g
}

// plan is the definition of what an answer says of its plan.
type plan struct {
	values []float64
	to     []float64
	size   float64 // of the terms that the values are sums of
}

func (p problem) plan(f, g []float64) plan {
	v := make([]float64, ensemble.Values)
	v[ensemble.Epsilon] = p.eps
	row, col, to := make([]float64, p.n), make([]float64, p.m), make([]float64, p.n*dim)
	ma, mb, kl := 0.0, 0.0, 0.0
	for i, w := range p.a {
		ma += w
		for j, u := range p.b {
			if i == 0 {
				mb += u
			}
			c := p.cost[i*p.m+j]
			v[ensemble.MeanCost] += w * u * c
			z := (f[i] + g[j] - c) / p.eps
			if w*u > 0 {
				x := w * u * math.Exp(z)
				row[i], col[j] = row[i]+x, col[j]+x
				v[ensemble.TransportCost] += x * c
				v[ensemble.Mass] += x
				kl += x*z - x + w*u
			} else {
				kl += w * u
			}
		}
	}
	v[ensemble.MeanCost] /= ma * mb
	size := math.Abs(v[ensemble.TransportCost])
	v[ensemble.Primal] = v[ensemble.TransportCost] + p.eps*kl
	v[ensemble.Dual] = -p.eps * (v[ensemble.Mass] - ma*mb)
	side := func(rho float64, w, f, got []float64, sum *float64) {
		for i, x := range w {
			*sum += math.Abs(got[i] - x)
			if x == 0 {
				continue
			}
			size += x * math.Abs(f[i])
			if math.IsInf(rho, 1) {
				v[ensemble.Dual] += x * f[i]
				continue
			}
			v[ensemble.Dual] -= rho * x * (math.Exp(-f[i]/rho) - 1)
			v[ensemble.Primal] += rho * (got[i]*math.Log(got[i]/x) - got[i] + x)
		}
	}
	side(p.rho1, p.a, f, row, &v[ensemble.Source])
	side(p.rho2, p.b, g, col, &v[ensemble.Target])
	for j, x := range p.b {
		want := x
		if !math.IsInf(p.rho2, 1) && x > 0 {
			want = x * math.Exp(-g[j]/p.rho2)
		}
		v[ensemble.Residual] += math.Abs(col[j]-want) / ma
	}
	z := make([]float64, p.m)
	for i := range p.n {
		for j, u := range p.b {
			z[j] = math.Log(u) + (g[j]-p.cost[i*p.m+j])/p.eps
		}
		all := lse(z)
		for j := range z {
			for k := range dim {
				if x := math.Exp(z[j] - all); x > 0 {
					to[i*dim+k] += x * p.y[j*dim+k]
				}
			}
		}
	}
	return plan{v, to, size + p.eps*(1+ma+ma*mb)}
}

// check holds an answer against the definition: its values are those of its
// potentials, f is optimal for g, and g, where a weight is 0, for f.
func (p problem) check(t testing.TB, got answer) {
	want := p.plan(got.f, got.g)
	// An exponent of size z is known to z units of rounding, and each value is a
	// mean of such terms.
	z := 0.0
	for i, f := range got.f {
		for j, g := range got.g {
			z = max(z, (math.Abs(f)+math.Abs(g)+p.cost[i*p.m+j])/p.eps)
		}
	}
	unit := 0x1p-52 * (16 + 4*z)
	for k, w := range want.values {
		require.NoError(t, kerneltest.Within(got.values[k:k+1], []float64{w}, unit*(want.size+1)), "value %d of %d × %d", k, p.n, p.m)
	}
	require.NoError(t, kerneltest.Within(got.f, p.softF(got.g), unit*p.eps*4))
	back := p.softG(got.f)
	for j, w := range p.b {
		if w == 0 {
			require.NoError(t, kerneltest.Within(got.g[j:j+1], back[j:j+1], unit*p.eps*4))
		}
	}
	if got.to != nil {
		require.NoError(t, kerneltest.Within(got.to, want.to, unit*8))
	}
}
