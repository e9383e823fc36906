package philox

// Stream reads the float64 coordinates of one sample one after the other, on
// the host: a source for solvers and data sets. It is a math/rand/v2.Source.
// The zero value is a valid stream. Copies go on independently, from the same
// place.
//
// From the start, Float64 gives the coordinates of Uniform, and NormFloat64
// those of Normal, bit for bit. A block whose words Uint64 or Float64 began to
// use is not used for normals, nor the other way round, so that mixed draws are
// independent. After 2²⁴ blocks the stream goes on with the next step.
type Stream struct {
	Draw  Draw
	block uint32
	half  bool // the second half of the block is left
	mode  streamMode
	words [4]uint32
	odd   float64
}

type streamMode uint8

const (
	words streamMode = iota
	normals
)

// NewStream returns the stream of a draw.
func NewStream(draw Draw) *Stream { return &Stream{Draw: draw} }

// Uint64 returns 64 uniform bits.
func (s *Stream) Uint64() uint64 {
	if s.half && s.mode == words {
		s.half = false
		return word64(s.words[2], s.words[3])
	}
	s.next(words)
	return word64(s.words[0], s.words[1])
}

// Float64 returns a uniform in the open interval (0, 1).
func (s *Stream) Float64() float64 { return uniform64(s.Uint64()) }

// NormFloat64 returns a standard normal.
func (s *Stream) NormFloat64() float64 {
	if s.half && s.mode == normals {
		s.half = false
		return s.odd
	}
	s.next(normals)
	even, odd := normal64(word64(s.words[0], s.words[1]), word64(s.words[2], s.words[3]))
	s.odd = odd
	return even
}

// next takes the next block.
func (s *Stream) next(mode streamMode) {
	s.words = s.Draw.words(0, s.block)
	s.half, s.mode = true, mode
	if s.block++; s.block == maxBlocks {
		s.block = 0
		s.Draw.Step++
	}
}
