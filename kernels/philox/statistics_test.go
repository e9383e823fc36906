package philox

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// The seeds below are fixed, so each test passes or fails for ever. Thresholds
// are five standard errors of the estimator, and for Kolmogorov's statistic the
// quantile of probability 0.999, 1.95 (Kolmogorov's distribution:
// 2 exp(-2 * 1.95²) = 1.0e-3).
const (
	sigmas     = 5
	kolmogorov = 1.95
)

func draw64[T float32 | float64](t *testing.T, n, d int, draw Draw) []float64 {
	t.Helper()
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	out, err := tensor.New(dev, tensor.TypeOf[T](), n, d)
	require.NoError(t, err)
	defer out.Free()
	require.NoError(t, Normal(out, draw))
	v, err := tensor.Values[T](out)
	require.NoError(t, err)
	z := make([]float64, len(v))
	for i, x := range v {
		z[i] = float64(x)
	}
	return z
}

// within fails where an estimate is further from its value than sigmas
// standard errors.
func within(t *testing.T, what string, got, want, standardError float64) {
	t.Helper()
	require.Truef(t, math.Abs(got-want) <= sigmas*standardError, "%s: %v, want %v ± %d × %.2g", what, got, want, sigmas, standardError)
}

func TestNormalDistribution(t *testing.T) {
	t.Run("float32", func(t *testing.T) { normalDistribution[float32](t) })
	t.Run("float64", func(t *testing.T) { normalDistribution[float64](t) })
}

func normalDistribution[T float32 | float64](t *testing.T) {
	const n, d = 1 << 19, 4
	z := draw64[T](t, n, d, Draw{Seed: 20110, Step: 1})
	count := float64(len(z))

	// Moments: Var(z^k) = E z^2k - (E z^k)², E z^2k = (2k-1)!!.
	double := func(k int) float64 { // (k-1)!! for even k, else 0
		if k%2 == 1 {
			return 0
		}
		p := 1.0
		for j := k - 1; j > 1; j -= 2 {
			p *= float64(j)
		}
		return p
	}
	var sum [9]float64
	for _, x := range z {
		power := 1.0
		for k := 1; k <= 8; k++ {
			power *= x
			sum[k] += power
		}
	}
	for k := 1; k <= 8; k++ {
		m := double(k)
		within(t, fmt.Sprintf("moment %d", k), sum[k]/count, m, math.Sqrt((double(2*k)-m*m)/count))
	}

	// Tails: a binomial count.
	for _, at := range []float64{1, 2, 3, 4, 4.5, 5} {
		p := math.Erfc(at/math.Sqrt2) / 2
		low, high := 0.0, 0.0
		for _, x := range z {
			if x > at {
				high++
			}
			if x < -at {
				low++
			}
		}
		// A count of a few is Poisson; one more keeps its short tail from counting.
		slack := 1 / sigmas / count
		within(t, fmt.Sprintf("P(z > %v)", at), high/count, p, math.Sqrt(p*(1-p)/count)+slack)
		within(t, fmt.Sprintf("P(z < -%v)", at), low/count, p, math.Sqrt(p*(1-p)/count)+slack)
	}

	// Kolmogorov and Smirnov, for each coordinate by itself and for all.
	for j := range d + 1 {
		var v []float64
		for i, x := range z {
			if j == d || i%d == j {
				v = append(v, x)
			}
		}
		slices.Sort(v)
		worst := 0.0
		for i, x := range v {
			p := math.Erfc(-x/math.Sqrt2) / 2
			worst = max(worst, p-float64(i)/float64(len(v)), float64(i+1)/float64(len(v))-p)
		}
		require.Truef(t, worst*math.Sqrt(float64(len(v))) <= kolmogorov, "coordinate %d: √n D = %v", j, worst*math.Sqrt(float64(len(v))))
	}
}

