// Command weights writes equal weights of n points to a .npy file, for the
// --source-weights and --target-weights of `fortet solve`: a growing population
// has more mass at its end than at its beginning.
//
//	go run ./examples/weights -n 3781 -of 1429 -out weights.npy
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/fortet/fortet/tensor/npy"
)

func main() {
	switch err := run(os.Args[1:], os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "weights:", err)
		os.Exit(1)
	}
}

func run(args []string, log io.Writer) error {
	f := flag.NewFlagSet("weights", flag.ContinueOnError)
	f.SetOutput(log)
	n := f.Int("n", 0, "number of points")
	share := f.Int("of", 0, "each weighs one over this number; without, one over n")
	out := f.String("out", "", ".npy to write")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("unexpected argument %q, want flags only", f.Arg(0))
	case *n < 1 || *n > math.MaxInt32:
		return fmt.Errorf("-n: got %d, want 1 to %d", *n, math.MaxInt32)
	case *share < 0:
		return fmt.Errorf("-of: got %d, want above 0", *share)
	case *out == "":
		return fmt.Errorf("-out is missing, want a .npy to write")
	}
	if *share == 0 {
		*share = *n
	}
	w := make([]float64, *n)
	for i := range w {
		w[i] = 1 / float64(*share)
	}
	if err := npy.WriteFile(*out, npy.New(w, *n)); err != nil {
		return fmt.Errorf("-out: %w", err)
	}
	return nil
}
