package barycenter_test

import (
	"context"
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/barycenter"
	"github.com/fortet/fortet/solver/geometry"
)

// Halfway between a histogram on the left and one on the right.
func ExampleSolve() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	x := []float64{0, 1, 2, 3, 4, 5, 6}
	r, err := barycenter.Solve(context.Background(), dev, barycenter.Problem{
		Support: geometry.Points{X: x, Y: x, N: 7, M: 7, D: 1},
		Measures: []barycenter.Measure{
			{Weights: []float64{.25, .5, .25, 0, 0, 0, 0}},
			{Weights: []float64{0, 0, 0, 0, .25, .5, .25}},
		},
		Epsilon:  0.2,
		Debiased: true,
	}, barycenter.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Status)
	for _, w := range r.Weights {
		fmt.Printf("%.2f ", w)
	}
	// Output:
	// converged
	// 0.00 0.00 0.25 0.50 0.25 0.00 0.00
}

// Between two clouds, in points that move.
func ExampleSolveFree() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	r, err := barycenter.SolveFree(context.Background(), dev, barycenter.FreeProblem{
		Measures: []barycenter.Cloud{
			{X: []float64{0, 0, 0, 2}},
			{X: []float64{4, 0, 4, 6}},
		},
		D: 2, N: 2, Epsilon: 0.01,
	}, barycenter.FreeSettings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Status)
	fmt.Printf("%.2f\n", r.X)
	// Output:
	// converged
	// [2.00 0.00 2.00 4.00]
}
