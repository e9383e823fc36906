package softmin_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/softmin"
)

// The tensor core precisions, and what is particular to the division of work
// in the CUDA kernels. Under emulation all of a tensor core kernel runs but the
// matrix instruction itself, which is computed from the same fragments.

// cudaDevices are the emulation and, where there is one, the GPU.
func cudaDevices(t *testing.T) []kt.Target {
	t.Helper()
	var out []kt.Target
	for _, dev := range kt.Devices(t) {
		if dev.Properties().Kind != gpu.CPU {
			out = append(out, dev)
		}
	}
	if len(out) == 0 {
		t.Log("not run: there is neither emulation nor GPU")
	}
	return out
}

// exact is softmin and sweep in float64, by definition, for squared costs.
type exact struct {
	out, col []float64
	points   float64 // largest |x_i| + |y_j|, from the mean of all points
	distance float64 // largest |x_i - y_j|
	terms    float64 // largest |g_j| + ε |log b_j| + c_ij
}

func defineExactly(p problem[float32]) exact {
	kappa := 1.0
	if p.cost == softmin.HalfSqEuclidean {
		kappa = 0.5
	}
	e := exact{out: make([]float64, p.n), col: make([]float64, p.m)}
	centre := make([]float64, p.d)
	for k := range p.d {
		for i := range p.n {
			centre[k] += float64(p.x[i*p.d+k]) / float64(p.n+p.m)
		}
		for j := range p.m {
			centre[k] += float64(p.y[j*p.d+k]) / float64(p.n+p.m)
		}
	}
	radius := func(v []float32, count int) float64 {
		var top float64
		for i := range count {
			var s float64
			for k := range p.d {
				s += (float64(v[i*p.d+k]) - centre[k]) * (float64(v[i*p.d+k]) - centre[k])
			}
			top = max(top, math.Sqrt(s))
		}
		return top
	}
	e.points = radius(p.x, p.n) + radius(p.y, p.m)
	z := make([]float64, p.m)
	for i := range p.n {
		top := math.Inf(-1)
		for j := range p.m {
			var s float64
			for k := range p.d {
				s += (float64(p.x[i*p.d+k]) - float64(p.y[j*p.d+k])) * (float64(p.x[i*p.d+k]) - float64(p.y[j*p.d+k]))
			}
			z[j] = at(p.logb, j) + (at(p.g, j)-kappa*s)/p.epsilon
			top = max(top, z[j])
			e.distance = max(e.distance, math.Sqrt(s))
			if !math.IsInf(at(p.logb, j), 0) {
				e.terms = max(e.terms, math.Abs(at(p.g, j))+p.epsilon*math.Abs(at(p.logb, j))+kappa*s)
			}
		}
		var sum float64
		for j := range p.m {
			sum += math.Exp(z[j] - top)
		}
		e.out[i] = -p.epsilon * (top + math.Log(sum))
		w := math.Exp(at(p.loga, i) + (p.damp-1)*e.out[i]/p.epsilon)
		for j := range p.m {
			e.col[j] += w * math.Exp(z[j]+e.out[i]/p.epsilon)
		}
	}
	return e
}

// costError bounds the error of a cost c = κ|x - y|² whose coordinates enter
// products rounded.
//
// TF32 keeps 11 significant bits, so the kernel sees points x(1 + δ), |δ| ≤
// 2^-11 in every coordinate, whose distance it computes exactly but for float32
// arithmetic: |Δc| ≤ κ (2 |x - y| e + e²) with e = 2^-11 (|x| + |y|).
//
// bfloat16 keeps 8 bits, hi and lo together 16, and lo·lo is left out of
// <x, y>, <x, x> and <y, y> alike, which leaves |lo_x - lo_y|² out of |x - y|²:
// |Δc| ≤ κ (2 |x - y| e + e² + (2^-8 (|x| + |y|))²/4) with e = 2^-17 (|x| + |y|)/2.
//
// The float32 arithmetic of d products and a few sums is taken to lose one unit
// 2^-23 each (tensor cores may truncate) of |x|² + |y|² and of the other terms.
func costError(p problem[float32], precision softmin.Precision, e exact) float64 {
	kappa := 1.0
	if p.cost == softmin.HalfSqEuclidean {
		kappa = 0.5
	}
	rounding, left := 0x1p-11*e.points, 0.0
	if precision == softmin.BF16x3 {
		rounding, left = 0x1p-18*e.points, 0x1p-18*e.points*e.points
	}
	units := kappa*float64(p.d+8)*e.points*e.points + 8*e.terms
	return kappa*(2*e.distance*rounding+rounding*rounding+left) + 0x1p-23*units
}