// Neighbours in every direction of the address are uncorrelated, as are their
// squares, which a wrong pairing of radii would betray.
func TestNormalIndependence(t *testing.T) {
	const n, d = 1 << 18, 4
	base := Draw{Seed: 3, Index: 1 << 33, Step: 10, Purpose: 4}
	z := draw64[float32](t, n, d, base)
	other := func(f func(*Draw)) []float64 {
		at := base
		f(&at)
		return draw64[float32](t, n, d, at)
	}
	column := func(v []float64, j int) []float64 {
		out := make([]float64, 0, n)
		for i := j; i < len(v); i += d {
			out = append(out, v[i])
		}
		return out
	}
	pairs := map[string][2][]float64{
		"seed":    {z, other(func(s *Draw) { s.Seed++ })},
		"seed 32": {z, other(func(s *Draw) { s.Seed += 1 << 32 })},
		"step":    {z, other(func(s *Draw) { s.Step++ })},
		"purpose": {z, other(func(s *Draw) { s.Purpose++ })},
		"index":   {z[:len(z)-d], z[d:]},
		"index32": {z, other(func(s *Draw) { s.Index += 1 << 32 })},
	}
	for i := range d {
		for j := range i {
			pairs[fmt.Sprintf("coordinates %d %d", j, i)] = [2][]float64{column(z, j), column(z, i)}
		}
	}
	for name, p := range pairs {
		products, squares := 0.0, 0.0
		for i, x := range p[0] {
			y := p[1][i]
			products += x * y
			squares += (x*x - 1) * (y*y - 1)
		}
		m := float64(len(p[0]))
		within(t, name, products/m, 0, 1/math.Sqrt(m))            // Var(xy) = 1
		within(t, name+", squares", squares/m, 0, 2/math.Sqrt(m)) // Var(x²-1) = 2
	}
}

// Every bit of every word is fair, and neighbours are.
func TestBitsAreFair(t *testing.T) {
	const n = 1 << 18
	v := make([]uint32, 4*n)
	require.NoError(t, HostBits(v, 4, Draw{Seed: 8}))
	for j := range 4 {
		for bit := range 32 {
			ones, flips := 0.0, 0.0
			for i := j; i < len(v); i += 4 {
				ones += float64(v[i] >> bit & 1)
				if i >= 4 {
					flips += float64((v[i] ^ v[i-4]) >> bit & 1)
				}
			}
			within(t, "ones", ones/n, 0.5, 0.5/math.Sqrt(n))
			within(t, "flips", flips/(n-1), 0.5, 0.5/math.Sqrt(n-1))
		}
	}
}

func TestStream(t *testing.T) {
	draw := Draw{Seed: 77, Index: 5, Step: 9, Purpose: 3}
	const count = 11
	normal, uniform := make([]float64, count), make([]float64, count)
	require.NoError(t, HostNormal(normal, count, draw))
	require.NoError(t, HostUniform(uniform, count, draw))
	a, b := NewStream(draw), NewStream(draw)
	for i := range count {
		require.Equal(t, normal[i], a.NormFloat64())
		require.Equal(t, uniform[i], b.Float64())
	}

	// A change of kind goes on to a fresh block: no words serve twice.
	s := NewStream(draw)
	first := s.Uint64()
	z := s.NormFloat64()
	w := Block(draw.Seed, [4]uint32{5, 0, 9, 3<<24 | 1})
	even, odd := normal64(word64(w[0], w[1]), word64(w[2], w[3]))
	require.Equal(t, even, z)
	w = Block(draw.Seed, [4]uint32{5, 0, 9, 3 << 24})
	require.Equal(t, word64(w[0], w[1]), first)
	w = Block(draw.Seed, [4]uint32{5, 0, 9, 3<<24 | 2})
	require.Equal(t, word64(w[0], w[1]), s.Uint64())
	require.NotEqual(t, odd, s.NormFloat64())

	// The last block of a step is followed by the first one of the next.
	end := Stream{Draw: draw, block: maxBlocks - 1}
	end.NormFloat64()
	end.NormFloat64()
	next := draw
	next.Step++
	require.Equal(t, NewStream(next).NormFloat64(), end.NormFloat64())
}
