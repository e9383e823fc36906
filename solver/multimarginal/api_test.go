package multimarginal

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// deep is a problem of every kind of edge: a free node between leaves, and a
// chain of exact ones.
func deep(n int) Problem {
	p := Problem{Dim: 2, Epsilon: .05, Scale: sinkhorn.Mean}
	for k := range 6 {
		p.Nodes = append(p.Nodes, Node{X: normals(uint64(k), n+k, 2, float64(k)/3), Free: k == 2})
	}
	p.Nodes[4].Rho = 3
	for _, e := range [][2]int{{0, 1}, {1, 2}, {2, 3}, {2, 4}, {4, 5}} {
		p.Edges = append(p.Edges, Edge{I: e[0], J: e[1]})
	}
	return p
}

func TestRepeatsToTheBit(t *testing.T) {
	p := deep(150)
	a := solve(t, p, Settings{})
	require.Equal(t, solver.Converged, a.Status)
	for _, workers := range []int{1, 2, 5} {
		dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: workers})
		require.NoError(t, err)
		b, err := Solve(t.Context(), dev, p, Settings{})
		require.NoError(t, err)
		require.Equal(t, a.Plan.F, b.Plan.F, "workers = %d", workers)
		require.Equal(t, a.Certificate, b.Certificate)
		require.NoError(t, dev.Close())
	}
}

func TestInputsAreNotModified(t *testing.T) {
	p := deep(20)
	p.Nodes[1].Weights = make([]float64, 21)
	for i := range p.Nodes[1].Weights {
		p.Nodes[1].Weights[i] = float64(i % 2)
	}
	for k := range p.Nodes {
		if p.Nodes[k].Weights == nil {
			p.Nodes[k].Weights = slices.Repeat([]float64{10 / float64(20+k)}, 20+k)
		}
	}
	var kept [][]float64
	for _, n := range p.Nodes {
		kept = append(kept, slices.Clone(n.X), slices.Clone(n.Weights))
	}
	solve(t, p, Settings{})
	for k, n := range p.Nodes {
		require.Equal(t, kept[2*k], n.X)
		require.Equal(t, kept[2*k+1], n.Weights)
	}
}

func TestCancellation(t *testing.T) {
	p := deep(60)
	ctx, cancel := context.WithCancel(t.Context())
	total := 0
	r, err := Solve(ctx, device(t), p, Settings{Tolerance: 1e-13, Trace: func(Iteration) {
		if total++; total == 9 {
			cancel()
		}
	}})
	require.NoError(t, err)
	require.Equal(t, solver.Canceled, r.Status)
	require.Equal(t, 9, total, "sweeps after cancellation")
	require.Error(t, r.Status.Err())
	_, err = r.Plan.Sample(t.Context(), 1, 0)
	require.ErrorIs(t, err, solver.ErrInvalid, "a plan that was not finished")

	_, err = Solve(ctx, device(t), p, Settings{})
	if err == nil { // canceled before it began: no sweep
		r, err = Solve(ctx, device(t), p, Settings{})
		require.NoError(t, err)
		require.Equal(t, solver.Canceled, r.Status)
		require.Zero(t, r.Iterations)
	}
}

func TestIterationLimit(t *testing.T) {
	for _, n := range []int{60, 300} {
		p := deep(n)
		p.Epsilon = .002
		for _, limit := range []int{1, 5, 30} {
			r := solve(t, p, Settings{MaxIterations: limit})
			require.Equal(t, solver.MaxIterations, r.Status, "%d", limit)
			require.Equal(t, limit, r.Iterations)
			if !(r.Certificate.Residual > 1e-6) {
				t.Errorf("%d sweeps reached %v", limit, r.Certificate.Residual)
			}
		}
	}
}

// A tolerance below what float32 resolves is not claimed.
func TestStalls(t *testing.T) {
	r := solve(t, deep(60), Settings{Precision: solver.Single, Tolerance: 1e-12, MaxIterations: 2000})
	require.Equal(t, solver.Stalled, r.Status)
	if !(r.Certificate.Residual > 1e-12 && r.Certificate.Residual < 1e-3) {
		t.Errorf("residual %v", r.Certificate.Residual)
	}
}

