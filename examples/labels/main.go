// Command labels counts how often one label follows another in the embedded
// digits, which were written in forms: 0 to 9 in turn, again and again, and then
// in one fixed disorder. It writes the transition probabilities of that Markov
// chain and two laws of labels, for `fortet discrete`.
//
//	go run ./examples/labels -from 0 -to 9
//	fortet discrete --transition transition.npy --steps 9 --mu mu.npy --nu nu.npy
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/tensor/npy"
)

const classes = 10

func main() {
	switch err := run(os.Args[1:], os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "labels:", err)
		os.Exit(1)
	}
}

func run(args []string, log io.Writer) error {
	f := flag.NewFlagSet("labels", flag.ContinueOnError)
	f.SetOutput(log)
	from := f.Int("from", -1, "the label that all sequences begin with; without, the law of all labels")
	to := f.Int("to", -1, "the label that they end with; without, the law of all labels")
	out := f.String("out", ".", "folder for transition.npy, mu.npy and nu.npy")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q, want flags only", f.Arg(0))
	}
	for name, label := range map[string]int{"from": *from, "to": *to} {
		if label < -1 || label >= classes {
			return fmt.Errorf("-%s: got %d, want a digit", name, label)
		}
	}
	set, err := dataset.Open("digits")
	if err != nil {
		return err
	}
	digits, err := set.Load()
	if err != nil {
		return err
	}
	transition, law := chain(digits.Labels)
	arrays := map[string]*npy.Array{
		"transition": npy.New(transition, classes, classes),
		"mu":         npy.New(at(*from, law), classes),
		"nu":         npy.New(at(*to, law), classes),
	}
	for name, a := range arrays {
		if err := npy.WriteFile(filepath.Join(*out, name+".npy"), a); err != nil {
			return fmt.Errorf("-out: %w", err)
		}
	}
	return nil
}

// chain estimates a Markov chain from a sequence of labels: the probabilities
// to go from one to another, (classes, classes), and the law of all.
func chain(labels []int) (transition, law []float64) {
	transition, law = make([]float64, classes*classes), make([]float64, classes)
	for k, label := range labels {
		law[label] += 1 / float64(len(labels))
		if k > 0 {
			transition[labels[k-1]*classes+label]++
		}
	}
	for i := range classes {
		row := transition[i*classes : (i+1)*classes]
		total := 0.
		for _, v := range row {
			total += v
		}
		for j := range row {
			row[j] /= total
		}
	}
	return transition, law
}

// at is the law that is certain of a label, or the given one.
func at(label int, law []float64) []float64 {
	if label < 0 {
		return law
	}
	certain := make([]float64, classes)
	certain[label] = 1
	return certain
}
