package duallse

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// penaltyAnswer is the definition over all tuples in float64. amplify bounds
// by how much a rounding error of an exponent or of y grows in a term.
type penaltyAnswer struct {
	penalty, linear, logZ float64
	gradients             [][]float64
	exponent, amplify     float64
}

func (p problem) penalty(d Divergence, logZ *float64) penaltyAnswer {
	prior := p
	prior.beta, prior.arms = nil, append([]leaf(nil), p.arms...)
	for m := range prior.arms {
		prior.arms[m].gamma = nil
	}
	z := prior.reference()
	r := penaltyAnswer{linear: p.reference().linear, logZ: z.logE, exponent: z.exponent}
	by := z.logE
	if logZ != nil {
		by = *logZ
	}
	r.gradients = append(r.gradients, make([]float64, p.n))
	for _, a := range p.arms {
		r.gradients = append(r.gradients, make([]float64, a.m))
	}
	p.tuples(func(j int, k []int) {
		y, e := at(p.beta, j), prior.node(j)-by
		for m := range k {
			y += at(p.arms[m].gamma, k[m])
			e += prior.pair(m, j, k[m])
		}
		psi, derivative, slope := d.Psi(y)
		w := math.Exp(e)
		r.penalty += w * psi
		r.gradients[0][j] += w * derivative
		for m := range k {
			r.gradients[m+1][k[m]] += w * derivative
		}
		r.amplify = max(r.amplify, (1+math.Abs(y))*(1+slope)*(1+slope)*(1+derivative))
	})
	return r
}

// budget: exponents are sums of d+8 rounded terms for each arm, y is a sum of
// three, and ψ loses what slope and ψ' amplify.
func (r penaltyAnswer) budget(u float64, p problem) float64 {
	return u * (float64(4*(p.d+8))*r.exponent + 64) * r.amplify
}

// penaltyRun is Penalty on a device with all inputs guarded and outputs poisoned.
func penaltyRun[T kerneltest.Float](t *testing.T, dev gpu.Device, p problem, d Divergence, logZ *float64, o Objective) (PenaltyValue, [][]T) {
	t.Helper()
	l := load[T](t, dev, p)
	value := kerneltest.Poison[float64](t, dev, 3)
	out := PenaltyOutput{Value: value.Tensor, Objective: o}
	grads := []*kerneltest.Array[T]{kerneltest.Poison[T](t, dev, p.n)}
	for _, a := range p.arms {
		grads = append(grads, kerneltest.Poison[T](t, dev, a.m))
	}
	for _, g := range grads {
		out.Gradients = append(out.Gradients, g.Tensor)
	}
	require.NoError(t, Penalty(dev, l.star, d, logZ, out))
	for _, in := range l.inputs {
		in.Unmodified(t)
	}
	v, err := ReadPenalty(value.Tensor)
	require.NoError(t, err)
	value.Get(t)
	var got [][]T
	for _, g := range grads {
		got = append(got, g.Get(t))
	}
	return v, got
}

func (r penaltyAnswer) compare(t *testing.T, v PenaltyValue, budget float64) {
	t.Helper()
	require.NoError(t, kerneltest.Within([]float64{v.Penalty}, []float64{r.penalty}, budget), "penalty")
	require.NoError(t, kerneltest.Within([]float64{v.Linear}, []float64{r.linear}, 1e-14*(1+r.exponent)), "linear")
	require.NoError(t, kerneltest.Within([]float64{v.LogZ}, []float64{r.logZ}, budget), "log Z")
}

func TestPenalty(t *testing.T) { both(t, testPenalty[float32], testPenalty[float64]) }

func testPenalty[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	r := rand.New(rand.NewPCG(11, 12))
	for i, d := range divergences() {
		d.Delta = 0.1
		for j, s := range [][3]int{{4, 5, 0}, {3, 4, 6}, {1, 1, 1}, {5, 2, 130}, {2, 33, 259}} {
			leaves := []int{s[1], s[2]}
			if s[2] == 0 {
				leaves = leaves[:1]
			}
			p := rounded[T](randomProblem(r, s[0], 2, leaves, (i*31+j*17)%128))
			var logZ *float64
			if (i+j)%2 == 1 {
				v := p.messages().logE + 0.3
				logZ = &v
			}
			want := p.penalty(d, logZ)
			v, got := penaltyRun[T](t, dev, p, d, logZ, Functional)
			budget := want.budget(unit[T](), p)
			want.compare(t, v, budget)
			for m := range got {
				require.NoError(t, kerneltest.Within(got[m], want.gradients[m], budget), "%s: gradient %d", d.name(), m)
			}
		}
	}
}

