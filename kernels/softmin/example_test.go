package softmin_test

import (
	"fmt"
	"log"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

// Two targets of equal weight, at distances 0 and 2 of the one source.
func Example() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	x, err := tensor.From(dev, []float64{0}, 1, 1)
	if err != nil {
		log.Fatal(err)
	}
	y, err := tensor.From(dev, []float64{0, 2}, 2, 1)
	if err != nil {
		log.Fatal(err)
	}
	out, err := tensor.New(dev, tensor.Float64, 1)
	if err != nil {
		log.Fatal(err)
	}
	p := softmin.Pairs{X: x, Y: y, Epsilon: 2, Cost: softmin.SqEuclidean}
	if err := p.Softmin(dev, out); err != nil {
		log.Fatal(err)
	}
	v, err := tensor.Values[float64](out)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.6f\n", v[0]) // -2 log(1 + exp(-4 / 2))
	// Output: -0.253856
}
