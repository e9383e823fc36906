package mixture

import (
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/kernels/gmm"
	"github.com/fortet/fortet/tensor"
)

// This file is how processes make a step together. All hold the data sets, the
// parameters and the optimiser's state; each draws and works on its part of the
// rows of a minibatch, which are those of one process, for a draw is a function
// of the row's number. Then they exchange: partial sums, which every process
// gathers to where they would lie in one and reduces in the order in which one
// does, or, fast, the sums of gradients that each has reduced itself.

// Traffic is how many bytes a process receives, and sends, in a step that R
// processes make together. With a loss of T terms (1 of lightsb.Matching, else
// 2) over batches of B rows, K components in d dimensions and e bytes an element,
// it gathers the partial sums of the others,
//
//	(R-1)/R · T · B/32 · (1 + K + 2 K d) · e      for diagonal covariances
//	(R-1)/R · T · B/32 · (1 + K + K d + K d²) · e for full ones
//
// and with fast takes part in a sum of gradients, which moves by a ring, with ⌈ ⌉
// the next multiple of 64,
//
//	(R-1)/R · 2 · (⌈K⌉ + 2 ⌈K d⌉ + 1) · e         for diagonal covariances
//	(R-1)/R · 2 · (⌈K⌉ + 2 ⌈K d⌉ + ⌈K d²⌉ + 1) · e for full ones
//
// Beside it, the loss of sbb.Dual gathers 2 · 8 · B bytes where it is asked for.
func Traffic(l Layout, dtype tensor.DType, batch, terms, processes int, fast bool) float64 {
	others := float64(processes-1) / float64(processes)
	if fast {
		return others * float64(2*(sections(l.K, l.D, l.Covariance)[4]+1)*dtype.Size())
	}
	width := 1 + l.K + 2*l.K*l.D
	if l.Covariance == Full {
		width = 1 + l.K + l.K*l.D + l.K*l.D*l.D
	}
	return others * float64(terms*batch/chunk*width*dtype.Size())
}

// chunk is how many rows one partial sum is of in small batches; gmm gives them
// more in large ones.
const chunk = 32

// share is what a process does of a step.
type share struct {
	group       collective.Group // nil: this process is alone
	first, rows int              // of the minibatch
	swaps       []swap
}

// swap is a gathering of partial sums.
type swap struct{ all, own gpu.Buffer }

// newShare cuts the minibatch.
func newShare(t Training, m gmm.Mixture) (share, error) {
	s := share{rows: t.Batch}
	if t.Group == nil || t.Group.Size() == 1 {
		return s, nil
	}
	size, rank := t.Group.Size(), t.Group.Rank()
	s.group = t.Group
	s.first = t.Batch * rank / size
	s.rows = t.Batch*(rank+1)/size - s.first
	refuse := func(format string, v ...any) (share, error) {
		return share{}, fmt.Errorf("%w: batch of %d rows in %d processes: %s", ErrInvalid, t.Batch, size, fmt.Sprintf(format, v...))
	}
	if t.Batch < size {
		return refuse("want a row for each")
	}
	if t.Fast {
		return s, nil
	}
	most := 0
	for n := chunk * size; small(m, n); n += chunk * size {
		most = n
	}
	switch {
	case m.Logits.DType() == tensor.Float64 && size&(size-1) != 0:
		return refuse("want a power of two of processes in float64, or the fast sum")
	case most == 0:
		return refuse("want at most %d processes, or the fast sum", mostProcesses(m))
	case t.Batch%(chunk*size) != 0 || t.Batch > most:
		return refuse("want a multiple of %d of at most %d, or the fast sum", chunk*size, most)
	}
	return s, nil
}

// small reports whether a batch of n rows, and so each of its parts, has
// partial sums of chunk rows each.
func small(m gmm.Mixture, n int) bool {
	chunks, _ := gmm.PartialShape(m, n)
	return chunks*chunk == n
}

func mostProcesses(m gmm.Mixture) int {
	n := 1
	for small(m, chunk*(n+1)) {
		n++
	}
	return n
}

// swap notes what is gathered: of each of the terms the partial sums of all, in
// the order of processes, which is that of rows.
func (s *share) swap(all, own tensor.Tensor, terms int) {
	part, whole := own.Dim(0)/terms, all.Dim(0)/terms
	for i := range terms {
		s.swaps = append(s.swaps, swap{all.Rows(i*whole, (i+1)*whole).Buffer(), own.Rows(i*part, (i+1)*part).Buffer()})
	}
}

// recordable reports whether exchanges can be part of a graph.
func (s *share) recordable() bool { return s.group == nil || s.group.Name() == "nccl" }

// exchange queues what processes exchange in a step.
func (r *Trainer) exchange() error {
	switch {
	case r.share.group == nil:
		return nil
	case r.Fast:
		of := collective.Float32
		if r.Potential.flat.DType() == tensor.Float64 {
			of = collective.Float64
		}
		return r.share.group.Sum(r.Potential.descent.Buffer(), of)
	}
	for _, s := range r.share.swaps {
		if err := r.share.group.Gather(s.all, s.own); err != nil {
			return err
		}
	}
	return nil
}

// Weight is the weight for a mean over X0 or X1 that makes it a summand of w
// times the mean over the rows of all processes. Kernels divide it by the number
// of rows and round; they get what they would of w and all rows.
func (r *Trainer) Weight(w float64) float64 {
	rows, batch := float64(r.share.rows), float64(r.Batch)
	weight := w * rows / batch
	if r.Batch%r.share.rows == 0 {
		weight = w / float64(r.Batch/r.share.rows)
	}
	if r.X0.DType() == tensor.Float64 {
		return weight
	}
	// A quotient that lies, by its own rounding, at the other side of the middle
	// of two elements has a neighbour that does not.
	want := float32(w / batch)
	for _, v := range [...]float64{weight, math.Nextafter(weight, math.Inf(1)), math.Nextafter(weight, math.Inf(-1))} {
		if float32(v/rows) == want {
			return v
		}
	}
	return weight
}

// Rows waits for the device and returns a number of every row of the minibatch,
// of which v has those of this process. All processes must call it.
func (r *Trainer) Rows(v tensor.Tensor) ([]float64, error) {
	own, err := tensor.Float64s(v)
	if err != nil || r.share.group == nil {
		return own, err
	}
	size := r.share.group.Size()
	most := (r.Batch + size - 1) / size
	all, err := tensor.New(v.Device(), tensor.Float64, size, most)
	if err != nil {
		return nil, err
	}
	defer all.Free()
	rank := r.share.group.Rank()
	mine := all.Rows(rank, rank+1)
	if err := tensor.Set(mine, append(own, make([]float64, most-len(own))...)); err != nil {
		return nil, err
	}
	if err := r.share.group.Gather(all.Buffer(), mine.Buffer()); err != nil {
		return nil, err
	}
	padded, err := tensor.Float64s(all)
	if err != nil {
		return nil, err
	}
	out := make([]float64, 0, r.Batch)
	for rank := range size {
		n := r.Batch*(rank+1)/size - r.Batch*rank/size
		out = append(out, padded[rank*most:][:n]...)
	}
	return out, nil
}
