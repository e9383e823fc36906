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

// What an H100 could reach at best, by its data sheet.
func ExamplePredict() {
	all, err := bench.Predict("H100 SXM")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range all {
		if p.Operation == "softmin" && p.Shape == "d=64" && p.Precision == "tf32" {
			fmt.Printf("%d points a side: at least %.2g ms, bound by %s\n%s\n", p.Size, 1000*p.Limit.Seconds, p.Limit.Binding, p.Limit.Formula)
		}
	}
	// Output:
	// 16384 points a side: at least 0.069 ms, bound by matrix products
	// max(nm exp / 4.18 Texp/s, 2dnm flop / 495 TFLOP/s); H100 SXM5 data sheet
}
