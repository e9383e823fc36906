package fortet_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/exact"
	"github.com/fortet/fortet/solver/fortet"
)

// mehler is the kernel of Brownian motion of variance ε killed at rate q x²/2
// (Mehler 1866), in closed form.
func mehler(x []float64, eps, q, duration float64) []float64 {
	w := math.Sqrt(q * eps)
	sinh, cosh := math.Sinh(w*duration), math.Cosh(w*duration)
	h := x[1] - x[0]
	var out []float64
	for _, a := range x {
		for _, b := range x {
			out = append(out, math.Log(h*math.Sqrt(w/(2*math.Pi*eps*sinh)))-w/(2*eps*sinh)*((a*a+b*b)*cosh-2*a*b))
		}
	}
	return out
}

// A quadratic potential against its closed form: the error falls as the square of
// the number of steps.
func TestQuadraticKilling(t *testing.T) {
	dev := cpu(t)
	const eps, q = .6, 3.
	x := line(-5, 5, 201)
	axes := [][]float64{x}
	p := fortet.Problem{Axes: axes, LogSource: normal(t, axes, law([]float64{-1}, []float64{.4})), LogTarget: normal(t, axes, law([]float64{1.2}, []float64{.2}))}
	p.Reference, p.Steps = fortet.Given{LogKernels: [][]float64{mehler(x, eps, q, .25)}}, 4
	mehlers := solve(t, dev, p, fortet.Settings{Tolerance: 1e-10})
	p.Reference, p.Potential = fortet.Brownian(eps), func(_ float64, x []float64) float64 { return q * x[0] * x[0] / 2 }
	last := math.Inf(1)
	for _, steps := range []int{16, 32, 64} {
		p.Steps = steps
		r := solve(t, dev, p, fortet.Settings{Tolerance: 1e-10})
		off := math.Abs(mehlers.Certificate.Primal - r.Certificate.Primal)
		worst := 0.
		for _, when := range []float64{.25, .5, 1} {
			a, b := at(t, dev, mehlers, when), at(t, dev, r, when)
			require.InDelta(t, 1, a.Mass, 1e-9)
			require.InDelta(t, 1, b.Mass, 1e-9)
			for i := range x {
				worst = max(worst, math.Abs(math.Exp(a.LogMass[i])-math.Exp(b.LogMass[i])))
			}
		}
		if steps > 16 {
			require.InDelta(t, 4, last/off, .2, "second order in the step: %g, then %g", last, off)
		}
		last = off
		require.Less(t, worst, 3./float64(steps*steps))
		if steps < 64 {
			continue
		}
		// Between steps, and the drift by differences against that of Mehler's kernel.
		s := at(t, dev, r, .37)
		require.InDelta(t, 1, s.Mass, 1e-3)
		half := at(t, dev, r, .5)
		w := math.Sqrt(q * eps)
		for i, v := range x {
			if half.LogMass[i] < math.Log(1e-8) {
				continue
			}
			// Σ_j K(x, y_j) φ_1(y_j), differentiated.
			k := mehler(x, eps, q, .5)
			num, den := 0., 0.
			for j, y := range x {
				z := math.Exp(k[i*len(x)+j] + mehlers.LogPhi1[j])
				den += z
				num += z * w / math.Sinh(w/2) * (y - v*math.Cosh(w/2))
			}
			require.InDelta(t, num/den, half.Drift[i], 2e-2)
		}
	}
}

// dense is the whole in plain numbers: kernel and cells of each step, the two-end
// kernel as their product, and the fixed point of the definition.
type dense struct {
	k     *mat.Dense   // from 0 to 1
	legs  []*mat.Dense // of each step
	phi   []float64    // φ_1
	hat   []float64    // φ̂_0
	start []float64
}

func denseSolve(legs []*mat.Dense, mu, nu []float64) dense {
	n := len(mu)
	d := dense{legs: legs, k: mat.DenseCopyOf(legs[0]), phi: make([]float64, n), hat: make([]float64, n), start: mu}
	for _, l := range legs[1:] {
		var next mat.Dense
		next.Mul(d.k, l)
		d.k = &next
	}
	for j := range d.phi {
		d.phi[j] = 1
	}
	for range 5000 {
		for i := range n {
			s := 0.
			for j := range n {
				s += d.k.At(i, j) * d.phi[j]
			}
			d.hat[i] = mu[i] / s
		}
		for j := range n {
			s := 0.
			for i := range n {
				s += d.k.At(i, j) * d.hat[i]
			}
			d.phi[j] = nu[j] / s
		}
	}
	return d
}

