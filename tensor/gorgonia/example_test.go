package gorgonia_test

import (
	"fmt"

	dense "gorgonia.org/tensor"

	"github.com/fortet/fortet/tensor/gorgonia"
)

func Example() {
	d := dense.New(dense.WithShape(2, 3), dense.WithBacking([]float64{1, 2, 3, 4, 5, 6}))
	a, err := gorgonia.FromDense(d)
	if err != nil {
		fmt.Println(err)
		return
	}
	a.Float64s()[0] = 10 // the same memory
	fmt.Println(a.Shape, d.Float64s())

	if err := d.T(); err != nil { // lazily: the elements stay where they are
		fmt.Println(err)
		return
	}
	_, err = gorgonia.FromDense(d)
	fmt.Println(err)
	// Output:
	// [2 3] [10 2 3 4 5 6]
	// gorgonia: dense: strides [1 3] of shape (3, 2), want row-major elements without gaps: invalid tensor
}
