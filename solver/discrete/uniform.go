package discrete

import (
	"context"
	"math"
)

// flow is a step of a jump process: K = exp(duration·G), by uniformisation
// (Jensen 1953): with Λ the largest rate out of a state and P = I + G/Λ,
//
//	exp(τG) = Σ_k w_k P^k,   w_k = e^(-Λτ) (Λτ)^k/k!
//
// in which nothing is ever subtracted, so that every entry, however small, has
// its relative accuracy. The sum ends when what is missing is below truncated
// of every entry of the result: P is stochastic, so that
//
//	Σ_{k>n} w_k (P^k y)_i ≤ max(P^n y) Σ_{k>n} w_k ≤ max(P^n y) w_{n+1}/(1 - Λτ/(n+2))
//
// and of Pᵀ the same with the sum of y in place of the maximum. It takes about
// Λτ + 9√(Λτ) products, and more for entries that are far below the others.
type flow struct {
	rows, cols *sparse // P and Pᵀ
	rate       float64 // Λ
	duration   float64
}

// truncated is the part of an entry at which the sum over k ends.
const truncated = 0x1p-54

// newFlow makes a step of a generator, whose diagonal it takes from the other
// rates.
func newFlow(g *Matrix, duration float64) *flow {
	r := newRates(g)
	f := &flow{rate: r.fastest(), duration: duration}
	scale := 1.0 // of a generator without rates, exp(τG) is the identity
	if f.rate > 0 {
		scale = f.rate
	}
	p := r.onDiagonal(func(i int) float64 { return (scale - r.out[i]) / scale }, 1/scale)
	p.partition()
	f.rows, f.cols = &p, p.transposed()
	return f
}

// lasting is the same flow over another time.
func (f *flow) lasting(duration float64) *flow {
	g := *f
	g.duration = duration
	return &g
}

func (f *flow) back(ctx context.Context, h *host, out, x []float64) error {
	return f.act(ctx, h, out, x, f.rows, f.cols, false)
}

func (f *flow) forth(ctx context.Context, h *host, out, x []float64) error {
	return f.act(ctx, h, out, x, f.cols, f.rows, true)
}

func (f *flow) truncation() float64 { return truncated }

// act writes log exp(τ(P-I)Λ) exp(x) for P = a, whose transpose is b. columns
// says that a is the transpose of a stochastic matrix.
func (f *flow) act(ctx context.Context, h *host, out, x []float64, a, b *sparse, columns bool) error {
	mean := f.rate * f.duration
	if mean == 0 {
		copy(out, x)
		return nil
	}
	reached, depth := b.spread(x)
	power := h.buffer(0, a.n)
	top, err := h.exponentials(ctx, power, x)
	if err != nil {
		return err
	}
	if math.IsInf(top, -1) {
		copy(out, x)
		return nil
	}
	series := linearSeries{a: a, power: power, next: h.buffer(1, a.n), sum: h.buffer(2, a.n), columns: columns}
	series.start(math.Exp(logPoisson(0, mean)))
	for k := 1; ; k++ {
		if err := series.advance(ctx, h, math.Exp(logPoisson(k, mean))); err != nil {
			return err
		}
		if float64(k) <= mean || k < depth {
			continue
		}
		tail := logTail(k, mean)
		if tail > math.Log(truncated) {
			continue
		}
		missing := series.largest * math.Exp(tail)
		if least := leastOf(series.sum, reached); least >= tiny && missing <= truncated*least {
			for i, s := range series.sum {
				out[i] = top + math.Log(s)
			}
			return nil
		} else if missing <= truncated*tiny || math.IsNaN(missing) {
			return f.actInLogs(ctx, h, out, x, a, reached, depth, columns)
		}
	}
}

// linearSeries sums w_k P^k y with plain numbers.
type linearSeries struct {
	a                *sparse
	power, next, sum []float64
	columns          bool
	largest          float64 // bounds the entries of all later powers
}

func (s *linearSeries) start(w float64) {
	for i, v := range s.power {
		s.sum[i] = w * v
		if s.columns {
			s.largest += v
		} else {
			s.largest = max(s.largest, v)
		}
	}
}

func (s *linearSeries) advance(ctx context.Context, h *host, w float64) error {
	tops := h.partials(len(s.a.cut) - 1)
	err := h.each(ctx, len(tops), func(k int) {
		top := 0.0
		for i := s.a.cut[k]; i < s.a.cut[k+1]; i++ {
			v := s.a.dot(i, s.power)
			s.next[i] = v
			s.sum[i] += w * v
			top = max(top, v)
		}
		tops[k] = top
	})
	if err != nil {
		return err
	}
	if !s.columns {
		s.largest = 0
		for _, t := range tops {
			s.largest = max(s.largest, t)
		}
	}
	s.power, s.next = s.next, s.power
	return nil
}

func leastOf(x []float64, where []bool) float64 {
	least := math.Inf(1)
	for i, in := range where {
		if in {
			least = min(least, x[i])
		}
	}
	return least
}

