package lightsb_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/adam"
	"github.com/fortet/fortet/kernels/batch"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/models/lightsb"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/optim"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor"
)

func normals(n int, mean, std float64, purpose uint8) []float64 {
	s := philox.NewStream(philox.Draw{Seed: 11, Purpose: purpose})
	x := make([]float64, n)
	for i := range x {
		x[i] = mean + std*s.NormFloat64()
	}
	return x
}

type learner interface {
	Step(int) error
	Loss() (float64, error)
	Average() (mixture.Parameters, error)
	Free()
}

func learn(t *testing.T, dev gpu.Device, x0, x1 []float64, d, steps int, rate float64, p mixture.Parameters, matching bool) (learner, mixture.Parameters) {
	t.Helper()
	source, err := tensor.FromFloat64s(dev, tensor.Float32, x0, len(x0)/d, d)
	require.NoError(t, err)
	target, err := tensor.FromFloat64s(dev, tensor.Float32, x1, len(x1)/d, d)
	require.NoError(t, err)
	q, err := mixture.NewPotential(dev, tensor.Float32, p, 0)
	require.NoError(t, err)
	set := mixture.Training{
		Source: source, Target: target, Batch: 1024, Seed: 3,
		Schedule: run.Schedule{Peak: rate, Decay: run.Cosine, Steps: steps},
	}
	var l learner
	if matching {
		l, err = lightsb.NewMatching(q, set, 1e-2)
	} else {
		l, err = lightsb.NewLikelihood(q, set)
	}
	require.NoError(t, err)
	t.Cleanup(func() { l.Free(); source.Free(); target.Free() })
	for step := 1; step <= steps; step++ {
		require.NoError(t, l.Step(step))
	}
	got, err := l.Average()
	require.NoError(t, err)
	return l, got
}

// N(0, 1) to N(.8, 2.25) at ε = ½ has S = 1.27069 and r = .8 (MATH.md A.6).
// Bridge matching from the independent coupling finds the same.
func TestGaussian(t *testing.T) {
	const n = 1 << 17
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dev.Close()) })
	x0, x1 := normals(n, 0, 1, 1), normals(n, .8, 1.5, 2)
	p := mixture.Parameters{K: 1, D: 1, Epsilon: .5, Logits: []float64{0}, Means: []float64{0}, Scales: []float64{1}}
	for _, matching := range []bool{false, true} {
		steps := 1000
		if matching {
			steps = 4000 // its gradients are noisier
		}
		_, got := learn(t, dev, x0, x1, 1, steps, 0.03, p, matching)
		// The pools' own errors: of the mean 1.5/√n = .0041, of the variance 2.25 √(2/n)
		// = .4 %; minibatches add about as much.
		if !(math.Abs(got.Scales[0]-1.2706906325745548) <= 0.03) {
			t.Errorf("matching %v: S = %v, want 1.2707", matching, got.Scales[0])
		}
		if !(math.Abs(got.Means[0]-.8) <= 0.03) {
			t.Errorf("matching %v: r = %v, want .8", matching, got.Means[0])
		}
	}
}

// A full covariance finds the S of A.4, which no diagonal one is:
// N((.2, -.1), [[1.3, .4], [.4, .8]]) to N((1, .5), [[2, -.5], [-.5, .9]]), ε = ½.
func TestFullCovariance(t *testing.T) {
	const n = 1 << 16
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dev.Close()) })
	draw := func(mean [2]float64, c11, c12, c22 float64, purpose uint8) []float64 {
		z := normals(2*n, 0, 1, purpose)
		l11 := math.Sqrt(c11)
		l21 := c12 / l11
		l22 := math.Sqrt(c22 - l21*l21)
		for i := 0; i < len(z); i += 2 {
			z[i], z[i+1] = mean[0]+l11*z[i], mean[1]+l21*z[i]+l22*z[i+1]
		}
		return z
	}
	x0, x1 := draw([2]float64{.2, -.1}, 1.3, .4, .8, 3), draw([2]float64{1, .5}, 2, -.5, .9, 4)
	p := mixture.Parameters{
		K: 1, D: 2, Epsilon: .5, Logits: []float64{0}, Means: []float64{0, 0}, Scales: []float64{1.1, 0.9},
		Axes: []float64{1, 0, 0, 1},
	}
	for _, matching := range []bool{false, true} {
		_, got := learn(t, dev, x0, x1, 2, 3000, 0.02, p, matching)
		var s [2][2]float64
		for e := range 2 {
			for i := range 2 {
				for j := range 2 {
					s[i][j] += got.Scales[e] * got.Axes[2*e+i] * got.Axes[2*e+j]
				}
			}
		}
		want := [2][2]float64{{1.128082471, -.351521543}, {-.351521543, .834291461}}
		for i := range 2 {
			for j := range 2 {
				if !(math.Abs(s[i][j]-want[i][j]) <= 0.04) {
					t.Errorf("matching %v: S = %v, want %v", matching, s, want)
				}
			}
		}
		for i, r := range []float64{.739231351, .653733455} {
			if !(math.Abs(got.Means[i]-r) <= 0.04) {
				t.Errorf("matching %v: r = %v, want .7392, .6537", matching, got.Means)
			}
		}
	}
}

