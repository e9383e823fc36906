package fortet_test

import (
	"context"
	"fmt"
	"log"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/fortet"
)

// cells are n centres from low to high.
func cells(low, high float64, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = low + (high-low)*float64(i)/float64(n-1)
	}
	return x
}

// A normal law becomes two: where the bridge is half way, and what drives it there.
func ExampleSolve() {
	axes := [][]float64{cells(-5, 5, 201)}
	source, err := fortet.LogMass(axes, func(x []float64) float64 { return -x[0] * x[0] / 2 })
	if err != nil {
		log.Fatal(err)
	}
	target, err := fortet.LogMass(axes, func(x []float64) float64 { return -8 * (math.Abs(x[0]) - 2) * (math.Abs(x[0]) - 2) })
	if err != nil {
		log.Fatal(err)
	}
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	ctx := context.Background()
	r, err := fortet.Solve(ctx, dev, fortet.Problem{Axes: axes, LogSource: source, LogTarget: target, Reference: fortet.Brownian(1)}, fortet.Settings{})
	if err != nil {
		log.Fatal(err)
	}
	half, err := r.At(ctx, dev, .5)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%v, entropy %.4f; drift at 0.5 and time 0.5: %.3f\n", r.Status, r.Certificate.Primal, half.Drift[110])
	// Output: converged, entropy 1.6533; drift at 0.5 and time 0.5: 2.622
}

// A hill of potential in the plane, around which paths go.
func ExampleProblem_potential() {
	axes := [][]float64{cells(-3, 3, 61), cells(-2, 2, 41)}
	at := func(where float64) []float64 {
		l, err := fortet.LogMass(axes, func(x []float64) float64 { return -10 * ((x[0]-where)*(x[0]-where) + x[1]*x[1]) })
		if err != nil {
			log.Fatal(err)
		}
		return l
	}
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	ctx := context.Background()
	p := fortet.Problem{Axes: axes, LogSource: at(-1.5), LogTarget: at(1.5), Reference: fortet.Brownian(.3), Steps: 16}
	for _, height := range []float64{0, 20} {
		p.Potential = func(_ float64, x []float64) float64 { return height * math.Exp(-2*(x[0]*x[0]+x[1]*x[1])) }
		r, err := fortet.Solve(ctx, dev, p, fortet.Settings{})
		if err != nil {
			log.Fatal(err)
		}
		half, err := r.At(ctx, dev, .5)
		if err != nil {
			log.Fatal(err)
		}
		near := 0.0 // mass within 0.5 of the hill's top
		for i, l := range half.LogMass {
			if x, y := axes[0][i/41], axes[1][i%41]; x*x+y*y < .25 {
				near += math.Exp(l)
			}
		}
		fmt.Printf("height %2g: %v, %.2f of the mass passes near the top\n", height, r.Status, near)
	}
	// Output:
	// height  0: converged, 0.69 of the mass passes near the top
	// height 20: converged, 0.27 of the mass passes near the top
}

// A walk that moves right only, whose kernel is anything but Gaussian.
func ExampleGiven() {
	axes := [][]float64{{0, 1, 2, 3}}
	no := math.Inf(-1)
	half := math.Log(.5)
	step := []float64{half, half, no, no, no, half, half, no, no, no, half, half, no, no, no, 0}
	p := fortet.Problem{
		Axes:      axes,
		LogSource: []float64{0, no, no, no}, LogTarget: []float64{no, 0, no, 0},
		Reference: fortet.Given{LogKernels: [][]float64{step}}, Steps: 4,
	}
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	ctx := context.Background()
	r, err := fortet.Solve(ctx, dev, p, fortet.Settings{})
	if err != nil {
		log.Fatal(err)
	}
	for k := range 5 {
		s, err := r.At(ctx, dev, float64(k)/4)
		if err != nil {
			log.Fatal(err)
		}
		mass := make([]float64, 4)
		for i, l := range s.LogMass {
			mass[i] = math.Exp(l)
		}
		fmt.Printf("%.3f\n", mass)
	}
	p.LogSource[0], p.LogSource[2] = no, 0
	_, err = fortet.Solve(ctx, dev, p, fortet.Settings{})
	fmt.Println(err)
	// Output:
	// [1.000 0.000 0.000 0.000]
	// [0.475 0.525 0.000 0.000]
	// [0.250 0.450 0.300 0.000]
	// [0.125 0.375 0.300 0.200]
	// [0.000 0.500 0.000 0.500]
	// fortet: target: infeasible problem: cell [1] at [1], of mass 0.5, is reached from no cell of the source with any under the reference
}
