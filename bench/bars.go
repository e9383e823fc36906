package bench

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// Bar is a speed that the project holds itself to, as a number that follows
// from rows.
type Bar struct {
	Statement string
	AtLeast   float64 // one of both is set
	AtMost    float64
	Unit      string
	// Without says why there may be no rows that it can be read from.
	Without string
	reached func(rows map[string][]Row) []Reached
}

// Reached is what rows say about a bar.
type Reached struct {
	Case  string
	Value float64
	// Bound: the value is a lower bound, since a peer ran into its time limit.
	Bound bool
}

// Met reports whether a value is good enough. NaN is not.
func (b Bar) Met(r Reached) bool {
	if b.AtLeast > 0 {
		return r.Value >= b.AtLeast
	}
	return r.Value <= b.AtMost
}

// Reached is what the rows of all suites, by suite, say about the bar; nothing
// where they have nothing to say.
func (b Bar) Reached(rows map[string][]Row) []Reached { return b.reached(rows) }

// Bars are all bars for a CPU.
func Bars() []Bar {
	bars := []Bar{
		{
			Statement: "softmin on two workers over one", AtLeast: 1.7, Unit: "times the rate",
			Without: "no rows on one worker and on two", reached: twoWorkers,
		},
		{
			Statement: "time to a residual of 1e-6: POT `sinkhorn_log`", AtLeast: 10, Unit: "times fortet",
			Without: "POT was not run", reached: solvesAgainst(func(engine string) bool { return engine == "pot" }),
		},
		{
			Statement: "time to a residual of 1e-6: the fastest other peer", AtLeast: 5, Unit: "times fortet",
			Without: "no peer was run", reached: solvesAgainst(func(engine string) bool { return engine != "pot" }),
		},
		{
			Statement: "100,000 × 100,000 points, d = 3: memory above the data", AtMost: 300, Unit: "MB",
			Without: "memory was not watched", reached: memory,
		},
		{
			Statement: "`fortet doctor` without a GPU", AtMost: 100, Unit: "ms",
			Without: "not timed", reached: start,
		},
		{
			Statement: "a training step, d = 2, K = 50: the authors' PyTorch", AtLeast: 20, Unit: "times fortet",
			Without: "PyTorch was not run", reached: steps(2),
		},
		{
			Statement: "a training step, d = 512, K = 10: the authors' PyTorch", AtLeast: 5, Unit: "times fortet",
			Without: "PyTorch was not run", reached: steps(512),
		},
		{
			Statement: "the bridge to 8gaussians, trained", AtMost: 10, Unit: "s",
			Without: "not timed", reached: seconds("light", trainingName),
		},
		{
			Statement: "a million points sampled, d = 2", AtMost: 1, Unit: "s",
			Without: "not timed", reached: seconds("light", samplingName),
		},
		{
			Statement: "a sweep over a chain of 5 × 4096 points", AtMost: 1.2, Unit: "times its softmins",
			Without: "not timed", reached: chains,
		},
		{
			Statement: "10,000 problems of 64 points: a loop of POT's", AtLeast: 20, Unit: "times fortet",
			Without: "POT was not run", reached: ensembles(true),
		},
		{
			Statement: "10,000 problems of 64 points: POT's batches", AtLeast: 1, Unit: "times fortet",
			Without: "POT was not run", reached: ensembles(false),
		},
	}
	for _, s := range []struct {
		d  int
		ns float64
	}{{2, 0.6}, {64, 1.3}, {512, 8}} {
		bars = append(bars, Bar{
			Statement: fmt.Sprintf("softmin with AVX-512, one worker, d = %d", s.d), AtMost: s.ns, Unit: "ns a pair",
			Without: "the rows are of a processor without AVX-512", reached: softminPair(s.d),
		})
	}
	return bars
}

// softmins are the rows of softmin in float32 between points.
func softmins(rows map[string][]Row, workers, d int) (r Row, ok bool) {
	for _, r := range rows["kernels"] {
		if r.Name == "softmin" && r.Device == "cpu" && r.Precision == "f32" && r.Workers == workers && r.D == d && r.N == 4096 {
			return r, true
		}
	}
	return Row{}, false
}

func softminPair(d int) func(map[string][]Row) []Reached {
	return func(rows map[string][]Row) []Reached {
		if r, ok := softmins(rows, 1, d); ok && strings.HasPrefix(r.Features, "avx512") {
			return []Reached{{Value: r.PerPair()}}
		}
		return nil
	}
}

func twoWorkers(rows map[string][]Row) (out []Reached) {
	for _, d := range []int{2, 64, 512} {
		one, ok1 := softmins(rows, 1, d)
		two, ok2 := softmins(rows, 2, d)
		if ok1 && ok2 {
			out = append(out, Reached{Case: fmt.Sprintf("d = %d", d), Value: one.Seconds.Minimum / two.Seconds.Minimum})
		}
	}
	return out
}

