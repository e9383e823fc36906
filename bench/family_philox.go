package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// Philox is bits and normals, in rows of 64.
func (families) Philox() Family {
	const d = 64
	sizes := rowsOf(d)
	work := func(s Setting) Work { return Work{N: s.Size, D: d} }
	written := func(s Setting) Count {
		return count(fmt.Sprintf("%dnd", s.element()), s.element(), s.Size, d)
	}
	return Family{Name: "philox", Kernel: "philox", Variants: []Variant{
		{
			Name: "bits", Shape: "d=64", Unit: "rows", Sizes: sizes, Typical: streamed / d, DTypes: []tensor.DType{tensor.Float32},
			Work: func(s Setting) Work { return Work{N: s.Size, D: d, Precision: "u32"} },
			Cost: func(s Setting) Cost { return Cost{Integers: philoxWork(s, d), Written: written(s)} },
			Open: func(dev gpu.Device, s Setting) (*Case, error) {
				a, draw := newStage(dev, s), philox.Draw{Seed: 5, Index: 3}
				out := a.outOf(tensor.Uint32, s.Size, d)
				return a.finish(&Case{
					Run: func() error { return philox.Bits(out, draw) },
					Check: func() (float64, float64, error) {
						var v verdict
						for _, span := range spans(s.Size) {
							got, err := tensor.Values[uint32](out.Rows(span[0], span[1]))
							if err != nil {
								return 0, 0, err
							}
							for i, w := range got {
								want := drawWords(draw, span[0]+i/d, i%d/4)
								v.compare(float64(w), float64(want[i%4]), 0)
							}
						}
						return v.end(a)
					},
				})
			},
		},
		{
			Name: "normals", Shape: "d=64", Unit: "rows", Sizes: sizes, Typical: streamed / d,
			Work: work,
			Cost: func(s Setting) Cost {
				return Cost{Integers: philoxWork(s, d), Exps: count("2nd", 2, s.Size, d), Written: written(s)}
			},
			Open: func(dev gpu.Device, s Setting) (*Case, error) {
				a, draw := newStage(dev, s), philox.Draw{Seed: 6, Index: 3}
				out := a.out(s.Size, d)
				return a.finish(&Case{
					Run: func() error { return philox.Normal(out, draw) },
					Check: func() (float64, float64, error) {
						var v verdict
						for _, span := range spans(s.Size) {
							for i, z := range a.rows(out, span[0], span[1]) {
								want, off := drawNormal(draw, s.DType, span[0]+i/d, i%d)
								v.compare(z, want, off)
							}
						}
						return v.end(a)
					},
				})
			},
		},
	}}
}

// philoxWork is the integer work of Philox for rows of d: in each of ten rounds
// two products and two exclusive ors of three, for every four words.
func philoxWork(s Setting, d int) Count {
	width := 16 / s.element()
	return count("40n⌈d/"+fmt.Sprint(width)+"⌉", 40, s.Size, (d+width-1)/width)
}

// drawWords is Philox4x32-10 by the paper.
func drawWords(draw philox.Draw, row, block int) [4]uint32 {
	index := draw.Index + uint64(row)
	x := [4]uint64{index & math.MaxUint32, index >> 32, uint64(draw.Step), uint64(draw.Purpose)<<24 | uint64(block)}
	key := [2]uint64{draw.Seed & math.MaxUint32, draw.Seed >> 32}
	for range 10 {
		p, q := x[0]*0xD2511F53, x[2]*0xCD9E8D57
		x = [4]uint64{q>>32 ^ x[1] ^ key[0], q & math.MaxUint32, p>>32 ^ x[3] ^ key[1], p & math.MaxUint32}
		key = [2]uint64{(key[0] + 0x9E3779B9) & math.MaxUint32, (key[1] + 0xBB67AE85) & math.MaxUint32}
	}
	return [4]uint32{uint32(x[0]), uint32(x[1]), uint32(x[2]), uint32(x[3])}
}

// drawNormal is coordinate j of a row's normals: Box and Muller's transform of
// Philox's words, and how far a normal of the type may be from it, four units in
// its last place. What is added is the rounding of the definition itself.
func drawNormal(draw philox.Draw, dtype tensor.DType, row, j int) (z, budget float64) {
	var u, turns float64
	if dtype == tensor.Float32 {
		w := drawWords(draw, row, j/4)
		a, b := w[j%4/2*2], w[j%4/2*2+1]
		u = float64(float32(a>>1)+0.5) * 0x1p-31
		turns = (float64(b>>30) + float64(float32(int32(b<<2|2)))*0x1p-32) / 4
	} else {
		w := drawWords(draw, row, j/2)
		a, b := uint64(w[1])<<32|uint64(w[0]), uint64(w[3])<<32|uint64(w[2])
		u = (float64(a>>12) + 0.5) * 0x1p-52
		turns = (float64(b>>62) + (float64(b<<2>>12)+0.5)*0x1p-52 - 0.5) / 4
	}
	radius := math.Sqrt(-2 * math.Log(u))
	sine, cosine := math.Sincos(2 * math.Pi * turns)
	z = radius * cosine
	if j%2 == 1 {
		z = radius * sine
	}
	return z, 4*unit(dtype)*math.Abs(z) + 16*0x1p-52*radius
}
