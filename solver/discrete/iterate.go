package discrete

import (
	"context"
	"errors"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/mixing"
)

// scaling is the Fortet–Sinkhorn iteration: cyclic fitting of the marginals. A
// sweep carries the messages
//
//	β_k(x) = E_R[Π_{l>k} ψ_l | X_{at[k]} = x],  α_k(x) = R[Π_{l<k} ψ_l; X_{at[k]} = x]
//
// back and forth along the path and sets ψ_k = law_k/(α_k β_k) on the way forth.
// Everything is a logarithm; -Inf stands where there is no mass.
type scaling struct {
	*sequence
	host  *host
	psi   [][]float64 // (marginals, states); psi[0] belongs to the last sweep
	beta  [][]float64
	alpha []float64 // α_0, which is fixed
	x, y  []float64

	unknowns int
	weights  []float64 // of the marginals at the unknowns
	sweeps   int
	residual float64
	dual     float64
	most     float64 // no feasible problem has a larger dual
	checked  bool
}

func newScaling(ctx context.Context, s *sequence, workers int) (*scaling, error) {
	c := &scaling{sequence: s, host: &host{workers: workers}, x: make([]float64, s.states), y: make([]float64, s.states)}
	for k := range s.at {
		c.psi, c.beta = append(c.psi, make([]float64, s.states)), append(c.beta, make([]float64, s.states))
		for i := range c.psi[k] {
			if s.law[k][i] == 0 {
				c.psi[k][i] = math.Inf(-1)
			}
		}
		if k > 0 {
			for _, i := range s.support[k] {
				c.weights = append(c.weights, s.law[k][i])
			}
		}
	}
	c.unknowns = len(c.weights)
	alpha, _, err := s.forth(ctx, c.host, append([]float64(nil), s.initial...), make([]float64, s.states), 0, s.at[0])
	if err != nil {
		return nil, err
	}
	c.alpha = alpha
	for _, i := range s.support[0] {
		c.most += s.law[0][i] * (s.logLaw[0][i] - alpha[i])
	}
	for t := s.at[0]; t < s.at[len(s.at)-1]; t++ {
		c.most -= s.steps[t].leastLog()
	}
	return c, nil
}

// get and set convert between ψ_1, ψ_2, … and the vector of unknowns.
func (c *scaling) get(g []float64) {
	for k := 1; k < len(c.at); k++ {
		for _, i := range c.support[k] {
			g[0], g = c.psi[k][i], g[1:]
		}
	}
}

func (c *scaling) set(g []float64) {
	for k := 1; k < len(c.at); k++ {
		for _, i := range c.support[k] {
			c.psi[k][i], g = g[0], g[1:]
		}
	}
}

// messages computes β and, from them, ψ_0 for the ψ that are set.
func (c *scaling) messages(ctx context.Context) error {
	last := len(c.at) - 1
	x, y := c.x, c.y
	clear(c.beta[last])
	var err error
	for k := last; k > 0; k-- {
		for i := range x {
			x[i] = c.beta[k][i] + c.psi[k][i]
		}
		if x, y, err = c.back(ctx, c.host, x, y, c.at[k], c.at[k-1]); err != nil {
			return err
		}
		copy(c.beta[k-1], x)
	}
	for _, i := range c.support[0] {
		c.psi[0][i] = c.logLaw[0][i] - c.alpha[i] - c.beta[0][i]
	}
	return nil
}

// sweep evaluates the map at g: image is the next g. The residual is the L1
// error of the marginals as they are met on the way forth: of two marginals,
// that of the law of g.
func (c *scaling) sweep(ctx context.Context, g, image []float64) error {
	c.set(g)
	if err := c.messages(ctx); err != nil {
		return err
	}
	c.residual, c.dual = 0, 0
	for k := range c.at {
		for _, i := range c.support[k] {
			c.dual += c.law[k][i] * c.psi[k][i]
		}
	}
	x, y := c.x, c.y
	for i := range x {
		x[i] = c.alpha[i] + c.psi[0][i]
	}
	var err error
	for k := 1; k < len(c.at); k++ {
		if x, y, err = c.forth(ctx, c.host, x, y, c.at[k-1], c.at[k]); err != nil {
			return err
		}
		next := 0
		for i, p := range c.psi[k] {
			if c.law[k][i] == 0 {
				x[i] = math.Inf(-1)
				continue
			}
			have := x[i] + c.beta[k][i]
			c.residual += math.Abs(c.law[k][i] - math.Exp(p+have))
			image[next] = c.logLaw[k][i] - have
			x[i] += image[next]
			next++
		}
		image = image[next:]
	}
	c.sweeps++
	return nil
}

