package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/models/lightsb"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/optim"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/tensor"
)

// light measures light Schrödinger bridges: a training step beside the same
// step in PyTorch, a training to its final quality, sampling, and what the papers
// print.
func light(ctx context.Context, s *Session) error {
	shapes := []stepShape{{d: 2, k: 50, batch: 512, pool: 1 << 16, block: 100, scale: 1}, {d: 512, k: 10, batch: 512, pool: 1 << 13, block: 10, scale: 0.1}}
	if s.Quick {
		shapes = []stepShape{{d: 2, k: 10, batch: 64, pool: 1 << 10, block: 2, scale: 1}}
	}
	peers, err := s.installedPeers([]string{pyTorch})
	if err != nil {
		return err
	}
	dev, err := gpu.OpenWith(s.Device, gpu.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()
	for _, shape := range shapes {
		for _, method := range []run.Method{run.LightSB, run.LightSBM, run.LightSBB, run.LightSBBM} {
			p := newStepProblem(method, shape)
			if err := s.step(ctx, dev, p); err != nil {
				return err
			}
			if method == run.LightSBB || len(peers) == 0 {
				continue
			}
			if err := s.stepPeer(ctx, p); err != nil {
				return err
			}
		}
	}
	if err := s.trained(ctx, dev); err != nil || len(peers) == 0 {
		return err
	}
	return s.published(ctx, dev)
}

// stepShape is the size of a training step.
type stepShape struct {
	d, k, batch int
	pool        int     // rows of each data set
	block       int     // steps that are timed together
	scale       float64 // about which eigenvalues of S begin
}

// stepProblem is a training step that all are given: data sets in memory,
// parameters, the settings of the papers' programs, and one batch to compare
// loss and gradient on.
type stepProblem struct {
	potential
	batch, block   int
	method         run.Method
	beta           float64
	rate, safe     float64
	clip           float64   // the largest norm of a gradient; 0: any
	source, target []float32 // (pool, d)
	x0, x1         []float32 // (batch, d)
	bridge         matched   // between them
	noise          []float32 // (batch, d): of the bridge
}

// newStepProblem has ε, the learning rate and the first S of the papers'
// programs in two dimensions and for face latents; of LightSBB our defaults, and
// of LightSBB-M our floor.
func newStepProblem(method run.Method, shape stepShape) *stepProblem {
	d, k, scale, shrink := shape.d, shape.k, shape.scale, 1.0
	p := &stepProblem{
		potential: potential{k: k, d: d, epsilon: 0.1}, batch: shape.batch, block: shape.block,
		method: method, beta: math.Inf(1), rate: 1e-3, safe: 1e-2,
	}
	switch method {
	case run.LightSBB:
		p.beta, p.rate, p.epsilon, scale = 10, 0.03, 1, 0.2
	case run.LightSBBM:
		p.beta, p.epsilon, p.clip, scale = 10, 1, 1, 0.1
	}
	if !math.IsInf(p.beta, 1) {
		p.floor, shrink = sbb.Floor(p.beta, 1e-4), p.beta/(1+p.beta)
	}
	x, y := clouds(shape.pool, shape.pool, d)
	p.source, p.target = convert[float32](x), convert[float32](y)
	r := rand.New(rand.NewPCG(1931, uint64(d)))
	for range k {
		p.logits = append(p.logits, float32(-math.Log(float64(k))+0.3*r.NormFloat64()))
	}
	for i := range k * d {
		p.means = append(p.means, float32(shrink*y[i]))
		p.raws = append(p.raws, float32(math.Log(scale)+0.3*r.NormFloat64()))
	}
	end := len(x) - shape.batch*d
	p.x0, p.x1 = p.source[end:], p.target[end:]
	for b := range shape.batch {
		t := (1 - p.safe) * r.Float64()
		p.bridge.t = append(p.bridge.t, float32(t))
		for i := b * d; i < (b+1)*d; i++ {
			x0, x1, n := float64(p.x0[i]), float64(p.x1[i]), r.NormFloat64()
			p.noise = append(p.noise, float32(n))
			p.bridge.x = append(p.bridge.x, float32((1-t)*x0+t*x1+math.Sqrt(p.epsilon*t*(1-t))*n))
			p.bridge.u = append(p.bridge.u, float32(x1-x0-math.Sqrt(p.epsilon*t/(1-t))*n))
		}
	}
	return p
}

// stepName is what a row of a training step of a method is called.
func stepName(m run.Method) string { return m.String() + stepSuffix }

const stepSuffix = " step"

func (p *stepProblem) work(settings string, workers int) Work {
	how := fmt.Sprintf("ε = %g, Adam at %g", p.epsilon, p.rate)
	if !math.IsInf(p.beta, 1) {
		how += ", " + describeBeta(p.beta)
	}
	if settings != "" {
		how += "; " + settings
	}
	return Work{N: p.batch, D: p.d, K: p.k, Precision: "f32", Settings: how, Workers: workers}
}

// The alternation of fortet train: that of the papers' programs. All endpoints are
// pulled back before each of its iterations, but for the first.
const alternations, alternationSteps = 5, 30_000

// trainer is what the trainers of all methods are.
type trainer interface {
	Step(step int) error
	Loss() (float64, error)
	Free()
}

// trainer begins at the problem's parameters.
func (p *stepProblem) trainer(dev gpu.Device) (t trainer, free func(), err error) {
	start := mixture.Parameters{
		K: p.k, D: p.d, Epsilon: p.epsilon, Logits: convert64(p.logits), Means: convert64(p.means), Scales: make([]float64, p.k*p.d),
	}
	for i, raw := range p.raws {
		start.Scales[i] = p.floor + math.Exp(float64(raw))
	}
	q, err := mixture.NewPotential(dev, tensor.Float32, start, p.floor)
	if err != nil {
		return nil, nil, err
	}
	a := &arrays{dev: dev}
	training := mixture.Training{
		Source: a.put(p.source, len(p.source)/p.d, p.d), Target: a.put(p.target, len(p.target)/p.d, p.d), Batch: p.batch, Seed: 1,
		Schedule: run.Schedule{Peak: p.rate}, Optimiser: optim.Settings{Clip: p.clip},
	}
	err = a.err
	switch {
	case err != nil:
	case p.method == run.LightSB:
		t, err = lightsb.NewLikelihood(q, training)
	case p.method == run.LightSBM:
		t, err = lightsb.NewMatching(q, training, p.safe)
	case p.method == run.LightSBBM:
		var fixed *mixture.Potential
		if fixed, err = mixture.NewPotential(dev, tensor.Float32, start, p.floor); err == nil {
			t, err = sbb.NewAlternation(q, fixed, p.beta, p.safe, alternations, alternationSteps, training)
			if err != nil {
				fixed.Free()
			}
		}
	default:
		t, err = sbb.NewDual(q, p.beta, training)
	}
	if err != nil {
		q.Free()
		a.free()
		return nil, nil, err
	}
	return t, func() { t.Free(); a.free() }, nil
}

// arrays are tensors that are freed together.
type arrays struct {
	dev gpu.Device
	all []tensor.Tensor
	err error // the first that happened
}

func (a *arrays) put(v []float32, shape ...int) tensor.Tensor {
	t, err := tensor.From(a.dev, v, shape...)
	a.all, a.err = append(a.all, t), errors.Join(a.err, err)
	return t
}

// room is an array of NaN.
func (a *arrays) room(shape ...int) tensor.Tensor {
	n := 1
	for _, s := range shape {
		n *= s
	}
	return a.put(slices.Repeat([]float32{float32(math.NaN())}, n), shape...)
}

func (a *arrays) free() {
	for _, t := range a.all {
		t.Free()
	}
}

// allocated is how often work allocates Go memory, on average over runs of it,
// rounded down: what others of the process allocate meanwhile counts too.
func allocated(runs int, work func()) uint64 {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		work()
	}
	runtime.ReadMemStats(&after)
	return (after.Mallocs - before.Mallocs) / uint64(runs)
}

