package duallse_test

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/duallse"
	"github.com/fortet/fortet/tensor"
)

// The entropic dual between two batches of points on a line, with the gradient
// of the loss with respect to one potential.
func Example() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	array := func(v []float64, shape ...int) tensor.Tensor {
		t, err := tensor.From(dev, v, shape...)
		if err != nil {
			panic(err)
		}
		return t
	}
	star := duallse.Star{
		Epsilon:   0.5,
		Points:    array([]float64{0, 1, 2}, 3, 1),
		Potential: array([]float64{0.1, 0, -0.1}, 3),
		Arms:      []duallse.Arm{{Weight: 1, Points: array([]float64{0.5, 1.5}, 2, 1)}},
	}
	out := duallse.Output{
		Value:     array(make([]float64, 2), 2),
		Potential: array(make([]float64, 3), 3),
		Objective: duallse.NegativeDual,
	}
	evaluate := func(s duallse.Star, o duallse.Output) duallse.Value {
		if err := duallse.LogE(dev, s, o); err != nil {
			panic(err)
		}
		v, err := duallse.ReadValue(o.Value)
		if err != nil {
			panic(err)
		}
		return v
	}
	v := evaluate(star, out)
	gradient, _ := tensor.Values[float64](out.Potential)
	star.Potential = tensor.Tensor{}
	z := evaluate(star, duallse.Output{Value: out.Value})
	fmt.Printf("log E = %.6f, log Z = %.6f, dual = %.6f\n", v.LogE, z.LogE, v.Dual(z.LogE))
	fmt.Printf("gradient of the loss: %.6f\n", gradient)
	// Output:
	// log E = -0.893827, log Z = -0.896349, dual = -0.002522
	// gradient of the loss: [-0.055235 0.160882 -0.105646]
}
