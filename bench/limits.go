package bench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/fortet/fortet/gpu"
)

// Ceilings are what hardware can do at most, for all workers together, a
// second. A rate of 0 is not known, and no limit follows from it.
type Ceilings struct {
	Flops    float64 `json:"flops,omitzero"`       // floating-point operations, a multiply-add counting two
	Matrix   float64 `json:"matrix,omitzero"`      // those of matrix products
	Exps     float64 `json:"exps,omitzero"`        // exponentials and other special functions
	Integers float64 `json:"integers,omitzero"`    // 32-bit products to 64 bits, and exclusive ors
	Read     float64 `json:"read,omitzero"`        // bytes read from memory and nothing written
	Write    float64 `json:"write,omitzero"`       // bytes written and nothing read
	Copy     float64 `json:"copy,omitzero"`        // bytes read and as many written, together
	Cache    float64 `json:"cache_bytes,omitzero"` // below which work need not go to memory
	Source   string  `json:"source"`               // where the numbers come from
}

// limit is the least time that a piece of work takes: the longest of what its
// parts take, as if they all ran beside each other. nil where no rate is known.
func (c Ceilings) limit(w Cost) *Limit {
	if c.Matrix == c.Flops { // one unit does both
		w.Flops, w.Matrix = w.Matrix.plus(w.Flops), Count{}
	}
	memory, memoryFormula := c.memory(w)
	l := &Limit{Ceilings: &c}
	var terms []string
	for _, term := range []struct {
		name, what, unit string
		count            Count
		rate             float64
	}{
		{"exponentials", "exp", "exp/s", w.Exps, c.Exps},
		{"matrix products", "flop", "FLOP/s", w.Matrix, c.Matrix},
		{"arithmetic", "flop", "FLOP/s", w.Flops, c.Flops},
		{"integers", "int", "int/s", w.Integers, c.Integers},
	} {
		if term.count.Number == 0 || term.rate == 0 {
			continue
		}
		terms = append(terms, fmt.Sprintf("%s %s / %s", term.count.Formula, term.what, giga(term.rate, term.unit)))
		if t := term.count.Number / term.rate; t > l.Seconds {
			l.Seconds, l.Binding = t, term.name
		}
	}
	if memoryFormula != "" {
		terms = append(terms, memoryFormula)
		if memory > l.Seconds {
			l.Seconds, l.Binding = memory, "memory"
		}
	}
	if l.Seconds == 0 {
		return nil
	}
	l.Formula = terms[0]
	if len(terms) > 1 {
		l.Formula = "max(" + strings.Join(terms, ", ") + ")"
	}
	l.Formula += "; " + c.Source
	return l
}

// memory is the time that bytes take to and from memory: as much as is both
// read and written at the rate of copying, what is left at that of reading or
// writing. What a cache holds need not move.
func (c Ceilings) memory(w Cost) (seconds float64, formula string) {
	read, written := w.Read.Number, w.Written.Number
	both := 2 * math.Min(read, written)
	switch {
	case read+written == 0 || read+written < c.Cache || c.Read == 0 || c.Write == 0 || c.Copy == 0:
		return 0, ""
	case c.Read == c.Write && c.Read == c.Copy:
		return (read + written) / c.Read, fmt.Sprintf("%s bytes / %s", w.Read.plus(w.Written).Formula, giga(c.Read, "B/s"))
	}
	seconds = both/c.Copy + (read-both/2)/c.Read + (written-both/2)/c.Write
	var parts []string
	part := func(formula string, rate float64) {
		parts = append(parts, fmt.Sprintf("%s bytes / %s", formula, giga(rate, "B/s")))
	}
	switch {
	case written == 0:
		part(w.Read.Formula, c.Read)
	case read == 0:
		part(w.Written.Formula, c.Write)
	case read >= written:
		part("2·"+w.Written.Formula, c.Copy)
		if read > written {
			part("the rest of "+w.Read.Formula, c.Read)
		}
	default:
		part("2·"+w.Read.Formula, c.Copy)
		part("the rest of "+w.Written.Formula, c.Write)
	}
	return seconds, strings.Join(parts, " + ")
}

// giga writes a rate in thousands of millions, or of thousands of them.
func giga(rate float64, unit string) string {
	if rate >= 1e12 {
		return fmt.Sprintf("%.3g T%s", rate/1e12, unit)
	}
	return fmt.Sprintf("%.3g G%s", rate/1e9, unit)
}

// largestCache is the bytes of the CPU's largest cache by Linux's account, or 32
// MiB elsewhere.
func largestCache() float64 {
	most := 0
	sizes, _ := filepath.Glob("/sys/devices/system/cpu/cpu0/cache/index*/size")
	for _, file := range sizes {
		text, err := os.ReadFile(file)
		var kib int
		if _, scan := fmt.Sscanf(string(text), "%dK", &kib); err == nil && scan == nil {
			most = max(most, kib<<10)
		}
	}
	if most == 0 {
		most = 32 << 20
	}
	return float64(most)
}

// measured keeps the ceilings of devices, which take a second to measure.
type measured struct {
	units  map[unitsKey]Ceilings
	memory map[int]Ceilings    // by workers
	copied map[string]Ceilings // by device
}

type unitsKey struct {
	level         gpu.Level
	workers, bits int
}

// once is what m has for a key, or else what measure finds.
func once[K comparable](m *map[K]Ceilings, key K, measure func() (Ceilings, error)) (Ceilings, error) {
	if c, ok := (*m)[key]; ok {
		return c, nil
	}
	c, err := measure()
	if err != nil {
		return c, err
	}
	if *m == nil {
		*m = map[K]Ceilings{}
	}
	(*m)[key] = c
	return c, nil
}

// cpu are the ceilings of so many workers on elements of so many bits.
func (m *measured) cpu(level gpu.Level, workers, bits int) (Ceilings, error) {
	c, err := once(&m.units, unitsKey{level, workers, bits}, func() (Ceilings, error) { return measureUnits(level, workers, bits) })
	if err != nil {
		return c, err
	}
	memory, err := once(&m.memory, workers, func() (Ceilings, error) { return measureMemory(workers) })
	c.Read, c.Write, c.Copy, c.Cache = memory.Read, memory.Write, memory.Copy, memory.Cache
	return c, err
}

// of are the ceilings of a device in a setting: measured on a CPU, from the
// table of models or else by copying on a GPU, none under emulation.
func (m *measured) of(dev gpu.Device, s Setting) (Ceilings, error) {
	props := dev.Properties()
	switch props.Kind {
	case gpu.CPU:
		level, err := gpu.ParseLevel(props.Features)
		if err != nil {
			return Ceilings{}, err
		}
		return m.cpu(level, props.Workers, 8*s.element())
	case gpu.CUDA:
		if model, ok := modelOf(props.Model, props.Workers); ok {
			return model.Ceilings(s), nil
		}
		return m.copying(dev, 1<<26)
	}
	return Ceilings{}, nil
}
