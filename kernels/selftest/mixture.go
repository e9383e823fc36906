package selftest

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/adam"
	"github.com/fortet/fortet/kernels/batch"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/tensor"
)

// components of the mixture that the families below share.
const components = 5

// mixture is a Gaussian-mixture potential, and its drift in float64.
func (a *arena) mixture() (gmm.Mixture, func(t float64, x []float64) []float64) {
	la, hla := a.normal(components)
	r, hr := a.normal(components, d)
	s, hs := a.normal(components, d)
	scale := make([]float32, components*d)
	for i := range hs {
		scale[i] = float32(0.5 + math.Abs(hs[i]))
		hs[i] = float64(scale[i])
	}
	if a.err == nil {
		a.err = tensor.Set(s, scale)
	}
	drift := func(t float64, x []float64) []float64 {
		sum, g := 0.0, make([]float64, d)
		for j := range components {
			l := hla[j]
			for k, x := range x {
				r, s := hr[j*d+k], hs[j*d+k]
				l += -math.Log(1-t+t*s)/2 + (2*r*x+(s-1)*x*x-t*r*r)/(2*epsilon*(1-t+t*s))
			}
			sum += math.Exp(l)
			for k, x := range x {
				r, s := hr[j*d+k], hs[j*d+k]
				g[k] += math.Exp(l) * (r + (s-1)*x) / (1 - t + t*s)
			}
		}
		for k := range g {
			g[k] /= sum
		}
		return g
	}
	return gmm.Mixture{Logits: la, Means: r, Scales: s, Epsilon: epsilon}, drift
}

func mixtures(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	mix, drift := a.mixture()
	x, hx := a.normal(n, d)
	out := a.empty(tensor.Float32, n, d)
	if a.err != nil {
		return a.err
	}
	const t = 0.4
	a.err = gmm.Evaluate(gmm.EvaluateArgs{Mixture: mix, X: x, T0: t, Drift: out})
	var want []float64
	for i := range n {
		want = append(want, drift(t, hx[i*d:(i+1)*d])...)
	}
	return a.compare("drift", out, want)
}

// inverses checks y + g(t, y)/β = x at the y that comes back.
func inverses(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	mix, drift := a.mixture()
	x, hx := a.normal(n, d)
	y := a.empty(tensor.Float32, n, d)
	if a.err != nil {
		return a.err
	}
	const t, beta = 0.4, 4
	a.err = proximal.Solve(proximal.Args{Mixture: mix, X: x, T0: t, Beta: beta, Y: y})
	if a.err != nil {
		return a.err
	}
	hy, err := tensor.Float64s(y)
	if err != nil {
		return err
	}
	want := make([]float64, n*d) // y = x - g(t, y)/β
	for i := range n {
		for k, g := range drift(t, hy[i*d:(i+1)*d]) {
			want[i*d+k] = hx[i*d+k] - g/beta
		}
	}
	return a.compare("inverse", y, want)
}

func adams(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	p, hp := a.normal(n)
	g, hg := a.normal(n)
	first, h1 := a.normal(n)
	second := a.empty(tensor.Float32, n)
	if a.err == nil {
		a.err = tensor.Set(second, make([]float32, n))
	}
	if a.err != nil {
		return a.err
	}
	const rate, beta1, beta2, tiny = 0.1, 0.9, 0.99, 1e-3
	a.err = adam.Step(adam.Args{
		Params: p, Gradient: g, First: first, Second: second, Step: 1, Rate: rate, Beta1: beta1, Beta2: beta2, Epsilon: tiny,
	})
	want := make([]float64, n)
	for i := range want {
		m := beta1*h1[i] + (1-beta1)*hg[i]
		want[i] = hp[i] - rate*m/(1-beta1)/(math.Abs(hg[i])+tiny)
	}
	return a.compare("parameters", p, want)
}

func batches(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	rows, h := a.normal(n, d)
	out, index := a.empty(tensor.Float32, m, d), a.empty(tensor.Int32, m)
	if a.err == nil {
		a.err = batch.Gather(batch.GatherArgs{Rows: rows, Out: out, Index: index, Draw: philox.Draw{Seed: 2}})
	}
	if a.err != nil {
		return a.err
	}
	at, err := tensor.Values[int32](index)
	if err != nil {
		return err
	}
	bits := make([]uint32, m*2)
	if err := philox.HostBits(bits, 2, philox.Draw{Seed: 2}); err != nil {
		return err
	}
	var gathered []float64
	for b := range m {
		row := int((float64(bits[2*b+1]) + float64(bits[2*b])/(1<<32)) / (1 << 32) * n)
		if int(at[b]) != row {
			return fmt.Errorf("index: element %d is %d, want %d", b, at[b], row)
		}
		gathered = append(gathered, h[row*d:][:d]...)
	}
	return a.compare("rows", out, gathered)
}
