package barycenter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/draw"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/solver/mixing"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

// SolveFree solves p on dev. An error says that it could not run; how a run
// ended is FreeResult.Status. Cancellation of ctx stops it within one sweep.
//
// A step takes x_i to Σ_k λ_k T_k(x_i), the mean of the barycentric maps of the
// plans, which is the minimiser of the cost of the present plans and so never
// raises the objective. Debiased, it adds Σ_k λ_k T_k(x_i) - T(x_i), T being that
// of the plan with itself, along which a step length is sought.
func SolveFree(ctx context.Context, dev gpu.Device, p FreeProblem, settings FreeSettings) (*FreeResult, error) {
	start := time.Now()
	if err := errors.Join(p.Validate(), settings.Validate()); err != nil {
		return nil, err
	}
	if settings.Tolerance == 0 {
		settings.Tolerance = 1e-4
	}
	if settings.MaxIterations == 0 {
		settings.MaxIterations = 500
	}
	m, x, err := p.mover(ctx, dev, settings)
	if err != nil {
		return nil, err
	}
	res := &FreeResult{Weights: m.w, Epsilon: m.eps}
	at, err := m.look(ctx, x, nil)
	if err == nil && at.status == solver.Converged {
		at, err = res.descend(ctx, m, at, settings)
	}
	if err != nil {
		return nil, err
	}
	res.X, res.Plans, res.Self, res.Certificate = at.x, at.plans, at.self, at.certificate
	res.Sweeps, res.DType = m.sweeps, m.dtype
	if at.status != solver.Converged {
		res.Status = at.status
	}
	res.Duration = time.Since(start)
	return res, nil
}

// descend takes steps from a place until they are small.
func (res *FreeResult) descend(ctx context.Context, m *mover, at *place, settings FreeSettings) (*place, error) {
	mixer := mixing.NewAnderson(m.norm)
	res.Objectives = append(res.Objectives, at.value)
	for {
		switch {
		case at.certificate.Movement <= settings.Tolerance:
			res.Status = solver.Converged
			return at, nil
		case res.Iterations == settings.MaxIterations:
			res.Status = solver.MaxIterations
			return at, nil
		}
		image := make([]float64, len(at.x))
		for i, v := range at.step {
			image[i] = at.x[i] + v
		}
		var next *place
		var err error
		if !settings.NoAcceleration {
			mixed := make([]float64, len(at.x))
			mixer.Mix(mixed, at.x, image)
			if next, err = m.look(ctx, mixed, at); err != nil {
				return nil, err
			}
			if next.status == solver.Canceled {
				break
			}
			// At least half of what a plain step is sure of, and beyond doubt.
			if next.status != solver.Converged || !(next.value <= at.value-at.slope/4) {
				mixer.Forget()
				next = nil
			}
		}
		// Armijo's rule. A plain step is exact where nothing is debiased.
		for length := 1.0; next == nil; length /= 2 {
			if length < 1e-6 {
				res.Status = solver.Stalled
				return at, nil
			}
			for i, v := range at.step {
				image[i] = at.x[i] + length*v
			}
			if next, err = m.look(ctx, image, at); err != nil {
				return nil, err
			}
			if next.status != solver.Canceled && !(next.value <= at.value-1e-4*length*at.slope+at.slack+next.slack) {
				next = nil
			}
		}
		if next.status == solver.Canceled {
			break
		}
		at = next
		res.Iterations++
		res.Objectives = append(res.Objectives, at.value)
		if settings.Trace != nil {
			settings.Trace(FreeIteration{res.Iterations, at.value, at.certificate.Movement})
		}
		if at.status != solver.Converged {
			return at, nil
		}
	}
	res.Status = solver.Canceled
	return at, nil
}

