package geometry

import (
	"fmt"
	"math"
	"slices"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/axis"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

// Open implements Geometry. Options do not matter: the costs along the axes are
// all that there is to keep.
func (g Grid) Open(dev gpu.Device, dtype tensor.DType, _ Options) (Operator, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	op := &gridOperator{dev: dev, dtype: dtype, grid: g}
	op.source, op.target = g.shapes()
	op.n, op.m = g.Size()
	op.back = &gridOperator{dev: dev, dtype: dtype, grid: g.Transpose().(Grid), back: op}
	op.back.source, op.back.target, op.back.n, op.back.m = op.target, op.source, op.m, op.n
	return op, nil
}

// gridOperator is the operator of a grid on a device.
type gridOperator struct {
	dev            gpu.Device
	dtype          tensor.DType
	grid           Grid
	source, target []int
	n, m           int
	epsilon        float64         // of kernels
	kernels        []tensor.Tensor // (n_k, m_k): -cost/ε
	back           *gridOperator   // of the transposed grid
}

// logKernels are the kernels of the axes at ε, which are kept for the next call.
func (op *gridOperator) logKernels(epsilon float64) ([]tensor.Tensor, error) {
	if !(epsilon > 0) || math.IsInf(epsilon, 1) {
		return nil, fmt.Errorf("geometry: grid: epsilon: %w: got %v, want a finite number above 0", solver.ErrInvalid, epsilon)
	}
	if op.epsilon == epsilon {
		return op.kernels, nil
	}
	op.forget()
	for k, a := range op.grid.Axes {
		t, err := op.logKernel(k, a.costs(op.grid.Ground), epsilon, nil)
		if err != nil {
			op.forget()
			return nil, err
		}
		op.kernels = append(op.kernels, t)
	}
	op.epsilon = epsilon
	return op.kernels, nil
}

// logKernel is the kernel times factors of at least 0: log f - cost/ε.
func (op *gridOperator) logKernel(k int, cost []float64, epsilon float64, f []float64) (tensor.Tensor, error) {
	v := make([]float64, len(cost))
	for i, c := range cost {
		v[i] = -c / epsilon
		if f != nil {
			v[i] += math.Log(f[i])
		}
	}
	return upload(op.dev, op.dtype, v, op.source[k], op.target[k])
}

func (op *gridOperator) forget() {
	for _, t := range op.kernels {
		t.Free()
	}
	op.kernels, op.epsilon = nil, 0
}

func (op *gridOperator) Softmin(out, g, logb tensor.Tensor, epsilon float64) error {
	if err := tensor.Check("grid: softmin", op.dev, tensor.Want("out", out, op.dtype, op.n),
		tensor.Want("g", g, op.dtype, op.m), tensor.Want("logb", logb, op.dtype, op.m)); err != nil {
		return err
	}
	kernels, err := op.logKernels(epsilon)
	if err != nil {
		return err
	}
	v, err := axis.Affine(g, logb, 1/epsilon)
	if err != nil {
		return err
	}
	defer v.Free()
	return axis.Product{In: v, LogK: kernels, Scale: -epsilon, Out: out}.LogSumExp()
}

func (op *gridOperator) Sweep(out, col, g, loga, logb tensor.Tensor, damp, epsilon float64) error {
	if err := tensor.Check("grid: sweep", op.dev, tensor.Want("out", out, op.dtype, op.n), tensor.Want("col", col, tensor.Float64, op.m),
		tensor.Want("g", g, op.dtype, op.m), tensor.Want("loga", loga, op.dtype, op.n), tensor.Want("logb", logb, op.dtype, op.m)); err != nil {
		return err
	}
	kernels, err := op.logKernels(epsilon)
	if err != nil {
		return err
	}
	transposed, err := op.back.logKernels(epsilon)
	if err != nil {
		return err
	}
	v, err := axis.Affine(g, logb, 1/epsilon)
	if err != nil {
		return err
	}
	defer v.Free()
	if err := (axis.Product{In: v, LogK: kernels, Scale: -epsilon, Out: out}).LogSumExp(); err != nil {
		return err
	}
	w, err := axis.Affine(out, loga, damp/epsilon)
	if err != nil {
		return err
	}
	defer w.Free()
	return axis.Product{In: w, LogK: transposed, Add: v, Mass: col}.LogSumExp()
}

// Apply implements Operator. It is for what happens rarely: the sums are combined
// on the host, in float64. The mean cost is the sum over axes of a pass with the
// kernel of that axis times the cost along it, and R and Grad are the difference of
// the sums over positive and over negative terms, each exact in the logarithm: the
// error of Σ p v is that of rounding Σ p |v|. Gradients are with respect to the
// coordinates of the axes as they are given.
func (op *gridOperator) Apply(a Apply, epsilon float64) error {
	d := len(op.grid.Axes)
	k := 0
	if !a.V.IsZero() && len(a.V.Shape()) == 2 {
		k = a.V.Dim(1)
	}
	if err := tensor.Check("grid: apply", op.dev, tensor.Want("f", a.F, op.dtype, op.n), tensor.Want("g", a.G, op.dtype, op.m),
		tensor.Want("logb", a.LogB, op.dtype, op.m), tensor.Maybe("v", a.V, op.dtype, op.m, k), tensor.Maybe("mass", a.Mass, op.dtype, op.n),
		tensor.Maybe("mean", a.Mean, op.dtype, op.n), tensor.Maybe("r", a.R, op.dtype, op.n, k), tensor.Maybe("grad", a.Grad, op.dtype, op.n, d)); err != nil {
		return err
	}
	if a.V.IsZero() != a.R.IsZero() {
		return fmt.Errorf("grid: apply: %w: one of v and r without the other", solver.ErrInvalid)
	}
	if !a.Grad.IsZero() && op.grid.Dim() == 0 {
		return fmt.Errorf("grid: apply: grad: %w: an axis with given costs has no gradient", gpu.ErrUnsupported)
	}
	kernels, err := op.logKernels(epsilon)
	if err != nil {
		return err
	}
	p := plan{op: op, epsilon: epsilon, kernels: kernels}
	if p.f, err = tensor.Float64s(a.F); err != nil {
		return err
	}
	if p.v, err = tensor.Float64s(a.G); err != nil {
		return err
	}
	logb, err := tensor.Float64s(a.LogB)
	if err != nil {
		return err
	}
	for j, l := range logb {
		p.v[j] = p.v[j]/epsilon + l
	}
	mass := make([]float64, op.n)
	if !a.Mass.IsZero() || !a.Mean.IsZero() {
		if err := p.add(mass, 1, 1, p.v, 1, kernels); err != nil {
			return err
		}
	}
	if !a.Mass.IsZero() {
		if err := tensor.SetFloat64s(a.Mass, mass); err != nil {
			return err
		}
	}
	if !a.Mean.IsZero() {
		if err := p.mean(a.Mean, mass); err != nil {
			return err
		}
	}
	if !a.R.IsZero() {
		if err := p.transport(a.R, a.V, k); err != nil {
			return err
		}
	}
	if !a.Grad.IsZero() {
		return p.grad(a.Grad)
	}
	return nil
}

// plan is what Apply applies: p_ij = exp(f_i/ε + v_j - c_ij/ε).
type plan struct {
	op      *gridOperator
	epsilon float64
	f, v    []float64 // v: the target's potential over ε and log weight
	kernels []tensor.Tensor
}

// add adds sign exp(f/ε + log-sum-exp) of each of batch arrays v to the columns of
// out: (n, batch), whose rows are stride apart.
func (p plan) add(out []float64, stride int, sign float64, v []float64, batch int, kernels []tensor.Tensor) error {
	op := p.op
	in, err := upload(op.dev, op.dtype, v, len(v))
	if err != nil {
		return err
	}
	defer in.Free()
	sums, err := tensor.New(op.dev, op.dtype, batch*op.n)
	if err != nil {
		return err
	}
	defer sums.Free()
	if err := (axis.Product{In: in, Batch: batch, LogK: kernels, Out: sums}).LogSumExp(); err != nil {
		return err
	}
	lse, err := tensor.Float64s(sums)
	if err != nil {
		return err
	}
	for i, l := range lse {
		if !math.IsInf(l, -1) { // no plan there, whatever f is
			out[i%op.n*stride+i/op.n] += sign * math.Exp(p.f[i%op.n]/p.epsilon+l)
		}
	}
	return nil
}

// moment adds Σ_j p_ij w of factors w of axis k: (n_k, m_k) to out.
func (p plan) moment(out []float64, stride, k int, w []float64) error {
	cost := p.op.grid.Axes[k].costs(p.op.grid.Ground)
	for _, sign := range []float64{1, -1} {
		part, some := make([]float64, len(w)), false
		for i, x := range w {
			part[i] = max(sign*x, 0)
			some = some || part[i] > 0
		}
		if !some {
			continue
		}
		t, err := p.op.logKernel(k, cost, p.epsilon, part)
		if err != nil {
			return err
		}
		kernels := slices.Clone(p.kernels)
		kernels[k] = t
		err = p.add(out, stride, sign, p.v, 1, kernels)
		t.Free()
		if err != nil {
			return err
		}
	}
	return nil
}

// mean is Σ_j p_ij c_ij, of costs less the least of each axis.
func (p plan) mean(to tensor.Tensor, mass []float64) error {
	out, least := make([]float64, p.op.n), 0.0
	for k, a := range p.op.grid.Axes {
		cost := slices.Clone(a.costs(p.op.grid.Ground))
		low := slices.Min(cost)
		for i := range cost {
			cost[i] -= low
		}
		least += low
		if err := p.moment(out, 1, k, cost); err != nil {
			return err
		}
	}
	for i := range out {
		out[i] += least * mass[i]
	}
	return tensor.SetFloat64s(to, out)
}

// together is how many numbers transport sends through the passes at once.
const together = 1 << 22

// transport is Σ_j p_ij v_jc for columns c.
func (p plan) transport(to, v tensor.Tensor, columns int) error {
	n, m := p.op.n, p.op.m
	given, err := tensor.Float64s(v)
	if err != nil {
		return err
	}
	out := make([]float64, n*columns)
	some := max(1, together/max(n, m))
	for c0 := 0; c0 < columns; c0 += some {
		c1 := min(c0+some, columns)
		for _, sign := range []float64{1, -1} {
			part := make([]float64, 0, (c1-c0)*m)
			for c := c0; c < c1; c++ {
				for j := range m {
					x := sign * given[j*columns+c]
					if x <= 0 {
						part = append(part, math.Inf(-1))
						continue
					}
					part = append(part, p.v[j]+math.Log(x)) // NaN stays
				}
			}
			if err := p.add(out[c0:], columns, sign, part, c1-c0, p.kernels); err != nil {
				return err
			}
		}
	}
	return tensor.SetFloat64s(to, out)
}

// grad is Σ_j p_ij ∂c/∂x.
func (p plan) grad(to tensor.Tensor) error {
	d := len(p.op.grid.Axes)
	out := make([]float64, p.op.n*d)
	for k, a := range p.op.grid.Axes {
		slope := a.matrix(func(x, y float64) float64 { return 2 * p.op.grid.Ground.scale() * a.weight() * (x - y) })
		if err := p.moment(out[k:], d, k, slope); err != nil {
			return err
		}
	}
	return tensor.SetFloat64s(to, out)
}

func (op *gridOperator) Transposed() (Operator, error) { return op.back, nil }

// Cached implements Operator: the cost matrix is never made.
func (op *gridOperator) Cached() bool { return false }

func (op *gridOperator) Close() {
	op.forget()
	op.back.forget()
}
