package discrete

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// instance is a random problem whose matrices have the share zeros of zeros, and
// may change with time.
func instance(r *rand.Rand, states, steps int, zeros float64, changing bool) Chain {
	c := Chain{Steps: steps}
	for len(c.Transitions) == 0 || changing && len(c.Transitions) < steps {
		p := make([]float64, states*states)
		for i := range states {
			row := p[i*states : (i+1)*states]
			for j := range row {
				if r.Float64() >= zeros || j == i {
					row[j] = r.ExpFloat64()
				}
			}
			copy(row, normalised(row))
		}
		m, err := NewDense(states, p)
		if err != nil {
			panic(err)
		}
		c.Transitions = append(c.Transitions, m)
	}
	c.Marginals = Ends(randomLaw(r, states), randomLaw(r, states), steps)
	return c
}

func randomLaw(r *rand.Rand, n int) []float64 {
	w := make([]float64, n)
	for i := range w {
		w[i] = r.ExpFloat64() + .05
	}
	return normalised(w)
}

// paths is every path with its mass under the reference, for a definition of the
// bridge without any of its structure.
func (c Chain) paths() (paths [][]int, mass []float64) {
	n := c.Transitions[0].States()
	initial := c.Initial
	if initial == nil {
		initial = c.Marginals[0]
	}
	var extend func(path []int, p float64)
	extend = func(path []int, p float64) {
		t := len(path) - 1
		if t == c.Steps {
			paths, mass = append(paths, slices.Clone(path)), append(mass, p)
			return
		}
		m := c.Transitions[min(t, len(c.Transitions)-1)]
		for j := range n {
			extend(append(path, j), p*m.At(path[t], j))
		}
	}
	for i := range n {
		extend([]int{i}, initial[i])
	}
	return paths, mass
}

// fit scales the masses of all paths to one marginal after the other.
func (c Chain) fit(paths [][]int, reference []float64) []float64 {
	q := slices.Clone(reference)
	for range 4000 {
		for t, law := range c.Marginals {
			have := make([]float64, len(law))
			for k, p := range paths {
				have[p[t]] += q[k]
			}
			for k, p := range paths {
				if q[k] > 0 {
					q[k] *= law[p[t]] / have[p[t]]
				}
			}
		}
	}
	return q
}

// graph is a problem on a random graph with degree neighbours for each state.
func graph(t testing.TB, r *rand.Rand, states, degree, steps int) Chain {
	ptr, idx, val := []int{0}, []int32(nil), []float64(nil)
	for i := range states {
		row := make([]float64, degree)
		for k := range row {
			idx = append(idx, int32(r.IntN(states)))
			row[k] = r.ExpFloat64()
		}
		idx[i*degree], idx[i*degree+1] = int32(i), int32((i+1)%states) // neither periodic nor in parts
		val = append(val, normalised(row)...)
		ptr = append(ptr, len(idx))
	}
	indptr := make([]int32, len(ptr))
	for i, p := range ptr {
		indptr[i] = int32(p)
	}
	m, err := NewCSR(states, indptr, idx, val)
	require.NoError(t, err)
	return Chain{Transitions: []*Matrix{m}, Steps: steps, Marginals: Ends(randomLaw(r, states), randomLaw(r, states), steps)}
}
