package gaussian

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver/exact"
	"gonum.org/v1/gonum/mat"
)

// MixtureBridge is the best process between two Gaussian mixtures that is put
// together from the bridges between their components:
//
//	KL(bridge) ≤ min over λ ≥ 0, Σ_j λ_ij = a_i, Σ_i λ_ij = b_j of Σ_ij λ_ij KL_ij
//
// where KL_ij is the relative entropy of the Schrödinger bridge from component i
// of the source to component j of the target. The right side is a transport
// problem between the weights, solved exactly, by Bound. (Costs that are values
// of entropic transport, Plan.Value, give the same λ: they differ from
// Epsilon·KL_ij by what depends on j alone.)
//
// X_t is the mixture of the components' bridges with the weights λ. The drift
// is the mean of theirs, weighed by where X_t = x may have come from,
//
//	u(t, x) = Σ_ij λ_ij N(x | m_ij(t), Σ_ij(t)) u_ij(t, x) / Σ_ij λ_ij N(x | m_ij(t), Σ_ij(t)).
//
// The Markov process with this drift has the same laws at all times, so that it
// leads from the source to the target exactly, and by Jensen's inequality its
// relative entropy is at most Bound. It is the Schrödinger bridge itself where
// both have one component, and comes close where components are far apart in
// the unit √(Epsilon·T).
//
// Sources: Delon and Desolneux, "A Wasserstein-type distance in the space of
// Gaussian mixture models", 2020; Rapakoulias, Pedram, Liu, Zhu and Tsiotras, "Go
// with the flow: fast diffusion for Gaussian mixture models", 2024.
type MixtureBridge struct {
	Source, Target Mixture
	Reference      Reference
	// Coupling is λ: (source components, target components), row-major, of which
	// fewer are above zero than both have components together.
	Coupling []float64
	// Bound is an upper bound of the relative entropy, in nats, of the
	// Schrödinger bridge to the reference that begins with Source, and of this
	// process.
	Bound float64
	// Pairs are the bridges with λ above zero.
	Pairs []MixturePair
}

// MixturePair is a part of a MixtureBridge.
type MixturePair struct {
	I, J   int     // components of the source and of the target
	Weight float64 // λ_ij
	Bridge *Bridge
}

// SolveMixture finds the process from source at time 0 to target at the
// reference's horizon. Source components may be singular, target components
// not. It costs a Solve for each pair of components.
func SolveMixture(ctx context.Context, source, target Mixture, ref Reference) (*MixtureBridge, error) {
	if ref == nil {
		return nil, bad("reference", "none")
	}
	if err := errors.Join(source.check("source"), target.check("target"), ref.Validate()); err != nil {
		return nil, err
	}
	b := &MixtureBridge{Source: source.clone(), Target: target.clone(), Reference: ref}
	n, m := len(b.Source.Components), len(b.Target.Components)
	bridges, errs := make([]*Bridge, n*m), make([]error, n*m)
	err := parallel.Each(ctx, 0, n*m, func(p int) {
		bridges[p], errs[p] = Solve(b.Source.Components[p/m], b.Target.Components[p%m], ref)
	})
	if err != nil {
		return nil, err
	}
	costs := make([]float64, n*m)
	for p, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("source component %d to target component %d: %w", p/m, p%m, err)
		}
		costs[p] = bridges[p].KL
	}
	plan, err := exact.Solver{}.Solve(ctx, exact.Problem{Costs: exact.Matrix{C: costs, N: n, M: m}, A: b.Source.Weights, B: b.Target.Weights})
	if err != nil {
		return nil, err
	}
	if err := plan.Status.Err(); err != nil {
		return nil, err
	}
	b.Bound = plan.Cost
	b.Coupling = make([]float64, n*m)
	for _, e := range plan.Plan {
		b.Coupling[e.I*m+e.J] = e.Mass
		b.Pairs = append(b.Pairs, MixturePair{e.I, e.J, e.Mass, bridges[e.I*m+e.J]})
	}
	return b, nil
}

// Marginal is the law of X_t.
func (b *MixtureBridge) Marginal(t float64) (Mixture, error) {
	var out Mixture
	for _, p := range b.Pairs {
		n, err := p.Bridge.Marginal(t)
		if err != nil {
			return Mixture{}, err
		}
		out.Weights, out.Components = append(out.Weights, p.Weight), append(out.Components, n)
	}
	return out, nil
}

// MixtureDrift is a mean of affine drifts whose weights depend on the place. It
// may be used concurrently.
type MixtureDrift struct {
	weigh  func(dst, x []float64)
	drifts []Affine
}

// At writes the drift at x to dst, which must not overlap x; both are (d).
func (m *MixtureDrift) At(dst, x []float64) {
	weights, one := make([]float64, len(m.drifts)), make([]float64, len(x))
	m.weigh(weights, x)
	clear(dst)
	for k, a := range m.drifts {
		if weights[k] == 0 {
			continue
		}
		a.At(one, x)
		for i, v := range one {
			dst[i] += weights[k] * v
		}
	}
}