// step is Fortet's training step.
func (s *Session) step(ctx context.Context, dev gpu.Device, p *stepProblem) error {
	c, err := p.check(dev)
	if err != nil {
		return err
	}
	t, free, err := p.trainer(dev)
	if err != nil {
		return err
	}
	defer free()
	step := 0
	one := func() {
		step++
		err = errors.Join(err, t.Step(step))
	}
	one() // the first makes what the others use
	allocations := allocated(p.block, one)
	if err != nil {
		return err
	}
	atLeast := 5 * time.Second
	if s.Quick {
		atLeast = 0
	}
	times, err := repeat(ctx, atLeast, func() error {
		for range p.block {
			one()
		}
		loss, e := t.Loss() // waits for the device
		if !finite([]float64{loss}) {
			e = errors.Join(e, fmt.Errorf("%v: the loss of step %d is %v", p.method, step, loss))
		}
		return errors.Join(err, e)
	})
	if err != nil {
		return err
	}
	pull := 0.0
	if p.method == run.LightSBBM {
		if pull, err = p.pull(ctx, dev); err != nil {
			return err
		}
	}
	for i := range times {
		times[i] = times[i]/float64(p.block) + pull*(alternations-1)/alternationSteps
	}
	r := Row{
		Name: stepName(p.method), Engine: Fortet, Status: OK, Seconds: Sum(times),
		Work:     p.work("", dev.Properties().Workers),
		Accuracy: Accuracy{Error: &c.worst, Budget: c.budget},
		Note:     fmt.Sprintf("%d Go allocations a step", allocations),
	}
	if pull > 0 {
		r.Note += fmt.Sprintf(", %d pulls of all endpoints in %d steps included, %s s each", alternations-1, alternationSteps, number3(pull))
	}
	if !math.IsInf(p.beta, 1) {
		r.Note += fmt.Sprintf(", transport map inverted to %.1e of %.1e", c.inverted, c.mostInverted)
		if !(c.inverted <= c.mostInverted) {
			r.Status = Wrong
		}
	}
	s.add(r)
	return nil
}

