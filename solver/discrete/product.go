package discrete

import (
	"context"
	"math"

	"github.com/fortet/fortet/internal/parallel"
)

// host multiplies on the cores of this machine. Its scratch space makes it
// unsafe for concurrent use.
type host struct {
	workers int
	scratch [3][]float64
	partial []float64
}

// buffer is the k-th scratch vector.
func (h *host) buffer(k, n int) []float64 {
	if len(h.scratch[k]) < n {
		h.scratch[k] = make([]float64, n)
	}
	return h.scratch[k][:n]
}

// partials are one number for each of n tasks.
func (h *host) partials(n int) []float64 {
	if len(h.partial) < n {
		h.partial = make([]float64, n)
	}
	return h.partial[:n]
}

// each is parallel.Each without its goroutines where there is one task.
func (h *host) each(ctx context.Context, n int, task func(int)) error {
	if n > 1 {
		return parallel.Each(ctx, h.workers, n, task)
	}
	if err := ctx.Err(); err != nil || n == 0 {
		return err
	}
	task(0)
	return nil
}

// exponentials writes exp(x - top) to e, where top is the largest of x.
func (h *host) exponentials(ctx context.Context, e, x []float64) (top float64, err error) {
	top = math.Inf(-1)
	for _, v := range x {
		top = max(top, v)
	}
	if math.IsInf(top, -1) {
		clear(e)
		return top, nil
	}
	const block = 4096
	err = h.each(ctx, (len(x)+block-1)/block, func(k int) {
		for i := k * block; i < min((k+1)*block, len(x)); i++ {
			e[i] = math.Exp(x[i] - top)
		}
	})
	return top, err
}

// tiny parts sums that have all their digits from sums that may have lost them:
// an exponential or a product that underflows is wrong by less than 2⁻¹⁰⁷³, so
// that a sum of a billion of them that is above tiny is right to 2⁻⁸³.
const tiny = 0x1p-960

// logProduct writes out_i = log Σ_j a_ij exp(x_j); logSum, if there is one, is
// taken off. Rows whose exponentials underflow are summed in logarithms. out
// must not be x.
func (h *host) logProduct(ctx context.Context, out []float64, a *sparse, x, logSum []float64) error {
	e := h.buffer(0, a.n)
	top, err := h.exponentials(ctx, e, x)
	if err != nil {
		return err
	}
	if math.IsInf(top, -1) {
		for i := range out {
			out[i] = top
		}
		return nil
	}
	return h.each(ctx, len(a.cut)-1, func(k int) {
		for i := a.cut[k]; i < a.cut[k+1]; i++ {
			if s := a.dot(i, e); s >= tiny {
				out[i] = top + math.Log(s)
			} else {
				out[i] = a.logDot(i, x)
			}
			if logSum != nil {
				out[i] -= logSum[i]
			}
		}
	})
}

// dot is the product of row i and a vector.
func (s *sparse) dot(i int, e []float64) float64 {
	low, high := s.ptr[i], s.ptr[i+1]
	idx, val := s.idx[low:high], s.val[low:high]
	val = val[:len(idx)]
	sum := 0.0
	for k, j := range idx {
		sum += val[k] * e[j]
	}
	return sum
}

// logDot is the logarithm of the product of row i and exp(x).
func (s *sparse) logDot(i int, x []float64) float64 {
	top := math.Inf(-1)
	for k := s.ptr[i]; k < s.ptr[i+1]; k++ {
		if v := x[s.idx[k]]; s.val[k] > 0 && !math.IsInf(v, -1) {
			top = max(top, math.Log(s.val[k])+v)
		}
	}
	if math.IsInf(top, -1) {
		return top
	}
	sum := 0.0
	for k := s.ptr[i]; k < s.ptr[i+1]; k++ {
		if v := x[s.idx[k]]; s.val[k] > 0 && !math.IsInf(v, -1) {
			sum += math.Exp(math.Log(s.val[k]) + v - top)
		}
	}
	return top + math.Log(sum)
}
