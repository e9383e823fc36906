// Command fortet solves, trains, samples and measures Schrödinger bridges and
// entropic optimal transport. It prints one JSON object on standard output and
// everything for people on standard error.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage or invalid input, 3 ran but did
// not reach the tolerance, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/models/latent"
	"github.com/fortet/fortet/models/mixture"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/metrics"
	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitDone         = 0
	exitFailed       = 1
	exitUsage        = 2
	exitNotConverged = 3
	exitInterrupted  = 130
)

// command is one verb of the program.
type command struct {
	name, does, usage string
	example           string
	// setup declares flags and returns what to do once they are parsed.
	setup func(*pflag.FlagSet) func(*session, []string) error
}

var commands = []command{
	doctorCommand, solveCommand, divergenceCommand, bridgeCommand, multimarginalCommand, barycenterCommand, discreteCommand,
	trainCommand, sampleCommand, evalCommand, dataCommand, plotCommand, benchCommand, demoCommand,
}

// session is what a command works with: the global flags, the streams, and
// the device, which is opened when it is first asked for.
type session struct {
	ctx            context.Context
	stdout, stderr io.Writer
	globals
	dev gpu.Device

	shared bool             // with processes of the same machine
	joined collective.Group // see join; nil: none
}

// globals are the flags of every command.
type globals struct {
	device  string
	workers int
	seed    uint64
	dtype   string
	quiet   bool
	pretty  bool
}

func (g *globals) declare(f *pflag.FlagSet) {
	f.StringVar(&g.device, "device", "auto", "auto, cpu, cuda, cuda:N or emu")
	f.IntVar(&g.workers, "workers", 0, "CPU workers; 0 means all cores")
	f.Uint64Var(&g.seed, "seed", 0, "seed of everything random")
	f.StringVar(&g.dtype, "dtype", "auto", "f32, f64, or auto: f32 while it makes progress, then f64")
	f.BoolVar(&g.quiet, "quiet", false, "no progress on standard error")
	f.BoolVar(&g.pretty, "json-pretty", false, "indent the JSON")
}

// usageError is a mistake in the command line.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, v ...any) error { return usageError{fmt.Sprintf(format, v...)} }

// errNotConverged says that the result was printed but is no solution.
var errNotConverged = errors.New("did not reach the tolerance")

// execute is the program without the process around it.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout, stderr)
	code := exitCode(ctx, err)
	var agreed *verdict
	if err != nil && !errors.Is(err, pflag.ErrHelp) && !(errors.As(err, &agreed) && agreed.quiet) {
		complain(stderr, code, err)
	}
	return code
}

// complain says why the program ends with a code.
func complain(stderr io.Writer, code int, err error) {
	if code == exitInterrupted {
		fmt.Fprintln(stderr, "fortet: interrupted")
		return
	}
	fmt.Fprintln(stderr, "fortet: "+oneLine(err))
}

// oneLine joins an error that lists several faults.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

