package discrete

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/solver"
)

var exampleG = []float64{-1, .6, .4, .3, -.5, .2, .1, .9, -1}

func solveJump(t testing.TB, j Jump, set Settings) *JumpBridge {
	t.Helper()
	b, err := SolveJump(t.Context(), j, set)
	require.NoError(t, err)
	require.NoError(t, b.Status.Err(), "after %d sweeps: %+v", b.Iterations, b.Certificate)
	return b
}

func moments(t testing.TB, b *JumpBridge, times ...float64) []Moment {
	t.Helper()
	m, err := b.At(t.Context(), times...)
	require.NoError(t, err)
	return m
}

// exponential is exp(τG) by gonum.
func exponential(g *Matrix, tau float64) *mat.Dense {
	var scaled, out mat.Dense
	scaled.Scale(tau, mat.NewDense(g.n, g.n, g.Dense()))
	out.Exp(&scaled)
	return &out
}

func randomGenerator(r *rand.Rand, n int, zeros, scale float64) *Matrix {
	g := make([]float64, n*n)
	for i := range n {
		for j := range n {
			if i != j && (r.Float64() >= zeros || j == (i+1)%n) {
				g[i*n+j] = scale * r.ExpFloat64()
				g[i*n+i] -= g[i*n+j]
			}
		}
	}
	m, err := NewDense(n, g)
	if err != nil {
		panic(err)
	}
	return m
}

// The example of MATH.md E.7; its digits are the tolerance.
func TestJumpExample(t *testing.T) {
	b := solveJump(t, Jump{Generators: []*Matrix{dense(t, 3, exampleG...)}, Durations: []float64{1.5}, Marginals: Ends(exampleMu, exampleNu, 1)}, Settings{Tolerance: 1e-12})
	rates := moments(t, b, .75)[0].Rates
	for _, c := range []struct {
		i, j int
		want float64
	}{{0, 1, .417639718}, {0, 2, .688962324}, {1, 0, .430993491}, {1, 2, .494897129}, {2, 0, .058058327}, {2, 1, .363711951}} {
		require.InDelta(t, c.want, rates.At(c.i, c.j), 1e-9)
	}
	require.InDelta(t, 0, b.Certificate.Gap, 1e-11)
	require.Greater(t, b.Certificate.Truncation, 0.)
	require.Less(t, b.Certificate.Truncation, 1e-15)
}

// exp(τG) on vectors, both ways, against gonum's exponential.
func TestUniformisation(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 2, 3, 10} {
		for _, tau := range []float64{1e-9, .1, 1, 30, 400} {
			g := randomGenerator(r, n, .5, 1)
			f := newFlow(g, tau)
			e := exponential(g, tau)
			x := make([]float64, n)
			for i := range x {
				x[i] = 3 * r.NormFloat64()
			}
			x[r.IntN(n)] = math.Inf(-1)
			out, back := make([]float64, n), make([]float64, n)
			h := &host{}
			require.NoError(t, f.back(t.Context(), h, out, x))
			require.NoError(t, f.forth(t.Context(), h, back, x))
			for i := range n {
				row, column := 0.0, 0.0
				for j := range n {
					row += e.At(i, j) * math.Exp(x[j])
					column += e.At(j, i) * math.Exp(x[j])
				}
				require.InDelta(t, row, math.Exp(out[i]), 1e-11*row+1e-14, "row %d of %d at %g", i, n, tau)
				require.InDelta(t, column, math.Exp(back[i]), 1e-11*column+1e-14, "column %d of %d at %g", i, n, tau)
			}
		}
	}
}

// A process that only goes up, at rate one, counts like Poisson: its
// probabilities are known however small, in plain numbers and below them.
func TestPoisson(t *testing.T) {
	const n = 120
	g := make([]float64, n*n)
	for i := range n - 1 {
		g[i*n+i], g[i*n+i+1] = -1, 1
	}
	m := dense(t, n, g...)
	for _, tau := range []float64{1e-3, 1, 40} {
		x, out := make([]float64, n), make([]float64, n)
		for i := range x {
			x[i] = math.Inf(-1)
		}
		x[0] = 2
		require.NoError(t, newFlow(m, tau).forth(t.Context(), &host{}, out, x))
		for k := range n - 1 {
			lg, _ := math.Lgamma(float64(k + 1))
			want := 2 - tau + float64(k)*math.Log(tau) - lg
			require.InDelta(t, want, out[k], 1e-13*(1+math.Abs(want)), "state %d at %g", k, tau)
		}
		x[0], x[n-2] = math.Inf(-1), 0
		require.NoError(t, newFlow(m, tau).back(t.Context(), &host{}, out, x))
		lg, _ := math.Lgamma(n - 1)
		want := -tau + (n-2)*math.Log(tau) - lg
		require.InDelta(t, want, out[0], 1e-13*(1+math.Abs(want)))
		require.True(t, math.IsInf(out[n-1], -1))
	}
}

