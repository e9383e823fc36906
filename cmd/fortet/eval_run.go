package main

import (
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/models/light"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/solver/gaussian"
	"github.com/fortet/fortet/solver/metrics"
)

type evalRunReport struct {
	Run     string                 `json:"run"`
	Method  run.Method             `json:"method"`
	Step    int                    `json:"step"`
	D       int                    `json:"d"`
	N       int                    `json:"n"` // points compared, each side
	Metrics map[string]valueReport `json:"metrics"`
	// Certificate bounds half the cost of the bridge; see `fortet train`.
	Certificate run.Metrics `json:"certificate"`
	// Straightness is E ∫ |X_1 - X_0 - α_t|² dt, 0 for a flow along straight
	// lines (Liu, Gong and Liu 2022).
	Straightness number `json:"straightness"`
	// DriftError is the relative root of E ∫ |α - α*|² dt along the paths of the
	// bridge, where the closed form α* is known: between normal laws.
	DriftError *number `json:"drift_error,omitempty"`
}

// evalDraws is how many points of a generator are compared: the exact W2 of so
// many takes about a second.
const evalDraws = 2000

// run measures a trained bridge: its ends against its target, and what it knows
// of itself.
func (c *eval) run(s *session, path string) error {
	list, err := metrics.Parse(c.metrics)
	if err != nil {
		return usagef("--metrics: %v", err)
	}
	m, _, err := openModel(s.ctx, s, path)
	if err != nil {
		return err
	}
	defer m.Close()
	n := c.n
	if n == 0 {
		n = evalDraws
		if rows, finite := m.Target().Finite(); finite {
			n = min(n, rows)
		}
	}
	target, err := m.Ends(n, s.seed)
	if err != nil {
		return err
	}
	starts, err := m.Starts(n, s.seed)
	if err != nil {
		return err
	}
	ends, err := m.Draw(s.ctx, starts.X, 0, s.seed)
	if err != nil {
		return err
	}
	values, err := c.measure(s, list, m.Target(), metrics.Cloud{X: ends, D: starts.D}, metrics.Cloud{X: target.X, D: target.D})
	if err != nil {
		return err
	}
	certificate, err := m.Certify(s.ctx)
	if err != nil {
		return err
	}
	exact, err := closedForm(s.ctx, m)
	if err != nil {
		return err
	}
	along, err := follow(s.ctx, m, exact, starts.X, s.seed)
	if err != nil {
		return err
	}
	out := evalRunReport{
		Run: path, Method: m.Config.Method, Step: m.Step, D: starts.D, N: n,
		Metrics: values, Certificate: certificate, Straightness: number(along.bend),
	}
	if exact != nil {
		e := number(math.Sqrt(along.off / along.power))
		out.DriftError = &e
	}
	return s.print(out)
}

// closedForm is the bridge of the run's problem, or nil where it has none.
func closedForm(ctx context.Context, m *light.Model) (*gaussian.Bass, error) {
	m0, s0, ok0 := dataset.NormalLaw(m.Source())
	m1, s1, ok1 := dataset.NormalLaw(m.Target())
	if !ok0 || !ok1 || m.PCA != nil || slices.Contains(s1, 0) {
		return nil, nil
	}
	law := func(mean, std []float64) gaussian.Normal {
		cov := mat.NewSymDense(len(std), nil)
		for i, v := range std {
			cov.SetSym(i, i, v*v)
		}
		return gaussian.Normal{Mean: mean, Cov: cov}
	}
	return gaussian.SolveBass(ctx, gaussian.BassProblem{
		Source: law(m0, s0), Target: law(m1, s1), Epsilon: m.Config.Light.Epsilon, Beta: m.Beta(),
	})
}

// integrals are means over paths of integrals over time.
type integrals struct {
	bend       float64 // |X_1 - X_0 - α|²
	off, power float64 // |α - α*|² and |α*|²
}

// follow integrates by the midpoint rule along paths from x, in the space of the
// bridge.
func follow(ctx context.Context, m *light.Model, exact *gaussian.Bass, x []float64, seed uint64) (out integrals, err error) {
	const steps = 20
	times := []float64{0}
	for k := range steps {
		times = append(times, (float64(k)+0.5)/steps)
	}
	times = append(times, 1)
	z, err := m.Encode(x)
	if err != nil {
		return out, err
	}
	paths, err := m.Walk(ctx, z, times, seed)
	if err != nil {
		return out, err
	}
	d := m.Dim()
	n := len(z) / d
	weight := 1 / float64(n*steps)
	at, want := make([]float64, n*d), make([]float64, d)
	for k := 1; k <= steps; k++ {
		for i := range n {
			copy(at[i*d:(i+1)*d], paths[(i*len(times)+k)*d:])
		}
		c, err := m.Controls(ctx, times[k], at, false)
		if err != nil {
			return out, err
		}
		var drift gaussian.Affine
		if exact != nil {
			if drift, err = exact.Drift(times[k]); err != nil {
				return out, err
			}
		}
		for i := range n {
			first, last := i*len(times)*d, (i*len(times)+len(times)-1)*d
			if exact != nil {
				drift.At(want, at[i*d:(i+1)*d])
			}
			for j := range d {
				alpha := c.Drift[i*d+j]
				bend := paths[last+j] - paths[first+j] - alpha
				out.bend += weight * bend * bend
				out.off += weight * (alpha - want[j]) * (alpha - want[j])
				out.power += weight * want[j] * want[j]
			}
		}
	}
	return out, nil
}