// For KL the penalty factorises: ∫(e^y - 1)dR = E/Z - 1.
func TestPenaltyOfKL(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		v, grads := penaltyRun[float64](t, dev, chain(), Divergence{}, nil, NegativeDual)
		require.NoError(t, kerneltest.Within([]float64{v.LogZ, v.Dual()}, []float64{-3.155714573235748, -.07272222985208637}, 1e-14))
		r := chain().reference()
		mass := math.Exp(r.logE - v.LogZ)
		want := make([]float64, 5)
		for j := range want {
			want[j] = mass*r.dbeta[j] - 0.2
		}
		require.NoError(t, kerneltest.Within(grads[0], want, 1e-14))
	})
}

// Gradients of the penalty against its own differences, through the kernels.
func TestPenaltyFiniteDifferences(t *testing.T) {
	p := randomProblem(rand.New(rand.NewPCG(13, 14)), 3, 2, []int{4, 3}, 0b0001011)
	each(t, func(t *testing.T, dev gpu.Device) {
		for _, d := range divergences() {
			d.Delta = 0.2
			_, grads := penaltyRun[float64](t, dev, p, d, nil, Functional)
			for m, v := range [][]float64{p.beta, p.arms[0].gamma, p.arms[1].gamma} {
				const h = 1e-6
				x := v[1]
				v[1] = x + h
				up, _ := penaltyRun[float64](t, dev, p, d, nil, Functional)
				v[1] = x - h
				down, _ := penaltyRun[float64](t, dev, p, d, nil, Functional)
				v[1] = x
				require.InDelta(t, (up.Penalty-down.Penalty)/(2*h), grads[m][1], 1e-4, "%s: %d", d.name(), m)
			}
		}
	})
}

// Tuples that are all tuples of a star give the star's penalty.
func TestPenaltyOf(t *testing.T) { both(t, testPenaltyOf[float32], testPenaltyOf[float64]) }

func testPenaltyOf[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	r := rand.New(rand.NewPCG(15, 16))
	for i, d := range divergences() {
		d.Delta = 0.1
		p := rounded[T](randomProblem(r, 3+i%5, 2, []int{4, 7, 1 + 11*(i%2)}, 0b0000001))
		var logZ *float64
		if i%2 == 1 {
			v := p.messages().logE
			logZ = &v
		}
		var index []int32
		var cost []float64
		p.tuples(func(j int, k []int) {
			index = append(index, int32(j))
			c := 0.0
			for m := range k {
				index = append(index, int32(k[m]))
				c += p.pairCost(m, j, k[m])
			}
			cost = append(cost, c)
		})
		want := p.penalty(d, logZ)
		count := len(cost)
		ix, err := tensor.From(dev, index, count, 4)
		require.NoError(t, err)
		t.Cleanup(ix.Free)
		c := kerneltest.Put(t, dev, convert[T](cost))
		value := kerneltest.Poison[float64](t, dev, 3)
		tuples := Tuples{Epsilon: p.eps, Index: ix, Cost: c.Tensor, LogZ: logZ}
		out := PenaltyOutput{Value: value.Tensor}
		var grads []*kerneltest.Array[T]
		for _, v := range [][]float64{p.beta, p.arms[0].gamma, p.arms[1].gamma, p.arms[2].gamma} {
			tuples.Marginals = append(tuples.Marginals, Marginal{Potential: kerneltest.Put(t, dev, convert[T](v)).Tensor})
			g := kerneltest.Poison[T](t, dev, len(v))
			grads, out.Gradients = append(grads, g), append(out.Gradients, g.Tensor)
		}
		budget := want.budget(unit[T](), p)
		var first [][]T
		for range 2 {
			require.NoError(t, PenaltyOf(dev, tuples, d, out))
			v, err := ReadPenalty(value.Tensor)
			require.NoError(t, err)
			want.compare(t, v, budget)
			for m, g := range grads {
				got := g.Get(t)
				require.NoError(t, kerneltest.Within(got, want.gradients[m], budget), "%s: gradient %d", d.name(), m)
				if len(first) > m {
					require.NoError(t, kerneltest.BitEqual(got, first[m]))
				} else {
					first = append(first, got)
				}
			}
		}
		c.Unmodified(t)
		value.Get(t)
	}
}

