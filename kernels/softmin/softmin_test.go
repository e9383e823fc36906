package softmin_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	kt "github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/softmin"
)

// sizes straddle the blocks of rows and columns: 6, 12, 24, 48 and 96 rows; 16, 32, 64,
// 256, 512 and 1024 columns.
var sizes = [][2]int{{1, 1}, {31, 33}, {129, 1}, {32, 128}, {97, 127}, {1, 129}, {33, 257}, {128, 32}, {2, 1031}, {49, 64}, {13, 521}, {127, 31}}

// cases visits every dimension with every cost, at sizes and epsilons in turn.
// The emulation, some thousand times slower than what it emulates, gets one
// size of the three, unless FORTET_LONG=1.
func cases[T kt.Float](dev kt.Target, visit func(problem[T])) {
	repeats := 3
	if dev.Properties().Kind == gpu.Emulation && os.Getenv("FORTET_LONG") != "1" {
		repeats = 1
	}
	epsilons := []float64{1e-3, 0.05, 1, 10}
	seed := uint64(0)
	for _, d := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 64, 100, 512} {
		for _, cost := range []softmin.Cost{softmin.SqEuclidean, softmin.HalfSqEuclidean, softmin.Euclidean, softmin.Matrix} {
			scale := float64(d)
			switch cost {
			case softmin.Euclidean:
				scale = math.Sqrt(scale)
			case softmin.Matrix:
				scale = 1
			}
			for range repeats {
				s := sizes[seed%uint64(len(sizes))]
				visit(random[T](seed, cost, s[0], s[1], d, scale*epsilons[(seed/3)%uint64(len(epsilons))]))
				seed++
			}
		}
	}
}

func TestDefinition(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		t.Run("f32", func(t *testing.T) { cases(dev, func(p problem[float32]) { verify(t, p, run(t, dev, p)) }) })
		t.Run("f64", func(t *testing.T) { cases(dev, func(p problem[float64]) { verify(t, p, run(t, dev, p)) }) })
	})
}

// Data that break kernels: no arrays but the points, zero weights, equal
// points, points far from the origin, wide potentials.
func TestAwkwardData(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		t.Run("f32", func(t *testing.T) { awkward[float32](t, dev) })
		t.Run("f64", func(t *testing.T) { awkward[float64](t, dev) })
	})
}

func awkward[T kt.Float](t *testing.T, dev kt.Target) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, d := range []int{1, 2, 7, 9, 70} {
		for _, cost := range []softmin.Cost{softmin.SqEuclidean, softmin.HalfSqEuclidean, softmin.Euclidean} {
			base := func(epsilon float64) problem[T] { return random[T](uint64(d), cost, 37, 70, d, epsilon) }
			check := func(what string, p problem[T]) {
				t.Run(fmt.Sprintf("%s/%v,d=%d", what, cost, d), func(t *testing.T) { verify(t, p, run(t, dev, p)) })
			}

			p := base(0.5)
			p.g, p.logb, p.loga = nil, nil, nil
			check("bare", p.settle(r))

			p = base(0.5)
			for j := 0; j < p.m; j += 3 {
				p.logb[j] = T(math.Inf(-1))
			}
			p.g[1] = T(math.Inf(-1))
			p.loga[2] = T(math.Inf(-1))
			check("zero weights", p.settle(r))

			p = base(0.01)
			copy(p.x, p.y[:p.n*d])
			copy(p.y[d:2*d], p.y[:d])
			check("equal points", p.settle(r))

			for _, offset := range []T{1e3, 1e6} {
				p = base(float64(d))
				for i := range p.x {
					p.x[i] += offset
				}
				for i := range p.y {
					p.y[i] += offset
				}
				check(fmt.Sprint("offset ", offset), p.settle(r))
			}

			// Weights w of the rows, and with damp < 1 col too, leave the range of float32.
			for _, wide := range []T{100, 1000} {
				p = base(0.1)
				for j := range p.g {
					p.g[j] *= wide
				}
				if wide == 1000 {
					p.damp = 1
				}
				check(fmt.Sprint("wide potentials ", wide), p.settle(r))
			}
		}
	}
}

