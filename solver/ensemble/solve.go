package ensemble

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/fortet/fortet/gpu"
	kernel "github.com/fortet/fortet/kernels/ensemble"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/tensor"
)

// Result is what Solve found of all problems, however they ended.
type Result struct {
	// F: (ΣN) and G: (ΣM) are the potentials, in the cost's unit, F being the one
	// that is optimal for G. They extend to points of weight 0.
	F, G []float64
	// Map: (ΣN, D) is the barycentric maps Σ_j P_ij y_j / Σ_j P_ij, where
	// Settings.Map asked for them.
	Map      []float64
	Problems []Outcome
	// Repeated is how many problems float32 did not solve, so that float64 went
	// on with them.
	Repeated int
	Duration time.Duration

	n, m []int
}

// Outcome is how one problem ended. Of a problem that was canceled before it
// began, potentials and certificate are NaN.
type Outcome struct {
	Status      solver.Status
	Iterations  int          // sweeps over its pairs, in all stages
	DType       tensor.DType // of the last sweeps
	Epsilon     float64      // absolute
	Certificate Certificate
}

// Certificate is what holds of the plan of the returned potentials, evaluated
// in float64 over all pairs, whatever precision found them; see package
// sinkhorn.
type Certificate struct {
	TransportCost  float64 // <C, P>
	Primal         float64 // <C, P> + ε KL(P | a⊗b), plus the marginal penalties
	Dual           float64 // of (f, g): at most the optimum
	Gap            float64 // Primal - Dual
	Mass           float64 // ΣP
	Source, Target float64 // L1 distances of the plan's marginals from a and b
	Residual       float64 // of the optimality conditions, relative to the mass of a
}

// Status is Converged where all problems are; or else Canceled, or the first
// other one.
func (r *Result) Status() solver.Status {
	status := solver.Converged
	for _, o := range r.Problems {
		if o.Status == solver.Canceled {
			return solver.Canceled
		}
		if status == solver.Converged {
			status = o.Status
		}
	}
	return status
}

// Potentials are F and G of problem p.
func (r *Result) Potentials(p int) (f, g []float64) {
	i, j := 0, 0
	for k := range p {
		i, j = i+r.n[k], j+r.m[k]
	}
	return r.F[i : i+r.n[p]], r.G[j : j+r.m[p]]
}

const (
	// anneal is the ε, over the mean cost, below which annealing pays: of problems
	// of 64 points in two dimensions it takes about a third more sweeps at 0.05, as
	// many at 0.01, and a fraction of them at 0.002.
	anneal = 0.015
	// giveUp is how many sweeps float32 has to halve the residual.
	giveUp = 24
	// margin is how far below the tolerance float32 has to come in its own
	// arithmetic, for the residual in float64 to be below it.
	margin = 0.75
)

// Solve solves the problems on dev. An error says that it could not run; how
// the problems ended is in Result.Problems. Cancellation of ctx ends all of
// them within one sweep.
func Solve(ctx context.Context, dev gpu.Device, p Problem, settings Settings) (*Result, error) {
	start := time.Now()
	if err := p.Validate(); err != nil {
		return nil, err
	}
	m := 0
	for _, k := range p.M {
		m += k
	}
	if err := settings.Validate(m); err != nil {
		return nil, err
	}
	if settings.Map && p.Ground == geometry.GivenMatrix {
		return nil, fmt.Errorf("ensemble: map: %w: a cost matrix has no points", solver.ErrInvalid)
	}
	settings = settings.withDefaults()
	if len(p.N) == 0 {
		return &Result{Duration: time.Since(start)}, nil
	}
	b, err := open(dev, p, settings)
	if err != nil {
		return nil, err
	}
	defer b.close()
	res := &Result{Problems: make([]Outcome, len(p.N)), n: p.N, m: p.M}
	for k := range res.Problems {
		res.Problems[k].Status = solver.Canceled // until it has run
	}
	done, err := b.watch(ctx)
	if err != nil {
		return nil, err
	}
	err = b.climb(ctx, res)
	done()
	if err != nil {
		return nil, err
	}
	if err := b.collect(res); err != nil {
		return nil, err
	}
	res.Duration = time.Since(start)
	return res, nil
}

