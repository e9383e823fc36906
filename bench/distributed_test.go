package bench

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver/geometry"
)

// The model on figures that can be followed by hand.
func TestScaling(t *testing.T) {
	s := Scaling{Pair: 1e-9, Point: 1e-7, Launch: 1e-5, Memory: 1e10, Link: Link{1e-5, 1e9}, Element: 4}
	require.InDelta(t, 1e-3+2e-4+1e-5, s.Sweep(1000, 1000, 1), 1e-12)
	share := geometry.ShareOf(1000, 1000, 8, 2, 4)
	require.Equal(t, 500, share.Rows)
	require.InDelta(t, 5e-4+2e-4+1e-5+float64(share.Moved)/1e10+1e-5+float64(share.Sent)/1e9, s.Sweep(1000, 1000, 2), 1e-12)
	require.InDelta(t, s.SpeedUp(1000, 2)/2, s.Efficiency(1000, 2), 1e-15)

	// Nothing but pairs: all that is missing is the share that does not divide.
	free := Scaling{Pair: 1, Memory: math.Inf(1), Link: Link{0, math.Inf(1)}, Element: 4}
	require.InDelta(t, 4, free.SpeedUp(800, 4), 1e-12)
	require.InDelta(t, 8.0/3, free.SpeedUp(800, 3), 1e-12) // 3, 3 and 2 shards
	require.Equal(t, 16, shardsOf(9))

	// The smallest n is one: it reaches what is wanted, a little less does not.
	for _, ranks := range []int{2, 4, 8} {
		for _, wanted := range []float64{0.5, 0.9} {
			n, ok := s.Smallest(ranks, wanted)
			require.True(t, ok)
			require.GreaterOrEqual(t, s.Efficiency(n, ranks), wanted)
			require.Less(t, s.Efficiency(n*9/10/(8*ranks)*8*ranks, ranks), wanted)
		}
	}
	s.Pair = 0
	_, ok := s.Smallest(2, 0.9)
	require.False(t, ok)
}

func TestFitLink(t *testing.T) {
	link, ok := fitLink(map[int]float64{64: 2e-6, 1 << 21: 2e-6 + float64(1<<21-64)/1e9})
	require.True(t, ok)
	require.InDelta(t, 2e-6, link.Latency, 1e-15)
	require.InEpsilon(t, 1e9, link.Bandwidth, 1e-9)
	_, ok = fitLink(map[int]float64{64: 1})
	require.False(t, ok)
	_, ok = fitLink(map[int]float64{64: 1, 128: 1})
	require.False(t, ok)
}

// Predictions are plausible and say what they are.
func TestGPUScaling(t *testing.T) {
	for _, d := range []int{3, 64} {
		all := gpuScaling(d, 1e-7)
		require.Len(t, all, 2)
		for _, s := range all {
			require.True(t, s.Assumed)
			require.Greater(t, s.Pair, 1e-13)
			require.Less(t, s.Pair, 1e-11)
			require.Greater(t, s.SpeedUp(1<<24, 2), s.SpeedUp(1<<14, 2))
		}
		require.Greater(t, all[0].Efficiency(1<<20, 8), all[1].Efficiency(1<<20, 8))
	}
}

// The page says what was measured and what was not.
func TestDistributedTables(t *testing.T) {
	var b bytes.Buffer
	distributedTables(&b, nil)
	require.Zero(t, b.Len())
	zero, residual := 0.0, 5e-7
	row := func(name string, seconds float64, w Work) Row {
		return Row{Name: name, Engine: Fortet, Status: OK, Seconds: Seconds{Repetitions: 3, Minimum: seconds, Median: seconds}, Work: w,
			Accuracy: Accuracy{Error: &zero, Residual: &residual}, Iterations: 20}
	}
	rows := []Row{
		row("solve", 8, Work{N: 20000, M: 20000, D: 3, Processes: 1, Workers: 1, Settings: "1 × 1 workers"}),
		row("solve", 5, Work{N: 20000, M: 20000, D: 3, Processes: 2, Workers: 1, Settings: "2 × 1 workers"}),
		row("sweep", 0.05, Work{N: 8192, M: 8192, D: 3, Precision: "f32"}),
	}
	distributedTables(&b, rows)
	require.Contains(t, b.String(), "| 2 × 1 workers | 20000 | 3 | 5.00 | 0 % | 3 | 20 | 5.0e-07 | 1.60 | 80.0 % |  |  |")
	require.NotContains(t, b.String(), "prediction", "the model needs all parts")
	rows = append(rows, row("vectors", 0.004, Work{N: 20000, M: 20000}), row("fold", 0.001, Work{N: 8, M: 1 << 18}),
		row("gather", 1e-6, Work{Bytes: 64, Processes: 2}), row("gather", 2e-4, Work{Bytes: 2 << 20, Processes: 2}))
	b.Reset()
	distributedTables(&b, rows)
	require.Regexp(t, `1\.60 \| 80\.0 % \| 9\d\.\d % \|`, b.String())
	for _, text := range []string{"CPU and MPI, d = 3", "H100, NVLink, d = 3 (prediction)", "a pair, d = 3, f32: 0.745 ns", "100 ns", "adding up: 18.9 GB/s"} {
		require.Contains(t, b.String(), text)
	}
}

// The parts that need no program and no MPI run, and are right.
func TestDistributedParts(t *testing.T) {
	s := &Session{Options: Options{Quick: true, Log: io.Discard}, suite: "distributed"}
	s.Provenance = Provenance{Commit: "x"}
	require.NoError(t, errors.Join(s.sweep(t.Context(), 3), s.vectors(t.Context()), s.adding(t.Context())))
	require.Len(t, s.Rows, 3)
	for _, r := range s.Rows {
		require.Equal(t, OK, r.Status, r.Name)
	}
	var out bytes.Buffer
	require.NoError(t, MeasureLink(t.Context(), &out, "self", "cpu"))
	require.Contains(t, out.String(), `"processes":1`)
	require.Contains(t, out.String(), `"wrong":0`)
	require.Error(t, MeasureLink(t.Context(), &out, "pigeons", "cpu"))
}
