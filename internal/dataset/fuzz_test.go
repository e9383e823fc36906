package dataset

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// FuzzURI opens whatever is no file: no panic, errors of one line that wrap
// ErrInvalid, and points that have the promised shape.
func FuzzURI(f *testing.F) {
	for _, s := range sets() {
		f.Add(s.form())
		for _, o := range s.options {
			f.Add(s.form() + "?n=3&seed=2&" + o.name + "=3,1")
		}
	}
	f.Add("moons?noise=0.1&stretch_x=2&scale=-1e3")
	f.Add("csv:x?where=a==1 and b<2&where=c!=%41")
	f.Fuzz(func(t *testing.T, uri string) {
		u, err := parse(uri)
		if err == nil && u.path != "" {
			s, err := find(u)
			if err != nil {
				return
			}
			if o, err := u.accept(s); err == nil {
				o.conditions()
				o.list("columns")
				o.chosen(cifarClasses())
			}
			return
		}
		s, err := Open(uri)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("%q", err)
			}
			return
		}
		if s.Dim() > 1<<12 {
			return
		}
		n, finite := s.Finite()
		if finite && n < 1 || s.Dim() < 1 {
			t.Fatalf("%s: %d points of dimension %d", uri, n, s.Dim())
		}
		p, err := s.Sample(3, 1)
		if err != nil {
			return // values too large
		}
		if p.N != 3 || len(p.X) != 3*s.Dim() {
			t.Fatalf("%s: %d values for 3 points of dimension %d", uri, len(p.X), s.Dim())
		}
		if notFinite(p.X) >= 0 {
			t.Fatalf("%s: %v", uri, p.X)
		}
	})
}

func FuzzCSV(f *testing.F) {
	f.Add("a,b\n1,2\n3,4\n", "a==1", "b", false)
	f.Add("1;2\n3;4\n", "0>1", "1", true)
	f.Add("\xef\xbb\xbf\"a\"\tb\r\n1\t\"2\"\r\n", "a!=x", "", false)
	f.Fuzz(func(t *testing.T, content, where, label string, noHeader bool) {
		q := query{label: label, hasLabel: label != "", noHeader: noHeader}
		if c, ok := parseCondition(where); ok {
			q.conditions = append(q.conditions, c)
		}
		table, err := readCSV(strings.NewReader(content), q)
		if err != nil {
			return
		}
		if table.n < 1 || table.d < 1 || len(table.floats) != table.n*table.d || len(table.names) != table.d || notFinite(table.floats) >= 0 {
			t.Fatalf("%d×%d: %v", table.n, table.d, table.floats)
		}
		if q.hasLabel {
			for _, l := range table.labels {
				if l < 0 || l >= len(table.classes) {
					t.Fatalf("label %d of %q", l, table.classes)
				}
			}
		}
	})
}

func FuzzCIFAR(f *testing.F) {
	f.Add([]byte(cifarFile(1, 2)), uint16(math.MaxUint16))
	f.Add([]byte(cifarFile(1)[:100]), uint16(2))
	f.Fuzz(func(t *testing.T, raw []byte, mask uint16) {
		keep := make([]bool, 10)
		for i := range keep {
			keep[i] = mask>>i&1 == 1
		}
		table := &table{d: 3 * cifarPixels}
		err := table.appendCIFAR(raw, keep)
		if len(table.bytes) != table.n*table.d || len(table.labels) != table.n {
			t.Fatalf("%d rows: %d bytes, %d labels", table.n, len(table.bytes), len(table.labels))
		}
		if err == nil && len(raw)%cifarRecord != 0 {
			t.Fatalf("%d bytes accepted", len(raw))
		}
	})
}
