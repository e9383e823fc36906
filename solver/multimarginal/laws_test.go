package multimarginal

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/exact"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// tight is the solution to eleven digits.
func tight(t testing.TB, p Problem) *Result {
	t.Helper()
	r := solve(t, p, Settings{Tolerance: 1e-11})
	require.Equal(t, solver.Converged, r.Status, "residual %v", r.Certificate.Residual)
	return r
}

// star is a free centre between marginals of different sizes.
func star(n, ends int, eps float64) Problem {
	p := Problem{Dim: 2, Epsilon: eps, Nodes: []Node{{X: normals(90, n, 2, 1), Free: true}}}
	for k := range ends {
		p.Nodes = append(p.Nodes, Node{X: normals(uint64(k), 3+2*k, 2, float64(k))})
		p.Edges = append(p.Edges, Edge{I: k + 1, J: 0, Weight: 1 / float64(ends)})
	}
	return p
}

// The batch of three whose sum of all triples is known: E of e^(alpha + beta +
// gamma - c/ε), with c = |x-y|² + 3|y-t|² + |y|²/1000, its parts and its
// derivatives.
func TestKnownPotentials(t *testing.T) {
	const n, eps = 5, .7
	var x, y, z, alpha, beta, gamma, alone []float64
	for i := range n {
		s := float64(i)
		x = append(x, math.Sin(1.3*s), math.Cos(.7*s))
		y = append(y, math.Sin(.9*s+1), math.Cos(1.1*s-.4))
		z = append(z, math.Cos(.5*s+.2), math.Sin(1.7*s))
		alone = append(alone, -1e-3*(y[2*i]*y[2*i]+y[2*i+1]*y[2*i+1]))
		alpha = append(alpha, eps*.3*math.Sin(2*s))
		beta = append(beta, eps*.2*math.Cos(1.5*s)+alone[i])
		gamma = append(gamma, -eps*.1*s)
	}
	p := Problem{Dim: 2, Epsilon: eps, Nodes: []Node{{X: x}, {X: y}, {X: z}}, Edges: []Edge{{I: 0, J: 1}, {I: 1, J: 2, Weight: 3}}}
	plan, c, err := Evaluate(t.Context(), device(t), p, [][]float64{alpha, beta, gamma})
	require.NoError(t, err)
	_, empty, err := Evaluate(t.Context(), device(t), p, [][]float64{nil, alone, nil})
	require.NoError(t, err)
	near(t, -3.1989631988742575, math.Log(c.Mass), 1e-14, "logE")
	near(t, -3.155714573235748, math.Log(empty.Mass), 1e-14, "logZ")
	linear := 0.0
	for i := range n {
		linear += (alpha[i] + beta[i] - alone[i] + gamma[i]) / (n * eps)
	}
	near(t, -.0718003458734841, linear-math.Log(c.Mass)+math.Log(empty.Mass), 1e-14, "LSE dual")
	near(t, -.07272222985208637, linear-c.Mass/empty.Mass+1, 1e-14, "E-form")
	for k, want := range [][]float64{
		{.128886888, .478785792, .215401943, .079669112, .097256264},
		{.405645569, .274854804, .182822652, .125843417, .010833558},
		{.067275404, .637065425, .15296146, .141752747, .000944963},
	} {
		got := slices.Clone(plan.Marginals[k])
		for i := range got {
			got[i] /= c.Mass
		}
		nearAll(t, want, got, 5.1e-10, fmt.Sprintf("derivative %d", k))
	}
}