func TestRowsWithoutWeight(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		inf := float32(math.Inf(1))
		for _, d := range []int{2, 20} {
			p := random[float32](1, softmin.SqEuclidean, 9, 40, d, 1)
			for j := range p.logb {
				p.logb[j] = -inf
			}
			for i := range p.f {
				p.f[i] = []float32{0, inf, -inf}[i%3]
			}
			got := run(t, dev, p)
			require.Equal(t, slices.Repeat([]float32{inf}, p.n), got.out)
			require.Equal(t, make([]float64, p.m), got.col)
			require.Equal(t, make([]float32, p.n), got.mass)
			require.Equal(t, make([]float32, p.n), got.mean)
			require.NoError(t, within(got.grad, make([]float64, p.n*d), 0))
		}
		// One forbidden row, and forbidden pairs in the others.
		p := random[float32](2, softmin.Matrix, 9, 40, 0, 1)
		for j := range p.m {
			p.matrix[4*p.m+j] = inf
			p.matrix[(j%p.n)*p.m+j] = inf
		}
		got := run(t, dev, p)
		require.Equal(t, inf, got.out[4])
		require.Zero(t, got.mass[4])
		require.Zero(t, got.mean[4])
		verify(t, p, got)
	})
}

func TestInfinitePotential(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		for _, d := range []int{2, 20} {
			p := random[float32](1, softmin.SqEuclidean, 30, 1200, d, 1)
			p.g[700] = float32(math.Inf(1))
			for i, v := range runSoftmin(t, dev, p) {
				require.True(t, math.IsInf(float64(v), -1), "[%d] is %v, want -Inf", i, v)
			}
		}
	})
}

// NaN anywhere in a row's data makes that row NaN, and hides in no other.
func TestNaN(t *testing.T) {
	kt.Each(t, func(t *testing.T, dev kt.Target) {
		t.Run("f32", func(t *testing.T) { nan[float32](t, dev) })
		t.Run("f64", func(t *testing.T) { nan[float64](t, dev) })
	})
}

func nan[T kt.Float](t *testing.T, dev kt.Target) {
	bad := T(math.NaN())
	for _, cost := range []softmin.Cost{softmin.SqEuclidean, softmin.Euclidean, softmin.Matrix} {
		for _, d := range []int{2, 20} {
			fresh := func() problem[T] { return random[T](5, cost, 50, 77, d, 1) }
			isNaN := func(what string, v []T, only int) {
				t.Helper()
				for i := range v {
					require.Equal(t, only < 0 || i == only, v[i] != v[i], "%v, d=%d: %s: [%d] is %v", cost, d, what, i, v[i])
				}
			}
			for _, j := range []int{0, 40, 76} {
				p := fresh()
				p.g[j] = bad
				got := run(t, dev, p)
				isNaN("g", got.out, -1)
				isNaN("g", got.mass, -1)
				isNaN("g", convert[T](got.col), -1)
				p = fresh()
				p.logb[j] = bad
				isNaN("log b", run(t, dev, p).out, -1)
			}
			p := fresh()
			if cost == softmin.Matrix {
				p.matrix[7*p.m+76] = bad
			} else {
				p.x[7*d+1] = bad
				q := fresh()
				q.y[76*d+1] = bad
				isNaN("y", run(t, dev, q).out, -1)
			}
			got := run(t, dev, p)
			isNaN("x", got.out, 7)
			isNaN("x", got.mass, 7)
			isNaN("x", got.mean, 7)
			isNaN("x", convert[T](got.col), -1)
			p = fresh()
			p.f[3] = bad
			isNaN("f", run(t, dev, p).mass, 3)
			p = fresh()
			p.loga[3] = bad
			isNaN("log a", convert[T](run(t, dev, p).col), -1)
		}
	}
}
