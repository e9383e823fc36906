package duallse

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// result is what a run leaves, for comparing two runs with each other.
type result struct {
	Value
	dbeta, dy  []float64
	dgamma, dt [][]float64
}

func solve(t *testing.T, dev gpu.Device, p problem) result {
	t.Helper()
	l := load[float64](t, dev, p)
	l.run(t, dev)
	v, err := ReadValue(l.value.Tensor)
	require.NoError(t, err)
	r := result{Value: v, dbeta: l.dbeta.Get(t)}
	if l.dy != nil {
		r.dy = l.dy.Get(t)
	}
	for m := range p.arms {
		r.dgamma = append(r.dgamma, l.dgamma[m].Get(t))
		if l.dt[m] != nil {
			r.dt = append(r.dt, l.dt[m].Get(t))
		} else {
			r.dt = append(r.dt, nil)
		}
	}
	return r
}

func shifted(v []float64, by float64) []float64 {
	v = slices.Clone(v)
	for i := range v {
		v[i] += by
	}
	return v
}

// law compares in units of what rounding of the problem's exponents allows.
func law(t *testing.T, p problem, want, got []float64) {
	t.Helper()
	require.NoError(t, kerneltest.Within(got, want, relative[float64](p, p.messages())*max(1, largest(want))))
}

func lawProblem(seed uint64) problem {
	return randomProblem(rand.New(rand.NewPCG(seed, 1)), 40, 3, []int{35, 70}, 0b1001111)
}

// A constant added to a potential adds to log E and leaves gradients; added to
// one and taken from another, it changes neither log E nor the dual.
func TestShift(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		p := lawProblem(21)
		a := solve(t, dev, p)
		q := p
		q.beta = shifted(p.beta, 3)
		b := solve(t, dev, q)
		law(t, p, []float64{a.LogE + 3, a.Linear + 3, a.Dual(0)}, []float64{b.LogE, b.Linear, b.Dual(0)})
		law(t, p, a.dbeta, b.dbeta)
		law(t, p, a.dgamma[1], b.dgamma[1])
		law(t, p, a.dy, b.dy)
		q.arms = slices.Clone(p.arms)
		q.arms[1].gamma = shifted(p.arms[1].gamma, -3)
		c := solve(t, dev, q)
		law(t, p, []float64{a.LogE, a.Linear}, []float64{c.LogE, c.Linear})
	})
}

// Masses are those of a plan: every marginal sums to one.
func TestMass(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		p := lawProblem(22)
		r := solve(t, dev, p)
		for _, g := range [][]float64{r.dbeta, r.dgamma[0], r.dgamma[1]} {
			sum := 0.0
			for _, v := range g {
				sum += v
			}
			law(t, p, []float64{1}, []float64{sum})
		}
	})
}

// The order of nodes does not matter.
func TestPermutation(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		p := lawProblem(23)
		a := solve(t, dev, p)
		order := rand.New(rand.NewPCG(1, 1)).Perm(p.arms[0].m)
		pick := func(v []float64, d int) (out []float64) {
			for _, k := range order {
				out = append(out, v[k*d:(k+1)*d]...)
			}
			return out
		}
		q := p
		q.arms = slices.Clone(p.arms)
		o := p.arms[0]
		q.arms[0].gamma, q.arms[0].logw, q.arms[0].t = pick(o.gamma, 1), pick(o.logw, 1), pick(o.t, p.d)
		b := solve(t, dev, q)
		law(t, p, []float64{a.LogE, a.Linear}, []float64{b.LogE, b.Linear})
		law(t, p, pick(a.dgamma[0], 1), b.dgamma[0])
		law(t, p, pick(a.dt[0], p.d), b.dt[0])
		law(t, p, a.dbeta, b.dbeta)
		// Nor does the order of arms.
		slices.Reverse(q.arms)
		c := solve(t, dev, q)
		law(t, p, []float64{a.LogE}, []float64{c.LogE})
		law(t, p, pick(a.dgamma[0], 1), c.dgamma[1])
	})
}

