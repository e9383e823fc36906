package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Rows of a card stand in files of their own and in sections of their own.
func TestResultsOfCards(t *testing.T) {
	kernel := func(device string, n int, seconds float64) Row {
		r := goodRow()
		r.Suite, r.Name, r.Device, r.N, r.M = compareSuite, "ou transition", device, n, 0
		r.Work.Precision, r.Residual = "f32", nil
		r.Error, r.Budget = pointer(1e-7), 1e-6
		r.Seconds = Sum([]float64{seconds})
		return r
	}
	dir := t.TempDir()
	require.NoError(t, WriteRows(filepath.Join(dir, "solvers.jsonl"), []Row{goodRow()}))
	require.NoError(t, WriteRows(filepath.Join(dir, "compare-h100.jsonl"), []Row{
		kernel("cpu", 10, 1), kernel("cpu", 100, 8), kernel("cuda:0", 10, 1), kernel("cuda:0", 100, 2), kernel("cuda:0", 1000, 3),
	}))
	rows, cards, err := readResults(dir)
	require.NoError(t, err)
	require.Len(t, rows["solvers"], 1)
	require.Empty(t, rows[compareSuite])
	require.Len(t, cards["h100"][compareSuite], 5)
	text := page(rows, cards, false)
	require.Contains(t, text, "| ou transition | 2 | 100 | cuda:0 | f32 | 8000 | 2000 | 4.00 |  |")

	var none bytes.Buffer
	compareTable(&none, []Row{kernel("cpu", 10, 1)})
	require.Empty(t, none.String(), "no GPU, no section")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "surprise.jsonl"), nil, 0o644))
	_, _, err = readResults(dir)
	require.ErrorContains(t, err, "surprise.jsonl")
}
