package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/models/light"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/solver/metrics"
)

var demoCommand = command{
	name:    "demo",
	does:    "Train a bridge between two classes of handwritten digits and leave a report with pictures",
	usage:   "fortet demo [--out DIR] [--from 3 --to 8]",
	example: "fortet demo --out demo",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &demo{}
		f.StringVar(&c.out, "out", "demo", "folder for report.html, the pictures and the run")
		f.IntVar(&c.from, "from", 3, "digit to start from")
		f.IntVar(&c.to, "to", 8, "digit to arrive at")
		f.IntVar(&c.steps, "steps", 2000, "training steps; nine smaller bridges take a quarter of them each")
		return c.do
	},
}

type demo struct {
	out             string
	from, to, steps int
}

// The bridge of the demo. ε is in squared units of a pixel, whose values are 0
// to 1: the noise is seen halfway, and does not hide the digits. More components
// would bring ends nearer to the digits of the training set than these are to
// each other.
const (
	demoPCA        = 24
	demoComponents = 24
	demoBatch      = 128
	demoEpsilon    = 0.02
	demoBeta       = 10
)

// What the small bridges have in the place of demoBeta and demoEpsilon.
var (
	demoBetas    = []float64{1, demoBeta, math.Inf(1)}
	demoEpsilons = []float64{demoEpsilon / 10, demoEpsilon, demoEpsilon * 20}
)

// How much is shown.
const (
	demoDigits = 12 // starts and ends
	demoPaths  = 8  // of them, through time
	demoTimes  = 11
	demoFew    = 4 // of them, for every small bridge
)

type demoReport struct {
	Report  string       `json:"report"`
	Run     string       `json:"run"`
	Seconds number       `json:"seconds"`
	Train   *run.Result  `json:"train"`
	Metrics []demoMetric `json:"metrics"`
}

// demoMetric is a distance to the target, between principal components.
type demoMetric struct {
	Name   string       `json:"name"`
	Before number       `json:"before"` // of the source
	After  number       `json:"after"`  // of the ends of the bridge
	Floor  *floorReport `json:"floor"`
	Text   string       `json:"-"`
}

// demoSmall is one of the bridges that show what β and ε change.
type demoSmall struct {
	Epsilon, Beta float64
	Halfway       []float64 // pictures of X at time ½
	Ends, Others  []float64 // pictures of X at time 1, of two draws
	// Chance is the part of the variance of the ends that is left when the
	// start is given.
	Chance     float64
	Volatility float64 // root of the mean of |σ|²/(d ε) over paths and time
	Dual, Gap  float64 // of the certificate
	GapError   float64 // at most
}

func (c *demo) check(args []string) error {
	if len(args) > 0 {
		return usagef("demo: unexpected argument %q", args[0])
	}
	for _, digit := range []int{c.from, c.to} {
		if digit < 0 || digit > 9 {
			return usagef("demo: got digit %d, want 0 to 9", digit)
		}
	}
	if c.steps < 4 {
		return usagef("--steps: got %d, want at least 4", c.steps)
	}
	return nil
}

func (c *demo) do(s *session, args []string) error {
	if err := c.check(args); err != nil {
		return err
	}
	start := time.Now()
	config, err := c.config(s, demoEpsilon, demoBeta, c.steps)
	if err != nil {
		return err
	}
	dev, err := s.open()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.out, 0o777); err != nil {
		return err
	}
	var out outputs
	defer out.close()
	where := filepath.Join(c.out, "report.html")
	for _, name := range []string{"report.html", "paths.png", "ends.png", "training.png"} {
		if err := out.add(name, filepath.Join(c.out, name)); err != nil {
			return err
		}
	}
	page, err := c.build(s, dev, config)
	if err != nil {
		return err
	}
	page.Seconds = time.Since(start).Seconds()
	if err := page.write(&out); err != nil {
		return err
	}
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	if !s.quiet {
		fmt.Fprintf(s.stderr, "fortet: the report is in %s\n", where)
	}
	return s.print(demoReport{where, page.Run(), number(page.Seconds), page.Result, page.Metrics})
}