// The chain of three unit normals, whose plan is Gaussian, on a grid fine enough
// that its sums are integrals to rounding.
func TestNormalPopulation(t *testing.T) {
	const n, eps, lone = 161, .7, 1e-3
	grid, weights := make([]float64, n), make([]float64, n)
	total := 0.0
	for i := range grid {
		grid[i] = -8 + .1*float64(i)
		weights[i] = math.Exp(-grid[i] * grid[i] / 2)
		total += weights[i]
	}
	for i := range weights {
		weights[i] /= total
	}
	node := Node{X: grid, Weights: weights}
	r := solve(t, Problem{Dim: 1, Epsilon: eps, Nodes: []Node{node, node, node}, Edges: []Edge{{I: 0, J: 1}, {I: 1, J: 2, Weight: 3}}}, Settings{Tolerance: 1e-12})
	require.Equal(t, solver.Converged, r.Status)
	// The cost's third term, |y|²/1000, is of one marginal alone.
	near(t, .6604062856, r.Certificate.TransportCost+lone, 1e-10, "E c")
	near(t, 1.8611427806, r.Certificate.Primal+lone, 1e-10, "value")
	near(t, 1.7153378499, (r.Certificate.Primal-r.Certificate.TransportCost)/eps, 1e-10, "total correlation")
	beta := func(i int) float64 { return (r.Plan.F[1][i] + lone*grid[i]*grid[i]) / eps }
	for _, i := range []int{40, 70, 95, 120} {
		near(t, .4724330612, (beta(i)-beta(80))/(grid[i]*grid[i]), 1e-9, "curvature of the middle potential")
	}
	correlation := func(e int) (rho float64) {
		plan, err := r.Plan.Edge(e)
		require.NoError(t, err)
		for q, p := range plan.Matrix() {
			rho += p * grid[q/n] * grid[q%n]
		}
		return rho
	}
	near(t, .8401970252, correlation(0), 1e-10, "correlation of x and y")
	near(t, .9433666107, correlation(1), 1e-10, "correlation of y and t")
}

// S(λx; λ²ε) = λ² S(x; ε) for squared costs, and so it is with the weights of the
// edges, whatever the precision.
func TestScaling(t *testing.T) {
	for _, precision := range []solver.Precision{solver.Ladder, solver.Single, solver.Double} {
		p := star(70, 3, .3)
		q, w := p, p
		q.Nodes, w.Edges = slices.Clone(p.Nodes), slices.Clone(p.Edges)
		for k := range q.Nodes {
			q.Nodes[k].X = make([]float64, len(p.Nodes[k].X))
			for i, x := range p.Nodes[k].X {
				q.Nodes[k].X[i] = 4 * x
			}
		}
		for e := range w.Edges {
			w.Edges[e].Weight *= 16
		}
		q.Epsilon, w.Epsilon = 16*p.Epsilon, 16*p.Epsilon
		s := Settings{Precision: precision, Tolerance: 1e-5}
		a := solve(t, p, s)
		for name, b := range map[string]*Result{"points": solve(t, q, s), "weights": solve(t, w, s)} {
			require.Equal(t, solver.Converged, b.Status)
			near(t, 16*a.Certificate.Dual, b.Certificate.Dual, 1e-4, name+": dual")
			nearAll(t, a.Plan.Marginals[0], b.Plan.Marginals[0], 1e-5, name+": barycentre")
		}
	}
}

// Naming the nodes and edges otherwise, or turning edges round, changes nothing.
func TestPermutation(t *testing.T) {
	for seed := range uint64(12) {
		p := randomTree(200 + seed)
		k := len(p.Nodes)
		q := Problem{Dim: p.Dim, Epsilon: p.Epsilon, Nodes: make([]Node, k)}
		to := func(i int) int { return (i + 1) % k }
		for i, n := range p.Nodes {
			q.Nodes[to(i)] = n
		}
		for _, e := range slices.Backward(p.Edges) {
			e.I, e.J = to(e.J), to(e.I)
			q.Edges = append(q.Edges, e)
		}
		a, b := tight(t, p), tight(t, q)
		near(t, a.Certificate.Primal, b.Certificate.Primal, 1e-9, "primal")
		for i := range p.Nodes {
			nearAll(t, a.Plan.Marginals[i], b.Plan.Marginals[to(i)], 1e-9, "marginal")
		}
		for e := range p.Edges {
			near(t, a.Certificate.EdgeCost[e], b.Certificate.EdgeCost[len(p.Edges)-1-e], 1e-9, "edge")
		}
	}
}

// Large ε: the plan becomes the product, and every edge's plan too.
func TestProductLimit(t *testing.T) {
	p := three()
	p.Epsilon = 1e5
	r := tight(t, p)
	for e, edge := range p.Edges {
		plan, err := r.Plan.Edge(e)
		require.NoError(t, err)
		m := len(p.Nodes[edge.J].X)
		for q, v := range plan.Matrix() {
			near(t, p.Nodes[edge.I].Weights[q/m]*p.Nodes[edge.J].Weights[q%m], v, 1e-4, "product plan")
		}
	}
}

