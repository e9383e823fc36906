package bench

import (
	"bytes"
	"fmt"
	"strconv"
)

// staticTables writes the rows of the suite static.
func staticTables(b *bytes.Buffer, rows []Row) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Many marginals and many problems\n\n%s.\n", rows[0].Title())
	sweepTable(b, rows)
	chainTables(b, rows)
	ensembleTables(b, rows)
	for _, r := range rows {
		if m := r.Memory; m != nil {
			fmt.Fprintf(b, "\nMemory: a chain of %d × %d points, d = %d, by the program, files included: %s s, residual %.1e, "+
				"peak %s MB, of which %s MB are data: %s MB above the data (wanted: at most %s).\n",
				r.Marginals, r.N, r.D, number3(r.Seconds.Minimum), *r.Residual, megabytes(m.PeakBytes), megabytes(m.DataBytes),
				megabytes(m.PeakBytes-m.DataBytes), megabytes(m.Budget))
		}
	}
	versionLine(b, rows)
}

// sweepTable writes what a sweep over a chain costs.
func sweepTable(b *bytes.Buffer, rows []Row) {
	softmins := map[Work]float64{}
	for _, r := range rows {
		if r.Name == softminsName {
			softmins[r.Work] = r.Seconds.Median
		}
	}
	var lines [][]string
	for _, r := range rows {
		if r.Name != sweepName {
			continue
		}
		ratio := ""
		if t := softmins[r.Work]; t > 0 {
			ratio = number3(r.Seconds.Median / t)
		}
		lines = append(lines, []string{
			fmt.Sprintf("%d × %d, %s", r.Marginals, r.N, r.Settings), strconv.Itoa(r.D), r.Precision,
			number3(1000 * r.Seconds.Median), percent(r.Seconds.Spread), strconv.Itoa(r.Seconds.Repetitions),
			number3(1000 * softmins[r.Work]), ratio, fmt.Sprintf("%.2g of %.2g", *r.Error, r.Budget),
		})
	}
	if len(lines) == 0 {
		return
	}
	b.WriteString(`
### A sweep over a chain

Clouds of points, the squared distance between those that follow each other, and
ε = 0.05 of its mean. A sweep updates every marginal of the chain once, in both
directions along every edge, and all that an iteration does is a part of its time:
messages, potentials, residual, mixing of iterates, and copies to and from the
device. Where both ends of an edge are given, one pass over its pairs serves both
directions, so that a sweep may take less than its softmins. "Softmins" is one for
each edge and direction on the same points and potentials, and nothing else; the
two took turns. Wanted: at most 1.2 times. "Error" is that of the residual which
the solver says that it reached, against the definition in float64.

`)
	table(b, []string{"chain", "d", "type", "ms", "spread", "runs", "softmins ms", "times softmins", "error"}, lines)
}

// chainTables writes the solves of chains.
func chainTables(b *bytes.Buffer, rows []Row) {
	ours := map[[2]int]float64{}
	for _, r := range rows {
		if r.Name == chainName && r.Engine == Fortet && r.Settings == fixedInner {
			ours[[2]int{r.Marginals, r.N}] = r.Seconds.Median
		}
	}
	var lines [][]string
	for _, r := range rows {
		if r.Name != chainName {
			continue
		}
		seconds, ratio, residual, spread := number3(r.Seconds.Median), "", "", percent(r.Seconds.Spread)
		if t := ours[[2]int{r.Marginals, r.N}]; t > 0 && r.Engine != Fortet {
			ratio = number3(r.Seconds.Median / t)
		}
		if r.Residual != nil {
			residual = fmt.Sprintf("%.1e", *r.Residual)
		}
		switch r.Status {
		case OK:
		case OutOfMemory:
			seconds, ratio, spread = string(r.Status), "", ""
		default:
			seconds = "> " + seconds
			if ratio != "" {
				ratio = "> " + ratio
			}
		}
		how := r.Note
		if r.Settings != fixedInner {
			how = notes(r)
		}
		lines = append(lines, []string{
			fmt.Sprintf("%d × %d", r.Marginals, r.N), r.Engine, seconds, spread, strconv.Itoa(r.Seconds.Repetitions),
			strconv.Itoa(r.Iterations), residual, ratio, how,
		})
	}
	if len(lines) == 0 {
		return
	}
	b.WriteString(`
### A chain to its residual

The same chains to an L1 residual of 1e-6, summed over the marginals, by the
definition in float64 from the potentials that were returned. OTT-JAX has a
multi-marginal solver, which builds the tensor of all tuples of points: it is
compared at a size where it takes seconds and at the largest that it can hold;
the size above that one, 4 % larger, is the row without a time. A time behind ">"
is a time limit.

`)
	table(b, []string{"chain", "engine", "seconds", "spread", "runs", "sweeps", "residual", "times fortet", "how"}, lines)
}

// ensembleTables writes the ensembles of small problems.
func ensembleTables(b *bytes.Buffer, rows []Row) {
	type key struct{ n, d int }
	each := func(r Row) float64 { return r.Seconds.Median / float64(r.Problems) }
	ours := map[key]Row{}
	for _, r := range rows {
		if r.Name == ensembleName && r.Engine == Fortet {
			ours[key{r.N, r.D}] = r
		}
	}
	var lines [][]string
	for _, r := range rows {
		if r.Name != ensembleName {
			continue
		}
		own, ok := ours[key{r.N, r.D}]
		bound, ratio, total := "", "", ""
		if r.Status != OK {
			bound = "> "
		}
		if ok {
			total = bound + number3(each(r)*float64(own.Problems))
			if r.Engine != Fortet {
				ratio = bound + number3(each(r)/each(own))
			}
			if r.Problems < own.Problems {
				total += " (extrapolated)"
			}
		}
		lines = append(lines, []string{
			r.Engine, strconv.Itoa(r.D), strconv.Itoa(r.Problems), bound + number3(r.Seconds.Median), bound + number3(1e6*each(r)), total,
			strconv.Itoa(r.Iterations), fmt.Sprintf("%.1e", *r.Residual), ratio, notes(r),
		})
	}
	if len(lines) == 0 {
		return
	}
	b.WriteString(`
### Many small problems

Problems of 64 by 64 points, ε = 0.05 of the mean cost of each, every one to an L1
residual of 1e-6. Everyone begins with the points in memory; POT computes in
float64, and in the time that it had solved as many as its row says, from which
the time of all is extrapolated. "Residual" is the largest of a sample of the
problems, and "iterations" the most that one took. A batch of POT's goes on until
its slowest problem is done. A time behind ">" is a time limit. Wanted: 20 times
faster than a loop, and faster than batches.

`)
	table(b, []string{"engine", "d", "problems", "seconds", "µs a problem", "seconds for all", "iterations", "residual", "times fortet", "how"}, lines)
}
