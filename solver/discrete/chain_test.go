package discrete

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/fortet/fortet/solver"
)

func dense(t testing.TB, n int, data ...float64) *Matrix {
	t.Helper()
	m, err := NewDense(n, data)
	require.NoError(t, err)
	return m
}

func solveChain(t testing.TB, c Chain, set Settings) *ChainBridge {
	t.Helper()
	b, err := SolveChain(t.Context(), c, set)
	require.NoError(t, err)
	require.NoError(t, b.Status.Err(), "after %d sweeps: %+v", b.Iterations, b.Certificate)
	return b
}

func laws(t testing.TB, b *ChainBridge) [][]float64 {
	t.Helper()
	all, err := b.Marginals(t.Context())
	require.NoError(t, err)
	return slices.Collect(slices.Chunk(all, b.States()))
}

func kernel(t testing.TB, b *ChainBridge, step int) *Matrix {
	t.Helper()
	q, err := b.Kernel(t.Context(), step)
	require.NoError(t, err)
	return q
}

func near(t testing.TB, want, got []float64, budget float64, what string, v ...any) {
	t.Helper()
	require.Len(t, got, len(want), what)
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= budget) && want[i] != got[i] {
			t.Fatalf("%s: entry %d is %v, want %v within %g", fmt.Sprintf(what, v...), i, got[i], want[i], budget)
		}
	}
}

var (
	exampleP  = []float64{.7, .2, .1, .1, .8, .1, .2, .3, .5}
	exampleMu = []float64{.6, .3, .1}
	exampleNu = []float64{.2, .2, .6}
)

// The example of MATH.md E.7; its digits are the tolerance.
func TestExample(t *testing.T) {
	b := solveChain(t, Chain{Transitions: []*Matrix{dense(t, 3, exampleP...)}, Steps: 4, Marginals: Ends(exampleMu, exampleNu, 4)}, Settings{Tolerance: 1e-12})
	ratio := func(at int) []float64 {
		phi, _, err := b.Potentials(t.Context(), at)
		require.NoError(t, err)
		out := make([]float64, 3)
		for i := range out {
			out[i] = math.Exp(phi[i] - phi[0])
		}
		return out
	}
	near(t, []float64{1, .645504303, 5.96443697}, ratio(4), 6e-9, "v/v0")
	near(t, []float64{1, .972023109, 1.066166237}, ratio(0), 1e-9, "phi_0")
	near(t, []float64{.380336616, .398595201, .221068183}, laws(t, b)[2], 1e-9, "marginal")
	near(t, []float64{.694132857, .188998043, .1168691}, kernel(t, b, 0).Dense()[:3], 1e-9, "Q_0")
	require.InDelta(t, .490035044, b.Certificate.KL, 1e-9)
	require.InDelta(t, 0, b.Certificate.Gap, 1e-11)
	require.Less(t, b.Iterations, 12)
}

