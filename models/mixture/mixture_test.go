package mixture_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/optim"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor"
)

func cpu(t *testing.T) gpu.Device {
	t.Helper()
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dev.Close()) })
	return dev
}

func example(full bool) mixture.Parameters {
	p := mixture.Parameters{
		K: 2, D: 2, Epsilon: .5, Logits: []float64{-.3, .2}, Means: []float64{1, -.5, -.8, .6}, Scales: []float64{.4, 1.5, .9, .25},
	}
	if full {
		for _, th := range []float64{.3, -.9} {
			p.Axes = append(p.Axes, math.Cos(th), math.Sin(th), -math.Sin(th), math.Cos(th))
		}
	}
	return p
}

// What is set is what is read, to the rounding of the element type, and the
// kernels' scales are those of the parameters.
func TestRoundTrip(t *testing.T) {
	for dtype, round := range map[tensor.DType]float64{tensor.Float32: 4e-7, tensor.Float64: 4e-16} {
		for _, full := range []bool{false, true} {
			p := example(full)
			q, err := mixture.NewPotential(cpu(t), dtype, p, 0.1)
			require.NoError(t, err)
			defer q.Free()
			got, err := q.Parameters()
			require.NoError(t, err)
			scales, err := tensor.Float64s(q.Mixture().Scales)
			require.NoError(t, err)
			for i, want := range p.Scales {
				require.InEpsilon(t, want, got.Scales[i], round)
				require.InEpsilon(t, want, scales[i], 4*round) // the kernel's own exponential
			}
			for i, want := range p.Means {
				require.InEpsilon(t, want, got.Means[i], round)
			}
			require.Len(t, got.Axes, len(p.Axes))
			require.Equal(t, p.Epsilon, got.Epsilon)

			// A copy is bit-equal.
			other, err := mixture.NewPotential(cpu(t), dtype, example(full), 0.1)
			require.NoError(t, err)
			defer other.Free()
			require.NoError(t, other.CopyFrom(q))
			same, err := other.Parameters()
			require.NoError(t, err)
			require.Equal(t, got, same)
		}
	}
}

func TestInvalid(t *testing.T) {
	dev := cpu(t)
	for name, change := range map[string]func(p *mixture.Parameters){
		"no components": func(p *mixture.Parameters) { p.K = 0 },
		"epsilon":       func(p *mixture.Parameters) { p.Epsilon = math.NaN() },
		"lengths":       func(p *mixture.Parameters) { p.Means = p.Means[:3] },
		"NaN":           func(p *mixture.Parameters) { p.Logits[0] = math.NaN() },
		"scale":         func(p *mixture.Parameters) { p.Scales[1] = 0 },
		"below floor":   func(p *mixture.Parameters) { p.Scales[1] = 0.1 },
		"axes":          func(p *mixture.Parameters) { p.Axes = []float64{1} },
	} {
		p := example(false)
		change(&p)
		_, err := mixture.NewPotential(dev, tensor.Float64, p, 0.1)
		require.ErrorIs(t, err, mixture.ErrInvalid, name)
	}
	_, err := mixture.NewPotential(dev, tensor.Float64, example(false), -1)
	require.ErrorIs(t, err, mixture.ErrInvalid)
}

// No allocation that fails leaves memory behind.
func TestOutOfMemory(t *testing.T) {
	dev := cpu(t)
	x, err := tensor.FromFloat64s(dev, tensor.Float32, []float64{1, 2, 3, 4}, 2, 2)
	require.NoError(t, err)
	defer x.Free()
	before := dev.Memory().InUse
	for n := 1; ; n++ {
		failing := fake.New(dev, fake.Fail{Alloc: n})
		q, err := mixture.NewPotential(failing, tensor.Float32, example(true), 0)
		if err == nil {
			var r *mixture.Trainer
			r, err = mixture.NewTrainer(q, mixture.Training{Source: x, Target: x, Batch: 4}, 2, func() error { return nil })
			if err == nil {
				r.Free()
				require.Equal(t, before, dev.Memory().InUse)
				require.Greater(t, n, 8)
				return
			}
			q.Free()
		}
		require.ErrorIs(t, err, gpu.ErrOutOfMemory, "allocation %d", n)
		require.Equal(t, before, dev.Memory().InUse, "allocation %d", n)
	}
}

// The axes of a full covariance stay orthonormal, and turn by the angle that W
// says: Cayley's angle is 2 atan(θ/2).
func TestTurn(t *testing.T) {
	p := example(true)
	q, err := mixture.NewPotential(cpu(t), tensor.Float64, p, 0)
	require.NoError(t, err)
	defer q.Free()
	flat, err := tensor.Float64s(q.Flat())
	require.NoError(t, err)
	const theta = 0.37
	// W is the last section, and begins at a multiple of 64 elements.
	at := len(flat) - 64
	flat[at+1], flat[at+2] = theta, -theta // component 0
	require.NoError(t, tensor.SetFloat64s(q.Flat(), flat))
	require.NoError(t, q.Update())
	got, err := q.Parameters()
	require.NoError(t, err)
	angle := .3 + 2*math.Atan(theta/2)
	for i, want := range []float64{math.Cos(angle), math.Sin(angle), -math.Sin(angle), math.Cos(angle)} {
		require.InDelta(t, want, got.Axes[i], 1e-14)
		require.InDelta(t, p.Axes[4+i], got.Axes[4+i], 1e-15)
	}
	after, err := tensor.Float64s(q.Flat())
	require.NoError(t, err)
	for _, w := range after[at:] {
		require.Zero(t, w)
	}
}

