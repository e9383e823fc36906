package bench

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// committed are the rows of bench/results, by suite.
func committed(t *testing.T) map[string][]Row {
	t.Helper()
	rows := map[string][]Row{}
	for _, s := range Suites() {
		r, err := ReadRows(filepath.Join("results", s.Name+".jsonl"))
		if !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
		}
		rows[s.Name] = r
	}
	return rows
}

// What is committed holds what is promised; a bar that no row speaks of says
// why, and only those with AVX-512 may need another processor.
func TestCommittedRowsHoldTheBars(t *testing.T) {
	rows := committed(t)
	for _, bar := range Bars() {
		t.Run(bar.Statement, func(t *testing.T) {
			require.NotEqual(t, bar.AtLeast > 0, bar.AtMost > 0, "one limit")
			reached := bar.Reached(rows)
			if len(reached) == 0 {
				require.Contains(t, bar.Statement, "AVX-512", "no row speaks of it")
				require.NotEmpty(t, bar.Without)
			}
			for _, r := range reached {
				require.True(t, bar.Met(r), "%s: %v", r.Case, r.Value)
			}
		})
	}
}

func TestBarsSeeWhatIsMissed(t *testing.T) {
	for _, b := range []Bar{{AtLeast: 2}, {AtMost: 2}} {
		require.False(t, b.Met(Reached{Value: math.NaN()}))
		require.True(t, b.Met(Reached{Value: 2}))
	}
	require.False(t, Bar{AtLeast: 2}.Met(Reached{Value: 1.99}))
	require.False(t, Bar{AtMost: 2}.Met(Reached{Value: 2.01}))

	slow, fast := goodRow(), goodRow()
	slow.Engine, fast.Engine = Fortet, "pot"
	slow.Seconds, fast.Seconds = Sum([]float64{1}), Sum([]float64{3})
	var page bytes.Buffer
	barTable(&page, map[string][]Row{"solvers": {slow, fast}})
	require.Contains(t, page.String(), "| time to a residual of 1e-6: POT `sinkhorn_log` | at least 10 times fortet | 3.00 (d = 2, ε = 0.05) | **does not hold** |")
	require.Contains(t, page.String(), "| not measured |")
}
