package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/duallse"
	"github.com/fortet/fortet/tensor"
)

// Duallse is dual losses over batches with the gradients of all potentials: of
// two marginals, of the chain x - y - t of three, and by all triples of that
// chain for a divergence that does not factorise.
func (families) Duallse() Family {
	return Family{Name: "duallse", Kernel: "duallse", Variants: []Variant{
		starVariant("two-marginal dual", 1, 2), starVariant("two-marginal dual", 1, 64),
		starVariant("chain dual", 2, 64), triplesVariant(),
	}}
}

// star is a problem with arms of as many leaves as the centre has nodes.
type star struct {
	*stage
	duallse.Star
	out duallse.Output
	n   int
}

func newStar(dev gpu.Device, s Setting, arms, d int) *star {
	a, n := newStage(dev, s), s.Size
	t := &star{stage: a, n: n, Star: duallse.Star{
		Epsilon: 0.2 * float64(d), // 0.1 of the mean cost
		Points:  a.normals(n, d), Potential: a.normals(n),
	}}
	t.out = duallse.Output{Value: a.outOf(tensor.Float64, 2), Potential: a.out(n)}
	for range arms {
		t.Arms = append(t.Arms, duallse.Arm{Points: a.normals(n, d), Potential: a.normals(n), Weight: 1})
		t.out.Arms = append(t.out.Arms, duallse.ArmOutput{Potential: a.out(n)})
	}
	return t
}

// pair is the exponent of a pair of the centre and a leaf, with its weight, and
// the size of the numbers that it is summed up from.
func (t *star) pair(y, leaf []float64, potential float64) (z, size float64) {
	c, magnitude := 0.0, 0.0
	for k := range y {
		c += (y[k] - leaf[k]) * (y[k] - leaf[k])
		magnitude += y[k]*y[k] + leaf[k]*leaf[k]
	}
	uniform := -math.Log(float64(t.n))
	return uniform + potential - c/t.Epsilon, magnitude/t.Epsilon + math.Abs(potential) - uniform
}

func starVariant(name string, arms, d int) Variant {
	return Variant{
		Name: name, Shape: fmt.Sprintf("d=%d", d), Unit: "points a marginal", Sizes: []int{64, 256, 1024, 4096, 16384}, Typical: 1024,
		Work: func(s Setting) Work {
			w := Work{N: s.Size, M: s.Size, D: d}
			if arms > 1 {
				w.Marginals = arms + 1
			}
			return w
		},
		// One pass; LogE takes one for the value and one for the gradients of leaves.
		Cost: func(s Setting) Cost {
			n, e := s.Size, s.element()
			arm := map[int]string{1: "nm", 2: "2nm"}[arms]
			c := Cost{
				Exps:    count(arm, arms, n, n),
				Read:    count(fmt.Sprintf("%dn(d+1)", (arms+1)*e), (arms+1)*e, n, d+1),
				Written: count(fmt.Sprintf("%dn", (arms+1)*e), (arms+1)*e, n),
			}
			flops := count("2d·"+arm, 2*d, arms, n, n)
			if d > 8 {
				c.Matrix = flops
			} else {
				c.Flops = flops
			}
			return c
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			t := newStar(dev, s, arms, d)
			return t.finish(&Case{
				Run:   func() error { return duallse.LogE(dev, t.Star, t.out) },
				Check: func() (float64, float64, error) { return t.check(d) },
			})
		},
	}
}

// check compares samples of the gradients with their definition. The value is
// what makes the gradient of the centre's potential,
//
//	P_j = exp(log b_j + β_j + Σ_m A_m(j) - log E),
//
// sum to one, so that with samples of it the sum of all says that log E is
// right, too. Samples of the first arm's leaves are
// ∂/∂γ_k = Σ_j exp(log b_j + β_j + pair(j, k) + Σ_{m≠1} A_m(j) - log E).
func (t *star) check(d int) (float64, float64, error) {
	var v verdict
	u, n := unit(t.dtype), t.n
	y, beta, p := t.every(t.Points), t.every(t.Potential), t.every(t.out.Potential)
	value := t.every(t.out.Value)
	if t.err != nil {
		return 0, 0, t.err
	}
	message := func(j, m int, leaves, gamma []float64) (sum, size float64) {
		z, most := make([]float64, n), math.Inf(-1)
		sizes := make([]float64, n)
		for k := range z {
			z[k], sizes[k] = t.pair(y[j*d:(j+1)*d], leaves[k*d:(k+1)*d], gamma[k])
			most = max(most, z[k])
		}
		for k := range z {
			e := math.Exp(z[k] - most)
			sum += e
			size += e * sizes[k]
		}
		return most + math.Log(sum), size / sum
	}
	leaves, gamma := make([][]float64, len(t.Arms)), make([][]float64, len(t.Arms))
	for m, arm := range t.Arms {
		leaves[m], gamma[m] = t.every(arm.Points), t.every(arm.Potential)
	}
	// Exponents are rounded, and the sum over them: a relative error of P_j, and
	// that of log E beside it.
	mean := 0.0
	rows := few(n, n, d*len(t.Arms))
	for _, j := range rows {
		exponent, size := beta[j]-math.Log(float64(n)), math.Abs(beta[j])
		for m := range t.Arms {
			a, s := message(j, m, leaves[m], gamma[m])
			exponent, size = exponent+a, size+s+math.Abs(a)
		}
		mean += size / float64(len(rows))
		want := math.Exp(exponent - value[0])
		v.compare(p[j], want, roundings*u*want*(1+2*size+math.Abs(value[0])))
	}
	gradients := [][]float64{p}
	for _, arm := range t.out.Arms {
		gradients = append(gradients, t.every(arm.Potential))
	}
	for _, g := range gradients {
		total := 0.0
		for _, w := range g {
			total += w
		}
		v.compare(total, 1, roundings*u*(1+2*mean+math.Abs(value[0])))
	}
	if len(t.Arms) > 1 && n*n*d > 1<<27 { // a leaf's needs the messages of the other arms to all nodes
		return v.end(t.stage)
	}
	node, nodeSize := make([]float64, n), make([]float64, n)
	for j := range n {
		node[j], nodeSize[j] = beta[j]-math.Log(float64(n))-value[0], math.Abs(beta[j])+2*math.Abs(value[0])
		for m := 1; m < len(t.Arms); m++ {
			a, size := message(j, m, leaves[m], gamma[m])
			node[j], nodeSize[j] = node[j]+a, nodeSize[j]+size+math.Abs(a)
		}
	}
	for _, k := range few(n, n, d) {
		want, budget := 0.0, 0.0
		for j := range n {
			z, size := t.pair(y[j*d:(j+1)*d], leaves[0][k*d:(k+1)*d], gamma[0][k])
			w := math.Exp(z + node[j])
			want += w
			budget += w * (1 + 2*size + nodeSize[j])
		}
		v.compare(gradients[1][k], want, roundings*u*budget)
	}
	return v.end(t.stage)
}

