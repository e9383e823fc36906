package sinkhorn

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
)

// steep are the settings of values that are differentiated.
var steep = Settings{Tolerance: 1e-13, MaxIterations: 100000, Precision: solver.Double}

// slope is the derivative of value at 0 from five points, whose error is of
// order h⁴, and rounding 1e-15/h.
func slope(value func(float64) float64) float64 {
	const h = 4e-4
	return (8*(value(h)-value(-h)) - (value(2*h) - value(-2*h))) / (12 * h)
}

// moved is p with coordinate k of x, y, a or b changed by h.
func moved(p Problem, of string, k int, h float64) Problem {
	g := p.Geometry.(geometry.Points)
	for name, v := range map[string]*[]float64{"x": &g.X, "y": &g.Y, "a": &p.A, "b": &p.B} {
		if name == of {
			*v = slices.Clone(*v)
			(*v)[k] += h
		}
	}
	p.Geometry = g
	return p
}

func dualOf(t *testing.T, p Problem) float64 {
	r := solve(t, p, steep)
	if !(r.Certificate.Residual < 1e-11) {
		t.Fatalf("residual %v of a value to differentiate", r.Certificate.Residual)
	}
	return r.Certificate.Dual
}

// checkGradient compares all derivatives with differences of value.
func checkGradient(t *testing.T, p Problem, g *Gradient, value func(Problem) float64, weights bool) {
	for name, v := range map[string][]float64{"x": g.X, "y": g.Y, "a": g.A, "b": g.B} {
		if !weights && (name == "a" || name == "b") {
			continue
		}
		for k, got := range v {
			want := slope(func(h float64) float64 { return value(moved(p, name, k, h)) })
			near(t, want, got, 2e-9*(1+math.Abs(want)), fmt.Sprintf("derivative by %s[%d]", name, k))
		}
	}
}

func TestGradientOfUnequalMasses(t *testing.T) {
	for k, pair := range penalties(.7) {
		cost := geometry.Cost(k % 4)
		t.Run(fmt.Sprintf("%v/%v, %v", cost, pair[0], pair[1]), func(t *testing.T) {
			p := small4(11, .4, pair[0], pair[1])
			g := p.Geometry.(geometry.Points)
			g.Ground = cost
			p.Geometry = g
			r := solve(t, p, steep)
			grad, err := r.Plan.Gradient(t.Context(), device(t))
			require.NoError(t, err)
			checkGradient(t, p, grad, func(q Problem) float64 { return dualOf(t, q) }, true)
			x, err := r.Plan.SourceGradient(t.Context(), device(t))
			require.NoError(t, err)
			require.Equal(t, grad.X, x)
		})
	}
}

// Exact marginals: all costs by the points, and by the weights in directions
// that keep the masses equal, one of which changes both masses.
func TestGradientOfEqualMasses(t *testing.T) {
	for cost := geometry.SqEuclidean; cost <= geometry.Cosine; cost++ {
		p := small4(12, .3, Penalty{}, Penalty{})
		for j := range p.B {
			p.B[j] /= 3
		}
		g := p.Geometry.(geometry.Points)
		g.Ground = cost
		p.Geometry = g
		grad, err := solve(t, p, steep).Plan.Gradient(t.Context(), device(t))
		require.NoError(t, err)
		checkGradient(t, p, grad, func(q Problem) float64 { return dualOf(t, q) }, false)
		for name, d := range map[string]struct{ a, b []float64 }{
			"a":    {[]float64{1, -3, 0, 2}, make([]float64, 5)},
			"b":    {make([]float64, 4), []float64{1, 0, 0, -2, 1}},
			"both": {[]float64{1, 0, 0, 0}, []float64{0, 0, .3, .7, 0}},
		} {
			want := slope(func(h float64) float64 {
				q := p
				q.A, q.B = slices.Clone(p.A), slices.Clone(p.B)
				for i := range d.a {
					q.A[i] += h / 10 * d.a[i]
				}
				for j := range d.b {
					q.B[j] += h / 10 * d.b[j]
				}
				return dualOf(t, q)
			}) * 10
			got := 0.0
			for i := range d.a {
				got += d.a[i] * grad.A[i]
			}
			for j := range d.b {
				got += d.b[j] * grad.B[j]
			}
			near(t, want, got, 1e-8*(1+math.Abs(want)), fmt.Sprintf("%v: derivative along %s", cost, name))
		}
	}
}

