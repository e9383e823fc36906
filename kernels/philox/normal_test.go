package philox

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// real is arithmetic with 200 bits: the definition, by Taylor series.
type real struct{ *big.Float }

const precision = 200

func exact(x float64) real     { return real{big.NewFloat(x).SetPrec(precision)} }
func zero() *big.Float         { return new(big.Float).SetPrec(precision) }
func (a real) add(b real) real { return real{zero().Add(a.Float, b.Float)} }
func (a real) sub(b real) real { return real{zero().Sub(a.Float, b.Float)} }
func (a real) mul(b real) real { return real{zero().Mul(a.Float, b.Float)} }
func (a real) div(b real) real { return real{zero().Quo(a.Float, b.Float)} }
func (a real) sqrt() real      { return real{zero().Sqrt(a.Float)} }

// log m = 2 artanh((m-1)/(m+1)) for m near 1, and k log 2 = k log(4/3) + k log(3/2).
func (a real) log() real {
	near1 := func(m real) real {
		s := m.sub(exact(1)).div(m.add(exact(1)))
		sum, power := exact(0), s
		for k := 1; k < 160; k += 2 {
			sum = sum.add(power.div(exact(float64(k))))
			power = power.mul(s).mul(s)
		}
		return sum.add(sum)
	}
	m := new(big.Float)
	k := a.MantExp(m)
	log2 := near1(exact(4).div(exact(3))).add(near1(exact(1.5)))
	return near1(real{m.SetPrec(precision)}).add(log2.mul(exact(float64(k))))
}

// cis is (cos x, sin x) for |x| < 7.
func (x real) cis() (cosine, sine real) {
	term := exact(1)
	sums := [4]real{exact(0), exact(0), exact(0), exact(0)}
	for k := range 120 {
		sums[k%4] = sums[k%4].add(term)
		term = term.mul(x).div(exact(float64(k + 1)))
	}
	return sums[0].sub(sums[2]), sums[1].sub(sums[3])
}

var pi, _, _ = big.ParseFloat("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798", 10, precision, big.ToNearestEven)

// definition is the pair of normals of radius √(-2 log u) and angle of so many turns.
func definition(u, turns real) (even, odd real) {
	radius := exact(-2).mul(u.log()).sqrt()
	c, s := turns.mul(exact(2)).mul(real{pi}).cis()
	return radius.mul(c), radius.mul(s)
}

// ulps is |got - want| in units in the last place of want for so many bits.
func ulps(got float64, want real, bits int) float64 {
	diff, _ := want.sub(exact(got)).Float64()
	return math.Abs(diff) / math.Ldexp(1, want.MantExp(nil)-bits)
}

func TestReferenceLogarithm(t *testing.T) {
	for _, x := range []float64{1e-9, 0.3, 0.999, 1, 1.5} {
		got, _ := exact(x).log().Float64()
		require.InDelta(t, math.Log(x), got, 1e-15*max(math.Abs(math.Log(x)), 1e-40))
	}
}

// Box and Muller's transform is within 4 units in the last place.
func TestNormalAccuracy(t *testing.T) {
	const bound = 4
	rng := rand.New(rand.NewPCG(1, 2))
	edges := []uint64{0, 1, math.MaxUint64, 1 << 63, 1<<63 - 1, 1 << 62, 3 << 62, 1<<62 - 1, 0x5a82799999999999, 0xb504f333f9de6484}
	word := func(i int) uint64 {
		if i < len(edges) {
			return edges[i]
		}
		w := rng.Uint64()
		switch i % 4 {
		case 1:
			w >>= rng.UintN(50) // far in the tail
		case 2:
			w = ^(w >> rng.UintN(50)) // near zero
		}
		return w
	}
	worst32, worst64 := 0.0, 0.0
	for i := range 1200 {
		a, b := word(i), word((i*7+3)%1200)
		// The address space of float64: 52 bits of a; quadrant and 52 bits of b.
		u := exact(uniform64(a))
		turns := exact(float64(b >> 62)).add(exact(uniform64(b << 2)).sub(exact(0.5))).div(exact(4))
		even, odd := definition(u, turns)
		x, y := normal64(a, b)
		worst64 = max(worst64, ulps(x, even, 53), ulps(y, odd, 53))

		a32, b32 := uint32(a>>32), uint32(b>>32)
		u = exact(float64(float32(float32(a32>>1)+0.5) * 0x1p-31))
		t32 := float32(int32(b32<<2|2)) * 0x1p-32
		turns = exact(float64(b32 >> 30)).add(exact(float64(t32))).div(exact(4))
		even, odd = definition(u, turns)
		x32, y32 := normal32(a32, b32)
		if u.Cmp(exact(1).Float) == 0 { // radius 0
			require.Zero(t, x32)
			require.Zero(t, y32)
			continue
		}
		worst32 = max(worst32, ulps(float64(x32), even, 24), ulps(float64(y32), odd, 24))
	}
	t.Logf("worst error: float32 %.2f ulp, float64 %.2f ulp", worst32, worst64)
	require.True(t, worst32 <= bound, "float32: %v ulp", worst32)
	require.True(t, worst64 <= bound, "float64: %v ulp", worst64)
}

// fma32 rounds the exact x*y + z once, where a sum in float64 rounds twice.
func TestFMA32(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	random := func() float32 {
		return math.Float32frombits(rng.Uint32()&0x807fffff | (100+rng.Uint32N(50))<<23)
	}
	twice := 0
	check := func(x, y, z float32) {
		t.Helper()
		sum := zero().SetPrec(400).Mul(exact(float64(x)).Float, exact(float64(y)).Float)
		sum.Add(sum, big.NewFloat(float64(z)))
		want, _ := sum.Float32()
		got := fma32(x, y, z)
		require.Truef(t, got == want, "%x*%x + %x: got %x, want %x", x, y, z, got, want)
		if float32(float64(x)*float64(y)+float64(z)) != want {
			twice++
		}
	}
	// Half an ulp of z and a little: rounded to float64 first, the little is lost.
	check(0x1.000002p0, 0x1p-24, 1)
	check(0x1.000002p-30, 0x1.000002p-30, 0x1.000002p0)
	check(0x1.000002p-12, 0x1.fffffcp-13, -0x1.000002p0)
	for range 40000 {
		x, y := random(), random()
		check(x, y, random())
		// z near a tie of the product.
		p := x * y
		check(x, y, math.Nextafter32(p, 0)*float32(math.Ldexp(1, int(rng.IntN(60))-30)))
		// A sum that is a tie in float32 but for a bit far below.
		one := math.Float32frombits(rng.Uint32()&0x7fffff | 127<<23)
		check(0x1.000002p-12, 0x1.000002p-12*float32(math.Ldexp(1, -int(rng.IntN(4)))), one)
		check(one, 0x1p-24, float32(math.Ldexp(1, int(rng.IntN(30)))))
		check(0x1p-12+0x1p-35, 0x1p-12, one)
	}
	require.Positive(t, twice, "no case that rounds twice: the test is vacuous")
}
