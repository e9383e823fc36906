package gaussian_test

import (
	"context"
	"fmt"
	"math"

	"github.com/fortet/fortet/solver/gaussian"
	"gonum.org/v1/gonum/mat"
)

func ExampleSolve() {
	source := gaussian.Isotropic([]float64{0, 0}, 1)
	target := gaussian.Normal{Mean: []float64{2, -1}, Cov: mat.NewSymDense(2, []float64{2, .5, .5, 1})}
	bridge, err := gaussian.Solve(source, target, gaussian.Brownian{Epsilon: .5})
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
	at := make([]float64, 2)
	drift.At(at, half.Mean)
	fmt.Printf("mean %.2f, drift there %.2f, KL %.4f\n", half.Mean, at, bridge.KL)
	// Output:
	// mean [1.00 -0.50], drift there [2.00 -1.00], KL 5.2196
}

func ExampleSolveBass() {
	source := gaussian.Dirac([]float64{0})
	target := gaussian.Isotropic([]float64{0}, 4)
	for _, beta := range []float64{2, 10, math.Inf(1)} {
		s, err := gaussian.SolveBass(context.Background(), gaussian.BassProblem{Source: source, Target: target, Epsilon: 1, Beta: beta})
		if err != nil {
			fmt.Println(err)
			return
		}
		sigma, err := s.Sigma(0)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("beta %4g: R %.6f, sigma_0 %.6f, J/2 %.6f\n", beta, s.R.At(0, 0), sigma.At(0, 0), s.Dual)
	}
	// Output:
	// beta    2: R 0.451416, sigma_0 1.699056, J/2 0.465492
	// beta   10: R 0.665612, sigma_0 1.248523, J/2 0.706957
	// beta +Inf: R 0.750000, sigma_0 1.000000, J/2 0.806853
}

func ExampleTransport() {
	a := gaussian.Isotropic([]float64{0}, 4)
	b := gaussian.Isotropic([]float64{3}, 1)
	for _, epsilon := range []float64{0, 1} {
		p, err := gaussian.Transport(a, b, epsilon)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("epsilon %g: map %.4f x + %.4f, value %.4f\n", epsilon, p.Gain.At(0, 0), p.Offset[0], p.Value(epsilon))
	}
	// Output:
	// epsilon 0: map 0.5000 x + 3.0000, value 5.0000
	// epsilon 1: map 0.3904 x + 3.0000, value 5.9088
}
