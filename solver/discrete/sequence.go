package discrete

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/fortet/fortet/solver"
)

// sequence is a validated problem: the path law nearest to a reference among
// those with the given marginals. With R the reference's path law it has the
// density Π_k ψ_k(x_{at[k]}) relative to R.
type sequence struct {
	states  int
	steps   []step
	initial []float64   // logarithm of the reference's first law
	at      []int       // where marginals are given, ascending
	law     [][]float64 // the marginals, of mass one
	logLaw  [][]float64
	support [][]int // the states with mass

	what   string                    // what a place on the path is called: "step" or "knot"
	length func(from, to int) string // what the way between two places is called
}

// newSequence takes marginals that were validated.
func newSequence(states int, steps []step, marginals map[int][]float64, initial []float64) *sequence {
	s := &sequence{states: states, steps: steps}
	for t := range marginals {
		s.at = append(s.at, t)
	}
	slices.Sort(s.at)
	for _, t := range s.at {
		law := normalised(marginals[t])
		logLaw := make([]float64, states)
		var support []int
		for i, x := range law {
			logLaw[i] = math.Log(x)
			if x > 0 {
				support = append(support, i)
			}
		}
		s.law, s.logLaw, s.support = append(s.law, law), append(s.logLaw, logLaw), append(s.support, support)
	}
	if initial == nil {
		s.initial = s.logLaw[0]
		return s
	}
	s.initial = make([]float64, states)
	for i, x := range initial {
		s.initial[i] = math.Log(x)
	}
	return s
}

func normalised(w []float64) []float64 {
	total := 0.0
	for _, x := range w {
		total += x
	}
	out := make([]float64, len(w))
	for i, x := range w {
		out[i] = x / total
	}
	return out
}

// back takes x, a function of the state at step from, to step to ≤ from:
// log E_R[exp x(X_from) | X_to]. x is overwritten; the result is x or spare.
func (s *sequence) back(ctx context.Context, h *host, x, spare []float64, from, to int) (result, other []float64, err error) {
	for t := from - 1; t >= to; t-- {
		if err := s.steps[t].back(ctx, h, spare, x); err != nil {
			return nil, nil, err
		}
		x, spare = spare, x
	}
	return x, spare, nil
}

// forth takes x, a measure on the states at step from, to step to ≥ from.
func (s *sequence) forth(ctx context.Context, h *host, x, spare []float64, from, to int) (result, other []float64, err error) {
	for t := from; t < to; t++ {
		if err := s.steps[t].forth(ctx, h, spare, x); err != nil {
			return nil, nil, err
		}
		x, spare = spare, x
	}
	return x, spare, nil
}

// checkMarginals reports what is wrong with laws at the places 0 to last.
func checkMarginals(what string, states, last int, marginals map[int][]float64, initial []float64) []error {
	var errs []error
	if len(marginals) == 0 {
		errs = append(errs, bad("marginals", "none, want a law at one %s at least", what))
	}
	places := make([]int, 0, len(marginals))
	for t := range marginals {
		places = append(places, t)
	}
	slices.Sort(places)
	for _, t := range places {
		name := marginalName(what, t, last)
		if t < 0 || t > last {
			errs = append(errs, bad(name, "want %ss from 0 to %d", what, last))
			continue
		}
		total, err := mass(name, marginals[t], states)
		if err == nil && !(math.Abs(total-1) <= massTolerance) {
			err = bad(name, "its mass is %.9g, want 1 within %g", total, massTolerance)
		}
		errs = append(errs, err)
	}
	if initial != nil {
		_, err := mass("initial law of the reference", initial, states)
		errs = append(errs, err)
	} else if _, ok := marginals[0]; !ok && len(marginals) > 0 {
		errs = append(errs, bad("initial law of the reference", "none, want one where no marginal is given at %s 0", what))
	}
	return errs
}

// massTolerance leaves room for laws that were rounded to float32 or to print.
const massTolerance = 1e-6

func marginalName(what string, t, last int) string {
	switch t {
	case 0:
		return "source law"
	case last:
		return "target law"
	}
	return fmt.Sprintf("law at %s %d", what, t)
}

func mass(name string, w []float64, states int) (float64, error) {
	if len(w) != states {
		return 0, bad(name, "%d numbers, want %d, one for each state", len(w), states)
	}
	total := 0.0
	for i, x := range w {
		if !(x >= 0) || math.IsInf(x, 1) {
			return 0, bad(name, "mass %v of state %d, want a finite number of at least 0", x, i)
		}
		total += x
	}
	if !(total > 0) || math.IsInf(total, 1) {
		return 0, bad(name, "its mass is %v, want a finite number above 0", total)
	}
	return total, nil
}

func infeasible(format string, v ...any) error {
	return fmt.Errorf("discrete: %w: %s", solver.ErrInfeasible, fmt.Sprintf(format, v...))
}
