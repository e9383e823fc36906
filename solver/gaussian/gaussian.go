// Package gaussian holds the bridges that have closed forms: those between two
// normal laws N(m₀, Σ₀) and N(m₁, Σ₁), and of mixtures of them. All is float64; the cost is cubic in the
// dimension d.
//
//   - Couple, Transport and LightSB give the static plan, the joint law of
//     (X₀, X₁), under a linear transition X₁|X₀ ~ N(F X₀, Q).
//   - Solve gives the Schrödinger bridge under a linear process, Brownian, OU or
//     Linear: marginals, drift, score and potential at every time.
//   - SolveBass gives the Schrödinger–Bass bridge, whose volatility is paid for
//     as well.
//   - SolveMixture bridges two Gaussian mixtures by bridges of their components,
//     and FromPotentials has the exact bridge of given mixture potentials.
//
// # The plan
//
// Let Ŝ be the positive definite root of
//
//	Ŝ Q⁻¹FΣ₀FᵀQ⁻¹ Ŝ + Ŝ = Σ₁.
//
// Then X₁|X₀ ~ N(r + ŜQ⁻¹F X₀, Ŝ) with r = m₁ - ŜQ⁻¹F m₀. With Σ₁ = LLᵀ, Σ₀ = MMᵀ
// and the singular value decomposition MᵀFᵀQ⁻¹L = Uσ Wᵀ it is
//
//	Ŝ = L W (½ + (¼ + σ²)^½)⁻¹ WᵀLᵀ,
//
// in which nothing cancels, whatever the sizes of Σ₀, Σ₁ and Q, and Σ₀ may be
// singular: a point (Dirac) is a source like any other. For a Brownian
// reference of variance ε, Ŝ = εS where SΣ₀S + εS = Σ₁.
//
// Sources: Janati, Muzellec, Peyré and Cuturi, "Entropic optimal transport
// between unbalanced Gaussian measures has a closed form", 2020; Bunne, Hsieh,
// Cuturi and Krause, "The Schrödinger bridge between Gaussian measures has a
// closed form", 2023. The form above is equivalent to theirs.
//
// Arguments are never modified and never kept; what is returned is the
// caller's, but shared among the results of one call. Every error of an
// argument wraps ErrInvalid. Results do not depend on anything but the
// arguments.
package gaussian

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/mat"
)

// ErrInvalid is solver.ErrInvalid: an argument makes no sense; the text names
// it, what was found and what was wanted.
var ErrInvalid = solver.ErrInvalid

// Normal is the law N(Mean, Cov).
type Normal struct {
	Mean []float64     // (d)
	Cov  *mat.SymDense // (d, d)
}

// Isotropic is N(mean, variance·I).
func Isotropic(mean []float64, variance float64) Normal {
	n := Dirac(mean)
	for i := range mean {
		n.Cov.SetSym(i, i, variance)
	}
	return n
}

// Dirac is the point mass at mean, which may be a source but no target.
func Dirac(mean []float64) Normal {
	n := Normal{Mean: append([]float64(nil), mean...), Cov: &mat.SymDense{}}
	if len(mean) > 0 {
		n.Cov = mat.NewSymDense(len(mean), nil)
	}
	return n
}

// Dim is d.
func (n Normal) Dim() int { return len(n.Mean) }

// Validate says whether n is a law of positive density: finite numbers of at
// most 1e100, matching sizes, a covariance that is positive definite to working
// precision after its variances are scaled to one.
func (n Normal) Validate() error {
	_, err := n.factor("normal")
	return err
}

// largest keeps products of a few numbers finite.
const largest = 1e100

func bad(name, format string, v ...any) error {
	return fmt.Errorf("gaussian: %s: %w: %s", name, ErrInvalid, fmt.Sprintf(format, v...))
}

// check looks at sizes and numbers.
func (n Normal) check(name string) error {
	d := n.Dim()
	if d == 0 {
		return bad(name, "no mean, want at least one dimension")
	}
	if n.Cov == nil || n.Cov.SymmetricDim() != d {
		got := 0
		if n.Cov != nil {
			got = n.Cov.SymmetricDim()
		}
		return bad(name, "covariance of dimension %d, want %d as the mean", got, d)
	}
	for i, v := range n.Mean {
		if !(math.Abs(v) <= largest) {
			return bad(name, "mean[%d] is %g, want a finite number of at most %g", i, v, float64(largest))
		}
	}
	return finite(name+" covariance", n.Cov)
}

func finite(name string, m mat.Matrix) error {
	r, c := m.Dims()
	for i := range r {
		for j := range c {
			if v := m.At(i, j); !(math.Abs(v) <= largest) {
				return bad(name, "[%d, %d] is %g, want a finite number of at most %g", i, j, v, float64(largest))
			}
		}
	}
	return nil
}

// epsilon is the distance from 1 to the next float64.
const epsilon = 0x1p-52

// factor returns L, lower triangular, with Cov = LLᵀ.
func (n Normal) factor(name string) (*mat.Dense, error) {
	if err := n.check(name); err != nil {
		return nil, err
	}
	return factor(name+" covariance", n.Cov)
}

