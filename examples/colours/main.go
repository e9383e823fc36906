// Command colours gives one photograph the colours of another: the pixels of
// both are clouds in a colour space, an entropic transport plan couples
// samples of them, and its out-of-sample map moves every pixel (the idea of
// Pitié, Kokaram and Dahyot 2007 and Rabin, Ferradans and Papadakis 2014, here
// with the map of Pooladian and Niles-Weed 2021).
//
//	go run ./examples/colours -source a.png -target b.jpg -out c.png
//
// Without -source and -target it paints two scenes and uses those.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	_ "image/jpeg" // photographs
	"image/png"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/fortet/fortet/gpu"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "colours:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, log io.Writer) error {
	f := flag.NewFlagSet("colours", flag.ContinueOnError)
	f.SetOutput(log)
	o := options{space: lab}
	source := f.String("source", "", "picture that gets other colours, .png or .jpg; a sunset is painted without")
	target := f.String("target", "", "picture that lends its colours; a forest is painted without")
	out := f.String("out", "colours.png", "picture to write, .png")
	compare := f.String("compare", "", "also write source, target and result side by side to this .png")
	device := f.String("device", "auto", "auto, cpu, cuda or cuda:N")
	f.Var(&o.space, "space", "colour space: rgb or lab")
	f.IntVar(&o.pixels, "pixels", 3000, "pixels drawn from each picture")
	f.Float64Var(&o.epsilon, "epsilon", .02, "entropy, in units of the mean cost: smaller keeps more contrast")
	f.Uint64Var(&o.seed, "seed", 0, "seed of the drawn pixels")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q, want flags only", f.Arg(0))
	}
	for _, file := range [][2]string{{"out", *out}, {"compare", *compare}} {
		if file[1] != "" && !strings.EqualFold(filepath.Ext(file[1]), ".png") {
			return fmt.Errorf("-%s: got %q, want a name that ends in .png", file[0], file[1])
		}
	}
	from, err := picture("source", *source, sunset)
	if err != nil {
		return err
	}
	to, err := picture("target", *target, forest)
	if err != nil {
		return err
	}
	dev, err := gpu.Open(*device)
	if err != nil {
		return fmt.Errorf("-device %s: %w", *device, err)
	}
	defer dev.Close()

	start := time.Now()
	moved, solved, err := transfer(ctx, dev, from, to, o)
	if err != nil {
		return err
	}
	c := solved.Certificate
	fmt.Fprintf(log, "plan: %v after %d sweeps, marginal error %.2g, gap %.2g; all in %.2g s on %s\n",
		solved.Status, solved.Iterations, c.Source+c.Target, c.Gap, time.Since(start).Seconds(), dev.Name())
	if err := solved.Status.Err(); err != nil {
		return err
	}
	if err := write("out", *out, moved); err != nil {
		return err
	}
	if *compare == "" {
		return nil
	}
	return write("compare", *compare, sideBySide(from, to, moved))
}

// most pixels of a picture: more would not fit into memory as float64 colours.
const largest = 100_000_000

// picture reads a file, or paints where none is named.
func picture(name, path string, paint func(w, h int) *image.NRGBA) (image.Image, error) {
	if path == "" {
		return paint(320, 200), nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("-%s: %w", name, err)
	}
	size, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("-%s: %s: %w, want a .png or .jpg picture", name, path, err)
	}
	if size.Width < 1 || size.Height < 1 || size.Width > largest/size.Height {
		return nil, fmt.Errorf("-%s: %s is %d × %d, want 1 to %d pixels", name, path, size.Width, size.Height, largest)
	}
	im, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("-%s: %s: %w", name, path, err)
	}
	return im, nil
}

func write(name, path string, im image.Image) error {
	var data bytes.Buffer
	if err := png.Encode(&data, im); err != nil {
		return fmt.Errorf("-%s: %w", name, err)
	}
	if err := os.WriteFile(path, data.Bytes(), 0o666); err != nil {
		return fmt.Errorf("-%s: %w", name, err)
	}
	return nil
}
