package fdual_test

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/fdual"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

// upload is the pairs on a device, and their inputs.
func (s problem[T]) upload(t testing.TB, dev gpu.Device) (fdual.Pairs, []*kt.Array[T]) {
	t.Helper()
	p := s.pairs
	q, logb := kt.Put(t, dev, s.q), kt.Put(t, dev, s.logb)
	p.Q, p.LogB = q.Tensor, logb.Tensor
	in := []*kt.Array[T]{q, logb}
	if p.Cost == softmin.Matrix {
		c := kt.Put(t, dev, s.matrix, s.n, s.m)
		p.Matrix = c.Tensor
		return p, append(in, c)
	}
	yt := make([]T, len(s.y))
	for j := range s.m {
		for k := range s.d {
			yt[k*s.m+j] = s.y[j*s.d+k]
		}
	}
	x, y := kt.Put(t, dev, s.x, s.n, s.d), kt.Put(t, dev, yt, s.d, s.m)
	p.X, p.YT = x.Tensor, y.Tensor
	return p, append(in, x, y)
}

// solve runs Rows, from start where it is not nil.
func solve[T kt.Float](t testing.TB, dev gpu.Device, s problem[T], start []T) (p []T, mass []float64, steps []int32) {
	t.Helper()
	pairs, in := s.upload(t, dev)
	out := kt.Poison[T](t, dev, s.n)
	count, err := tensor.New(dev, tensor.Int32, s.n)
	require.NoError(t, err)
	defer count.Free()
	args := fdual.RowsArgs{P: out.Tensor, Steps: count}
	var sum *kt.Array[float64]
	if start != nil {
		from := kt.Put(t, dev, start)
		in = append(in, from)
		sum = kt.Poison[float64](t, dev, s.n)
		args.Start, args.Mass = from.Tensor, sum.Tensor
	}
	require.NoError(t, pairs.Rows(dev, args))
	for _, a := range in {
		a.Unmodified(t)
	}
	steps, err = tensor.Values[int32](count)
	require.NoError(t, err)
	if sum != nil {
		mass = sum.Get(t)
	}
	return out.Get(t), mass, steps
}

func unit[T kt.Float]() float64 {
	if tensor.TypeOf[T]() == tensor.Float32 {
		return 0x1p-24
	}
	return 0x1p-53
}

// laws are all forms, as the regularised problem and as the bridge.
func laws() map[string]fdual.Pairs {
	out := map[string]fdual.Pairs{}
	for _, a := range []float64{2, 1.5, 3, 0, 0.5, -1, 1.2, 4.5, 0.7, -2} {
		out[fmt.Sprintf("alpha %v", a)] = fdual.Pairs{Law: fdual.Power, A: a, Slope: -(a - 1) * 0.8}
	}
	out["exp"] = fdual.Pairs{Law: fdual.Exp, Slope: -0.8}
	out["js"] = fdual.Pairs{Law: fdual.JensenShannon, Slope: 0.8}
	out["tv"] = fdual.Pairs{Law: fdual.TotalVariation, Delta: 0.05, Slope: -0.8}
	for name, p := range out {
		p.Slope, p.Decay, p.Shift = 0, 1.1, 0.7
		out[name+" gibbs"] = p
	}
	return out
}

func TestRows(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		t.Run("float32", func(t *testing.T) { rows[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { rows[float64](t, dev.Device) })
	})
}

