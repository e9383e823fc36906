package bench

import (
	"math"
	"runtime"
	"sync"
)

// number is the element type of a row's precision.
type number interface{ float32 | float64 }

// pairs is a softmin problem on the host, in the precision that a kernel is
// given.
type pairs[T number] struct {
	x, y    []T // (n, d), (m, d)
	matrix  []T // (n, m) instead, or nil
	g, logb []T // (m)
	n, m, d int
	eps     float64
}

// row writes the exponents of row i as its precision A computes them.
func row[A, T number](p *pairs[T], i int, out []A) {
	for j := range out {
		out[j] = exponent[A](p, i, j)
	}
}

func exponent[A, T number](p *pairs[T], i, j int) A {
	var c A
	if p.matrix != nil {
		c = A(p.matrix[i*p.m+j])
	} else {
		y := p.y[j*p.d : (j+1)*p.d]
		for k, v := range p.x[i*p.d : (i+1)*p.d] {
			t := A(v) - A(y[k])
			c += t * t
		}
	}
	return A(p.logb[j]) + (A(p.g[j])-c)/A(p.eps)
}

// softmin is -ε log Σ_j exp z_j by its definition: the maximum in one pass, the
// sum in another, all in precision A.
func softmin[A number](z []A, eps float64) A {
	most, sum := A(math.Inf(-1)), A(0)
	for _, v := range z {
		most = max(most, v)
	}
	for _, v := range z {
		sum += A(math.Exp(float64(v - most)))
	}
	return -A(eps) * (most + A(math.Log(float64(sum))))
}

// sampled is how many rows and columns of a result are compared with the
// definition: spread over all of them, so that every tile is likely hit.
const sampled = 61 // a prime, and so no multiple of a tile

func sample(n int) []int { return sampleOf(n, sampled) }

// sampleOf is at most k of n, spread over all.
func sampleOf(n, k int) []int {
	k = min(n, k)
	s := make([]int, k)
	for i := range s {
		s[i] = i * n / k
	}
	return s
}

// few is how many of n rows or columns of other terms each are compared where
// that is much work: fewer of large problems, never less than five.
func few(n, other, d int) []int {
	const most = 1 << 25 // coordinates
	return sampleOf(n, max(5, min(sampled, most/(other*max(d, 1)))))
}

// magnitude bounds the numbers that exponent z_ij is summed up from. Squared
// distances may be computed from inner products.
func (p *pairs[T]) magnitude(i, j int) float64 {
	c := 0.0
	if p.matrix != nil {
		c = math.Abs(float64(p.matrix[i*p.m+j]))
	} else {
		for k := range p.d {
			u, v := float64(p.x[i*p.d+k]), float64(p.y[j*p.d+k])
			c += u*u + v*v
		}
	}
	return (c+math.Abs(float64(p.g[j])))/p.eps + math.Abs(float64(p.logb[j]))
}

// roundings is how many units of roundoff of the numbers that go into it an
// exponent may be off: one for each of cost, potential and log weight, and one
// for the change of base.
const roundings = 4

// compareSoftmin is the largest error of out against the float64 definition,
// in units of ε, and what it may be: twice that of the definition evaluated in
// T, or some roundings of the exponents, averaged as the sum weighs them.
func compareSoftmin[T number](p *pairs[T], out []T) (worst, budget float64) {
	exact, naive := make([]float64, p.m), make([]T, p.m)
	for _, i := range few(p.n, p.m, p.d) {
		row(p, i, exact)
		row(p, i, naive)
		want := softmin(exact, p.eps)
		worst = maxNaN(worst, math.Abs(float64(out[i])-want)/p.eps)
		budget = maxNaN(budget, 2*math.Abs(float64(softmin(naive, p.eps))-want)/p.eps)
		size := 0.0
		for j, z := range exact {
			size += math.Exp(z+want/p.eps) * p.magnitude(i, j)
		}
		budget = maxNaN(budget, roundings*ulp[T]()*size)
	}
	return worst, budget
}

// compareColumns is the largest relative error of col_j = Σ_i exp(out_i/ε +
// z_ij)/n against its definition for the out that the kernel returned, and what
// it may be: some roundings of the exponents.
func compareColumns[T number](p *pairs[T], out []T, col []float64) (worst, budget float64) {
	for _, j := range few(p.m, p.n, p.d) {
		want, size := 0.0, 0.0
		for i := range p.n {
			e := math.Exp(float64(out[i])/p.eps+exponent[float64](p, i, j)) / float64(p.n)
			want += e
			size += e * (p.magnitude(i, j) + math.Abs(float64(out[i]))/p.eps)
		}
		worst = maxNaN(worst, math.Abs(col[j]-want)/want)
		budget = maxNaN(budget, roundings*ulp[T]()*(1+size/want))
	}
	return worst, budget
}

func maxNaN(a, b float64) float64 {
	if a != a || b != b {
		return math.NaN()
	}
	return max(a, b)
}

func ulp[T number]() float64 {
	var one T = 1
	if float64(one+T(0x1p-40)) == 1 {
		return 0x1p-23
	}
	return 0x1p-52
}

// Residual is Σ_i |(P1)_i - 1/n| + Σ_j |(Pᵀ1)_j - 1/m| in float64, for
// P_ij = exp((f_i + g_j - |x_i-y_j|²)/ε)/(nm). It is what every solver's
// potentials are judged by, and shares no code with any of them.
func Residual(x, y []float64, d int, f, g []float64, eps float64) float64 {
	n, m := len(f), len(g)
	parts := runtime.GOMAXPROCS(0)
	rows, cols := make([]float64, n), make([][]float64, parts)
	var wait sync.WaitGroup
	for w := range parts {
		wait.Go(func() {
			col := make([]float64, m)
			for i := w; i < n; i += parts {
				xi := x[i*d : (i+1)*d]
				for j := range m {
					c := 0.0
					for k, v := range y[j*d : (j+1)*d] {
						t := xi[k] - v
						c += t * t
					}
					p := math.Exp((f[i]+g[j]-c)/eps) / float64(n) / float64(m)
					rows[i] += p
					col[j] += p
				}
			}
			cols[w] = col
		})
	}
	wait.Wait()
	total := 0.0
	for _, r := range rows {
		total += math.Abs(r - 1/float64(n))
	}
	for j := range m {
		c := 0.0
		for _, col := range cols {
			c += col[j]
		}
		total += math.Abs(c - 1/float64(m))
	}
	return total
}

// meanCost is the mean of |x_i-y_j|², from moments.
func meanCost(x, y []float64, d int) float64 {
	mean := 0.0
	for k := range d {
		mx, my := 0.0, 0.0
		for i := k; i < len(x); i += d {
			mx += x[i] / float64(len(x)/d)
		}
		for j := k; j < len(y); j += d {
			my += y[j] / float64(len(y)/d)
		}
		mean += (mx - my) * (mx - my)
		for i := k; i < len(x); i += d {
			mean += (x[i] - mx) * (x[i] - mx) / float64(len(x)/d)
		}
		for j := k; j < len(y); j += d {
			mean += (y[j] - my) * (y[j] - my) / float64(len(y)/d)
		}
	}
	return mean
}
