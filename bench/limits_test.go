package bench

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

// The limit is the longest term, and says which.
func TestLimit(t *testing.T) {
	c := Ceilings{Flops: 100, Matrix: 100, Exps: 10, Integers: 50, Read: 40, Write: 20, Copy: 25, Source: "here"}
	for _, test := range []struct {
		name    string
		work    Cost
		seconds float64
		binding string
	}{
		{"exponentials", Cost{Exps: count("n", 20), Flops: count("n", 100)}, 2, "exponentials"},
		{"one unit does both", Cost{Flops: count("n", 100), Matrix: count("n", 300)}, 4, "arithmetic"},
		{"integers", Cost{Integers: count("n", 100), Exps: count("n", 10)}, 2, "integers"},
		{"reads", Cost{Read: count("n", 80), Exps: count("n", 10)}, 2, "memory"},
		{"writes", Cost{Written: count("n", 80)}, 4, "memory"},
		{"copies", Cost{Read: count("n", 50), Written: count("n", 50)}, 4, "memory"},
		{"more read", Cost{Read: count("n", 130), Written: count("n", 50)}, 6, "memory"},
		{"more written", Cost{Read: count("n", 50), Written: count("n", 90)}, 6, "memory"},
	} {
		l := c.limit(test.work)
		require.InDelta(t, test.seconds, l.Seconds, 1e-12, test.name)
		require.Equal(t, test.binding, l.Binding, test.name)
		require.True(t, strings.HasSuffix(l.Formula, "; here"), l.Formula)
	}
	c.Matrix = 1000
	l := c.limit(Cost{Flops: count("n", 100), Matrix: count("m", 3000)})
	require.InDelta(t, 3, l.Seconds, 1e-12)
	require.Equal(t, "matrix products", l.Binding)
	require.Equal(t, "max(m flop / 1e-06 GFLOP/s, n flop / 1e-07 GFLOP/s); here", l.Formula)

	c.Cache = 1000 // and what stays in it does not count
	require.Nil(t, c.limit(Cost{Read: count("n", 999)}))
	require.Equal(t, "memory", c.limit(Cost{Read: count("n", 1000)}).Binding)
	require.Nil(t, Ceilings{}.limit(Cost{Exps: count("n", 1)}), "no rates, no limit")
}

// Rates of data sheets hang together: float32 by the clock, tensor cores above
// it, a double precision below.
func TestModels(t *testing.T) {
	require.Contains(t, Models(), "H100 SXM")
	for _, m := range models {
		lanes := 256.0
		if strings.HasPrefix(m.Name, "A100") {
			lanes = 128
		}
		require.InEpsilon(t, lanes*float64(m.Multiprocessors)*m.Clock, m.Float32, 0.01, m.Name)
		require.GreaterOrEqual(t, m.BF16, 2*m.TF32*0.99, m.Name)
		require.GreaterOrEqual(t, m.TF32, m.Float32*0.99, m.Name)
		require.Less(t, m.Float64, m.Float32, m.Name)
		require.GreaterOrEqual(t, m.Matrix64, m.Float64, m.Name)
		require.NotEmpty(t, m.Source)
		found, ok := modelOf(m.Names[0], m.Multiprocessors)
		require.True(t, ok)
		require.Equal(t, m.Name, found.Name)
		_, ok = modelOf(m.Names[0], m.Multiprocessors/7)
		require.False(t, ok, "a part of a card has no data sheet")
	}
	_, ok := modelOf("NVIDIA Unheard-of", 132)
	require.False(t, ok)
}

// What the precision names decides which units products run on.
func TestCeilingsOfPrecisions(t *testing.T) {
	m, err := ModelNamed("h100 sxm")
	require.NoError(t, err)
	rate := func(dtype tensor.DType, p Precision) float64 { return m.Ceilings(Setting{dtype, p, 1}).Matrix }
	require.Equal(t, m.Float32, rate(tensor.Float32, Native))
	require.Equal(t, m.TF32, rate(tensor.Float32, TF32))
	require.InEpsilon(t, m.BF16, 3*rate(tensor.Float32, BF16x3), 1e-12)
	require.Equal(t, m.Matrix64, rate(tensor.Float64, Native))
	require.Less(t, m.Ceilings(Setting{tensor.Float64, Native, 1}).Exps, m.Ceilings(Setting{tensor.Float32, Native, 1}).Exps)
}

// An unknown GPU's bandwidth is that of copying on it. The CPU stands in.
func TestCopying(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	m := &measured{}
	c, err := m.copying(dev, 1<<18)
	require.NoError(t, err)
	require.Greater(t, c.Copy, 1e7)
	require.Less(t, c.Copy, 1e13)
	require.Zero(t, c.Flops)
	again, err := m.copying(dev, 1<<18)
	require.NoError(t, err)
	require.Equal(t, c, again, "measured once")
}

// A prediction is what the data sheet gives by hand, and says that it is none.
func TestPredict(t *testing.T) {
	all, err := Predict("H100 SXM")
	require.NoError(t, err)
	found := map[string]bool{}
	for _, p := range all {
		found[p.Family] = true
		require.Positive(t, p.Limit.Seconds)
		require.NotEmpty(t, p.Limit.Binding)
		require.Zero(t, p.Limit.Fraction)
		if p.Operation == "softmin" && p.Shape == "d=64" && p.Precision == "tf32" {
			require.InEpsilon(t, 2*64*float64(p.Size)*float64(p.Size)/494.7e12, p.Limit.Seconds, 1e-9)
			require.Equal(t, "matrix products", p.Limit.Binding)
		}
	}
	for _, f := range Families() {
		require.True(t, found[f.Name], f.Name)
	}
	var b bytes.Buffer
	require.NoError(t, WritePredictions(&b, all))
	require.Contains(t, b.String(), "Nothing here was\nmeasured")
	require.Equal(t, len(all)+5, strings.Count(b.String(), "\n"))
	_, err = Predict("H100")
	require.ErrorIs(t, err, gpu.ErrInvalid)
	require.ErrorContains(t, err, "H100 PCIe")
}

// A case is timed on every device: by events where they are the device's own.
func TestTimes(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		v := Families()[slices.Index(FamilyNames(), "philox")].Variants[0]
		c, err := v.Open(dev.Device, Setting{tensor.Float32, Native, 8})
		require.NoError(t, err)
		defer c.Free()
		times, err := timeCase(t.Context(), dev.Device, c, pace{})
		require.NoError(t, err)
		require.Len(t, times, 3)
		took, err := byEvents(dev.Device, 2, c.Run)
		require.NoError(t, err)
		require.Positive(t, took)
		for _, s := range times {
			require.Positive(t, s)
		}
	})
}