// The solution against scaling the masses of all paths.
func TestAllPaths(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	cases := map[string]Chain{
		"one step":       instance(r, 4, 1, 0, false),
		"dense":          instance(r, 3, 4, 0, false),
		"changing":       instance(r, 3, 4, 0, true),
		"sparse":         instance(r, 4, 3, .4, true),
		"initial law":    instance(r, 3, 3, 0, false),
		"counting":       instance(r, 3, 3, 0, false),
		"three laws":     instance(r, 3, 4, 0, true),
		"all laws":       instance(r, 3, 3, 0, true),
		"open end":       instance(r, 3, 4, 0, true),
		"open start":     instance(r, 3, 4, 0, true),
		"only the last":  instance(r, 3, 3, 0, false),
		"only the first": instance(r, 3, 3, 0, false),
		"zeros":          instance(r, 4, 3, 0, false),
	}
	edit := func(name string, f func(c *Chain)) {
		c := cases[name]
		f(&c)
		cases[name] = c
	}
	edit("initial law", func(c *Chain) { c.Initial = randomLaw(r, 3) })
	edit("counting", func(c *Chain) { c.Initial = []float64{1, 1, 1} })
	edit("three laws", func(c *Chain) { c.Marginals[2] = randomLaw(r, 3) })
	edit("all laws", func(c *Chain) { c.Marginals[1], c.Marginals[2] = randomLaw(r, 3), randomLaw(r, 3) })
	edit("open end", func(c *Chain) { c.Marginals = Ends(c.Marginals[0], c.Marginals[4], 2) })
	edit("open start", func(c *Chain) {
		c.Initial = randomLaw(r, 3)
		c.Marginals = map[int][]float64{1: c.Marginals[0], 3: c.Marginals[4]}
	})
	edit("only the last", func(c *Chain) { c.Initial = randomLaw(r, 3); delete(c.Marginals, 0) })
	edit("only the first", func(c *Chain) { delete(c.Marginals, 3) })
	edit("zeros", func(c *Chain) { c.Marginals = Ends([]float64{.5, 0, .5, 0}, []float64{0, .25, .25, .5}, 3) })
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := solveChain(t, c, Settings{Tolerance: 1e-12})
			paths, reference := c.paths()
			want := c.fit(paths, reference)
			all, kl := laws(t, b), 0.0
			marginals := make([][]float64, c.Steps+1)
			for at := range marginals {
				marginals[at] = make([]float64, b.States())
			}
			kernels := make([]*Matrix, c.Steps)
			for at := range kernels {
				kernels[at] = kernel(t, b, at)
			}
			for k, p := range paths {
				got := all[0][p[0]]
				for at := range c.Steps {
					got *= kernels[at].At(p[at], p[at+1])
				}
				require.InDelta(t, want[k], got, 1e-11, "path %v", p)
				for at, i := range p {
					marginals[at][i] += want[k]
				}
				if want[k] > 0 {
					kl += want[k] * math.Log(want[k]/reference[k])
				}
			}
			for at := range marginals {
				near(t, marginals[at], all[at], 1e-11, "law of step %d", at)
			}
			require.InDelta(t, kl, b.Certificate.KL, 1e-10)
			require.InDelta(t, kl, b.Certificate.Dual, 1e-10)
			total := 0.0
			for _, e := range b.Certificate.Errors {
				total += e
			}
			require.LessOrEqual(t, total, 1e-12)
			require.Len(t, b.Certificate.Errors, len(c.Marginals))
		})
	}
}

// pathKL is the relative entropy of the Markov chain of laws and kernels to the
// reference from the source on, from the kernels alone.
func pathKL(t testing.TB, b *ChainBridge) float64 {
	all, kl := laws(t, b), 0.0
	require.NoError(t, b.Kernels(t.Context(), func(at int, q *Matrix) error {
		reference := b.transitions[at]
		for i := range q.States() {
			columns, to := q.Row(i)
			_, from := reference.Row(i)
			for k := range columns {
				if mass := all[at][i] * to[k]; mass > 0 {
					kl += mass * math.Log(to[k]/from[k])
				}
			}
		}
		return nil
	}))
	return kl
}

// A sparse problem of some size: its laws, and what it must not depend on.
func TestSparseGraph(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	const states, steps = 3000, 30
	c := graph(t, r, states, 12, steps)
	b := solveChain(t, c, Settings{})
	require.Less(t, b.Iterations, 40)
	all := laws(t, b)
	near(t, c.Marginals[0], all[0], 1e-9, "source")
	near(t, c.Marginals[steps], all[steps], 1e-9, "target")
	require.InDelta(t, b.Certificate.KL, pathKL(t, b), 1e-8, "KL of the path is that of the ends")
	require.InDelta(t, 0, b.Certificate.Gap, 1e-7)
	// The kernels carry each law to the next (Chapman and Kolmogorov).
	require.NoError(t, b.Kernels(t.Context(), func(at int, q *Matrix) error {
		require.Equal(t, b.transitions[at].NNZ(), q.NNZ())
		to := make([]float64, states)
		for i := range states {
			columns, entries := q.Row(i)
			sum := 0.0
			for k, j := range columns {
				to[j] += all[at][i] * entries[k]
				sum += entries[k]
			}
			require.InDelta(t, 1, sum, 1e-14)
		}
		near(t, all[at+1], to, 1e-12, "law of step %d", at+1)
		return nil
	}))

	same := func(name string, set Settings) {
		t.Helper()
		other := solveChain(t, c, set)
		require.Equal(t, b.Certificate, other.Certificate, name)
		require.Equal(t, all, laws(t, other), name)
		for _, at := range []int{0, 17, 29} {
			require.Equal(t, kernel(t, b, at).val, kernel(t, other, at).val, name)
			phi, hat, err := b.Potentials(t.Context(), at)
			require.NoError(t, err)
			phi1, hat1, err := other.Potentials(t.Context(), at)
			require.NoError(t, err)
			require.Equal(t, phi, phi1, name)
			require.Equal(t, hat, hat1, name)
		}
		p, err := b.Paths(t.Context(), 50, 9)
		require.NoError(t, err)
		q, err := other.Paths(t.Context(), 20, 9)
		require.NoError(t, err)
		require.Equal(t, p[:len(q)], q, name)
	}
	same("workers", Settings{Workers: 3})
	same("memory", Settings{Memory: 1})
	require.Greater(t, len(b.transitions[0].cut), 2, "more than one task")
}

