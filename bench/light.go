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
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/models/lightsb"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
)

// light measures light Schrödinger bridges: a training step beside the same
// step in PyTorch, a training to its final quality, and sampling.
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
		for _, method := range []run.Method{run.LightSB, run.LightSBM, run.LightSBB} {
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
	return s.trained(ctx, dev)
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
	source, target []float32 // (pool, d)
	x0, x1         []float32 // (batch, d)
	bridge         matched   // between them
}

// newStepProblem has ε, the learning rate and the first S of the papers'
// programs in two dimensions and for face latents; of LightSBB our defaults.
func newStepProblem(method run.Method, shape stepShape) *stepProblem {
	d, k, scale, shrink := shape.d, shape.k, shape.scale, 1.0
	p := &stepProblem{
		potential: potential{k: k, d: d, epsilon: 0.1}, batch: shape.batch, block: shape.block,
		method: method, beta: math.Inf(1), rate: 1e-3, safe: 1e-2,
	}
	if method == run.LightSBB {
		p.beta, p.rate, p.epsilon, scale = 10, 0.03, 1, 0.2
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
		Schedule: run.Schedule{Peak: p.rate},
	}
	err = a.err
	switch {
	case err != nil:
	case p.method == run.LightSB:
		t, err = lightsb.NewLikelihood(q, training)
	case p.method == run.LightSBM:
		t, err = lightsb.NewMatching(q, training, p.safe)
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
	allocations := testing.AllocsPerRun(p.block, one)
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
	for i := range times {
		times[i] /= float64(p.block)
	}
	r := Row{
		Name: stepName(p.method), Engine: Fortet, Status: OK, Seconds: Sum(times),
		Work:     p.work("", dev.Properties().Workers),
		Accuracy: Accuracy{Error: &c.worst, Budget: c.budget},
		Note:     fmt.Sprintf("%g Go allocations a step", allocations),
	}
	if p.method == run.LightSBB {
		r.Note += fmt.Sprintf(", transport map inverted to %.1e", c.inverted)
		if !(c.inverted <= mostInverted) {
			r.Status = Wrong
		}
	}
	s.add(r)
	return nil
}

// checked is what a check found: the error of loss and gradient, what it may be,
// and how near to the data the images of the inverted transport map are.
type checked struct{ worst, budget, inverted float64 }

// mostInverted bounds checked.inverted: twice the tolerance that proximal.Solve
// has in float32 and evaluates with its own rounding.
const mostInverted = 2e-5

// check compares loss and gradient of the kernels that a step is made of, on
// the problem's batch at its parameters, with their definition.
func (p *stepProblem) check(dev gpu.Device) (c checked, err error) {
	a := &arrays{dev: dev}
	defer a.free()
	n, d, k := p.batch, p.d, p.k
	m := gmm.Mixture{Logits: a.put(p.logits, k), Means: a.put(p.means, k, d), Scales: a.put(p.raws, k, d), Epsilon: p.epsilon}
	var chunks, width int
	if p.method == run.LightSBM {
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
	var want *gradient[float64]
	var naive *gradient[float32]
	switch p.method {
	case run.LightSBM:
		err = gmm.Match(gmm.MatchArgs{Mixture: m, X: x, U: u, T: t, Weight: 1 / float64(d), Partial: reduce.Partial})
		want, naive = matching[float64](&p.potential, p.bridge), matching[float32](&p.potential, p.bridge)
	case run.LightSB:
		err = gmm.Likelihood(gmm.LikelihoodArgs{Mixture: m, Terms: [2]gmm.Term{{X: x0, Weight: 1}, {X: x1, T: 1, Weight: -1}}, Partial: reduce.Partial})
		terms := p.terms(p.x0, p.x1, 1)
		want, naive = likelihood[float64](&p.potential, terms...), likelihood[float32](&p.potential, terms...)
	default:
		err = errors.Join(
			proximal.Solve(proximal.Args{Mixture: m, X: x0, T0: 0, Beta: p.beta, Y: y0}),
			proximal.Solve(proximal.Args{Mixture: m, X: x1, T0: 1, Beta: p.beta, Y: y1}),
			gmm.Likelihood(gmm.LikelihoodArgs{Mixture: m, Terms: [2]gmm.Term{{X: y0, Weight: p.epsilon}, {X: y1, T: 1, Weight: -p.epsilon}}, Partial: reduce.Partial}))
		v0, err0 := tensor.Values[float32](y0)
		v1, err1 := tensor.Values[float32](y1)
		if err := errors.Join(err, err0, err1); err != nil {
			return c, err
		}
		terms := p.terms(v0, v1, p.epsilon)
		want, naive = likelihood[float64](&p.potential, terms...), likelihood[float32](&p.potential, terms...)
		c.inverted = maxNaN(inverted(&p.potential, p.beta, 0, p.x0, v0), inverted(&p.potential, p.beta, 1, p.x1, v1))
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

// stepPeer is the same step in PyTorch, in the ways that bench/peers/light.py
// knows. That it is the same is seen in float64, where rounding hides nothing.
func (s *Session) stepPeer(ctx context.Context, p *stepProblem) error {
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	seconds, threads := 5.0, min(2, s.Provenance.Cores)
	if s.Quick {
		seconds = 0
	}
	if err := p.write(dir, seconds); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	out, err := s.python(limited, pyTorch, "light.py", "--problem", dir, "--out", dir, "--threads", strconv.Itoa(threads))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		fmt.Fprintf(s.Log, "%s: not done after %v\n", pyTorch, s.Limit)
		return nil
	}
	if out == nil || err != nil {
		return err
	}
	var a struct {
		Version string
		Answers []struct {
			Way     string
			Threads int
			Seconds []float64
		}
	}
	if err := json.Unmarshal(out, &a); err != nil {
		return fmt.Errorf("%s: %w in %q", pyTorch, err, tail(string(out)))
	}
	want := p.published()
	for _, way := range a.Answers {
		single, err32 := npy.ReadFile(filepath.Join(dir, way.Way+".f32.npy"))
		double, err64 := npy.ReadFile(filepath.Join(dir, way.Way+".f64.npy"))
		if err := errors.Join(err32, err64); err != nil {
			return fmt.Errorf("%s: %w", pyTorch, err)
		}
		worst := relative(double.Float64s(), want)
		s.add(Row{
			Name: stepName(p.method), Engine: pyTorch, Status: OK, Seconds: Sum(way.Seconds),
			Provenance: Provenance{Version: a.Version},
			Work:       p.work(way.Way, way.Threads),
			Accuracy:   Accuracy{Error: &worst, Budget: ulp[float32]()},
			Note:       fmt.Sprintf("the faster of 1 and %d threads; error in float32 %.1e", threads, relative(single.Float64s(), want)),
		})
	}
	return nil
}

// published is loss and gradient in float64, of LightSB with what its loss has
// beside ours that does not depend on the parameters.
func (p *stepProblem) published() *gradient[float64] {
	if p.method == run.LightSBM {
		return matching[float64](&p.potential, p.bridge)
	}
	want := likelihood[float64](&p.potential, p.terms(p.x0, p.x1, 1)...)
	square := 0.0
	for _, x := range [][]float32{p.x0, p.x1} {
		for _, v := range x {
			square += float64(v) * float64(v) / float64(p.batch)
		}
	}
	want.value[0] += square/(2*p.epsilon) + float64(p.d)/2*math.Log(2*math.Pi*p.epsilon)
	return want
}

// relative is the largest error of a loss and its gradient, relative to the
// largest element of its part.
func relative(got []float64, want *gradient[float64]) float64 {
	worst, at := 0.0, want.p.parts()
	if len(got) != len(want.value) {
		return math.NaN()
	}
	for part := range 4 {
		var off, scale float64
		for i := at[part]; i < at[part+1]; i++ {
			off, scale = maxNaN(off, math.Abs(got[i]-want.value[i])), max(scale, math.Abs(want.value[i]))
		}
		worst = maxNaN(worst, off/scale)
	}
	return worst
}

// write writes what light.py reads.
func (p *stepProblem) write(dir string, seconds float64) error {
	spec, err := json.Marshal(map[string]any{
		"method": p.method.String(), "epsilon": p.epsilon, "rate": p.rate, "safe": p.safe, "batch": p.batch,
		"block": p.block, "seconds": seconds,
	})
	if err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(dir, "problem.json"), spec, 0o644)
	for _, a := range []struct {
		name string
		v    []float32
		d    int // 0: a vector
	}{
		{"source", p.source, p.d}, {"target", p.target, p.d}, {"logits", p.logits, 0}, {"means", p.means, p.d},
		{"logscales", p.raws, p.d}, {"x0", p.x0, p.d}, {"x1", p.x1, p.d},
		{"xt", p.bridge.x, p.d}, {"u", p.bridge.u, p.d}, {"t", p.bridge.t, 0},
	} {
		shape := []int{len(a.v)}
		if a.d > 0 {
			shape = []int{len(a.v) / a.d, a.d}
		}
		err = errors.Join(err, save(filepath.Join(dir, a.name+".npy"), npy.New(a.v, shape...)))
	}
	return err
}

func convert64(v []float32) []float64 {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return w
}
