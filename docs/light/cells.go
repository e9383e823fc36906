package main

import (
	"fmt"
	"math"
	"path/filepath"

	"github.com/fortet/fortet/docs/internal/page"
	"github.com/fortet/fortet/internal/plot"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/solver/exact"
	"github.com/fortet/fortet/solver/metrics"
)

// cellResult are bridges between time points of single cells.
type cellResult struct {
	Components int
	Sets       []cellSet
}

type cellSet struct {
	Name       string
	D          int
	Neighbours []cellRow
	HeldOut    []cellRow
}

// cellRow is a distance of predicted cells to those of a time point.
type cellRow struct {
	What    string // the bridge, or the guess that it is compared with
	Time    int    // the time point that is predicted
	W1, W2  metrics.Value
	Seconds float64 // 0: no training
}

type cellChoice struct{ epsilon, beta float64 }

func (c cellChoice) String() string { return fmt.Sprintf("ε = %v, β = %s", c.epsilon, price(c.beta)) }

func cells(l *lab) (out cellResult, err error) {
	out.Components = 50
	for _, set := range []struct {
		name, file string
		last       int
		choices    []cellChoice
	}{
		{"EMT", "emt.csv", 3, []cellChoice{{.002, math.Inf(1)}, {.002, 1}, {.02, math.Inf(1)}, {.02, 1}}},
		{"Mouse blood formation", "mouse_hematopoiesis.csv", 2, []cellChoice{{.05, math.Inf(1)}, {.05, 1}, {.5, math.Inf(1)}, {.5, 1}}},
	} {
		s := cellSet{Name: set.name}
		at := func(t int) string {
			return fmt.Sprintf("csv:%s?where=samples==%d", filepath.Join(l.data, "timecourse", set.file), t)
		}
		for t := 1; t <= set.last; t++ {
			for _, c := range set.choices {
				row, err := bridgeCells(l, at(t-1), at(t), at(t), c, 1, out.Components, "")
				if err != nil {
					return out, err
				}
				row.What, row.Time = fmt.Sprintf("%d → %d, %v", t-1, t, c), t
				s.Neighbours = append(s.Neighbours, row)
			}
		}
		for t := 1; t < set.last; t++ {
			guesses, err := guessCells(l, at, t)
			if err != nil {
				return out, err
			}
			s.HeldOut = append(s.HeldOut, guesses...)
			for i, c := range set.choices {
				picture := ""
				if i == 1 && t == 1 {
					picture = "light_" + set.file[:3] + ".png"
				}
				row, err := bridgeCells(l, at(t-1), at(t+1), at(t), c, .5, out.Components, picture)
				if err != nil {
					return out, err
				}
				row.What, row.Time = fmt.Sprintf("bridge, %v", c), t
				s.HeldOut = append(s.HeldOut, row)
			}
		}
		first, err := open(at(0))
		if err != nil {
			return out, err
		}
		s.D = first.D
		out.Sets = append(out.Sets, s)
	}
	return out, nil
}

// bridgeCells trains between two sets and compares its law at a time with a
// third.
func bridgeCells(l *lab, source, target, with string, c cellChoice, t float64, components int, picture string) (row cellRow, err error) {
	b, err := l.train(run.LightSBB, run.Config{
		Data: run.Data{Source: source, Target: target}, Train: run.Train{Steps: 2000},
		Light: run.Light{Components: components, Epsilon: c.epsilon, Beta: run.Number(c.beta)},
	})
	if err != nil {
		return row, err
	}
	defer b.Close()
	x, err := open(source)
	if err != nil {
		return row, err
	}
	got, err := b.DrawPaths(l.ctx, x.X, []float64{t}, 1)
	if err != nil {
		return row, err
	}
	row.Seconds = b.seconds
	if err := row.compare(l, got, with); err != nil || picture == "" {
		return row, err
	}
	want, err := open(with)
	if err != nil {
		return row, err
	}
	end, err := open(target)
	if err != nil {
		return row, err
	}
	return row, l.picture(picture, plot.Scatter{
		Title: "The middle time point, held out, and the bridge's", Clouds: []plot.Cloud{
			{Label: "before", D: x.D, X: x.X}, {Label: "after", D: x.D, X: end.X},
			{Label: "held out", D: x.D, X: want.X}, {Label: "bridge", D: x.D, X: got},
		},
	})
}

