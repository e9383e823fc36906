package exact

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The fixed sets A_i = (sin 1.3i, cos .7i), B_i = (1 + sin(.9i+1), .5 cos(1.1i−.4)).
func fixedSets() (a, b []float64) {
	for k := range 8 {
		i := float64(k)
		a = append(a, math.Sin(1.3*i), math.Cos(.7*i))
		b = append(b, 1+math.Sin(.9*i+1), .5*math.Cos(1.1*i-.4))
	}
	return a, b
}

func normals(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	return x
}

func lattice(r *rand.Rand, n, side int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(r.IntN(side))
	}
	return x
}

// cost is the definition, from the caller's coordinates.
func cost(p Points, i, j int) float64 {
	s := 0.0
	for k := range p.D {
		e := p.X[i*p.D+k] - p.Y[j*p.D+k]
		s += e * e
	}
	if p.Metric == Euclidean {
		s = math.Sqrt(s)
	}
	return s
}

func within(t *testing.T, got, want, tol float64, what string) {
	t.Helper()
	if !(math.Abs(got-want) <= tol) {
		t.Fatalf("%s: got %.17g, want %.17g within %g", what, got, want, tol)
	}
}

// solve runs the solver and checks the whole certificate from its definition.
func solve(t *testing.T, p Problem) *Result {
	t.Helper()
	r, err := Solver{}.Solve(context.Background(), p)
	require.NoError(t, err)
	require.NoError(t, r.Status.Err())
	n, m := len(r.U), len(r.V)
	var c func(i, j int) float64
	switch k := p.Costs.(type) {
	case Points:
		c = func(i, j int) float64 { return cost(k, i, j) }
	case Matrix:
		c = func(i, j int) float64 { return k.C[i*k.M+j] }
	case Func:
		c = k.Cost
	}
	a, b := p.A, p.B
	if a == nil {
		a = slices.Repeat([]float64{1 / float64(n)}, n)
	}
	if b == nil {
		b = slices.Repeat([]float64{1 / float64(m)}, m)
	}
	require.Len(t, a, n)
	require.Len(t, b, m)
	mass, massB, scale := 0.0, 0.0, 0.0
	for _, v := range a {
		mass += v
	}
	for _, v := range b {
		massB += v
	}
	for i := range n {
		for j := range m {
			x := c(i, j)
			scale = max(scale, math.Abs(x))
			if !(r.U[i]+r.V[j] <= x+r.Slack) {
				t.Fatalf("u[%d] + v[%d] = %.17g exceeds the cost %.17g by more than the slack %g", i, j, r.U[i]+r.V[j], x, r.Slack)
			}
		}
	}
	rows, cols := make([]float64, n), make([]float64, m)
	primal, dual := 0.0, 0.0
	for k, e := range r.Plan {
		require.Greater(t, e.Mass, 0.0)
		if k > 0 {
			q := r.Plan[k-1]
			require.True(t, q.I < e.I || q.I == e.I && q.J < e.J, "plan not sorted")
		}
		rows[e.I] += e.Mass
		cols[e.J] += e.Mass
		primal += e.Mass * c(e.I, e.J)
	}
	require.LessOrEqual(t, len(r.Plan), n+m-1)
	for i, v := range a {
		within(t, rows[i], v, 1e-14*mass, "mass of a source")
		dual += v * r.U[i]
	}
	for j, v := range b {
		within(t, cols[j], v*(mass/massB), 1e-14*mass, "mass of a sink")
		dual += v * r.V[j]
	}
	// Naive sums of n + m terms of the size of the costs.
	rounding := 0x1p-52 * float64(n+m+8) * mass * scale
	within(t, r.Cost, primal, rounding+mass*r.Slack, "cost of the plan")
	within(t, r.Dual, dual, 4*rounding+mass*r.Slack, "value of the potentials")
	// The simplex and the pricing accept arcs that are violated by 2⁻⁴³ of the
	// largest cost or potential.
	within(t, r.Gap, 0, 0x1p-41*mass*scale, "gap")
	require.LessOrEqual(t, r.Slack, 1e-9*(1+scale))
	return r
}

// cheapestPermutation tries all assignments.
func cheapestPermutation(n int, c func(i, j int) float64) float64 {
	best := math.Inf(1)
	used := make([]bool, n)
	var try func(i int, sum float64)
	try = func(i int, sum float64) {
		if i == n {
			best = min(best, sum/float64(n))
			return
		}
		for j := range n {
			if !used[j] {
				used[j] = true
				try(i+1, sum+c(i, j))
				used[j] = false
			}
		}
	}
	try(0, 0)
	return best
}

