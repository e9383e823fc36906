package gaussian

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// PotentialBridge is a Schrödinger bridge between two Gaussian mixtures that is
// known exactly, since it is given by its potentials and not by its marginals.
// With ε = Epsilon·T and two mixtures Left = Σ_i a_i N(q_i, P_i) and
// Right = Σ_k w_k N(r_k, V_k), its plan is
//
//	π(x, y) ∝ Left(x) exp(⟨x, y⟩/ε) Right(y),
//
// which is a bridge, since it is a function of x times one of y times the
// density of the Brownian motion √Epsilon·W. Right is the adjusted potential of
// LightSB (Korotin, Gushchin and Burnaev, 2024), V_k = ε S_k. The plan is a
// mixture of normal laws with a component for each pair (i, k), with precision
//
//	[ P_i⁻¹  -I/ε  ]
//	[ -I/ε   V_k⁻¹ ]
//
// so that the marginals, and the law of X_t, are mixtures in closed form. It is a
// test case with known answer for solvers of all kinds. Every bridge between two
// normal laws is one with one component each.
//
// Source is not free: it follows from Left and Right. Conditional and Drift
// depend on Right alone, and hold for every source; but of a source of one's own
// the target is no mixture.
type PotentialBridge struct {
	Left, Right Mixture
	Reference   Brownian
	// Plan is the joint law of (X_0, X_T) in 2d dimensions; component (i, k) is at
	// i·len(Right)+k.
	Plan Mixture
	// Source and Target are its marginals, with the same weights.
	Source, Target Mixture

	precisions []*mat.SymDense // V_k⁻¹
	logs       []float64       // log w_k - ½ log det V_k - ½ r_kᵀ V_k⁻¹ r_k
}

// FromPotentials returns the bridge. Covariances of both mixtures have to be
// positive definite, and the precision of each pair as well, which is that
// ε²V_k⁻¹ - P_i is: the potentials of a plan that has a mass.
func FromPotentials(left, right Mixture, ref Brownian) (*PotentialBridge, error) {
	for _, err := range []error{left.check("left"), right.check("right"), ref.Validate()} {
		if err != nil {
			return nil, err
		}
	}
	d := left.Dim()
	if right.Dim() != d {
		return nil, bad("right", "dimension %d, want %d as left", right.Dim(), d)
	}
	b := &PotentialBridge{Left: left.clone(), Right: right.clone(), Reference: ref}
	logsLeft, precisionsLeft, err := naturals("left", b.Left)
	if err != nil {
		return nil, err
	}
	if b.logs, b.precisions, err = naturals("right", b.Right); err != nil {
		return nil, err
	}
	eps := ref.Epsilon * ref.Horizon()
	var logs []float64
	for i, p := range precisionsLeft {
		for k, v := range b.precisions {
			joint := mat.NewSymDense(2*d, nil)
			for row := range d {
				for col := row; col < d; col++ {
					joint.SetSym(row, col, p.At(row, col))
					joint.SetSym(d+row, d+col, v.At(row, col))
				}
				joint.SetSym(row, d+row, -1/eps)
			}
			name := fmt.Sprintf("precision of components %d and %d", i, k)
			root, err := factor(name, joint)
			if err != nil {
				return nil, fmt.Errorf("%w (want P_i < ε² V_k⁻¹: smaller variances)", err)
			}
			linear := append(apply(p, b.Left.Components[i].Mean), apply(v, b.Right.Components[k].Mean)...)
			n, log, err := fromPrecision(joint, root, linear)
			if err != nil {
				return nil, err
			}
			b.Plan.Components = append(b.Plan.Components, n)
			logs = append(logs, logsLeft[i]+b.logs[k]+log)
		}
	}
	normalise(logs)
	b.Plan.Weights = logs
	b.Source, b.Target = b.side(0), b.side(d)
	return b, nil
}

// naturals are the precisions of a mixture's components, and the logarithms of
// their weighted densities at 0, but for (2π)^-d/2.
func naturals(name string, m Mixture) (logs []float64, precisions []*mat.SymDense, err error) {
	for k, n := range m.Components {
		root, err := n.factor(fmt.Sprintf("%s component %d", name, k))
		if err != nil {
			return nil, nil, err
		}
		precision, err := inverted(n.Cov)
		if err != nil {
			return nil, nil, err
		}
		log := math.Log(m.Weights[k])
		for i := range n.Dim() {
			log -= math.Log(root.At(i, i))
		}
		log -= mat.Dot(mat.NewVecDense(n.Dim(), n.Mean), mat.NewVecDense(n.Dim(), apply(precision, n.Mean))) / 2
		logs, precisions = append(logs, log), append(precisions, precision)
	}
	return logs, precisions, nil
}

// inverted is the inverse of a matrix that was found positive definite.
func inverted(s *mat.SymDense) (*mat.SymDense, error) {
	var chol mat.Cholesky
	if !chol.Factorize(s) {
		return nil, bad("covariance", "not positive definite")
	}
	out := &mat.SymDense{}
	return out, solved(chol.InverseTo(out))
}

// fromPrecision is the law whose density is exp(⟨linear, z⟩ - ½ zᵀ precision z) up
// to a factor, of which log is the logarithm of the inverse, but for (2π)^d/2.
func fromPrecision(precision *mat.SymDense, root *mat.Dense, linear []float64) (n Normal, log float64, err error) {
	cov, err := inverted(precision)
	if err != nil {
		return n, 0, err
	}
	mean := apply(cov, linear)
	log = mat.Dot(mat.NewVecDense(len(mean), mean), mat.NewVecDense(len(mean), linear)) / 2
	for i := range mean {
		log -= math.Log(root.At(i, i))
	}
	return Normal{mean, cov}, log, nil
}

