package softmin_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/softmin"
	"github.com/fortet/fortet/tensor"
)

// costs and dimensions reach every way of computing a score.
var forms = []struct {
	cost softmin.Cost
	d    int
}{
	{softmin.SqEuclidean, 2}, {softmin.HalfSqEuclidean, 6}, {softmin.Euclidean, 3},
	{softmin.SqEuclidean, 40}, {softmin.HalfSqEuclidean, 70}, {softmin.Euclidean, 30},
	{softmin.Matrix, 1},
}

// eachForm runs body in float64 on every device for every form.
func eachForm(t *testing.T, body func(t *testing.T, dev kt.Target, p problem[float64])) {
	t.Helper()
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for i, f := range forms {
			t.Run(fmt.Sprintf("%v,d=%d", f.cost, f.d), func(t *testing.T) {
				body(t, dev, random[float64](uint64(i+1), f.cost, 41, 83, f.d, 0.3*float64(f.d)))
			})
		}
	})
}

// few units in the last place of what z adds up.
func tolerance(p problem[float64]) float64 {
	return float64(p.d+8) * 0x1p-52 * p.epsilon * (1 + define[float64](p, p.products()).condition)
}

// softmin(g + s) = softmin(g) - s, and b_j scaled by t scales exp(-softmin / ε).
func TestShift(t *testing.T) {
	eachForm(t, func(t *testing.T, dev kt.Target, p problem[float64]) {
		q := p
		q.g, q.logb = slices.Clone(p.g), slices.Clone(p.logb)
		for j := range q.g {
			q.g[j] += 3
			q.logb[j] += 0.5
		}
		want := runSoftmin(t, dev, p)
		for i := range want {
			want[i] -= 3 + 0.5*p.epsilon
		}
		require.NoError(t, kt.Within(runSoftmin(t, dev, q), want, tolerance(p)+tolerance(q)))
	})
}

// Targets have no order, and one may be split into two of the same place.
func TestPermuteAndSplit(t *testing.T) {
	eachForm(t, func(t *testing.T, dev kt.Target, p problem[float64]) {
		r := rand.New(rand.NewPCG(4, 4))
		order := r.Perm(p.m)
		order = append(order, order[5]) // one target twice, with two thirds and one third of its weight
		q := p
		q.m++
		q.y, q.g, q.logb, q.v, q.matrix = nil, nil, nil, nil, nil
		for at, j := range order {
			q.g, q.logb = append(q.g, p.g[j]), append(q.logb, p.logb[j])
			q.v = append(q.v, p.v[j*p.k:(j+1)*p.k]...)
			if p.cost != softmin.Matrix {
				q.y = append(q.y, p.y[j*p.d:(j+1)*p.d]...)
			}
			switch at {
			case 5:
				q.logb[at] += math.Log(2. / 3)
			case p.m:
				q.logb[at] += math.Log(1. / 3)
			}
		}
		if p.cost == softmin.Matrix {
			for i := range p.n {
				for _, j := range order {
					q.matrix = append(q.matrix, p.matrix[i*p.m+j])
				}
			}
		}
		a, b := run(t, dev, p), run(t, dev, q)
		require.NoError(t, kt.Within(b.out, a.out, 2*tolerance(p)))
		merged := slices.Clone(b.col)
		merged[5] += merged[p.m]
		want := make([]float64, p.m)
		for at, j := range order[:p.m] {
			want[at] = a.col[j]
		}
		require.NoError(t, kt.Within(merged[:p.m], want, 4*tolerance(p)/p.epsilon*largest(want)))
	})
}

// Softmin is homogeneous: costs, potentials and ε times t give results times t.
func TestScale(t *testing.T) {
	eachForm(t, func(t *testing.T, dev kt.Target, p problem[float64]) {
		const by = 3.7
		q := p
		length := by // of costs, for coordinates
		if p.cost == softmin.SqEuclidean || p.cost == softmin.HalfSqEuclidean {
			length = math.Sqrt(by)
		}
		times := func(v []float64, f float64) []float64 {
			w := slices.Clone(v)
			for i := range w {
				w[i] *= f
			}
			return w
		}
		q.x, q.y, q.matrix, q.g, q.epsilon = times(p.x, length), times(p.y, length), times(p.matrix, by), times(p.g, by), p.epsilon*by
		want := times(runSoftmin(t, dev, p), by)
		require.NoError(t, kt.Within(runSoftmin(t, dev, q), want, by*2*tolerance(p)))
	})
}

