package multimarginal

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
)

// The plan of an edge is the tensor summed over all other nodes.
func TestEdgePlans(t *testing.T) {
	for seed := range uint64(15) {
		p := randomTree(600 + seed)
		r := tight(t, p)
		d := dense(t, p)
		want, err := d.Solve(t.Context(), Settings{Tolerance: 1e-12})
		require.NoError(t, err)
		for e, edge := range p.Edges {
			m := d.Shape[edge.J]
			sums := make([]float64, d.Shape[edge.I]*m)
			for q, v := range want.P {
				at := make([]int, len(d.Shape))
				for k, rest := len(at)-1, q; k >= 0; k-- {
					at[k], rest = rest%d.Shape[k], rest/d.Shape[k]
				}
				sums[at[edge.I]*m+at[edge.J]] += v
			}
			plan, err := r.Plan.Edge(e)
			require.NoError(t, err)
			require.NoError(t, plan.Validate())
			nearAll(t, sums, plan.Matrix(), 1e-9, fmt.Sprintf("plan of edge %d", e))
		}
	}
}

// The barycentric map of an edge is the mean of its other end given the point.
func TestEdgeMap(t *testing.T) {
	r := tight(t, three())
	plan, err := r.Plan.Edge(1)
	require.NoError(t, err)
	mapped, err := plan.BarycentricMap(t.Context(), device(t))
	require.NoError(t, err)
	for i, row := 0, plan.Matrix(); i < 4; i++ {
		a, b := row[2*i], row[2*i+1]
		near(t, (a*.3+b*2)/(a+b), mapped[i], 1e-9, "map")
	}
}

// Frequencies of tuples are those of the tensor, to five standard errors.
func TestSampledTuples(t *testing.T) {
	p := three()
	p.Nodes[0], p.Nodes[1] = p.Nodes[1], p.Nodes[0] // node 0 is inside the chain
	p.Edges = []Edge{{I: 1, J: 0}, {I: 0, J: 2}}
	p.Nodes[2].Rho = 1
	r := tight(t, p)
	want, err := dense(t, p).Solve(t.Context(), Settings{Tolerance: 1e-12})
	require.NoError(t, err)
	const n = 200000
	tuples, err := r.Plan.Sample(t.Context(), n, 5)
	require.NoError(t, err)
	require.Len(t, tuples, 3*n)
	counts := make([]float64, len(want.P))
	for s := range n {
		counts[(tuples[3*s]*3+tuples[3*s+1])*2+tuples[3*s+2]]++
	}
	for q, v := range want.P {
		v /= want.Certificate.Mass
		near(t, v, counts[q]/n, 5*math.Sqrt(v*(1-v)/n)+1e-9, fmt.Sprintf("frequency of tuple %d", q))
	}
	again, err := r.Plan.Sample(t.Context(), 10, 5)
	require.NoError(t, err)
	require.Equal(t, tuples[:30], again, "draws must not depend on how many there are")
	other, err := r.Plan.Sample(t.Context(), 10, 6)
	require.NoError(t, err)
	require.NotEqual(t, other, again)
}

// Tuples of two marginals are the pairs that package sinkhorn draws.
func TestSamplesOfTwo(t *testing.T) {
	p := three()
	p.Nodes, p.Edges = p.Nodes[:2], p.Edges[:1]
	r := tight(t, p)
	plan, err := r.Plan.Edge(0)
	require.NoError(t, err)
	pairs, err := plan.Sample(t.Context(), 50, 3)
	require.NoError(t, err)
	tuples, err := r.Plan.Sample(t.Context(), 50, 3)
	require.NoError(t, err)
	for s, pair := range pairs {
		require.Equal(t, []int{pair.I, pair.J}, tuples[2*s:2*s+2])
	}
}

// Through single points the paths are Brownian bridges of the given variance,
// whose moments are checked to five standard errors; they pass the points.
func TestPaths(t *testing.T) {
	times := []float64{1, 3, 4}
	p, err := Chain([][]float64{{0}, {2}, {-1}}, nil, 1, times, .8)
	require.NoError(t, err)
	r := solve(t, p, Settings{})
	const n = 100000
	at := []float64{1, 1.5, 2, 3, 3.25, 4}
	x, err := r.Plan.Paths(t.Context(), n, at, 11)
	require.NoError(t, err)
	mean := []float64{0, .5, 1, 2, 1.25, -1}
	// Var of a bridge over [s, e] at t: .8 (t-s)(e-t)/(e-s).
	variance := []float64{0, .8 * .5 * 1.5 / 2, .8 * 1 * 1 / 2, 0, .8 * .25 * .75, 0}
	var m, v [6]float64
	cross, apart := 0.0, 0.0
	for s := range n {
		for q := range at {
			d := x[s*6+q] - mean[q]
			m[q] += d / n
			v[q] += d * d / n
		}
		cross += (x[s*6+1] - mean[1]) * (x[s*6+2] - mean[2]) / n
		apart += (x[s*6+1] - mean[1]) * (x[s*6+4] - mean[4]) / n
	}
	for q := range at {
		near(t, 0, m[q], 5*math.Sqrt(variance[q]/n), "mean")
		near(t, variance[q], v[q], 5*variance[q]*math.Sqrt(2.0/n), "variance")
	}
	near(t, .8*.5*1/2, cross, 5*variance[2]*math.Sqrt(2.0/n), "covariance within a link")
	near(t, 0, apart, 5*math.Sqrt(variance[1]*variance[4]/n), "covariance across a node")

	few, err := r.Plan.Paths(t.Context(), 7, at, 11)
	require.NoError(t, err)
	require.Equal(t, x[:42], few, "a path must not depend on how many there are")
	one, err := r.Plan.At(t.Context(), 5, 3, 11)
	require.NoError(t, err)
	require.Equal(t, []float64{2, 2, 2, 2, 2}, one)
}

