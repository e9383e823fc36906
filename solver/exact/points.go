package exact

import (
	"context"
	"fmt"
	"math"
)

// Metric is a cost between points of ℝᵈ.
type Metric int

// The metrics.
const (
	SqEuclidean Metric = iota // |x − y|²
	Euclidean                 // |x − y|
)

func (k Metric) String() string {
	switch k {
	case SqEuclidean:
		return "sqeuclidean"
	case Euclidean:
		return "euclidean"
	}
	return fmt.Sprintf("Metric(%d)", int(k))
}

// Points are the costs between two sets of points. Nothing of size n·m is
// stored, except that costs of at most 32 Mi pairs are kept where computing
// them takes longer than reading them.
type Points struct {
	X      []float64 // (n, D), row-major, not modified
	Y      []float64 // (m, D), row-major, not modified
	D      int
	Metric Metric
}

const (
	maxCoordinate = 1e140   // keeps squares of differences finite in float64
	storePairs    = 1 << 25 // at most this many costs are stored
	storeDim      = 12      // from this dimension on
)

func (p Points) check() (int, int, error) {
	if p.D < 1 {
		return 0, 0, fmt.Errorf("exact: d: %w: got %d, want at least 1", ErrInvalid, p.D)
	}
	if p.Metric != SqEuclidean && p.Metric != Euclidean {
		return 0, 0, fmt.Errorf("exact: metric: %w: got %v, want sqeuclidean or euclidean", ErrInvalid, p.Metric)
	}
	for _, s := range []struct {
		name string
		x    []float64
	}{{"x", p.X}, {"y", p.Y}} {
		if len(s.x) == 0 || len(s.x)%p.D != 0 || len(s.x)/p.D > maxPoints {
			return 0, 0, fmt.Errorf("exact: %s: %w: got %d numbers, want a positive multiple of d = %d", s.name, ErrInvalid, len(s.x), p.D)
		}
		for k, v := range s.x {
			if !(math.Abs(v) <= maxCoordinate) {
				return 0, 0, fmt.Errorf("exact: %s[%d, %d]: %w: got %g, want a finite coordinate of at most %g", s.name, k/p.D, k%p.D, ErrInvalid, v, float64(maxCoordinate))
			}
		}
	}
	return len(p.X) / p.D, len(p.Y) / p.D, nil
}

// frame centres the points, so that what is far from the origin loses no digits.
//
// For |x − y|² each side is centred at its own mean: with x = p + x', y = q + y'
// and Δ = p − q,
//
//	|x − y|² = |x' − y'|² + 2Δ·x' − 2Δ·y' + |Δ|²,
//
// so plans stay optimal and potentials change by the terms that belong to them.
func (p Points) frame(_ context.Context, w *masses) (*frame, error) {
	cx, cy := mean(p.X, p.D, w.a, w.total), mean(p.Y, p.D, w.b, w.total)
	if p.Metric == Euclidean {
		for k := range cx {
			cx[k] = cx[k]/2 + cy[k]/2
		}
		cy = cx
	}
	t := &pointTable{x: shifted(p.X, cx), y: shifted(p.Y, cy), d: p.D, metric: p.Metric}
	t.n, t.m = len(p.X)/p.D, len(p.Y)/p.D
	f := &frame{all: t, points: t}
	if len(w.source) != t.n || len(w.sink) != t.m {
		f.points = t.pick(w.source, w.sink).(*pointTable)
	}
	f.sub = f.points

	// Every computed cost is a sum of d squares of rounded differences of
	// rounded coordinates: relative to (|x'| + |y'|)² its error is below
	// (d + 8) 2⁻⁵³ up to higher orders; the root halves it and adds one.
	reach := largestNorm(t.x, p.D) + largestNorm(t.y, p.D)
	f.bound = reach
	if p.Metric == SqEuclidean {
		f.bound = reach * reach
	}
	f.rounding = float64(p.D+8) * 0x1p-52 * f.bound

	if p.Metric == SqEuclidean {
		delta, square := make([]float64, p.D), 0.0
		for k := range delta {
			delta[k] = cx[k] - cy[k]
			square += delta[k] * delta[k]
		}
		f.restore = func(u, v []float64) (float64, float64) {
			var linear accumulator
			for i := range u {
				s := 2 * dot(delta, t.x[i*p.D:(i+1)*p.D])
				u[i] += s + square
				linear.add(s * w.a[i])
			}
			for j := range v {
				s := 2 * dot(delta, t.y[j*p.D:(j+1)*p.D])
				v[j] -= s
				linear.add(-s * w.b[j])
			}
			far := reach + math.Sqrt(square)
			return linear.value() + square*w.total, float64(p.D+8) * 0x1p-52 * far * far
		}
	}
	return f, nil
}

