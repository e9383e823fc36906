package gaussian_test

import (
	"context"
	"fmt"

	"github.com/fortet/fortet/solver/gaussian"
)

func ExampleSolveMixture() {
	at := func(mean, variance float64) gaussian.Normal { return gaussian.Isotropic([]float64{mean}, variance) }
	source := gaussian.Single(at(0, .1))
	target := gaussian.Mixture{Weights: []float64{.25, .75}, Components: []gaussian.Normal{at(-2, .2), at(2, .2)}}
	bridge, err := gaussian.SolveMixture(context.Background(), source, target, gaussian.Brownian{Epsilon: .5})
	if err != nil {
		fmt.Println(err)
		return
	}
	half, err := bridge.Marginal(.5)
	if err != nil {
		fmt.Println(err)
		return
	}
	drift, err := bridge.Drift(.5)
	if err != nil {
		fmt.Println(err)
		return
	}
	moments := half.Moments()
	fmt.Printf("KL at most %.4f, mean %.2f, variance %.4f\n", bridge.Bound, moments.Mean, moments.Cov.At(0, 0))
	for _, x := range []float64{-1, 0, 1} {
		u := []float64{0}
		drift.At(u, []float64{x})
		fmt.Printf("drift at %4.1f: %.4f\n", x, u[0])
	}
	// Output:
	// KL at most 4.2196, mean [0.50], variance 0.9686
	// drift at -1.0: -1.9981
	// drift at  0.0: 1.4574
	// drift at  1.0: 1.9998
}

func ExampleFromPotentials() {
	at := func(mean, variance float64) gaussian.Normal { return gaussian.Isotropic([]float64{mean}, variance) }
	left := gaussian.Single(at(0, .5))
	right := gaussian.Mixture{Weights: []float64{.5, .5}, Components: []gaussian.Normal{at(-1, .2), at(1, .2)}}
	bridge, err := gaussian.FromPotentials(left, right, gaussian.Brownian{Epsilon: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	end, err := bridge.Conditional([]float64{.5})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("source weights %.2f, means %.4f and %.4f\n", bridge.Source.Weights, bridge.Source.Components[0].Mean, bridge.Source.Components[1].Mean)
	fmt.Printf("from 0.5 to %.4f with %.4f, to %.4f with %.4f\n", end.Components[0].Mean, end.Weights[0], end.Components[1].Mean, end.Weights[1])
	// Output:
	// source weights [0.50 0.50], means [-0.5556] and [0.5556]
	// from 0.5 to [-0.9000] with 0.2689, to [1.1000] with 0.7311
}
