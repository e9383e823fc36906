package discrete

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/solver"
)

func TestCSR(t *testing.T) {
	// Columns out of order, one place twice, a zero that is given.
	m, err := NewCSR(3, []int{0, 3, 3, 6}, []int{2, 0, 2, 1, 0, 2}, []float64{1, 2, 3, 0, 5, -6})
	require.NoError(t, err)
	require.Equal(t, []float64{2, 0, 4, 0, 0, 0, 5, 0, -6}, m.Dense())
	require.Equal(t, 5, m.NNZ())
	require.Equal(t, 3, m.States())
	require.Equal(t, 4., m.At(0, 2))
	require.Equal(t, 0., m.At(1, 1))
	columns, entries := m.Row(2)
	require.Equal(t, []int32{0, 1, 2}, columns)
	require.Equal(t, []float64{5, 0, -6}, entries)
	ptr, idx, val := m.CSR()
	same, err := NewCSR(3, []int32{0, 2, 2, 5}, idx, val)
	require.NoError(t, err)
	require.Equal(t, ptr, same.ptr)
	require.Equal(t, m.Dense(), same.Dense())

	data := []float64{1, 0, .5, .5}
	d := dense(t, 2, data...)
	require.Equal(t, 3, d.NNZ())
	data[0] = 7
	require.Equal(t, 1., d.At(0, 0), "data is copied")
}

func TestBadMatrix(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		err  func() error
		want string
	}{
		{func() error { _, err := NewDense(0, nil); return err }, "0 states, want 1"},
		{func() error { _, err := NewDense(2, make([]float64, 5)); return err }, "5 entries, want 2 × 2"},
		{func() error { _, err := NewDense(2, []float64{1, 0, nan, 1}); return err }, "entry (1, 0) is NaN, want a finite number"},
		{func() error { _, err := NewCSR(2, []int{0, 1}, []int{0}, []float64{1}); return err }, "indptr: invalid problem: 2 numbers, want 3 for 2 states"},
		{func() error { _, err := NewCSR(2, []int{0, 1, 1}, []int{0, 1}, []float64{1}); return err }, "indices: invalid problem: 2 numbers, want 1 as data"},
		{func() error { _, err := NewCSR(2, []int{0, 1, 3}, []int{0, 1}, []float64{1, 1}); return err }, "begins with 0 and ends with 3, want 0 and 2"},
		{func() error { _, err := NewCSR(2, []int{0, 3, 2}, []int{0, 1}, []float64{1, 1}); return err }, "row 0 goes from 0 to 3, want ascending numbers up to 2"},
		{func() error { _, err := NewCSR(2, []int{0, -1, 2}, []int{0, 1}, []float64{1, 1}); return err }, "row 0 goes from 0 to -1"},
		{func() error { _, err := NewCSR(2, []int{0, 1, 2}, []int{0, 2}, []float64{1, 1}); return err }, "row 1 has column 2, want 0 to 1"},
		{func() error { _, err := NewCSR(2, []int{0, 1, 2}, []int{0, -1}, []float64{1, 1}); return err }, "row 1 has column -1"},
		{func() error {
			_, err := NewCSR(2, []int{0, 1, 2}, []int{0, 1}, []float64{1, math.Inf(1)})
			return err
		}, "entry (1, 1) is +Inf"},
	} {
		err := c.err()
		require.ErrorIs(t, err, solver.ErrInvalid)
		require.ErrorContains(t, err, c.want)
	}
}

func FuzzCSR(f *testing.F) {
	f.Add(2, []byte{0, 1, 2}, []byte{0, 1})
	f.Add(3, []byte{0, 2, 2, 4}, []byte{2, 0, 1, 1})
	f.Fuzz(func(t *testing.T, states int, ptr, idx []byte) {
		indptr, indices, data := make([]int, len(ptr)), make([]int, len(idx)), make([]float64, len(idx))
		for i, p := range ptr {
			indptr[i] = int(int8(p))
		}
		for i, j := range idx {
			indices[i], data[i] = int(int8(j)), float64(i+1)
		}
		m, err := NewCSR(states, indptr, indices, data)
		if err != nil {
			require.ErrorIs(t, err, solver.ErrInvalid)
			return
		}
		total := 0.0
		for i := range states {
			for j := range states {
				total += m.At(i, j)
			}
		}
		require.InDelta(t, float64(len(data)*(len(data)+1))/2, total, 1e-9)
	})
}

