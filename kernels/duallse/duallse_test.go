package duallse

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// unit is the unit roundoff of T.
func unit[T kerneltest.Float]() float64 {
	if tensor.TypeOf[T]() == tensor.Float32 {
		return 0x1p-24
	}
	return 0x1p-53
}

// relative bounds the relative error of a weight of the plan: exponents of size
// up to r.exponent are sums of d+8 rounded terms, and enter once for each
// message and once for the tuple itself; polynomials and sums add a few more.
func relative[T kerneltest.Float](p problem, r answer) float64 {
	return unit[T]() * (float64(2*(len(p.arms)+1)*(p.d+8))*r.exponent + 64)
}

func largest(v []float64) float64 {
	s := 0.0
	for _, x := range v {
		s = max(s, math.Abs(x))
	}
	return s
}

// compare holds the outputs of a run against r.
func (l *loaded[T]) compare(tb testing.TB, p problem, r answer) {
	tb.Helper()
	rel := relative[T](p, r)
	near := func(what string, got []T, want []float64, scale float64) {
		tb.Helper()
		require.NoError(tb, kerneltest.Within(got, want, rel*scale), what)
	}
	v, err := ReadValue(l.value.Tensor)
	require.NoError(tb, err)
	l.value.Get(tb)
	require.NoError(tb, kerneltest.Within([]float64{v.LogE}, []float64{r.logE}, rel), "logE")
	require.NoError(tb, kerneltest.Within([]float64{v.Linear}, []float64{r.linear}, 0x1p-48*max(1, r.exponent)), "linear")
	near("gradient of potential", l.dbeta.Get(tb), r.dbeta, largest(r.dbeta))
	if l.dy != nil {
		near("gradient of points", l.dy.Get(tb), r.dy, r.spread)
	}
	for m := range p.arms {
		near(fmt.Sprint("arm ", m, ": gradient of potential"), l.dgamma[m].Get(tb), r.dgamma[m], largest(r.dgamma[m]))
		near(fmt.Sprint("arm ", m, ": plan"), l.plan[m].Get(tb), r.plan[m], largest(r.plan[m]))
		near(fmt.Sprint("arm ", m, ": conditional"), l.conditional[m].Get(tb), r.conditional[m], 1)
		if l.dt[m] != nil {
			near(fmt.Sprint("arm ", m, ": gradient of points"), l.dt[m].Get(tb), r.dt[m], r.spread)
		}
	}
}

func each(t *testing.T, body func(t *testing.T, dev gpu.Device)) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) { body(t, dev.Device) })
}

func both(t *testing.T, body32, body64 func(t *testing.T, dev gpu.Device)) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("f32", func(t *testing.T) { body32(t, dev.Device) })
		t.Run("f64", func(t *testing.T) { body64(t, dev.Device) })
	})
}

// The chain x - y - t with five nodes each, all of whose results were computed
// independently with 16 digits.
func chain() problem {
	p := problem{eps: 0.7, norm: 1e-3, n: 5, d: 2, arms: []leaf{{m: 5, weight: 1}, {m: 5, weight: 3}}}
	for i := range 5 {
		f := float64(i)
		p.y = append(p.y, math.Sin(.9*f+1), math.Cos(1.1*f-.4))
		p.arms[0].t = append(p.arms[0].t, math.Sin(1.3*f), math.Cos(.7*f))
		p.arms[1].t = append(p.arms[1].t, math.Cos(.5*f+.2), math.Sin(1.7*f))
		p.beta = append(p.beta, .2*math.Cos(1.5*f))
		p.arms[0].gamma = append(p.arms[0].gamma, .3*math.Sin(2*f))
		p.arms[1].gamma = append(p.arms[1].gamma, -.1*f)
	}
	return p
}

func TestChain(t *testing.T) {
	const (
		logE, logZ  = -3.1989631988742575, -3.155714573235748
		dual, dualE = -.0718003458734841, -.07272222985208637
	)
	dbeta := []float64{.405645569, .274854804, .182822652, .125843417, .010833558}
	dalpha := []float64{.128886888, .478785792, .215401943, .079669112, .097256264}
	dgamma := []float64{.067275404, .637065425, .15296146, .141752747, .000944963}
	p := chain()
	prior := p
	prior.beta = nil
	prior.arms = slices.Clone(p.arms)
	prior.arms[0].gamma, prior.arms[1].gamma = nil, nil
	each(t, func(t *testing.T, dev gpu.Device) {
		l, z := load[float64](t, dev, p), load[float64](t, dev, prior)
		l.run(t, dev)
		z.run(t, dev)
		v, err := ReadValue(l.value.Tensor)
		require.NoError(t, err)
		vz, err := ReadValue(z.value.Tensor)
		require.NoError(t, err)
		got := []float64{v.LogE, vz.LogE, v.Dual(vz.LogE), v.DualE(vz.LogE), vz.Linear}
		require.NoError(t, kerneltest.Within(got, []float64{logE, logZ, dual, dualE, 0}, 1e-14))
		require.NoError(t, kerneltest.Within(l.dbeta.Get(t), dbeta, 5e-10))
		require.NoError(t, kerneltest.Within(l.dgamma[0].Get(t), dalpha, 5e-10))
		require.NoError(t, kerneltest.Within(l.dgamma[1].Get(t), dgamma, 5e-10))
		l32 := load[float32](t, dev, rounded[float32](p))
		l32.run(t, dev)
		l32.compare(t, p, rounded[float32](p).reference())
	})
}