// verifyTensor compares softmin and sweep with the definition. softmin is an
// average of costs, so an error of a cost is one of softmin; in col the error of
// the cost and the one of softmin are exponents.
func verifyTensor(t *testing.T, dev kt.Target, precision softmin.Precision, p problem[float32], budget func(exact) float64) {
	t.Helper()
	want := defineExactly(p)
	out, swept, col := runTensor(t, dev, precision, p)
	arithmetic := 16 * 0x1p-23 * p.epsilon // of exponential, sum and logarithm
	loss := budget(want) + arithmetic
	name := fmt.Sprintf("%v of %v", precision, p)
	require.NoError(t, kt.Within(out, want.out, loss), "softmin %s", name)
	require.NoError(t, kt.BitEqual(out, swept), "softmin by sweep %s", name)
	relative := math.Expm1((2*loss + arithmetic) / p.epsilon)
	for j, w := range want.col {
		if diff := math.Abs(col[j] - w); !(diff <= relative*w+0x1p-120) {
			t.Fatalf("col %s: [%d] got %v, want %v: relative error %.3g > %.3g", name, j, col[j], w, diff/w, relative)
		}
	}
}

func runTensor(t *testing.T, dev kt.Target, precision softmin.Precision, p problem[float32]) (out, swept []float32, col []float64) {
	t.Helper()
	a := put(t, dev, p)
	a.pairs.Precision = precision
	first, second := kt.Poison[float32](t, dev.Device, p.n), kt.Poison[float32](t, dev.Device, p.n)
	columns := kt.Poison[float64](t, dev.Device, p.m)
	require.NoError(t, a.pairs.Softmin(dev.Device, first.Tensor))
	require.NoError(t, a.pairs.Sweep(dev.Device, softmin.SweepArgs{
		LogA: a.loga.Tensor, Damp: p.damp, Out: second.Tensor, Col: columns.Tensor}))
	a.unmodified(t)
	return first.Get(t), second.Get(t), columns.Get(t)
}

var tensorPrecisions = []softmin.Precision{softmin.TF32, softmin.BF16x3}

// Sizes straddle tiles of 128 x 128 and splits of two tiles; dimensions the 8
// and 16 of an instruction, the 32 of a slice, and the 128 up to which rows
// stay in shared memory.
func TestTensorDefinition(t *testing.T) {
	shapes := [][3]int{
		{1, 1, 1}, {127, 129, 3}, {128, 128, 8}, {129, 257, 15}, {5, 300, 16}, {300, 5, 17}, {130, 513, 31},
		{64, 128, 32}, {31, 33, 33}, {257, 255, 64}, {100, 400, 100}, {129, 127, 128}, {67, 290, 129}, {40, 600, 200},
	}
	for _, dev := range cudaDevices(t) {
		for _, precision := range tensorPrecisions {
			t.Run(dev.Name+"/"+precision.String(), func(t *testing.T) {
				for i, s := range shapes {
					cost := []softmin.Cost{softmin.SqEuclidean, softmin.HalfSqEuclidean}[i%2]
					epsilon := float64(s[2]) * []float64{0.3, 1, 0.05}[i%3]
					p := random[float32](uint64(i), cost, s[0], s[1], s[2], epsilon)
					verifyTensor(t, dev, precision, p, func(e exact) float64 { return costError(p, precision, e) })
				}
			})
		}
	}
}