// Steps are, bit for bit, their kernels called with the numbers of the step:
// draws of purposes 16 to 18, and the schedule's rate.
func TestStepIsItsKernels(t *testing.T) {
	const n, batchRows, steps, d, k = 501, 77, 9, 2, 3
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dev.Close()) })
	array := func(v []float64, shape ...int) tensor.Tensor {
		a, err := tensor.FromFloat64s(dev, tensor.Float32, v, shape...)
		require.NoError(t, err)
		t.Cleanup(a.Free)
		return a
	}
	zeros := func(shape ...int) tensor.Tensor {
		size := 1
		for _, s := range shape {
			size *= s
		}
		return array(make([]float64, size), shape...)
	}
	source, target := array(normals(n*d, 0, 1, 1), n, d), array(normals(n*d, 1, 2, 2), n, d)
	p := mixture.Parameters{
		K: k, D: d, Epsilon: .5, Logits: []float64{-1, -1.2, -.9}, Means: []float64{0, 1, 2, -1, .5, 1.5}, Scales: []float64{1, .8, .6, 1.2, .7, 1.1},
	}
	schedule := run.Schedule{Peak: .05, Decay: run.Cosine, Warmup: 3, Steps: steps}
	settings := optim.Settings{Beta1: .8, Beta2: .99, Clip: .5, WeightDecay: .1, Average: .9}
	for _, matching := range []bool{false, true} {
		q, err := mixture.NewPotential(dev, tensor.Float32, p, 0)
		require.NoError(t, err)
		training := mixture.Training{Source: source, Target: target, Batch: batchRows, Seed: 8, Schedule: schedule, Optimiser: settings}
		var l learner
		if matching {
			l, err = lightsb.NewMatching(q, training, .05)
		} else {
			l, err = lightsb.NewLikelihood(q, training)
		}
		require.NoError(t, err)
		defer l.Free()

		own, err := mixture.NewPotential(dev, tensor.Float32, p, 0)
		require.NoError(t, err)
		defer own.Free()
		rows := []int{batchRows, batchRows}
		if matching {
			rows = rows[:1]
		}
		chunks, width := gmm.PartialShape(own.Mixture(), rows...)
		x0, x1, xt, u, times := zeros(batchRows, d), zeros(batchRows, d), zeros(batchRows, d), zeros(batchRows, d), zeros(batchRows)
		partial, first, second := zeros(chunks, width), zeros(own.Flat().Len()), zeros(own.Flat().Len())
		now, err := tensor.Float64s(own.Flat())
		require.NoError(t, err)
		average := array(now, len(now))
		norm, err := tensor.New(dev, tensor.Float64, 1)
		require.NoError(t, err)
		defer norm.Free()
		for step := 1; step <= steps; step++ {
			require.NoError(t, l.Step(step))

			draw := philox.Draw{Seed: 8, Step: uint32(step), Purpose: 16}
			require.NoError(t, batch.Gather(batch.GatherArgs{Rows: source, Out: x0, Draw: draw}))
			draw.Purpose++
			require.NoError(t, batch.Gather(batch.GatherArgs{Rows: target, Out: x1, Draw: draw}))
			draw.Purpose++
			m := own.Mixture()
			if matching {
				require.NoError(t, batch.Bridge(batch.BridgeArgs{X0: x0, X1: x1, Epsilon: .5, Safe: .05, T: times, Xt: xt, U: u, Draw: draw}))
				require.NoError(t, gmm.Match(gmm.MatchArgs{Mixture: m, X: xt, U: u, T: times, Weight: 1. / d, Partial: partial}))
			} else {
				terms := [2]gmm.Term{{X: x0, Weight: 1}, {X: x1, T: 1, Weight: -1}}
				require.NoError(t, gmm.Likelihood(gmm.LikelihoodArgs{Mixture: m, Terms: terms, Partial: partial}))
			}
			require.NoError(t, own.Reduce(partial))
			require.NoError(t, adam.Norm(adam.NormArgs{Gradient: own.Gradient(), Norm: norm}))
			require.NoError(t, adam.Step(adam.Args{
				Params: own.Flat(), Gradient: own.Gradient(), First: first, Second: second, EMA: average, Norm: norm,
				Step: step, Rate: schedule.Rate(step), Beta1: .8, Beta2: .99, Epsilon: 1e-8, Decay: .1, EMADecay: .9, Clip: .5,
			}))
			require.NoError(t, own.Update())

			want, err := own.ParametersOf(average)
			require.NoError(t, err)
			got, err := l.Average()
			require.NoError(t, err)
			require.Equal(t, want, got, "step %d, matching %v", step, matching)
		}
	}
}

// A step takes no Go memory.
func TestStepAllocatesNothing(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dev.Close()) })
	x := normals(1000, 0, 1, 5)
	p := mixture.Parameters{K: 1, D: 1, Epsilon: .5, Logits: []float64{0}, Means: []float64{0}, Scales: []float64{1}}
	for _, matching := range []bool{false, true} {
		l, _ := learn(t, dev, x, x, 1, 3, 0.01, p, matching)
		step := 3
		require.Zero(t, testing.AllocsPerRun(100, func() {
			step++
			if err := l.Step(step); err != nil {
				t.Error(err)
			}
		}), "matching %v", matching)
	}
}
