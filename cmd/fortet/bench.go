package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/bench"
	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

var benchCommand = command{
	name:    "bench",
	does:    "Compare the CPU and every GPU on each kernel family, or run the suites of measurements",
	usage:   "fortet bench [--family NAME,NAME] [--suite NAME,NAME [--peers]] [flags]",
	example: "fortet bench --family softmin,ou",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &benchmark{}
		f.StringSliceVar(&c.families, "family", nil, "kernel families to compare, all if not given: "+strings.Join(bench.FamilyNames(), ", "))
		f.StringSliceVar(&c.suites, "suite", nil, "run suites instead of the comparison: "+strings.Join(suiteNames(), ", "))
		f.BoolVar(&c.quick, "quick", false, "small sizes and no limits, to see that everything works: seconds")
		f.BoolVar(&c.peers, "peers", false, "with --suite: measure the libraries of `make peers`, too; run in the project's folder")
		f.StringVar(&c.out, "out", "", "write the rows to this file, a line of JSON each")
		return c.do
	},
}

type benchmark struct {
	families, suites []string
	quick, peers     bool
	out              string
}

func suiteNames() []string {
	var names []string
	for _, s := range bench.Suites() {
		names = append(names, s.Name)
	}
	return names
}

func (c *benchmark) do(s *session, args []string) error {
	switch {
	case len(args) > 0:
		return usagef("bench: unexpected argument %q", args[0])
	case c.peers && len(c.suites) == 0:
		return usagef("--peers: the comparison of devices has none; want --suite, too")
	case len(c.suites) > 0 && len(c.families) > 0:
		return usagef("--family: is of the comparison, --suite runs whole suites; want one of both")
	case len(c.suites) > 0 && s.dtype != "auto":
		return usagef("--dtype: suites measure the types that they are for; want it without --suite")
	case len(c.suites) > 0 && s.workers != 0:
		return usagef("--workers: suites measure one worker and all; want it without --suite")
	}
	for _, name := range c.families {
		if !slices.Contains(bench.FamilyNames(), name) {
			return usagef("--family: got %q, want one of %s", name, strings.Join(bench.FamilyNames(), ", "))
		}
	}
	for _, name := range c.suites {
		if !slices.Contains(suiteNames(), name) {
			return usagef("--suite: got %q, want one of %s", name, strings.Join(suiteNames(), ", "))
		}
	}
	var out outputs
	defer out.close()
	if err := out.add("out", c.out); err != nil {
		return err
	}
	var (
		rows   []bench.Row
		result any
		err    error
	)
	if len(c.suites) > 0 {
		rows, err = c.runSuites(s)
		result = struct {
			Rows []bench.Row `json:"rows"`
		}{rows}
	} else {
		var r *bench.Comparison
		if r, err = c.compare(s); r != nil {
			rows, result = r.Rows, r
		}
	}
	if err != nil && !errors.Is(err, bench.ErrWrong) {
		return err
	}
	// What is wrong is printed, too, and then fails the command.
	werr := out.write("out", func(w io.Writer) error { return bench.EncodeRows(w, rows) })
	if werr == nil {
		werr = out.commit()
	}
	return errors.Join(werr, s.print(result), err)
}

// compare is the comparison of devices, with its table.
func (c *benchmark) compare(s *session) (*bench.Comparison, error) {
	o := bench.CompareOptions{Device: s.device, Workers: s.workers, Families: c.families, Quick: c.quick}
	switch s.dtype {
	case "f32":
		o.DTypes = []tensor.DType{tensor.Float32}
	case "f64":
		o.DTypes = []tensor.DType{tensor.Float64}
	}
	bar := s.progress("bench")
	o.Progress = bar.update
	r, err := bench.Compare(s.ctx, o)
	bar.finish()
	if r != nil && (err == nil || errors.Is(err, bench.ErrWrong)) && !s.quiet {
		comparisonTable(s.stderr, r)
	}
	return r, err
}

