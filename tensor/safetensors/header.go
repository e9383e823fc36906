package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/fortet/fortet/tensor/npy"
)

// codes are the format's names of types, in the order in which its library
// ranks them: data is laid out from the last to the first.
var codes = [...]struct {
	code  string
	dtype npy.DType
}{
	{"BOOL", npy.Bool},
	{"U8", npy.U8},
	{"I8", npy.I8},
	{"I16", npy.I16},
	{"U16", npy.U16},
	{"F16", npy.F16},
	{"BF16", npy.BF16},
	{"I32", npy.I32},
	{"U32", npy.U32},
	{"F32", npy.F32},
	{"F64", npy.F64},
	{"I64", npy.I64},
	{"U64", npy.U64},
}

const metadataKey = "__metadata__"

// parseHeader reads
//
//	{"__metadata__": {"key": "value"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
//
// It goes by tokens, because decoding into a map would hide repeated names.
func parseHeader(text []byte) ([]Info, map[string]string, error) {
	if len(text) == 0 || text[0] != '{' {
		return nil, nil, malformed("header: begins with %q, want '{'", text[:min(1, len(text))])
	}
	if !utf8.Valid(text) {
		return nil, nil, malformed("header: is not UTF-8")
	}
	p := parser{json.NewDecoder(bytes.NewReader(text))}
	p.UseNumber()
	var infos []Info
	var metadata map[string]string
	seen := map[string]bool{}
	err := p.object(func(name string) error {
		if seen[name] {
			return malformed("header: name %.80q appears twice", name)
		}
		seen[name] = true
		if name == metadataKey {
			m, err := p.metadata()
			metadata = m
			return err
		}
		info, err := p.info()
		if err != nil {
			return fmt.Errorf("array %.80q: %w", name, err)
		}
		info.Name = name
		infos = append(infos, info)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	// The format pads with spaces.
	if rest := bytes.TrimLeft(text[p.InputOffset():], " "); len(rest) > 0 {
		return nil, nil, malformed("header: %.20q follows, want spaces", rest)
	}
	return infos, metadata, nil
}

type parser struct{ *json.Decoder }

// token returns the next token; its errors are those of the input.
func (p parser) token() (json.Token, error) {
	t, err := p.Token()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, malformed("header: JSON is cut short")
	}
	if err != nil {
		return nil, malformed("header: JSON at byte %d: %.100v", p.InputOffset(), err)
	}
	return t, nil
}

func (p parser) delimiter(want json.Delim) error {
	t, err := p.token()
	if err != nil {
		return err
	}
	if t != want {
		return malformed("got %.40q, want %q", fmt.Sprint(t), want.String())
	}
	return nil
}

// object calls field for every key; field must take the value.
func (p parser) object(field func(key string) error) error {
	if err := p.delimiter('{'); err != nil {
		return err
	}
	for p.More() {
		key, err := p.text()
		if err != nil {
			return err
		}
		if err := field(key); err != nil {
			return err
		}
	}
	return p.delimiter('}')
}

func (p parser) text() (string, error) {
	t, err := p.token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", malformed("got %.40q, want a string", fmt.Sprint(t))
	}
	return s, nil
}

func (p parser) metadata() (map[string]string, error) {
	m := map[string]string{}
	err := p.object(func(key string) error {
		if _, ok := m[key]; ok {
			return malformed("key %.80q appears twice", key)
		}
		value, err := p.text()
		m[key] = value
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", metadataKey, err)
	}
	return m, nil
}

func (p parser) info() (Info, error) {
	var info Info
	var places []int64
	seen := map[string]bool{}
	err := p.object(func(key string) error {
		if seen[key] {
			return malformed("key %.80q appears twice", key)
		}
		seen[key] = true
		var err error
		switch key {
		case "dtype":
			info.DType, err = p.dtype()
		case "shape":
			var extents []int64
			extents, err = p.integers(key, 64)
			info.Shape = make([]int, len(extents))
			for i, extent := range extents {
				info.Shape[i] = int(extent)
				if int64(info.Shape[i]) != extent {
					return malformed("shape: extent %d overflows", extent)
				}
			}
		case "data_offsets":
			places, err = p.integers(key, 2)
			if err == nil && len(places) != 2 {
				return malformed("data_offsets: %d numbers, want 2", len(places))
			}
		default:
			err = malformed("key %.80q, want dtype, shape and data_offsets", key)
		}
		return err
	})
	if err != nil {
		return info, err
	}
	for _, key := range []string{"dtype", "shape", "data_offsets"} {
		if !seen[key] {
			return info, malformed("no key %q", key)
		}
	}
	info.Begin, info.End = places[0], places[1]
	if info.End < info.Begin {
		return info, malformed("data_offsets: [%d, %d], want an end that is not before the beginning", info.Begin, info.End)
	}
	return info, nil
}

func (p parser) dtype() (npy.DType, error) {
	s, err := p.text()
	if err != nil {
		return npy.Invalid, err
	}
	for _, c := range codes {
		if c.code == s {
			return c.dtype, nil
		}
	}
	return npy.Invalid, malformed("dtype: %.40q is not read, want BOOL, I8 to I64, U8 to U64, F16, BF16, F32 or F64", s)
}

// integers reads a list of at most limit integers that are not negative.
func (p parser) integers(key string, limit int) ([]int64, error) {
	if err := p.delimiter('['); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	list := []int64{}
	for p.More() {
		if len(list) == limit {
			return nil, malformed("%s: more than %d numbers", key, limit)
		}
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		number, ok := t.(json.Number)
		if !ok {
			return nil, malformed("%s: got %.40q, want an integer", key, fmt.Sprint(t))
		}
		n, err := strconv.ParseInt(number.String(), 10, 64)
		if errors.Is(err, strconv.ErrRange) {
			return nil, malformed("%s: %.40s overflows", key, number)
		}
		if err != nil || n < 0 {
			return nil, malformed("%s: got %.40s, want an integer that is not negative", key, number)
		}
		list = append(list, n)
	}
	return list, p.delimiter(']')
}
