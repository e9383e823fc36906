package bench

import (
	"fmt"
	"math"
)

// Ceilings are what hardware can do at most, for all workers together.
type Ceilings struct {
	Flops  float64 // floating-point operations a second, a multiply-add counting two
	Exps   float64 // exponentials a second
	Bytes  float64 // bytes a second read from memory
	Source string  // where the numbers come from
}

// pairsLimit is the least time of one pass over n×m pairs in d dimensions, or
// over a matrix of elements of the given size if d is 0. Points and potentials
// move too, but little.
func (c Ceilings) pairsLimit(n, m, d, element int) *Limit {
	pairs := float64(n) * float64(m)
	exps := pairs / c.Exps
	other, formula := 2*float64(d)*pairs/c.Flops, fmt.Sprintf("2dnm flop / %.3g GFLOP/s", c.Flops/1e9)
	if d == 0 {
		other, formula = pairs*float64(element)/c.Bytes, fmt.Sprintf("%d nm bytes / %.3g GB/s", element, c.Bytes/1e9)
	}
	return &Limit{
		Seconds: math.Max(exps, other),
		Formula: fmt.Sprintf("max(nm exp / %.3g Gexp/s, %s); %s", c.Exps/1e9, formula, c.Source),
	}
}
