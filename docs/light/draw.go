package main

import (
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/solver/gaussian"
)

// someNormal is a normal law whose variances along random directions, or along
// the coordinates, go geometrically from low to high.
func someNormal(r *rand.Rand, d int, low, high float64, turned bool) gaussian.Normal {
	n := gaussian.Normal{Mean: make([]float64, d), Cov: mat.NewSymDense(d, nil)}
	values := make([]float64, d)
	for i, k := range r.Perm(d) {
		n.Mean[i] = r.NormFloat64() / 2
		values[i] = math.Sqrt(low * high)
		if d > 1 {
			values[i] = low * math.Pow(high/low, float64(k)/float64(d-1))
		}
	}
	axes := identity(d)
	if turned {
		axes = rotation(r, d)
	}
	for i := range d {
		for j := i; j < d; j++ {
			s := 0.
			for k, v := range values {
				s += v * axes.At(i, k) * axes.At(j, k)
			}
			n.Cov.SetSym(i, j, s)
		}
	}
	return n
}

func identity(d int) *mat.Dense {
	m := mat.NewDense(d, d, nil)
	for i := range d {
		m.Set(i, i, 1)
	}
	return m
}

// rotation is a random orthogonal matrix.
func rotation(r *rand.Rand, d int) *mat.Dense {
	var qr mat.QR
	qr.Factorize(mat.NewDense(d, d, normals(r, d*d)))
	q := &mat.Dense{}
	qr.QTo(q)
	return q
}

// triangle is L with LLᵀ = cov.
func triangle(cov mat.Symmetric) *mat.TriDense {
	var c mat.Cholesky
	if !c.Factorize(cov) {
		panic("a covariance of ours is not positive definite")
	}
	l := &mat.TriDense{}
	c.LTo(l)
	return l
}

// draws are n draws of a normal law.
func draws(r *rand.Rand, law gaussian.Normal, n int) []float64 {
	return affine(normals(r, n*law.Dim()), law)
}

// affine makes draws of a normal law of standard ones, in place.
func affine(z []float64, law gaussian.Normal) []float64 {
	d := law.Dim()
	x := mat.NewDense(len(z)/d, d, z)
	var moved mat.Dense
	moved.Mul(x, triangle(law.Cov).T())
	copy(z, moved.RawMatrix().Data)
	for i := range z {
		z[i] += law.Mean[i%d]
	}
	return z
}

// exactPool are draws of a normal law, corrected by an affine map so that their
// mean and covariance are those of the law: what remains of a training's error
// is not the pool's.
func exactPool(r *rand.Rand, law gaussian.Normal, n int) []float64 {
	d := law.Dim()
	z := normals(r, n*d)
	mean := make([]float64, d)
	for i, v := range z {
		mean[i%d] += v / float64(n)
	}
	for i := range z {
		z[i] -= mean[i%d]
	}
	x := mat.NewDense(n, d, z)
	var cov mat.SymDense
	cov.SymOuterK(1/float64(n), x.T())
	var inverse mat.TriDense
	if err := inverse.InverseTri(triangle(&cov)); err != nil {
		panic(err) // more draws than dimensions
	}
	var white mat.Dense
	white.Mul(x, inverse.T())
	return affine(white.RawMatrix().Data, law)
}
