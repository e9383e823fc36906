package gmm_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// plan is a mixture on the host; axes may be nil.
type plan[T kerneltest.Float] struct {
	logits, means, scales, axes []T
	k, d                        int
	epsilon                     float64
}

// on puts the mixture on a device.
func (p plan[T]) on(t testing.TB, dev gpu.Device) (gmm.Mixture, []*kerneltest.Array[T]) {
	t.Helper()
	arrays := []*kerneltest.Array[T]{
		kerneltest.Put(t, dev, p.logits), kerneltest.Put(t, dev, p.means, p.k, p.d), kerneltest.Put(t, dev, p.scales, p.k, p.d),
	}
	m := gmm.Mixture{Logits: arrays[0].Tensor, Means: arrays[1].Tensor, Scales: arrays[2].Tensor, Epsilon: p.epsilon}
	if p.axes != nil {
		arrays = append(arrays, kerneltest.Put(t, dev, p.axes, p.k, p.d, p.d))
		m.Axes = arrays[3].Tensor
	}
	return m, arrays
}

// axis is row q of A_j, in float64.
func (p plan[T]) axis(j, q int) []float64 {
	v := make([]float64, p.d)
	if p.axes == nil {
		v[q] = 1
		return v
	}
	for i := range v {
		v[i] = float64(p.axes[(j*p.d+q)*p.d+i])
	}
	return v
}

// planAt is what the plan says of one x0: the components' weights, means and
// covariances are ε S_j. slack bounds the error of a logit in T: that of its
// sums, d + 8 roundings of terms as large as theirs, with axes two such sums.
type planAt struct {
	weights []float64
	means   [][]float64
	slack   float64
}

func (p plan[T]) at(x []T) planAt {
	out := planAt{make([]float64, p.k), make([][]float64, p.k), 0}
	top, total := math.Inf(-1), 0.0
	for j := range p.k {
		mean := make([]float64, p.d)
		linear, quadratic, size := 0.0, 0.0, 0.0
		for i := range mean {
			mean[i] = float64(p.means[j*p.d+i])
			linear += mean[i] * float64(x[i])
			size += math.Abs(mean[i] * float64(x[i]))
		}
		for q := range p.d {
			a, s, y, length := p.axis(j, q), float64(p.scales[j*p.d+q]), 0.0, 0.0
			for i := range a {
				y += a[i] * float64(x[i])
				length += math.Abs(a[i] * float64(x[i]))
			}
			quadratic += (s - 1) * y * y
			size += (s + 1) * length * length
			for i := range a {
				mean[i] += s * y * a[i]
			}
		}
		logit := float64(p.logits[j]) + (linear+quadratic/2)/p.epsilon
		out.weights[j], out.means[j] = logit, mean
		top = math.Max(top, logit)
		out.slack = math.Max(out.slack, sampleUnit[T]()*(float64(2*p.d+8)*size/p.epsilon+2*math.Abs(logit)))
	}
	for j, l := range out.weights {
		out.weights[j] = math.Exp(l - top)
		total += out.weights[j]
	}
	for j := range out.weights {
		out.weights[j] /= total
	}
	return out
}

func sampleUnit[T kerneltest.Float]() float64 {
	if tensor.TypeOf[T]() == tensor.Float32 {
		return 0x1p-24
	}
	return 0x1p-53
}

// drawn are the three outputs.
type drawn[T kerneltest.Float] struct {
	x1, xt    []T
	component []int32
}

// sample asks for all outputs; times may be nil.
func sample[T kerneltest.Float](t testing.TB, dev gpu.Device, p plan[T], x0, times []T, t0 float64, draw philox.Draw) drawn[T] {
	t.Helper()
	n := len(x0) / p.d
	m, inputs := p.on(t, dev)
	from := kerneltest.Put(t, dev, x0, n, p.d)
	inputs = append(inputs, from)
	args := gmm.SampleArgs{Mixture: m, X0: from.Tensor, T0: t0, Draw: draw, Component: components(t, dev, n)}
	if times != nil {
		at := kerneltest.Put(t, dev, times)
		inputs = append(inputs, at)
		args.T = at.Tensor
	}
	x1, xt := kerneltest.Poison[T](t, dev, n, p.d), kerneltest.Poison[T](t, dev, n, p.d)
	args.X1, args.Xt = x1.Tensor, xt.Tensor
	require.NoError(t, gmm.Sample(args))
	for _, a := range inputs {
		a.Unmodified(t)
	}
	component, err := tensor.Values[int32](args.Component)
	require.NoError(t, err)
	return drawn[T]{x1.Get(t), xt.Get(t), component}
}

