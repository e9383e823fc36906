package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/dataset"
	lightmodel "github.com/fortet/fortet/models/light"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/solver/metrics"
	"github.com/fortet/fortet/tensor"
)

// Rows of a whole bridge, beside those of a step.
const (
	trainingName = "lightsbb training"
	samplingName = "sampling"
)

// qualityBudget is the final quality of a bridge to modes: their masses, by
// total variation, and the deviation within them, relative to the target's, are
// right to so much.
const qualityBudget = 0.02

// trained trains N(0, I) to 8gaussians by the defaults of lightsbb, as the
// program does it, with all that it writes; judges the result; and samples it.
func (s *Session) trained(ctx context.Context, dev gpu.Device) error {
	config := run.Config{Data: run.Data{Source: "normal", Target: "8gaussians"}, Device: s.Device}
	runs, points, cloud := 3, 40_000, 4000
	if s.Quick {
		config.Train.Steps = 600
		runs, points, cloud = 1, 40_000, 500
	}
	if err := config.Resolve(run.LightSBB); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var times, steps []float64
	var last *run.Folder
	for i := range runs {
		start := time.Now()
		if last, err = run.Create(filepath.Join(dir, fmt.Sprint(i)), config, false); err != nil {
			return err
		}
		result, err := lightmodel.Train(ctx, dev, last, run.Options{})
		if err := errors.Join(err, last.Close()); err != nil {
			return err
		}
		if err := result.Err(); err != nil {
			return err
		}
		times, steps = append(times, time.Since(start).Seconds()), append(steps, result.Seconds)
	}
	model, err := lightmodel.Open(ctx, dev, last)
	if err != nil {
		return err
	}
	defer model.Close()
	worst, note, err := quality(ctx, model, points, cloud)
	if err != nil {
		return err
	}
	s.add(Row{
		Name: trainingName, Engine: Fortet, Status: OK, Seconds: Sum(times),
		Work: Work{
			N: config.Train.Batch, D: model.Dim(), K: config.Light.Components, Precision: config.DType.String(), Workers: dev.Properties().Workers,
			Settings: fmt.Sprintf("N(0, I) to 8gaussians, ε = %g, %s, %d steps", config.Light.Epsilon, describeBeta(model.Beta()), config.Train.Steps),
		},
		Accuracy:   Accuracy{Error: &worst, Budget: qualityBudget},
		Iterations: config.Train.Steps,
		Note:       fmt.Sprintf("%s; the steps alone take %s s", note, number3(Sum(steps).Median)),
	})
	return errors.Join(s.sample(ctx, dev, model.Bridge, math.Inf(1)), s.sample(ctx, dev, model.Bridge, model.Beta()))
}

// quality judges points drawn by a bridge to 8gaussians.
func quality(ctx context.Context, m *lightmodel.Model, points, cloud int) (worst float64, note string, err error) {
	starts, err0 := m.Starts(points, 0)
	ends, err1 := m.Ends(points+cloud, 0)
	if err := errors.Join(err0, err1); err != nil {
		return 0, "", err
	}
	x, err := m.Draw(ctx, starts.X, 0, 1)
	if err != nil {
		return 0, "", err
	}
	const d, modes, radius = 2, 8, 2
	centres, masses := make([]float64, d*modes), make([]float64, modes)
	for i := range modes {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / modes)
		centres[d*i], centres[d*i+1], masses[i] = 5*cos, 5*sin, 1./modes
	}
	drawn, err0 := metrics.Modes(ctx, metrics.Cloud{X: x, D: d}, centres, radius)
	target, err1 := metrics.Modes(ctx, metrics.Cloud{X: ends.X[:points*d], D: d}, centres, radius)
	if err := errors.Join(err0, err1); err != nil {
		return 0, "", err
	}
	tv, err := metrics.TotalVariation(drawn.Mass, masses)
	if err != nil {
		return 0, "", err
	}
	fresh := metrics.Cloud{X: ends.X[points*d:], D: d}
	w2, err0 := metrics.W2(ctx, metrics.Cloud{X: x[:cloud*d], D: d}, fresh)
	floor, err1 := metrics.W2(ctx, metrics.Cloud{X: ends.X[:cloud*d], D: d}, fresh)
	note = fmt.Sprintf("W2 of %d points %.3f (floor %.3f); of %d points, total variation of the modes' masses %.4f, deviation within modes %.4f (target %.4f), outliers %.4f",
		cloud, w2, floor, points, tv, drawn.Std, target.Std, drawn.Outliers)
	return maxNaN(tv, math.Abs(drawn.Std/target.Std-1)), note, errors.Join(err0, err1)
}

