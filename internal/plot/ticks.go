package plot

import (
	"fmt"
	"math"
	"strconv"

	gonum "gonum.org/v1/plot"
)

// linearTicks marks multiples of 1, 2 or 5 times a power of ten, four to eight
// of them.
type linearTicks struct{}

func (linearTicks) Ticks(low, high float64) []gonum.Tick {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	for _, factor := range []float64{5, 2} {
		if (high-low)/(factor*step) >= 4 {
			step *= factor
			break
		}
	}
	// As many digits as tell neighbours apart.
	largest := max(math.Abs(low), math.Abs(high))
	format, digits := byte('f'), max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
	if largest >= 1e6 || largest < 1e-3 {
		format, digits = 'e', max(0, int(math.Ceil(math.Log10(largest/step)-1e-9)))
	}
	var ticks []gonum.Tick
	first := math.Ceil(low / step)
	for k := 0.; ; k++ {
		v := (first + k) * step
		if v > high || k > 20 {
			return ticks
		}
		ticks = append(ticks, gonum.Tick{Value: v, Label: strconv.FormatFloat(v+0, format, digits, 64)})
	}
}

// logTicks marks powers of ten; over less than two decades also twice and
// five times them, and over much less like a linear axis.
type logTicks struct{}

func (logTicks) Ticks(low, high float64) []gonum.Tick {
	decades := math.Log10(high / low)
	if decades < 0.7 {
		return linearTicks{}.Ticks(low, high)
	}
	first, last := int(math.Floor(math.Log10(low))), int(math.Ceil(math.Log10(high)))
	step := int(math.Ceil(decades / 8))
	var ticks []gonum.Tick
	for k := first; k <= last; k++ {
		for digit := 1; digit < 10; digit++ {
			v := float64(digit) * math.Pow(10, float64(k))
			if v < low || v > high {
				continue
			}
			switch {
			case digit == 1 && k%step == 0 || decades < 2 && (digit == 2 || digit == 5):
				ticks = append(ticks, gonum.Tick{Value: v, Label: decimal(digit, k, first, last)})
			case step == 1 || digit == 1:
				ticks = append(ticks, gonum.Tick{Value: v})
			}
		}
	}
	return ticks
}

// decimal writes digit·10^k, in full where all decades of the axis, from first
// to last, are short.
func decimal(digit, k, first, last int) string {
	if first >= -4 && last <= 5 {
		return strconv.FormatFloat(float64(digit)*math.Pow(10, float64(k)), 'f', max(0, -k), 64)
	}
	return fmt.Sprintf("%de%d", digit, k)
}

// nameTicks puts names at 0, 1, 2, …
type nameTicks []string

func (n nameTicks) Ticks(_, _ float64) []gonum.Tick {
	var ticks []gonum.Tick
	// Every k-th name where there are many.
	step := (len(n) + 19) / 20
	for i, name := range n {
		if i%step == 0 {
			ticks = append(ticks, gonum.Tick{Value: float64(i), Label: name})
		}
	}
	return ticks
}
