package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/dataset"
	lightmodel "github.com/fortet/fortet/models/light"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/solver/metrics"
	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
)

// publishedName is what rows of experiments from papers are called.
const publishedName = "published"

// publication is an experiment whose figure a paper prints. What is not here: d =
// 64 and 128 and bridge matching on known plans, which take the re-statement
// minutes each; the printed figures of images, whose latents need their
// networks; and the other sets of LightSBB-M's table, which could not be had.
type publication struct {
	method    run.Method
	d         int
	epsilon   float64
	rate      float64
	batch     int
	scale     float64 // where S begins
	steps     int
	printed   float64
	deviation float64 // as printed; 0: none
}

// publications: W2 of 8gaussians is in LightSBB-M's paper (arXiv 2601.19312) for
// both methods of bridge matching; cBW2-UVP in percent in LightSB's (arXiv
// 2310.01174), for potentials of Gushchin et al.'s benchmark.
func publications() []publication {
	p := []publication{
		{run.LightSBBM, 2, 1, 1e-3, 512, 0.1, 10_000, 0.241, 0.083},
		{run.LightSBM, 2, 1, 1e-3, 512, 1, 10_000, 0.339, 0.099},
	}
	for i, epsilon := range []float64{0.1, 1, 10} {
		for _, c := range []struct {
			d       int
			printed [3]float64
		}{{2, [3]float64{0.03, 0.05, 0.07}}, {16, [3]float64{0.08, 0.09, 0.11}}} {
			p = append(p, publication{run.LightSB, c.d, epsilon, []float64{1e-3, 3e-3, 6e-2}[i], 128, 1, 10_000, c.printed[i], 0})
		}
	}
	return p
}

// toModes says that an experiment is that from N(0, I) to 8gaussians.
func (p publication) toModes() bool { return p.deviation > 0 }

// Settings of the experiments to 8gaussians: β, outer iterations, the fewest steps
// of one, those of the fit of the re-statement's inverse, and the points of W2.
const (
	publishedBeta   = 10
	publishedOuter  = 5
	publishedLeast  = 5000
	publishedFit    = 3000
	publishedPoints = 10_000
)

// Settings of the known plans: starts, and draws from each.
const publishedStarts, publishedDraws, publishedComponents = 200, 1000, 50

// experiment is a publication with its data.
type experiment struct {
	publication
	source, target, starts []float64
	truth                  *sbb.Bridge // of a known plan
	params                 mixture.Parameters
	dir                    string
	quick                  bool
}

// published trains Fortet and the re-statement in PyTorch with the papers'
// settings, and judges both as the papers do. The error of a row is the distance
// from the printed figure, and may be twice its printed deviation; known plans have
// none, and are not the same potentials: see knownPlan.
func (s *Session) published(ctx context.Context, dev gpu.Device) error {
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all := publications()
	if s.Quick {
		all = []publication{all[0], all[2]}
	}
	experiments := make([]*experiment, len(all))
	for i, p := range all {
		e := &experiment{publication: p, dir: filepath.Join(dir, fmt.Sprint(i)), quick: s.Quick}
		if experiments[i] = e; s.Quick {
			e.steps /= 50
		}
		if err := errors.Join(e.open(ctx, dev), os.Mkdir(e.dir, 0o755)); err != nil {
			return err
		}
		if e.truth != nil {
			defer e.truth.Close()
		}
		if err := e.write(); err != nil {
			return err
		}
	}
	answers, err := s.trainPublished(ctx, experiments)
	if err != nil {
		return err
	}
	for i, e := range experiments {
		if err := s.publishedRows(ctx, dev, e, answers[i]); err != nil {
			return err
		}
	}
	return nil
}