// components is an output of components, full of what no kernel writes.
func components(t testing.TB, dev gpu.Device, n int) tensor.Tensor {
	t.Helper()
	v := make([]int32, n)
	for i := range v {
		v[i] = math.MinInt32
	}
	out, err := tensor.From(dev, v, n)
	require.NoError(t, err)
	t.Cleanup(out.Free)
	return out
}

// randomPlan has components of all weights near the origin.
func randomPlan[T kerneltest.Float](rng *rand.Rand, k, d int, full bool, epsilon float64) plan[T] {
	p := plan[T]{make([]T, k), make([]T, k*d), make([]T, k*d), nil, k, d, epsilon}
	for j := range p.logits {
		p.logits[j] = T(rng.NormFloat64())
	}
	for i := range p.means {
		p.means[i] = T(rng.NormFloat64() / math.Sqrt(float64(d)))
		p.scales[i] = T(math.Exp(rng.NormFloat64() / 2))
	}
	if !full {
		return p
	}
	p.axes = make([]T, k*d*d)
	for j := range k {
		var basis [][]float64 // Gram-Schmidt
		for len(basis) < d {
			v := make([]float64, d)
			for i := range v {
				v[i] = rng.NormFloat64()
			}
			for range 2 {
				for _, b := range basis {
					dot := 0.0
					for i := range v {
						dot += v[i] * b[i]
					}
					for i := range v {
						v[i] -= dot * b[i]
					}
				}
			}
			norm := 0.0
			for _, x := range v {
				norm += x * x
			}
			for i := range v {
				v[i] /= math.Sqrt(norm)
				p.axes[(j*d+len(basis))*d+i] = T(v[i])
			}
			basis = append(basis, v)
		}
	}
	return p
}

// Every row against the definition in float64, with the uniforms and normals of
// package philox: the component by the distribution function, unless the
// uniform is so near to a step of it that roundings decide, and x1 and xt by
// their formulas, up to a few roundings of the sizes of their terms.
func TestSample(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		t.Run("float32", func(t *testing.T) { sampleDefinition[float32](t, dev.Device) })
		t.Run("float64", func(t *testing.T) { sampleDefinition[float64](t, dev.Device) })
	})
}