// A tuple with an index that is no node poisons the penalty and nothing else.
func TestPenaltyOfWrongIndex(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		for _, wrong := range []int32{-1, 2, math.MaxInt32, math.MinInt32} {
			ix, err := tensor.From(dev, []int32{0, 0, 1, wrong, 1, 1}, 3, 2)
			require.NoError(t, err)
			t.Cleanup(ix.Free)
			a, b := kerneltest.Put(t, dev, []float64{1, 2}), kerneltest.Put(t, dev, []float64{0, 1})
			cost := kerneltest.Put(t, dev, []float64{1, 2, 3})
			value, grad := kerneltest.Poison[float64](t, dev, 3), kerneltest.Poison[float64](t, dev, 2)
			require.NoError(t, PenaltyOf(dev, Tuples{Epsilon: 1, Index: ix, Cost: cost.Tensor,
				Marginals: []Marginal{{Potential: a.Tensor}, {Potential: b.Tensor}}}, Divergence{},
				PenaltyOutput{Value: value.Tensor, Gradients: []tensor.Tensor{{}, grad.Tensor}}))
			v, err := ReadPenalty(value.Tensor)
			require.NoError(t, err)
			require.True(t, math.IsNaN(v.Penalty))
			grad.Get(t)
		}
	})
}

// The f-Schrödinger problem between two discrete marginals, solved by Newton's
// method on the kernels' gradients, against values computed independently.
func TestTwoMarginalOptimum(t *testing.T) {
	mu, x := []float64{.2, .3, .5}, []float64{0, 1, 2.5}
	nu, y := []float64{.1, .4, .3, .2}, []float64{-.5, .5, 1.5, 3}
	logs := func(v []float64) (l []float64) {
		for _, b := range v {
			l = append(l, math.Log(b))
		}
		return l
	}
	dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 1})
	require.NoError(t, err)
	t.Cleanup(func() { dev.Close() })
	p := problem{eps: 2, n: 3, d: 1, y: x, logw: logs(mu), beta: make([]float64, 3),
		arms: []leaf{{m: 4, weight: 1, t: y, logw: logs(nu), gamma: make([]float64, 4)}}}
	l := load[float64](t, dev, p)
	value, g0, g1 := kerneltest.Poison[float64](t, dev, 3), kerneltest.Poison[float64](t, dev, 3), kerneltest.Poison[float64](t, dev, 4)
	out := PenaltyOutput{Value: value.Tensor, Gradients: []tensor.Tensor{g0.Tensor, g1.Tensor}, Objective: NegativeDual}
	for _, c := range []struct {
		d     Divergence
		value float64
		row   []float64 // of the plan, where known
	}{
		{Divergence{}, .0712302227, []float64{.061531884, .118778164, .019259782, .000430169}},
		{Divergence{Kind: ReverseKL}, .0647634660, []float64{.052075154, .123339883, .02401509, .000569873}},
		{Divergence{Kind: Pearson}, .1449202167, []float64{.062206902, .12173563, .015769705, .000287763}},
		{Divergence{Kind: Neyman}, .1038663345, []float64{.038821357, .132762687, .027735439, .000680518}},
		{Divergence{Kind: Hellinger}, .0346882906, []float64{.060107213, .118175813, .021227365, .000489608}},
		{Divergence{Kind: JensenShannon}, .0341789646, []float64{.058503117, .119443522, .021554248, .000499113}},
		{Divergence{Kind: Alpha, Alpha: 1.5}, .0720775549, nil},
		{Divergence{Kind: Alpha, Alpha: 3}, .0735253726, []float64{.062647337, .124739415, .012613248, 0}},
		{Divergence{Kind: Alpha, Alpha: .5}, .0693765811, nil},
		{Divergence{Kind: Alpha, Alpha: -1}, .0519331673, nil},
	} {
		c.d.Delta = 1e-4
		loss := func(v []float64) (float64, []float64) {
			require.NoError(t, tensor.Set(l.star.Potential, v[:3]))
			require.NoError(t, tensor.Set(l.star.Arms[0].Potential, v[3:]))
			require.NoError(t, Penalty(dev, l.star, c.d, nil, out))
			got, err := ReadPenalty(value.Tensor)
			require.NoError(t, err)
			return -got.Dual(), append(g0.Get(t), g1.Get(t)...)
		}
		v := make([]float64, 7)
		best, gradient := loss(v)
		for range 40 {
			hessian := mat.NewDense(7, 7, nil)
			for i := range v {
				const h = 1e-7
				w := slices.Clone(v)
				w[i] += h
				_, up := loss(w)
				for k := range up {
					hessian.Set(k, i, (up[k]-gradient[k])/h)
				}
				hessian.Set(i, i, hessian.At(i, i)+1e-6) // potentials have a free constant
			}
			var step mat.VecDense
			_ = step.SolveVec(hessian, mat.NewVecDense(7, gradient)) // nearly singular: a warning
			for size := 1.0; size > 1e-9; size /= 2 {
				w := slices.Clone(v)
				for i := range w {
					w[i] -= size * step.AtVec(i)
				}
				if value, g := loss(w); value < best {
					v, best, gradient = w, value, g
					break
				}
			}
		}
		require.InDelta(t, c.value, -best, 2e-10, c.d.name())
		prior := p.reference()
		for k, want := range c.row {
			_, ratio, _ := c.d.Psi(v[0] + v[3+k])
			require.InDelta(t, want, prior.plan[0][k]*ratio, 1e-7, "%s: plan[0][%d]", c.d.name(), k)
		}
	}
}