// Drift is u(t, ·). There is none at time 0 where a source component is
// singular.
func (b *MixtureBridge) Drift(t float64) (*MixtureDrift, error) {
	law, err := b.Marginal(t)
	if err != nil {
		return nil, err
	}
	density, err := law.Density()
	if err != nil {
		return nil, err
	}
	out := &MixtureDrift{weigh: density.Posterior}
	for _, p := range b.Pairs {
		a, err := p.Bridge.Drift(t)
		if err != nil {
			return nil, err
		}
		out.drifts = append(out.drifts, a)
	}
	return out, nil
}

// Paths draws n paths of the mixture of bridges at ascending times from 0 to the
// horizon: (n, times, d), row-major. They need no step of time. Their law at
// each time is Marginal's; as paths they keep to the pair of components that
// they began with, so that they are not Markov, as the process of Drift is. Path
// s is a function of the bridge, the times, the seed and s alone.
func (b *MixtureBridge) Paths(ctx context.Context, n int, times []float64, seed uint64) ([]float64, error) {
	weights := make([]float64, len(b.Pairs))
	for k, p := range b.Pairs {
		weights[k] = p.Weight
	}
	if n < 1 {
		return nil, bad("paths", "got %d, want at least 1", n)
	}
	which, err := pick(weights, n, seed)
	if err != nil {
		return nil, err
	}
	d := b.Source.Dim()
	ends := [2][]float64{make([]float64, n*d), make([]float64, n*d)}
	if err := b.drawEnds(ends, which, seed); err != nil {
		return nil, err
	}
	return pinned(ctx, b.Reference, ends[0], ends[1], d, times, seed)
}

// drawEnds draws X_0 and X_T of the pairs.
func (b *MixtureBridge) drawEnds(ends [2][]float64, which []int, seed uint64) error {
	d := b.Source.Dim()
	for end := range ends {
		if err := philox.HostNormal(ends[end], d, philox.Draw{Seed: seed, Step: uint32(end), Purpose: drawNormal}); err != nil {
			return err
		}
	}
	type roots struct{ source, noise *mat.Dense }
	parts := make([]roots, len(b.Pairs))
	for k, p := range b.Pairs {
		var err0, err1 error
		parts[k].source, err0 = p.Bridge.Source.root("source")
		parts[k].noise, err1 = Normal{make([]float64, d), p.Bridge.Noise}.root("noise of the plan")
		if err := errors.Join(err0, err1); err != nil {
			return err
		}
	}
	for s, k := range which {
		x, y := ends[0][s*d:(s+1)*d], ends[1][s*d:(s+1)*d]
		p := b.Pairs[k].Bridge
		for i, v := range apply(parts[k].source, x) {
			x[i] = p.Source.Mean[i] + v
		}
		noise := apply(parts[k].noise, y)
		p.At(y, x)
		for i, v := range noise {
			y[i] += v
		}
	}
	return nil
}

// pinned draws paths of a reference that is at x: (n, d) at time 0 and at y: (n, d)
// at its horizon T. With F, Q of the transitions from s to t, F', Q' from t to T
// and F°, Q° from s to T, and G = Q F'ᵀ Q°⁻¹,
//
//	X_t | X_s, X_T ~ N(F X_s + G (X_T - F° X_s), Q - G F' Q).
func pinned(ctx context.Context, ref Reference, x, y []float64, d int, times []float64, seed uint64) ([]float64, error) {
	horizon := ref.Horizon()
	if len(times) == 0 {
		return nil, bad("times", "none")
	}
	for k, t := range times {
		if err := checkTime(t, horizon); err != nil {
			return nil, err
		}
		if k > 0 && t < times[k-1] {
			return nil, bad("times", "time %d is %g after %g, want ascending ones", k, t, times[k-1])
		}
	}
	n := len(x) / d
	out := make([]float64, n*len(times)*d)
	at := append([]float64(nil), x...)
	noise := make([]float64, n*d)
	last := 0.0
	for q, t := range times {
		switch {
		case t == horizon:
			copy(at, y)
		case t > last:
			step, after, whole := ref.over(t-last, d), ref.over(horizon-t, d), ref.over(horizon-last, d)
			var gt mat.Dense
			if err := solved(gt.Solve(whole.q, product(after.f, step.q))); err != nil {
				return nil, err
			}
			g := gt.T()
			var keep mat.Dense // F - G F°
			keep.Sub(step.f, product(g, whole.f))
			cov := product(g, after.f, step.q)
			cov.Sub(step.q, cov)
			root, err := Normal{make([]float64, d), symmetric(cov)}.root("bridge")
			if err != nil {
				return nil, err
			}
			// Steps 0 and 1 drew the ends.
			if err := philox.HostNormal(noise, d, philox.Draw{Seed: seed, Step: uint32(q + 2), Purpose: drawNormal}); err != nil {
				return nil, err
			}
			gain := mat.DenseCopyOf(g)
			err = parallel.Each(ctx, 0, n, func(s int) {
				here := at[s*d : (s+1)*d]
				from := apply(&keep, here)
				to := apply(gain, y[s*d:(s+1)*d])
				for i, v := range apply(root, noise[s*d:(s+1)*d]) {
					here[i] = from[i] + to[i] + v
				}
			})
			if err != nil {
				return nil, err
			}
		}
		last = math.Max(last, t)
		for s := range n {
			copy(out[(s*len(times)+q)*d:], at[s*d:(s+1)*d])
		}
	}
	return out, ctx.Err()
}
