package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/tensor"
)

// Mixture is Gaussian-mixture potentials: drifts, and the likelihood with the
// gradients of all parameters, at the sizes of the light bridges' experiments.
func (families) Mixture() Family {
	f := Family{Name: "mixture", Kernel: "gmm"}
	for _, s := range [][2]int{{50, 2}, {10, 512}} {
		k, d := s[0], s[1]
		f.Variants = append(f.Variants, driftVariant(k, d), likelihoodVariant(k, d))
	}
	return f
}

func mixtureShape(k, d int) string { return fmt.Sprintf("K=%d d=%d", k, d) }

// model is a mixture on a device, and its parameters there in float64.
type model struct {
	gmm.Mixture
	k, d                  int
	logits, means, scales []float64
}

const mixtureEpsilon = 0.5

// mixture draws a mixture with eigenvalues of S between 0.5 and 1.5.
func (s *stage) mixture(k, d int) *model {
	m := &model{k: k, d: d, Mixture: gmm.Mixture{Logits: s.normals(k), Means: s.normals(k, d), Epsilon: mixtureEpsilon}}
	first := make([]float64, k*d)
	for i := range first {
		first[i] = 0.5 + float64((i*7919)%1009)/1009
	}
	m.Scales = s.put(first, k, d)
	if s.err == nil {
		m.logits, m.means, m.scales = s.every(m.Logits), s.every(m.Means), s.every(m.Scales)
	}
	return m
}

// weights are those of the components at (t, x), which log h they make, and for
// each by how much an exponent's own numbers exceed it.
func (m *model) weights(t float64, x []float64) (w, sizes []float64, value float64) {
	w, sizes = make([]float64, m.k), make([]float64, m.k)
	most := math.Inf(-1)
	for j := range w {
		l := m.logits[j]
		sizes[j] = math.Abs(l)
		for k, x := range x {
			r, s := m.means[j*m.d+k], m.scales[j*m.d+k]
			det := 1 - t + t*s
			l += -math.Log(det)/2 + (2*r*x+(s-1)*x*x-t*r*r)/(2*m.Epsilon*det)
			sizes[j] += math.Abs(math.Log(det))/2 + (2*math.Abs(r*x)+math.Abs(s-1)*x*x+t*r*r)/(2*m.Epsilon*det)
		}
		w[j] = l
		most = max(most, l)
	}
	sum := 0.0
	for j, l := range w {
		w[j] = math.Exp(l - most)
		sum += w[j]
	}
	for j := range w {
		w[j] /= sum
	}
	return w, sizes, most + math.Log(sum)
}

// drift is g(t, x), and what float arithmetic may be off in units of rounding:
// that of each component's drift, and of the weights, by their exponents.
func (m *model) drift(t float64, x []float64) (g, size []float64) {
	w, sizes, _ := m.weights(t, x)
	g, size = make([]float64, m.d), make([]float64, m.d)
	mean := 0.0
	for j := range w {
		mean += w[j] * sizes[j]
	}
	for j := range w {
		for k, x := range x {
			r, s := m.means[j*m.d+k], m.scales[j*m.d+k]
			det := 1 - t + t*s
			g[k] += w[j] * (r + (s-1)*x) / det
			size[k] += w[j] * (math.Abs(r) + math.Abs(s-1)*math.Abs(x)) / det * (1 + sizes[j] + mean)
		}
	}
	return g, size
}

// evaluations is the work of so many evaluations of all weights and a drift, and
// the bytes of a mixture.
func evaluations(s Setting, times string, n float64, k, d int) Cost {
	return Cost{
		Flops: Count{8 * n * float64(k) * float64(d), "8·" + times + "Kd"},
		Exps:  Count{n * float64(k), times + "K"},
		Read:  count(fmt.Sprintf("%dnd", s.element()), s.element(), s.Size, d).plus(count(fmt.Sprintf("%dKd", 2*s.element()), 2*s.element(), k, d)),
	}
}

func driftVariant(k, d int) Variant {
	sizes := []int{512, 4096, 32768, 1 << 18}
	if d > 8 {
		sizes = []int{128, 512, 4096, 32768}
	}
	const t = 0.4
	return Variant{
		Name: "mixture drift", Shape: mixtureShape(k, d), Unit: "rows", Sizes: sizes, Typical: sizes[1],
		Work: func(s Setting) Work { return Work{N: s.Size, D: d, K: k} },
		Cost: func(s Setting) Cost {
			c := evaluations(s, "n", float64(s.Size), k, d)
			c.Written = count(fmt.Sprintf("%dnd", s.element()), s.element(), s.Size, d)
			return c
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			a := newStage(dev, s)
			m, x, out := a.mixture(k, d), a.normals(s.Size, d), a.out(s.Size, d)
			return a.finish(&Case{
				Run: func() error { return gmm.Evaluate(gmm.EvaluateArgs{Mixture: m.Mixture, X: x, T0: t, Drift: out}) },
				Check: func() (float64, float64, error) {
					var v verdict
					for _, i := range sample(s.Size) {
						want, size := m.drift(t, a.rows(x, i, i+1))
						for j, g := range a.rows(out, i, i+1) {
							v.compare(g, want[j], roundings*unit(s.DType)*size[j])
						}
					}
					return v.end(a)
				},
			})
		},
	}
}