// mover evaluates the objective of a free problem.
type mover struct {
	FreeProblem
	dev      gpu.Device
	settings sinkhorn.Settings
	lambda   []float64
	a        [][]float64
	w, norm  []float64 // norm: (N·D), w for every coordinate
	eps      float64
	factor   float64 // of |x-y|² in the cost
	mass     float64
	spread   float64
	sweeps   int
	dtype    tensor.DType
}

// place is what is known at points x.
type place struct {
	x, step     []float64
	value       float64 // the dual objective
	slack       float64 // what its transport problems leave open
	slope       float64 // decrease per unit of length along step, at its begin
	plans       []sinkhorn.Plan
	self        sinkhorn.Plan
	certificate FreeCertificate
	status      solver.Status // of the transport problems
}

// mover fills in defaults and says where the points begin.
func (p FreeProblem) mover(ctx context.Context, dev gpu.Device, settings FreeSettings) (*mover, []float64, error) {
	m := &mover{FreeProblem: p, dev: dev, settings: settings.Transport, eps: p.Epsilon, factor: 1}
	if p.Ground == geometry.HalfSqEuclidean {
		m.factor = 0.5
	}
	m.lambda = measure.Weights(p.Lambda, len(p.Measures))
	scaleTo(m.lambda, 1)
	first := 0
	means := make([][]float64, len(p.Measures))
	center := make([]float64, p.D)
	square := 0.0
	for k, c := range p.Measures {
		n := len(c.X) / p.D
		m.a = append(m.a, measure.Weights(c.Weights, n))
		if k == 0 {
			m.mass = measure.Mass(m.a[0])
		}
		scaleTo(m.a[k], m.mass)
		if m.lambda[k] > m.lambda[first] {
			first = k
		}
		means[k] = make([]float64, p.D)
		for i, v := range c.X {
			means[k][i%p.D] += m.a[k][i/p.D] / m.mass * v
		}
		for i, v := range c.X {
			square += m.lambda[k] * m.a[k][i/p.D] / m.mass * (v - means[k][i%p.D]) * (v - means[k][i%p.D])
		}
		for q, v := range means[k] {
			center[q] += m.lambda[k] * v
		}
	}
	m.spread = math.Sqrt(square)
	if m.spread == 0 { // points; their barycentre is found in a step
		m.spread = 1
	}
	m.w = measure.Weights(p.Weights, p.N)
	scaleTo(m.w, m.mass)
	m.norm = make([]float64, p.N*p.D)
	for i := range m.norm {
		m.norm[i] = m.w[i/p.D]
	}
	x := append([]float64(nil), p.Start...)
	if p.Start == nil {
		var err error
		if x, err = m.begin(first, means[first], center); err != nil {
			return nil, nil, err
		}
	}
	return m, x, m.scale(ctx, x)
}

// Purposes of draws: what keeps those of one seed apart from each other.
const (
	drawOffset = 1
	drawJitter = 2
)

// begin draws the points of Start from a measure.
func (m *mover) begin(k int, mean, center []float64) ([]float64, error) {
	var u [1]float64
	if err := philox.HostUniform(u[:], 1, philox.Draw{Seed: m.Seed, Purpose: drawOffset}); err != nil {
		return nil, err
	}
	x := make([]float64, m.N*m.D)
	if err := philox.HostNormal(x, m.D, philox.Draw{Seed: m.Seed, Purpose: drawJitter}); err != nil {
		return nil, err
	}
	cumulative := append([]float64(nil), m.a[k]...)
	draw.Cumulate(cumulative)
	for i := range m.N {
		j := draw.Pick(cumulative, (float64(i)+u[0])/float64(m.N))
		for q := range m.D {
			x[i*m.D+q] = m.Measures[k].X[j*m.D+q] + center[q] - mean[q] + 0.01*m.spread*x[i*m.D+q]
		}
	}
	return x, nil
}