// trainPublished runs the re-statements, one on each core: their times are no
// result.
func (s *Session) trainPublished(ctx context.Context, experiments []*experiment) ([][]byte, error) {
	answers, errs := make([][]byte, len(experiments)), make([]error, len(experiments))
	next := make(chan int)
	var wait sync.WaitGroup
	for range min(2, s.Provenance.Cores) {
		wait.Go(func() {
			for i := range next {
				answers[i], errs[i] = s.python(ctx, pyTorch, "published.py", "--problem", experiments[i].dir)
			}
		})
	}
	for i := range experiments {
		next <- i
	}
	close(next)
	wait.Wait()
	return answers, errors.Join(errs...)
}

// open draws the data. The source is N(0, I).
func (e *experiment) open(ctx context.Context, dev gpu.Device) error {
	rows, starts := 1<<16, publishedPoints
	if e.quick {
		rows, starts = 1<<12, 500
	}
	r := rand.New(rand.NewPCG(1945, uint64(e.d)))
	normals := func(n int) []float64 {
		x := make([]float64, n*e.d)
		for i := range x {
			x[i] = r.NormFloat64()
		}
		return x
	}
	e.source = normals(rows)
	if e.toModes() {
		e.starts = normals(starts)
		modes, err := dataset.Open("8gaussians")
		if err != nil {
			return err
		}
		x, err := modes.Sample(rows, 7)
		e.target = x.X
		return err
	}
	e.params = knownPlan(e.d, e.epsilon)
	var err error
	if e.truth, err = sbb.New(dev, tensor.Float64, e.params, math.Inf(1), mixture.Identity(e.d)); err != nil {
		return err
	}
	each := publishedDraws
	n := publishedStarts
	if e.quick {
		n = 10
	}
	for range n {
		x := normals(1)
		for range each {
			e.starts = append(e.starts, x...)
		}
	}
	e.target, err = e.truth.Sample(ctx, normals(rows), sbb.Draw{Seed: 21})
	return err
}

// knownPlan draws a potential of five Gaussians as Gushchin et al. build theirs,
// means on a sphere of radius 5; eigenvalues of S from 0.5 to 2 are ours. Their
// files could not be had: a printed figure says how small the error of such a plan
// is, and no more.
func knownPlan(d int, epsilon float64) mixture.Parameters {
	const k = 5
	r := rand.New(rand.NewPCG(1946, uint64(d)))
	p := mixture.Parameters{K: k, D: d, Epsilon: epsilon, Logits: make([]float64, k), Means: make([]float64, k*d), Scales: make([]float64, k*d)}
	for j := range k {
		norm := 0.0
		for i := range d {
			v := r.NormFloat64()
			p.Means[j*d+i], norm = v, norm+v*v
		}
		for i, at := range r.Perm(d) {
			p.Means[j*d+i] *= 5 / math.Sqrt(norm)
			p.Scales[j*d+i] = 0.5 * math.Pow(4, float64(at)/float64(max(1, d-1)))
		}
	}
	return p
}

// write writes what published.py reads.
func (e *experiment) write() error {
	spec, err := json.Marshal(map[string]any{
		"method": e.method.String(), "epsilon": e.epsilon, "components": publishedComponents, "rate": e.rate, "batch": e.batch,
		"scale": e.scale, "steps": e.steps, "beta": publishedBeta, "safe": 1e-2, "clip": map[bool]int{true: 1}[e.method == run.LightSBBM],
		"outer": publishedOuter, "least": min(publishedLeast, e.steps), "fit": min(publishedFit, e.steps),
	})
	err = errors.Join(err, os.WriteFile(filepath.Join(e.dir, "problem.json"), spec, 0o644))
	for name, x := range map[string][]float64{"source": e.source, "target": e.target, "starts": e.starts} {
		err = errors.Join(err, save(filepath.Join(e.dir, name+".npy"), npy.New(convert[float32](x), len(x)/e.d, e.d)))
	}
	return err
}

