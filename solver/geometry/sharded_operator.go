package geometry

import (
	"errors"
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
	"github.com/fortet/fortet/kernels/fold"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/tensor"
)

// sharded is the operator of a rank.
type sharded struct {
	geom   Sharded
	cuts   cuts
	dev    gpu.Device
	dtype  tensor.DType
	n, m   int
	shards span            // of this rank
	own    []pairs         // their operators; one without rows is empty
	free   []tensor.Tensor // what they share
	cached bool            // on all ranks
	back   *sharded        // of the transposed geometry
	front  *sharded        // that this one is the back of
}

// open makes the operators of this rank's shards.
func (s Sharded) open(dtype tensor.DType, o Options) (*sharded, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	c := s.cuts()
	op := &sharded{geom: s, cuts: c, dev: s.Team.dev, dtype: dtype, shards: c.of(s.Team.Rank())}
	op.n, op.m = s.Size()
	op.own = make([]pairs, op.shards.len())
	var err error
	switch g := s.Geometry.(type) {
	case Points:
		err = op.points(g.kernelForm(), o)
	case Matrix:
		err = op.matrix(g)
	}
	return op, err
}

func (op *sharded) rank() int { return op.geom.Team.Rank() }

// put uploads rows and keeps them.
func (op *sharded) put(v []float64, shape ...int) (tensor.Tensor, error) {
	t, err := upload(op.dev, op.dtype, v, shape...)
	if err == nil {
		op.free = append(op.free, t)
	}
	return t, err
}

// place are the rows of a shard of this rank among its own.
func (op *sharded) place(k int) span {
	first, r := op.cuts.rowsOf(op.rank()).low, op.cuts.rows(op.shards.low+k)
	return span{r.low - first, r.high - first}
}

func (op *sharded) points(g Points, o Options) error {
	mine := op.cuts.rowsOf(op.rank())
	if mine.len() == 0 {
		return nil
	}
	x, err := op.put(g.X[mine.low*g.D:mine.high*g.D], mine.len(), g.D)
	if err != nil {
		return err
	}
	y, err := op.put(g.Y, g.M, g.D)
	if err != nil {
		return err
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCache
	}
	if o.CacheBytes > 0 {
		o.CacheBytes = max(1, o.CacheBytes/leastShards)
	}
	largest := g
	largest.N = (op.n + op.cuts.shards - 1) / op.cuts.shards
	cache := cacheWins(op.dev.Properties().Kind, op.dtype, largest, o)
	op.cached = cache
	for k := range op.own {
		at := op.place(k)
		if at.len() == 0 {
			continue
		}
		op.own[k] = pairs{dev: op.dev, dtype: op.dtype, n: at.len(), m: g.M, d: g.D, cost: g.Ground, x: x.Rows(at.low, at.high), y: y}
		if cache {
			if err := op.own[k].cache(); err != nil {
				return err
			}
			op.cached = op.cached && op.own[k].Cached()
		}
	}
	return nil
}

func (op *sharded) matrix(g Matrix) error {
	op.cached = true
	mine := op.cuts.rowsOf(op.rank())
	if mine.len() == 0 {
		return nil
	}
	c, err := op.put(g.C[mine.low*g.M:mine.high*g.M], mine.len(), g.M)
	if err != nil {
		return err
	}
	for k := range op.own {
		if at := op.place(k); at.len() > 0 {
			op.own[k] = pairs{dev: op.dev, dtype: op.dtype, n: at.len(), m: g.M, cost: GivenMatrix, matrix: c.Rows(at.low, at.high)}
		}
	}
	return nil
}

func (op *sharded) Softmin(out, g, logb tensor.Tensor, epsilon float64) error {
	if err := tensor.Check("sharded: softmin", op.dev, tensor.Want("out", out, op.dtype, op.n),
		tensor.Want("g", g, op.dtype, op.m), tensor.Want("logb", logb, op.dtype, op.m)); err != nil {
		return err
	}
	return op.exchange([]tensor.Tensor{out}, tensor.Tensor{}, func(p *pairs, _ span, outs []tensor.Tensor, _ tensor.Tensor) error {
		return p.Softmin(outs[0], g, logb, epsilon)
	})
}

