package gemm

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Matrix is a matrix, or a batch of matrices of one shape, that lies in device
// memory row by row.
type Matrix struct {
	Data       tensor.Tensor // the memory
	Transposed bool          // op: the product reads the transpose

	// Which elements of Data. Where Rows, Cols and Batch are all 0, it is all of
	// them, in Data's own shape: (rows, cols), or (batch, rows, cols).
	Rows, Cols int
	Batch      int // matrices; 0: one, which serves a whole batch
	Offset     int // the first element
	Lead       int // elements from a row to the next, the leading dimension; 0: Cols
	Stride     int // elements from a matrix to the next; 0: Rows × Lead
}

// Of is the matrix (rows, cols) or the batch (batch, rows, cols) that t is.
func Of(t tensor.Tensor) Matrix { return Matrix{Data: t} }

// T is the transpose, which shares memory with m.
func (m Matrix) T() Matrix {
	m.Transposed = !m.Transposed
	return m
}

// Columns is the view of the columns [lo, hi) of what is stored (rows [lo, hi)
// of a transpose). It panics where the range lies outside, as slicing does, or
// where Data is no matrix.
func (m Matrix) Columns(lo, hi int) Matrix {
	m = m.explicit()
	if lo < 0 || hi < lo || hi > m.Cols {
		panic(fmt.Sprintf("gemm: columns [%d:%d] of %d", lo, hi, m.Cols))
	}
	m.Offset += lo
	m.Cols = hi - lo
	return m
}

// explicit is m with the shape in its fields; without any where Data has none.
func (m Matrix) explicit() Matrix {
	if m.Rows == 0 && m.Cols == 0 && m.Batch == 0 && !m.Data.IsZero() {
		switch s := m.Data.Shape(); len(s) {
		case 2:
			m.Rows, m.Cols = s[0], s[1]
		case 3:
			m.Batch, m.Rows, m.Cols = s[0], s[1], s[2]
		}
	}
	if m.Lead == 0 {
		m.Lead = m.Cols
	}
	if m.Stride == 0 {
		m.Stride = m.Rows * m.Lead
	}
	return m
}

// layout is where a matrix lies, checked.
type layout struct {
	rows, cols, batch int
	batched           bool
	offset            int
	lead, stride      int // stride 0: one matrix
	span              int // elements from the first to the last of all, counting both
}

func (m Matrix) layout(name string, dev gpu.Device, dtype tensor.DType) (layout, error) {
	invalid := func(format string, v ...any) error {
		return fmt.Errorf("gemm: %s: %w: %s", name, tensor.ErrInvalid, fmt.Sprintf(format, v...))
	}
	switch {
	case m.Data.IsZero():
		return layout{}, invalid("missing, want %v on %s", dtype, dev.Name())
	case m.Data.Device() != dev && m.Data.Device().Name() != dev.Name():
		return layout{}, invalid("on %s, want %s", m.Data.Device().Name(), dev.Name())
	case m.Data.DType() != dtype:
		return layout{}, invalid("%v, want %v", m.Data.DType(), dtype)
	}
	whole := m.Rows == 0 && m.Cols == 0 && m.Batch == 0
	axes := len(m.Data.Shape())
	if whole && axes != 2 && axes != 3 {
		return layout{}, invalid("got %v, want two axes, or three with a batch", m.Data)
	}
	m = m.explicit()
	batched := m.Batch > 0 || whole && axes == 3
	l := layout{rows: m.Rows, cols: m.Cols, batch: m.Batch, batched: batched, offset: m.Offset, lead: m.Lead}
	if batched {
		l.stride = m.Stride
	}
	length := m.Data.Len()
	if m.Rows < 0 || m.Cols < 0 || m.Batch < 0 || m.Offset < 0 || m.Lead < m.Cols || m.Stride < 0 || m.Offset > length {
		return layout{}, invalid("%s, want sizes, an offset within %d elements, a leading dimension of %d or more, and a stride",
			m.text(), length, m.Cols)
	}
	if m.Rows == 0 || m.Cols == 0 || batched && m.Batch == 0 {
		return l, nil
	}
	// The last element, by steps of which none overflows.
	room := length - m.Offset - m.Cols
	if room < 0 || m.Lead > 0 && m.Rows-1 > room/m.Lead {
		return layout{}, invalid("%s does not lie in %d elements", m.text(), length)
	}
	room -= (m.Rows - 1) * m.Lead
	if batched && l.stride > 0 && m.Batch-1 > room/l.stride {
		return layout{}, invalid("%s does not lie in %d elements", m.text(), length)
	}
	l.span = (m.Rows-1)*m.Lead + m.Cols
	if batched {
		l.span += (m.Batch - 1) * l.stride
	}
	return l, nil
}

func (m Matrix) text() string {
	s := fmt.Sprintf("shape (%d, %d)", m.Rows, m.Cols)
	if m.Batch != 0 {
		s = fmt.Sprintf("shape (%d, %d, %d)", m.Batch, m.Rows, m.Cols)
	}
	return fmt.Sprintf("%s at offset %d with leading dimension %d and stride %d", s, m.Offset, m.Lead, m.Stride)
}

// memory is the range of the buffer from the first to the last element.
func (l layout) memory(t tensor.Tensor) gpu.Buffer {
	size := t.DType().Size()
	return t.Buffer().Slice(l.offset*size, l.span*size)
}

// want compares the shape of an operand with what the product wants of op of it.
func (l layout) want(name string, transposed bool, rows, cols int, c layout) error {
	if transposed {
		rows, cols = cols, rows
	}
	if l.rows == rows && l.cols == cols && (!l.batched || c.batched && l.batch == c.batch) {
		return nil
	}
	batch := c
	batch.rows, batch.cols = rows, cols
	batch.batched = c.batched && l.batched
	return fmt.Errorf("gemm: %s: %w: shape %s, want %s", name, tensor.ErrInvalid, l.shape(), batch.shape())
}

func (l layout) shape() string {
	if l.batched {
		return fmt.Sprintf("(%d, %d, %d)", l.batch, l.rows, l.cols)
	}
	return fmt.Sprintf("(%d, %d)", l.rows, l.cols)
}

// apart reports matrices of a batch that share elements, which results must
// not: they follow each other, or lie side by side within the rows.
func (l layout) apart() error {
	if !l.batched || l.batch < 2 || l.span == 0 {
		return nil
	}
	follow := l.stride >= (l.rows-1)*l.lead+l.cols
	beside := l.stride >= l.cols && (l.batch-1)*l.stride+l.cols <= l.lead
	if follow || beside {
		return nil
	}
	return fmt.Errorf("gemm: c: %w: matrices %d elements apart overlap", gpu.ErrInvalid, l.stride)
}
