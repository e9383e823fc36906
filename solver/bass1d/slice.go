package bass1d

import "math"

// Slice is the solution at one time, on the grid of Y.
type Slice struct {
	Time  float64
	Y     []float64 // (N), equidistant
	W     []float64 // w_t, up to one constant for all times
	Score []float64 // s = w_t', the drift of X_t and of Y_t
	X     []float64 // the map X_t(Y) = y + s/β, increasing
	Sigma []float64 // volatility of X_t, √ε (1 + w_t''/β)
	// Density is that of Y_t; nil at time 0 of a source with atoms, where Y_0
	// has atoms at Atoms.
	Density []float64
	Atoms   []float64

	curvature []float64
	beta      float64
}

// At interpolates to any y on the grid; beyond it, the ends continue linearly.
func (s *Slice) At(y float64) (x, score, sigma float64) {
	n := len(s.Y)
	h := (s.Y[n-1] - s.Y[0]) / float64(n-1)
	k := int(min(float64(n-2), max(0, (y-s.Y[0])/h)))
	u := (y - s.Y[k]) / h
	edge := k
	if u > 1 {
		edge = k + 1
	}
	if d := y - s.Y[edge]; u < 0 || u > 1 {
		score = s.Score[edge] + d*s.curvature[edge]
		sigma = s.Sigma[edge]
	} else {
		score = hermite(u, h, s.Score[k], s.Score[k+1], s.curvature[k], s.curvature[k+1])
		sigma = s.Sigma[k]*(1-u) + s.Sigma[k+1]*u
	}
	return y + score/s.beta, score, sigma
}

// At gives the solution at time t, 0 ≤ t ≤ T. The grid must resolve what
// diffuses until then and from then on: √(ε t) and √(ε (T-t)) are 0 or at least
// the grid's step.
func (r *Result) At(t float64) (*Slice, error) {
	s, st := r.system, r.state
	if !(t >= 0 && t <= s.T) {
		return nil, bad("time", "got %g, want one from 0 to %g", t, s.T)
	}
	for _, left := range []float64{t, s.T - t} {
		if left > 0 && math.Sqrt(s.Epsilon*left) < s.dx {
			return nil, bad("time", "%g is nearer to an end than a grid of step %g resolves", t, s.dx)
		}
	}
	out := &Slice{Time: t, beta: s.Beta, Y: append([]float64(nil), s.y...), W: make([]float64, s.n), Score: make([]float64, s.n), curvature: make([]float64, s.n),
		X: make([]float64, s.n), Sigma: make([]float64, s.n)}
	switch t {
	case s.T:
		copy(out.W, st.w)
		copy(out.Score, st.g)
		out.curvature = derivative(st.g, s.dx)
	case 0:
		copy(out.W, st.w0)
		copy(out.Score, st.s0)
		copy(out.curvature, st.ds0)
	default:
		left := s.T - t
		a := make([]float64, s.n)
		for j, w := range st.w {
			a[j] = w / s.Epsilon
		}
		newHeat(s.n, s.dx, s.Epsilon*left).apply(out.W, out.Score, out.curvature, a)
		for i := range s.n {
			out.W[i] = s.Epsilon * (out.W[i] + math.Log(s.dx/math.Sqrt(2*math.Pi*s.Epsilon*left)))
			out.Score[i] /= left
			out.curvature[i] = (out.curvature[i]/(s.Epsilon*left) - 1) / left
		}
	}
	for i, y := range s.y {
		out.X[i] = y + out.Score[i]/s.Beta
		out.Sigma[i] = math.Sqrt(s.Epsilon) * (1 + out.curvature[i]/s.Beta)
	}
	s.density(out, st)
	return out, nil
}

// density fills in the law of Y_t, h_t times the heat flow of ν₀/h₀.
func (s *system) density(out *Slice, st *state) {
	logs := make([]float64, s.n)
	switch {
	case out.Time == s.T:
		copy(logs, st.nuT)
	case out.Time == 0 && st.from != nil:
		for _, p := range st.from {
			out.Atoms = append(out.Atoms, p.y)
		}
		return
	case out.Time == 0:
		copy(logs, st.nu0)
	case st.from != nil:
		for j, z := range s.y {
			logs[j] = out.W[j]/s.Epsilon + st.flow(z, s.Epsilon*out.Time)
		}
		normalise(logs, s.dx)
	default:
		ratio := make([]float64, s.n)
		for i := range s.n {
			ratio[i] = st.nu0[i] - st.logh[i]
		}
		newHeat(s.n, s.dx, s.Epsilon*out.Time).apply(logs, nil, nil, ratio)
		for j := range s.n {
			logs[j] += out.W[j] / s.Epsilon
		}
		normalise(logs, s.dx)
	}
	out.Density = make([]float64, s.n)
	for j, l := range logs {
		out.Density[j] = math.Exp(l)
	}
}
