package bench

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/batch"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

// Batch is training batches: rows drawn from a data set, and points of Brownian
// bridges with their drifts.
func (families) Batch() Family {
	f := Family{Name: "batch", Kernel: "batch", Variants: []Variant{gatherVariant(64)}}
	for _, d := range []int{2, 64} {
		f.Variants = append(f.Variants, bridgeVariant(d))
	}
	return f
}

// gatherVariant draws as many rows as the data set has.
func gatherVariant(d int) Variant {
	draw := philox.Draw{Seed: 11, Step: 3}
	return Variant{
		Name: "gather", Shape: fmt.Sprintf("d=%d", d), Unit: "rows", Sizes: rowsOf(d), Typical: streamed / d,
		Work: func(s Setting) Work { return Work{N: s.Size, D: d} },
		// Of n draws from n rows, n/e rows are not drawn on average.
		Cost: func(s Setting) Cost {
			return Cost{
				Integers: count("40n", 40, s.Size),
				Read:     Count{(1 - 1/math.E) * float64(s.element()) * float64(s.Size) * float64(d), fmt.Sprintf("%d(1-1/e)nd", s.element())},
				Written:  count(fmt.Sprintf("%dnd", s.element()), s.element(), s.Size, d),
			}
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			a, n := newStage(dev, s), s.Size
			rows, out := a.normals(n, d), a.out(n, d)
			return a.finish(&Case{
				Run: func() error { return batch.Gather(batch.GatherArgs{Rows: rows, Out: out, Draw: draw}) },
				Check: func() (float64, float64, error) {
					var v verdict
					for _, b := range sample(n) {
						// Floor of u n / 2⁶⁴ from a 64-bit u, the low half first.
						w := drawWords(draw, b, 0)
						row := int((uint64(w[1])*uint64(n) + uint64(w[0])*uint64(n)>>32) >> 32)
						want := a.rows(rows, row, row+1)
						for j, x := range a.rows(out, b, b+1) {
							v.compare(x, want[j], 0)
						}
					}
					return v.end(a)
				},
			})
		},
	}
}

func bridgeVariant(d int) Variant {
	return Variant{
		Name: "bridge points", Shape: fmt.Sprintf("d=%d", d), Unit: "rows", Sizes: rowsOf(d), Typical: streamed / d,
		Work: func(s Setting) Work { return Work{N: s.Size, D: d} },
		Cost: func(s Setting) Cost {
			return Cost{
				Flops: count("7nd", 7, s.Size, d), Exps: count("2nd", 2, s.Size, d), Integers: philoxWork(s, d),
				Read:    count(fmt.Sprintf("%dnd", 2*s.element()), 2*s.element(), s.Size, d),
				Written: count(fmt.Sprintf("%dnd", 2*s.element()), 2*s.element(), s.Size, d),
			}
		},
		Open: func(dev gpu.Device, s Setting) (*Case, error) {
			a, n := newStage(dev, s), s.Size
			args := batch.BridgeArgs{
				X0: a.normals(n, d), X1: a.normals(n, d), Epsilon: 0.3, Safe: 1e-2,
				T: a.out(n), Xt: a.out(n, d), U: a.out(n, d), Draw: philox.Draw{Seed: 12, Step: 4},
			}
			return a.finish(&Case{
				Run: func() error { return batch.Bridge(args) },
				Check: func() (float64, float64, error) {
					var v verdict
					normals := args.Draw
					normals.Purpose++
					u := 2 * roundings * unit(s.DType)
					for _, i := range sample(n) {
						time := drawUniform(args.Draw, s.DType, i) * (1 - args.Safe)
						t := a.rows(args.T, i, i+1)[0]
						v.compare(t, time, u)
						// What follows is compared at the time that was used.
						x0, x1 := a.rows(args.X0, i, i+1), a.rows(args.X1, i, i+1)
						xt, drift := a.rows(args.Xt, i, i+1), a.rows(args.U, i, i+1)
						spread, pull := math.Sqrt(args.Epsilon*t*(1-t)), math.Sqrt(args.Epsilon*t/(1-t))
						for j := range x0 {
							z, off := drawNormal(normals, s.DType, i, j)
							size := math.Abs(x0[j]) + math.Abs(x1[j])
							v.compare(xt[j], (1-t)*x0[j]+t*x1[j]+spread*z, u*(size+spread*math.Abs(z))+spread*off)
							// 1/(1-t) magnifies the rounding of t.
							v.compare(drift[j], x1[j]-x0[j]-pull*z, u*(size+pull*math.Abs(z)/(1-t))+pull*off)
						}
					}
					return v.end(a)
				},
			})
		},
	}
}

// drawUniform is the first uniform of a row: the top 23 or 52 bits and a half.
func drawUniform(draw philox.Draw, dtype tensor.DType, row int) float64 {
	w := drawWords(draw, row, 0)
	if dtype == tensor.Float32 {
		return (float64(w[0]>>9) + 0.5) * 0x1p-23
	}
	return (float64((uint64(w[1])<<32|uint64(w[0]))>>12) + 0.5) * 0x1p-52
}
