// Package discrete solves Schrödinger bridges on finitely many states: of all
// laws of paths X_0, …, X_N that have given marginals at both ends, and wherever
// else they are given, the one nearest to a Markov reference R in relative
// entropy,
//
//	min KL(Q | R)  over  Q(X_t ∈ ·) = law_t  for the given t.
//
// The reference is a Chain with its transition matrices, or a Jump process in
// continuous time with its generators; both may change with time. Matrices are
// sparse or dense, and a power or an exponential of one is never formed.
//
// # The solution
//
// dQ/dR = Π ψ_t(X_t) over the given t. With the messages φ, φ̂ that carry the ψ
// along the path,
//
//	φ_t = P_t φ_{t+1},  φ̂_{t+1} = P_tᵀ φ̂_t,
//
// (times ψ where a marginal is given), the law of X_t is φ_t φ̂_t, and Q is a
// Markov chain with kernels, or a jump process with rates,
//
//	Q_t(i, j) = P_t(i, j) φ_{t+1}(j)/φ_t(i),   G_ij φ_t(j)/φ_t(i).
//
// Between two laws μ at 0 and ν at N this is Fortet's and Sinkhorn's iteration
// u = μ/(Kv), v = ν/(Kᵀu) for K = P_0⋯P_{N-1}, with φ_N = v and φ̂_0 = u, relative
// to the counting measure.
//
// All messages are logarithms, so that nothing underflows over any number of
// steps, and states without mass are exact. Everything is float64. Results do
// not depend on the number of workers.
//
// # Whether there is a solution
//
// States that cannot be reached are named by an error that wraps
// solver.ErrInfeasible before the iteration begins. That every state can be
// reached is not enough: a set of states may have more mass than all states
// that it reaches together. Where the iteration does not settle at once, that is
// decided exactly by a transport problem (as long as there are not too many
// pairs of states), or by a dual value that is above every possible KL; the
// error then names the set. Marginals that can be met, but only if some pair of
// ends that the reference allows has no mass, have a solution without finite ψ;
// it is found as the limit that it is.
//
// Sources: Fortet, "Résolution d'un système d'équations de M. Schrödinger",
// 1940; Léonard, "A survey of the Schrödinger problem and some of its connections
// with optimal transport", 2014; Georgiou and Pavon, "Positive contraction
// mappings for classical and quantum Schrödinger systems", 2015; for
// uniformisation Jensen, "Markoff chains as an aid in the study of Markoff
// processes", 1953.
package discrete

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/fortet/fortet/solver"
)

// Ends are the marginals of a bridge from source at place 0 to target at place
// last: N of a Chain, the number of pieces of a Jump process.
func Ends(source, target []float64, last int) map[int][]float64 {
	return map[int][]float64{0: source, last: target}
}

// Settings say how to solve. The zero value is the documented default.
type Settings struct {
	// Tolerance is the sum of the L1 errors of the marginals at which to stop.
	// 0 means 1e-9.
	Tolerance float64
	// MaxIterations bounds the sweeps, each once back and forth along the path.
	// 0 means 10000.
	MaxIterations int
	// NoAcceleration iterates plainly, without Anderson mixing.
	NoAcceleration bool
	// Workers is the number of goroutines. 0 means one for each core.
	Workers int
	// Memory is how many bytes the messages φ of the solution may take. Where
	// those of all steps take more, every n-th is kept and the others are
	// computed when they are needed. 0 means 256 MiB.
	Memory int64
	// Trace is called after each sweep. nil means silence.
	Trace func(Iteration)
}

// Validate reports every fault at once.
func (s Settings) Validate() error {
	var errs []error
	if !(s.Tolerance >= 0) || math.IsInf(s.Tolerance, 1) {
		errs = append(errs, bad("tolerance", "got %v, want a finite number above 0", s.Tolerance))
	}
	if s.MaxIterations < 0 {
		errs = append(errs, bad("iteration limit", "got %d, want above 0", s.MaxIterations))
	}
	if s.Workers < 0 {
		errs = append(errs, bad("workers", "got %d, want 0 (all cores) or more", s.Workers))
	}
	if s.Memory < 0 {
		errs = append(errs, bad("memory", "got %d bytes, want 0 (256 MiB) or more", s.Memory))
	}
	return errors.Join(errs...)
}

func (s Settings) withDefaults() Settings {
	if s.Tolerance == 0 {
		s.Tolerance = 1e-9
	}
	if s.MaxIterations == 0 {
		s.MaxIterations = 10000
	}
	if s.Memory == 0 {
		s.Memory = 1 << 28
	}
	return s
}

