// Package light makes light bridges of configurations: it trains the methods
// lightsb, lightsb-m, lightsbb and lightsbb-m of package run, and opens their
// runs again. Between the data of a run and the potential lie, in this order,
// principal components where the configuration asks for them (package latent),
// and a change of units (mixture.Frame) that is kept in every checkpoint.
package light

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/models/latent"
	"github.com/fortet/fortet/models/lightsb"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/optim"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/tensor"
)

// Streams of a run's data: what a pool draws, and what a certificate does.
const (
	streamSource = iota
	streamTarget
	streamFreshSource
	streamFreshTarget
	streamStarts
	streamEnds
)

// frameRows bounds the rows that a change of units and principal components
// are fitted to.
const frameRows = 1 << 16

// Train begins a run in its folder, whose lock must be held, or goes on from a
// checkpoint. Metrics of the result end with the certificate of the trained
// bridge: dual, primal and gap are of ½J in the units of the data.
//
// The processes of a group share every step (mixture.Training), but each holds
// the data sets: all must be able to open them. A process with a Follower ends
// without a certificate.
func Train(ctx context.Context, dev gpu.Device, f *run.Folder, o run.Options) (*run.Result, error) {
	t, err := newTask(ctx, dev, f, o)
	if err != nil {
		return nil, err
	}
	defer t.free()
	result, err := run.Loop(ctx, f, t, o)
	if err != nil || result.Status != run.Done {
		return result, err
	}
	var more []run.Metric
	if !follows(o) {
		more, err = t.certify(ctx)
	}
	if err := run.Agree(o.Group, dev, err); err != nil {
		return nil, err
	}
	result.Metrics = append(result.Metrics, more...)
	return result, nil
}

// learner is what all four trainers are.
type learner interface {
	Step(step int) error
	Loss() (float64, error)
	GradientNorm() (float64, error)
	State() []run.Named
	Restored() error
	Average() (mixture.Parameters, error)
	Free()
}

// task is one run's training.
type task struct {
	learner
	dev            gpu.Device
	config         run.Config
	options        run.Options
	data           *data
	frame          mixture.Frame
	frameState     []run.Named
	source, target tensor.Tensor // the pools
}

// follows reports whether another process has the folder.
func follows(o run.Options) bool { return o.Group != nil && o.Group.Rank() > 0 }

func newTask(ctx context.Context, dev gpu.Device, f *run.Folder, o run.Options) (*task, error) {
	t := &task{dev: dev, config: f.Config(), options: o}
	var err error
	if follows(o) {
		t.data, err = openSets(t.config)
	} else {
		t.data, err = openData(f, o.From != nil)
	}
	if err = run.Agree(o.Group, dev, err); err == nil {
		if err = t.sharePCA(); err == nil {
			err = run.Agree(o.Group, dev, t.prepare(ctx))
		}
	}
	if err != nil {
		t.free()
		return nil, err
	}
	return t, nil
}

// sharePCA gives all processes the principal components of process 0.
func (t *task) sharePCA() error {
	if t.options.Group == nil || t.config.Data.PCA == 0 {
		return nil
	}
	var text []byte
	var err error
	if !follows(t.options) {
		text, err = json.Marshal(t.data.pca)
	}
	if err = run.Agree(t.options.Group, t.dev, err); err != nil {
		return err
	}
	if text, err = run.Share(t.options.Group, t.dev, text); err != nil || !follows(t.options) {
		return err
	}
	t.data.dim = t.config.Data.PCA
	return json.Unmarshal(text, &t.data.pca)
}

// prepare puts data and trainer on the device.
func (t *task) prepare(ctx context.Context) error {
	x0, err := t.data.rows(t.data.source, frameRows, t.config.Seed, streamSource)
	if err != nil {
		return err
	}
	x1, err := t.data.rows(t.data.target, frameRows, t.config.Seed, streamTarget)
	if err != nil {
		return err
	}
	d := t.data.dim
	t.frame = mixture.FitFrame(x0, x1, d)
	if err := t.pools(ctx); err != nil {
		return err
	}
	t.frame.Encode(x0, x0, 0)
	t.frame.Encode(x1, x1, 1)
	if t.learner, err = t.newLearner(x0, x1); err != nil {
		return err
	}
	return t.keepFrame()
}

