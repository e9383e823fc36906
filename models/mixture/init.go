package mixture

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

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
	Spread                   // rows of the target, far from each other (k-means++)
)

func (m Means) String() string {
	switch m {
	case FromTarget:
		return "target"
	case FromBoth:
		return "source-target"
	case FromNormals:
		return "random"
	case Spread:
		return "kmeans++"
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
	case FromTarget, Spread:
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
		chosen := r.Perm(n)[:want]
		if s.Means == Spread && want > 0 {
			chosen = spread(r, part.rows, d, want)
		}
		for i, row := range chosen {
			for c := range d {
				p.Means[(part.lo+i)*d+c] = shrink * part.rows[row*d+c]
			}
		}
	}
	return p, p.Validate()
}

// candidates bounds the rows that spread looks at, for each that it draws.
const candidates = 512

// spread draws k rows, each with a probability proportional to its squared
// distance from the nearest one drawn before (k-means++, Arthur and Vassilvitskii
// 2007), so that clusters far apart all have one. Where fewer than k rows differ,
// the others are drawn at random.
func spread(r *rand.Rand, rows []float64, d, k int) []int {
	order := r.Perm(len(rows) / d)
	pool := order[:min(len(order), k*candidates)]
	nearest := make([]float64, len(pool)) // squared distance from those drawn
	for i := range nearest {
		nearest[i] = math.Inf(1)
	}
	chosen := []int{pool[0]}
	nearest[0] = 0
	for len(chosen) < k {
		last := rows[chosen[len(chosen)-1]*d:][:d]
		total := 0.
		for i, row := range pool {
			distance := 0.
			for c, v := range rows[row*d:][:d] {
				distance += (v - last[c]) * (v - last[c])
			}
			nearest[i] = min(nearest[i], distance)
			total += nearest[i]
		}
		at := 0
		switch {
		case total > 0:
			u := r.Float64() * total
			for i, v := range nearest {
				if v > 0 {
					at = i
				}
				if u -= v; u < 0 {
					break
				}
			}
		default: // all are drawn already, or equal to one that is
			at = slices.IndexFunc(pool, func(row int) bool { return !slices.Contains(chosen, row) })
		}
		chosen = append(chosen, pool[at])
		nearest[at] = 0
	}
	return chosen
}
