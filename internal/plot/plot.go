// Package plot draws the pictures of a run: clouds with transport lines,
// bridge paths, curves, densities, bars and grids of images. A figure is a
// plain struct whose zero fields are sensible; Write stores it as PNG or SVG.
// Equal figures give equal bytes.
//
// Series take the colours of Okabe and Ito 2008, and time those of the map
// plasma, so that people with a colour vision deficiency can tell them apart.
package plot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"

	"github.com/fortet/fortet/internal/atomicfile"
)

// ErrInvalid is wrapped by every error that a figure's content causes.
var ErrInvalid = errors.New("invalid figure")

// Format is a file format.
type Format int

// The formats. Grid has no SVG.
const (
	PNG Format = iota
	SVG
)

// Figure is one of the figures of this package.
type Figure interface {
	// encode checks the figure and draws it.
	encode(w io.Writer, f Format) error
}

// Encode draws a figure. A coordinate that is NaN or infinite, a shape that
// does not fit and a value without logarithm on a logarithmic axis are errors
// that wrap ErrInvalid.
func Encode(w io.Writer, fig Figure, f Format) error {
	if f != PNG && f != SVG {
		return invalid("format %d, want PNG or SVG", f)
	}
	return fig.encode(w, f)
}

// Write draws a figure into a file whose suffix, .png or .svg, says the
// format. The file is replaced as a whole, or left as it was.
func Write(path string, fig Figure) error {
	var f Format
	switch strings.ToLower(filepath.Ext(path)) {
	case ".png":
	case ".svg":
		f = SVG
	default:
		return invalid("%s: suffix %q, want .png or .svg", path, filepath.Ext(path))
	}
	var b bytes.Buffer
	if err := Encode(&b, fig, f); err != nil {
		return fmt.Errorf("%w (drawing %s)", err, path)
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		_, err := w.Write(b.Bytes())
		return err
	})
}

// invalid is an error of a figure's content.
func invalid(format string, args ...any) error {
	return fmt.Errorf("plot: %w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// largest bounds coordinates: beyond it ranges overflow.
const largest = 1e100

// checkValues refuses what has no place on an axis. x has rows of d values.
func checkValues(what string, x []float64, d int) error {
	for i, v := range x {
		if !(math.Abs(v) <= largest) {
			return invalid("%s: row %d, column %d: %g, want a finite number of at most %g", what, i/d, i%d, v, largest)
		}
	}
	return nil
}

// checkRows refuses an array whose length is no multiple of d.
func checkRows(what string, x []float64, d int) error {
	if d < 1 {
		return invalid("%s: dimension %d, want at least 1", what, d)
	}
	if len(x)%d != 0 {
		return invalid("%s: length %d, want a multiple of the dimension %d", what, len(x), d)
	}
	return checkValues(what, x, d)
}
