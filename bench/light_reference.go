package bench

import (
	"math"
	"math/rand/v2"
)

// potential is a mixture of the light bridges on the host, S diagonal:
// s = floor + exp(raw).
type potential struct {
	k, d           int
	epsilon, floor float64
	logits         []float32 // (k): log α
	means, raws    []float32 // (k, d)
}

// matched is one batch of bridge matching.
type matched struct {
	x, u, t []float32 // (n, d), (n, d), (n)
}

// likely is one term weight · mean_b L_t(x_b) of a likelihood.
type likely struct {
	x         []float32 // (n, d)
	t, weight float64
}

// gradient is a loss and its derivatives by log α, r and raw, as they are
// defined, in precision A. A unit of roundoff of every number that goes into
// value, those in the exponents and in the drift included, changes it by about
// size, to first order: the root of a sum of squares, for roundings are
// independent of each other (Higham and Mary, "A new approach to probabilistic
// rounding error analysis", 2019). square is its square.
type gradient[A number] struct {
	value, square []A // [1 | k | k d | k d]
	p             *potential
	s             []A // (k, d)

	// of one sample
	ell, magnitude []A // (k)
	w, wSize       []A // (k): w_j; and with what the rounding of the exponents does to it
	g, most        []A // (k, d): g_j, and the magnitudes that go into it
}

func newGradient[A number](p *potential) *gradient[A] {
	kd := p.k * p.d
	q := &gradient[A]{p: p, value: make([]A, 1+p.k+2*kd), square: make([]A, 1+p.k+2*kd), s: make([]A, kd)}
	for i, raw := range p.raws {
		q.s[i] = A(p.floor) + A(math.Exp(float64(raw)))
	}
	q.ell, q.magnitude, q.w, q.g = make([]A, p.k), make([]A, p.k), make([]A, p.k), make([]A, kd)
	q.wSize, q.most = make([]A, p.k), make([]A, kd)
	return q
}

// parts are where loss, derivatives by log α, by r and by raw begin and end.
func (p *potential) parts() [5]int {
	kd := p.k * p.d
	return [5]int{0, 1, 1 + p.k, 1 + p.k + kd, 1 + p.k + 2*kd}
}

func (q *gradient[A]) add(i int, v, size A) {
	q.value[i] += v
	q.square[i] += size * size
}

func abs[A number](v A) A { return max(v, -v) }

// at evaluates ℓ_j, g_j and w_j = softmax_j ℓ at (t, x) and returns the
// log-sum-exp: kernels/gmm has the formulas.
func (q *gradient[A]) at(t A, x []A) A {
	p, eps := q.p, A(q.p.epsilon)
	most := A(math.Inf(-1))
	for j := range p.k {
		l, m := A(p.logits[j]), A(p.logits[j])*A(p.logits[j])
		for k := range p.d {
			i := j*p.d + k
			r, s := A(p.means[i]), q.s[i]
			d := (1 - t) + t*s
			half := A(math.Log(float64(d))) / 2
			a, b, c := 2*r*x[k]/(2*eps*d), (s-1)*x[k]*x[k]/(2*eps*d), t*r*r/(2*eps*d)
			l += a + b - c - half
			m += a*a + b*b + c*c + half*half
			q.g[i], q.most[i] = (r+(s-1)*x[k])/d, (abs(r)+abs((s-1)*x[k]))/d
		}
		q.ell[j], q.magnitude[j] = l, A(math.Sqrt(float64(m+l*l)))
		most = max(most, l)
	}
	sum := A(0)
	for j, l := range q.ell {
		q.w[j] = A(math.Exp(float64(l - most)))
		sum += q.w[j]
	}
	mean := A(0)
	for j := range q.w {
		q.w[j] /= sum
		mean += q.w[j] * q.magnitude[j]
	}
	// dw_j = w_j (dℓ_j - Σ_i w_i dℓ_i)
	for j, w := range q.w {
		q.wSize[j] = w * (1 + (1-2*w)*q.magnitude[j] + mean)
	}
	return most + A(math.Log(float64(sum)))
}

