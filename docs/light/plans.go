package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/fortet/fortet/docs/internal/page"
	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/solver/metrics"
	"github.com/fortet/fortet/tensor"
)

// planResult are problems whose plan is known.
type planResult struct {
	True, Components, Batch int
	Rows                    []planRow
}

type planRow struct {
	D       int
	Epsilon float64
	Method  string
	Steps   int
	// BW2-UVP of the ends, and of a sample of the target, in percent.
	UVP, UVPFloor float64
	// cBW2-UVP of the conditional moments in closed form, of the independent
	// plan, and of samples of 1000 from the plan that was learned and from the
	// true plan, which is the floor of such an estimate.
	Conditional, Independent, Sampled, SampledFloor float64
	Dual, DualError, Primal                         float64
	True, TrueError                                 float64 // ½J of the true potential
	Seconds                                         float64
}

// problem is a source and a known plan: the bridge of a potential.
type problem struct {
	d      int
	truth  *sbb.Bridge
	params mixture.Parameters
	starts func(r *rand.Rand, n int) []float64
}

// newProblem draws a potential of k components as Gushchin et al. build theirs:
// means on a sphere, and plans from the normal source. The sphere's radius and
// the spread of S are ours.
func newProblem(dev gpu.Device, d, k int, epsilon float64, starts func(r *rand.Rand, n int) []float64) (*problem, error) {
	r := stream(10, uint64(d)<<8+uint64(k))
	p := mixture.Parameters{
		K: k, D: d, Epsilon: epsilon, Logits: make([]float64, k), Means: make([]float64, k*d), Scales: make([]float64, k*d),
	}
	// Equal traces and lengths, so that no component takes all.
	for j := range k {
		norm := 0.
		for i, v := range normals(r, d) {
			p.Means[j*d+i] = v
			norm += v * v
		}
		for i, at := range r.Perm(d) {
			p.Means[j*d+i] *= 5 / math.Sqrt(norm)
			p.Scales[j*d+i] = .5 * math.Pow(4, float64(at)/float64(max(1, d-1)))
		}
	}
	b, err := sbb.New(dev, tensor.Float64, p, math.Inf(1), mixture.Identity(d))
	if err != nil {
		return nil, err
	}
	return &problem{d, b, p, starts}, nil
}

func standard(d int) func(r *rand.Rand, n int) []float64 {
	return func(r *rand.Rand, n int) []float64 { return normals(r, n*d) }
}

func plans(l *lab) (out planResult, err error) {
	out = planResult{True: 5, Components: 50, Batch: 512}
	for _, d := range []int{2, 16, 64, 128} {
		for _, epsilon := range []float64{.1, 1, 10} {
			p, err := newProblem(l.dev, d, out.True, epsilon, standard(d))
			if err != nil {
				return out, err
			}
			err = p.run(l, &out, epsilon, 4000, 1<<16)
			p.truth.Close()
			if err != nil {
				return out, fmt.Errorf("d = %d, ε = %v: %w", d, epsilon, err)
			}
		}
	}
	return out, nil
}