func sampleDefinition[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	rng := rand.New(rand.NewPCG(11, 5))
	for _, s := range []struct {
		n, k, d int
		full    bool
	}{
		{1, 1, 1, false}, {31, 3, 1, false}, {129, 50, 2, false}, {65, 7, 3, false}, {64, 2, 4, false}, {63, 31, 5, false}, {33, 33, 8, false},
		{17, 5, 9, false}, {5, 127, 31, false}, {7, 32, 32, false}, {9, 3, 33, false}, {6, 4, 131, false}, {2, 2, 1031, false},
		{33, 3, 1, true}, {70, 5, 2, true}, {66, 3, 3, true}, {9, 4, 7, true}, {65, 2, 8, true}, {6, 3, 9, true}, {5, 2, 33, true}, {2, 2, 66, true},
	} {
		p := randomPlan[T](rng, s.k, s.d, s.full, 0.5)
		x0, times := make([]T, s.n*s.d), make([]T, s.n)
		for i := range x0 {
			x0[i] = T(rng.NormFloat64() / math.Sqrt(float64(s.d)))
		}
		for i := range times {
			times[i] = T(rng.Float64())
		}
		draw := philox.Draw{Seed: 6, Index: 1<<32 - 3, Step: uint32(s.k), Purpose: 253}
		got := sample(t, dev, p, x0, times, 0, draw)

		uniform, noise, noiseT := make([]T, s.n), make([]T, s.n*s.d), make([]T, s.n*s.d)
		require.NoError(t, philox.HostUniform(uniform, 1, draw))
		draw.Purpose++
		require.NoError(t, philox.HostNormal(noise, s.d, draw))
		draw.Purpose++
		require.NoError(t, philox.HostNormal(noiseT, s.d, draw))
		decided := 0
		for i := range s.n {
			row := x0[i*s.d : (i+1)*s.d]
			at := p.at(row)
			j := int(got.component[i])
			require.True(t, j >= 0 && j < s.k, "%+v row %d: component %d", s, i, j)
			// An error of slack in the logits is one of twice that, relative,
			// in the weights.
			below, slack := 0.0, 4*at.slack+float64(s.k+8)*sampleUnit[T]()
			for _, w := range at.weights[:j] {
				below += w
			}
			u := float64(uniform[i])
			require.True(t, below-slack <= u && u <= below+at.weights[j]+slack, "%+v row %d: component %d, u %v in [%v, +%v)", s, i, j, u, below, at.weights[j])
			if below+slack < u && u < below+at.weights[j]-slack {
				decided++
			}

			want, size := append([]float64(nil), at.means[j]...), 0.0
			for _, x := range want {
				size = math.Max(size, math.Abs(x))
			}
			for q := range s.d {
				step := math.Sqrt(p.epsilon*float64(p.scales[j*s.d+q])) * float64(noise[i*s.d+q])
				for c, a := range p.axis(j, q) {
					want[c] += a * step
				}
			}
			for _, v := range [][]T{row, p.means[j*s.d : (j+1)*s.d], p.scales[j*s.d : (j+1)*s.d]} {
				for _, x := range v {
					size = math.Max(size, math.Abs(float64(x)))
				}
			}
			roundings := 16.0
			if s.full {
				roundings += 4 * float64(s.d)
			}
			budget := roundings * sampleUnit[T]() * (1 + size) * (1 + size)
			require.NoError(t, kerneltest.Within(got.x1[i*s.d:(i+1)*s.d], want, 4*budget), "%+v row %d", s, i)
			time := float64(times[i])
			for c := range want {
				want[c] = (1-time)*float64(row[c]) + time*want[c] + math.Sqrt(p.epsilon*time*(1-time))*float64(noiseT[i*s.d+c])
			}
			require.NoError(t, kerneltest.Within(got.xt[i*s.d:(i+1)*s.d], want, 4*budget), "%+v row %d", s, i)
		}
		require.GreaterOrEqual(t, 10*decided, 9*s.n, "%+v: too few rows are decided: the test is vacuous", s)
	}
}

// modelA is M_A of the design, with axes turned by the angles where full.
func modelA(full bool) plan[float64] {
	p := plan[float64]{
		logits: []float64{-0.3, 0.2, -1.1}, means: []float64{1, -.5, -.8, .6, .3, 1.4}, scales: []float64{.40, 1.50, .90, .25, 2.00, .70},
		k: 3, d: 2, epsilon: 0.5,
	}
	if full {
		for _, angle := range []float64{.3, -.9, 1.2} { // S = Rot diag Rotᵀ: rows of A are columns of Rot
			c, s := math.Cos(angle), math.Sin(angle)
			p.axes = append(p.axes, c, s, -s, c)
		}
	}
	return p
}

// The plan of M_A at x0 = (0.7, -0.4).
func TestSampleModel(t *testing.T) {
	at := modelA(false).at([]float64{0.7, -0.4})
	require.NoError(t, kerneltest.Within(at.weights, []float64{0.886028226, 0.050996082, 0.062975692}, 1e-9))
	for j, want := range [][]float64{{1.28, -1.1}, {-.17, .5}, {1.7, 1.12}} {
		require.NoError(t, kerneltest.Within(at.means[j], want, 1e-15))
	}
}

