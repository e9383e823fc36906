package mixture

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/fortet/fortet/kernels/philox"
)

// Start says where training begins.
type Start struct {
	Components int
	Epsilon    float64 // in the coordinates of the data given to New
	Covariance Covariance
	Scale      float64 // every eigenvalue of every S_j
	Means      Means
	Shrink     float64 // multiplies the means taken from data; 0 means 1
	Seed       uint64
}

// Means says what the first r_j are.
type Means int

// Choices of the first means.
const (
	FromTarget  Means = iota // rows of the target, without replacement
	FromBoth                 // the first half rows of the source, the others of the target
	FromNormals              // standard normals
)

func (m Means) String() string {
	switch m {
	case FromTarget:
		return "target"
	case FromBoth:
		return "source-target"
	case FromNormals:
		return "random"
	}
	return fmt.Sprintf("Means(%d)", int(m))
}

// purposeInit is that of the random choice of the first means.
const purposeInit = 15

// New chooses first parameters for row-major data of d columns: equal weights,
// S_j = Scale I, and means as Means says. There must be at least as many rows
// as means taken from them, for two equal components would stay equal.
func (s Start) New(source, target []float64, d int) (Parameters, error) {
	k := s.Components
	if k <= 0 || d <= 0 {
		return Parameters{}, fmt.Errorf("%w: %d components in %d dimensions, want at least 1 of each", ErrInvalid, k, d)
	}
	p := Parameters{
		K: k, D: d, Epsilon: s.Epsilon,
		Logits: make([]float64, k), Means: make([]float64, k*d), Scales: make([]float64, k*d),
	}
	for j := range p.Logits {
		p.Logits[j] = -math.Log(float64(k))
	}
	for i := range p.Scales {
		p.Scales[i] = s.Scale
	}
	if s.Covariance == Full {
		p.Axes = make([]float64, k*d*d)
		for j := range k {
			for i := range d {
				p.Axes[(j*d+i)*d+i] = 1
			}
		}
	}
	stream := philox.NewStream(philox.Draw{Seed: s.Seed, Purpose: purposeInit})
	shrink := s.Shrink
	if shrink == 0 {
		shrink = 1
	}
	fromSource := 0
	switch s.Means {
	case FromNormals:
		for i := range p.Means {
			p.Means[i] = stream.NormFloat64()
		}
		return p, p.Validate()
	case FromBoth:
		fromSource = k / 2
	case FromTarget:
	default:
		return Parameters{}, fmt.Errorf("%w: means: got %v", ErrInvalid, s.Means)
	}
	r := rand.New(stream)
	for _, part := range []struct {
		name   string
		rows   []float64
		lo, hi int
	}{{"source", source, 0, fromSource}, {"target", target, fromSource, k}} {
		n, want := len(part.rows)/d, part.hi-part.lo
		if want > n {
			return Parameters{}, fmt.Errorf("%w: %d components begin at rows of the %s, which has %d", ErrInvalid, want, part.name, n)
		}
		for i, row := range r.Perm(n)[:want] {
			for c := range d {
				p.Means[(part.lo+i)*d+c] = shrink * part.rows[row*d+c]
			}
		}
	}
	return p, p.Validate()
}
