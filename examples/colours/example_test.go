package main

import (
	"context"
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func Example() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	moved, solved, err := transfer(context.Background(), dev, sunset(64, 40), forest(64, 40),
		options{space: lab, pixels: 500, epsilon: .02})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(moved.Bounds().Size(), solved.Status)
	// Output: (64,40) converged
}