// publishedRows are Fortet's row, and PyTorch's where it answered.
func (s *Session) publishedRows(ctx context.Context, dev gpu.Device, e *experiment, answer []byte) error {
	start := time.Now()
	ends, err := e.train(ctx, dev)
	if err != nil {
		return err
	}
	ours, note, err := e.figure(ctx, ends)
	if err != nil {
		return err
	}
	s.add(e.row(Fortet, "", ours, ours, time.Since(start).Seconds(), note))
	if answer == nil {
		return nil
	}
	var a struct {
		Version string
		Seconds float64
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return fmt.Errorf("%s: %w in %q", pyTorch, err, tail(string(answer)))
	}
	x, err := npy.ReadFile(filepath.Join(e.dir, "ends.npy"))
	if err != nil {
		return fmt.Errorf("%s: %w", pyTorch, err)
	}
	if len(x.Float64s()) != len(e.starts) {
		return fmt.Errorf("%s: ends: shape %s, want (%d, %d)", pyTorch, npy.FormatShape(x.Shape), len(e.starts)/e.d, e.d)
	}
	theirs, note, err := e.figure(ctx, x.Float64s())
	if err != nil {
		return err
	}
	s.add(e.row(pyTorch, a.Version, theirs, ours, a.Seconds, note))
	return nil
}

// plansBudget bounds cBW2-UVP of a known plan, in percent: it is 100 for a plan
// that is as wrong as the target is wide, and printed figures are all below 2.
const plansBudget = 2

func (e *experiment) row(engine, version string, figure, ours, seconds float64, note string) Row {
	r := Row{
		Name: publishedName, Engine: engine, Status: OK, Seconds: Sum([]float64{seconds}), Provenance: Provenance{Version: version},
		Work: Work{N: e.batch, D: e.d, K: publishedComponents, Precision: "f32", Settings: e.title()}, Iterations: e.steps,
	}
	off, budget := math.Abs(figure-e.printed), 2*e.deviation
	printed := fmt.Sprintf("%.3f ± %.3f", e.printed, e.deviation)
	if !e.toModes() {
		off, budget, printed = figure, plansBudget, fmt.Sprintf("%.2f", e.printed)
	}
	if e.quick { // it is hardly trained
		budget = max(budget, off)
	}
	r.Error, r.Budget = &off, budget
	r.Note = fmt.Sprintf("%s %.3g, printed %s, fortet %.3g; %s", e.measure(), figure, printed, ours, note)
	return r
}

func (e *experiment) measure() string {
	if e.toModes() {
		return "W2"
	}
	return "cBW2-UVP %"
}

// title is the experiment in words.
func (e *experiment) title() string {
	if e.toModes() {
		return fmt.Sprintf("%v, N(0, I) to 8gaussians, ε = %g", e.method, e.epsilon)
	}
	return fmt.Sprintf("%v, a known plan, ε = %g", e.method, e.epsilon)
}

// train trains Fortet and draws from the starts.
func (e *experiment) train(ctx context.Context, dev gpu.Device) ([]float64, error) {
	c := run.Config{
		Data:  run.Data{Source: "npy:" + filepath.Join(e.dir, "source.npy"), Target: "npy:" + filepath.Join(e.dir, "target.npy")},
		Train: run.Train{Steps: e.steps, Batch: e.batch, Rate: e.rate},
		Light: run.Light{Components: publishedComponents, Epsilon: e.epsilon, InitScale: e.scale}, Device: dev.Name(),
	}
	if e.method == run.LightSBBM {
		c.Light.Beta, c.Light.Outer = publishedBeta, publishedOuter
		c.Train.Steps = 0 // Iterations of equal length
		if e.quick {
			c.Train.Steps = 5 * e.steps
		}
	}
	if err := c.Resolve(e.method); err != nil {
		return nil, err
	}
	folder, err := run.Create(filepath.Join(e.dir, "run"), c, false)
	if err != nil {
		return nil, err
	}
	result, err := lightmodel.Train(ctx, dev, folder, run.Options{})
	if err := errors.Join(err, folder.Close()); err != nil {
		return nil, err
	}
	if err := result.Err(); err != nil {
		return nil, err
	}
	model, err := lightmodel.Open(ctx, dev, folder)
	if err != nil {
		return nil, err
	}
	defer model.Close()
	return model.Draw(ctx, e.starts, 0, 1)
}