// minCostFlow is successive shortest paths by Bellman and Ford, on integer
// masses: slow, and nothing like the network simplex.
func minCostFlow(a, b []int, c func(i, j int) float64) float64 {
	n, m := len(a), len(b)
	a, b = slices.Clone(a), slices.Clone(b)
	flow := make([][]int, n)
	for i := range flow {
		flow[i] = make([]int, m)
	}
	for {
		dist, from := make([]float64, n+m), make([]int, n+m)
		for w := range dist {
			dist[w], from[w] = math.Inf(1), -1
			if w < n && a[w] > 0 {
				dist[w] = 0
			}
		}
		for range n + m {
			for i := range n {
				for j := range m {
					if d := dist[i] + c(i, j); d < dist[n+j]-1e-12 {
						dist[n+j], from[n+j] = d, i
					}
					if d := dist[n+j] - c(i, j); flow[i][j] > 0 && d < dist[i]-1e-12 {
						dist[i], from[i] = d, n+j
					}
				}
			}
		}
		end := -1
		for j := range m {
			if b[j] > 0 && (end < 0 || dist[n+j] < dist[end]) {
				end = n + j
			}
		}
		if end < 0 {
			break
		}
		// One unit along the path.
		w := end
		for from[w] >= 0 {
			p := from[w]
			if w >= n {
				flow[p][w-n]++
			} else {
				flow[w][p-n]--
			}
			w = p
		}
		a[w]--
		b[end-n]--
	}
	sum := 0.0
	for i := range n {
		for j, f := range flow[i] {
			sum += float64(f) * c(i, j)
		}
	}
	return sum
}

func TestFixedSets(t *testing.T) {
	a, b := fixedSets()
	p := Points{X: a, Y: b, D: 2}
	r := solve(t, Problem{Costs: p})
	within(t, r.Cost, 1.2191683156521664, 1e-15*4, "W2²")
	var perm []int
	for _, e := range r.Plan {
		perm = append(perm, e.J)
	}
	require.Equal(t, []int{6, 1, 0, 5, 4, 3, 7, 2}, perm)

	p.Metric = Euclidean
	within(t, solve(t, Problem{Costs: p}).Cost, 1.0370629848, 5e-11, "W1")

	p.Metric = SqEuclidean
	w := make([]float64, 8)
	for i := range w {
		w[i] = float64(i+1) / 36
	}
	within(t, solve(t, Problem{Costs: p, A: w}).Cost, 1.25491794008, 5e-12, "weighted W2²")
}

func TestAgainstPermutations(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for n := 1; n <= 7; n++ {
		for rep := range 12 {
			d := 1 + rep%3
			p := Points{X: normals(r, n*d), Y: normals(r, n*d), D: d, Metric: Metric(rep % 2)}
			if rep%4 >= 2 {
				p.X, p.Y = lattice(r, n*d, 3), lattice(r, n*d, 3)
			}
			want := cheapestPermutation(n, func(i, j int) float64 { return cost(p, i, j) })
			within(t, solve(t, Problem{Costs: p}).Cost, want, 1e-14*(1+want), "points")
			c := normals(r, n*n)
			want = cheapestPermutation(n, func(i, j int) float64 { return c[i*n+j] })
			within(t, solve(t, Problem{Costs: Matrix{c, n, n}}).Cost, want, 1e-14*(1+math.Abs(want)), "matrix")
		}
	}
}

func TestAgainstMinCostFlow(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	for rep := range 60 {
		n, m := 1+r.IntN(12), 1+r.IntN(12)
		a, b := make([]int, n), make([]int, m)
		for range 30 {
			a[r.IntN(n)]++
			b[r.IntN(m)]++
		}
		w, v := make([]float64, n), make([]float64, m)
		scale := []float64{1, 1.0 / 30, math.Pi}[rep%3]
		for i := range w {
			w[i] = float64(a[i]) * scale
		}
		for j := range v {
			v[j] = float64(b[j]) * scale
		}
		p := Points{X: normals(r, n*2), Y: normals(r, m*2), D: 2, Metric: Metric(rep % 2)}
		if rep%4 == 3 {
			p.X, p.Y = lattice(r, n*2, 3), lattice(r, m*2, 3)
		}
		want := minCostFlow(a, b, func(i, j int) float64 { return cost(p, i, j) }) * scale
		within(t, solve(t, Problem{Costs: p, A: w, B: v}).Cost, want, 1e-11*(1+want), "points")
		c := normals(r, n*m)
		want = minCostFlow(a, b, func(i, j int) float64 { return c[i*m+j] }) * scale
		within(t, solve(t, Problem{Costs: Matrix{c, n, m}, A: w, B: v}).Cost, want, 1e-11*(1+math.Abs(want)), "matrix")
	}
}

