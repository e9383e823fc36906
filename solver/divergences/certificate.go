package divergences

import (
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/fdual"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

// Certificate is what holds of the returned plan and potentials, evaluated in
// float64 over all pairs, whatever found them. A canceled run has none.
type Certificate struct {
	// TransportCost is <C, P>.
	TransportCost float64
	// Divergence is D_f(P | a⊗b), or D_f(P | R). Of a smoothed total variation it
	// is that of total variation itself.
	Divergence float64
	// Primal is <C, P> + ε D_f(P | a⊗b), or D_f(P | R).
	Primal float64
	// Dual is a lower bound of the optimum:
	//
	//	<a, f> + <b, g> - ε Σ a_i b_j ψ((f_i + g_j - C_ij)/ε)
	//	<a, f> + <b, g> - Σ R_ij ψ(f_i + g_j)
	//
	// Of a smoothed total variation it is that of total variation itself at
	// the potentials f lowered to where its ψ is finite, so that the gap says how
	// far the smoothing led away.
	Dual float64
	// Gap is Primal - Dual. Beside the distance from the optimum it holds that of
	// the marginals from theirs, times the potentials.
	Gap float64
	// Mass is ΣP.
	Mass float64
	// Source and Target are the L1 distances of the plan's marginals from a and b.
	Source, Target float64
	// Residual is (Source + Target) relative to the mass of a.
	Residual float64
	// LargestDensity is the largest ratio of P to a⊗b, or to R.
	LargestDensity float64
}

// finish evaluates the plan of r.q in float64 and settles the status.
func (res *Result) finish(dev gpu.Device, t *task, r *run, eps float64) error {
	l := t.divergence.law()
	if eps != t.eps { // stopped on the way down
		for j, q := range r.q {
			r.q[j] = l.half + (q-l.half)*(eps/t.eps)
		}
	}
	if res.Status == solver.Canceled {
		res.Plan = t.plan(r.p, r.q)
		return nil
	}
	b, err := open(dev, tensor.Float64, t.Geometry, t.loga, t.logb)
	if err != nil {
		return err
	}
	defer b.close()
	e := t.equation(t.eps)
	image := make([]float64, t.m)
	r.warm = false
	residual, err := r.sweep(b, e, r.q, image)
	if err != nil {
		return err
	}
	for j, w := range t.b {
		if w == 0 { // so that the potential extends to where there is no mass
			r.q[j] = image[j]
		}
	}
	sums, err := b.rows.eval(e, r.p, r.q)
	if err != nil {
		return err
	}
	c := Certificate{Residual: residual}
	conjugate := 0.0
	for i, w := range t.a {
		if w == 0 {
			continue
		}
		c.Mass += w * sums.mass[i]
		c.Source += w * math.Abs(sums.mass[i]-1)
		c.TransportCost += w * sums.cost[i]
		c.Divergence += w * l.scale * sums.f[i]
		conjugate += w * l.scale * sums.psi[i]
		c.LargestDensity = max(c.LargestDensity, l.density(sums.edge[i]))
	}
	for j, w := range t.b {
		if w > 0 {
			c.Target += w * math.Abs(r.colMass[j]-1)
		}
	}
	c.Residual = (c.Source + c.Target) / t.mass
	p := r.p
	if l.kind == fdual.TotalVariation {
		p = make([]float64, t.n)
		for i := range p {
			p[i] = r.p[i] - max(sums.edge[i]-0.5, 0)
		}
		lowered, err := b.rows.eval(e, p, r.q)
		if err != nil {
			return err
		}
		conjugate = 0
		for i, w := range t.a {
			if w > 0 {
				conjugate += w * lowered.psi[i]
			}
		}
	}
	res.Plan = t.plan(r.p, r.q)
	dual := t.plan(p, r.q)
	if t.Kind == Gibbs && t.asRegularised() { // the density has no cost in it
		c.LargestDensity = math.Exp(largest(res.Plan.F, t.a) + largest(res.Plan.G, t.b))
	}
	c.settle(t, dual.F, dual.G, conjugate)
	res.Certificate = c
	res.judge(c, r.settings.Tolerance)
	return nil
}

// largest is the largest v of weight above 0.
func largest(v, w []float64) float64 {
	top := math.Inf(-1)
	for i, x := range v {
		if w[i] > 0 {
			top = max(top, x)
		}
	}
	return top
}

// settle fills in the values from the sums: conjugate is Σ ψ over a⊗b or R. A Gibbs
// problem of KL was evaluated as the regularised one, which ε turns into it.
func (c *Certificate) settle(t *task, f, g []float64, conjugate float64) {
	linear := 0.0
	for i, w := range t.a {
		if w > 0 {
			linear += w * f[i]
		}
	}
	for j, w := range t.b {
		if w > 0 {
			linear += w * g[j]
		}
	}
	switch {
	case t.Kind == Regularised:
		c.Primal = c.TransportCost + t.eps*c.Divergence
		c.Dual = linear - t.eps*conjugate
	case t.asRegularised():
		// Σψ over R is ΣP - M, over a⊗b it is ΣP - M²; and with P = R e^y,
		// KL(P|R) = KL(P|a⊗b) + <C, P>/ε + ΣP log Z - M² + M.
		outer := t.mass * t.mass
		c.Divergence += c.TransportCost/t.eps + c.Mass*t.logZ - outer + t.mass
		c.Primal = c.Divergence
		c.Dual = linear - (conjugate + outer - t.mass)
	default:
		c.Primal = c.Divergence
		c.Dual = linear - conjugate
	}
	c.Gap = c.Primal - c.Dual
}

// judge settles the status by what the certificate says.
func (res *Result) judge(c Certificate, tolerance float64) {
	switch ok := !math.IsNaN(c.Primal) && !math.IsNaN(c.Dual) && !math.IsNaN(c.Residual) && !math.IsInf(c.Residual, 0); {
	case !ok:
		res.Status = solver.Diverged
	case res.Status == solver.Converged && !(c.Residual <= tolerance):
		res.Status = solver.Stalled
	case res.Status == solver.Diverged:
		res.Status = solver.Stalled // of float32, say, while float64 holds the plan
	}
}

// plan is the plan of potentials in the law's z.
func (t *task) plan(p, q []float64) Plan {
	l := t.divergence.law()
	unit := 1.0
	if t.Kind == Regularised {
		unit = t.eps
	}
	own, other := p, q
	if t.Kind == Gibbs && t.asRegularised() {
		own, other = make([]float64, t.n), make([]float64, t.m)
		for i, v := range p {
			own[i] = v + t.logZ/2
		}
		for j, v := range q {
			other[j] = v + t.logZ/2
		}
	}
	out := Plan{
		Geometry: t.Geometry, A: t.a, B: t.b, Epsilon: t.eps, Divergence: t.divergence, Kind: t.Kind, LogZ: t.logZ,
		F: make([]float64, t.n), G: make([]float64, t.m), p: own, q: other,
	}
	for i, v := range own {
		out.F[i] = unit * (v - l.half) / l.rate
	}
	for j, v := range other {
		out.G[j] = unit * (v - l.half) / l.rate
	}
	return out
}
