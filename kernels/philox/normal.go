package philox

import "math"

// This file is draw.h once more, for the host: the same operations in the same
// order. No product is an operand of a plain sum, so that Go's own freedom to
// fuse x*y + z, which it uses on some processors, has nothing to change.

func uniform32(w uint32) float32 { return math.Float32frombits(w>>9|0x3f800000) - 0x1.fffffep-1 }

func uniform64(w uint64) float64 {
	return math.Float64frombits(w>>12|0x3ff0000000000000) - 0x1.fffffffffffffp-1
}

// fma32 is x*y + z rounded once. The product is exact in float64; the sum is
// rounded to odd there, which no second rounding can spoil (Boldo and
// Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
func fma32(x, y, z float32) float32 {
	p, c := float64(x)*float64(y), float64(z)
	s := p + c
	back := s - p
	rest := (p - (s - back)) + (c - back) // p + c - s, exactly: Knuth's two-sum
	if bits := math.Float64bits(s); rest != 0 && bits&1 == 0 {
		if (rest > 0) == (s > 0) {
			bits++
		} else {
			bits--
		}
		s = math.Float64frombits(bits)
	}
	return float32(s)
}

// horner is c[0] z^(len-1) + … + c[len-1].
func horner32(z float32, c ...float32) float32 {
	p := c[0]
	for _, a := range c[1:] {
		p = fma32(p, z, a)
	}
	return p
}

func horner64(z float64, c ...float64) float64 {
	p := c[0]
	for _, a := range c[1:] {
		p = math.FMA(p, z, a)
	}
	return p
}

func log32(u float32) float32 {
	i := math.Float32bits(u) + (0x3f800000 - 0x3f3504f3)
	k := float32(int32(i>>23) - 127)
	f := math.Float32frombits((i&0x7fffff)+0x3f3504f3) - 1
	q := horner32(f, -0x1.41ef2p-4, 0x1.07d116p-3, -0x1.0ce054p-3, 0x1.226e42p-3, -0x1.54788ep-3,
		0x1.99a596p-3, -0x1.000222p-2, 0x1.55554ap-2, -0.5)
	square := float32(f * f)
	return fma32(k, 0x1.62e4p-1, f+fma32(k, 0x1.7f7d1cp-20, float32(square*q)))
}

func log64(u float64) float64 {
	i := math.Float64bits(u) + (0x3ff0000000000000 - 0x3fe6a09e667f3bcd)
	k := math.Float64frombits(i>>52|0x4330000000000000) - (0x1p52 + 1023)
	f := math.Float64frombits((i&0xfffffffffffff)+0x3fe6a09e667f3bcd) - 1
	s := f / (2 + f)
	z := float64(s * s)
	r := horner64(z, 0x1.2f5723cd59b19p-3, 0x1.3999f70840165p-3, 0x1.7466884a6ea3bp-3, 0x1.c71c50b688ef1p-3,
		0x1.2492494379623p-2, 0x1.999999997e3e2p-2, 0x1.5555555555597p-1)
	half := float64(0.5 * f)
	t := math.FMA(s, math.FMA(z, r, float64(half*f)), float64(k*0x1.a39ef35793c76p-33))
	return math.FMA(k, 0x1.62e42fee00000p-1, f-math.FMA(half, f, -t))
}

func sincos32(t float32) (sine, cosine float32) {
	z := float32(t * t)
	s := horner32(z, -0x1.2dd046p-8, 0x1.466032p-4, -0x1.4abbc0p-1, -0x1.777a5cp-25)
	c := horner32(z, 0x1.d9f7b8p-11, -0x1.55c664p-6, 0x1.03c1dep-2, -0x1.3bd3ccp+0, 1)
	return fma32(t, 0x1.921fb6p+0, float32(t*s)), c
}

func sincos64(t float64) (sine, cosine float64) {
	z := float64(t * t)
	s := horner64(z, -0x1.6c63ccaef0f51p-31, 0x1.e8eef00e4e32bp-25, -0x1.e3074b7dfb6c7p-19, 0x1.50783485eeb9ap-13,
		-0x1.32d2cce62ade6p-8, 0x1.466bc6775aadbp-4, -0x1.4abbce625be53p-1, 0x1.1a62633145c07p-54)
	c := horner64(z, -0x1.b26fe9c7b3513p-28, 0x1.f9cc6ad507055p-22, -0x1.a6d1ecb747b01p-16, 0x1.e1f50683b4378p-11,
		-0x1.55d3c7e3c95bcp-6, 0x1.03c1f081b5ab0p-2, -0x1.3bd3cc9be45dep+0, 1)
	return math.FMA(t, 0x1.921fb54442d18p+0, float64(t*s)), c
}

func normal32(a, b uint32) (even, odd float32) {
	u := float32((float32(int32(a>>1)) + 0.5) * 0x1p-31)
	radius := float32(math.Sqrt(float64(float32(-2 * log32(u)))))
	sine, cosine := sincos32(float32(float32(int32(b<<2|2)) * 0x1p-32))
	s, c := math.Float32bits(sine), math.Float32bits(cosine)
	swap := (s ^ c) & -(b >> 30 & 1)
	const sign = 0x80000000
	even = float32(radius * math.Float32frombits(c^swap^((b^b<<1)&sign)))
	odd = float32(radius * math.Float32frombits(s^swap^(b&sign)))
	return even, odd
}

func normal64(a, b uint64) (even, odd float64) {
	radius := math.Sqrt(-2 * log64(uniform64(a)))
	sine, cosine := sincos64(uniform64(b<<2) - 0.5)
	s, c := math.Float64bits(sine), math.Float64bits(cosine)
	swap := (s ^ c) & -(b >> 62 & 1)
	const sign = 0x8000000000000000
	even = float64(radius * math.Float64frombits(c^swap^((b^b<<1)&sign)))
	odd = float64(radius * math.Float64frombits(s^swap^(b&sign)))
	return even, odd
}