// Products of vectors of every size with -inf among them, against the
// definition; tasks of one row and of many.
func TestLogProduct(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{1, 2, 31, 200} {
		for _, spread := range []float64{1, 100, 1e5} {
			p := make([]float64, n*n)
			for i := range p {
				if r.IntN(3) > 0 {
					p[i] = math.Exp(max(-700, -spread/100*r.ExpFloat64()))
				}
			}
			m := dense(t, n, p...)
			x, out, logSum := make([]float64, n), make([]float64, n), make([]float64, n)
			for i := range x {
				x[i] = spread * r.NormFloat64()
				logSum[i] = r.Float64()
				if r.IntN(4) == 0 {
					x[i] = math.Inf(-1)
				}
			}
			require.NoError(t, (&host{workers: 2}).logProduct(t.Context(), out, &m.sparse, x, logSum))
			for i := range n {
				top := math.Inf(-1)
				for j := range n {
					top = max(top, math.Log(p[i*n+j])+x[j])
				}
				want := top
				if !math.IsInf(top, -1) {
					s := 0.0
					for j := range n {
						s += math.Exp(math.Log(p[i*n+j]) + x[j] - top)
					}
					want = top + math.Log(s) - logSum[i]
				}
				if math.IsInf(want, -1) {
					require.Equal(t, want, out[i])
					continue
				}
				require.InDelta(t, want, out[i], 1e-13+4e-16*math.Abs(want), "row %d of %d", i, n)
			}
		}
	}
	m := dense(t, 2, 1, 2, 3, 4)
	nothing, out := []float64{math.Inf(-1), math.Inf(-1)}, make([]float64, 2)
	require.NoError(t, (&host{}).logProduct(t.Context(), out, &m.sparse, nothing, nil))
	require.Equal(t, nothing, out)
}