// figure judges ends as the paper does, and says how far from zero chance alone
// takes it.
func (e *experiment) figure(ctx context.Context, ends []float64) (figure float64, note string, err error) {
	if !finite(ends) {
		return math.NaN(), "ends are not finite", nil
	}
	if e.toModes() {
		modes, err := dataset.Open("8gaussians")
		if err != nil {
			return 0, "", err
		}
		// The mean over two samples of the target: one alone is noise.
		n := len(ends) / e.d
		var clouds [2]metrics.Cloud
		for i := range clouds {
			x, err := modes.Sample(n, uint64(3000+i))
			if err != nil {
				return 0, "", err
			}
			clouds[i] = metrics.Cloud{X: x.X, D: e.d}
			w2, err := metrics.W2(ctx, metrics.Cloud{X: ends, D: e.d}, clouds[i])
			if err != nil {
				return 0, "", err
			}
			figure += w2 / float64(len(clouds))
		}
		floor, err := metrics.W2(ctx, clouds[0], clouds[1])
		return figure, fmt.Sprintf("W2 of two samples of the target %.3f", floor), err
	}
	again, err := e.truth.Sample(ctx, e.starts, sbb.Draw{Seed: 100})
	if err != nil {
		return 0, "", err
	}
	target, err := metrics.GaussianOf(ctx, metrics.Cloud{X: e.target, D: e.d})
	if err != nil {
		return 0, "", err
	}
	variance := 0.0
	for k := range e.d {
		variance += target.Cov[k*e.d+k]
	}
	var floor float64
	each := publishedDraws * e.d
	count := len(e.starts) / each
	for i := range count {
		truth := e.conditional(e.starts[i*each : i*each+e.d])
		for to, x := range map[*float64][]float64{&figure: ends, &floor: again} {
			g, err := metrics.GaussianOf(ctx, metrics.Cloud{X: x[i*each : (i+1)*each], D: e.d})
			if err != nil {
				return 0, "", err
			}
			f, err := metrics.Frechet(ctx, g, truth)
			if err != nil {
				return 0, "", err
			}
			*to += 100 * f / variance / float64(count)
		}
	}
	return figure, fmt.Sprintf("draws of the true plan %.3g", floor), nil
}

// conditional are mean and covariance of the true plan at a start, by the
// definition.
func (e *experiment) conditional(x []float64) metrics.Gaussian {
	d, q := e.d, e.params
	logits, most := make([]float64, q.K), math.Inf(-1)
	mean := func(j, k int) float64 { return q.Means[j*d+k] + q.Scales[j*d+k]*x[k] }
	for j := range logits {
		logits[j] = q.Logits[j]
		for k, v := range x {
			logits[j] += (q.Scales[j*d+k]*v + 2*q.Means[j*d+k]) * v / (2 * e.epsilon)
		}
		most = max(most, logits[j])
	}
	sum := 0.0
	for j, l := range logits {
		logits[j] = math.Exp(l - most)
		sum += logits[j]
	}
	g := metrics.Gaussian{Mean: make([]float64, d), Cov: make([]float64, d*d)}
	for j := range logits {
		for k := range d {
			g.Mean[k] += logits[j] / sum * mean(j, k)
		}
	}
	for j := range logits {
		w := logits[j] / sum
		for k := range d {
			g.Cov[k*d+k] += w * e.epsilon * q.Scales[j*d+k]
			for l := range d {
				g.Cov[k*d+l] += w * (mean(j, k) - g.Mean[k]) * (mean(j, l) - g.Mean[l])
			}
		}
	}
	return g
}

// publishedTable writes the rows of publications.
func publishedTable(rows []Row) (lines [][]string) {
	for _, r := range rows {
		if r.Name != publishedName {
			continue
		}
		figures, rest, _ := strings.Cut(r.Note, ";")
		lines = append(lines, []string{r.Settings, fmt.Sprint(r.D), r.Engine, figures, strings.TrimSpace(rest), number3(r.Seconds.Median)})
	}
	return lines
}
