package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/solver/metrics"
	"github.com/fortet/fortet/tensor/npy"
)

var evalCommand = command{
	name:    "eval",
	does:    "Measure how far generated points are from a reference, or a trained bridge from its target, each metric with its sampling floor",
	usage:   "fortet eval --generated F.npy --reference URI [--metrics w2,sw2,…] [--n N]\n  fortet eval RUN [--metrics w2,sw2,…] [--n N]",
	example: "fortet eval --generated mapped.npy --reference 'digits?class=8' --metrics w2,sw2,energy,moments",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &eval{}
		f.StringVar(&c.generated, "generated", "", ".npy of the generated points, (n, d)")
		f.StringVar(&c.reference, "reference", "", "data set to compare with")
		f.StringVar(&c.metrics, "metrics", "w2,sw2,energy,moments", metricNames())
		f.IntVar(&c.n, "n", 0, "points on each side; 0: as many as there are")
		f.IntVar(&c.repetitions, "repetitions", 5, "repetitions of the floor")
		return c.do
	},
}

type eval struct {
	generated, reference, metrics string
	n, repetitions                int
}

func metricNames() string {
	names := "comma-separated, of "
	for i, m := range metrics.All() {
		if i > 0 {
			names += ", "
		}
		names += m.Name
	}
	return names
}

type evalReport struct {
	Generated string                 `json:"generated"`
	Reference string                 `json:"reference"`
	D         int                    `json:"d"`
	Metrics   map[string]valueReport `json:"metrics"`
}

type valueReport struct {
	Value number                 `json:"value"`
	Floor *floorReport           `json:"floor"` // null: there was no way to measure one
	Parts map[string]valueReport `json:"parts,omitempty"`
}

type floorReport struct {
	Mean        number `json:"mean"`
	Std         number `json:"std"`
	Repetitions int    `json:"repetitions"`
	N           int    `json:"n"`
	How         string `json:"how"`
}

func floor(f metrics.Floor) *floorReport {
	if f.Repetitions == 0 {
		return nil
	}
	return &floorReport{number(f.Mean), number(f.Std), f.Repetitions, f.N, f.How}
}

func value(v metrics.Value) valueReport {
	r := valueReport{Value: number(v.Value), Floor: floor(v.Floor)}
	for _, p := range v.Parts {
		if r.Parts == nil {
			r.Parts = map[string]valueReport{}
		}
		r.Parts[p.Name] = valueReport{Value: number(p.Value), Floor: floor(p.Floor)}
	}
	return r
}

// freshDraws serves a generator's data set as a sampler of its law.
type freshDraws struct{ set dataset.Source }

func (f freshDraws) Sample(_ context.Context, n int, seed uint64) (metrics.Cloud, error) {
	p, err := f.set.Sample(n, seed)
	return metrics.Cloud{X: p.X, D: p.D}, err
}

func (c *eval) do(s *session, args []string) error {
	switch {
	case len(args) > 1:
		return usagef("eval: unexpected argument %q, want the folder of one run, or --generated and --reference", args[1])
	case len(args) == 1 && (c.generated != "" || c.reference != ""):
		return usagef("eval: --generated and --reference exclude a run, which %s is", args[0])
	case len(args) == 1 && c.n >= 0 && c.repetitions >= 1:
		return c.run(s, args[0])
	case len(args) == 0 && c.generated == "":
		return usagef("--generated is missing, want a .npy of points")
	case c.n < 0:
		return usagef("--n: got %d, want above 0", c.n)
	case c.repetitions < 1:
		return usagef("--repetitions: got %d, want at least 1", c.repetitions)
	}
	list, err := metrics.Parse(c.metrics)
	if err != nil {
		return usagef("--metrics: %v", err)
	}
	generated, err := readArray("generated", c.generated)
	if err != nil {
		return err
	}
	if shape := generated.Shape; len(shape) == 3 && shape[1] == 1 {
		generated.Shape = []int{shape[0], shape[2]} // paths at one time
	}
	if len(generated.Shape) != 2 {
		return usagef("--generated: %s has shape %s, want (n, d), or (n, 1, d) of paths at one time", c.generated, npy.FormatShape(generated.Shape))
	}
	reference, err := load("reference", c.reference)
	if err != nil {
		return err
	}
	if generated.Shape[1] != reference.D {
		return usagef("--generated: %s has dimension %d, want %d as --reference %s", c.generated, generated.Shape[1], reference.D, c.reference)
	}
	set, err := dataset.Open(c.reference)
	if err != nil {
		return err
	}
	x := metrics.Cloud{X: generated.Float64s(), D: reference.D}
	y := metrics.Cloud{X: reference.X, D: reference.D}
	values, err := c.measure(s, list, set, x, y)
	if err != nil {
		return err
	}
	return s.print(evalReport{c.generated, c.reference, reference.D, values})
}

// measure computes the metrics between generated points x and a reference y
// that came from set.
func (c *eval) measure(s *session, list []metrics.Metric, set dataset.Source, x, y metrics.Cloud) (map[string]valueReport, error) {
	o := metrics.Options{N: c.n, Repetitions: c.repetitions, Seed: s.seed, Workers: s.workers}
	if _, finite := set.Finite(); !finite {
		o.Sampler = freshDraws{set}
	}
	out := map[string]valueReport{}
	bar := s.progress("eval")
	defer bar.finish()
	for i, m := range list {
		bar.update(float64(i)/float64(len(list)), m.Name)
		v, err := m.Compute(s.ctx, x, y, o)
		if err != nil {
			return nil, err
		}
		out[m.Name] = value(v)
	}
	return out, nil
}