// Distillation of two teachers' logits t_m into s: a star with given costs
// w_m (|s - t|² + λ CE(s, t)), CE = -Σ softmax(t) log softmax(s).
func TestTwoTeachers(t *testing.T) {
	const B, K, lambda = 4, 3, .5
	softmax := func(v []float64) (p, logp []float64) {
		s := 0.0
		for _, x := range v {
			s += math.Exp(x)
		}
		for _, x := range v {
			p, logp = append(p, math.Exp(x)/s), append(logp, x-math.Log(s))
		}
		return p, logp
	}
	logits := func(f func(i, k float64) float64) [][]float64 {
		v := make([][]float64, B)
		for i := range v {
			for k := range K {
				v[i] = append(v[i], f(float64(i), float64(k)))
			}
		}
		return v
	}
	crossEntropy := func(s, t []float64) (c float64) {
		p, _ := softmax(t)
		_, q := softmax(s)
		for k := range p {
			c -= p[k] * q[k]
		}
		return c
	}
	s := logits(func(i, k float64) float64 { return math.Sin(1.1*i + .6*k) })
	teachers := [][][]float64{
		logits(func(i, k float64) float64 { return math.Cos(.8*i + .9*k) }),
		logits(func(i, k float64) float64 { return math.Sin(.5*i + 1.3*k + .3) }),
	}
	for j, want := range []float64{1.333791157, 1.397991698, 1.329779686, 1.133590289} {
		require.InDelta(t, want, crossEntropy(s[0], teachers[0][j]), 1e-9)
	}
	p := problem{eps: .8, n: B, arms: []leaf{{m: B, weight: .6}, {m: B, weight: .4}}}
	for i := range B {
		f := float64(i)
		p.beta = append(p.beta, .2*math.Sin(f))
		p.arms[0].gamma = append(p.arms[0].gamma, -.1*f)
		p.arms[1].gamma = append(p.arms[1].gamma, .05*f*f)
		for m := range teachers {
			for k := range B {
				c := lambda * crossEntropy(s[i], teachers[m][k])
				for x := range K {
					c += (s[i][x] - teachers[m][k][x]) * (s[i][x] - teachers[m][k][x])
				}
				p.arms[m].cost = append(p.arms[m].cost, c)
			}
		}
	}
	// The data marginal is inert: its part of log E is LSE α_x - log B.
	inert := 0.0
	for i := range B {
		inert += math.Exp(.1*math.Cos(float64(i))) / B
	}
	each(t, func(t *testing.T, dev gpu.Device) {
		l := load[float64](t, dev, p)
		l.run(t, dev)
		v, err := ReadValue(l.value.Tensor)
		require.NoError(t, err)
		require.NoError(t, kerneltest.Within([]float64{v.LogE + math.Log(inert)}, []float64{-2.373720198161784}, 1e-14))
		l.compare(t, p, p.reference())
	})
}

// Every combination of what may be present, against the sum over all tuples.
func TestAllTuples(t *testing.T) {
	both(t, testAllTuples[float32], testAllTuples[float64])
}

func testAllTuples[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	r := rand.New(rand.NewPCG(1, 2))
	for pattern := range 128 {
		leaves := make([]int, 1+pattern%3)
		for i := range leaves {
			leaves[i] = 1 + r.IntN(6)
		}
		p := rounded[T](randomProblem(r, 1+r.IntN(7), 1+r.IntN(4), leaves, pattern))
		l := load[T](t, dev, p)
		l.run(t, dev)
		want := p.reference()
		l.compare(t, p, want)
		if m := p.messages(); !(math.Abs(m.logE-want.logE) <= 1e-12*max(1, math.Abs(want.logE))) {
			t.Fatalf("messages: %v, all tuples: %v", m.logE, want.logE)
		}
		if t.Failed() {
			t.Fatalf("pattern %b of %+v", pattern, p)
		}
	}
}

