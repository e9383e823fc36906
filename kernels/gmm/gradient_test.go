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
)

func same[T kerneltest.Float](t testing.TB, got gradient[T], naive []gradient[float32], want gradient[float64], name string) {
	t.Helper()
	type g = gradient[float32]
	within(t, got.loss, want.loss, 0, naive, func(v g) []float32 { return v.loss }, name+": loss")
	within(t, got.la, want.la, want.size.la, naive, func(v g) []float32 { return v.la }, name+": dlogits")
	within(t, got.r, want.r, want.size.r, naive, func(v g) []float32 { return v.r }, name+": dmeans")
	within(t, got.raw, want.raw, want.size.s, naive, func(v g) []float32 { return v.raw }, name+": draw")
	within(t, got.turn, want.turn, want.size.s, naive, func(v g) []float32 { return v.turn }, name+": dturn")
}

// Both losses and all derivatives against the definition.
func TestGradients(t *testing.T) {
	const floor, weight = 0.0625, 0.75
	type problem struct {
		size
		m                     model[float64]
		x, u, y, times        []float64
		match, likelihood     gradient[float64]
		match32, likelihood32 []gradient[float32]
	}
	rng := rand.New(rand.NewPCG(8, 1))
	var problems []problem
	for _, s := range sizes {
		p := problem{size: s, m: random(rng, s.k, s.d, s.epsilon(), s.turned),
			x: normals(rng, s.n*s.d), u: normals(rng, s.n*s.d), y: normals(rng, (s.n+2)*s.d), times: uniforms(rng, s.n)}
		p.match, p.match32 = p.m.match(floor, p.x, p.u, p.times, weight),
			naive(rng, p.m, p.x, p.u, nil, p.times, func(in inputs) gradient[float32] {
				return in.match(floor, in.x, in.u, in.times, weight)
			})
		p.likelihood = p.m.likelihood(floor, term[float64]{p.x, .625, 1.5}, term[float64]{p.y, 1, -weight})
		p.likelihood32 = naive(rng, p.m, p.x, nil, p.y, nil, func(in inputs) gradient[float32] {
			return in.likelihood(floor, term[float32]{in.x, .625, 1.5}, term[float32]{in.y, 1, -weight})
		})
		problems = append(problems, p)
	}
	each(t, func(t *testing.T, dev gpu.Device) {
		for _, p := range problems[:len(sizesOf(dev))] {
			terms := []term[float64]{{p.x, .625, 1.5}, {p.y, 1, -weight}}
			same(t, match[float32](t, dev, p.m, floor, p.x, p.u, p.times, weight), p.match32, p.match, p.String()+": match")
			same(t, match[float64](t, dev, p.m, floor, p.x, p.u, p.times, weight), p.match32, p.match, p.String()+": match")
			same(t, likelihood[float32](t, dev, p.m, floor, terms...), p.likelihood32, p.likelihood, p.String()+": likelihood")
			same(t, likelihood[float64](t, dev, p.m, floor, terms...), p.likelihood32, p.likelihood, p.String()+": likelihood")
		}
	})
}

// expected is what the definition makes of a model and a batch.
type expected struct {
	m                     model[float64]
	x, u, times           []float64
	match, likelihood     gradient[float64]
	match32, likelihood32 []gradient[float32]
}

func expect(rng *rand.Rand, s size) expected {
	m := random(rng, s.k, s.d, s.epsilon(), s.turned)
	x, u, times := normals(rng, s.n*s.d), normals(rng, s.n*s.d), uniforms(rng, s.n)
	return expected{m, x, u, times, m.match(0, x, u, times, 1), m.likelihood(0, term[float64]{x, .5, 1}),
		naive(rng, m, x, u, nil, times, func(in inputs) gradient[float32] { return in.match(0, in.x, in.u, in.times, 1) }),
		naive(rng, m, x, nil, nil, nil, func(in inputs) gradient[float32] {
			return in.likelihood(0, term[float32]{in.x, .5, 1})
		})}
}