// solvesAgainst is how much longer the fastest peer of those wanted takes.
func solvesAgainst(wanted func(engine string) bool) func(map[string][]Row) []Reached {
	return func(rows map[string][]Row) (out []Reached) {
		for _, group := range problems(rows["solvers"]) {
			best, bound, ours := math.Inf(1), false, math.NaN()
			for _, r := range group {
				switch {
				case r.Engine == Fortet:
					ours = r.Seconds.Minimum
				case wanted(r.Engine) && r.Seconds.Minimum < best:
					best, bound = r.Seconds.Minimum, r.Status != OK
				}
			}
			if !math.IsInf(best, 1) && !math.IsNaN(ours) {
				out = append(out, Reached{fmt.Sprintf("d = %d, ε = %g", group[0].D, group[0].Epsilon), best / ours, bound})
			}
		}
		return out
	}
}

func memory(rows map[string][]Row) (out []Reached) {
	for _, r := range rows["solvers"] {
		if m := r.Memory; m != nil {
			out = append(out, Reached{Value: float64(m.PeakBytes-m.DataBytes) / 1e6})
		}
	}
	return out
}

func start(rows map[string][]Row) (out []Reached) {
	for _, r := range rows["solvers"] {
		if r.Name == startup {
			out = append(out, Reached{Value: 1000 * r.Seconds.Median})
		}
	}
	return out
}

// published ends the settings of a step that does what the authors' program
// does, operation by operation.
const published = "published"

func steps(d int) func(map[string][]Row) []Reached {
	return func(rows map[string][]Row) (out []Reached) {
		for _, ours := range rows["light"] {
			method, ok := strings.CutSuffix(ours.Name, stepSuffix)
			if !ok || ours.Engine != Fortet || ours.D != d {
				continue
			}
			for _, peer := range rows["light"] {
				if peer.Name == ours.Name && peer.Engine != Fortet && peer.D == d && strings.HasSuffix(peer.Settings, published) {
					out = append(out, Reached{method, peer.Seconds.Median / ours.Seconds.Median, peer.Status == TimeLimit})
				}
			}
		}
		return out
	}
}

// seconds are the medians of the rows of a name.
func seconds(suite, name string) func(map[string][]Row) []Reached {
	return func(rows map[string][]Row) (out []Reached) {
		for _, r := range rows[suite] {
			if r.Name == name && r.Engine == Fortet {
				out = append(out, Reached{Case: r.Settings, Value: r.Seconds.Median})
			}
		}
		return out
	}
}

func chains(rows map[string][]Row) (out []Reached) {
	for _, r := range rows["static"] {
		if r.Name != sweepName {
			continue
		}
		for _, s := range rows["static"] {
			if s.Name == softminsName && s.Work == r.Work {
				out = append(out, Reached{Case: r.Settings + ", " + r.Precision, Value: r.Seconds.Median / s.Seconds.Median})
			}
		}
	}
	return out
}

func ensembles(loop bool) func(map[string][]Row) []Reached {
	return func(rows map[string][]Row) (out []Reached) {
		each := func(r Row) float64 { return r.Seconds.Median / float64(r.Problems) }
		for _, ours := range rows["static"] {
			if ours.Name != ensembleName || ours.Engine != Fortet {
				continue
			}
			best := Reached{Case: fmt.Sprintf("d = %d", ours.D), Value: math.Inf(1)}
			for _, r := range rows["static"] {
				ratio := each(r) / each(ours)
				if r.Name == ensembleName && r.Engine != Fortet && r.D == ours.D && r.N == ours.N &&
					strings.HasPrefix(r.Settings, "a loop") == loop && ratio < best.Value {
					best.Value, best.Bound = ratio, r.Status != OK
				}
			}
			if !math.IsInf(best.Value, 1) {
				out = append(out, best)
			}
		}
		return out
	}
}

// barTable writes what is promised and what was reached.
func barTable(b *bytes.Buffer, rows map[string][]Row) {
	b.WriteString(`
## What is promised

On a CPU, from the rows below. Where a statement has several cases all are shown,
and all must hold.

`)
	var lines [][]string
	for _, bar := range Bars() {
		wanted := fmt.Sprintf("at most %g %s", bar.AtMost, bar.Unit)
		if bar.AtLeast > 0 {
			wanted = fmt.Sprintf("at least %g %s", bar.AtLeast, bar.Unit)
		}
		reached := bar.Reached(rows)
		verdict, texts := "holds", []string{}
		for _, r := range reached {
			text := number3(r.Value)
			if r.Bound {
				text = "> " + text
			}
			if r.Case != "" {
				text += " (" + r.Case + ")"
			}
			if !bar.Met(r) {
				verdict = "**does not hold**"
			}
			texts = append(texts, text)
		}
		if len(reached) == 0 {
			verdict, texts = "not measured", []string{bar.Without}
		}
		lines = append(lines, []string{bar.Statement, wanted, strings.Join(texts, "; "), verdict})
	}
	table(b, []string{"statement", "wanted", "reached", ""}, lines)
}
