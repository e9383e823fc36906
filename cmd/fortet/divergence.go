package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/sinkhorn"
)

var divergenceCommand = command{
	name:    "divergence",
	does:    "Compute the Sinkhorn divergence between two data sets",
	usage:   "fortet divergence --source URI --target URI --epsilon E [flags]",
	example: "fortet divergence --source 'digits?class=3' --target 'digits?class=8' --epsilon 0.1 --epsilon-scale mean",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &divergence{}
		c.declare(f)
		f.StringVar(&c.gradient, "source-gradient", "", "write the gradient of the divergence by the source points at this epsilon, (n, d), to this .npy")
		return c.do
	},
}

type divergence struct {
	problemFlags
	gradient string
}

type termReport struct {
	Value         number         `json:"value"`
	Status        string         `json:"status"`
	Iterations    int            `json:"iterations"`
	Primal        number         `json:"primal"`
	Dual          number         `json:"dual"`
	Gap           number         `json:"gap"`
	MarginalError marginalReport `json:"marginal_error"`
}

type divergenceReport struct {
	Problem    problemReport `json:"problem"`
	Status     string        `json:"status"`
	Seconds    number        `json:"seconds"`
	Divergence number        `json:"divergence"`
	Terms      struct {
		AB   termReport `json:"ab"`
		AA   termReport `json:"aa"`
		BB   termReport `json:"bb"`
		Mass number     `json:"mass"`
	} `json:"terms"`
}

func term(t sinkhorn.Term) termReport {
	c := t.Certificate
	return termReport{
		number(t.Value), t.Status.String(), t.Iterations,
		number(c.Primal), number(c.Dual), number(c.Gap), marginalReport{number(c.Source), number(c.Target)},
	}
}

func (c *divergence) do(s *session, args []string) error {
	if err := s.join(c.distribution); err != nil {
		return err
	}
	var files outputs
	defer files.close()
	problem, clouds, settings, err := c.prepare(s, args, &files)
	if err := s.agree(err); err != nil {
		return err
	}
	dev, err := s.open()
	if err != nil {
		return err
	}
	if problem.Geometry, err = s.shard(problem.Geometry, c.sharing); err != nil {
		return err
	}
	bar := s.progress("divergence")
	settings.Trace = trace(bar, c.tol)
	d, err := sinkhorn.SolveDivergence(s.ctx, dev, problem, settings)
	bar.finish()
	if err != nil {
		return err
	}
	if d.Status() == solver.Canceled {
		return s.agree(context.Canceled)
	}
	return s.agree(c.finish(s, dev, &files, problem, clouds, d))
}

// prepare checks the flags, reads what they name and creates the files.
func (c *divergence) prepare(s *session, args []string, files *outputs) (problem sinkhorn.Problem, sets clouds, settings sinkhorn.Settings, err error) {
	if len(args) > 0 {
		return problem, sets, settings, usagef("divergence: unexpected argument %q", args[0])
	}
	if c.costMatrix != "" {
		return problem, sets, settings, usagef("--cost-matrix: a matrix between two sets says nothing of the costs within each; use --cost")
	}
	if err = c.check(); err != nil {
		return problem, sets, settings, err
	}
	if settings, err = c.settings(s); err != nil {
		return problem, sets, settings, err
	}
	if problem, sets, err = c.read(); err != nil || !s.lead() {
		return problem, sets, settings, err
	}
	return problem, sets, settings, files.add("source-gradient", c.gradient)
}

// finish writes and prints what was found.
func (c *divergence) finish(s *session, dev gpu.Device, files *outputs, problem sinkhorn.Problem, sets clouds, d *sinkhorn.Divergence) error {
	if c.gradient != "" && d.Status() != solver.Diverged {
		g, err := d.Gradient(s.ctx, dev)
		if err != nil {
			return err
		}
		if err := writeGradient(files, g.X, sets); err != nil {
			return err
		}
		if err := files.commit(); err != nil {
			return err
		}
	}
	out := divergenceReport{Status: d.Status().String(), Seconds: number(d.Duration.Seconds()), Divergence: number(d.Value)}
	out.Problem = problemReport{
		N: sets.source.N, M: sets.target.N, D: sets.source.D, Cost: c.cost, Epsilon: number(d.Epsilon),
		EpsilonScale: c.scale, DType: d.DType.String(), Device: dev.Name(), sharingReport: shared(problem.Geometry),
	}
	out.Problem.unbalanced(problem.Source, problem.Target)
	out.Terms.AB, out.Terms.AA, out.Terms.BB, out.Terms.Mass = term(d.AB), term(d.AA), term(d.BB), number(d.MassTerm)
	if err := s.print(out); err != nil {
		return err
	}
	worst := max(d.AB.Certificate.Residual, d.AA.Certificate.Residual, d.BB.Certificate.Residual)
	return notConverged(d.Status(), worst, c.tol)
}