func (e expected) check(t *testing.T, dev gpu.Device) {
	t.Helper()
	same(t, match[float32](t, dev, e.m, 0, e.x, e.u, e.times, 1), e.match32, e.match, "match")
	same(t, match[float64](t, dev, e.m, 0, e.x, e.u, e.times, 1), e.match32, e.match, "match")
	same(t, likelihood[float32](t, dev, e.m, 0, term[float64]{e.x, .5, 1}), e.likelihood32, e.likelihood, "likelihood")
	same(t, likelihood[float64](t, dev, e.m, 0, term[float64]{e.x, .5, 1}), e.likelihood32, e.likelihood, "likelihood")
}

// Chunks of several blocks: more rows than mostChunks chunks of one quantum hold.
func TestManyRows(t *testing.T) {
	const n = 32*128 + 77
	rng := rand.New(rand.NewPCG(8, 2))
	diagonal, turned := expect(rng, size{n, 2, 2, false}), expect(rng, size{n, 2, 1, true})
	each(t, func(t *testing.T, dev gpu.Device) {
		if dev.Properties().Kind == gpu.Emulation {
			t.Skip("not run: slow in emulation, which sees chunks of several batches in TestWideModel")
		}
		chunks, _ := gmm.PartialShape(load[float32](t, dev, diagonal.m).Mixture, n)
		require.Equal(t, 66, chunks)
		diagonal.check(t, dev)
		turned.check(t, dev)
	})
}

// Models so wide that the CPU computes components again for each pass, and that a
// chunk takes several batches on the GPU.
func TestWideModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 3))
	cases := []expected{expect(rng, size{18, 3, 517, false}), expect(rng, size{17, 2, 48, true}), expect(rng, size{3, 11, 517, false})}
	each(t, func(t *testing.T, dev gpu.Device) {
		for _, e := range cases[:2] {
			e.check(t, dev)
		}
		if dev.Properties().Kind != gpu.Emulation {
			cases[2].check(t, dev)
		}
	})
}

var (
	start = []float64{.7, -.4, -1.2, .3}
	end   = []float64{.2, .9, 1.1, -.6, -.4, -.2}
)

// Values that were checked by finite differences when they were computed.
func TestGradientValues(t *testing.T) {
	near := func(t *testing.T, g gradient[float64], la, r, raw []float64, tolerance float64) {
		t.Helper()
		require.NoError(t, kerneltest.Within(g.la, la, tolerance))
		require.NoError(t, kerneltest.Within(g.r, r, tolerance))
		require.NoError(t, kerneltest.Within(g.raw, raw, tolerance))
	}
	each(t, func(t *testing.T, dev gpu.Device) {
		m := reference()
		g := match[float64](t, dev, m, 0, start[:2], []float64{.3, -1.1}, []float64{.6}, 1)
		require.InDelta(t, .7298714624911371, g.loss[0], 1e-15)
		near(t, g, []float64{-.057011195, .024268962, .032742233},
			[]float64{1.618471144, .975761265, .096569315, .006045568, .029352413, -.080123469},
			[]float64{.112400796, -.092347177, .067712608, -.016982793, -.000116065, .024017472}, 5e-10)

		// LightSB: log c - log v are L but for |x|²/2ε and (d/2) log 2πε.
		g = likelihood[float64](t, dev, m, 0, term[float64]{start, 0, 1}, term[float64]{end, 1, -1})
		loss := g.loss[0] + (dot(start, start)/2+dot(end, end)/3)/(2*m.eps) + math.Log(2*math.Pi*m.eps)
		require.InDelta(t, 4.804313840869449, loss, 1e-14)
		near(t, g, []float64{.0777093, -.089267241, .011557941},
			[]float64{.621795214, -.353158898, -1.794998227, 1.660471647, -.105706534, .176848554},
			[]float64{.1678074, .259506194, .52528966, -.595846316, .269827593, -.015705139}, 5e-10)

		// The dual of the Schrödinger-Bass bridge with β = 4, at Z of both ends.
		z0 := []float64{.56602857, -.31302238, -1.02819804, .15802438}
		z1 := []float64{.28901384, .82710960, .76243971, -.48006358, -.65402295, -.78439334}
		g = likelihood[float64](t, dev, m, 0, term[float64]{z0, 0, -m.eps}, term[float64]{z1, 1, m.eps})
		dual := g.loss[0]
		for i, x := range start {
			dual -= 2 * (x - z0[i]) * (x - z0[i]) / 2
		}
		for i, x := range end {
			dual += 2 * (x - z1[i]) * (x - z1[i]) / 3
		}
		require.InDelta(t, -1.1502851750402816, dual, 1e-14) // Z maximises: its 8 digits give 16
		near(t, g, []float64{.04354556, -.0474593, .00391374},
			[]float64{-1.05954697, .13742386, .73487717, -.77920506, .01813888, -.14296534},
			[]float64{.36364388, -.13278398, -.16420578, .56619858, -.08688021, .08637162}, 5e-8) // of Z's digits
	})
}