func TestFrame(t *testing.T) {
	source, target := []float64{1, 10, 3, 10, 5, 10}, []float64{-1, 0, -1, 2}
	f := mixture.FitFrame(source, target, 2)
	require.Equal(t, []float64{3, 10}, f.Source)
	require.Equal(t, []float64{-1, 1}, f.Target)
	// Variances of the columns: 8/3 and 0, and 0 and 1.
	require.InDelta(t, math.Sqrt((8./3/2+1./2)/2), f.Scale, 1e-15)
	require.InDelta(t, 97, f.Shift2(), 1e-12)
	z := make([]float64, 4)
	f.Encode(z, target, 1)
	require.InDelta(t, -1/f.Scale, z[1], 1e-15)
	f.Decode(z, z, 1)
	for i := range z {
		require.InDelta(t, target[i], z[i], 1e-14)
	}
	require.Equal(t, 1.0, mixture.FitFrame([]float64{7}, []float64{9}, 1).Scale, "constant data")
}

func TestStart(t *testing.T) {
	rows := []float64{1, 2, 3, 4, 5, 6, 7, 8}
	s := mixture.Start{Components: 4, Epsilon: 1, Scale: .2, Seed: 9}
	p, err := s.New(nil, rows, 2)
	require.NoError(t, err)
	seen := map[float64]bool{}
	for i := 0; i < 8; i += 2 {
		require.Equal(t, p.Means[i]+1, p.Means[i+1], "a row of the target")
		seen[p.Means[i]] = true
	}
	require.Len(t, seen, 4, "without replacement")
	again, err := s.New(nil, rows, 2)
	require.NoError(t, err)
	require.Equal(t, p, again)
	s.Seed = 10
	other, err := s.New(nil, rows, 2)
	require.NoError(t, err)
	require.NotEqual(t, p.Means, other.Means)

	s.Components = 5
	_, err = s.New(nil, rows, 2)
	require.ErrorIs(t, err, mixture.ErrInvalid)
	require.ErrorContains(t, err, "5 components begin at rows of the target, which has 4")
	s.Means, s.Shrink = mixture.FromBoth, .5
	p, err = s.New([]float64{100, 101, 102, 103}, rows, 2)
	require.NoError(t, err)
	require.GreaterOrEqual(t, p.Means[2], 50.0, "two of the source, shrunk")
	require.LessOrEqual(t, p.Means[4], 4.0)
}

// Ten clusters far apart have one mean each, where rows drawn independently
// would miss some: the chance that all ten differ is 10!/10¹⁰.
func TestStartSpreads(t *testing.T) {
	const k, each = 10, 100
	r := rand.New(rand.NewPCG(1, 2))
	rows := make([]float64, 0, 2*k*each)
	for i := range k * each {
		rows = append(rows, float64(1000*(i%k))+r.NormFloat64(), r.NormFloat64())
	}
	for seed := range uint64(20) {
		s := mixture.Start{Components: k, Epsilon: 1, Scale: .2, Seed: seed, Means: mixture.Spread}
		p, err := s.New(nil, rows, 2)
		require.NoError(t, err)
		seen := map[float64]bool{}
		for j := range k {
			seen[math.Round(p.Means[2*j]/1000)] = true
		}
		require.Len(t, seen, k)
		again, err := s.New(nil, rows, 2)
		require.NoError(t, err)
		require.Equal(t, p, again)
	}
	// Of three places, four means take all, and one of them twice.
	s := mixture.Start{Components: 4, Epsilon: 1, Scale: .2, Means: mixture.Spread}
	p, err := s.New(nil, []float64{1, 2, 1, 3, 1, 2, 1}, 1)
	require.NoError(t, err)
	slices.Sort(p.Means)
	require.Equal(t, []float64{1, 2, 3}, slices.Compact(p.Means))
}

// A training step whose gradient is not finite changes nothing, and the norm
// tells.
func TestBadGradient(t *testing.T) {
	dev := cpu(t)
	x, err := tensor.FromFloat64s(dev, tensor.Float32, []float64{1, 2, 3, 4}, 2, 2)
	require.NoError(t, err)
	defer x.Free()
	q, err := mixture.NewPotential(dev, tensor.Float32, example(false), 0)
	require.NoError(t, err)
	r, err := mixture.NewTrainer(q, mixture.Training{
		Source: x, Target: x, Batch: 4, Schedule: run.Schedule{Peak: .1, Steps: 1}, Optimiser: optim.Settings{Clip: 1},
	}, 2, func() error { return nil })
	require.NoError(t, err)
	defer r.Free()
	before, err := q.Parameters()
	require.NoError(t, err)
	bad := make([]float64, r.Partial.Len())
	bad[1] = math.NaN()
	require.NoError(t, tensor.SetFloat64s(r.Partial, bad))
	require.NoError(t, r.Step(1))
	after, err := q.Parameters()
	require.NoError(t, err)
	require.Equal(t, before, after)
	norm, err := r.GradientNorm()
	require.NoError(t, err)
	require.True(t, math.IsNaN(norm))
}
