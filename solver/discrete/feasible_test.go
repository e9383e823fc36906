package discrete

import (
	"context"
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver"
)

func TestUnreachable(t *testing.T) {
	// 0 → 1 → 2 → 3, which absorbs; 4 is alone.
	p := dense(t, 5,
		.5, .5, 0, 0, 0,
		0, .5, .5, 0, 0,
		0, 0, .5, .5, 0,
		0, 0, 0, 1, 0,
		0, 0, 0, 0, 1)
	for _, c := range []struct {
		steps     int
		marginals map[int][]float64
		initial   []float64
		want      string
	}{
		{2, Ends([]float64{1, 0, 0, 0, 0}, []float64{.3, .3, .2, .2, 0}, 2), nil, "target state 3 (mass 0.2) cannot be reached from any source state in 2 steps"},
		{1, Ends([]float64{0, 0, .5, .5, 0}, []float64{.25, 0, 0, .75, 0}, 1), nil, "target state 0 (mass 0.25) cannot be reached from any source state in 1 step"},
		{9, Ends([]float64{.9, 0, 0, 0, .1}, []float64{0, 0, 0, 1, 0}, 9), nil, "source state 4 (mass 0.1) cannot reach any target state in 9 steps"},
		{9, map[int][]float64{0: {1, 0, 0, 0, 0}, 4: {.5, 0, .5, 0, 0}, 9: {0, .4, 0, .6, 0}, 5: {0, 1, 0, 0, 0}}, nil, "step 4 state 2 (mass 0.5) cannot reach any step 5 state in 1 step"},
		{3, map[int][]float64{3: {0, 0, 0, .5, .5}}, []float64{1, 0, 0, 0, 0}, "target state 4 (mass 0.5) cannot be reached from where the reference begins in 3 steps"},
		{3, Ends([]float64{.5, .5, 0, 0, 0}, []float64{0, 0, .5, .5, 0}, 3), []float64{1, 0, 0, 0, 0}, "source state 1 (mass 0.5) has no mass under the reference's initial law"},
	} {
		_, err := SolveChain(t.Context(), Chain{Transitions: []*Matrix{p}, Steps: c.steps, Marginals: c.marginals, Initial: c.initial}, Settings{})
		require.ErrorIs(t, err, solver.ErrInfeasible)
		require.ErrorContains(t, err, c.want)
	}
	long := make([]float64, 100)
	for i := range 10 {
		long[i*10+i] = 1
	}
	flat := make([]float64, 10)
	for i := range flat {
		flat[i] = .1
	}
	first := make([]float64, 10)
	first[0] = 1
	_, err := SolveChain(t.Context(), Chain{Transitions: []*Matrix{dense(t, 10, long...)}, Steps: 2, Marginals: Ends(first, flat, 2)}, Settings{})
	require.ErrorContains(t, err, "state 3 (mass 0.1) cannot be reached from any source state in 2 steps; and 6 more")
}

// Every state is reached, but too much mass wants to the same few.
func TestHall(t *testing.T) {
	p := dense(t, 4,
		1, 0, 0, 0,
		.5, .5, 0, 0,
		0, 0, .5, .5,
		.25, .25, .25, .25)
	_, err := SolveChain(t.Context(), Chain{Transitions: []*Matrix{p}, Steps: 3, Marginals: Ends([]float64{.2, .5, .1, .2}, []float64{.3, .2, .3, .2}, 3)}, Settings{})
	require.ErrorIs(t, err, solver.ErrInfeasible)
	require.ErrorContains(t, err, "source states 0, 1 with mass 0.7 together reach in 3 steps only target states 0, 1, with mass 0.5")
	g := dense(t, 3, -1, 1, 0, 0, 0, 0, 0, 1, -1)
	_, err = SolveJump(t.Context(), Jump{Generators: []*Matrix{g}, Durations: []float64{.5, .25}, Marginals: Ends([]float64{.5, .3, .2}, []float64{.4, .2, .4}, 2)}, Settings{})
	require.ErrorIs(t, err, solver.ErrInfeasible)
	require.ErrorContains(t, err, "source states 0, 1 with mass 0.8 together reach in time 0.75 only target states 0, 1, with mass 0.6")
}

