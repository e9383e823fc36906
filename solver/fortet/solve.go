package fortet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/mixing"
	"github.com/fortet/fortet/tensor"
)

// Result is what Solve found, however it ended. What follows from it, At and Paths,
// is for results that are Converged or nearly so.
type Result struct {
	Problem    Problem
	Status     solver.Status
	Iterations int
	Residual   float64 // of the last sweep, in the precision of the iterations
	// LogPhi0 and LogPhi1 are the logarithms of the function φ at times 0 and 1,
	// LogPhiHat0 and LogPhiHat1 those of the law φ̂. They are determined up to a
	// constant that one gains and the other loses.
	LogPhi0, LogPhi1       []float64
	LogPhiHat0, LogPhiHat1 []float64
	Certificate            Certificate
	Duration               time.Duration
}

// Certificate is what holds of the process found, evaluated in float64. The law R
// that entropies are relative to is the reference started in the source, killed by
// the potential: with a potential it is not of mass 1, and they may be negative.
type Certificate struct {
	// Primal is the relative entropy KL(P ‖ R) of the process found, in nats:
	// E log(φ̂_0/source) + E log φ_1. Times ε, of a diffusion, it is the mean of the
	// control's energy ∫|u|²/2 dt and of ε∫V dt.
	Primal float64
	// Dual is E_target log φ_1 - E_source log φ_0, a lower bound of the optimum for
	// every φ_1.
	Dual float64
	// Gap is Primal - Dual. It may lie below 0 by what the law at time 1 is off.
	Gap float64
	// Mass is that of the process, 1 at the solution.
	Mass float64
	// Source and Target are the L1 distances of the laws at both ends from those
	// wanted.
	Source, Target float64
}

// Solve solves p on dev. An error says that it could not run, ErrInvalid, or that p
// has no solution, ErrInfeasible: where a cell with mass cannot be reached, it is
// named. How a run ended is Result.Status. Cancellation of ctx stops it within one
// step of a sweep.
//
// A diffusion without a potential is approached from one of more variance, unless
// Settings say otherwise; all of it starts from φ_1 = 1. Of a reference with holes,
// kernels or potentials that forbid something, it is infeasible what reaches a dual
// value that no process's entropy exceeds.
func Solve(ctx context.Context, dev gpu.Device, p Problem, settings Settings) (*Result, error) {
	start := time.Now()
	if err := errors.Join(p.Validate(), settings.Validate()); err != nil {
		return nil, err
	}
	settings = settings.withDefaults()
	r := &solve{settings: settings, res: &Result{Problem: p}}
	n := p.cells()
	r.source, _ = scaled("source", p.LogSource, n)
	r.target, _ = scaled("target", p.LogTarget, n)
	r.nu, r.mu = exps(r.target), exps(r.source)
	r.phi1 = make([]float64, n)
	for i, l := range r.target {
		if math.IsInf(l, -1) {
			r.phi1[i] = l // no mass, no way there
		}
	}
	dtype := tensor.Float64
	if settings.Precision == Single {
		dtype = tensor.Float32
	}
	done := func(err error) (*Result, error) {
		r.res.LogPhi1, r.res.LogPhi0, r.res.LogPhiHat0, r.res.LogPhiHat1 = r.phi1, r.phi0, r.hat0, r.hat1
		r.res.Duration = time.Since(start)
		if canceled := ctx.Err(); canceled != nil && errors.Is(err, canceled) {
			r.res.Status = solver.Canceled
			err = nil
		}
		if err != nil {
			return nil, err
		}
		return r.res, nil
	}
	if err := r.anneal(ctx, dev, dtype); err != nil || r.res.Status == solver.Diverged {
		return done(err)
	}
	var err error
	if r.engine, err = openEngine(ctx, dev, dtype, p); err != nil {
		return done(err)
	}
	defer func() { r.engine.close() }()
	if r.bound, err = r.engine.bound(); err != nil {
		return done(err)
	}
	r.res.Status, err = r.iterate(ctx, settings.Tolerance, settings.MaxIterations-r.res.Iterations)
	if err != nil || r.res.Status == solver.Diverged {
		return done(err)
	}
	if dtype != tensor.Float64 {
		exact, err := openEngine(ctx, dev, tensor.Float64, p)
		if err != nil {
			return done(err)
		}
		r.engine.close()
		r.engine = exact
	}
	return done(r.certify(ctx))
}

func exps(v []float64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = math.Exp(x)
	}
	return out
}

// solve is the state of a run.
type solve struct {
	settings       Settings
	res            *Result
	engine         *engine
	source, target []float64 // logarithms of masses, which mu and nu are
	mu, nu         []float64
	phi0, phi1     []float64 // logarithms, all four
	hat0, hat1     []float64
	bound          float64
}

