// Command gpunotes makes docs/gpu-notes.md from its template, from what build.sh
// check found in the machine code of the CUDA kernels (build/resources.tsv), and
// from the data sheets of package bench. make gpu-notes calls it. Nothing that it
// writes was measured.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/fortet/fortet/bench"
	"github.com/fortet/fortet/docs/internal/page"
)

func main() { page.Main("gpunotes", notes) }

func notes(_ context.Context, args []string, log io.Writer) error {
	f := flag.NewFlagSet("gpunotes", flag.ContinueOnError)
	f.SetOutput(log)
	root := f.String("root", ".", "folder of the project")
	if err := f.Parse(args); err != nil {
		return err
	}
	code, err := read(filepath.Join(*root, "build", "resources.tsv"))
	if err != nil {
		return fmt.Errorf("%w (./build.sh check makes it)", err)
	}
	const name = "gpu-notes.md.tmpl"
	t, err := template.New(name).Funcs(template.FuncMap{
		"resources": code.resources, "loops": code.loops, "limits": limits, "bars": code.bars,
	}).ParseFiles(filepath.Join(*root, "docs", "template", name))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, nil); err != nil {
		return err
	}
	return page.Store(filepath.Join(*root, "docs", "gpu-notes.md"), out.Bytes())
}

// resources is a line for each family and architecture: how many kernels it has,
// and the most that one of them takes.
func (c machineCode) resources() string {
	type key struct{ family, arch string }
	type most struct{ kernels, registers, shared, spills, least, most int }
	found := map[key]*most{}
	var order []key
	for _, p := range c {
		if p.part != "whole" {
			continue
		}
		k := key{p.family(), p.arch}
		m := found[k]
		if m == nil {
			m = &most{least: 32}
			found[k] = m
			order = append(order, k)
		}
		m.kernels++
		m.registers, m.shared, m.spills = max(m.registers, p.registers), max(m.shared, p.shared), max(m.spills, p.spills+p.stack)
		if p.blocks > 0 {
			m.least, m.most = min(m.least, p.blocks*p.threads/32), max(m.most, p.blocks*p.threads/32)
		}
	}
	var lines [][]string
	for _, k := range order {
		m := found[k]
		warps := fmt.Sprintf("%d to %d", m.least, m.most)
		if m.most == 0 {
			warps = "not known"
		}
		lines = append(lines, []string{k.family, k.arch, strconv.Itoa(m.kernels), strconv.Itoa(m.registers), strconv.Itoa(m.shared), strconv.Itoa(m.spills), warps})
	}
	return table([]string{"family", "for", "kernels", "registers, at most", "shared bytes, at most", "spilled or on the stack", "warps a multiprocessor holds, of 64"}, lines)
}

// loops are the main loops of the kernels that the bars are about.
func (c machineCode) loops() (string, error) {
	classes := []string{"FFMA", "FADD", "FMUL", "FMNMX", "IMAD", "IADD", "LOP", "SHF", "MUFU.EX2", "MUFU", "HMMA", "LDSM", "LDS", "LDG.128", "STG.128"}
	var lines [][]string
	for _, b := range kernels {
		w, err := b.work(c)
		if err != nil {
			return "", err
		}
		line := []string{b.name, page.Num(3, w.elements), page.Num(3, w.all)}
		for _, class := range classes {
			line = append(line, page.Num(3, w.count[class]))
		}
		lines = append(lines, line)
	}
	return table(append([]string{"kernel", "elements", "instructions"}, classes...), lines), nil
}

// bars compares what the machine code allows with what is wanted.
func (c machineCode) bars() (string, error) {
	var lines [][]string
	for _, b := range kernels {
		w, err := b.work(c)
		if err != nil {
			return "", err
		}
		for _, name := range b.models {
			m, err := bench.ModelNamed(name)
			if err != nil {
				return "", err
			}
			cycles, unit := w.cycles()
			limit := b.limit(m)
			// Elements a second of all quarters of the card, each a warp at a time.
			rate := 4 * float64(m.Multiprocessors) * m.Clock * 32 * w.elements / cycles
			bound := rate / limit
			expected := bound * efficiency * cycles / (cycles + w.alone)
			if bound > 1 {
				bound, expected = 1, min(expected, sustained)
			}
			verdict := "expected"
			switch {
			case bound < b.bar:
				verdict = "**out of reach** of this code"
			case expected < b.bar:
				verdict = "possible, not expected"
			}
			lines = append(lines, []string{
				b.name, m.Name, page.Num(3, w.all/w.elements), unit, page.Num(3, cycles/w.elements), page.Num(3, limit/1e9), percent(bound), percent(expected), percent(b.bar), verdict,
			})
		}
	}
	return table([]string{"kernel", "card", "instructions an element", "busiest", "its cycles", "limit, 10⁹ elements/s", "at most", "predicted", "bar", "verdict"}, lines), nil
}

// limits are the roofline predictions of package bench for float32, side by side.
func limits() (string, error) {
	models := []string{"H100 SXM", "H200 SXM", "A100 80GB"}
	type key struct{ operation, size, precision string }
	found := map[key][]string{}
	binding := map[key]string{}
	var order []key
	for i, model := range models {
		all, err := bench.Predict(model)
		if err != nil {
			return "", err
		}
		for _, p := range all {
			if p.Precision == "f64" {
				continue
			}
			k := key{strings.TrimSpace(p.Operation + " " + p.Shape), fmt.Sprintf("%d %s", p.Size, p.Unit), p.Precision}
			if found[k] == nil {
				found[k] = slices.Repeat([]string{"", ""}, len(models))
				order = append(order, k)
			}
			share := assumed(p.Limit.Binding)
			found[k][2*i] = page.Num(3, 1e3*p.Limit.Seconds)
			found[k][2*i+1] = page.Num(2, 1e3*p.Limit.Seconds/share)
			binding[k] = p.Limit.Binding
		}
	}
	header := []string{"operation", "size", "precision", "bound by"}
	for _, m := range models {
		header = append(header, m+", least ms", "predicted ms")
	}
	var lines [][]string
	for _, k := range order {
		lines = append(lines, append([]string{k.operation, k.size, k.precision, binding[k]}, found[k]...))
	}
	return table(header, lines), nil
}

// assumed is the share of a limit that is expected of code nobody has timed.
func assumed(binding string) float64 {
	switch binding {
	case "memory":
		return sustained
	case "matrix products":
		return 0.45
	}
	return 0.6
}

func percent(v float64) string { return page.Num(2, 100*v) + " %" }

func table(header []string, lines [][]string) string {
	var b strings.Builder
	rule := slices.Repeat([]string{"---:"}, len(header))
	rule[0] = "---"
	for _, cells := range append([][]string{header, rule}, lines...) {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	return strings.TrimSuffix(b.String(), "\n")
}