// triplesVariant sums the Jensen-Shannon divergence's ψ and ψ' over all triples.
func triplesVariant() Variant {
	const d = 2
	divergence := duallse.Divergence{Kind: duallse.JensenShannon, Delta: 0.1}
	return Variant{
		Name: "all triples", Shape: "d=2", Unit: "points a marginal", Sizes: []int{16, 32, 64, 128}, Typical: 64,
		Work: func(s Setting) Work {
			return Work{N: s.Size, M: s.Size, D: d, Marginals: 3, Settings: "Jensen-Shannon"}
		},
		Cost: func(s Setting) Cost {
			n, e := s.Size, s.element()
			return Cost{
				Exps: count("2n³", 2, n, n, n), Flops: count("8n³", 8, n, n, n),
				Read:    count(fmt.Sprintf("%dn(d+1)", 3*e), 3*e, n, d+1),
				Written: count(fmt.Sprintf("%dn", 3*e), 3*e, n),
			}
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			t := newStar(dev, s, 2, d)
			out := duallse.PenaltyOutput{
				Value:     t.outOf(tensor.Float64, 3),
				Gradients: []tensor.Tensor{t.out.Potential, t.out.Arms[0].Potential, t.out.Arms[1].Potential},
			}
			return t.finish(&Case{
				Run:   func() error { return duallse.Penalty(dev, t.Star, divergence, nil, out) },
				Check: func() (float64, float64, error) { return t.checkTriples(out, divergence.Delta) },
			})
		},
	}
}

// checkTriples compares with the sum over all triples of w ψ(y), where
// ψ(y) = -log(2 - e^y) up to log 2 - Delta and its tangent from there on.
func (t *star) checkTriples(out duallse.PenaltyOutput, delta float64) (float64, float64, error) {
	const d = 2
	var v verdict
	n, u := t.n, unit(t.dtype)
	y, beta := t.every(t.Points), t.every(t.Potential)
	var leaves, gamma [2][]float64
	for m, arm := range t.Arms {
		leaves[m], gamma[m] = t.every(arm.Points), t.every(arm.Potential)
	}
	value := t.every(out.Value)
	if t.err != nil {
		return 0, 0, t.err
	}
	// z of a pair without its potential is -c/ε and the weight of the leaf.
	kernel := func(m, j, k int) (z, size float64) { return t.pair(y[j*d:(j+1)*d], leaves[m][k*d:(k+1)*d], 0) }
	triples := func(f func(j, i, k int, w, size, sum float64)) {
		for j := range n {
			for i := range n {
				zi, si := kernel(0, j, i)
				for k := range n {
					zk, sk := kernel(1, j, k)
					f(j, i, k, math.Exp(zi+zk-math.Log(float64(n))), si+sk, beta[j]+gamma[0][i]+gamma[1][k])
				}
			}
		}
	}
	// So many terms that the definition's own roundings would count.
	var all, psi total
	rounding := 0.0
	triples(func(_, _, _ int, w, size, _ float64) {
		all.add(w)
		rounding += w * size
	})
	z := all.value()
	rounding /= z
	limit := math.Ln2 - delta
	psiBudget := 0.0
	want, budget := [3][]total{}, [3][]float64{}
	for m := range want {
		want[m], budget[m] = make([]total, n), make([]float64, n)
	}
	triples(func(j, i, k int, w, size, sum float64) {
		at := min(sum, limit)
		slope := math.Exp(at) / (2 - math.Exp(at))
		value := -math.Log(2-math.Exp(at)) + slope*(sum-at)
		// A rounding of the sum of potentials moves ψ by ψ' of it, and log ψ' by
		// 1 + ψ', which the cap bounds.
		parts := math.Abs(beta[j]) + math.Abs(gamma[0][i]) + math.Abs(gamma[1][k])
		off := u * roundings * (1 + size + rounding + parts)
		w /= z
		psi.add(w * value)
		psiBudget += w * off * (math.Abs(value) + slope*(1+parts))
		for m, node := range [3]int{j, i, k} {
			want[m][node].add(w * slope)
			budget[m][node] += w * slope * off * (2 + slope)
		}
	})
	v.compare(value[0], psi.value(), psiBudget)
	v.compare(value[2], math.Log(z), roundings*u*(1+rounding))
	for m, gradient := range out.Gradients {
		for k, g := range t.every(gradient) {
			v.compare(g, want[m][k].value(), budget[m][k])
		}
	}
	return v.end(t.stage)
}