// sweep writes the image of phi1 and returns the L1 residual of the law at time 1.
func (r *solve) sweep(ctx context.Context, phi1, image []float64) (float64, error) {
	v, err := r.engine.toStart(ctx, phi1)
	if err != nil {
		return 0, err
	}
	defer v.Free()
	if r.phi0, err = tensor.Float64s(v); err != nil {
		return 0, err
	}
	if r.hat0 == nil {
		r.hat0 = make([]float64, len(r.phi0))
	}
	for i, l := range r.source {
		r.hat0[i] = l
		if math.IsInf(l, -1) {
			continue
		}
		if math.IsInf(r.phi0[i], -1) {
			return 0, r.unreachable("source", "leads to no cell of the target with any", i)
		}
		r.hat0[i] = l - r.phi0[i]
	}
	w, err := r.engine.toEnd(ctx, r.hat0)
	if err != nil {
		return 0, err
	}
	defer w.Free()
	if r.hat1, err = tensor.Float64s(w); err != nil {
		return 0, err
	}
	residual := 0.0
	for j, l := range r.target {
		image[j] = l
		if math.IsInf(l, -1) {
			continue
		}
		if math.IsInf(r.hat1[j], -1) {
			return 0, r.unreachable("target", "is reached from no cell of the source with any", j)
		}
		image[j] = l - r.hat1[j]
		residual += math.Abs(math.Exp(phi1[j]+r.hat1[j]) - r.nu[j])
	}
	return residual, nil
}

func (r *solve) unreachable(side, what string, i int) error {
	p := r.res.Problem
	at, x := make([]int, len(p.Axes)), make([]float64, len(p.Axes))
	p.at(i, at, x)
	mass := r.mu[i]
	if side == "target" {
		mass = r.nu[i]
	}
	return fmt.Errorf("fortet: %s: %w: cell %v at %v, of mass %.4g, %s under the reference", side, solver.ErrInfeasible, at, x, mass, what)
}

// dual is the dual value of the last sweep's phi1.
func (r *solve) dual(phi1 []float64) (d float64) {
	for j, w := range r.nu {
		if w > 0 {
			d += w * phi1[j]
		}
	}
	for i, w := range r.mu {
		if w > 0 {
			d -= w * r.phi0[i]
		}
	}
	return d
}

// anneal solves with a diffusion of more variance, roughly, for a start: with
// log φ_1 = log b + g/ε for the density b of the target, g changes little with ε.
func (r *solve) anneal(ctx context.Context, dev gpu.Device, dtype tensor.DType) (err error) {
	p := r.res.Problem
	ref, diffusion := p.Reference.(Diffusion)
	if !diffusion || p.Potential != nil || r.settings.NoAnnealing {
		return nil
	}
	density := slices.Clone(r.target)
	for i, l := range p.volumes() {
		density[i] -= l
	}
	ladder := solver.Annealing(r.meanCost(ref), ref.Epsilon)
	for k, e := range ladder[:len(ladder)-1] {
		q := p
		next := ref
		next.Epsilon = e
		q.Reference = next
		if r.engine, err = openEngine(ctx, dev, dtype, q); err != nil {
			return err
		}
		r.bound = math.Inf(1) // normal laws have no holes
		r.res.Status, err = r.iterate(ctx, max(solver.CoarseResidual, r.settings.Tolerance), min(solver.CoarseSweeps, r.settings.MaxIterations-r.res.Iterations))
		r.engine.close()
		if err != nil || r.res.Status == solver.Diverged {
			return err
		}
		following := ladder[k+1]
		for i, l := range r.phi1 {
			if !math.IsInf(l, -1) {
				r.phi1[i] = density[i] + (l-density[i])*e/following
			}
		}
	}
	return nil
}

// meanCost is the mean under the product of both laws of ε times the exponent of the
// reference's transition.
func (r *solve) meanCost(ref Diffusion) (cost float64) {
	p := r.res.Problem
	at, x := make([]int, len(p.Axes)), make([]float64, len(p.Axes))
	moments := func(w []float64) (first, second []float64) {
		first, second = make([]float64, len(x)), make([]float64, len(x))
		for i, v := range w {
			p.at(i, at, x)
			for a := range x {
				first[a] += v * x[a]
				second[a] += v * x[a] * x[a]
			}
		}
		return first, second
	}
	m0, s0 := moments(r.mu)
	m1, s1 := moments(r.nu)
	for a := range x {
		shift, factor, variance := ref.transition(a, 1)
		mean := m1[a] - shift - factor*m0[a]
		spread := s1[a] - m1[a]*m1[a] + factor*factor*(s0[a]-m0[a]*m0[a])
		cost += ref.Epsilon * (mean*mean + spread) / (2 * variance)
	}
	return cost
}

// patience is how many sweeps may pass without a new lowest residual before the
// iteration is taken to have stalled.
const patience = 60

