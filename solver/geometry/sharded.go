package geometry

import (
	"context"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

// Sharded is a geometry whose rows several processes share: each computes the
// pairs of its own source points with all target points, and gets what the
// others found. Vectors are whole on all ranks, so that solvers work as they do
// with Geometry, and all ranks take the same decisions from the same bits. All of
// them must be given the same geometry, weights and settings, and make the same
// calls; that the geometry is the same is checked where it is opened.
//
// The rows are cut into shards, as equal as they can be, each computed on its
// own. A rank has consecutive shards, and of each no more than its rows of the
// source, or of the matrix, on its device. The results of rows are gathered. Of
// sums over rows, the sums of shards are gathered and added in a fixed order,
// that of kernels/fold. So with the same number of shards, on devices of the same
// kind, results are bit-equal whatever the number of processes; see Shards and
// Fast.
//
// An error that one rank meets in Open or in a call is returned by all, with its
// rank. A rank that ends without it, and one that fails elsewhere, leaves the
// others waiting until the launcher ends them, as mpirun does.
type Sharded struct {
	Geometry // Points or Matrix
	// Team is the processes, from Join.
	Team *Team
	// Shards is how many shards the rows are cut into. 0 means the smallest power
	// of two that is at least 8 and the number of processes. Less traffic flows
	// where the shards of each rank are a power of two.
	Shards int
	// Fast adds the sums over rows by the group's own means, with less traffic
	// where there are many processes. All ranks get the same bits, but other ones
	// with another number of processes.
	Fast bool
}

// leastShards is how many shards the rows are cut into at least, so that up to as
// many processes get the same bits if nobody says how many.
const leastShards = 8

// Whole is the geometry that g shares out, or g itself.
func Whole(g Geometry) Geometry {
	if s, ok := g.(Sharded); ok {
		return s.Geometry
	}
	return g
}

// Pieces is the number of shards, with the default filled in.
func (s Sharded) Pieces() int {
	switch {
	case s.Shards > 0:
		return s.Shards
	case s.Team == nil:
		return leastShards
	}
	return max(leastShards, 1<<bits.Len(uint(s.Team.Size()-1)))
}

// Transpose implements Geometry.
func (s Sharded) Transpose() Geometry {
	s.Geometry = s.Geometry.Transpose()
	return s
}

// Validate implements Geometry.
func (s Sharded) Validate() error {
	if s.Team == nil {
		return fmt.Errorf("geometry: sharded: %w: no team", solver.ErrInvalid)
	}
	if s.Shards < 0 {
		return fmt.Errorf("geometry: sharded: %w: %d shards, want at least 1, or 0 for the default", solver.ErrInvalid, s.Shards)
	}
	switch s.Geometry.(type) {
	case Points, Matrix:
		return s.Geometry.Validate()
	}
	return fmt.Errorf("geometry: sharded: %w: a %T, want points or a cost matrix", solver.ErrInvalid, s.Geometry)
}

// span is a range of rows or of shards.
type span struct{ low, high int }

func (s span) len() int { return s.high - s.low }

// cuts say who computes what.
type cuts struct {
	n, shards, ranks int
}

func (s Sharded) cuts() cuts {
	n, _ := s.Size()
	return cuts{n, s.Pieces(), s.Team.Size()}
}

// cut is k·whole/parts, rounded down.
func cut(k, whole, parts int) int {
	high, low := bits.Mul64(uint64(k), uint64(whole))
	q, _ := bits.Div64(high, low, uint64(parts))
	return int(q)
}

// rows of a shard.
func (c cuts) rows(shard int) span {
	return span{cut(shard, c.n, c.shards), cut(shard+1, c.n, c.shards)}
}

// of are the shards of a rank.
func (c cuts) of(rank int) span {
	return span{cut(rank, c.shards, c.ranks), cut(rank+1, c.shards, c.ranks)}
}

// rowsOf are the rows of a rank.
func (c cuts) rowsOf(rank int) span {
	s := c.of(rank)
	return span{cut(s.low, c.n, c.shards), cut(s.high, c.n, c.shards)}
}

// most is the largest of a number of each rank.
func (c cuts) most(of func(rank int) int) (most int) {
	for r := range c.ranks {
		most = max(most, of(r))
	}
	return most
}

// group is the size of the largest aligned groups of shards, a power of two, that
// no two ranks share: their sums are added before they are sent.
func (c cuts) group() int {
	size := 1 << bits.Len(uint(c.shards-1))
	for r := 1; r < c.ranks; r++ {
		if low := c.of(r).low; low > 0 {
			size = min(size, low&-low)
		}
	}
	return size
}

// groups are those of a rank.
func (c cuts) groups(rank int) span {
	s, size := c.of(rank), c.group()
	if s.len() == 0 {
		return span{}
	}
	return span{s.low / size, (s.high + size - 1) / size}
}

// Mean implements Geometry. Where all costs must be summed, each rank sums those
// of its rows, with the bits of the whole.
func (s Sharded) Mean(ctx context.Context, a, b []float64) (float64, error) {
	if cost := costs(s.Geometry); cost != nil {
		mean, _, err := s.moments(a, b, cost)
		return mean, err
	}
	return s.Geometry.Mean(ctx, a, b)
}

// Std implements Geometry, as Mean.
func (s Sharded) Std(ctx context.Context, a, b []float64) (float64, error) {
	if cost := costs(s.Geometry); cost != nil {
		mean, square, err := s.moments(a, b, cost)
		return math.Sqrt(max(square-mean*mean, 0)), err
	}
	return s.Geometry.Std(ctx, a, b)
}

// costs are the costs of a geometry whose moments are sums over all of them; nil
// where they are not.
func costs(g Geometry) func(i, j int) float64 {
	switch g := g.(type) {
	case Points:
		if g.Ground == Euclidean {
			return g.kernelForm().distance
		}
	case Matrix:
		return g.at
	}
	return nil
}

func (s Sharded) moments(a, b []float64, cost func(i, j int) float64) (first, second float64, err error) {
	n, m := s.Size()
	if err := s.Validate(); err != nil {
		return 0, 0, err
	}
	if err := checkWeights(a, b, n, m); err != nil {
		return 0, 0, err
	}
	c := s.cuts()
	mine, most := c.rowsOf(s.Team.Rank()), c.most(func(r int) int { return c.rowsOf(r).len() })
	sums := make([]float64, 2*most) // both moments of each row
	wb := weights(b, m)
	// A wish to stop ends this rank's part early; all ranks hear of it below.
	_ = parallel.Each(s.Team.wish, 0, mine.len(), func(i int) {
		sums[2*i], sums[2*i+1] = rowMoments(m, wb, func(j int) float64 { return cost(mine.low+i, j) })
	})
	all, stop, err := s.Team.gather(asBytes(sums))
	if err == nil && stop {
		err = context.Canceled
	}
	if err != nil {
		return 0, 0, fmt.Errorf("geometry: sharded: mean: %w", err)
	}
	wa := weights(a, n)
	for r, part := range all {
		rows := c.rowsOf(r)
		found := floats(part)
		for i := range rows.len() {
			first += wa[rows.low+i] * found[2*i]
			second += wa[rows.low+i] * found[2*i+1]
		}
	}
	return first, second, nil
}

// fingerprint tells geometries apart that processes read, and what is asked of
// them.
func (s Sharded) fingerprint(dtype tensor.DType, o Options) uint64 {
	n, m := s.Size()
	fast := 0
	if s.Fast {
		fast = 1
	}
	h, castagnoli := uint32(0), crc32.MakeTable(crc32.Castagnoli)
	add := func(b []byte) { h = crc32.Update(h, castagnoli, b) }
	switch g := s.Geometry.(type) {
	case Points:
		add(asBytes(g.X))
		add(asBytes(g.Y))
	case Matrix:
		add(asBytes(g.C))
	}
	add(fmt.Append(nil, n, m, s.Dim(), s.Cost(), s.Pieces(), fast, dtype, o.CacheBytes))
	return uint64(h)
}

func asBytes(v []float64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 8*len(v))
}

func floats(b []byte) []float64 {
	v := make([]float64, len(b)/8)
	copy(asBytes(v), b)
	return v
}

// Open implements Geometry. dev must be the team's device. Where all ranks can
// open their part all get an operator, and otherwise all an error that names the
// first rank that cannot.
//
// A shard may cache Options.CacheBytes/8 of costs, so that with the default
// number of shards all processes together cache as much as one would alone, and
// with more shards as much more. Whether costs are cached does not depend on the
// number of processes, as long as there is room for them.
func (s Sharded) Open(dev gpu.Device, dtype tensor.DType, o Options) (Operator, error) {
	if s.Team == nil || dev != s.Team.dev {
		return nil, fmt.Errorf("geometry: sharded: %w: the device is not that of the team", solver.ErrInvalid)
	}
	op, err := s.open(dtype, o)
	print := uint64(0)
	if err == nil && s.Team.Size() > 1 {
		print = s.fingerprint(dtype, o)
	}
	if err := s.Team.settle(op, err, print); err != nil {
		if op != nil {
			op.Close()
		}
		return nil, err
	}
	return op, nil
}
