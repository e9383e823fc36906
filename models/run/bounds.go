package run

import (
	"fmt"
	"math"
	"strings"
)

// bounds is what the tag "range" says: an interval as (0,1], with inf for no
// end, and "|none" where None will do.
type bounds struct {
	low, high         float64
	openLow, openHigh bool
	none              bool
	whole             bool // both ends are of integers
}

func parseBounds(tag string) bounds {
	if tag == "" {
		return bounds{}
	}
	interval, or, _ := strings.Cut(tag, "|")
	low, high, _ := strings.Cut(interval[1:len(interval)-1], ",")
	b := bounds{openLow: interval[0] == '(', openHigh: interval[len(interval)-1] == ')', none: or == "none", high: math.Inf(1)}
	number := func(text string) float64 {
		x, err := parseFloat(text)
		if err != nil {
			panic("run: range: " + tag) // the tags are ours, and tests read them all
		}
		return x
	}
	b.low = number(low)
	if high != "inf" {
		b.high = number(high)
	}
	b.whole = !b.openLow && !b.openHigh && b.high > 1
	return b
}

func (b bounds) contains(x float64) bool {
	if b.none && x == float64(None) {
		return true
	}
	above := x > b.low || !b.openLow && x == b.low
	below := x < b.high || !b.openHigh && x == b.high
	return above && below
}

// String completes "want".
func (b bounds) String() string {
	var s string
	switch unbounded := math.IsInf(b.high, 1); {
	case b.whole:
		s = fmt.Sprintf("a whole number from %.0f to %.0f", b.low, b.high)
	case unbounded && !b.openHigh:
		s = fmt.Sprintf("a number above %g, or inf", b.low)
	case unbounded && b.openLow:
		s = fmt.Sprintf("a finite number above %g", b.low)
	case unbounded:
		s = fmt.Sprintf("a finite number of at least %g", b.low)
	default:
		s = "a number " + map[bool]string{true: "above", false: "of at least"}[b.openLow] +
			fmt.Sprintf(" %g and ", b.low) + map[bool]string{true: "below", false: "at most"}[b.openHigh] + fmt.Sprintf(" %g", b.high)
	}
	if b.none {
		s += ", or none"
	}
	return s
}
