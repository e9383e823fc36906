package fortet

import (
	"context"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/axis"
	"github.com/fortet/fortet/tensor"
)

// engine is a problem's reference on a device, in one precision.
type engine struct {
	p     Problem
	dev   gpu.Device
	dtype tensor.DType
	cells int
	step  *leg             // of a whole step, once it is asked for
	kills []*tensor.Tensor // for each step's end, the first for time 0; nil: no potential
	free  []tensor.Tensor
}

// leg is the reference's kernel over a duration: for each axis, and transposed.
type leg struct {
	duration      float64
	log           [][]float64 // on the host
	forward, back []tensor.Tensor
}

func (l *leg) close() {
	for _, t := range append(l.forward, l.back...) {
		t.Free()
	}
}

func newEngine(dev gpu.Device, dtype tensor.DType, p Problem) *engine {
	return &engine{p: p, dev: dev, dtype: dtype, cells: p.cells()}
}

// openEngine makes ready for whole steps.
func openEngine(ctx context.Context, dev gpu.Device, dtype tensor.DType, p Problem) (*engine, error) {
	e := newEngine(dev, dtype, p)
	if _, err := e.stepLeg(); err != nil || p.Potential == nil {
		return e, err
	}
	var last []float64
	for k := range p.steps() + 1 {
		t := float64(k) / float64(p.steps())
		weight := e.step.duration
		if k == 0 || k == p.steps() {
			weight /= 2
		}
		v, err := p.killed(ctx, t, weight)
		if err != nil {
			e.close()
			return nil, err
		}
		if k > 0 && equal(v, last) { // a potential that stays the same is held once
			e.kills = append(e.kills, e.kills[k-1])
			continue
		}
		last = v
		u, err := tensor.FromFloat64s(dev, dtype, v, e.cells)
		if err != nil {
			e.close()
			return nil, err
		}
		e.free = append(e.free, u)
		e.kills = append(e.kills, &u)
	}
	return e, nil
}

func equal(a, b []float64) bool {
	for i, x := range a {
		if x != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func (e *engine) close() {
	if e.step != nil {
		e.step.close()
	}
	for _, t := range e.free {
		t.Free()
	}
}

func (e *engine) stepLeg() (*leg, error) {
	var err error
	if e.step == nil {
		e.step, err = e.leg(1 / float64(e.p.steps()))
	}
	return e.step, err
}

func (e *engine) leg(duration float64) (*leg, error) {
	l := &leg{duration: duration}
	for a, x := range e.p.Axes {
		k, err := e.p.Reference.logKernel(a, x, duration)
		if err != nil {
			l.close()
			return nil, err
		}
		f, b, err := e.matrices(k, len(x))
		if err != nil {
			l.close()
			return nil, err
		}
		l.log, l.forward, l.back = append(l.log, k), append(l.forward, f), append(l.back, b)
	}
	return l, nil
}

// matrices uploads a square matrix and its transpose.
func (e *engine) matrices(k []float64, n int) (m, t tensor.Tensor, err error) {
	turned := make([]float64, len(k))
	for i, v := range k {
		turned[i%n*n+i/n] = v
	}
	if m, err = tensor.FromFloat64s(e.dev, e.dtype, k, n, n); err != nil {
		return m, t, err
	}
	if t, err = tensor.FromFloat64s(e.dev, e.dtype, turned, n, n); err != nil {
		m.Free()
	}
	return m, t, err
}

// upload is v + add on the device; add may be nil.
func (e *engine) upload(v []float64, add *tensor.Tensor) (tensor.Tensor, error) {
	u, err := tensor.FromFloat64s(e.dev, e.dtype, v, e.cells)
	if err != nil || add == nil {
		return u, err
	}
	defer u.Free()
	return axis.Affine(u, *add, 1)
}

func (e *engine) kill(k int) *tensor.Tensor {
	if e.kills == nil {
		return nil
	}
	return e.kills[k]
}

// run applies the reference from time 0 to 1 to the logarithms v, or backwards.
// visit, if not nil, sees the arrays that the steps are applied to, by their time.
func (e *engine) run(ctx context.Context, v tensor.Tensor, backwards bool, visit func(k int, v tensor.Tensor) error) (tensor.Tensor, error) {
	n := e.p.steps()
	kernels := e.step.back
	if backwards {
		kernels = e.step.forward
	}
	own := tensor.Tensor{} // v, where it is our own
	for s := range n {
		from, to := s, s+1
		if backwards {
			from, to = n-s, n-s-1
		}
		err := ctx.Err()
		if err == nil && visit != nil {
			err = visit(from, v)
		}
		var next tensor.Tensor
		if err == nil {
			next, err = e.apply(v, kernels, e.kill(to))
		}
		own.Free()
		if err != nil {
			return tensor.Tensor{}, err
		}
		v, own = next, next
	}
	return v, nil
}

// apply is one leg.
func (e *engine) apply(v tensor.Tensor, kernels []tensor.Tensor, add *tensor.Tensor) (tensor.Tensor, error) {
	out, err := tensor.New(e.dev, e.dtype, e.cells)
	if err != nil {
		return out, err
	}
	p := axis.Product{In: v, LogK: kernels, Out: out}
	if add != nil {
		p.Add = *add
	}
	if err := p.LogSumExp(); err != nil {
		out.Free()
		return tensor.Tensor{}, err
	}
	return out, nil
}

// toStart is log φ_0 of log φ_1, and toEnd log φ̂_1 of log φ̂_0.
func (e *engine) toStart(ctx context.Context, phi1 []float64) (tensor.Tensor, error) {
	return e.across(ctx, phi1, true)
}

func (e *engine) toEnd(ctx context.Context, phiHat0 []float64) (tensor.Tensor, error) {
	return e.across(ctx, phiHat0, false)
}

func (e *engine) across(ctx context.Context, v []float64, backwards bool) (tensor.Tensor, error) {
	from := 0
	if backwards {
		from = e.p.steps()
	}
	u, err := e.upload(v, e.kill(from))
	if err != nil {
		return tensor.Tensor{}, err
	}
	defer u.Free()
	return e.run(ctx, u, backwards, nil)
}

// bound is an upper bound of the relative entropy of every plan to the source
// followed by the reference, or +Inf where it has no holes and needs none: a plan
// takes weights that are not zero only, and -log of the product of the least of
// those is never exceeded.
func (e *engine) bound() (float64, error) {
	total, holes := 0.0, false
	worst := func(v []float64) float64 {
		least := math.Inf(1)
		for _, x := range v {
			if math.IsInf(x, -1) {
				holes = true
			} else {
				least = min(least, x)
			}
		}
		return -least
	}
	for _, k := range e.step.log {
		total += float64(e.p.steps()) * worst(k)
	}
	if e.kills != nil {
		for k := range e.p.steps() + 1 {
			v, err := tensor.Float64s(*e.kills[k])
			if err != nil {
				return 0, err
			}
			total += worst(v)
		}
	}
	if !holes {
		return math.Inf(1), nil
	}
	return total, nil
}