// build trains all bridges and draws from them.
func (c *demo) build(s *session, dev gpu.Device, config run.Config) (*demoPage, error) {
	bar := s.progress("demo")
	defer bar.finish()
	// The work is measured in steps of the first bridge.
	smalls := float64(len(demoBetas)*len(demoEpsilons)) / 4
	part := func(name string, from, share float64) func(run.Progress) {
		return func(p run.Progress) {
			done := from + share*float64(p.Step)/float64(p.Steps)
			bar.update(done/(1+smalls), fmt.Sprintf("%s, step %d of %d", name, p.Step, p.Steps))
		}
	}
	path := filepath.Join(c.out, "run")
	if err := c.admit(path); err != nil {
		return nil, err
	}
	b, err := trainDemo(s.ctx, dev, path, config, part("the bridge", 0, 1))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	page, err := c.page(s, b)
	if err != nil {
		return nil, err
	}
	for _, epsilon := range demoEpsilons {
		for _, beta := range demoBetas {
			done := 1 + float64(len(page.Smalls))/4
			small, err := c.small(s, dev, b, epsilon, beta, part(fmt.Sprintf("β = %g, ε = %g", beta, epsilon), done, 1./4))
			if err != nil {
				return nil, err
			}
			page.Smalls = append(page.Smalls, small)
		}
	}
	return page, nil
}

// config is that of a bridge of the demo.
func (c *demo) config(s *session, epsilon, beta float64, steps int) (run.Config, error) {
	config := run.Config{Seed: s.seed, Device: s.device}
	if s.dtype != "auto" {
		if err := config.DType.UnmarshalText([]byte(s.dtype)); err != nil {
			return config, err
		}
	}
	config.Data = run.Data{Source: digits(c.from), Target: digits(c.to), PCA: demoPCA}
	config.Train = run.Train{Steps: steps, Batch: demoBatch}
	config.Light = run.Light{Components: demoComponents, Epsilon: epsilon, Beta: run.Number(beta)}
	return config, config.Resolve(run.LightSBB)
}

const digitsURI = "digits?class="

func digits(class int) string { return fmt.Sprint(digitsURI, class) }

// admit refuses to replace a run that the demo did not make. Whether what is at
// its run's path is a run at all is for run.Create to say.
func (c *demo) admit(path string) error {
	f, err := run.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	config := f.Config()
	if config.Method != run.LightSBB || !strings.HasPrefix(config.Data.Source, digitsURI) || !strings.HasPrefix(config.Data.Target, digitsURI) {
		return usagef("--out: %s is a run of %v from %s to %s, none of the demo, and is not replaced", path, config.Method, config.Data.Source, config.Data.Target)
	}
	return nil
}

// smallSteps is how long the small bridges are trained.
func smallSteps(steps int) int { return steps / 4 }

// demoBridge is a bridge as it was trained.
type demoBridge struct {
	*light.Model
	result  *run.Result
	records []run.Record
}