// Small ε: each edge of a chain costs what the exact plan of its ends does; the
// difference is at most ε times the entropy of that plan.
func TestExactLimit(t *testing.T) {
	p := three()
	p.Epsilon = 2e-3
	r := solve(t, p, Settings{Tolerance: 1e-9, MaxIterations: 100000})
	require.Equal(t, solver.Converged, r.Status)
	for e, edge := range p.Edges {
		i, j := p.Nodes[edge.I], p.Nodes[edge.J]
		want, err := exact.Solver{}.Solve(t.Context(), exact.Problem{
			Costs: exact.Points{X: i.X, Y: j.X, D: 1, Metric: exact.SqEuclidean}, A: i.Weights, B: j.Weights,
		})
		require.NoError(t, err)
		near(t, want.Cost, r.Certificate.EdgeCost[e], p.Epsilon*math.Log(12), fmt.Sprintf("edge %d", e))
	}
}

// Strong penalties are exact marginals; the difference falls as 1/ρ.
func TestBalancedLimit(t *testing.T) {
	want := tight(t, three())
	last := math.Inf(1)
	for _, rho := range []float64{1e2, 1e4, 1e6} {
		p := three()
		for k := range p.Nodes {
			p.Nodes[k].Rho = rho
		}
		r := tight(t, p)
		off := 0.0
		for _, e := range r.Certificate.MarginalError {
			off += e
		}
		if !(off < last/20 && off < 20/rho) {
			t.Errorf("ρ = %v: marginals off by %v, after %v", rho, off, last)
		}
		last = off
		near(t, want.Certificate.Primal, r.Certificate.Primal, 20/rho, "primal")
	}
}

// Halving every weight of exact marginals halves what is moved.
func TestMass(t *testing.T) {
	p := three()
	for k := range p.Nodes {
		w := slices.Clone(p.Nodes[k].Weights)
		for i := range w {
			w[i] *= 3
		}
		p.Nodes[k].Weights = w
	}
	a, b := tight(t, three()), tight(t, p)
	near(t, 3, b.Certificate.Mass, 1e-10, "mass")
	near(t, 3*a.Certificate.TransportCost, b.Certificate.TransportCost, 1e-9, "cost")
	near(t, b.Certificate.Primal, b.Certificate.Dual, 1e-9, "no gap")
}

// A free node between two ends is the free mode of the tensor, and the free
// centre of a star too; that its potential is zero is the optimum.
func TestFreeNode(t *testing.T) {
	chain := three()
	chain.Nodes[1].Free = true
	for name, p := range map[string]Problem{"chain": chain, "star": star(6, 3, .2)} {
		t.Run(name, func(t *testing.T) {
			r := tight(t, p)
			want, err := dense(t, p).Solve(t.Context(), Settings{Tolerance: 1e-12})
			require.NoError(t, err)
			for k := range p.Nodes {
				nearAll(t, want.Marginals[k], r.Plan.Marginals[k], 1e-10, fmt.Sprintf("marginal %d", k))
				if p.Nodes[k].Free {
					nearAll(t, make([]float64, len(p.Nodes[k].X)/p.Dim), r.Plan.F[k], 0, "potential")
					require.Zero(t, r.Certificate.MarginalError[k])
				}
			}
			near(t, want.Certificate.Primal, r.Certificate.Primal, 1e-10, "primal")
			near(t, 0, r.Certificate.Gap, 1e-9, "gap")
		})
	}
}

