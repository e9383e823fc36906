package multimarginal

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

func device(t testing.TB) gpu.Device {
	t.Helper()
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	t.Cleanup(func() { dev.Close() })
	return dev
}

// near is NaN-proof.
func near(t testing.TB, want, got, budget float64, what string) {
	t.Helper()
	if !(math.Abs(got-want) <= budget) {
		t.Errorf("%s: got %.12g, want %.12g within %.2g", what, got, want, budget)
	}
}

func nearAll(t testing.TB, want, got []float64, budget float64, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	for i := range want {
		near(t, want[i], got[i], budget, fmt.Sprintf("%s[%d]", what, i))
	}
}

func solve(t testing.TB, p Problem, s Settings) *Result {
	t.Helper()
	r, err := Solve(t.Context(), device(t), p, s)
	require.NoError(t, err)
	return r
}

// three is the chain of three marginals of Fortet's test values.
func three() Problem {
	return Problem{
		Nodes: []Node{
			{X: []float64{0, 1, 2.5}, Weights: []float64{.2, .3, .5}},
			{X: []float64{-.5, .5, 1.5, 3}, Weights: []float64{.1, .4, .3, .2}},
			{X: []float64{.3, 2}, Weights: []float64{.45, .55}},
		},
		Edges: []Edge{{I: 0, J: 1}, {I: 1, J: 2}}, Dim: 1, Epsilon: .7,
	}
}

// dense is the same problem as a tensor.
func dense(t testing.TB, p Problem) Dense {
	t.Helper()
	g, err := p.graph()
	require.NoError(t, err)
	d := Dense{Epsilon: p.Epsilon}
	size := 1
	for k, n := range p.Nodes {
		d.Shape = append(d.Shape, g.nodes[k].n)
		d.Weights = append(d.Weights, n.Weights)
		d.Rho = append(d.Rho, n.Rho)
		d.Free = append(d.Free, n.Free)
		size *= g.nodes[k].n
	}
	rows := make([][][]float64, len(p.Edges))
	for e := range p.Edges {
		n, m := g.edges[e].geom.Size()
		for i := range n {
			row := make([]float64, m)
			g.edges[e].geom.Row(i, row)
			rows[e] = append(rows[e], row)
		}
	}
	d.Cost = make([]float64, size)
	for q := range d.Cost {
		at := make([]int, len(d.Shape))
		for k, rest := len(at)-1, q; k >= 0; k-- {
			at[k], rest = rest%d.Shape[k], rest/d.Shape[k]
		}
		for e, edge := range p.Edges {
			w := edge.Weight
			if w == 0 {
				w = 1
			}
			d.Cost[q] += w * rows[e][at[edge.I]][at[edge.J]]
		}
	}
	return d
}

func TestKnownChain(t *testing.T) {
	for name, c := range map[string]Certificate{
		"tree": solve(t, three(), Settings{Tolerance: 1e-12}).Certificate,
		"tensor": func() Certificate {
			r, err := dense(t, three()).Solve(t.Context(), Settings{Tolerance: 1e-12})
			require.NoError(t, err)
			require.Equal(t, solver.Converged, r.Status)
			return r.Certificate
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			near(t, 1.8136835738, c.Dual, 1e-10, "dual")
			near(t, 1.8136835738, c.Primal, 1e-10, "primal")
			near(t, 1.1016044018, c.TransportCost, 1e-10, "<T,P>")
			near(t, 1.0172559599, (c.Primal-c.TransportCost)/.7, 1e-10, "KL")
			near(t, 1, c.Mass, 1e-11, "mass")
			near(t, c.Primal-c.Dual, c.Gap, 1e-14, "gap")
		})
	}
}

func normals(seed uint64, n, d int, shift float64) []float64 {
	r := rand.New(rand.NewPCG(seed, 7))
	v := make([]float64, n*d)
	for i := range v {
		v[i] = r.NormFloat64() + shift
	}
	return v
}

