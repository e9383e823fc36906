package gaussian

import (
	"gonum.org/v1/gonum/mat"
)

// Bridge is the Schrödinger bridge of two normal laws under a linear reference:
// of all processes with these marginals at 0 and T, the one nearest to the
// reference in relative entropy. With F = F(t,T), H = Q(t,T) and Q_t = Q(0,t) of
// the reference's transitions, Γ = ŜQ⁻¹ and r of the plan,
//
//	∇log h_t(x) = Fᵀ (Γ F Q_t Fᵀ + H)⁻¹ ((Γ - I) F x + r)
//	dX = (A X + D ∇log h_t(X)) dt + dW
//
// which has no singularity at t = 0 or T. For Brownian motion it is the drift
// ((1-t/T)I + t/T·S)⁻¹(r + (S-I)x)/T.
type Bridge struct {
	Plan
	Reference Reference

	whole transition
}

// Solve returns the bridge from source at time 0 to target at the reference's
// horizon. The source may be singular, the target not.
func Solve(source, target Normal, ref Reference) (*Bridge, error) {
	if ref == nil {
		return nil, bad("reference", "none")
	}
	if err := ref.Validate(); err != nil {
		return nil, err
	}
	m, l, err := pair(source, target)
	if err != nil {
		return nil, err
	}
	d := source.Dim()
	if n := ref.dim(); n != 0 && n != d {
		return nil, bad("reference", "dimension %d, want %d as the marginals", n, d)
	}
	b := &Bridge{Reference: ref, whole: ref.over(ref.Horizon(), d)}
	p, err := couple(source, target, m, l, b.whole)
	if err != nil {
		return nil, err
	}
	b.Plan = *p
	return b, nil
}

func checkTime(t, horizon float64) error {
	if !(t >= 0 && t <= horizon) {
		return bad("time", "got %g, want one from 0 to %g", t, horizon)
	}
	return nil
}

// Marginal is the law of X_t. With R = Q_tFᵀQ⁻¹ and P = F(0,t) - R F(0,T),
// X_t = P X₀ + R X₁ + N(0, Q_t - R F Q_t).
func (b *Bridge) Marginal(t float64) (Normal, error) {
	T := b.Reference.Horizon()
	if err := checkTime(t, T); err != nil {
		return Normal{}, err
	}
	switch t {
	case 0:
		return b.Source.clone(), nil
	case T:
		return b.Target.clone(), nil
	}
	d := b.Source.Dim()
	before, after := b.Reference.over(t, d), b.Reference.over(T-t, d)
	var rt mat.Dense
	if err := solved(rt.Solve(b.whole.q, product(after.f, before.q))); err != nil {
		return Normal{}, err
	}
	r := mat.DenseCopyOf(rt.T())
	var p mat.Dense
	p.Sub(before.f, product(r, b.whole.f))
	cov := product(&p, b.Source.Cov, p.T())
	cov.Add(cov, product(r, b.Target.Cov, r.T()))
	mixed := product(&p, b.Cross(), r.T())
	cov.Add(cov, mixed)
	cov.Add(cov, mixed.T())
	cov.Add(cov, before.q)
	cov.Sub(cov, product(r, after.f, before.q))
	mean := apply(&p, b.Source.Mean)
	for i, v := range apply(r, b.Target.Mean) {
		mean[i] += v
	}
	return Normal{Mean: mean, Cov: symmetric(cov)}, nil
}

// Potential is ∇log h_t: the gradient of the logarithm of the backward
// potential, a control in units of the noise (D times it is added to the
// reference's drift).
func (b *Bridge) Potential(t float64) (Affine, error) {
	T := b.Reference.Horizon()
	if err := checkTime(t, T); err != nil {
		return Affine{}, err
	}
	d := b.Source.Dim()
	before, after := b.Reference.over(t, d), b.Reference.over(T-t, d)
	m := product(b.gamma, after.f, before.q, after.f.T())
	m.Add(m, after.q)
	right := mat.NewDense(d, d+1, nil)
	var gain mat.Dense
	gain.Sub(b.gamma, identity(d, 1))
	right.Slice(0, d, 0, d).(*mat.Dense).Mul(&gain, after.f)
	right.SetCol(d, b.Offset)
	var x mat.Dense
	if err := solved(x.Solve(m, right)); err != nil {
		return Affine{}, err
	}
	all := product(after.f.T(), &x)
	return Affine{Gain: mat.DenseCopyOf(all.Slice(0, d, 0, d)), Offset: mat.Col(nil, d, all)}, nil
}

// Drift is the bridge's drift A x + D ∇log h_t(x) at time t. Under a Brownian
// reference of horizon 1 its Gain is K_t of Bunne et al. and its value at the
// marginal's mean is m₁ - m₀.
func (b *Bridge) Drift(t float64) (Affine, error) {
	p, err := b.Potential(t)
	if err != nil {
		return Affine{}, err
	}
	a, noise := b.Reference.sde(b.Source.Dim())
	gain := product(noise, p.Gain)
	gain.Add(gain, a)
	return Affine{Gain: gain, Offset: apply(noise, p.Offset)}, nil
}

// Score is ∇log of the density of X_t, -Σ_t⁻¹(x - m_t). There is none at time
// 0 where the source is singular.
func (b *Bridge) Score(t float64) (Affine, error) {
	n, err := b.Marginal(t)
	if err != nil {
		return Affine{}, err
	}
	if _, err := n.factor("marginal"); err != nil {
		return Affine{}, err
	}
	var chol mat.Cholesky
	if !chol.Factorize(n.Cov) {
		return Affine{}, bad("marginal covariance", "not positive definite")
	}
	var precision mat.Dense
	if err := solved(chol.SolveTo(&precision, identity(n.Dim(), -1))); err != nil {
		return Affine{}, err
	}
	return Affine{Gain: &precision, Offset: apply(precision.T(), minus(make([]float64, n.Dim()), n.Mean))}, nil
}