// Frequencies, means and covariances of n samples from one x0, of x1 and of xt,
// within five standard errors: √(w(1-w)/n), √(C_aa/n) and √(Var y_a y_b / n)
// with y = x - E x, where for a normal of mean δ and covariance C
//
//	E y_a² y_b² = (C_aa + δ_a²)(C_bb + δ_b²) + 2 C_ab² + 4 C_ab δ_a δ_b.
//
// Each coordinate of xt passes the test of Kolmogorov and Smirnov at 1e-4:
// √n sup |F_n - F| ≤ 2.23.
func TestSampleMoments(t *testing.T) {
	const n, sigmas, time = 1 << 15, 5, 0.6
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	start := []float64{0.7, -0.4}
	x0 := make([]float64, 2*n)
	for i := range x0 {
		x0[i] = start[i%2]
	}
	for _, full := range []bool{false, true} {
		p := modelA(full)
		at := p.at(start)
		got := sample(t, dev, p, x0, nil, time, philox.Draw{Seed: 99})
		var count [3]float64
		for _, j := range got.component {
			count[j]++
		}
		for j, w := range at.weights {
			require.LessOrEqual(t, math.Abs(count[j]/n-w), sigmas*math.Sqrt(w*(1-w)/n), "component %d", j)
		}
		for _, c := range []struct {
			x          []float64
			keep, diff float64 // x = (1-keep) x0 + keep x1 + √diff n
		}{{got.x1, 1, 0}, {got.xt, time, p.epsilon * time * (1 - time)}} {
			var mean [2]float64
			for j, w := range at.weights {
				for a := range mean {
					mean[a] += w * ((1-c.keep)*start[a] + c.keep*at.means[j][a])
				}
			}
			normal := func(j int) (delta [2]float64, cov [2][2]float64) {
				for a := range 2 {
					delta[a] = (1-c.keep)*start[a] + c.keep*at.means[j][a] - mean[a]
					cov[a][a] += c.diff
				}
				for q := range 2 {
					axis, s := p.axis(j, q), p.scales[2*j+q]
					for a := range 2 {
						for b := range 2 {
							cov[a][b] += c.keep * c.keep * p.epsilon * s * axis[a] * axis[b]
						}
					}
				}
				return delta, cov
			}
			for a := range 2 {
				for b := range a + 1 {
					product, square, first := 0.0, 0.0, 0.0
					for j, w := range at.weights {
						e, v := normal(j)
						product += w * (v[a][b] + e[a]*e[b])
						square += w * ((v[a][a]+e[a]*e[a])*(v[b][b]+e[b]*e[b]) + 2*v[a][b]*v[a][b] + 4*v[a][b]*e[a]*e[b])
						first += w * (v[a][a] + e[a]*e[a])
					}
					sum, sumOf := 0.0, 0.0
					for i := range n {
						sum += (c.x[2*i+a] - mean[a]) * (c.x[2*i+b] - mean[b]) / n
						sumOf += (c.x[2*i+a] - mean[a]) / n
					}
					require.LessOrEqual(t, math.Abs(sumOf), sigmas*math.Sqrt(first/n), "mean %d", a)
					require.LessOrEqual(t, math.Abs(sum-product), sigmas*math.Sqrt((square-product*product)/n), "covariance %d %d", a, b)
				}
				values := make([]float64, n)
				for i := range values {
					values[i] = c.x[2*i+a] - mean[a]
				}
				slices.Sort(values)
				worst := 0.0
				for i, x := range values {
					cdf := 0.0
					for j, w := range at.weights {
						e, v := normal(j)
						cdf += w * math.Erfc((e[a]-x)/math.Sqrt(2*v[a][a])) / 2
					}
					worst = math.Max(worst, math.Max(cdf-float64(i)/n, float64(i+1)/n-cdf))
				}
				require.LessOrEqual(t, worst*math.Sqrt(n), 2.23, "coordinate %d", a)
			}
		}
	}
}

// One component is an affine map of the normals, exactly; at t = 0 the bridge is
// where it begins, at t = 1 where it ends.
func TestSampleOneComponent(t *testing.T) {
	const n, d = 67, 5
	rng := rand.New(rand.NewPCG(1, 2))
	p := randomPlan[float64](rng, 1, d, false, 0.25)
	x0, noise := make([]float64, n*d), make([]float64, n*d)
	require.NoError(t, philox.HostNormal(x0, d, philox.Draw{Seed: 1}))
	draw := philox.Draw{Seed: 2, Purpose: 9}
	require.NoError(t, philox.HostNormal(noise, d, philox.Draw{Seed: 2, Purpose: 10}))
	want := make([]float64, n*d)
	for i := range want {
		s := p.scales[i%d]
		want[i] = math.FMA(math.Sqrt(p.epsilon*s), noise[i], math.FMA(s, x0[i], p.means[i%d]))
	}
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		start, end := sample(t, dev.Device, p, x0, nil, 0, draw), sample(t, dev.Device, p, x0, nil, 1, draw)
		require.Equal(t, make([]int32, n), start.component)
		require.NoError(t, kerneltest.BitEqual(start.x1, want))
		require.NoError(t, kerneltest.BitEqual(start.xt, x0))
		require.NoError(t, kerneltest.BitEqual(end.xt, want))
	})
}

