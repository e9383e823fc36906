// Package latent maps data to a few coordinates and back, so that bridges of
// high-dimensional data can be learned where they are low-dimensional.
//
// PCA is the orthogonal projection of least squared error: with the mean μ and
// the rows b of an orthonormal basis B (K, D),
//
//	z = scale·B (x - μ),  x̂ = μ + Bᵀz/scale.
//
// One scale serves all coordinates, so that distances in the latent space are
// proportional to those of the projections: a bridge's cost |x-y|² means the
// same in both, and its ε is multiplied by scale². Variances are the squares of
// the data's unit, with the divisor n - 1.
package latent

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
)

// ErrInvalid is wrapped by every error of an argument or of a file's content.
var ErrInvalid = errors.New("invalid latent space")

func bad(name, format string, v ...any) error {
	return fmt.Errorf("latent: %s: %w: %s", name, ErrInvalid, fmt.Sprintf(format, v...))
}

// PCA is the projection onto K principal components of D coordinates. It is
// plain data; its methods do not change it, except Normalize, and may be called
// at the same time.
type PCA struct {
	D, K     int
	Mean     []float64 // (D)
	Basis    []float64 // (K, D), row-major; rows are orthonormal
	Variance []float64 // (K) explained by each component, descending
	Total    float64   // variance of the data, over all components
	Scale    float64   // multiplies latents; 1 after Fit
}

// Explained is the part of the variance that the components explain, in [0, 1].
func (p *PCA) Explained() float64 { return min(1, sum(p.Variance)/p.Total) }

// Normalize sets Scale so that latents of the fitted data have unit variance on
// average over the components.
func (p *PCA) Normalize() { p.Scale = math.Sqrt(float64(p.K) / sum(p.Variance)) }

func sum(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v
	}
	return s
}

// Encode writes the latents of the rows of x (n, D) to dst (n, K), both
// row-major and without overlap.
func (p *PCA) Encode(dst, x []float64) error {
	n, err := rows("encode", dst, p.K, x, p.D)
	if err != nil || n == 0 {
		return err
	}
	// (x - μ)Bᵀ in pieces that stay in the cache. Centred first: the mean of
	// pictures is larger than what is left.
	piece := make([]float64, min(n, 64)*p.D)
	basis := blas64.General{Rows: p.K, Cols: p.D, Stride: p.D, Data: p.Basis}
	for i := 0; i < n; i += 64 {
		m := min(64, n-i)
		for k, v := range x[i*p.D : (i+m)*p.D] {
			piece[k] = v - p.Mean[k%p.D]
		}
		blas64.Gemm(blas.NoTrans, blas.Trans, p.Scale,
			blas64.General{Rows: m, Cols: p.D, Stride: p.D, Data: piece}, basis, 0,
			blas64.General{Rows: m, Cols: p.K, Stride: p.K, Data: dst[i*p.K : (i+m)*p.K]})
	}
	return nil
}

// Decode writes the points of the rows of z (n, K) to dst (n, D), both
// row-major and without overlap. It is the inverse of Encode on the span of the
// components, and Decode after Encode is the projection onto it.
func (p *PCA) Decode(dst, z []float64) error {
	n, err := rows("decode", dst, p.D, z, p.K)
	if err != nil || n == 0 {
		return err
	}
	for i := range n {
		copy(dst[i*p.D:], p.Mean)
	}
	blas64.Gemm(blas.NoTrans, blas.NoTrans, 1/p.Scale,
		blas64.General{Rows: n, Cols: p.K, Stride: p.K, Data: z},
		blas64.General{Rows: p.K, Cols: p.D, Stride: p.D, Data: p.Basis}, 1,
		blas64.General{Rows: n, Cols: p.D, Stride: p.D, Data: dst})
	return nil
}

func rows(name string, dst []float64, to int, src []float64, from int) (int, error) {
	if from <= 0 || to <= 0 {
		return 0, bad(name, "%d and %d coordinates: not fitted", from, to)
	}
	n := len(src) / from
	if len(src)%from != 0 {
		return 0, bad(name, "%d numbers, want a multiple of %d", len(src), from)
	}
	if len(dst) != n*to {
		return 0, bad(name, "room for %d numbers, want %d rows of %d", len(dst), n, to)
	}
	return n, nil
}

// Validate says what makes p no projection: sizes, numbers that are not
// finite, rows that are not orthonormal to 1e-6, variances out of order.
func (p *PCA) Validate() error {
	if p.D < 1 || p.K < 1 || p.K > p.D {
		return bad("sizes", "K = %d components of D = %d coordinates", p.K, p.D)
	}
	if len(p.Mean) != p.D || len(p.Basis) != p.K*p.D || len(p.Variance) != p.K {
		return bad("sizes", "mean %d, basis %d and variance %d numbers, want %d, %d and %d", len(p.Mean), len(p.Basis), len(p.Variance), p.D, p.K*p.D, p.K)
	}
	for _, part := range [][]float64{p.Mean, p.Basis, p.Variance, {p.Total, p.Scale}} {
		if i := firstBad(part); i >= 0 {
			return bad("numbers", "found %g", part[i])
		}
	}
	if !(p.Scale > 0) || !(p.Total > 0) {
		return bad("numbers", "scale %g and total variance %g, want both above 0", p.Scale, p.Total)
	}
	for k, v := range p.Variance {
		if v < 0 || k > 0 && v > p.Variance[k-1] {
			return bad("variance", "entry %d is %g, want descending numbers of at least 0", k, v)
		}
	}
	if e := departure(p.Basis, p.K, p.D); !(e <= 1e-6) {
		return bad("basis", "rows depart from orthonormal by %g", e)
	}
	return nil
}

// departure is the largest entry of |BBᵀ - I|.
func departure(basis []float64, k, d int) float64 {
	b := blas64.General{Rows: k, Cols: d, Stride: d, Data: basis}
	gram := blas64.General{Rows: k, Cols: k, Stride: k, Data: make([]float64, k*k)}
	blas64.Gemm(blas.NoTrans, blas.Trans, 1, b, b, 0, gram)
	worst := 0.0
	for i, v := range gram.Data {
		if i%(k+1) == 0 {
			v--
		}
		worst = max(worst, math.Abs(v))
	}
	return worst
}

// firstBad is the place of the first number that is not finite or too large to
// be squared, or -1.
func firstBad(x []float64) int {
	for i, v := range x {
		if !(math.Abs(v) <= 1e140) {
			return i
		}
	}
	return -1
}
