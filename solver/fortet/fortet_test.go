package fortet_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/fortet"
	"github.com/fortet/fortet/solver/gaussian"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

func cpu(t testing.TB) gpu.Device {
	t.Helper()
	dev, err := gpu.OpenCPU(gpu.CPUOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { dev.Close() })
	return dev
}

// line is n cells from low to high.
func line(low, high float64, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = low + (high-low)*float64(i)/float64(n-1)
	}
	return x
}

// normal is a normal law on a grid.
func normal(t testing.TB, axes [][]float64, n gaussian.Normal) []float64 {
	t.Helper()
	var inverse mat.Dense
	require.NoError(t, inverse.Inverse(n.Cov))
	l, err := fortet.LogMass(axes, func(x []float64) float64 {
		q := 0.
		for a := range x {
			for b := range x {
				q += (x[a] - n.Mean[a]) * inverse.At(a, b) * (x[b] - n.Mean[b])
			}
		}
		return -q / 2
	})
	require.NoError(t, err)
	return l
}

func law(mean, cov []float64) gaussian.Normal {
	return gaussian.Normal{Mean: mean, Cov: mat.NewSymDense(len(mean), cov)}
}

func solve(t testing.TB, dev gpu.Device, p fortet.Problem, s fortet.Settings) *fortet.Result {
	t.Helper()
	r, err := fortet.Solve(t.Context(), dev, p, s)
	require.NoError(t, err)
	require.NoError(t, r.Status.Err(), "after %d sweeps: %+v", r.Iterations, r.Certificate)
	return r
}

func at(t testing.TB, dev gpu.Device, r *fortet.Result, when float64) *fortet.Slice {
	t.Helper()
	s, err := r.At(t.Context(), dev, when)
	require.NoError(t, err)
	return s
}

// centre of cell i.
func centre(axes [][]float64, i int) []float64 {
	x := make([]float64, len(axes))
	for a := len(axes) - 1; a >= 0; a-- {
		x[a] = axes[a][i%len(axes[a])]
		i /= len(axes[a])
	}
	return x
}

// moments are mean and covariance of a slice.
func moments(axes [][]float64, logMass []float64) (mean []float64, cov *mat.SymDense) {
	d := len(axes)
	mean, cov = make([]float64, d), mat.NewSymDense(d, nil)
	for i, l := range logMass {
		for a, x := range centre(axes, i) {
			mean[a] += x * math.Exp(l)
		}
	}
	for i, l := range logMass {
		x := centre(axes, i)
		for a := range d {
			for b := a; b < d; b++ {
				cov.SetSym(a, b, cov.At(a, b)+math.Exp(l)*(x[a]-mean[a])*(x[b]-mean[b]))
			}
		}
	}
	return mean, cov
}

