package optim_test

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/kernels/adam"
	"github.com/fortet/fortet/models/optim"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/tensor"
)

// vectors are the parameters (1, …, n) and a gradient on a device.
func vectors(t *testing.T, dev gpu.Device, n int) (params, gradient tensor.Tensor) {
	t.Helper()
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(i + 1)
	}
	var err [2]error
	params, err[0] = tensor.FromFloat64s(dev, tensor.Float64, v, n)
	gradient, err[1] = tensor.FromFloat64s(dev, tensor.Float64, make([]float64, n), n)
	require.NoError(t, errors.Join(err[:]...))
	t.Cleanup(func() { params.Free(); gradient.Free() })
	return params, gradient
}

func cpu(t *testing.T) gpu.Device {
	t.Helper()
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dev.Close()) })
	return dev
}

var (
	settings = optim.Settings{Beta1: 0.8, Beta2: 0.95, WeightDecay: 0.1, Average: 0.9, Clip: 2}
	schedule = run.Schedule{Peak: 0.1, Decay: run.Cosine, Warmup: 30, Steps: 700}
)

// Steps are those of kernels/adam with the numbers of the step, bit for bit:
// replayed, beyond the end of what is computed ahead, and from any step on.
func TestMake(t *testing.T) {
	const n = 37
	dev := cpu(t)
	params, gradient := vectors(t, dev, n)
	a, err := optim.NewAdam(params, gradient, settings, schedule)
	require.NoError(t, err)
	defer a.Free()
	own, _ := vectors(t, dev, n)
	first, second, average := make([]float64, n), make([]float64, n), make([]float64, n)
	require.NoError(t, tensor.GetFloat64s(own, average))
	m, err := tensor.From(dev, first, n)
	require.NoError(t, err)
	defer m.Free()
	v, err := tensor.From(dev, second, n)
	require.NoError(t, err)
	defer v.Free()
	e, err := tensor.From(dev, average, n)
	require.NoError(t, err)
	defer e.Free()
	norm, err := tensor.New(dev, tensor.Float64, 1)
	require.NoError(t, err)
	defer norm.Free()
	graph, err := dev.Record(a.Step)
	require.NoError(t, err)
	defer func() { require.NoError(t, graph.Close()) }()
	g := make([]float64, n)
	both := func(step int) {
		for i := range g {
			g[i] = math.Sin(float64(step*n + i))
		}
		require.NoError(t, tensor.Set(gradient, g))
		queue := graph.Replay
		if step%3 == 0 {
			queue = a.Step
		}
		require.NoError(t, a.Make(step, queue))
		require.NoError(t, adam.Norm(adam.NormArgs{Gradient: gradient, Norm: norm}))
		require.NoError(t, adam.Step(adam.Args{
			Params: own, Gradient: gradient, First: m, Second: v, EMA: e, Norm: norm, Step: step, Rate: schedule.Rate(step),
			Beta1: 0.8, Beta2: 0.95, Epsilon: 1e-8, Decay: 0.1, EMADecay: 0.9, Clip: 2,
		}))
		for _, pair := range [][2]tensor.Tensor{{own, params}, {e, a.Averaged()}} {
			want, err0 := tensor.Float64s(pair[0])
			got, err1 := tensor.Float64s(pair[1])
			require.NoError(t, errors.Join(err0, err1))
			require.Equal(t, want, got, "step %d", step)
		}
	}
	for step := 1; step <= 520; step++ {
		both(step)
	}
	// Not one after the other: back, on, and beyond the schedule's end.
	for _, step := range []int{3, 4, 900, 256, 257, 1, 1} {
		both(step)
	}
}