// Every root fulfils its equation, written out in float64, within what rounding
// of z and of the weights does to the sum; and Eval and Mass agree with the
// definition of what they sum.
func rows[T kt.Float](t *testing.T, dev gpu.Device) {
	sizes := [][3]int{{1, 1, 1}, {3, 31, 2}, {9, 32, 3}, {2, 129, 5}, {3, 1031, 1}, {17, 7, 2}}
	all := laws()
	for number, name := range slices.Sorted(maps.Keys(all)) {
		law := all[name]
		for k, size := range sizes {
			if (k+number)%2 == 0 {
				continue // the other half of the sizes is that of the other laws
			}
			law.Cost = softmin.Cost((k + number/2) % 4)
			s := instance[T](law, size[0], size[1], size[2], uint64(k))
			p, _, steps := solve(t, dev, s, nil)
			start := make([]T, s.n)
			for i := range start {
				start[i] = p[i] + T(0.01*float64(i%3-1))
			}
			again, mass, warm := solve(t, dev, s, start)
			for i := range s.n {
				what := fmt.Sprintf("%s %v row %d after %d steps", name, size, i, steps[i])
				_, _, _, _, edge, _ := s.sums(i, float64(p[i]))
				if falls(law) && tensor.TypeOf[T]() == tensor.Float32 && edge < 1e4*unit[T]() {
					// So near the end of the domain, p in this type does not tell.
					p[i] = T(math.NaN())
					continue
				}
				for _, v := range []T{p[i], again[i]} {
					sum, _, _, _, _, sensitivity := s.sums(i, float64(v))
					budget := unit[T]() * (32 + 8*sensitivity)
					require.InDelta(t, 0, math.Log(sum), budget, what)
				}
				want, _, _, _, _, sensitivity := s.sums(i, float64(start[i]))
				switch {
				case math.IsNaN(want):
				case math.IsInf(mass[i], 1):
					require.NotEqual(t, fdual.TotalVariation, law.Law, what)
				case want == 0:
					require.Zero(t, mass[i], what)
				default:
					require.InDelta(t, 0, math.Log(mass[i]/want), unit[T]()*(64+16*sensitivity), what)
				}
				require.LessOrEqual(t, steps[i], int32(60), what)
				require.LessOrEqual(t, warm[i], int32(60), what)
			}
			evaluate(t, dev, s, p, name)
		}
	}
}

func evaluate[T kt.Float](t *testing.T, dev gpu.Device, s problem[T], p []T, name string) {
	pairs, _ := s.upload(t, dev)
	at := kt.Put(t, dev, p)
	var out [5]*kt.Array[float64]
	for k := range out {
		out[k] = kt.Poison[float64](t, dev, s.n)
	}
	require.NoError(t, pairs.Eval(dev, fdual.EvalArgs{P: at.Tensor,
		Mass: out[0].Tensor, Mean: out[1].Tensor, F: out[2].Tensor, Psi: out[3].Tensor, Edge: out[4].Tensor}))
	for i := range s.n {
		if math.IsNaN(float64(p[i])) {
			continue
		}
		var want [5]float64
		var sensitivity float64
		want[0], want[1], want[2], want[3], want[4], sensitivity = s.sums(i, float64(p[i]))
		for k := range out {
			got := out[k].Get(t)[i]
			if math.IsInf(want[k], 0) {
				require.Equal(t, want[k], got, "%s sum %d size %d,%d cost %v", name, k, s.n, s.m, s.pairs.Cost)
				continue
			}
			// f of a large or small φ moves by y, at most some ten, for each part of φ.
			budget := unit[T]() * (1 + math.Abs(want[k]) + want[0]) * (64 + 32*sensitivity) * 10
			require.InDelta(t, want[k], got, budget, "%s: sum %d of row %d", name, k, i)
		}
	}
}

// The roots themselves, against bisection, where they are unique and well
// conditioned: in float64, to what the equation determines.
func TestRootsByBisection(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for name, law := range laws() {
			if law.Law == fdual.TotalVariation && law.Slope != 0 {
				continue // may be flat
			}
			s := instance[float64](law, 3, 37, 2, 77)
			p, _, _ := solve(t, dev.Device, s, nil)
			for i := range s.n {
				require.InDelta(t, s.root(i), p[i], 1e-9, "%s row %d", name, i)
			}
		}
	})
}

// Pearson's row in closed form: with the s_j = q_j + slope c_ij in descending
// order, z = p + s, the active prefix m has Σ_{j≤m} b_j (p + s_j) = 1 and
// s_m ≥ -p ≥ s_{m+1}.
func TestPearsonIsTheSortedForm(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		s := instance[float64](fdual.Pairs{Law: fdual.Power, A: 2, Slope: -3}, 20, 90, 2, 5)
		p, _, steps := solve(t, dev.Device, s, nil)
		for i := range s.n {
			want := math.NaN()
			for m := range s.m { // each threshold in turn: quadratic, but without a sort to trust
				_, _, edge, ok := s.pair(i, m)
				if !ok {
					continue
				}
				weight, sum, next := 0.0, 0.0, math.Inf(-1)
				for j := range s.m {
					_, logw, z, ok := s.pair(i, j)
					switch {
					case ok && z >= edge:
						weight += math.Exp(logw)
						sum += math.Exp(logw) * z
					case ok:
						next = math.Max(next, z)
					}
				}
				if v := (1 - sum) / weight; edge+v >= 0 && next+v <= 0 {
					want = v
				}
			}
			require.InDelta(t, want, p[i], 1e-13, "row %d", i)
			require.LessOrEqual(t, steps[i], int32(25))
		}
	})
}

