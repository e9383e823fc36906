package bench

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// distributedTables writes what several processes gain, measured and by the
// model.
func distributedTables(b *bytes.Buffer, rows []Row) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## Several processes\n\n%s.\n\n", rows[0].Title())
	b.WriteString(`Time to a residual of 1e-6 of the problem above, by the program, whose rows are
cut into shards that processes share (docs/distributed.md). Setups are processes
× workers each. Efficiency is the speed-up over one core by the number of cores.
The model's is that of the formula there, from one core's time and the figures
below.

`)
	solveTable(b, rows)
	partsTable(b, rows)
	var all []Scaling
	var point float64
	for _, d := range scalingDims(rows) {
		if s, ok := scalingOf(rows, d); ok {
			all, point = append(all, s), s.Point
		}
	}
	if len(all) == 0 {
		return
	}
	b.WriteString(`
By the model, of one sweep in float32 over n × n pairs: speed-up and efficiency at
n = 100,000, and the least n with an efficiency of 50 % and of 90 %. CPU rows are one
worker a process and the link that was measured, between two processes of one
machine; with more processes they assume the same link. **GPU rows are predictions
from data sheets: nothing in them but the vectors on the host was measured**
(bench/scaling.go has the sources).

`)
	var lines [][]string
	for _, s := range all {
		lines = append(lines, scalingLines(s)...)
	}
	for _, d := range scalingDims(rows) {
		for _, s := range gpuScaling(d, point) {
			s.Name = fmt.Sprintf("%s, d = %d (prediction)", s.Name, d)
			lines = append(lines, scalingLines(s)...)
		}
	}
	table(b, []string{"machine", "processes", "speed-up", "efficiency", "n for 50 %", "n for 90 %"}, lines)
}

func solveTable(b *bytes.Buffer, rows []Row) {
	one := map[int]Row{}
	var lines [][]string
	for _, r := range rows {
		if r.Name != "solve" {
			continue
		}
		if r.Processes == 1 && r.Workers == 1 {
			one[r.D] = r
		}
		base, ok := one[r.D]
		speed, efficiency, model := "", "", ""
		if ok {
			gain := base.Seconds.Minimum / r.Seconds.Minimum
			speed, efficiency = number3(gain), percent(gain/float64(r.Processes*r.Workers))
		}
		if s, found := scalingOf(rows, r.D); ok && found && r.Processes > 1 && r.Workers == 1 {
			// Of the sweeps of this solve, which are not all in float32.
			s.Pair = (base.Seconds.Minimum/float64(base.Iterations) - float64(r.N+r.M)*s.Point) / float64(r.N) / float64(r.M)
			model = percent(s.Efficiency(r.N, r.Processes))
		}
		lines = append(lines, []string{
			r.Settings, strconv.Itoa(r.N), strconv.Itoa(r.D), number3(r.Seconds.Minimum), percent(r.Seconds.Spread),
			strconv.Itoa(r.Seconds.Repetitions), strconv.Itoa(r.Iterations), fmt.Sprintf("%.1e", *r.Residual), speed, efficiency, model, r.Note,
		})
	}
	table(b, []string{"setup", "n = m", "d", "seconds", "spread", "runs", "iterations", "residual", "speed-up", "efficiency", "model", "agreement"}, lines)
}

// partsTable is what the model is made of.
func partsTable(b *bytes.Buffer, rows []Row) {
	var lines []string
	for _, r := range rows {
		switch r.Name {
		case "sweep":
			lines = append(lines, fmt.Sprintf("a pair, d = %d, %s: %s ns (n = m = %d)", r.D, r.Precision, number3(r.PerPair()), r.N))
		case "vectors":
			lines = append(lines, fmt.Sprintf("a point of what every process does itself in a sweep: %s ns", number3(pointSeconds(r)*1e9)))
		case "fold":
			lines = append(lines, fmt.Sprintf("adding up: %s GB/s", number3(foldBytes(r)/1e9)))
		case "gather":
			lines = append(lines, fmt.Sprintf("a gather of %d bytes from each of %d processes (%s): %s µs, spread %s",
				r.Bytes, r.Processes, r.Engine, number3(r.Seconds.Median*1e6), percent(r.Seconds.Spread)))
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(b, "\nOn one core, but for gathers:\n\n- %s\n", strings.Join(lines, "\n- "))
	}
}

func pointSeconds(r Row) float64 { return r.Seconds.Minimum / float64(r.N+r.M) }

// foldBytes are the bytes a second that were read and written.
func foldBytes(r Row) float64 { return float64(8*(r.N+1)*r.M) / r.Seconds.Minimum }

func scalingDims(rows []Row) []int {
	var dims []int
	for _, r := range rows {
		if r.Name == "sweep" && !slices.Contains(dims, r.D) {
			dims = append(dims, r.D)
		}
	}
	return dims
}

// scalingOf is the machine that the rows were measured on; ok is false where one
// is missing.
func scalingOf(rows []Row, d int) (s Scaling, ok bool) {
	s = Scaling{Name: fmt.Sprintf("CPU and MPI, d = %d", d), Element: 4}
	seconds := map[int]float64{}
	for _, r := range rows {
		switch {
		case r.Name == "sweep" && r.D == d:
			s.Pair = r.PerPair() / 1e9
		case r.Name == "vectors":
			s.Point = pointSeconds(r)
		case r.Name == "fold":
			s.Memory = foldBytes(r)
		case r.Name == "gather" && r.Processes == 2:
			seconds[r.Bytes] = r.Seconds.Median
		}
	}
	s.Link, ok = fitLink(seconds)
	return s, ok && s.Pair > 0 && s.Point > 0 && s.Memory > 0
}

func scalingLines(s Scaling) (lines [][]string) {
	const n = 100_000
	for _, ranks := range []int{2, 4, 8} {
		line := []string{s.Name, strconv.Itoa(ranks), number3(s.SpeedUp(n, ranks)), percent(s.Efficiency(n, ranks))}
		for _, wanted := range []float64{0.5, 0.9} {
			text := "none"
			if least, ok := s.Smallest(ranks, wanted); ok {
				text = strconv.Itoa(least)
			}
			line = append(line, text)
		}
		lines = append(lines, line)
	}
	return lines
}