// losses names a loss of the kernels as a function of the model.
type losses struct {
	name string
	of   func(t *testing.T, m model[float64]) gradient[float64]
}

// The gradient against central differences of the loss, in every parameter: step
// 1e-5 leaves 1e-10 times the third derivative, and 1e-11 of rounding.
func TestFiniteDifferences(t *testing.T) {
	const step, floor, tolerance = 1e-5, .05, 2e-8
	each(t, func(t *testing.T, dev gpu.Device) {
		rng := rand.New(rand.NewPCG(8, 4))
		for _, d := range []int{2, 3} {
			x, u, y, times := normals(rng, 5*d), normals(rng, 5*d), normals(rng, 4*d), uniforms(rng, 5)
			for _, axes := range []bool{false, true} {
				m := random(rng, 3, d, .6, axes)
				for _, l := range []losses{
					{"match", func(t *testing.T, m model[float64]) gradient[float64] {
						return match[float64](t, dev, m, floor, x, u, times, .8)
					}},
					{"likelihood", func(t *testing.T, m model[float64]) gradient[float64] {
						return likelihood[float64](t, dev, m, floor, term[float64]{x, .3, .8}, term[float64]{y, 1, -.6})
					}},
				} {
					g := l.of(t, m)
					slope := func(move func(m *model[float64], by float64)) float64 {
						var at [2]float64
						for i, by := range []float64{-step, step} {
							moved := m
							moved.la, moved.r, moved.s, moved.axes = slices.Clone(m.la), slices.Clone(m.r), slices.Clone(m.s), slices.Clone(m.axes)
							move(&moved, by)
							at[i] = l.of(t, moved).loss[0]
						}
						return (at[1] - at[0]) / (2 * step)
					}
					name := fmt.Sprintf("%s, d %d, axes %v", l.name, d, axes)
					for j := range m.la {
						require.InDelta(t, slope(func(m *model[float64], by float64) { m.la[j] += by }), g.la[j], tolerance, name)
					}
					for i := range m.r {
						require.InDelta(t, slope(func(m *model[float64], by float64) { m.r[i] += by }), g.r[i], tolerance, name)
						require.InDelta(t, slope(func(m *model[float64], by float64) {
							m.s[i] = floor + (m.s[i]-floor)*math.Exp(by)
						}), g.raw[i], tolerance, name)
					}
					for j := range m.k {
						for p := range d {
							if !axes {
								break
							}
							for q := range p {
								i, k := (j*d+p)*d, (j*d+q)*d
								want := slope(func(m *model[float64], by float64) { // exp(W) turns axes p and q
									a, b := slices.Clone(m.axes[k:k+d]), slices.Clone(m.axes[i:i+d])
									for c := range d {
										m.axes[k+c] = math.Cos(by)*a[c] + math.Sin(by)*b[c]
										m.axes[i+c] = math.Cos(by)*b[c] - math.Sin(by)*a[c]
									}
								})
								require.InDelta(t, want, g.turn[k+p], tolerance, name)
								require.InDelta(t, -want, g.turn[i+q], tolerance, name)
							}
						}
					}
				}
			}
		}
	})
}

