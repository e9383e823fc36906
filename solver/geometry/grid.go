package geometry

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
)

// Grid is two product grids with a cost that is a sum over their axes, such as
// images with the squared distance of their pixels. Points are numbered with the
// last axis running fastest. A softmin takes the sum of the axes' lengths for each
// point instead of their product: it is a log-sum-exp along one axis after the
// other (package kernels/axis), exact in the logarithm.
type Grid struct {
	Axes   []Axis // 1 to 4
	Ground Cost   // of axes with coordinates: SqEuclidean or HalfSqEuclidean
}

// Axis is one axis of a Grid: coordinates, or a matrix of costs between them.
type Axis struct {
	X, Y   []float64 // coordinates of the source and the target; nil Y is X
	Weight float64   // factor of the squared distance along this axis; 0 means 1
	Given  Matrix    // (n, m), instead of all of the above
}

// NewGrid is the geometry between a grid and itself, of coordinates for each axis,
// and reports what is wrong with them.
func NewGrid(cost Cost, axes ...[]float64) (Grid, error) {
	g := Grid{Ground: cost}
	for _, x := range axes {
		g.Axes = append(g.Axes, Axis{X: x})
	}
	return g, g.Validate()
}

func (a Axis) given() bool { return a.Given.C != nil }

func (a Axis) target() []float64 {
	if a.Y == nil {
		return a.X
	}
	return a.Y
}

func (a Axis) weight() float64 {
	if a.Weight == 0 {
		return 1
	}
	return a.Weight
}

func (a Axis) size() (n, m int) {
	if a.given() {
		return a.Given.N, a.Given.M
	}
	return len(a.X), len(a.target())
}

// costs is the matrix of costs along the axis: (n, m).
func (a Axis) costs(ground Cost) []float64 {
	if a.given() {
		return a.Given.C
	}
	return a.matrix(func(x, y float64) float64 { return ground.scale() * a.weight() * (x - y) * (x - y) })
}

func (a Axis) matrix(f func(x, y float64) float64) []float64 {
	c := make([]float64, 0, len(a.X)*len(a.target()))
	for _, x := range a.X {
		for _, y := range a.target() {
			c = append(c, f(x, y))
		}
	}
	return c
}

// Size implements Geometry.
func (g Grid) Size() (n, m int) {
	n, m = 1, 1
	for _, a := range g.Axes {
		p, q := a.size()
		n, m = n*p, m*q
	}
	return n, m
}

// shapes are the lengths of the axes of source and target.
func (g Grid) shapes() (source, target []int) {
	for _, a := range g.Axes {
		n, m := a.size()
		source, target = append(source, n), append(target, m)
	}
	return source, target
}

// Dim implements Geometry: the number of axes, 0 where one has no coordinates.
func (g Grid) Dim() int {
	for _, a := range g.Axes {
		if a.given() {
			return 0
		}
	}
	return len(g.Axes)
}

// Cost implements Geometry: GivenMatrix unless it is plainly that of points.
func (g Grid) Cost() Cost {
	for _, a := range g.Axes {
		if a.given() || a.weight() != 1 {
			return GivenMatrix
		}
	}
	return g.Ground
}

// Points is the same geometry point by point. Weights of axes become scales of
// their coordinates.
func (g Grid) Points() (Points, error) {
	if err := g.Validate(); err != nil {
		return Points{}, err
	}
	if g.Dim() == 0 {
		return Points{}, fmt.Errorf("geometry: grid: %w: an axis with given costs has no coordinates", solver.ErrInvalid)
	}
	expand := func(of func(Axis) []float64) []float64 {
		rows := []float64{}
		for k, a := range g.Axes {
			var next []float64
			for r := 0; r == 0 || r < len(rows); r += max(k, 1) {
				for _, x := range of(a) {
					next = append(next, rows[r:r+k]...)
					next = append(next, x*math.Sqrt(a.weight()))
				}
			}
			rows = next
		}
		return rows
	}
	return NewPoints(expand(func(a Axis) []float64 { return a.X }), expand(Axis.target), len(g.Axes), g.Ground)
}

// Row implements Geometry.
func (g Grid) Row(i int, out []float64) {
	source, target := g.shapes()
	out[0] = 0
	done := 1
	for k := len(g.Axes) - 1; k >= 0; k-- { // out[:done] holds the sums over the axes behind k
		row := make([]float64, target[k])
		a, at := g.Axes[k], i%source[k]
		i /= source[k]
		for j := range row {
			if a.given() {
				row[j] = a.Given.C[at*target[k]+j]
			} else {
				d := a.X[at] - a.target()[j]
				row[j] = g.Ground.scale() * a.weight() * d * d
			}
		}
		for j := len(row) - 1; j >= 0; j-- {
			for q := range done {
				out[j*done+q] = out[q] + row[j]
			}
		}
		done *= len(row)
	}
}

// Transpose implements Geometry.
func (g Grid) Transpose() Geometry {
	t := Grid{Ground: g.Ground}
	for _, a := range g.Axes {
		if a.given() {
			t.Axes = append(t.Axes, Axis{Given: a.Given.Transpose().(Matrix)})
			continue
		}
		b := Axis{X: a.target(), Y: a.X, Weight: a.Weight}
		if a.Y == nil {
			b.Y = nil
		}
		t.Axes = append(t.Axes, b)
	}
	return t
}

