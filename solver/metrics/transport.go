package metrics

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/fortet/fortet/internal/parallel"
	"github.com/fortet/fortet/solver/exact"
)

// W1 is the exact 1-Wasserstein distance min_P Σ P_ij |x_i − y_j|.
func W1(ctx context.Context, x, y Cloud) (float64, error) { return w1(ctx, 0, x, y) }

// W2 is the exact 2-Wasserstein distance (min_P Σ P_ij |x_i − y_j|²)^½.
//
// Memory grows with n + m; time is seconds for 10,000 points on each side.
func W2(ctx context.Context, x, y Cloud) (float64, error) { return w2(ctx, 0, x, y) }

func w1(ctx context.Context, workers int, x, y Cloud) (float64, error) {
	return transport(ctx, workers, x, y, exact.Euclidean)
}

func w2(ctx context.Context, workers int, x, y Cloud) (float64, error) {
	c, err := transport(ctx, workers, x, y, exact.SqEuclidean)
	return math.Sqrt(max(0, c)), err
}

func transport(ctx context.Context, workers int, x, y Cloud, metric exact.Metric) (float64, error) {
	a, b, err := checkPair(x, y)
	if err != nil {
		return 0, err
	}
	if x.D == 1 {
		power := func(e float64) float64 { return e * e }
		if metric == exact.Euclidean {
			power = math.Abs
		}
		return quantileCoupling(x.X, y.X, a, b, power), ctx.Err()
	}
	r, err := exact.Solver{Workers: workers}.Solve(ctx, exact.Problem{
		Costs: exact.Points{X: x.X, Y: y.X, D: x.D, Metric: metric}, A: a, B: b,
	})
	if err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	return r.Cost, r.Status.Err()
}

// quantileCoupling is the optimal cost of a convex function of the difference
// on the line: both samples in order, mass meeting mass.
func quantileCoupling(x, y, a, b []float64, cost func(float64) float64) float64 {
	p, q := ranks(x), ranks(y)
	if len(p) == len(q) && uniform(a) && uniform(b) {
		s := 0.0
		for k := range p {
			s += cost(x[p[k]] - y[q[k]])
		}
		return s / float64(len(p))
	}
	upToX, upToY := cumulative(a, p), cumulative(b, q)
	s, t := 0.0, 0.0
	for i, j := 0, 0; i < len(p) && j < len(q); {
		end := min(upToX[i], upToY[j])
		s += (end - t) * cost(x[p[i]]-y[q[j]])
		t = end
		if upToX[i] == end {
			i++
		}
		if upToY[j] == end {
			j++
		}
	}
	return s
}

// cumulative returns the running sums of weights in an order; the last is 1.
func cumulative(w []float64, order []int) []float64 {
	out := make([]float64, len(order))
	t := 0.0
	for k, i := range order {
		t += w[i]
		out[k] = min(t, 1)
	}
	out[len(out)-1] = 1
	return out
}

func ranks(x []float64) []int {
	r := make([]int, len(x))
	for i := range r {
		r[i] = i
	}
	slices.SortFunc(r, func(i, j int) int { return cmp.Compare(x[i], x[j]) })
	return r
}

func uniform(w []float64) bool {
	for _, v := range w {
		if v != w[0] {
			return false
		}
	}
	return true
}

// RandomDirections returns count unit vectors of dimension d, (count, d), as a
// function of the seed.
func RandomDirections(count, d int, seed uint64) []float64 {
	r := rand.New(rand.NewPCG(seed, 0x736c69636564)) // "sliced"
	out := make([]float64, max(0, count)*max(0, d))
	for k := 0; k < len(out); k += d {
		u := out[k : k+d]
		norm := 0.0
		for norm == 0 {
			norm = 0
			for i := range u {
				u[i] = r.NormFloat64()
				norm += u[i] * u[i]
			}
		}
		for i := range u {
			u[i] /= math.Sqrt(norm)
		}
	}
	return out
}

// SlicedW2 is the sliced 2-Wasserstein distance (mean_θ W2²(θ·x, θ·y))^½ over
// the given directions, (directions, D) row-major, each scaled to length one
// (Bonneel et al. 2015). Directions come from RandomDirections or are chosen.
func SlicedW2(ctx context.Context, x, y Cloud, directions []float64) (float64, error) {
	return slicedW2(ctx, 0, x, y, directions)
}

func slicedW2(ctx context.Context, workers int, x, y Cloud, directions []float64) (float64, error) {
	a, b, err := checkPair(x, y)
	if err != nil {
		return 0, err
	}
	d := x.D
	if len(directions) == 0 || len(directions)%d != 0 {
		return 0, fmt.Errorf("metrics: directions: %w: got %d numbers, want a positive multiple of d = %d", ErrInvalid, len(directions), d)
	}
	count := len(directions) / d
	unit := make([]float64, len(directions))
	for k := range count {
		u := directions[k*d : (k+1)*d]
		length := 0.0
		for _, v := range u {
			length = math.Hypot(length, v)
		}
		if !(length > 0) || math.IsInf(length, 1) {
			return 0, fmt.Errorf("metrics: directions[%d]: %w: got length %g, want a positive finite one", k, ErrInvalid, length)
		}
		for i, v := range u {
			unit[k*d+i] = v / length
		}
	}
	origin := meanOf(y, b)
	px, py := shifted(x, origin), shifted(y, origin)
	squares := make([]float64, count)
	err = parallel.Each(ctx, workers, count, func(k int) {
		u := unit[k*d : (k+1)*d]
		squares[k] = quantileCoupling(project(px, u), project(py, u), a, b, func(e float64) float64 { return e * e })
	})
	mean := 0.0
	for _, s := range squares {
		mean += s / float64(count)
	}
	return math.Sqrt(mean), err
}

func project(x, u []float64) []float64 {
	out := make([]float64, len(x)/len(u))
	for i := range out {
		s := 0.0
		for k, v := range x[i*len(u) : (i+1)*len(u)] {
			s += v * u[k]
		}
		out[i] = s
	}
	return out
}
