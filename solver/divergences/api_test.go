package divergences

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

func TestInvalid(t *testing.T) {
	good := small(t)
	for _, c := range []struct {
		change func(*Problem)
		text   string
	}{
		{func(p *Problem) { p.Geometry = nil }, "no geometry"},
		{func(p *Problem) { p.Geometry = geometry.Matrix{C: []float64{1}, N: 2, M: 2} }, "cost matrix"},
		{func(p *Problem) { p.Geometry = geometry.Matrix{C: []float64{1, math.Inf(-1)}, N: 1, M: 2} }, "want a finite number"},
		{func(p *Problem) { p.Geometry = geometry.Matrix{C: []float64{math.NaN(), math.Inf(1)}, N: 1, M: 2} }, "entry (0, 0) is NaN"},
		{func(p *Problem) { p.Epsilon = 0 }, "epsilon: invalid problem: got 0"},
		{func(p *Problem) { p.Epsilon = math.NaN() }, "epsilon"},
		{func(p *Problem) { p.Scale = 7 }, "epsilon scale"},
		{func(p *Problem) { p.Kind = 2 }, "want regularised or gibbs"},
		{func(p *Problem) { p.Divergence = Divergence{Family: Alpha, Alpha: math.Inf(1)} }, "alpha"},
		{func(p *Problem) { p.A = []float64{1} }, "source weights: invalid problem: 1 weights for 3 points"},
		{func(p *Problem) { p.B = []float64{1, 1, -1, 0} }, "target weights: invalid problem: weight 2 is -1"},
		{func(p *Problem) { p.B = make([]float64, 4) }, "they sum to 0"},
		{func(p *Problem) { p.B = []float64{1, 1, 1, 1} }, "their masses are 1 and 4"},
	} {
		p := good
		c.change(&p)
		_, err := Solve(t.Context(), device(t), p, Settings{})
		require.ErrorIs(t, err, solver.ErrInvalid)
		require.ErrorContains(t, err, c.text)
	}
	p := good
	p.Epsilon, p.Kind = -1, 9
	require.ErrorContains(t, p.Validate(), "epsilon")
	require.ErrorContains(t, p.Validate(), "regularised or gibbs") // all faults at once
	for _, s := range []Settings{{Tolerance: -1}, {MaxIterations: -1}, {Precision: 9}, {Tolerance: math.NaN()}} {
		_, err := Solve(t.Context(), device(t), good, s)
		require.ErrorIs(t, err, solver.ErrInvalid, "%+v", s)
	}
	one, err := geometry.NewPoints([]float64{1, 1}, []float64{1}, 1, geometry.SqEuclidean)
	require.NoError(t, err)
	_, err = Solve(t.Context(), device(t), Problem{Geometry: one, Epsilon: 1, Scale: sinkhorn.Std}, Settings{})
	require.ErrorContains(t, err, "use an absolute epsilon")
}

// The problem is never modified, and a limit of sweeps is a status.
func TestLimitsOfRuns(t *testing.T) {
	p := small(t)
	p.Divergence = Divergence{Family: ReverseKL}
	a, b := slices.Clone(p.A), slices.Clone(p.B)
	var seen []int
	r, err := Solve(t.Context(), device(t), p, Settings{Tolerance: 1e-14, MaxIterations: 3, Trace: func(i sinkhorn.Iteration) { seen = append(seen, i.N) }})
	require.NoError(t, err)
	require.Equal(t, solver.MaxIterations, r.Status)
	require.Error(t, r.Status.Err())
	require.Equal(t, []int{1, 2, 3}, seen)
	require.Equal(t, 3, r.Iterations)
	require.Greater(t, r.Certificate.Residual, 1e-14)
	require.GreaterOrEqual(t, r.Certificate.Primal-r.Certificate.Dual, -0.1)
	require.Equal(t, a, p.A)
	require.Equal(t, b, p.B)
}

// A single point on a side, and one on both.
func TestDegenerateSizes(t *testing.T) {
	for _, d := range all() {
		for _, kind := range []Kind{Regularised, Gibbs} {
			for _, size := range [][2]int{{1, 1}, {1, 5}, {4, 1}} {
				p := Problem{Geometry: cloud(2, size[0], size[1], 2, geometry.SqEuclidean), Epsilon: 3, Divergence: d, Kind: kind}
				r := solved(t, p, Settings{Tolerance: 1e-9})
				plan := r.Plan.Matrix()
				for _, v := range plan { // one coupling alone
					require.InDelta(t, 1/float64(len(plan)), v, 1e-8, "%v %v", kind, d)
				}
			}
		}
	}
}

