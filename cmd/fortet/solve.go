package main

import (
	"context"
	"io"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/divergences"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor/npy"
)

var solveCommand = command{
	name:    "solve",
	does:    "Solve a static Schrödinger bridge (entropic optimal transport) between two data sets",
	usage:   "fortet solve --source URI --target URI --epsilon E [flags]",
	example: "fortet solve --source 'digits?class=3' --target 'digits?class=8' --epsilon 0.05 --epsilon-scale mean --potentials plan.npz --plot plan.png",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &solve{}
		c.declare(f)
		f.Lookup("epsilon").Usage = "strength of the divergence, or of gibbs the temperature of the reference, above 0"
		f.Lookup("divergence").Usage, f.Lookup("problem").Usage = divergenceUsage, problemUsage
		f.StringVar(&c.potentials, "potentials", "", "write f, g, a, b, epsilon and which problem they solve to this .npz")
		f.StringVar(&c.mapped, "map", "", "write the barycentric map, (n, d), to this .npy")
		f.StringVar(&c.plan, "plan", "", "write the plan, (n, m), to this .npy")
		f.StringVar(&c.gradient, "source-gradient", "", "write the gradient of the value by the source points at this epsilon, (n, d), to this .npy")
		f.StringVar(&c.plot, "plot", "", "draw the plan to this .png or .svg")
		return c.do
	},
}

type solve struct {
	problemFlags
	potentials, mapped, plan, plot string
	gradient                       string
	format                         plot.Format
}

// problemReport is the "problem" of a result.
type problemReport struct {
	N             int    `json:"n"`
	M             int    `json:"m"`
	D             int    `json:"d"`
	Cost          string `json:"cost"`
	Epsilon       number `json:"epsilon"` // absolute
	EpsilonScale  string `json:"epsilon_scale"`
	Divergence    string `json:"divergence,omitempty"`
	Smoothing     number `json:"smoothing,omitempty"` // of a total variation too large to be solved exactly
	Kind          string `json:"kind,omitempty"`
	PenaltySource string `json:"penalty_source,omitempty"` // with the rho, where not exact
	PenaltyTarget string `json:"penalty_target,omitempty"`
	RhoSource     number `json:"rho_source,omitempty"`
	RhoTarget     number `json:"rho_target,omitempty"`
	DType         string `json:"dtype"` // of the last iterations
	Device        string `json:"device"`
	sharingReport
}

// unbalanced fills in the penalties of a problem.
func (r *problemReport) unbalanced(source, target sinkhorn.Penalty) {
	if !source.IsExact() {
		r.PenaltySource, r.RhoSource = source.Kind.String(), number(source.Rho)
	}
	if !target.IsExact() {
		r.PenaltyTarget, r.RhoTarget = target.Kind.String(), number(target.Rho)
	}
}

type stageReport struct {
	Epsilon    number `json:"epsilon"`
	DType      string `json:"dtype"`
	Cached     bool   `json:"cost_cached"`
	Iterations int    `json:"iterations"`
	Residual   number `json:"residual"`
}

type marginalReport struct {
	Source number `json:"source"`
	Target number `json:"target"`
}

type solveReport struct {
	Problem       problemReport  `json:"problem"`
	Status        string         `json:"status"`
	Iterations    int            `json:"iterations"`
	Seconds       number         `json:"seconds"`
	TransportCost number         `json:"transport_cost"`
	Primal        number         `json:"primal"`
	Dual          number         `json:"dual"`
	Gap           number         `json:"gap"`
	Mass          number         `json:"mass"`
	MarginalError marginalReport `json:"marginal_error"`
	Residual      number         `json:"residual"`
	Stages        []stageReport  `json:"stages"`
}

func describe(p *problemFlags, dev gpu.Device, r *sinkhorn.Result) problemReport {
	n, m := r.Plan.Geometry.Size()
	report := problemReport{
		N: n, M: m, D: r.Plan.Geometry.Dim(), Cost: r.Plan.Geometry.Cost().String(),
		Epsilon: number(r.Plan.Epsilon), EpsilonScale: p.scale,
		Divergence: divergenceWord(divergences.Divergence{}), Kind: divergences.Regularised.String(),
		Device: dev.Name(), sharingReport: shared(r.Plan.Geometry),
	}
	report.unbalanced(r.Plan.Source, r.Plan.Target)
	if len(r.Stages) > 0 {
		report.DType = r.Stages[len(r.Stages)-1].DType.String()
	}
	return report
}

func report(p *problemFlags, dev gpu.Device, r *sinkhorn.Result) solveReport {
	c := r.Certificate
	out := solveReport{
		Problem: describe(p, dev, r), Status: r.Status.String(), Iterations: r.Iterations,
		Seconds:       number(r.Duration.Seconds()),
		TransportCost: number(c.TransportCost), Primal: number(c.Primal), Dual: number(c.Dual), Gap: number(c.Gap),
		Mass: number(c.Mass), MarginalError: marginalReport{number(c.Source), number(c.Target)}, Residual: number(c.Residual),
	}
	for _, s := range r.Stages {
		out.Stages = append(out.Stages, stageReport{number(s.Epsilon), s.DType.String(), s.Cached, s.Iterations, number(s.Error)})
	}
	return out
}

// solution is how one of the problems ended: what is printed, and what is written
// if it is asked for.
type solution struct {
	status   solver.Status
	residual float64
	report   solveReport
	archive  func() *npy.Archive
	matrix   func() []float64                         // (n, m)
	mapped   func(context.Context) ([]float64, error) // (n, d)
	gradient func(context.Context) ([]float64, error) // (n, d); nil where there is none
}

type tracer = func(sinkhorn.Iteration)

