package metrics

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// Gaussian is a mean and a covariance.
type Gaussian struct {
	Mean []float64 // (D)
	Cov  []float64 // (D, D), symmetric
}

// GaussianOf returns the mean and the covariance of a cloud. The covariance has
// the divisor n − 1 (1 − Σw² for weights that sum to one), and is zero for a
// single point. The data are centred before they are squared.
func GaussianOf(ctx context.Context, x Cloud) (Gaussian, error) {
	w, err := x.check("x")
	if err != nil {
		return Gaussian{}, err
	}
	return gaussianOf(ctx, x, w)
}

func gaussianOf(ctx context.Context, x Cloud, w []float64) (Gaussian, error) {
	d := x.D
	g := Gaussian{Mean: meanOf(x, w), Cov: make([]float64, d*d)}
	centred := shifted(x, g.Mean)
	square := 0.0
	for _, v := range w {
		square += v * v
	}
	if square == 1 {
		return g, ctx.Err()
	}
	cov := blas64.General{Rows: d, Cols: d, Stride: d, Data: g.Cov}
	scaled := make([]float64, len(centred))
	for i, wi := range w {
		for k, v := range centred[i*d : (i+1)*d] {
			scaled[i*d+k] = v * (wi / (1 - square))
		}
	}
	chunk := max(1, covWork/(d*d))
	for i := 0; i < len(w); i += chunk {
		if err := ctx.Err(); err != nil {
			return g, err
		}
		rows := min(chunk, len(w)-i)
		left := blas64.General{Rows: rows, Cols: d, Stride: d, Data: scaled[i*d : (i+rows)*d]}
		right := blas64.General{Rows: rows, Cols: d, Stride: d, Data: centred[i*d : (i+rows)*d]}
		blas64.Gemm(blas.Trans, blas.NoTrans, 1, left, right, 1, cov)
	}
	for p := range d {
		for q := range p {
			g.Cov[p*d+q] = g.Cov[q*d+p]
		}
	}
	return g, nil
}

// covWork is the number of products between two looks at the context.
const covWork = 1 << 27

// meanOf is the weighted mean, corrected once by the mean of what remains.
func meanOf(x Cloud, w []float64) []float64 {
	mean := make([]float64, x.D)
	for range 2 {
		rest := make([]float64, x.D)
		for i, wi := range w {
			for k, v := range x.X[i*x.D : (i+1)*x.D] {
				rest[k] += wi * (v - mean[k])
			}
		}
		for k := range mean {
			mean[k] += rest[k]
		}
	}
	return mean
}

func shifted(x Cloud, origin []float64) []float64 {
	out := make([]float64, len(x.X))
	for i := range out {
		out[i] = x.X[i] - origin[i%x.D]
	}
	return out
}

func trace(c []float64, d int) float64 {
	s := 0.0
	for k := range d {
		s += c[k*d+k]
	}
	return s
}

