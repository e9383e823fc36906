package bench

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// exactTables writes the rows of the suite exact.
func exactTables(b *bytes.Buffer, rows []Row) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Exact transport\n\n%s.\n\n", rows[0].Title())
	b.WriteString(`W2 between the same two clouds, without entropy, in float64. Everyone begins with
the points in memory; POT's network simplex and SciPy's assignment need the
matrix of costs, which is part of their time. "Error" is the distance of the cost
from ours, relative to it; ours is proved: potentials below the cost for every
pair, whose value is so near to the cost of the plan, both checked by code of the
bench. MB is the peak memory of a solve above what there was before. SciPy was not
run where it takes minutes, and nothing is written of what was not done after
100 s.

`)
	type key struct {
		n, d    int
		weights string
	}
	at := func(r Row) key {
		weights, _, _ := strings.Cut(r.Settings, ";")
		return key{r.N, r.D, weights}
	}
	ours := map[key]float64{}
	for _, r := range rows {
		if r.Engine == Fortet {
			ours[at(r)] = r.Seconds.Minimum
		}
	}
	var lines [][]string
	for _, r := range rows {
		k, ratio, memory := at(r), "", ""
		if t := ours[k]; t > 0 {
			ratio = number3(r.Seconds.Minimum / t)
		}
		if r.Memory != nil {
			memory = megabytes(r.Memory.PeakBytes)
		}
		lines = append(lines, []string{
			strconv.Itoa(k.n), strconv.Itoa(k.d), k.weights, r.Engine, number3(r.Seconds.Minimum), number3(r.Seconds.Median),
			percent(r.Seconds.Spread), strconv.Itoa(r.Seconds.Repetitions), ratio, memory, fmt.Sprintf("%.1e of %.0e", *r.Error, r.Budget), r.Note,
		})
	}
	table(b, []string{"n = m", "d", "weights", "engine", "seconds", "median", "spread", "runs", "times fortet", "MB", "error", "how"}, lines)
	versionLine(b, rows)
}
