package gaussian

import (
	"errors"
	"math"

	"gonum.org/v1/gonum/mat"
)

// Plan is the entropic coupling of two normal laws: the joint law of (X₀, X₁)
// that is nearest, in relative entropy, to X₀ followed by X₁|X₀ ~ N(F X₀, Q).
type Plan struct {
	Source, Target Normal
	// X₁|X₀ ~ N(Gain X₀ + Offset, Noise).
	Affine
	Noise *mat.SymDense // (d, d)
	// Information is KL(plan ‖ Source⊗Target), the mutual information in nats.
	Information float64
	// KL is the plan's relative entropy, in nats, to Source followed by the
	// reference's transition. It is that of the bridge's path law as well.
	KL float64

	gamma *mat.Dense // ŜQ⁻¹
}

// transition is X_t|X_s ~ N(F X_s, Q).
type transition struct {
	f *mat.Dense
	q *mat.SymDense
}

// Couple returns the plan under the transition X₁|X₀ ~ N(F X₀, Q). f is (d, d),
// singular or not; q is (d, d), positive definite. The source may be singular.
func Couple(source, target Normal, f *mat.Dense, q *mat.SymDense) (*Plan, error) {
	m, l, err := pair(source, target)
	if err != nil {
		return nil, err
	}
	d := source.Dim()
	if f == nil || q == nil {
		return nil, bad("transition", "no matrices F and Q")
	}
	if r, c := f.Dims(); r != d || c != d || q.SymmetricDim() != d {
		return nil, bad("transition", "F is (%d, %d) and Q of dimension %d, want (%d, %d) and %d", r, c, q.SymmetricDim(), d, d, d)
	}
	if err := errors.Join(finite("transition F", f), finite("transition Q", q)); err != nil {
		return nil, err
	}
	return couple(source, target, m, l, transition{f, q})
}

// couple evaluates the package's formula. Q is taken apart into a scale s and
// Q' of mean variance one, so that the numbers keep their size as Q goes to 0:
// with MᵀFᵀQ'⁻¹L = UσWᵀ, Ŝ = s L W (s/2 + (s²/4 + σ²)^½)⁻¹ WᵀLᵀ.
func couple(source, target Normal, m, l *mat.Dense, k transition) (*Plan, error) {
	d := source.Dim()
	s := mat.Trace(k.q) / float64(d)
	if !(s > 0) {
		return nil, bad("transition Q", "mean variance %g, want a positive definite matrix", s)
	}
	unit := mat.NewSymDense(d, nil)
	unit.ScaleSym(1/s, k.q)
	root, err := factor("transition Q", unit)
	if err != nil {
		return nil, err
	}
	var chol mat.Cholesky
	if !chol.Factorize(unit) {
		return nil, bad("transition Q", "not positive definite")
	}
	weighed := &mat.Dense{} // Q'⁻¹F
	inverse := &mat.Dense{}
	if err := errors.Join(solved(chol.SolveTo(weighed, k.f)), solved(chol.SolveTo(inverse, identity(d, 1)))); err != nil {
		return nil, err
	}
	lambda, v, err := shrink(s, product(weighed, m), l)
	if err != nil {
		return nil, err
	}
	p := &Plan{Source: source.clone(), Target: target.clone()}
	p.Noise = mat.NewSymDense(d, nil)
	p.Noise.ScaleSym(s, lambda)
	p.gamma = product(lambda, inverse)
	p.Gain = product(lambda, weighed)
	p.Offset = minus(target.Mean, apply(p.Gain, source.Mean))
	for _, x := range v {
		p.Information += math.Log(x/s) / 2
	}

	// KL: with e = (Gain - F)(X₀ - m₀) + (m₁ - F m₀) the shift of a conditional
	// mean, ½ [tr Q⁻¹Ŝ - d - log det Q⁻¹Ŝ + E|e|²_{Q⁻¹}].
	var off mat.Dense
	off.Sub(p.Gain, k.f)
	spread := product(&off, m)
	shift := minus(target.Mean, apply(k.f, source.Mean))
	logdet := -2 * p.Information
	for i := range d {
		logdet += 2*math.Log(l.At(i, i)/root.At(i, i)) - math.Log(s)
	}
	var white, whiteShift mat.Dense
	if err := errors.Join(solved(white.Solve(root, spread)), solved(whiteShift.Solve(root, mat.NewDense(d, 1, shift)))); err != nil {
		return nil, err
	}
	square := (squares(white.RawMatrix().Data) + squares(whiteShift.RawMatrix().Data)) / s
	p.KL = (mat.Trace(p.gamma) - float64(d) - logdet + square) / 2
	return p, nil
}

// shrink returns Λ = L W v⁻¹ WᵀLᵀ with v = s/2 + (s²/4 + σ²)^½, where σ and W
// are singular values and right singular vectors of aᵀL.
func shrink(s float64, a, l *mat.Dense) (*mat.SymDense, []float64, error) {
	half, v, err := shrinkRoot(s, a, l)
	if err != nil {
		return nil, nil, err
	}
	out := mat.NewSymDense(len(v), nil)
	out.SymOuterK(1, half)
	return out, v, nil
}