// The certificate is what its fields say of the plan, written out as a tensor.
func TestCertificateIsOfThePlan(t *testing.T) {
	for seed := range uint64(20) {
		p := randomTree(400 + seed)
		r := solve(t, p, Settings{MaxIterations: 2, NoAnnealing: true}) // not solved: gaps are wide
		d := dense(t, p)
		marginals := make([][]float64, len(p.Nodes))
		for k := range marginals {
			marginals[k] = make([]float64, d.Shape[k])
		}
		cost, kl, mass, dual, eps := 0.0, 0.0, 0.0, 0.0, p.Epsilon
		for q, c := range d.Cost {
			at := make([]int, len(d.Shape))
			for k, rest := len(at)-1, q; k >= 0; k-- {
				at[k], rest = rest%d.Shape[k], rest/d.Shape[k]
			}
			product, z := 1.0, -c/eps
			for k, i := range at {
				product *= r.Plan.Weights[k][i]
				z += r.Plan.F[k][i] / eps
			}
			v := product * math.Exp(z)
			cost += v * c
			mass += v
			kl += product - v
			dual += eps * (product - v)
			if product > 0 {
				kl += v * z
			}
			for k, i := range at {
				marginals[k][i] += v
			}
		}
		primal := cost + eps*kl
		for k, n := range p.Nodes {
			off := 0.0
			for i, a := range r.Plan.Weights[k] {
				f, q := r.Plan.F[k][i], marginals[k][i]
				switch {
				case n.Free || a == 0:
					continue
				case n.Rho > 0:
					primal += n.Rho * (q*math.Log(q/a) - q + a)
					dual -= n.Rho * a * math.Expm1(-f/n.Rho)
				default:
					dual += a * f
				}
				off += math.Abs(q - a)
			}
			near(t, off, r.Certificate.MarginalError[k], 1e-12*(1+mass), "marginal error")
			nearAll(t, marginals[k], r.Plan.Marginals[k], 1e-12*(1+mass), "marginal")
		}
		c := r.Certificate
		scale := 1 + math.Abs(primal) + math.Abs(cost) + math.Abs(dual) + mass
		near(t, cost, c.TransportCost, 1e-12*scale, "cost")
		near(t, mass, c.Mass, 1e-12*scale, "mass")
		near(t, primal, c.Primal, 1e-11*scale, "primal")
		near(t, dual, c.Dual, 1e-11*scale, "dual")
		near(t, primal-dual, c.Gap, 1e-11*scale, "gap")
	}
}

// Every sweep raises the dual: block ascent.
func TestSweepsRaiseTheDual(t *testing.T) {
	p := star(40, 3, .05)
	p.Nodes[2].Rho = .5
	p.Nodes[0].Free, p.Nodes[0].Rho = false, 2
	last := math.Inf(-1)
	for sweeps := range 12 {
		r := solve(t, p, Settings{Acceleration: sinkhorn.None, NoAnnealing: true, MaxIterations: sweeps + 1, Tolerance: 1e-14})
		if !(r.Certificate.Dual >= last-1e-13) {
			t.Errorf("after sweep %d: dual %v, before %v", sweeps+1, r.Certificate.Dual, last)
		}
		last = r.Certificate.Dual
	}
}

// Fifty marginals: every edge of the chain is a problem of its own.
func TestLongChain(t *testing.T) {
	var points [][]float64
	var times []float64
	for k := range 50 {
		points = append(points, normals(uint64(k), 5+k%7, 2, float64(k)/10))
		times = append(times, .3*float64(k)+.1*float64(k%3))
	}
	p, err := Chain(points, nil, 2, times, .5)
	require.NoError(t, err)
	r := solve(t, p, Settings{Tolerance: 1e-9})
	require.Equal(t, solver.Converged, r.Status)
	for e := range p.Edges {
		g, err := geometry.NewPoints(points[e], points[e+1], 2, geometry.HalfSqEuclidean)
		require.NoError(t, err)
		gap := times[e+1] - times[e]
		want, err := sinkhorn.Solve(t.Context(), device(t), sinkhorn.Problem{Geometry: g, Epsilon: .5 * gap}, sinkhorn.Settings{Tolerance: 1e-10})
		require.NoError(t, err)
		near(t, want.Certificate.TransportCost/gap, r.Certificate.EdgeCost[e], 1e-8, fmt.Sprintf("edge %d", e))
	}
	// With free nodes nothing falls apart.
	for k := range p.Nodes {
		p.Nodes[k].Free = k%7 == 3
	}
	require.Equal(t, solver.Converged, solve(t, p, Settings{Tolerance: 1e-9}).Status)
}

