// Command runner runs the suites of package bench and writes their rows and
// the page that shows them. bench/run.sh calls it.
//
//	runner [-suites kernels,solvers,light,static] [-device cpu] [-quick] [-peers a,b|none] [-limit 10m] [-root .] [-results DIR]
//	runner -report
//	runner -predict "H100 SXM"
//	mpirun -np 2 runner -link mpi
//
// Exit codes: 0 done, 1 failed or an answer was wrong, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fortet/fortet/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

func run(ctx context.Context, args []string) error {
	o := bench.Options{Log: os.Stderr}
	f := flag.NewFlagSet("runner", flag.ContinueOnError)
	suites := f.String("suites", "", "suites to run, with commas; all if empty")
	peers := f.String("peers", "", "peers to compare with, with commas, or none; all that are installed if empty")
	results := f.String("results", "", "folder of the rows; bench/results in -root if empty")
	report := f.Bool("report", false, "only write docs/benchmarks.md from the rows")
	link := f.String("link", "", "only time the gathers of the group that this process was started in: mpi, nccl")
	predict := f.String("predict", "", "only print what a GPU's data sheet allows: "+strings.Join(bench.Models(), ", "))
	f.StringVar(&o.Device, "device", "cpu", "cpu, cuda or emu")
	f.BoolVar(&o.Quick, "quick", false, "small sizes, to see that everything works")
	f.DurationVar(&o.Limit, "limit", 0, "time limit of a run of a peer; 10m if 0")
	f.StringVar(&o.Root, "root", ".", "the project's folder")
	f.StringVar(&o.Fortet, "fortet", "", "the program; bin/fortet in -root if empty")
	if err := f.Parse(args); err != nil || f.NArg() > 0 {
		return fmt.Errorf("runner: %w: %v %v", errUsage, err, f.Args())
	}
	if *report {
		return bench.Report(o.Root)
	}
	if *link != "" {
		return bench.MeasureLink(ctx, os.Stdout, *link, o.Device)
	}
	if *predict != "" {
		all, err := bench.Predict(*predict)
		if err != nil {
			return fmt.Errorf("runner: %w: %w", errUsage, err)
		}
		return bench.WritePredictions(os.Stdout, all)
	}
	if *peers == "none" {
		o.NoPeers = true
	} else if *peers != "" {
		o.Peers = strings.Split(*peers, ",")
	}
	for _, p := range o.Peers {
		if !slices.Contains(bench.PeerNames(), p) {
			return fmt.Errorf("runner: %w: peer %q, want one of %s", errUsage, p, strings.Join(bench.PeerNames(), ", "))
		}
	}
	if program, err := os.Executable(); err == nil {
		o.Runner = program
	}
	if *results == "" {
		*results = filepath.Join(o.Root, "bench", "results")
	}
	var known []string
	for _, s := range bench.Suites() {
		known = append(known, s.Name)
	}
	wanted := known
	if *suites != "" {
		wanted = strings.Split(*suites, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(known, name) {
			return fmt.Errorf("runner: %w: suite %q, want one of %s", errUsage, name, strings.Join(known, ", "))
		}
	}
	var wrong error
	for _, s := range bench.Suites() {
		if !slices.Contains(wanted, s.Name) {
			continue
		}
		rows, err := bench.Run(ctx, s, o)
		if err != nil && !errors.Is(err, bench.ErrWrong) {
			return err
		}
		wrong = errors.Join(wrong, err)
		if len(rows) == 0 { // it is for other machines: their rows stay
			continue
		}
		if err := bench.WriteRows(filepath.Join(*results, s.Name+".jsonl"), rows); err != nil {
			return err
		}
	}
	return wrong
}
