package bench

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// kernelRow is a row of the kernels suite whose limit is half of its time.
func kernelRow(name, precision string, workers int, seconds float64) Row {
	r := goodRow()
	r.Suite, r.Name, r.Residual, r.Tolerance = "kernels", name, nil, 0
	r.Work = Work{N: 100, M: 100, D: 2, Precision: precision, Workers: workers}
	r.Seconds = Sum([]float64{seconds, 1.1 * seconds, 1.2 * seconds})
	r.Error, r.Budget = pointer(1e-7), 1e-6
	r.Cost = &Cost{Exps: count("nm", 100, 100), Read: count("8nm", 8, 10, 10)}
	c := Ceilings{Exps: 2e4 / seconds, Flops: 5e9, Source: "measured"}
	r.Limit = c.limit(*r.Cost)
	r.Judge()
	return r
}

// A family's table has a line for each operation and type, in which workers
// meet; the ceilings stand once for each type and number of workers.
func TestKernelTables(t *testing.T) {
	rows := []Row{
		kernelRow("softmin", "f32", 1, 0.08), kernelRow("softmin", "f64", 1, 0.16), kernelRow("sweep", "f32", 1, 0.1),
		kernelRow("softmin", "f32", 2, 0.04), kernelRow("softmin", "f64", 2, 0.08), kernelRow("sweep", "f32", 2, 0.05),
		kernelRow("adam step", "f32", 1, 0.01), kernelRow("adam step", "f32", 2, 0.01),
	}
	var b bytes.Buffer
	kernelTable(&b, rows)
	page := b.String()
	require.Equal(t, 1, strings.Count(page, "### softmin\n"))
	require.Equal(t, 1, strings.Count(page, "### adam\n"))
	require.Equal(t, 4, strings.Count(page, "measured |\n"), "two types on one worker and on two")
	line := ""
	for l := range strings.Lines(page) {
		if strings.HasPrefix(l, "| softmin") && strings.Contains(l, "| f32 |") {
			require.Empty(t, line, "one line")
			line = l
		}
	}
	cells := strings.Split(line, " | ")
	require.Equal(t, []string{"| softmin", "100×100 d=2", "f32", "80.0", "40.0", "18.2 %", "3", "2.00", "0.000250 Gexp/s", "50.0 %", "exponentials", "1e-07 of 1e-06 |\n"}, cells)
	require.Contains(t, page, "Counted: softmin, f32: nm exponentials, 8nm bytes read; sweep, f32: nm")
	require.NotContains(t, page, "f64: nm", "float64's formulas are those of float32 with twice the bytes")
	require.NotContains(t, page, "NaN")

	b.Reset()
	kernelTable(&b, nil)
	require.Zero(t, b.Len())
	// Rows from before there were costs still have a table, and their formula.
	old := rows[3]
	old.Cost, old.Limit = nil, &Limit{Seconds: 0.02, Formula: "nm / rate", Fraction: 0.5}
	kernelTable(&b, []Row{old})
	require.Contains(t, b.String(), "nm / rate")
}

// The rate is in the unit of what there is most of.
func TestRate(t *testing.T) {
	r := Row{Seconds: Sum([]float64{2e-9})}
	_, unit := r.rate()
	require.Empty(t, unit)
	for _, c := range []struct {
		cost  Cost
		value float64
		unit  string
	}{
		{Cost{Matrix: count("n", 100), Flops: count("n", 20), Exps: count("n", 5)}, 60, "GFLOP/s"},
		{Cost{Flops: count("n", 20), Exps: count("n", 6)}, 3, "Gexp/s"},
		{Cost{Flops: count("n", 20), Exps: count("n", 6), Read: count("n", 6), Written: count("n", 4)}, 5, "GB/s"},
		{Cost{Integers: count("n", 8)}, 4, "Gint/s"},
	} {
		r.Cost = &c.cost
		value, unit := r.rate()
		require.Equal(t, c.unit, unit)
		require.InDelta(t, c.value, value, 1e-12)
	}
}
