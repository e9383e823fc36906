package ensemble_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/ensemble"
	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/tensor"
)

var sizes = [][2]int{{1, 1}, {2, 1}, {1, 31}, {32, 2}, {31, 32}, {33, 31}, {63, 64}, {64, 63}, {65, 127}, {127, 33}, {129, 5}, {40, 200}, {200, 65}}

// mixed is problems of all sizes.
func mixed(seed uint64, ground ensemble.Cost, frac float64) []problem {
	rng := rand.New(rand.NewPCG(seed, 0))
	var out []problem
	for _, s := range sizes {
		out = append(out, random(rng, s[0], s[1], ground, frac))
	}
	return out
}

var dtypes = []tensor.DType{tensor.Float32, tensor.Float64}

// emulated says that a kernel takes a thousand times as long.
func emulated(dev kerneltest.Target) bool { return dev.Properties().Kind == gpu.Emulation }

// What float32 can reach: sums of a hundred entries, each known to 2^-24.
func tolerance(dtype tensor.DType) float64 {
	if dtype == tensor.Float32 {
		return 1e-6
	}
	return 1e-11
}

// Problems of all sizes in one launch, against the definition: the residual,
// evaluated from the potentials, says that they solve.
func TestMixedSizes(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, dtype := range dtypes {
			for ground := ensemble.SqEuclidean; ground <= ensemble.Euclidean; ground++ {
				if emulated(dev) && (dtype == tensor.Float32) != (ground == ensemble.SqEuclidean) {
					continue
				}
				b := put(t, dev.Device, mixed(uint64(ground), ground, 0.1), false)
				b.Ground, b.Sweeps, b.Tolerance = ground, dtype, tolerance(dtype)
				for k, got := range b.solve(t) {
					p := b.problems[k]
					p.check(t, got)
					require.EqualValues(t, ensemble.Converged, got.counts[ensemble.Status], "%v: %d × %d: %v", dtype, p.n, p.m, got.values)
					require.LessOrEqual(t, got.values[ensemble.Residual], b.Tolerance)
					require.Positive(t, got.counts[ensemble.Sweeps])
					require.Zero(t, got.counts[ensemble.LogSweeps])
				}
			}
		}
	})
}

// The potentials are those of plain Sinkhorn up to the constant, which both
// marginals leave open.
func TestPotentials(t *testing.T) {
	problems := mixed(3, ensemble.SqEuclidean, 0.3)[:9]
	want := make([][2][]float64, len(problems))
	for k, p := range problems {
		want[k][0], want[k][1] = p.sinkhorn()
	}
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, plain := range []bool{false, true} {
			for _, matrices := range []bool{false, true} {
				b := put(t, dev.Device, problems, matrices)
				b.Plain, b.Tolerance = plain, 1e-13
				for k, got := range b.solve(t) {
					p := problems[k]
					p.check(t, got)
					shift := want[k][0][0] - got.f[0]
					for i := range got.f {
						got.f[i] += shift
					}
					for j := range got.g {
						got.g[j] -= shift
					}
					// At ε of 0.3 mean costs the map contracts by far more than
					// one half, so that the distance is below residuals over the
					// least weight.
					budget := 1e-13 * p.eps * 100 * float64(p.n+p.m)
					require.NoError(t, kerneltest.Within(got.f, want[k][0], budget))
					require.NoError(t, kerneltest.Within(got.g, want[k][1], budget))
				}
			}
		}
	})
}

// Penalties on one side or both, with masses that differ.
func TestUnbalanced(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		problems := mixed(4, ensemble.SqEuclidean, 0.1)
		for k := range problems {
			p := &problems[k]
			switch k % 3 {
			case 0:
				p.rho1, p.rho2 = 2, 0.5
			case 1:
				p.rho1 = 1
			case 2:
				p.rho2 = 3
			}
			for j := range p.b {
				p.b[j] *= 1.3
			}
		}
		for _, dtype := range dtypes {
			b := put(t, dev.Device, problems, false)
			b.Sweeps, b.Tolerance = dtype, tolerance(dtype)
			for k, got := range b.solve(t) {
				problems[k].check(t, got)
				require.EqualValues(t, ensemble.Converged, got.counts[ensemble.Status], "%v, problem %d: %v", dtype, k, got.values)
			}
		}
	})
}