// A device that fails at any moment gives an error, no crash, and its memory
// back.
func TestDeviceFailures(t *testing.T) {
	p := deep(110)
	for k := 1; k < 90; k++ {
		for _, fail := range []fake.Fail{{Alloc: k}, {Launch: k}} {
			dev := fake.New(device(t), fail)
			_, err := Solve(t.Context(), dev, p, Settings{MaxIterations: 6})
			if err != nil && !errors.Is(err, gpu.ErrOutOfMemory) && !errors.Is(err, gpu.ErrLaunch) {
				t.Errorf("%+v: %v", fail, err)
			}
			if in := dev.Memory().InUse; in != 0 {
				t.Fatalf("%+v: %d bytes still in use", fail, in)
			}
		}
	}
}

func TestInvalidProblems(t *testing.T) {
	nan := math.NaN()
	for name, c := range map[string]struct {
		change func(*Problem, *Settings)
		says   string
	}{
		"one node":         {func(p *Problem, _ *Settings) { p.Nodes, p.Edges = p.Nodes[:1], nil }, "at least 2"},
		"no edges":         {func(p *Problem, _ *Settings) { p.Edges = nil }, "tree over 3"},
		"cycle":            {func(p *Problem, _ *Settings) { p.Edges = append(p.Edges, Edge{I: 2, J: 0}) }, "edge 2: invalid problem: it closes a cycle"},
		"unconnected":      {func(p *Problem, _ *Settings) { p.Edges = p.Edges[:1] }, "node 2: invalid problem: no path"},
		"repeated":         {func(p *Problem, _ *Settings) { p.Edges = append(p.Edges, Edge{I: 1, J: 0}) }, "as edge 0 does"},
		"loop":             {func(p *Problem, _ *Settings) { p.Edges = append(p.Edges, Edge{I: 1, J: 1}) }, "node 1 to itself"},
		"no such node":     {func(p *Problem, _ *Settings) { p.Edges[0].J = 3 }, "from 0 to 2"},
		"negative node":    {func(p *Problem, _ *Settings) { p.Edges[0].I = -1 }, "-1"},
		"weight":           {func(p *Problem, _ *Settings) { p.Edges[0].Weight = -2 }, "-2"},
		"weight NaN":       {func(p *Problem, _ *Settings) { p.Edges[0].Weight = nan }, "NaN"},
		"cost":             {func(p *Problem, _ *Settings) { p.Edges[0].Cost = geometry.GivenMatrix }, "matrix"},
		"epsilon 0":        {func(p *Problem, _ *Settings) { p.Epsilon = 0 }, "epsilon"},
		"epsilon NaN":      {func(p *Problem, _ *Settings) { p.Epsilon = nan }, "NaN"},
		"epsilon inf":      {func(p *Problem, _ *Settings) { p.Epsilon = math.Inf(1) }, "Inf"},
		"scale":            {func(p *Problem, _ *Settings) { p.Scale = 7 }, "Scale(7)"},
		"dimension":        {func(p *Problem, _ *Settings) { p.Dim = 3 }, "dimension 3"},
		"no dimension":     {func(p *Problem, _ *Settings) { p.Dim = 0 }, "dimension 0"},
		"negative dim":     {func(p *Problem, _ *Settings) { p.Dim = -1 }, "-1"},
		"no points":        {func(p *Problem, _ *Settings) { p.Nodes[1].X = nil }, "node 1 has no points"},
		"empty":            {func(p *Problem, _ *Settings) { p.Nodes[1].X = []float64{} }, "node 1"},
		"points NaN":       {func(p *Problem, _ *Settings) { p.Nodes[1].X = []float64{0, 1, nan, 2} }, "point 2"},
		"weights short":    {func(p *Problem, _ *Settings) { p.Nodes[0].Weights = []float64{1} }, "1 weights for 3"},
		"weights negative": {func(p *Problem, _ *Settings) { p.Nodes[0].Weights = []float64{-.2, .7, .5} }, "weight 0 is -0.2"},
		"weights NaN":      {func(p *Problem, _ *Settings) { p.Nodes[0].Weights = []float64{.2, nan, .5} }, "weight 1 is NaN"},
		"weights zero":     {func(p *Problem, _ *Settings) { p.Nodes[0].Weights = make([]float64, 3) }, "sum to 0"},
		"masses differ":    {func(p *Problem, _ *Settings) { p.Nodes[2].Weights = []float64{.5, .51} }, "1.01"},
		"rho negative":     {func(p *Problem, _ *Settings) { p.Nodes[0].Rho = -1 }, "-1"},
		"rho NaN":          {func(p *Problem, _ *Settings) { p.Nodes[0].Rho = nan }, "NaN"},
		"rho of free":      {func(p *Problem, _ *Settings) { p.Nodes[0].Free, p.Nodes[0].Rho = true, 2 }, "free"},
		"all free":         {func(p *Problem, _ *Settings) { p.Nodes = []Node{free(p, 0), free(p, 1), free(p, 2)} }, "all of them are free"},
		"times short":      {func(p *Problem, _ *Settings) { p.Times = []float64{0, 1} }, "got 2"},
		"times equal":      {func(p *Problem, _ *Settings) { p.Times = []float64{0, 1, 1} }, "both at 1"},
		"times NaN":        {func(p *Problem, _ *Settings) { p.Times = []float64{0, 1, nan} }, "time 2 is NaN"},
		"geometry":         {func(p *Problem, _ *Settings) { p.Edges[0].Geometry = geometry.Matrix{C: []float64{1, 2}, N: 1, M: 1} }, "edge 0"},
		"geometry size": {func(p *Problem, _ *Settings) {
			p.Edges[0].Geometry = geometry.Matrix{C: make([]float64, 8), N: 2, M: 4}
		}, "2 points for node 0, want 3"},
		"tolerance":    {func(_ *Problem, s *Settings) { s.Tolerance = -1 }, "tolerance"},
		"iterations":   {func(_ *Problem, s *Settings) { s.MaxIterations = -1 }, "iteration"},
		"acceleration": {func(_ *Problem, s *Settings) { s.Acceleration = sinkhorn.Overrelaxed }, "overrelax"},
		"precision":    {func(_ *Problem, s *Settings) { s.Precision = 9 }, "Precision(9)"},
		"scale of nothing": {func(p *Problem, _ *Settings) {
			p.Scale = sinkhorn.Mean
			clear(p.Nodes[0].X)
			clear(p.Nodes[1].X)
			clear(p.Nodes[2].X)
		}, "do not vary"},
		"overflowing mass":  {func(p *Problem, _ *Settings) { huge(p) }, "product"},
		"infinite weights":  {func(p *Problem, _ *Settings) { p.Nodes[0].Weights = []float64{1, math.Inf(1), 0} }, "Inf"},
		"overflowing total": {func(p *Problem, _ *Settings) { p.Nodes[0].Weights = []float64{1e308, 1e308, 1e308} }, "sum to"},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := three(), Settings{}
			c.change(&p, &s)
			_, err := Solve(t.Context(), device(t), p, s)
			require.ErrorIs(t, err, solver.ErrInvalid)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func free(p *Problem, k int) Node {
	n := p.Nodes[k]
	n.Free = true
	return n
}

func huge(p *Problem) {
	for k := range p.Nodes {
		for i := range p.Nodes[k].Weights {
			p.Nodes[k].Weights[i] *= 1e200
		}
	}
}

// All faults are reported at once.
func TestAllFaultsAtOnce(t *testing.T) {
	p := three()
	p.Nodes = append(p.Nodes, Node{X: []float64{math.Inf(1)}})
	p.Edges = append(p.Edges, Edge{I: 0, J: 2}, Edge{I: 1, J: 1})
	p.Nodes[0].Rho, p.Epsilon = -1, 0
	err := p.Validate()
	require.ErrorIs(t, err, solver.ErrInvalid)
	require.Equal(t, 6, strings.Count(err.Error(), "\n")+1, "%v", err)
	for _, s := range []string{"epsilon", "cycle", "itself", "node 3: invalid problem: no path", "point 0, coordinate 0", "rho"} {
		require.ErrorContains(t, err, s)
	}
}

func TestInvalidChains(t *testing.T) {
	x := [][]float64{{0}, {1}, {2}}
	for name, err := range map[string]error{
		"times":     second(Chain(x, nil, 1, []float64{0, 1}, 1)),
		"order":     second(Chain(x, nil, 1, []float64{0, 2, 1}, 1)),
		"NaN":       second(Chain(x, nil, 1, []float64{0, math.NaN(), 1}, 1)),
		"weights":   second(Chain(x, [][]float64{nil}, 1, []float64{0, 1, 2}, 1)),
		"variance":  second(Chain(x, nil, 1, []float64{0, 1, 2}, 0)),
		"dimension": second(Chain(x, nil, 2, []float64{0, 1, 2}, 1)),
	} {
		require.ErrorIs(t, err, solver.ErrInvalid, name)
	}
}

func second(_ Problem, err error) error { return err }

func TestInvalidPotentials(t *testing.T) {
	p := three()
	p.Nodes[1].Free = true
	for name, f := range map[string][][]float64{
		"too few": {nil, nil},
		"short":   {{1, 2}, nil, nil},
		"NaN":     {{1, 2, math.NaN()}, nil, nil},
		"free":    {nil, {1, 2, 3, 4}, nil},
		"huge":    {{1e9, 0, 0}, nil, nil},
	} {
		_, _, err := Evaluate(t.Context(), device(t), p, f)
		require.ErrorIs(t, err, solver.ErrInvalid, name)
	}
}

func TestInvalidTensors(t *testing.T) {
	nan := math.NaN()
	for name, d := range map[string]Dense{
		"modes":   {Shape: []int{3}, Cost: make([]float64, 3), Epsilon: 1},
		"size":    {Shape: []int{3, 2}, Cost: make([]float64, 5), Epsilon: 1},
		"empty":   {Shape: []int{3, 0}, Epsilon: 1},
		"large":   {Shape: []int{1 << 40, 1 << 40}, Epsilon: 1},
		"NaN":     {Shape: []int{1, 2}, Cost: []float64{1, nan}, Epsilon: 1},
		"epsilon": {Shape: []int{1, 2}, Cost: []float64{1, 2}},
		"weights": {Shape: []int{1, 2}, Cost: []float64{1, 2}, Epsilon: 1, Weights: [][]float64{{1}}},
		"masses":  {Shape: []int{1, 2}, Cost: []float64{1, 2}, Epsilon: 1, Weights: [][]float64{{1}, {1, 1}}},
		"rho":     {Shape: []int{1, 2}, Cost: []float64{1, 2}, Epsilon: 1, Rho: []float64{-1, 0}},
		"free":    {Shape: []int{1, 2}, Cost: []float64{1, 2}, Epsilon: 1, Free: []bool{true}},
	} {
		require.ErrorIs(t, d.Validate(), solver.ErrInvalid, name)
		_, err := d.Solve(t.Context(), Settings{})
		require.ErrorIs(t, err, solver.ErrInvalid, name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := Dense{Shape: []int{1, 2}, Cost: []float64{1, 2}, Epsilon: 1}.Solve(ctx, Settings{})
	require.NoError(t, err)
	require.Equal(t, solver.Canceled, r.Status)
}

// Nodes may have costs and no points.
func TestGivenGeometries(t *testing.T) {
	p := three()
	q := Problem{Epsilon: p.Epsilon, Edges: []Edge{{I: 0, J: 1}, {I: 1, J: 2}}}
	for _, n := range p.Nodes {
		q.Nodes = append(q.Nodes, Node{Weights: n.Weights})
	}
	for e, edge := range p.Edges {
		g := geometry.Points{X: p.Nodes[edge.I].X, Y: p.Nodes[edge.J].X, N: len(p.Nodes[edge.I].X), M: len(p.Nodes[edge.J].X), D: 1}
		c := make([]float64, g.N*g.M)
		for i := range g.N {
			g.Row(i, c[i*g.M:(i+1)*g.M])
		}
		q.Edges[e].Geometry = geometry.Matrix{C: c, N: g.N, M: g.M}
	}
	for _, scale := range []sinkhorn.Scale{sinkhorn.Absolute, sinkhorn.Mean, sinkhorn.Std} {
		p.Scale, q.Scale = scale, scale
		a, b := tight(t, p), tight(t, q)
		near(t, a.Plan.Epsilon, b.Plan.Epsilon, 1e-12, "epsilon")
		near(t, a.Certificate.Dual, b.Certificate.Dual, 1e-9, "dual")
	}
}

// Nothing has the size of a plan: a point takes some hundred bytes, where its row
// of a single edge's plan would take 12800.
func TestMemory(t *testing.T) {
	const n = 1600
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	_, err = Solve(t.Context(), dev, deep(n), Settings{MaxIterations: 1, NoAnnealing: true})
	require.NoError(t, err)
	bytes := float64(dev.Memory().HighWater) / (6 * n)
	t.Logf("%.0f bytes a point", bytes)
	if !(bytes > 50 && bytes < 1000) {
		t.Errorf("%v bytes a point", bytes)
	}
}
