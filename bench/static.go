package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/multimarginal"
	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
)

// static measures bridges through many marginals and ensembles of small problems,
// beside the peers that have them.
func static(ctx context.Context, s *Session) error {
	peers, err := s.installedPeers([]string{"pot", "ott-jax"})
	if err != nil {
		return err
	}
	dev, err := gpu.OpenWith(s.Device, gpu.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()
	n, count, dims := 4096, 10_000, []int{2, 16}
	if s.Quick {
		n, count, dims = 300, 200, []int{2}
	}
	c := newChain(5, n, chainDim)
	for _, inner := range []bool{false, true} {
		if err := s.chainWork(ctx, dev, c, inner); err != nil {
			return err
		}
	}
	for _, k := range []int{3, 5} {
		if err := s.chains(ctx, dev, k, n, slices.Contains(peers, "ott-jax")); err != nil {
			return err
		}
	}
	for _, d := range dims {
		e := newEnsemble(count, 64, d)
		if err := s.ensemble(ctx, dev, e); err != nil {
			return err
		}
		if slices.Contains(peers, "pot") {
			if err := s.ensemblePeers(ctx, e); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat(s.Fortet); err != nil {
		return fmt.Errorf("the program is needed for its memory: %w", err)
	}
	return s.chainProgram(ctx)
}

// Rows of a chain.
const (
	softminsName = "chain softmins"
	sweepName    = "chain sweep"
	chainName    = "chain solve"
	programName  = "chain program"
)

// Whether the nodes between the ends are given marginals or free ones, as
// Settings of rows say it.
const (
	fixedInner = "given marginals"
	freeInner  = "free inner nodes"
)

const chainDim = 10

// isFree says which nodes are free.
func (c *chain) isFree(inner bool) func(node int) bool {
	return func(node int) bool { return inner && node > 0 && node < c.k-1 }
}

func (c *chain) work(precision, settings string, workers int) Work {
	return Work{N: c.n, M: c.n, D: c.d, Marginals: c.k, Epsilon: chainScale, Precision: precision, Settings: settings, Workers: workers}
}

func (c *chain) problem(inner bool) multimarginal.Problem {
	p := multimarginal.Problem{Dim: c.d, Epsilon: c.epsilon}
	free := c.isFree(inner)
	for k, x := range c.x {
		p.Nodes = append(p.Nodes, multimarginal.Node{X: x, Free: free(k)})
		if k > 0 {
			p.Edges = append(p.Edges, multimarginal.Edge{I: k - 1, J: k})
		}
	}
	return p
}

// chainWork times a sweep over a chain, in both precisions, beside the softmins
// of its edges, and a whole solve. Sweeps and softmins take turns, so that what
// else the machine does falls on both.
func (s *Session) chainWork(ctx context.Context, dev gpu.Device, c *chain, inner bool) error {
	settings := fixedInner
	if inner {
		settings = freeInner
	}
	softmins := map[tensor.DType]float64{}
	for _, dtype := range []tensor.DType{tensor.Float32, tensor.Float64} {
		work := c.work(dtype.String(), settings, dev.Properties().Workers)
		w, err := newEdgeWork(dev, c, dtype)
		if err != nil {
			return err
		}
		times, sweeps, last, err := s.turns(ctx, dev, c, inner, w)
		w.close()
		if err != nil {
			return err
		}
		softmins[dtype] = Sum(times).Median
		s.add(Row{
			Name: softminsName, Engine: Fortet, Status: OK, Seconds: Sum(times), Work: work,
			Accuracy: Accuracy{Error: &w.worst, Budget: w.budget},
		})
		residual, size := c.residual(last.Plan.F, c.isFree(inner))
		off := math.Abs(last.Certificate.Residual - residual)
		s.add(Row{
			Name: sweepName, Engine: Fortet, Status: OK, Seconds: Sum(sweeps), Work: work, Iterations: last.Iterations,
			// Marginals of mass one, whose exponents are summed up along the chain.
			Accuracy: Accuracy{Error: &off, Budget: roundings * float64(c.k*c.k) * ulp[float64]() * size},
			Note:     fmt.Sprintf("%.2f times its softmins", Sum(sweeps).Median/Sum(times).Median),
		})
	}
	return s.chainSolve(ctx, dev, c, inner, settings, softmins)
}

// turns times the softmins of all edges, and sweeps, taking turns; last is the
// last of the solves that the sweeps belong to.
func (s *Session) turns(ctx context.Context, dev gpu.Device, c *chain, inner bool, w *edgeWork) (softmins, sweeps []float64, last *multimarginal.Result, err error) {
	precision, atLeast := solver.Double, 5*time.Second
	if w.dtype == tensor.Float32 {
		precision = solver.Single
	}
	if s.Quick {
		atLeast = 0
	}
	p := c.problem(inner)
	_, err = repeat(ctx, atLeast, func() error {
		var clock sweepClock
		last, err = multimarginal.Solve(ctx, dev, p, multimarginal.Settings{
			Precision: precision, NoAnnealing: true, MaxIterations: 8, Tolerance: tolerance, Trace: clock.tick,
		})
		if err != nil {
			return err
		}
		sweeps = append(sweeps, clock.sweep())
		start := time.Now()
		err := w.run(last.Plan.F)
		softmins = append(softmins, time.Since(start).Seconds())
		return err
	})
	if err != nil {
		return nil, nil, nil, err
	}
	err = w.check(c, last.Plan.F)
	return softmins[1:], sweeps[1:], last, err // the first ones warmed up
}

// sweepClock times the sweeps of a solve: from the end of one to the end of
// the next, so that the mixing of iterates is a part of them.
type sweepClock struct {
	last  multimarginal.Iteration
	at    time.Time
	parts [][]float64 // seconds, of each part of the tree
}

func (k *sweepClock) tick(it multimarginal.Iteration) {
	now := time.Now()
	for len(k.parts) < it.Parts {
		k.parts = append(k.parts, nil)
	}
	if it.N > 1 && it.Part == k.last.Part && it.DType == k.last.DType && it.Epsilon == k.last.Epsilon {
		k.parts[it.Part] = append(k.parts[it.Part], now.Sub(k.at).Seconds())
	}
	k.last, k.at = it, time.Now()
}

// sweep is the time of a sweep over the whole tree: one over each part.
func (k *sweepClock) sweep() (seconds float64) {
	for _, part := range k.parts {
		seconds += Sum(part).Median
	}
	return seconds
}

// edgeWork is one softmin for each edge of a chain and direction, and nothing
// else.
type edgeWork struct {
	dev           gpu.Device
	dtype         tensor.DType
	ops           []geometry.Operator // of edge e: 2e to the left, 2e+1 to the right
	given, out    []tensor.Tensor     // of each node
	logw          tensor.Tensor
	epsilon       float64
	worst, budget float64
}

func newEdgeWork(dev gpu.Device, c *chain, dtype tensor.DType) (w *edgeWork, err error) {
	w = &edgeWork{dev: dev, dtype: dtype, epsilon: c.epsilon}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	for k := 1; k < c.k; k++ {
		for _, ends := range [][2]int{{k - 1, k}, {k, k - 1}} {
			g, err := geometry.NewPoints(c.x[ends[0]], c.x[ends[1]], c.d, geometry.SqEuclidean)
			if err != nil {
				return w, err
			}
			op, err := g.Open(dev, dtype, geometry.Options{})
			if err != nil {
				return w, err
			}
			w.ops = append(w.ops, op)
		}
	}
	if w.logw, err = tensor.FromFloat64s(dev, dtype, slices.Repeat([]float64{-math.Log(float64(c.n))}, c.n), c.n); err != nil {
		return w, err
	}
	for range c.k {
		for _, list := range []*[]tensor.Tensor{&w.given, &w.out} {
			t, err := tensor.New(dev, dtype, c.n)
			if err != nil {
				return w, err
			}
			*list = append(*list, t)
		}
	}
	return w, nil
}

func (w *edgeWork) close() {
	for _, op := range w.ops {
		op.Close()
	}
	for _, t := range append(append(w.given, w.out...), w.logw) {
		t.Free()
	}
}

// ends are the nodes of softmin i: its rows, and what it sums over.
func (w *edgeWork) ends(i int) (to, from int) {
	if i%2 == 0 {
		return i / 2, i/2 + 1
	}
	return i/2 + 1, i / 2
}

// run takes the softmins of the potentials f, and waits for each.
func (w *edgeWork) run(f [][]float64) error {
	for k, v := range f {
		if err := tensor.SetFloat64s(w.given[k], v); err != nil {
			return err
		}
	}
	out := make([]float64, len(f[0]))
	for i, op := range w.ops {
		to, from := w.ends(i)
		if err := op.Softmin(w.out[to], w.given[from], w.logw, w.epsilon); err != nil {
			return err
		}
		if err := tensor.GetFloat64s(w.out[to], out); err != nil {
			return err
		}
	}
	return nil
}

// check compares the softmins of f with their definition.
func (w *edgeWork) check(c *chain, f [][]float64) error {
	for i := range w.ops {
		to, from := w.ends(i)
		var worst, budget float64
		err := tensor.SetFloat64s(w.given[from], f[from])
		if err == nil {
			err = w.ops[i].Softmin(w.out[to], w.given[from], w.logw, w.epsilon)
		}
		if err != nil {
			return err
		}
		if w.dtype == tensor.Float32 {
			worst, budget, err = edgeError[float32](c, to, from, f[from], w.out[to])
		} else {
			worst, budget, err = edgeError[float64](c, to, from, f[from], w.out[to])
		}
		if err != nil {
			return err
		}
		if math.IsNaN(worst) || math.IsNaN(budget) {
			w.worst, w.budget = worst, budget
			return nil
		}
		if w.budget == 0 || worst/budget > w.worst/w.budget {
			w.worst, w.budget = worst, budget
		}
	}
	return nil
}

func edgeError[T number](c *chain, to, from int, f []float64, out tensor.Tensor) (worst, budget float64, err error) {
	p := &pairs[T]{x: convert[T](c.x[to]), y: convert[T](c.x[from]), g: convert[T](f), n: c.n, m: c.n, d: c.d, eps: c.epsilon}
	p.logb = slices.Repeat([]T{T(-math.Log(float64(c.n)))}, c.n)
	v, err := tensor.Float64s(out)
	if err != nil {
		return 0, 0, err
	}
	worst, budget = compareSoftmin(p, convert[T](v))
	return worst, budget, nil
}

// chainSolve is Fortet with its default settings. softmins is the time of those
// of all edges, by precision, and may be nil.
func (s *Session) chainSolve(ctx context.Context, dev gpu.Device, c *chain, inner bool, settings string, softmins map[tensor.DType]float64) error {
	var last *multimarginal.Result
	atLeast := 5 * time.Second
	if s.Quick {
		atLeast = 0
	}
	p := c.problem(inner)
	times, err := repeat(ctx, atLeast, func() (err error) {
		last, err = multimarginal.Solve(ctx, dev, p, multimarginal.Settings{Tolerance: tolerance})
		return err
	})
	if err != nil {
		return err
	}
	residual, _ := c.residual(last.Plan.F, c.isFree(inner))
	r := Row{
		Name: chainName, Engine: Fortet, Status: OK, Seconds: Sum(times), Iterations: last.Iterations,
		Work:     c.work("ladder", settings, dev.Properties().Workers),
		Accuracy: Accuracy{Residual: &residual, Tolerance: tolerance},
	}
	if softmins != nil {
		alone := 0.0
		for _, st := range last.Stages {
			alone += softmins[st.DType] * float64(st.Iterations*len(st.Edges)) / float64(c.k-1)
		}
		r.Note = fmt.Sprintf("%.2f times the softmins of its sweeps", r.Seconds.Median/alone)
	}
	if last.Status != solver.Converged {
		r.Status, r.Note = Stalled, last.Status.String()
	}
	s.add(r)
	return nil
}

// chainProgram solves a chain in a process of its own and watches its memory.
func (s *Session) chainProgram(ctx context.Context) error {
	n := 20_000
	if s.Quick {
		n = 500
	}
	c := newChain(5, n, chainDim)
	dir, err := os.MkdirTemp("", "fortet-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := c.write(dir); err != nil {
		return err
	}
	potentials := filepath.Join(dir, "potentials.npz")
	args := []string{"multimarginal", "--device", s.Device, "--epsilon", fmt.Sprint(c.epsilon), "--tol", fmt.Sprint(tolerance), "--potentials", potentials, "--quiet"}
	for k := range c.k {
		args = append(args, "--marginal", "npy:"+filepath.Join(dir, fmt.Sprintf("x%d.npy", k)))
		if k > 0 {
			args = append(args, "--edge", fmt.Sprintf("%d,%d", k-1, k))
		}
	}
	ran, err := watch(ctx, s.Fortet, args...)
	if err != nil {
		return err
	}
	if ran.code != 0 && ran.code != 3 {
		return fmt.Errorf("%s multimarginal: exit code %d: %s", s.Fortet, ran.code, ran.stderr)
	}
	archive, err := npy.ReadNPZFile(potentials)
	if err != nil {
		return err
	}
	f := make([][]float64, c.k)
	for k := range f {
		a, err := archive.Get("f" + strconv.Itoa(k))
		if err != nil {
			return fmt.Errorf("%s: %w", potentials, err)
		}
		if f[k] = a.Float64s(); len(f[k]) != n {
			return fmt.Errorf("%s: f%d: %d numbers, want %d", potentials, k, len(f[k]), n)
		}
	}
	residual, _ := c.residual(f, c.isFree(false))
	r := Row{
		Name: programName, Engine: Fortet, Status: OK, Seconds: Sum([]float64{ran.seconds}),
		Work:     c.work("ladder", "the program, reading and writing included", s.Provenance.Cores),
		Accuracy: Accuracy{Residual: &residual, Tolerance: tolerance},
	}
	if ran.peak > 0 {
		r.Memory = &Memory{PeakBytes: ran.peak, DataBytes: int64(c.k*c.n*c.d) * 8, Budget: 300e6}
	}
	if ran.code == 3 {
		r.Status = Stalled
	}
	s.add(r)
	return nil
}

// write writes what a program or a peer reads.
func (c *chain) write(dir string) error {
	spec := fmt.Sprintf(`{"marginals": %d, "epsilon": %v, "tolerance": %v}`, c.k, c.epsilon, tolerance)
	err := os.WriteFile(filepath.Join(dir, "problem.json"), []byte(spec), 0o644)
	for k, x := range c.x {
		err = errors.Join(err, save(filepath.Join(dir, fmt.Sprintf("x%d.npy", k)), npy.New(x, c.n, c.d)))
	}
	return err
}