// Points far from each other, at a small ε, where column sums underflow: each
// point's mass has one place to go.
func TestFarPoints(t *testing.T) {
	p := Problem{Dim: 1, Epsilon: 1e-3, Nodes: []Node{{X: []float64{0, 30}}, {X: []float64{0, 15, 30}, Free: true}, {X: []float64{0, 30}}},
		Edges: []Edge{{I: 0, J: 1}, {I: 1, J: 2}}}
	// Exponents of 10⁶ are known to 10⁻¹⁰.
	r := solve(t, p, Settings{Tolerance: 1e-9})
	require.Equal(t, solver.Converged, r.Status)
	nearAll(t, []float64{.5, 0, .5}, r.Plan.Marginals[1], 1e-9, "barycentre")
	near(t, 0, r.Certificate.TransportCost, 1e-9, "cost")
	for k, f := range r.Plan.F {
		for i, v := range f {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("potential %d of node %d is %v", i, k, v)
			}
		}
	}
}

// All devices and precisions find one plan.
func TestDevicesAgree(t *testing.T) {
	p := star(60, 3, .2)
	p.Nodes[2].Rho = 1
	p.Edges[1].Cost = geometry.Euclidean
	want := tight(t, p)
	for _, dev := range kerneltest.Devices(t) {
		for _, precision := range []solver.Precision{solver.Ladder, solver.Single, solver.Double} {
			for _, acceleration := range []sinkhorn.Acceleration{sinkhorn.None, sinkhorn.Anderson} {
				tol := 1e-7
				if precision == solver.Single {
					tol = 1e-4
				}
				r, err := Solve(t.Context(), dev.Device, p, Settings{Tolerance: tol, Precision: precision, Acceleration: acceleration})
				require.NoError(t, err)
				require.Equal(t, solver.Converged, r.Status, "%v %v %v", dev.Name, precision, acceleration)
				near(t, want.Certificate.Dual, r.Certificate.Dual, 10*tol, "dual")
				nearAll(t, want.Plan.Marginals[0], r.Plan.Marginals[0], 10*tol, "barycentre")
			}
		}
	}
}

// The ladder goes through both precisions where there is enough to do.
func TestLadder(t *testing.T) {
	p := Problem{Dim: 13, Epsilon: .05, Scale: sinkhorn.Mean, Nodes: []Node{{X: normals(1, 300, 13, 0)}, {X: normals(2, 280, 13, 1), Free: true}, {X: normals(3, 310, 13, 2)}, {X: normals(4, 290, 13, 3)}},
		Edges: []Edge{{I: 0, J: 1}, {I: 1, J: 2}, {I: 2, J: 3}}}
	r := solve(t, p, Settings{})
	require.Equal(t, solver.Converged, r.Status)
	seen := map[string]bool{}
	for _, s := range r.Stages {
		seen[fmt.Sprint(s.Part, s.DType)] = true
		require.True(t, s.Cached, "costs of dimension 13 are cached")
	}
	require.Len(t, seen, 4, "two parts in two precisions")
	direct := solve(t, p, Settings{Precision: solver.Double, NoAnnealing: true, Geometry: geometry.Options{CacheBytes: -1}})
	require.Equal(t, solver.Converged, direct.Status)
	for _, s := range direct.Stages {
		require.False(t, s.Cached)
	}
	near(t, direct.Certificate.Dual, r.Certificate.Dual, 1e-5, "dual")
}

// ε in units of the summed cost's mean and standard deviation, written out.
func TestScales(t *testing.T) {
	p := randomTree(31)
	if len(p.Nodes) < 4 {
		t.Fatal("want a tree with inner nodes")
	}
	d := dense(t, p)
	g, err := p.graph()
	require.NoError(t, err)
	var mean, square float64
	for q, c := range d.Cost {
		w := 1.0
		for k, rest := len(d.Shape)-1, q; k >= 0; k-- {
			w *= g.nodes[k].a[rest%d.Shape[k]] / g.nodes[k].mass
			rest /= d.Shape[k]
		}
		mean += w * c
		square += w * c * c
	}
	for scale, want := range map[sinkhorn.Scale]float64{sinkhorn.Absolute: 1, sinkhorn.Mean: mean, sinkhorn.Std: math.Sqrt(square - mean*mean)} {
		p.Scale, p.Epsilon = scale, .4
		near(t, .4*want, solve(t, p, Settings{}).Plan.Epsilon, 1e-12*want, scale.String())
	}
}