func TestLogPoisson(t *testing.T) {
	for _, mean := range []float64{1e-5, .3, 7, 100, 1e5} {
		// Their sum is one, and neighbours differ by mean/k.
		sum, low := 0.0, max(0, int(mean-40*math.Sqrt(mean)))
		high := int(mean + 40*math.Sqrt(mean) + 40)
		for k := low; k <= high; k++ {
			sum += math.Exp(logPoisson(k, mean))
			if k > 0 {
				require.InDelta(t, math.Log(mean/float64(k)), logPoisson(k, mean)-logPoisson(k-1, mean), 3e-14*(1+math.Abs(logPoisson(k, mean))))
			}
		}
		require.InDelta(t, 1, sum, 2e-14)
		for _, k := range []int{int(mean) + 1, int(2*mean) + 3} {
			tail := 0.0
			for l := k + 1; l <= high+10; l++ {
				tail += math.Exp(logPoisson(l, mean))
			}
			require.GreaterOrEqual(t, logTail(k, mean), math.Log(tail)-1e-10)
		}
	}
}

// The same, independently: potentials from dense exponentials.
func TestJumpAgainstExponentials(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	const n = 5
	j := Jump{Generators: []*Matrix{randomGenerator(r, n, .3, 1), randomGenerator(r, n, .3, 90), randomGenerator(r, n, .3, .1)}, Durations: []float64{.5, 1.5, .25}}
	j.Marginals = Ends(randomLaw(r, n), randomLaw(r, n), 3)
	b := solveJump(t, j, Settings{Tolerance: 1e-13})
	require.Greater(t, len(b.times), 6, "the fast piece has several steps")

	// over is the transition matrix from s to t.
	over := func(s, t float64) *mat.Dense {
		out := mat.NewDense(n, n, nil)
		for i := range n {
			out.Set(i, i, 1)
		}
		for k, d := range j.Durations {
			low, high := max(s, b.knots[k]), min(t, b.knots[k]+d)
			if high > low {
				next := &mat.Dense{}
				next.Mul(out, exponential(j.Generators[k], high-low))
				out = next
			}
		}
		return out
	}
	k := over(0, b.Horizon())
	u, v := make([]float64, n), make([]float64, n)
	for i := range v {
		v[i] = 1
	}
	for range 500 {
		for i := range u {
			u[i] = j.Marginals[0][i] / mat.Dot(k.RowView(i), mat.NewVecDense(n, v))
		}
		for i := range v {
			v[i] = j.Marginals[3][i] / mat.Dot(k.ColView(i), mat.NewVecDense(n, u))
		}
	}
	kl := 0.0
	for i := range n {
		for l := range n {
			if p := u[i] * k.At(i, l) * v[l]; p > 0 {
				kl += p * math.Log(p/k.At(i, l)/j.Marginals[0][i])
			}
		}
	}
	require.InDelta(t, kl, b.Certificate.KL, 1e-11)
	times := []float64{2.25, 0, .1, .5, .7, 1.9, 2, 2.1}
	for q, m := range moments(t, b, times...) {
		when := times[q]
		require.Equal(t, when, m.Time)
		to, from := over(when, b.Horizon()), over(0, when)
		piece := 2
		for piece > 0 && when < b.knots[piece] {
			piece--
		}
		phi, law := make([]float64, n), make([]float64, n)
		for i := range n {
			phi[i] = mat.Dot(to.RowView(i), mat.NewVecDense(n, v))
			law[i] = phi[i] * mat.Dot(from.ColView(i), mat.NewVecDense(n, u))
			require.InDelta(t, math.Log(law[i]), m.Phi[i]+m.Hat[i], 1e-10)
		}
		near(t, law, m.Marginal, 1e-11, "law at %g", when)
		for i := range n {
			require.InDelta(t, math.Log(phi[i]/phi[0]), m.Phi[i]-m.Phi[0], 1e-10)
			sum := 0.0
			for l := range n {
				sum += m.Rates.At(i, l)
				if i != l {
					want := j.Generators[piece].At(i, l) * phi[l] / phi[i]
					require.InDelta(t, want, m.Rates.At(i, l), 1e-9*(1+want), "rate %d to %d at %g", i, l, when)
				}
			}
			require.InDelta(t, 0, sum, 1e-12*(1+math.Abs(m.Rates.At(i, i))))
		}
	}
	// The laws move as the rates say: Kolmogorov's forward equation.
	for _, when := range []float64{.2, 1.2, 2.1} {
		const step = 1e-5
		m := moments(t, b, when-step, when, when+step)
		for l := range n {
			flow := 0.0
			for i := range n {
				flow += m[1].Marginal[i] * m[1].Rates.At(i, l)
			}
			require.InDelta(t, flow, (m[2].Marginal[l]-m[0].Marginal[l])/(2*step), 1e-6*(1+math.Abs(flow)))
		}
	}
}

