package fortet

import (
	"context"
	"math"
	"slices"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/axis"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

// Slice is a bridge at one time. Arrays over cells are in the order of the problem's
// laws; those of vectors are (cells, d).
type Slice struct {
	Time      float64
	LogPhi    []float64 // log φ_t, a function
	LogPhiHat []float64 // log φ̂_t, masses of cells
	// LogMass is log φ_t φ̂_t, the law of X_t, whose total is 1 to rounding. For that
	// it was divided, and φ̂_t with it, by Mass, the total before. Mass is 1 at steps;
	// between them but for what the kernels to t and from there on, one after the other,
	// differ from that of the step: by sums over cells, cells wider than kernels, and
	// killing. What Mass is off shows how far the law is, but does not bound it.
	LogMass []float64
	Mass    float64
	// Gradient is ∇log φ_t. It is that of the kernel, the mean of (y - x)/((1-t) ε)
	// over where X goes, for a diffusion without a potential, at times at which the
	// grid resolves the way that is left; central differences elsewhere. It is NaN
	// where no neighbour has φ above 0.
	Gradient []float64
	// Drift is the bridge's, b + ε∇log φ_t with b that of the reference, and Velocity
	// that of the flow that carries the laws, b + ε∇log(φ_t/φ̂_t)/2, φ̂_t being taken as a
	// density: the law times Velocity is the current. Both are nil for Given kernels,
	// which say nothing of what is between cells.
	Drift, Velocity []float64
}

// carried is how far Mass may be off: what is worse says nothing of the bridge.
const carried = 0.1

// At evaluates the bridge at time t in [0, 1]. With Given kernels, t is a multiple
// of 1/Steps.
//
// Near an end, or a step with a potential, where the reference's kernel from there is
// narrower than a cell, one between cells of about its mean and variance takes its
// place, so that the laws become those of the ends. Where Mass is off by more than
// 0.1, between steps of a grid or potential too coarse for it, the error is
// ErrInvalid.
func (r *Result) At(ctx context.Context, dev gpu.Device, t float64) (*Slice, error) {
	if !(t >= 0 && t <= 1) {
		return nil, bad("time", "got %v, want 0 to 1", t)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	p := r.Problem
	down, up := nodes(1, t, p.steps()), nodes(0, t, p.steps())
	if _, given := p.Reference.(Given); given && len(down)+len(up) != p.steps()+2 {
		return nil, bad("time", "got %v, want a multiple of 1/%d: given kernels are those of whole steps", t, p.steps())
	}
	e := newEngine(dev, tensor.Float64, p)
	defer e.close()
	s := &Slice{Time: t, LogMass: make([]float64, e.cells)}
	slopes := [2][]float64{}
	for side, v := range []struct {
		from  []float64
		nodes []float64
		to    *[]float64
	}{{r.LogPhi1, down, &s.LogPhi}, {r.LogPhiHat0, up, &s.LogPhiHat}} {
		way, err := e.travel(ctx, v.from, v.nodes, side == 0)
		if err != nil {
			return nil, err
		}
		*v.to = way.value
		slopes[side], err = way.slope()
		way.close()
		if err != nil {
			return nil, err
		}
	}
	for i := range s.LogMass {
		s.LogMass[i] = s.LogPhi[i] + s.LogPhiHat[i]
		if math.IsInf(s.LogPhi[i], -1) || math.IsInf(s.LogPhiHat[i], -1) {
			s.LogMass[i] = math.Inf(-1)
		}
		s.Mass += math.Exp(s.LogMass[i])
	}
	if !(math.Abs(s.Mass-1) <= carried) {
		want := "finer or more even cells"
		switch {
		case r.Status != solver.Converged:
			want = "a run that has converged"
		case p.Potential != nil:
			want = "more steps, finer or more even cells, or a time at a step"
		}
		return nil, bad("time", "at %v the mass is %.4g, want 1 within %v: this needs %s", t, s.Mass, carried, want)
	}
	for i := range s.LogMass {
		s.LogMass[i] -= math.Log(s.Mass)
		s.LogPhiHat[i] -= math.Log(s.Mass)
	}
	s.Gradient = slopes[0]
	if ref, ok := p.Reference.(Diffusion); ok {
		d := len(p.Axes)
		s.Drift, s.Velocity = make([]float64, e.cells*d), make([]float64, e.cells*d)
		at, x := make([]int, d), make([]float64, d)
		for i := range e.cells {
			p.at(i, at, x)
			for a := range d {
				own := ref.drift(a, x[a])
				s.Drift[i*d+a] = own + ref.Epsilon*slopes[0][i*d+a]
				s.Velocity[i*d+a] = own + ref.Epsilon*(slopes[0][i*d+a]-slopes[1][i*d+a])/2
			}
		}
	}
	return s, nil
}

// check says whether r is a result that something can follow from.
func (r *Result) check() error {
	if err := r.Problem.Validate(); err != nil {
		return err
	}
	if n := r.Problem.cells(); len(r.LogPhi1) != n || len(r.LogPhiHat0) != n {
		return bad("result", "%d and %d potentials for %d cells: the run did not get that far", len(r.LogPhi1), len(r.LogPhiHat0), n)
	}
	return nil
}

// nodes are the times from an end to t: the steps between and t itself.
func nodes(end, t float64, steps int) []float64 {
	out := []float64{end}
	n := float64(steps)
	if at := math.Round(t * n); math.Abs(t*n-at) < 1e-9 {
		t = at / n
	}
	for k := range steps + 1 {
		at := float64(k) / n
		if end == 1 {
			at = float64(steps-k) / n
		}
		if at > 0 && at < 1 && math.Abs(at-end) < math.Abs(t-end) {
			out = append(out, at)
		}
	}
	if t != end {
		out = append(out, t)
	}
	return out
}

// way is what a function or law has become, and from what by which leg.
type way struct {
	e         *engine
	backwards bool
	value     []float64
	last      *leg // nil: none
	from      tensor.Tensor
}

func (w *way) close() {
	w.from.Free()
	if w.last != nil && w.last != w.e.step {
		w.last.close()
	}
}

// travel takes v along the nodes, backwards in time or forwards.
func (e *engine) travel(ctx context.Context, v, nodes []float64, backwards bool) (*way, error) {
	w := &way{e: e, backwards: backwards, value: slices.Clone(v)}
	for k := 1; k < len(nodes); k++ {
		duration := math.Abs(nodes[k] - nodes[k-1])
		before := 0.0
		if k > 1 {
			before = math.Abs(nodes[k-1] - nodes[k-2])
		}
		if err := w.step(ctx, nodes[k-1], nodes[k], before, duration); err != nil {
			w.close()
			return nil, err
		}
	}
	if len(nodes) > 1 && e.p.Potential != nil {
		half, err := e.p.killed(ctx, nodes[len(nodes)-1], math.Abs(nodes[len(nodes)-1]-nodes[len(nodes)-2])/2)
		if err != nil {
			w.close()
			return nil, err
		}
		for i, h := range half {
			w.value[i] += h
		}
	}
	return w, nil
}

// step goes from one node to the next; before is how long the step to the first was.
func (w *way) step(ctx context.Context, from, to, before, duration float64) error {
	e := w.e
	get := e.stepLeg
	if math.Abs(duration*float64(e.p.steps())-1) > 1e-9 {
		get = func() (*leg, error) { return e.leg(duration) }
	}
	l, err := get()
	if err != nil {
		return err
	}
	w.close()
	w.from, w.last = tensor.Tensor{}, l
	if err := ctx.Err(); err != nil {
		return err
	}
	killed, err := e.p.killed(ctx, from, (before+duration)/2)
	if err != nil {
		return err
	}
	v := slices.Clone(w.value)
	for i, x := range killed {
		v[i] += x
	}
	if w.from, err = tensor.From(e.dev, v, e.cells); err != nil {
		return err
	}
	kernels := l.back
	if w.backwards {
		kernels = l.forward
	}
	out, err := e.apply(w.from, kernels, nil)
	if err != nil {
		return err
	}
	defer out.Free()
	w.value, err = tensor.Float64s(out)
	return err
}

// slope is the gradient of the logarithm of the function, or of the law as a
// density: (cells, d).
func (w *way) slope() ([]float64, error) {
	p := w.e.p
	d := len(p.Axes)
	out := make([]float64, w.e.cells*d)
	ref, diffusion := p.Reference.(Diffusion)
	for a, x := range p.Axes {
		if diffusion && p.Potential == nil && w.last != nil && ref.resolved(a, x, w.last.duration) {
			if err := w.kernelSlope(ref, a, out); err != nil {
				return nil, err
			}
		} else {
			w.differences(a, out)
		}
	}
	return out, nil
}

// kernelSlope differentiates the kernel of the last leg, a normal law of Y given X
// with mean s + F x and variance v: with z = y - s - F x,
//
//	∂/∂x log φ = F/v E[z | x],  ∂/∂y log φ̂ = -1/v E[z | y]
//
// where the means are those of the z above 0 less those below, of which no part is
// lost.
func (w *way) kernelSlope(ref Diffusion, a int, out []float64) error {
	e := w.e
	x, d := e.p.Axes[a], len(e.p.Axes)
	shift, factor, variance := ref.transition(a, w.last.duration)
	scale := -1 / variance
	kernels := slices.Clone(w.last.back)
	if w.backwards {
		scale = factor / variance
		kernels = slices.Clone(w.last.forward)
	}
	norm := w.value
	for _, sign := range []float64{1, -1} {
		k := slices.Clone(w.last.log[a])
		for i, from := range x {
			for j, to := range x {
				k[i*len(x)+j] += math.Log(max(sign*(to-shift-factor*from), 0))
			}
		}
		m, t, err := e.matrices(k, len(x))
		if err != nil {
			return err
		}
		defer m.Free()
		defer t.Free()
		kernels[a] = t
		if w.backwards {
			kernels[a] = m
		}
		part, err := e.apply(w.from, kernels, nil)
		if err != nil {
			return err
		}
		lse, err := tensor.Float64s(part)
		part.Free()
		if err != nil {
			return err
		}
		for i, l := range lse {
			out[i*d+a] += sign * scale * math.Exp(l-norm[i])
		}
	}
	return nil
}

// differences are central where both neighbours are finite and one-sided where one
// is.
func (w *way) differences(a int, out []float64) {
	x, d := w.e.p.Axes[a], len(w.e.p.Axes)
	stride := 1
	for _, y := range w.e.p.Axes[a+1:] {
		stride *= len(y)
	}
	wide := make([]float64, len(x))
	if !w.backwards { // a density
		for i, h := range widths(x) {
			wide[i] = math.Log(h)
		}
	}
	n := len(x)
	for i := range w.value {
		k := i / stride % n
		value := func(q int) float64 {
			if q < 0 || q >= n {
				return math.Inf(-1)
			}
			return w.value[i+(q-k)*stride] - wide[q]
		}
		below, at, above := value(k-1), value(k), value(k+1)
		there := func(v float64) bool { return !math.IsInf(v, -1) }
		g := math.NaN()
		switch {
		case there(below) && there(at) && there(above):
			left, right := x[k]-x[k-1], x[k+1]-x[k]
			g = ((above-at)*left/right + (at-below)*right/left) / (left + right)
		case there(at) && there(above):
			g = (above - at) / (x[k+1] - x[k])
		case there(at) && there(below):
			g = (at - below) / (x[k] - x[k-1])
		}
		out[i*d+a] = g
	}
}

// along is the log-sum-exp along one axis alone, into a new array.
func (e *engine) along(v tensor.Tensor, a int, logk tensor.Tensor) (tensor.Tensor, error) {
	outer, inner := 1, 1
	for b, x := range e.p.Axes {
		if b < a {
			outer *= len(x)
		} else if b > a {
			inner *= len(x)
		}
	}
	n := len(e.p.Axes[a])
	in, err := v.Reshape(outer, n, inner)
	if err != nil {
		return tensor.Tensor{}, err
	}
	out, err := tensor.New(e.dev, e.dtype, outer, n, inner)
	if err != nil {
		return tensor.Tensor{}, err
	}
	if err := axis.LogSumExp(axis.Args{In: in, LogK: logk, Out: out}); err != nil {
		out.Free()
		return tensor.Tensor{}, err
	}
	return out, nil
}
