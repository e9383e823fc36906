package gemm_test

import (
	"fmt"
	"log"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gemm"
	"github.com/fortet/fortet/tensor"
)

// A layer of a network: Y = X Wᵀ + 1 bᵀ for two rows of X.
func Example() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		log.Fatal(err)
	}
	defer dev.Close()
	from := func(v []float32, shape ...int) tensor.Tensor {
		t, err := tensor.From(dev, v, shape...)
		if err != nil {
			log.Fatal(err)
		}
		return t
	}
	x := from([]float32{1, 2, 3, 4}, 2, 2)
	w := from([]float32{1, 0, 0, 1, 1, 1}, 3, 2)
	b := from([]float32{0, 10, 100}, 3)
	y := from(make([]float32, 6), 2, 3)
	if err := gemm.Multiply(gemm.Args{A: gemm.Of(x), B: gemm.Of(w).T(), C: gemm.Of(y), Bias: b, Alpha: 1}); err != nil {
		log.Fatal(err)
	}
	v, err := tensor.Values[float32](y)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(v[:3], v[3:])
	// Output: [1 12 103] [3 14 107]
}