// Where Newton's directions are too dear, L-BFGS gets there, too, if later. Both climb
// from where the alternating updates, at hand here for one sweep, leave off.
func TestAscents(t *testing.T) {
	dev := device(t)
	for _, d := range all() {
		if d.Family == TotalVariation && d.Delta == 0 {
			continue
		}
		for _, kind := range []Kind{Regularised, Gibbs} {
			var plans [][]float64
			for _, repeat := range []int{1, 180} { // targets so often: 12 and 2160 of them
				g := cloud(2, 9, 12, 2, geometry.SqEuclidean)
				one := g.Y
				for range repeat - 1 {
					g.Y = append(slices.Clip(g.Y), one...)
				}
				g.M = 12 * repeat
				p := Problem{Geometry: g, Epsilon: 1, Scale: sinkhorn.Mean, Divergence: d, Kind: kind}
				task, err := p.task(t.Context(), dev)
				require.NoError(t, err)
				task.divergence = d
				require.Equal(t, repeat == 1, task.newton())
				b, err := open(dev, tensor.Float64, p.Geometry, task.loga, task.logb)
				require.NoError(t, err)
				r := &run{settings: Settings{}.withDefaults(), task: &task, p: make([]float64, task.n), q: make([]float64, task.m)}
				for j := range r.q {
					r.q[j] = d.law().half
				}
				status, err := r.ascend(t.Context(), b, goal{eps: task.eps, tolerance: 1e-7, sweeps: 3000})
				b.close()
				require.NoError(t, err)
				require.NoError(t, status.Err(), "%v %v ×%d: %v after %d", kind, d, repeat, r.residual, r.sweeps)
				matrix := task.plan(r.p, r.q).Matrix()
				sum := make([]float64, 9*12)
				for k, v := range matrix {
					sum[k/g.M*12+k%12] += v
				}
				plans = append(plans, sum)
			}
			require.Less(t, largestDifference(plans[0], plans[1]), 2e-6, "%v %v", kind, d)
		}
	}
}

// The plan's answers: rows, the barycentric map, draws that follow it, and paths
// that end where the draws do.
func TestPlan(t *testing.T) {
	p := small(t)
	p.Kind, p.Divergence = Gibbs, Divergence{Family: JensenShannon}
	plan := solved(t, p, tight).Plan
	matrix := plan.Matrix()
	row := make([]float64, 4)
	plan.Row(2, row)
	require.Equal(t, matrix[8:], row)

	reread := Plan{Geometry: plan.Geometry, A: plan.A, B: plan.B, F: plan.F, G: plan.G,
		Epsilon: plan.Epsilon, Divergence: plan.Divergence, Kind: plan.Kind, LogZ: plan.LogZ}
	require.Less(t, largestDifference(matrix, reread.Matrix()), 1e-15)

	bary, err := plan.BarycentricMap(t.Context())
	require.NoError(t, err)
	y := p.Geometry.(geometry.Points).Y
	for i := range 3 {
		want := 0.0
		for j := range 4 {
			want += matrix[4*i+j] * y[j] / p.A[i]
		}
		require.InDelta(t, want, bary[i], 1e-12)
	}

	const k = 40000
	pairs, err := plan.Sample(t.Context(), k, 11)
	require.NoError(t, err)
	count := make([]float64, 12)
	for _, s := range pairs {
		count[4*s.I+s.J]++
	}
	for c, want := range matrix { // 5 standard errors
		require.InDelta(t, want, count[c]/k, 5*math.Sqrt(want/k)+1e-9)
	}
	fewer, err := plan.Sample(t.Context(), 100, 11)
	require.NoError(t, err)
	require.Equal(t, pairs[:100], fewer)

	paths, err := plan.Paths(t.Context(), k, []float64{0, 0.5, 1}, 11)
	require.NoError(t, err)
	x := p.Geometry.(geometry.Points).X
	variance := 0.0
	for s, pair := range pairs {
		require.Equal(t, x[pair.I], paths[3*s])
		require.Equal(t, y[pair.J], paths[3*s+2])
		d := paths[3*s+1] - (x[pair.I]+y[pair.J])/2
		variance += d * d / k
	}
	require.InDelta(t, 0.25, variance, 5*0.25*math.Sqrt(2.0/k)) // ε/2 · ¼ with |x-y|² at ε = 2

	for _, times := range [][]float64{nil, {0.5, 0.2}, {-1}, {math.NaN()}} {
		_, err := plan.Paths(t.Context(), 1, times, 1)
		require.ErrorIs(t, err, solver.ErrInvalid)
	}
	_, err = plan.Sample(t.Context(), 0, 1)
	require.ErrorIs(t, err, solver.ErrInvalid)
	plan.Kind = Regularised
	_, err = plan.Paths(t.Context(), 1, []float64{0}, 1)
	require.ErrorContains(t, err, "no bridge of a process")
	plan.F = plan.F[:1]
	_, err = plan.Sparse(t.Context())
	require.ErrorIs(t, err, solver.ErrInvalid)
	require.ErrorContains(t, Plan{Geometry: p.Geometry, Divergence: Divergence{Family: TotalVariation}}.Validate(), "do not say what its plan is")
	require.ErrorIs(t, Plan{}.Validate(), solver.ErrInvalid)
}

