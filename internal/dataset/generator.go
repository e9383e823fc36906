package dataset

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// generator is a set without end.
type generator struct {
	common
	dim    int
	labels int // number of labels that draw gives; 0: none
	// draw writes one point and returns its label. It takes randomness from
	// r alone.
	draw func(r *rand.Rand, x []float64) (label int)

	mean, std []float64 // of the sets that are normal, before scale; nil: others

	n    int // of Load
	seed uint64
}

// NormalLaw returns mean and standard deviation of every coordinate of a set
// that is a generator of independent normals, delta among them.
func NormalLaw(s Source) (mean, std []float64, ok bool) {
	g, _ := s.(*generator)
	if g == nil || g.mean == nil {
		return nil, nil, false
	}
	mean, std = make([]float64, g.dim), make([]float64, g.dim)
	for k := range mean {
		mean[k] = g.scale * g.mean[k%len(g.mean)]
		std[k] = math.Abs(g.scale) * g.std[k%len(g.std)]
	}
	return mean, std, true
}

func openGenerator(s set, o *options, c common) (Source, error) {
	g := s.generator(o)
	if o.err != nil {
		return nil, o.err
	}
	g.common = c
	g.n = o.integer("n", 1000, 1, maxValues/g.dim)
	g.seed = o.seed()
	return g, o.err
}

func (g *generator) Dim() int            { return g.dim }
func (g *generator) Image() Shape        { return Shape{} }
func (g *generator) Finite() (int, bool) { return 0, false }

func (g *generator) Load() (Points, error) { return g.Sample(g.n, g.seed) }

func (g *generator) Sample(n int, seed uint64) (Points, error) {
	if err := g.checkSample(n, g.dim); err != nil {
		return Points{}, err
	}
	p := Points{N: n, D: g.dim, X: make([]float64, n*g.dim)}
	if g.labels > 0 {
		p.Labels = make([]int, n)
	}
	if err := g.fill(p.X, p.Labels, seed, 0); err != nil {
		return Points{}, err
	}
	return p, nil
}

func (g *generator) Draw(dst []float64, seed, first uint64) error {
	if _, err := g.checkDraw(dst, g.dim); err != nil {
		return err
	}
	return g.fill(dst, nil, seed, first)
}

// fill writes points, and labels unless nil.
func (g *generator) fill(dst []float64, labels []int, seed, first uint64) error {
	s := newStream(g.key, seed)
	for i := range len(dst) / g.dim {
		x := dst[i*g.dim : (i+1)*g.dim]
		label := g.draw(s.at(first+uint64(i)), x)
		if labels != nil {
			labels[i] = label
		}
	}
	g.rescale(dst)
	if k := notFinite(dst); k >= 0 {
		return fail(g.uri, fmt.Errorf("draw %d, coordinate %d: %g, want a finite number: a parameter is too large or too small", first+uint64(k/g.dim), k%g.dim, dst[k]))
	}
	return nil
}

// stream gives every draw its own random numbers: those of draw i come from a
// PCG whose 128-bit state is (hash of set and seed, hash of i).
type stream struct {
	set uint64
	pcg *rand.PCG
	r   *rand.Rand
}

func newStream(key, seed uint64) *stream {
	pcg := rand.NewPCG(0, 0)
	return &stream{mix(mix(seed) ^ key), pcg, rand.New(pcg)}
}

// at returns the random numbers of draw i, until the next call.
func (s *stream) at(i uint64) *rand.Rand {
	s.pcg.Seed(s.set, mix(i))
	return s.r
}

// mix is the bijection of SplitMix64 (Steele, Lea and Flood 2014, with the
// constants of Stafford's variant 13).
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