// comparisonTable shows a comparison to people.
func comparisonTable(w io.Writer, r *bench.Comparison) {
	for _, d := range r.Devices {
		switch {
		case d.Absent != "":
			fmt.Fprintf(w, "%s: none: %s\n", d.Name, oneLine(errors.New(d.Absent)))
		default:
			fmt.Fprintf(w, "%s: %s (%s), %d workers", d.Name, d.Model, d.Features, d.Workers)
			if d.Note != "" {
				fmt.Fprintf(w, "; %s", d.Note)
			}
			fmt.Fprintln(w)
		}
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "family\toperation\ttype\tdevice\tsize\ttime\trate\tof the limit\tspeed-up\tGPU faster")
	family, operation := "", ""
	for _, f := range r.Families {
		for _, d := range f.Devices {
			name, what := f.Family, strings.TrimSpace(f.Operation+" "+f.Shape)
			if name == family {
				name = ""
			}
			if family == f.Family && what == operation {
				what = ""
			} else {
				operation = what
			}
			family = f.Family
			limit, speedup := "", ""
			if d.LimitFraction != nil {
				limit = fmt.Sprintf("%.0f %% of %s", 100**d.LimitFraction, d.Limit)
			}
			if d.Speedup != nil {
				speedup = three(*d.Speedup) + "×"
				if d.SpeedupSize != d.Size {
					speedup += fmt.Sprintf(" at %d", d.SpeedupSize)
				}
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d %s\t%s\t%s %s\t%s\t%s\t%s\n", name, what, d.Precision, d.Device, d.Size, f.Unit,
				seconds(d.Seconds), three(d.Rate), d.RateUnit, limit, speedup, d.Crossover)
		}
	}
	t.Flush()
}

// three writes three digits.
func three(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func seconds(v float64) string {
	switch {
	case v < 1e-3:
		return three(1e6*v) + " µs"
	case v < 1:
		return three(1e3*v) + " ms"
	}
	return three(v) + " s"
}

// runSuites runs suites on every device that is asked for.
func (c *benchmark) runSuites(s *session) ([]bench.Row, error) {
	o := bench.Options{Quick: c.quick, NoPeers: !c.peers, Log: s.stderr}
	if s.quiet {
		o.Log = io.Discard
	}
	if c.peers {
		root, err := projectFolder()
		if err != nil {
			return nil, err
		}
		o.Root = root
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o.Fortet = program
	devices := []string{s.device}
	if s.device == "auto" {
		devices = nil
		for _, f := range gpu.Survey(gpu.Options{}) {
			if f.Err != nil {
				if f.Name != "emu" {
					fmt.Fprintf(o.Log, "%s: none: %s\n", f.Name, oneLine(f.Err))
				}
				continue
			}
			if f.Name != "emu" {
				devices = append(devices, f.Device.Name())
			}
			f.Device.Close()
		}
	}
	var (
		rows  []bench.Row
		wrong error
	)
	for _, suite := range bench.Suites() {
		if !slices.Contains(c.suites, suite.Name) {
			continue
		}
		for _, o.Device = range devices {
			r, err := bench.Run(s.ctx, suite, o)
			rows = append(rows, r...)
			if err != nil && !errors.Is(err, bench.ErrWrong) {
				return rows, err
			}
			wrong = errors.Join(wrong, err)
		}
	}
	return rows, wrong
}

// projectFolder is where the scripts of peers lie: the folder that the program
// is run in, or the one that it was built into the bin of.
func projectFolder() (string, error) {
	folders := []string{"."}
	if program, err := os.Executable(); err == nil {
		folders = append(folders, filepath.Dir(filepath.Dir(program)))
	}
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "bench", "peers")); err == nil {
			return filepath.Abs(folder)
		}
	}
	return "", usagef("--peers: their scripts are not in bench/peers of %s; want it run in the project's folder", strings.Join(folders, " or "))
}