func (op *sharded) Sweep(out, col, g, loga, logb tensor.Tensor, damp, epsilon float64) error {
	if err := tensor.Check("sharded: sweep", op.dev, tensor.Want("out", out, op.dtype, op.n), tensor.Want("col", col, tensor.Float64, op.m),
		tensor.Want("g", g, op.dtype, op.m), tensor.Want("loga", loga, op.dtype, op.n), tensor.Want("logb", logb, op.dtype, op.m)); err != nil {
		return err
	}
	return op.exchange([]tensor.Tensor{out}, col, func(p *pairs, rows span, outs []tensor.Tensor, col tensor.Tensor) error {
		return p.Sweep(outs[0], col, g, loga.Rows(rows.low, rows.high), logb, damp, epsilon)
	})
}

func (op *sharded) Apply(a Apply, epsilon float64) error {
	k := 0
	if !a.V.IsZero() && len(a.V.Shape()) == 2 {
		k = a.V.Dim(1)
	}
	d := op.geom.Dim()
	if err := tensor.Check("sharded: apply", op.dev, tensor.Want("f", a.F, op.dtype, op.n), tensor.Want("g", a.G, op.dtype, op.m),
		tensor.Want("logb", a.LogB, op.dtype, op.m), tensor.Maybe("v", a.V, op.dtype, op.m, k), tensor.Maybe("mass", a.Mass, op.dtype, op.n),
		tensor.Maybe("mean", a.Mean, op.dtype, op.n), tensor.Maybe("r", a.R, op.dtype, op.n, k), tensor.Maybe("grad", a.Grad, op.dtype, op.n, d)); err != nil {
		return err
	}
	results := []*tensor.Tensor{&a.Mass, &a.Mean, &a.R, &a.Grad}
	var outs []tensor.Tensor
	for _, r := range results {
		if !r.IsZero() {
			outs = append(outs, *r)
		}
	}
	return op.exchange(outs, tensor.Tensor{}, func(p *pairs, rows span, outs []tensor.Tensor, _ tensor.Tensor) error {
		part := a
		part.F = a.F.Rows(rows.low, rows.high)
		for _, r := range []*tensor.Tensor{&part.Mass, &part.Mean, &part.R, &part.Grad} {
			if !r.IsZero() {
				*r, outs = outs[0], outs[1:]
			}
		}
		return p.Apply(part, epsilon)
	})
}

// Transposed implements Operator. All ranks must call it. The transposed problem
// is sharded over its own rows.
func (op *sharded) Transposed() (Operator, error) {
	if op.front != nil {
		return op.front, nil
	}
	if op.back == nil {
		t, err := op.geom.Transpose().Open(op.dev, op.dtype, Options{CacheBytes: -1})
		if err != nil {
			return nil, err
		}
		op.back = t.(*sharded)
		op.back.front = op
	}
	return op.back, nil
}

func (op *sharded) Cached() bool { return op.cached }

func (op *sharded) Close() {
	if op.back != nil {
		op.back.Close()
		op.back = nil
	}
	_, given := op.geom.Geometry.(Matrix)
	for _, p := range op.own {
		if !given {
			p.matrix.Free()
		}
	}
	for _, t := range op.free {
		t.Free()
	}
	op.own, op.free = nil, nil // closing twice is harmless
}

// message is the layout of what a rank sends: the header, the sums over its groups
// of shards, and its rows of each result; in bytes, the same on all ranks. Behind
// the messages of all ranks is room to read them.
type message struct {
	sums   int   // where they begin
	rows   []int // where those of each result begin
	bytes  int
	groups int // sums of a rank at most

	all     int // all messages
	headers int // where their sum goes
	column  int // where the sums of all groups go; 0 where they are read in place
	total   int
}

const align = 256

func aligned(bytes int) int { return (bytes + align - 1) / align * align }

// message lays out sums over m columns, if there are any, and rows of so many bytes.
func (c cuts) message(m int, sums bool, rowBytes ...int) message {
	msg := message{sums: align, bytes: align}
	if sums {
		msg.groups = c.most(func(r int) int { return c.groups(r).len() })
		msg.bytes += aligned(8 * m * msg.groups)
	}
	most := c.most(func(r int) int { return c.rowsOf(r).len() })
	for _, bytes := range rowBytes {
		msg.rows = append(msg.rows, msg.bytes)
		msg.bytes += aligned(most * bytes)
	}
	msg.all = msg.bytes * c.ranks
	// Parts of messages are read as rows that are as far apart as messages: the
	// last of them reaches behind the last message.
	msg.headers = msg.all + align
	msg.total = msg.headers + align
	if sums && !(msg.groups == 1 && c.totalGroups() == c.ranks) {
		msg.column = msg.total
		msg.total += 8 * m * c.totalGroups()
	}
	return msg
}

