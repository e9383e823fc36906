package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

func TestCompare(t *testing.T) {
	var told []float64
	r, err := Compare(t.Context(), CompareOptions{
		Device: "cpu", Families: []string{"ou", "adam"}, DTypes: []tensor.DType{tensor.Float32, tensor.Float64}, Quick: true, Budget: time.Second,
		Progress: func(done float64, what string) { told = append(told, done); require.NotEmpty(t, what) },
	})
	require.NoError(t, err)
	require.Len(t, r.Devices, 1)
	require.Len(t, r.Families, 6) // two shapes of ou, one of adam, in two types
	require.Len(t, told, 6)
	require.IsIncreasing(t, told)
	for _, f := range r.Families {
		require.Len(t, f.Devices, 1)
		d := f.Devices[0]
		require.Equal(t, "cpu", d.Device)
		require.Equal(t, f.DType, d.Precision)
		require.Positive(t, d.Seconds)
		require.Positive(t, d.Rate)
		require.Nil(t, d.Speedup)
		require.Empty(t, d.Crossover)
	}
	require.GreaterOrEqual(t, len(r.Rows), 6)
	for _, row := range r.Rows {
		require.NoError(t, row.Validate())
		require.Equal(t, OK, row.Status)
		require.NotNil(t, row.Cost)
	}
}

// The emulation stands in for a GPU, and is said to.
func TestCompareWithEmulation(t *testing.T) {
	dev, err := gpu.Open("emu")
	if err != nil {
		t.Skipf("not run: %v", err)
	}
	require.NoError(t, dev.Close())
	r, err := Compare(t.Context(), CompareOptions{Device: "emu", Families: []string{"adam"}, Quick: true, Budget: time.Second})
	require.NoError(t, err)
	require.Len(t, r.Devices, 2)
	require.Contains(t, r.Devices[1].Note, "mean nothing")
	require.Len(t, r.Families[0].Devices, 2)
	d := r.Families[0].Devices[1]
	require.Equal(t, "emu", d.Device)
	require.NotNil(t, d.Speedup)
	require.NotEmpty(t, d.Crossover)
	require.Nil(t, d.LimitFraction)
}

func TestCompareErrors(t *testing.T) {
	_, err := Compare(t.Context(), CompareOptions{Families: []string{"adam", "nosuch"}})
	require.ErrorIs(t, err, gpu.ErrInvalid)
	require.ErrorContains(t, err, "nosuch")
	require.ErrorContains(t, err, "langevin", "the known ones are named")
	_, err = Compare(t.Context(), CompareOptions{Device: "nosuch"})
	require.ErrorIs(t, err, gpu.ErrInvalid)
	_, err = Compare(t.Context(), CompareOptions{Device: "cpu", Families: []string{"adam"}, DTypes: []tensor.DType{tensor.Int32}})
	require.ErrorIs(t, err, gpu.ErrInvalid)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Compare(ctx, CompareOptions{Device: "cpu", Families: []string{"adam"}, Quick: true})
	require.ErrorIs(t, err, context.Canceled)
}

// A case whose answer is wrong fails the comparison, which names the row.
func TestCompareNamesWrongAnswers(t *testing.T) {
	bad := Family{Name: "bad", Variants: []Variant{{
		Name: "bad operation", Unit: "rows", Sizes: []int{10, 20}, Typical: 10, DTypes: []tensor.DType{tensor.Float32},
		Work: func(s Setting) Work { return Work{N: s.Size, D: 1} },
		Cost: func(s Setting) Cost { return Cost{Flops: count("n", s.Size), Read: count("n", s.Size)} },
		Open: func(_ gpu.Device, s Setting) (*Case, error) {
			return &Case{
				Run: func() error { return nil }, Reset: func() error { return nil }, Free: func() {},
				Check: func() (float64, float64, error) { return float64(s.Size), 15, nil },
			}, nil
		},
	}}}
	r, err := CompareOptions{Device: "cpu", Quick: true, Budget: time.Second}.compare(t.Context(), []Family{bad})
	require.ErrorIs(t, err, ErrWrong)
	require.ErrorContains(t, err, "bad operation 20 rows")
	require.NotContains(t, err.Error(), "10 rows")
	require.Len(t, r.Rows, 2)
}

// A comparison stops within a repetition.
func TestCompareStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	slow := Family{Name: "slow", Variants: []Variant{{
		Name: "slow", Sizes: []int{1}, DTypes: []tensor.DType{tensor.Float32},
		Work: func(Setting) Work { return Work{N: 1} },
		Cost: func(Setting) Cost { return Cost{Flops: count("n", 1)} },
		Open: func(gpu.Device, Setting) (*Case, error) {
			return &Case{
				Run: func() error {
					if runs++; runs == 4 {
						cancel()
					}
					time.Sleep(time.Millisecond)
					return nil
				},
				Reset: func() error { return nil }, Free: func() {}, Check: func() (float64, float64, error) { return 0, 1, nil },
			}, nil
		},
	}}}
	_, err := CompareOptions{Device: "cpu", Quick: true, Budget: time.Hour}.compare(ctx, []Family{slow})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 4, runs)
}

// The crossover is where a GPU becomes faster for good.
func TestCrossover(t *testing.T) {
	sizes := []int{1, 10, 100, 1000}
	for _, c := range []struct {
		cpu, device []float64
		speedup     float64
		at          int
		crossover   string
	}{
		{[]float64{1, 2, 4, 8}, []float64{0.5, 1, 1, 1}, 8, 1000, "always"},
		{[]float64{1, 2, 4, 8}, []float64{2, 2, 1, 1}, 8, 1000, "from 100"},
		{[]float64{1, 2, 4, 8}, []float64{0.5, 3, 1, 1}, 8, 1000, "from 100"}, // luck at the start does not count
		{[]float64{1, 2, 4, 8}, []float64{0.5, 1, 1, 16}, 0.5, 1000, "never"},
		{[]float64{1, 2}, []float64{3, 1, 1, 1}, 2, 10, "from 10"}, // the CPU was too slow for more
		{[]float64{1, 2, 4, 8}, []float64{2}, 0.5, 1, "never"},
	} {
		s := Summary{Devices: []Climb{
			{Device: "cpu", Sizes: sizes[:len(c.cpu)], seconds: c.cpu}, {Device: "cuda:0", Sizes: sizes[:len(c.device)], seconds: c.device},
		}}
		s.compare()
		d, name := s.Devices[1], fmt.Sprint(c.device)
		require.NotNil(t, d.Speedup, name)
		require.InDelta(t, c.speedup, *d.Speedup, 1e-12, name)
		require.Equal(t, c.at, d.SpeedupSize, name)
		require.Equal(t, c.crossover, d.Crossover, name)
		require.Equal(t, c.crossover == "never", d.CrossoverSize == nil, name)
		require.Nil(t, s.Devices[0].Speedup)
	}
}
