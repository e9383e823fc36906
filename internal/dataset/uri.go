package dataset

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// address is a URI taken apart.
type address struct {
	name, path string
	hasPath    bool
	pairs      []pair // options, in their order
}

type pair struct{ key, value string }

// parse takes a URI apart; it knows no names.
func parse(text string) (address, error) {
	var a address
	if strings.ContainsFunc(text, unicode.IsControl) {
		return a, errors.New("a control character, want none")
	}
	head, query, hasQuery := strings.Cut(text, "?")
	a.name, a.path, a.hasPath = strings.Cut(head, ":")
	if a.name == "" {
		return a, errors.New("no name before : and ?, want name[:path][?option=value&…]")
	}
	if !hasQuery || query == "" {
		return a, nil
	}
	for part := range strings.SplitSeq(query, "&") {
		key, value, ok := strings.Cut(part, "=")
		if !ok || key == "" {
			return a, fmt.Errorf("option %q: want option=value", part)
		}
		// Not QueryUnescape: 1e+3 and "a and b" mean what they say.
		value, err := url.PathUnescape(value)
		if err != nil {
			return a, fmt.Errorf("option %s: %w", key, err)
		}
		if key != "where" && slices.ContainsFunc(a.pairs, func(p pair) bool { return p.key == key }) {
			return a, fmt.Errorf("option %s: given twice", key)
		}
		a.pairs = append(a.pairs, pair{key, value})
	}
	return a, nil
}

// key identifies the random draws of a set: its name, the last element of its
// path, and its options but n and seed, in any order.
func (a address) key() uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%q", a.name)
	if a.hasPath {
		fmt.Fprintf(h, ":%q", filepath.Base(a.path))
	}
	var parts []string
	for _, p := range a.pairs {
		if p.key != "n" && p.key != "seed" {
			parts = append(parts, fmt.Sprintf("&%q=%q", p.key, p.value))
		}
	}
	slices.Sort(parts)
	fmt.Fprint(h, strings.Join(parts, ""))
	return h.Sum64()
}

// accept checks that the options are those of s.
func (a address) accept(s set) (*options, error) {
	switch wantsPath := s.path != ""; {
	case a.hasPath && !wantsPath:
		return nil, fmt.Errorf("path: got %q, want none: the form is %s", a.path, s.form())
	case wantsPath && a.path == "":
		return nil, fmt.Errorf("path: got none, want a %s: the form is %s", s.path, s.form())
	}
	known := s.optionNames()
	o := &options{values: map[string][]string{}}
	for _, p := range a.pairs {
		if !slices.Contains(known, p.key) {
			return nil, fmt.Errorf("option %q: unknown, want one of %s", p.key, strings.Join(known, ", "))
		}
		o.values[p.key] = append(o.values[p.key], p.value)
	}
	return o, nil
}

// options reads option values and keeps the first thing that was wrong.
type options struct {
	values map[string][]string
	err    error
}

func (o *options) fail(key, got, want string) {
	if o.err == nil {
		o.err = fmt.Errorf("option %s: got %q, want %s", key, got, want)
	}
}

func (o *options) has(key string) bool { return o.values[key] != nil }

// text returns a value as it stands.
func (o *options) text(key, otherwise string) string {
	if v := o.values[key]; v != nil {
		return v[0]
	}
	return otherwise
}

// word returns one of the allowed values; the first is the default.
func (o *options) word(key string, allowed ...string) string {
	v := o.text(key, allowed[0])
	if !slices.Contains(allowed, v) {
		o.fail(key, v, "one of "+strings.Join(allowed, ", "))
	}
	return v
}

// list returns the elements of a comma-separated list, or nil.
func (o *options) list(key string) []string {
	if !o.has(key) {
		return nil
	}
	elements := strings.Split(o.text(key, ""), ",")
	for i, e := range elements {
		elements[i] = strings.TrimSpace(e)
		if elements[i] == "" {
			o.fail(key, o.text(key, ""), "a comma-separated list without empty elements")
		}
	}
	return elements
}

func (o *options) number(key string, otherwise float64) float64 {
	if !o.has(key) {
		return otherwise
	}
	return o.parseNumber(key, o.text(key, ""))
}

// numbers returns a comma-separated list of numbers; without the option, one
// number.
func (o *options) numbers(key string, otherwise float64) []float64 {
	if !o.has(key) {
		return []float64{otherwise}
	}
	var x []float64
	for _, e := range o.list(key) {
		x = append(x, o.parseNumber(key, e))
	}
	return x
}

func (o *options) parseNumber(key, text string) float64 {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		o.fail(key, text, "a finite number")
		return 0
	}
	return x
}

func (o *options) integer(key string, otherwise, low, high int) int {
	if !o.has(key) {
		return otherwise
	}
	text := o.text(key, "")
	i, err := strconv.Atoi(text)
	if err != nil || i < low || i > high {
		o.fail(key, text, fmt.Sprintf("a whole number from %d to %d", low, high))
		return otherwise
	}
	return i
}

func (o *options) seed() uint64 {
	text := o.text("seed", "0")
	seed, err := strconv.ParseUint(text, 0, 64)
	if err != nil {
		o.fail("seed", text, "a whole number from 0 to 2^64-1")
	}
	return seed
}