// A component of weight zero is never drawn, whatever else there is; what is no
// number gives component -1 and NaN, in its row alone.
func TestSampleExtremes(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, d := range []int{2, 11} {
			for _, full := range []bool{false, true} {
				rng := rand.New(rand.NewPCG(3, 2))
				p := randomPlan[float32](rng, 3, d, full, 0.1)
				n := 70
				x0 := make([]float32, n*d)
				require.NoError(t, philox.HostNormal(x0, d, philox.Draw{Seed: 1}))
				inf, nan := float32(math.Inf(1)), float32(math.NaN())
				p.logits = []float32{-inf, 0, -inf}
				for _, j := range sample(t, dev.Device, p, x0, nil, 0.5, philox.Draw{}).component {
					require.EqualValues(t, 1, j)
				}
				p.logits = []float32{1e30, 1, 1e30 / 2} // far apart
				for _, j := range sample(t, dev.Device, p, x0, nil, 0.5, philox.Draw{}).component {
					require.EqualValues(t, 0, j)
				}
				p.logits = []float32{0, 1, 2}
				whole := sample(t, dev.Device, p, x0, nil, 0.5, philox.Draw{})
				bad := append([]float32(nil), x0...)
				bad[3*d] = nan
				got := sample(t, dev.Device, p, bad, nil, 0.5, philox.Draw{})
				require.EqualValues(t, -1, got.component[3])
				for i := range n {
					if i == 3 {
						for _, x := range slices.Concat(got.x1[i*d:(i+1)*d], got.xt[i*d:(i+1)*d]) {
							require.True(t, x != x)
						}
						continue
					}
					require.Equal(t, whole.component[i], got.component[i])
					require.NoError(t, kerneltest.BitEqual(got.x1[i*d:(i+1)*d], whole.x1[i*d:(i+1)*d]))
				}
				for _, logits := range [][]float32{{-inf, -inf, -inf}, {0, nan, 0}, {0, inf, 0}} {
					p.logits = logits
					for _, j := range sample(t, dev.Device, p, x0, nil, 0.5, philox.Draw{}).component {
						require.EqualValues(t, -1, j)
					}
				}
			}
		}
	})
}

// All devices agree bit for bit, with a batch that is cut, and whichever
// outputs are asked for, apart from the input or in its place.
func TestSampleAgrees(t *testing.T) {
	t.Run("float32", sampleAgree[float32])
	t.Run("float64", sampleAgree[float64])
}

