package discrete

import (
	"fmt"
	"math"
	"slices"

	"github.com/fortet/fortet/solver"
)

// Matrix is a square matrix of transition probabilities or of rates in
// compressed sparse rows, in float64. It never changes, and any number of
// goroutines may use it.
type Matrix struct{ sparse }

// sparse holds the entries of row i at ptr[i] to ptr[i+1], by ascending column.
type sparse struct {
	n   int
	ptr []int
	idx []int32
	val []float64
	cut []int // rows cut[k] to cut[k+1] are one task
}

// maxStates keeps column numbers in 32 bits.
const maxStates = math.MaxInt32

// NewDense makes a matrix of the entries data: (states, states), row-major.
// Zeros are dropped. data is copied.
func NewDense(states int, data []float64) (*Matrix, error) {
	if states < 1 || states > maxStates {
		return nil, bad("matrix", "%d states, want 1 to %d", states, maxStates)
	}
	if len(data)/states != states || len(data)%states != 0 {
		return nil, bad("matrix", "%d entries, want %d × %d", len(data), states, states)
	}
	s := sparse{n: states, ptr: make([]int, states+1)}
	for i := range states {
		for j, x := range data[i*states : (i+1)*states] {
			if x == 0 {
				continue
			}
			if err := finite(i, j, x); err != nil {
				return nil, err
			}
			s.idx, s.val = append(s.idx, int32(j)), append(s.val, x)
		}
		s.ptr[i+1] = len(s.idx)
	}
	return newMatrix(s), nil
}

// NewCSR makes a matrix of compressed sparse rows as SciPy holds them: row i has
// the entries data[indptr[i]:indptr[i+1]] in the columns indices[...]. Columns
// may come in any order; entries that share a place are added. Zeros that are
// given stay a part of the pattern. All is copied.
func NewCSR[I int | int32 | int64](states int, indptr, indices []I, data []float64) (*Matrix, error) {
	switch {
	case states < 1 || states > maxStates:
		return nil, bad("matrix", "%d states, want 1 to %d", states, maxStates)
	case len(indptr) != states+1:
		return nil, bad("matrix: indptr", "%d numbers, want %d for %d states", len(indptr), states+1, states)
	case len(indices) != len(data):
		return nil, bad("matrix: indices", "%d numbers, want %d as data", len(indices), len(data))
	case indptr[0] != 0 || int(indptr[states]) != len(data):
		return nil, bad("matrix: indptr", "begins with %d and ends with %d, want 0 and %d, the number of entries", indptr[0], indptr[states], len(data))
	}
	s := sparse{n: states, ptr: make([]int, states+1), idx: make([]int32, 0, len(data)), val: make([]float64, 0, len(data))}
	var order []int
	for i := range states {
		low, high := int(indptr[i]), int(indptr[i+1])
		if high < low || high > len(data) {
			return nil, bad("matrix: indptr", "row %d goes from %d to %d, want ascending numbers up to %d", i, low, high, len(data))
		}
		order = order[:0]
		for k := low; k < high; k++ {
			if j := int(indices[k]); j < 0 || j >= states {
				return nil, bad("matrix: indices", "row %d has column %d, want 0 to %d", i, j, states-1)
			}
			if err := finite(i, int(indices[k]), data[k]); err != nil {
				return nil, err
			}
			order = append(order, k)
		}
		slices.SortStableFunc(order, func(a, b int) int { return int(indices[a]) - int(indices[b]) })
		for _, k := range order {
			if last := len(s.idx) - 1; last >= s.ptr[i] && s.idx[last] == int32(indices[k]) {
				s.val[last] += data[k]
				continue
			}
			s.idx, s.val = append(s.idx, int32(indices[k])), append(s.val, data[k])
		}
		s.ptr[i+1] = len(s.idx)
	}
	return newMatrix(s), nil
}

func finite(i, j int, x float64) error {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return bad("matrix", "entry (%d, %d) is %v, want a finite number", i, j, x)
	}
	return nil
}

func newMatrix(s sparse) *Matrix {
	s.partition()
	return &Matrix{s}
}

// States is the number of rows and of columns.
func (m *Matrix) States() int { return m.n }

// NNZ is the number of entries that are stored.
func (m *Matrix) NNZ() int { return len(m.val) }

// Row returns the columns of a row's entries, ascending, and the entries. They
// are the matrix's own and must not be changed.
func (m *Matrix) Row(i int) (columns []int32, entries []float64) {
	low, high := m.ptr[i], m.ptr[i+1]
	return m.idx[low:high:high], m.val[low:high:high]
}

// At is the entry in row i and column j.
func (m *Matrix) At(i, j int) float64 {
	columns, entries := m.Row(i)
	if k, found := slices.BinarySearch(columns, int32(j)); found {
		return entries[k]
	}
	return 0
}

// Dense is the matrix with all its zeros: (states, states), row-major.
func (m *Matrix) Dense() []float64 {
	out := make([]float64, m.n*m.n)
	for i := range m.n {
		columns, entries := m.Row(i)
		for k, j := range columns {
			out[i*m.n+int(j)] = entries[k]
		}
	}
	return out
}

// CSR is the matrix as NewCSR takes it. The slices are the matrix's own and
// must not be changed.
func (m *Matrix) CSR() (indptr []int, indices []int32, data []float64) { return m.ptr, m.idx, m.val }

// with is a matrix of the same pattern with other entries.
func (m *Matrix) with(val []float64) *Matrix {
	s := m.sparse
	s.val = val
	return newMatrix(s)
}

// chunk is the work of one task: entries and rows together.
const chunk = 1 << 14

// partition cuts the rows into tasks of like work. The cuts depend on the
// pattern alone.
func (s *sparse) partition() {
	s.cut = []int{0}
	work := 0
	for i := range s.n {
		work += s.ptr[i+1] - s.ptr[i] + 1
		if work >= chunk && i+1 < s.n {
			s.cut, work = append(s.cut, i+1), 0
		}
	}
	s.cut = append(s.cut, s.n)
}

// transposed has the entries above zero of s by columns.
func (s *sparse) transposed() *sparse {
	t := &sparse{n: s.n, ptr: make([]int, s.n+1)}
	for k, j := range s.idx {
		if s.val[k] != 0 {
			t.ptr[j+1]++
		}
	}
	for j := range s.n {
		t.ptr[j+1] += t.ptr[j]
	}
	t.idx, t.val = make([]int32, t.ptr[s.n]), make([]float64, t.ptr[s.n])
	next := slices.Clone(t.ptr[:s.n])
	for i := range s.n {
		for k := s.ptr[i]; k < s.ptr[i+1]; k++ {
			if s.val[k] == 0 {
				continue
			}
			j := s.idx[k]
			t.idx[next[j]], t.val[next[j]] = int32(i), s.val[k]
			next[j]++
		}
	}
	t.partition()
	return t
}

func bad(name, format string, v ...any) error {
	return fmt.Errorf("discrete: %s: %w: %s", name, solver.ErrInvalid, fmt.Sprintf(format, v...))
}
