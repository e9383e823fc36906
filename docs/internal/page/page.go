// Package page holds what the makers of documentation share: where a figure
// comes from, tables, pictures.
package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/image/draw"

	"github.com/fortet/fortet/internal/atomicfile"
)

// Machine is the provenance of a figure.
type Machine struct {
	Commit string `json:"commit"` // with + where the working tree differs from it
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	// Load is the load average over a minute before the run, null where the
	// system tells none: what else was running.
	Load *float64 `json:"load"`
}

// Here is the machine that this runs on and the commit of the project at root.
func Here(root string) (Machine, error) {
	m := Machine{CPU: runtime.GOARCH, Cores: runtime.NumCPU()}
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "--short=10", "HEAD")
	if err != nil {
		return m, fmt.Errorf("git rev-parse: %w; figures carry their commit", err)
	}
	changes, err := git("status", "--porcelain", "--", ".", ":!docs", ":!README.md")
	if err != nil {
		return m, fmt.Errorf("git status: %w", err)
	}
	if m.Commit = commit; changes != "" {
		m.Commit += "+"
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if name := regexp.MustCompile(`(?m)^model name\s*:\s*(.+)$`).FindSubmatch(info); name != nil {
			m.CPU = string(name[1])
		}
	}
	m.Load = Load()
	return m, nil
}

// Load is the present load average over a minute, nil where there is none.
func Load() *float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil
	}
	var l float64
	if _, err := fmt.Sscan(string(text), &l); err != nil {
		return nil
	}
	return &l
}

// Provenance says where named figures come from, machine by machine.
func Provenance(of map[string]Machine) string {
	groups := map[string][]string{}
	low, high := math.Inf(1), math.Inf(-1)
	for name, m := range of {
		where := fmt.Sprintf("commit %s, %s, %d cores", m.Commit, m.CPU, m.Cores)
		groups[where] = append(groups[where], name)
		if l := m.Load; l != nil {
			low, high = min(low, *l), max(high, *l)
		}
	}
	var lines []string
	for _, where := range slices.Sorted(maps.Keys(groups)) {
		line := "- " + where
		if len(groups) > 1 {
			line += ": " + strings.Join(slices.Sorted(slices.Values(groups[where])), ", ")
		}
		lines = append(lines, line)
	}
	if low <= high {
		lines = append(lines, fmt.Sprintf("- load average before the commands: %.1f to %.1f", low, high))
	}
	return strings.Join(lines, "\n")
}

// Num writes a number with so many significant digits.
func Num(digits int, x float64) string {
	switch {
	case math.IsNaN(x):
		return "—"
	case math.IsInf(x, 0):
		return fmt.Sprint(x)
	case x == math.Trunc(x) && math.Abs(x) < 1e6:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 1e6 || math.Abs(x) < 1e-3:
		return fmt.Sprintf("%.*e", digits-1, x)
	}
	// The exponent after rounding: 0.9999 to two digits is 1.0.
	var mantissa string
	var power int
	if _, err := fmt.Sscanf(strings.Replace(strconv.FormatFloat(x, 'e', digits-1, 64), "e", " ", 1), "%s %d", &mantissa, &power); err != nil {
		return fmt.Sprint(x)
	}
	return fmt.Sprintf("%.*f", max(digits-1-power, 0), x)
}

// Table is rows under a head, in Markdown.
func Table(head []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(head)
	rule := make([]string, len(head))
	for i := range rule {
		if rule[i] = "---:"; i == 0 {
			rule[i] = "---"
		}
	}
	line(rule)
	for _, r := range rows {
		line(r)
	}
	return strings.TrimRight(b.String(), "\n")
}

// Link shows a picture of docs/pictures.
func Link(file, text string) string {
	return fmt.Sprintf("![%s](pictures/%s)", text, filepath.Base(file))
}

// Largest is the size of the largest picture of the documentation, in bytes.
const Largest = 300_000

// Shrink encodes a picture, at a lower resolution where it would be too large.
func Shrink(im image.Image) ([]byte, error) {
	full := im
	for scale := 1.; scale > .2; scale *= .85 {
		var out bytes.Buffer
		e := png.Encoder{CompressionLevel: png.BestCompression}
		if err := e.Encode(&out, im); err != nil {
			return nil, err
		}
		if out.Len() <= Largest {
			return out.Bytes(), nil
		}
		size := full.Bounds().Size()
		next := image.NewNRGBA(image.Rect(0, 0, int(scale*.85*float64(size.X)), int(scale*.85*float64(size.Y))))
		draw.CatmullRom.Scale(next, next.Bounds(), full, full.Bounds(), draw.Src, nil)
		im = next
	}
	return nil, fmt.Errorf("more than %d bytes at any size", Largest)
}

// Store replaces a file.
func Store(path string, data []byte) error {
	return atomicfile.Write(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Keep writes a result as indented JSON.
func Keep(path string, v any) error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	return Store(path, out.Bytes())
}

// Main runs a generator of pages as a program of this name: interruptible, its
// error on standard error.
func Main(name string, generate func(ctx context.Context, args []string, log io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := generate(ctx, os.Args[1:], os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}