func sampleAgree[T kerneltest.Float](t *testing.T) {
	for _, s := range []struct {
		k, d int
		full bool
	}{{50, 2, false}, {5, 4, true}, {6, 12, false}, {2, 11, true}} {
		const n, cut = 71, 40
		rng := rand.New(rand.NewPCG(5, 2))
		p := randomPlan[T](rng, s.k, s.d, s.full, 0.3)
		x0, times := make([]T, n*s.d), make([]T, n)
		require.NoError(t, philox.HostNormal(x0, s.d, philox.Draw{Seed: 5}))
		require.NoError(t, philox.HostUniform(times, 1, philox.Draw{Seed: 6}))
		draw := philox.Draw{Seed: 8, Index: math.MaxUint64 - 50, Step: 4, Purpose: 3}
		var first drawn[T]
		kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
			got := sample(t, dev.Device, p, x0, times, 0, draw)
			if first.x1 == nil {
				first = got
			}
			require.Equal(t, first.component, got.component)
			require.NoError(t, kerneltest.BitEqual(got.x1, first.x1))
			require.NoError(t, kerneltest.BitEqual(got.xt, first.xt))
			later := draw
			later.Index += cut
			tail := sample(t, dev.Device, p, x0[cut*s.d:], times[cut:], 0, later)
			require.Equal(t, got.component[cut:], tail.component)
			require.NoError(t, kerneltest.BitEqual(tail.x1, got.x1[cut*s.d:]))
			require.NoError(t, kerneltest.BitEqual(tail.xt, got.xt[cut*s.d:]))

			m, _ := p.on(t, dev.Device)
			at := kerneltest.Put(t, dev.Device, times)
			for mask := 1; mask < 8; mask++ {
				for place := range 3 { // apart, x1 is x0, xt is x0
					if place > 0 && mask&place == 0 {
						continue
					}
					from := kerneltest.Put(t, dev.Device, x0, n, s.d)
					x1, xt := kerneltest.Poison[T](t, dev.Device, n, s.d), kerneltest.Poison[T](t, dev.Device, n, s.d)
					switch place {
					case 1:
						x1 = from
					case 2:
						xt = from
					}
					args := gmm.SampleArgs{Mixture: m, X0: from.Tensor, T: at.Tensor, Draw: draw}
					if mask&1 != 0 {
						args.X1 = x1.Tensor
					}
					if mask&2 != 0 {
						args.Xt = xt.Tensor
					}
					if mask&4 != 0 {
						args.Component = components(t, dev.Device, n)
					}
					require.NoError(t, gmm.Sample(args))
					if mask&1 != 0 {
						require.NoError(t, kerneltest.BitEqual(x1.Get(t), first.x1), "%03b %d", mask, place)
					}
					if mask&2 != 0 {
						require.NoError(t, kerneltest.BitEqual(xt.Get(t), first.xt), "%03b %d", mask, place)
					}
					if mask&4 != 0 {
						j, err := tensor.Values[int32](args.Component)
						require.NoError(t, err)
						require.Equal(t, first.component, j)
					}
				}
			}
		})
	}
}

// More components than a GPU's shared memory has room for: the CPU has room.
// Their weights are equal, so that j is the uniform times their number.
func TestSampleManyComponents(t *testing.T) {
	const k, d = 40_000, 9
	p := plan[float64]{make([]float64, k), make([]float64, k*d), make([]float64, k*d), nil, k, d, 1}
	for i := range p.scales {
		p.scales[i] = 1
	}
	uniform := make([]float64, 2)
	require.NoError(t, philox.HostUniform(uniform, 1, philox.Draw{}))
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		m, _ := p.on(t, dev.Device)
		j := components(t, dev.Device, 2)
		err := gmm.Sample(gmm.SampleArgs{Mixture: m, X0: kerneltest.Put(t, dev.Device, make([]float64, 2*d), 2, d).Tensor, Component: j})
		if dev.Properties().Kind != gpu.CPU {
			require.ErrorIs(t, err, gpu.ErrUnsupported)
			return
		}
		require.NoError(t, err)
		got, err := tensor.Values[int32](j)
		require.NoError(t, err)
		for i, c := range got {
			require.EqualValues(t, math.Floor(uniform[i]*k), c)
		}
	})
}

// A training loop makes no garbage.
func TestSampleNoAllocation(t *testing.T) {
	const n, d = 1001, 2
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	m, _ := randomPlan[float32](rand.New(rand.NewPCG(1, 2)), 10, d, false, 0.1).on(t, dev)
	args := gmm.SampleArgs{
		Mixture: m, X0: kerneltest.Put(t, dev, make([]float32, n*d), n, d).Tensor, T: kerneltest.Put(t, dev, make([]float32, n)).Tensor,
		X1: kerneltest.Poison[float32](t, dev, n, d).Tensor, Xt: kerneltest.Poison[float32](t, dev, n, d).Tensor, Component: components(t, dev, n),
	}
	require.Zero(t, testing.AllocsPerRun(50, func() {
		args.Draw.Step++
		if gmm.Sample(args) != nil {
			t.Fatal("failed")
		}
	}))
}

