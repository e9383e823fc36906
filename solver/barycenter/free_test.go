package barycenter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// clouds is three clouds in the plane, with weights, and a barycentre of n
// points.
func clouds(seed uint64, n int) FreeProblem {
	r := rand.New(rand.NewPCG(seed, 5))
	p := FreeProblem{D: 2, N: n, Epsilon: .3, Lambda: []float64{.2, .5, .3}, Seed: seed}
	for k, m := range []int{12, 9, 10} {
		c := Cloud{X: normals(r, 2*m), Weights: random(r, m, 1, k)}
		for i := range c.X {
			c.X[i] += float64(2 * k * (i % 2))
		}
		p.Measures = append(p.Measures, c)
	}
	return p
}

func solveFree(t testing.TB, p FreeProblem, s FreeSettings) *FreeResult {
	t.Helper()
	r, err := SolveFree(t.Context(), device(t), p, s)
	require.NoError(t, err)
	return r
}

// fine is settings that leave nothing to chance.
func fine(movement float64) FreeSettings {
	return FreeSettings{Tolerance: movement, MaxIterations: 3000, Transport: sinkhorn.Settings{Tolerance: 1e-11}}
}

func convergedFree(t testing.TB, p FreeProblem, movement float64) *FreeResult {
	t.Helper()
	r := solveFree(t, p, fine(movement))
	require.Equal(t, solver.Converged, r.Status, "movement %v after %d steps", r.Certificate.Movement, r.Iterations)
	return r
}

// The step is the gradient of the objective: -2 w_i step_i for |x-y|², half of
// that for half the cost.
func TestStepIsTheGradient(t *testing.T) {
	for _, debiased := range []bool{false, true} {
		for _, cost := range []geometry.Cost{geometry.SqEuclidean, geometry.HalfSqEuclidean} {
			p := clouds(1, 7)
			p.Debiased, p.Ground = debiased, cost
			p.Weights = random(rand.New(rand.NewPCG(2, 2)), 7, 1)
			m, x, err := p.mover(t.Context(), device(t), fine(1))
			require.NoError(t, err)
			at, err := m.look(t.Context(), x, nil)
			require.NoError(t, err)
			const h = 1e-4
			for _, i := range []int{0, 5, 13} {
				var v [2]float64
				for side, sign := range []float64{1, -1} {
					y := slices.Clone(x)
					y[i] += sign * h
					there, err := m.look(t.Context(), y, at)
					require.NoError(t, err)
					v[side] = there.value
				}
				near(t, -2*m.factor*p.Weights[i/2]*at.step[i], (v[0]-v[1])/(2*h), 1e-6, fmt.Sprintf("gradient, debiased %v, %v", debiased, cost))
			}
		}
	}
}

func TestObjectiveFallsAtEveryStep(t *testing.T) {
	for _, debiased := range []bool{false, true} {
		for _, plain := range []bool{false, true} {
			p := clouds(2, 20)
			p.Debiased = debiased
			s := fine(1e-4)
			s.NoAcceleration = plain
			r := solveFree(t, p, s)
			require.Equal(t, solver.Converged, r.Status)
			require.Len(t, r.Objectives, r.Iterations+1)
			for i, v := range r.Objectives[1:] {
				if !(v <= r.Objectives[i]+1e-12) {
					t.Errorf("debiased %v, plain %v: step %d goes from %v to %v", debiased, plain, i, r.Objectives[i], v)
				}
			}
		}
	}
}

