package dataset

import (
	"fmt"

	"github.com/fortet/fortet/tensor/npy"
)

func openNPY(path string, _ *options) (*table, error) {
	a, err := npy.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return fromArray(a)
}

func openNPZ(path string, o *options) (*table, error) {
	z, err := npy.ReadNPZFile(path)
	if err != nil {
		return nil, err
	}
	name := o.text("array", "")
	if names := z.Names(); !o.has("array") {
		if len(names) != 1 {
			return nil, fmt.Errorf("%d arrays, want the option array to name one of %q", len(names), names)
		}
		name = names[0]
	}
	a, err := z.Get(name)
	if err != nil {
		return nil, fmt.Errorf("option array: %w", err)
	}
	return fromArray(a)
}

// fromArray makes points of an array of shape (n, …), of whatever type.
func fromArray(a *npy.Array) (*table, error) {
	if len(a.Shape) == 0 {
		return nil, fmt.Errorf("a scalar, want an array of shape (n, …)")
	}
	if a.Len() == 0 || a.Len() > maxValues {
		return nil, fmt.Errorf("shape %s, want 1 to %d values", npy.FormatShape(a.Shape), maxValues)
	}
	t := &table{n: a.Shape[0], d: a.Len() / a.Shape[0]}
	if bytes, ok := a.Data.([]uint8); ok {
		t.bytes, t.divisor = bytes, 1
	} else {
		t.floats = a.Float64s()
	}
	return t, nil
}
