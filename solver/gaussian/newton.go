package gaussian

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// The equation for δ, all covariances in units of ε·T, is
//
//	Σ₁ = g Σ₀ g + n,  g = (δ+a)⁻¹,  n = (δ(1+uδ))⁻¹,  a = 1/(1+b),  u = (1+b)/b²,
//
// the stationarity of the convex function
//
//	φ(δ) = tr δΣ₁ + tr gΣ₀ - log det δ + log det(1+uδ)
//
// on positive definite matrices, which is infinite at their boundary: twice the
// negative of the dual in R. Its second derivative needs no derivative of a
// matrix function but products, since n = δ⁻¹ - (δ+1/u)⁻¹:
//
//	H(E) = gEΩ + ΩEg + k∘E,  Ω = gΣ₀g,  k_ij = (1+u(δ_i+δ_j)) / (δ_iδ_j(1+uδ_i)(1+uδ_j))
//
// in the eigenbasis of δ. Newton's step E is taken in log δ, so that eigenvalues
// stay positive and small ones keep their digits beside large ones.
type equation struct {
	a, u           float64
	sigma0, sigma1 *mat.SymDense
}

// point is what is known at δ; matrices are in the eigenbasis.
type point struct {
	vectors  *mat.Dense
	delta    []float64
	g        []float64
	omega    *mat.Dense
	gradient *mat.Dense // Σ₁ - gΣ₀g - n
	phi      float64
	noise    float64 // of phi, from rounding
	graded   float64 // largest |gradient_ij| / √(Σ₁_ii Σ₁_jj)
	norm     float64 // |gradient| / |Σ₁|
}

// at evaluates the equation where δ has these eigenvectors and log eigenvalues.
func (e equation) at(vectors *mat.Dense, logs []float64) *point {
	d := len(logs)
	p := &point{vectors: vectors, delta: make([]float64, d), g: make([]float64, d)}
	p.omega = product(vectors.T(), e.sigma0, vectors)
	target := product(vectors.T(), e.sigma1, vectors)
	size0, size1 := mat.Norm(p.omega, 2), mat.Norm(target, 2)
	for i, l := range logs {
		delta := math.Exp(l)
		p.delta[i], p.g[i] = delta, 1/(delta+e.a)
		terms := [...]float64{delta * target.At(i, i), p.g[i] * p.omega.At(i, i), -l, math.Log1p(e.u * delta)}
		for _, v := range terms {
			p.phi += v
			p.noise += math.Abs(v)
		}
		p.noise += delta*size1 + p.g[i]*size0 // entries of a rotated matrix are as wrong as its largest
	}
	p.noise *= 4 * epsilon
	p.gradient = mat.NewDense(d, d, nil)
	for i := range d {
		for j := range d {
			w := p.g[i] * p.omega.At(i, j) * p.g[j]
			p.omega.Set(i, j, w)
			r := target.At(i, j) - w
			if i == j {
				r -= 1 / (p.delta[i] * (1 + e.u*p.delta[i]))
			}
			p.gradient.Set(i, j, r)
			p.graded = max(p.graded, math.Abs(r)/math.Sqrt(target.At(i, i)*target.At(j, j)))
		}
	}
	p.norm = mat.Norm(p.gradient, 2) / size1
	return p
}

// logarithmic is the derivative of log at δ in the direction E.
func (p *point) logarithmic(e *mat.Dense) *mat.Dense {
	out := mat.DenseCopyOf(e)
	out.Apply(func(i, j int, v float64) float64 {
		x, y := min(p.delta[i], p.delta[j]), max(p.delta[i], p.delta[j])
		gap := (y - x) / x
		if gap < 1e-8 {
			return v / x * (1 - gap/2)
		}
		return v / x * math.Log1p(gap) / gap
	}, out)
	return out
}

// move evaluates the equation at log δ + t·step.
func (e equation) move(p *point, step *mat.Dense, t float64) (*point, error) {
	d := len(p.delta)
	theta := mat.NewSymDense(d, nil)
	for i := range d {
		for j := i; j < d; j++ {
			theta.SetSym(i, j, t*step.At(i, j))
		}
		theta.SetSym(i, i, theta.At(i, i)+math.Log(p.delta[i]))
	}
	logs, turn, err := eigen(theta)
	if err != nil {
		return nil, err
	}
	return e.at(product(p.vectors, turn), logs), nil
}

const (
	longest    = 4.0 // of a step, in log δ
	newtons    = 2000
	acceptable = 1e-8 // residual at which a stall is the end, not a failure
)

// scalar is log δ of the scalar equation whose Schrödinger bridge has the
// number v for S, so that σ₀ = (σ₁-v)/v²: by bisection, to a hundredth.
func (e equation) scalar(v, sigma1 float64) float64 {
	sigma0 := (sigma1 - v) / v / v
	low, high := -700.0, 700.0
	for high-low > 0.01 {
		middle := (low + high) / 2
		delta := math.Exp(middle)
		if sigma0/(delta+e.a)/(delta+e.a)+1/delta/(1+e.u*delta) > sigma1 {
			low = middle
		} else {
			high = middle
		}
	}
	return (low + high) / 2
}

// solve finds δ. It starts from the eigenvectors of the Schrödinger bridge's S,
// in which SΣ₀S + S = Σ₁ has a diagonal, and solves that.
func (s *Bass) solve(ctx context.Context) error {
	d := s.Source.Dim()
	scale := 1 / (s.Epsilon * s.T)
	e := equation{a: s.shrink / (1 + s.shrink), u: s.shrink * (1 + s.shrink), sigma0: mat.NewSymDense(d, nil), sigma1: mat.NewSymDense(d, nil)}
	e.sigma0.ScaleSym(scale, s.Source.Cov)
	e.sigma1.ScaleSym(scale, s.Target.Cov)
	m, l, err := pair(Normal{s.Source.Mean, e.sigma0}, Normal{s.Target.Mean, e.sigma1})
	if err != nil {
		return err
	}
	root, _, err := shrinkRoot(1, m, l)
	if err != nil {
		return err
	}
	vectors, values, err := svd(mat.DenseCopyOf(root.T())) // of S = root·rootᵀ
	if err != nil {
		return err
	}
	target := product(vectors.T(), e.sigma1, vectors)
	for i, v := range values {
		v *= v
		values[i] = e.scalar(v, max(target.At(i, i), v))
	}
	p := e.at(vectors, values)
	stalls := 0
	for p.graded > 8*float64(d)*epsilon && stalls < 3 && s.Iterations < newtons {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.Iterations++
		step := e.hessian(p).newton(ctx, min(0.01, max(p.graded, 1e-12)))
		slope := dot(step, p.gradient)
		logarithm := p.logarithmic(step)
		t := min(1, longest/max(floats.Max(logarithm.RawMatrix().Data), -floats.Min(logarithm.RawMatrix().Data)))
		next, err := e.move(p, logarithm, t)
		for ; err == nil && !(next.phi <= p.phi+1e-4*t*slope+p.noise) && t > 1e-10; t /= 2 {
			next, err = e.move(p, logarithm, t/2)
		}
		if err != nil {
			return err
		}
		if p.norm < acceptable && next.graded > p.graded/2 {
			stalls++ // at the floor of rounding
		} else {
			stalls = 0
		}
		if p.norm >= acceptable || next.graded < p.graded {
			p = next
		}
	}
	if !(p.norm <= acceptable) {
		return fmt.Errorf("gaussian: bass: not solved: residual %g after %d Newton steps", p.norm, s.Iterations)
	}
	s.vectors, s.delta, s.Residual = p.vectors, p.delta, p.norm
	return nil
}