// shrinkRoot returns L W v^-½, a root of Λ.
func shrinkRoot(s float64, a, l *mat.Dense) (*mat.Dense, []float64, error) {
	w, v, err := svd(product(a.T(), l))
	if err != nil {
		return nil, nil, err
	}
	for i, sigma := range v {
		v[i] = s/2 + math.Hypot(s/2, sigma)
	}
	half := product(l, w)
	half.Apply(func(_, j int, x float64) float64 { return x / math.Sqrt(v[j]) }, half)
	return half, v, nil
}

// svd returns the right singular vectors of a as columns, and the values.
func svd(a *mat.Dense) (v *mat.Dense, values []float64, err error) {
	var f mat.SVD
	if !f.Factorize(a, mat.SVDFullV) {
		return nil, nil, errors.New("gaussian: a singular value decomposition did not converge")
	}
	v = &mat.Dense{}
	f.VTo(v)
	return v, f.Values(nil), nil
}

// solved lets a badly conditioned solution pass: the matrices were found
// positive definite before, and the caller's residuals tell.
func solved(err error) error {
	var condition mat.Condition
	if errors.As(err, &condition) && !math.IsInf(float64(condition), 1) {
		return nil
	}
	return err
}

// Transport returns the entropic optimal transport plan for the cost
// |x-y|²/2 and the regulariser epsilon·KL(P ‖ Source⊗Target): the plan under
// X₁|X₀ ~ N(X₀, epsilon·I).
//
// epsilon = 0 is the optimal transport limit (Gelbrich 1990): Noise is zero,
// Gain the symmetric matrix of the Monge map, Information and KL are infinite,
// and twice Cost is the squared Bures–Wasserstein distance. It needs a positive
// definite source.
func Transport(source, target Normal, epsilon float64) (*Plan, error) {
	m, l, err := pair(source, target)
	if err != nil {
		return nil, err
	}
	d := source.Dim()
	if epsilon != 0 {
		if err := positive("epsilon", epsilon); err != nil {
			return nil, err
		}
		return couple(source, target, m, l, transition{mat.DenseCopyOf(identity(d, 1)), identity(d, epsilon)})
	}
	if m, err = source.factor("source"); err != nil {
		return nil, err
	}
	lambda, _, err := shrink(0, m, l)
	if err != nil {
		return nil, err
	}
	gain := mat.DenseCopyOf(lambda)
	return &Plan{
		Source: source.clone(), Target: target.clone(),
		Affine: Affine{gain, minus(target.Mean, apply(gain, source.Mean))},
		Noise:  mat.NewSymDense(d, nil), Information: math.Inf(1), KL: math.Inf(1),
	}, nil
}

// LightSB returns the one-component potential that solves the bridge exactly,
// with epsilon the variance of the Brownian reference over the whole time:
//
//	v(y) = N(y | r, epsilon·S),  SΣ₀S + epsilon·S = Σ₁,  r = m₁ - S m₀.
//
// Source: Korotin, Gushchin and Burnaev, "Light Schrödinger bridge", 2024,
// whose adjusted potential it is.
func LightSB(source, target Normal, epsilon float64) (s *mat.SymDense, r []float64, err error) {
	if err := positive("epsilon", epsilon); err != nil {
		return nil, nil, err
	}
	p, err := Transport(source, target, epsilon)
	if err != nil {
		return nil, nil, err
	}
	return symmetric(p.Gain), p.Offset, nil
}

// Cross is Cov(X₀, X₁) = Σ₀ Gainᵀ.
func (p *Plan) Cross() *mat.Dense { return product(p.Source.Cov, p.Gain.T()) }

// Cost is E|X₀ - X₁|²/2.
func (p *Plan) Cost() float64 {
	move := mat.DenseCopyOf(p.Gain)
	for i := range p.Source.Dim() {
		move.Set(i, i, move.At(i, i)-1)
	}
	spread := mat.Trace(product(move, p.Source.Cov, move.T())) + mat.Trace(p.Noise)
	return (spread + squares(minus(p.Target.Mean, p.Source.Mean))) / 2
}

// Value is Cost + epsilon·Information: of a plan of Transport at the same
// epsilon, the optimal value.
func (p *Plan) Value(epsilon float64) float64 {
	if epsilon == 0 {
		return p.Cost()
	}
	return p.Cost() + epsilon*p.Information
}

// Joint is the law of (X₀, X₁) in 2d dimensions.
func (p *Plan) Joint() Normal {
	d := p.Source.Dim()
	c := p.Cross()
	j := Dirac(append(append([]float64(nil), p.Source.Mean...), p.Target.Mean...))
	for i := range d {
		for k := range d {
			j.Cov.SetSym(i, d+k, c.At(i, k))
			j.Cov.SetSym(i, k, p.Source.Cov.At(i, k))
			j.Cov.SetSym(d+i, d+k, p.Target.Cov.At(i, k))
		}
	}
	return j
}