// As ε → 0, softmin → min_j c_ij - g_j, within ε times the entropy of the weights.
func TestSmallEpsilon(t *testing.T) {
	eachForm(t, func(t *testing.T, dev kt.Target, p problem[float64]) {
		p.epsilon = 1e-6
		want := make([]float64, p.n)
		for i := range want {
			want[i] = math.Inf(1)
			for j := range p.m {
				one := p
				one.n, one.m, one.epsilon = 1, 1, 1
				if p.cost == softmin.Matrix {
					one.matrix = p.matrix[i*p.m+j:][:1]
				} else {
					one.x, one.y = p.x[i*p.d:][:p.d], p.y[j*p.d:][:p.d]
				}
				one.g, one.logb, one.f, one.v, one.loga = p.g[j:][:1], []float64{0}, []float64{0}, p.v[j*p.k:][:p.k], nil
				want[i] = min(want[i], define[float64](one, false).out[0])
			}
		}
		worst := largest(p.logb) + math.Log(float64(p.m))
		require.NoError(t, kt.Within(runSoftmin(t, dev, p), want, p.epsilon*worst+tolerance(p)))
	})
}

// The plan of softmin has rows that sum to one; the transposed plan, of the
// same potentials, has the column sums of sweep, and both have the same total.
func TestTransposition(t *testing.T) {
	eachForm(t, func(t *testing.T, dev kt.Target, p problem[float64]) {
		p.damp = 1
		got := run(t, dev, p)
		p.f = got.out
		budget := 4 * tolerance(p) / p.epsilon
		ones := slices.Repeat([]float64{1}, p.n)
		require.NoError(t, kt.Within(run(t, dev, p).mass, ones, budget))

		q := problem[float64]{n: p.m, m: p.n, d: p.d, k: 1, cost: p.cost, epsilon: p.epsilon, damp: 1,
			x: p.y, y: p.x, g: got.out, logb: p.loga, f: make([]float64, p.m), v: make([]float64, p.n)}
		for j := range q.f {
			q.f[j] = p.g[j] + p.epsilon*p.logb[j]
		}
		if p.cost == softmin.Matrix {
			for j := range p.m {
				for i := range p.n {
					q.matrix = append(q.matrix, p.matrix[i*p.m+j])
				}
			}
		}
		require.NoError(t, kt.Within(run(t, dev, q).mass, got.col, budget*largest(got.col)))
		var total, want float64
		for j := range got.col {
			total += got.col[j]
		}
		for i := range p.loga {
			want += math.Exp(p.loga[i])
		}
		require.InEpsilon(t, want, total, budget)
	})
}

// The gradient of apply at f = softmin is that of softmin, by central
// differences, whose error is h² times a third derivative of order 1/ε² and the
// rounding of softmin over h.
func TestGradient(t *testing.T) {
	eachForm(t, func(t *testing.T, dev kt.Target, p problem[float64]) {
		if p.cost == softmin.Matrix {
			return
		}
		p.f = runSoftmin(t, dev, p)
		grad := run(t, dev, p).grad
		const h = 1e-4
		slope := 1 + largest(p.y) + largest(p.x)
		budget := h*h*math.Pow(slope, 3)*(1+1/p.epsilon/p.epsilon) + 2*tolerance(p)/h
		for _, k := range []int{0, p.d - 1} {
			at := func(h float64) []float64 {
				q := p
				q.x = slices.Clone(p.x)
				for i := range p.n {
					q.x[i*p.d+k] += h
				}
				return runSoftmin(t, dev, q)
			}
			up, down := at(h), at(-h)
			got, want := make([]float64, p.n), make([]float64, p.n)
			for i := range p.n {
				got[i], want[i] = grad[i*p.d+k], (up[i]-down[i])/(2*h)
			}
			require.NoError(t, kt.Within(got, want, budget))
		}
	})
}