// pull is how many seconds it takes to pull all data back, as an iteration of the
// alternation does at its start.
func (p *stepProblem) pull(ctx context.Context, dev gpu.Device) (float64, error) {
	a := &arrays{dev: dev}
	defer a.free()
	m := p.mixture(a)
	var sets, images [2]tensor.Tensor
	for i, x := range [][]float32{p.source, p.target} {
		sets[i], images[i] = a.put(x, len(x)/p.d, p.d), a.room(len(x)/p.d, p.d)
	}
	if a.err != nil {
		return 0, a.err
	}
	if err := gmm.Scales(gmm.ScalesArgs{Raw: m.Scales, Out: m.Scales, Floor: p.floor}); err != nil {
		return 0, err
	}
	last := make([]float32, len(p.target))
	times, err := repeat(ctx, 0, func() error {
		return errors.Join(
			proximal.Solve(proximal.Args{Mixture: m, X: sets[0], T0: 0, Beta: p.beta, Y: images[0]}),
			proximal.Solve(proximal.Args{Mixture: m, X: sets[1], T0: 1, Beta: p.beta, Y: images[1]}),
			tensor.Get(images[1], last)) // waits for the device
	})
	return Sum(times).Median, err
}

// mixture is the potential, with raw in the place of S.
func (p *stepProblem) mixture(a *arrays) gmm.Mixture {
	return gmm.Mixture{
		Logits: a.put(p.logits, p.k), Means: a.put(p.means, p.k, p.d), Scales: a.put(p.raws, p.k, p.d), Epsilon: p.epsilon,
	}
}

// checked is what a check found: the error of loss and gradient, what it may be,
// and how near to the data the images of the inverted transport map are, and must
// be.
type checked struct{ worst, budget, inverted, mostInverted float64 }