// The derivative by all logits together is that of a shift: 0 for bridge matching,
// the sum of weights for the likelihood. A dead component has no gradient, and a
// loss at the target none at all.
func TestGradientLaws(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 5))
	const n, d = 41, 3
	x, u, times := normals(rng, n*d), normals(rng, n*d), uniforms(rng, n)
	each(t, func(t *testing.T, dev gpu.Device) {
		for _, axes := range []bool{false, true} {
			m := random(rng, 4, d, .5, axes)
			m.la[2] = math.Inf(-1)
			sum := func(v []float64) (s float64) {
				for _, e := range v {
					s += e
				}
				return s
			}
			g := match[float64](t, dev, m, 0, x, u, times, 1)
			l := likelihood[float64](t, dev, m, 0, term[float64]{x, .2, 1.5}, term[float64]{u, 1, -.25})
			require.InDelta(t, 0, sum(g.la), 1e-13)
			require.InDelta(t, 1.25, sum(l.la), 1e-14)
			for _, g := range []gradient[float64]{g, l} {
				require.Zero(t, g.la[2])
				require.Equal(t, make([]float64, d), g.r[2*d:3*d])
				require.Equal(t, make([]float64, d), g.raw[2*d:3*d])
			}
			target := evaluate[float64](t, dev, m, x, times, 0, x).drift
			g = match[float64](t, dev, m, 0, x, target, times, 1)
			require.NoError(t, kerneltest.Within(g.loss, []float64{0}, 1e-28))
			require.NoError(t, kerneltest.Within(g.r, make([]float64, 4*d), 1e-13))
			require.NoError(t, kerneltest.Within(g.raw, make([]float64, 4*d), 1e-13))
		}
	})
}

// The partial sums of two batches, one below the other, are those of both.
func TestJoinedPartials(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 6))
	each(t, func(t *testing.T, dev gpu.Device) {
		m := random(rng, 3, 2, .5, false)
		mix := load[float64](t, dev, m)
		x, y := normals(rng, 33*2), normals(rng, 40*2)
		first, width := gmm.PartialShape(mix.Mixture, 33)
		second, _ := gmm.PartialShape(mix.Mixture, 40)
		require.Equal(t, []int{2, 2, 1 + 3 + 12}, []int{first, second, width})
		both := kerneltest.Poison[float64](t, dev, first+second, width)
		put := func(x []float64) gmm.Term {
			return gmm.Term{X: kerneltest.Put(t, dev, x, len(x)/2, 2).Tensor, Weight: 1}
		}
		require.NoError(t, gmm.Likelihood(gmm.LikelihoodArgs{Mixture: mix.Mixture, Terms: [2]gmm.Term{put(x)}, Partial: both.Rows(0, first)}))
		require.NoError(t, gmm.Likelihood(gmm.LikelihoodArgs{Mixture: mix.Mixture, Terms: [2]gmm.Term{1: put(y)}, Partial: both.Rows(first, first+second)}))
		got := reduce(t, dev, m, mix, both, 0)
		want := likelihood[float64](t, dev, m, 0, term[float64]{x, 0, 1}, term[float64]{y, 0, 1})
		for i, pair := range [][2][]float64{{got.loss, want.loss}, {got.la, want.la}, {got.r, want.r}, {got.raw, want.raw}} {
			require.NoError(t, kerneltest.BitEqual(pair[0], pair[1]), i)
		}
	})
}

