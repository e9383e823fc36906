package bench

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// raceTables writes the rows of the suite gpu.
func raceTables(b *bytes.Buffer, rows []Row) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## On a GPU, beside its peers\n\n%s.\n\n", rows[0].Title())
	b.WriteString(`Solves of the problem above, to several residuals: TF32 rounds the points, and
float32 the potentials, so that not everyone can reach every one of them.
"Stalls" is where the residual did not become smaller, and the time that of the
first iterations near it. Peers begin with float32 points on the device and end
with potentials there; Fortet begins and ends in the host's memory. Peers stop after
the number of iterations that untimed runs had found. Ratios are of the fastest
repetition.

`)
	type key struct {
		n, d      int
		epsilon   float64
		tolerance float64
	}
	ours := map[key]float64{}
	at := func(r Row) key { return key{r.N, r.D, r.Epsilon, r.Tolerance} }
	for _, r := range rows {
		if r.Name == "solve" && r.Engine == Fortet {
			ours[at(r)] = r.Seconds.Minimum
		}
	}
	var solves, products [][]string
	for _, r := range rows {
		switch {
		case r.Name == "solve":
			ratio, reached := "", fmt.Sprintf("%.1e", *r.Residual)
			if t := ours[at(r)]; t > 0 {
				ratio = number3(r.Seconds.Minimum / t)
			}
			if r.Status != OK {
				ratio, reached = "> "+ratio, "stalls at "+reached
			}
			solves = append(solves, []string{
				fmt.Sprintf("%d × %d, d = %d, ε = %g", r.N, r.M, r.D, r.Epsilon), fmt.Sprintf("%.0e", r.Tolerance), r.Engine,
				number3(1000 * r.Seconds.Minimum), number3(1000 * r.Seconds.Median), percent(r.Seconds.Spread), strconv.Itoa(r.Seconds.Repetitions),
				strconv.Itoa(r.Iterations), reached, ratio, notes(r),
			})
		case r.Limit == nil && (r.Name == "gemm" || r.Name == "copy"):
			size := fmt.Sprintf("%d × %d × %d", r.N, r.M, r.D)
			if r.Name == "copy" {
				size = fmt.Sprintf("%d bytes", r.N)
			}
			products = append(products, []string{
				r.Settings, size, r.Precision, number3(1e6 * r.Seconds.Minimum), percent(r.Seconds.Spread), strconv.Itoa(r.Seconds.Repetitions),
				fmt.Sprintf("%.1e of %.1e", *r.Error, r.Budget), r.Note,
			})
		}
	}
	if len(solves) > 0 {
		table(b, []string{"problem", "to", "engine", "ms", "median", "spread", "runs", "iterations", "residual", "times fortet", "how"}, solves)
	}
	if slices.ContainsFunc(rows, func(r Row) bool { return strings.HasSuffix(r.Name, stepSuffix) }) {
		b.WriteString("\nA training step, as in Light bridges above. PyTorch's steps are compiled, and in one way the whole of it is one CUDA graph.\n\n")
		stepTable(b, rows)
	}
	if len(products) > 0 {
		b.WriteString("\nWhat PyTorch reaches with cuBLAS, and in a copy from device memory to device memory.\n\n")
		table(b, []string{"what", "size", "type", "µs", "spread", "runs", "error", "rate"}, products)
	}
	versionLine(b, rows)
}