// New names for the states change nothing but names.
func TestPermutation(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	const n = 7
	c := instance(r, n, 5, .5, false)
	perm := r.Perm(n)
	moved := func(w []float64) []float64 {
		out := make([]float64, n)
		for i, x := range w {
			out[perm[i]] = x
		}
		return out
	}
	p := make([]float64, n*n)
	for i := range n {
		for j := range n {
			p[perm[i]*n+perm[j]] = c.Transitions[0].At(i, j)
		}
	}
	d := Chain{Transitions: []*Matrix{dense(t, n, p...)}, Steps: 5, Marginals: Ends(moved(c.Marginals[0]), moved(c.Marginals[5]), 5)}
	one, two := solveChain(t, c, Settings{Tolerance: 1e-13}), solveChain(t, d, Settings{Tolerance: 1e-13})
	require.InDelta(t, one.Certificate.KL, two.Certificate.KL, 1e-12)
	for at, law := range laws(t, one) {
		near(t, moved(law), laws(t, two)[at], 1e-12, "step %d", at)
	}
}

// Under a symmetric reference the bridge from ν to μ is that from μ to ν, run
// backwards.
func TestReversal(t *testing.T) {
	p := dense(t, 3, .5, .3, .2, .3, .6, .1, .2, .1, .7)
	forth := solveChain(t, Chain{Transitions: []*Matrix{p}, Steps: 6, Marginals: Ends(exampleMu, exampleNu, 6)}, Settings{Tolerance: 1e-13})
	back := solveChain(t, Chain{Transitions: []*Matrix{p}, Steps: 6, Marginals: Ends(exampleNu, exampleMu, 6)}, Settings{Tolerance: 1e-13})
	a, b := laws(t, forth), laws(t, back)
	for at := range a {
		near(t, a[at], b[6-at], 1e-12, "step %d", at)
	}
	for at := range 6 {
		q, reverse := kernel(t, forth, at), kernel(t, back, 5-at)
		for i := range 3 {
			for j := range 3 {
				require.InDelta(t, a[at][i]*q.At(i, j), a[at+1][j]*reverse.At(j, i), 1e-12)
			}
		}
	}
}

// A reference that already has the laws is its own bridge.
func TestNothingToDo(t *testing.T) {
	p := dense(t, 3, exampleP...)
	law := slices.Clone(exampleMu)
	for range 5 {
		next := make([]float64, 3)
		for i := range 3 {
			for j := range 3 {
				next[j] += law[i] * p.At(i, j)
			}
		}
		law = next
	}
	b := solveChain(t, Chain{Transitions: []*Matrix{p}, Steps: 5, Marginals: Ends(exampleMu, law, 5)}, Settings{Tolerance: 1e-13})
	require.InDelta(t, 0, b.Certificate.KL, 1e-14)
	near(t, exampleP, kernel(t, b, 2).Dense(), 1e-13, "kernel")
	require.Equal(t, 1, b.Iterations)
}