func TestSampleErrors(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	make := func(dtype tensor.DType, shape ...int) tensor.Tensor {
		return kerneltest.New(t, dev, dtype, shape...)
	}
	f := tensor.Float32
	big, times := make(f, 9, 2), make(f, 4)
	m := gmm.Mixture{Logits: make(f, 3), Means: make(f, 3, 2), Scales: make(f, 3, 2), Epsilon: 1}
	good := gmm.SampleArgs{Mixture: m, X0: make(f, 4, 2), X1: make(f, 4, 2)}
	for _, c := range []struct {
		change func(*gmm.SampleArgs)
		is     error
		text   string
	}{
		{func(a *gmm.SampleArgs) { a.Mixture.Logits = tensor.Tensor{} }, gpu.ErrInvalid, "gmm: sample: logits"},
		{func(a *gmm.SampleArgs) { a.Mixture.Epsilon = 0 }, gpu.ErrInvalid, "gmm: sample: epsilon"},
		{func(a *gmm.SampleArgs) { a.X0 = tensor.Tensor{} }, gpu.ErrInvalid, "gmm: sample: x0"},
		{func(a *gmm.SampleArgs) { a.X0 = make(f, 4, 3) }, tensor.ErrInvalid, "x0: invalid tensor: shape (4, 3), want (4, 2)"},
		{func(a *gmm.SampleArgs) { a.X1 = make(tensor.Float64, 4, 2) }, tensor.ErrInvalid, "x1: invalid tensor: f64, want f32"},
		{func(a *gmm.SampleArgs) { a.Xt = make(f, 5, 2) }, tensor.ErrInvalid, "xt: invalid tensor: shape (5, 2), want (4, 2)"},
		{func(a *gmm.SampleArgs) { a.Component = make(tensor.Int64, 4) }, tensor.ErrInvalid, "component: invalid tensor: i64, want i32"},
		{func(a *gmm.SampleArgs) { a.T = make(f, 3) }, tensor.ErrInvalid, "t: invalid tensor: shape (3,), want (4,)"},
		{func(a *gmm.SampleArgs) { a.T, a.T0 = times, 0.5 }, gpu.ErrInvalid, "t0: invalid argument: got 0.5 beside t, want 0"},
		{func(a *gmm.SampleArgs) { a.T0 = 1.5 }, gpu.ErrInvalid, "t0: invalid argument: got 1.5, want in [0, 1]"},
		{func(a *gmm.SampleArgs) { a.T0 = math.NaN() }, gpu.ErrInvalid, "t0"},
		{func(a *gmm.SampleArgs) { a.X1 = tensor.Tensor{} }, gpu.ErrInvalid, "outputs: invalid argument: none given"},
		{func(a *gmm.SampleArgs) { a.Xt = a.X1 }, gpu.ErrInvalid, "outputs: invalid argument: overlap"},
		{func(a *gmm.SampleArgs) { a.X0, a.X1 = big.Rows(0, 4), big.Rows(1, 5) }, gpu.ErrInvalid, "outputs: invalid argument: overlap"},
		{func(a *gmm.SampleArgs) { a.X0, a.X1 = make(f, 3, 2), a.Means }, gpu.ErrInvalid, "outputs: invalid argument: overlap"},
		{func(a *gmm.SampleArgs) { a.Draw.Purpose = 254 }, gpu.ErrInvalid, "draw: invalid argument: purpose 254, want at most 253"},
	} {
		args := good
		c.change(&args)
		err := gmm.Sample(args)
		require.ErrorIs(t, err, c.is, c.text)
		require.ErrorContains(t, err, c.text)
	}
	good.X0, good.X1 = make(f, 0, 2), make(f, 0, 2)
	require.NoError(t, gmm.Sample(good))
}

// Whatever the shapes and numbers: an error or a component, never a crash.
func FuzzSample(f *testing.F) {
	f.Add(3, 5, 5, 4, 0.5, 0.1, 1.0)
	f.Add(70, 9, 9, 3, 1.0, 1e-30, 1e30)
	f.Add(3, 1, 2, 4, 2.0, math.NaN(), -1.0)
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, n, d, d2, k int, t0, epsilon, value float64) {
		small := func(v int) int { return int(uint(v) % 70) }
		n, d, d2, k = small(n), small(d), small(d2), small(k)
		fill := func(n int) []float64 {
			v := make([]float64, n)
			for i := range v {
				v[i] = value
			}
			return v
		}
		m, _ := plan[float64]{fill(k), fill(k * d), fill(k * d), nil, k, d, epsilon}.on(t, dev)
		j := components(t, dev, n)
		err := gmm.Sample(gmm.SampleArgs{Mixture: m, X0: kerneltest.Put(t, dev, fill(n*d2), n, d2).Tensor, T0: t0, Component: j})
		require.Equal(t, d == d2 && d > 0 && k > 0 && t0 >= 0 && t0 <= 1 && epsilon > 0 && !math.IsInf(epsilon, 0), err == nil, "%v", err)
		got, err2 := tensor.Values[int32](j)
		require.NoError(t, err2)
		for _, c := range got {
			require.True(t, err != nil || c >= -1 && int(c) < k)
		}
	})
}

