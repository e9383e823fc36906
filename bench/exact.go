package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/fortet/fortet/solver/exact"
	"github.com/fortet/fortet/tensor/npy"
)

// The rows of the suite exact, and its peers.
const (
	exactName = "exact"
	scipy     = "scipy"
	potEMD    = "pot"
)

// exactBudget is how far costs may be apart, relative to them.
const exactBudget = 1e-9

// exactProblem is optimal transport without entropy between two clouds.
type exactProblem struct {
	x, y []float64 // (n, d)
	a, b []float64 // (n), or nil: uniform
	n, d int
}

// newExactProblem draws the clouds of all suites; weighted, each point has a
// weight that is exponential.
func newExactProblem(n, d int, weighted bool) *exactProblem {
	p := &exactProblem{n: n, d: d}
	p.x, p.y = clouds(n, n, d)
	if !weighted {
		return p
	}
	r := rand.New(rand.NewPCG(1781, uint64(d)))
	for _, w := range []*[]float64{&p.a, &p.b} {
		*w = make([]float64, n)
		sum := 0.0
		for i := range *w {
			(*w)[i] = r.ExpFloat64()
			sum += (*w)[i]
		}
		for i := range *w {
			(*w)[i] /= sum
		}
	}
	return p
}

func (p *exactProblem) work(settings string, workers int) Work {
	weights := "uniform weights"
	if p.a != nil {
		weights = "general weights"
	}
	if settings != "" {
		weights += "; " + settings
	}
	return Work{N: p.n, M: p.n, D: p.d, Precision: "f64", Settings: weights, Workers: workers}
}

// weight is a_i, or 1/n.
func weight(w []float64, i, n int) float64 {
	if w == nil {
		return 1 / float64(n)
	}
	return w[i]
}

// exacts measures exact transport, beside the peers on the same problem.
func exacts(ctx context.Context, s *Session) error {
	type shape struct {
		n, d     int
		weighted bool
		scipy    bool // whose time grows with n³
	}
	shapes := []shape{
		{1000, 2, false, true}, {1000, 64, false, true}, {1000, 2, true, false},
		{4000, 2, false, false}, {4000, 64, false, true}, {4000, 2, true, false},
		{10_000, 2, false, false},
	}
	if s.Quick {
		shapes = []shape{{200, 2, false, true}, {200, 16, false, true}, {200, 2, true, false}}
	}
	peers, err := s.installedPeers([]string{potEMD, scipy})
	if err != nil {
		return err
	}
	for _, sh := range shapes {
		p := newExactProblem(sh.n, sh.d, sh.weighted)
		cost, err := s.exactSolve(ctx, p)
		if err != nil {
			return err
		}
		for _, name := range peers {
			if name == scipy && !sh.scipy {
				continue
			}
			if err := s.exactPeer(ctx, name, p, cost); err != nil {
				return err
			}
		}
	}
	return nil
}

// exactSolve is Fortet, which proves its answer: the error of its row is the gap
// between plan and potentials, both checked here.
func (s *Session) exactSolve(ctx context.Context, p *exactProblem) (float64, error) {
	problem := exact.Problem{Costs: exact.Points{X: p.x, Y: p.y, D: p.d}, A: p.a, B: p.b}
	var last *exact.Result
	solve := func() (err error) {
		last, err = exact.Solver{}.Solve(ctx, problem)
		return err
	}
	atLeast := 3 * time.Second
	if s.Quick || p.n > 4000 {
		atLeast = 0
	}
	debug.FreeOSMemory()
	before := resetPeak()
	if err := solve(); err != nil {
		return 0, err
	}
	memory := int64(0)
	if before > 0 {
		memory = max(0, peakMemory(os.Getpid())-before)
	}
	times, err := repeatFew(ctx, atLeast, p.n, solve)
	if err != nil {
		return 0, err
	}
	c := p.certify(last)
	r := Row{
		Name: exactName, Engine: Fortet, Status: OK, Seconds: Sum(times),
		Work:     p.work("", runtime.GOMAXPROCS(0)),
		Accuracy: Accuracy{Error: &c.gap, Budget: exactBudget},
		Note: fmt.Sprintf("cost %.12g; certificate: relative gap of plan and potentials %.1e, no u + v above c by more than %.1e of the cost, marginals to %.1e; %d pivots, %d rounds",
			c.cost, c.gap, c.excess, c.marginal, last.Pivots, last.Rounds),
	}
	if memory > 0 {
		r.Memory = &Memory{PeakBytes: memory, Budget: exactMemory}
	}
	if last.Status != exact.Converged || !(c.marginal <= exactBudget) || !(c.excess <= exactBudget) {
		r.Status, r.Note = Wrong, last.Status.String()+"; "+r.Note
	}
	s.add(r)
	return c.cost, nil
}

// exactMemory is what Fortet may take: it never holds the matrix.
const exactMemory = 256 << 20

