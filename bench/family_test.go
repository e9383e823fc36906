package bench

import (
	"errors"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// Every folder of an operation has a family, and a family says what it must.
func TestFamiliesAreComplete(t *testing.T) {
	sources, err := filepath.Glob("../kernels/*/*.cu")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(sources), 13)
	folders := map[string]bool{}
	for _, file := range sources {
		folders[filepath.Base(filepath.Dir(file))] = true
	}
	names := map[string]string{}
	for _, f := range Families() {
		require.True(t, folders[f.Kernel], "%s: %s is no folder of kernels", f.Name, f.Kernel)
		require.NotEmpty(t, f.Variants, f.Name)
		for _, v := range f.Variants {
			require.True(t, slices.IsSorted(v.Sizes) && slices.Contains(v.Sizes, v.Typical), "%s %v: %v of %v", f.Name, v, v.Typical, v.Sizes)
			// Rows tell their family by the name of the operation.
			require.Contains(t, []string{"", f.Name}, names[v.Name])
			names[v.Name] = f.Name
			for _, dtype := range v.dtypes() {
				last := 0.0
				for _, size := range v.Sizes {
					c := v.Cost(Setting{dtype, Native, size})
					total := c.Flops.Number + c.Matrix.Number + c.Exps.Number + c.Integers.Number + c.Read.Number
					require.Greater(t, total, last, "%v %d", v, size)
					require.Positive(t, c.Written.Number)
					require.Positive(t, v.Work(Setting{dtype, Native, size}).N)
					last = total
				}
			}
		}
	}
	for _, f := range Families() {
		delete(folders, f.Kernel)
	}
	require.Empty(t, folders, "operations without a family")
}

// Every variant's answer passes its check, and the check sees outputs that are
// poison, or a hundredth off.
func TestFamilies(t *testing.T) {
	for _, dev := range kerneltest.Devices(t) {
		p := dev.Properties()
		if p.Kind == gpu.CPU && p.Features != gpu.BestLevel().String() {
			continue
		}
		t.Run(dev.Name, func(t *testing.T) {
			for _, f := range Families() {
				for i, v := range f.Variants {
					for _, dtype := range v.dtypes() {
						if p.Kind == gpu.Emulation && (i > 0 || dtype == tensor.Float64) {
							continue // slow; the kernels' own tests run all there
						}
						for _, s := range v.settings(p.Kind, dtype, v.Sizes[0]) {
							t.Run(v.String()+" "+s.String(), func(t *testing.T) { testCase(t, dev.Device, v, s) })
						}
					}
				}
			}
		})
	}
}

func testCase(t *testing.T, dev gpu.Device, v Variant, s Setting) {
	c, err := v.Open(dev, s)
	if errors.Is(err, gpu.ErrUnsupported) {
		t.Skipf("not run: %v", err)
	}
	require.NoError(t, err)
	defer c.Free()
	right := func() bool {
		worst, budget, err := c.Check()
		require.NoError(t, err)
		return worst <= budget
	}
	require.False(t, right(), "poison passed")
	for range 2 { // a reset gives back what a run changes
		require.NoError(t, c.Run())
		require.NoError(t, dev.Sync())
		require.True(t, right())
		require.NoError(t, c.Reset())
	}
	if dev.Properties().Kind == gpu.Emulation {
		return
	}
	require.NoError(t, c.Run())
	for _, out := range c.written {
		if out.DType() != tensor.Float32 && out.DType() != tensor.Float64 {
			continue
		}
		values, err := tensor.Float64s(out)
		require.NoError(t, err)
		for i := range values {
			values[i] *= 1.01
		}
		require.NoError(t, tensor.SetFloat64s(out, values))
	}
	if c.written[0].DType() == tensor.Uint32 {
		values, err := tensor.Values[uint32](c.written[0])
		require.NoError(t, err)
		values[0]++
		require.NoError(t, tensor.Set(c.written[0], values))
	}
	require.False(t, right(), "an answer a hundredth off passed")
}

// The bench's own Philox and Box-Muller agree with the project's, which share
// no code with them.
func TestDraws(t *testing.T) {
	draw := philox.Draw{Seed: 1 << 40, Index: math.MaxUint32 - 1, Step: 3, Purpose: 2}
	const d = 6
	single, double := make([]float32, 5*d), make([]float64, 5*d)
	require.NoError(t, philox.HostNormal(single, d, draw))
	require.NoError(t, philox.HostNormal(double, d, draw))
	for i := range single {
		z, off := drawNormal(draw, tensor.Float32, i/d, i%d)
		require.InDelta(t, z, float64(single[i]), off)
		require.Less(t, off, 1e-5)
		z, off = drawNormal(draw, tensor.Float64, i/d, i%d)
		require.InDelta(t, z, double[i], off)
		require.Less(t, off, 1e-13)
	}
}

// The verdict is that of the worst comparison, whatever comes before and after.
func TestVerdict(t *testing.T) {
	s := &stage{}
	var v verdict
	_, _, err := v.end(s)
	require.ErrorContains(t, err, "nothing was compared")
	for _, bad := range []float64{3, math.NaN(), math.Inf(1)} {
		s, v = &stage{}, verdict{}
		v.compare(1, 1, 0)
		v.compare(1, 1.5, 1)
		worst, budget, err := v.end(s)
		require.NoError(t, err)
		require.LessOrEqual(t, worst, budget)
		v.compare(bad, 1.5, 1)
		v.compare(1, 1.9, 1)
		worst, budget, err = v.end(s)
		require.NoError(t, err)
		require.False(t, worst <= budget, "%v", bad)
		require.False(t, math.IsNaN(worst) || math.IsInf(worst, 0), "JSON has no %v", worst)
	}
}

// Spans hold the first and the last row, and none twice.
func TestSpans(t *testing.T) {
	for _, n := range []int{1, 2, 64, 1024, 1025, 1087, 5000, 1 << 20} {
		all := spans(n)
		require.Zero(t, all[0][0])
		require.Equal(t, n, all[len(all)-1][1])
		for i, s := range all {
			require.Less(t, s[0], s[1])
			if i > 0 {
				require.LessOrEqual(t, all[i-1][1], s[0], "%d", n)
			}
		}
	}
}