// How time is cut makes no difference, nor where the messages are kept.
func TestPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	const n = 6
	g := randomGenerator(r, n, .4, 40)
	mu, mid, nu := randomLaw(r, n), randomLaw(r, n), randomLaw(r, n)
	whole := solveJump(t, Jump{Generators: []*Matrix{g}, Durations: []float64{1, 2}, Marginals: map[int][]float64{0: mu, 1: mid, 2: nu}}, Settings{Tolerance: 1e-13})
	cut := solveJump(t, Jump{Generators: []*Matrix{g, g, g, g}, Durations: []float64{.25, .75, 1.5, .5}, Marginals: map[int][]float64{0: mu, 2: mid, 4: nu}}, Settings{Tolerance: 1e-13, Memory: 1, Workers: 2})
	require.InDelta(t, whole.Certificate.KL, cut.Certificate.KL, 1e-11)
	times := []float64{0, .25, .6, 1, 1.4, 2.9, 3}
	a, b := moments(t, whole, times...), moments(t, cut, times...)
	for k := range times {
		near(t, a[k].Marginal, b[k].Marginal, 1e-11, "law at %g", times[k])
		near(t, a[k].Rates.Dense(), b[k].Rates.Dense(), 1e-8, "rates at %g", times[k])
	}
	near(t, mid, a[3].Marginal, 1e-12, "law in the middle")
	require.Equal(t, []float64{0, 1, 3}, whole.Knots())
	require.Equal(t, 3., whole.Horizon())
	require.Equal(t, n, whole.States())
	lean := solveJump(t, Jump{Generators: []*Matrix{g}, Durations: []float64{1, 2}, Marginals: map[int][]float64{0: mu, 1: mid, 2: nu}}, Settings{Tolerance: 1e-13, Memory: 1, Workers: 1})
	for k, m := range moments(t, lean, times...) {
		require.Equal(t, a[k].Marginal, m.Marginal)
		require.Equal(t, a[k].Phi, m.Phi)
		require.Equal(t, a[k].Hat, m.Hat)
		require.Equal(t, a[k].Rates.Dense(), m.Rates.Dense())
	}
	one, err := whole.Paths(t.Context(), 20, 4)
	require.NoError(t, err)
	two, err := lean.Paths(t.Context(), 30, 4)
	require.NoError(t, err)
	require.Equal(t, one, two[:20])
}

// Over many short steps a chain with the matrices exp(hG) is the jump process.
func TestChainLimit(t *testing.T) {
	g := dense(t, 3, exampleG...)
	e := exponential(g, .125)
	chain := solveChain(t, Chain{Transitions: []*Matrix{dense(t, 3, e.RawMatrix().Data...)}, Steps: 8, Marginals: Ends(exampleMu, exampleNu, 8)}, Settings{Tolerance: 1e-13})
	jump := solveJump(t, Jump{Generators: []*Matrix{g}, Durations: []float64{1}, Marginals: Ends(exampleMu, exampleNu, 1)}, Settings{Tolerance: 1e-13})
	require.InDelta(t, chain.Certificate.KL, jump.Certificate.KL, 1e-12)
	for at, law := range laws(t, chain) {
		near(t, law, moments(t, jump, float64(at)/8)[0].Marginal, 1e-12, "law")
	}
}