// exactLimit is how long a peer may take. What is not done then has no row: there
// is no answer to check.
const exactLimit = 100 * time.Second

// repeatFew is repeat, which for many points does with two repetitions and no
// run to warm up.
func repeatFew(ctx context.Context, atLeast time.Duration, n int, work func() error) ([]float64, error) {
	if n <= 4000 {
		return repeat(ctx, atLeast, work)
	}
	var times []float64
	for range 2 {
		start := time.Now()
		if err := work(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start).Seconds())
	}
	return times, nil
}

// proof is what a plan and potentials show by themselves.
type proof struct {
	cost float64
	// gap is cost - (Σ a u + Σ b v), plus the most that u + v exceeds c: the true
	// optimum is not further below cost. excess is the latter. Both are relative.
	gap, excess float64
	marginal    float64 // the largest error of a marginal, relative to the largest weight
}

// certify evaluates the definition on all pairs, in float64.
func (p *exactProblem) certify(res *exact.Result) proof {
	square := func(i, j int) float64 {
		c := 0.0
		for k, v := range p.y[j*p.d : (j+1)*p.d] {
			t := p.x[i*p.d+k] - v
			c += t * t
		}
		return c
	}
	var c proof
	left, right := make([]float64, p.n), make([]float64, p.n)
	most := 0.0
	dual := 0.0
	for i := range p.n {
		left[i], right[i] = weight(p.a, i, p.n), weight(p.b, i, p.n)
		most = max(most, left[i], right[i])
		dual += left[i]*res.U[i] + right[i]*res.V[i]
	}
	negative := false
	for _, e := range res.Plan {
		c.cost += e.Mass * square(e.I, e.J)
		left[e.I] -= e.Mass
		right[e.J] -= e.Mass
		negative = negative || !(e.Mass >= 0)
	}
	for i := range p.n {
		c.marginal = maxNaN(c.marginal, max(math.Abs(left[i]), math.Abs(right[i]))/most)
	}
	if negative {
		c.marginal = math.Inf(1)
	}
	parts := runtime.GOMAXPROCS(0)
	worst := make([]float64, parts)
	var wait sync.WaitGroup
	for w := range parts {
		wait.Go(func() {
			for i := w; i < p.n; i += parts {
				for j := range p.n {
					worst[w] = maxNaN(worst[w], res.U[i]+res.V[j]-square(i, j))
				}
			}
		})
	}
	wait.Wait()
	excess := 0.0
	for _, v := range worst {
		excess = maxNaN(excess, v)
	}
	c.excess = excess / c.cost
	c.gap = maxNaN(c.cost-dual, 0)/c.cost + c.excess
	return c
}

// exactPeer is a library's solver.
func (s *Session) exactPeer(ctx context.Context, name string, p *exactProblem, cost float64) error {
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for file, v := range map[string][]float64{"x": p.x, "y": p.y, "a": p.a, "b": p.b} {
		shape := []int{p.n}
		if len(v) > p.n {
			shape = []int{p.n, p.d}
		}
		if v != nil {
			err = errors.Join(err, save(filepath.Join(dir, file+".npy"), npy.New(v, shape...)))
		}
	}
	if err != nil {
		return err
	}
	threads, repetitions := min(2, s.Provenance.Cores), 3
	if s.Quick {
		repetitions = 1
	}
	const once = 5.0 // seconds after which no repetition begins
	limit := min(s.Limit, exactLimit)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := s.python(limited, name, "exact.py", "--peer", name, "--problem", dir, "--repetitions", strconv.Itoa(repetitions),
		"--limit", fmt.Sprint(once), "--threads", strconv.Itoa(threads))
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		fmt.Fprintf(s.Log, "%s: %v: not done after %v\n", name, p.work("", 0), limit)
		return nil
	}
	if out == nil || err != nil {
		return err
	}
	var a struct {
		Version, Note string
		Seconds       []float64
		Cost          float64
		Peak          int64
	}
	if err := json.Unmarshal(out, &a); err != nil {
		return fmt.Errorf("%s: %w in %q", name, err, tail(string(out)))
	}
	off := math.Abs(a.Cost-cost) / cost
	settings := map[string]string{potEMD: "ot.emd2", scipy: "linear_sum_assignment"}[name]
	r := Row{
		Name: exactName, Engine: name, Status: OK, Seconds: Sum(a.Seconds),
		Provenance: Provenance{Version: a.Version},
		Work:       p.work(settings, threads),
		Accuracy:   Accuracy{Error: &off, Budget: exactBudget},
		Note:       a.Note,
	}
	if a.Peak > 0 {
		r.Memory = &Memory{PeakBytes: a.Peak, Budget: a.Peak} // of a peer, any
	}
	s.add(r)
	return nil
}

// resetPeak resets the peak memory of this process and answers what it has now;
// 0 where the system does not say.
func resetPeak() int64 {
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		return 0
	}
	return peakMemory(os.Getpid())
}