// A node that is split into two of half the weight changes nothing; a node
// without weight may be anything.
func TestSplit(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		p := lawProblem(24)
		a := solve(t, dev, p)
		q := p
		q.arms = slices.Clone(p.arms)
		o := p.arms[1]
		half := math.Log(0.5)
		w := append(slices.Clone(o.logw), o.logw[0]+half, math.Inf(-1))
		w[0] += half
		q.arms[1].m += 2
		q.arms[1].logw = w
		q.arms[1].gamma = append(slices.Clone(o.gamma), o.gamma[0], 1e6)
		q.arms[1].t = append(append(slices.Clone(o.t), o.t[:p.d]...), 5, 5, 5)
		b := solve(t, dev, q)
		law(t, p, []float64{a.LogE, a.Linear}, []float64{b.LogE, b.Linear})
		law(t, p, a.dbeta, b.dbeta)
		g := b.dgamma[1]
		law(t, p, a.dgamma[1][:1], []float64{g[0] + g[o.m]})
		require.Equal(t, []float64{0, 0, 0, 0}, append(b.dt[1][(o.m+1)*p.d:], g[o.m+1]))
		// The same for a node of the centre, which takes no part with β = -∞ either.
		q = p
		q.beta = slices.Clone(p.beta)
		q.beta[3] = math.Inf(-1)
		c := solve(t, dev, q)
		require.Equal(t, []float64{0, 0, 0, 0}, append(slices.Clone(c.dy[3*p.d:4*p.d]), c.dbeta[3]))
		require.False(t, math.IsNaN(c.LogE))
	})
}

// Without Norm the cost depends on differences alone: gradients of points sum
// to zero, and moving all points changes nothing.
func TestTranslation(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		p := lawProblem(25)
		p.norm = 0
		a := solve(t, dev, p)
		sum := make([]float64, p.d)
		for _, g := range [][]float64{a.dy, a.dt[0], a.dt[1]} {
			for i, v := range g {
				sum[i%p.d] += v
			}
		}
		law(t, p, make([]float64, p.d), sum)
		q := p
		q.arms = slices.Clone(p.arms)
		q.y = shifted(p.y, 0.5)
		for m := range q.arms {
			q.arms[m].t = shifted(p.arms[m].t, 0.5)
		}
		b := solve(t, dev, q)
		law(t, p, []float64{a.LogE}, []float64{b.LogE})
		law(t, p, a.dy, b.dy)
	})
}

// Points, or the matrix of their costs, are the same problem; so are an arm
// and its scaling of weight against ε.
func TestCostMatrix(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		p := lawProblem(26)
		a := solve(t, dev, p)
		q := p
		q.arms = slices.Clone(p.arms)
		for m, o := range p.arms {
			q.arms[m].t, q.arms[m].weight = nil, 0.5
			for j := range p.n {
				for k := range o.m {
					q.arms[m].cost = append(q.arms[m].cost, 2*p.pairCost(m, j, k))
				}
			}
		}
		b := solve(t, dev, q)
		law(t, p, []float64{a.LogE}, []float64{b.LogE})
		law(t, p, a.dgamma[0], b.dgamma[0])
		law(t, p, a.dgamma[1], b.dgamma[1])
		// +∞ forbids a pair.
		for j := range p.n {
			q.arms[0].cost[j*q.arms[0].m+4] = math.Inf(1)
		}
		c := solve(t, dev, q)
		require.Zero(t, c.dgamma[0][4])
		require.False(t, math.IsNaN(c.LogE))
		for k := range q.arms[0].m { // a centre that can go nowhere
			q.arms[0].cost[7*q.arms[0].m+k] = math.Inf(1)
		}
		d := solve(t, dev, q)
		require.Zero(t, d.dbeta[7])
		want := q.without(7)
		law(t, p, []float64{want.logE}, []float64{d.LogE})
		law(t, p, want.dgamma[0], d.dgamma[0])
		law(t, p, want.dgamma[1], d.dgamma[1])
		l := load[float32](t, dev, q)
		l.run(t, dev)
		require.Zero(t, l.dbeta.Get(t)[7])
		require.Equal(t, make([]float32, q.arms[1].m), l.plan[1].Get(t)[7*q.arms[1].m:8*q.arms[1].m])
	})
}

