package geometry

import (
	"context"

	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/internal/parallel"
)

// weight is a_i / Σa, or 1/n.
func weights(a []float64, n int) []float64 {
	w := make([]float64, n)
	if a == nil {
		for i := range w {
			w[i] = 1 / float64(n)
		}
		return w
	}
	total := 0.0
	for _, x := range a {
		total += x
	}
	for i, x := range a {
		w[i] = x / total
	}
	return w
}

// cloudMoments are the moments of a cloud that those of |x-y|² need.
type cloudMoments struct {
	w     []float64
	q, q2 float64   // E|x|², E|x|⁴
	m, qm []float64 // E x, E|x|²x
}

func momentsOf(v []float64, n, d int, a []float64) cloudMoments {
	c := cloudMoments{w: weights(a, n), m: make([]float64, d), qm: make([]float64, d)}
	for i := range n {
		row, s := v[i*d:(i+1)*d], 0.0
		for _, x := range row {
			s += x * x
		}
		c.q += c.w[i] * s
		c.q2 += c.w[i] * s * s
		for k, x := range row {
			c.m[k] += c.w[i] * x
			c.qm[k] += c.w[i] * s * x
		}
	}
	return c
}

// second is E x xᵀ.
func (c cloudMoments) second(v []float64, n, d int) *mat.Dense {
	scaled := make([]float64, n*d)
	for i := range scaled {
		scaled[i] = c.w[i/d] * v[i]
	}
	s := mat.NewDense(d, d, nil)
	s.Mul(mat.NewDense(n, d, scaled).T(), mat.NewDense(n, d, v))
	return s
}

// meanSquared is E|x-y|² under the product measure.
func meanSquared(p Points, a, b []float64) float64 {
	x, y := momentsOf(p.X, p.N, p.D, a), momentsOf(p.Y, p.M, p.D, b)
	return x.q + y.q - 2*dot(x.m, y.m)
}

// meanFourth is E|x-y|⁴ under the product measure: with q = |x|², r = |y|² and
// s = <x,y>,
//
//	E(q + r - 2s)² = E q² + E r² + 2 E q E r + 4 E s² - 4 E qs - 4 E rs
func meanFourth(p Points, a, b []float64) float64 {
	x, y := momentsOf(p.X, p.N, p.D, a), momentsOf(p.Y, p.M, p.D, b)
	// E s² is the trace of a product of symmetric matrices.
	s2 := dot(x.second(p.X, p.N, p.D).RawMatrix().Data, y.second(p.Y, p.M, p.D).RawMatrix().Data)
	return x.q2 + y.q2 + 2*x.q*y.q + 4*s2 - 4*dot(x.qm, y.m) - 4*dot(x.m, y.qm)
}

func dot(a, b []float64) float64 {
	s := 0.0
	for k := range a {
		s += a[k] * b[k]
	}
	return s
}

// pairMoments sums a cost over all pairs, in an order that does not depend on
// the number of workers.
func pairMoments(ctx context.Context, n, m int, a, b []float64, cost func(i, j int) float64) (first, second float64, err error) {
	wa, wb := weights(a, n), weights(b, m)
	row1, row2 := make([]float64, n), make([]float64, n)
	err = parallel.Each(ctx, 0, n, func(i int) {
		row1[i], row2[i] = rowMoments(m, wb, func(j int) float64 { return cost(i, j) })
	})
	if err != nil {
		return 0, 0, err
	}
	for i := range n {
		first += wa[i] * row1[i]
		second += wa[i] * row2[i]
	}
	return first, second, nil
}

// rowMoments sums the costs of a row.
func rowMoments(m int, wb []float64, cost func(j int) float64) (first, second float64) {
	for j := range m {
		c := cost(j)
		first += wb[j] * c
		second += wb[j] * c * c
	}
	return first, second
}
