package npy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	magic = "\x93NUMPY"
	// NumPy pads headers until the data is aligned to this.
	alignment = 64
	// A header of 64 dimensions needs 2 kB. Version 2 can claim 4 GB.
	maxHeader = 1 << 16
	// NumPy leaves room for the extent along which appending would grow the
	// array to become this many digits long.
	growthDigits = 21
)

// header is what an .npy file says about its data.
type header struct {
	dtype   DType
	big     bool // big-endian
	fortran bool // column-major
	shape   []int
	count   int // elements
	bytes   int // of the header, with magic and padding
}

// malformed is an error of the input.
func malformed(format string, args ...any) error {
	return &formatError{fmt.Sprintf(format, args...)}
}

type formatError struct{ text string }

func (e *formatError) Error() string { return e.text }
func (e *formatError) Unwrap() error { return ErrFormat }

// readFull fills p with what, or says how much of it is missing.
func readFull(r io.Reader, p []byte, what string) error {
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed("%s: cut short after %d bytes, want %d", what, n, len(p))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func readHeader(r io.Reader) (header, error) {
	var h header
	prefix := make([]byte, len(magic)+2)
	n, err := io.ReadFull(r, prefix)
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return h, fmt.Errorf("header: %w", err)
	case !strings.HasPrefix(magic, string(prefix[:min(n, len(magic))])):
		return h, notNPY(prefix[:n])
	case err != nil:
		return h, malformed("header: cut short after %d bytes, want at least %d", n, len(prefix))
	}
	major, minor := prefix[len(magic)], prefix[len(magic)+1]
	if major < 1 || major > 3 || minor != 0 {
		return h, malformed("header: format version %d.%d, want 1.0, 2.0 or 3.0", major, minor)
	}
	length := make([]byte, 4)
	if major == 1 {
		length = length[:2]
	}
	if err := readFull(r, length, "header length"); err != nil {
		return h, err
	}
	size := uint32(binary.LittleEndian.Uint16(length))
	if major > 1 {
		size = binary.LittleEndian.Uint32(length)
	}
	if size > maxHeader {
		return h, malformed("header: claims %d bytes, want at most %d", size, maxHeader)
	}
	text := make([]byte, size)
	if err := readFull(r, text, "header"); err != nil {
		return h, err
	}
	h.bytes = len(prefix) + len(length) + len(text)
	if err := parseHeader(string(text), &h); err != nil {
		return h, err
	}
	count, err := Count(h.shape, h.dtype)
	if err != nil {
		return h, malformed("header: %v", err)
	}
	h.count = count
	return h, nil
}

// notNPY tells common mix-ups apart.
func notNPY(prefix []byte) error {
	switch {
	case bytes.HasPrefix(prefix, []byte("PK")):
		return malformed("header: this is a zip archive, want .npy; read it as .npz")
	case prefix[0] == 0x80:
		return malformed("header: this is a Python pickle, which may run code and is not read, want .npy")
	}
	return malformed("header: begins with %q, want %q", prefix[:min(len(prefix), len(magic))], magic)
}

// parser reads the Python dictionary of a header:
//
//	{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }
//
// It knows string literals without escapes, True and False, and tuples of
// integers, which is all that a header of numbers holds.
type parser struct {
	text string
	at   int
}

func parseHeader(text string, h *header) error {
	p := parser{text: text}
	if !p.take('{') {
		return p.want("'{'")
	}
	seen := map[string]bool{}
	for !p.take('}') {
		key, err := p.stringLiteral()
		if err != nil {
			return err
		}
		if !p.take(':') {
			return p.want("':'")
		}
		if seen[key] {
			return malformed("header: key %q appears twice", key)
		}
		seen[key] = true
		switch key {
		case "descr":
			err = p.descr(h)
		case "fortran_order":
			h.fortran, err = p.boolean()
		case "shape":
			h.shape, err = p.tuple()
		default:
			err = malformed("header: key %.40q, want descr, fortran_order and shape", key)
		}
		if err != nil {
			return err
		}
		if !p.take(',') && p.peek() != '}' {
			return p.want("',' or '}'")
		}
	}
	if p.peek() != 0 || p.at < len(p.text) {
		return p.want("the end")
	}
	for _, key := range []string{"descr", "fortran_order", "shape"} {
		if !seen[key] {
			return malformed("header: no key %q", key)
		}
	}
	return nil
}