// ε in units of the mean cost, as given weights make it.
func TestPerMean(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		problems := mixed(5, ensemble.HalfSqEuclidean, 0.2)
		b := put(t, dev.Device, problems, true)
		same := make([]float64, len(problems))
		for k := range same {
			same[k] = 0.2
		}
		b.Epsilon, b.PerMean = kerneltest.Put(t, dev.Device, same).Tensor, true
		for k, got := range b.solve(t) {
			require.InEpsilon(t, problems[k].eps, got.values[ensemble.Epsilon], 1e-13)
			problems[k].eps = got.values[ensemble.Epsilon]
			problems[k].check(t, got)
		}
	})
}

// Where ε is small, float32 may not get there, but it says so: nothing is NaN,
// and whatever is reported holds.
func TestSmallEpsilon(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, frac := range []float64{1e-2, 1e-3, 1e-6} {
			problems, sweeps := mixed(6, ensemble.SqEuclidean, frac)[4:8], 300
			if emulated(dev) {
				problems, sweeps = problems[:1], 30
			}
			for _, dtype := range dtypes {
				for _, anneal := range []float64{0, 0.02} {
					b := put(t, dev.Device, problems, false)
					b.Sweeps, b.Tolerance, b.MaxSweeps, b.Anneal = dtype, 1e-6, sweeps, anneal
					for k, got := range b.solve(t) {
						problems[k].check(t, got)
						require.Equal(t, got.values[ensemble.Residual] <= b.Tolerance, got.counts[ensemble.Status] == ensemble.Converged)
						require.NotEqualValues(t, ensemble.Diverged, got.counts[ensemble.Status])
					}
				}
			}
		}
	})
}

// A start from which sums underflow is put right by log-sum-exps; without
// sweeps the start's own plan is reported.
func TestWarm(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		problems := mixed(7, ensemble.SqEuclidean, 0.1)[4:9]
		for _, dtype := range dtypes {
			b := put(t, dev.Device, problems, false)
			b.Sweeps, b.Tolerance, b.Warm = dtype, 1e-5, true
			g := make([]float64, b.Layout.Targets())
			for j := range g {
				g[j] = float64(j%5) * 1000 // exponents of some thousands
			}
			require.NoError(t, tensor.Set(b.G, g))
			logs := int32(0)
			for k, got := range b.solve(t) {
				problems[k].check(t, got)
				require.EqualValues(t, ensemble.Converged, got.counts[ensemble.Status])
				logs += got.counts[ensemble.LogSweeps]
			}
			require.Positive(t, logs, "the start did not underflow: the test is vacuous")
			before := b.solve(t) // from the solution
			b.MaxSweeps = 0
			for k, got := range b.solve(t) {
				problems[k].check(t, got)
				require.EqualValues(t, 1, before[k].counts[ensemble.Sweeps])
				require.Zero(t, got.counts[ensemble.Sweeps])
				require.EqualValues(t, ensemble.Converged, got.counts[ensemble.Status])
			}
		}
	})
}

// One problem that cannot be solved does not spoil the others.
func TestBadProblem(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, dtype := range dtypes {
			good := mixed(8, ensemble.SqEuclidean, 0.1)[3:8]
			b := put(t, dev.Device, good, false)
			b.Sweeps, b.Tolerance = dtype, 1e-6
			want := b.solve(t)
			bad := mixed(8, ensemble.SqEuclidean, 0.1)[3:8]
			bad[1].x[4] = math.NaN()
			bad[3].eps = 0
			c := put(t, dev.Device, bad, false)
			c.Sweeps, c.Tolerance = dtype, 1e-6
			for k, got := range c.solve(t) {
				if k == 1 || k == 3 {
					require.EqualValues(t, ensemble.Diverged, got.counts[ensemble.Status])
					continue
				}
				require.Equal(t, want[k], got)
			}
		}
	})
}