// Results do not depend on the number of workers, and repeat.
func TestWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 7))
	const n, d = 300, 3
	m := random(rng, 7, d, .5, true)
	x, u, times := normals(rng, n*d), normals(rng, n*d), uniforms(rng, n)
	var first [][]float32
	for _, workers := range []int{1, 2, 3, 8, 8} {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(t, err)
		t.Cleanup(func() { dev.Close() })
		e := evaluate[float32](t, dev, m, x, times, 0, u)
		g := match[float32](t, dev, m, 0, x, u, times, 1)
		l := likelihood[float32](t, dev, m, 0, term[float64]{x, 0, 1}, term[float64]{u, 1, -1})
		got := [][]float32{e.value, e.drift, e.jacobian, e.norm2, g.loss, g.la, g.r, g.raw, g.turn, l.loss, l.la, l.r, l.raw, l.turn}
		if first == nil {
			first = got
		}
		for i := range got {
			require.NoError(t, kerneltest.BitEqual(got[i], first[i]), "%d workers: array %d", workers, i)
		}
	}
}

// The loops of training allocate no memory of Go's.
func TestNoAllocations(t *testing.T) {
	dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: 2})
	require.NoError(t, err)
	t.Cleanup(func() { dev.Close() })
	l := loop[float32](t, dev, random(rand.New(rand.NewPCG(8, 8)), 5, 2, .5, true), 100)
	for name, call := range map[string]func() error{
		"scales":     func() error { return gmm.Scales(l.scales) },
		"evaluate":   func() error { return gmm.Evaluate(l.evaluate) },
		"likelihood": func() error { return gmm.Likelihood(l.likelihood) },
		"match":      func() error { return gmm.Match(l.match) },
		"reduce":     func() error { return gmm.Reduce(l.reduce) },
	} {
		require.NoError(t, call())
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if err := call(); err != nil {
				t.Error(err)
			}
		}), name)
	}
}

// calls are the arguments of all operations for one model.
type calls struct {
	scales     gmm.ScalesArgs
	evaluate   gmm.EvaluateArgs
	likelihood gmm.LikelihoodArgs
	match      gmm.MatchArgs
	reduce     gmm.ReduceArgs // of match
	x, u, t    []float64
}

func loop[T kerneltest.Float](t testing.TB, dev gpu.Device, m model[float64], n int) calls {
	rng := rand.New(rand.NewPCG(9, 1))
	mix := load[T](t, dev, m).Mixture
	c := calls{x: normals(rng, n*m.d), u: normals(rng, n*m.d), t: uniforms(rng, n)}
	x, u := kerneltest.Put(t, dev, cast[T](c.x), n, m.d).Tensor, kerneltest.Put(t, dev, cast[T](c.u), n, m.d).Tensor
	times := kerneltest.Put(t, dev, cast[T](c.t)).Tensor
	c.scales = gmm.ScalesArgs{Raw: mix.Scales, Out: kerneltest.Poison[T](t, dev, m.k, m.d).Tensor}
	c.evaluate = gmm.EvaluateArgs{Mixture: mix, X: x, T: times, Drift: kerneltest.Poison[T](t, dev, n, m.d).Tensor}
	c.likelihood = gmm.LikelihoodArgs{Mixture: mix, Terms: [2]gmm.Term{{X: x, Weight: 1}, {X: u, T: 1, Weight: -1}},
		Partial: kerneltest.Poison[T](t, dev, shape(gmm.PartialShape(mix, n, n))...).Tensor}
	c.match = gmm.MatchArgs{Mixture: mix, X: x, U: u, T: times, Weight: 1,
		Partial: kerneltest.Poison[T](t, dev, shape(gmm.PartialShape(mix, n))...).Tensor}
	c.reduce = gmm.ReduceArgs{Mixture: mix, Partial: c.match.Partial, Loss: kerneltest.Poison[T](t, dev, 1).Tensor,
		DLogits: kerneltest.Poison[T](t, dev, m.k).Tensor, DMeans: kerneltest.Poison[T](t, dev, m.k, m.d).Tensor,
		DRaw: kerneltest.Poison[T](t, dev, m.k, m.d).Tensor}
	return c
}