// peek returns the next byte after white space, 0 at the end.
func (p *parser) peek() byte {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n\f", p.text[p.at]) >= 0 {
		p.at++
	}
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *parser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.at++
	return true
}

func (p *parser) want(what string) error {
	p.peek()
	return malformed("header: byte %d: got %.20q, want %s", p.at, p.text[p.at:], what)
}

func (p *parser) stringLiteral() (string, error) {
	quote := p.peek()
	if quote != '\'' && quote != '"' {
		return "", p.want("a string")
	}
	n := strings.IndexAny(p.text[p.at+1:], string(quote)+"\\\n")
	if n < 0 || p.text[p.at+1+n] != quote {
		return "", p.want("a string without escapes that ends")
	}
	s := p.text[p.at+1 : p.at+1+n]
	p.at += n + 2
	return s, nil
}

func (p *parser) boolean() (bool, error) {
	p.peek()
	switch rest := p.text[p.at:]; {
	case strings.HasPrefix(rest, "True"):
		p.at += len("True")
		return true, nil
	case strings.HasPrefix(rest, "False"):
		p.at += len("False")
		return false, nil
	}
	return false, p.want("True or False")
}

func (p *parser) tuple() ([]int, error) {
	if !p.take('(') {
		return nil, p.want("a tuple of integers")
	}
	shape := []int{}
	comma := true // before the first element
	for !p.take(')') {
		if !comma {
			return nil, p.want("',' or ')'")
		}
		if len(shape) == maxDims {
			return nil, malformed("header: shape: more than %d dimensions", maxDims)
		}
		p.peek()
		n := 0
		for p.at+n < len(p.text) && (p.text[p.at+n] >= '0' && p.text[p.at+n] <= '9' || n == 0 && p.text[p.at] == '-') {
			n++
		}
		extent, err := strconv.Atoi(p.text[p.at : p.at+n])
		if errors.Is(err, strconv.ErrRange) {
			return nil, malformed("header: shape: extent %.40s overflows", p.text[p.at:p.at+n])
		}
		if err != nil {
			return nil, p.want("an integer")
		}
		p.at += n
		if p.at < len(p.text) && p.text[p.at] == 'L' {
			p.at++ // a long integer of Python 2
		}
		shape = append(shape, extent)
		comma = p.take(',')
	}
	if len(shape) == 1 && !comma {
		return nil, malformed("header: shape: (%d) is an integer, want the tuple (%d,)", shape[0], shape[0])
	}
	return shape, nil
}

// descr reads the element type.
func (p *parser) descr(h *header) error {
	if p.peek() == '[' {
		return malformed("header: structured elements are not read, want numbers")
	}
	s, err := p.stringLiteral()
	if err != nil {
		return err
	}
	if len(s) < 2 || strings.IndexByte("<>|=", s[0]) < 0 {
		return malformed("header: descr: got %.40q, want a byte order and a type such as '<f4'", s)
	}
	order, kind := s[0], s[1:]
	for d, t := range dtypes {
		if t.descr == "" || t.descr[1:] != kind {
			continue
		}
		if order == '|' && t.bytes > 1 {
			return malformed("header: descr: %q has no byte order, want '<' or '>'", s)
		}
		h.dtype, h.big = DType(d), order == '>' && t.bytes > 1
		return nil
	}
	switch kind[0] {
	case 'O':
		return malformed("header: descr: %.40q holds Python objects as a pickle, which may run code and is not read, want numbers", s)
	case 'c':
		return malformed("header: descr: %.40q holds complex numbers, which are not read, want real numbers", s)
	}
	return malformed("header: descr: %.40q is not read, want bool, int8 to int64, uint8 to uint64 or float16 to float64", s)
}

// appendHeader appends the header that NumPy writes.
func appendHeader(b []byte, d DType, shape []int) []byte {
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': %s, }", dtypes[d].descr, FormatShape(shape))
	if len(shape) > 0 {
		text += strings.Repeat(" ", max(0, growthDigits-len(strconv.Itoa(shape[0]))))
	}
	// NumPy pads with a whole block where nothing would be missing. The
	// longest header, of 64 dimensions, is far below the 64 kB of version 1.
	prefix := len(magic) + 2 + 2
	size := len(text) + 1 + alignment - (prefix+len(text)+1)%alignment
	b = append(b, magic...)
	b = append(b, 1, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(size))
	b = append(b, text...)
	b = append(b, strings.Repeat(" ", size-len(text)-1)...)
	return append(b, '\n')
}