// randomTree is a random tree over small nodes of different kinds and sizes.
func randomTree(seed uint64) Problem {
	r := rand.New(rand.NewPCG(seed, 3))
	k := 2 + r.IntN(4)
	costs := []geometry.Cost{geometry.SqEuclidean, geometry.HalfSqEuclidean, geometry.Euclidean, geometry.Cosine}
	p := Problem{Dim: 2, Epsilon: .3 + r.Float64()}
	for range k {
		n := 1 + r.IntN(5)
		node := Node{X: normals(r.Uint64(), n, 2, .3)}
		if r.IntN(2) == 0 {
			node.Weights = make([]float64, n)
			for i := range node.Weights {
				node.Weights[i] = r.Float64() + .01
				if r.IntN(4) == 0 && i > 0 {
					node.Weights[i] = 0
				}
			}
		}
		p.Nodes = append(p.Nodes, node)
	}
	anchor := r.IntN(k)
	for i := range p.Nodes {
		node := &p.Nodes[i]
		switch kind := r.IntN(4); {
		case i == anchor || kind < 2:
			// Exact marginals have equal masses.
			if node.Weights != nil {
				total := 0.0
				for _, w := range node.Weights {
					total += w
				}
				for j := range node.Weights {
					node.Weights[j] /= total
				}
			}
			if i == anchor && seed%3 == 0 {
				node.Rho = 2
			}
		case kind == 2:
			node.Rho = .2 + 3*r.Float64()
		default:
			node.Free = true
		}
	}
	order := r.Perm(k)
	for i := 1; i < k; i++ {
		e := Edge{I: order[i], J: order[r.IntN(i)], Cost: costs[r.IntN(len(costs))], Weight: .5 + r.Float64()}
		if r.IntN(2) == 0 {
			e.I, e.J = e.J, e.I
		}
		p.Edges = append(p.Edges, e)
	}
	r.Shuffle(len(p.Edges), func(i, j int) { p.Edges[i], p.Edges[j] = p.Edges[j], p.Edges[i] })
	return p
}

func TestTreesAgainstTensors(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := randomTree(seed)
			r := solve(t, p, Settings{Tolerance: 1e-11})
			require.Equal(t, solver.Converged, r.Status, "%+v", r.Certificate)
			want, err := dense(t, p).Solve(t.Context(), Settings{Tolerance: 1e-11})
			require.NoError(t, err)
			require.Equal(t, solver.Converged, want.Status, "%+v", want.Certificate)
			t.Log(r.Iterations, want.Iterations)
			c, w := r.Certificate, want.Certificate
			scale := 1 + math.Abs(w.Primal)
			near(t, w.Primal, c.Primal, 1e-9*scale, "primal")
			near(t, w.Dual, c.Dual, 1e-9*scale, "dual")
			near(t, w.TransportCost, c.TransportCost, 1e-9*scale, "cost")
			near(t, w.Mass, c.Mass, 1e-9, "mass")
			for k := range p.Nodes {
				nearAll(t, want.Marginals[k], r.Plan.Marginals[k], 1e-9, fmt.Sprintf("marginal %d", k))
				near(t, w.MarginalError[k], c.MarginalError[k], 1e-9, "marginal error")
			}
		})
	}
}

func TestTwoMarginalsEqualSinkhorn(t *testing.T) {
	for _, rho := range []float64{0, 1} {
		x, y := normals(1, 300, 3, 0), normals(2, 260, 3, .5)
		p := Problem{Nodes: []Node{{X: x, Rho: rho}, {X: y, Rho: rho}}, Edges: []Edge{{I: 0, J: 1}}, Dim: 3, Epsilon: .05, Scale: sinkhorn.Mean}
		a := solve(t, p, Settings{Tolerance: 1e-9})
		g, err := geometry.NewPoints(x, y, 3, geometry.SqEuclidean)
		require.NoError(t, err)
		q := sinkhorn.Problem{Geometry: g, Epsilon: .05, Scale: sinkhorn.Mean}
		if rho > 0 {
			q.Source = sinkhorn.Penalty{Kind: sinkhorn.KL, Rho: rho}
			q.Target = q.Source
		}
		b, err := sinkhorn.Solve(t.Context(), device(t), q, sinkhorn.Settings{Tolerance: 1e-9})
		require.NoError(t, err)
		require.Equal(t, solver.Converged, a.Status)
		t.Log(a.Iterations, b.Iterations)
		near(t, b.Certificate.Dual, a.Certificate.Dual, 1e-9, "dual")
		near(t, b.Certificate.Primal, a.Certificate.Primal, 1e-9, "primal")
		near(t, b.Certificate.TransportCost, a.Certificate.TransportCost, 1e-8, "cost")
	}
}
