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
	"github.com/fortet/fortet/tensor"
)

// size is a case of the tables: n samples, k components, d coordinates.
type size struct {
	n, k, d int
	turned  bool
}

func (s size) String() string {
	return fmt.Sprintf("n=%d,k=%d,d=%d,turned=%v", s.n, s.k, s.d, s.turned)
}

// epsilon keeps ℓ_j of the order of 10, so that weights differ and none has it all.
func (s size) epsilon() float64 { return max(0.5, float64(s.d)/4) }

// Sizes straddle vectors, blocks of rows, teams of lanes and panels of the
// Jacobian. The emulation takes the small ones.
var sizes = []size{
	{1, 1, 1, false}, {31, 3, 2, false}, {33, 50, 2, false}, {7, 5, 3, false}, {5, 2, 33, false}, {5, 37, 1, false},
	{2, 210, 3, false}, {3, 4, 3, true}, {2, 1, 1, true}, {32, 2, 2, true},
	{65, 31, 5, false}, {127, 9, 4, false}, {129, 7, 3, false}, {4, 5, 31, false}, {2, 3, 130, false}, {9, 33, 17, false}, {66, 3, 5, true}, {2, 2, 34, true},
}

const emulated = 10 // of sizes

func sizesOf(dev gpu.Device) []size {
	if dev.Properties().Kind == gpu.Emulation {
		return sizes[:emulated]
	}
	return sizes
}

// Every output against the definition, with a time for each sample and with one.
func TestEvaluate(t *testing.T) {
	type problem struct {
		size
		m           model[float64]
		x, v, times []float64
		fixed       float64 // < 0: times
		want        values[float64]
		naive       []values[float32]
	}
	rng := rand.New(rand.NewPCG(7, 1))
	problems := make([][]problem, len(sizes))
	for i, s := range sizes {
		for _, fixed := range []float64{-1, 0, 0.625, 1} {
			p := problem{s, random(rng, s.k, s.d, s.epsilon(), s.turned), normals(rng, s.n*s.d), normals(rng, s.n*s.d),
				uniforms(rng, s.n), fixed, values[float64]{}, nil}
			p.times[0] = 1
			if fixed >= 0 {
				p.times = slices.Repeat([]float64{fixed}, s.n)
			}
			p.want = define(p.m, p.x, p.v, p.times)
			p.naive = naive(rng, p.m, p.x, p.v, nil, p.times, func(in inputs) values[float32] {
				return define(in.model, in.x, in.u, in.times)
			})
			problems[i] = append(problems[i], p)
		}
	}
	each(t, func(t *testing.T, dev gpu.Device) {
		for _, of := range problems[:len(sizesOf(dev))] {
			for _, p := range of {
				times, t0 := p.times, 0.0
				if p.fixed >= 0 {
					times, t0 = nil, p.fixed
				}
				name := fmt.Sprintf("%v at %v", p.size, p.fixed)
				withinAll(t, evaluate[float32](t, dev, p.m, p.x, times, t0, p.v), p.naive, p.want, name)
				withinAll(t, evaluate[float64](t, dev, p.m, p.x, times, t0, p.v), p.naive, p.want, name)
			}
		}
	})
}

func withinAll[T kerneltest.Float](t *testing.T, got values[T], naive []values[float32], want values[float64], name string) {
	t.Helper()
	within(t, got.value, want.value, 0, naive, func(v values[float32]) []float32 { return v.value }, name+": value")
	within(t, got.drift, want.drift, 0, naive, func(v values[float32]) []float32 { return v.drift }, name+": drift")
	within(t, got.weights, want.weights, 0, naive, func(v values[float32]) []float32 { return v.weights }, name+": weights")
	within(t, got.jacobian, want.jacobian, 0, naive, func(v values[float32]) []float32 { return v.jacobian }, name+": jacobian")
	within(t, got.product, want.product, 0, naive, func(v values[float32]) []float32 { return v.product }, name+": product")
	within(t, got.trace, want.trace, 0, naive, func(v values[float32]) []float32 { return v.trace }, name+": trace")
	within(t, got.norm2, want.norm2, 0, naive, func(v values[float32]) []float32 { return v.norm2 }, name+": norm2")
}

