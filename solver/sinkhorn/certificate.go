package sinkhorn

import (
	"fmt"
	"math"
	"slices"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/tensor"
)

// Certificate is what holds of the plan of the returned potentials, evaluated
// in float64 over all pairs, whatever precision found them.
type Certificate struct {
	// TransportCost is <C, P>.
	TransportCost float64
	// Primal is <C, P> + ε KL(P | a⊗b), plus the marginal penalties.
	Primal float64
	// Dual is the dual value of (f, g), a lower bound of the optimum:
	// <a, f> + <b, g> - ε (ΣP - Σa Σb), where a penalty replaces <a, f> by
	//
	//	KL  -ρ <a, exp(-f/ρ) - 1>
	//	TV  <a, min(f, ρ)>, and f ≥ -ρ
	//	L2  Σ a v - v²/(2ρ)   with v_i = min(f_i, ρ a_i)
	Dual float64
	// Gap is Primal - Dual. With penalties on both sides it is not negative but
	// for rounding; an exact marginal that the plan misses by the residual gives
	// it either sign.
	Gap float64
	// Mass is ΣP.
	Mass float64
	// Source and Target are the L1 distances of the plan's marginals from a
	// and b.
	Source, Target float64
	// Residual is the L1 residual of the optimality conditions, relative to
	// the mass of a; see Settings.Tolerance. Of exact marginals that is
	// Source + Target.
	Residual float64
}

// certify evaluates the plan of r.g, whose source potential it makes optimal
// in float64, and settles the status.
func (res *Result) certify(dev gpu.Device, b *bench, tolerance float64) error {
	// All of it needs one sweep and one pass for the cost; where the last
	// stage ran in float64, its operator serves.
	if b.dtype != tensor.Float64 {
		var err error
		if b, err = b.open(dev, tensor.Float64, geometry.Options{CacheBytes: -1}); err != nil {
			return err
		}
		defer b.close()
	}
	p := &res.Plan
	image := make([]float64, b.m)
	residual, err := b.sweep(p.G, image, p.Epsilon, nil)
	if err != nil {
		return err
	}
	copy(p.F, b.f)
	for j, w := range p.B {
		if w == 0 { // so that the potential extends to where there is no mass
			if err := b.columns(image, p.F, p.Epsilon); err != nil {
				return err
			}
			p.G = slices.Clone(p.G)
			for k := j; k < b.m; k++ {
				if p.B[k] == 0 {
					p.G[k] = image[k]
				}
			}
			break
		}
	}
	// P = row_i × softmax: row masses from the sweep, mean costs from a pass.
	row := make([]float64, b.n)
	for i, o := range b.out.host {
		if b.a[i] > 0 {
			row[i] = b.a[i] * math.Exp((p.F[i]-o)/p.Epsilon)
		}
	}
	mean, err := b.meanCosts(p.G, p.Epsilon)
	if err != nil {
		return err
	}
	c := Certificate{Residual: residual}
	for i := range row {
		if row[i] > 0 {
			c.TransportCost += row[i] * mean[i]
		}
	}
	c.values(b.task, p, row, b.colVector.host)
	res.Certificate = c
	if res.Status == solver.Converged && !(residual <= tolerance) {
		res.Status = solver.Stalled
	}
	if math.IsNaN(c.Primal) || math.IsNaN(c.Dual) {
		res.Status = solver.Diverged
	}
	return nil
}

// values fills in what follows from the marginals of the plan.
func (c *Certificate) values(t task, p *Plan, row, col []float64) {
	eps := p.Epsilon
	potential := 0.0 // Σ P (f + g)
	for i, r := range row {
		c.Mass += r
		c.Source += math.Abs(r - t.a[i])
		if r > 0 {
			potential += r * p.F[i]
		}
	}
	for j, v := range col {
		c.Target += math.Abs(v - t.b[j])
		if v > 0 {
			potential += v * p.G[j]
		}
	}
	outer := measure.Mass(t.a) * measure.Mass(t.b)
	kl := (potential-c.TransportCost)/eps - c.Mass + outer
	c.Primal = c.TransportCost + eps*kl + t.source.value(row, t.a) + t.target.value(col, t.b)
	c.Dual = t.source.dual(p.F, t.a) + t.target.dual(p.G, t.b) - eps*(c.Mass-outer)
	c.Gap = c.Primal - c.Dual
}

// meanCosts returns Σ_j p_ij c_ij / Σ_j p_ij of the plan of the last sweep.
func (s *bench) meanCosts(g []float64, eps float64) ([]float64, error) {
	if err := s.g.set(g); err != nil {
		return nil, err
	}
	mean, err := newVector(s.g.Device(), s.dtype, s.n)
	if err != nil {
		return nil, err
	}
	defer mean.Free()
	if err := s.op.Apply(geometry.Apply{F: s.out.Tensor, G: s.g.Tensor, LogB: s.logb.Tensor, Mean: mean.Tensor}, eps); err != nil {
		return nil, err
	}
	return mean.host, mean.get()
}

func errScale(s Scale, eps float64) error {
	return fmt.Errorf("sinkhorn: epsilon scale %v: %w: epsilon becomes %v because the costs do not vary; use an absolute epsilon", s, solver.ErrInvalid, eps)
}
