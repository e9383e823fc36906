package selftest_test

import (
	"math"
	"slices"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/adam"
	"github.com/fortet/fortet/kernels/axis"
	"github.com/fortet/fortet/kernels/batch"
	"github.com/fortet/fortet/kernels/cost"
	"github.com/fortet/fortet/kernels/fold"
	"github.com/fortet/fortet/kernels/langevin"
	"github.com/fortet/fortet/kernels/ou"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

// trials lists all operations, each in the shapes for which it has kernels of
// its own.
func trials() []trial {
	return slices.Concat(streams(), pairs(), duals(), mixtures(), matrices())
}

// streams are the operations that walk arrays of rows.
func streams() []trial {
	seeded := philox.Draw{Seed: 11, Index: 5, Step: 3, Purpose: 2}
	list := []trial{
		{"philox bits", func(s *stage) func() error {
			out := s.typed("bits", same, tensor.Uint32, s.pick(301, 300_001), 5)
			return func() error { return philox.Bits(out, seeded) }
		}, tensor.Uint32},
		{"philox uniforms", func(s *stage) func() error {
			out := s.out("uniforms", same, s.pick(301, 300_001), 5)
			return func() error { return philox.Uniform(out, seeded) }
		}, 0},
		{"philox normals", func(s *stage) func() error {
			out := s.out("normals", same, s.pick(301, 300_001), 5)
			return func() error { return philox.Normal(out, seeded) }
		}, 0},
		{"langevin", func(s *stage) func() error {
			n, d := s.pick(203, 200_003), 6
			a := langevin.Args{
				Y: s.normal(n, d), Score: s.normal(n, d), Mean: s.normal(n, d), Out: s.out("points", same, n, d),
				Eta: 0.1, Temperature: 0.7, Precision: 0.3, Draw: seeded,
			}
			return func() error { return langevin.Step(a) }
		}, 0},
		{"ou", func(s *stage) func() error {
			n, d := s.pick(203, 200_003), 5
			a := ou.Args{
				X0: s.normal(n, d), Lambda: s.normal(d), B: s.positive(n), Draw: seeded,
				Mean: s.out("mean", same, n, d), Scale: s.out("scale", same, n, d),
				Xt: s.out("points", same, n, d), Score: s.out("score", same, n, d),
			}
			return func() error { return ou.Transition(a) }
		}, 0},
		{"batch gather", func(s *stage) func() error {
			rows, b, d := s.pick(97, 50_021), s.pick(203, 200_003), 7
			a := batch.GatherArgs{
				Rows: s.normal(rows, d), Out: s.out("rows", same, b, d), Index: s.typed("index", same, tensor.Int32, b), Draw: seeded,
			}
			return func() error { return batch.Gather(a) }
		}, 0},
		{"batch bridge", func(s *stage) func() error {
			b, d := s.pick(203, 200_003), 6
			a := batch.BridgeArgs{
				X0: s.normal(b, d), X1: s.normal(b, d), Epsilon: 0.5, Safe: 0.01, Draw: seeded,
				T: s.out("times", same, b), Xt: s.out("points", same, b, d), U: s.out("drifts", same, b, d),
			}
			return func() error { return batch.Bridge(a) }
		}, 0},
		{"adam", func(s *stage) func() error {
			n := s.pick(9001, 1_000_003)
			second := s.draw(n)
			for i, x := range second {
				second[i] = float64(float32(x * x))
			}
			norm := adam.NormArgs{
				Gradient: s.normal(n), Norm: s.typed("norm", same, tensor.Float64, 1),
				Partial: s.typed("sums of chunks", same, tensor.Float64, adam.Chunks(n)),
			}
			a := adam.Args{
				Params: s.updated("parameters", same, s.draw(n), n), Gradient: norm.Gradient, Norm: norm.Norm,
				First: s.updated("first moments", same, s.draw(n), n), Second: s.updated("second moments", same, second, n),
				EMA:  s.updated("average", same, s.draw(n), n),
				Step: 7, Rate: 1e-3, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, Decay: 0.01, EMADecay: 0.99, Clip: 1,
			}
			return func() error {
				if err := adam.Norm(norm); err != nil {
					return err
				}
				return adam.Step(a)
			}
		}, 0},
		{"adam in a recording", func(s *stage) func() error {
			n, steps := s.pick(9001, 1_000_003), 5
			var rows []float64
			for t := range steps {
				row := adam.Row(t+1, 1e-3, 0.9, 0.999, 0.01)
				rows = append(rows, row[:]...)
			}
			count := s.counter("count", 2)
			norm := adam.NormArgs{Gradient: s.normal(n), Norm: s.typed("norm", same, tensor.Float64, 1), Count: count}
			a := adam.Args{
				Params: s.updated("parameters", same, s.draw(n), n), Gradient: norm.Gradient, Norm: norm.Norm,
				First: s.updated("first moments", same, s.draw(n), n), Second: s.updated("second moments", same, make([]float64, n), n),
				Table: s.keep(tensor.FromFloat64s(s.dev, tensor.Float64, rows, steps, adam.Columns)), Count: count,
				Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, Decay: 0.01,
			}
			return func() error {
				if err := adam.Norm(norm); err != nil {
					return err
				}
				return adam.Step(a)
			}
		}, 0},
		{"fold", func(s *stage) func() error {
			rows, width := s.pick(37, 301), s.pick(53, 20_011)
			in, out := s.normal(rows, width), s.out("sums", same, width-1)
			return func() error { return fold.Rows(out, in) }
		}, 0},
		{"cost of a batch", func(s *stage) func() error {
			b, n, m, d := s.pick(3, 40), s.pick(37, 301), s.pick(70, 257), 5
			a := cost.Args{
				X: s.normal(b, n, d), Y: s.normal(m, d), Cost: cost.HalfSqEuclidean,
				Out: s.out("costs", near, b, n, m), OutT: s.out("transposed", near, b, m, n),
			}
			return func() error { return cost.Evaluate(a) }
		}, 0},
	}
	for _, kind := range []cost.Kind{cost.SqEuclidean, cost.Euclidean, cost.Cosine} {
		list = append(list, trial{"cost " + kind.String(), func(s *stage) func() error {
			n, m, d := s.pick(67, 1501), s.pick(131, 1733), 19
			a := cost.Args{X: s.normal(n, d), Y: s.normal(m, d), Cost: kind, Out: s.out("costs", near, n, m), OutT: s.out("transposed", near, m, n)}
			return func() error { return cost.Evaluate(a) }
		}, 0})
	}
	for _, inner := range []int{1, 37} { // a warp an output, and tiles
		list = append(list, trial{"axis " + map[bool]string{true: "rows", false: "tiles"}[inner == 1], func(s *stage) func() error {
			outer, n, m := s.pick(2, 15), s.pick(61, 700), s.pick(35, 531)
			a := axis.Args{
				In: s.normal(outer, n, inner), LogK: s.normal(m, n), Add: s.normal(outer, m, inner), Scale: -0.5,
				Out: s.out("logarithms", near, outer, m, inner), Mass: s.typed("mass", near, tensor.Float64, outer, m, inner),
			}
			return func() error { return axis.LogSumExp(a) }
		}, 0})
	}
	return list
}

// pairs are softmin, sweep and apply, in each of the layouts that points have.
func pairs() []trial {
	var list []trial
	shapes := []struct {
		name      string
		cost      softmin.Cost
		d         int
		precision softmin.Precision
	}{
		{"d=1", softmin.SqEuclidean, 1, softmin.Native}, {"d=2", softmin.HalfSqEuclidean, 2, softmin.Native},
		{"d=3", softmin.SqEuclidean, 3, softmin.Native}, {"d=7", softmin.SqEuclidean, 7, softmin.Native},
		{"d=2 Euclidean", softmin.Euclidean, 2, softmin.Native}, {"d=20", softmin.SqEuclidean, 20, softmin.Native},
		{"d=20 Euclidean", softmin.Euclidean, 20, softmin.Native}, {"matrix", softmin.Matrix, 0, softmin.Native},
		{"d=64, TF32 tensor cores", softmin.SqEuclidean, 64, softmin.TF32},
		{"d=64, BF16x3 tensor cores", softmin.SqEuclidean, 64, softmin.BF16x3},
		{"d=150, TF32 tensor cores", softmin.SqEuclidean, 150, softmin.TF32},
		{"d=150, BF16x3 tensor cores", softmin.SqEuclidean, 150, softmin.BF16x3},
	}
	for _, shape := range shapes {
		tr := trial{name: "softmin " + shape.name}
		if shape.precision != softmin.Native {
			tr.only = tensor.Float32
		}
		tr.lay = func(s *stage) func() error {
			n, m := s.pick(150, 9_001), s.pick(141, 8_009)
			if shape.precision != softmin.Native {
				n, m = s.pick(130, 9_001), s.pick(129, 8_009)
			}
			p := softmin.Pairs{Cost: shape.cost, Epsilon: 0.3 * float64(1+shape.d), Precision: shape.precision}
			if s.dev.Properties().Kind == gpu.CPU {
				p.Precision = softmin.Native // what tensor cores are compared with
			}
			distance := 0.0 // what products of rounded coordinates may change a cost by
			if shape.cost == softmin.Matrix {
				n, m = s.pick(150, 3_001), s.pick(141, 2_003)
				p.Matrix = s.positive(n, m)
			} else {
				var rx, ry float64
				p.X, rx = s.points(n, shape.d, 0)
				p.Y, ry = s.points(m, shape.d, 0.4)
				switch shape.precision {
				case softmin.TF32: // c holds -2⟨x, y⟩, both factors rounded to 11 bits, both at most 2r from the centre of all
					distance = 4 * 0x1p-11 * math.Pow(2*max(rx, ry), 2)
				case softmin.BF16x3: // 16 bits are left of either factor
					distance = 4 * 0x1p-16 * math.Pow(2*max(rx, ry), 2)
				}
			}
			p.G, p.LogB = s.normal(m), s.uniform(m)
			out := s.out("softmin", near, n)
			s.within(distance)
			sweep := softmin.SweepArgs{LogA: s.uniform(n), Damp: 0.9, Out: s.out("softmin of the sweep", near, n)}
			s.within(distance)
			sweep.Col = s.typed("columns", near, tensor.Float64, m)
			if distance > 0 { // w_i p_ij holds softmin and a cost; all columns together are a mass of one
				s.within(math.Expm1(2 * distance / p.Epsilon))
			}
			if shape.precision != softmin.Native {
				return func() error {
					if err := p.Softmin(s.dev, out); err != nil {
						return err
					}
					return p.Sweep(s.dev, sweep)
				}
			}
			k := 5 // more than one block of values
			apply := softmin.ApplyArgs{
				F: s.normal(n), V: s.normal(m, k), Mass: s.out("mass", near, n), Mean: s.out("mean cost", near, n), R: s.out("product", near, n, k),
			}
			if shape.cost != softmin.Matrix {
				apply.Grad = s.out("gradient", near, n, shape.d)
			}
			return func() error {
				if err := p.Softmin(s.dev, out); err != nil {
					return err
				}
				if err := p.Sweep(s.dev, sweep); err != nil {
					return err
				}
				return p.Apply(s.dev, apply)
			}
		}
		list = append(list, tr)
	}
	return list
}
