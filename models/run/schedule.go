package run

import "math"

// Schedule is the learning rate as a function of the step. With w warm-up
// steps of N in all, step k counted from 1 has the rate
//
//	Peak · k/w                                  k ≤ w
//	Peak                                        k > w, Constant
//	Peak · ½ (1 + cos(π (k-1-w) / (N-w)))       k > w, Cosine
//
// so that the first step after the warm-up has the peak, and the last one a
// rate above zero. The zero Decay is Constant.
type Schedule struct {
	Peak   float64
	Decay  Decay
	Warmup int // w
	Steps  int // N
}

// Rate is the learning rate of a step, counted from 1. Beyond Steps it stays
// what it was there.
func (s Schedule) Rate(step int) float64 {
	if step <= s.Warmup {
		return s.Peak * float64(step) / float64(s.Warmup)
	}
	if s.Decay != Cosine || s.Steps <= s.Warmup {
		return s.Peak
	}
	step = min(step, s.Steps)
	return s.Peak * 0.5 * (1 + math.Cos(math.Pi*float64(step-1-s.Warmup)/float64(s.Steps-s.Warmup)))
}
