package multimarginal_test

import (
	"context"
	"fmt"
	"log"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/multimarginal"
)

func ExampleChain() {
	// Cells at three days, on a line: they move to the right and part.
	days := []float64{0, 1, 3}
	cells := [][]float64{{0, .2, .4}, {.8, 1, 1.4, 1.6}, {1, 1.2, 3, 3.2}}
	p, err := multimarginal.Chain(cells, nil, 1, days, .1)
	if err != nil {
		log.Fatal(err)
	}
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	ctx := context.Background()
	r, err := multimarginal.Solve(ctx, dev, p, multimarginal.Settings{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Status)
	fmt.Printf("cost of each step %.3f\n", r.Certificate.EdgeCost)

	// Where the cells of day 1 are on the mean on day 3.
	step, err := r.Plan.Edge(1)
	if err != nil {
		log.Fatal(err)
	}
	mean, err := step.BarycentricMap(ctx, dev)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("day 3 %.2f\n", mean)

	// Paths that pass every day's cells.
	paths, err := r.Plan.Paths(ctx, 1000, []float64{0, .5, 1, 2, 3}, 1)
	if err != nil {
		log.Fatal(err)
	}
	at := 0.0
	for s := range 1000 {
		at += paths[5*s+3] / 1000
	}
	fmt.Printf("mean on day 2: %.1f\n", at)
	// Output:
	// converged
	// cost of each step [0.540 0.345]
	// day 3 [1.13 1.34 2.86 3.07]
	// mean on day 2: 1.6
}

func ExampleSolve_barycentre() {
	// The law halfway between two, on a grid of candidates: a free node between
	// them.
	grid := make([]float64, 9)
	for i := range grid {
		grid[i] = float64(i) / 2
	}
	p := multimarginal.Problem{
		Dim: 1, Epsilon: .2,
		Nodes: []multimarginal.Node{
			{X: []float64{0, 1}},
			{X: grid, Free: true},
			{X: []float64{3, 4}, Weights: []float64{.5, .5}},
		},
		Edges: []multimarginal.Edge{{I: 0, J: 1, Weight: .5}, {I: 1, J: 2, Weight: .5}},
	}
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	r, err := multimarginal.Solve(context.Background(), dev, p, multimarginal.Settings{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%v\n%.3f\n", r.Status, r.Plan.Marginals[1])
	// Output:
	// converged
	// [0.000 0.002 0.071 0.287 0.281 0.287 0.071 0.002 0.000]
}

func ExampleDense_Solve() {
	// Three coins that should not all agree: any cost, as a whole tensor.
	cost := []float64{1, 0, 0, 0, 0, 0, 0, 1}
	r, err := multimarginal.Dense{Shape: []int{2, 2, 2}, Cost: cost, Epsilon: .5}.Solve(context.Background(), multimarginal.Settings{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%v %.3f\n", r.Status, r.P)
	// Output:
	// converged [0.022 0.159 0.159 0.159 0.159 0.159 0.159 0.022]
}
