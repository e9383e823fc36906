package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fortet/fortet/internal/atomicfile"
	"github.com/fortet/fortet/internal/plot"
)

// results are rows by suite.
type results map[string][]Row

// readResults reads the files of a folder: <suite>.jsonl, and of each card
// <suite>-<card>.jsonl, as gpu.sh leaves them.
func readResults(dir string) (rows results, cards map[string]results, err error) {
	rows, cards = results{}, map[string]results{}
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		suite, card, of := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".jsonl"), "-")
		if suite != compareSuite && !slices.ContainsFunc(Suites(), func(s Suite) bool { return s.Name == suite }) {
			return nil, nil, fmt.Errorf("bench: %s: no suite has this name", file)
		}
		r, err := ReadRows(file)
		if err != nil {
			return nil, nil, err
		}
		to := rows
		if of {
			if cards[card] == nil {
				cards[card] = results{}
			}
			to = cards[card]
		}
		to[suite] = r
	}
	return rows, cards, nil
}

// Report writes docs/benchmarks.md and its picture from bench/results in the
// project's folder root. Equal rows give equal bytes.
func Report(root string) error {
	rows, cards, err := readResults(filepath.Join(root, "bench", "results"))
	if err != nil {
		return err
	}
	picture := filepath.Join(root, "docs", "benchmarks-solvers.svg")
	drawn, err := drawSolvers(picture, rows["solvers"])
	if err != nil {
		return err
	}
	if !drawn {
		if err := os.Remove(picture); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := drawKernels(filepath.Join(root, "docs", "benchmarks-kernels.svg"), rows["kernels"]); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(root, "docs", "benchmarks.md"), func(w io.Writer) error {
		_, err := io.WriteString(w, page(rows, cards, drawn))
		return err
	})
}

// page is the text of docs/benchmarks.md.
func page(rows results, cards map[string]results, picture bool) string {
	var b bytes.Buffer
	b.WriteString(`# Benchmarks

Written by ` + "`make bench`" + ` from the rows in bench/results; no figure here was typed
by hand. ` + "`make peers`" + ` installs the libraries that are compared.

Times are the fastest repetition; the spread is (slowest - fastest) / median.
"Limit" is the least time that the hardware allows for the work, and the
percentage how much of it was reached. A row whose answer is wrong fails the run.
`)
	barTable(&b, rows)
	solverTables(&b, rows["solvers"], picture)
	lightTables(&b, rows["light"])
	staticTables(&b, rows["static"])
	exactTables(&b, rows["exact"])
	distributedTables(&b, rows["distributed"])
	kernelTable(&b, rows["kernels"])
	for _, card := range slices.Sorted(maps.Keys(cards)) {
		compareTable(&b, cards[card][compareSuite])
		kernelTable(&b, cards[card]["kernels"])
		raceTables(&b, cards[card]["gpu"])
	}
	return b.String()
}

// table writes a table in Markdown, its first column flush left.
func table(b *bytes.Buffer, header []string, lines [][]string) {
	rule := make([]string, len(header))
	for i := range rule {
		rule[i] = "---:"
	}
	rule[0] = "---"
	for _, cells := range append([][]string{header, rule}, lines...) {
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
}

func solverTables(b *bytes.Buffer, rows []Row, picture bool) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Time to a residual\n\n%s.\n\n", rows[0].Title())
	b.WriteString(`One problem for all: the squared distance between a Gaussian cloud and a mixture
of four, uniform weights, ε in units of the mean cost, no start given. Everyone
begins with the points in memory and ends at |P1 - a|₁ + |Pᵀ1 - b|₁ ≤ 1e-6. The
residuals below are all measured by the same float64 code from the potentials
that were returned. Imports, compilation and warm-up are not counted. A time
behind ">" is a time limit: the residual was not reached, and the ratio is a
lower bound.
`)
	for _, group := range problems(rows) {
		first := group[0]
		fmt.Fprintf(b, "\n### n = m = %d, d = %d, ε = %g\n\n", first.N, first.D, first.Epsilon)
		ours := math.NaN()
		for _, r := range group {
			if r.Engine == Fortet {
				ours = r.Seconds.Minimum
			}
		}
		var lines [][]string
		for _, r := range group {
			seconds, ratio := number3(r.Seconds.Minimum), "1"
			if r.Engine != Fortet {
				ratio = number3(r.Seconds.Minimum / ours)
			}
			if r.Status != OK {
				seconds, ratio = "> "+seconds, "> "+ratio
			}
			if math.IsNaN(ours) {
				ratio = ""
			}
			lines = append(lines, []string{
				r.Engine, seconds, number3(r.Seconds.Median), percent(r.Seconds.Spread), strconv.Itoa(r.Seconds.Repetitions),
				strconv.Itoa(r.Iterations), fmt.Sprintf("%.1e", *r.Residual), ratio, notes(r),
			})
		}
		table(b, []string{"engine", "seconds", "median", "spread", "runs", "iterations", "residual", "times fortet", "how"}, lines)
	}
	if picture {
		b.WriteString("\n![Time to the residual](benchmarks-solvers.svg)\n")
	}
	versionLine(b, rows)
	single(b, rows)
}