// A result does not depend, bit for bit, on what else is in the batch, nor on
// its order, nor on what is left out.
func TestIndependence(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, dtype := range dtypes {
			problems := mixed(9, ensemble.SqEuclidean, 0.05)
			if emulated(dev) {
				problems = problems[:11]
			}
			b := put(t, dev.Device, problems, false)
			b.Sweeps, b.Tolerance = dtype, 1e-6
			want := b.solve(t)
			for k := range problems {
				one := put(t, dev.Device, problems[k:k+1], false)
				one.Sweeps, one.Tolerance = dtype, 1e-6
				require.Equal(t, want[k], one.solve(t)[0], "%v: problem %d", dtype, k)
			}
			some := put(t, dev.Device, problems, false)
			some.Sweeps, some.Tolerance, some.Only = dtype, 1e-6, []int{7, 2, 10}
			for k, got := range some.solve(t) {
				if k == 2 || k == 7 || k == 10 {
					require.Equal(t, want[k], got)
				} else {
					require.True(t, math.IsNaN(got.f[0]) && math.IsNaN(got.values[0]) && got.counts[0] == 0, "problem %d was touched", k)
				}
			}
		}
	})
}

func TestWorkers(t *testing.T) {
	var want []answer
	for _, workers := range []int{1, 2, 5} {
		dev, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
		require.NoError(t, err)
		got := put(t, dev, mixed(10, ensemble.Euclidean, 0.05), true).solve(t)
		if want == nil {
			want = got
		}
		require.Equal(t, want, got)
	}
}

// Once stop is set, nothing begins.
func TestStop(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		b := put(t, dev.Device, mixed(11, ensemble.SqEuclidean, 0.1), false)
		stop, err := tensor.From(dev.Device, []int32{1}, 1)
		require.NoError(t, err)
		defer stop.Free()
		b.Stop = stop
		for _, got := range b.solve(t) {
			require.True(t, math.IsNaN(got.values[0]) && got.counts[0] == 0)
		}
		require.NoError(t, tensor.Set(stop, []int32{0}))
		for _, got := range b.solve(t) {
			require.EqualValues(t, ensemble.Converged, got.counts[0])
		}
	})
}

func TestArguments(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	for _, c := range []struct {
		change func(*batch)
		text   string
	}{
		{func(b *batch) { b.Layout = nil }, "layout"},
		{func(b *batch) { b.X = tensor.Tensor{} }, "x: "},
		{func(b *batch) { b.Y = b.A }, "y: "},
		{func(b *batch) { b.Costs = b.A }, "costs: "},
		{func(b *batch) { b.Ground = 3 }, "ground cost: "},
		{func(b *batch) { b.Epsilon = b.A }, "epsilon: "},
		{func(b *batch) { b.RhoTarget = b.A }, "target rho: "},
		{func(b *batch) { b.G = b.B }, "g: invalid argument: overlaps"},
		{func(b *batch) { b.Map = b.A }, "map: "},
		{func(b *batch) { b.Sweeps = tensor.Int32 }, "sweeps: "},
		{func(b *batch) { b.Tolerance = 0 }, "tolerance: "},
		{func(b *batch) { b.MaxSweeps = -1 }, "sweep limit: "},
		{func(b *batch) { b.GiveUp = -1 }, "give up: "},
		{func(b *batch) { b.Anneal = math.NaN() }, "annealing: "},
		{func(b *batch) { b.Only = []int{1, 1} }, "problems: "},
		{func(b *batch) { b.Only = []int{2} }, "problems: "},
		{func(b *batch) { b.Counts = b.Values }, "counts: "},
		{func(b *batch) { b.Stop = b.A }, "stop: "},
	} {
		b := put(t, dev, mixed(12, ensemble.SqEuclidean, 0.1)[:2], false)
		c.change(b)
		require.ErrorContains(t, ensemble.Solve(b.Args), c.text)
	}
	for _, sizes := range [][2][]int{{{1}, {1, 2}}, {{0}, {1}}, {{1}, {-1}}, {{1 << 30}, {1}}} {
		_, err := ensemble.NewLayout(dev, sizes[0], sizes[1])
		require.ErrorIs(t, err, gpu.ErrInvalid)
	}
	none := put(t, dev, mixed(13, ensemble.SqEuclidean, 0.1)[:1], false)
	none.Only = []int{}
	require.True(t, math.IsNaN(none.solve(t)[0].values[0]))
}

