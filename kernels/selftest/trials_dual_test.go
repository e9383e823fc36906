package selftest_test

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/kernels/duallse"
	"github.com/fortet/fortet/kernels/ensemble"
	"github.com/fortet/fortet/kernels/fdual"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

// duals are the operations on dual losses, on their roots, and on many small
// problems at once.
func duals() []trial {
	list := []trial{
		{"duallse star", star, 0},
		{"duallse penalty of pairs", func(s *stage) func() error { return penalty(s, 1) }, 0},
		{"duallse penalty of triples", func(s *stage) func() error { return penalty(s, 2) }, 0},
		{"duallse penalty of tuples", tuples, 0},
		{"duallse divergence", func(s *stage) func() error {
			n := s.pick(301, 400_003)
			y := s.mapped(func(x float64) float64 { return 0.2 * x }, n)
			out := duallse.PsiOutput{Psi: s.out("psi", near, n), Derivative: s.out("derivative", near, n), Slope: s.out("slope", near, n)}
			return func() error {
				return duallse.Evaluate(s.dev, duallse.Divergence{Kind: duallse.Neyman, Delta: 0.01}, y, out)
			}
		}, 0},
		{"ensemble", func(s *stage) func() error { return problems(s, true) }, 0},
		{"ensemble with mixing", func(s *stage) func() error { return problems(s, false) }, 0},
	}
	for _, law := range []fdual.Law{fdual.Exp, fdual.Power, fdual.JensenShannon, fdual.TotalVariation} {
		list = append(list, trial{fmt.Sprintf("fdual %v", law), func(s *stage) func() error { return roots(s, law) }, 0})
	}
	return list
}

func star(s *stage) func() error {
	n, n1, n2, d := s.pick(37, 2_003), s.pick(41, 1_801), s.pick(29, 1_501), 5
	y, _ := s.points(n, d, 0)
	t, _ := s.points(n1, d, 0.3)
	problem := duallse.Star{
		Epsilon: 4, Norm: 0.1, Points: y, Potential: s.normal(n), LogWeight: s.uniform(n), Extra: s.normal(n),
		Arms: []duallse.Arm{
			{Potential: s.normal(n1), Points: t, Weight: 0.5, LogWeight: s.uniform(n1)},
			{Potential: s.normal(n2), Cost: s.positive(n, n2), Weight: 1},
		},
	}
	out := duallse.Output{
		Value: s.typed("value", near, tensor.Float64, 2), Potential: s.out("by potential", near, n), Points: s.out("by points", near, n, d),
		Arms: []duallse.ArmOutput{
			{Potential: s.out("by first arm", near, n1), Points: s.out("by its points", near, n1, d)},
			{Potential: s.out("by second arm", near, n2), Plan: s.out("plan", near, n, n2), Conditional: s.out("conditional", near, n, n2)},
		},
	}
	return func() error { return duallse.LogE(s.dev, problem, out) }
}

func penalty(s *stage, arms int) func() error {
	n, k, d := s.pick(13, 301), s.pick(19, 203), 3
	y, _ := s.points(n, d, 0)
	problem := duallse.Star{Epsilon: 3, Points: y, Potential: s.mapped(tenth, n)}
	out := duallse.PenaltyOutput{Value: s.typed("value", near, tensor.Float64, 3), Gradients: []tensor.Tensor{s.out("by potential", near, n)}}
	for a := range arms {
		t, _ := s.points(k+a, d, 0.2)
		problem.Arms = append(problem.Arms, duallse.Arm{Points: t, Weight: 1, Potential: s.mapped(tenth, k+a)})
		out.Gradients = append(out.Gradients, s.out(fmt.Sprintf("by arm %d", a), near, k+a))
	}
	return func() error {
		return duallse.Penalty(s.dev, problem, duallse.Divergence{Kind: duallse.Pearson}, nil, out)
	}
}

func tenth(x float64) float64 { return 0.1 * x }

