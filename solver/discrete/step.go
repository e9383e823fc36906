package discrete

import (
	"context"
	"fmt"
	"math"
)

// step is one step of a reference process: the matrix K of its transition
// probabilities, which need not exist.
type step interface {
	// back writes log K exp(x), forth log Kᵀ exp(x). out must not be x.
	back(ctx context.Context, h *host, out, x []float64) error
	forth(ctx context.Context, h *host, out, x []float64) error
	// successors marks the states j with K_ij > 0 for an i that is marked in
	// from; predecessors the states i with K_ij > 0 for a marked j.
	successors(from []bool) []bool
	predecessors(from []bool) []bool
	// pull writes to row i of out the union of the rows j of sets with
	// K_ij > 0. Rows have so many words. It returns false where that would take
	// more than *budget words, from which it takes what it uses.
	pull(out, sets []uint64, words int, budget *int) bool
	// leastLog is a lower bound of log K_ij over all K_ij > 0.
	leastLog() float64
	// truncation bounds the relative error by which a result of back or forth
	// is too small, besides rounding.
	truncation() float64
}

// transition is a step of a Markov chain. Rows are divided by their sums.
type transition struct {
	rows, cols *sparse
	logSum     []float64
}

func newTransition(m *Matrix) *transition {
	t := &transition{rows: &m.sparse, cols: m.transposed(), logSum: make([]float64, m.n)}
	sums := make([]float64, m.n)
	for i := range m.n {
		for k := m.ptr[i]; k < m.ptr[i+1]; k++ {
			sums[i] += m.val[k]
		}
		t.logSum[i] = math.Log(sums[i])
	}
	for k, i := range t.cols.idx {
		t.cols.val[k] /= sums[i]
	}
	return t
}

func (t *transition) back(ctx context.Context, h *host, out, x []float64) error {
	return h.logProduct(ctx, out, t.rows, x, t.logSum)
}

func (t *transition) forth(ctx context.Context, h *host, out, x []float64) error {
	return h.logProduct(ctx, out, t.cols, x, nil)
}

func (t *transition) successors(from []bool) []bool   { return t.cols.touched(from) }
func (t *transition) predecessors(from []bool) []bool { return t.rows.touched(from) }
func (t *transition) truncation() float64             { return 0 }

func (t *transition) pull(out, sets []uint64, words int, budget *int) bool {
	*budget -= words * len(t.rows.val)
	if *budget < 0 {
		return false
	}
	clear(out)
	for i := range t.rows.n {
		t.rows.unite(i, out[i*words:(i+1)*words], sets, words)
	}
	return true
}

func (t *transition) leastLog() float64 {
	least := math.Inf(1)
	for _, x := range t.cols.val {
		least = min(least, x)
	}
	return math.Log(least)
}

// touched marks the rows that have an entry above zero in a marked column.
func (s *sparse) touched(from []bool) []bool {
	out := make([]bool, s.n)
	for i := range s.n {
		for k := s.ptr[i]; k < s.ptr[i+1] && !out[i]; k++ {
			out[i] = s.val[k] > 0 && from[s.idx[k]]
		}
	}
	return out
}

// unite adds to set the sets of the columns of row i.
func (s *sparse) unite(i int, set, sets []uint64, words int) (changed bool) {
	for k := s.ptr[i]; k < s.ptr[i+1]; k++ {
		if s.val[k] == 0 {
			continue
		}
		j := int(s.idx[k])
		for w, bits := range sets[j*words : (j+1)*words] {
			if bits&^set[w] != 0 {
				set[w] |= bits
				changed = true
			}
		}
	}
	return changed
}

// checkTransition says what is wrong with a matrix of probabilities.
func checkTransition(name string, m *Matrix) error {
	f := faults{name: name}
	for i := range m.n {
		columns, entries := m.Row(i)
		sum, fine := 0.0, true
		for k, x := range entries {
			if x < 0 {
				f.add("entry (%d, %d) is %v, want no negative one", i, columns[k], x)
				fine = false
			}
			sum += x
		}
		if fine && !(math.Abs(sum-1) <= rowTolerance) {
			f.add("row %d sums to %.9g, want 1 within %g", i, sum, rowTolerance)
		}
	}
	return f.err()
}

// checkGenerator says what is wrong with a matrix of rates.
func checkGenerator(name string, m *Matrix) error {
	f := faults{name: name}
	for i := range m.n {
		columns, entries := m.Row(i)
		sum, size, fine := 0.0, 0.0, true
		for k, x := range entries {
			if x < 0 && int(columns[k]) != i {
				f.add("rate (%d, %d) is %v, want none negative off the diagonal", i, columns[k], x)
				fine = false
			}
			sum += x
			size += math.Abs(x)
		}
		if fine && !(math.Abs(sum) <= rowTolerance*size) {
			f.add("row %d sums to %.9g, want 0 within %g of its size %.3g", i, sum, rowTolerance, size)
		}
	}
	return f.err()
}

// rowTolerance leaves room for matrices that were rounded to float32.
const rowTolerance = 1e-6

// faults names the first of a matrix's faults and counts the others.
type faults struct {
	name  string
	first string
	more  int
}

func (f *faults) add(format string, v ...any) {
	if f.first != "" {
		f.more++
		return
	}
	f.first = fmt.Sprintf(format, v...)
}

func (f *faults) err() error {
	switch {
	case f.first == "":
		return nil
	case f.more > 0:
		return bad(f.name, "%s (and %d more faults)", f.first, f.more)
	}
	return bad(f.name, "%s", f.first)
}