// Whatever the problem: what is reported holds of the potentials.
func FuzzSolve(f *testing.F) {
	f.Add(uint64(1), uint8(3), uint8(5), 0.1, true)
	f.Add(uint64(2), uint8(40), uint8(1), 1e-5, false)
	f.Add(uint64(3), uint8(17), uint8(33), 1e3, true)
	dev, err := gpu.Open("cpu")
	if err != nil {
		f.Fatal(err)
	}
	defer dev.Close()
	f.Fuzz(func(t *testing.T, seed uint64, n, m uint8, frac float64, single bool) {
		if !(frac > 1e-8 && frac < 1e8) {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 1))
		b := put(t, dev, []problem{random(rng, 1+int(n)%70, 1+int(m)%70, ensemble.SqEuclidean, frac)}, seed%2 == 0)
		b.MaxSweeps = 100
		if single {
			b.Sweeps = tensor.Float32
		}
		b.problems[0].check(t, b.solve(t)[0])
	})
}

// Two problems: one point against one, and a pair against itself moved by one.
func ExampleSolve() {
	dev, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dev.Close()
	layout, err := ensemble.NewLayout(dev, []int{1, 2}, []int{1, 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer layout.Free()
	x, _ := tensor.From(dev, []float64{0, 0, 3}, 3, 1)
	y, _ := tensor.From(dev, []float64{2, 1, 4}, 3, 1)
	epsilon, _ := tensor.From(dev, []float64{0.5, 0.5}, 2)
	f, _ := tensor.New(dev, tensor.Float64, 3)
	g, _ := tensor.New(dev, tensor.Float64, 3)
	values, _ := tensor.New(dev, tensor.Float64, 2, ensemble.Values)
	counts, _ := tensor.New(dev, tensor.Int32, 2, ensemble.Counts)
	if err := ensemble.Solve(ensemble.Args{
		Layout: layout, X: x, Y: y, Epsilon: epsilon, F: f, G: g, Values: values, Counts: counts,
		Sweeps: tensor.Float64, Tolerance: 1e-9, MaxSweeps: 100,
	}); err != nil {
		fmt.Println(err)
		return
	}
	v, _ := tensor.Values[float64](values)
	for p := range 2 {
		fmt.Printf("%.4f\n", v[p*ensemble.Values+ensemble.TransportCost])
	}
	// Output:
	// 4.0000
	// 1.0000
}

// 1,000 problems of 64 points at ε of 0.05 mean costs.
func BenchmarkSolve(b *testing.B) {
	for _, dev := range kerneltest.Hardware(b) {
		for _, d := range []int{2, 16} {
			for _, dtype := range dtypes {
				b.Run(fmt.Sprintf("%s/%v/d=%d", dev.Name, dtype, d), func(b *testing.B) {
					const problems, n = 1000, 64
					rng := rand.New(rand.NewPCG(1, uint64(d)))
					cloud := func(scale, shift float64) tensor.Tensor {
						v := make([]float64, problems*n*d)
						for i := range v {
							v[i] = scale*rng.NormFloat64() + shift
						}
						return kerneltest.Put(b, dev.Device, v, problems*n, d).Tensor
					}
					count, eps := make([]int, problems), make([]float64, problems)
					for p := range count {
						count[p], eps[p] = n, 0.05
					}
					layout, err := ensemble.NewLayout(dev.Device, count, count)
					require.NoError(b, err)
					defer layout.Free()
					a := ensemble.Args{
						Layout: layout, X: cloud(1, 0), Y: cloud(0.7, 0.5), Epsilon: kerneltest.Put(b, dev.Device, eps).Tensor, PerMean: true,
						F: kerneltest.New(b, dev.Device, tensor.Float64, problems*n), G: kerneltest.New(b, dev.Device, tensor.Float64, problems*n),
						Values: kerneltest.New(b, dev.Device, tensor.Float64, problems, ensemble.Values),
						Counts: kerneltest.New(b, dev.Device, tensor.Int32, problems, ensemble.Counts),
						Sweeps: dtype, Tolerance: 1e-6, MaxSweeps: 1000,
					}
					for b.Loop() {
						require.NoError(b, ensemble.Solve(a))
						require.NoError(b, dev.Sync())
					}
					b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/problems, "µs/problem")
					values, err := tensor.Values[float64](a.Values)
					require.NoError(b, err)
					for p := range problems {
						require.LessOrEqual(b, values[p*ensemble.Values+ensemble.Residual], 1.1e-6)
					}
				})
			}
		}
	}
}
