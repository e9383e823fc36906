package gaussian

import (
	"context"
	"errors"
	"math"

	"gonum.org/v1/gonum/mat"
)

// BassProblem is the Schrödinger–Bass problem between two normal laws,
//
//	J = inf E ∫₀ᵀ |α|² + Beta |σ - √Epsilon I|²_F dt,  dX = α dt + σ dW,
//
// X₀ ~ Source, X_T ~ Target. Beta = +Inf fixes σ = √Epsilon I: the Schrödinger
// bridge. Small Beta lets the volatility do the work.
type BassProblem struct {
	Source, Target Normal
	Epsilon        float64
	Beta           float64 // above 0, +Inf included
	T              float64 // 0 means 1
}

// Validate reports every fault at once, but for sizes that do not match.
func (p BassProblem) Validate() error {
	_, err0 := p.Source.root("source")
	_, err1 := p.Target.factor("target")
	errs := []error{err0, err1, positive("epsilon", p.Epsilon), positive("horizon", horizon(p.T))}
	if !math.IsInf(p.Beta, 1) {
		errs = append(errs, positive("beta", p.Beta))
	}
	return errors.Join(errs...)
}

// Bass is the solution of a BassProblem. Its quantities are functions of one
// positive definite matrix δ, R = (b/(1+b) - δ)/T with b = Beta·T, which is why
// nothing cancels: with ω = δ + 1/(1+b) and τ = t/T,
//
//	ω_τ = (1-τ) ω + τ,  η_τ = (1-τ)(1+1/b) δ + τ (δ/b + b/(1+b))
//	q_t = R ω_τ⁻¹,  κ_t = R η_τ⁻¹,  σ_t = √Epsilon ω_τ η_τ⁻¹.
type Bass struct {
	BassProblem
	// R = D²v(T) is the curvature of the terminal potential, below
	// Beta/(1+Beta·T).
	R *mat.SymDense
	// S and Offset are the Brownian plan Y_T|Y₀ ~ N(S Y₀ + Offset, Epsilon·T·S)
	// behind the bridge: the one-component potential of LightSBB-M.
	// S is above 1/(1+Beta·T).
	S      *mat.SymDense
	Offset []float64
	// Cross is Cov(X₀, X_T).
	Cross *mat.Dense
	// J is the optimal cost as defined, without the factor ½ that the dual has.
	J float64
	// Dual is E_Target ψ - E_Source v(0,·), the dual value of the potential R,
	// and equals J/2.
	Dual float64
	// Residual is |Σ_T(R) - Σ_T| relative to |Σ_T|, in the Frobenius norm.
	Residual float64
	// Iterations counts Newton steps.
	Iterations int

	shrink  float64 // 1/b
	vectors *mat.Dense
	delta   []float64
}

// SolveBass solves p. For every p that is valid the solution exists and is
// unique; the Newton iteration that finds it stops with ctx.
//
// Source: the problem and its linearisation are those of LightSBB-M (arXiv
// 2601.19312); the equation for R is the stationarity of their dual for
// quadratic potentials.
func SolveBass(ctx context.Context, p BassProblem) (*Bass, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if _, _, err := pair(p.Source, p.Target); err != nil {
		return nil, err
	}
	p.T = horizon(p.T)
	if b := p.Beta * p.T; !math.IsInf(p.Beta, 1) {
		if err := positive("beta times horizon", b); err != nil {
			return nil, err
		}
	}
	if err := positive("epsilon times horizon", p.Epsilon*p.T); err != nil {
		return nil, err
	}
	p.Source, p.Target = p.Source.clone(), p.Target.clone()
	s := &Bass{BassProblem: p, shrink: 1 / (p.Beta * p.T)}
	if err := s.solve(ctx); err != nil {
		return nil, err
	}

	T := p.T
	s.R = s.function(func(delta float64) float64 { return s.curvature(delta) / T })
	s.S = s.function(func(delta float64) float64 { return s.eta(delta, 1) / s.eta(delta, 0) })
	s.Cross = product(p.Source.Cov, s.function(func(delta float64) float64 { return 1 / s.omega(delta, 0) }))
	y0, yT := s.latentMean(0), s.latentMean(1)
	s.Offset = minus(yT, apply(s.S, y0))
	s.J, s.Dual = s.values()
	return s, nil
}

// omega is ω_τ and eta is η_τ at an eigenvalue of δ; curvature is R·T.
func (s *Bass) omega(delta, tau float64) float64 {
	return (1-tau)*(delta+s.shrink/(1+s.shrink)) + tau
}

func (s *Bass) eta(delta, tau float64) float64 {
	return (1-tau)*(1+s.shrink)*delta + tau*(s.shrink*delta+1/(1+s.shrink))
}

func (s *Bass) curvature(delta float64) float64 { return 1/(1+s.shrink) - delta }

// function is f of the matrix δ.
func (s *Bass) function(f func(delta float64) float64) *mat.SymDense {
	scaled := mat.DenseCopyOf(s.vectors)
	scaled.Apply(func(_, j int, x float64) float64 { return x * f(s.delta[j]) }, scaled)
	return symmetric(product(scaled, s.vectors.T()))
}

