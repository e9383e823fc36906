package divergences

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/exact"
	"github.com/fortet/fortet/solver/geometry"
)

// units is what the mass is divided into for exact flows: finer than float64.
const units = 1 << 60

// flow solves total variation as a minimum-cost flow. With T = min(P, R) the mass
// that stays and Q = P - T that which moves, |P - R|/2 summed is half the sum of
// both masses less ΣT, so that a pair has two arcs: of room R_ij at the cost -1
// (Gibbs) or C_ij - ε (regularised, R = a⊗b), and of any room at 0 or C_ij.
func (res *Result) flow(ctx context.Context, t task) error {
	n, m := t.n, t.m
	low, high, room := make([]float64, n*m), make([]float64, n*m), make([]int64, n*m)
	reference := make([]float64, n*m)
	largest := t.eps
	row := make([]float64, m)
	for i := range n {
		if err := ctx.Err(); err != nil {
			return err
		}
		t.Geometry.Row(i, row)
		for j, c := range row {
			k := i*m + j
			reference[k] = t.a[i] * t.b[j]
			if t.Kind == Gibbs {
				if reference[k] > 0 {
					reference[k] *= math.Exp(-c/t.eps - t.logZ)
				}
				low[k] = -1
			} else {
				low[k], high[k] = c-t.eps, c
			}
			if !math.IsInf(c, 1) {
				largest = max(largest, math.Abs(c))
			}
			room[k] = int64(min(math.Round(reference[k]/t.mass*units), units))
		}
	}
	if t.forbidden {
		// What no detour costs: a plan that avoids such pairs exists.
		never := 2 * largest * float64(n+m)
		for i := range n {
			t.Geometry.Row(i, row)
			for j, c := range row {
				if math.IsInf(c, 1) {
					low[i*m+j], high[i*m+j] = never, never
				}
			}
		}
	}
	f := newFlow(n, m, low, high, room, apportion(t.a, t.mass), apportion(t.b, t.mass))
	err := f.solve(ctx)
	res.Status, res.Iterations = solver.Converged, f.pivots
	if err != nil {
		res.Status = solver.Canceled
	}
	unit := t.mass / units
	given := make([]float64, n*m)
	for k := range given {
		given[k] = float64(f.amount[2*k]+f.amount[2*k+1]) * unit
	}
	// Prices -u and v of high arcs have u_i + v_j <= C_ij, or <= 0: y <= ½.
	scale := 1.0
	if t.Kind == Regularised {
		scale = t.eps
	}
	plan := Plan{
		Geometry: t.Geometry, A: t.a, B: t.b, Epsilon: t.eps, Divergence: t.divergence, Kind: t.Kind, LogZ: t.logZ,
		F: make([]float64, n), G: make([]float64, m), Given: given,
	}
	for i := range n {
		plan.F[i] = -f.price[i] + scale/4
	}
	for j := range m {
		plan.G[j] = f.price[n+j] + scale/4
	}
	res.Plan = plan
	if res.Status == solver.Converged {
		res.Certificate = t.variation(&plan, reference)
		res.judge(res.Certificate, math.Inf(1))
	}
	return nil
}

// variation is the certificate of a plan given as a matrix. It first lowers f
// where y > ½, by rounding, so that the dual value is one.
func (t *task) variation(p *Plan, reference []float64) Certificate {
	scale := 1.0
	if t.Kind == Regularised {
		scale = t.eps
	}
	var c Certificate
	col, row := make([]float64, t.m), make([]float64, t.m)
	conjugate := 0.0
	for i := range t.n {
		t.Geometry.Row(i, row)
		y, worst := make([]float64, t.m), 0.0
		for j, cost := range row {
			y[j] = (p.F[i] + p.G[j]) / scale
			if t.Kind == Regularised {
				y[j] -= cost / scale
			}
			if reference[i*t.m+j] > 0 {
				worst = max(worst, y[j]-0.5)
			}
		}
		p.F[i] -= worst * scale
		sum := 0.0
		for j, cost := range row {
			k := i*t.m + j
			v, r := p.Given[k], reference[k]
			sum += v
			col[j] += v
			if v > 0 {
				c.TransportCost += v * cost
			}
			c.Divergence += math.Abs(v-r) / 2
			if r > 0 {
				conjugate += r * max(y[j]-worst, -0.5)
				c.LargestDensity = max(c.LargestDensity, v/r)
			}
		}
		c.Mass += sum
		c.Source += math.Abs(sum - t.a[i])
	}
	for j, v := range col {
		c.Target += math.Abs(v - t.b[j])
	}
	c.Residual = (c.Source + c.Target) / t.mass
	c.settle(t, p.F, p.G, conjugate)
	return c
}

// apportion rounds weights to units of mass/units; what is left over goes to the
// largest.
func apportion(w []float64, mass float64) []int64 {
	out := make([]int64, len(w))
	rest, largest := int64(units), 0
	for i, x := range w {
		out[i] = int64(math.Round(x / mass * units))
		rest -= out[i]
		if out[i] > out[largest] {
			largest = i
		}
	}
	out[largest] += rest
	return out
}

// reachable says why forbidden pairs leave no plan of finite value.
func (t *task) reachable(ctx context.Context) error {
	c := t.Geometry.(geometry.Matrix)
	if t.Kind == Regularised && math.IsInf(t.divergence.F(0), 1) {
		for k, x := range c.C {
			if i, j := k/c.M, k%c.M; math.IsInf(x, 1) && t.a[i] > 0 && t.b[j] > 0 {
				return fmt.Errorf("divergences: %w: the cost of pair (%d, %d) is +Inf, but %v is infinite where a plan leaves out a pair",
					solver.ErrInfeasible, i, j, t.divergence)
			}
		}
	}
	blocked := make([]float64, len(c.C))
	for k, x := range c.C {
		if math.IsInf(x, 1) {
			blocked[k] = 1
		}
	}
	r, err := exact.Solver{}.Solve(ctx, exact.Problem{Costs: exact.Matrix{C: blocked, N: c.N, M: c.M}, A: t.a, B: t.b})
	switch {
	case errors.Is(err, exact.ErrInvalid):
		return fmt.Errorf("divergences: %w: %w", solver.ErrInvalid, err)
	case err != nil:
		return err
	case r.Cost > 1e-9*t.mass:
		return fmt.Errorf("divergences: %w: any coupling has at least the mass %v on pairs whose cost is +Inf", solver.ErrInfeasible, r.Cost)
	}
	return nil
}
