package gmm_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

func TestScales(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		t.Run("float32", func(t *testing.T) { scales[float32](t, dev) })
		t.Run("float64", func(t *testing.T) { scales[float64](t, dev) })
	})
}

func scales[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	unit := 0x1p-52
	if tensor.TypeOf[T]() == tensor.Float32 {
		unit = 0x1p-23
	}
	for _, n := range []int{0, 1, 257, 4096, 4097} {
		for _, floor := range []float64{0, .1} {
			raw := cast[T](normals(rand.New(rand.NewPCG(7, uint64(n))), n))
			for i := range raw {
				raw[i] *= 6
			}
			if n > 2 {
				raw[0], raw[1], raw[2] = -1e30, 1e30, T(math.Inf(-1))
			}
			in, out := kerneltest.Put(t, dev, raw), kerneltest.Poison[T](t, dev, n)
			require.NoError(t, gmm.Scales(gmm.ScalesArgs{Raw: in.Tensor, Out: out.Tensor, Floor: floor}))
			in.Unmodified(t)
			got := out.Get(t)
			for i, v := range raw {
				want := floor + math.Exp(min(max(float64(v), -14), 14))
				require.NoError(t, kerneltest.Within(got[i:i+1], []float64{want}, 2*unit*want), "raw %v", v)
			}
			require.NoError(t, gmm.Scales(gmm.ScalesArgs{Raw: in.Tensor, Out: in.Tensor, Floor: floor}))
			require.NoError(t, kerneltest.BitEqual(in.Get(t), got))
		}
	}
	in := kerneltest.Put(t, dev, []T{T(math.NaN())})
	require.NoError(t, gmm.Scales(gmm.ScalesArgs{Raw: in.Tensor, Out: in.Tensor}))
	v, err := tensor.Values[T](in.Tensor)
	require.NoError(t, err)
	require.True(t, math.IsNaN(float64(v[0])))
}

