package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/atomicfile"
	"github.com/fortet/fortet/tensor/npy"
)

// Write writes arrays and metadata, which may be nil. Equal content gives
// equal bytes. Arguments are checked before anything is written; their errors
// wrap gpu.ErrInvalid.
func Write(w io.Writer, arrays map[string]*npy.Array, metadata map[string]string) error {
	plan, err := newPlan(arrays, metadata)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if err := plan.write(w); err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	return nil
}

// WriteFile makes path hold arrays and metadata. The file is replaced as a
// whole: after an error, or where the process is killed, it is what it was
// before.
func WriteFile(path string, arrays map[string]*npy.Array, metadata map[string]string) error {
	plan, err := newPlan(arrays, metadata)
	if err != nil {
		return fmt.Errorf("safetensors: %s: %w", path, err)
	}
	if err := atomicfile.Write(path, plan.write); err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	return nil
}

// plan is a header and the arrays in the order in which they follow it.
type plan struct {
	header []byte
	arrays []*npy.Array
}

func newPlan(arrays map[string]*npy.Array, metadata map[string]string) (*plan, error) {
	names := slices.Sorted(maps.Keys(arrays)) // so that of several faults the same is reported
	ranks := make(map[string]int, len(names))
	for _, name := range names {
		if err := check(name, arrays[name]); err != nil {
			return nil, err
		}
		d := arrays[name].DType()
		for rank, c := range codes {
			if c.dtype == d {
				ranks[name] = rank
			}
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(-cmp.Compare(ranks[a], ranks[b]), cmp.Compare(a, b))
	})

	p := &plan{}
	h := bytes.NewBuffer(make([]byte, 8)) // the length comes last
	h.WriteByte('{')
	separator := ""
	if len(metadata) > 0 {
		writeString(h, metadataKey)
		h.WriteString(":{")
		for _, key := range slices.Sorted(maps.Keys(metadata)) {
			value := metadata[key]
			if !utf8.ValidString(key) || !utf8.ValidString(value) {
				return nil, fmt.Errorf("metadata: %.80q: %.80q is not UTF-8: %w", key, value, gpu.ErrInvalid)
			}
			h.WriteString(separator)
			writeString(h, key)
			h.WriteByte(':')
			writeString(h, value)
			separator = ","
		}
		h.WriteByte('}')
		separator = ","
	}
	at := 0
	for _, name := range names {
		a := arrays[name]
		bytes := a.Len() * a.DType().Bytes()
		if bytes > math.MaxInt-at {
			return nil, fmt.Errorf("data: overflows int: %w", gpu.ErrInvalid)
		}
		h.WriteString(separator)
		writeString(h, name)
		fmt.Fprintf(h, `:{"dtype":"%s","shape":[`, codes[ranks[name]].code)
		for i, extent := range a.Shape {
			if i > 0 {
				h.WriteByte(',')
			}
			fmt.Fprint(h, extent)
		}
		fmt.Fprintf(h, `],"data_offsets":[%d,%d]}`, at, at+bytes)
		separator = ","
		at += bytes
		p.arrays = append(p.arrays, a)
	}
	h.WriteByte('}')
	for h.Len()%8 != 0 {
		h.WriteByte(' ')
	}
	if h.Len()-8 > maxHeader {
		return nil, fmt.Errorf("header: %d bytes, want at most %d: %w", h.Len()-8, maxHeader, gpu.ErrInvalid)
	}
	p.header = h.Bytes()
	binary.LittleEndian.PutUint64(p.header, uint64(len(p.header)-8))
	return p, nil
}

func check(name string, a *npy.Array) error {
	if name == metadataKey {
		return fmt.Errorf("array %q: the format keeps this name for metadata: %w", name, gpu.ErrInvalid)
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("array %.80q: the name is not UTF-8: %w", name, gpu.ErrInvalid)
	}
	if err := a.Validate(); err != nil {
		return fmt.Errorf("array %.80q: %w", name, err)
	}
	return nil
}

// writeString writes a JSON string that escapes only what must be, as the
// format's own library does; encoding/json escapes more.
func writeString(b *bytes.Buffer, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case '\b':
			b.WriteString(`\b`)
		case '\f':
			b.WriteString(`\f`)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		default:
			if r < ' ' {
				fmt.Fprintf(b, `\u%04x`, r)
				continue
			}
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

func (p *plan) write(w io.Writer) error {
	if _, err := w.Write(p.header); err != nil {
		return err
	}
	for _, a := range p.arrays {
		if err := npy.WriteData(w, a); err != nil {
			return err
		}
	}
	return nil
}