// bench is an ensemble on a device.
type bench struct {
	dev      gpu.Device
	settings Settings
	args     kernel.Args
	held     []tensor.Tensor
	counts   []int32
}

func (b *bench) close() {
	for _, t := range b.held {
		t.Free()
	}
	if b.args.Layout != nil {
		b.args.Layout.Free()
	}
}

// open uploads the problems.
func open(dev gpu.Device, p Problem, settings Settings) (*bench, error) {
	b := &bench{dev: dev, settings: settings}
	layout, err := kernel.NewLayout(dev, p.N, p.M)
	if err != nil {
		return nil, err
	}
	b.args = kernel.Args{
		Layout: layout, PerMean: p.Scale == Mean, Tolerance: settings.Tolerance, MaxSweeps: settings.MaxIterations,
		Plain: settings.Acceleration == None, Warm: settings.Start != nil, Anneal: anneal,
	}
	if settings.NoAnnealing {
		b.args.Anneal = 0
	}
	a := &b.args
	var failed error
	keep := func(t tensor.Tensor, err error) tensor.Tensor {
		if err != nil {
			failed = err
			return tensor.Tensor{}
		}
		b.held = append(b.held, t)
		return t
	}
	put := func(v []float64, shape ...int) tensor.Tensor {
		if v == nil || failed != nil {
			return tensor.Tensor{}
		}
		return keep(tensor.From(dev, v, shape...))
	}
	n, m, count := layout.Sources(), layout.Targets(), layout.Problems()
	if p.Ground == geometry.GivenMatrix {
		a.Costs = put(p.Costs, len(p.Costs))
	} else {
		a.X, a.Y = put(p.X, n, p.D), put(p.Y, m, p.D)
		a.Ground = map[geometry.Cost]kernel.Cost{
			geometry.SqEuclidean: kernel.SqEuclidean, geometry.HalfSqEuclidean: kernel.HalfSqEuclidean, geometry.Euclidean: kernel.Euclidean,
		}[p.Ground]
	}
	a.A, a.B = put(p.A, n), put(p.B, m)
	a.Epsilon = put(perProblem(p.Epsilon, count, false), count)
	if p.RhoSource != nil {
		a.RhoSource = put(perProblem(p.RhoSource, count, true), count)
	}
	if p.RhoTarget != nil {
		a.RhoTarget = put(perProblem(p.RhoTarget, count, true), count)
	}
	// What a canceled run does not reach stays as it is now.
	a.F, a.Values = put(nans(n), n), put(nans(count*kernel.Values), count, kernel.Values)
	g := settings.Start
	if g == nil {
		g = nans(m)
	}
	a.G = put(g, m)
	if settings.Map {
		a.Map = put(nans(n*p.D), n, p.D)
	}
	b.counts = make([]int32, count*kernel.Counts)
	for k := range count {
		b.counts[k*kernel.Counts+kernel.Status] = kernel.Canceled
	}
	if failed == nil {
		a.Counts = keep(tensor.From(dev, b.counts, count, kernel.Counts))
	}
	if failed == nil {
		a.Stop = keep(tensor.From(dev, []int32{0}, 1))
	}
	if failed != nil {
		b.close()
		return nil, failed
	}
	return b, nil
}

// perProblem is one number for each problem; of a penalty 0 becomes +Inf.
func perProblem(v []float64, count int, penalty bool) []float64 {
	out := make([]float64, count)
	for k := range out {
		out[k] = of(v, k)
		if penalty && out[k] == 0 {
			out[k] = math.Inf(1)
		}
	}
	return out
}

func nans(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = math.NaN()
	}
	return v
}