// law is that after so many steps, and kl the relative entropy of the plan to the
// source and the kernel.
func (d dense) law(steps int) []float64 {
	n := len(d.hat)
	left, right := mat.NewVecDense(n, append([]float64(nil), d.hat...)), mat.NewVecDense(n, append([]float64(nil), d.phi...))
	for s, l := range d.legs {
		if s < steps {
			var next mat.VecDense
			next.MulVec(l.T(), left)
			left = &next
		}
	}
	for s := len(d.legs) - 1; s >= steps; s-- {
		var next mat.VecDense
		next.MulVec(d.legs[s], right)
		right = &next
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = left.AtVec(i) * right.AtVec(i)
	}
	return out
}

func (d dense) kl() (s float64) {
	for i, h := range d.hat {
		for j, f := range d.phi {
			if p := h * d.k.At(i, j) * f; p > 0 {
				s += p * math.Log(h*f/d.start[i])
			}
		}
	}
	return s
}

func probabilities(l []float64) []float64 {
	out := make([]float64, len(l))
	for i, x := range l {
		out[i] = math.Exp(x - logTotal(l))
	}
	return out
}

// A kernel without symmetry in two dimensions, several steps and a potential that
// changes in time, against dense matrices; and the same with holes, where the
// transport problem with a cost of 1 for what cannot happen says whether there is a
// solution.
func TestDense(t *testing.T) {
	dev := cpu(t)
	axes := [][]float64{{0, .5, 2}, {-1, 0, 1, 2, 5}}
	const steps, n = 3, 15
	feasible, infeasible := 0, 0
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 7))
		holes := seed > 2
		given := fortet.Given{}
		for _, x := range axes {
			k := make([]float64, len(x)*len(x))
			for i := range k {
				k[i] = r.NormFloat64()
				if holes && i%len(x) != i/len(x) && r.IntN(5) > int(seed)%3 {
					k[i] = math.Inf(-1)
				}
			}
			given.LogKernels = append(given.LogKernels, k)
		}
		potential := func(t float64, x []float64) float64 {
			if holes && t > .2 && t < .4 && x[0] == .5 && x[1] == 1 {
				return math.Inf(1)
			}
			return t*x[0] - math.Sin(3*t)*x[1]
		}
		p := fortet.Problem{Axes: axes, LogSource: rough(seed+20, n), LogTarget: rough(seed+40, n), Reference: given, Potential: potential, Steps: steps}
		var legs []*mat.Dense
		for s := range steps {
			l := mat.NewDense(n, n, nil)
			for i := range n {
				for j := range n {
					v := given.LogKernels[0][i/5*3+j/5] + given.LogKernels[1][i%5*5+j%5]
					v -= (potential(float64(s)/steps, centre(axes, i)) + potential(float64(s+1)/steps, centre(axes, j))) / (2 * steps)
					l.Set(i, j, math.Exp(v))
				}
			}
			legs = append(legs, l)
		}
		want := denseSolve(legs, probabilities(p.LogSource), probabilities(p.LogTarget))
		forbidden := exact.Matrix{N: n, M: n, C: make([]float64, n*n)}
		for i, k := range want.k.RawMatrix().Data {
			if k == 0 {
				forbidden.C[i] = 1
			}
		}
		lp, err := exact.Solver{}.Solve(t.Context(), exact.Problem{Costs: forbidden, A: probabilities(p.LogSource), B: probabilities(p.LogTarget)})
		require.NoError(t, err)
		got, err := fortet.Solve(t.Context(), dev, p, fortet.Settings{Tolerance: 1e-12})
		if lp.Cost > 1e-9 {
			require.ErrorIs(t, err, solver.ErrInfeasible, "seed %d", seed)
			infeasible++
			continue
		}
		feasible++
		require.NoError(t, err, "seed %d", seed)
		require.NoError(t, got.Status.Err(), "seed %d", seed)
		require.InDelta(t, want.kl(), got.Certificate.Primal, 1e-9)
		require.InDelta(t, want.kl(), got.Certificate.Dual, 1e-9)
		for s := range steps + 1 {
			slice := at(t, dev, got, float64(s)/steps)
			require.InDelta(t, 1, slice.Mass, 1e-10)
			require.Nil(t, slice.Drift)
			for i, w := range want.law(s) {
				require.InDelta(t, w, math.Exp(slice.LogMass[i]), 1e-10, "step %d, cell %d", s, i)
			}
		}
		_, err = got.At(t.Context(), dev, .5)
		require.ErrorIs(t, err, solver.ErrInvalid)
		require.ErrorContains(t, err, "multiple of 1/3")
	}
	require.GreaterOrEqual(t, feasible, 4, "and %d infeasible", infeasible)
	require.GreaterOrEqual(t, infeasible, 2)
}