// Iteration is what a solver says of itself while it runs.
type Iteration struct {
	N     int     // sweeps so far
	Error float64 // sum of the L1 errors of the marginals
	Dual  float64 // a lower bound of the optimal KL
}

const (
	// patience is how many sweeps may pass without a new lowest residual.
	patience = 60
	// doubtful is after how many sweeps it is asked whether a solution exists.
	// Well-posed problems take 5 to 30.
	doubtful = 40
)

// iterate runs the accelerated iteration until the marginals are met. An error
// that wraps solver.ErrInfeasible says that they cannot be.
func (c *scaling) iterate(ctx context.Context, set Settings) (solver.Status, error) {
	var (
		g        = make([]float64, c.unknowns)
		image    = make([]float64, c.unknowns)
		fallback = make([]float64, c.unknowns) // the plain step from the last accepted iterate
		mixer    = mixing.NewAnderson(c.weights)
		accepted = math.Inf(1)
		best     = math.Inf(1)
		bestDual = 0.0
		since    = 0
		mixed    = false
		plain    = 0
		penalty  = 1
	)
	c.get(g)
	for c.sweeps < set.MaxIterations {
		if err := c.sweep(ctx, g, image); err != nil {
			return canceled(err)
		}
		if set.Trace != nil {
			set.Trace(Iteration{c.sweeps, c.residual, c.dual})
		}
		if c.residual <= set.Tolerance {
			return solver.Converged, nil
		}
		if mixed && !(c.residual <= 2*accepted) {
			// The mixed step was a bad one (NaN included).
			copy(g, fallback)
			mixer.Forget()
			plain, penalty, mixed = penalty, min(2*penalty, 64), false
			continue
		}
		if math.IsNaN(c.residual) || math.IsInf(c.residual, 0) {
			return solver.Diverged, nil
		}
		if c.dual > c.most+1e-6*(1+math.Abs(c.most)) {
			if !c.checked {
				if _, err := c.examine(ctx, g); err != nil { // it names the states
					return canceled(err)
				}
			}
			return 0, infeasible("the marginals exclude each other: the dual %.4g is above %.4g, the largest value that any law which meets them can have", c.dual, c.most)
		}
		if c.residual < best {
			best, bestDual, since = c.residual, c.dual, 0
		} else {
			since++
		}
		stalled := since > patience || since > 8 && c.residual <= c.floor(g)
		if (stalled || c.sweeps >= doubtful) && !c.checked {
			changed, err := c.examine(ctx, g)
			if err != nil {
				return canceled(err)
			}
			if changed {
				mixer.Forget()
				accepted, best, since, mixed = math.Inf(1), math.Inf(1), 0, false
				continue
			}
		}
		if stalled {
			// Every plain sweep adds ½ error² to the dual at least, which
			// is bounded if there is a solution.
			if c.dual-bestDual > c.residual*c.residual/8*patience && c.residual > c.floor(g) {
				return solver.Diverged, nil
			}
			return solver.Stalled, nil
		}
		accepted = c.residual
		copy(fallback, image)
		mixed = plain == 0 && !set.NoAcceleration
		if mixed {
			mixer.Mix(g, g, image)
			continue
		}
		plain = max(plain-1, 0)
		copy(g, image)
	}
	if !c.checked {
		if _, err := c.examine(ctx, g); err != nil {
			return canceled(err)
		}
	}
	return solver.MaxIterations, nil
}

// canceled turns the error of a context into a status.
func canceled(err error) (solver.Status, error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return solver.Canceled, nil
	}
	return 0, err
}

// floor is the residual that rounding of the exponents leaves.
func (c *scaling) floor(g []float64) float64 {
	z := 0.0
	for _, v := range g {
		z = max(z, math.Abs(v))
	}
	return 0x1p-53 * (1 + 2*z + float64(len(c.steps)))
}
