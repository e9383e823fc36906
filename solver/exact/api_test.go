package exact

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestInvalid(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	line := Points{X: []float64{0, 1}, Y: []float64{1, 2}, D: 1}
	for name, p := range map[string]Problem{
		"no costs":          {},
		"no d":              {Costs: Points{X: []float64{1}, Y: []float64{1}}},
		"empty":             {Costs: Points{Y: []float64{1}, D: 1}},
		"ragged":            {Costs: Points{X: []float64{1, 2, 3}, Y: []float64{1, 2}, D: 2}},
		"nan":               {Costs: Points{X: []float64{nan}, Y: []float64{1}, D: 1}},
		"inf":               {Costs: Points{X: []float64{1}, Y: []float64{inf}, D: 1}},
		"too far":           {Costs: Points{X: []float64{1e150}, Y: []float64{1}, D: 1}},
		"metric":            {Costs: Points{X: []float64{1}, Y: []float64{1}, D: 1, Metric: 7}},
		"few weights":       {Costs: line, A: []float64{1}},
		"negative weight":   {Costs: line, A: []float64{2, -1}},
		"nan weight":        {Costs: line, B: []float64{nan, 1}},
		"zero weights":      {Costs: line, A: []float64{0, 0}, B: []float64{0, 0}},
		"unbalanced":        {Costs: line, A: []float64{1, 1}, B: []float64{1, 1.001}},
		"matrix shape":      {Costs: Matrix{C: []float64{1, 2, 3}, N: 2, M: 2}},
		"matrix of nothing": {Costs: Matrix{}},
		"matrix nan":        {Costs: Matrix{C: []float64{nan}, N: 1, M: 1}},
		"func nil":          {Costs: Func{N: 1, M: 1}},
		"func size":         {Costs: Func{Cost: func(int, int) float64 { return 0 }}},
		"func inf":          {Costs: Func{N: 1, M: 1, Cost: func(int, int) float64 { return inf }}},
	} {
		_, err := Solver{}.Solve(context.Background(), p)
		require.ErrorIs(t, err, ErrInvalid, name)
		require.NotContains(t, err.Error(), "\n", name)
	}
	_, err := Solver{Workers: -1}.Solve(context.Background(), Problem{Costs: line})
	require.ErrorIs(t, err, ErrInvalid)

	// A relative 1e-10 is forgiven and rescaled.
	r, err := Solver{}.Solve(context.Background(), Problem{Costs: line, A: []float64{1, 1}, B: []float64{1, 1 + 1e-10}})
	require.NoError(t, err)
	within(t, r.Cost, 2, 1e-9, "nearly balanced")
}

func TestCancel(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Solver{}.Solve(ctx, Problem{Costs: Points{X: normals(r, 10), Y: normals(r, 10), D: 2}})
	require.ErrorIs(t, err, context.Canceled)

	p := Problem{Costs: Points{X: normals(r, 64*6000), Y: normals(r, 64*6000), D: 64}}
	for _, after := range []time.Duration{20, 100, 300, 600} {
		ctx, cancel := context.WithCancel(context.Background())
		var at time.Time
		time.AfterFunc(after*time.Millisecond, func() { at = time.Now(); cancel() })
		_, err := Solver{}.Solve(ctx, p)
		require.ErrorIs(t, err, context.Canceled)
		late := time.Since(at)
		t.Logf("canceled after %d ms: returned within %v", after, late)
		require.Less(t, late, 2*time.Second, "far above the tenth of a second that is meant, for a busy machine")
	}
}

func FuzzSolve(f *testing.F) {
	f.Add(uint64(1), 3, 4, 2, 0)
	f.Add(uint64(2), 5, 5, 1, 3)
	f.Fuzz(func(t *testing.T, seed uint64, n, m, d, kind int) {
		if n > 40 || m > 40 || d > 5 || n < -5 || m < -5 || d < -5 {
			t.Skip("larger than a fuzz case should be")
		}
		r := rand.New(rand.NewPCG(seed, 1))
		p := Points{X: lattice(r, max(0, n*d), 4), Y: normals(r, max(0, m*d)), D: d, Metric: Metric(kind % 3)}
		if kind%2 == 0 {
			p.Y = lattice(r, max(0, m*d), 4)
		}
		if len(p.X) > 0 && kind%11 == 0 {
			p.X[0] = math.NaN()
		}
		prob := Problem{Costs: p}
		if kind%5 == 0 && n > 0 {
			prob.A = make([]float64, n)
			for i := range prob.A {
				prob.A[i] = float64(r.IntN(3)) / 2
			}
			prob.A[0]++
			s := 0.0
			for _, v := range prob.A {
				s += v
			}
			if m > 0 {
				prob.B = slices.Repeat([]float64{s / float64(m)}, m)
			}
		}
		if _, err := (Solver{}).Solve(context.Background(), prob); err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		solve(t, prob)
	})
}
