package run

import (
	"context"
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/tensor"
)

// The bounds of a pool of draws.
const (
	poolRows  = 1 << 18
	poolBytes = 512 << 20
)

// PoolOptions refine Pool. The zero value is the default.
type PoolOptions struct {
	// Rows is how many draws of a generator there are, at most; 0: 2^18.
	// There are fewer where they would take more than 512 MiB as float32.
	Rows int
	Seed uint64
	// Stream tells the sets of a run apart: two pools of one generator are
	// independent if their streams differ.
	Stream uint64
	DType  DType // 0: F32
	// Encode, unless nil, makes of points of the set, src of shape (n, the
	// set's dimension), points of Dim coordinates, dst of shape (n, Dim): it
	// projects, or changes units. It is called from one goroutine with any n.
	Encode func(dst, src []float64) error
	Dim    int // of Encode
}

// Pool puts a data set on a device, as (n, d): all rows of a finite set in
// their order, or draws of a generator, which are a function of the set, the
// seed and the stream. Values that Encode or the element type make infinite or
// NaN are an error. The caller frees the tensor.
func Pool(ctx context.Context, dev gpu.Device, set dataset.Source, o PoolOptions) (tensor.Tensor, error) {
	p := pool{PoolOptions: o, from: set.Dim(), set: set}
	t, err := p.fill(ctx, dev)
	if err != nil {
		t.Free()
		return tensor.Tensor{}, fmt.Errorf("pool: %s: %w", set.URI(), err)
	}
	return t, nil
}

type pool struct {
	PoolOptions
	set  dataset.Source
	from int // dimension of the set
}

// chunkRows is how many rows go through the host at once.
const chunkRows = 4096

func (p *pool) fill(ctx context.Context, dev gpu.Device) (t tensor.Tensor, err error) {
	if p.DType == 0 {
		p.DType = F32
	}
	if p.Encode == nil {
		p.Dim = p.from
	}
	switch {
	case p.Dim < 1:
		return t, invalid("dimension: got %d, want at least 1", p.Dim)
	case p.Rows < 0:
		return t, invalid("rows: got %d, want at least 0", p.Rows)
	case p.DType != F32 && p.DType != F64:
		return t, invalid("element type: got %v, want f32 or f64", p.DType)
	}
	// rows fills src with the rows that begin at lo.
	n, whole := p.set.Finite()
	rows := func(src []float64, lo int) error { return p.set.Draw(src, StreamSeed(p.Seed, p.Stream), uint64(lo)) }
	if whole {
		points, err := p.set.Load()
		if err != nil {
			return t, err
		}
		rows = func(src []float64, lo int) error {
			copy(src, points.X[lo*p.from:])
			return nil
		}
	} else {
		n = p.bounded()
	}
	if t, err = tensor.New(dev, tensor.DType(p.DType), n, p.Dim); err != nil {
		return t, err
	}
	chunk := min(n, chunkRows)
	src, dst := make([]float64, chunk*p.from), make([]float64, chunk*p.Dim)
	for lo := 0; lo < n; lo += chunk {
		if err := ctx.Err(); err != nil {
			return t, err
		}
		hi := min(n, lo+chunk)
		src, dst := src[:(hi-lo)*p.from], dst[:(hi-lo)*p.Dim]
		if err := rows(src, lo); err != nil {
			return t, err
		}
		if p.Encode == nil {
			copy(dst, src)
		} else if err := p.Encode(dst, src); err != nil {
			return t, err
		}
		if err := p.upload(t.Rows(lo, hi), dst, lo); err != nil {
			return t, err
		}
	}
	return t, nil
}

// bounded is how many draws there are.
func (p *pool) bounded() int {
	n := p.Rows
	if n == 0 {
		n = poolRows
	}
	return max(1, min(n, poolBytes/4/p.Dim))
}

// upload rounds and checks the rows that begin at lo.
func (p *pool) upload(t tensor.Tensor, v []float64, lo int) error {
	for i, x := range v {
		if p.DType == F32 {
			x = float64(float32(x))
		}
		if !finite(x) {
			return invalid("row %d, coordinate %d: %g, want a number that is finite as %v", lo+i/p.Dim, i%p.Dim, v[i], p.DType)
		}
	}
	return tensor.SetFloat64s(t, v)
}
