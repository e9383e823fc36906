package multimarginal

import (
	"context"
	"errors"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/sinkhorn"
)

// Dense is the problem of package multimarginal with any cost, given as a whole
// tensor: for few and small marginals, and as an oracle for the others. Everything
// is float64 on the host, and every sweep reads the tensor once for each mode.
type Dense struct {
	Shape []int // n_1 … n_K, at least two of them
	// Cost is (n_1, …, n_K), row-major.
	Cost []float64
	// Weights are those of each mode; nil, as a whole or of a mode, means uniform
	// with total mass 1.
	Weights [][]float64
	// Rho and Free are as in Node, one for each mode; nil means exact and not
	// free.
	Rho     []float64
	Free    []bool
	Epsilon float64 // absolute
}

// DenseResult is what Dense.Solve found.
type DenseResult struct {
	F           [][]float64 // potentials
	P           []float64   // the plan, of the cost's shape
	Marginals   [][]float64
	Status      solver.Status
	Iterations  int // sweeps over all modes
	Certificate Certificate
}

// Validate reports every fault at once.
func (d Dense) Validate() error {
	_, err := d.task()
	return err
}

// task checks the problem. Its edges are none: the cost is the tensor's.
func (d Dense) task() (*task, error) {
	var f faults
	if len(d.Shape) < 2 {
		f.add("shape", "got %d modes, want at least 2", len(d.Shape))
	}
	size := 1
	p := Problem{Nodes: make([]Node, len(d.Shape))}
	t := &task{nodes: make([]node, len(d.Shape)), eps: d.Epsilon}
	for k, n := range d.Shape {
		switch {
		case n < 1:
			f.add("shape", "mode %d has %d points, want at least 1", k, n)
		case size > math.MaxInt/8/n:
			f.add("shape", "%v is too large", d.Shape)
			n = 1
		}
		size *= max(n, 1)
		t.nodes[k].n = max(n, 0)
	}
	if len(f) == 0 && len(d.Cost) != size {
		f.add("cost", "%d numbers, want the %d of shape %v", len(d.Cost), size, d.Shape)
	}
	shaped := len(f) == 0 // without it weights mean nothing
	for i, c := range d.Cost {
		if math.IsNaN(c) || math.IsInf(c, 0) {
			f.add("cost", "entry %d is %v, want a finite number", i, c)
			break
		}
	}
	if !(d.Epsilon > 0) || math.IsInf(d.Epsilon, 0) {
		f.add("epsilon", "got %v, want a finite number above 0", d.Epsilon)
	}
	for _, list := range []struct {
		name string
		n    int
		at   func(k int)
	}{
		{"weights", len(d.Weights), func(k int) { p.Nodes[k].Weights = d.Weights[k] }},
		{"rho", len(d.Rho), func(k int) { p.Nodes[k].Rho = d.Rho[k] }},
		{"free", len(d.Free), func(k int) { p.Nodes[k].Free = d.Free[k] }},
	} {
		if list.n != 0 && list.n != len(d.Shape) {
			f.add(list.name, "got %d, want one for each of %d modes", list.n, len(d.Shape))
			continue
		}
		for k := range list.n {
			list.at(k)
		}
	}
	if shaped {
		t.weights(p, &f)
	}
	return t, errors.Join(f...)
}

// Solve solves d by block ascent over the modes. Cancellation of ctx stops it
// within one sweep. Of the settings it takes the tolerance, the iteration limit,
// the acceleration and the annealing.
func (d Dense) Solve(ctx context.Context, settings Settings) (*DenseResult, error) {
	t, err := d.task()
	if err != nil {
		return nil, err
	}
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	settings = settings.withDefaults()
	s := &tensorSweep{task: t, cost: d.Cost, eps: d.Epsilon}
	weights := make([]float64, 0, len(d.Shape))
	mean := 0.0
	for k := range t.nodes {
		weights = append(weights, t.nodes[k].a...)
	}
	s.each(func(c float64, at []int) {
		w := 1.0
		for k, i := range at {
			w *= t.nodes[k].a[i] / t.nodes[k].mass
		}
		mean += w * c
	})
	ladder := solver.Annealing(mean, d.Epsilon)
	if settings.NoAnnealing {
		ladder = ladder[len(ladder)-1:]
	}
	state := make([]float64, len(weights))
	res := &DenseResult{}
	for _, s.eps = range ladder {
		to := goal{
			tolerance: settings.Tolerance, sweeps: settings.MaxIterations - res.Iterations,
			accelerate: settings.Acceleration == sinkhorn.Anderson,
			floor:      func() float64 { return 0x1p-53 },
		}
		if s.eps != d.Epsilon {
			to.tolerance, to.sweeps = max(solver.CoarseResidual, settings.Tolerance), min(to.sweeps, solver.CoarseSweeps)
		}
		end, err := iterate(ctx, s, state, weights, to)
		if err != nil {
			return nil, err
		}
		res.Iterations += end.sweeps
		res.Status = end.status
		if end.status == solver.Canceled || end.status == solver.Diverged {
			break
		}
	}
	s.certify(res, state)
	return res, nil
}

