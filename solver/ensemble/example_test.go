package ensemble_test

import (
	"context"
	"fmt"
	"log"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/ensemble"
)

// Two problems of different sizes: a pair of points that moves by one, and
// three points that gather at one.
func ExampleSolve() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	p := ensemble.Problem{
		N: []int{2, 3}, M: []int{2, 1}, D: 1,
		X:       []float64{0, 3 /**/, -1, 0, 1},
		Y:       []float64{1, 4 /**/, 0},
		Epsilon: []float64{0.1},
	}
	r, err := ensemble.Solve(context.Background(), dev, p, ensemble.Settings{Map: true})
	if err != nil {
		log.Fatal(err)
	}
	for k, o := range r.Problems {
		fmt.Printf("%v: cost %.4f\n", o.Status, o.Certificate.TransportCost)
		_, g := r.Potentials(k)
		fmt.Println(len(g), "target potentials")
	}
	fmt.Printf("map %.2f\n", r.Map)
	// Output:
	// converged: cost 1.0000
	// 2 target potentials
	// converged: cost 0.6667
	// 1 target potentials
	// map [1.00 4.00 0.00 0.00 0.00]
}

// The Sinkhorn divergence of two points at distance 2 is their squared distance.
func ExampleSolveDivergence() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	p := ensemble.Problem{N: []int{1}, M: []int{1}, D: 1, X: []float64{0}, Y: []float64{2}, Epsilon: []float64{0.5}}
	d, err := ensemble.SolveDivergence(context.Background(), dev, p, ensemble.Settings{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f\n", d.Value)
	// Output: [4.0000]
}