func (c cuts) totalGroups() int { return (c.shards + c.group() - 1) / c.group() }

// Share is what sharing a sweep over n by m pairs costs each rank.
type Share struct {
	Rows  int // of the rank that has most, to compute
	Sent  int // bytes that each rank sends to all others
	Moved int // bytes that are read and written to add up and to bring together
}

// ShareOf is the share of a rank in a sweep over vectors with elements of so many
// bytes, without Fast.
func ShareOf(n, m, shards, ranks, element int) Share {
	c := cuts{n, shards, ranks}
	msg := c.message(m, true, element)
	sums := c.totalGroups()
	if c.group() > 1 {
		sums += c.most(func(r int) int { return c.of(r).len() + c.groups(r).len() })
	}
	if msg.column > 0 {
		sums += 2 * c.totalGroups()
	}
	return Share{
		Rows: c.most(func(r int) int { return c.rowsOf(r).len() }), Sent: msg.bytes, Moved: 2*n*element + 8*m*(sums+1),
	}
}

// width is how many elements a row has.
func width(t tensor.Tensor) int {
	if len(t.Shape()) == 2 {
		return t.Dim(1)
	}
	return 1
}

// at is a tensor in a buffer.
func (op *sharded) at(b gpu.Buffer, off int, dtype tensor.DType, shape ...int) (tensor.Tensor, error) {
	bytes := dtype.Size()
	for _, s := range shape {
		bytes *= s
	}
	return tensor.Wrap(op.dev, b.Slice(off, bytes), dtype, shape...)
}

// exchange lets compute fill in this rank's rows of outs and, where col is given,
// the sums over the rows of a shard; then outs and col are whole on all ranks.
// Where a rank fails, or is to stop, all know of it when they have it.
func (op *sharded) exchange(outs []tensor.Tensor, col tensor.Tensor, compute func(p *pairs, rows span, outs []tensor.Tensor, col tensor.Tensor) error) error {
	team := op.geom.Team
	sent := !col.IsZero() && !op.geom.Fast // with the message
	var bytes []int
	for _, t := range outs {
		bytes = append(bytes, width(t)*t.DType().Size())
	}
	msg := op.cuts.message(op.m, sent, bytes...)
	all, err := op.dev.Alloc(msg.total)
	if err != nil {
		return err
	}
	defer op.dev.Free(all)
	mine := all.Slice(msg.bytes*team.Rank(), msg.bytes)
	failed := op.local(mine, msg, outs, col, compute)
	if op.geom.Fast && !col.IsZero() {
		if err := team.group.Sum(col.Buffer(), collective.Float64); err != nil {
			return errors.Join(failed, err)
		}
	}
	if err := op.dev.Upload(mine.Slice(0, headerBytes), team.header(failed).bytes()); err != nil {
		return errors.Join(failed, err)
	}
	if err := team.group.Gather(all.Slice(0, msg.all), mine); err != nil {
		return errors.Join(failed, err)
	}
	for k, t := range outs {
		if err := op.unpack(t, all, msg, msg.rows[k]); err != nil {
			return err
		}
	}
	if sent {
		if err := op.addUp(col, all, msg); err != nil {
			return err
		}
	}
	return op.heed(all, msg, failed)
}