// A chain whose nodes are named in another order, and whose cost is |x-y|², is
// bridged like the one of Chain.
func TestPathsOfUnorderedChain(t *testing.T) {
	points := [][]float64{normals(1, 6, 2, 0), normals(2, 5, 2, 1), normals(3, 7, 2, 2)}
	p, err := Chain(points, nil, 2, []float64{0, .5, 2}, .3)
	require.NoError(t, err)
	q := Problem{
		Dim: 2, Epsilon: .3, Times: []float64{.5, 0, 2},
		Nodes: []Node{{X: points[1]}, {X: points[0]}, {X: points[2]}},
		Edges: []Edge{{I: 2, J: 0, Weight: 1 / 3.}, {I: 0, J: 1, Weight: 1}},
	}
	a, b := tight(t, p), tight(t, q)
	near(t, a.Certificate.Primal, b.Certificate.Primal, 1e-9, "primal")
	const n = 40000
	for _, at := range []float64{.25, .5, 1} {
		x, err := a.Plan.At(t.Context(), n, at, 1)
		require.NoError(t, err)
		y, err := b.Plan.At(t.Context(), n, at, 2)
		require.NoError(t, err)
		mean, square := 0.0, 0.0
		for i := 0; i < 2*n; i += 2 {
			mean += (x[i] - y[i]) / n
			square += (x[i]*x[i] - y[i]*y[i]) / n
		}
		// The points' spread is near one, their fourth moment below 100.
		near(t, 0, mean, 5*math.Sqrt(2*4.0/n), "mean")
		near(t, 0, square, 5*math.Sqrt(2*100.0/n), "second moment")
	}
}

func TestNoPaths(t *testing.T) {
	good, err := Chain([][]float64{{0}, {2}, {-1}}, nil, 1, []float64{0, 1, 2}, .5)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		change func(*Problem)
		times  []float64
		says   string
	}{
		"early":     {func(*Problem) {}, []float64{-.1}, "-0.1"},
		"late":      {func(*Problem) {}, []float64{2.1}, "2.1"},
		"NaN":       {func(*Problem) {}, []float64{math.NaN()}, "NaN"},
		"unordered": {func(*Problem) {}, []float64{1, .5}, "0.5"},
		"none":      {func(*Problem) {}, nil, "no times"},
		"no chain":  {func(p *Problem) { p.Edges[0] = Edge{I: 0, J: 2, Cost: geometry.HalfSqEuclidean} }, []float64{1}, "node 1 is between"},
		"cost":      {func(p *Problem) { p.Edges[0].Cost = geometry.Euclidean }, []float64{1}, "Brownian"},
		"matrix":    {func(p *Problem) { p.Edges[0].Geometry = geometry.Matrix{C: []float64{1}, N: 1, M: 1} }, []float64{1}, "Brownian"},
	} {
		t.Run(name, func(t *testing.T) {
			p := good
			p.Edges = append([]Edge{}, good.Edges...)
			c.change(&p)
			_, err := solve(t, p, Settings{}).Plan.Paths(t.Context(), 2, c.times, 0)
			require.ErrorIs(t, err, solver.ErrInvalid)
			require.ErrorContains(t, err, c.says)
			require.EqualError(t, p.ValidatePaths(c.times), err.Error())
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	_, err := Plan{}.Edge(0)
	require.ErrorIs(t, err, solver.ErrInvalid)
	_, err = Plan{}.Sample(t.Context(), 1, 0)
	require.ErrorIs(t, err, solver.ErrInvalid)
	plan := solve(t, three(), Settings{}).Plan
	_, err = plan.Edge(2)
	require.ErrorIs(t, err, solver.ErrInvalid)
	_, err = plan.Edge(-1)
	require.ErrorIs(t, err, solver.ErrInvalid)
	_, err = plan.Sample(t.Context(), 0, 0)
	require.ErrorIs(t, err, solver.ErrInvalid)
}

// The edge's drift is that of the bridge between its ends, in the units of its
// own time.
func TestEdgeDrift(t *testing.T) {
	x, y := []float64{0, 1, 2.5}, []float64{-.5, .5, 1.5, 3}
	a, b := []float64{.2, .3, .5}, []float64{.1, .4, .3, .2}
	p, err := Chain([][]float64{x, y, {0, 1}}, [][]float64{a, b, nil}, 1, []float64{0, 2, 3}, .25)
	require.NoError(t, err)
	plan, err := tight(t, p).Plan.Edge(0)
	require.NoError(t, err)
	// Variance .25 over 2 units of time is ε = .5 over one.
	u, err := plan.Drift(t.Context(), device(t), .5, []float64{.8})
	require.NoError(t, err)
	near(t, -.47051943475, u[0], 1e-9, "u(.5, .8)")
}
