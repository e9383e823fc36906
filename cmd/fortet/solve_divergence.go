package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/divergences"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
)

// families are the words of --divergence, beside alpha=A.
var families = []struct {
	word   string
	family divergences.Family
}{
	{"kl", divergences.KL}, {"reverse-kl", divergences.ReverseKL}, {"chi2", divergences.PearsonChi2}, {"neyman", divergences.NeymanChi2},
	{"hellinger", divergences.SquaredHellinger}, {"js", divergences.JensenShannon}, {"tv", divergences.TotalVariation},
}

const (
	divergenceUsage = "regulariser: kl, reverse-kl, chi2 (Pearson's), neyman, hellinger (squared), js (twice Jensen-Shannon), alpha=A or tv"
	problemUsage    = "regularised: min <C,P> + epsilon D(P | a x b); gibbs: min D(P | R), R ~ exp(-C/epsilon) a x b"
)

// regulariser is what --divergence and --problem name. The limits of alpha are
// what they are limits to.
func (p *problemFlags) regulariser() (d divergences.Divergence, kind divergences.Kind, err error) {
	if kind, err = parse("problem", p.problem, divergences.Regularised, divergences.Gibbs); err != nil {
		return d, kind, err
	}
	if text, ok := strings.CutPrefix(p.divergence, "alpha="); ok {
		a, err := strconv.ParseFloat(text, 64)
		switch {
		case err != nil || math.IsNaN(a) || math.IsInf(a, 0):
			return d, kind, usagef("--divergence: got %q, want a finite number after alpha=, as in alpha=1.5", p.divergence)
		case a == 0:
			d.Family = divergences.ReverseKL
		case a != 1:
			d = divergences.Divergence{Family: divergences.Alpha, Alpha: a}
		}
		return d, kind, nil
	}
	words := make([]string, len(families))
	for i, f := range families {
		if f.word == p.divergence {
			d.Family = f.family
			return d, kind, nil
		}
		words[i] = f.word
	}
	return d, kind, usagef("--divergence: got %q, want %s or alpha=A", p.divergence, strings.Join(words, ", "))
}

// divergenceWord is how --divergence names d.
func divergenceWord(d divergences.Divergence) string {
	for _, f := range families {
		if f.family == d.Family {
			return f.word
		}
	}
	return fmt.Sprintf("alpha=%v", d.Alpha)
}

// divergent reads a problem that is not entropic transport, and says how to solve it.
func (c *solve) divergent(s *session, d divergences.Divergence, kind divergences.Kind) (work, clouds, error) {
	for _, flag := range []string{"rho-source", "rho-target", "penalty", "penalty-source", "penalty-target", "source-gradient"} {
		if c.flags.Changed(flag) {
			return nil, clouds{}, usagef("--%s: not with --divergence %s --problem %v, want --divergence kl --problem regularised", flag, divergenceWord(d), kind)
		}
	}
	if c.asked() {
		return nil, clouds{}, usagef("--distributed, --shards: not with --divergence %s --problem %v, want --divergence kl --problem regularised", divergenceWord(d), kind)
	}
	base, err := c.settings(s)
	if err != nil {
		return nil, clouds{}, err
	}
	settings := divergences.Settings{Tolerance: base.Tolerance, MaxIterations: base.MaxIterations, Precision: base.Precision}
	switch c.acceleration {
	case "none":
		settings.NoAcceleration = true
	case "overrelax":
		return nil, clouds{}, usagef("--acceleration overrelax: not with --divergence %s --problem %v, want auto, none or anderson", divergenceWord(d), kind)
	}
	in, sets, err := c.input()
	if err != nil {
		return nil, sets, err
	}
	problem := divergences.Problem{
		Geometry: in.Geometry, A: in.A, B: in.B, Epsilon: in.Epsilon, Scale: in.Scale, Divergence: d, Kind: kind,
	}
	if err := problem.Validate(); err != nil {
		return nil, sets, err
	}
	return func(dev gpu.Device, trace tracer) (*solution, error) {
		settings.Trace = trace
		r, err := divergences.Solve(s.ctx, dev, problem, settings)
		if err != nil {
			return nil, err
		}
		p := r.Plan
		return &solution{
			status: r.Status, residual: r.Certificate.Residual, report: c.divergentReport(dev, r),
			archive: func() *npy.Archive { return divergentPotentials(p) },
			matrix:  p.Matrix,
			mapped: func(ctx context.Context) ([]float64, error) {
				if _, ok := p.Geometry.(geometry.Points); ok {
					return p.BarycentricMap(ctx)
				}
				return p.Transport(ctx, sets.target.X, sets.target.D)
			},
		}, nil
	}, sets, nil
}