// local computes what this rank sends, and with Fast its part of col.
func (op *sharded) local(mine gpu.Buffer, msg message, outs []tensor.Tensor, col tensor.Tensor, compute func(p *pairs, rows span, outs []tensor.Tensor, col tensor.Tensor) error) error {
	var sums tensor.Tensor // (shards, m)
	group := op.cuts.group()
	if !col.IsZero() && len(op.own) > 0 {
		to, off := mine, msg.sums
		if op.geom.Fast || group > 1 {
			own, err := op.dev.Alloc(8 * op.m * len(op.own))
			if err != nil {
				return err
			}
			defer op.dev.Free(own)
			to, off = own, 0
		}
		var err error
		if sums, err = op.at(to, off, tensor.Float64, len(op.own), op.m); err != nil {
			return err
		}
	}
	for k := range op.own {
		p, at := &op.own[k], op.place(k)
		var sum tensor.Tensor
		if !sums.IsZero() {
			var err error
			if sum, err = sums.Rows(k, k+1).Reshape(op.m); err != nil {
				return err
			}
		}
		if at.len() == 0 {
			if !sum.IsZero() {
				if err := tensor.Set(sum, make([]float64, op.m)); err != nil {
					return err
				}
			}
			continue
		}
		parts := make([]tensor.Tensor, len(outs))
		for i, t := range outs {
			shape := append([]int{at.len()}, t.Shape()[1:]...)
			var err error
			if parts[i], err = op.at(mine, msg.rows[i]+at.low*width(t)*t.DType().Size(), t.DType(), shape...); err != nil {
				return err
			}
		}
		if err := compute(p, op.cuts.rows(op.shards.low+k), parts, sum); err != nil {
			return err
		}
	}
	switch {
	case col.IsZero():
		return nil
	case op.geom.Fast && len(op.own) == 0:
		return tensor.Set(col, make([]float64, op.m))
	case op.geom.Fast:
		return fold.Rows(col, sums)
	case group == 1:
		return nil
	}
	groups := op.cuts.groups(op.rank())
	for k := range groups.len() {
		first := (groups.low + k) * group
		part := sums.Rows(first-op.shards.low, min(first+group, op.shards.high)-op.shards.low)
		to, err := op.at(mine, msg.sums+8*op.m*k, tensor.Float64, op.m)
		if err != nil {
			return err
		}
		if err := fold.Rows(to, part); err != nil {
			return err
		}
	}
	return nil
}

// unpack brings the rows of all ranks together.
func (op *sharded) unpack(t tensor.Tensor, all gpu.Buffer, msg message, off int) error {
	w := width(t)
	whole, err := t.Reshape(t.Len())
	if err != nil {
		return err
	}
	for r := range op.cuts.ranks {
		rows := op.cuts.rowsOf(r)
		if rows.len() == 0 {
			continue
		}
		from, err := op.at(all, msg.bytes*r+off, t.DType(), 1, rows.len()*w)
		if err != nil {
			return err
		}
		if err := fold.Rows(whole.Rows(rows.low*w, rows.high*w), from); err != nil { // of one row: a copy
			return err
		}
	}
	return nil
}

// addUp adds the sums of all groups of shards.
func (op *sharded) addUp(col tensor.Tensor, all gpu.Buffer, msg message) error {
	if msg.column == 0 { // one of each rank
		rows, err := op.at(all, msg.sums, tensor.Float64, op.cuts.ranks, msg.bytes/8)
		if err != nil {
			return err
		}
		return fold.Rows(col, rows)
	}
	for r := range op.cuts.ranks {
		groups := op.cuts.groups(r)
		if groups.len() == 0 {
			continue
		}
		from, err := op.at(all, msg.bytes*r+msg.sums, tensor.Float64, 1, op.m*groups.len())
		if err != nil {
			return err
		}
		to, err := op.at(all, msg.column+8*op.m*groups.low, tensor.Float64, op.m*groups.len())
		if err != nil {
			return err
		}
		if err := fold.Rows(to, from); err != nil {
			return err
		}
	}
	rows, err := op.at(all, msg.column, tensor.Float64, op.cuts.totalGroups(), op.m)
	if err != nil {
		return err
	}
	return fold.Rows(col, rows)
}

// heed does what the headers of all ranks ask for.
func (op *sharded) heed(all gpu.Buffer, msg message, failed error) error {
	sums, err := op.at(all, msg.headers, tensor.Float64, 2)
	if err != nil {
		return err
	}
	rows, err := op.at(all, 0, tensor.Float64, op.cuts.ranks, msg.bytes/8)
	if err != nil {
		return err
	}
	if err := fold.Rows(sums, rows); err != nil {
		return err
	}
	host := make([]byte, headerBytes)
	if err := op.dev.Download(host, sums.Buffer()); err != nil {
		return err
	}
	h := readHeader(host)
	if h.stop > 0 {
		op.geom.Team.stop()
	}
	if h.failed == 0 {
		return nil
	}
	for r := range op.cuts.ranks {
		if err := op.dev.Download(host, all.Slice(msg.bytes*r, headerBytes)); err != nil {
			return errors.Join(failed, err)
		}
		if readHeader(host).failed > 0 {
			if failed != nil {
				return fmt.Errorf("geometry: sharded: rank %d: %w", op.rank(), failed)
			}
			return fmt.Errorf("geometry: sharded: rank %d failed; it says why", r)
		}
	}
	return fmt.Errorf("geometry: sharded: %w: a failure of no rank", solver.ErrInvalid)
}