// move adds c ∂ℓ_j/∂r and c ∂ℓ_j/∂raw; size is the magnitude of c.
func (q *gradient[A]) move(j int, c, size, t A, x []A) {
	p, at, eps := q.p, q.p.parts(), A(q.p.epsilon)
	for k := range p.d {
		i := j*p.d + k
		r, s := A(p.means[i]), q.s[i]
		d, to := (1-t)+t*s, s-A(p.floor)
		numerator := 2*r*x[k] + (s-1)*x[k]*x[k] - t*r*r
		byR := (x[k] - t*r) / (eps * d)
		byRaw := to * (x[k]*x[k]/(2*eps*d) - t*numerator/(2*eps*d*d) - t/(2*d))
		q.add(at[2]+i, c*byR, size*byR)
		q.add(at[3]+i, c*byRaw, size*byRaw)
	}
}

// likelihood is Σ_i weight_i · mean_b L_{t_i}(x_b).
func likelihood[A number](p *potential, terms ...likely) *gradient[A] {
	q := newGradient[A](p)
	x := make([]A, p.d)
	for _, term := range terms {
		n := len(term.x) / p.d
		weight, t := A(term.weight)/A(n), A(term.t)
		for b := range n {
			for k := range x {
				x[k] = A(term.x[b*p.d+k])
			}
			q.value[0] += weight * q.at(t, x)
			for j, w := range q.w {
				size := weight * q.wSize[j]
				q.add(0, 0, weight*w*q.magnitude[j])
				q.add(1+j, weight*w, size)
				q.move(j, weight*w, size, t, x)
			}
		}
	}
	return q
}

// matching is mean_b |g(t_b, x_b) - u_b|² / d.
func matching[A number](p *potential, batch matched) *gradient[A] {
	q, at := newGradient[A](p), p.parts()
	n := len(batch.t)
	scale := 2 / A(n*p.d)
	x := make([]A, p.d)
	e, eSize := make([]A, p.d), make([]A, p.d)         // ∂loss/∂g
	inner, innerSize := make([]A, p.k), make([]A, p.k) // <e, g_j>
	for b, time := range batch.t {
		for k := range x {
			x[k] = A(batch.x[b*p.d+k])
		}
		t := A(time)
		q.at(t, x)
		for k := range e {
			g, size, u := A(0), A(0), A(batch.u[b*p.d+k])
			for j, w := range q.w {
				g += w * q.g[j*p.d+k]
				size += q.wSize[j] * q.most[j*p.d+k]
			}
			e[k], eSize[k] = scale*(g-u), scale*(size+abs(u))
			q.add(0, e[k]*(g-u)/2, eSize[k]*(g-u))
		}
		mean, meanSize := A(0), A(0) // <e, g>
		for j, w := range q.w {
			inner[j], innerSize[j] = 0, 0
			for k, v := range e {
				inner[j] += v * q.g[j*p.d+k]
				innerSize[j] += eSize[k] * q.most[j*p.d+k]
			}
			mean += w * inner[j]
			meanSize += w*innerSize[j] + q.wSize[j]*abs(inner[j])
		}
		for j, w := range q.w {
			a, size := w*(inner[j]-mean), w*(innerSize[j]+meanSize)+q.wSize[j]*abs(inner[j]-mean)
			q.add(1+j, a, size)
			q.move(j, a, size, t, x)
			for k, v := range e {
				i := j*p.d + k
				d := (1 - t) + t*q.s[i]
				by := (x[k] - t*q.g[i]) * (q.s[i] - A(p.floor))
				size := (w*eSize[k] + q.wSize[j]*abs(v)) / d
				q.add(at[2]+i, w*v/d, size)
				q.add(at[3]+i, w*v/d*by, size*by)
			}
		}
	}
	return q
}