// Of two states of which the second absorbs, the plan is determined: with
// K_00 = a^N = 1e-2000, far below every float64, the values are known.
func TestManySteps(t *testing.T) {
	const a, steps, m, n = .1, 2000, .7, .25
	b := solveChain(t, Chain{Transitions: []*Matrix{dense(t, 2, a, 1-a, 0, 1)}, Steps: steps,
		Marginals: Ends([]float64{m, 1 - m}, []float64{n, 1 - n}, steps)}, Settings{Tolerance: 1e-11})
	want := n*(math.Log(n/m)-steps*math.Log(a)) + (m-n)*math.Log((m-n)/m)
	require.InDelta(t, want, b.Certificate.KL, 1e-9*want)
	require.InDelta(t, want, b.Certificate.Dual, 1e-9*want)
	// Either all of the way in state 0, or out of it as the reference goes.
	for at, law := range laws(t, b) {
		require.InDelta(t, n+(m-n)*math.Pow(a, float64(at)), law[0], 1e-10, "step %d", at)
	}
	_, hat, err := b.Potentials(t.Context(), steps)
	require.NoError(t, err)
	require.False(t, math.IsInf(hat[0], 0))
}

// A walk on a ring of even length alternates between even and odd states.
func TestPeriodic(t *testing.T) {
	const n = 6
	p := make([]float64, n*n)
	for i := range n {
		p[i*n+(i+1)%n], p[i*n+(i+n-1)%n] = .9, .1
	}
	m := dense(t, n, p...)
	even, other := []float64{.5, 0, .3, 0, .2, 0}, []float64{.1, 0, .1, 0, .8, 0}
	b := solveChain(t, Chain{Transitions: []*Matrix{m}, Steps: 40, Marginals: Ends(even, other, 40)}, Settings{Tolerance: 1e-12})
	for at, law := range laws(t, b) {
		for i, x := range law {
			require.False(t, math.IsNaN(x))
			require.Equal(t, (i+at)%2 == 0, x > 0, "state %d at step %d", i, at)
		}
	}
	require.InDelta(t, pathKL(t, b), b.Certificate.KL, 1e-10)
	_, err := SolveChain(t.Context(), Chain{Transitions: []*Matrix{m}, Steps: 41, Marginals: Ends(even, other, 41)}, Settings{})
	require.ErrorIs(t, err, solver.ErrInfeasible)
	require.ErrorContains(t, err, "target state 0 (mass 0.1) cannot be reached from any source state in 41 steps")
}

// With acceleration and without is the same solution.
func TestAcceleration(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for range 5 {
		// Two groups of states with little between them.
		const n, small = 8, 1e-3
		p := make([]float64, n*n)
		for i := range n {
			for j := range n {
				p[i*n+j] = r.ExpFloat64()
				if (i < n/2) != (j < n/2) {
					p[i*n+j] *= small
				}
			}
			copy(p[i*n:], normalised(p[i*n:(i+1)*n]))
		}
		c := Chain{Transitions: []*Matrix{dense(t, n, p...)}, Steps: 3, Marginals: Ends(randomLaw(r, n), randomLaw(r, n), 3)}
		c.Marginals[2] = randomLaw(r, n)
		fast, plain := solveChain(t, c, Settings{Tolerance: 1e-11}), solveChain(t, c, Settings{Tolerance: 1e-11, NoAcceleration: true})
		require.LessOrEqual(t, fast.Iterations, plain.Iterations)
		require.InDelta(t, plain.Certificate.KL, fast.Certificate.KL, 1e-8)
		for at, law := range laws(t, plain) {
			near(t, law, laws(t, fast)[at], 1e-8, "step %d", at)
		}
	}
}

// chiSquare requires counts that the law explains, at a level of 1e-4.
func chiSquare(t *testing.T, law, counts []float64) {
	t.Helper()
	total, cells, sum := 0.0, 0, 0.0
	for _, n := range counts {
		total += n
	}
	rest, restCount := 0.0, 0.0
	for i, p := range law {
		if p == 0 {
			require.Zero(t, counts[i], "cell %d has no mass", i)
			continue
		}
		if p*total < 10 {
			rest, restCount = rest+p, restCount+counts[i]
			continue
		}
		cells++
		sum += (counts[i] - p*total) * (counts[i] - p*total) / (p * total)
	}
	if rest*total > 10 {
		cells++
		sum += (restCount - rest*total) * (restCount - rest*total) / (rest * total)
	}
	require.Greater(t, cells, 3)
	limit := distuv.ChiSquared{K: float64(cells - 1)}.Quantile(1 - 1e-4)
	require.Less(t, sum, limit, "chi square over %d cells", cells)
}