// single writes the rows that stand for themselves.
func single(b *bytes.Buffer, rows []Row) {
	for _, r := range rows {
		switch {
		case r.Name == startup:
			fmt.Fprintf(b, "\n## Start\n\n`fortet doctor`, process start to exit, median of %d: %s ms (spread %s).\n",
				r.Seconds.Repetitions, number3(1000*r.Seconds.Median), percent(r.Seconds.Spread))
		case r.Memory != nil:
			m := r.Memory
			fmt.Fprintf(b, "\n## Memory\n\nn = m = %d, d = %d, ε = %g, by the program, files included: %s s, residual %.1e, "+
				"peak %s MB, of which %s MB are data: %s MB above the data (wanted: at most %s).\n",
				r.N, r.D, r.Epsilon, number3(r.Seconds.Minimum), *r.Residual, megabytes(m.PeakBytes), megabytes(m.DataBytes),
				megabytes(m.PeakBytes-m.DataBytes), megabytes(m.Budget))
		}
	}
}

// problems are the rows that compare engines, by problem in the order of the
// file.
func problems(rows []Row) [][]Row {
	var groups [][]Row
	at := map[Work]int{}
	for _, r := range rows {
		if r.Name != "solve" || r.Memory != nil || r.Residual == nil {
			continue
		}
		key := Work{N: r.N, M: r.M, D: r.D, Epsilon: r.Epsilon}
		i, ok := at[key]
		if !ok {
			i = len(groups)
			at[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	return groups
}

func notes(r Row) string {
	var parts []string
	for _, p := range []string{r.Settings, r.Note} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "; ")
}

// drawSolvers draws the times to the residual, as powers of ten so that bars
// of very different lengths can be compared, and reports whether there were
// any.
func drawSolvers(path string, rows []Row) (bool, error) {
	groups := problems(rows)
	if len(groups) == 0 {
		return false, nil
	}
	fig := plot.Curves{Title: "Time to a residual of 1e-6", XLabel: "problem", YLabel: "seconds", LogY: true}
	var engines []string
	for _, g := range groups {
		for _, r := range g {
			if !slices.Contains(engines, r.Engine) {
				engines = append(engines, r.Engine)
			}
		}
	}
	var names []string
	for i, g := range groups {
		names = append(names, fmt.Sprintf("%d: d=%d, ε=%g", i+1, g[0].D, g[0].Epsilon))
	}
	fig.XLabel = strings.Join(names, "    ")
	for _, e := range engines {
		s := plot.Series{Label: e}
		for i, g := range groups {
			for _, r := range g {
				if r.Engine == e {
					s.X, s.Y = append(s.X, float64(i+1)), append(s.Y, r.Seconds.Minimum)
				}
			}
		}
		fig.Series = append(fig.Series, s)
	}
	return true, plot.Write(path, fig)
}

// versionLine writes what the peers of rows were.
func versionLine(b *bytes.Buffer, rows []Row) {
	var versions []string
	for _, r := range rows {
		if v := r.Version; v != "" && !slices.Contains(versions, v) {
			versions = append(versions, v)
		}
	}
	if len(versions) > 0 {
		fmt.Fprintf(b, "\nVersions: %s.\n", strings.Join(versions, "; "))
	}
}

// number3 writes three significant digits without an exponent.
func number3(v float64) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Sprint(v)
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	return strconv.FormatFloat(v, 'f', max(digits, 0), 64)
}

func percent(v float64) string { return number3(100*v) + " %" }

func megabytes(n int64) string { return strconv.FormatFloat(float64(n)/1e6, 'f', 0, 64) }
