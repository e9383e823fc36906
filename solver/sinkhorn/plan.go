package sinkhorn

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/tensor"
)

// Plan is a solved static bridge: P_ij = a_i b_j exp((f_i + g_j - C_ij)/ε). It
// is plain data; all its questions are answered in float64, streaming over the
// pairs.
type Plan struct {
	Geometry geometry.Geometry
	A, B     []float64 // (n), (m) weights
	F, G     []float64 // (n), (m) potentials, in the cost's unit
	Epsilon  float64   // absolute
	// Source and Target are the penalties of the problem that it solves.
	Source, Target Penalty
}

// Validate reports what does not fit together, as in a plan read from files.
func (p Plan) Validate() error {
	if p.Geometry == nil {
		return fmt.Errorf("plan: %w: no geometry", solver.ErrInvalid)
	}
	n, m := p.Geometry.Size()
	var errs []error
	for _, v := range []struct {
		name string
		v    []float64
		n    int
	}{{"f", p.F, n}, {"g", p.G, m}, {"a", p.A, n}, {"b", p.B, m}} {
		errs = append(errs, measure.CheckFinite("plan: "+v.name, v.v, v.n))
	}
	if !(p.Epsilon > 0) || math.IsInf(p.Epsilon, 0) {
		errs = append(errs, fmt.Errorf("plan: epsilon: %w: got %v, want a finite number above 0", solver.ErrInvalid, p.Epsilon))
	}
	if len(errs) == 0 {
		if _, err := measure.CheckWeights("plan: a", p.A, n); err != nil {
			errs = append(errs, err)
		}
		if _, err := measure.CheckWeights("plan: b", p.B, m); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, p.Source.validate("source"), p.Target.validate("target"), p.Geometry.Validate())
	return errors.Join(errs...)
}

// BarycentricMap returns (Σ_j P_ij y_j) / (Σ_j P_ij) for every source point:
// (n, d). It is the mean of the target given the source point. On a grid it costs
// what sweeps do.
func (p Plan) BarycentricMap(ctx context.Context, dev gpu.Device) ([]float64, error) {
	g, u, err := p.cloud()
	if err != nil {
		return nil, err
	}
	return p.mean(ctx, dev, p.Geometry, u.own(g.Y), g.D, p.Epsilon, p.G)
}

// Map is the barycentric map at points that need not be source points:
// x: (k, d) to (k, d), from the target potential alone (Pooladian and
// Niles-Weed 2021).
func (p Plan) Map(ctx context.Context, dev gpu.Device, x []float64) ([]float64, error) {
	g, u, err := p.at(x)
	if err != nil {
		return nil, err
	}
	return p.mean(ctx, dev, g, u.own(g.Y), g.D, p.Epsilon, p.G)
}

// Transport is the plan's mean of any function of the target: v: (m, k), given
// at the target points, becomes (n, k) at the source points. The barycentric
// map is that of v = y.
func (p Plan) Transport(ctx context.Context, dev gpu.Device, v []float64, k int) ([]float64, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	_, m := p.Geometry.Size()
	if k < 1 || len(v) != m*k {
		return nil, fmt.Errorf("plan: v: %w: %d numbers, want %d × %d", solver.ErrInvalid, len(v), m, k)
	}
	return p.mean(ctx, dev, p.Geometry, v, k, p.Epsilon, p.G)
}

// at is the geometry of other source points and the plan's targets, as in cloud.
func (p Plan) at(x []float64) (g geometry.Points, u units, err error) {
	if g, u, err = p.cloud(); err != nil {
		return g, nil, err
	}
	if len(x) == 0 || len(x)%g.D != 0 {
		return g, nil, fmt.Errorf("plan: points: %w: %d numbers, want a multiple of the dimension %d", solver.ErrInvalid, len(x), g.D)
	}
	g, err = geometry.NewPoints(u.cloud(x), g.Y, g.D, g.Ground)
	return g, u, err
}