func exitCode(ctx context.Context, err error) int {
	var usage usageError
	var path *fs.PathError
	var agreed *verdict
	switch {
	case err == nil || errors.Is(err, pflag.ErrHelp):
		return exitDone
	case errors.As(err, &agreed):
		return agreed.code
	case errors.Is(err, errNotConverged):
		return exitNotConverged
	case ctx.Err() != nil || errors.Is(err, context.Canceled), errors.Is(err, run.ErrCanceled):
		return exitInterrupted
	case errors.As(err, &usage), errors.As(err, &path):
		return exitUsage
	}
	for _, invalid := range []error{
		gpu.ErrInvalid, gpu.ErrUnavailable, gpu.ErrContract, collective.ErrUnavailable, tensor.ErrInvalid, solver.ErrInvalid, solver.ErrInfeasible,
		dataset.ErrInvalid, metrics.ErrInvalid, run.ErrInvalid, run.ErrNoCheckpoint, mixture.ErrInvalid, sbb.ErrInvalid, latent.ErrInvalid, npy.ErrFormat, fs.ErrNotExist, fs.ErrPermission, syscall.ENOSPC,
	} {
		if errors.Is(err, invalid) {
			return exitUsage
		}
	}
	return exitFailed
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	// Global flags may stand before the command.
	s := &session{ctx: ctx, stdout: stdout, stderr: stderr}
	top := pflag.NewFlagSet("fortet", pflag.ContinueOnError)
	top.SetOutput(io.Discard)
	top.SetInterspersed(false)
	s.declare(top)
	if err := top.Parse(args); errors.Is(err, pflag.ErrHelp) {
		overview(stdout)
		return err
	} else if err != nil {
		return usagef("%v; `fortet --help` lists the commands", err)
	}
	args = top.Args()
	if len(args) == 0 {
		overview(stderr)
		return usagef("no command, want one of %s", names())
	}
	if args[0] == "help" {
		overview(stdout)
		return pflag.ErrHelp
	}
	i := slices.IndexFunc(commands, func(c command) bool { return c.name == args[0] })
	if i < 0 {
		return usagef("unknown command %q, want one of %s", args[0], names())
	}
	c := commands[i]
	flags := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.SortFlags = false
	do := c.setup(flags)
	before := s.globals
	s.declare(flags)
	s.globals = before // declaring wrote the defaults
	flags.VisitAll(func(f *pflag.Flag) {
		if g := top.Lookup(f.Name); g != nil && g.Changed {
			f.Changed = true
		}
	})
	if err := flags.Parse(args[1:]); errors.Is(err, pflag.ErrHelp) {
		c.help(stdout, flags)
		return err
	} else if err != nil {
		return usagef("%s: %v; `fortet %s --help` shows an example", c.name, err, c.name)
	}
	if s.workers < 0 {
		return usagef("--workers: got %d, want 0 (all cores) or more", s.workers)
	}
	if !slices.Contains([]string{"auto", "f32", "f64"}, s.dtype) {
		return usagef("--dtype: got %q, want auto, f32 or f64", s.dtype)
	}
	defer func() {
		if s.dev != nil {
			s.dev.Close()
		}
	}()
	return s.part(do(s, flags.Args()))
}

func names() string {
	var n []string
	for _, c := range commands {
		n = append(n, c.name)
	}
	return strings.Join(n, ", ")
}

func overview(w io.Writer) {
	fmt.Fprint(w, "fortet: Schrödinger bridges and entropic optimal transport\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  fortet %-14s %s\n", c.name, c.does)
	}
	fmt.Fprint(w, "\n`fortet COMMAND --help` shows flags and an example. Begin with `fortet demo`.\n")
}

func (c command) help(w io.Writer, flags *pflag.FlagSet) {
	fmt.Fprintf(w, "%s.\n\n  %s\n\nExample:\n  %s\n\nFlags:\n%s", c.does, c.usage, c.example, flags.FlagUsages())
	if c.name == "solve" || c.name == "divergence" {
		fmt.Fprint(w, distributedHelp)
	}
	if c.name == "data" || c.name == "solve" {
		fmt.Fprintf(w, "\nData sets:\n%s\n", dataset.Help())
	}
}

// device opens the device that the flags name.
func (s *session) open() (gpu.Device, error) {
	if s.dev == nil {
		dev, err := s.take()
		if err != nil {
			return nil, fmt.Errorf("--device %s: %w", s.device, err)
		}
		s.dev = dev
		// Where there is no library or no card, nobody expects a GPU to be
		// used; where there are both, the reason that it is not is news.
		why := dev.Properties().Fallback
		if why != nil && !errors.Is(why, gpu.ErrNoLibrary) && !errors.Is(why, gpu.ErrNoDevice) && !s.quiet {
			fmt.Fprintf(s.stderr, "fortet: using the CPU: %s\n", oneLine(why))
		}
	}
	return s.dev, nil
}

// statusError says how a run ended that did not converge.
type statusError struct {
	status        solver.Status
	residual, tol float64
}

func (e *statusError) Error() string {
	return fmt.Sprintf("did not reach the tolerance: %v with residual %.3g, wanted %.3g", e.status, e.residual, e.tol)
}

func (*statusError) Is(target error) bool { return target == errNotConverged }
