package npy

import "math"

// Float16 is an IEEE 754 binary16 number: 1 sign, 5 exponent and 10 fraction
// bits.
type Float16 uint16

// BFloat16 is the upper half of a float32: 1 sign, 8 exponent and 7 fraction
// bits.
type BFloat16 uint16

// ToFloat16 rounds x to the nearest Float16, ties to even. Beyond 65504, by
// half a unit or more, it is an infinity; a NaN stays one.
func ToFloat16(x float64) Float16 { return Float16(narrow(x, 10, 5)) }

// ToBFloat16 rounds x to the nearest BFloat16, ties to even. What overflows is
// an infinity; a NaN stays one.
func ToBFloat16(x float64) BFloat16 { return BFloat16(narrow(x, 7, 8)) }

// Float64 returns the same number; exact.
func (h Float16) Float64() float64 { return widen(uint16(h), 10, 5) }

// Float64 returns the same number; exact.
func (b BFloat16) Float64() float64 { return float64(math.Float32frombits(uint32(b) << 16)) }

// Float32 returns the same number; exact.
func (h Float16) Float32() float32 { return float32(h.Float64()) }

// Float32 returns the same number; exact.
func (b BFloat16) Float32() float32 { return math.Float32frombits(uint32(b) << 16) }

// widen decodes a binary format of 16 bits.
func widen(bits uint16, fraction, exponent int) float64 {
	sign := 1.0
	if bits>>15 != 0 {
		sign = -1
	}
	f := int(bits) & (1<<fraction - 1)
	e := int(bits) >> fraction & (1<<exponent - 1)
	bias := 1<<(exponent-1) - 1
	switch {
	case e == 1<<exponent-1 && f != 0:
		return math.NaN()
	case e == 1<<exponent-1:
		return math.Inf(int(sign))
	case e == 0:
		return sign * math.Ldexp(float64(f), 1-bias-fraction)
	}
	return sign * math.Ldexp(float64(f+1<<fraction), e-bias-fraction)
}

// narrow rounds once, from float64, to a binary format of 16 bits.
func narrow(x float64, fraction, exponent int) uint16 {
	var sign uint16
	if math.Signbit(x) {
		sign = 1 << 15
		x = -x
	}
	bias := 1<<(exponent-1) - 1
	infinity := uint16(1<<exponent-1) << fraction
	if x != x {
		return sign | infinity | 1<<(fraction-1) // quiet
	}
	if math.IsInf(x, 0) {
		return sign | infinity
	}
	if x == 0 {
		return sign
	}
	// x = m 2^e with m in [1, 2); below the smallest normal number, units
	// stay those of the smallest.
	_, e := math.Frexp(x)
	e = max(e-1, 1-bias)
	// Exact: the scaling is by a power of two, and so is x where it is tiny
	// enough for Ldexp to lose bits that are far below half a unit.
	units := math.RoundToEven(math.Ldexp(x, fraction-e))
	// A carry out of the fraction lands in the exponent, as it should.
	code := int(units) + (e+bias-1)<<fraction
	if code >= int(infinity) {
		return sign | infinity
	}
	return sign | uint16(code)
}