// The values of MATH.md E.8.
func TestGaussianLine(t *testing.T) {
	dev := cpu(t)
	x := line(-6, 6, 601)
	axes := [][]float64{x}
	p := fortet.Problem{Axes: axes, LogSource: normal(t, axes, law([]float64{0}, []float64{1})),
		LogTarget: normal(t, axes, law([]float64{1}, []float64{.3})), Reference: fortet.Brownian(.5)}
	closed, err := gaussian.Solve(law([]float64{0}, []float64{1}), law([]float64{1}, []float64{.3}), gaussian.Brownian{Epsilon: .5})
	require.NoError(t, err)
	plain := solve(t, dev, p, fortet.Settings{Tolerance: 1e-12, Acceleration: fortet.None, NoAnnealing: true})
	require.InDelta(t, 34, plain.Iterations, 2)
	fast := solve(t, dev, p, fortet.Settings{Tolerance: 1e-12})
	require.Less(t, fast.Iterations, 20)
	for _, r := range []*fortet.Result{plain, fast} {
		s := at(t, dev, r, 0)
		for _, c := range []struct{ x, drift float64 }{{-1, 1.64792027}, {0, 1}, {1.5, .02811960}} {
			require.InDelta(t, c.drift, s.Drift[int(math.Round((c.x+6)*50))], 1e-8)
		}
		mean, cov := moments(axes, at(t, dev, r, .4).LogMass)
		require.InDelta(t, .4, mean[0], 1e-10)
		require.InDelta(t, .6969982368, cov.At(0, 0), 1e-10)
		c := r.Certificate
		require.InDelta(t, 0, c.Source+c.Target, 2e-12)
		require.InDelta(t, 0, c.Gap, 1e-11)
		require.InDelta(t, 1, c.Mass, 1e-12)
		require.InDelta(t, closed.KL, c.Primal, 1e-6) // the grid ends at six standard deviations
	}
	// Time does not end, and the laws become those of the ends.
	for _, when := range []float64{0, 1e-9, 1e-5, 4e-4, 7.9e-4, 8.1e-4, 1e-2, .3, .99, .9995, 1 - 1e-7, 1} {
		s := at(t, dev, fast, when)
		require.InDelta(t, 1, s.Mass, 3e-7, "at %g", when)
		mean, cov := moments(axes, s.LogMass)
		require.InDelta(t, when, mean[0], 1e-6, "at %g", when)
		marginal, err := closed.Marginal(when)
		require.NoError(t, err)
		require.InDelta(t, marginal.Cov.At(0, 0), cov.At(0, 0), 1e-6, "at %g", when)
	}
	for i, l := range at(t, dev, fast, 0).LogMass {
		require.InDelta(t, math.Exp(p.LogSource[i])/math.Exp(logTotal(p.LogSource)), math.Exp(l), 1e-14)
	}
	for i, l := range at(t, dev, fast, 1).LogMass {
		require.InDelta(t, math.Exp(p.LogTarget[i])/math.Exp(logTotal(p.LogTarget)), math.Exp(l), 1e-12)
	}
}

func logTotal(v []float64) float64 {
	s := 0.
	for _, x := range v {
		s += math.Exp(x)
	}
	return math.Log(s)
}

// compare a result with the closed form of normal laws: laws, drift, velocity and
// entropy.
func compare(t *testing.T, dev gpu.Device, r *fortet.Result, source, target gaussian.Normal, ref gaussian.Reference, budget float64, times ...float64) {
	t.Helper()
	closed, err := gaussian.Solve(source, target, ref)
	require.NoError(t, err)
	require.InDelta(t, closed.KL, r.Certificate.Primal, budget)
	require.InDelta(t, closed.KL, r.Certificate.Dual, budget)
	axes, d := r.Problem.Axes, len(r.Problem.Axes)
	for _, when := range times {
		s := at(t, dev, r, when)
		require.InDelta(t, 1, s.Mass, budget)
		mean, cov := moments(axes, s.LogMass)
		want, err := closed.Marginal(when)
		require.NoError(t, err)
		require.InDeltaSlice(t, want.Mean, mean, budget)
		drift, err := closed.Drift(when)
		require.NoError(t, err)
		var precision mat.Dense
		require.NoError(t, precision.Inverse(want.Cov))
		to := make([]float64, d)
		for a := range d {
			for b := range d {
				require.InDelta(t, want.Cov.At(a, b), cov.At(a, b), budget)
			}
		}
		eps := r.Problem.Reference.(fortet.Diffusion).Epsilon
		for i, l := range s.LogMass {
			if l < math.Log(1e-6) { // in the tails the grid's end is felt
				continue
			}
			x := centre(axes, i)
			drift.At(to, x)
			for a := range d {
				require.InDelta(t, to[a], s.Drift[i*d+a], 100*budget, "drift at %g, %v", when, x)
				score := 0.
				for b := range d {
					score -= precision.At(a, b) * (x[b] - want.Mean[b])
				}
				require.InDelta(t, to[a]-eps/2*score, s.Velocity[i*d+a], slack(when)*budget, "velocity at %g, %v", when, x)
			}
		}
	}
}