// The certificate is what its fields say of the plans, written out.
func TestFreeCertificate(t *testing.T) {
	p := clouds(3, 15)
	p.Debiased = true
	r := solveFree(t, p, FreeSettings{})
	require.Equal(t, solver.Converged, r.Status)
	c := r.Certificate
	var transport, primal float64
	step := make([]float64, len(r.X))
	value := func(plan sinkhorn.Plan, y []float64, mapped float64) (cost, kl float64) {
		matrix := plan.Matrix()
		m := len(plan.B)
		for i, a := range plan.A {
			for j, b := range plan.B {
				q := matrix[i*m+j]
				d0, d1 := r.X[2*i]-y[2*j], r.X[2*i+1]-y[2*j+1]
				cost += q * (d0*d0 + d1*d1)
				kl += a*b - q
				if q > 0 {
					kl += q * math.Log(q/(a*b))
				}
				step[2*i] += mapped * q / a * y[2*j]
				step[2*i+1] += mapped * q / a * y[2*j+1]
			}
		}
		return cost, kl
	}
	for k, l := range p.Lambda {
		cost, kl := value(r.Plans[k], p.Measures[k].X, l)
		transport += l * cost
		primal += l * (cost + r.Epsilon*kl)
	}
	cost, kl := value(r.Self, r.X, -1)
	primal -= (cost + r.Epsilon*kl) / 2
	near(t, transport, c.TransportCost, 1e-12, "transport cost")
	near(t, primal, c.Primal, 1e-12, "primal")
	near(t, c.Primal-c.Dual, c.Gap, 0, "gap")
	near(t, 0, c.Gap, 1e-5, "gap")
	square := 0.0
	for _, v := range step {
		square += v * v / 15
	}
	m, _, err := p.mover(t.Context(), device(t), FreeSettings{})
	require.NoError(t, err)
	near(t, math.Sqrt(square)/m.spread, c.Movement, 1e-12, "movement")
	require.LessOrEqual(t, c.Movement, 1e-4)
	require.LessOrEqual(t, c.Residual, 1e-6)
	require.Positive(t, r.Sweeps)
}

// On a line, the exact barycentre averages order statistics.
func TestSortedAverages(t *testing.T) {
	p := FreeProblem{
		Measures: []Cloud{{X: []float64{3, 0, 1}}, {X: []float64{10, 16, 12}}}, D: 1, N: 3,
		Lambda: []float64{.75, .25}, Epsilon: .01,
	}
	r := convergedFree(t, p, 1e-7)
	slices.Sort(r.X)
	nearAll(t, []float64{2.5, 3.75, 6.25}, r.X, 1e-6, "points")
}

// A large ε knows nothing of the measures but their means: the plain barycentre
// is their mean, in every point.
func TestLargeEpsilon(t *testing.T) {
	p := clouds(4, 6)
	p.Epsilon = 1e9
	r := convergedFree(t, p, 1e-7)
	var mean [2]float64
	for k, c := range p.Measures {
		for i, v := range c.X {
			mean[i%2] += p.Lambda[k] * c.Weights[i/2] * v
		}
	}
	for i, v := range r.X {
		near(t, mean[i%2], v, 1e-6, "coordinate")
	}
}

// The debiased barycentre of translates of a cloud is a translate, since the
// divergence of centred measures vanishes only where they are equal. The points
// begin near it; the plain one shrinks.
func TestTranslates(t *testing.T) {
	const n = 12
	p := FreeProblem{D: 2, N: n, Epsilon: .2, Debiased: true}
	x := normals(rand.New(rand.NewPCG(6, 6)), 2*n)
	for _, by := range []float64{0, 3, -1} {
		y := slices.Clone(x)
		for i := range y {
			y[i] += by
		}
		p.Measures = append(p.Measures, Cloud{X: y})
	}
	r := convergedFree(t, p, 1e-8)
	for i, v := range x {
		near(t, v+2.0/3, r.X[i], 1e-4, "debiased")
	}
	p.Debiased, p.Epsilon = false, 1
	plain := convergedFree(t, p, 1e-6)
	variance := func(x []float64) (s float64) {
		for q := range 2 {
			m := 0.0
			for i := q; i < 2*n; i += 2 {
				m += x[i] / n
			}
			for i := q; i < 2*n; i += 2 {
				s += (x[i] - m) * (x[i] - m) / n
			}
		}
		return s
	}
	require.Less(t, variance(plain.X), .7*variance(x))

	// λ = (0, 1, 0) is the second measure, whatever the others.
	p.Debiased, p.Epsilon, p.Lambda = true, .2, []float64{0, 1, 0}
	r = convergedFree(t, p, 1e-8)
	nearAll(t, p.Measures[1].X, r.X, 1e-4, "the only measure of weight")
	require.True(t, math.IsNaN(r.Certificate.MarginalError[0]))
}

