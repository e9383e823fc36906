package barycenter

import (
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

// Certificate is what holds of the returned plans and barycentre b, evaluated
// in float64 over all pairs, whatever precision found them. The first marginals
// are exact (with a penalty: optimal) and Σ_k λ_k g_k = d, so that the dual value
// bounds the optimum from below where nothing is debiased.
type Certificate struct {
	// MarginalError are the L1 distances of the second marginals of the plans
	// from b: (K). NaN for a measure of λ = 0, which has no plan.
	MarginalError []float64
	// SymmetricError is that of the plan Q of b with itself, 0 where not
	// debiased.
	SymmetricError float64
	// TransportCost is Σ_k λ_k <C_k, P_k>.
	TransportCost float64
	// Primal is Σ_k λ_k [<C_k, P_k> + ε KL(P_k | a_k⊗ν) + ρ KL(P_k 1 | a_k)];
	// debiased, [<C, Q> + ε KL(Q | ν⊗ν)]/2 is taken off, and what remains is
	// Σ_k λ_k OT(a_k, b) - OT(b, b)/2 of package sinkhorn, whatever ν.
	Primal float64
	// Dual is the dual value of (f, g), and of d where debiased.
	Dual float64
	// Gap is Primal - Dual, which is what the marginal errors weigh: it may have
	// either sign.
	Gap float64
	// Mass is that of b.
	Mass float64
	// Residual is the largest marginal error relative to Mass.
	Residual float64
}

// certify evaluates the plans of z, whose first potentials it makes optimal in
// float64, and settles the status.
func (res *Result) certify(b *bench, p Problem, z []float64, tolerance float64) error {
	b.eps = res.Epsilon
	zero := make([]float64, b.n)
	d, q := zero, zero
	c := Certificate{MarginalError: make([]float64, len(p.Measures))}
	if b.debiased {
		d = b.place(z, len(b.arms))
		if err := b.symmetric(d); err != nil {
			return err
		}
		if res.Status != solver.Converged {
			b.normalise(d)
		}
		q, res.D = b.selfMass, d
	}
	// The constraint holds of z up to rounding; here it is made to hold.
	off := make([]float64, b.n)
	copy(off, d)
	for k, a := range b.arms {
		for i, g := range b.place(z, k) {
			off[i] -= a.lambda * g
		}
	}
	res.Weights = make([]float64, b.n)
	res.Plans = make([]sinkhorn.Plan, len(p.Measures))
	for k := range c.MarginalError {
		c.MarginalError[k] = math.NaN()
	}
	nu := measure.Mass(b.nu)
	for k, a := range b.arms {
		g := b.place(z, k)
		for i, v := range off {
			g[i] += v
		}
		if err := b.half(a, g); err != nil {
			return err
		}
		f, err := tensor.Float64s(a.f)
		if err != nil {
			return err
		}
		plan := sinkhorn.Plan{Geometry: a.geom, A: a.a, B: b.nu, F: f, G: g, Epsilon: b.eps}
		res.Plans[a.k] = plan
		mean, err := b.meanCosts(a)
		if err != nil {
			return err
		}
		var primal, dual, mass float64
		for i, w := range a.a {
			if w == 0 {
				continue
			}
			row := w
			if !math.IsInf(b.rho, 1) {
				row *= math.Exp(-plan.F[i] / b.rho)
				primal += b.rho * (row*math.Log(row/w) - row + w)
				dual -= b.rho * w * math.Expm1(-plan.F[i]/b.rho)
			} else {
				dual += w * plan.F[i]
			}
			primal += row * plan.F[i]
			c.TransportCost += a.lambda * row * mean[i]
			mass += row
		}
		for i, w := range a.mass {
			res.Weights[i] += a.lambda * w
			if w > 0 {
				primal += w * g[i]
			}
		}
		entropy := b.eps * (mass - measure.Mass(a.a)*nu)
		c.Primal += a.lambda * (primal - entropy)
		c.Dual += a.lambda * (dual - entropy)
	}
	if b.debiased {
		entropy := b.eps / 2 * (measure.Mass(q) - nu*nu)
		c.Primal += entropy
		c.Dual += entropy
		for i, w := range q {
			if w > 0 {
				c.Primal -= w * d[i]
			}
		}
		c.SymmetricError = distance(q, res.Weights)
	}
	c.Gap = c.Primal - c.Dual
	c.Mass = measure.Mass(res.Weights)
	c.Residual = c.SymmetricError / c.Mass
	for _, a := range b.arms {
		e := distance(a.mass, res.Weights)
		c.MarginalError[a.k] = e
		c.Residual = worse(c.Residual, e/c.Mass)
	}
	res.Certificate = c
	if res.Status == solver.Converged && !(c.Residual <= tolerance) {
		res.Status = solver.Stalled
	}
	if math.IsNaN(c.Primal) || math.IsNaN(c.Dual) {
		res.Status = solver.Diverged
	}
	return nil
}

// normalise adds the constant to d that gives Q the mass of the measures, as at a
// solution: where a run ended early it may be any.
func (b *bench) normalise(d []float64) {
	logq, most := make([]float64, b.n), math.Inf(-1)
	for i, s := range b.selfS {
		logq[i] = b.task.lognu[i] + (d[i]-s)/b.eps
		most = max(most, logq[i])
	}
	sum := 0.0
	for _, l := range logq {
		sum += math.Exp(l - most)
	}
	shift := math.Log(measure.Mass(b.leaves[0].a)/sum) - most
	for i, l := range logq {
		d[i] += b.eps * shift / 2
		b.selfMass[i] = math.Exp(l + shift)
	}
}

// meanCosts returns Σ_j P_ij c_ij / Σ_j P_ij of an arm's plan, whose g is still on
// the device.
func (b *bench) meanCosts(a *arm) ([]float64, error) {
	dev, m := a.f.Device(), len(a.a)
	f, err := tensor.New(dev, b.dtype, m)
	if err != nil {
		return nil, err
	}
	defer f.Free()
	mean, err := tensor.New(dev, b.dtype, m)
	if err != nil {
		return nil, err
	}
	defer mean.Free()
	if err := a.op.Softmin(f, b.g, b.lognu, b.eps); err != nil {
		return nil, err
	}
	if err := a.op.Apply(geometry.Apply{F: f, G: b.g, LogB: b.lognu, Mean: mean}, b.eps); err != nil {
		return nil, err
	}
	return tensor.Float64s(mean)
}
