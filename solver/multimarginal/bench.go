package multimarginal

import (
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/tensor"
)

// bench is a task on a device in one precision. Its memory is that of the nodes
// and edges, but for costs that a geometry chooses to cache.
type bench struct {
	*task
	dev    gpu.Device
	dtype  tensor.DType
	cache  int64 // bytes that cached costs may still take
	ops    []geometry.Operator
	owned  []bool // ops that are not another's transposed one
	logw   []tensor.Tensor
	given  []tensor.Tensor // per node: what goes up
	found  []tensor.Tensor // per node: what comes down
	column []tensor.Tensor // per node, float64
	host   [][]float64     // per node: scratch
	back   [][]float64     // per node: scratch
	spread float64         // largest size of an exponent since it was reset
}

// defaultCache is how much memory cached costs may take where Options do not
// say.
const defaultCache = 1 << 30

func (t *task) open(dev gpu.Device, dtype tensor.DType, o geometry.Options) (*bench, error) {
	k := len(t.nodes)
	b := &bench{
		task: t, dev: dev, dtype: dtype, cache: o.CacheBytes,
		ops: make([]geometry.Operator, 2*len(t.edges)), owned: make([]bool, 2*len(t.edges)),
		logw: make([]tensor.Tensor, k), given: make([]tensor.Tensor, k), found: make([]tensor.Tensor, k),
		column: make([]tensor.Tensor, k), host: make([][]float64, k), back: make([][]float64, k),
	}
	if b.cache == 0 {
		b.cache = defaultCache
	}
	for i := range t.nodes {
		n := &t.nodes[i]
		b.host[i], b.back[i] = make([]float64, n.n), make([]float64, n.n)
		var err error
		if b.logw[i], err = tensor.FromFloat64s(dev, dtype, n.loga, n.n); err != nil {
			b.close()
			return nil, err
		}
		for _, v := range []struct {
			to    *tensor.Tensor
			dtype tensor.DType
		}{{&b.given[i], dtype}, {&b.found[i], dtype}, {&b.column[i], tensor.Float64}} {
			if *v.to, err = tensor.New(dev, v.dtype, n.n); err != nil {
				b.close()
				return nil, err
			}
		}
	}
	return b, nil
}

func (b *bench) close() {
	for _, list := range [][]tensor.Tensor{b.logw, b.given, b.found, b.column} {
		for _, t := range list {
			t.Free()
		}
	}
	for k, op := range b.ops {
		if op != nil && b.owned[k] {
			op.Close()
		}
	}
}

// slot is where the operator of edge e with node rows as its rows is kept.
func (b *bench) slot(e, rows int) int {
	if b.edges[e].i == rows {
		return 2 * e
	}
	return 2*e + 1
}

// operator is the pairs of an edge with one of its nodes as the rows. Those of
// the other direction are the transposed ones, which hold no cost of their own;
// often says that this direction deserves one.
func (b *bench) operator(e, rows int, often bool) (geometry.Operator, error) {
	at := b.slot(e, rows)
	if b.ops[at] != nil {
		return b.ops[at], nil
	}
	if twin := b.ops[at^1]; twin != nil && !(often && twin.Cached()) {
		op, err := twin.Transposed()
		b.ops[at] = op
		return op, err
	}
	g := b.edges[e].geom
	if at%2 == 1 {
		g = g.Transpose()
	}
	o := geometry.Options{CacheBytes: b.cache}
	if b.cache <= 0 {
		o.CacheBytes = -1
	}
	op, err := g.Open(b.dev, b.dtype, o)
	if err != nil {
		return nil, err
	}
	b.ops[at], b.owned[at] = op, true
	if op.Cached() {
		n, m := g.Size()
		b.cache -= int64(n) * int64(m) * int64(b.dtype.Size())
	}
	return op, nil
}

// cached says whether the costs of all edges of a part are held in memory.
func (b *bench) cached(p *part) bool {
	for _, list := range p.children {
		for _, br := range list {
			one, two := b.ops[2*br.edge], b.ops[2*br.edge+1]
			if !(one != nil && one.Cached() || two != nil && two.Cached()) {
				return false
			}
		}
	}
	return true
}

// middle is the middle of the values that count. Potentials go to the device
// less their middle, since float32 would otherwise spend its digits on a
// constant.
func middle(h, w []float64) float64 {
	low, high := math.Inf(1), math.Inf(-1)
	for i, x := range h {
		if w[i] > 0 {
			low, high = min(low, x), max(high, x)
		}
	}
	return low/2 + high/2
}

// give uploads (h - shift)/weight for node k.
func (b *bench) give(k int, h []float64, shift, weight float64) error {
	v := b.host[k]
	for i, x := range h {
		v[i] = (x - shift) / weight
	}
	return tensor.SetFloat64s(b.given[k], v)
}

// message writes to out the message along edge e to its node to, from the other
// end, whose potential less the messages of its other edges is h. All are in the
// unit of the summed cost: with an edge's weight w, the softmin of w·c at ε is w
// times that of c at ε/w.
func (b *bench) message(out []float64, e, to int, h []float64, eps float64, often bool) error {
	w, from := b.edges[e].weight, b.edges[e].other(to)
	op, err := b.operator(e, to, often)
	if err != nil {
		return err
	}
	shift := middle(h, b.nodes[from].a)
	if err := b.give(from, h, shift, w); err != nil {
		return err
	}
	if err := op.Softmin(b.found[to], b.given[from], b.logw[from], eps/w); err != nil {
		return err
	}
	if err := tensor.GetFloat64s(b.found[to], out); err != nil {
		return err
	}
	b.raise(out, w/eps)
	for i := range out {
		out[i] = w*out[i] - shift
	}
	return nil
}

func (b *bench) raise(out []float64, factor float64) {
	for _, x := range out {
		if x = math.Abs(x) * factor; x > b.spread && !math.IsInf(x, 0) {
			b.spread = x
		}
	}
}

// leaf is both messages along edge e, to its end in a leaf and back, in one pass:
// h is the potential of the parent less the messages of its other edges. It
// writes the leaf's potential to f and the message back to up, and leaves the
// entries of up at points without weight as they are.
func (b *bench) leaf(f, up []float64, e, leaf int, h []float64, eps float64) error {
	w, parent := b.edges[e].weight, b.edges[e].other(leaf)
	damp := b.nodes[leaf].damp(eps)
	op, err := b.operator(e, leaf, true)
	if err != nil {
		return err
	}
	shift := 0.0
	if damp == 1 { // otherwise the pass takes the constant to be a part of f
		shift = middle(h, b.nodes[parent].a)
	}
	if err := b.give(parent, h, shift, w); err != nil {
		return err
	}
	err = op.Sweep(b.found[leaf], b.column[parent], b.given[parent], b.logw[leaf], b.logw[parent], damp, eps/w)
	if err != nil {
		return err
	}
	if err := tensor.GetFloat64s(b.found[leaf], f); err != nil {
		return err
	}
	col := b.back[parent]
	if err := tensor.Get(b.column[parent], col); err != nil {
		return err
	}
	b.raise(f, w/eps)
	for i := range f {
		f[i] = damp * (w*f[i] - shift)
	}
	lost := false
	for y, a := range b.nodes[parent].a {
		if a == 0 {
			continue
		}
		// A column that underflows has no logarithm; see below.
		lost = lost || col[y] < 1e-30*a
		up[y] = h[y] - eps*math.Log(col[y]/a)
	}
	if lost {
		return b.message(up, e, parent, f, eps, false)
	}
	return nil
}