// ExampleSample draws the end of a bridge whose plan has two targets.
func ExampleSample() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	const n = 20000
	logits, _ := tensor.From(dev, []float64{math.Log(0.25), math.Log(0.75)}, 2)
	means, _ := tensor.From(dev, []float64{-2, 2}, 2, 1)
	scales, _ := tensor.From(dev, []float64{0.5, 0.5}, 2, 1)
	x0, _ := tensor.From(dev, make([]float64, n), n, 1)
	x1, _ := tensor.New(dev, tensor.Float64, n, 1)
	for _, t := range []tensor.Tensor{logits, means, scales, x0, x1} {
		defer t.Free()
	}
	if err := gmm.Sample(gmm.SampleArgs{
		Mixture: gmm.Mixture{Logits: logits, Means: means, Scales: scales, Epsilon: 0.1},
		X0:      x0, X1: x1, Draw: philox.Draw{Seed: 1},
	}); err != nil {
		fmt.Println(err)
		return
	}
	v, _ := tensor.Values[float64](x1)
	left := 0
	for _, x := range v {
		if x < 0 {
			left++
		}
	}
	fmt.Printf("%.2f go left\n", float64(left)/n)
	// Output:
	// 0.25 go left
}

func BenchmarkSample(b *testing.B) {
	for _, dev := range kerneltest.Hardware(b) {
		for _, s := range []struct {
			n, k, d int
			full    bool
		}{{1 << 17, 50, 2, false}, {1 << 17, 50, 2, true}, {1 << 10, 10, 512, false}, {1 << 10, 10, 64, true}} {
			name := fmt.Sprintf("%s/n=%d/k=%d/d=%d/axes=%v", dev.Name, s.n, s.k, s.d, s.full)
			b.Run(name+"/f32", func(b *testing.B) { benchmarkSample[float32](b, dev.Device, s.n, s.k, s.d, s.full) })
			b.Run(name+"/f64", func(b *testing.B) { benchmarkSample[float64](b, dev.Device, s.n, s.k, s.d, s.full) })
		}
	}
}

func benchmarkSample[T kerneltest.Float](b *testing.B, dev gpu.Device, n, k, d int, full bool) {
	p := randomPlan[T](rand.New(rand.NewPCG(1, 2)), k, d, full, 0.1)
	m, _ := p.on(b, dev)
	x0 := make([]T, n*d)
	require.NoError(b, philox.HostNormal(x0, d, philox.Draw{}))
	x1, j := kerneltest.Poison[T](b, dev, n, d), components(b, dev, n)
	args := gmm.SampleArgs{Mixture: m, X0: kerneltest.Put(b, dev, x0, n, d).Tensor, X1: x1.Tensor, Component: j, Draw: philox.Draw{Purpose: 5}}
	for b.Loop() {
		args.Draw.Step++
		if err := gmm.Sample(args); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, dev.Sync())
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sample")
	// The last sample is its component's.
	noise, component := make([]T, d), make([]int32, n)
	draw := args.Draw
	draw.Index, draw.Purpose = uint64(n-1), 6
	require.NoError(b, philox.HostNormal(noise, d, draw))
	require.NoError(b, tensor.Get(j, component))
	c := int(component[n-1])
	want := p.at(x0[(n-1)*d:]).means[c]
	for q := range d {
		for i, a := range p.axis(c, q) {
			want[i] += a * math.Sqrt(p.epsilon*float64(p.scales[c*d+q])) * float64(noise[q])
		}
	}
	require.NoError(b, kerneltest.Within(x1.Get(b)[(n-1)*d:], want, float64(16+4*d)*sampleUnit[T]()*16))
}