func TestPenaltyErrors(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		p := randomProblem(rand.New(rand.NewPCG(17, 18)), 3, 2, []int{2, 2, 2}, 1)
		star := load[float64](t, dev, p).star
		bad := math.NaN()
		require.ErrorIs(t, Penalty(nil, star, Divergence{}, nil, PenaltyOutput{}), gpu.ErrInvalid)
		require.ErrorIs(t, Penalty(dev, star, Divergence{}, nil, PenaltyOutput{}), gpu.ErrInvalid)
		star.Arms = star.Arms[:2]
		require.NoError(t, Penalty(dev, star, Divergence{}, nil, PenaltyOutput{}))
		require.ErrorIs(t, Penalty(dev, star, Divergence{}, &bad, PenaltyOutput{}), gpu.ErrInvalid)
		require.ErrorIs(t, Penalty(dev, star, Divergence{Kind: 12}, nil, PenaltyOutput{}), gpu.ErrInvalid)
		require.ErrorIs(t, Penalty(dev, star, Divergence{}, nil, PenaltyOutput{Gradients: make([]tensor.Tensor, 2)}), gpu.ErrInvalid)
		require.ErrorIs(t, Penalty(dev, star, Divergence{}, nil, PenaltyOutput{Value: star.Arms[0].Potential}), tensor.ErrInvalid)
		require.ErrorIs(t, Penalty(dev, star, Divergence{}, nil, PenaltyOutput{Objective: 7}), gpu.ErrInvalid)

		index, err := tensor.From(dev, []int32{0, 1}, 1, 2)
		require.NoError(t, err)
		t.Cleanup(index.Free)
		one := kerneltest.Put(t, dev, []float64{1}).Tensor
		tuples := Tuples{Epsilon: 1, Index: index, Cost: one, Marginals: []Marginal{{Potential: one}, {Potential: star.Arms[0].Potential}}}
		require.NoError(t, PenaltyOf(dev, tuples, Divergence{}, PenaltyOutput{}))
		for what, change := range map[string]func(*Tuples){
			"epsilon":   func(t *Tuples) { t.Epsilon = 0 },
			"cost":      func(t *Tuples) { t.Cost = tensor.Tensor{} },
			"int cost":  func(t *Tuples) { t.Cost = index },
			"index":     func(t *Tuples) { t.Index = tensor.Tensor{} },
			"type":      func(t *Tuples) { t.Index = one },
			"marginals": func(t *Tuples) { t.Marginals = nil },
			"potential": func(t *Tuples) { t.Marginals = []Marginal{{}, {}} },
			"too many":  func(t *Tuples) { t.Marginals = make([]Marginal, MaxMarginals+1) },
			"log Z":     func(t *Tuples) { t.LogZ = &bad },
		} {
			b := tuples
			change(&b)
			require.Error(t, PenaltyOf(dev, b, Divergence{}, PenaltyOutput{}), what)
		}
		require.ErrorIs(t, PenaltyOf(nil, tuples, Divergence{}, PenaltyOutput{}), gpu.ErrInvalid)
		_, err = ReadPenalty(one)
		require.ErrorIs(t, err, tensor.ErrInvalid)
		_, err = ReadPenalty(tensor.Tensor{})
		require.ErrorIs(t, err, tensor.ErrInvalid)
	})
}