// On a grid that TF32 represents, TF32 is as good as float32: whatever goes to
// the wrong place in a fragment shows. Coordinates are integers below 8, their
// centre is a mean of at most 64 of them and so a multiple of 1/64 and
// representable beside them, and epsilon makes the scale of the points 1.
func TestTensorExactGrid(t *testing.T) {
	for _, dev := range cudaDevices(t) {
		t.Run(dev.Name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 5))
			for _, d := range []int{1, 7, 40, 150} {
				p := random[float32](uint64(d), softmin.SqEuclidean, 70, 300, d, 2/math.Ln2)
				for _, v := range [][]float32{p.x, p.y} {
					for i := range v {
						v[i] = float32(r.IntN(16) - 8)
					}
				}
				verifyTensor(t, dev, softmin.TF32, p, func(e exact) float64 {
					return 0x1p-23 * (float64(d+8)*e.points*e.points + 8*e.terms)
				})
			}
		})
	}
}

// Weights of zero, equal points, a cloud far from the origin, no optional array.
func TestTensorAwkwardData(t *testing.T) {
	for _, dev := range cudaDevices(t) {
		for _, precision := range tensorPrecisions {
			t.Run(dev.Name+"/"+precision.String(), func(t *testing.T) {
				base := func() problem[float32] {
					return random[float32](8, softmin.SqEuclidean, 60, 140, 20, 4)
				}
				check := func(p problem[float32]) {
					verifyTensor(t, dev, precision, p, func(e exact) float64 { return costError(p, precision, e) })
				}
				p := base()
				for j := 0; j < p.m; j += 3 {
					p.logb[j] = float32(math.Inf(-1))
				}
				check(p)

				p = base()
				copy(p.y, p.x)
				check(p)

				p = base()
				for i := range p.x {
					p.x[i] += 1000
				}
				for i := range p.y {
					p.y[i] += 1000
				}
				check(p)

				p = base()
				p.g, p.logb, p.loga, p.damp = nil, nil, nil, 1
				check(p)
			})
		}
	}
}

// The cost of a point against itself is zero whatever its coordinates round to,
// up to float32 arithmetic: where every other pair is far away in units of
// epsilon, softmin_i = -g_i - ε log b_i. (Rounding would cost 2^-11 |x|² if the
// norms were not those of the rounded points.)
func TestTensorEqualPoints(t *testing.T) {
	for _, dev := range cudaDevices(t) {
		for _, precision := range tensorPrecisions {
			t.Run(dev.Name+"/"+precision.String(), func(t *testing.T) {
				p := random[float32](12, softmin.SqEuclidean, 140, 140, 40, 0.05)
				copy(p.y, p.x)
				verifyTensor(t, dev, precision, p, func(e exact) float64 {
					return 0x1p-23 * (float64(p.d+8)*e.points*e.points + 8*e.terms)
				})
			})
		}
	}
}

// A row without weights is +Inf, NaN stays in its row, and neither stops col.
func TestTensorInfinitiesAndNaN(t *testing.T) {
	for _, dev := range cudaDevices(t) {
		for _, precision := range tensorPrecisions {
			t.Run(dev.Name+"/"+precision.String(), func(t *testing.T) {
				p := random[float32](1, softmin.SqEuclidean, 33, 65, 12, 3)
				for j := range p.logb {
					p.logb[j] = float32(math.Inf(-1))
				}
				out, _, col := runTensor(t, dev, precision, p)
				for i, v := range out {
					require.True(t, math.IsInf(float64(v), 1), "[%d] %v", i, v)
				}
				for j, v := range col {
					require.Zero(t, v, "[%d]", j)
				}

				p = random[float32](2, softmin.SqEuclidean, 33, 65, 12, 3)
				p.x[5*p.d+3] = float32(math.NaN())
				out, _, col = runTensor(t, dev, precision, p)
				for i, v := range out {
					require.Equal(t, i == 5, v != v, "[%d] %v", i, v)
				}
				for j, v := range col {
					require.True(t, v != v, "[%d] %v", j, v)
				}
			})
		}
	}
}

