package dataset

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// table is a finite set, held as it was stored: CIFAR-10 as float64 would
// take eight times the memory.
type table struct {
	common
	n, d int
	// One of the two, of shape (n, d); the value of a byte is byte/divisor.
	floats  []float64
	bytes   []byte
	divisor float64

	names   []string
	labels  []int
	classes []string
	image   Shape

	order []int // rows that the options n and seed keep; nil: all
}

func openTable(s set, path string, o *options, c common) (Source, error) {
	if o.err != nil {
		return nil, o.err
	}
	seed := o.seed()
	n := o.integer("n", 0, 1, maxValues)
	if o.err != nil {
		return nil, o.err
	}
	t, err := s.table(path, o)
	if err != nil {
		return nil, err
	}
	t.common = c
	if t.n == 0 || t.d == 0 {
		return nil, fmt.Errorf("shape (%d, %d), want at least one row and one column", t.n, t.d)
	}
	if n > t.n {
		return nil, fmt.Errorf("option n: got %d, want at most the %d rows that there are", n, t.n)
	}
	if k := notFinite(t.floats); k >= 0 {
		return nil, fmt.Errorf("row %d, column %d (from 0): %g, want a finite number", k/t.d, k%t.d, t.floats[k])
	}
	t.keep(n, seed, o.has("seed"))
	return t, nil
}

// keep narrows the table to n rows, or to all where n is 0.
func (t *table) keep(n int, seed uint64, shuffle bool) {
	if n == 0 {
		n = t.n
	}
	if n == t.n && !shuffle {
		return
	}
	t.order = make([]int, t.n)
	for i := range t.order {
		t.order[i] = i
	}
	if shuffle {
		// Fisher–Yates from the front: the rows of a smaller n are the first
		// of a larger one.
		r := newStream(t.key, seed).at(0)
		for i := range n {
			j := i + r.IntN(t.n-i)
			t.order[i], t.order[j] = t.order[j], t.order[i]
		}
	}
	t.order = slices.Clip(t.order[:n])
}

func (t *table) Dim() int            { return t.d }
func (t *table) Image() Shape        { return t.image }
func (t *table) Finite() (int, bool) { return t.rows(), true }

// rows is the number of rows kept.
func (t *table) rows() int {
	if t.order != nil {
		return len(t.order)
	}
	return t.n
}

func (t *table) Load() (Points, error) {
	return t.gather(t.rows(), func(i int) int { return i })
}

func (t *table) Sample(n int, seed uint64) (Points, error) {
	s := newStream(t.key, seed)
	return t.gather(n, func(i int) int { return s.at(uint64(i)).IntN(t.rows()) })
}

func (t *table) Draw(dst []float64, seed, first uint64) error {
	n, err := t.checkDraw(dst, t.d)
	if err != nil {
		return err
	}
	s := newStream(t.key, seed)
	for i := range n {
		t.row(dst[i*t.d:(i+1)*t.d], s.at(first+uint64(i)).IntN(t.rows()))
	}
	return nil
}

// gather returns the rows index(0), …, index(n-1) of those kept.
func (t *table) gather(n int, index func(int) int) (Points, error) {
	if err := t.checkSample(n, t.d); err != nil {
		return Points{}, err
	}
	p := Points{
		N: n, D: t.d, X: make([]float64, n*t.d),
		Names: slices.Clone(t.names), Classes: slices.Clone(t.classes), Image: t.image,
	}
	if t.labels != nil {
		p.Labels = make([]int, n)
	}
	for i := range n {
		k := t.row(p.Row(i), index(i))
		if p.Labels != nil {
			p.Labels[i] = t.labels[k]
		}
	}
	return p, nil
}

// row writes row i of those kept and returns its number in the table.
func (t *table) row(dst []float64, i int) int {
	if t.order != nil {
		i = t.order[i]
	}
	if t.floats != nil {
		copy(dst, t.floats[i*t.d:])
	} else {
		for k, b := range t.bytes[i*t.d : (i+1)*t.d] {
			dst[k] = float64(b) / t.divisor
		}
	}
	t.rescale(dst)
	return i
}

// notFinite returns the index of the first NaN or infinity, or -1.
func notFinite(x []float64) int {
	return slices.IndexFunc(x, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
}

// chosen reads the option class: which labels to keep, of those that names
// names.
func (o *options) chosen(names []string) []bool {
	keep := make([]bool, len(names))
	if !o.has("class") {
		for i := range keep {
			keep[i] = true
		}
		return keep
	}
	for _, e := range o.list("class") {
		label := slices.Index(names, e)
		if i, err := strconv.Atoi(e); label < 0 && err == nil && i >= 0 && i < len(names) {
			label = i
		}
		if label < 0 {
			o.fail("class", e, fmt.Sprintf("0 to %d or one of %s", len(names)-1, strings.Join(names, ", ")))
			continue
		}
		keep[label] = true
	}
	return keep
}