// slack is what central differences cost, which the laws at the ends have.
func slack(when float64) float64 {
	if when == 0 {
		return 1e6
	}
	return 100
}

// The values of MATH.md C.5: correlated normal laws in the plane under Brownian
// motion and under an Ornstein-Uhlenbeck process.
func TestGaussianPlane(t *testing.T) {
	dev := cpu(t)
	source, target := law([]float64{0, 0}, []float64{1.3, .4, .4, .8}), law([]float64{0, 0}, []float64{2, -.5, -.5, .9})
	axes := [][]float64{line(-9, 9, 121), line(-7, 7, 113)}
	p := fortet.Problem{Axes: axes, LogSource: normal(t, axes, source), LogTarget: normal(t, axes, target)}
	check := func(r *fortet.Result, cov, gain []float64, when float64, full bool) {
		s := at(t, dev, r, when)
		_, got := moments(axes, s.LogMass)
		require.InDeltaSlice(t, cov, []float64{got.At(0, 0), got.At(0, 1), got.At(1, 1)}, 1e-7)
		v := s.Drift
		if !full { // of the gradient of the logarithm
			v = s.Gradient
		}
		i, j, k := 60*113+56, 61*113+56, 60*113+57 // the origin and its neighbours
		for a := range 2 {
			require.InDelta(t, gain[2*a], (v[2*j+a]-v[2*i+a])/.15, 1e-7)
			require.InDelta(t, gain[2*a+1], (v[2*k+a]-v[2*i+a])/.125, 1e-7)
		}
	}

	p.Reference = fortet.Brownian(.5)
	r := solve(t, dev, p, fortet.Settings{Tolerance: 1e-10})
	check(r, []float64{1.47887741, .16081841, .799266312}, []float64{.08675474, -.360283301, -.360283301, -.214359081}, .3, true)
	compare(t, dev, r, source, target, gaussian.Brownian{Epsilon: .5}, 1e-6, 0, .3, .95)

	// Rate b/2 and variance b: stationary under N(0, I).
	p.Reference = fortet.Diffusion{Epsilon: 4, Rate: []float64{2, 2}}
	r = solve(t, dev, p, fortet.Settings{Tolerance: 1e-10})
	check(r, []float64{1.147054052, .096192885, .929970955}, []float64{.056222351, -.02953396, -.02953396, -.006524004}, .3, false)
	compare(t, dev, r, source, target, gaussian.OU{Rate: 4}, 1e-6, 0, .6, .99)

	// A process whose axes differ, and whose centre is not the origin.
	p.Reference = fortet.Diffusion{Epsilon: 1.5, Rate: []float64{.7, -.2}, Center: []float64{.5, 1}}
	r = solve(t, dev, p, fortet.Settings{Tolerance: 1e-10})
	s := at(t, dev, r, .5)
	require.InDelta(t, 1, s.Mass, 1e-9)
	shifted := gaussian.Linear{A: mat.NewDense(2, 2, []float64{-.7, 0, 0, .2}), D: mat.NewSymDense(2, []float64{1.5, 0, 0, 1.5})}
	move := func(n gaussian.Normal) gaussian.Normal {
		return gaussian.Normal{Mean: []float64{n.Mean[0] - .5, n.Mean[1] - 1}, Cov: n.Cov}
	}
	closed, err := gaussian.Solve(move(source), move(target), shifted)
	require.NoError(t, err)
	require.InDelta(t, closed.KL, r.Certificate.Primal, 1e-6)
	want, err := closed.Marginal(.5)
	require.NoError(t, err)
	mean, cov := moments(axes, s.LogMass)
	require.InDeltaSlice(t, []float64{want.Mean[0] + .5, want.Mean[1] + 1}, mean, 1e-6)
	require.InDelta(t, want.Cov.At(0, 1), cov.At(0, 1), 1e-6)
}