// trainDemo trains a run and opens it. It removes the run that was there.
func trainDemo(ctx context.Context, dev gpu.Device, path string, config run.Config, progress func(run.Progress)) (_ *demoBridge, err error) {
	f, err := run.Create(path, config, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := &demoBridge{}
	if b.result, err = light.Train(ctx, dev, f, run.Options{Progress: progress}); err != nil {
		return nil, err
	}
	if err := b.result.Err(); err != nil {
		return nil, err
	}
	if b.records, err = f.Records(); err != nil {
		return nil, err
	}
	b.Model, err = light.Open(ctx, dev, f)
	return b, err
}

// found is a number of the certificate.
func (b *demoBridge) found(name string) float64 {
	for _, m := range b.result.Metrics {
		if m.Name == name {
			return m.Value
		}
	}
	return math.NaN()
}

// gapError bounds the standard error of the gap: dual and primal are estimated
// from the same starts.
func (b *demoBridge) gapError() float64 { return b.found("dual_error") + b.found("primal_error") }

// small trains one of the small bridges in a folder that is removed, and draws
// from it. Its starts are those of the bridge beside it.
func (c *demo) small(s *session, dev gpu.Device, beside *demoBridge, epsilon, beta float64, progress func(run.Progress)) (_ demoSmall, err error) {
	out := demoSmall{Epsilon: epsilon, Beta: beta}
	config, err := c.config(s, epsilon, beta, smallSteps(c.steps))
	if err != nil {
		return out, err
	}
	config.Train.CheckpointEvery = config.Train.Steps // nobody goes on with them
	dir, err := os.MkdirTemp("", "fortet-demo-")
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := trainDemo(s.ctx, dev, filepath.Join(dir, "run"), config, progress)
	if err != nil {
		return out, err
	}
	defer b.Close()
	out.Dual, out.Gap, out.GapError = b.found("dual"), b.found("gap"), b.gapError()
	rows, _ := beside.Source().Finite()
	starts, err := beside.Starts(rows, s.seed)
	if err != nil {
		return out, err
	}
	z, err := b.Encode(starts.X)
	if err != nil {
		return out, err
	}
	d := b.Dim()
	if out.Volatility, err = volatility(s.ctx, b.Model, z, s.seed); err != nil {
		return out, err
	}
	halfway, err := b.Walk(s.ctx, z, []float64{.5}, s.seed)
	if err != nil {
		return out, err
	}
	ends, err0 := b.Sample(s.ctx, z, sbb.Draw{Seed: s.seed})
	others, err1 := b.Sample(s.ctx, z, sbb.Draw{Seed: s.seed + 1})
	if err := errors.Join(err0, err1); err != nil {
		return out, err
	}
	out.Chance = chance(ends, others, d)
	var errs [3]error
	for i, x := range []struct {
		pictures *[]float64
		latents  []float64
	}{{&out.Halfway, halfway}, {&out.Ends, ends}, {&out.Others, others}} {
		var few []float64
		for _, row := range spread(rows, demoDigits)[:demoFew] {
			few = append(few, x.latents[row*d:(row+1)*d]...)
		}
		*x.pictures, errs[i] = b.Decode(few)
	}
	return out, errors.Join(errs[:]...)
}

// spread are k indices of n, equally far from each other.
func spread(n, k int) []int {
	out := make([]int, k)
	for i := range out {
		out[i] = i * n / k
	}
	return out
}

// chance is E|x - y|²/2 over the variance of x, where x and y are (n, d) draws
// of one law, independent given what comes before: 0 if that decides them, 1 if
// it does not matter.
func chance(x, y []float64, d int) float64 {
	n := float64(len(x) / d)
	mean := make([]float64, d)
	for i, v := range x {
		mean[i%d] += v / n
	}
	var apart, variance float64
	for i := range x {
		apart += (x[i] - y[i]) * (x[i] - y[i]) / 2
		variance += (x[i] - mean[i%d]) * (x[i] - mean[i%d])
	}
	return apart / variance
}

// volatility is the root of E ∫ |σ|²/(d ε) dt over paths from the rows of z.
func volatility(ctx context.Context, m *light.Model, z []float64, seed uint64) (float64, error) {
	// The midpoint rule in the third root of t: where volatility is cheap, the
	// choice between digits is made in an instant after the start.
	const nodes = 12
	times := make([]float64, nodes)
	for k := range times {
		times[k] = math.Pow((float64(k)+.5)/nodes, 3)
	}
	paths, err := m.Walk(ctx, z, times, seed)
	if err != nil {
		return 0, err
	}
	d := m.Dim()
	at := make([]float64, len(z))
	sum := 0.0
	for k, t := range times {
		for i := range len(z) / d {
			copy(at[i*d:(i+1)*d], paths[(i*nodes+k)*d:])
		}
		controls, err := m.Controls(ctx, t, at, true)
		if err != nil {
			return 0, err
		}
		weight := 3 * math.Pow(t, 2./3) / nodes
		for _, v := range controls.Volatility {
			sum += weight * v * v
		}
	}
	return math.Sqrt(sum / (float64(len(z)) * m.Epsilon())), nil
}

// measure compares before and after with the target, all (n, d) principal
// components.
func (c *demo) measure(s *session, before, after, target []float64, d int) ([]demoMetric, error) {
	list, err := metrics.Parse("w2,sw2,energy,moments")
	if err != nil {
		return nil, err
	}
	texts := map[string]string{
		"w2":         "the root of the mean squared distance of the best pairing",
		"sw2":        "the same along random directions",
		"energy":     "energy distance",
		"mean":       "distance of the means",
		"covariance": "distance of the covariance matrices",
	}
	var rows []demoMetric
	for _, m := range list {
		var values [2]metrics.Value
		for i, x := range [][]float64{before, after} {
			values[i], err = m.Compute(s.ctx, metrics.Cloud{X: x, D: d}, metrics.Cloud{X: target, D: d}, metrics.Options{Seed: s.seed, Workers: s.workers})
			if err != nil {
				return nil, err
			}
		}
		add := func(name string, before, after float64, f metrics.Floor) {
			if text := texts[name]; text != "" {
				rows = append(rows, demoMetric{name, number(before), number(after), floor(f), text})
			}
		}
		if len(values[0].Parts) == 0 {
			add(m.Name, values[0].Value, values[1].Value, values[1].Floor)
			continue
		}
		add("mean", values[0].Value, values[1].Value, values[1].Floor)
		for i, p := range values[1].Parts {
			add(p.Name, values[0].Parts[i].Value, p.Value, p.Floor)
		}
	}
	return rows, nil
}