// latents is a problem of the size of face latents: d = 512, K = 10, a source
// of three clusters.
func latents(l *lab) (out planResult, err error) {
	out = planResult{True: 10, Components: 10, Batch: 128}
	const d = 512
	centres := normals(stream(11, 0), 3*d)
	starts := func(r *rand.Rand, n int) []float64 {
		x := normals(r, n*d)
		for i := range n {
			k := r.IntN(3)
			for j := range d {
				x[i*d+j] = .7*x[i*d+j] + .5*centres[k*d+j]
			}
		}
		return x
	}
	for _, epsilon := range []float64{.1, 1} {
		p, err := newProblem(l.dev, d, out.True, epsilon, starts)
		if err != nil {
			return out, err
		}
		err = p.run(l, &out, epsilon, 3000, 1<<14)
		p.truth.Close()
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// run trains both methods of the Schrödinger bridge on one problem.
func (p *problem) run(l *lab, out *planResult, epsilon float64, steps, rows int) error {
	r := stream(12, uint64(p.d))
	rows = l.few(rows)
	x0 := p.starts(r, rows)
	x1, err := p.truth.Sample(l.ctx, p.starts(r, rows), sbb.Draw{Seed: 21})
	if err != nil {
		return err
	}
	source, err := l.pool(x0, p.d)
	if err != nil {
		return err
	}
	target, err := l.pool(x1, p.d)
	if err != nil {
		return err
	}
	for _, method := range []run.Method{run.LightSB, run.LightSBM} {
		rate, scale, init := .02, 1., run.FromTarget
		switch {
		case epsilon < 1: // clusters are narrow against their distances
			init = run.Spread
		case epsilon >= 10: // points of the target are mostly noise
			init = run.Random
		}
		if method == run.LightSBM && epsilon < 10 {
			rate = .01
			// Bridge matching moves components that have no weight by nothing: in
			// many dimensions they must begin wide, and move fast.
			if p.d >= 64 {
				rate, scale = .05, 3
			}
		}
		b, err := l.train(method, run.Config{
			Data:  run.Data{Source: source, Target: target},
			Train: run.Train{Steps: steps, Batch: out.Batch, Rate: rate, Decay: run.Cosine},
			Light: run.Light{Components: out.Components, Epsilon: epsilon, InitScale: scale, Init: init},
		})
		if err != nil {
			return err
		}
		row := planRow{D: p.d, Epsilon: epsilon, Method: method.String(), Steps: steps, Seconds: b.seconds}
		err = p.measure(l, b, &row)
		b.Close()
		if err != nil {
			return err
		}
		out.Rows = append(out.Rows, row)
	}
	return nil
}

func (p *problem) measure(l *lab, b *trained, row *planRow) error {
	r := stream(13, uint64(p.d))
	n := l.few(1 << 16)
	if p.d > 128 {
		n = l.few(1 << 13)
	}
	x := p.starts(r, n)
	ends, err := b.Draw(l.ctx, x, 0, 22)
	if err != nil {
		return err
	}
	target, err := p.truth.Sample(l.ctx, x, sbb.Draw{Seed: 23})
	if err != nil {
		return err
	}
	fresh, err := p.truth.Sample(l.ctx, p.starts(r, n), sbb.Draw{Seed: 24})
	if err != nil {
		return err
	}
	cloud := func(x []float64) metrics.Cloud { return metrics.Cloud{X: x, D: p.d} }
	if row.UVP, err = metrics.BW2UVP(l.ctx, cloud(ends), cloud(target)); err != nil {
		return err
	}
	if row.UVPFloor, err = metrics.BW2UVP(l.ctx, cloud(fresh), cloud(target)); err != nil {
		return err
	}
	marginal, err := metrics.GaussianOf(l.ctx, cloud(target))
	if err != nil {
		return err
	}
	if err := p.conditional(l, b, marginal, row); err != nil {
		return err
	}
	few := min(n, 1<<14) * p.d
	c, err := b.Bridge.Certify(l.ctx, x[:few], target[:few], sbb.Draw{Seed: 25})
	if err != nil {
		return err
	}
	row.Dual, row.DualError, row.Primal = c.Dual, c.DualError, c.Primal
	t, err := p.truth.Certify(l.ctx, x[:few], target[:few], sbb.Draw{Seed: 25})
	row.True, row.TrueError = t.Dual, t.DualError
	return err
}

// conditional averages BW² of conditional laws over starts, in percent of half
// of the target's variance.
func (p *problem) conditional(l *lab, b *trained, marginal metrics.Gaussian, row *planRow) error {
	starts, drawn := 1000, 1000
	switch {
	case p.d > 128:
		starts, drawn = 4, 1
	case p.d > 16:
		starts, drawn = 100, 20
	}
	starts, drawn = min(starts, l.few(1000)), min(drawn, l.few(1000))
	const each = 1000
	x := p.starts(stream(14, uint64(p.d)), starts)
	variance := 0.
	for k := range p.d {
		variance += marginal.Cov[k*p.d+k]
	}
	own := b.Parameters()
	frame := b.Frame()
	for i := range starts {
		at := x[i*p.d : (i+1)*p.d]
		truth := moments(p.params, mixture.Identity(p.d), at)
		if err := accumulate(l.ctx, &row.Conditional, moments(own, frame, at), truth, 100/variance/float64(starts)); err != nil {
			return err
		}
		if i >= drawn {
			continue
		}
		if err := accumulate(l.ctx, &row.Independent, marginal, truth, 100/variance/float64(drawn)); err != nil {
			return err
		}
		repeated := make([]float64, 0, each*p.d)
		for range each {
			repeated = append(repeated, at...)
		}
		ends, err0 := b.Draw(l.ctx, repeated, 0, uint64(100+i))
		again, err1 := p.truth.Sample(l.ctx, repeated, sbb.Draw{Seed: uint64(100_000 + i)})
		if err := errors.Join(err0, err1); err != nil {
			return err
		}
		for to, x := range map[*float64][]float64{&row.Sampled: ends, &row.SampledFloor: again} {
			g, err := metrics.GaussianOf(l.ctx, metrics.Cloud{X: x, D: p.d})
			if err != nil {
				return err
			}
			if err := accumulate(l.ctx, to, g, truth, 100/variance/float64(drawn)); err != nil {
				return err
			}
		}
	}
	return nil
}

// accumulate adds the squared Fréchet distance of a law to the truth.
func accumulate(ctx context.Context, to *float64, g, truth metrics.Gaussian, weight float64) error {
	f, err := metrics.Frechet(ctx, g, truth)
	*to += weight * f
	return err
}

// moments are the mean and the covariance of X_1 given X_0 = x under the plan
// of a diagonal mixture with β = ∞: that of Σ_j w_j N(r_j + S_j x, ε S_j), w_j
// proportional to exp(log α_j + (xᵀS_j x + 2 r_jᵀx)/(2ε)).
func moments(p mixture.Parameters, f mixture.Frame, x []float64) metrics.Gaussian {
	d := p.D
	z := make([]float64, d)
	f.Encode(z, x, 0)
	logits, means := make([]float64, p.K), make([]float64, p.K*d)
	top := math.Inf(-1)
	for j := range p.K {
		logits[j] = p.Logits[j]
		for k, v := range z {
			s, r := p.Scales[j*d+k], p.Means[j*d+k]
			logits[j] += (s*v + 2*r) * v / (2 * p.Epsilon)
			means[j*d+k] = r + s*v
		}
		top = max(top, logits[j])
	}
	total := 0.
	for j := range logits {
		logits[j] = math.Exp(logits[j] - top)
		total += logits[j]
	}
	g := metrics.Gaussian{Mean: make([]float64, d), Cov: make([]float64, d*d)}
	for j, w := range logits {
		for k := range d {
			g.Mean[k] += w / total * means[j*d+k]
		}
	}
	unit := f.Scale * f.Scale
	for j, w := range logits {
		if w /= total; w < 1e-14 {
			continue
		}
		for k := range d {
			g.Cov[k*d+k] += unit * w * p.Epsilon * p.Scales[j*d+k]
			a := unit * w * (means[j*d+k] - g.Mean[k])
			for m := range d {
				g.Cov[k*d+m] += a * (means[j*d+m] - g.Mean[m])
			}
		}
	}
	f.Decode(g.Mean, g.Mean, 1)
	return g
}

// printed are the figures of cBW2-UVP, in percent, that the LightSB-M paper
// (arXiv 2402.03207, table 1) prints for LightSB and for LightSB-M with
// independent pairs; those of LightSB are also in its own paper (arXiv
// 2310.01174).
func printed(method string, epsilon float64, d int) string {
	at := slices.Index([]int{2, 16, 64, 128}, d)
	rows := map[string]map[float64][4]string{
		run.LightSB.String(): {
			.1: {"0.03", "0.08", "0.28", "0.60"}, 1: {"0.05", "0.09", "0.24", "0.62"}, 10: {"0.07", "0.11", "0.21", "0.37"},
		},
		run.LightSBM.String(): {
			.1: {"0.04", "0.18", "0.77", "1.66"}, 1: {"0.09", "0.18", "0.47", "1.2"}, 10: {"0.12", "0.19", "0.36", "0.71"},
		},
	}
	row, ok := rows[method][epsilon]
	if at < 0 || !ok {
		return ""
	}
	return row[at]
}

// Table is a row for each bridge.
func (p planResult) Table() string {
	var rows [][]string
	published := false
	for _, r := range p.Rows {
		figure := printed(r.Method, r.Epsilon, r.D)
		published = published || figure != ""
		rows = append(rows, []string{
			page.Num(3, float64(r.D)), page.Num(2, r.Epsilon), "`" + r.Method + "`", page.Num(2, r.UVP), page.Num(2, r.UVPFloor),
			page.Num(3, r.Conditional), page.Num(3, r.Sampled), page.Num(3, r.SampledFloor), figure, page.Num(3, r.Independent),
			spread{r.Dual, r.DualError}.String(), page.Num(5, r.True), page.Num(2, r.Seconds),
		})
	}
	head := []string{
		"d", "ε", "method", "BW2-UVP %", "floor", "cBW2-UVP %", "by 1000 draws", "floor", "printed", "independent", "dual", "of the truth", "s",
	}
	if !published {
		const column = 8
		head = slices.Delete(head, column, column+1)
		for i := range rows {
			rows[i] = slices.Delete(rows[i], column, column+1)
		}
	}
	return page.Table(head, rows)
}