func TestTensorRepeats(t *testing.T) {
	for _, dev := range cudaDevices(t) {
		for _, precision := range tensorPrecisions {
			t.Run(dev.Name+"/"+precision.String(), func(t *testing.T) {
				p := random[float32](4, softmin.SqEuclidean, 130, 300, 40, 20)
				out, _, col := runTensor(t, dev, precision, p)
				for range 3 {
					again, swept, columns := runTensor(t, dev, precision, p)
					require.NoError(t, kt.BitEqual(again, out))
					require.NoError(t, kt.BitEqual(swept, out))
					require.NoError(t, kt.BitEqual(columns, col))
				}
			})
		}
	}
}

func TestTensorUnsupported(t *testing.T) {
	for _, dev := range cudaDevices(t) {
		for _, precision := range tensorPrecisions {
			t.Run(dev.Name+"/"+precision.String(), func(t *testing.T) {
				for _, cost := range []softmin.Cost{softmin.Euclidean, softmin.Matrix} {
					p := random[float32](1, cost, 10, 10, 12, 1)
					a := put(t, dev, p)
					a.pairs.Precision = precision
					out := kt.Poison[float32](t, dev.Device, p.n)
					require.ErrorIs(t, a.pairs.Softmin(dev.Device, out.Tensor), gpu.ErrUnsupported)
				}
				p := random[float32](1, softmin.SqEuclidean, 10, 10, 12, 1)
				a := put(t, dev, p)
				a.pairs.Precision = precision
				mass := kt.Poison[float32](t, dev.Device, p.n)
				require.ErrorIs(t, a.pairs.Apply(dev.Device, softmin.ApplyArgs{F: a.f.Tensor, Mass: mass.Tensor}), gpu.ErrUnsupported)
			})
		}
	}
}

// So many columns that every split has several tiles, in native kernels: the
// running maximum, the sums and the copies go from tile to tile. (Those of
// tensor cores have two tiles in a split wherever there are two.)
func TestSplitsOfSeveralTiles(t *testing.T) {
	// 2048 splits (softmin.h) of tiles of 128 columns up to 8 dimensions, else 64.
	const low, high = 2048*128 + 300, 2048*64 + 100
	softminOf := func(t *testing.T, dev kt.Target, p problem[float32]) {
		want, naive := define[float64](p, false), define[float32](p, p.products())
		require.NoError(t, kt.Close(runSoftmin(t, dev, p), naive.out, want.out, 8), "%v", p)
	}
	for _, dev := range cudaDevices(t) {
		t.Run(dev.Name, func(t *testing.T) {
			softminOf(t, dev, random[float32](1, softmin.SqEuclidean, 1, low, 2, 0.01))
			softminOf(t, dev, random[float32](2, softmin.SqEuclidean, 1, high, 9, 0.5))
			if os.Getenv("FORTET_LONG") != "1" {
				t.Log("not run: all operations and costs on several tiles (FORTET_LONG=1)")
				return
			}
			p := random[float32](1, softmin.SqEuclidean, 1, low, 2, 0.01)
			verify(t, p, run(t, dev, p))
			for _, cost := range []softmin.Cost{softmin.SqEuclidean, softmin.Euclidean, softmin.Matrix} {
				p := random[float32](2, cost, 1, high, 9, 0.5)
				verify(t, p, run(t, dev, p))
			}
			q := random[float64](3, softmin.SqEuclidean, 1, high, 9, 0.5)
			verify(t, q, run(t, dev, q))
		})
	}
}