func tuples(s *stage) func() error {
	count, sizes := s.pick(211, 100_003), []int{17, 23, 11}
	index := make([]int32, count*len(sizes))
	for i := range index {
		index[i] = int32(i * 7919 % sizes[i%len(sizes)])
	}
	problem := duallse.Tuples{Epsilon: 2, Index: s.keep(tensor.From(s.dev, index, count, len(sizes))), Cost: s.positive(count)}
	out := duallse.PenaltyOutput{Value: s.typed("value", near, tensor.Float64, 3)}
	for i, size := range sizes {
		problem.Marginals = append(problem.Marginals, duallse.Marginal{Potential: s.mapped(tenth, size), LogWeight: s.uniform(size)})
		out.Gradients = append(out.Gradients, s.out(fmt.Sprintf("by marginal %d", i), near, size))
	}
	return func() error { return duallse.PenaltyOf(s.dev, problem, duallse.Divergence{Kind: duallse.Pearson}, out) }
}

func roots(s *stage, law fdual.Law) func() error {
	n, m, d := s.pick(9, 3_001), s.pick(47, 1_201), 3
	p := fdual.Pairs{
		X: s.normal(n, d), YT: s.normal(d, m), Q: s.mapped(tenth, m), LogB: s.uniform(m), Slope: -0.2, Law: law, Cost: softmin.SqEuclidean,
	}
	switch law {
	case fdual.Power:
		p.A = 2
	case fdual.JensenShannon:
		p.Slope = 0.2
	case fdual.TotalVariation:
		p.Delta = 0.5
	}
	common := near
	if law == fdual.TotalVariation {
		common = repeated // any of an interval of roots
	}
	a := fdual.RowsArgs{
		Start: s.mapped(func(x float64) float64 { return 1 + math.Abs(x) }, n), P: s.out("roots", common, n),
		Mass: s.typed("mass at the start", near, tensor.Float64, n), Steps: s.typed("steps", repeated, tensor.Int32, n),
	}
	e := fdual.EvalArgs{
		P: a.Start, Mass: s.typed("mass", near, tensor.Float64, n), Mean: s.typed("mean", near, tensor.Float64, n),
		F: s.typed("divergence", near, tensor.Float64, n), Psi: s.typed("conjugate", near, tensor.Float64, n),
		Edge: s.typed("edge", near, tensor.Float64, n),
	}
	return func() error {
		if err := p.Rows(s.dev, a); err != nil {
			return err
		}
		return p.Eval(s.dev, e)
	}
}

// problems are an ensemble, whose arrays are float64 in either case. Twenty plain
// sweeps are the same work everywhere. With mixing, problems end where rounding
// lets them.
func problems(s *stage, plain bool) func() error {
	count := s.pick(5, 700)
	ns, ms := make([]int, count), make([]int, count)
	for i := range count {
		ns[i], ms[i] = 1+i*13%31, 1+i*17%29
	}
	layout, err := ensemble.NewLayout(s.dev, ns, ms)
	if err != nil {
		s.err = err
		return nil
	}
	s.release = append(s.release, layout.Free)
	const d = 3
	wide := func(v []float64, shape ...int) tensor.Tensor {
		return s.keep(tensor.FromFloat64s(s.dev, tensor.Float64, v, shape...))
	}
	epsilon := make([]float64, count)
	for i := range epsilon {
		epsilon[i] = 0.5
	}
	common := repeated
	if plain {
		common = near
	}
	a := ensemble.Args{
		Layout: layout, X: wide(s.draw(layout.Sources()*d), layout.Sources(), d), Y: wide(s.draw(layout.Targets()*d), layout.Targets(), d),
		Epsilon: wide(epsilon, count), Sweeps: s.dtype, Tolerance: 1e-5, MaxSweeps: 2000,
		F: s.typed("f", common, tensor.Float64, layout.Sources()), G: s.typed("g", common, tensor.Float64, layout.Targets()),
		Map:    s.typed("map", common, tensor.Float64, layout.Sources(), d),
		Values: s.typed("values", repeated, tensor.Float64, count, ensemble.Values), Counts: s.typed("counts", repeated, tensor.Int32, count, ensemble.Counts),
	}
	if plain {
		a.Plain, a.Tolerance, a.MaxSweeps = true, 1e-300, 20
	}
	return func() error { return ensemble.Solve(a) }
}
