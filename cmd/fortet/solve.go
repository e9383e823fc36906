package main

import (
	"io"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/solver"
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
		f.StringVar(&c.potentials, "potentials", "", "write f, g, a, b and epsilon to this .npz")
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
	PenaltySource string `json:"penalty_source,omitempty"` // with the rho, where not exact
	PenaltyTarget string `json:"penalty_target,omitempty"`
	RhoSource     number `json:"rho_source,omitempty"`
	RhoTarget     number `json:"rho_target,omitempty"`
	DType         string `json:"dtype"` // of the last iterations
	Device        string `json:"device"`
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
		Device: dev.Name(),
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

func (c *solve) do(s *session, args []string) error {
	if len(args) > 0 {
		return usagef("solve: unexpected argument %q", args[0])
	}
	settings, err := c.settings(s)
	if err != nil {
		return err
	}
	problem, clouds, err := c.read()
	if err != nil {
		return err
	}
	if c.source == "" && (c.mapped != "" || c.plot != "") {
		return usagef("--map and --plot need points: give --source and --target beside --cost-matrix")
	}
	if c.costMatrix != "" && c.gradient != "" {
		return usagef("--source-gradient: a cost matrix does not say how costs change with the points; use --cost")
	}
	if c.format, err = plotFormat(c.plot); err != nil {
		return err
	}
	var out outputs
	defer out.close()
	for _, f := range [][2]string{{"potentials", c.potentials}, {"map", c.mapped}, {"plan", c.plan}, {"source-gradient", c.gradient}, {"plot", c.plot}} {
		if err := out.add(f[0], f[1]); err != nil {
			return err
		}
	}
	dev, err := s.open()
	if err != nil {
		return err
	}
	bar := s.progress("solve")
	settings.Trace = trace(bar, c.tol)
	r, err := sinkhorn.Solve(s.ctx, dev, problem, settings)
	bar.finish()
	if err != nil {
		return err
	}
	if r.Status == solver.Canceled {
		return s.ctx.Err()
	}
	if r.Status != solver.Diverged {
		if err := c.write(s, dev, &out, r, clouds); err != nil {
			return err
		}
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := out.commit(); err != nil {
			return err
		}
	}
	if err := s.print(report(&c.problemFlags, dev, r)); err != nil {
		return err
	}
	return notConverged(r.Status, r.Certificate.Residual, c.tol)
}

// notConverged turns a status into the exit code's error.
func notConverged(status solver.Status, residual, tol float64) error {
	if status == solver.Converged {
		return nil
	}
	return &statusError{status, residual, tol}
}

func (c *solve) write(s *session, dev gpu.Device, out *outputs, r *sinkhorn.Result, clouds clouds) error {
	p := r.Plan
	n, m := p.Geometry.Size()
	err := out.write("potentials", func(w io.Writer) error { return writePotentials(w, p) })
	if err != nil {
		return err
	}
	if err := out.write("plan", func(w io.Writer) error { return npy.Write(w, npy.New(p.Matrix(), n, m)) }); err != nil {
		return err
	}
	if c.gradient != "" {
		g, err := p.SourceGradient(s.ctx, dev)
		if err != nil {
			return err
		}
		if err := writeGradient(out, g, clouds); err != nil {
			return err
		}
	}
	if c.mapped == "" && c.plot == "" {
		return nil
	}
	mapped, err := p.Transport(s.ctx, dev, clouds.target.X, clouds.target.D)
	if err != nil {
		return err
	}
	if err := out.write("map", func(w io.Writer) error { return npy.Write(w, npy.New(mapped, n, clouds.target.D)) }); err != nil {
		return err
	}
	return out.write("plot", func(w io.Writer) error { return drawPlan(w, c.format, clouds, mapped) })
}

// writeGradient writes a gradient by the source points to --source-gradient.
func writeGradient(out *outputs, g []float64, clouds clouds) error {
	return out.write("source-gradient", func(w io.Writer) error {
		return npy.Write(w, npy.New(g, clouds.source.N, clouds.source.D))
	})
}

// writePotentials writes what `fortet bridge` reads.
func writePotentials(w io.Writer, p sinkhorn.Plan) error {
	var z npy.Archive
	z.Set("f", npy.New(p.F, len(p.F)))
	z.Set("g", npy.New(p.G, len(p.G)))
	z.Set("a", npy.New(p.A, len(p.A)))
	z.Set("b", npy.New(p.B, len(p.B)))
	z.Set("epsilon", npy.Scalar(p.Epsilon))
	z.Set("cost", npy.Scalar(int64(p.Geometry.Cost())))
	return npy.WriteNPZ(w, &z, npy.Stored)
}