func TestInfeasible(t *testing.T) {
	dev := cpu(t)
	inf := math.Inf(-1)
	axes := [][]float64{{0, 1, 2}}
	solve := func(p fortet.Problem) error {
		_, err := fortet.Solve(t.Context(), dev, p, fortet.Settings{})
		require.ErrorIs(t, err, solver.ErrInfeasible)
		return err
	}
	// To the right only.
	right := fortet.Given{LogKernels: [][]float64{{0, 0, inf, inf, 0, 0, inf, inf, 0}}}
	err := solve(fortet.Problem{Axes: axes, LogSource: []float64{inf, 0, 0}, LogTarget: []float64{0, 0, 0}, Reference: right})
	require.ErrorContains(t, err, "target: infeasible problem: cell [0] at [0], of mass 0.3333")
	err = solve(fortet.Problem{Axes: axes, LogSource: []float64{0, 0, 0}, LogTarget: []float64{inf, 0, inf}, Reference: right, Steps: 2})
	require.ErrorContains(t, err, "source: infeasible problem: cell [2] at [2]")
	// All are reached, but half of the mass would have to go left.
	err = solve(fortet.Problem{Axes: axes, LogSource: []float64{math.Log(.1), math.Log(.3), math.Log(.6)},
		LogTarget: []float64{math.Log(.1), math.Log(.6), math.Log(.3)}, Reference: right})
	require.ErrorContains(t, err, "every cell with mass is reached")
	// A little less than what would do: the dual rises slowly.
	err = solve(fortet.Problem{Axes: axes, LogSource: []float64{math.Log(.1), math.Log(.3), math.Log(.6)},
		LogTarget: []float64{math.Log(.1), math.Log(.3001), math.Log(.5999)}, Reference: right})
	require.ErrorContains(t, err, "every cell with mass is reached")
	// A wall.
	wall := fortet.Problem{Axes: [][]float64{line(-1, 1, 21)}, Reference: fortet.Given{LogKernels: [][]float64{neighbours(21)}}, Steps: 60,
		Potential: func(_ float64, x []float64) float64 {
			if math.Abs(x[0]) < .05 {
				return math.Inf(1)
			}
			return 0
		}}
	wall.LogSource, wall.LogTarget = make([]float64, 21), make([]float64, 21)
	for i := range 21 {
		wall.LogSource[i], wall.LogTarget[i] = inf, inf
	}
	wall.LogSource[3], wall.LogTarget[17] = 0, 0
	require.ErrorContains(t, solve(wall), "cell [3]")
	wall.LogTarget[4] = -1
	require.ErrorContains(t, solve(wall), "target: infeasible problem: cell [17]")
	wall.LogTarget[17] = inf
	r, err := fortet.Solve(t.Context(), dev, wall, fortet.Settings{})
	require.NoError(t, err)
	require.NoError(t, r.Status.Err())
}

// neighbours is a walk that stays or goes one cell.
func neighbours(n int) []float64 {
	k := make([]float64, n*n)
	for i := range n {
		for j := range n {
			k[i*n+j] = math.Inf(-1)
			if i-j <= 1 && j-i <= 1 {
				k[i*n+j] = math.Log(1. / 3)
			}
		}
	}
	return k
}