func TestGaussianSpace(t *testing.T) {
	dev := cpu(t)
	source, target := law([]float64{0, .2, 0}, []float64{.5, .1, 0, .1, .4, -.1, 0, -.1, .6}), law([]float64{.5, 0, -.4}, []float64{.3, 0, .1, 0, .7, 0, .1, 0, .4})
	axes := [][]float64{line(-4.5, 5, 28), line(-4.5, 5, 29), line(-5, 5, 30)}
	p := fortet.Problem{Axes: axes, LogSource: normal(t, axes, source), LogTarget: normal(t, axes, target), Reference: fortet.Brownian(.8)}
	compare(t, dev, solve(t, dev, p, fortet.Settings{}), source, target, gaussian.Brownian{Epsilon: .8}, 3e-5, 0, .3, .8)
}

// rough is a law without symmetry that leaves cells empty.
func rough(seed uint64, n int) []float64 {
	r := rand.New(rand.NewPCG(seed, 5))
	l := make([]float64, n)
	for i := range l {
		l[i] = 2 * r.NormFloat64()
		if r.IntN(4) == 0 {
			l[i] = math.Inf(-1)
		}
	}
	return l
}

// The plan is that of sinkhorn.Solve with cost |x-y|²/2 between the cells.
func TestSinkhorn(t *testing.T) {
	dev := cpu(t)
	for _, c := range []struct {
		axes [][]float64
		eps  float64
	}{{[][]float64{line(0, 3, 40)}, .3}, {[][]float64{line(0, 1, 11), line(0, 2, 14)}, .05}, {[][]float64{line(0, 2, 60)}, .01}} {
		n := 1
		var grid geometry.Grid
		grid.Ground = geometry.HalfSqEuclidean
		for _, x := range c.axes {
			n *= len(x)
			grid.Axes = append(grid.Axes, geometry.Axis{X: x})
		}
		points, err := grid.Points()
		require.NoError(t, err)
		p := fortet.Problem{Axes: c.axes, LogSource: rough(1, n), LogTarget: rough(2, n), Reference: fortet.Brownian(c.eps)}
		r := solve(t, dev, p, fortet.Settings{Tolerance: 1e-11})
		weights := func(l []float64) []float64 {
			w := make([]float64, n)
			for i := range w {
				w[i] = math.Exp(l[i] - logTotal(l))
			}
			return w
		}
		want, err := sinkhorn.Solve(t.Context(), dev, sinkhorn.Problem{Geometry: points, A: weights(p.LogSource), B: weights(p.LogTarget), Epsilon: c.eps},
			sinkhorn.Settings{Tolerance: 1e-11, Precision: solver.Double})
		require.NoError(t, err)
		require.NoError(t, want.Status.Err())
		plan := want.Plan.Matrix()
		for i := range n {
			for j := range n {
				k := 0.
				for a, x := range centre(c.axes, i) {
					y := centre(c.axes, j)[a]
					h := c.axes[a][1] - c.axes[a][0]
					k += math.Log(h) - (x-y)*(x-y)/(2*c.eps) - math.Log(2*math.Pi*c.eps)/2
				}
				require.InDelta(t, plan[i*n+j], math.Exp(r.LogPhiHat0[i]+k+r.LogPhi1[j]), 1e-10)
			}
		}
	}
}

