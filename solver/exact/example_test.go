package exact

import (
	"context"
	"fmt"
)

func ExampleSolver_Solve() {
	// Three sources on a line, two sinks with unequal demands.
	r, err := Solver{}.Solve(context.Background(), Problem{
		Costs: Points{X: []float64{0, 1, 2}, Y: []float64{0, 3}, D: 1},
		A:     []float64{1, 1, 1},
		B:     []float64{1.5, 1.5},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(r.Status, r.Cost, "gap", r.Gap)
	for _, e := range r.Plan {
		fmt.Println(e.I, "→", e.J, e.Mass)
	}
	// Output:
	// converged 3.5 gap 0
	// 0 → 0 1
	// 1 → 0 0.5
	// 1 → 1 0.5
	// 2 → 1 1
}
