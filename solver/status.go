// Package solver holds what all solvers share: how a run ended. The solvers
// are its subpackages.
package solver

import (
	"errors"
	"fmt"
)

// ErrInvalid says that a problem or a setting makes no sense; the text names
// it, what was found and what was wanted.
var ErrInvalid = errors.New("invalid problem")

// ErrInfeasible says that no solution exists, as where states that must be
// reached cannot be; the text says why.
var ErrInfeasible = errors.New("infeasible problem")

// Status says how a run ended. An error says that it could not run at all.
type Status int

// The ways in which a run ends.
const (
	Converged     Status = iota + 1 // the tolerance was reached
	MaxIterations                   // the iteration limit came first
	Stalled                         // the precision at hand allows no further progress
	Canceled                        // the context was canceled
	Diverged                        // the iterates are no longer finite
)

func (s Status) String() string {
	switch s {
	case Converged:
		return "converged"
	case MaxIterations:
		return "max-iterations"
	case Stalled:
		return "stalled"
	case Canceled:
		return "canceled"
	case Diverged:
		return "diverged"
	}
	return fmt.Sprintf("Status(%d)", int(s))
}

// Err is nil only for Converged, so that a result cannot be taken for a
// solution by accident.
func (s Status) Err() error {
	if s == Converged {
		return nil
	}
	return fmt.Errorf("not solved: %v", s)
}
