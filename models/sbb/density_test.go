package sbb_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/tensor"
)

// MATH.md A.6: log π((.2, .9) | (.7, -.4)) of the model M_A.
func TestLogDensityValue(t *testing.T) {
	p := mixture.Parameters{
		K: 3, D: 2, Epsilon: 0.5, Logits: []float64{-.3, .2, -1.1},
		Means:  []float64{1, -.5, -.8, .6, .3, 1.4},
		Scales: []float64{.4, 1.5, .9, .25, 2, .7},
	}
	b, err := sbb.New(cpu(t), tensor.Float64, p, math.Inf(1), mixture.Identity(2))
	require.NoError(t, err)
	defer b.Close()
	v, err := b.LogDensity(t.Context(), []float64{.7, -.4}, []float64{.2, .9})
	require.NoError(t, err)
	within(t, "log density", v[0], -3.8166648659877085, 1e-13)
	_, err = b.LogDensity(t.Context(), []float64{1, 2}, []float64{1, 2, 3, 4})
	require.ErrorIs(t, err, sbb.ErrInvalid)
}

// Densities integrate to one in the units of the data, and the samples have
// the moments that they say.
func TestLogDensityIsThatOfSamples(t *testing.T) {
	const beta, n, samples = 3.0, 4001, 40_000
	floor := sbb.Floor(beta, 1e-3)
	p := mixture.Parameters{K: 2, D: 1, Epsilon: .4, Logits: []float64{0, .3}, Means: []float64{-1, 1.2}, Scales: []float64{floor + .1, floor + .6}}
	frame := mixture.Frame{Source: []float64{5}, Target: []float64{-2}, Scale: 3}
	for _, beta := range []float64{beta, math.Inf(1)} {
		b, err := sbb.New(cpu(t), tensor.Float64, p, beta, frame)
		require.NoError(t, err)
		defer b.Close()
		const low, high = -60.0, 60.0
		h := (high - low) / (n - 1)
		x0, x1 := make([]float64, n), make([]float64, n)
		for i := range x0 {
			x0[i], x1[i] = 6.5, low+float64(i)*h
		}
		v, err := b.LogDensity(t.Context(), x0, x1)
		require.NoError(t, err)
		mass, mean, second := 0.0, 0.0, 0.0
		for i, l := range v {
			mass += h * math.Exp(l)
			mean += h * math.Exp(l) * x1[i]
			second += h * math.Exp(l) * x1[i] * x1[i]
		}
		within(t, "mass", mass, 1, 1e-9) // trapezoids of a smooth integrand that ends at zero
		start := make([]float64, samples)
		for i := range start {
			start[i] = 6.5
		}
		end, err := b.Sample(t.Context(), start, sbb.Draw{Seed: 3})
		require.NoError(t, err)
		got, variance := moments(end)
		want := second - mean*mean
		within(t, "mean", got, mean, 4*math.Sqrt(want/samples))
		within(t, "variance", variance, want, 4*want*math.Sqrt(2./samples)) // at most a normal's: two modes are flatter
	}
}