// tensorSweep is block ascent over the modes of a tensor.
type tensorSweep struct {
	*task
	cost []float64
	eps  float64
}

// each calls do for every entry of the tensor and its indices.
func (s *tensorSweep) each(do func(c float64, at []int)) {
	at := make([]int, len(s.nodes))
	for _, c := range s.cost {
		do(c, at)
		for k := len(at) - 1; k >= 0; k-- {
			if at[k]++; at[k] < s.nodes[k].n {
				break
			}
			at[k] = 0
		}
	}
}

// split cuts a state into the potentials of the modes.
func (s *tensorSweep) split(state []float64) [][]float64 {
	f := make([][]float64, len(s.nodes))
	for k := range f {
		f[k], state = state[:s.nodes[k].n], state[s.nodes[k].n:]
	}
	return f
}

// softmin is -ε log Σ exp(Σ_{l≠k} (log a_l + f_l/ε) - c/ε) over all modes but k.
func (s *tensorSweep) softmin(f [][]float64, k int) []float64 {
	exponent := func(c float64, at []int) float64 {
		z := -c
		for l, i := range at {
			if l != k {
				z += s.eps*s.nodes[l].loga[i] + f[l][i]
			}
		}
		return z / s.eps
	}
	top, sum := make([]float64, s.nodes[k].n), make([]float64, s.nodes[k].n)
	for i := range top {
		top[i] = math.Inf(-1)
	}
	s.each(func(c float64, at []int) { top[at[k]] = max(top[at[k]], exponent(c, at)) })
	s.each(func(c float64, at []int) { sum[at[k]] += math.Exp(exponent(c, at) - top[at[k]]) })
	for i := range sum {
		sum[i] = -s.eps * (top[i] + math.Log(sum[i]))
	}
	return sum
}

// eval implements fixedPoint: the residual is that of the state itself.
func (s *tensorSweep) eval(state, image []float64) (float64, error) {
	residual := 0.0
	for k, f := range s.split(state) {
		m := s.softmin(s.split(state), k)
		for x, a := range s.nodes[k].a {
			if a > 0 && !s.nodes[k].free {
				residual += math.Abs(a*capped((f[x]-m[x])/s.eps) - s.nodes[k].wanted(x, f[x]))
			}
		}
	}
	copy(image, state)
	f := s.split(image)
	for k := range f {
		damp := s.nodes[k].damp(s.eps)
		for x, m := range s.softmin(f, k) {
			f[k][x] = damp * m
		}
	}
	return residual / s.mass, nil
}

// certify evaluates the plan of the state.
func (s *tensorSweep) certify(res *DenseResult, state []float64) {
	res.F = s.split(state)
	sums := make([][]float64, len(res.F))
	res.Marginals = make([][]float64, len(res.F))
	for k := range sums {
		sums[k] = s.softmin(res.F, k)
		res.Marginals[k] = make([]float64, len(sums[k]))
		for x, a := range s.nodes[k].a {
			if a > 0 {
				res.Marginals[k][x] = a * math.Exp((res.F[k][x]-sums[k][x])/s.eps)
			}
		}
	}
	c := &res.Certificate
	c.MarginalError = make([]float64, len(res.F))
	s.each(func(cost float64, at []int) {
		z := -cost
		for k, i := range at {
			z += s.eps*s.nodes[k].loga[i] + res.F[k][i]
		}
		p := math.Exp(z / s.eps)
		res.P = append(res.P, p)
		c.TransportCost += p * cost
	})
	s.values(c, Plan{F: res.F, Marginals: res.Marginals}, sums)
	if res.Status == solver.Converged && (math.IsNaN(c.Primal) || math.IsNaN(c.Dual)) {
		res.Status = solver.Diverged
	}
}
