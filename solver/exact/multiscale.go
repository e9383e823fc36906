package exact

import (
	"cmp"
	"context"
	"math"
	"slices"
)

const (
	cellPoints = 4   // points that a coarser level joins into one
	coarsest   = 256 // points below which a level is not made coarser
	addPerRow  = 6   // violated arcs that a round of pricing may add per row
)

// level is a transport problem between cells of points.
type level struct {
	table  *pointTable
	supply []int64
	demand []int64
}

// multiscale solves the frame's problem: the levels of a hierarchy of cells
// from coarse to fine, each with the potentials of the one before, or the one
// problem where the costs have no geometry.
func (s Solver) multiscale(ctx context.Context, f *frame, supply, demand []int64, res *Result) (*programme, error) {
	if f.points == nil {
		n, _ := f.sub.size()
		v, err := cTransform(ctx, s.Workers, f.sub.transpose(), make([]float64, n))
		if err != nil {
			return nil, err
		}
		return s.generate(ctx, f.sub, f.bound, 1, supply, demand, v, res)
	}
	levels := []level{{f.points, supply, demand}}
	for {
		fine := levels[len(levels)-1]
		if fine.table.n <= coarsest && fine.table.m <= coarsest {
			break
		}
		coarse := level{&pointTable{d: fine.table.d, metric: fine.table.metric}, nil, nil}
		coarse.table.x, coarse.supply = cells(ctx, fine.table.x, fine.table.d, fine.supply)
		coarse.table.y, coarse.demand = cells(ctx, fine.table.y, fine.table.d, fine.demand)
		coarse.table.n, coarse.table.m = len(coarse.supply), len(coarse.demand)
		levels = append(levels, coarse)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}

	var prog *programme
	for l := len(levels) - 1; l >= 0; l-- {
		at := levels[l]
		// v_j = min_i c(x_i, y_j) − u_i carries potentials from the coarse
		// sources to the fine sinks.
		coarse := &pointTable{x: at.table.y, n: at.table.m, d: at.table.d, metric: at.table.metric}
		var u []float64
		if prog == nil {
			coarse.y, coarse.m = at.table.x, at.table.n
			u = make([]float64, coarse.m)
		} else {
			coarse.y, coarse.m = levels[l+1].table.x, levels[l+1].table.n
			u, _ = prog.potentials()
		}
		v, err := cTransform(ctx, s.Workers, coarse, u)
		if err != nil {
			return nil, err
		}
		if prog, err = s.generate(ctx, at.table, f.bound, at.table.d, at.supply, at.demand, v, res); err != nil {
			return nil, err
		}
	}
	return prog, nil
}

// cTransform returns min_j c_ij − v_j for every row i.
func cTransform(ctx context.Context, workers int, t table, v []float64) ([]float64, error) {
	_, u, err := cheapest(ctx, workers, t, v, 1, nil)
	return u, err
}

// generate solves one transport problem by column generation, from potentials v
// of the sinks.
func (s Solver) generate(ctx context.Context, t table, bound float64, dim int, supply, demand []int64, v []float64, res *Result) (*programme, error) {
	n, m := t.size()
	if p, ok := t.(*pointTable); ok && p.d >= storeDim && n*m <= storePairs {
		var err error
		if t, err = stored(ctx, s.Workers, p); err != nil {
			return nil, err
		}
	}
	byColumn := t.transpose()

	// Feasible potentials that touch: u is the c-transform of v, v that of u.
	k := min(s.Neighbours, m)
	cols, reduced, err := cheapest(ctx, s.Workers, t, v, k, nil)
	if err != nil {
		return nil, err
	}
	u := make([]float64, n)
	for i := range u {
		u[i] = reduced[i*k]
	}
	l := min(s.Neighbours, n)
	rows, reduced, err := cheapest(ctx, s.Workers, byColumn, u, l, nil)
	if err != nil {
		return nil, err
	}
	v = make([]float64, m)
	for j := range v {
		v[j] = reduced[j*l]
	}

	var candidates arcs
	for i := range n {
		for _, j := range cols[i*k : (i+1)*k] {
			candidates.add(int32(i), int32(n)+j, t.at(i, int(j)))
		}
	}
	for j := range m {
		for _, i := range rows[j*l : (j+1)*l] {
			if !slices.Contains(cols[int(i)*k:(int(i)+1)*k], int32(j)) {
				candidates.add(i, int32(n+j), t.at(int(i), j))
			}
		}
	}
	prog, err := newProgramme(ctx, t, bound, dim, supply, demand, u, v, candidates)
	if err != nil {
		return nil, err
	}

	res.Status, res.Rounds = MaxIterations, 0
	for res.Rounds < s.MaxRounds {
		if err := prog.optimise(ctx); err != nil {
			return nil, err
		}
		res.Rounds++
		res.Arcs = max(res.Arcs, prog.arcs.len())
		before := prog.arcs.len()
		if err := s.price(ctx, prog, byColumn, res.Rounds%2 == 0); err != nil {
			return nil, err
		}
		if prog.arcs.len() == before {
			res.Status = Converged
			break
		}
		prog.next = before
	}
	res.Pivots += prog.pivots
	return prog, nil
}

// price reads all arcs and adds the most violated ones of every row, or of
// every column.
func (s Solver) price(ctx context.Context, p *programme, byColumn table, columns bool) error {
	u, v := p.potentials()
	t := p.table
	if columns {
		t, u, v = byColumn, v, u
	}
	// Twice the simplex's tolerance: no arc that it accepts comes again.
	tol := 2 * p.tolerance()
	limit := make([]float64, len(u))
	for i := range limit {
		limit[i] = u[i] - tol
	}
	k := min(addPerRow, len(v))
	found, _, err := cheapest(ctx, s.Workers, t, v, k, limit)
	if err != nil {
		return err
	}
	n := p.tree.n
	for e, f := range found {
		if f < 0 {
			continue
		}
		i, j := e/k, int(f)
		if columns {
			i, j = j, i
		}
		p.arcs.add(int32(i), int32(n+j), p.table.at(i, j))
	}
	return nil
}

// cells joins neighbouring points into cells by halving the set across its
// widest coordinate, and returns the cells' mean points and masses. It stops
// short where ctx is done, which the caller must look at. A set that is small
// enough stays as it is.
func cells(ctx context.Context, x []float64, d int, mass []int64) (centres []float64, masses []int64) {
	if len(mass) <= coarsest {
		return x, mass
	}
	order := make([]int, len(mass))
	for i := range order {
		order[i] = i
	}
	var split func(part []int)
	split = func(part []int) {
		if ctx.Err() != nil {
			return
		}
		if len(part) <= cellPoints {
			var total int64
			for _, i := range part {
				total += mass[i]
			}
			at := len(centres)
			centres = append(centres, make([]float64, d)...)
			for _, i := range part {
				share := float64(mass[i]) / float64(total)
				for k := range d {
					centres[at+k] += share * x[i*d+k]
				}
			}
			masses = append(masses, total)
			return
		}
		widest, extent := 0, -1.0
		for k := range d {
			low, high := math.Inf(1), math.Inf(-1)
			for _, i := range part {
				low, high = min(low, x[i*d+k]), max(high, x[i*d+k])
			}
			if high-low > extent {
				widest, extent = k, high-low
			}
		}
		slices.SortFunc(part, func(a, b int) int {
			if c := cmp.Compare(x[a*d+widest], x[b*d+widest]); c != 0 {
				return c
			}
			return a - b
		})
		split(part[:len(part)/2])
		split(part[len(part)/2:])
	}
	split(order)
	return centres, masses
}