func TestPathLaw(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	c := instance(r, 3, 3, 0, true)
	c.Marginals[2] = []float64{.5, 0, .5}
	b := solveChain(t, c, Settings{})
	const n = 100_000
	got, err := b.Paths(t.Context(), n, 7)
	require.NoError(t, err)
	paths, reference := c.paths()
	law, counts := c.fit(paths, reference), make([]float64, len(paths))
	for s := range n {
		code := 0
		for _, i := range got[s*4 : s*4+4] {
			code = code*3 + int(i)
		}
		counts[code]++ // paths come in this order
	}
	chiSquare(t, law, counts)
	again, err := b.Paths(t.Context(), 10, 7)
	require.NoError(t, err)
	require.Equal(t, got[:40], again)
	other, err := b.Paths(t.Context(), 10, 8)
	require.NoError(t, err)
	require.NotEqual(t, again, other)
	_, err = b.Paths(t.Context(), 0, 7)
	require.ErrorIs(t, err, solver.ErrInvalid)
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := instance(rand.New(rand.NewPCG(6, 6)), 5, 10, 0, false)
	sweeps := 0
	b, err := SolveChain(ctx, c, Settings{Tolerance: 1e-300, Trace: func(Iteration) {
		if sweeps++; sweeps == 3 {
			cancel()
		}
	}})
	require.NoError(t, err)
	require.Equal(t, solver.Canceled, b.Status)
	require.Equal(t, 3, sweeps)
	_, err = b.Marginals(t.Context())
	require.ErrorContains(t, err, "canceled")
	_, err = b.Kernel(t.Context(), 0)
	require.Error(t, err)
	_, err = b.Paths(t.Context(), 1, 0)
	require.Error(t, err)
	b, err = SolveChain(ctx, c, Settings{})
	require.NoError(t, err)
	require.Equal(t, solver.Canceled, b.Status)
}

func TestLimits(t *testing.T) {
	c := instance(rand.New(rand.NewPCG(7, 7)), 5, 10, 0, false)
	b, err := SolveChain(t.Context(), c, Settings{Tolerance: 1e-12, MaxIterations: 2})
	require.NoError(t, err)
	require.Equal(t, solver.MaxIterations, b.Status)
	require.Equal(t, 2, b.Iterations)
	require.Greater(t, b.Certificate.Target, 1e-12)
	b, err = SolveChain(t.Context(), c, Settings{Tolerance: 1e-300})
	require.NoError(t, err)
	require.Equal(t, solver.Stalled, b.Status)
	require.Less(t, b.Certificate.Target, 1e-13)
	_, err = b.Kernel(t.Context(), 10)
	require.ErrorIs(t, err, solver.ErrInvalid)
	_, _, err = b.Potentials(t.Context(), -1)
	require.ErrorIs(t, err, solver.ErrInvalid)
}

// A million entries and a hundred steps, of which most paths go two or three.
func BenchmarkMillion(b *testing.B) {
	const states, steps = 100_000, 100
	c := graph(b, rand.New(rand.NewPCG(8, 8)), states, 10, steps)
	ptr, idx, val := c.Transitions[0].CSR()
	lazy := slices.Clone(val)
	for i := range states {
		for k := ptr[i]; k < ptr[i+1]; k++ {
			lazy[k] *= .025
			if int(idx[k]) == i {
				lazy[k] += .975
			}
		}
	}
	c.Transitions[0] = c.Transitions[0].with(lazy)
	for b.Loop() {
		solution, err := SolveChain(b.Context(), c, Settings{})
		require.NoError(b, err)
		require.NoError(b, solution.Status.Err())
		require.LessOrEqual(b, solution.Certificate.Target, 1e-9)
		b.ReportMetric(float64(solution.Iterations), "sweeps")
		b.ReportMetric(solution.Duration.Seconds()/float64(solution.Iterations), "s/sweep")
	}
}
