package dataset_test

import (
	"fmt"

	"github.com/fortet/fortet/internal/dataset"
)

func ExampleOpen() {
	threes, err := dataset.Open("digits?class=3")
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := threes.Load()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.N, p.D, p.Image)

	// A training loop draws minibatches: step k takes draws k·64, k·64+1, …
	gaussians, err := dataset.Open("8gaussians?noise=paper")
	if err != nil {
		fmt.Println(err)
		return
	}
	batch := make([]float64, 64*gaussians.Dim())
	for step := range 3 {
		if err := gaussians.Draw(batch, 1, uint64(step*64)); err != nil {
			fmt.Println(err)
			return
		}
	}

	_, err = dataset.Open("moons?nose=0.1")
	fmt.Println(err)
	// Output:
	// 183 64 8x8x1
	// dataset: moons?nose=0.1: invalid data set: option "nose": unknown, want one of noise, stretch_x, stretch_y, n, seed, scale
}
