package barycenter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/measure"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// Each precision and acceleration finds the same barycentre.
func TestAllRoadsLeadToOneBarycentre(t *testing.T) {
	x, support := grid1(300, 0, 10)
	for _, debiased := range []bool{false, true} {
		p := Problem{Support: support, Epsilon: .02, Scale: sinkhorn.Mean, Debiased: debiased}
		for k := range 3 {
			p.Measures = append(p.Measures, Measure{Weights: normal(x, 3+1.5*float64(k), .6)})
		}
		want := solve(t, p, Settings{Tolerance: 1e-6, Precision: solver.Double})
		require.Equal(t, solver.Converged, want.Status)
		for _, precision := range []solver.Precision{solver.Ladder, solver.Single, solver.Double} {
			for _, acceleration := range []sinkhorn.Acceleration{sinkhorn.None, sinkhorn.Anderson} {
				name := fmt.Sprintf("%v/%v/debiased=%v", precision, acceleration, debiased)
				tol := 1e-5
				if precision == solver.Single {
					tol = 2e-4
				}
				r := solve(t, p, Settings{Tolerance: tol, Precision: precision, Acceleration: acceleration, NoAnnealing: debiased})
				require.Equal(t, solver.Converged, r.Status, "%s: residual %v after %d", name, r.Certificate.Residual, r.Iterations)
				if !(r.Certificate.Residual <= tol) {
					t.Errorf("%s: residual %v", name, r.Certificate.Residual)
				}
				near(t, want.Certificate.Dual, r.Certificate.Dual, 10*tol, name+": dual")
				if precision == solver.Ladder {
					require.Len(t, dtypes(r), 2, name)
				}
			}
		}
	}
}

func dtypes(r *Result) map[string]bool {
	seen := map[string]bool{}
	for _, s := range r.Stages {
		seen[s.DType.String()] = true
	}
	return seen
}

func TestRepeatsToTheBit(t *testing.T) {
	p := small3(7, 300)
	p.Epsilon, p.Debiased = .5, true
	set := Settings{MaxIterations: 60}
	a := solve(t, p, set)
	for _, workers := range []int{1, 3} {
		dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: workers})
		require.NoError(t, err)
		b, err := Solve(t.Context(), dev, p, set)
		require.NoError(t, err)
		require.NoError(t, dev.Close())
		require.Equal(t, a.Weights, b.Weights, "workers = %d", workers)
		require.Equal(t, a.Certificate, b.Certificate)
	}
}

func TestInputsAreNotModified(t *testing.T) {
	p := small3(8, 6)
	p.Reference = []float64{1, 2, 3, 4, 5, 6}
	p.Lambda = []float64{2, 3, 4}
	scaleTo(p.Measures[1].Weights, 1+1e-7)
	before := fmt.Sprint(p)
	solve(t, p, Settings{MaxIterations: 20})
	require.Equal(t, before, fmt.Sprint(p))
}

func TestCancellationAndLimit(t *testing.T) {
	p := small3(9, 40)
	p.Epsilon = .01
	ctx, cancel := context.WithCancel(t.Context())
	last := 0
	r, err := Solve(ctx, device(t), p, Settings{Tolerance: 1e-12, Trace: func(it sinkhorn.Iteration) {
		if last = it.N; it.N == 7 {
			cancel()
		}
	}})
	require.NoError(t, err)
	require.Equal(t, solver.Canceled, r.Status)
	require.Equal(t, 7, last)

	r = solve(t, p, Settings{Tolerance: 1e-12, MaxIterations: 5})
	require.Equal(t, solver.MaxIterations, r.Status)
	require.Equal(t, 5, r.Iterations)
	require.Len(t, r.Weights, 40)
	if !(r.Certificate.Residual > 1e-12) {
		t.Errorf("five iterations reached %v", r.Certificate.Residual)
	}
	p.Debiased = true
	r = solve(t, p, Settings{MaxIterations: 2})
	require.Equal(t, solver.MaxIterations, r.Status)
	require.LessOrEqual(t, r.Certificate.Residual, 2+1e-9, "between measures of one mass")
}

// A device that fails at any moment gives an error, no crash, and its memory
// back.
func TestDeviceFailures(t *testing.T) {
	p := small3(10, 300)
	p.Debiased = true
	p.Measures[0] = Measure{Weights: random(rand.New(rand.NewPCG(1, 2)), 300, 1)}
	for k := 1; k < 40; k++ {
		for _, fail := range []fake.Fail{{Alloc: k}, {Launch: k}} {
			dev := fake.New(device(t), fail)
			_, err := Solve(t.Context(), dev, p, Settings{MaxIterations: 3})
			if err != nil && !errors.Is(err, gpu.ErrOutOfMemory) && !errors.Is(err, gpu.ErrLaunch) {
				t.Errorf("%+v: %v", fail, err)
			}
			if in := dev.Memory().InUse; in != 0 {
				t.Fatalf("%+v: %d bytes still in use", fail, in)
			}
		}
	}
}