// mean returns Σ_j w_ij v_j with w_i = softmax_j(log b_j + (g_j - c_ij)/ε).
func (p Plan) mean(ctx context.Context, dev gpu.Device, geom geometry.Geometry, v []float64, k int, eps float64, g []float64) ([]float64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n, m := geom.Size()
	op, err := geom.Open(dev, tensor.Float64, geometry.Options{CacheBytes: -1})
	if err != nil {
		return nil, err
	}
	defer op.Close()
	var free []tensor.Tensor
	defer func() {
		for _, t := range free {
			t.Free()
		}
	}()
	put := func(v []float64, shape ...int) (t tensor.Tensor) {
		if err == nil {
			if t, err = tensor.From(dev, v, shape...); err == nil {
				free = append(free, t)
			}
		}
		return t
	}
	gT, logb, vT := put(g, m), put(measure.Logs(p.B), m), put(v, m, k)
	f, r := put(make([]float64, n), n), put(make([]float64, n*k), n, k)
	if err != nil {
		return nil, err
	}
	if err := op.Softmin(f, gT, logb, eps); err != nil {
		return nil, err
	}
	if err := op.Apply(geometry.Apply{F: f, G: gT, LogB: logb, V: vT, R: r}, eps); err != nil {
		return nil, err
	}
	return tensor.Values[float64](r)
}

// latest is the largest time at which a drift towards finitely many points is
// evaluated: it grows as 1/(1-t).
const latest = 1 - 1e-3

// Drift returns the drift of the Schrödinger bridge at time t in [0, 1) and
// points x: (k, d),
//
//	u(t, x) = (Σ_j w_j y_j - x) / (1-t)
//	w = softmax_j( log b_j + g_j/ε - |x - y_j|²/(2ε(1-t)) )
//
// in the convention of cost |x-y|²/2, whose reference is a Brownian motion of
// variance ε; a plan of cost |x-y|² is read as one of half the cost at ε/2, and
// along an axis of a grid with a weight the variance is ε over that. It uses the
// target potential alone. t is clipped to 0.999, since the drift towards atoms is
// singular at 1.
func (p Plan) Drift(ctx context.Context, dev gpu.Device, t float64, x []float64) ([]float64, error) {
	if !(t >= 0 && t <= 1) {
		return nil, fmt.Errorf("plan: drift: time: %w: got %v, want 0 to 1", solver.ErrInvalid, t)
	}
	g, u, err := p.at(x)
	if err != nil {
		return nil, err
	}
	variance, ok := g.Ground.BrownianVariance(p.Epsilon)
	if !ok {
		return nil, fmt.Errorf("plan: drift: %w: cost %v belongs to no Brownian motion, want sqeuclidean or halfsqeuclidean", solver.ErrInvalid, g.Ground)
	}
	rest := 1 - min(t, latest)
	scaled := make([]float64, len(p.G))
	for j, v := range p.G {
		scaled[j] = v / p.Epsilon * variance * rest
	}
	g.Ground = geometry.HalfSqEuclidean
	drift, err := p.mean(ctx, dev, g, u.own(g.Y), g.D, variance*rest, scaled)
	if err != nil {
		return nil, err
	}
	for i := range drift {
		drift[i] = (drift[i] - x[i]) / rest
	}
	return drift, nil
}

// Score returns ∇ log p_t at points x: (k, d), where p_t is the law of the
// bridge at time t in (0, 1): the sum of the drifts of the bridge and of its
// time reversal, over the variance of the reference along each coordinate. Times
// are clipped to [0.001, 0.999].
func (p Plan) Score(ctx context.Context, dev gpu.Device, t float64, x []float64) ([]float64, error) {
	if !(t >= 0 && t <= 1) {
		return nil, fmt.Errorf("plan: score: time: %w: got %v, want 0 to 1", solver.ErrInvalid, t)
	}
	t = min(max(t, 1-latest), latest)
	forward, err := p.Drift(ctx, dev, t, x)
	if err != nil {
		return nil, err
	}
	backward, err := p.Reverse().Drift(ctx, dev, 1-t, x)
	if err != nil {
		return nil, err
	}
	g, u, err := p.cloud()
	if err != nil {
		return nil, err
	}
	variance, _ := g.Ground.BrownianVariance(p.Epsilon)
	for i, b := range backward {
		unit := u.of(i % g.D)
		forward[i] = (forward[i] + b) / variance * unit * unit
	}
	return forward, nil
}

// Reverse is the same plan from target to source.
func (p Plan) Reverse() Plan {
	return Plan{
		Geometry: p.Geometry.Transpose(), A: p.B, B: p.A, F: p.G, G: p.F, Epsilon: p.Epsilon,
		Source: p.Target, Target: p.Source,
	}
}
