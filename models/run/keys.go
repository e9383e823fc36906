package run

import (
	"bytes"
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// key is a leaf of the configuration.
type key struct {
	name  string        // "train.lr"
	value reflect.Value // settable
	may   bounds        // of numbers
	fixed bool          // written by the program, not by Set
}

// keys lists the leaves in the order of the file.
func (c *Config) keys() []key {
	var list []key
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			field := v.Type().Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if field.Type.Kind() == reflect.Struct {
				walk(prefix+name+".", v.Field(i))
				continue
			}
			list = append(list, key{prefix + name, v.Field(i), parseBounds(field.Tag.Get("range")), field.Tag.Get("fixed") != ""})
		}
	}
	walk("", reflect.ValueOf(c).Elem())
	return list
}

// set parses the text of a value. Its errors say what was found and wanted.
func (k key) set(text string) error {
	if u, ok := k.value.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			return err
		}
		if k.value.Kind() != reflect.Float64 {
			return nil // a word
		}
		return k.check(text)
	}
	switch k.value.Kind() {
	case reflect.Int:
		x, err := parseFloat(text) // 1e4 is a whole number too
		if err != nil || x != math.Trunc(x) || math.Abs(x) > 1<<53 {
			return invalid("got %s, want %s", quote(text), k.may)
		}
		k.value.SetInt(int64(x))
	case reflect.Uint64:
		x, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return invalid("got %s, want a whole number from 0 to 2^64-1", quote(text))
		}
		k.value.SetUint(x)
		return nil
	case reflect.Float64:
		x, err := parseFloat(text)
		if err != nil {
			return invalid("got %s, want %s", quote(text), k.may)
		}
		k.value.SetFloat(x)
	default:
		k.value.SetString(text)
	}
	return k.check(text)
}

// check refuses what a value may not be; text is how it was written.
func (k key) check(text string) error {
	if k.may != (bounds{}) {
		x := 0.0
		if k.value.CanInt() {
			x = float64(k.value.Int())
		} else {
			x = k.value.Float()
		}
		if !k.may.contains(x) {
			return invalid("got %s, want %s", shorten(text), k.may)
		}
	}
	if k.value.Kind() == reflect.String {
		if s := k.value.String(); !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
			return invalid("got %s, want text of one line", quote(s))
		}
	}
	return nil
}

// find returns the index of the key that a name means: all of it, or its last
// part where that belongs to one key.
func find(names []string, name string) (int, error) {
	if i := slices.Index(names, name); i >= 0 {
		return i, nil
	}
	var same, section []string
	at := -1
	for i, n := range names {
		if strings.HasSuffix(n, "."+name) {
			at, same = i, append(same, n)
		}
		if head, _, ok := strings.Cut(name, "."); ok && strings.HasPrefix(n, head+".") {
			section = append(section, n)
		}
	}
	switch {
	case len(same) == 1:
		return at, nil
	case len(same) > 1:
		return -1, invalid("key %s could be %s", quote(name), strings.Join(same, " or "))
	case len(section) > 0:
		return -1, invalid("unknown key %s, want one of %s", quote(name), strings.Join(section, ", "))
	}
	return -1, invalid("unknown key %s, want one of %s", quote(name), strings.Join(names, ", "))
}

// Set changes one value by "key=value", where key is as in train.lr, or its
// last part. A value that is not allowed leaves c as it was.
func (c *Config) Set(assignment string) error {
	name, text, ok := strings.Cut(assignment, "=")
	if !ok {
		return invalid("config: got %s, want key=value", quote(assignment))
	}
	next := *c
	keys := next.keys()
	var names []string
	for _, k := range keys {
		names = append(names, k.name)
	}
	i, err := find(names, strings.TrimSpace(name))
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if keys[i].fixed {
		return invalid("config: %s: is written by the program and cannot be set", keys[i].name)
	}
	if err := keys[i].set(strings.TrimSpace(text)); err != nil {
		return fmt.Errorf("config: %s: %w", keys[i].name, err)
	}
	*c = next
	return nil
}

// parse reads YAML. It goes by nodes, because decoding into the struct would
// cut 1.5 to 1 for an integer and name no keys.
func (c *Config) parse(data []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // an empty file leaves everything to the defaults
	case err != nil:
		return invalid("config: %v", err)
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return invalid("config: more than one document")
	}
	if len(doc.Content) != 1 {
		return invalid("config: no document")
	}
	p := parser{}
	for _, k := range c.keys() {
		p.keys, p.names = append(p.keys, k), append(p.names, k.name)
	}
	p.seen = make([]bool, len(p.keys))
	p.mapping("", doc.Content[0])
	if i := slices.Index(p.names, "version"); p.seen[i] && c.Version != 0 && c.Version != FormatVersion {
		// Whatever else is wrong follows from that.
		return invalid("config: version: got %d, want %d: another version of fortet wrote this", c.Version, FormatVersion)
	}
	return errors.Join(p.faults...)
}

type parser struct {
	keys   []key
	names  []string
	seen   []bool
	faults []error
}

// maxFaults is how many faults are worth reading.
const maxFaults = 50

func (p *parser) bad(n *yaml.Node, format string, v ...any) {
	if len(p.faults) == maxFaults {
		p.faults = append(p.faults, invalid("config: line %d: more faults", n.Line))
	}
	if len(p.faults) > maxFaults {
		return
	}
	p.faults = append(p.faults, invalid("config: line %d: %s", n.Line, fmt.Sprintf(format, v...)))
}

// mapping reads a section, or the whole where prefix is empty.
func (p *parser) mapping(prefix string, n *yaml.Node) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.bad(n, "%s: want keys and values", cmp.Or(strings.TrimSuffix(prefix, "."), "the document"))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		name := prefix + k.Value
		isSection := func(s string) bool { return strings.HasPrefix(s, name+".") }
		switch at := slices.Index(p.names, name); {
		case k.Kind == yaml.ScalarNode && at >= 0 && !strings.Contains(k.Value, "."):
			p.scalar(at, v)
		case k.Kind == yaml.ScalarNode && prefix == "" && slices.ContainsFunc(p.names, isSection):
			p.mapping(name+".", v)
		default:
			// Names with dots and short ones are for Set alone.
			var known []string
			for _, s := range p.names {
				rest := strings.TrimPrefix(s, prefix)
				if head, _, _ := strings.Cut(rest, "."); strings.HasPrefix(s, prefix) && !slices.Contains(known, head) {
					known = append(known, head)
				}
			}
			p.bad(k, "unknown key %s, want one of %s", quote(name), strings.Join(known, ", "))
		}
	}
}

func (p *parser) scalar(at int, v *yaml.Node) {
	name := p.names[at]
	switch {
	case p.seen[at]:
		p.bad(v, "%s: given twice", name)
	case v.Kind != yaml.ScalarNode || v.Style&yaml.TaggedStyle != 0:
		p.bad(v, "%s: want a single value", name)
	case isNull(v):
	default:
		if err := p.keys[at].set(v.Value); err != nil {
			p.bad(v, "%s: %v", name, err)
		}
	}
	p.seen[at] = true
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Style&yaml.TaggedStyle == 0 && n.ShortTag() == "!!null"
}
