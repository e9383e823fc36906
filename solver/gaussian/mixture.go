package gaussian

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver/draw"
	"gonum.org/v1/gonum/mat"
)

// Mixture is the law Σ_k Weights_k N(Mean_k, Cov_k).
type Mixture struct {
	Weights    []float64 // (k), of sum one within 1e-6; zeros are allowed
	Components []Normal  // (k), all of one dimension
}

// Single is the mixture of one component.
func Single(n Normal) Mixture { return Mixture{[]float64{1}, []Normal{n}} }

// Dim is d, 0 of a mixture without components.
func (m Mixture) Dim() int {
	if len(m.Components) == 0 {
		return 0
	}
	return m.Components[0].Dim()
}

// Validate reports every fault at once. Covariances may be singular, as those of
// points; those of targets may not, which is found where a problem is solved.
func (m Mixture) Validate() error { return m.check("mixture") }

func (m Mixture) check(name string) error {
	if len(m.Components) == 0 {
		return bad(name, "no components")
	}
	var errs []error
	if len(m.Weights) != len(m.Components) {
		errs = append(errs, bad(name, "%d weights, want %d, one for each component", len(m.Weights), len(m.Components)))
	}
	total := 0.0
	for k, w := range m.Weights {
		if !(w >= 0) {
			errs = append(errs, bad(name, "weight %d is %g, want a number of at least 0", k, w))
		}
		total += w
	}
	if !(math.Abs(total-1) <= 1e-6) {
		errs = append(errs, bad(name, "weights of sum %g, want 1 within 1e-6", total))
	}
	for k, n := range m.Components {
		what := fmt.Sprintf("%s component %d", name, k)
		if _, err := n.root(what); err != nil {
			errs = append(errs, err)
		} else if n.Dim() != m.Dim() {
			errs = append(errs, bad(what, "dimension %d, want %d as the first", n.Dim(), m.Dim()))
		}
	}
	return errors.Join(errs...)
}

// clone copies a valid mixture, with weights of sum one.
func (m Mixture) clone() Mixture {
	total := 0.0
	for _, w := range m.Weights {
		total += w
	}
	out := Mixture{}
	for k, w := range m.Weights {
		out.Weights = append(out.Weights, w/total)
		out.Components = append(out.Components, m.Components[k].clone())
	}
	return out
}

// Moments is the normal law of the same mean and covariance.
func (m Mixture) Moments() Normal {
	d := m.Dim()
	out := Dirac(make([]float64, d))
	for k, w := range m.Weights {
		for i, v := range m.Components[k].Mean {
			out.Mean[i] += w * v
		}
	}
	for k, w := range m.Weights {
		off := minus(m.Components[k].Mean, out.Mean)
		for i := range d {
			for j := i; j < d; j++ {
				out.Cov.SetSym(i, j, out.Cov.At(i, j)+w*(m.Components[k].Cov.At(i, j)+off[i]*off[j]))
			}
		}
	}
	return out
}

// MixtureDensity evaluates the density of a mixture whose covariances are
// positive definite. It may be used concurrently.
type MixtureDensity struct {
	logs  []float64 // log weight less the logarithm of (2π)^d/2 det^½
	means [][]float64
	roots []*mat.Dense // L, Cov = LLᵀ
}

// Density prepares the evaluation. It costs a Cholesky factor per component.
func (m Mixture) Density() (*MixtureDensity, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	f := &MixtureDensity{}
	m = m.clone()
	for k, n := range m.Components {
		root, err := n.factor(fmt.Sprintf("mixture component %d", k))
		if err != nil {
			return nil, err
		}
		log := math.Log(m.Weights[k]) - float64(n.Dim())/2*math.Log(2*math.Pi)
		for i := range n.Dim() {
			log -= math.Log(root.At(i, i))
		}
		f.logs, f.means, f.roots = append(f.logs, log), append(f.means, n.Mean), append(f.roots, root)
	}
	return f, nil
}

// terms writes the logarithms of the weighted components' densities at x.
func (f *MixtureDensity) terms(dst, x []float64) {
	white := make([]float64, len(x))
	for k, root := range f.roots {
		square := 0.0
		for i := range x { // L white = x - mean
			v := x[i] - f.means[k][i]
			for j, w := range white[:i] {
				v -= root.At(i, j) * w
			}
			white[i] = v / root.At(i, i)
			square += white[i] * white[i]
		}
		dst[k] = f.logs[k] - square/2
	}
}

// Log is the logarithm of the density at x: (d).
func (f *MixtureDensity) Log(x []float64) float64 {
	terms := make([]float64, len(f.logs))
	f.terms(terms, x)
	return normalise(terms)
}

// Posterior writes the probabilities of the components given that the draw is x:
// dst (k), x (d).
func (f *MixtureDensity) Posterior(dst, x []float64) {
	f.terms(dst, x)
	normalise(dst)
}

// normalise turns logarithms into weights of sum one and returns the logarithm
// of their sum.
func normalise(logs []float64) float64 {
	top := math.Inf(-1)
	for _, v := range logs {
		top = max(top, v)
	}
	if math.IsInf(top, -1) {
		return top
	}
	total := 0.0
	for k, v := range logs {
		logs[k] = math.Exp(v - top)
		total += logs[k]
	}
	for k := range logs {
		logs[k] /= total
	}
	return top + math.Log(total)
}

// Purposes of draws.
const (
	drawComponent = 1
	drawNormal    = 2 // the step counts points of a path
)

// Sample draws n points: (n, d), row-major. Draw s is a function of the mixture,
// the seed and s alone.
func (m Mixture) Sample(n int, seed uint64) ([]float64, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, bad("sample", "%d draws, want at least 1", n)
	}
	d := m.Dim()
	which, err := pick(m.Weights, n, seed)
	if err != nil {
		return nil, err
	}
	out := make([]float64, n*d)
	if err := philox.HostNormal(out, d, philox.Draw{Seed: seed, Purpose: drawNormal}); err != nil {
		return nil, err
	}
	roots := make([]*mat.Dense, len(m.Components))
	for k, c := range m.Components {
		if roots[k], err = c.root("component"); err != nil {
			return nil, err
		}
	}
	for s, k := range which {
		x := out[s*d : (s+1)*d]
		for i, v := range apply(roots[k], x) {
			x[i] = m.Components[k].Mean[i] + v
		}
	}
	return out, nil
}

// pick draws n indices by weights.
func pick(weights []float64, n int, seed uint64) ([]int, error) {
	cumulative := append([]float64(nil), weights...)
	draw.Cumulate(cumulative)
	uniforms := make([]float64, n)
	if err := philox.HostUniform(uniforms, 1, philox.Draw{Seed: seed, Purpose: drawComponent}); err != nil {
		return nil, err
	}
	out := make([]int, n)
	for s, u := range uniforms {
		out[s] = draw.Pick(cumulative, u)
	}
	return out, nil
}