// Steep and shallow rows: densities of 10^±30 and weights that underflow.
func TestExtremeRows(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for name, law := range laws() {
			if law.Decay == 0 || law.Law == fdual.Exp || law.Law == fdual.TotalVariation {
				continue
			}
			for _, shift := range []float64{-69, 69} {
				law.Shift = shift
				s := instance[float64](law, 2, 40, 2, 3)
				if !math.IsInf(s.logb[3], -1) {
					s.logb[3] -= 800
				}
				p, _, steps := solve(t, dev.Device, s, nil)
				for i := range s.n {
					sum, _, _, _, _, sensitivity := s.sums(i, p[i])
					require.InDelta(t, 0, math.Log(sum), 0x1p-53*(256+16*sensitivity), "%s shift %v: %v after %d", name, shift, p[i], steps[i])
				}
			}
		}
	})
}

// A total variation row at rest stays: any p with |z| <= ½ solves it.
func TestFlatRowsKeepTheirStart(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		s := problem[float64]{n: 1, m: 4, d: 1, x: []float64{0}, y: []float64{0, .1, .2, .3}, q: make([]float64, 4),
			logb:  []float64{math.Log(.25), math.Log(.25), math.Log(.25), math.Log(.25)},
			pairs: fdual.Pairs{Law: fdual.TotalVariation, Delta: 0.1, Slope: -1}}
		for _, start := range []float64{-0.3, 0, 0.2} {
			p, mass, _ := solve(t, dev.Device, s, []float64{start})
			require.Equal(t, start, p[0])
			require.Equal(t, 1.0, mass[0])
		}
	})
}

// What has no root says so, and only there.
func TestNoRoot(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for name, law := range laws() {
			law.Cost = softmin.Matrix
			s := instance[float64](law, 4, 3, 0, 1)
			s.logb, s.q = []float64{-1, -1, -2}, []float64{0, 0.1, 0.2}
			s.matrix = []float64{
				1, 2, inf,
				inf, inf, inf,
				1, nan, 1,
				2, 2, 2,
			}
			p, _, _ := solve(t, dev.Device, s, nil)
			require.False(t, math.IsNaN(p[0]), name)
			require.True(t, math.IsNaN(p[1]), name)
			require.True(t, math.IsNaN(p[2]), name)
			require.False(t, math.IsNaN(p[3]), name)
			s.logb = []float64{-inf, -inf, -inf}
			p, _, _ = solve(t, dev.Device, s, nil)
			require.True(t, math.IsNaN(p[0]), name)
		}
	})
}

// A start outside of the domain has infinite mass and the same root.
func TestInfeasibleStart(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		s := instance[float64](fdual.Pairs{Law: fdual.Power, A: 0, Slope: 1}, 5, 33, 2, 8)
		want, _, _ := solve(t, dev.Device, s, nil)
		p, mass, _ := solve(t, dev.Device, s, []float64{-100, -100, -100, -100, -100})
		for i := range p {
			require.True(t, math.IsInf(mass[i], 1))
			require.InDelta(t, want[i], p[i], 1e-13)
		}
	})
}

// Repeats are equal to the bit, whatever the number of workers.
func TestRepeats(t *testing.T) {
	law := fdual.Pairs{Law: fdual.JensenShannon, Slope: 1}
	s := instance[float32](law, 50, 300, 3, 4)
	var first []float32
	for _, workers := range []int{1, 3} {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(t, err)
		defer dev.Close()
		p, _, _ := solve(t, dev, s, nil)
		if first == nil {
			first = p
		}
		require.NoError(t, kt.BitEqual(p, first))
	}
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		a, _, _ := solve(t, dev.Device, s, nil)
		b, _, _ := solve(t, dev.Device, s, nil)
		require.NoError(t, kt.BitEqual(a, b))
	})
}
