package discrete

import (
	"context"
	"math"
	"slices"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/solver/draw"
)

// Trajectory is a path of a jump process: it is in States[k] from Times[k] on,
// up to the next time. Times[0] is 0.
type Trajectory struct {
	Times  []float64
	States []int32
}

// At is the state at time t.
func (p Trajectory) At(t float64) int32 {
	k, found := slices.BinarySearch(p.Times, t)
	if !found {
		k--
	}
	return p.States[max(k, 0)]
}

// Paths draws n paths. They are exact, with no step of time: over a stretch of
// duration τ in which the bridge is the reference weighted by h at its end, the
// number of jumps of the uniformised chain from x has the law
//
//	∝ w_k (P^k h)(x),
//
// given it the chain goes from x to y with k left with probability
// P(x, y) (P^(k-1) h)(y)/(P^k h)(x), and the times are uniform. Jumps that stay
// where they are leave no trace. Path s is a function of the bridge, the seed and
// s alone.
func (b *JumpBridge) Paths(ctx context.Context, n int, seed uint64) ([]Trajectory, error) {
	if err := b.ready(b.Solution); err != nil {
		return nil, err
	}
	if n < 1 {
		return nil, bad("paths", "got %d, want at least 1", n)
	}
	w := b.walk()
	at, err := w.begin(ctx, n, seed, drawJump)
	if err != nil {
		return nil, err
	}
	out := make([]Trajectory, n)
	for s, i := range at {
		out[s] = Trajectory{Times: []float64{0}, States: []int32{i}}
	}
	for t := range b.steps {
		h, err := w.h(ctx, t+1)
		if err != nil {
			return nil, err
		}
		f := b.steps[t].(*flow)
		if f.rate == 0 {
			continue
		}
		powers, counts, err := f.powers(ctx, w.host, h, at)
		if err != nil {
			return nil, err
		}
		err = parallel.Each(ctx, b.workers, n, func(s int) {
			stream := philox.NewStream(philox.Draw{Seed: seed, Index: uint64(s), Step: uint32(t + 1), Purpose: drawJump})
			left := draw.Pick(counts[at[s]], stream.Float64())
			if left == 0 {
				return
			}
			times := make([]float64, left)
			for k := range times {
				times[k] = stream.Float64()
			}
			slices.Sort(times)
			var row []float64
			for _, u := range times {
				left--
				columns, entries := f.rows.idx[f.rows.ptr[at[s]]:f.rows.ptr[at[s]+1]], f.rows.val[f.rows.ptr[at[s]]:]
				row = row[:0]
				top := math.Inf(-1)
				for _, j := range columns {
					top = max(top, powers[left][j])
				}
				for k, j := range columns {
					row = append(row, entries[k]*math.Exp(powers[left][j]-top))
				}
				draw.Cumulate(row)
				if to := columns[draw.Pick(row, stream.Float64())]; to != at[s] {
					at[s] = to
					out[s].Times = append(out[s].Times, b.times[t]+u*(b.times[t+1]-b.times[t]))
					out[s].States = append(out[s].States, to)
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// powers are log P^k h for k = 0, 1, …, and for each state in at the cumulative
// weights of the number of jumps. Those of a state end by its own measure, so
// that they do not depend on the other states.
func (f *flow) powers(ctx context.Context, hs *host, h []float64, at []int32) (powers [][]float64, counts map[int32][]float64, err error) {
	mean := f.rate * f.duration
	sums := map[int32]float64{}
	logs := map[int32][]float64{}
	for _, i := range at {
		sums[i] = math.Inf(-1)
	}
	open := make([]int32, 0, len(sums))
	for i := range sums {
		open = append(open, i)
	}
	for k := 0; len(open) > 0; k++ {
		x := h
		if k > 0 {
			x = make([]float64, f.rows.n)
			if err := hs.logProduct(ctx, x, f.rows, powers[k-1], nil); err != nil {
				return nil, nil, err
			}
		}
		powers = append(powers, x)
		w, missing := logPoisson(k, mean), math.Inf(1)
		if float64(k) > mean {
			missing = slices.Max(x) + logTail(k, mean)
		}
		open = slices.DeleteFunc(open, func(i int32) bool {
			logs[i] = append(logs[i], w+x[i])
			sums[i] = logAdd(sums[i], w+x[i])
			return missing <= math.Log(truncated)+sums[i]
		})
	}
	counts = map[int32][]float64{}
	for i, list := range logs {
		for k := range list {
			list[k] = math.Exp(list[k] - sums[i])
		}
		draw.Cumulate(list)
		counts[i] = list
	}
	return powers, counts, nil
}
