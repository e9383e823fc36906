package multimarginal

import (
	"context"
	"math"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

// Result is what Solve found, however it ended.
type Result struct {
	Plan   Plan // the potentials and what they belong to
	Status solver.Status
	// Iterations is the largest number of sweeps that a part of the tree took, in
	// all stages.
	Iterations  int
	Stages      []Stage // how the iterations went
	Certificate Certificate
	Duration    time.Duration
}

// Stage is a stretch of the iteration of one part of the tree at one ε in one
// precision.
type Stage struct {
	Part       int
	Edges      []int // of the part
	Epsilon    float64
	DType      tensor.DType
	Cached     bool // the costs were held in memory
	Iterations int
	Error      float64 // L1 residual of the part at its end, relative to the mass
}

// run is the state of a solve.
type run struct {
	*task
	ctx      context.Context
	dev      gpu.Device
	settings Settings
	res      *Result
	parts    []*progress
}

// progress is how far a part has come.
type progress struct {
	*part
	number  int
	dtypes  []tensor.DType // that it still goes through
	state   []float64
	weights []float64
	f       [][]float64 // potentials of the last sweep, of the part's nodes
	end     outcome     // of the last stage; its sweeps are those of all
	final   bool        // f is from a sweep at the problem's ε in float64
}

// Solve solves p on dev. An error says that it could not run; how a run ended
// is Result.Status. Cancellation of ctx stops it within one sweep. The same
// problem on the same device gives the same result to the bit, whatever the number
// of workers.
func Solve(ctx context.Context, dev gpu.Device, p Problem, settings Settings) (*Result, error) {
	start := time.Now()
	t, err := p.task(ctx)
	if err != nil {
		return nil, err
	}
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	r := &run{task: t, ctx: ctx, dev: dev, settings: settings.withDefaults(), res: &Result{}}
	r.begin()
	if err := r.solve(); err != nil {
		return nil, err
	}
	for _, q := range r.parts {
		r.res.Iterations = max(r.res.Iterations, q.end.sweeps)
	}
	r.res.Duration = time.Since(start)
	return r.res, nil
}

// begin cuts the tree into parts.
func (r *run) begin() {
	for k, p := range r.task.parts() {
		q := &progress{part: p, number: k, state: make([]float64, p.size), weights: make([]float64, p.size)}
		q.dtypes = r.settings.Precision.DTypes(p.pairs)
		for node, list := range p.children {
			for _, br := range list {
				copy(q.weights[br.at:], r.nodes[node].a)
			}
		}
		r.parts = append(r.parts, q)
	}
}

// solve takes the parts through the precisions and certifies the whole.
func (r *run) solve() error {
	// Residuals of parts add up in the whole.
	tolerance := r.settings.Tolerance / float64(len(r.parts))
	if r.settings.Precision != solver.Double {
		if err := r.within(tensor.Float32, r.settings.Geometry, func(b *bench) error { return r.each(b, tolerance) }); err != nil {
			return err
		}
	}
	if r.failed() {
		return nil
	}
	o := r.settings.Geometry
	if r.settings.Precision == solver.Single {
		o.CacheBytes = -1 // one pass over the pairs does not repay a cache
	}
	return r.within(tensor.Float64, o, func(b *bench) error {
		if r.settings.Precision != solver.Single {
			if err := r.each(b, tolerance); err != nil || r.failed() {
				return err
			}
		}
		return r.confirm(b, tolerance)
	})
}

func (r *run) within(dtype tensor.DType, o geometry.Options, do func(*bench) error) error {
	b, err := r.task.open(r.dev, dtype, o)
	if err != nil {
		return err
	}
	defer b.close()
	return do(b)
}

// failed says that there is nothing to certify, and keeps the potentials found.
func (r *run) failed() bool {
	for _, q := range r.parts {
		if q.end.status == solver.Diverged || q.end.status == solver.Canceled {
			r.res.Status = q.end.status
			r.res.Plan = r.plan(r.potentials())
			return true
		}
	}
	return false
}

// each takes every part that goes through the bench's precision down the ladder
// of ε.
func (r *run) each(b *bench, tolerance float64) error {
	for _, q := range r.parts {
		if len(q.dtypes) == 0 || q.dtypes[0] != b.dtype || q.end.sweeps >= r.settings.MaxIterations {
			continue
		}
		q.dtypes = q.dtypes[1:]
		for _, eps := range r.ladder(q) {
			if err := r.stage(b, q, eps, tolerance); err != nil {
				return err
			}
			if q.end.status == solver.Diverged || q.end.status == solver.Canceled {
				return nil
			}
			if q.end.sweeps >= r.settings.MaxIterations {
				if eps != r.eps {
					q.end.status = solver.MaxIterations
				}
				break
			}
		}
	}
	return nil
}

// ladder is the values of ε that a part goes through: a part that has been swept
// before, in another precision, goes on from there.
func (r *run) ladder(q *progress) []float64 {
	if r.settings.NoAnnealing || q.end.sweeps > 0 {
		return []float64{r.eps}
	}
	top := 0.0
	for _, e := range q.edges() {
		top = max(top, r.edges[e].mean)
	}
	return solver.Annealing(top, r.eps)
}

// edges lists the edges of a part.
func (p *part) edges() []int {
	var list []int
	for _, k := range p.members {
		for _, br := range p.children[k] {
			list = append(list, br.edge)
		}
	}
	return list
}

// stage sweeps a part at one ε.
func (r *run) stage(b *bench, q *progress, eps, tolerance float64) error {
	s := newSweep(b, q.part, eps)
	b.spread = 0
	// An exponent of size z is known to z times the unit roundoff, and the residual
	// is the weighted mean of the relative errors of the plan's entries.
	floor := func() float64 { return solver.Roundoff(b.dtype) * (1 + 2*b.spread) }
	before := q.end.sweeps
	to := goal{
		tolerance: tolerance, sweeps: r.settings.MaxIterations - before,
		accelerate: r.settings.Acceleration == sinkhorn.Anderson,
		floor:      floor,
	}
	if eps != r.eps {
		to.tolerance = max(solver.CoarseResidual, tolerance)
		to.sweeps = min(to.sweeps, solver.CoarseSweeps)
	}
	if len(q.dtypes) > 0 && to.accelerate {
		to.leave = func() float64 { return solver.LeaveFactor * floor() }
	}
	if r.settings.Trace != nil {
		to.trace = func(n int, residual float64) {
			r.settings.Trace(Iteration{q.number, len(r.parts), before + n, eps, residual, b.dtype})
		}
	}
	end, err := iterate(r.ctx, s, q.state, q.weights, to)
	if err != nil {
		return err
	}
	r.res.Stages = append(r.res.Stages, Stage{q.number, q.edges(), eps, b.dtype, b.cached(q.part), end.sweeps, end.residual})
	if end.sweeps > 0 {
		q.f, q.final = s.f, eps == r.eps && b.dtype == tensor.Float64
	}
	end.sweeps += before
	q.end = end
	return nil
}

// rounds is how often the parts may be asked for more.
const rounds = 5

// confirm certifies the whole. Where the parts kept their promises and the whole
// misses the tolerance all the same, the parts are asked for more.
func (r *run) confirm(b *bench, tolerance float64) error {
	for _, q := range r.parts {
		if q.final {
			continue
		}
		// One more sweep, so that the potentials belong to ε and to float64.
		s := newSweep(b, q.part, r.eps)
		if _, err := s.eval(q.state, make([]float64, q.size)); err != nil {
			return err
		}
		q.f = s.f
	}
	for round := 0; ; round++ {
		plan, c, err := b.certify(r.ctx, r.plan(r.potentials()))
		if err != nil {
			return err
		}
		r.res.Plan, r.res.Certificate = plan, c
		r.res.Status = solver.Converged
		if c.Residual <= r.settings.Tolerance {
			return nil
		}
		for _, q := range r.parts {
			if r.res.Status == solver.Converged || q.end.status == solver.MaxIterations {
				r.res.Status = q.end.status
			}
		}
		if math.IsNaN(c.Residual) || math.IsNaN(c.Primal) || math.IsNaN(c.Dual) {
			r.res.Status = solver.Diverged
		}
		if r.res.Status != solver.Converged {
			return nil
		}
		if r.res.Status = solver.Stalled; round == rounds || r.settings.Precision == solver.Single {
			return nil
		}
		tolerance *= 0.5 * r.settings.Tolerance / c.Residual
		for _, q := range r.parts {
			if q.end.sweeps >= r.settings.MaxIterations {
				continue
			}
			if err := r.stage(b, q, r.eps, tolerance); err != nil || r.failed() {
				return err
			}
		}
	}
}

// potentials adds up those of the parts.
func (r *run) potentials() [][]float64 {
	f := make([][]float64, len(r.nodes))
	for k := range f {
		f[k] = make([]float64, r.nodes[k].n)
	}
	for _, q := range r.parts {
		for _, k := range q.members {
			if q.f == nil || r.nodes[k].free {
				continue
			}
			for x, v := range q.f[k] {
				f[k][x] += v
			}
		}
	}
	return f
}
