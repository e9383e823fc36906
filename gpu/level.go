package gpu

import "fmt"

// Level is the instruction set that CPU kernels use. All levels that the
// processor has are right; a higher one is faster.
type Level int

// The levels, as fortet.h numbers them.
const (
	Best     Level = iota // the highest level that the processor has
	Baseline              // portable C11
	AVX2                  // x86-64 with AVX2 and FMA
	AVX512                // x86-64 with AVX-512 F, VL, BW and DQ
)

func (l Level) String() string {
	switch l {
	case Best:
		return "best"
	case Baseline:
		return "baseline"
	case AVX2:
		return "avx2"
	case AVX512:
		return "avx512"
	}
	return fmt.Sprintf("Level(%d)", int(l))
}

// ParseLevel is the inverse of String.
func ParseLevel(s string) (Level, error) {
	for l := Best; l <= AVX512; l++ {
		if s == l.String() {
			return l, nil
		}
	}
	return 0, fmt.Errorf("CPU level %q: %w, want best, baseline, avx2 or avx512", s, ErrInvalid)
}