// Results are bit-equal whatever the number of workers, and whenever repeated.
func TestWorkers(t *testing.T) {
	for i, f := range forms {
		p := random[float32](uint64(i+1), f.cost, 501, 1037, f.d, 0.3*float64(f.d))
		var first results[float32]
		for _, workers := range []int{1, 2, 3, 7} {
			d, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
			require.NoError(t, err)
			dev := kt.Target{Name: "cpu", Device: d}
			t.Run(fmt.Sprintf("%v/workers=%d", p, workers), func(t *testing.T) { // frees its arrays
				got := run(t, dev, p)
				if workers == 1 {
					first = got
				}
				bitEqual(t, got, first)
			})
			require.NoError(t, d.Close())
		}
	}
}

func TestRepeats(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for i, f := range forms {
			p := random[float32](uint64(i+1), f.cost, 130, 257, f.d, 0.3*float64(f.d))
			a := put(t, dev, p)
			out, col := kt.Poison[float32](t, dev.Device, p.n), kt.Poison[float64](t, dev.Device, p.m)
			var first results[float32]
			repeats := 50
			if dev.Properties().Kind == gpu.Emulation {
				repeats = 5
			}
			for repeat := range repeats {
				require.NoError(t, a.pairs.Sweep(dev.Device, softmin.SweepArgs{
					LogA: a.loga.Tensor, Damp: 1, Out: out.Tensor, Col: col.Tensor}))
				got := results[float32]{out: out.Get(t), col: col.Get(t)}
				if repeat == 0 {
					first = got
				}
				bitEqual(t, got, first)
				require.NoError(t, tensor.Set(out.Tensor, slices.Repeat([]float32{-7}, p.n)))
				require.NoError(t, tensor.Set(col.Tensor, slices.Repeat([]float64{-7}, p.m)))
			}
		}
	})
}

func bitEqual(t *testing.T, a, b results[float32]) {
	t.Helper()
	require.NoError(t, kt.BitEqual(a.col, b.col))
	for _, v := range [][2][]float32{{a.out, b.out}, {a.swept, b.swept}, {a.mass, b.mass}, {a.mean, b.mean}, {a.r, b.r}, {a.grad, b.grad}} {
		require.NoError(t, kt.BitEqual(v[0], v[1]))
	}
}

// A recorded sweep uses the arguments of the record whenever it is replayed.
func TestRecord(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		p := random[float64](8, softmin.SqEuclidean, 30, 50, 3, 0.5)
		want := run(t, dev, p)
		a := put(t, dev, p)
		out, col := kt.Poison[float64](t, dev.Device, p.n), kt.Poison[float64](t, dev.Device, p.m)
		g, err := dev.Record(func() error {
			return a.pairs.Sweep(dev.Device, softmin.SweepArgs{LogA: a.loga.Tensor, Damp: p.damp, Out: out.Tensor, Col: col.Tensor})
		})
		require.NoError(t, err)
		defer g.Close()
		for range 2 {
			require.NoError(t, tensor.Set(col.Tensor, make([]float64, p.m)))
			require.NoError(t, g.Replay())
			require.NoError(t, kt.BitEqual(out.Get(t), want.swept))
			require.NoError(t, kt.BitEqual(col.Get(t), want.col))
		}
	})
}

// Sweeps of many columns compute scores twice instead of keeping them.
func TestManyColumns(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		if dev.Properties().Kind != gpu.CPU {
			return // the division in question is the CPU's
		}
		for _, c := range []struct{ n, m, d int }{{3, 100_001, 1}, {2, 270_001, 2}, {2, 45_001, 9}} {
			p := random[float32](6, softmin.SqEuclidean, c.n, c.m, c.d, float64(c.d))
			p.k, p.v = 1, p.v[:p.m]
			verify(t, p, run(t, dev, p))
		}
	})
}

// r = P V for many columns of V, as images have.
func TestManyValues(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, k := range []int{8, 9, 32, 33, 130} {
			p := random[float32](6, softmin.SqEuclidean, 27, 300, 3, 1)
			p.k, p.v = k, random[float32](7, softmin.SqEuclidean, 1, 300, k, 1).y
			verify(t, p, run(t, dev, p))
		}
	})
}
