// Package dataset opens point clouds by one URI-like form,
//
//	name[:path][?option=value&option=value…]
//
// for example 8gaussians?n=4096&seed=1, digits?class=3,5 or
// csv:cells.csv?columns=x1,x2&where=day==0. [Help] lists the names and their
// options. The path is taken as it stands, up to the first question mark;
// option values may use %XX for a byte that the form reserves.
//
// A set is either a generator, which has as many points as one asks for, or
// finite: digits, arrays, tables and pictures. All sets take the options
//
//	n      generator: points that Load draws (1000); finite: how many rows to keep
//	seed   generator: seed of Load (0); finite: keep a random n rows, in random
//	       order, where without a seed the first n are kept
//	scale  a number that multiplies every coordinate (1)
//
// Picture values lie in [0, 1] before scale.
//
// # Randomness
//
// Draw i of a set is a pure function of (URI without n and seed, seed, i): it
// depends neither on how many points are drawn nor on the order. Sets with
// different URIs draw independently of each other even at the same seed; two
// independent samples of one and the same set need two seeds. A path counts
// with its last element only, so that a moved folder draws as before.
package dataset

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// ErrInvalid is wrapped by every error of this package.
var ErrInvalid = errors.New("invalid data set")

// maxValues bounds n·d of one set or sample: 4 GiB of float64.
const maxValues = 1 << 29

// Shape is the shape of a picture. Pixel (h, w) of channel c is coordinate
// (h·W + w)·C + c of its point. The zero Shape says: no picture.
type Shape struct{ H, W, C int }

// Size returns the number of coordinates, H·W·C.
func (s Shape) Size() int { return s.H * s.W * s.C }

func (s Shape) String() string { return fmt.Sprintf("%dx%dx%d", s.H, s.W, s.C) }

// Points are n points in d dimensions.
type Points struct {
	N, D int
	X    []float64 // (N, D), row-major

	Names   []string // of the columns; nil: they have none
	Labels  []int    // of the rows; nil: they have none
	Classes []string // what a label means: Classes[label]; nil: labels speak for themselves
	Image   Shape    // of every row; zero: rows are no pictures
}

// Row returns point i, sharing memory.
func (p Points) Row(i int) []float64 { return p.X[i*p.D : (i+1)*p.D : (i+1)*p.D] }

// Source is a data set. Its methods may be called at the same time.
type Source interface {
	// URI is what the source was opened with.
	URI() string
	// Dim is the dimension of the points.
	Dim() int
	// Image is the shape of the points as pictures, or zero.
	Image() Shape
	// Finite reports the number of points, and whether there is one:
	// generators answer (0, false).
	Finite() (n int, ok bool)
	// Load returns all points of a finite set in order, or the n points that
	// a generator's URI asks for.
	Load() (Points, error)
	// Sample returns n independent draws, those that Draw gives from first = 0.
	// A finite set is drawn from with replacement.
	Sample(n int, seed uint64) (Points, error)
	// Draw fills dst, of shape (len(dst)/Dim, Dim), with the draws first,
	// first+1, … of a seed: a training loop of batch size b passes first =
	// step·b.
	Draw(dst []float64, seed, first uint64) error
}

// Open opens the set that a URI names. Finite sets are read at once, and
// every value is checked to be finite. An error names the URI, what was found
// and what was wanted, on one line, and wraps ErrInvalid.
func Open(uri string) (Source, error) {
	source, err := open(uri)
	if err != nil {
		return nil, fail(uri, err)
	}
	return source, nil
}

func open(text string) (Source, error) {
	u, err := parse(text)
	if err != nil {
		return nil, err
	}
	s, err := find(u)
	if err != nil {
		return nil, err
	}
	o, err := u.accept(s)
	if err != nil {
		return nil, err
	}
	common := common{uri: text, key: u.key(), scale: o.number("scale", 1)}
	if common.scale == 0 {
		o.fail("scale", "0", "a number other than 0")
	}
	if s.generator != nil {
		return openGenerator(s, o, common)
	}
	return openTable(s, u.path, o, common)
}

// common is what both kinds of source hold.
type common struct {
	uri   string
	key   uint64 // of the URI without n and seed; see stream
	scale float64
}

func (c common) URI() string { return c.uri }

// rescale multiplies x by the option scale.
func (c common) rescale(x []float64) {
	if c.scale == 1 {
		return
	}
	for i := range x {
		x[i] *= c.scale
	}
}

// checkDraw says how many rows of dimension d fit into dst.
func (c common) checkDraw(dst []float64, d int) (n int, err error) {
	if len(dst)%d != 0 {
		return 0, fail(c.uri, fmt.Errorf("draw: dst: length %d, want a multiple of the dimension %d", len(dst), d))
	}
	return len(dst) / d, nil
}

// checkSample refuses a number of draws that is negative or does not fit.
func (c common) checkSample(n, d int) error {
	if n < 0 || n > maxValues/d {
		return fail(c.uri, fmt.Errorf("n: got %d, want 0 to %d points of dimension %d", n, maxValues/d, d))
	}
	return nil
}

// fail makes err a one-line error of the set.
func fail(uri string, err error) error {
	if strings.ContainsFunc(uri, unicode.IsControl) {
		uri = fmt.Sprintf("%q", uri)
	}
	return fmt.Errorf("dataset: %s: %w: %w", uri, ErrInvalid, err)
}