// inversion is twice the tolerance that proximal.Solve has in float32, beside
// which there is the rounding of what it evaluates.
const inversion = 2e-5

// check compares loss and gradient of the kernels that a step is made of, on
// the problem's batch at its parameters, with their definition.
func (p *stepProblem) check(dev gpu.Device) (c checked, err error) {
	a := &arrays{dev: dev}
	defer a.free()
	n, d, k := p.batch, p.d, p.k
	m := p.mixture(a)
	var chunks, width int
	matches := p.method == run.LightSBM || p.method == run.LightSBBM
	if matches {
		chunks, width = gmm.PartialShape(m, n)
	} else {
		chunks, width = gmm.PartialShape(m, n, n)
	}
	reduce := gmm.ReduceArgs{
		Mixture: m, Partial: a.room(chunks, width), Floor: p.floor,
		Loss: a.room(1), DLogits: a.room(k), DMeans: a.room(k, d), DRaw: a.room(k, d),
	}
	x, u, t := a.put(p.bridge.x, n, d), a.put(p.bridge.u, n, d), a.put(p.bridge.t, n)
	x0, x1, y0, y1 := a.put(p.x0, n, d), a.put(p.x1, n, d), a.room(n, d), a.room(n, d)
	if a.err != nil {
		return c, a.err
	}
	if err := gmm.Scales(gmm.ScalesArgs{Raw: m.Scales, Out: m.Scales, Floor: p.floor}); err != nil {
		return c, err
	}
	v0, v1, weight := p.x0, p.x1, 1.0
	if !math.IsInf(p.beta, 1) {
		err := errors.Join(
			proximal.Solve(proximal.Args{Mixture: m, X: x0, T0: 0, Beta: p.beta, Y: y0}),
			proximal.Solve(proximal.Args{Mixture: m, X: x1, T0: 1, Beta: p.beta, Y: y1}))
		var err0, err1 error
		v0, err0 = tensor.Values[float32](y0)
		v1, err1 = tensor.Values[float32](y1)
		if err := errors.Join(err, err0, err1); err != nil {
			return c, err
		}
		x0, x1, weight = y0, y1, p.epsilon
		off0, rounding0 := inverted(&p.potential, p.beta, 0, p.x0, v0)
		off1, rounding1 := inverted(&p.potential, p.beta, 1, p.x1, v1)
		c.inverted, c.mostInverted = maxNaN(off0, off1), inversion+maxNaN(rounding0, rounding1)
	}
	var want *gradient[float64]
	var naive *gradient[float32]
	if matches {
		err = gmm.Match(gmm.MatchArgs{Mixture: m, X: x, U: u, T: t, Weight: 1 / float64(d), Partial: reduce.Partial})
		want, naive = matching[float64](&p.potential, p.bridge), matching[float32](&p.potential, p.bridge)
	} else {
		err = gmm.Likelihood(gmm.LikelihoodArgs{Mixture: m, Terms: [2]gmm.Term{{X: x0, Weight: weight}, {X: x1, T: 1, Weight: -weight}}, Partial: reduce.Partial})
		terms := p.terms(v0, v1, weight)
		want, naive = likelihood[float64](&p.potential, terms...), likelihood[float32](&p.potential, terms...)
	}
	if err != nil {
		return c, err
	}
	if err := gmm.Reduce(reduce); err != nil {
		return c, err
	}
	var got []float64
	for _, part := range []tensor.Tensor{reduce.Loss, reduce.DLogits, reduce.DMeans, reduce.DRaw} {
		v, err := tensor.Float64s(part)
		if err != nil {
			return c, err
		}
		got = append(got, v...)
	}
	c.worst, c.budget = compareGradient(got, want, naive)
	return c, nil
}

// terms are those of a likelihood between starts and ends.
func (p *stepProblem) terms(x0, x1 []float32, weight float64) []likely {
	return []likely{{x: x0, t: 0, weight: weight}, {x: x1, t: 1, weight: -weight}}
}