func TestFreeLaws(t *testing.T) {
	for _, debiased := range []bool{false, true} {
		p := clouds(7, 8)
		p.Debiased = debiased
		p.Start = normals(rand.New(rand.NewPCG(8, 8)), 16)
		want := convergedFree(t, p, 1e-7)
		same := func(q FreeProblem, what string, f func(float64) float64) {
			r := convergedFree(t, q, 1e-7)
			for i, v := range want.X {
				near(t, f(v), r.X[i], 2e-4, fmt.Sprintf("%s, debiased %v", what, debiased))
			}
		}
		identity := func(v float64) float64 { return v }
		moved := func(f func(float64) float64) FreeProblem {
			q := p
			q.Measures = nil
			move := func(x []float64) []float64 {
				y := make([]float64, len(x))
				for i, v := range x {
					y[i] = f(v)
				}
				return y
			}
			q.Start = move(p.Start)
			for _, c := range p.Measures {
				q.Measures = append(q.Measures, Cloud{move(c.X), c.Weights})
			}
			return q
		}
		q := p
		q.Measures = []Cloud{p.Measures[1], p.Measures[2], p.Measures[0]}
		q.Lambda = []float64{5, 3, 2}
		same(q, "permutation", identity)
		shift := func(v float64) float64 { return v - 40 }
		same(moved(shift), "translation", shift)
		scale := func(v float64) float64 { return 4 * v }
		q = moved(scale)
		q.Epsilon *= 16
		same(q, "scale", scale)
		q = p
		q.Ground, q.Epsilon = geometry.HalfSqEuclidean, p.Epsilon/2
		same(q, "half the cost", identity)
		q = p
		q.Epsilon, q.Scale = 1, sinkhorn.Mean
		q.Epsilon = p.Epsilon / solveFree(t, q, FreeSettings{MaxIterations: 1}).Epsilon
		same(q, "epsilon in units of the mean cost", identity)
	}
}

func TestFreeRepeatsToTheBit(t *testing.T) {
	p := clouds(9, 30)
	p.Debiased = true
	before := fmt.Sprint(p)
	a := solveFree(t, p, FreeSettings{MaxIterations: 5})
	require.Equal(t, before, fmt.Sprint(p), "inputs")
	require.Equal(t, solver.MaxIterations, a.Status)
	require.Equal(t, 5, a.Iterations)
	for _, workers := range []int{1, 3} {
		dev, err := gpu.OpenWith("cpu", gpu.Options{Workers: workers})
		require.NoError(t, err)
		b, err := SolveFree(t.Context(), dev, p, FreeSettings{MaxIterations: 5})
		require.NoError(t, err)
		require.NoError(t, dev.Close())
		require.Equal(t, a.X, b.X)
		require.Equal(t, a.Certificate, b.Certificate)
	}
	p.Seed++
	require.NotEqual(t, a.X, solveFree(t, p, FreeSettings{MaxIterations: 5}).X)
}

func TestFreeCancellation(t *testing.T) {
	p := clouds(10, 30)
	for _, at := range []int{1, 50, 300} {
		ctx, cancel := context.WithCancel(t.Context())
		s, n, after := fine(1e-9), 0, 0
		s.Transport.Trace = func(sinkhorn.Iteration) {
			if n++; n == at {
				cancel()
			} else if n > at {
				after++
			}
		}
		r, err := SolveFree(ctx, device(t), p, s)
		require.NoError(t, err)
		require.Equal(t, solver.Canceled, r.Status)
		require.Zero(t, after, "sweeps after cancellation")
		require.Len(t, r.X, 60)
	}
	// Transport that does not converge is not a solution either.
	r := solveFree(t, p, FreeSettings{Transport: sinkhorn.Settings{MaxIterations: 2}})
	require.Equal(t, solver.MaxIterations, r.Status)
}

func TestFreeDeviceFailures(t *testing.T) {
	p := clouds(11, 10)
	p.Debiased = true
	for k := 1; k < 200; k += 13 {
		for _, fail := range []fake.Fail{{Alloc: k}, {Launch: k}} {
			dev := fake.New(device(t), fail)
			_, err := SolveFree(t.Context(), dev, p, FreeSettings{MaxIterations: 3})
			if err != nil && !errors.Is(err, gpu.ErrOutOfMemory) && !errors.Is(err, gpu.ErrLaunch) {
				t.Errorf("%+v: %v", fail, err)
			}
			require.Zero(t, dev.Memory().InUse, "%+v", fail)
		}
	}
}