// likelihoodVariant is the maximum-likelihood loss of LightSB and its gradient.
func likelihoodVariant(k, d int) Variant {
	sizes := []int{512, 2048, 8192, 32768}
	if d > 8 {
		sizes = []int{64, 512, 2048}
	}
	return Variant{
		Name: "likelihood with gradients", Shape: mixtureShape(k, d), Unit: "rows of both terms", Sizes: sizes, Typical: 512,
		Work: func(s Setting) Work { return Work{N: s.Size, D: d, K: k} },
		// Two terms; a gradient takes as much again as the value.
		Cost: func(s Setting) Cost {
			c := evaluations(s, "4n", 4*float64(s.Size), k, d)
			c.Exps = count("2nK", 2, s.Size, k)
			c.Read = c.Read.plus(count(fmt.Sprintf("%dnd", s.element()), s.element(), s.Size, d))
			c.Written = count(fmt.Sprintf("%dK(2d+1)", s.element()), s.element(), k, 2*d+1)
			return c
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			a, n := newStage(dev, s), s.Size
			m := a.mixture(k, d)
			terms := [2]gmm.Term{{X: a.normals(n, d), Weight: 1}, {X: a.normals(n, d), T: 1, Weight: -1}}
			if a.err != nil {
				return a.finish(&Case{})
			}
			chunks, width := gmm.PartialShape(m.Mixture, n, n)
			partial := a.out(chunks, width)
			r := gmm.ReduceArgs{
				Mixture: m.Mixture, Partial: partial, Loss: a.out(1), DLogits: a.out(k), DMeans: a.out(k, d), DRaw: a.out(k, d),
			}
			return a.finish(&Case{
				Run: func() error {
					if err := gmm.Likelihood(gmm.LikelihoodArgs{Mixture: m.Mixture, Terms: terms, Partial: partial}); err != nil {
						return err
					}
					return gmm.Reduce(r)
				},
				Check: func() (float64, float64, error) {
					var v verdict
					want, budget := m.likelihood(a, terms)
					u := roundings * unit(s.DType)
					at := 0
					for _, t := range []tensor.Tensor{r.Loss, r.DLogits, r.DMeans, r.DRaw} {
						for _, g := range a.every(t) {
							v.compare(g, want[at], u*budget[at])
							at++
						}
					}
					return v.end(a)
				},
			})
		},
	}
}

// likelihood is the loss, its gradients by log α, r and log s in this order, and
// of each the sum of its terms' sizes with the sizes of their exponents: what
// it may be off in units of rounding.
func (m *model) likelihood(a *stage, terms [2]gmm.Term) (g, size []float64) {
	k, d := m.k, m.d
	g, size = make([]float64, 1+k+2*k*d), make([]float64, 1+k+2*k*d)
	add := func(at int, v, exponent float64) {
		g[at] += v
		size[at] += math.Abs(v) * (1 + exponent)
	}
	for _, term := range terms {
		n := term.X.Dim(0)
		x, t := a.every(term.X), term.T
		for b := range n {
			x := x[b*d : (b+1)*d]
			w, sizes, value := m.weights(t, x)
			mean := 0.0
			for j := range w {
				mean += w[j] * sizes[j]
			}
			scale := term.Weight / float64(n)
			g[0] += scale * value
			size[0] += math.Abs(scale) * (math.Abs(value) + mean)
			for j, w := range w {
				off := sizes[j] + mean
				add(1+j, scale*w, off)
				if w < 1e-30 { // adds nothing
					continue
				}
				for i, x := range x {
					at := j*d + i
					r, s := m.means[at], m.scales[at]
					det, eps := 1-t+t*s, m.Epsilon
					add(1+k+at, scale*w*(x-t*r)/(eps*det), off)
					for _, v := range []float64{-t / (2 * det), x * x / (2 * eps * det), -t * (2*r*x + (s-1)*x*x - t*r*r) / (2 * eps * det * det)} {
						add(1+k+k*d+at, scale*w*s*v, off)
					}
				}
			}
		}
	}
	return g, size
}
