package latent

import (
	"errors"
	"math"

	"github.com/fortet/fortet/kernels/philox"
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack/lapack64"
	"gonum.org/v1/gonum/mat"
)

// Fit finds the k principal components of the n rows of x (n, d), row-major,
// with 1 ≤ k ≤ min(n-1, d). x is not modified. Data that span fewer than k
// dimensions get components of variance zero, orthonormal like the others.
//
// The work is done on the Gram matrix of the smaller side, m = min(n, d).
// Where m is small or k is a large part of it, its full eigendecomposition
// gives the components to rounding. Elsewhere they come from a randomised range
// finder with power iterations (Halko, Martinsson and Tropp 2011), whose draws
// have a fixed seed: what is then explained is slightly less than the optimum
// where the spectrum is flat around the k-th variance, and never more.
//
// Each component's first entry of largest magnitude is positive. Equal
// arguments give equal bits on the same processor.
func Fit(x []float64, n, d, k int) (*PCA, error) {
	switch {
	case n < 2 || d < 1:
		return nil, bad("data", "shape (%d, %d), want at least (2, 1)", n, d)
	case len(x)/n != d || len(x)%n != 0:
		return nil, bad("data", "%d numbers, want the shape (%d, %d)", len(x), n, d)
	case k < 1 || k > min(n-1, d):
		return nil, bad("components", "got %d, want 1 to %d for data of shape (%d, %d)", k, min(n-1, d), n, d)
	}
	if i := firstBad(x); i >= 0 {
		return nil, bad("data", "[%d, %d] is %g, want finite numbers", i/d, i%d, x[i])
	}
	p := &PCA{D: d, K: k, Scale: 1, Mean: mean(x, n, d)}
	centred := blas64.General{Rows: n, Cols: d, Stride: d, Data: make([]float64, n*d)}
	largest := 0.0
	for i, v := range x {
		c := v - p.Mean[i%d]
		centred.Data[i] = c
		p.Total += c * c / float64(n-1)
		largest = max(largest, math.Abs(p.Mean[i%d]))
	}
	// The mean of n equal numbers may be wrong by a few roundings.
	if floor := 8 * 0x1p-52 * largest; !(p.Total > float64(d)*floor*floor) {
		return nil, bad("data", "all rows are equal")
	}

	values, columns, err := components(centred, k)
	if err != nil {
		return nil, err
	}
	p.Basis, p.Variance = make([]float64, k*d), make([]float64, k)
	for j := range k {
		p.Variance[j] = max(0, values[j]) / float64(n-1)
		for i := range d {
			p.Basis[j*d+i] = columns.At(i, j)
		}
	}
	orient(p.Basis, k, d)
	return p, nil
}

// mean is corrected once by the mean of what remains.
func mean(x []float64, n, d int) []float64 {
	m := make([]float64, d)
	for range 2 {
		rest := make([]float64, d)
		for i := range n {
			for j, v := range x[i*d : (i+1)*d] {
				rest[j] += v - m[j]
			}
		}
		for j := range m {
			m[j] += rest[j] / float64(n)
		}
	}
	return m
}

// gramOf is XXᵀ, or XᵀX. Only the blocks above the diagonal are multiplied.
func gramOf(x blas64.General, transposed bool) *mat.SymDense {
	m := x.Rows
	if transposed {
		m = x.Cols
	}
	const block = 256
	gram := blas64.General{Rows: m, Cols: m, Stride: m, Data: make([]float64, m*m)}
	for i := 0; i < m; i += block {
		h := min(block, m-i)
		out := blas64.General{Rows: h, Cols: m - i, Stride: m, Data: gram.Data[i*m+i:]}
		if transposed {
			left := blas64.General{Rows: x.Rows, Cols: h, Stride: x.Stride, Data: x.Data[i:]}
			right := blas64.General{Rows: x.Rows, Cols: m - i, Stride: x.Stride, Data: x.Data[i:]}
			blas64.Gemm(blas.Trans, blas.NoTrans, 1, left, right, 0, out)
		} else {
			left := blas64.General{Rows: h, Cols: x.Cols, Stride: x.Stride, Data: x.Data[i*x.Stride:]}
			right := blas64.General{Rows: m - i, Cols: x.Cols, Stride: x.Stride, Data: x.Data[i*x.Stride:]}
			blas64.Gemm(blas.NoTrans, blas.Trans, 1, left, right, 0, out)
		}
	}
	for i := range m {
		for j := range i {
			gram.Data[i*m+j] = gram.Data[j*m+i]
		}
	}
	return mat.NewSymDense(m, gram.Data)
}

// Full decompositions are cubic with a large constant: see the benchmark.
const (
	dense      = 400  // of this size or below, always
	part       = 0.5  // of the size or more components: always
	oversample = 0.1  // of k, and at least 32 columns
	powers     = 6    // multiplications by the Gram matrix
	seed       = 1940 // of the range finder's draws
)