// Frechet is the squared Fréchet (2-Wasserstein) distance of two normal laws,
//
//	|m − m'|² + tr(Σ + Σ' − 2(Σ^½ Σ' Σ^½)^½)
//
// (Dowson and Landau 1982). Roots come from symmetric eigendecompositions with
// eigenvalues clamped at zero, so singular covariances need no ridge. Time is
// cubic in d; a done ctx is obeyed at once, though gonum's decomposition under
// way then runs to its end in the background.
func Frechet(ctx context.Context, p, q Gaussian) (float64, error) {
	d := len(p.Mean)
	if d == 0 || len(q.Mean) != d || len(p.Cov) != d*d || len(q.Cov) != d*d {
		return 0, fmt.Errorf("metrics: gaussian: %w: got means of length %d and %d, covariances of %d and %d numbers, want d and d², the same d", ErrInvalid, d, len(q.Mean), len(p.Cov), len(q.Cov))
	}
	for _, v := range [][]float64{p.Mean, p.Cov, q.Mean, q.Cov} {
		for k, e := range v {
			if math.IsNaN(e) || math.IsInf(e, 0) {
				return 0, fmt.Errorf("metrics: gaussian: %w: got %g at %d, want finite numbers", ErrInvalid, e, k)
			}
		}
	}
	shift := squaredDistance(p.Mean, q.Mean)
	cross := 0.0
	err := uninterruptible(ctx, func() error {
		root, err := symmetricRoot(p.Cov, d)
		if err != nil {
			return err
		}
		var half, product mat.Dense
		half.Mul(root, mat.NewSymDense(d, q.Cov))
		product.Mul(&half, root)
		var eig mat.EigenSym
		if !eig.Factorize(symmetrised(&product), false) {
			return fmt.Errorf("metrics: gaussian: the eigenvalues of a covariance product did not converge")
		}
		for _, v := range eig.Values(nil) {
			cross += math.Sqrt(max(0, v))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return shift + max(0, trace(p.Cov, d)+trace(q.Cov, d)-2*cross), nil
}

func symmetricRoot(cov []float64, d int) (*mat.Dense, error) {
	var eig mat.EigenSym
	if !eig.Factorize(mat.NewSymDense(d, cov), true) {
		return nil, fmt.Errorf("metrics: gaussian: the eigenvalues of a covariance did not converge")
	}
	var vectors, scaled, root mat.Dense
	eig.VectorsTo(&vectors)
	values := eig.Values(nil)
	scaled.Apply(func(_, k int, v float64) float64 { return v * math.Sqrt(max(0, values[k])) }, &vectors)
	root.Mul(&scaled, vectors.T())
	return &root, nil
}

func symmetrised(a *mat.Dense) *mat.SymDense {
	d, _ := a.Dims()
	s := mat.NewSymDense(d, nil)
	for i := range d {
		for j := i; j < d; j++ {
			s.SetSym(i, j, (a.At(i, j)+a.At(j, i))/2)
		}
	}
	return s
}

// FID is the Fréchet distance between the normal laws with the clouds' means
// and covariances (Heusel et al. 2017). It is the FID of the literature where
// the points are the 2,048 pool features of Inception; here they are what the
// caller gives. For n points in d > n dimensions it is badly biased.
func FID(ctx context.Context, x, y Cloud) (float64, error) {
	p, q, err := gaussiansOf(ctx, x, y)
	if err != nil {
		return 0, err
	}
	return Frechet(ctx, p, q)
}

// BW2UVP is the Bures–Wasserstein unexplained variance percentage
// 100·BW²/(½ tr Σ') of x against the reference y, where BW² is half of the
// Fréchet distance of the two normal laws (Chen et al. 2022; Korotin et al. 2021).
func BW2UVP(ctx context.Context, x, y Cloud) (float64, error) {
	p, q, err := gaussiansOf(ctx, x, y)
	if err != nil {
		return 0, err
	}
	return GaussianBW2UVP(ctx, p, q)
}

// GaussianBW2UVP is BW2UVP for means and covariances, as conditional laws have
// them in closed form; averaged over conditions it is the cBW2-UVP of the
// LightSB papers.
func GaussianBW2UVP(ctx context.Context, p, reference Gaussian) (float64, error) {
	f, err := Frechet(ctx, p, reference)
	if err != nil {
		return 0, err
	}
	variance := trace(reference.Cov, len(reference.Mean))
	if !(variance > 0) {
		return 0, fmt.Errorf("metrics: y: %w: got variance %g, want a reference with spread", ErrInvalid, variance)
	}
	return 100 * (f / 2) / (variance / 2), nil
}

func gaussiansOf(ctx context.Context, x, y Cloud) (p, q Gaussian, err error) {
	a, b, err := checkPair(x, y)
	if err != nil {
		return p, q, err
	}
	if p, err = gaussianOf(ctx, x, a); err != nil {
		return p, q, err
	}
	q, err = gaussianOf(ctx, y, b)
	return p, q, err
}
