package axis_test

import (
	"fmt"
	"log"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/axis"
	"github.com/fortet/fortet/tensor"
)

// A step of a random walk on three states, seen from weights that no float64
// holds.
func Example() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	in, err := tensor.From(dev, []float64{-1000, -2000, math.Inf(-1)}, 1, 3, 1)
	if err != nil {
		log.Fatal(err)
	}
	half, never := math.Log(.5), math.Inf(-1)
	logk, err := tensor.From(dev, []float64{half, half, never, half, never, half, never, half, half}, 3, 3)
	if err != nil {
		log.Fatal(err)
	}
	out, err := tensor.New(dev, tensor.Float64, 1, 3, 1)
	if err != nil {
		log.Fatal(err)
	}
	if err := axis.LogSumExp(axis.Args{In: in, LogK: logk, Out: out}); err != nil {
		log.Fatal(err)
	}
	v, err := tensor.Values[float64](out)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%.4f\n", v)
	// Output: [-1000.6931 -1000.6931 -2000.6931]
}
