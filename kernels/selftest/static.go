package selftest

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/axis"
	"github.com/fortet/fortet/kernels/ensemble"
	"github.com/fortet/fortet/kernels/fdual"
	"github.com/fortet/fortet/tensor"
)

func axes(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	const outer, inner = 2, 3
	in, hin := a.normal(outer, n, inner)
	logk, hk := a.normal(m, n)
	out := a.empty(tensor.Float32, outer, m, inner)
	if a.err != nil {
		return a.err
	}
	a.err = axis.LogSumExp(axis.Args{In: in, LogK: logk, Out: out})
	var want []float64
	for o := range outer {
		for i := range m {
			for r := range inner {
				sum := 0.0
				for j := range n {
					sum += math.Exp(hk[i*n+j] + hin[(o*n+j)*inner+r])
				}
				want = append(want, math.Log(sum))
			}
		}
	}
	return a.compare("log-sum-exp along an axis", out, want)
}

// roots checks that the rows' sums are one at the potentials that come back, for
// the Jensen–Shannon divergence: Σ_j φ(p_i + q_j + c_ij/ε)/m with φ = 1/(e^z - 1).
func roots(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	const rows = 5 // each a search
	x, hx := a.normal(rows, d)
	y, hy := a.normal(d, m) // transposed
	q, hq := a.normal(m)
	p := a.empty(tensor.Float32, rows)
	if a.err != nil {
		return a.err
	}
	a.err = fdual.Pairs{X: x, YT: y, Q: q, Slope: 1 / epsilon, Shift: -math.Log(m), Law: fdual.JensenShannon}.
		Rows(dev, fdual.RowsArgs{P: p})
	if a.err != nil {
		return a.err
	}
	got, err := tensor.Values[float32](p)
	if err != nil {
		return err
	}
	for i, p := range got {
		sum := 0.0
		for j := range m {
			c := 0.0
			for k := range d {
				t := hx[i*d+k] - hy[k*m+j]
				c += t * t
			}
			sum += 1 / math.Expm1(float64(p)+hq[j]+c/epsilon) / m
		}
		if diff := math.Abs(sum - 1); !(diff <= 1e-3) { // near the pole a rounding of z counts a hundredfold
			return fmt.Errorf("row %d sums to %v, want 1", i, sum)
		}
	}
	return nil
}

// ensembles checks problems of three sizes: that the residual is below the
// tolerance, and that every f is the softmin of its g.
func ensembles(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	ns, ms := []int{9, 1, 5}, []int{11, 7, 1}
	layout, err := ensemble.NewLayout(dev, ns, ms)
	if err != nil {
		return err
	}
	defer layout.Free()
	_, hx := a.normal(layout.Sources(), d)
	_, hy := a.normal(layout.Targets(), d)
	put := func(v []float64, shape ...int) tensor.Tensor {
		if a.err != nil {
			return tensor.Tensor{}
		}
		t, err := tensor.FromFloat64s(dev, tensor.Float64, v, shape...)
		if a.err = err; err == nil {
			a.all = append(a.all, t)
		}
		return t
	}
	const tolerance = 1e-9
	args := ensemble.Args{
		Layout: layout, X: put(hx, layout.Sources(), d), Y: put(hy, layout.Targets(), d), Epsilon: put([]float64{epsilon, epsilon, epsilon}, len(ns)),
		F: a.empty(tensor.Float64, layout.Sources()), G: a.empty(tensor.Float64, layout.Targets()),
		Values: a.empty(tensor.Float64, len(ns), ensemble.Values), Counts: a.empty(tensor.Int32, len(ns), ensemble.Counts),
		Sweeps: tensor.Float64, Tolerance: tolerance, MaxSweeps: 1000,
	}
	if a.err != nil {
		return a.err
	}
	if err := ensemble.Solve(args); err != nil {
		return err
	}
	values, g := make([]float64, args.Values.Len()), make([]float64, layout.Targets())
	if err := tensor.Get(args.Values, values); err != nil {
		return err
	}
	if err := tensor.Get(args.G, g); err != nil {
		return err
	}
	var want []float64
	first, start := 0, 0
	for p := range ns {
		if r := values[p*ensemble.Values+ensemble.Residual]; !(r <= tolerance) {
			return fmt.Errorf("problem %d: residual %v, want at most %v", p, r, tolerance)
		}
		for i := first; i < first+ns[p]; i++ {
			sum := 0.0
			for j := start; j < start+ms[p]; j++ {
				sum += math.Exp((g[j]-squared(hx, hy, i, j))/epsilon) / float64(ms[p])
			}
			want = append(want, -epsilon*math.Log(sum))
		}
		first, start = first+ns[p], start+ms[p]
	}
	return a.compare("potential", args.F, want)
}