// compare measures points against the cells of a set.
func (row *cellRow) compare(l *lab, x []float64, with string) error {
	y, err := open(with)
	if err != nil {
		return err
	}
	list, err := metrics.Parse("w1,w2")
	if err != nil {
		return err
	}
	for i, to := range []*metrics.Value{&row.W1, &row.W2} {
		// As many points for all, so that one floor serves them.
		n := min(y.N/2, 400)
		if *to, err = list[i].Compute(l.ctx, metrics.Cloud{X: x, D: y.D}, metrics.Cloud{X: y.X, D: y.D}, metrics.Options{N: n}); err != nil {
			return err
		}
	}
	return nil
}

// guessCells are what one may say of the time point t without a bridge.
func guessCells(l *lab, at func(int) string, t int) (rows []cellRow, err error) {
	before, err := open(at(t - 1))
	if err != nil {
		return nil, err
	}
	after, err := open(at(t + 1))
	if err != nil {
		return nil, err
	}
	d := before.D
	r := stream(15, uint64(t))
	independent, optimal := make([]float64, len(before.X)), []float64{}
	for i := range before.N {
		other := after.Row(r.IntN(after.N))
		for k, v := range before.Row(i) {
			independent[i*d+k] = (v + other[k]) / 2
		}
	}
	// The plan between subsamples of equal size is a pairing.
	n := min(before.N, after.N, 2000)
	p, q := r.Perm(before.N)[:n], r.Perm(after.N)[:n]
	x, y, equal := make([]float64, 0, n*d), make([]float64, 0, n*d), make([]float64, n)
	for i := range n {
		x, y, equal[i] = append(x, before.Row(p[i])...), append(y, after.Row(q[i])...), 1/float64(n)
	}
	plan, err := exact.Solver{}.Solve(l.ctx, exact.Problem{
		Costs: exact.Points{X: x, Y: y, D: d, Metric: exact.SqEuclidean}, A: equal, B: equal,
	})
	if err != nil {
		return nil, err
	}
	if err := plan.Status.Err(); err != nil {
		return nil, err
	}
	for _, e := range plan.Plan {
		if e.Mass < .5/float64(n) {
			continue
		}
		for k := range d {
			optimal = append(optimal, (x[e.I*d+k]+y[e.J*d+k])/2)
		}
	}
	for _, g := range []struct {
		what string
		x    []float64
	}{
		{"the cells before", before.X}, {"the cells after", after.X}, {"midpoints of random pairs", independent}, {"midpoints of optimal pairs", optimal},
	} {
		row := cellRow{What: g.what, Time: t}
		if err := row.compare(l, g.x, at(t)); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func cellTable(list []cellRow, head string) string {
	var rows [][]string
	for _, r := range list {
		seconds := "—"
		if r.Seconds > 0 {
			seconds = page.Num(2, r.Seconds)
		}
		rows = append(rows, []string{
			r.What, page.Num(2, float64(r.Time)), page.Num(3, r.W1.Value), spread{r.W1.Floor.Mean, r.W1.Floor.Std}.String(),
			page.Num(3, r.W2.Value), spread{r.W2.Floor.Mean, r.W2.Floor.Std}.String(), page.Num(6, float64(r.W2.Floor.N)), seconds,
		})
	}
	return page.Table([]string{head, "time", "W1", "floor", "W2", "floor", "n", "s"}, rows)
}

// NeighbourTable is a row for each bridge between neighbours.
func (s cellSet) NeighbourTable() string { return cellTable(s.Neighbours, "bridge") }

// HeldOutTable is a row for each prediction of a time point that was held out.
func (s cellSet) HeldOutTable() string { return cellTable(s.HeldOut, "prediction") }