// without is the answer without node i of the centre.
func (p problem) without(i int) answer {
	q := p
	q.logw = slices.Clone(p.logw)
	q.logw[i] = math.Inf(-1)
	q.arms = slices.Clone(p.arms)
	for m, a := range q.arms {
		q.arms[m].cost = slices.Clone(a.cost)
		for k := range a.m {
			q.arms[m].cost[i*a.m+k] = 0
		}
	}
	return q.messages()
}

// A NaN anywhere reaches log E and the gradients.
func TestNaN(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for what, poison := range map[string]func(p *problem, nan float64){
			"β":      func(p *problem, nan float64) { p.beta[39] = nan },
			"logw":   func(p *problem, nan float64) { p.logw[0] = nan },
			"extra":  func(p *problem, nan float64) { p.extra[1] = nan },
			"y":      func(p *problem, nan float64) { p.y[5] = nan },
			"γ":      func(p *problem, nan float64) { p.arms[0].gamma[34] = nan },
			"t":      func(p *problem, nan float64) { p.arms[1].t[1] = nan },
			"weight": func(p *problem, nan float64) { p.arms[1].logw[69] = nan },
		} {
			for _, nan := range []float64{math.NaN(), math.Float64frombits(0x7ff8000000abcdef), -math.NaN()} {
				p := lawProblem(27)
				poison(&p, nan)
				r := solve(t, dev.Device, p)
				for _, v := range [][]float64{{r.LogE}, r.dbeta, r.dgamma[0], r.dgamma[1], r.dy, r.dt[0]} {
					for i, x := range v {
						require.True(t, math.IsNaN(x), "%s: [%d] = %v", what, i, x)
					}
				}
				l := load[float32](t, dev.Device, p)
				l.run(t, dev.Device)
				require.True(t, math.IsNaN(l.value.Get(t)[0]), what)
			}
		}
	})
}

// Exponents of thousands neither overflow nor lose the plan.
func TestSmallEpsilon(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		p := lawProblem(28)
		p.eps = 1e-3
		l := load[float64](t, dev, p)
		l.run(t, dev)
		l.compare(t, p, p.messages())
	})
}