// iterate runs sweeps on r.phi1 until the tolerance. On return the other potentials
// are those of r.phi1.
func (r *solve) iterate(ctx context.Context, tolerance float64, sweeps int) (solver.Status, error) {
	var (
		image       = make([]float64, len(r.phi1))
		fallback    = make([]float64, len(r.phi1)) // the plain step from the last accepted iterate
		free        = r.freeCells()
		mixer       = mixing.NewAnderson(pick(r.nu, free))
		x, y        = make([]float64, len(free)), make([]float64, len(free))
		accepted    = math.Inf(1)
		best, since = math.Inf(1), 0
		mixed       = false
		plain       = 0 // plain steps still to take before mixing again
		penalty     = 1
	)
	for range sweeps {
		residual, err := r.sweep(ctx, r.phi1, image)
		if err != nil {
			return 0, err
		}
		r.res.Iterations++
		r.res.Residual = residual
		if r.settings.Trace != nil {
			r.settings.Trace(r.res.Iterations, residual)
		}
		if residual <= tolerance {
			return solver.Converged, nil
		}
		if mixed && !(residual <= 2*accepted) {
			copy(r.phi1, fallback)
			mixer.Forget()
			plain, penalty, mixed = penalty, min(2*penalty, 64), false
			continue
		}
		if math.IsNaN(residual) || math.IsInf(residual, 0) {
			return solver.Diverged, nil
		}
		if r.dual(r.phi1) > r.bound+1e-3*(1+math.Abs(r.bound)) {
			return 0, r.infeasible()
		}
		if residual < best {
			best, since = residual, 0
		} else if since++; since > patience {
			return solver.Stalled, r.checkRay(ctx, image)
		}
		accepted = residual
		copy(fallback, image)
		mixed = r.settings.Acceleration == Anderson && plain == 0
		if mixed {
			for k, i := range free {
				x[k], y[k] = r.phi1[i], image[i]
			}
			mixer.Mix(x, x, y)
			for k, i := range free {
				r.phi1[i] = x[k]
			}
			continue
		}
		plain = max(plain-1, 0)
		copy(r.phi1, image)
	}
	return solver.MaxIterations, r.checkRay(ctx, image)
}

// freeCells are the cells of the target with mass.
func (r *solve) freeCells() (cells []int) {
	for j, l := range r.target {
		if !math.IsInf(l, -1) {
			cells = append(cells, j)
		}
	}
	return cells
}

func pick(v []float64, cells []int) []float64 {
	out := make([]float64, len(cells))
	for k, i := range cells {
		out[k] = v[i]
	}
	return out
}

func (r *solve) infeasible() error {
	return fmt.Errorf("fortet: %w: every cell with mass is reached, but no process that the reference allows has both laws: the dual is above %.4g, which no such process's entropy exceeds", solver.ErrInfeasible, r.bound)
}

// checkRay looks for a proof that there is no solution, where the reference has
// holes: the dual along the direction in which plain sweeps go on for ever.
func (r *solve) checkRay(ctx context.Context, image []float64) error {
	if math.IsInf(r.bound, 1) {
		return nil
	}
	phi := slices.Clone(r.phi1)
	for range patience {
		if _, err := r.sweep(ctx, phi, image); err != nil {
			return err
		}
		phi, image = image, phi
	}
	// phi is the image of what image holds.
	far := make([]float64, len(phi))
	for step := 1.0; step < 1e9; step *= 8 {
		for j, v := range phi {
			if far[j] = v; !math.IsInf(v, -1) {
				far[j] += step * (v - image[j])
			}
		}
		v, err := r.engine.toStart(ctx, far)
		if err != nil {
			return err
		}
		r.phi0, err = tensor.Float64s(v)
		v.Free()
		if err != nil {
			return err
		}
		if r.dual(far) > r.bound+1e-3*(1+math.Abs(r.bound)) {
			return r.infeasible()
		}
	}
	_, err := r.sweep(ctx, r.phi1, image)
	return err
}

// certify evaluates the process of r.phi1 in float64.
func (r *solve) certify(ctx context.Context) error {
	image := make([]float64, len(r.phi1))
	residual, err := r.sweep(ctx, r.phi1, image)
	if err != nil {
		return err
	}
	c := &r.res.Certificate
	c.Target, c.Dual = residual, r.dual(r.phi1)
	for i, l := range r.source {
		w := math.Exp(r.phi0[i] + r.hat0[i])
		if math.IsInf(l, -1) {
			continue
		}
		c.Source += math.Abs(w - r.mu[i])
		if w > 0 {
			c.Primal += w * (r.hat0[i] - l)
		}
	}
	for j, l := range r.target {
		if math.IsInf(l, -1) {
			continue
		}
		if w := math.Exp(r.phi1[j] + r.hat1[j]); w > 0 {
			c.Mass += w
			c.Primal += w * r.phi1[j]
		}
	}
	c.Gap = c.Primal - c.Dual
	if r.res.Status == solver.Converged && !(residual <= r.settings.Tolerance) {
		r.res.Status = solver.Stalled
	}
	if math.IsNaN(c.Primal) || math.IsNaN(c.Dual) {
		r.res.Status = solver.Diverged
	}
	return nil
}