func TestHardInputs(t *testing.T) {
	// Far apart for ε: everything underflows that is not in the log domain.
	p := small3(11, 6)
	p.Epsilon = 1e-4
	r := solve(t, p, Settings{MaxIterations: 500})
	for k, plan := range r.Plans {
		for _, v := range append(append([]float64{}, plan.F...), plan.G...) {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Fatalf("potential of plan %d is %v", k, v)
			}
		}
	}
	near(t, 1, measure.Mass(r.Weights), 1e-9, "mass")

	one := geometry.Points{X: []float64{1}, Y: []float64{1}, N: 1, M: 1, D: 1}
	r = converged(t, Problem{Support: one, Measures: []Measure{{}, {}}, Epsilon: 1, Debiased: true}, 0)
	nearAll(t, []float64{1}, r.Weights, 1e-15, "one point")
	near(t, 0, r.Certificate.Dual, 1e-15, "dual of one point")
}

func TestInvalid(t *testing.T) {
	nan := math.NaN()
	for name, c := range map[string]struct {
		change func(*Problem, *Settings)
		says   string
	}{
		"none":             {func(p *Problem, _ *Settings) { p.Measures = nil }, "none"},
		"no geometry":      {func(p *Problem, _ *Settings) { *p = Problem{Measures: []Measure{{}}, Epsilon: 1} }, "support"},
		"epsilon 0":        {func(p *Problem, _ *Settings) { p.Epsilon = 0 }, "epsilon"},
		"epsilon NaN":      {func(p *Problem, _ *Settings) { p.Epsilon = nan }, "epsilon"},
		"epsilon scale":    {func(p *Problem, _ *Settings) { p.Scale = 7 }, "scale"},
		"lambda negative":  {func(p *Problem, _ *Settings) { p.Lambda = []float64{.5, -.2, .7} }, "lambda"},
		"lambda zero":      {func(p *Problem, _ *Settings) { p.Lambda = []float64{0, 0, 0} }, "lambda"},
		"lambda short":     {func(p *Problem, _ *Settings) { p.Lambda = []float64{1} }, "lambda"},
		"lambda NaN":       {func(p *Problem, _ *Settings) { p.Lambda = []float64{nan, 1, 1} }, "lambda"},
		"masses differ":    {func(p *Problem, _ *Settings) { p.Measures[1].Weights = []float64{1, 1, 1, 1, 1} }, "measure 1"},
		"weights negative": {func(p *Problem, _ *Settings) { p.Measures[0].Weights = []float64{-1, 1, 1} }, "measure 0"},
		"weights zero":     {func(p *Problem, _ *Settings) { p.Measures[0].Weights = []float64{0, 0, 0} }, "measure 0"},
		"weights short":    {func(p *Problem, _ *Settings) { p.Measures[2].Weights = []float64{1} }, "measure 2"},
		"reference":        {func(p *Problem, _ *Settings) { p.Reference = []float64{1} }, "reference"},
		"reference inf":    {func(p *Problem, _ *Settings) { p.Reference = []float64{1, 1, 1, 1, 1, math.Inf(1)} }, "reference"},
		"other support":    {func(p *Problem, _ *Settings) { p.Measures[1].Geometry = small3(1, 5).Measures[1].Geometry }, "measure 1"},
		"empty measure": {func(p *Problem, _ *Settings) {
			p.Measures[1] = Measure{Geometry: geometry.Points{Y: make([]float64, 12), M: 6, D: 2}}
		}, "measure 1"},
		"dimensions differ": {func(p *Problem, _ *Settings) {
			p.Measures[1].Geometry = geometry.Points{X: make([]float64, 5), Y: make([]float64, 6), N: 5, M: 6, D: 1}
		}, "dimension 1"},
		"nowhere":    {func(p *Problem, _ *Settings) { p.Support, p.Measures[1].Geometry = nil, nil }, "measure 1"},
		"not square": {func(p *Problem, _ *Settings) { p.Support = p.Measures[0].Geometry }, "support"},
		"not symmetric": {func(p *Problem, _ *Settings) {
			g := p.Support.(geometry.Points)
			g.Y = small3(77, 6).Support.(geometry.Points).X
			p.Support = g
		}, "symmetric"},
		"nothing to debias": {func(p *Problem, _ *Settings) { p.Support, p.Debiased = nil, true }, "debiasing"},
		"rho":               {func(p *Problem, _ *Settings) { p.Rho = -1 }, "rho"},
		"rho debiased":      {func(p *Problem, _ *Settings) { p.Rho, p.Debiased = 1, true }, "rho"},
		"tolerance":         {func(_ *Problem, s *Settings) { s.Tolerance = nan }, "tolerance"},
		"iterations":        {func(_ *Problem, s *Settings) { s.MaxIterations = -1 }, "limit"},
		"acceleration":      {func(_ *Problem, s *Settings) { s.Acceleration = sinkhorn.Overrelaxed }, "overrelax"},
		"precision":         {func(_ *Problem, s *Settings) { s.Precision = 9 }, "precision"},
		"scale of nothing": {func(p *Problem, _ *Settings) {
			g := geometry.Points{X: make([]float64, 4), Y: make([]float64, 4), N: 4, M: 4, D: 1}
			*p = Problem{Support: g, Measures: []Measure{{}}, Epsilon: 1, Scale: sinkhorn.Mean}
		}, "costs do not vary"},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := small3(1, 6), Settings{}
			c.change(&p, &s)
			_, err := Solve(t.Context(), device(t), p, s)
			require.ErrorIs(t, err, solver.ErrInvalid)
			require.ErrorContains(t, err, c.says)
		})
	}
	p := small3(1, 6)
	p.Epsilon, p.Lambda, p.Rho = -1, []float64{1}, -1
	for _, says := range []string{"epsilon", "lambda", "rho"} {
		require.ErrorContains(t, p.Validate(), says, "all faults at once")
	}
}