// Coming down from a large variance ends at the same bridge, sooner.
func TestAnnealing(t *testing.T) {
	dev := cpu(t)
	axes := [][]float64{line(0, 1, 33), line(0, 1, 29)}
	bump := func(at [][2]float64) []float64 {
		l, err := fortet.LogMass(axes, func(x []float64) float64 {
			s := 0.
			for _, c := range at {
				if d := math.Pow(x[0]-c[0], 2) + math.Pow(x[1]-c[1], 2); d < .03 {
					s += math.Exp(-d / .01)
				}
			}
			return math.Log(s)
		})
		require.NoError(t, err)
		return l
	}
	p := fortet.Problem{Axes: axes, LogSource: bump([][2]float64{{.2, .2}, {.3, .7}}), LogTarget: bump([][2]float64{{.8, .5}, {.5, .15}, {.6, .85}}), Reference: fortet.Brownian(.0013)}
	annealed, direct := solve(t, dev, p, fortet.Settings{Tolerance: 1e-9}), solve(t, dev, p, fortet.Settings{Tolerance: 1e-9, NoAnnealing: true})
	require.Less(t, annealed.Iterations, direct.Iterations)
	require.InEpsilon(t, direct.Certificate.Dual, annealed.Certificate.Dual, 1e-8)
	require.InEpsilon(t, direct.Certificate.Primal, annealed.Certificate.Primal, 1e-8)
	p.Reference = fortet.Diffusion{Epsilon: .003, Rate: []float64{.5, -1}, Center: []float64{.3, .2}}
	annealed, direct = solve(t, dev, p, fortet.Settings{Tolerance: 1e-9}), solve(t, dev, p, fortet.Settings{Tolerance: 1e-9, NoAnnealing: true})
	require.InEpsilon(t, direct.Certificate.Dual, annealed.Certificate.Dual, 1e-8)
}

// The bridge seen backwards in time is that from target to source.
func TestTimeReversal(t *testing.T) {
	dev := cpu(t)
	axes := [][]float64{line(-3, 3, 61), line(-2, 2, 41)}
	p := fortet.Problem{Axes: axes, LogSource: normal(t, axes, law([]float64{-1, 0}, []float64{.3, .1, .1, .2})),
		LogTarget: normal(t, axes, law([]float64{1, .4}, []float64{.2, 0, 0, .2})), Reference: fortet.Brownian(.7), Steps: 10,
		Potential: func(t float64, x []float64) float64 { return 5 * t * math.Exp(-x[0]*x[0]-x[1]*x[1]) }}
	q := p
	q.LogSource, q.LogTarget = p.LogTarget, p.LogSource
	q.Potential = func(t float64, x []float64) float64 { return p.Potential(1-t, x) }
	forth, back := solve(t, dev, p, fortet.Settings{Tolerance: 1e-11}), solve(t, dev, q, fortet.Settings{Tolerance: 1e-11})
	for _, when := range []float64{0, .1, .34, .5, .97, 1} {
		a, b := at(t, dev, forth, when), at(t, dev, back, 1-when)
		require.InDelta(t, a.Mass, b.Mass, 1e-9)
		for i := range a.LogMass {
			require.InDelta(t, math.Exp(a.LogMass[i]), math.Exp(b.LogMass[i]), 1e-9)
			if a.LogMass[i] > math.Log(1e-6) {
				for k := range 2 {
					require.InDelta(t, a.Velocity[2*i+k], -b.Velocity[2*i+k], 1e-6)
				}
			}
		}
	}
}

// Every device, both precisions.
func TestDevices(t *testing.T) {
	axes := [][]float64{line(-2, 2, 9), line(-1, 1, 7)}
	p := fortet.Problem{Axes: axes, LogSource: rough(1, 63), LogTarget: rough(2, 63), Reference: fortet.Brownian(.6)}
	q := p
	q.Potential, q.Steps = func(t float64, x []float64) float64 { return x[0] + t }, 2
	want, killed := solve(t, cpu(t), p, fortet.Settings{}), solve(t, cpu(t), q, fortet.Settings{})
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		got := solve(t, dev.Device, p, fortet.Settings{})
		require.InDelta(t, want.Certificate.Primal, got.Certificate.Primal, 1e-7)
		got = solve(t, dev.Device, p, fortet.Settings{Precision: fortet.Single})
		require.InDelta(t, want.Certificate.Primal, got.Certificate.Primal, 1e-3)
		require.LessOrEqual(t, got.Certificate.Target, 1e-4)
		got = solve(t, dev.Device, q, fortet.Settings{})
		require.InDelta(t, killed.Certificate.Primal, got.Certificate.Primal, 1e-7)
		s := at(t, dev.Device, got, .7)
		require.InDeltaSlice(t, at(t, cpu(t), killed, .7).LogMass, s.LogMass, 1e-6)
		_, err := got.Paths(t.Context(), dev.Device, 3, []float64{.1, .9}, 1)
		require.NoError(t, err)
		require.Zero(t, dev.Memory().InUse, "all memory is given back")
	})
}