func (c *solve) divergentReport(dev gpu.Device, r *divergences.Result) solveReport {
	p, cert := r.Plan, r.Certificate
	n, m := p.Geometry.Size()
	out := solveReport{
		Problem: problemReport{
			N: n, M: m, D: p.Geometry.Dim(), Cost: p.Geometry.Cost().String(), Epsilon: number(p.Epsilon), EpsilonScale: c.scale,
			Divergence: divergenceWord(p.Divergence), Smoothing: number(p.Divergence.Delta), Kind: p.Kind.String(),
			DType: tensor.Float64.String(), Device: dev.Name(),
		},
		Status: r.Status.String(), Iterations: r.Iterations, Seconds: number(r.Duration.Seconds()),
		TransportCost: number(cert.TransportCost), Primal: number(cert.Primal), Dual: number(cert.Dual), Gap: number(cert.Gap),
		Mass: number(cert.Mass), MarginalError: marginalReport{number(cert.Source), number(cert.Target)}, Residual: number(cert.Residual),
		Stages: []stageReport{}, // of an exact flow there are none
	}
	for _, s := range r.Stages {
		out.Stages = append(out.Stages, stageReport{Epsilon: number(s.Epsilon), DType: s.DType.String(), Iterations: s.Iterations, Residual: number(s.Error)})
		out.Problem.DType = s.DType.String()
	}
	return out
}

// potentialArchive holds the potentials of any plan.
func potentialArchive(f, g, a, b []float64, epsilon float64, cost geometry.Cost, d divergences.Divergence, kind divergences.Kind) *npy.Archive {
	z := &npy.Archive{}
	z.Set("f", npy.New(f, len(f)))
	z.Set("g", npy.New(g, len(g)))
	z.Set("a", npy.New(a, len(a)))
	z.Set("b", npy.New(b, len(b)))
	z.Set("epsilon", npy.Scalar(epsilon))
	z.Set("cost", npy.Scalar(int64(cost)))
	z.Set("divergence", npy.Scalar(int64(d.Family)))
	z.Set("problem", npy.Scalar(int64(kind)))
	return z
}

// divergentPotentials adds what the density needs beside the potentials, and the
// plan itself where they do not say it.
func divergentPotentials(p divergences.Plan) *npy.Archive {
	z := potentialArchive(p.F, p.G, p.A, p.B, p.Epsilon, p.Geometry.Cost(), p.Divergence, p.Kind)
	z.Set("alpha", npy.Scalar(p.Divergence.Alpha))
	z.Set("delta", npy.Scalar(p.Divergence.Delta))
	z.Set("logz", npy.Scalar(p.LogZ))
	if p.Given != nil {
		z.Set("plan", npy.New(p.Given, len(p.F), len(p.G)))
	}
	return z
}

// divergentPlan is the plan in a file of potentials that is not entropic
// transport's; ok is false where it is, or where the file says nothing.
func divergentPlan(path string, z *npy.Archive) (p divergences.Plan, ok bool, err error) {
	var family, kind float64
	for _, v := range []struct {
		name string
		to   *float64
	}{{"divergence", &family}, {"problem", &kind}, {"alpha", &p.Divergence.Alpha}, {"delta", &p.Divergence.Delta}, {"logz", &p.LogZ}} {
		if !z.Has(v.name) {
			continue
		}
		if *v.to, err = scalar(path, z, v.name); err != nil {
			return p, false, err
		}
	}
	p.Divergence.Family, p.Kind = divergences.Family(family), divergences.Kind(kind)
	if float64(p.Divergence.Family) != family || p.Divergence.Validate() != nil {
		return p, false, usagef("--potentials: %s: divergence %v with alpha %v and delta %v is none that is known", path, family, p.Divergence.Alpha, p.Divergence.Delta)
	}
	if p.Kind != divergences.Regularised && p.Kind != divergences.Gibbs || float64(p.Kind) != kind {
		return p, false, usagef("--potentials: %s: problem is %v, want 0 (regularised) or 1 (gibbs)", path, kind)
	}
	switch {
	case p.Divergence.Family == divergences.KL && p.Kind == divergences.Regularised:
		return p, false, nil
	case p.Kind == divergences.Regularised:
		return p, false, usagef("--potentials: %s: its plan is transport regularised by %s, which is no bridge of a process; want --divergence kl or --problem gibbs when it is solved", path, divergenceWord(p.Divergence))
	}
	if z.Has("plan") {
		a, err := z.Get("plan")
		if err != nil {
			return p, false, fmt.Errorf("--potentials: %s: %w", path, err)
		}
		p.Given = a.Float64s()
	}
	return p, true, nil
}

func scalar(path string, z *npy.Archive, name string) (float64, error) {
	a, err := z.Get(name)
	if err != nil {
		return 0, fmt.Errorf("--potentials: %s: %w", path, err)
	}
	if a.Len() != 1 {
		return 0, usagef("--potentials: %s: %s has %d numbers, want 1", path, name, a.Len())
	}
	x := a.Float64s()[0]
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, usagef("--potentials: %s: %s is %v, want a finite number", path, name, x)
	}
	return x, nil
}
