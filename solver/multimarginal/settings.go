package multimarginal

import (
	"errors"
	"fmt"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor"
)

// Settings say how to solve. The zero value is the documented default.
type Settings struct {
	// Tolerance is the L1 marginal residual, summed over the nodes that are not
	// free and relative to the mass of the first exact one, at which to stop. 0
	// means 1e-6. With KL penalties the residual is that of the optimality
	// condition P_k = a_k exp(-f_k/ρ_k).
	Tolerance float64
	// MaxIterations bounds the sweeps over each part of the tree, at every ε and
	// in every precision together. 0 means 10000.
	MaxIterations int
	// Acceleration is Auto, which is Anderson, or None or Anderson.
	Acceleration sinkhorn.Acceleration
	// Precision says which arithmetic does the iterations. The certificate is
	// always float64.
	Precision solver.Precision
	// NoAnnealing starts at the problem's ε at once, instead of coming down
	// from a large one with warm starts.
	NoAnnealing bool
	// Geometry refines how costs are kept; its CacheBytes are for all edges
	// together.
	Geometry geometry.Options
	// Trace is called after each sweep. nil means silence.
	Trace func(Iteration)
}

// Iteration is what a solver says of itself while it runs.
type Iteration struct {
	Part    int     // the independent part of the tree that was swept
	Parts   int     // how many there are
	N       int     // sweeps over this part so far
	Epsilon float64 // the ε of this sweep
	Error   float64 // L1 residual of the part, relative to the mass
	DType   tensor.DType
}

// Validate reports every fault at once.
func (s Settings) Validate() error {
	var errs []error
	if !(s.Tolerance >= 0) {
		errs = append(errs, fmt.Errorf("multimarginal: tolerance: %w: got %v, want above 0", solver.ErrInvalid, s.Tolerance))
	}
	if s.MaxIterations < 0 {
		errs = append(errs, fmt.Errorf("multimarginal: iteration limit: %w: got %d, want above 0", solver.ErrInvalid, s.MaxIterations))
	}
	if s.Acceleration < sinkhorn.Auto || s.Acceleration > sinkhorn.Anderson {
		errs = append(errs, fmt.Errorf("multimarginal: acceleration: %w: got %v, want auto, none or anderson", solver.ErrInvalid, s.Acceleration))
	}
	if s.Precision < solver.Ladder || s.Precision > solver.Double {
		errs = append(errs, fmt.Errorf("multimarginal: precision: %w: got %v", solver.ErrInvalid, s.Precision))
	}
	return errors.Join(errs...)
}

func (s Settings) withDefaults() Settings {
	if s.Tolerance == 0 {
		s.Tolerance = 1e-6
	}
	if s.MaxIterations == 0 {
		s.MaxIterations = 10000
	}
	if s.Acceleration == sinkhorn.Auto {
		s.Acceleration = sinkhorn.Anderson
	}
	return s
}
