package npy

import (
	"math"
	"sort"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Definition: (-1)^s 2^(e-bias) (1 + f/2^p), with the exceptions of IEEE 754.
func TestHalfDefinition(t *testing.T) {
	for h, want := range map[Float16]float64{
		0x0000: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0400: 0x1p-14, 0x03ff: 0x1p-14 - 0x1p-24,
		0x0001: 0x1p-24, 0x7c00: math.Inf(1), 0xfc00: math.Inf(-1), 0x3555: 0x1.554p-2,
	} {
		assert.Equal(t, want, h.Float64())
	}
	for b, want := range map[BFloat16]float64{
		0x0000: 0, 0x3f80: 1, 0xc000: -2, 0x7f7f: 0x1.fep127, 0x0080: 0x1p-126, 0x0001: 0x1p-133,
		0x7f80: math.Inf(1), 0xff80: math.Inf(-1),
	} {
		assert.Equal(t, want, b.Float64())
		assert.Equal(t, float32(want), b.Float32())
	}
	assert.True(t, math.Signbit(Float16(0x8000).Float64()))
	assert.True(t, math.Signbit(BFloat16(0x8000).Float64()))
}

func TestHalfRoundTrip(t *testing.T) {
	for i := range 1 << 16 {
		h, b := Float16(i), BFloat16(i)
		if x := h.Float64(); x != x {
			if y := ToFloat16(x).Float64(); y == y {
				t.Fatalf("float16 %#x: NaN became %v", i, y)
			}
		} else if got := ToFloat16(x); got != h {
			t.Fatalf("float16 %#x: %v became %#x", i, x, got)
		}
		if x := b.Float64(); x != x {
			if y := ToBFloat16(x).Float64(); y == y {
				t.Fatalf("bfloat16 %#x: NaN became %v", i, y)
			}
		} else if got := ToBFloat16(x); got != b {
			t.Fatalf("bfloat16 %#x: %v became %#x", i, x, got)
		}
	}
}

// Rounding to nearest, by search among all numbers of the format.
func TestHalfRounding(t *testing.T) {
	t.Run("float16", func(t *testing.T) {
		rounding(t, func(i int) float64 { return Float16(i).Float64() }, func(x float64) int { return int(ToFloat16(x)) }, 0x7c00, 0x1p16)
	})
	t.Run("bfloat16", func(t *testing.T) {
		rounding(t, func(i int) float64 { return BFloat16(i).Float64() }, func(x float64) int { return int(ToBFloat16(x)) }, 0x7f80, 0x1p128)
	})
}

// codes of finite numbers from 0 up are 0 … infinity-1; next is the number
// that would follow the largest.
func rounding(t *testing.T, decode func(int) float64, encode func(float64) int, infinity int, next float64) {
	value := func(i int) float64 {
		if i == infinity {
			return next
		}
		return decode(i)
	}
	for i := range infinity {
		low, high := value(i), value(i+1)
		middle := low/2 + high/2
		even := i + i%2
		got := [...]int{encode(middle), encode(-middle), encode(math.Nextafter(middle, 0)), encode(math.Nextafter(middle, next))}
		if want := [...]int{even, even | 1<<15, i, i + 1}; got != want {
			t.Fatalf("half way from %v to %v, its negative, below it and above it: %#x, want %#x", low, high, got, want)
		}
	}
	assert.Equal(t, infinity, encode(math.MaxFloat64))
	assert.Equal(t, 0, encode(math.SmallestNonzeroFloat64))
	assert.True(t, sort.SliceIsSorted(make([]int, infinity), func(i, j int) bool { return value(i) < value(j) }))
}