func TestInvalid(t *testing.T) {
	p := dense(t, 3, exampleP...)
	good := Ends(exampleMu, exampleNu, 4)
	two := dense(t, 2, .5, .5, .5, .5)
	for _, c := range []struct {
		chain Chain
		want  []string
	}{
		{Chain{}, []string{"transition: invalid problem: no matrix"}},
		{Chain{Transitions: []*Matrix{nil}, Marginals: good}, []string{"no matrix"}},
		{Chain{Transitions: []*Matrix{{}}, Marginals: good}, []string{"no matrix"}},
		{Chain{Transitions: []*Matrix{p}, Steps: -1, Marginals: good}, []string{"steps: invalid problem: got -1, want 1"}},
		{Chain{Transitions: []*Matrix{p, p}, Steps: 4, Marginals: good}, []string{"2 matrices for 4 steps, want one, or one for each"}},
		{Chain{Transitions: []*Matrix{p, two}, Marginals: Ends(exampleMu, exampleNu, 2)}, []string{"transition 1: invalid problem: 2 states, want 3 as those before"}},
		{Chain{Transitions: []*Matrix{dense(t, 2, .5, .5, .5, .6)}, Marginals: Ends([]float64{1, 0}, []float64{0, 1}, 1)},
			[]string{"row 1 sums to 1.1, want 1 within 1e-06"}},
		{Chain{Transitions: []*Matrix{dense(t, 3, 1.5, -.5, 0, 0, .9, 0, 0, 0, 1)}, Marginals: Ends([]float64{.5, .4, .3}, []float64{-1, 2, 0}, 1)},
			[]string{"entry (0, 1) is -0.5, want no negative one (and 1 more faults)", "source law: invalid problem: its mass is 1.2, want 1", "target law: invalid problem: mass -1 of state 0"}},
		{Chain{Transitions: []*Matrix{dense(t, 2, 1, 0, 0, 0)}, Marginals: Ends([]float64{1, 0}, []float64{0, 1}, 1)}, []string{"row 1 sums to 0"}},
		{Chain{Transitions: []*Matrix{p}}, []string{"marginals: invalid problem: none"}},
		{Chain{Transitions: []*Matrix{p}, Steps: 4, Marginals: map[int][]float64{1: exampleMu}}, []string{"initial law of the reference: invalid problem: none, want one where no marginal is given at step 0"}},
		{Chain{Transitions: []*Matrix{p}, Steps: 4, Marginals: Ends(exampleMu, exampleNu, 5)}, []string{"law at step 5: invalid problem: want steps from 0 to 4"}},
		{Chain{Transitions: []*Matrix{p}, Steps: 4, Marginals: map[int][]float64{0: exampleMu, 2: {math.NaN(), 1, 0}, 4: {1, 0}}}, []string{"law at step 2: invalid problem: mass NaN of state 0", "target law: invalid problem: 2 numbers, want 3"}},
		{Chain{Transitions: []*Matrix{p}, Steps: 4, Marginals: good, Initial: []float64{0, 0, 0}}, []string{"initial law of the reference: invalid problem: its mass is 0"}},
	} {
		_, err := SolveChain(t.Context(), c.chain, Settings{})
		require.ErrorIs(t, err, solver.ErrInvalid)
		for _, want := range c.want {
			require.ErrorContains(t, err, want)
		}
	}
	_, err := SolveChain(t.Context(), Chain{Transitions: []*Matrix{p}, Steps: 4, Marginals: good}, Settings{Tolerance: math.NaN(), MaxIterations: -1, Workers: -1, Memory: -1})
	for _, want := range []string{"tolerance", "iteration limit", "workers", "memory"} {
		require.ErrorContains(t, err, want)
	}

	g := dense(t, 3, exampleG...)
	ends := Ends(exampleMu, exampleNu, 1)
	for _, c := range []struct {
		jump Jump
		want []string
	}{
		{Jump{}, []string{"generator: invalid problem: no matrix"}},
		{Jump{Generators: []*Matrix{g}, Marginals: map[int][]float64{0: exampleMu}}, []string{"durations: invalid problem: none"}},
		{Jump{Generators: []*Matrix{g}, Durations: []float64{0}, Marginals: ends}, []string{"piece 0 lasts 0, want a finite time above 0"}},
		{Jump{Generators: []*Matrix{g}, Durations: []float64{math.Inf(1)}, Marginals: ends}, []string{"lasts +Inf"}},
		{Jump{Generators: []*Matrix{g}, Durations: []float64{1e12}, Marginals: ends}, []string{"takes as many products"}},
		{Jump{Generators: []*Matrix{g, g}, Durations: []float64{1}, Marginals: ends}, []string{"2 matrices for 1 pieces"}},
		{Jump{Generators: []*Matrix{p}, Durations: []float64{1}, Marginals: ends}, []string{"row 0 sums to 1, want 0 within 1e-06 of its size 1"}},
		{Jump{Generators: []*Matrix{dense(t, 2, .5, -.5, 0, 0)}, Durations: []float64{1}, Marginals: Ends([]float64{1, 0}, []float64{1}, 1)},
			[]string{"rate (0, 1) is -0.5, want none negative off the diagonal", "target law: invalid problem: 1 numbers, want 2"}},
	} {
		_, err := SolveJump(t.Context(), c.jump, Settings{})
		require.ErrorIs(t, err, solver.ErrInvalid)
		for _, want := range c.want {
			require.ErrorContains(t, err, want)
		}
	}
	b := solveJump(t, Jump{Generators: []*Matrix{g}, Durations: []float64{1}, Marginals: ends}, Settings{})
	for _, bad := range []float64{-1, 1.5, math.NaN()} {
		_, err := b.At(t.Context(), bad)
		require.ErrorIs(t, err, solver.ErrInvalid)
	}
	_, err = b.Paths(t.Context(), 0, 1)
	require.ErrorIs(t, err, solver.ErrInvalid)
}