// components returns the k leading eigenvalues of xᵀx, descending, and
// orthonormal eigenvectors as the columns of (d, k).
func components(x blas64.General, k int) ([]float64, *mat.Dense, error) {
	wide := x.Rows < x.Cols
	gram := gramOf(x, !wide)
	m := gram.SymmetricDim()
	columns := k + max(32, int(oversample*float64(k)))
	if m <= dense || float64(columns) >= part*float64(m) {
		values, vectors, err := top(gram, k)
		if err == nil && wide {
			vectors = across(x, vectors)
		}
		return values, vectors, err
	}
	draws := make([]float64, m*columns)
	if err := philox.HostNormal(draws, columns, philox.Draw{Seed: seed}); err != nil {
		return nil, nil, err
	}
	q := mat.NewDense(m, columns, draws)
	for range powers {
		q = orthonormal(times(gram, q))
	}
	// The best of the range found, among directions of the data space.
	core := &mat.Dense{}
	if wide {
		q = across(x, q)
		var image mat.Dense
		image.Mul(mat.NewDense(x.Rows, x.Cols, x.Data), q)
		core.Mul(image.T(), &image)
	} else {
		core.Mul(q.T(), times(gram, q))
	}
	half := mat.NewSymDense(columns, nil)
	for i := range columns {
		for j := i; j < columns; j++ {
			half.SetSym(i, j, (core.At(i, j)+core.At(j, i))/2)
		}
	}
	values, small, err := top(half, k)
	if err != nil {
		return nil, nil, err
	}
	vectors := &mat.Dense{}
	vectors.Mul(q, small)
	return values, vectors, nil
}

// times is s q. It uses both triangles of s, which gramOf fills: gonum multiplies
// plain matrices on all cores, symmetric ones on one.
func times(s *mat.SymDense, q *mat.Dense) *mat.Dense {
	r := s.RawSymmetric()
	out := &mat.Dense{}
	out.Mul(mat.NewDense(r.N, r.N, r.Data), q)
	return out
}

// top returns the k leading eigenvalues, descending, and their eigenvectors as
// columns, by full decomposition.
func top(s *mat.SymDense, k int) ([]float64, *mat.Dense, error) {
	m := s.SymmetricDim()
	var e mat.EigenSym
	if !e.Factorize(s, true) {
		return nil, nil, errors.New("latent: an eigendecomposition did not converge")
	}
	var all mat.Dense
	e.VectorsTo(&all)
	ascending := e.Values(nil)
	values := make([]float64, k)
	vectors := mat.NewDense(m, k, nil)
	for j := range k {
		values[j] = ascending[m-1-j]
		for i := range m {
			vectors.Set(i, j, all.At(i, m-1-j))
		}
	}
	return values, vectors, nil
}

// orthonormal is an orthonormal basis of a's columns, by Householder's QR: it
// is complete even where they are dependent, and leading columns span what
// a's leading columns do.
func orthonormal(a *mat.Dense) *mat.Dense {
	r := a.RawMatrix()
	tau := make([]float64, r.Cols)
	work := make([]float64, 1)
	lapack64.Geqrf(r, tau, work, -1)
	work = make([]float64, int(work[0]))
	lapack64.Geqrf(r, tau, work, len(work))
	lapack64.Orgqr(r, tau, work[:1], -1)
	work = make([]float64, int(work[0]))
	lapack64.Orgqr(r, tau, work, len(work))
	return a
}

// across takes columns u of the small side (n, ·) to orthonormal ones of the
// data space (d, ·), which span the xᵀu. Where such a column is rounding, QR
// puts in its place what is orthogonal to the others.
func across(x blas64.General, u *mat.Dense) *mat.Dense {
	_, k := u.Dims()
	out := mat.NewDense(x.Cols, k, nil)
	blas64.Gemm(blas.Trans, blas.NoTrans, 1, x, u.RawMatrix(), 0, out.RawMatrix())
	for j := range k {
		column := blas64.Vector{N: x.Cols, Inc: k, Data: out.RawMatrix().Data[j:]}
		if norm := blas64.Nrm2(column); norm > 0 {
			blas64.Scal(1/norm, column)
		}
	}
	return orthonormal(out)
}

// orient makes the first entry of largest magnitude of each row positive;
// entries that differ by rounding count as equally large.
func orient(basis []float64, k, d int) {
	for j := range k {
		row := basis[j*d : (j+1)*d]
		largest := 0.0
		for _, v := range row {
			largest = max(largest, math.Abs(v))
		}
		for _, v := range row {
			if math.Abs(v) >= largest*(1-1e-9) {
				if v < 0 {
					blas64.Scal(-1, blas64.Vector{N: d, Inc: 1, Data: row})
				}
				break
			}
		}
	}
}