// Sizes that straddle the blocks of rows, columns and coordinates.
func TestSizes(t *testing.T) {
	both(t, testSizes[float32], testSizes[float64])
}

func testSizes[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	r := rand.New(rand.NewPCG(3, 4))
	for i, s := range [][4]int{
		{1, 1, 1, 1}, {31, 127, 1, 1}, {32, 128, 2, 2}, {33, 129, 3, 1}, {16, 64, 31, 33}, {17, 65, 32, 1},
		{15, 63, 33, 2}, {127, 31, 64, 1}, {128, 32, 65, 7}, {129, 33, 2, 300}, {257, 5, 5, 1}, {3, 257, 97, 16},
	} {
		p := rounded[T](randomProblem(r, s[0], s[2], []int{s[1], s[3]}, i*37%128))
		l := load[T](t, dev, p)
		l.run(t, dev)
		l.compare(t, p, p.messages())
	}
}

// Results repeat bit for bit, on any number of workers.
func TestRepeatable(t *testing.T) {
	both(t, testRepeatable[float32], testRepeatable[float64])
	t.Run("workers", func(t *testing.T) {
		p := randomProblem(rand.New(rand.NewPCG(5, 6)), 201, 5, []int{333, 70}, 127-16)
		var first []float64
		for _, workers := range []int{1, 2, 3, 8} {
			dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
			require.NoError(t, err)
			t.Cleanup(func() { dev.Close() })
			l := load[float64](t, dev, p)
			got := append(l.run(t, dev), l.value.Get(t)...)
			if first == nil {
				first = got
			}
			require.NoError(t, kerneltest.BitEqual(got, first))
		}
	})
}

func testRepeatable[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	p := randomProblem(rand.New(rand.NewPCG(5, 6)), 67, 3, []int{130, 33}, 127-16)
	l := load[T](t, dev, p)
	first := l.run(t, dev)
	for range 3 {
		require.NoError(t, kerneltest.BitEqual(l.run(t, dev), first))
	}
}

// The loss to minimise has gradients less the base weights.
func TestNegativeDual(t *testing.T) {
	p := randomProblem(rand.New(rand.NewPCG(7, 8)), 9, 2, []int{7, 5}, 0b0001011)
	want := p.reference()
	for j := range want.dbeta {
		want.dbeta[j] -= math.Exp(p.logw[j])
	}
	for m, g := range want.dgamma {
		for k := range g {
			g[k] -= 1 / float64(p.arms[m].m)
		}
	}
	each(t, func(t *testing.T, dev gpu.Device) {
		l := load[float64](t, dev, p)
		l.out.Objective = NegativeDual
		l.run(t, dev)
		require.NoError(t, kerneltest.Within(l.dbeta.Get(t), want.dbeta, relative[float64](p, want)))
		for m := range want.dgamma {
			require.NoError(t, kerneltest.Within(l.dgamma[m].Get(t), want.dgamma[m], relative[float64](p, want)))
		}
	})
}

// Gradients against central differences of log E itself.
func TestFiniteDifferences(t *testing.T) {
	p := randomProblem(rand.New(rand.NewPCG(9, 10)), 6, 3, []int{5, 4, 3}, 0b0011111)
	each(t, func(t *testing.T, dev gpu.Device) {
		l := load[float64](t, dev, p)
		l.run(t, dev)
		logE := func() float64 {
			q := load[float64](t, dev, p)
			require.NoError(t, LogE(dev, q.star, Output{Value: q.value.Tensor}))
			v, err := ReadValue(q.value.Tensor)
			require.NoError(t, err)
			return v.LogE
		}
		check := func(what string, v, gradient []float64, factor float64) {
			t.Helper()
			const h = 1e-4
			for i := range v {
				x := v[i]
				v[i] = x + h
				up := logE()
				v[i] = x - h
				down := logE()
				v[i] = x
				// h² f‴/6 with third derivatives up to (2|y-t| weight/ε)³ ~ 1e3, and rounding/h
				if diff := math.Abs((up-down)/(2*h) - factor*gradient[i]); !(diff <= 1e-5) {
					t.Errorf("%s[%d]: %v, difference quotient %v", what, i, factor*gradient[i], (up-down)/(2*h))
				}
			}
		}
		check("β", p.beta, l.dbeta.Get(t), 1)
		check("y", p.y, l.dy.Get(t), 1)
		for m, a := range p.arms {
			check("γ", a.gamma, l.dgamma[m].Get(t), 1)
			if a.t != nil {
				check("t", a.t, l.dt[m].Get(t), 1)
			} else {
				check("cost", a.cost, l.plan[m].Get(t), -a.weight/p.eps)
			}
		}
	})
}
