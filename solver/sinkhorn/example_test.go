package sinkhorn_test

import (
	"context"
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

func Example() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	points, err := geometry.NewPoints([]float64{0, 1, 2.5}, []float64{-.5, .5, 1.5, 3}, 1, geometry.SqEuclidean)
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := sinkhorn.Solve(context.Background(), dev, sinkhorn.Problem{
		Geometry: points, A: []float64{.2, .3, .5}, B: []float64{.1, .4, .3, .2}, Epsilon: .5,
	}, sinkhorn.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%v: value %.5f, transport cost %.5f\n", r.Status, r.Certificate.Dual, r.Certificate.TransportCost)
	// Output: converged: value 0.86026, transport cost 0.52708
}

// Half of the target has no counterpart. With a total variation penalty it
// stays where it is, since it is more than twice ρ away.
func Example_unequalMass() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	points, err := geometry.NewPoints([]float64{0, 1}, []float64{0.1, 1.1, 8, 9}, 1, geometry.SqEuclidean)
	if err != nil {
		fmt.Println(err)
		return
	}
	tv := sinkhorn.Penalty{Kind: sinkhorn.TV, Rho: 1}
	r, err := sinkhorn.Solve(context.Background(), dev, sinkhorn.Problem{
		Geometry: points, A: []float64{1, 1}, B: []float64{1, 1, 1, 1}, Epsilon: .01, Source: tv, Target: tv,
	}, sinkhorn.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	g, err := r.Plan.Gradient(context.Background(), dev)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%v: mass %.3f of 2 and 4\n", r.Status, r.Certificate.Mass)
	fmt.Printf("by the source points: %.2f\n", g.X)
	// Output:
	// converged: mass 2.000 of 2 and 4
	// by the source points: [-0.20 -0.20]
}
