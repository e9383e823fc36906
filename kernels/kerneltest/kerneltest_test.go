//go:build cgo

package kerneltest

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest/broken"
)

// recorder stands for a test that may fail.
type recorder struct {
	testing.TB
	fatal string
}

type stop struct{}

func (r *recorder) Helper() {}
func (r *recorder) Fatal(v ...any) {
	r.fatal = fmt.Sprint(v...)
	panic(stop{})
}
func (r *recorder) Fatalf(format string, v ...any) { r.Fatal(fmt.Sprintf(format, v...)) }

// verdict runs a kernel test of the kind that every operation has and returns
// what it says: empty where it passes.
func verdict(t *testing.T, dev gpu.Device, fault broken.Fault, n int) (said string) {
	r := &recorder{TB: t}
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(stop); !ok {
				panic(p)
			}
			said = r.fatal
		}
	}()
	v := make([]float32, n)
	naive, ref := make([]float32, n), make([]float64, n)
	for i := range v {
		v[i] = float32(i) + 0.5
		naive[i], ref[i] = 2*v[i], 2*float64(v[i])
	}
	x, y := Put(r, dev, v), Poison[float32](r, dev, n)
	if err := broken.Double(dev, y.Tensor, x.Tensor, fault); err != nil {
		r.Fatal(err)
	}
	got := y.Get(r)
	x.Unmodified(r)
	if err := Close(got, naive, ref, 4); err != nil {
		r.Fatal(err)
	}
	return ""
}

func TestBrokenKernelsAreCaught(t *testing.T) {
	dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 2})
	require.NoError(t, err)
	defer dev.Close()
	for _, n := range []int{1, 15, 16, 17, 100} {
		require.Empty(t, verdict(t, dev, broken.None, n), "the right kernel, n = %d", n)
		for fault, word := range map[broken.Fault]string{
			broken.LastElement:  "NaN",
			broken.WriteBehind:  "behind",
			broken.WriteBefore:  "before",
			broken.InputChanged: "modified",
			broken.OneNaN:       "NaN",
			broken.Inaccurate:   "diff",
			broken.OneInfinity:  "Inf",
			broken.Unsupported:  "not supported",
		} {
			said := verdict(t, dev, fault, n)
			require.Contains(t, said, word, "fault %d, n = %d", fault, n)
		}
		if n%16 != 0 {
			require.Contains(t, verdict(t, dev, broken.ShortTile, n), "NaN", "n = %d", n)
		}
	}
}

// A launch that never happens leaves the output poisoned.
func TestPoisonIsNoResult(t *testing.T) {
	dev, err := gpu.OpenCPU(gpu.CPUOptions{})
	require.NoError(t, err)
	defer dev.Close()
	y := Poison[float64](t, dev, 3)
	require.Error(t, Close(y.Get(t), make([]float64, 3), make([]float64, 3), 1e9))
}

func TestClose(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, c := range map[string]struct {
		got []float32
		ref []float64
		ok  bool
	}{
		"same":           {[]float32{1, 2}, []float64{1, 2}, true},
		"nan":            {[]float32{1, nan}, []float64{1, 2}, false},
		"nan reference":  {[]float32{1, nan}, []float64{1, math.NaN()}, false},
		"inf":            {[]float32{1, inf}, []float64{1, 2}, false},
		"same inf":       {[]float32{1, inf}, []float64{1, math.Inf(1)}, true},
		"other inf":      {[]float32{1, -inf}, []float64{1, math.Inf(1)}, false},
		"finite for inf": {[]float32{1, math.MaxFloat32}, []float64{1, math.Inf(1)}, false},
		"short":          {[]float32{1}, []float64{1, 2}, false},
		"zeros":          {[]float32{0, 0}, []float64{1, 2}, false},
	} {
		naive := make([]float32, len(c.ref))
		for i, r := range c.ref {
			naive[i] = float32(r)
		}
		if err := Close(c.got, naive, c.ref, 4); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Within([]float64{1}, []float64{1}, math.NaN()); err == nil || !strings.Contains(err.Error(), "wrong") {
		t.Errorf("a NaN budget passed: %v", err)
	}
	require.NoError(t, BitEqual([]float32{nan}, []float32{nan}))
	require.Error(t, BitEqual([]float64{0}, []float64{math.Copysign(0, -1)}))
	require.Error(t, BitEqual([]float64{0}, []float64{0, 0}))
}
