package exact

import (
	"context"
	"fmt"
	"math"
)

// Costs are the costs c_ij of a problem: Points, Matrix or Func.
type Costs interface {
	// check validates the costs and returns the number of sources and sinks.
	check() (n, m int, err error)
	// frame prepares the costs for the solver.
	frame(ctx context.Context, w *masses) (*frame, error)
}

// table evaluates costs. Every method gives the same float64 for the same pair.
type table interface {
	size() (rows, cols int)
	// block writes rows [i0, i1) and columns [j0, j1) to out, row-major.
	block(out []float64, i0, i1, j0, j1 int)
	at(i, j int) float64
	transpose() table
	// pick returns the table of some rows and columns.
	pick(rows, cols []int) table
}

// frame is a problem's costs in the coordinates that suit the arithmetic.
type frame struct {
	all table // every point
	sub table // the points that carry mass
	// bound is at least |c_ij| of all.
	bound float64
	// rounding bounds |computed − true| of all's costs, both taken in the frame.
	rounding float64

	// restore turns potentials of the frame into the caller's and returns the
	// constant by which the caller's transport cost exceeds the frame's, and a
	// bound on the rounding that this adds. nil: nothing to do.
	restore func(u, v []float64) (excess, rounding float64)
	// points is sub where the costs have a geometry to coarsen, else nil.
	points *pointTable
}

// Matrix is an explicit matrix of costs, of any sign, for small problems.
type Matrix struct {
	C    []float64 // (N, M), row-major
	N, M int
}

func (c Matrix) check() (int, int, error) {
	if c.N < 1 || c.M < 1 || c.N > maxPoints || c.M > maxPoints {
		return 0, 0, fmt.Errorf("exact: matrix: %w: got shape (%d, %d), want 1 to %d rows and columns", ErrInvalid, c.N, c.M, maxPoints)
	}
	if len(c.C) != c.N*c.M {
		return 0, 0, fmt.Errorf("exact: matrix: %w: got %d entries, want %d × %d", ErrInvalid, len(c.C), c.N, c.M)
	}
	for k, x := range c.C {
		if math.IsNaN(x) || math.Abs(x) > maxCost {
			return 0, 0, fmt.Errorf("exact: matrix[%d, %d]: %w: got %g, want a finite cost of at most %g", k/c.M, k%c.M, ErrInvalid, x, float64(maxCost))
		}
	}
	return c.N, c.M, nil
}

func (c Matrix) frame(_ context.Context, w *masses) (*frame, error) {
	f := &frame{all: denseTable{c.C, c.N, c.M}}
	for _, x := range c.C {
		f.bound = max(f.bound, math.Abs(x))
	}
	f.sub = restrict(f.all, w)
	return f, nil
}

// Func gives costs by a function, for geometries that Points does not know. It
// is called for every pair once per round of pricing, from several goroutines.
type Func struct {
	N, M int
	Cost func(i, j int) float64
}

func (c Func) check() (int, int, error) {
	if c.N < 1 || c.M < 1 || c.N > maxPoints || c.M > maxPoints {
		return 0, 0, fmt.Errorf("exact: func: %w: got shape (%d, %d), want 1 to %d sources and sinks", ErrInvalid, c.N, c.M, maxPoints)
	}
	if c.Cost == nil {
		return 0, 0, fmt.Errorf("exact: func: %w: got a nil Cost, want a function", ErrInvalid)
	}
	return c.N, c.M, nil
}

func (c Func) frame(ctx context.Context, w *masses) (*frame, error) {
	f := &frame{all: funcTable{c.Cost, nil, nil, c.N, c.M, false}}
	for i := range c.N {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("exact: %w", err)
		}
		for j := range c.M {
			x := c.Cost(i, j)
			if math.IsNaN(x) || math.Abs(x) > maxCost {
				return nil, fmt.Errorf("exact: func(%d, %d): %w: got %g, want a finite cost of at most %g", i, j, ErrInvalid, x, float64(maxCost))
			}
			f.bound = max(f.bound, math.Abs(x))
		}
	}
	f.sub = restrict(f.all, w)
	return f, nil
}

const (
	maxPoints = 1 << 28 // node numbers are int32
	maxCost   = 1e300
)

// restrict returns the table of the points that carry mass.
func restrict(t table, w *masses) table {
	if n, m := t.size(); len(w.source) == n && len(w.sink) == m {
		return t
	}
	return t.pick(w.source, w.sink)
}

// denseTable is a stored matrix.
type denseTable struct {
	c    []float64
	n, m int
}

func (t denseTable) size() (int, int)    { return t.n, t.m }
func (t denseTable) at(i, j int) float64 { return t.c[i*t.m+j] }
func (t denseTable) transpose() table    { return transposedTable{t} }

func (t denseTable) block(out []float64, i0, i1, j0, j1 int) {
	for i := i0; i < i1; i++ {
		copy(out[(i-i0)*(j1-j0):(i-i0+1)*(j1-j0)], t.c[i*t.m+j0:i*t.m+j1])
	}
}

func (t denseTable) pick(rows, cols []int) table {
	c := make([]float64, len(rows)*len(cols))
	for i, r := range rows {
		for j, s := range cols {
			c[i*len(cols)+j] = t.c[r*t.m+s]
		}
	}
	return denseTable{c, len(rows), len(cols)}
}

// transposedTable reads a stored matrix by columns.
type transposedTable struct{ t denseTable }

func (t transposedTable) size() (int, int)    { return t.t.m, t.t.n }
func (t transposedTable) at(i, j int) float64 { return t.t.at(j, i) }
func (t transposedTable) transpose() table    { return t.t }
func (t transposedTable) pick(rows, cols []int) table {
	return t.t.pick(cols, rows).transpose()
}

func (t transposedTable) block(out []float64, i0, i1, j0, j1 int) {
	w := j1 - j0
	for j := j0; j < j1; j++ {
		for i, c := range t.t.c[j*t.t.m+i0 : j*t.t.m+i1] {
			out[i*w+j-j0] = c
		}
	}
}

// funcTable calls a function, through lists of the caller's indices if not nil.
type funcTable struct {
	f          func(i, j int) float64
	rows, cols []int
	n, m       int
	swap       bool
}

func (t funcTable) size() (int, int) { return t.n, t.m }

func (t funcTable) at(i, j int) float64 {
	if t.rows != nil {
		i, j = t.rows[i], t.cols[j]
	}
	if t.swap {
		i, j = j, i
	}
	return t.f(i, j)
}

func (t funcTable) block(out []float64, i0, i1, j0, j1 int) {
	k := 0
	for i := i0; i < i1; i++ {
		for j := j0; j < j1; j++ {
			out[k] = t.at(i, j)
			k++
		}
	}
}

func (t funcTable) transpose() table {
	return funcTable{t.f, t.cols, t.rows, t.m, t.n, !t.swap}
}

func (t funcTable) pick(rows, cols []int) table {
	return funcTable{t.f, rows, cols, len(rows), len(cols), t.swap}
}