// Sparse plans: of Pearson's χ² with few entries, of the exact total variation as
// it is.
func TestSparsePlans(t *testing.T) {
	g := cloud(4, 60, 50, 2, geometry.SqEuclidean)
	for _, d := range []Divergence{{Family: PearsonChi2}, {Family: Alpha, Alpha: 1.5}, {Family: Alpha, Alpha: 3}, {Family: TotalVariation}} {
		r := solved(t, Problem{Geometry: g, Epsilon: 0.1, Scale: sinkhorn.Mean, Divergence: d}, Settings{Tolerance: 1e-7})
		sparse, err := r.Plan.Sparse(t.Context())
		require.NoError(t, err)
		dense := r.Plan.Matrix()
		for i := range 60 {
			for k := sparse.Starts[i]; k < sparse.Starts[i+1]; k++ {
				require.Equal(t, dense[i*50+int(sparse.Columns[k])], sparse.Values[k])
				dense[i*50+int(sparse.Columns[k])] = 0
			}
		}
		require.Equal(t, make([]float64, 3000), dense, d.String())
		require.Less(t, len(sparse.Values), 2000, d.String())
		require.Greater(t, len(sparse.Values), 60)
	}
}

// A point of weight zero has no mass and still a potential and an image.
func TestZeroWeights(t *testing.T) {
	p := small(t)
	p.A, p.B = []float64{0.5, 0, 0.5}, []float64{0.25, 0.25, 0, 0.5}
	for _, d := range all() {
		for _, kind := range []Kind{Regularised, Gibbs} {
			p.Divergence, p.Kind = d, kind
			r := solved(t, p, Settings{Tolerance: 1e-9})
			plan := r.Plan.Matrix()
			for j := range 4 {
				require.Zero(t, plan[4+j])
			}
			for i := range 3 {
				require.Zero(t, plan[4*i+2])
			}
			for _, f := range append(slices.Clone(r.Plan.F), r.Plan.G...) {
				require.False(t, math.IsNaN(f) || math.IsInf(f, 0), "%v %v", kind, d)
			}
			bary, err := r.Plan.BarycentricMap(t.Context())
			require.NoError(t, err)
			require.False(t, math.IsNaN(bary[1]))
		}
	}
}

// ExampleSolve couples three points with four by quadratically regularised
// transport, whose plan is sparse.
func ExampleSolve() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	points, err := geometry.NewPoints([]float64{0, 1, 2.5}, []float64{-.5, .5, 1.5, 3}, 1, geometry.SqEuclidean)
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := Solve(context.Background(), dev, Problem{
		Geometry: points, A: []float64{.2, .3, .5}, B: []float64{.1, .4, .3, .2},
		Epsilon: 1, Divergence: Divergence{Family: PearsonChi2},
	}, Settings{Tolerance: 1e-12})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%v: %.4f\n", r.Status, r.Certificate.Primal)
	plan := r.Plan.Matrix()
	for i := range 3 {
		fmt.Printf("%.3f\n", plan[4*i:4*i+4])
	}
	// Output:
	// converged: 1.3640
	// [0.055 0.136 0.009 0.000]
	// [0.045 0.174 0.081 0.000]
	// [0.000 0.090 0.210 0.200]
}