// side is the marginal of the d coordinates of the plan from first on.
func (b *PotentialBridge) side(first int) Mixture {
	d := b.Left.Dim()
	out := Mixture{Weights: append([]float64(nil), b.Plan.Weights...)}
	for _, n := range b.Plan.Components {
		cov := mat.NewSymDense(d, nil)
		cov.CopySym(n.Cov.SliceSym(first, first+d))
		out.Components = append(out.Components, Normal{append([]float64(nil), n.Mean[first:first+d]...), cov})
	}
	return out
}

// Marginal is the law of X_t: of each component of the plan, that of
// (1-τ) X_0 + τ X_T + N(0, ε τ(1-τ) I), τ = t/T.
func (b *PotentialBridge) Marginal(t float64) (Mixture, error) {
	T := b.Reference.Horizon()
	if err := checkTime(t, T); err != nil {
		return Mixture{}, err
	}
	d := b.Left.Dim()
	tau := t / T
	out := Mixture{Weights: append([]float64(nil), b.Plan.Weights...)}
	blend := mat.NewDense(d, 2*d, nil)
	for i := range d {
		blend.Set(i, i, 1-tau)
		blend.Set(i, d+i, tau)
	}
	for _, n := range b.Plan.Components {
		cov := symmetric(product(blend, n.Cov, blend.T()))
		for i := range d {
			cov.SetSym(i, i, cov.At(i, i)+b.Reference.Epsilon*T*tau*(1-tau))
		}
		out.Components = append(out.Components, Normal{apply(blend, n.Mean), cov})
	}
	return out, nil
}

// Conditional is the law of X_T given X_0 = x: (d), a mixture of
// N(r_k + V_k x/ε, V_k) with the weights ∝ w_k exp(xᵀV_k x/(2ε²) + r_kᵀx/ε).
func (b *PotentialBridge) Conditional(x []float64) (Mixture, error) {
	d := b.Left.Dim()
	if len(x) != d {
		return Mixture{}, bad("x", "%d numbers, want %d", len(x), d)
	}
	eps := b.Reference.Epsilon * b.Reference.Horizon()
	var out Mixture
	for k, n := range b.Right.Components {
		mean := apply(n.Cov, x)
		log := math.Log(b.Right.Weights[k])
		for i := range mean {
			mean[i] /= eps
			log += x[i] / eps * (mean[i]/2 + n.Mean[i])
			mean[i] += n.Mean[i]
		}
		out.Weights = append(out.Weights, log)
		out.Components = append(out.Components, Normal{mean, n.clone().Cov})
	}
	normalise(out.Weights)
	return out, nil
}

// Drift is u(t, x) = Epsilon ∇log h_t(x). With M_k = (1-τ) V_k⁻¹ + τ/ε I,
//
//	h_t = Σ_k h_k,  T u_k(x) = ε ∇log h_k(x) = M_k⁻¹ (V_k⁻¹ (r_k - x) + x/ε),
//	log h_k(0) = log w_k - ½ log det V_k M_k - ½ r_kᵀ V_k⁻¹ r_k + ½ (1-τ) r_kᵀ V_k⁻¹ M_k⁻¹ V_k⁻¹ r_k,
//
// which has no singularity at the horizon.
func (b *PotentialBridge) Drift(t float64) (*MixtureDrift, error) {
	T := b.Reference.Horizon()
	if err := checkTime(t, T); err != nil {
		return nil, err
	}
	d := b.Left.Dim()
	tau, eps := t/T, b.Reference.Epsilon*T
	out := &MixtureDrift{}
	logs := make([]float64, len(b.logs))
	for k, v := range b.precisions {
		m := mat.NewSymDense(d, nil)
		m.ScaleSym(1-tau, v)
		for i := range d {
			m.SetSym(i, i, m.At(i, i)+tau/eps)
		}
		root, err := factor("potential", m)
		if err != nil {
			return nil, err
		}
		inverse, err := inverted(m)
		if err != nil {
			return nil, err
		}
		pull := apply(v, b.Right.Components[k].Mean) // V⁻¹ r
		offset := apply(inverse, pull)
		logs[k] = b.logs[k]
		for i := range d {
			logs[k] += (1-tau)/2*pull[i]*offset[i] - math.Log(root.At(i, i))
			offset[i] /= T
		}
		var gain mat.Dense
		gain.Sub(identity(d, 1/eps), v)
		gain.Mul(inverse, &gain)
		gain.Scale(1/T, &gain)
		out.drifts = append(out.drifts, Affine{&gain, offset})
	}
	out.weigh = func(dst, x []float64) {
		slope := make([]float64, d)
		for k, a := range out.drifts {
			// ε/T·∇log h_k is affine: its integral from 0 to x.
			a.At(slope, x)
			dst[k] = logs[k]
			for i, v := range slope {
				dst[k] += x[i] * (v + a.Offset[i]) / 2 * T / eps
			}
		}
		normalise(dst)
	}
	return out, nil
}

// Paths draws n paths at ascending times from 0 to the horizon: (n, times, d),
// row-major, by the plan and the Brownian bridges between its ends. They are
// those of the Schrödinger bridge. Path s is a function of the bridge, the times,
// the seed and s alone.
func (b *PotentialBridge) Paths(ctx context.Context, n int, times []float64, seed uint64) ([]float64, error) {
	both, err := b.Plan.Sample(n, seed)
	if err != nil {
		return nil, err
	}
	d := b.Left.Dim()
	x, y := make([]float64, n*d), make([]float64, n*d)
	for s := range n {
		copy(x[s*d:(s+1)*d], both[2*s*d:])
		copy(y[s*d:(s+1)*d], both[(2*s+1)*d:])
	}
	return pinned(ctx, b.Reference, x, y, d, times, seed)
}