// define is all outputs by the definition.
func define[T kerneltest.Float](m model[T], x, v, times []T) (out values[T]) {
	d := m.d
	for b, t := range times {
		p := m.at(t, x[b*d:b*d+d])
		jacobian := m.jacobian(t, p)
		out.value = append(out.value, p.value)
		out.drift = append(out.drift, p.drift...)
		out.weights = append(out.weights, p.weights...)
		out.jacobian = append(out.jacobian, jacobian...)
		out.product = append(out.product, matrix[T]{d, jacobian}.times(v[b*d:b*d+d])...)
		var trace T
		for i := range d {
			trace += jacobian[i*d+i]
		}
		out.trace = append(out.trace, trace)
		out.norm2 = append(out.norm2, dot(jacobian, jacobian))
	}
	return out
}

// reference is the model M_A of the design's section A.6, and turned the same with
// axes turned by th.
func reference() model[float64] {
	return model[float64]{k: 3, d: 2, eps: 0.5, la: []float64{-0.3, 0.2, -1.1},
		r: []float64{1, -.5, -.8, .6, .3, 1.4}, s: []float64{.40, 1.50, .90, .25, 2.00, .70}}
}

func turned() model[float64] {
	m := reference()
	for _, th := range []float64{.3, -.9, 1.2} {
		m.axes = append(m.axes, math.Cos(th), math.Sin(th), -math.Sin(th), math.Cos(th))
	}
	return m
}

// Values that were computed independently, by quadrature and finite differences.
func TestEvaluateValues(t *testing.T) {
	x, y := []float64{.7, -.4}, []float64{.2, .9}
	near := func(t *testing.T, got, want []float64, tolerance float64) {
		t.Helper()
		require.NoError(t, kerneltest.Within(got, want, tolerance))
	}
	each(t, func(t *testing.T, dev gpu.Device) {
		m := reference()
		times := []float64{0, .25, .5, .9, .99, 1}
		points := slices.Repeat(x, len(times))
		drifts := []float64{.532505472, -.478600233, .613608100, -.469683892, .763216111, -.450687952,
			1.232718404, -.434649177, 1.411983782, -.437010254, 1.434620656, -.437339939}
		got := evaluate[float64](t, dev, m, points, times, 0, points)
		near(t, got.drift, drifts, 5e-10)
		for i, at := range times {
			near(t, evaluate[float64](t, dev, m, x, nil, at, x).drift, drifts[2*i:2*i+2], 5e-10)
		}
		near(t, got.value[2:3], []float64{.4848813554855815 / m.eps}, 1e-14)
		near(t, got.jacobian[8:12], []float64{-.594539869, -.248925594, -.248925594, .769793755}, 5e-10)

		near(t, got.value[:1], []float64{2.0570064710053146 - dot(x, x)/(2*m.eps)}, 1e-14) // log c - |x|²/2ε
		near(t, got.weights[:3], []float64{.886028226, .050996082, .062975692}, 5e-10)
		end := evaluate[float64](t, dev, m, y, nil, 1, y)
		logV := end.value[0] - dot(y, y)/(2*m.eps) - math.Log(2*math.Pi*m.eps)
		near(t, []float64{logV}, []float64{-1.3196583949823937}, 1e-14)
		near(t, []float64{dot(x, y)/m.eps + logV - got.value[0] - dot(x, x)/(2*m.eps)}, []float64{-3.8166648659877085}, 1e-14)

		for i, at := range []float64{0, .5, .9} {
			want := [][]float64{{.668722973, -.750426186}, {.773503138, -.530049653}, {1.052230886, -.353750819}}[i]
			near(t, evaluate[float64](t, dev, turned(), x, nil, at, x).drift, want, 5e-10)
		}

		// The volatility of a Schrödinger-Bass bridge, √ε (I + Dg/β) for β = 4.
		half := got.jacobian[8:12]
		sigma := make([]float64, 4)
		for i := range sigma {
			sigma[i] = math.Sqrt(m.eps) * half[i] / 4
			if i%3 == 0 {
				sigma[i] += math.Sqrt(m.eps)
			}
		}
		near(t, sigma, []float64{.60200599, -.04400424, -.04400424, .84318838}, 5e-9)
	})
}

