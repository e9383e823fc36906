package bench

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// lightTables writes the rows of the suite light.
func lightTables(b *bytes.Buffer, rows []Row) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Light bridges\n\n%s.\n\n", rows[0].Title())
	b.WriteString(`A training step draws a batch from data sets in memory and descends by Adam, in
float32, everyone from the same parameters on the same data. PyTorch does what
the authors' programs do, as they published it and as one who knows PyTorch would
write the same step. "Error" is the largest of loss and gradient on one given
batch against the definition in float64, relative to what it may be; that of
PyTorch is measured in float64, where it shows that the step is the same. Ratios
are of medians. Wanted: at least 20 times at d = 2 and 5 times at d = 512.

`)
	stepTable(b, rows)
	for _, r := range rows {
		if r.Name == trainingName {
			fmt.Fprintf(b, "\nTraining, all that the program writes included, %s, K = %d, batch %d: %s s (wanted: under 10), median of %d (spread %s). %s.\n",
				r.Settings, r.K, r.N, number3(r.Seconds.Median), r.Seconds.Repetitions, percent(r.Seconds.Spread), r.Note)
		}
	}
	var lines [][]string
	for _, r := range rows {
		if r.Name == samplingName {
			lines = append(lines, []string{
				r.Settings, strconv.Itoa(r.N), strconv.Itoa(r.D), strconv.Itoa(r.K), number3(r.Seconds.Median), number3(r.Seconds.Minimum),
				percent(r.Seconds.Spread), strconv.Itoa(r.Seconds.Repetitions), fmt.Sprintf("%.2g of %g", *r.Error, r.Budget),
			})
		}
	}
	if len(lines) > 0 {
		b.WriteString(`
Sampling: ends of given starts, exactly, from float64 in the host's memory to
float64 there, with the trained potential. "Error" is the largest of means and
second moments against points drawn by the definition, in standard errors.
Wanted: a million points in less than a second.

`)
		table(b, []string{"bridge", "points", "d", "K", "seconds", "fastest", "spread", "runs", "error"}, lines)
	}
	if lines := publishedTable(rows); len(lines) > 0 {
		b.WriteString(`
Printed figures: everyone trained once with the settings that a paper states, by
Fortet and by the re-statement in PyTorch whose steps are timed above. W2 is that
of 10,000 ends, the mean over two samples of the target, and may be two printed
standard deviations from the printed figure. "By chance" is what samples of the
truth itself have. cBW2-UVP, of 200 starts with 1000 draws each, is of a plan that
is built as the papers' are, and is not theirs: its figure is to be as small, and no
more can be said. Means begin at random points of the target, as in the authors'
programs, so that at ε = 0.1 narrow clusters may be left without one. Not here are
d = 64 and 128 and bridge matching on known plans, which take PyTorch minutes each.

`)
		table(b, []string{"experiment", "d", "engine", "figure", "by chance", "s"}, lines)
	}
	versionLine(b, rows)
}

// stepTable writes the training steps.
func stepTable(b *bytes.Buffer, rows []Row) {
	type key struct {
		name    string
		n, d, k int
	}
	ours := map[key]float64{}
	for _, r := range rows {
		if r.Engine == Fortet {
			ours[key{r.Name, r.N, r.D, r.K}] = r.Seconds.Median
		}
	}
	var lines [][]string
	for _, r := range rows {
		method, ok := strings.CutSuffix(r.Name, stepSuffix)
		if !ok {
			continue
		}
		ratio := ""
		if t := ours[key{r.Name, r.N, r.D, r.K}]; t > 0 {
			ratio = number3(r.Seconds.Median / t)
		}
		lines = append(lines, []string{
			method, strconv.Itoa(r.N), strconv.Itoa(r.D), strconv.Itoa(r.K), r.Engine, number3(1000 * r.Seconds.Median), number3(1000 * r.Seconds.Minimum),
			percent(r.Seconds.Spread), strconv.Itoa(r.Seconds.Repetitions), strconv.Itoa(r.Workers), ratio, fmt.Sprintf("%.2g of %.2g", *r.Error, r.Budget), notes(r),
		})
	}
	table(b, []string{"step", "batch", "d", "K", "engine", "ms", "fastest", "spread", "runs", "workers", "times fortet", "error", "how"}, lines)
}