// pools puts the data on the device, in the units of the frame.
func (t *task) pools(ctx context.Context) (err error) {
	for _, p := range []struct {
		to     *tensor.Tensor
		set    dataset.Source
		stream uint64
		time   float64
	}{{&t.source, t.data.source, streamSource, 0}, {&t.target, t.data.target, streamTarget, 1}} {
		*p.to, err = run.Pool(ctx, t.dev, p.set, run.PoolOptions{
			Rows: t.config.Data.Pool, Seed: t.config.Seed, Stream: p.stream, DType: t.config.DType, Dim: t.data.dim,
			Encode: func(dst, src []float64) error {
				if err := t.data.encode(dst, src); err != nil {
					return err
				}
				t.frame.Encode(dst, dst, p.time)
				return nil
			},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// floorOf is the lower bound of scales.
func floorOf(l run.Light) float64 {
	if l.Floor == run.None || math.IsInf(float64(l.Beta), 1) {
		return 0
	}
	return sbb.Floor(float64(l.Beta), float64(l.Floor))
}

// newLearner makes the trainer of the method; x0 and x1 are where means begin.
func (t *task) newLearner(x0, x1 []float64) (learner, error) {
	l, c := t.config.Light, t.config.Train
	beta := float64(l.Beta)
	floor := floorOf(l)
	start := mixture.Start{
		Components: l.Components, Epsilon: t.frame.Epsilon(l.Epsilon), Scale: floor + l.InitScale, Seed: t.config.Seed,
	}
	if l.Covariance == run.Full {
		start.Covariance = mixture.Full
	}
	switch l.Init {
	case run.FromSourceTarget:
		start.Means = mixture.FromBoth
	case run.Random:
		start.Means = mixture.FromNormals
	case run.Spread:
		start.Means = mixture.Spread
	}
	if !math.IsInf(beta, 1) {
		// Y is to X as under a potential without weight.
		start.Shrink = beta / (1 + beta)
	}
	p, err := start.New(x0, x1, t.data.dim)
	if err != nil {
		return nil, err
	}
	training := mixture.Training{
		Source: t.source, Target: t.target, Batch: c.Batch, Seed: t.config.Seed, Schedule: c.Schedule(),
		Optimiser: optim.Settings{WeightDecay: c.WeightDecay, Clip: c.Clip.Or(0), Average: c.Average},
		Group:     t.options.Group, Fast: t.options.Fast,
	}
	potential := func() (*mixture.Potential, error) {
		return mixture.NewPotential(t.dev, tensor.DType(t.config.DType), p, floor)
	}
	q, err := potential()
	if err != nil {
		return nil, err
	}
	switch t.config.Method {
	case run.LightSB:
		return owned(q, func() (learner, error) { return lightsb.NewLikelihood(q, training) })
	case run.LightSBM:
		return owned(q, func() (learner, error) { return lightsb.NewMatching(q, training, l.Safe) })
	case run.LightSBB:
		return owned(q, func() (learner, error) { return sbb.NewDual(q, beta, training) })
	case run.LightSBBM:
		return owned(q, func() (learner, error) {
			fixed, err := potential()
			if err != nil {
				return nil, err
			}
			return owned(fixed, func() (learner, error) {
				return sbb.NewAlternation(q, fixed, beta, l.Safe, l.Outer, c.Steps, training)
			})
		})
	}
	q.Free()
	return nil, fmt.Errorf("light: method %v is no light bridge", t.config.Method)
}

// owned makes a learner that takes q over, or frees q.
func owned(q *mixture.Potential, make func() (learner, error)) (learner, error) {
	l, err := make()
	if err != nil {
		q.Free()
		return nil, err
	}
	return l, nil
}

// The names of a frame in a checkpoint.
const (
	frameSource = "frame.source"
	frameTarget = "frame.target"
	frameScale  = "frame.scale"
)

func (t *task) keepFrame() error {
	for _, a := range []struct {
		name string
		v    []float64
	}{{frameSource, t.frame.Source}, {frameTarget, t.frame.Target}, {frameScale, []float64{t.frame.Scale}}} {
		array, err := tensor.From(t.dev, a.v, len(a.v))
		if err != nil {
			return err
		}
		t.frameState = append(t.frameState, run.Named{Name: a.name, Tensor: array})
	}
	return nil
}

func (t *task) free() {
	if t.learner != nil {
		t.learner.Free()
	}
	for _, s := range t.frameState {
		s.Tensor.Free()
	}
	t.source.Free()
	t.target.Free()
}

// State is what a checkpoint holds.
func (t *task) State() []run.Named { return append(t.learner.State(), t.frameState...) }

// Metrics are what is logged beside the loss.
func (t *task) Metrics(int) ([]run.Metric, error) {
	norm, err := t.GradientNorm()
	return []run.Metric{{Name: "gradient_norm", Value: norm}}, err
}

// bridge is the bridge of the present parameters, averaged where an average is
// kept.
func (t *task) bridge() (*sbb.Bridge, error) {
	p, err := t.Average()
	if err != nil {
		return nil, err
	}
	return sbb.New(t.dev, tensor.DType(t.config.DType), p, float64(t.config.Light.Beta), t.frame)
}

func (t *task) certify(ctx context.Context) ([]run.Metric, error) {
	b, err := t.bridge()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return certify(ctx, b, t.data, t.config.Seed)
}

// certifyRows bounds the rows of each side that a certificate is estimated
// from: fresh draws of generators, the rows of finite sets.
const certifyRows = 1 << 14

func certify(ctx context.Context, b *sbb.Bridge, d *data, seed uint64) ([]run.Metric, error) {
	x0, err0 := d.rows(d.source, certifyRows, seed, streamFreshSource)
	x1, err1 := d.rows(d.target, certifyRows, seed, streamFreshTarget)
	if err := errors.Join(err0, err1); err != nil {
		return nil, err
	}
	// A single row has no standard error, but a bound.
	if len(x0) == d.dim {
		x0 = append(x0, x0...)
	}
	if len(x1) == d.dim {
		x1 = append(x1, x1...)
	}
	c, err := b.Certify(ctx, x0, x1, sbb.Draw{Seed: seed})
	if err != nil {
		return nil, err
	}
	dead, err := b.DeadComponents(ctx, x1)
	if err != nil {
		return nil, err
	}
	return []run.Metric{
		{Name: "dual", Value: c.Dual}, {Name: "dual_error", Value: c.DualError},
		{Name: "primal", Value: c.Primal}, {Name: "primal_error", Value: c.PrimalError},
		{Name: "gap", Value: c.Gap}, {Name: "unconverged", Value: float64(c.Unconverged)},
		{Name: "dead_components", Value: float64(dead)},
	}, nil
}

// Model is the bridge of a run, ready for points as its data sets have them.
type Model struct {
	*sbb.Bridge // in the space of the principal components, if there are any
	Config      run.Config
	Step        int         // of the checkpoint
	PCA         *latent.PCA // nil: none
	Image       dataset.Shape
	data        *data
}

// Open opens the newest good checkpoint of a run.
func Open(ctx context.Context, dev gpu.Device, f *run.Folder) (*Model, error) {
	c, _, err := f.Latest()
	if err != nil {
		return nil, err
	}
	return OpenAt(ctx, dev, f, c)
}

// OpenAt opens a checkpoint of a run.
func OpenAt(ctx context.Context, dev gpu.Device, f *run.Folder, c *run.Checkpoint) (*Model, error) {
	d, err := openData(f, true)
	if err != nil {
		return nil, err
	}
	config := f.Config()
	p, frame, err := parameters(config, d.dim, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	b, err := sbb.New(dev, tensor.DType(config.DType), p, float64(config.Light.Beta), frame)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	return &Model{Bridge: b, Config: config, Step: c.Step, PCA: d.pca, Image: d.source.Image(), data: d}, nil
}

// parameters reads a checkpoint: the average, where one is kept.
func parameters(config run.Config, d int, c *run.Checkpoint) (p mixture.Parameters, frame mixture.Frame, err error) {
	array := func(name string) []float64 {
		v, e := c.Floats(name)
		err = errors.Join(err, e)
		return v
	}
	flat := mixture.StateParameters
	if config.Train.Average > 0 {
		flat = optim.StateAverage
	}
	values, scale := array(flat), array(frameScale)
	frame = mixture.Frame{Source: array(frameSource), Target: array(frameTarget)}
	l := mixture.Layout{K: config.Light.Components, D: d, Floor: floorOf(config.Light)}
	var axes []float64
	if config.Light.Covariance == run.Full {
		l.Covariance, axes = mixture.Full, array(mixture.StateAxes)
	}
	if err != nil {
		return p, frame, err
	}
	if len(scale) != 1 {
		return p, frame, fmt.Errorf("%s: %d numbers, want 1", frameScale, len(scale))
	}
	frame.Scale = scale[0]
	l.Epsilon = frame.Epsilon(config.Light.Epsilon)
	p, err = l.Parameters(values, axes)
	return p, frame, err
}

// Certify estimates the certificate of the model as Train does.
func (m *Model) Certify(ctx context.Context) ([]run.Metric, error) {
	return certify(ctx, m.Bridge, m.data, m.Config.Seed)
}

// Encode brings points as the data sets have them into the space of the
// bridge.
func (m *Model) Encode(x []float64) ([]float64, error) {
	if len(x)%m.data.from != 0 {
		return nil, fmt.Errorf("%w: points: %d numbers, want a multiple of %d", sbb.ErrInvalid, len(x), m.data.from)
	}
	z := make([]float64, len(x)/m.data.from*m.Dim())
	return z, m.data.encode(z, x)
}

// Decode is the way back, up to what the principal components leave out.
func (m *Model) Decode(z []float64) ([]float64, error) {
	if m.PCA == nil {
		return z, nil
	}
	x := make([]float64, len(z)/m.Dim()*m.data.from)
	return x, m.PCA.Decode(x, z)
}