// standardErrors is how far means of points drawn by the engine and by the
// definition may be apart: beyond it by chance once in 1.7 million.
const standardErrors = 5

// sample draws a million points of the bridge of given parameters, from the
// host's memory to it.
func (s *Session) sample(ctx context.Context, dev gpu.Device, of *sbb.Bridge, beta float64) error {
	n, checked, atLeast := 1_000_000, 40_000, 5*time.Second
	if s.Quick {
		n, checked, atLeast = 50_000, 10_000, 0
	}
	d := of.Dim()
	b, err := sbb.New(dev, tensor.Float32, of.Parameters(), beta, of.Frame())
	if err != nil {
		return err
	}
	defer b.Close()
	source, err := dataset.Open(fmt.Sprintf("normal?d=%d", d))
	if err != nil {
		return err
	}
	x, err := source.Sample(n, 1)
	if err != nil {
		return err
	}
	var out []float64
	times, err := repeat(ctx, atLeast, func() (err error) {
		out, err = b.Sample(ctx, x.X, sbb.Draw{Seed: 1})
		return err
	})
	if err != nil {
		return err
	}
	worst, err := compareSample(ctx, dev, of, beta, x.X[:checked*d], out[:checked*d])
	if err != nil {
		return err
	}
	s.add(Row{
		Name: samplingName, Engine: Fortet, Status: OK, Seconds: Sum(times),
		Work: Work{
			N: n, D: d, K: of.Parameters().K, Precision: "f32", Workers: dev.Properties().Workers,
			Settings: describeBeta(beta),
		},
		Accuracy: Accuracy{Error: &worst, Budget: standardErrors},
		Note:     fmt.Sprintf("%d of the points compared", checked),
	})
	return nil
}

func describeBeta(beta float64) string {
	if math.IsInf(beta, 1) {
		return "β = ∞"
	}
	return fmt.Sprintf("β = %g", beta)
}

// compareSample compares ends that were drawn with others that are drawn by the
// definition from the same starts.
func compareSample(ctx context.Context, dev gpu.Device, of *sbb.Bridge, beta float64, starts, ends []float64) (float64, error) {
	q, frame, d := of.Parameters(), of.Frame(), of.Dim()
	p := &potential{k: q.K, d: q.D, epsilon: q.Epsilon, logits: convert[float32](q.Logits), means: convert[float32](q.Means)}
	for _, s := range q.Scales {
		p.raws = append(p.raws, float32(math.Log(s)))
	}
	// y0 by the controls in float64, x0 = y0 + s/β; and seen to be right.
	double, err := sbb.New(dev, tensor.Float64, q, beta, frame)
	if err != nil {
		return 0, err
	}
	defer double.Close()
	controls, err := double.Controls(ctx, 0, starts, false)
	if err != nil {
		return 0, err
	}
	x, y := make([]float64, len(starts)), make([]float64, len(starts))
	frame.Encode(x, starts, 0)
	for i, alpha := range controls.Drift {
		// α in the units of the frame, without the constant of its shift
		y[i] = x[i] - (alpha-frame.Target[i%d]+frame.Source[i%d])/frame.Scale/beta
	}
	const near = 1e-3 // float32 of the points and parameters; a standard error of the means is 1e-2
	if off, _ := inverted(p, beta, 0, convert[float32](x), convert[float32](y)); !(off <= near) {
		return 0, fmt.Errorf("sampling: the starts are inverted to %.1e, want at most %.0e", off, near)
	}
	want := drawn(p, beta, y, rand.New(rand.NewPCG(1931, 8)))
	frame.Decode(want, want, 1)
	return discrepancy(ends, want, d), nil
}