// factor scales variances to one first: what then is small is small because
// coordinates are nearly dependent, not because their units differ.
func factor(name string, cov *mat.SymDense) (*mat.Dense, error) {
	d := cov.SymmetricDim()
	deviation := make([]float64, d)
	for i := range d {
		v := cov.At(i, i)
		if !(v > 0) {
			return nil, bad(name, "variance %g of coordinate %d, want a positive definite matrix", v, i)
		}
		deviation[i] = math.Sqrt(v)
	}
	correlation := mat.NewSymDense(d, nil)
	for i := range d {
		for j := i; j < d; j++ {
			correlation.SetSym(i, j, cov.At(i, j)/deviation[i]/deviation[j])
		}
	}
	var chol mat.Cholesky
	if !chol.Factorize(correlation) {
		return nil, bad(name, "not positive definite")
	}
	var l mat.TriDense
	chol.LTo(&l)
	out := mat.NewDense(d, d, nil)
	for i := range d {
		if p := l.At(i, i); !(p*p > 8*float64(d)*epsilon) {
			return nil, bad(name, "singular to working precision: coordinate %d depends on those before it", i)
		}
		for j := range i + 1 {
			out.Set(i, j, deviation[i]*l.At(i, j))
		}
	}
	return out, nil
}

// root returns some M with Cov = MMᵀ; Cov may be singular.
func (n Normal) root(name string) (*mat.Dense, error) {
	if err := n.check(name); err != nil {
		return nil, err
	}
	if l, err := factor(name, n.Cov); err == nil {
		return l, nil
	}
	d := n.Dim()
	values, vectors, err := eigen(n.Cov)
	if err != nil {
		return nil, err
	}
	out := mat.NewDense(d, d, nil)
	for k, v := range values {
		if v < -64*float64(d)*epsilon*values[d-1] || values[d-1] < 0 {
			return nil, bad(name+" covariance", "eigenvalue %g, want no negative one", v)
		}
		for i := range d {
			out.Set(i, k, math.Sqrt(max(0, v))*vectors.At(i, k))
		}
	}
	return out, nil
}

// eigen returns the eigenvalues in ascending order and the eigenvectors as columns.
func eigen(s mat.Symmetric) ([]float64, *mat.Dense, error) {
	var e mat.EigenSym
	if !e.Factorize(s, true) {
		return nil, nil, errors.New("gaussian: an eigendecomposition did not converge")
	}
	vectors := &mat.Dense{}
	e.VectorsTo(vectors)
	return e.Values(nil), vectors, nil
}

// clone copies a law, so that results do not change with arguments.
func (n Normal) clone() Normal {
	cov := mat.NewSymDense(n.Dim(), nil)
	cov.CopySym(n.Cov)
	return Normal{Mean: append([]float64(nil), n.Mean...), Cov: cov}
}

// pair checks the two marginals of a problem and factors their covariances.
func pair(source, target Normal) (m, l *mat.Dense, err error) {
	m, err0 := source.root("source")
	l, err1 := target.factor("target")
	if err := errors.Join(err0, err1); err != nil {
		return nil, nil, err
	}
	if source.Dim() != target.Dim() {
		return nil, nil, bad("target", "dimension %d, want %d as the source", target.Dim(), source.Dim())
	}
	return m, l, nil
}

// positive says whether v is an honest strength or time.
func positive(name string, v float64) error {
	if !(v >= 1/largest && v <= largest) {
		return bad(name, "got %g, want a number from %g to %g", v, 1/float64(largest), float64(largest))
	}
	return nil
}

// Affine is the map x ↦ Gain x + Offset.
type Affine struct {
	Gain   *mat.Dense // (d, d)
	Offset []float64  // (d)
}

// At writes Gain x + Offset to dst, which must not overlap x; both are (d).
// It panics, as gonum does, where a length is wrong.
func (a Affine) At(dst, x []float64) {
	out := mat.NewVecDense(len(dst), dst)
	out.MulVec(a.Gain, mat.NewVecDense(len(x), x))
	blas64.Axpy(1, blas64.Vector{N: len(a.Offset), Inc: 1, Data: a.Offset}, out.RawVector())
}

// product is a times b times … .
func product(factors ...mat.Matrix) *mat.Dense {
	out := mat.DenseCopyOf(factors[0])
	for _, f := range factors[1:] {
		next := &mat.Dense{}
		next.Mul(out, f)
		out = next
	}
	return out
}

// apply is m x.
func apply(m mat.Matrix, x []float64) []float64 {
	r, _ := m.Dims()
	out := make([]float64, r)
	mat.NewVecDense(r, out).MulVec(m, mat.NewVecDense(len(x), x))
	return out
}

// minus is a - b.
func minus(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range out {
		out[i] = a[i] - b[i]
	}
	return out
}

// along is a + t (b - a).
func along(a, b []float64, t float64) []float64 {
	out := make([]float64, len(a))
	for i := range out {
		out[i] = (1-t)*a[i] + t*b[i]
	}
	return out
}

func squares(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v * v
	}
	return s
}

// symmetric is (a + aᵀ)/2.
func symmetric(a mat.Matrix) *mat.SymDense {
	d, _ := a.Dims()
	s := mat.NewSymDense(d, nil)
	for i := range d {
		for j := i; j < d; j++ {
			s.SetSym(i, j, (a.At(i, j)+a.At(j, i))/2)
		}
	}
	return s
}

// identity is v·I.
func identity(d int, v float64) *mat.SymDense {
	s := mat.NewSymDense(d, nil)
	for i := range d {
		s.SetSym(i, i, v)
	}
	return s
}
