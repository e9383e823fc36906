package gemm_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gemm"
	kt "github.com/fortet/fortet/kernels/kerneltest"
)

// shape is a product as it is stored: batch = 0 has no batch axis, a once or
// twice shared operand has none in a batch, and rows are pad elements longer than they need.
type shape struct {
	batch, m, n, k   int
	ta, tb           bool // transposed
	sharedA, sharedB bool
	bias             bool
	pad              int
}

func (s shape) String() string {
	text := fmt.Sprintf("%dx%dx%d", s.m, s.n, s.k)
	if s.batch > 0 {
		text = fmt.Sprintf("%d·%s", s.batch, text)
	}
	for _, o := range []struct {
		on   bool
		name string
	}{{s.ta, "Aᵀ"}, {s.tb, "Bᵀ"}, {s.sharedA, "one A"}, {s.sharedB, "one B"}, {s.bias, "bias"}, {s.pad > 0, "padded"}} {
		if o.on {
			text += "," + o.name
		}
	}
	return text
}

// problem is a product with its data. Padding is NaN.
type problem[T kt.Float] struct {
	shape
	alpha, beta   float64
	a, b, c, bias []T
}

// stored is how an operand lies.
type stored struct {
	batch, rows, cols, lead int
	transposed              bool
}

func (o stored) len() int { return max(o.batch, 1) * o.rows * o.lead }

// at is the index of element (i, j) of op of matrix s.
func (o stored) at(s, i, j int) int {
	if o.transposed {
		i, j = j, i
	}
	if o.batch == 0 {
		s = 0
	}
	return (s*o.rows+i)*o.lead + j
}

func (s shape) operands() (a, b, c stored) {
	swap := func(o stored) stored {
		if o.transposed {
			o.rows, o.cols = o.cols, o.rows
		}
		o.lead = o.cols + s.pad
		return o
	}
	of := func(shared bool) int {
		if shared {
			return 0
		}
		return s.batch
	}
	return swap(stored{batch: of(s.sharedA), rows: s.m, cols: s.k, transposed: s.ta}),
		swap(stored{batch: of(s.sharedB), rows: s.k, cols: s.n, transposed: s.tb}), swap(stored{batch: s.batch, rows: s.m, cols: s.n})
}

// random is a problem of normal numbers. Where beta is 0, C begins as NaN.
func random[T kt.Float](s shape, alpha, beta float64, seed uint64) problem[T] {
	rng := rand.New(rand.NewPCG(seed, 11))
	fill := func(o stored) []T {
		v := make([]T, o.len())
		for i := range v {
			if v[i] = T(rng.NormFloat64()); i%o.lead >= o.cols {
				v[i] = T(math.NaN())
			}
		}
		return v
	}
	a, b, c := s.operands()
	p := problem[T]{shape: s, alpha: alpha, beta: beta, a: fill(a), b: fill(b), c: fill(c)}
	if beta == 0 {
		for i := range p.c {
			p.c[i] = T(math.NaN())
		}
	}
	if s.bias {
		p.bias = fill(stored{rows: 1, cols: s.n, lead: s.n})
	}
	return p
}

// arrays is a problem on a device.
type arrays[T kt.Float] struct {
	a, b, c, bias *kt.Array[T]
	args          gemm.Args
}

func (p problem[T]) put(tb testing.TB, dev gpu.Device) arrays[T] {
	tb.Helper()
	oa, ob, oc := p.operands()
	matrix := func(v []T, o stored) (*kt.Array[T], gemm.Matrix) {
		shape := []int{o.rows, o.lead}
		if o.batch > 0 {
			shape = append([]int{o.batch}, shape...)
		}
		array := kt.Put(tb, dev, v, shape...)
		m := gemm.Of(array.Tensor)
		if o.lead > o.cols {
			m = m.Columns(0, o.cols)
		}
		m.Transposed = o.transposed
		return array, m
	}
	var s arrays[T]
	s.a, s.args.A = matrix(p.a, oa)
	s.b, s.args.B = matrix(p.b, ob)
	s.c, s.args.C = matrix(p.c, oc)
	s.args.Alpha, s.args.Beta = p.alpha, p.beta
	if p.bias != nil {
		s.bias = kt.Put(tb, dev, p.bias)
		s.args.Bias = s.bias.Tensor
	}
	return s
}