// h = exp L solves ∂_t h + (ε/2) Δh = 0, that is
// ∂_t L + (ε/2) (ΔL + |∇L|²) = 0 with g = ε ∇L and tr Dg = ε ΔL; and g and Dg are
// derivatives of L and g. Central differences of step 1e-4 err by 1e-8 times third
// derivatives, and by rounding.
func TestHeatEquation(t *testing.T) {
	const step, tolerance = 1e-4, 1e-5
	each(t, func(t *testing.T, dev gpu.Device) {
		for _, m := range []model[float64]{reference(), turned()} {
			for _, at := range []float64{.1, .5, .95} {
				x := []float64{.3, -.6}
				points, times := slices.Repeat(x, 7), slices.Repeat([]float64{at}, 7)
				times[1], times[2] = at-step, at+step
				for i := range 2 {
					points[2*(3+2*i)+i] -= step
					points[2*(4+2*i)+i] += step
				}
				got := evaluate[float64](t, dev, m, points, times, 0, points)
				g, slope := got.drift[:2], (got.value[2]-got.value[1])/(2*step)
				require.InDelta(t, 0, slope+got.trace[0]/2+dot(g, g)/(2*m.eps), tolerance)
				for i := range 2 {
					low, high := 3+2*i, 4+2*i
					require.InDelta(t, g[i], m.eps*(got.value[high]-got.value[low])/(2*step), tolerance)
					for p := range 2 {
						require.InDelta(t, got.jacobian[2*p+i], (got.drift[2*high+p]-got.drift[2*low+p])/(2*step), tolerance)
					}
				}
			}
		}
	})
}

// g(t, x) = (E[x₁ | x_t = x] - x) / (1 - t), where x₁ has density
// N(x₁ | x, ε(1-t)) exp(|x₁|²/2ε) v(x₁): by the trapezoidal rule, which is exact to
// rounding for densities that vanish at both ends.
func TestDriftIsConditionalMean(t *testing.T) {
	m := model[float64]{k: 3, d: 1, eps: 0.7, la: []float64{0, -.5, .4}, r: []float64{-1, .5, 1.2}, s: []float64{.4, 1.3, .8}}
	each(t, func(t *testing.T, dev gpu.Device) {
		for _, at := range []float64{0, .3, .8} {
			for _, x := range []float64{-1.1, .2, 2} {
				var mass, moment float64
				for i := range 40001 {
					y := -40 + float64(i)*2e-3
					density := 0.0
					for j := range m.k {
						u := y - m.r[j]
						// The exponents of |y|²/2ε and of the Gaussians are joined: neither overflows.
						z := y*y/(2*m.eps) - u*u/(2*m.eps*m.s[j]) - (y-x)*(y-x)/(2*m.eps*(1-at))
						density += math.Exp(m.la[j]+z) / math.Sqrt(m.s[j])
					}
					mass += density
					moment += density * y
				}
				got := evaluate[float64](t, dev, m, []float64{x}, nil, at, []float64{x})
				require.InDelta(t, (moment/mass-x)/(1-at), got.drift[0], 1e-11)
			}
		}
	})
}

// S = I: D = I, and g_j = r_j whatever t and x.
func TestIdentityCovariance(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 2))
	each(t, func(t *testing.T, dev gpu.Device) {
		for _, axes := range []bool{false, true} {
			m := random(rng, 1, 3, .3, axes)
			for i := range m.s {
				m.s[i] = 1
			}
			x, times := normals(rng, 33*3), uniforms(rng, 33)
			got := evaluate[float64](t, dev, m, x, times, 0, x)
			require.NoError(t, kerneltest.Within(got.drift, slices.Repeat(m.r, 33), 1e-14))
			require.NoError(t, kerneltest.Within(got.jacobian, make([]float64, 33*9), 1e-14))
		}
	})
}

// One component: w = 1, Dg = D⁻¹(S - I), which trace and norm follow.
func TestOneComponent(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 3))
	each(t, func(t *testing.T, dev gpu.Device) {
		m := random(rng, 1, 3, .3, false)
		x := normals(rng, 3)
		for _, at := range []float64{0, .4, 1} {
			got := evaluate[float64](t, dev, m, x, nil, at, x)
			require.Equal(t, []float64{1}, got.weights)
			var trace, norm float64
			for i := range 3 {
				slope := (m.s[i] - 1) / (1 - at + at*m.s[i])
				trace += slope
				norm += slope * slope
				require.InDelta(t, slope*x[i], got.product[i], 1e-14)
				require.InDelta(t, (m.r[i]+(m.s[i]-1)*x[i])/(1-at+at*m.s[i]), got.drift[i], 1e-14)
			}
			require.InDelta(t, trace, got.trace[0], 1e-14)
			require.InDelta(t, norm, got.norm2[0], 1e-14)
		}
	})
}