// Points that coincide, and measures of a point.
func TestFreeHardInputs(t *testing.T) {
	p := FreeProblem{Measures: []Cloud{{X: []float64{0, 0}}, {X: []float64{4, 2}}}, D: 2, N: 3, Epsilon: .1}
	for _, debiased := range []bool{false, true} {
		p.Debiased = debiased
		r := convergedFree(t, p, 1e-6)
		for i, v := range r.X {
			near(t, []float64{2, 1}[i%2], v, 1e-2, fmt.Sprintf("debiased %v", debiased))
		}
	}
}

func TestFreeInvalid(t *testing.T) {
	nan := math.NaN()
	for name, c := range map[string]struct {
		change func(*FreeProblem, *FreeSettings)
		says   string
	}{
		"none":            {func(p *FreeProblem, _ *FreeSettings) { p.Measures, p.Lambda = nil, nil }, "none"},
		"dimension":       {func(p *FreeProblem, _ *FreeSettings) { p.D = 0 }, "dimension"},
		"dimensions":      {func(p *FreeProblem, _ *FreeSettings) { p.Measures[1].X = make([]float64, 7) }, "measure 1"},
		"empty":           {func(p *FreeProblem, _ *FreeSettings) { p.Measures[1] = Cloud{} }, "measure 1"},
		"NaN":             {func(p *FreeProblem, _ *FreeSettings) { p.Measures[2].X[3] = nan }, "measure 2: invalid problem: point 1, coordinate 1"},
		"weights":         {func(p *FreeProblem, _ *FreeSettings) { p.Measures[0].Weights[2] = -1 }, "measure 0"},
		"masses":          {func(p *FreeProblem, _ *FreeSettings) { scaleTo(p.Measures[1].Weights, 2) }, "measure 1"},
		"lambda":          {func(p *FreeProblem, _ *FreeSettings) { p.Lambda = []float64{-1, 1, 1} }, "lambda"},
		"lambda short":    {func(p *FreeProblem, _ *FreeSettings) { p.Lambda = []float64{1, 1} }, "lambda"},
		"no points":       {func(p *FreeProblem, _ *FreeSettings) { p.N = 0 }, "0 points"},
		"too many points": {func(p *FreeProblem, _ *FreeSettings) { p.N = math.MaxInt }, "points"},
		"own weights":     {func(p *FreeProblem, _ *FreeSettings) { p.Weights = []float64{1} }, "barycentre"},
		"own mass":        {func(p *FreeProblem, _ *FreeSettings) { p.Weights = []float64{1, 1, 1, 1} }, "barycentre"},
		"start":           {func(p *FreeProblem, _ *FreeSettings) { p.Start = []float64{1, 2} }, "start"},
		"start inf":       {func(p *FreeProblem, _ *FreeSettings) { p.Start = []float64{1, 2, 3, 4, 5, 6, 7, math.Inf(1)} }, "start"},
		"cost":            {func(p *FreeProblem, _ *FreeSettings) { p.Ground = geometry.Euclidean }, "euclidean"},
		"epsilon":         {func(p *FreeProblem, _ *FreeSettings) { p.Epsilon = nan }, "epsilon"},
		"epsilon scale":   {func(p *FreeProblem, _ *FreeSettings) { p.Scale = -1 }, "scale"},
		"tolerance":       {func(_ *FreeProblem, s *FreeSettings) { s.Tolerance = -1 }, "tolerance"},
		"iterations":      {func(_ *FreeProblem, s *FreeSettings) { s.MaxIterations = -1 }, "limit"},
		"transport":       {func(_ *FreeProblem, s *FreeSettings) { s.Transport.Tolerance = -1 }, "tolerance"},
		"scale of nothing": {func(p *FreeProblem, _ *FreeSettings) {
			*p = FreeProblem{Measures: []Cloud{{X: []float64{1}}}, D: 1, N: 1, Start: []float64{1}, Epsilon: 1, Scale: sinkhorn.Std}
		}, "do not vary"},
	} {
		t.Run(name, func(t *testing.T) {
			p, s := clouds(1, 4), FreeSettings{}
			c.change(&p, &s)
			_, err := SolveFree(t.Context(), device(t), p, s)
			require.ErrorIs(t, err, solver.ErrInvalid)
			require.ErrorContains(t, err, c.says)
		})
	}
}
