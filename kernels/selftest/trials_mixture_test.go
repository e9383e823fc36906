package selftest_test

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/kernels/proximal"
	"github.com/fortet/fortet/tensor"
)

// mixtures are the operations on Gaussian-mixture potentials, with and without
// axes, in the dimensions that differ in their kernels.
func mixtures() []trial {
	var list []trial
	for _, d := range []int{2, 3, 7, 21} {
		for _, axes := range []bool{false, true} {
			if axes && d == 7 {
				continue
			}
			what := fmt.Sprintf("d=%d", d)
			if axes {
				what += " with axes"
			}
			list = append(list,
				trial{"gmm evaluate " + what, func(s *stage) func() error { return evaluate(s, d, axes) }, 0},
				trial{"gmm gradient " + what, func(s *stage) func() error { return gradient(s, d, axes) }, 0},
				trial{"gmm sample " + what, func(s *stage) func() error { return sample(s, d, axes) }, 0},
				trial{"proximal " + what, func(s *stage) func() error { return invert(s, d, axes) }, 0})
		}
	}
	for _, d := range []int{1, 4} { // dense Newton steps have a kernel for each d up to 4
		list = append(list, trial{fmt.Sprintf("proximal d=%d", d), func(s *stage) func() error { return invert(s, d, false) }, 0})
	}
	return append(list, trial{"gmm scales", func(s *stage) func() error {
		n := s.pick(301, 400_003)
		a := gmm.ScalesArgs{Raw: s.normal(n), Out: s.out("scales", near, n), Floor: 0.1}
		return func() error { return gmm.Scales(a) }
	}, 0})
}

// mixture has a few components near the origin, with eigenvalues from 0.5 on.
func mixture(s *stage, k, d int, axes bool) gmm.Mixture {
	m := gmm.Mixture{Logits: s.normal(k), Means: s.normal(k, d), Scales: s.positive(k, d), Epsilon: 0.7}
	if axes {
		m.Axes = s.put(reflections(s, k, d), k, d, d)
	}
	return m
}

// reflections are k matrices I - 2vvᵀ/|v|², orthogonal to the last bit: v has signs
// for a power of two of its elements, and zeros.
func reflections(s *stage, k, d int) []float64 {
	v, a := s.draw(k*d), make([]float64, k*d*d)
	some := 1
	for 2*some <= d {
		some *= 2
	}
	for c := range k {
		v := v[c*d:][:d]
		for i := range v {
			if v[i] = math.Copysign(1, v[i]); (i+c)%d >= some {
				v[i] = 0
			}
		}
		for i := range d {
			for j := range d {
				e := -2 * v[i] * v[j] / float64(some)
				if i == j {
					e++
				}
				a[(c*d+i)*d+j] = e
			}
		}
	}
	return a
}

func evaluate(s *stage, d int, axes bool) func() error {
	n, k := s.pick(35, 20_001), 6
	a := gmm.EvaluateArgs{
		Mixture: mixture(s, k, d, axes), X: s.normal(n, d), T: s.times(n), V: s.normal(n, d),
		Value: s.out("value", near, n), Drift: s.out("drift", near, n, d), Weights: s.out("weights", near, n, k),
		Jacobian: s.out("jacobian", near, n, d, d), Product: s.out("product", near, n, d), Trace: s.out("trace", near, n),
		Norm2: s.out("norm", near, n),
	}
	b := a // one time for all samples has a faster way
	b.T, b.T0, b.V = tensor.Tensor{}, 0.4, tensor.Tensor{}
	b.Value, b.Drift, b.Weights = s.out("value at one time", near, n), s.out("drift at one time", near, n, d), tensor.Tensor{}
	b.Jacobian, b.Product, b.Trace, b.Norm2 = tensor.Tensor{}, tensor.Tensor{}, tensor.Tensor{}, tensor.Tensor{}
	return func() error {
		if err := gmm.Evaluate(a); err != nil {
			return err
		}
		return gmm.Evaluate(b)
	}
}

func gradient(s *stage, d int, axes bool) func() error {
	n, k := s.pick(67, 50_001), 6
	m := mixture(s, k, d, axes)
	fit := gmm.LikelihoodArgs{Mixture: m, Terms: [2]gmm.Term{{X: s.normal(n, d), Weight: 1}, {X: s.normal(n/2, d), T: 1, Weight: -1}}}
	match := gmm.MatchArgs{Mixture: m, X: s.normal(n, d), U: s.normal(n, d), T: s.times(n), Weight: 0.5}
	reduce := func(name string, rows ...int) gmm.ReduceArgs {
		chunks, width := gmm.PartialShape(m, rows...)
		r := gmm.ReduceArgs{
			Mixture: m, Floor: 0.1, Partial: s.out(name+": sums of chunks", repeated, chunks, width),
			Loss: s.out(name+": loss", near, 1), DLogits: s.out(name+": by logits", near, k), DMeans: s.out(name+": by means", near, k, d),
			DRaw: s.out(name+": by scales", near, k, d),
		}
		if axes {
			r.DTurn = s.out(name+": by axes", near, k, d, d)
		}
		return r
	}
	first, second := reduce("likelihood", n, n/2), reduce("matching", n)
	fit.Partial, match.Partial = first.Partial, second.Partial
	return func() error {
		if err := gmm.Likelihood(fit); err != nil {
			return err
		}
		if err := gmm.Reduce(first); err != nil {
			return err
		}
		if err := gmm.Match(match); err != nil {
			return err
		}
		return gmm.Reduce(second)
	}
}

func sample(s *stage, d int, axes bool) func() error {
	n := s.pick(67, 100_003)
	a := gmm.SampleArgs{
		Mixture: mixture(s, 6, d, axes), X0: s.normal(n, d), T: s.times(n), Draw: philox.Draw{Seed: 4, Index: 9},
		X1: s.out("ends", same, n, d), Xt: s.out("points", same, n, d), Component: s.typed("components", same, tensor.Int32, n),
	}
	return func() error { return gmm.Sample(a) }
}

// invert ends anywhere within the tolerance of |y + g/β - x|. S from 0.5 on makes
// the slopes of g at least -1 and those of y + g/β at least ¾ with β = 4, so that
// two answers are within twice 4/3 of the tolerance of each other.
func invert(s *stage, d int, axes bool) func() error {
	n, beta := s.pick(13, 5_003), 4.0
	x, radius := s.points(n, d, 0)
	tolerance := 1e-5
	if s.dtype == tensor.Float64 {
		tolerance = 1e-10
	}
	a := proximal.Args{Mixture: mixture(s, 6, d, axes), X: x, T: s.times(n), Beta: beta, Tolerance: tolerance, Y: s.out("inverse", near, n, d)}
	s.within(8.0 / 3 * tolerance * max(1, radius))
	a.Value, a.Residual = s.out("value", near, n), s.out("residual", repeated, n)
	a.Iterations = s.typed("steps", repeated, tensor.Int32, n)
	return func() error { return proximal.Solve(a) }
}