// The order of components does not matter, nor a shift of all logits but to the
// value, nor a dead component at all. Axes that are unit vectors are no axes.
func TestSymmetries(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 4))
	const n, k, d = 35, 6, 3
	x, v, times := normals(rng, n*d), normals(rng, n*d), uniforms(rng, n)
	each(t, func(t *testing.T, dev gpu.Device) {
		for _, axes := range []bool{false, true} {
			m := random(rng, k, d, .4, axes)
			want := evaluate[float64](t, dev, m, x, times, 0, v)
			same := func(got values[float64], shift float64) {
				t.Helper()
				for i := range got.value {
					got.value[i] -= shift
				}
				for i, pair := range [][2][]float64{{got.value, want.value}, {got.drift, want.drift},
					{got.jacobian, want.jacobian}, {got.product, want.product}, {got.trace, want.trace}, {got.norm2, want.norm2}} {
					require.NoError(t, kerneltest.Close(pair[0], pair[1], pair[1], 64), i)
				}
			}

			back := m
			back.la, back.r, back.s, back.axes = slices.Clone(m.la), slices.Clone(m.r), slices.Clone(m.s), slices.Clone(m.axes)
			for j := range k {
				back.la[j] = m.la[k-1-j]
				copy(back.r[j*d:j*d+d], m.r[(k-1-j)*d:])
				copy(back.s[j*d:j*d+d], m.s[(k-1-j)*d:])
				if axes {
					copy(back.axes[j*d*d:(j+1)*d*d], m.axes[(k-1-j)*d*d:])
				}
			}
			same(evaluate[float64](t, dev, back, x, times, 0, v), 0)

			shifted := m
			shifted.la = slices.Clone(m.la)
			for j := range shifted.la {
				shifted.la[j] += 3
			}
			same(evaluate[float64](t, dev, shifted, x, times, 0, v), 3)

			more := m
			more.k++
			more.la = append(slices.Clone(m.la), math.Inf(-1))
			more.r, more.s = append(slices.Clone(m.r), 1, 2, 3), append(slices.Clone(m.s), 1, 2, 3)
			if axes {
				more.axes = append(slices.Clone(m.axes), m.axes[:d*d]...)
			}
			got := evaluate[float64](t, dev, more, x, times, 0, v)
			for b := range n {
				require.Zero(t, got.weights[b*(k+1)+k])
			}
			same(got, 0)

			if !axes {
				unit := m
				for range k {
					unit.axes = append(unit.axes, 1, 0, 0, 0, 1, 0, 0, 0, 1)
				}
				same(evaluate[float64](t, dev, unit, x, times, 0, v), 0)
			}
		}
	})
}

// Small ε and far points: single ℓ_j are huge, and nothing overflows or is NaN.
// With means of many deviations between them the nearest has all the weight.
func TestExtremes(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		t.Run("float32", func(t *testing.T) { extremes[float32](t, dev) })
		t.Run("float64", func(t *testing.T) { extremes[float64](t, dev) })
	})
}

