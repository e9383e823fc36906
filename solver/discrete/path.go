package discrete

import (
	"context"
	"math"
	"slices"
)

// path is the law that was found. It keeps the messages h_t = ψ_t β_t of some
// steps and computes the others; φ_t is h_t but for the first given marginal,
// whose ψ belongs to φ̂.
type path struct {
	*sequence
	workers int
	psi     [][]float64
	every   int
	kept    [][]float64 // h at 0, every, 2·every, …
	last    []float64   // h at the end
}

// path computes the messages of the potentials psi.
func (s *sequence) path(ctx context.Context, psi [][]float64, set Settings) (*path, error) {
	n := len(s.steps)
	p := &path{sequence: s, workers: set.Workers, psi: psi, every: 1}
	h := &host{workers: set.Workers}
	if int64(n) > set.Memory/8/int64(s.states) {
		// As many are kept as there are between two of them, of which one
		// stretch is held at a time.
		p.every = int(math.Ceil(math.Sqrt(float64(n))))
	}
	p.kept = make([][]float64, n/p.every+1)
	x, y := make([]float64, s.states), make([]float64, s.states)
	p.weigh(n, x)
	p.last = append([]float64(nil), x...)
	for t := n; ; t-- {
		if t%p.every == 0 {
			p.kept[t/p.every] = append([]float64(nil), x...)
		}
		if t == 0 {
			return p, nil
		}
		if err := p.steps[t-1].back(ctx, h, y, x); err != nil {
			return nil, err
		}
		x, y = y, x
		p.weigh(t-1, x)
	}
}

// given is the number of the marginal that is given at step t, or -1.
func (p *path) given(t int) int {
	k, found := slices.BinarySearch(p.at, t)
	if !found {
		return -1
	}
	return k
}

// weigh adds log ψ_t, where there is one.
func (p *path) weigh(t int, x []float64) {
	if k := p.given(t); k >= 0 {
		for i, v := range p.psi[k] {
			x[i] += v
		}
	}
}

// walk goes along a path once, from step 0 on. It belongs to one goroutine.
type walk struct {
	*path
	host    *host
	t       int
	forward []float64   // log φ̂_t
	spare   []float64   // scratch
	stretch [][]float64 // h from step base on
	base    int
}

func (p *path) walk() *walk {
	w := &walk{path: p, host: &host{workers: p.workers}, base: -1, spare: make([]float64, p.states)}
	w.forward = slices.Clone(p.initial)
	if p.at[0] == 0 {
		w.weigh(0, w.forward)
	}
	return w
}

// h is log h_t.
func (w *walk) h(ctx context.Context, t int) ([]float64, error) {
	switch {
	case t == len(w.steps):
		return w.last, nil
	case t%w.every == 0:
		return w.kept[t/w.every], nil
	}
	base := t - t%w.every
	if base != w.base {
		end := min(base+w.every, len(w.steps))
		x := w.last
		if end%w.every == 0 {
			x = w.kept[end/w.every]
		}
		w.base = -1
		w.stretch = make([][]float64, w.every)
		for s := end - 1; s > base; s-- {
			y := make([]float64, w.states)
			if err := w.steps[s].back(ctx, w.host, y, x); err != nil {
				return nil, err
			}
			w.weigh(s, y)
			w.stretch[s-base] = y
			x = y
		}
		w.base = base
	}
	return w.stretch[t-base], nil
}

// to goes on to step t.
func (w *walk) to(ctx context.Context, t int) error {
	for ; w.t < t; w.t++ {
		if w.t != w.at[0] {
			w.weigh(w.t, w.forward)
		}
		if err := w.steps[w.t].forth(ctx, w.host, w.spare, w.forward); err != nil {
			return err
		}
		w.forward, w.spare = w.spare, w.forward
		if w.t+1 == w.at[0] {
			w.weigh(w.t+1, w.forward)
		}
	}
	return nil
}

// phi writes log φ_t of the step that the walk is at: h, but where ψ is φ̂'s.
func (w *walk) phi(ctx context.Context, out []float64) error {
	if w.t != w.at[0] {
		h, err := w.h(ctx, w.t)
		copy(out, h)
		return err
	}
	if w.t == len(w.steps) {
		clear(out)
		return nil
	}
	h, err := w.h(ctx, w.t+1)
	if err != nil {
		return err
	}
	return w.steps[w.t].back(ctx, w.host, out, h)
}

// lawOf writes φ φ̂, of mass one.
func lawOf(out, phi, hat []float64) {
	total := 0.0
	for i := range out {
		out[i] = math.Exp(phi[i] + hat[i])
		total += out[i]
	}
	for i := range out {
		out[i] /= total
	}
}

// marginals is the law of every step: (steps+1, states).
func (p *path) marginals(ctx context.Context) ([]float64, error) {
	w := p.walk()
	phi := make([]float64, p.states)
	out := make([]float64, (len(p.steps)+1)*p.states)
	for t := range len(p.steps) + 1 {
		if err := w.to(ctx, t); err != nil {
			return nil, err
		}
		if err := w.phi(ctx, phi); err != nil {
			return nil, err
		}
		lawOf(out[t*p.states:(t+1)*p.states], phi, w.forward)
	}
	return out, nil
}

// checkPlace says whether t is a place on the path.
func (p *path) checkPlace(t, last int) error {
	if t < 0 || t > last {
		return bad(p.what, "got %d, want 0 to %d", t, last)
	}
	return nil
}