// Validate implements Geometry.
func (g Grid) Validate() error {
	if len(g.Axes) < 1 || len(g.Axes) > 4 {
		return fmt.Errorf("geometry: grid: %w: %d axes, want 1 to 4", solver.ErrInvalid, len(g.Axes))
	}
	var errs []error
	n, m := 1, 1
	for k, a := range g.Axes {
		p, q := a.size()
		if p > 0 && q > 0 && max(n, m) <= math.MaxInt/8/max(p, q) {
			n, m = n*p, m*q
		} else if n > 0 {
			errs = append(errs, fmt.Errorf("geometry: grid: %w: axis %d of %d and %d points, want at least one, and not more than there is memory for", solver.ErrInvalid, k, p, q))
			n, m = 0, 0
		}
		if a.given() {
			if len(a.X)+len(a.Y) > 0 || a.Weight != 0 {
				errs = append(errs, fmt.Errorf("geometry: grid: axis %d: %w: coordinates or a weight beside given costs, want one of the two", k, solver.ErrInvalid))
			}
			if err := a.Given.Validate(); err != nil {
				errs = append(errs, fmt.Errorf("geometry: grid: axis %d: %w", k, err))
			}
			continue
		}
		if g.Ground != SqEuclidean && g.Ground != HalfSqEuclidean {
			errs = append(errs, fmt.Errorf("geometry: grid: %w: cost %v is no sum over axes, want sqeuclidean or halfsqeuclidean", solver.ErrInvalid, g.Ground))
		}
		if !(a.weight() > 0) || math.IsInf(a.Weight, 1) {
			errs = append(errs, fmt.Errorf("geometry: grid: axis %d: %w: weight %v, want a finite number above 0", k, solver.ErrInvalid, a.Weight))
		}
		for side, v := range map[string][]float64{"source": a.X, "target": a.Y} {
			if len(v) > 0 {
				if err := checkPoints(side, v, len(v), 1); err != nil {
					errs = append(errs, fmt.Errorf("geometry: grid: axis %d: %w", k, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// Mean implements Geometry: it needs the marginals of the weights along each axis.
func (g Grid) Mean(ctx context.Context, a, b []float64) (float64, error) {
	mean, _, err := g.moments(ctx, a, b)
	return mean, err
}

// Std implements Geometry: it needs the marginals for each pair of axes, too.
func (g Grid) Std(ctx context.Context, a, b []float64) (float64, error) {
	_, variance, err := g.moments(ctx, a, b)
	return math.Sqrt(max(variance, 0)), err
}

// moments are mean and variance of the cost Σ_k c_k under the product of the
// weights: E c_k and Σ_kl Cov(c_k, c_l), of costs less their means.
func (g Grid) moments(ctx context.Context, a, b []float64) (mean, variance float64, err error) {
	n, m := g.Size()
	if err := checkWeights(a, b, n, m); err != nil {
		return 0, 0, err
	}
	a, b = weights(a, n), weights(b, m)
	source, target := g.shapes()
	off := make([][]float64, len(g.Axes)) // costs less their mean
	for k, axis := range g.Axes {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		off[k] = append(off[k], axis.costs(g.Ground)...)
		wa, wb := marginal(a, source, k, k), marginal(b, target, k, k)
		sum := func(f func(c float64) float64) (s float64) {
			for i, x := range wa {
				for j, y := range wb {
					s += x * y * f(off[k][i*len(wb)+j])
				}
			}
			return s
		}
		own := sum(func(c float64) float64 { return c })
		for i := range off[k] {
			off[k][i] -= own
		}
		mean += own
		variance += sum(func(c float64) float64 { return c * c })
		for l := range k {
			ab, bb := marginal(a, source, l, k), marginal(b, target, l, k)
			variance += 2 * contract(off[l], off[k], ab, bb, source[l], target[l], source[k], target[k])
		}
	}
	return mean, variance, nil
}

// marginal sums weights over all axes but l <= k: (shape[l], shape[k]), or (shape[k])
// where they are one.
func marginal(w []float64, shape []int, l, k int) []float64 {
	strideL, strideK := 1, 1
	for _, s := range shape[l+1:] {
		strideL *= s
	}
	for _, s := range shape[k+1:] {
		strideK *= s
	}
	rows := shape[l]
	if l == k {
		rows = 1
	}
	out := make([]float64, rows*shape[k])
	for i, x := range w {
		out[i/strideL%rows*shape[k]+i/strideK%shape[k]] += x
	}
	return out
}

// contract is Σ a_ip b_jq c_ij d_pq for a: (n, r), b: (m, s), c: (n, m), d: (r, s).
func contract(c, d, a, b []float64, n, m, r, s int) (total float64) {
	for j := range m {
		left := make([]float64, r) // Σ_i c_ij a_ip
		for i := range n {
			for p := range r {
				left[p] += c[i*m+j] * a[i*r+p]
			}
		}
		for p, x := range left {
			for q := range s {
				total += x * d[p*s+q] * b[j*s+q]
			}
		}
	}
	return total
}