// compareGradient is the largest error of got, relative to the largest element
// of its part (loss, derivatives by log α, by r, by raw), and what it may be:
// twice that of the definition evaluated in float32, or some roundings of what
// is summed up. Of the four parts it answers the one nearest to its budget.
func compareGradient(got []float64, want *gradient[float64], naive *gradient[float32]) (worst, budget float64) {
	at, most := want.p.parts(), math.Inf(-1)
	for part := range 4 {
		var off, may, scale float64
		for i := at[part]; i < at[part+1]; i++ {
			off = maxNaN(off, math.Abs(got[i]-want.value[i]))
			may = maxNaN(may, 2*math.Abs(float64(naive.value[i])-want.value[i]))
			may = maxNaN(may, roundings*ulp[float32]()*math.Sqrt(want.square[i]))
			scale = max(scale, math.Abs(want.value[i]))
		}
		if ratio := off / may; !(ratio <= most) {
			most, worst, budget = ratio, off/scale, may/scale
		}
		if math.IsNaN(worst) || math.IsNaN(budget) {
			return worst, budget
		}
	}
	return worst, budget
}

// inverted is the largest |y + g(t, y)/β - x| / max(1, |x|) over all rows, and
// rounding the largest that some roundings in float32 of what goes into g make
// of it.
func inverted(p *potential, beta, t float64, x, y []float32) (worst, rounding float64) {
	q := newGradient[float64](p)
	point := make([]float64, p.d)
	for b := 0; b < len(x); b += p.d {
		for k := range point {
			point[k] = float64(y[b+k])
		}
		q.at(t, point)
		off, size, rounded := 0.0, 0.0, 0.0
		for k, v := range point {
			g, most := 0.0, 0.0
			for j, w := range q.w {
				g += w * q.g[j*p.d+k]
				most += q.wSize[j] * q.most[j*p.d+k]
			}
			miss, to := v+g/beta-float64(x[b+k]), float64(x[b+k])
			off, size, rounded = off+miss*miss, size+to*to, rounded+most*most
		}
		scale := max(1, math.Sqrt(size))
		worst = maxNaN(worst, math.Sqrt(off)/scale)
		rounding = maxNaN(rounding, roundings*ulp[float32]()*math.Sqrt(rounded)/beta/scale)
	}
	return worst, rounding
}

// drawn draws x1 given y0, one row each, by the definition of the plan, and
// returns y1 + g(1, y1)/β.
func drawn(p *potential, beta float64, y0 []float64, r *rand.Rand) []float64 {
	q := newGradient[float64](p)
	out := make([]float64, len(y0))
	y := make([]float64, p.d)
	for b := 0; b < len(y0); b += p.d {
		q.at(0, y0[b:b+p.d])
		j, rest := 0, r.Float64()
		for ; j < p.k-1 && rest >= q.w[j]; j++ {
			rest -= q.w[j]
		}
		for k := range y {
			s := q.s[j*p.d+k]
			y[k] = float64(p.means[j*p.d+k]) + s*y0[b+k] + math.Sqrt(p.epsilon*s)*r.NormFloat64()
		}
		q.at(1, y)
		for k, v := range y {
			g := 0.0
			for j, w := range q.w {
				g += w * q.g[j*p.d+k]
			}
			out[b+k] = v + g/beta
		}
	}
	return out
}

// discrepancy is the largest difference between the means of two clouds, and
// between the means of the products of their coordinates, in units of its
// standard error.
func discrepancy(x, y []float64, d int) float64 {
	worst := 0.0
	compare := func(f func(row []float64) float64) {
		var mean, variance [2]float64
		for i, cloud := range [2][]float64{x, y} {
			n := float64(len(cloud) / d)
			for b := 0; b < len(cloud); b += d {
				mean[i] += f(cloud[b:b+d]) / n
			}
			for b := 0; b < len(cloud); b += d {
				off := f(cloud[b:b+d]) - mean[i]
				variance[i] += off * off / (n - 1) / n
			}
		}
		worst = maxNaN(worst, math.Abs(mean[0]-mean[1])/math.Sqrt(variance[0]+variance[1]))
	}
	for k := range d {
		compare(func(row []float64) float64 { return row[k] })
		for l := range k + 1 {
			compare(func(row []float64) float64 { return row[k] * row[l] })
		}
	}
	return worst
}
