package gmm_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// each runs body on every device.
func each(t *testing.T, body func(t *testing.T, dev gpu.Device)) {
	t.Helper()
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) { body(t, dev.Device) })
}

// mixture is a model on a device.
type mixture[T kerneltest.Float] struct {
	gmm.Mixture
	arrays []*kerneltest.Array[T]
}

func load[T kerneltest.Float](t testing.TB, dev gpu.Device, m model[float64]) mixture[T] {
	t.Helper()
	out := mixture[T]{}
	put := func(v []float64, shape ...int) tensor.Tensor {
		a := kerneltest.Put(t, dev, cast[T](v), shape...)
		out.arrays = append(out.arrays, a)
		return a.Tensor
	}
	out.Mixture = gmm.Mixture{Logits: put(m.la, m.k), Means: put(m.r, m.k, m.d), Scales: put(m.s, m.k, m.d), Epsilon: m.eps}
	if m.axes != nil {
		out.Axes = put(m.axes, m.k, m.d, m.d)
	}
	return out
}

func (m mixture[T]) unmodified(t testing.TB) {
	t.Helper()
	for _, a := range m.arrays {
		a.Unmodified(t)
	}
}

// values is what Evaluate gives.
type values[T kerneltest.Float] struct{ value, drift, weights, jacobian, product, trace, norm2 []T }

// evaluate asks for all outputs; times nil: t0 for all.
func evaluate[T kerneltest.Float](t testing.TB, dev gpu.Device, m model[float64], x, times []float64, t0 float64, v []float64) values[T] {
	t.Helper()
	n, d := len(x)/m.d, m.d
	mix := load[T](t, dev, m)
	points, along := kerneltest.Put(t, dev, cast[T](x), n, d), kerneltest.Put(t, dev, cast[T](v), n, d)
	inputs := append(mix.arrays, points, along)
	a := gmm.EvaluateArgs{Mixture: mix.Mixture, X: points.Tensor, V: along.Tensor, T0: t0}
	if times != nil {
		moments := kerneltest.Put(t, dev, cast[T](times))
		a.T = moments.Tensor
		inputs = append(inputs, moments)
	}
	var out [7]*kerneltest.Array[T]
	for i, shape := range [][]int{{n}, {n, d}, {n, m.k}, {n, d, d}, {n, d}, {n}, {n}} {
		out[i] = kerneltest.Poison[T](t, dev, shape...)
	}
	a.Value, a.Drift, a.Weights, a.Jacobian = out[0].Tensor, out[1].Tensor, out[2].Tensor, out[3].Tensor
	a.Product, a.Trace, a.Norm2 = out[4].Tensor, out[5].Tensor, out[6].Tensor
	require.NoError(t, gmm.Evaluate(a))
	for _, in := range inputs {
		in.Unmodified(t)
	}
	return values[T]{out[0].Get(t), out[1].Get(t), out[2].Get(t), out[3].Get(t), out[4].Get(t), out[5].Get(t), out[6].Get(t)}
}

// reduce is Reduce of partial sums, of all its outputs.
func reduce[T kerneltest.Float](t testing.TB, dev gpu.Device, m model[float64], mix mixture[T], partial *kerneltest.Array[T], floor float64) gradient[T] {
	t.Helper()
	loss, la := kerneltest.Poison[T](t, dev, 1), kerneltest.Poison[T](t, dev, m.k)
	r, raw := kerneltest.Poison[T](t, dev, m.k, m.d), kerneltest.Poison[T](t, dev, m.k, m.d)
	a := gmm.ReduceArgs{Mixture: mix.Mixture, Partial: partial.Tensor, Floor: floor,
		Loss: loss.Tensor, DLogits: la.Tensor, DMeans: r.Tensor, DRaw: raw.Tensor}
	var turn *kerneltest.Array[T]
	if m.axes != nil {
		turn = kerneltest.Poison[T](t, dev, m.k, m.d, m.d)
		a.DTurn = turn.Tensor
	}
	before := partial.Get(t)
	require.NoError(t, gmm.Reduce(a))
	require.NoError(t, kerneltest.BitEqual(partial.Get(t), before))
	mix.unmodified(t)
	g := gradient[T]{loss: loss.Get(t), la: la.Get(t), r: r.Get(t), raw: raw.Get(t)}
	if turn != nil {
		g.turn = turn.Get(t)
	}
	return g
}

func likelihood[T kerneltest.Float](t testing.TB, dev gpu.Device, m model[float64], floor float64, terms ...term[float64]) gradient[T] {
	t.Helper()
	mix := load[T](t, dev, m)
	a := gmm.LikelihoodArgs{Mixture: mix.Mixture}
	var rows []int
	var points []*kerneltest.Array[T]
	for i, term := range terms {
		x := kerneltest.Put(t, dev, cast[T](term.x), len(term.x)/m.d, m.d)
		points = append(points, x)
		a.Terms[i] = gmm.Term{X: x.Tensor, T: term.t, Weight: term.weight}
		rows = append(rows, len(term.x)/m.d)
	}
	partial := kerneltest.Poison[T](t, dev, shape(gmm.PartialShape(mix.Mixture, rows...))...)
	a.Partial = partial.Tensor
	require.NoError(t, gmm.Likelihood(a))
	for _, x := range points {
		x.Unmodified(t)
	}
	return reduce(t, dev, m, mix, partial, floor)
}

func match[T kerneltest.Float](t testing.TB, dev gpu.Device, m model[float64], floor float64, x, u, times []float64, weight float64) gradient[T] {
	t.Helper()
	mix, n := load[T](t, dev, m), len(times)
	points, targets := kerneltest.Put(t, dev, cast[T](x), n, m.d), kerneltest.Put(t, dev, cast[T](u), n, m.d)
	moments := kerneltest.Put(t, dev, cast[T](times))
	partial := kerneltest.Poison[T](t, dev, shape(gmm.PartialShape(mix.Mixture, n))...)
	require.NoError(t, gmm.Match(gmm.MatchArgs{Mixture: mix.Mixture, X: points.Tensor, U: targets.Tensor, T: moments.Tensor,
		Weight: weight, Partial: partial.Tensor}))
	for _, in := range []*kerneltest.Array[T]{points, targets, moments} {
		in.Unmodified(t)
	}
	return reduce(t, dev, m, mix, partial, floor)
}

func shape(dims ...int) []int { return dims }