// Certificate is what holds of the path law of the potentials that were found,
// normalised to mass one.
type Certificate struct {
	// KL is its relative entropy to the reference in nats. The reference begins
	// with its initial law, or, where none is given, with the source.
	KL float64
	// Dual is Σ <law_t, log ψ_t> - log E_R Π ψ_t, which is a lower bound of the
	// optimum.
	Dual float64
	// Gap is KL - Dual. It goes to 0 with the marginal errors, and may be
	// below 0 where they are not.
	Gap float64
	// Source and Target are the L1 distances of the first and the last given
	// marginals, Errors those of all of them by place.
	Source, Target float64
	Errors         map[int]float64
	// Mass is that of the path law before it was normalised.
	Mass float64
	// Truncation bounds the relative error that series cut short leave in a
	// message that goes along the whole path: 0 of chains.
	Truncation float64
}

func (c Certificate) total() float64 {
	sum := 0.0
	for _, e := range c.Errors {
		sum += e
	}
	return sum
}

// Solution is how a run ended.
type Solution struct {
	Status      solver.Status
	Iterations  int // sweeps
	Certificate Certificate
	Duration    time.Duration
}

// solve runs the iteration and certifies what it found.
func (s *sequence) solve(ctx context.Context, set Settings) (*path, Solution, error) {
	start := time.Now()
	var out Solution
	if err := s.reachable(ctx); err != nil {
		return s.gaveUp(out, start, err)
	}
	c, err := newScaling(ctx, s, set.Workers)
	if err != nil {
		return s.gaveUp(out, start, err)
	}
	tolerance := set.Tolerance
	for {
		if out.Status, err = c.iterate(ctx, set); err != nil {
			return nil, out, err
		}
		out.Iterations = c.sweeps
		if out.Status == solver.Canceled {
			return s.gaveUp(out, start, context.Canceled)
		}
		if out.Status == solver.Diverged && math.IsNaN(c.residual) {
			break
		}
		if out.Certificate, err = c.certify(ctx); err != nil {
			return s.gaveUp(out, start, err)
		}
		// Of more than two marginals the sweep's residual is that of several
		// laws, of two it does not count the source's rounding.
		if out.Status != solver.Converged || out.Certificate.total() <= tolerance {
			break
		}
		if set.Tolerance < tolerance/1000 {
			out.Status = solver.Stalled
			break
		}
		set.Tolerance /= 4
	}
	p, err := s.path(ctx, c.psi, set)
	if err != nil {
		return s.gaveUp(out, start, err)
	}
	out.Duration = time.Since(start)
	return p, out, nil
}

// gaveUp is the end of a run whose context is done, or of one that failed.
func (s *sequence) gaveUp(out Solution, start time.Time, err error) (*path, Solution, error) {
	status, err := canceled(err)
	out.Status, out.Duration = status, time.Since(start)
	return nil, out, err
}

// certify evaluates the law of ψ_1, ψ_2, … with the ψ_0 that goes with them.
func (c *scaling) certify(ctx context.Context) (Certificate, error) {
	out := Certificate{Errors: map[int]float64{}}
	if err := c.messages(ctx); err != nil {
		return out, err
	}
	x, y := c.x, c.y
	copy(x, c.alpha)
	var err error
	entropy := 0.0
	for k, t := range c.at {
		if k > 0 {
			if x, y, err = c.forth(ctx, c.host, x, y, c.at[k-1], t); err != nil {
				return out, err
			}
		}
		law := make([]float64, c.states)
		total, sum := 0.0, 0.0
		for i, p := range c.psi[k] {
			law[i] = math.Exp(x[i] + p + c.beta[k][i])
			total += law[i]
			x[i] += p
		}
		off := 0.0
		for i, q := range law {
			off += math.Abs(q/total - c.law[k][i])
			if q > 0 {
				sum += q / total * c.psi[k][i]
			}
			if c.law[k][i] > 0 {
				out.Dual += c.law[k][i] * c.psi[k][i]
			}
		}
		entropy += sum
		out.Mass = total
		out.Errors[t] = off
	}
	out.Source, out.Target = out.Errors[c.at[0]], out.Errors[c.at[len(c.at)-1]]
	out.KL = entropy - math.Log(out.Mass)
	out.Dual -= math.Log(out.Mass)
	out.Gap = out.KL - out.Dual
	for _, s := range c.steps {
		out.Truncation += s.truncation()
	}
	return out, nil
}