// At a weight of zero there is a derivative to the right.
func TestGradientAtZeroWeight(t *testing.T) {
	for _, pair := range penalties(.7) {
		p := small4(13, 1.5, pair[0], pair[1])
		p.A, p.B = slices.Clone(p.A), slices.Clone(p.B)
		p.A[1], p.B[2] = 0, 0
		grad, err := solve(t, p, steep).Plan.Gradient(t.Context(), device(t))
		require.NoError(t, err)
		const h = 1e-5 // the error is of order h², and rounding 1e-15/h
		for name, got := range map[string]float64{"a": grad.A[1], "b": grad.B[2]} {
			at := func(h float64) float64 { return dualOf(t, moved(p, name, map[string]int{"a": 1, "b": 2}[name], h)) }
			near(t, (4*at(h)-at(2*h)-3*at(0))/(2*h), got, 1e-7*(1+math.Abs(got)), fmt.Sprintf("%v, %v: derivative by %s", pair[0], pair[1], name))
		}
		nearAll(t, []float64{0, 0}, grad.X[2:4], 0, "derivative by a point without weight")
	}
}

func TestGradientOfDivergence(t *testing.T) {
	for k, pen := range []Penalty{{}, {KL, .8}, {TV, .8}, {L2, 4}} {
		cost := geometry.Cost(k)
		t.Run(fmt.Sprintf("%v/%v", cost, pen), func(t *testing.T) {
			p := small4(14, .4, pen, pen)
			g := p.Geometry.(geometry.Points)
			g.Ground = cost
			p.Geometry = g
			if pen.IsExact() {
				for j := range p.B {
					p.B[j] /= 3
				}
			}
			d, err := SolveDivergence(t.Context(), device(t), p, steep)
			require.NoError(t, err)
			grad, err := d.Gradient(t.Context(), device(t))
			require.NoError(t, err)
			checkGradient(t, p, grad, func(q Problem) float64 {
				d, err := SolveDivergence(t.Context(), device(t), q, steep)
				require.NoError(t, err)
				return d.Value
			}, !pen.IsExact())
			if pen.IsExact() { // along a + h, a' - h
				want := slope(func(h float64) float64 {
					d, err := SolveDivergence(t.Context(), device(t), moved(moved(p, "a", 0, h), "a", 1, -h), steep)
					require.NoError(t, err)
					return d.Value
				})
				near(t, want, grad.A[0]-grad.A[1], 1e-8, "derivative along a")
			}
		})
	}
	_, err := (&Divergence{}).Gradient(t.Context(), device(t))
	require.ErrorIs(t, err, solver.ErrInvalid)
}

// A matrix has weights to differentiate by, but no points.
func TestGradientOfMatrix(t *testing.T) {
	p := small4(11, .4, Penalty{TV, .5}, Penalty{L2, 2})
	c := make([]float64, 20)
	for i := range 4 {
		p.Geometry.Row(i, c[5*i:5*i+5])
	}
	want, err := solve(t, p, steep).Plan.Gradient(t.Context(), device(t))
	require.NoError(t, err)
	p.Geometry = geometry.Matrix{C: c, N: 4, M: 5}
	r := solve(t, p, steep)
	got, err := r.Plan.Gradient(t.Context(), device(t))
	require.NoError(t, err)
	require.Nil(t, got.X)
	require.Nil(t, got.Y)
	nearAll(t, want.A, got.A, 1e-11, "by a")
	nearAll(t, want.B, got.B, 1e-11, "by b")
	_, err = r.Plan.SourceGradient(t.Context(), device(t))
	require.ErrorIs(t, err, solver.ErrInvalid)
}