func extremes[T kerneltest.Float](t *testing.T, dev gpu.Device) {
	rng := rand.New(rand.NewPCG(7, 5))
	for _, axes := range []bool{false, true} {
		for _, reach := range []float64{1, 1e3, 1e6} {
			m := random(rng, 5, 2, 1e-3, axes)
			for i := range m.s {
				m.s[i] = math.Exp(10*rng.Float64() - 9)
			}
			x, u, times := normals(rng, 40*2), normals(rng, 40*2), uniforms(rng, 40)
			for i := range x {
				x[i] *= reach
			}
			times[0], times[1] = 0, 1
			got := evaluate[T](t, dev, m, x, times, 0, x)
			fixed := evaluate[T](t, dev, m, x, nil, 1, x)
			g := match[T](t, dev, m, 0, x, u, times, 1)
			l := likelihood[T](t, dev, m, 0, term[float64]{x, 0, 1}, term[float64]{x, 1, -1})
			for i, v := range [][]T{got.value, got.drift, got.weights, got.jacobian, got.product, got.trace, got.norm2,
				fixed.value, fixed.drift, fixed.weights, g.loss, g.la, g.r, g.raw, g.turn, l.loss, l.la, l.r, l.raw, l.turn} {
				for _, e := range v {
					require.False(t, math.IsNaN(float64(e)) || math.IsInf(float64(e), 0), "reach %v: array %d has %v", reach, i, e)
				}
			}
			for b := range 40 {
				var sum float64
				for _, w := range got.weights[5*b : 5*b+5] {
					sum += float64(w)
				}
				require.InDelta(t, 1, sum, 1e-6)
			}
		}
	}
	// ε S = 1e-3 around 0 and 1: the weights at t = 1 are those of the nearest.
	m := model[float64]{k: 2, d: 1, eps: 1e-3, la: []float64{0, 0}, r: []float64{0, 1}, s: []float64{1, 1}}
	got := evaluate[T](t, dev, m, []float64{.2, .8}, nil, 1, []float64{0, 0})
	require.NoError(t, kerneltest.Within(got.weights, []float64{1, 0, 0, 1}, 1e-6))
	require.NoError(t, kerneltest.Within(got.drift, []float64{0, 1}, 1e-6))
}

// A NaN in a sample spoils that sample alone; without any weight there is no
// mixture, and everything is NaN.
func TestNaN(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		m := reference()
		x := []float64{.1, .2, math.NaN(), .3, .4, .5}
		got, want := evaluate[float64](t, dev, m, x, nil, .5, x), evaluate[float64](t, dev, m, []float64{.1, .2, 0, 0, .4, .5}, nil, .5, x)
		require.NoError(t, kerneltest.BitEqual(got.value[:1], want.value[:1]))
		require.NoError(t, kerneltest.BitEqual(got.drift[4:], want.drift[4:]))
		for _, v := range append(append([]float64{got.value[1], got.trace[1], got.norm2[1]}, got.weights[3:6]...), got.drift[2:4]...) {
			require.True(t, math.IsNaN(v))
		}
		for j := range m.la {
			m.la[j] = math.Inf(-1)
		}
		require.True(t, math.IsNaN(evaluate[float64](t, dev, m, []float64{.1, .2}, nil, .5, []float64{0, 0}).drift[0]))
	})
}

// Each output alone is what it is among the others, and rows do not depend on the
// batch.
func TestOutputsAreIndependent(t *testing.T) {
	each(t, func(t *testing.T, dev gpu.Device) {
		rng := rand.New(rand.NewPCG(7, 6))
		const n, k, d = 37, 4, 3
		for _, axes := range []bool{false, true} {
			m := random(rng, k, d, .5, axes)
			x, v, times := normals(rng, n*d), normals(rng, n*d), uniforms(rng, n)
			all := evaluate[float32](t, dev, m, x, times, 0, v)
			tail := evaluate[float32](t, dev, m, x[5*d:], times[5:], 0, v[5*d:])
			require.NoError(t, kerneltest.BitEqual(tail.drift, all.drift[5*d:]))
			require.NoError(t, kerneltest.BitEqual(tail.norm2, all.norm2[5:]))
			mix := load[float32](t, dev, m)
			a := gmm.EvaluateArgs{Mixture: mix.Mixture, X: kerneltest.Put(t, dev, cast[float32](x), n, d).Tensor,
				T: kerneltest.Put(t, dev, cast[float32](times)).Tensor}
			for i, want := range [][]float32{all.value, all.drift, all.weights, all.jacobian, all.product, all.trace, all.norm2} {
				b := a
				shapes := [][]int{{n}, {n, d}, {n, k}, {n, d, d}, {n, d}, {n}, {n}}
				out := kerneltest.Poison[float32](t, dev, shapes[i]...)
				*[]*tensor.Tensor{&b.Value, &b.Drift, &b.Weights, &b.Jacobian, &b.Product, &b.Trace, &b.Norm2}[i] = out.Tensor
				if i == 4 {
					b.V = kerneltest.Put(t, dev, cast[float32](v), n, d).Tensor
				}
				require.NoError(t, gmm.Evaluate(b))
				require.NoError(t, kerneltest.BitEqual(out.Get(t), want), "output %d, axes %v", i, axes)
			}
		}
	})
}