// element is the definition in float64 of one element of C, and its scale:
// |α| Σ |a| |b| + |β c| + |bias|.
func (p problem[T]) element(s, i, j int) (value, scale float64) {
	a, b, c := p.operands()
	for k := range p.k {
		t := float64(p.a[a.at(s, i, k)]) * float64(p.b[b.at(s, k, j)])
		value += t
		scale += math.Abs(t)
	}
	value *= p.alpha
	scale *= math.Abs(p.alpha)
	if p.beta != 0 {
		t := p.beta * float64(p.c[c.at(s, i, j)])
		value += t
		scale += math.Abs(t)
	}
	if p.bias != nil {
		value += float64(p.bias[j])
		scale += math.Abs(float64(p.bias[j]))
	}
	return value, scale
}

// naive is the definition in T, term by term.
func (p problem[T]) naive(s, i, j int) T {
	a, b, c := p.operands()
	var sum T
	for k := range p.k {
		sum += p.a[a.at(s, i, k)] * p.b[b.at(s, k, j)]
	}
	v := T(p.alpha) * sum
	if p.beta != 0 {
		v += T(p.beta) * p.c[c.at(s, i, j)]
	}
	if p.bias != nil {
		v += p.bias[j]
	}
	return v
}

func ulp[T kt.Float]() float64 {
	if _, single := any(T(0)).(float32); single {
		return 0x1p-23
	}
	return 0x1p-52
}

// floor is the share of an element's scale that any order of summation may
// lose: the rounding of α, β, of three products and sums around the sum, and
// that of a sum in parts, of which the largest has a few hundred terms. The sum
// of L terms in any order errs by at most L units of the scale, and by √L of
// them where errors are independent; more than twice the naive sum's error is
// forgiven only up to this.
const floor = 8

// verify compares every element with its definition: the error may be twice the
// worst that the naive evaluation makes relative to the scale, or floor units of the scale.
// In float64 the definition is naive, and errs as much as the kernel: floor,
// and the bound on both that grows with √k, decide.
func (p problem[T]) verify(t testing.TB, got []T) {
	t.Helper()
	p.within(t, got, func(worst float64) float64 {
		if ulp[T]() < 1e-10 {
			return (floor + math.Sqrt(float64(p.k))) * ulp[T]()
		}
		return max(2*worst, floor*ulp[T]())
	})
}

// within compares with a budget relative to each element's scale, which may
// depend on the worst that the naive evaluation does. Padding must be NaN still.
func (p problem[T]) within(t testing.TB, got []T, budget func(worst float64) float64) {
	t.Helper()
	_, _, c := p.operands()
	require.Len(t, got, c.len())
	type element struct{ value, scale float64 }
	want := make([]element, len(got))
	worst := 0.0
	for s := range max(p.batch, 1) {
		for i := range p.m {
			for j := range p.n {
				e := &want[c.at(s, i, j)]
				e.value, e.scale = p.element(s, i, j)
				if e.scale > 0 {
					worst = max(worst, math.Abs(float64(p.naive(s, i, j))-e.value)/e.scale)
				}
			}
		}
	}
	limit := budget(worst)
	for at, e := range want {
		if at%c.lead >= c.cols {
			if v := got[at]; v == v {
				t.Fatalf("%v: padding at %d was written: %v", p.shape, at, v)
			}
			continue
		}
		if diff := math.Abs(float64(got[at]) - e.value); !(diff <= limit*e.scale) {
			t.Fatalf("%v: element (%d, %d): got %v, want %v: |diff| %.3g > %.3g", p.shape, at/c.lead, at%c.lead, got[at], e.value,
				diff, limit*e.scale)
		}
	}
}

// run multiplies and answers C, after a look at what was only to be read.
func (p problem[T]) run(t testing.TB, dev gpu.Device, precision gemm.Precision) []T {
	t.Helper()
	s := p.put(t, dev)
	s.args.Precision = precision
	require.NoError(t, gemm.Multiply(s.args), "%v", p.shape)
	got := s.c.Get(t)
	s.a.Unmodified(t)
	s.b.Unmodified(t)
	if s.bias != nil {
		s.bias.Unmodified(t)
	}
	return got
}
