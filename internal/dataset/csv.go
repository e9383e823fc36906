package dataset

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// maxRecord bounds the bytes between two records of a table, so that a file
// without line breaks is an error and no memory.
const maxRecord = 16 << 20

func openCSV(path string, o *options) (*table, error) {
	q := query{
		columns:    o.list("columns"),
		label:      o.text("label", ""),
		hasLabel:   o.has("label"),
		noHeader:   o.word("header", "yes", "no") == "no",
		conditions: o.conditions(),
	}
	if o.err != nil {
		return nil, o.err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		return readCSV(z, q)
	}
	return readCSV(f, q)
}

// query says what to take out of a table.
type query struct {
	columns    []string // nil: see layout
	label      string
	hasLabel   bool
	noHeader   bool
	conditions []condition
}

func readCSV(from io.Reader, q query) (*table, error) {
	limited := &recordLimit{r: from}
	buffered := bufio.NewReaderSize(limited, 1<<16)
	start, err := buffered.Peek(1 << 16)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if bom := []byte("\xef\xbb\xbf"); bytes.HasPrefix(start, bom) {
		start = start[len(bom):]
		if _, err := buffered.Discard(len(bom)); err != nil {
			return nil, err
		}
	}
	records := csv.NewReader(buffered)
	records.Comma = separator(start)
	records.TrimLeadingSpace = records.Comma != '\t'
	records.ReuseRecord = true

	first, err := records.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("empty file")
	}
	if err != nil {
		return nil, err
	}
	l, err := q.layout(first)
	if err != nil {
		return nil, err
	}
	t := &table{d: len(l.columns)}
	for _, c := range l.columns {
		t.names = append(t.names, l.names[c])
	}
	var labels []string
	seen, record := 0, first
	if !q.noHeader {
		record, err = records.Read()
	}
	for ; err == nil; record, err = records.Read() {
		limited.n = 0
		seen++
		keep, err := l.matches(records, record)
		if err != nil {
			return nil, err
		}
		if !keep {
			continue
		}
		for _, c := range l.columns {
			v, err := l.number(records, record, c)
			if err != nil {
				return nil, err
			}
			t.floats = append(t.floats, v)
		}
		if q.hasLabel {
			labels = append(labels, strings.Clone(strings.TrimSpace(record[l.label])))
		}
		t.n++
		if len(t.floats) > maxValues {
			return nil, fmt.Errorf("more than %d numbers", maxValues)
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if t.n == 0 {
		return nil, fmt.Errorf("no row kept of %d", seen)
	}
	if q.hasLabel {
		t.labels, t.classes = enumerate(labels)
	}
	return t, nil
}

// separator returns the tab, the semicolon or the comma, whichever of them
// the first line has outside quotes, in this order.
func separator(start []byte) rune {
	line, _, _ := bytes.Cut(start, []byte("\n"))
	quoted, found := false, map[byte]bool{}
	for _, b := range line {
		if b == '"' {
			quoted = !quoted
		}
		found[b] = found[b] || !quoted
	}
	for _, s := range "\t;" {
		if found[byte(s)] {
			return s
		}
	}
	return ','
}

// layout is where in a record things stand.
type layout struct {
	names      []string
	columns    []int
	label      int
	conditions []condition // with their index set
}

// layout looks the columns up in the first record. Without the option columns
// it takes all but the label and those that a condition fixes by ==.
func (q query) layout(first []string) (layout, error) {
	var l layout
	for i, name := range first {
		name = strings.Clone(strings.TrimSpace(name))
		if q.noHeader {
			name = strconv.Itoa(i)
		}
		l.names = append(l.names, name)
	}
	if !q.noHeader && !slices.ContainsFunc(l.names, func(s string) bool { return !isNumber(s) }) {
		return l, errors.New("line 1: all numbers, want column names, or the option header=no")
	}
	constant := map[int]bool{}
	for _, c := range q.conditions {
		i, err := l.find(c.column)
		if err != nil {
			return l, fmt.Errorf("option where: %w", err)
		}
		c.index = i
		constant[i] = constant[i] || c.op == "=="
		l.conditions = append(l.conditions, c)
	}
	if q.hasLabel {
		i, err := l.find(q.label)
		if err != nil {
			return l, fmt.Errorf("option label: %w", err)
		}
		l.label, constant[i] = i, true
	}
	for _, name := range q.columns {
		i, err := l.find(name)
		if err != nil {
			return l, fmt.Errorf("option columns: %w", err)
		}
		l.columns = append(l.columns, i)
	}
	if q.columns == nil {
		for i := range l.names {
			if !constant[i] {
				l.columns = append(l.columns, i)
			}
		}
	}
	if len(l.columns) == 0 {
		return l, errors.New("no column is left, want option columns")
	}
	return l, nil
}

// find returns the only column of a name.
func (l layout) find(name string) (int, error) {
	i := slices.Index(l.names, name)
	if i < 0 {
		names := l.names
		if len(names) > 20 {
			names = append(names[:20:20], fmt.Sprintf("… (%d in all)", len(l.names)))
		}
		return 0, fmt.Errorf("column %q: not there, want one of %q", name, names)
	}
	if slices.Contains(l.names[i+1:], name) {
		return 0, fmt.Errorf("column %q: there more than once", name)
	}
	return i, nil
}

func (l layout) matches(r *csv.Reader, record []string) (bool, error) {
	for _, c := range l.conditions {
		keep, err := c.matches(strings.TrimSpace(record[c.index]))
		if err != nil {
			return false, l.at(r, c.index, err)
		}
		if !keep {
			return false, nil
		}
	}
	return true, nil
}

func (l layout) number(r *csv.Reader, record []string, column int) (float64, error) {
	text := strings.TrimSpace(record[column])
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, l.at(r, column, fmt.Errorf("got %q, want a finite number", abbreviate(text)))
	}
	return v, nil
}

// at says where in the file err happened; lines count from 1.
func (l layout) at(r *csv.Reader, column int, err error) error {
	line, _ := r.FieldPos(column)
	return fmt.Errorf("line %d, column %q: %w", line, l.names[column], err)
}

// enumerate maps values to 0, 1, … in ascending order, by number where all are.
func enumerate(values []string) (labels []int, classes []string) {
	index := map[string]int{}
	for _, v := range values {
		index[v] = 0
	}
	classes = slices.Collect(maps.Keys(index))
	numeric := !slices.ContainsFunc(classes, func(s string) bool { return !isNumber(s) })
	slices.SortFunc(classes, func(a, b string) int {
		if numeric {
			x, _ := strconv.ParseFloat(a, 64)
			y, _ := strconv.ParseFloat(b, 64)
			if c := cmp.Compare(x, y); c != 0 {
				return c
			}
		}
		return strings.Compare(a, b)
	})
	for i, c := range classes {
		index[c] = i
	}
	labels = make([]int, len(values))
	for i, v := range values {
		labels[i] = index[v]
	}
	return labels, classes
}

func isNumber(s string) bool {
	_, err := strconv.ParseFloat(s, 64)
	return err == nil || errors.Is(err, strconv.ErrRange)
}

// abbreviate keeps an error message short.
func abbreviate(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// recordLimit fails after maxRecord bytes; its user sets n to 0 after every
// record.
type recordLimit struct {
	r io.Reader
	n int
}

func (l *recordLimit) Read(p []byte) (int, error) {
	if l.n > maxRecord {
		return 0, fmt.Errorf("a record of more than %d bytes", maxRecord)
	}
	n, err := l.r.Read(p)
	l.n += n
	return n, err
}