// States without ways, and mass that does not move.
func TestStill(t *testing.T) {
	g := dense(t, 3, 0, 0, 0, 0, -2, 2, 0, 0, 0)
	b := solveJump(t, Jump{Generators: []*Matrix{g}, Durations: []float64{1}, Marginals: Ends([]float64{.5, .5, 0}, []float64{.5, .2, .3}, 1)}, Settings{})
	m := moments(t, b, .5)[0]
	require.InDelta(t, .5, m.Marginal[0], 1e-12)
	require.Equal(t, 0., m.Rates.At(0, 0))
	require.Greater(t, m.Rates.At(1, 2), 0.)
	nothing := dense(t, 2, 0, 0, 0, 0)
	b = solveJump(t, Jump{Generators: []*Matrix{nothing}, Durations: []float64{1}, Marginals: Ends([]float64{.5, .5}, []float64{.5, .5}, 1)}, Settings{})
	require.Equal(t, 0., b.Certificate.KL)
	paths, err := b.Paths(t.Context(), 5, 0)
	require.NoError(t, err)
	for _, p := range paths {
		require.Len(t, p.Times, 1)
	}
	_, err = SolveJump(t.Context(), Jump{Generators: []*Matrix{nothing}, Durations: []float64{1}, Marginals: Ends([]float64{.5, .5}, []float64{.4, .6}, 1)}, Settings{})
	require.ErrorIs(t, err, solver.ErrInfeasible)
}

func TestTrajectoryLaw(t *testing.T) {
	g := dense(t, 3, exampleG...)
	fast := dense(t, 3, -60, 30, 30, 5, -25, 20, 80, 10, -90)
	j := Jump{Generators: []*Matrix{g, fast}, Durations: []float64{1.5, 1}, Marginals: map[int][]float64{0: exampleMu, 1: {.1, .3, .6}, 2: exampleNu}}
	b := solveJump(t, j, Settings{Tolerance: 1e-12})
	const n = 40_000
	paths, err := b.Paths(t.Context(), n, 11)
	require.NoError(t, err)
	again, err := b.Paths(t.Context(), 7, 11)
	require.NoError(t, err)
	require.Equal(t, paths[:7], again)

	// The joint law of the states at 0, .6 and 2.5. ψ at the knot is its law
	// over what comes from before and what comes from after it.
	at := moments(t, b, 0, 1.5, 2.5)
	first, second, third := exponential(g, .6), exponential(g, .9), exponential(fast, 1)
	law, counts := make([]float64, 27), make([]float64, 27)
	var whole mat.Dense
	whole.Mul(first, second)
	psi := make([]float64, 3)
	for w := range psi {
		before := 0.0
		for x := range 3 {
			before += math.Exp(at[0].Hat[x]) * whole.At(x, w)
		}
		psi[w] = math.Exp(at[1].Hat[w]) / before
	}
	for x := range 3 {
		for y := range 3 {
			for z := range 3 {
				for w, p := range psi {
					law[x*9+y*3+z] += math.Exp(at[0].Hat[x]) * first.At(x, y) * second.At(y, w) * p * third.At(w, z) * math.Exp(at[2].Phi[z])
				}
			}
		}
	}
	require.InDelta(t, 1, sum(law), 1e-9)
	for _, p := range paths {
		if !slices.IsSorted(p.Times) || p.Times[0] != 0 || len(slices.Compact(slices.Clone(p.States))) != len(p.States) {
			t.Fatalf("times ascend from 0 and every jump goes elsewhere: %+v", p)
		}
		counts[9*int(p.At(0))+3*int(p.At(.6))+int(p.At(2.5))]++
	}
	chiSquare(t, law, counts)

	// The expected number of jumps from i to j is the time integral of the law of
	// i times the rate.
	const grid = 200
	want := make([]float64, 9)
	times := make([]float64, grid+1)
	for piece, ends := range [][2]float64{{0, 1.5}, {1.5, 2.5}} {
		for k := range times {
			times[k] = ends[0] + (ends[1]-ends[0])*float64(k)/grid
		}
		if piece == 0 {
			times[grid] = math.Nextafter(1.5, 0) // the rates before the knot
		}
		for k, m := range moments(t, b, times...) {
			weight := float64(2 + 2*(k%2))
			if k == 0 || k == grid {
				weight = 1
			}
			for i := range 3 {
				for l := range 3 {
					want[i*3+l] += weight * (ends[1] - ends[0]) / grid / 3 * m.Marginal[i] * m.Rates.At(i, l)
				}
			}
		}
	}
	for i := range 3 {
		for l := range 3 {
			if i == l {
				continue
			}
			mean, square := 0.0, 0.0
			for _, p := range paths {
				jumps := 0.0
				for k := range p.States[1:] {
					if int(p.States[k]) == i && int(p.States[k+1]) == l {
						jumps++
					}
				}
				mean += jumps / n
				square += jumps * jumps / n
			}
			deviation := math.Sqrt((square - mean*mean) / n)
			require.InDelta(t, want[i*3+l], mean, 4*deviation+2e-4*want[i*3+l], "jumps from %d to %d", i, l)
		}
	}
}

func sum(x []float64) (s float64) {
	for _, v := range x {
		s += v
	}
	return s
}
