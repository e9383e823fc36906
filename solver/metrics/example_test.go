package metrics

import (
	"context"
	"fmt"
)

func ExampleMetric_Compute() {
	reference := Cloud{X: []float64{0, 1, 2, 3, 4, 5, 6, 7}, D: 1}
	generated := Cloud{X: []float64{20, 21, 22, 23}, D: 1}
	ms, err := Parse("w1,energy")
	if err != nil {
		panic(err)
	}
	for _, m := range ms {
		v, err := m.Compute(context.Background(), generated, reference, Options{Seed: 1})
		if err != nil {
			panic(err)
		}
		fmt.Println(m.Name, "beyond noise:", v.Value > v.Floor.Mean+5*v.Floor.Std, "at n =", v.Floor.N)
	}
	// Output:
	// w1 beyond noise: true at n = 4
	// energy beyond noise: true at n = 4
}

func ExampleW2() {
	x := Cloud{X: []float64{0, 0, 1, 0}, D: 2}
	y := Cloud{X: []float64{1, 2, 0, 2}, D: 2}
	d, err := W2(context.Background(), x, y)
	fmt.Println(d, err)
	// Output: 2 <nil>
}