func mean(x []float64, d int, w []float64, total float64) []float64 {
	sums := make([]accumulator, d)
	for i, wi := range w {
		for k, v := range x[i*d : (i+1)*d] {
			sums[k].add(wi / total * v)
		}
	}
	out := make([]float64, d)
	for k := range out {
		out[k] = sums[k].value()
	}
	return out
}

func shifted(x, centre []float64) []float64 {
	out := make([]float64, len(x))
	for i := range x {
		out[i] = x[i] - centre[i%len(centre)]
	}
	return out
}

func largestNorm(x []float64, d int) float64 {
	largest := 0.0
	for i := 0; i < len(x); i += d {
		largest = max(largest, dot(x[i:i+d], x[i:i+d]))
	}
	return math.Sqrt(largest)
}

func dot(a, b []float64) float64 {
	s := 0.0
	for k, v := range a {
		s += v * b[k]
	}
	return s
}

// pointTable computes costs from coordinates.
type pointTable struct {
	x, y    []float64
	n, m, d int
	metric  Metric
}

func (t *pointTable) size() (int, int) { return t.n, t.m }

func (t *pointTable) transpose() table {
	return &pointTable{x: t.y, y: t.x, n: t.m, m: t.n, d: t.d, metric: t.metric}
}

func (t *pointTable) pick(rows, cols []int) table {
	return &pointTable{x: gather(t.x, t.d, rows), y: gather(t.y, t.d, cols), n: len(rows), m: len(cols), d: t.d, metric: t.metric}
}

func gather(x []float64, d int, rows []int) []float64 {
	out := make([]float64, 0, len(rows)*d)
	for _, i := range rows {
		out = append(out, x[i*d:(i+1)*d]...)
	}
	return out
}

func (t *pointTable) at(i, j int) float64 {
	x, y := t.x[i*t.d:(i+1)*t.d], t.y[j*t.d:(j+1)*t.d]
	s := 0.0
	for k, v := range x {
		e := v - y[k]
		s += e * e
	}
	if t.metric == Euclidean {
		return math.Sqrt(s)
	}
	return s
}

// block sums squares coordinate by coordinate, as at does. Four rows share
// every load of y in higher dimensions; arithmetic binds, 3d operations a pair.
func (t *pointTable) block(out []float64, i0, i1, j0, j1 int) {
	w, d := j1-j0, t.d
	out = out[:(i1-i0)*w]
	switch {
	case d == 1:
		y := t.y[j0:j1]
		for i := i0; i < i1; i++ {
			row, a := out[(i-i0)*w:(i-i0+1)*w], t.x[i]
			for j, v := range y {
				e := a - v
				row[j] = e * e
			}
		}
	case d == 2:
		y := t.y[2*j0 : 2*j1]
		for i := i0; i < i1; i++ {
			row, a, b := out[(i-i0)*w:(i-i0+1)*w], t.x[2*i], t.x[2*i+1]
			for j := range row {
				e, f := a-y[2*j], b-y[2*j+1]
				row[j] = e*e + f*f
			}
		}
	default:
		i := i0
		for ; i+4 <= i1; i += 4 {
			t.fourRows(out[(i-i0)*w:(i-i0+4)*w], i, j0, j1)
		}
		for ; i < i1; i++ {
			for j := j0; j < j1; j++ {
				x, y := t.x[i*d:(i+1)*d], t.y[j*d:(j+1)*d]
				s := 0.0
				for k, v := range x {
					e := v - y[k]
					s += e * e
				}
				out[(i-i0)*w+j-j0] = s
			}
		}
	}
	if t.metric == Euclidean {
		for k, s := range out {
			out[k] = math.Sqrt(s)
		}
	}
}

func (t *pointTable) fourRows(out []float64, i, j0, j1 int) {
	w, d := j1-j0, t.d
	x0, x1, x2, x3 := t.x[i*d:(i+1)*d], t.x[(i+1)*d:(i+2)*d], t.x[(i+2)*d:(i+3)*d], t.x[(i+3)*d:(i+4)*d]
	for j := j0; j < j1; j++ {
		y := t.y[j*d : (j+1)*d]
		x0, x1, x2, x3 := x0[:len(y)], x1[:len(y)], x2[:len(y)], x3[:len(y)]
		var s0, s1, s2, s3 float64
		for k, v := range y {
			e0, e1, e2, e3 := x0[k]-v, x1[k]-v, x2[k]-v, x3[k]-v
			s0 += e0 * e0
			s1 += e1 * e1
			s2 += e2 * e2
			s3 += e3 * e3
		}
		out[j-j0], out[w+j-j0], out[2*w+j-j0], out[3*w+j-j0] = s0, s1, s2, s3
	}
}