// subsets decides by all sets of sources whether a plan exists (Hall, Gale).
func subsets(c Chain, mu, nu []float64) (astray float64) {
	n := len(mu)
	reach := make([]uint, n)
	for i := range n {
		set := uint(1) << i
		for t := range c.Steps {
			next := uint(0)
			for j := range n {
				for k := range n {
					if set>>j&1 != 0 && c.Transitions[min(t, len(c.Transitions)-1)].At(j, k) > 0 {
						next |= 1 << k
					}
				}
			}
			set = next
		}
		reach[i] = set
	}
	sum := func(w []float64, set uint) (s float64) {
		for ; set != 0; set &= set - 1 {
			s += w[bits.TrailingZeros(set)]
		}
		return s
	}
	for set := range uint(1) << n {
		to := uint(0)
		for i := range n {
			if set>>i&1 != 0 {
				to |= reach[i]
			}
		}
		astray = max(astray, sum(mu, set)-sum(nu, to))
	}
	return astray
}

// Small problems with round masses and few paths, in which it happens all the
// time that no plan exists, or none with mass wherever there are paths.
func TestFeasibility(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	feasible, not := 0, 0
	for range 400 {
		n, steps := 2+r.IntN(5), 1+r.IntN(3)
		c := instance(r, n, steps, .75, r.IntN(2) == 0)
		mu, nu := make([]float64, n), make([]float64, n)
		for range 8 {
			mu[r.IntN(n)] += .125
			nu[r.IntN(n)] += .125
		}
		c.Marginals = Ends(mu, nu, steps)
		b, err := SolveChain(t.Context(), c, Settings{})
		if subsets(c, mu, nu) > 0 {
			not++
			require.ErrorIs(t, err, solver.ErrInfeasible, "%v to %v", mu, nu)
			continue
		}
		feasible++
		require.NoError(t, err)
		require.Equal(t, solver.Converged, b.Status, "%v to %v: %+v", mu, nu, b.Certificate)
		all := laws(t, b)
		near(t, mu, all[0], 1e-9, "source")
		near(t, nu, all[steps], 1e-9, "target")
		require.InDelta(t, 0, b.Certificate.Gap, 1e-7)
		require.InDelta(t, pathKL(t, b), b.Certificate.KL, 1e-7)
		require.Less(t, b.Iterations, 300)
	}
	require.Greater(t, feasible, 50)
	require.Greater(t, not, 50)
}

// A plan that is forced to be the diagonal, where K is not.
func TestForced(t *testing.T) {
	const n = 12
	p := make([]float64, n*n)
	for i := range n {
		for j := i; j < n; j++ {
			p[i*n+j] = 1 / float64(n-i)
		}
	}
	r := rand.New(rand.NewPCG(3, 1))
	mu := randomLaw(r, n)
	b := solveChain(t, Chain{Transitions: []*Matrix{dense(t, n, p...)}, Steps: 3, Marginals: Ends(mu, mu, 3)}, Settings{})
	want := 0.0
	for i, x := range mu {
		want += 3 * x * math.Log(float64(n-i))
		require.InDelta(t, 1, kernel(t, b, 1).At(i, i), 1e-8)
	}
	require.InDelta(t, want, b.Certificate.KL, 1e-7)
	// And with a law in the middle that is the same.
	c := Chain{Transitions: []*Matrix{dense(t, n, p...)}, Steps: 3, Marginals: map[int][]float64{0: mu, 1: mu, 3: mu}}
	require.InDelta(t, want, solveChain(t, c, Settings{}).Certificate.KL, 1e-7)
}

// Without the exact answer, the dual tells.
func TestDualProvesInfeasible(t *testing.T) {
	p := dense(t, 2, 1, 0, .5, .5)
	s := newSequence(2, []step{newTransition(p)}, Ends([]float64{.6, .4}, []float64{.5, .5}, 1), nil)
	c, err := newScaling(t.Context(), s, 1)
	require.NoError(t, err)
	c.checked = true
	_, err = c.iterate(t.Context(), Settings{Tolerance: 1e-9, MaxIterations: 100_000})
	require.ErrorIs(t, err, solver.ErrInfeasible)
	require.ErrorContains(t, err, "exclude each other")
	// A bound that is never met leaves the potentials diverging.
	c, err = newScaling(t.Context(), s, 1)
	require.NoError(t, err)
	c.checked, c.most = true, math.Inf(1)
	status, err := c.iterate(t.Context(), Settings{Tolerance: 1e-9, MaxIterations: 100_000})
	require.NoError(t, err)
	require.Equal(t, solver.Diverged, status)
}

func TestCanceledInCheck(t *testing.T) {
	c := instance(rand.New(rand.NewPCG(6, 6)), 5, 10, 0, false)
	s := newSequence(5, []step{newTransition(c.Transitions[0])}, Ends(c.Marginals[0], c.Marginals[10], 1), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.reachable(ctx), context.Canceled)
}
