//go:build cgo && !windows

package collective

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
)

func TestFit(t *testing.T) {
	bytes := []float64{64, 512, 4096, 32768, 262144, 2097152}
	times := func(f func(x float64) float64) []float64 {
		v := make([]float64, len(bytes))
		for i, x := range bytes {
			v[i] = f(x)
		}
		return v
	}
	l := fit(bytes, times(func(x float64) float64 { return 3e-6 + 2e-10*x }))
	assert.InEpsilon(t, 3e-6, l.Latency, 1e-9)
	assert.InEpsilon(t, 2e-10, l.PerByte, 1e-9)
	assert.InEpsilon(t, 3e-6+2e-7, l.Seconds(1000), 1e-9)

	// An error of 10 % at any size moves neither end by much more.
	for wrong := range bytes {
		v := times(func(x float64) float64 { return 3e-6 + 2e-10*x })
		v[wrong] *= 1.1
		l := fit(bytes, v)
		assert.InEpsilon(t, 3e-6, l.Latency, 0.11, "size %d", wrong)
		assert.InEpsilon(t, 2e-10, l.PerByte, 0.11, "size %d", wrong)
	}

	l = fit(bytes, times(func(x float64) float64 { return 1e-6 - 1e-14*x }))
	assert.Zero(t, l.PerByte, "no time falls with the size")
	assert.InEpsilon(t, 1e-6, l.Latency, 0.05)
	l = fit(bytes, times(func(x float64) float64 { return 1e-9*x - 1e-9 }))
	assert.Zero(t, l.Latency, "no time is below zero")
	assert.InEpsilon(t, 1e-9, l.PerByte, 0.05)
}

func TestMeasure(t *testing.T) {
	for _, device := range []string{"cpu", "emu"} {
		costs := make([]Cost, 2)
		locals(t, 2, device, func(r rank) {
			before := r.dev.Memory().InUse
			c, err := Measure(context.Background(), r.Group, r.dev)
			require.NoError(r.t, err)
			assert.Equal(r.t, before, r.dev.Memory().InUse)
			costs[r.Rank()] = c
		})
		assert.Equal(t, costs[0], costs[1], "all ranks get the same figures")
		for _, l := range []Line{costs[0].Gather, costs[0].Sum} {
			assert.Greater(t, l.Seconds(1<<20), l.Seconds(0))
			assert.Less(t, l.Seconds(1<<20), 10.0)
		}
	}
	d := openDevice(t, "cpu")
	c, err := Measure(context.Background(), Self(d), d)
	require.NoError(t, err)
	assert.Positive(t, c.Gather.Seconds(1<<20))
	assert.GreaterOrEqual(t, c.Sum.Latency, 0.0)
}

// TestMeasureStops: one rank is told to stop, all do.
func TestMeasureStops(t *testing.T) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	locals(t, 3, "cpu", func(r rank) {
		ctx := context.Background()
		if r.Rank() == 1 {
			ctx = canceled
		}
		_, err := Measure(ctx, r.Group, r.dev)
		require.ErrorIs(r.t, err, context.Canceled)
		require.NoError(r.t, r.Barrier(), "the group is as good as before")
	})
	d := openDevice(t, "cpu")
	g := Self(d)
	require.NoError(t, g.Close())
	_, err := Measure(context.Background(), g, d)
	require.ErrorIs(t, err, gpu.ErrInvalid)
}