// A step that was not queued is made again with its own number, and uploads are
// as rare as they can be.
func TestMakeFails(t *testing.T) {
	counting := fake.New(cpu(t), fake.Fail{})
	params, gradient := vectors(t, counting, 3)
	a, err := optim.NewAdam(params, gradient, settings, schedule)
	require.NoError(t, err)
	defer a.Free()
	count := func() uint32 {
		v, err := tensor.Values[uint32](a.Count())
		require.NoError(t, err)
		return v[0]
	}
	boom := errors.New("boom")
	require.NoError(t, a.Make(1, a.Step))
	require.NoError(t, a.Make(2, a.Step))
	require.ErrorIs(t, a.Make(3, func() error { return errors.Join(a.Step(), boom) }), boom)
	require.NoError(t, a.Make(3, func() error {
		require.EqualValues(t, 2, count())
		return a.Step()
	}))
	require.EqualValues(t, 3, count())

	before := counting.Counts().Upload
	for step := 4; step <= 1000; step++ {
		require.NoError(t, a.Make(step, a.Step))
	}
	require.Equal(t, 3, counting.Counts().Upload-before)
	step := 1000
	require.Zero(t, testing.AllocsPerRun(600, func() {
		step++
		if err := a.Make(step, a.Step); err != nil {
			t.Error(err)
		}
	}))

	// Uploads that fail are made up for: that of the count, and that of the table.
	for n := 8; n <= 9; n++ {
		failing := fake.New(cpu(t), fake.Fail{Upload: n})
		params, gradient := vectors(t, failing, 3)
		a, err := optim.NewAdam(params, gradient, optim.Settings{}, schedule)
		require.NoError(t, err)
		defer a.Free()
		require.NoError(t, tensor.Set(gradient, []float64{1, 2, 3}))
		require.Equal(t, 7, failing.Counts().Upload)
		require.ErrorIs(t, a.Make(1, a.Step), gpu.ErrLaunch)
		require.NoError(t, a.Make(1, a.Step))
		x, err := tensor.Float64s(params)
		require.NoError(t, err)
		// The first step of Adam moves by the rate, whatever the gradient.
		require.InDelta(t, 1-schedule.Rate(1), x[0], 1e-9)
	}
}

func TestSettings(t *testing.T) {
	require.NoError(t, optim.Settings{}.Validate())
	err := optim.Settings{Beta1: 1, Beta2: -1, Epsilon: math.NaN(), WeightDecay: math.Inf(1), Clip: -1, Average: 1}.Validate()
	for _, name := range []string{"beta1", "beta2", "epsilon", "weight decay", "clip", "average"} {
		require.ErrorContains(t, err, "optim: "+name+": got ")
	}
	params, gradient := vectors(t, cpu(t), 2)
	_, err = optim.NewAdam(params, gradient, optim.Settings{Clip: -1}, schedule)
	require.ErrorContains(t, err, "clip")
}

// No allocation that fails leaves memory behind.
func TestOutOfMemory(t *testing.T) {
	dev := cpu(t)
	params, gradient := vectors(t, dev, 5)
	before := dev.Memory().InUse
	for n := 1; n <= 6; n++ {
		failing := fake.New(dev, fake.Fail{Alloc: n})
		p, err := tensor.Wrap(failing, params.Buffer(), tensor.Float64, 5)
		require.NoError(t, err)
		_, err = optim.NewAdam(p, gradient, settings, schedule)
		require.ErrorIs(t, err, gpu.ErrOutOfMemory, "allocation %d", n)
		require.Equal(t, before, dev.Memory().InUse)
	}
}

// ExampleAdam finds the minimum of (x-3)².
func ExampleAdam() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	x, _ := tensor.From(dev, []float64{0}, 1)
	g, _ := tensor.From(dev, []float64{0}, 1)
	defer x.Free()
	defer g.Free()
	a, err := optim.NewAdam(x, g, optim.Settings{}, run.Schedule{Peak: 0.1, Decay: run.Cosine, Steps: 300})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Free()
	for step := 1; step <= 300; step++ {
		v, _ := tensor.Values[float64](x)
		_ = tensor.Set(g, []float64{2 * (v[0] - 3)})
		if err := a.Make(step, a.Step); err != nil {
			fmt.Println(err)
			return
		}
	}
	v, _ := tensor.Values[float64](x)
	fmt.Printf("%.3f\n", v[0])
	// Output:
	// 3.000
}