// scale finds the absolute ε.
func (m *mover) scale(ctx context.Context, x []float64) error {
	if m.Scale == sinkhorn.Absolute {
		return nil
	}
	unit := 0.0
	for k, l := range m.lambda {
		g := m.geometry(x, m.Measures[k].X)
		of := g.Mean
		if m.Scale == sinkhorn.Std {
			of = g.Std
		}
		v, err := of(ctx, m.w, m.a[k])
		if err != nil {
			return err
		}
		unit += l * v
	}
	if m.eps *= unit; !(m.eps > 0) {
		return fmt.Errorf("barycenter: epsilon scale %v: %w: epsilon becomes %v because the costs do not vary; use an absolute epsilon", m.Scale, solver.ErrInvalid, m.eps)
	}
	return nil
}

func (m *mover) geometry(x, y []float64) geometry.Points {
	return geometry.Points{X: x, Y: y, N: len(x) / m.D, M: len(y) / m.D, D: m.D, Ground: m.Ground}
}

// look solves the transport problems at x, from the potentials of another place,
// which may be nil.
func (m *mover) look(ctx context.Context, x []float64, from *place) (*place, error) {
	n := len(m.Measures)
	at := &place{x: append([]float64(nil), x...), step: make([]float64, len(x)), plans: make([]sinkhorn.Plan, n), status: solver.Converged}
	c := &at.certificate
	c.MarginalError = make([]float64, n)
	// solve adds a problem of a factor to the objective, and factor times its
	// barycentric map to the step.
	solve := func(y, b []float64, warm sinkhorn.Plan, factor, mapped float64) (sinkhorn.Plan, float64, error) {
		s := m.settings
		s.Start = warm.G
		r, err := sinkhorn.Solve(ctx, m.dev, sinkhorn.Problem{Geometry: m.geometry(x, y), A: m.w, B: b, Epsilon: m.eps}, s)
		if err != nil {
			return sinkhorn.Plan{}, 0, err
		}
		m.sweeps += r.Iterations
		m.dtype = r.Stages[len(r.Stages)-1].DType
		if r.Status == solver.Canceled || at.status == solver.Converged {
			at.status = r.Status
		}
		if r.Status == solver.Canceled || r.Status == solver.Diverged {
			return r.Plan, math.NaN(), nil
		}
		t, err := r.Plan.BarycentricMap(context.WithoutCancel(ctx), m.dev)
		if err != nil {
			return sinkhorn.Plan{}, 0, err
		}
		for i, v := range t {
			at.step[i] += mapped * v
		}
		at.value += factor * r.Certificate.Dual
		at.slack += math.Abs(factor*r.Certificate.Gap) + 1e-13*math.Abs(factor*r.Certificate.Dual)
		c.Primal += factor * r.Certificate.Primal
		e := r.Certificate.Source + r.Certificate.Target
		c.Residual = worse(c.Residual, e/m.mass)
		if mapped > 0 {
			c.TransportCost += factor * r.Certificate.TransportCost
		}
		return r.Plan, e, nil
	}
	if from == nil {
		from = &place{plans: make([]sinkhorn.Plan, n)}
	}
	var err error
	for k, l := range m.lambda {
		if l == 0 {
			c.MarginalError[k] = math.NaN()
			continue
		}
		if at.plans[k], c.MarginalError[k], err = solve(m.Measures[k].X, m.a[k], from.plans[k], l, l); err != nil {
			return nil, err
		}
	}
	if m.Debiased {
		if at.self, _, err = solve(x, m.w, from.self, -0.5, -1); err != nil {
			return nil, err
		}
	} else {
		for i, v := range x {
			at.step[i] -= v
		}
	}
	square := 0.0
	for i, v := range at.step {
		square += m.norm[i] * v * v
	}
	at.slope = 2 * m.factor * square
	c.Movement = math.Sqrt(square/m.mass) / m.spread
	c.Dual = at.value
	c.Gap = c.Primal - c.Dual
	if math.IsNaN(at.value+square) && at.status == solver.Converged {
		at.status = solver.Diverged
	}
	return at, nil
}
