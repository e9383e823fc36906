// Package selftest answers, in milliseconds and on a user's machine, whether
// the kernels of a device compute what they should: one small float32 problem
// a family, against its definition in float64. The tests of each operation's
// folder are what says that a kernel is correct; this says that a driver, a
// library and a card work together.
package selftest

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/cost"
	"github.com/fortet/fortet/kernels/duallse"
	"github.com/fortet/fortet/kernels/langevin"
	"github.com/fortet/fortet/kernels/ou"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

// Family is a kernel family and its test.
type Family struct {
	Name string
	Run  func(gpu.Device) error
}

// Families lists all kernel families.
func Families() []Family {
	return []Family{
		{"philox", draws}, {"cost", costs}, {"softmin", softmins}, {"duallse", duals}, {"langevin", steps}, {"ou", transitions},
		{"axis", axes}, {"fdual", roots}, {"ensemble", ensembles},
		{"gmm", mixtures}, {"proximal", inverses}, {"batch", batches}, {"adam", adams}, {"fold", folds},
		{"gemm", products},
	}
}

// The problem that all families share: n points against m in d dimensions.
const (
	n, m, d = 37, 53, 3
	epsilon = 0.7
)

// arena keeps the arrays of a test and the first error.
type arena struct {
	dev  gpu.Device
	all  []tensor.Tensor
	err  error
	seed uint64
}

func (a *arena) free() {
	for _, t := range a.all {
		t.Free()
	}
}

func (a *arena) empty(dtype tensor.DType, shape ...int) tensor.Tensor {
	if a.err != nil {
		return tensor.Tensor{}
	}
	t, err := tensor.New(a.dev, dtype, shape...)
	if err != nil {
		a.err = err
		return t
	}
	a.all = append(a.all, t)
	return t
}

// normal is an array of host normals and the same on the device.
func (a *arena) normal(shape ...int) (tensor.Tensor, []float64) {
	t := a.empty(tensor.Float32, shape...)
	if a.err != nil {
		return t, nil
	}
	v := make([]float32, t.Len())
	a.seed++
	if a.err = philox.HostNormal(v, 1, philox.Draw{Seed: a.seed}); a.err != nil {
		return t, nil
	}
	a.err = tensor.Set(t, v)
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return t, w
}

// compare reports the worst difference where it exceeds 1e-4 of the scale:
// two digits more than the rounding of these short float32 sums.
func (a *arena) compare(what string, got tensor.Tensor, want []float64) error {
	if a.err != nil {
		return a.err
	}
	v := make([]float64, got.Len())
	if got.DType() == tensor.Float64 {
		if err := tensor.Get(got, v); err != nil {
			return err
		}
	} else {
		w, err := tensor.Values[float32](got)
		if err != nil {
			return err
		}
		for i, x := range w {
			v[i] = float64(x)
		}
	}
	scale := 0.0
	for _, x := range want {
		scale = max(scale, math.Abs(x))
	}
	for i, x := range want {
		if diff := math.Abs(v[i] - x); !(diff <= 1e-4*scale) {
			return fmt.Errorf("%s: element %d is %v, want %v", what, i, v[i], x)
		}
	}
	return nil
}

func squared(x, y []float64, i, j int) float64 {
	s := 0.0
	for k := range d {
		t := x[i*d+k] - y[j*d+k]
		s += t * t
	}
	return s
}

func draws(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	out := a.empty(tensor.Float32, n, d)
	if a.err == nil {
		a.err = philox.Normal(out, philox.Draw{Seed: 5, Index: 7})
	}
	v := make([]float32, n*d)
	if err := philox.HostNormal(v, d, philox.Draw{Seed: 5, Index: 7}); err != nil {
		return err
	}
	want := make([]float64, len(v))
	for i, x := range v {
		want[i] = float64(x)
	}
	return a.compare("normals", out, want)
}

func costs(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	x, hx := a.normal(n, d)
	y, hy := a.normal(m, d)
	out := a.empty(tensor.Float32, n, m)
	if a.err != nil {
		return a.err
	}
	a.err = cost.Evaluate(cost.Args{X: x, Y: y, Out: out, Cost: cost.SqEuclidean})
	want := make([]float64, n*m)
	for i := range n {
		for j := range m {
			want[i*m+j] = squared(hx, hy, i, j)
		}
	}
	return a.compare("costs", out, want)
}