func TestWorkersAndCancellation(t *testing.T) {
	axes := [][]float64{line(-2, 2, 50), line(-2, 2, 40)}
	p := fortet.Problem{Axes: axes, LogSource: rough(1, 2000), LogTarget: rough(2, 2000), Reference: fortet.Brownian(.2)}
	var first *fortet.Result
	for _, workers := range []int{1, 3} {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(t, err)
		r := solve(t, dev, p, fortet.Settings{})
		if first == nil {
			first = r
		}
		require.Equal(t, first.LogPhi1, r.LogPhi1)
		dev.Close()
	}
	dev := cpu(t)
	ctx, cancel := context.WithCancel(t.Context())
	sweeps := 0
	r, err := fortet.Solve(ctx, dev, p, fortet.Settings{Tolerance: 1e-300, Trace: func(n int, residual float64) {
		sweeps = n
		require.Positive(t, residual)
		if n == 3 {
			cancel()
		}
	}})
	require.NoError(t, err)
	require.Equal(t, solver.Canceled, r.Status)
	require.Equal(t, 3, sweeps)
	_, err = first.At(ctx, dev, .5)
	require.ErrorIs(t, err, context.Canceled)
	_, err = first.Paths(ctx, dev, 3, []float64{.5}, 1)
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, dev.Memory().InUse)
	r = &fortet.Result{Problem: p}
	_, err = r.At(t.Context(), dev, .5)
	require.ErrorIs(t, err, solver.ErrInvalid)

	r, err = fortet.Solve(t.Context(), dev, p, fortet.Settings{MaxIterations: 2})
	require.NoError(t, err)
	require.Equal(t, solver.MaxIterations, r.Status)
	r, err = fortet.Solve(t.Context(), dev, p, fortet.Settings{Tolerance: 1e-30})
	require.NoError(t, err)
	require.Equal(t, solver.Stalled, r.Status)
	require.Less(t, r.Certificate.Target, 1e-10)
}

// Nothing that is given is modified.
func TestInputs(t *testing.T) {
	p := fortet.Problem{Axes: [][]float64{line(0, 1, 9)}, LogSource: rough(1, 9), LogTarget: rough(2, 9), Reference: fortet.Brownian(.3)}
	before := fmt.Sprint(p)
	r := solve(t, cpu(t), p, fortet.Settings{})
	phi := fmt.Sprint(r.LogPhi1, r.LogPhiHat0)
	for _, when := range []float64{0, .5, 1} {
		s := at(t, cpu(t), r, when)
		s.LogPhi[0], s.LogPhiHat[0] = 7, 7
	}
	require.Equal(t, before, fmt.Sprint(p))
	require.Equal(t, phi, fmt.Sprint(r.LogPhi1, r.LogPhiHat0))
}

// Three dimensions of 48 cells each, solved to the default tolerance.
func BenchmarkSolve(b *testing.B) {
	dev := cpu(b)
	x := line(-4, 4, 48)
	axes := [][]float64{x, x, x}
	p := fortet.Problem{Axes: axes, Reference: fortet.Brownian(.5),
		LogSource: normal(b, axes, law(make([]float64, 3), []float64{1, 0, 0, 0, 1, 0, 0, 0, 1})),
		LogTarget: normal(b, axes, law([]float64{1, 0, -.5}, []float64{.3, .1, 0, .1, .5, 0, 0, 0, .6}))}
	for b.Loop() {
		r := solve(b, dev, p, fortet.Settings{})
		b.ReportMetric(float64(r.Iterations), "sweeps")
		require.InDelta(b, 1, r.Certificate.Mass, 1e-7)
	}
}