func TestErrors(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		p := randomProblem(rand.New(rand.NewPCG(29, 1)), 3, 2, []int{4, 5}, 0b0011111)
		other := kerneltest.Put(t, dev, make([]float32, 6), 3, 2).Tensor
		l := load[float64](t, dev, p)
		require.NoError(t, LogE(dev, l.star, l.out))
		require.NoError(t, LogE(dev, l.star, Output{}))
		require.ErrorIs(t, LogE(nil, l.star, l.out), gpu.ErrInvalid)
		for what, change := range map[string]func(*Star, *Output){
			"epsilon 0":        func(s *Star, _ *Output) { s.Epsilon = 0 },
			"epsilon NaN":      func(s *Star, _ *Output) { s.Epsilon = math.NaN() },
			"epsilon inf":      func(s *Star, _ *Output) { s.Epsilon = math.Inf(1) },
			"norm":             func(s *Star, _ *Output) { s.Norm = math.Inf(1) },
			"no arms":          func(s *Star, _ *Output) { s.Arms = nil },
			"many arms":        func(s *Star, _ *Output) { s.Arms = make([]Arm, MaxArms+1) },
			"weight":           func(s *Star, _ *Output) { s.Arms[0].Weight = 0 },
			"no cost":          func(s *Star, _ *Output) { s.Arms[0].Points = tensor.Tensor{} },
			"two costs":        func(s *Star, _ *Output) { s.Arms[1].Points = s.Arms[0].Points },
			"no points":        func(s *Star, _ *Output) { s.Points = tensor.Tensor{} },
			"type":             func(s *Star, _ *Output) { s.Points = other },
			"rank":             func(s *Star, _ *Output) { s.Points = s.Potential },
			"potential":        func(s *Star, _ *Output) { s.Potential = s.Arms[0].Potential },
			"leaf potential":   func(s *Star, _ *Output) { s.Arms[0].Potential = s.Potential },
			"value":            func(_ *Star, o *Output) { o.Value = o.Potential },
			"output arms":      func(_ *Star, o *Output) { o.Arms = o.Arms[:1] },
			"output potential": func(_ *Star, o *Output) { o.Potential = o.Value },
			"output plan":      func(_ *Star, o *Output) { o.Arms[0].Plan = o.Potential },
			"matrix's points":  func(_ *Star, o *Output) { o.Arms[1].Points = o.Arms[0].Points },
			"objective":        func(_ *Star, o *Output) { o.Objective = -1 },
		} {
			s, o := l.star, l.out
			s.Arms, o.Arms = slices.Clone(s.Arms), slices.Clone(o.Arms)
			change(&s, &o)
			err := LogE(dev, s, o)
			if err == nil {
				t.Errorf("%s: no error", what)
				continue
			}
			require.Contains(t, err.Error(), "duallse: ", what)
		}
		_, err := ReadValue(l.star.Points)
		require.ErrorIs(t, err, tensor.ErrInvalid)
		_, err = ReadValue(tensor.Tensor{})
		require.ErrorIs(t, err, tensor.ErrInvalid)
	})
}

// Whatever sizes are given, the call either fails or computes; it never reads
// or writes outside its arrays, and never panics.
func FuzzLogE(f *testing.F) {
	f.Add(uint8(3), uint8(4), uint8(5), uint8(2), uint16(0x1ff), 0.5, 1.0)
	f.Add(uint8(0), uint8(1), uint8(0), uint8(0), uint16(0), 0.0, -1.0)
	f.Fuzz(func(t *testing.T, n, m, other, d uint8, pattern uint16, eps, weight float64) {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 1})
		require.NoError(t, err)
		defer dev.Close()
		var arrays []tensor.Tensor
		defer func() {
			for _, a := range arrays {
				a.Free()
			}
		}()
		bit := 0
		array := func(shape ...int) tensor.Tensor {
			bit++
			if pattern>>(bit-1)&1 == 0 {
				return tensor.Tensor{}
			}
			a, err := tensor.New(dev, tensor.Float64, shape...)
			require.NoError(t, err)
			require.NoError(t, tensor.Set(a, make([]float64, a.Len())))
			arrays = append(arrays, a)
			return a
		}
		N, M, K, D := int(n), int(m), int(other), int(d)
		s := Star{Epsilon: eps, Norm: weight - 1, Potential: array(N), LogWeight: array(K), Points: array(N, D),
			Arms: []Arm{{Weight: weight, Points: array(M, D), Potential: array(M)}, {Weight: weight, Cost: array(N, K), LogWeight: array(K)}}}
		out := Output{Value: array(2), Potential: array(N), Points: array(K, D), Arms: []ArmOutput{{Points: array(M, D), Plan: array(N, M)}, {Plan: array(N, K)}}}
		if LogE(dev, s, out) == nil && !out.Value.IsZero() {
			_, err := ReadValue(out.Value)
			require.NoError(t, err)
		}
		_ = Penalty(dev, s, Divergence{Kind: Kind(pattern >> 12), Alpha: weight, Delta: eps}, &weight, PenaltyOutput{})
	})
}