// work solves a problem that was read and found valid.
type work func(gpu.Device, tracer) (*solution, error)

// entropic reads a problem of entropic transport, and says how to solve it.
func (c *solve) entropic(s *session) (work, clouds, error) {
	settings, err := c.settings(s)
	if err != nil {
		return nil, clouds{}, err
	}
	problem, sets, err := c.read()
	if err != nil {
		return nil, sets, err
	}
	if c.costMatrix != "" && c.gradient != "" {
		return nil, sets, usagef("--source-gradient: a cost matrix does not say how costs change with the points; use --cost")
	}
	return func(dev gpu.Device, trace tracer) (*solution, error) {
		settings.Trace = trace
		var err error
		if problem.Geometry, err = s.shard(problem.Geometry, c.sharing); err != nil {
			return nil, err
		}
		r, err := sinkhorn.Solve(s.ctx, dev, problem, settings)
		if err != nil {
			return nil, err
		}
		p := r.Plan
		return &solution{
			status: r.Status, residual: r.Certificate.Residual, report: report(&c.problemFlags, dev, r),
			archive: func() *npy.Archive {
				return potentialArchive(p.F, p.G, p.A, p.B, p.Epsilon, p.Geometry.Cost(), divergences.Divergence{}, divergences.Regularised)
			},
			matrix: p.Matrix,
			mapped: func(ctx context.Context) ([]float64, error) {
				return p.Transport(ctx, dev, sets.target.X, sets.target.D)
			},
			gradient: func(ctx context.Context) ([]float64, error) { return p.SourceGradient(ctx, dev) },
		}, nil
	}, sets, nil
}

func (c *solve) do(s *session, args []string) error {
	if err := s.join(c.distribution); err != nil {
		return err
	}
	var out outputs
	defer out.close()
	run, sets, err := c.prepare(s, args, &out)
	if err := s.agree(err); err != nil {
		return err
	}
	dev, err := s.open()
	if err != nil {
		return err
	}
	bar := s.progress("solve")
	r, err := run(dev, trace(bar, c.tol))
	bar.finish()
	if err != nil {
		return err
	}
	if r.status == solver.Canceled {
		return s.agree(context.Canceled)
	}
	return s.agree(c.finish(s, &out, r, sets))
}

// prepare checks the flags, reads what they name and creates the files.
func (c *solve) prepare(s *session, args []string, out *outputs) (run work, sets clouds, err error) {
	if len(args) > 0 {
		return nil, sets, usagef("solve: unexpected argument %q", args[0])
	}
	if err := c.check(); err != nil {
		return nil, sets, err
	}
	d, kind, err := c.regulariser()
	if err != nil {
		return nil, sets, err
	}
	if d.Family == divergences.KL && kind == divergences.Regularised {
		run, sets, err = c.entropic(s)
	} else {
		run, sets, err = c.divergent(s, d, kind)
	}
	if err != nil {
		return nil, sets, err
	}
	if c.source == "" && (c.mapped != "" || c.plot != "") {
		return nil, sets, usagef("--map and --plot need points: give --source and --target beside --cost-matrix")
	}
	if c.format, err = plotFormat(c.plot); err != nil || !s.lead() {
		return run, sets, err
	}
	for _, f := range [][2]string{{"potentials", c.potentials}, {"map", c.mapped}, {"plan", c.plan}, {"source-gradient", c.gradient}, {"plot", c.plot}} {
		if err := out.add(f[0], f[1]); err != nil {
			return nil, sets, err
		}
	}
	return run, sets, nil
}

// finish writes and prints what was found.
func (c *solve) finish(s *session, out *outputs, r *solution, sets clouds) error {
	if r.status != solver.Diverged {
		if err := c.write(s.ctx, out, r, sets); err != nil {
			return err
		}
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := out.commit(); err != nil {
			return err
		}
	}
	if err := s.print(r.report); err != nil {
		return err
	}
	return notConverged(r.status, r.residual, c.tol)
}

// notConverged turns a status into the exit code's error.
func notConverged(status solver.Status, residual, tol float64) error {
	if status == solver.Converged {
		return nil
	}
	return &statusError{status, residual, tol}
}

func (c *solve) write(ctx context.Context, out *outputs, r *solution, sets clouds) error {
	// What all processes compute together comes first: a file that one of them
	// cannot write must not keep the others waiting.
	var gradient, mapped []float64
	var err error
	if c.gradient != "" {
		if gradient, err = r.gradient(ctx); err != nil {
			return err
		}
	}
	if c.mapped != "" || c.plot != "" {
		if mapped, err = r.mapped(ctx); err != nil {
			return err
		}
	}
	// Potentials are what `fortet bridge` reads.
	err = out.write("potentials", func(w io.Writer) error { return npy.WriteNPZ(w, r.archive(), npy.Stored) })
	if err != nil {
		return err
	}
	n, m := r.report.Problem.N, r.report.Problem.M
	if err := out.write("plan", func(w io.Writer) error { return npy.Write(w, npy.New(r.matrix(), n, m)) }); err != nil {
		return err
	}
	if err := writeGradient(out, gradient, sets); err != nil {
		return err
	}
	if err := out.write("map", func(w io.Writer) error { return npy.Write(w, npy.New(mapped, n, sets.target.D)) }); err != nil {
		return err
	}
	return out.write("plot", func(w io.Writer) error { return drawPlan(w, c.format, sets, mapped) })
}

// writeGradient writes a gradient by the source points to --source-gradient.
func writeGradient(out *outputs, g []float64, clouds clouds) error {
	return out.write("source-gradient", func(w io.Writer) error {
		return npy.Write(w, npy.New(g, clouds.source.N, clouds.source.D))
	})
}