func TestOnTheLine(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for _, n := range []int{1, 2, 255, 256, 257, 1500} {
		x, y := normals(r, n), normals(r, n)
		p := Points{X: x, Y: y, D: 1}
		sq := solve(t, Problem{Costs: p}).Cost
		p.Metric = Euclidean
		abs := solve(t, Problem{Costs: p}).Cost
		xs, ys := slices.Sorted(slices.Values(x)), slices.Sorted(slices.Values(y))
		var w2, w1 float64
		for i := range xs {
			w2 += (xs[i] - ys[i]) * (xs[i] - ys[i]) / float64(n)
			w1 += math.Abs(xs[i]-ys[i]) / float64(n)
		}
		within(t, sq, w2, 1e-13*(1+w2), "W2² on the line")
		within(t, abs, w1, 1e-13*(1+w1), "W1 on the line")
	}
}

// Ties everywhere: every pivot may be degenerate.
func TestDegenerate(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 1))
	for _, n := range []int{1, 2, 17, 300, 700} {
		for _, side := range []int{1, 2, 3, 10} {
			for _, d := range []int{1, 2, 3} {
				for _, metric := range []Metric{SqEuclidean, Euclidean} {
					m := n
					if d == 3 {
						m = 1 + n*2/3
					}
					solve(t, Problem{Costs: Points{X: lattice(r, n*d, side), Y: lattice(r, m*d, side), D: d, Metric: metric}})
				}
			}
		}
		x := normals(r, 2*n)
		res := solve(t, Problem{Costs: Points{X: x, Y: x, D: 2}})
		within(t, res.Cost, 0, 1e-25, "a set to itself")
	}
}

func TestWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	const n, m = 400, 233
	p := Points{X: normals(r, 2*n), Y: normals(r, 2*m), D: 2}
	a, b := make([]float64, n), make([]float64, m)
	sumA, sumB := 0.0, 0.0
	for i := range a {
		if i%5 != 0 {
			a[i] = r.ExpFloat64() * math.Pow(10, float64(r.IntN(12)-8))
		}
		sumA += a[i]
	}
	for j := range b {
		if j%7 != 3 {
			b[j] = r.Float64()
		}
		sumB += b[j]
	}
	for j := range b {
		b[j] *= sumA / sumB
	}
	p.X[0], p.Y[6] = 1e9, -1e9 // points without mass far away
	res := solve(t, Problem{Costs: Points{X: p.X, Y: p.Y, D: 2, Metric: Euclidean}, A: a, B: b})

	// The same without the points that carry none.
	q := Points{D: 2, Metric: Euclidean}
	var c, e []float64
	for i, v := range a {
		if v > 0 {
			q.X, c = append(q.X, p.X[2*i], p.X[2*i+1]), append(c, v)
		}
	}
	for j, v := range b {
		if v > 0 {
			q.Y, e = append(q.Y, p.Y[2*j], p.Y[2*j+1]), append(e, v)
		}
	}
	within(t, res.Cost, solve(t, Problem{Costs: q, A: c, B: e}).Cost, 1e-6*res.Cost, "without empty points")
}

