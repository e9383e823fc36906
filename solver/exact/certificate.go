package exact

import (
	"cmp"
	"context"
	"math"
	"slices"
)

// certify fills the result from the tree: the plan, and potentials made
// feasible for every pair by one last c-transform, points without mass included.
func (s Solver) certify(ctx context.Context, f *frame, w *masses, p *programme, res *Result) error {
	n, m := f.all.size()
	tree := p.tree

	var cost accumulator
	for q, nd := range tree.nodes {
		if nd.flow == 0 || nd.parent < 0 {
			continue
		}
		i, j := q, int(nd.parent)
		if !tree.isSource(int32(q)) {
			i, j = j, i
		}
		j -= tree.n
		mass := w.mass(nd.flow)
		cost.add(mass * p.table.at(i, j))
		res.Plan = append(res.Plan, Entry{w.source[i], w.sink[j], mass})
	}
	slices.SortFunc(res.Plan, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.I, b.I), cmp.Compare(a.J, b.J))
	})

	// v_j = min c_ij − u_i over the sources with mass; then u the same over all
	// sinks for the sources without.
	u, _ := p.potentials()
	heavy := f.all
	if len(w.source) < n {
		heavy = f.all.pick(w.source, upTo(m))
	}
	var err error
	if res.V, err = cTransform(ctx, s.Workers, heavy.transpose(), u); err != nil {
		return err
	}
	if len(w.source) == n {
		res.U = u
	} else {
		if res.U, err = cTransform(ctx, s.Workers, f.all, res.V); err != nil {
			return err
		}
	}

	var dual accumulator
	largest := 0.0
	for i, x := range res.U {
		dual.add(w.a[i] * x)
		largest = max(largest, math.Abs(x))
	}
	reach := 0.0
	for j, x := range res.V {
		dual.add(w.b[j] * x)
		reach = max(reach, math.Abs(x))
	}
	res.Gap = cost.value() - dual.value()
	res.Slack = f.rounding + 0x1p-52*(f.bound+largest+reach)
	excess := 0.0
	if f.restore != nil {
		var rounding float64
		excess, rounding = f.restore(res.U, res.V)
		for _, x := range res.U {
			largest = max(largest, math.Abs(x))
		}
		for _, x := range res.V {
			reach = max(reach, math.Abs(x))
		}
		res.Slack += rounding + 0x1p-52*(largest+reach)
	}
	res.Cost = cost.value() + excess
	res.Dual = dual.value() + excess
	return nil
}

func upTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