func TestErrors(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	put := func(dtype tensor.DType, shape ...int) tensor.Tensor {
		return kerneltest.New(t, dev, dtype, shape...)
	}
	f := tensor.Float32
	const n, k, d = 5, 3, 2
	m := gmm.Mixture{Logits: put(f, k), Means: put(f, k, d), Scales: put(f, k, d), Epsilon: 1}
	turned := m
	turned.Axes = put(f, k, d, d)
	x, times, out := put(f, n, d), put(f, n), put(f, n, d)
	chunks, width := gmm.PartialShape(m, n)
	partial := put(f, chunks, width)
	with := func(change func(*gmm.Mixture)) gmm.Mixture {
		m := m
		change(&m)
		return m
	}
	evaluate := func(change func(*gmm.EvaluateArgs)) error {
		a := gmm.EvaluateArgs{Mixture: m, X: x, Drift: out}
		change(&a)
		return gmm.Evaluate(a)
	}
	likelihood := func(change func(*gmm.LikelihoodArgs)) error {
		a := gmm.LikelihoodArgs{Mixture: m, Terms: [2]gmm.Term{{X: x, Weight: 1}}, Partial: partial}
		change(&a)
		return gmm.Likelihood(a)
	}
	match := func(change func(*gmm.MatchArgs)) error {
		a := gmm.MatchArgs{Mixture: m, X: x, U: out, T: times, Partial: partial}
		change(&a)
		return gmm.Match(a)
	}
	reduce := func(change func(*gmm.ReduceArgs)) error {
		a := gmm.ReduceArgs{Mixture: m, Partial: partial, DLogits: put(f, k), DMeans: put(f, k, d), DRaw: put(f, k, d)}
		change(&a)
		return gmm.Reduce(a)
	}
	scale := func(a gmm.ScalesArgs) error { return gmm.Scales(a) }
	big := put(f, n+1, d)
	for _, c := range []struct {
		err  error
		is   error
		text string
	}{
		{scale(gmm.ScalesArgs{}), gpu.ErrInvalid, "gmm: scales: raw: invalid argument: missing"},
		{scale(gmm.ScalesArgs{Raw: put(tensor.Int32, 2), Out: put(tensor.Int32, 2)}), gpu.ErrInvalid, "raw: invalid argument: i32, want f32 or f64"},
		{scale(gmm.ScalesArgs{Raw: x, Out: put(f, n)}), tensor.ErrInvalid, "out: invalid tensor: shape (5,), want (5, 2)"},
		{scale(gmm.ScalesArgs{Raw: x, Out: out, Floor: -1}), gpu.ErrInvalid, "floor: invalid argument: got -1, want at least 0"},
		{scale(gmm.ScalesArgs{Raw: x, Out: out, Floor: math.NaN()}), gpu.ErrInvalid, "floor"},
		{scale(gmm.ScalesArgs{Raw: big.Rows(0, n), Out: big.Rows(1, n+1)}), gpu.ErrInvalid, "overlaps raw"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.Mixture = gmm.Mixture{} }), gpu.ErrInvalid, "logits"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.Mixture = with(func(m *gmm.Mixture) { m.Epsilon = 0 }) }), gpu.ErrInvalid, "epsilon"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.Mixture = with(func(m *gmm.Mixture) { m.Scales = put(f, k) }) }), tensor.ErrInvalid, "scales"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.X = tensor.Tensor{} }), gpu.ErrInvalid, "x: invalid argument: missing"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.X = times }), gpu.ErrInvalid, "x: invalid argument: 1 axes, want 2"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.X = put(f, n, d+1) }), tensor.ErrInvalid, "x: invalid tensor: shape (5, 3), want (5, 2)"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.Drift = tensor.Tensor{} }), gpu.ErrInvalid, "outputs: invalid argument: none given"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.T = put(f, n+1) }), tensor.ErrInvalid, "t: invalid tensor"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.T, a.T0 = times, 1 }), gpu.ErrInvalid, "t0: invalid argument: got 1 beside t, want 0"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.T0 = 1.5 }), gpu.ErrInvalid, "t0: invalid argument: got 1.5, want a time in [0, 1]"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.T0 = math.NaN() }), gpu.ErrInvalid, "t0"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.V = put(f, n, d) }), gpu.ErrInvalid, "v and product go together"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.Product = put(f, n, d) }), gpu.ErrInvalid, "v and product go together"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.Drift = x }), gpu.ErrInvalid, "drift: invalid argument: overlaps x"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.Value, a.Trace = times, times }), gpu.ErrInvalid, "trace: invalid argument: overlaps value"},
		{evaluate(func(a *gmm.EvaluateArgs) { a.Drift = put(tensor.Float64, n, d) }), tensor.ErrInvalid, "drift: invalid tensor: f64, want f32"},
		{likelihood(func(a *gmm.LikelihoodArgs) { a.Terms[0].X = tensor.Tensor{} }), gpu.ErrInvalid, "terms: invalid argument: no rows"},
		{likelihood(func(a *gmm.LikelihoodArgs) { a.Terms[0].X = put(f, 0, d) }), gpu.ErrInvalid, "terms: invalid argument: no rows"},
		{likelihood(func(a *gmm.LikelihoodArgs) { a.Terms[1].X = put(f, n, 1) }), tensor.ErrInvalid, "x of term 1"},
		{likelihood(func(a *gmm.LikelihoodArgs) { a.Terms[0].T = -1 }), gpu.ErrInvalid, "t: invalid argument: got -1"},
		{likelihood(func(a *gmm.LikelihoodArgs) { a.Terms[0].Weight = math.Inf(1) }), gpu.ErrInvalid, "weight"},
		{likelihood(func(a *gmm.LikelihoodArgs) { a.Terms[1].X = x }), tensor.ErrInvalid, "partial: invalid tensor: shape (1, 16), want (2, 16)"},
		{likelihood(func(a *gmm.LikelihoodArgs) { a.Mixture = turned }), tensor.ErrInvalid, "partial: invalid tensor: shape (1, 16), want (1, 22)"},
		{match(func(a *gmm.MatchArgs) { a.X, a.U, a.T = put(f, 0, d), put(f, 0, d), put(f, 0) }), gpu.ErrInvalid, "x: invalid argument: no rows"},
		{match(func(a *gmm.MatchArgs) { a.U = tensor.Tensor{} }), tensor.ErrInvalid, "u: invalid tensor: missing"},
		{match(func(a *gmm.MatchArgs) { a.T = tensor.Tensor{} }), tensor.ErrInvalid, "t: invalid tensor: missing"},
		{match(func(a *gmm.MatchArgs) { a.Weight = math.NaN() }), gpu.ErrInvalid, "weight"},
		{reduce(func(a *gmm.ReduceArgs) { a.Partial = tensor.Tensor{} }), gpu.ErrInvalid, "partial: invalid argument: missing"},
		{reduce(func(a *gmm.ReduceArgs) { a.Partial = put(f, 0, width) }), gpu.ErrInvalid, "partial"},
		{reduce(func(a *gmm.ReduceArgs) { a.Partial = put(f, 2, width+1) }), tensor.ErrInvalid, "partial"},
		{reduce(func(a *gmm.ReduceArgs) { a.DLogits = tensor.Tensor{} }), tensor.ErrInvalid, "dlogits: invalid tensor: missing"},
		{reduce(func(a *gmm.ReduceArgs) { a.DRaw = m.Scales }), gpu.ErrInvalid, "draw: invalid argument: overlaps scales"},
		{reduce(func(a *gmm.ReduceArgs) { a.DTurn = put(f, k, d, d) }), gpu.ErrInvalid, "dturn: invalid argument: given for a mixture without axes"},
		{reduce(func(a *gmm.ReduceArgs) { a.Floor = math.Inf(1) }), gpu.ErrInvalid, "floor"},
	} {
		require.ErrorIs(t, c.err, c.is, c.text)
		require.ErrorContains(t, c.err, c.text)
	}
	require.NoError(t, evaluate(func(a *gmm.EvaluateArgs) { a.X, a.Drift = put(f, 0, d), put(f, 0, d) }))
	require.NoError(t, likelihood(func(a *gmm.LikelihoodArgs) { a.Terms[1] = gmm.Term{X: put(f, 0, d), T: 1} }))
}