func TestLaws(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	const n, m, d = 150, 97, 3
	for _, metric := range []Metric{SqEuclidean, Euclidean} {
		x, y, z := normals(r, n*d), normals(r, m*d), normals(r, n*d)
		w := func(x, y []float64) float64 {
			return solve(t, Problem{Costs: Points{X: x, Y: y, D: d, Metric: metric}}).Cost
		}
		base := w(x, y)
		tol := 1e-13 * base * 100
		within(t, w(y, x), base, tol, "symmetry")

		shifted, scaled := slices.Clone(x), slices.Clone(x)
		shiftedY, scaledY := slices.Clone(y), slices.Clone(y)
		for i := range shifted {
			shifted[i] += 1e6
			scaled[i] *= 3
		}
		for i := range shiftedY {
			shiftedY[i] += 1e6
			scaledY[i] *= 3
		}
		// Adding 1e6 rounds coordinates to 2⁻³³.
		within(t, w(shifted, shiftedY), base, 1e-8*base, "translation")
		factor := map[Metric]float64{SqEuclidean: 9, Euclidean: 3}[metric]
		within(t, w(scaled, scaledY), factor*base, factor*tol, "scale")

		perm := r.Perm(n)
		within(t, w(gather(x, d, perm), y), base, tol, "permutation")
		within(t, w(append(slices.Clone(x), x...), y), base, tol, "every point twice")

		// A point split in two of half its weight.
		a := slices.Repeat([]float64{1.0 / n}, n)
		a[0] /= 2
		a = append(a, a[0])
		split := solve(t, Problem{Costs: Points{X: append(slices.Clone(x), x[:d]...), Y: y, D: d, Metric: metric}, A: a})
		within(t, split.Cost, base, tol, "split and merge")

		root := func(c float64) float64 {
			if metric == SqEuclidean {
				return math.Sqrt(c)
			}
			return c
		}
		require.LessOrEqual(t, root(w(x, y)), root(w(x, z))+root(w(z, y))+1e-12, "triangle inequality")
	}
}

// W2² of a translated set is the translation's square, at any distance.
func TestFarApart(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 1))
	x := normals(r, 600)
	y := slices.Clone(x)
	for i := range y {
		y[i] += 0x1p20
	}
	for i := range y {
		x[i] = y[i] - 0x1p20 // what adding rounded
	}
	res := solve(t, Problem{Costs: Points{X: x, Y: y, D: 2}})
	within(t, res.Cost, 0x1p41, 0x1p41*0x1p-52*4, "W2²")
}

func TestGeometriesAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	const n, m = 310, 290
	for _, d := range []int{1, 2, 3, 13} { // 13 stores the costs
		p := Points{X: normals(r, n*d), Y: normals(r, m*d), D: d}
		c := make([]float64, n*m)
		for k := range c {
			c[k] = cost(p, k/m, k%m)
		}
		want := solve(t, Problem{Costs: p}).Cost
		within(t, solve(t, Problem{Costs: Matrix{c, n, m}}).Cost, want, 1e-12*want, "matrix")
		f := Func{n, m, func(i, j int) float64 { return cost(p, i, j) }}
		within(t, solve(t, Problem{Costs: f}).Cost, want, 1e-12*want, "func")
		a := slices.Repeat([]float64{1}, n)
		a[3] = 0
		b := slices.Repeat([]float64{float64(n-1) / (m - 1)}, m)
		b[5] = 0
		want = solve(t, Problem{Costs: p, A: a, B: b}).Cost
		within(t, solve(t, Problem{Costs: Matrix{c, n, m}, A: a, B: b}).Cost, want, 1e-12*want, "matrix with empty points")
		within(t, solve(t, Problem{Costs: f, A: a, B: b}).Cost, want, 1e-12*want, "func with empty points")
	}
}

func TestWorkersAndRepeats(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 1))
	p := Problem{Costs: Points{X: normals(r, 2*1301), Y: lattice(r, 2*997, 5), D: 2}}
	want, err := Solver{Workers: 1}.Solve(context.Background(), p)
	require.NoError(t, err)
	for _, workers := range []int{1, 2, 7} {
		got, err := Solver{Workers: workers}.Solve(context.Background(), p)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// Few neighbours make many rounds, and a bounded run still brackets the optimum.
func TestRounds(t *testing.T) {
	r := rand.New(rand.NewPCG(10, 1))
	p := Problem{Costs: Points{X: normals(r, 3*800), Y: normals(r, 3*800), D: 3}}
	full := solve(t, p)
	few, err := Solver{Neighbours: 1}.Solve(context.Background(), p)
	require.NoError(t, err)
	require.Greater(t, few.Rounds, full.Rounds)
	within(t, few.Cost, full.Cost, 1e-13*full.Cost, "one neighbour")

	short, err := Solver{Neighbours: 1, MaxRounds: 1}.Solve(context.Background(), p)
	require.NoError(t, err)
	require.Equal(t, MaxIterations, short.Status)
	require.Error(t, short.Status.Err())
	require.Greater(t, short.Gap, 1e-9)
	require.GreaterOrEqual(t, short.Cost, full.Cost-1e-12)
	require.LessOrEqual(t, short.Dual, full.Cost+1e-12)
}