// values are J and the dual.
//
//	J      = |m_T-m₀|²/T + T tr q₀Σ₀q₀ + ε tr(κ₀T - log S) + (ε/β) tr(κ₀ - κ_T)
//	2 Dual = |m_T-m₀|²/T + tr RΣ_T - tr q₀Σ₀ - ε log det S
func (s *Bass) values() (j, dual float64) {
	T := s.T
	shift := squares(minus(s.Target.Mean, s.Source.Mean)) / T
	j, dual = shift, shift
	rotated0 := product(s.vectors.T(), s.Source.Cov, s.vectors)
	rotated1 := product(s.vectors.T(), s.Target.Cov, s.vectors)
	for i, delta := range s.delta {
		rT := s.curvature(delta)
		q0 := rT / T / s.omega(delta, 0)
		k0, k1 := rT/T/s.eta(delta, 0), rT/T/s.eta(delta, 1)
		logS := math.Log(s.eta(delta, 1) / s.eta(delta, 0))
		j += T*q0*q0*rotated0.At(i, i) + s.Epsilon*(k0*T-logS) + s.Epsilon*T*s.shrink*(k0-k1)
		dual += rT/T*rotated1.At(i, i) - q0*rotated0.At(i, i) - s.Epsilon*logS
	}
	return j, dual / 2
}

// mean is that of X_t, which is linear; latentMean is that of Y_t.
func (s *Bass) mean(tau float64) []float64 { return along(s.Source.Mean, s.Target.Mean, tau) }

func (s *Bass) latentMean(tau float64) []float64 {
	m := s.mean(tau)
	for i, v := range minus(s.Target.Mean, s.Source.Mean) {
		m[i] -= v * s.shrink
	}
	return m
}

// Marginal is the law of X_t, with covariance
// M Σ₀ M + Epsilon t ω_τ² η_τ⁻¹ η₀⁻¹, M = ω_τ ω₀⁻¹.
func (s *Bass) Marginal(t float64) (Normal, error) {
	if err := checkTime(t, s.T); err != nil {
		return Normal{}, err
	}
	tau := t / s.T
	m := s.function(func(delta float64) float64 { return s.omega(delta, tau) / s.omega(delta, 0) })
	cov := product(m, s.Source.Cov, m)
	cov.Add(cov, s.function(func(delta float64) float64 {
		w := s.omega(delta, tau)
		return s.Epsilon * t * (w / s.eta(delta, tau)) * (w / s.eta(delta, 0))
	}))
	return Normal{Mean: s.mean(tau), Cov: symmetric(cov)}, nil
}

// Drift is α(t, x) = (m_T - m₀)/T + q_t (x - m_t).
func (s *Bass) Drift(t float64) (Affine, error) {
	return s.about(t, s.mean, func(delta, tau float64) float64 { return s.curvature(delta) / s.T / s.omega(delta, tau) })
}

// Control is s(t, y) = ε∇log h_t(y) = (m_T - m₀)/T + κ_t (y - E Y_t), the drift
// as a function of Y_t: Y is the Schrödinger bridge dY = s dt + √Epsilon dW.
func (s *Bass) Control(t float64) (Affine, error) {
	return s.about(t, s.latentMean, func(delta, tau float64) float64 { return s.curvature(delta) / s.T / s.eta(delta, tau) })
}

// about is the map x ↦ (m_T-m₀)/T + f(δ)(x - centre_τ).
func (s *Bass) about(t float64, centre func(float64) []float64, f func(delta, tau float64) float64) (Affine, error) {
	if err := checkTime(t, s.T); err != nil {
		return Affine{}, err
	}
	tau := t / s.T
	gain := s.function(func(delta float64) float64 { return f(delta, tau) })
	offset := apply(gain, centre(tau))
	for i, v := range minus(s.Target.Mean, s.Source.Mean) {
		offset[i] = v/s.T - offset[i]
	}
	return Affine{Gain: mat.DenseCopyOf(gain), Offset: offset}, nil
}

// Sigma is the volatility σ_t, symmetric positive definite.
func (s *Bass) Sigma(t float64) (*mat.SymDense, error) {
	if err := checkTime(t, s.T); err != nil {
		return nil, err
	}
	return s.function(func(delta float64) float64 {
		return math.Sqrt(s.Epsilon) * s.omega(delta, t/s.T) / s.eta(delta, t/s.T)
	}), nil
}

// Map is X_t as a function of Y_t, y + s(t,y)/Beta = m_t + σ_t/√Epsilon (y - E Y_t).
func (s *Bass) Map(t float64) (Affine, error) {
	return s.between(t, s.latentMean, s.mean, func(delta, tau float64) float64 { return s.omega(delta, tau) / s.eta(delta, tau) })
}

// Inverse is Y_t as a function of X_t.
func (s *Bass) Inverse(t float64) (Affine, error) {
	return s.between(t, s.mean, s.latentMean, func(delta, tau float64) float64 { return s.eta(delta, tau) / s.omega(delta, tau) })
}

// between is the map with the gain f(δ) that takes one mean to another.
func (s *Bass) between(t float64, from, to func(float64) []float64, f func(delta, tau float64) float64) (Affine, error) {
	if err := checkTime(t, s.T); err != nil {
		return Affine{}, err
	}
	tau := t / s.T
	gain := mat.DenseCopyOf(s.function(func(delta float64) float64 { return f(delta, tau) }))
	return Affine{Gain: gain, Offset: minus(to(tau), apply(gain, from(tau)))}, nil
}