// watch sets the kernels' stop as soon as ctx is done, until done is called.
func (b *bench) watch(ctx context.Context) (done func(), err error) {
	if ctx.Done() == nil {
		return func() {}, nil
	}
	if ctx.Err() != nil {
		return func() {}, tensor.Set(b.args.Stop, []int32{1})
	}
	stream, err := b.dev.Stream()
	if err != nil {
		return nil, err
	}
	over, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		select {
		case <-ctx.Done():
			// A failure leaves the run to end by itself.
			_ = stream.Upload(b.args.Stop.Buffer(), []byte{1, 0, 0, 0})
		case <-over:
		}
	}()
	return func() {
		close(over)
		<-left
		stream.Close()
	}, nil
}

// climb runs the ladder of precisions.
func (b *bench) climb(ctx context.Context, res *Result) error {
	dtypes := []tensor.DType{tensor.Float32, tensor.Float64}
	switch b.settings.Precision {
	case solver.Single:
		dtypes = dtypes[:1]
	case solver.Double:
		dtypes = dtypes[1:]
	}
	for k, dtype := range dtypes {
		a := b.args
		a.Sweeps = dtype
		if k+1 < len(dtypes) {
			a.Tolerance, a.GiveUp = margin*a.Tolerance, giveUp
		}
		if k > 0 {
			a.Warm, a.Only = true, []int{}
			for p, o := range res.Problems {
				if o.Status != solver.Converged {
					a.Only = append(a.Only, p)
					clear(b.counts[p*kernel.Counts : (p+1)*kernel.Counts])
					b.counts[p*kernel.Counts+kernel.Status] = kernel.Canceled
				}
			}
			if err := tensor.Set(a.Counts, b.counts); err != nil {
				return err
			}
			res.Repeated = len(a.Only)
		}
		if err := kernel.Solve(a); err != nil {
			return err
		}
		if err := tensor.Get(a.Counts, b.counts); err != nil {
			return err
		}
		if err := b.tally(res, a, dtype); err != nil {
			return err
		}
		if ctx.Err() != nil && k+1 < len(dtypes) {
			for p := range res.Problems {
				if o := &res.Problems[p]; o.Status != solver.Converged {
					o.Status = solver.Canceled // it would have been gone on with
				}
			}
			return nil
		}
	}
	return nil
}

// tally enters how the problems of a launch ended.
func (b *bench) tally(res *Result, a kernel.Args, dtype tensor.DType) error {
	values, err := tensor.Values[float64](a.Values)
	if err != nil {
		return err
	}
	enter := func(p int) {
		o, c, v := &res.Problems[p], b.counts[p*kernel.Counts:], values[p*kernel.Values:]
		o.Status = statuses[c[kernel.Status]]
		o.Iterations += int(c[kernel.Sweeps])
		o.DType = dtype
		o.Epsilon = v[kernel.Epsilon]
		o.Certificate = Certificate{
			TransportCost: v[kernel.TransportCost], Primal: v[kernel.Primal], Dual: v[kernel.Dual], Gap: v[kernel.Primal] - v[kernel.Dual],
			Mass: v[kernel.Mass], Source: v[kernel.Source], Target: v[kernel.Target], Residual: v[kernel.Residual],
		}
		if o.Status == solver.Stalled && o.Certificate.Residual <= b.settings.Tolerance {
			o.Status = solver.Converged // short of a ladder's margin only
		}
	}
	if a.Only == nil {
		for p := range res.Problems {
			enter(p)
		}
	}
	for _, p := range a.Only {
		enter(p)
	}
	return nil
}

var statuses = map[int32]solver.Status{
	kernel.Converged: solver.Converged, kernel.MaxSweeps: solver.MaxIterations, kernel.Stalled: solver.Stalled,
	kernel.Canceled: solver.Canceled, kernel.Diverged: solver.Diverged,
}

func (b *bench) collect(res *Result) (err error) {
	if res.F, err = tensor.Values[float64](b.args.F); err != nil {
		return err
	}
	if res.G, err = tensor.Values[float64](b.args.G); err != nil {
		return err
	}
	if b.settings.Map {
		res.Map, err = tensor.Values[float64](b.args.Map)
	}
	return err
}