func softmins(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	x, hx := a.normal(n, d)
	y, hy := a.normal(m, d)
	g, hg := a.normal(m)
	out, col := a.empty(tensor.Float32, n), a.empty(tensor.Float64, m)
	if a.err != nil {
		return a.err
	}
	a.err = softmin.Pairs{X: x, Y: y, G: g, Epsilon: epsilon}.Sweep(dev, softmin.SweepArgs{Damp: 1, Out: out, Col: col})
	wantOut, wantCol := make([]float64, n), make([]float64, m)
	for i := range n {
		sum, p := 0.0, make([]float64, m)
		for j := range m {
			p[j] = math.Exp((hg[j] - squared(hx, hy, i, j)) / epsilon)
			sum += p[j]
		}
		wantOut[i] = -epsilon * math.Log(sum)
		for j := range m {
			wantCol[j] += p[j] / sum
		}
	}
	if err := a.compare("softmin", out, wantOut); err != nil {
		return err
	}
	return a.compare("column sums", col, wantCol)
}

func duals(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	y, hy := a.normal(n, d)
	t, ht := a.normal(m, d)
	beta, hb := a.normal(n)
	value, grad := a.empty(tensor.Float64, 2), a.empty(tensor.Float32, n)
	if a.err != nil {
		return a.err
	}
	a.err = duallse.LogE(dev, duallse.Star{Epsilon: epsilon, Potential: beta, Points: y, Arms: []duallse.Arm{{Points: t, Weight: 1}}},
		duallse.Output{Value: value, Potential: grad})
	sum, want := 0.0, make([]float64, n)
	for j := range n {
		for k := range m {
			want[j] += math.Exp(hb[j]-squared(hy, ht, j, k)/epsilon) / (n * m)
		}
		sum += want[j]
	}
	for j := range want {
		want[j] /= sum
	}
	if err := a.compare("gradient", grad, want); err != nil {
		return err
	}
	v, err := duallse.ReadValue(value)
	if err != nil {
		return err
	}
	if diff := math.Abs(v.LogE - math.Log(sum)); !(diff <= 1e-4*(1+math.Abs(math.Log(sum)))) {
		return fmt.Errorf("log E is %v, want %v", v.LogE, math.Log(sum))
	}
	return nil
}

func steps(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	y, hy := a.normal(n, d)
	score, hs := a.normal(n, d)
	out := a.empty(tensor.Float32, n, d)
	if a.err != nil {
		return a.err
	}
	const eta = 0.1
	a.err = langevin.Step(langevin.Args{Y: y, Score: score, Out: out, Eta: eta, Temperature: 1, Draw: philox.Draw{Seed: 3}})
	noise := make([]float32, n*d)
	if err := philox.HostNormal(noise, d, philox.Draw{Seed: 3}); err != nil {
		return err
	}
	want := make([]float64, n*d)
	for i := range want {
		want[i] = hy[i] + eta*hs[i] + math.Sqrt(2*eta)*float64(noise[i])
	}
	return a.compare("Langevin step", out, want)
}

func transitions(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	x0, h := a.normal(n, d)
	lambda, hl := a.normal(d)
	mean, scale := a.empty(tensor.Float32, n, d), a.empty(tensor.Float32, n, d)
	if a.err != nil {
		return a.err
	}
	const b = 0.8
	a.err = ou.Transition(ou.Args{X0: x0, Lambda: lambda, B0: b, Mean: mean, Scale: scale})
	wantMean, wantScale := make([]float64, n*d), make([]float64, n*d)
	for i := range wantMean {
		l := hl[i%d]
		wantMean[i] = math.Exp(-b*l/2) * h[i]
		wantScale[i] = math.Sqrt(-math.Expm1(-b*l) / l)
	}
	if err := a.compare("mean", mean, wantMean); err != nil {
		return err
	}
	return a.compare("scale", scale, wantScale)
}