// actInLogs is act for vectors that plain numbers cannot hold.
func (f *flow) actInLogs(ctx context.Context, h *host, out, x []float64, a *sparse, reached []bool, depth int, columns bool) error {
	mean := f.rate * f.duration
	power := append([]float64(nil), x...)
	next, sum := make([]float64, a.n), make([]float64, a.n)
	for i, v := range x {
		sum[i] = v + logPoisson(0, mean)
	}
	largest := math.Inf(-1)
	if columns {
		largest = logSum(x)
	}
	for k := 1; ; k++ {
		if err := h.logProduct(ctx, next, a, power, nil); err != nil {
			return err
		}
		power, next = next, power
		w := logPoisson(k, mean)
		for i, v := range power {
			sum[i] = logAdd(sum[i], w+v)
		}
		if float64(k) <= mean || k < depth {
			continue
		}
		if !columns {
			largest = math.Inf(-1)
			for _, v := range power {
				largest = max(largest, v)
			}
		}
		if missing := largest + logTail(k, mean); !(missing > math.Log(truncated)+leastOf(sum, reached)) {
			copy(out, sum)
			return nil
		}
	}
}

// spread marks the states that can be reached along the rows of s from where x
// is above -inf, and says in how many steps at most.
func (s *sparse) spread(x []float64) (reached []bool, depth int) {
	reached = make([]bool, s.n)
	var front, next []int
	for i, v := range x {
		if !math.IsInf(v, -1) {
			reached[i] = true
			front = append(front, i)
		}
	}
	for ; ; depth++ {
		next = next[:0]
		for _, i := range front {
			for k := s.ptr[i]; k < s.ptr[i+1]; k++ {
				if j := s.idx[k]; !reached[j] && s.val[k] > 0 {
					reached[j] = true
					next = append(next, int(j))
				}
			}
		}
		if len(next) == 0 {
			return reached, depth
		}
		front, next = next, front
	}
}

func (f *flow) successors(from []bool) []bool   { return f.closure(from, f.rows) }
func (f *flow) predecessors(from []bool) []bool { return f.closure(from, f.cols) }

func (f *flow) closure(from []bool, along *sparse) []bool {
	x := make([]float64, len(from))
	for i, in := range from {
		if !in {
			x[i] = math.Inf(-1)
		}
	}
	reached, _ := along.spread(x)
	return reached
}

// pull repeats the union until nothing changes.
func (f *flow) pull(out, sets []uint64, words int, budget *int) bool {
	copy(out, sets)
	for changed := true; changed; {
		*budget -= words * len(f.rows.val)
		if *budget < 0 {
			return false
		}
		changed = false
		for i := range f.rows.n {
			if f.rows.unite(i, out[i*words:(i+1)*words], out, words) {
				changed = true
			}
		}
	}
	return true
}

// leastLog: some path of at most n-1 jumps leads from i to j, and K_ij is at
// least w_k p^k for its length k and the least entry p > 0 of P.
func (f *flow) leastLog() float64 {
	p := math.Inf(1)
	for _, x := range f.cols.val {
		p = min(p, x)
	}
	// w_k p^k is log-concave in k: the ends are the least.
	k := float64(f.rows.n - 1)
	mean := f.rate * f.duration
	if mean == 0 {
		return 0
	}
	return min(logPoisson(0, mean), logPoisson(f.rows.n-1, mean)+k*math.Log(p))
}

// logPoisson is log(e^-mean mean^k/k!), to an absolute error of a few roundings
// whatever the mean (Loader, "Fast and accurate computation of binomial
// probabilities", 2000).
func logPoisson(k int, mean float64) float64 {
	if k == 0 {
		return -mean
	}
	n := float64(k)
	return -stirlingError(n) - deviance(n, mean) - math.Log(2*math.Pi*n)/2
}

// stirlingError is log n! minus Stirling's approximation of it.
func stirlingError(n float64) float64 {
	if n < 16 {
		g, _ := math.Lgamma(n + 1)
		return g - (n+.5)*math.Log(n) + n - math.Log(2*math.Pi)/2
	}
	q := n * n
	return (1./12 - (1./360-(1./1260-(1./1680-1./1188/q)/q)/q)/q) / n
}

// deviance is n log(n/mean) + mean - n without cancellation.
func deviance(n, mean float64) float64 {
	if math.Abs(n-mean) >= .1*(n+mean) {
		return n*math.Log(n/mean) + mean - n
	}
	v := (n - mean) / (n + mean)
	s, term := (n-mean)*v, 2*n*v
	for j := 3.; ; j += 2 {
		term *= v * v
		next := s + term/j
		if next == s {
			return s
		}
		s = next
	}
}

// logTail bounds log Σ_{j>k} w_j for k > mean.
func logTail(k int, mean float64) float64 {
	return logPoisson(k+1, mean) - math.Log1p(-mean/float64(k+2))
}

// logAdd is log(exp(a) + exp(b)).
func logAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

// logSum is log Σ exp(x).
func logSum(x []float64) float64 {
	top := math.Inf(-1)
	for _, v := range x {
		top = max(top, v)
	}
	if math.IsInf(top, -1) {
		return top
	}
	s := 0.0
	for _, v := range x {
		s += math.Exp(v - top)
	}
	return top + math.Log(s)
}