// Whatever the arguments: an error or the definition, never a crash.
func FuzzEvaluate(f *testing.F) {
	f.Add(3, 2, 2, 2, .5, 1.0, uint64(1))
	f.Add(1, 1, 1, 2, math.NaN(), 0.5, uint64(2))
	f.Add(33, 5, 9, 9, 1.0, math.Inf(1), uint64(3))
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, n, k, d, wide int, at, eps float64, seed uint64) {
		small := func(v, most int) int { return int(uint(v) % uint(most)) }
		n, k, d, wide = small(n, 70), 1+small(k, 9), 1+small(d, 9), 1+small(wide, 9)
		rng := rand.New(rand.NewPCG(seed, 0))
		m := random(rng, k, d, 1, seed%2 == 0)
		m.eps = eps
		x := normals(rng, n*wide)
		drift, value := kerneltest.Poison[float64](t, dev, n, d), kerneltest.Poison[float64](t, dev, n)
		err := gmm.Evaluate(gmm.EvaluateArgs{Mixture: load[float64](t, dev, m).Mixture, T0: at,
			X: kerneltest.Put(t, dev, x, n, wide).Tensor, Drift: drift.Tensor, Value: value.Tensor})
		require.Equal(t, d != wide || !(at >= 0 && at <= 1) || !(eps > 0) || math.IsInf(eps, 0), err != nil, "%v", err)
		got, values := drift.Get(t), value.Get(t)
		if err != nil || !(eps > 1e-3 && eps < 1e6) {
			return
		}
		for b := range n {
			p := m.at(at, x[b*d:b*d+d])
			// ℓ_j reach |x|²/ε, and their rounding moves the weights.
			require.NoError(t, kerneltest.Within(values[b:b+1], []float64{p.value}, 1e-13*(1+100/eps)))
			require.NoError(t, kerneltest.Within(got[b*d:b*d+d], p.drift, 1e-11*(1+100/eps)))
		}
	})
}

// ExampleEvaluate is the drift of the Schrödinger bridge between two Gaussians,
// N(0, 1) to N(0.8, 2.25), whose potential is one Gaussian: S is the positive root
// of S² + ε S = 2.25.
func ExampleEvaluate() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	const epsilon = 0.5
	s := (math.Sqrt(epsilon*epsilon+4*2.25) - epsilon) / 2
	logits, _ := tensor.From(dev, []float64{0}, 1)
	means, _ := tensor.From(dev, []float64{0.8}, 1, 1)
	scales, _ := tensor.From(dev, []float64{s}, 1, 1)
	x, _ := tensor.From(dev, []float64{-1, 0, 1}, 3, 1)
	drift, _ := tensor.New(dev, tensor.Float64, 3, 1)
	for _, t := range []tensor.Tensor{logits, means, scales, x, drift} {
		defer t.Free()
	}
	err = gmm.Evaluate(gmm.EvaluateArgs{
		Mixture: gmm.Mixture{Logits: logits, Means: means, Scales: scales, Epsilon: epsilon},
		X:       x, T0: 0.5, Drift: drift,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	g, _ := tensor.Values[float64](drift)
	fmt.Printf("S = %.4f: drift %.4f\n", s, g)
	// Output:
	// S = 1.2707: drift [0.4662 0.7046 0.9431]
}
