package fortet

import (
	"context"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver/draw"
	"github.com/fortet/fortet/tensor"
)

// Purposes of draws: what keeps those of one seed apart from each other.
const (
	drawStart = 1
	drawCell  = 2 // the step counts steps
	drawPath  = 3 // the step counts times
)

// Paths draws k paths of the bridge at ascending times in [0, 1]: the cells at each
// step from the bridge's own transitions, and between them, for a diffusion, bridges
// of the reference on the line itself. The result is (k, len(times), d), row-major:
// at steps, the ends among them, paths are at centres of cells. Path s is a function
// of the result, the times, the seed and s alone.
//
// Without a potential a diffusion's only step is from 0 to 1, and paths have the
// exact law. With one, killing acts at steps alone. With Given kernels, times are
// multiples of 1/Steps.
func (r *Result) Paths(ctx context.Context, dev gpu.Device, k int, times []float64, seed uint64) ([]float64, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if k < 1 {
		return nil, bad("paths", "got %d, want at least 1", k)
	}
	if len(times) == 0 {
		return nil, bad("paths", "no times")
	}
	p := r.Problem
	steps := float64(p.steps())
	ref, diffusion := p.Reference.(Diffusion)
	for q, t := range times {
		if !(t >= 0 && t <= 1) || q > 0 && t < times[q-1] {
			return nil, bad("paths", "time %d is %v, want ascending times from 0 to 1", q, t)
		}
		if !diffusion && math.Abs(t*steps-math.Round(t*steps)) >= 1e-9 {
			return nil, bad("paths", "time %d is %v, want a multiple of 1/%d: given kernels are those of whole steps", q, t, p.steps())
		}
	}
	cells, err := r.chains(ctx, dev, k, seed)
	if err != nil {
		return nil, err
	}
	d := len(p.Axes)
	out := make([]float64, k*len(times)*d)
	noise := make([]float64, k*d)
	for q, t := range times {
		if err := philox.HostNormal(noise, d, philox.Draw{Seed: seed, Step: uint32(q), Purpose: drawPath}); err != nil {
			return nil, err
		}
		at := t * steps
		if near := math.Round(at); math.Abs(at-near) < 1e-9 {
			at = near
		}
		step := min(int(at), p.steps()-1)
		begin, end := float64(step)/steps, float64(step+1)/steps
		err := parallel.Each(ctx, 0, k, func(s int) {
			index, x, y := make([]int, d), make([]float64, d), make([]float64, d)
			p.at(cells[step][s], index, x)
			p.at(cells[step+1][s], index, y)
			to, from := out[(s*len(times)+q)*d:(s*len(times)+q+1)*d], begin
			if q > 0 && times[q-1] > begin {
				copy(x, out[(s*len(times)+q-1)*d:])
				from = times[q-1]
			}
			switch at {
			case float64(step):
				copy(to, x)
			case float64(step + 1):
				copy(to, y)
			default:
				for a := range d {
					to[a] = ref.between(a, x[a], y[a], t-from, end-t, noise[s*d+a])
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// between is the diffusion some time after x and some time before y.
func (d Diffusion) between(axis int, x, y, after, before, noise float64) float64 {
	s1, f1, v1 := d.transition(axis, after)
	s2, f2, v2 := d.transition(axis, before)
	total := v2 + v1*f2*f2
	return (v2*(s1+f1*x)+v1*f2*(y-s2))/total + math.Sqrt(v1*v2/total)*noise
}

// chains draws the cells of k paths at every step: (steps+1, k).
func (r *Result) chains(ctx context.Context, dev gpu.Device, k int, seed uint64) ([][]int, error) {
	p := r.Problem
	e, err := openEngine(ctx, dev, tensor.Float64, p)
	if err != nil {
		return nil, err
	}
	defer e.close()
	// Given cell i at a step, the next is j with weight K_ij times this of j.
	weight := make([][]float64, p.steps()+1)
	end, err := e.upload(r.LogPhi1, e.kill(p.steps()))
	if err != nil {
		return nil, err
	}
	defer end.Free()
	last, err := e.run(ctx, end, true, func(step int, v tensor.Tensor) (err error) {
		weight[step], err = tensor.Float64s(v)
		return err
	})
	if err != nil {
		return nil, err
	}
	phi0, err := tensor.Float64s(last)
	last.Free()
	if err != nil {
		return nil, err
	}
	cells := make([][]int, p.steps()+1)
	for s := range cells {
		cells[s] = make([]int, k)
	}
	start := make([]float64, e.cells)
	for i := range start {
		if start[i] = math.Exp(r.LogPhiHat0[i] + phi0[i]); math.IsInf(r.LogPhiHat0[i], -1) {
			start[i] = 0
		}
	}
	draw.Cumulate(start)
	uniforms := make([]float64, k)
	if err := philox.HostUniform(uniforms, 1, philox.Draw{Seed: seed, Purpose: drawStart}); err != nil {
		return nil, err
	}
	for s, u := range uniforms {
		cells[0][s] = draw.Pick(start, u)
	}
	for step := range p.steps() {
		if err := e.move(ctx, cells[step+1], cells[step], weight[step+1], step, seed); err != nil {
			return nil, err
		}
	}
	return cells, nil
}

// move draws the next cell of each path, one axis after the other: with
// M_d(j) = weight and M_a(j_0 … j_{a-1}, i_a …) the log-sum-exp of M_{a+1} over j_a
// with the kernel of axis a, index j_a is drawn with log weights
// log K_a(i_a, j_a) + M_{a+1}.
func (e *engine) move(ctx context.Context, to, from []int, weight []float64, step int, seed uint64) error {
	d := len(e.p.Axes)
	m := make([][]float64, d+1)
	m[d] = weight
	v, err := tensor.From(e.dev, weight, e.cells)
	if err != nil {
		return err
	}
	for a := d - 1; a > 0; a-- {
		next, err := e.along(v, a, e.step.forward[a])
		v.Free()
		if err != nil {
			return err
		}
		v = next
		if m[a], err = tensor.Float64s(v); err != nil {
			v.Free()
			return err
		}
	}
	v.Free()
	strides := make([]int, d)
	for a, s := d-1, 1; a >= 0; a-- {
		strides[a] = s
		s *= len(e.p.Axes[a])
	}
	uniforms := make([]float64, len(to)*d)
	if err := philox.HostUniform(uniforms, d, philox.Draw{Seed: seed, Step: uint32(step), Purpose: drawCell}); err != nil {
		return err
	}
	return parallel.Each(ctx, 0, len(to), func(s int) {
		cell := from[s] // with the indices of the axes before a already those of the next cell
		for a := range d {
			n := len(e.p.Axes[a])
			i := cell / strides[a] % n
			cell -= i * strides[a]
			w := make([]float64, n)
			top := math.Inf(-1)
			for j := range w {
				w[j] = e.step.log[a][i*n+j] + m[a+1][cell+j*strides[a]]
				top = max(top, w[j])
			}
			for j := range w {
				w[j] = math.Exp(w[j] - top)
			}
			draw.Cumulate(w)
			cell += draw.Pick(w, uniforms[s*d+a]) * strides[a]
		}
		to[s] = cell
	})
}
