package bench

import (
	"reflect"
	"strings"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Family is a kernel family as it is measured.
type Family struct {
	Name     string // what one asks for: "softmin"
	Kernel   string // its folder of kernels/
	Variants []Variant
}

// Variant is an operation of a family at one shape, over sizes from where a
// launch is all the time there is to where a device is full.
type Variant struct {
	Name  string // of the operation and of its rows: "softmin"
	Shape string // what is fixed: "d=64"
	Unit  string // what a size counts: "points a side"
	// Sizes go up. Typical is one of them: what a row of the CPU is measured at.
	Sizes   []int
	Typical int
	// DTypes that there is a kernel for; nil: float32 and float64.
	DTypes []tensor.DType
	// Tensor says that there are kernels for tensor cores too, in the named
	// precisions TF32 and BF16x3 of float32.
	Tensor bool
	// Work and Cost are those of a setting. Where the cost depends on the data,
	// it is that of a usual run, and that of a case is its own.
	Work func(Setting) Work
	Cost func(Setting) Cost
	// Open makes a case in memory of the device, from random inputs. Its error
	// wraps gpu.ErrUnsupported where the device has no such kernel.
	Open func(dev gpu.Device, s Setting) (*Case, error)
}

// Setting is what a variant leaves open.
type Setting struct {
	DType     tensor.DType
	Precision Precision
	Size      int
}

// Precision says which units compute matrix products.
type Precision string

// The precisions.
const (
	Native Precision = ""       // those of the element type
	TF32   Precision = "tf32"   // tensor cores, 10 bits of mantissa
	BF16x3 Precision = "bf16x3" // tensor cores, three products of split bfloat16
)

// String is the setting's precision as rows have it.
func (s Setting) String() string {
	if s.Precision != Native {
		return string(s.Precision)
	}
	return s.DType.String()
}

// element is the number of bytes of an element.
func (s Setting) element() int { return s.DType.Size() }

// Case is a piece of work that can be repeated.
type Case struct {
	// Cost is not nil where it depends on the data.
	Cost *Cost
	// Run queues the work once.
	Run func() error
	// Reset poisons what Run writes, and gives back their first values to arrays
	// that Run changes. A new case has been reset.
	Reset func() error
	// Check compares what one run after a reset left with the definition in
	// float64: the error of the element that used most of its budget, and that
	// budget.
	Check func() (worst, budget float64, err error)
	Free  func()

	written []tensor.Tensor // by Run
}

// Cost is what a piece of work must do at least, however it is done: what its
// limit on a device follows from.
type Cost struct {
	Flops    Count `json:"flops,omitzero"`    // floating-point operations outside matrix products, a multiply-add counting two
	Matrix   Count `json:"matrix,omitzero"`   // those of matrix products, which tensor cores can do
	Exps     Count `json:"exps,omitzero"`     // exponentials, logarithms, roots, sines and cosines
	Integers Count `json:"integers,omitzero"` // 32-bit products to 64 bits, and exclusive ors
	Read     Count `json:"read,omitzero"`     // bytes of inputs, each counted once
	Written  Count `json:"written,omitzero"`  // bytes of outputs, each counted once
}

// Count is a number and the formula that it comes from, in the letters of Work.
type Count struct {
	Number  float64 `json:"number"`
	Formula string  `json:"formula"`
}

func count(formula string, factors ...int) Count {
	n := 1.0
	for _, f := range factors {
		n *= float64(f)
	}
	return Count{n, formula}
}

func (c Count) plus(o Count) Count {
	switch {
	case c.Number == 0:
		return o
	case o.Number == 0:
		return c
	}
	return Count{c.Number + o.Number, c.Formula + " + " + o.Formula}
}

// families has a method for each family, in a file of its own: there is no list
// to keep.
type families struct{}

// Families are all families, by name.
func Families() []Family {
	v := reflect.ValueOf(families{})
	all := make([]Family, v.NumMethod()) // in the order of their names
	for i := range all {
		all[i] = v.Method(i).Interface().(func() Family)()
	}
	return all
}

// FamilyNames are the names of all families.
func FamilyNames() []string {
	var names []string
	for _, f := range Families() {
		names = append(names, f.Name)
	}
	return names
}

// String names a variant.
func (v Variant) String() string { return strings.TrimSpace(v.Name + " " + v.Shape) }

func (v Variant) dtypes() []tensor.DType {
	if v.DTypes == nil {
		return []tensor.DType{tensor.Float32, tensor.Float64}
	}
	return v.DTypes
}

// settings are those of a size and type: the element type's own precision
// first, and on a GPU those of its tensor cores.
func (v Variant) settings(kind gpu.Kind, dtype tensor.DType, size int) []Setting {
	all := []Setting{{dtype, Native, size}}
	if v.Tensor && dtype == tensor.Float32 && kind == gpu.CUDA {
		all = append(all, Setting{dtype, TF32, size}, Setting{dtype, BF16x3, size})
	}
	return all
}
