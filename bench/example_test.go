package bench_test

import (
	"fmt"

	"github.com/fortet/fortet/bench"
)

func ExampleSum() {
	s := bench.Sum([]float64{0.42, 0.40, 0.50})
	fmt.Printf("%d runs, fastest %.2f s, median %.2f s, spread %.0f %%\n", s.Repetitions, s.Minimum, s.Median, 100*s.Spread)
	// Output: 3 runs, fastest 0.40 s, median 0.42 s, spread 24 %
}
