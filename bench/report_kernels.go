package bench

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/fortet/fortet/internal/plot"
)

// kernelTable writes the kernels: what the hardware can do, then a table for each
// family.
func kernelTable(b *bytes.Buffer, rows []Row) {
	if len(rows) == 0 {
		return
	}
	where := ""
	if rows[0].Device != "cpu" {
		where = " of a GPU"
	}
	fmt.Fprintf(b, "\n## Kernels%s\n\n%s.\n\n", where, rows[0].Title())
	b.WriteString(`"Rate" and "of the limit" are those of most workers. The limit is the longest of
the times that exponentials (or logarithms, roots, sines), matrix products, other
arithmetic, integers (Philox) and bytes take at the rates below, each as if it had
the hardware to itself; "bound by" says which. Bytes count where the arrays are
larger than the caches. "Error" is that of the element that came nearest to what it
may be off from the definition in float64.
`)
	if rows[0].Device == "cpu" && len(limited(rows)) > 0 {
		b.WriteString("\n![Nearest to the limit that each family comes](benchmarks-kernels.svg)\n")
	}
	ceilingTable(b, rows)
	for _, name := range familiesOf(rows) {
		familyTable(b, name, slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return familyOf(r) != name }))
	}
}

// limited are the rows that know their limit.
func limited(rows []Row) []Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return r.Limit == nil || r.Status != OK })
}

// drawKernels draws how near to its limit each family comes, by the operation
// that comes nearest, in both types.
func drawKernels(path string, rows []Row) error {
	rows = limited(rows)
	if len(rows) == 0 {
		return nil
	}
	fig := plot.Bars{Title: "Share of the limit, of each family's best", YLabel: "%", Names: familiesOf(rows)}
	for _, precision := range []string{"f32", "f64"} {
		s := plot.Series{Label: precision, Y: make([]float64, len(fig.Names))}
		for _, r := range rows {
			if i := slices.Index(fig.Names, familyOf(r)); r.Precision == precision {
				s.Y[i] = max(s.Y[i], 100*min(r.Limit.Fraction, 1))
			}
		}
		fig.Series = append(fig.Series, s)
	}
	return plot.Write(path, fig)
}

// familyOf is the family that has a row's operation.
func familyOf(r Row) string {
	for _, f := range Families() {
		for _, v := range f.Variants {
			if v.Name == r.Name {
				return f.Name
			}
		}
	}
	return r.Name
}

// familiesOf are the families of rows, in their order.
func familiesOf(rows []Row) []string {
	var names []string
	for _, r := range rows {
		if name := familyOf(r); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func ceilingTable(b *bytes.Buffer, rows []Row) {
	var lines [][]string
	for _, r := range rows {
		if r.Limit == nil || r.Limit.Ceilings == nil {
			continue
		}
		c := r.Limit.Ceilings
		rate := func(v float64) string {
			if v == 0 {
				return ""
			}
			return number3(v / 1e9)
		}
		precision, workers := r.Precision, workersOf(r)
		line := []string{precision, workers, rate(c.Flops), rate(c.Matrix), rate(c.Exps), rate(c.Integers), rate(c.Read), rate(c.Write), rate(c.Copy), c.Source}
		if precision != "u32" && !slices.ContainsFunc(lines, func(l []string) bool { return l[0] == precision && l[1] == workers }) {
			lines = append(lines, line)
		}
	}
	if len(lines) > 0 {
		b.WriteString("\n")
		table(b, []string{"type", "workers", "GFLOP/s", "in matrix products", "Gexp/s", "Gint/s", "GB/s read", "written", "copied", "from"}, lines)
	}
}

func workersOf(r Row) string {
	if r.Workers == 0 {
		return ""
	}
	return strconv.Itoa(r.Workers)
}

// familyTable has a line for each operation, shape, size and type.
func familyTable(b *bytes.Buffer, name string, rows []Row) {
	type line struct {
		key  Work
		name string
		one  float64 // seconds of one worker
		most Row     // that of most workers
	}
	var all []*line
	for _, r := range rows {
		key := r.Work
		key.Workers = 0
		i := slices.IndexFunc(all, func(l *line) bool { return l.key == key && l.name == r.Name })
		if i < 0 {
			i = len(all)
			all = append(all, &line{key: key, name: r.Name, one: math.NaN(), most: r})
		}
		if r.Workers == 1 {
			all[i].one = r.Seconds.Minimum
		}
		if r.Workers >= all[i].most.Workers {
			all[i].most = r
		}
	}
	var lines [][]string
	var formulas []string
	for _, l := range all {
		r := l.most
		one, scaling, limit, bound := "", "", "", ""
		if !math.IsNaN(l.one) {
			one = number3(1000 * l.one)
			if r.Workers > 1 {
				scaling = number3(l.one / r.Seconds.Minimum)
			}
		}
		if r.Limit != nil {
			limit, bound = percent(r.Limit.Fraction), r.Limit.Binding
			if r.Note != "" {
				limit += " (not quiet)"
			}
		}
		value, unit := r.rate()
		rate := ""
		if unit != "" {
			rate = number3(value) + " " + unit
		}
		lines = append(lines, []string{
			r.Name, shapeOf(r.Work), r.Precision, one, number3(1000 * r.Seconds.Minimum), percent(r.Seconds.Spread), strconv.Itoa(r.Seconds.Repetitions),
			scaling, rate, limit, bound, fmt.Sprintf("%.2g of %.2g", *r.Error, r.Budget),
		})
		// Those of float64 have twice the bytes, and say nothing new.
		twice := r.Precision == "f64" && slices.ContainsFunc(all, func(o *line) bool { return o.name == r.Name && o.most.Precision == "f32" })
		if f := formulaOf(r); f != "" && !twice && !slices.Contains(formulas, f) {
			formulas = append(formulas, f)
		}
	}
	fmt.Fprintf(b, "\n### %s\n\n", name)
	most := "ms"
	if n := all[0].most.Workers; n > 1 {
		most = fmt.Sprintf("ms, %d workers", n)
	}
	table(b, []string{"operation", "work", "type", "ms, 1 worker", most, "spread", "runs", "speed-up", "rate", "of the limit", "bound by", "error"}, lines)
	if len(formulas) > 0 {
		fmt.Fprintf(b, "\nCounted: %s.\n", strings.Join(formulas, "; "))
	}
}

// shapeOf is the work of a row without what a table has columns for.
func shapeOf(w Work) string {
	w.Precision, w.Workers = "", 0
	text := strings.TrimSpace(w.String())
	if w.Settings != "" {
		text += ", " + w.Settings
	}
	return text
}

// formulaOf is what was counted for a row's limit, or where that is not known
// the limit.
func formulaOf(r Row) string {
	if r.Cost == nil {
		if r.Limit == nil {
			return ""
		}
		return r.Limit.Formula
	}
	var parts []string
	for _, p := range []struct {
		what string
		Count
	}{{"exponentials", r.Cost.Exps}, {"flop of matrix products", r.Cost.Matrix}, {"flop", r.Cost.Flops}, {"integer operations", r.Cost.Integers}, {"bytes read", r.Cost.Read}, {"written", r.Cost.Written}} {
		if p.Number > 0 {
			parts = append(parts, p.Formula+" "+p.what)
		}
	}
	return fmt.Sprintf("%s, %s: %s", r.Name, r.Precision, strings.Join(parts, ", "))
}
