package bench

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
)

// chain is a bridge through several clouds, as all engines are given it: uniform
// weights, the squared distance between clouds that follow each other, and ε.
type chain struct {
	k, n, d int
	x       [][]float64 // k clouds: (n, d)
	mean    float64     // cost of an edge
	epsilon float64     // absolute
}

// chainScale is ε over the mean cost of an edge.
const chainScale = 0.05

// newChain draws clouds of a standard normal law that falls apart, from one to
// the next, into four of deviation 0.5.
func newChain(k, n, d int) *chain {
	c := &chain{k: k, n: n, d: d}
	r := rand.New(rand.NewPCG(1953, uint64(d)))
	centres := make([]float64, 4*d)
	for i := range centres {
		centres[i] = 1.5 * r.NormFloat64()
	}
	for node := range k {
		t := float64(node) / float64(k-1)
		x := make([]float64, n*d)
		for i := range n {
			centre := centres[r.IntN(4)*d:]
			for j := range d {
				x[i*d+j] = t*centre[j] + (1-t/2)*r.NormFloat64()
			}
		}
		c.x = append(c.x, x)
		if node > 0 {
			c.mean += meanCost(c.x[node-1], x, d) / float64(k-1)
		}
	}
	c.epsilon = chainScale * c.mean
	return c
}

// first is the problem of the first n points of each cloud, at the same ε.
func (c *chain) first(n int) *chain {
	small := *c
	small.n, small.x = n, nil
	for _, x := range c.x {
		small.x = append(small.x, x[:n*c.d])
	}
	return &small
}

// residual is Σ_k |P_k - a_k|₁ in float64, over the nodes that are not free, of
//
//	P(x_1, …, x_K) = exp((Σ_k f_k(x_k) - Σ_k |x_k - x_{k+1}|²)/ε) / n^K
//
// whose marginals are summed from both ends. It is what every engine's potentials
// are judged by, and shares no code with any of them. size is the largest
// exponent that went into it.
func (c *chain) residual(f [][]float64, free func(node int) bool) (residual, size float64) {
	log := -math.Log(float64(c.n))
	// What comes from the left, and from the right.
	forward, backward := make([][]float64, c.k), make([][]float64, c.k)
	forward[0], backward[c.k-1] = make([]float64, c.n), make([]float64, c.n)
	message := func(to, from int, before []float64) []float64 {
		v := make([]float64, c.n)
		for i := range v {
			v[i] = log + before[i] + f[from][i]/c.epsilon
		}
		out, most := c.pass(c.x[to], c.x[from], v)
		size = maxNaN(size, most)
		return out
	}
	for k := 1; k < c.k; k++ {
		forward[k] = message(k, k-1, forward[k-1])
		backward[c.k-1-k] = message(c.k-1-k, c.k-k, backward[c.k-k])
	}
	for k := range c.k {
		if free(k) {
			continue
		}
		for i, v := range f[k] {
			residual += math.Abs(math.Exp(log+v/c.epsilon+forward[k][i]+backward[k][i]) - 1/float64(c.n))
		}
	}
	return residual, size
}

// pass is log Σ_j exp(v_j - |x_i - y_j|²/ε) for all i, and the largest exponent.
func (c *chain) pass(x, y, v []float64) (out []float64, size float64) {
	out = make([]float64, c.n)
	parts := runtime.GOMAXPROCS(0)
	sizes := make([]float64, parts)
	var wait sync.WaitGroup
	for w := range parts {
		wait.Go(func() {
			z := make([]float64, c.n)
			for i := w; i < c.n; i += parts {
				xi := x[i*c.d : (i+1)*c.d]
				for j := range z {
					cost := 0.0
					for k, b := range y[j*c.d : (j+1)*c.d] {
						t := xi[k] - b
						cost += t * t
					}
					z[j] = v[j] - cost/c.epsilon
					sizes[w] = maxNaN(sizes[w], math.Abs(v[j])+cost/c.epsilon)
				}
				out[i] = -softmin(z, 1)
			}
		})
	}
	wait.Wait()
	for _, s := range sizes {
		size = maxNaN(size, s)
	}
	return out, size
}
