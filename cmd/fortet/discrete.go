package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fortet/fortet/solver"
	"github.com/fortet/fortet/solver/discrete"
	"github.com/fortet/fortet/tensor/npy"
)

var discreteCommand = command{
	name:    "discrete",
	does:    "Solve a Schrödinger bridge of a Markov chain, or of a jump process in continuous time",
	usage:   "fortet discrete --transition F.npy|--generator F.npy --steps N|--horizon T --mu F.npy --nu F.npy [flags]",
	example: "fortet discrete --transition p.npy --steps 10 --mu mu.npy --nu nu.npy --out bridge.npz --paths 100 --paths-out paths.npy",
	setup: func(f *pflag.FlagSet) func(*session, []string) error {
		c := &discreteFlags{flags: f}
		f.StringVar(&c.transition, "transition", "", "probabilities to go from state i to j: .npy of shape (S, S), or (N, S, S) with one matrix for each step;\nor .npz of compressed sparse rows, arrays indptr, indices, data and shape, where data may be (N, entries)")
		f.StringVar(&c.generator, "generator", "", "rates to jump from i to j, in the same forms; N matrices share --horizon in equal pieces")
		f.IntVar(&c.steps, "steps", 0, "steps of the chain; with N matrices N without the flag")
		f.Float64Var(&c.horizon, "horizon", 0, "duration of the jump process, in the unit of the rates")
		f.StringVar(&c.mu, "mu", "", ".npy of the law at the start: (S)")
		f.StringVar(&c.nu, "nu", "", ".npy of the law at the end: (S)")
		f.StringArrayVar(&c.through, "through", nil, "t=F.npy: the law at step t on the way, or after t of the generator's pieces; may be repeated")
		f.StringVar(&c.initial, "initial", "", ".npy of the reference's own law at the start, which kl is measured by; --mu without")
		f.Float64Var(&c.tol, "tol", 1e-9, "sum of the L1 errors of the laws to reach")
		f.IntVar(&c.maxIter, "max-iter", 10000, "sweeps along the path at most")
		f.IntVar(&c.times, "times", 11, "of a generator: number of times, equally spaced from 0 to --horizon, for --out and --paths-out")
		f.StringVar(&c.out, "out", "", "write marginals and kernels (or times, marginals and rates) to this .npz")
		f.BoolVar(&c.noKernels, "no-kernels", false, "leave kernels or rates out of --out")
		f.IntVar(&c.paths, "paths", 0, "number of paths to draw")
		f.StringVar(&c.pathsOut, "paths-out", "", "write the paths' states to this .npy, (paths, steps+1), or (paths, times) of a generator;\nof a generator, to an .npz all jumps: path p has states[k] from times[k] on for offsets[p] <= k < offsets[p+1]")
		return c.do
	},
}

type discreteFlags struct {
	flags                 *pflag.FlagSet
	transition, generator string
	steps                 int
	horizon               float64
	mu, nu, initial       string
	through               []string
	tol                   float64
	maxIter               int
	times                 int
	out                   string
	noKernels             bool
	paths                 int
	pathsOut              string

	sparse bool // the matrices were given so
}

type discreteReport struct {
	Problem       discreteProblem  `json:"problem"`
	Status        string           `json:"status"`
	Iterations    int              `json:"iterations"`
	Seconds       number           `json:"seconds"`
	KL            number           `json:"kl"`
	Dual          number           `json:"dual"`
	Gap           number           `json:"gap"`
	MarginalError discreteMarginal `json:"marginal_error"`
	Truncation    number           `json:"truncation,omitempty"`
	Paths         int              `json:"paths,omitempty"`
	Seed          uint64           `json:"seed"`
}

type discreteProblem struct {
	Reference string `json:"reference"` // chain or jump
	States    int    `json:"states"`
	NonZeros  int    `json:"nonzeros"` // of all matrices together
	Matrices  int    `json:"matrices"`
	Steps     int    `json:"steps,omitempty"`
	Horizon   number `json:"horizon,omitempty"`
}

type discreteMarginal struct {
	Source  number            `json:"source"`
	Target  number            `json:"target"`
	Through map[string]number `json:"through,omitempty"`
}

// solvedBridge is what both kinds have in common once they are solved.
type solvedBridge struct {
	discrete.Solution
	last  int // the place of the target
	write func(w io.Writer) error
	paths func(w io.Writer) error
}

func (c *discreteFlags) do(s *session, args []string) error {
	if err := c.check(args); err != nil {
		return err
	}
	matrices, err := c.readMatrices()
	if err != nil {
		return err
	}
	states := matrices[0].States()
	last := len(matrices)
	if c.transition != "" && c.steps != 0 {
		last = c.steps
	}
	if err := c.fits(matrices[0], last); err != nil {
		return err
	}
	laws, initial, err := c.readLaws(states, last)
	if err != nil {
		return err
	}
	var out outputs
	defer out.close()
	if err := out.add("out", c.out); err != nil {
		return err
	}
	if err := out.add("paths-out", c.pathsOut); err != nil {
		return err
	}
	set := discrete.Settings{Tolerance: c.tol, MaxIterations: c.maxIter, Workers: s.workers}
	bar := s.progress("discrete")
	set.Trace = func(it discrete.Iteration) {
		bar.update(float64(it.N)/float64(c.maxIter), fmt.Sprintf("sweep %d, error %.2g", it.N, it.Error))
	}
	b, err := c.solve(s, set, matrices, laws, initial, last)
	bar.finish()
	if err != nil {
		return err
	}
	if b.Status == solver.Canceled {
		return s.ctx.Err()
	}
	if b.Status != solver.Diverged {
		if err := out.write("out", b.write); err != nil {
			return err
		}
		if err := out.write("paths-out", b.paths); err != nil {
			return err
		}
	}
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	if err := s.print(c.report(s, b, matrices, last)); err != nil {
		return err
	}
	total := 0.0
	for _, e := range b.Certificate.Errors {
		total += e
	}
	return notConverged(b.Status, total, c.tol)
}

func (c *discreteFlags) check(args []string) error {
	chain := c.transition != ""
	switch {
	case len(args) > 0:
		return usagef("discrete: unexpected argument %q", args[0])
	case chain == (c.generator != ""):
		return usagef("discrete: want one of --transition and --generator")
	case chain && c.flags.Changed("horizon"):
		return usagef("--horizon belongs to --generator; a chain has --steps")
	case !chain && c.flags.Changed("steps"):
		return usagef("--steps belongs to --transition; a generator has --horizon")
	case chain && c.flags.Changed("times"):
		return usagef("--times belongs to --generator")
	case chain && c.flags.Changed("steps") && c.steps < 1:
		return usagef("--steps: got %d, want at least 1", c.steps)
	case !chain && !(c.horizon > 0):
		return usagef("--horizon: got %v, want a time above 0", c.horizon)
	case c.mu == "":
		return usagef("--mu is missing, want the .npy of a law")
	case c.nu == "":
		return usagef("--nu is missing, want the .npy of a law")
	case !(c.tol > 0):
		return usagef("--tol: got %v, want a number above 0", c.tol)
	case c.maxIter < 1:
		return usagef("--max-iter: got %d, want at least 1", c.maxIter)
	case c.times < 2:
		return usagef("--times: got %d, want at least 2", c.times)
	case (c.paths != 0) != (c.pathsOut != ""):
		return usagef("--paths and --paths-out want each other")
	case c.paths < 0:
		return usagef("--paths: got %d, want at least 1", c.paths)
	case chain && strings.HasSuffix(c.pathsOut, ".npz"):
		return usagef("--paths-out: the paths of a chain are one array, want a .npy")
	case c.noKernels && c.out == "":
		return usagef("--no-kernels goes with --out")
	}
	return nil
}

// largestKernels is how many bytes of kernels or rates are held to be written.
const largestKernels = 1 << 32

// fits says whether what --out is to hold fits into memory.
func (c *discreteFlags) fits(m *discrete.Matrix, count int) error {
	entries := m.NNZ()
	if !c.sparse {
		entries = m.States() * m.States()
	}
	if c.transition == "" {
		count = c.times
	}
	if bytes := 8 * float64(entries) * float64(count); c.out != "" && !c.noKernels && bytes > largestKernels {
		return usagef("--out: %d kernels of %d entries take %.1f GiB, more than %d; want --no-kernels, or sparse matrices", count, entries, bytes/(1<<30), largestKernels>>30)
	}
	return nil
}

// readMatrices reads the matrices of --transition or --generator.
func (c *discreteFlags) readMatrices() ([]*discrete.Matrix, error) {
	flag, path := "transition", c.transition
	if path == "" {
		flag, path = "generator", c.generator
	}
	var list []*discrete.Matrix
	var err error
	if strings.HasSuffix(path, ".npz") {
		c.sparse = true
		list, err = readSparse(path)
	} else {
		list, err = readDense(path)
	}
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	if c.transition == "" {
		return list, nil
	}
	if c.steps == 0 && len(list) == 1 {
		return nil, usagef("--steps is missing, want the number of steps of the one matrix")
	}
	if len(list) > 1 && c.steps != 0 && c.steps != len(list) {
		return nil, usagef("--steps: got %d, want %d, since --transition has a matrix for each step", c.steps, len(list))
	}
	return list, nil
}

func readDense(path string) ([]*discrete.Matrix, error) {
	a, err := npy.ReadFile(path)
	if err != nil {
		return nil, err
	}
	n := len(a.Shape)
	if n != 2 && n != 3 || a.Shape[n-1] != a.Shape[n-2] || a.Len() == 0 {
		return nil, usagef("%s has shape %s, want (states, states) or (steps, states, states)", path, npy.FormatShape(a.Shape))
	}
	states, data := a.Shape[n-1], a.Float64s()
	var list []*discrete.Matrix
	for k := 0; k < len(data); k += states * states {
		m, err := discrete.NewDense(states, data[k:k+states*states])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, m)
	}
	return list, nil
}

func readSparse(path string) ([]*discrete.Matrix, error) {
	z, err := npy.ReadNPZFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w (SciPy's save_npz adds text; write it with numpy.savez(F, indptr=m.indptr, indices=m.indices, data=m.data, shape=m.shape))", err)
	}
	arrays := map[string]*npy.Array{}
	for _, name := range []string{"indptr", "indices", "data", "shape"} {
		if arrays[name], err = z.Get(name); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	integers := map[string][]int64{}
	for _, name := range []string{"indptr", "indices", "shape"} {
		if integers[name], err = arrays[name].Int64s(); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, name, err)
		}
	}
	shape, data := integers["shape"], arrays["data"]
	if len(shape) != 2 || shape[0] != shape[1] {
		return nil, usagef("%s: shape is %v, want two equal numbers", path, shape)
	}
	entries := len(integers["indices"])
	if n := len(data.Shape); n != 1 && n != 2 || data.Shape[n-1] != entries || data.Len() == 0 {
		return nil, usagef("%s: data has shape %s, want (%d,) or (steps, %d), as indices", path, npy.FormatShape(data.Shape), entries, entries)
	}
	values := data.Float64s()
	var list []*discrete.Matrix
	for k := 0; k < len(values); k += entries {
		m, err := discrete.NewCSR(int(shape[0]), integers["indptr"], integers["indices"], values[k:k+entries])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, m)
	}
	return list, nil
}

func (c *discreteFlags) readLaws(states, last int) (map[int][]float64, []float64, error) {
	laws := map[int][]float64{}
	for _, side := range []struct {
		flag, path string
		at         int
	}{{"mu", c.mu, 0}, {"nu", c.nu, last}} {
		w, err := readWeights(side.flag, side.path, states)
		if err != nil {
			return nil, nil, err
		}
		laws[side.at] = w
	}
	for _, text := range c.through {
		at, path, found := strings.Cut(text, "=")
		t, err := strconv.Atoi(at)
		if !found || path == "" || err != nil {
			return nil, nil, usagef("--through: got %q, want t=F.npy", text)
		}
		if t <= 0 || t >= last {
			return nil, nil, usagef("--through: got %d, want a place between the ends 0 and %d", t, last)
		}
		if laws[t] != nil {
			return nil, nil, usagef("--through: %d comes twice", t)
		}
		if laws[t], err = readWeights("through", path, states); err != nil {
			return nil, nil, err
		}
	}
	initial, err := readWeights("initial", c.initial, states)
	return laws, initial, err
}

func (c *discreteFlags) solve(s *session, set discrete.Settings, matrices []*discrete.Matrix, laws map[int][]float64, initial []float64, last int) (*solvedBridge, error) {
	if c.transition != "" {
		b, err := discrete.SolveChain(s.ctx, discrete.Chain{Transitions: matrices, Steps: last, Marginals: laws, Initial: initial}, set)
		if err != nil {
			return nil, err
		}
		return &solvedBridge{b.Solution, last,
			func(w io.Writer) error { return c.writeChain(s, w, b) },
			func(w io.Writer) error {
				p, err := b.Paths(s.ctx, c.paths, s.seed)
				if err != nil {
					return err
				}
				return npy.Write(w, npy.New(p, c.paths, b.Steps()+1))
			},
		}, nil
	}
	durations := make([]float64, len(matrices))
	for k := range durations {
		durations[k] = c.horizon / float64(len(matrices))
	}
	b, err := discrete.SolveJump(s.ctx, discrete.Jump{Generators: matrices, Durations: durations, Marginals: laws, Initial: initial}, set)
	if err != nil {
		return nil, err
	}
	return &solvedBridge{b.Solution, last,
		func(w io.Writer) error { return c.writeJump(s, w, b) },
		func(w io.Writer) error { return c.writeTrajectories(s, w, b) },
	}, nil
}

// pattern adds matrices of one pattern to an archive: as they are, or as the
// entries of the pattern where the problem was sparse. Matrices that were dense
// may have zeros at different places.
func (c *discreteFlags) pattern(z *npy.Archive, name string, list []*discrete.Matrix) {
	states := list[0].States()
	var data []float64
	if !c.sparse {
		for _, m := range list {
			data = append(data, m.Dense()...)
		}
		z.Set(name, npy.New(data, len(list), states, states))
		return
	}
	indptr, indices, _ := list[0].CSR()
	for _, m := range list {
		_, _, values := m.CSR()
		data = append(data, values...)
	}
	z.Set(name, npy.New(data, len(list), len(indices)))
	rows := make([]int64, len(indptr))
	for i, p := range indptr {
		rows[i] = int64(p)
	}
	z.Set("indptr", npy.New(rows))
	z.Set("indices", npy.New(indices))
	z.Set("shape", npy.New([]int64{int64(states), int64(states)}))
}

func (c *discreteFlags) writeChain(s *session, w io.Writer, b *discrete.ChainBridge) error {
	var z npy.Archive
	laws, err := b.Marginals(s.ctx)
	if err != nil {
		return err
	}
	z.Set("marginals", npy.New(laws, b.Steps()+1, b.States()))
	if !c.noKernels {
		var list []*discrete.Matrix
		err := b.Kernels(s.ctx, func(_ int, q *discrete.Matrix) error {
			list = append(list, q)
			return nil
		})
		if err != nil {
			return err
		}
		c.pattern(&z, "kernels", list)
	}
	return npy.WriteNPZ(w, &z, npy.Stored)
}

// grid are the times of --times.
func (c *discreteFlags) grid(b *discrete.JumpBridge) []float64 {
	times := evenTimes(c.times)
	for k := range times {
		times[k] *= b.Horizon()
	}
	times[len(times)-1] = b.Horizon()
	return times
}

func (c *discreteFlags) writeJump(s *session, w io.Writer, b *discrete.JumpBridge) error {
	times := c.grid(b)
	moments, err := b.At(s.ctx, times...)
	if err != nil {
		return err
	}
	var z npy.Archive
	var laws []float64
	var rates []*discrete.Matrix
	for _, m := range moments {
		laws, rates = append(laws, m.Marginal...), append(rates, m.Rates)
	}
	z.Set("times", npy.New(times))
	z.Set("marginals", npy.New(laws, len(times), b.States()))
	if !c.noKernels {
		c.pattern(&z, "rates", rates)
	}
	return npy.WriteNPZ(w, &z, npy.Stored)
}

func (c *discreteFlags) writeTrajectories(s *session, w io.Writer, b *discrete.JumpBridge) error {
	paths, err := b.Paths(s.ctx, c.paths, s.seed)
	if err != nil {
		return err
	}
	if !strings.HasSuffix(c.pathsOut, ".npz") {
		var states []int32
		for _, p := range paths {
			for _, t := range c.grid(b) {
				states = append(states, p.At(t))
			}
		}
		return npy.Write(w, npy.New(states, len(paths), c.times))
	}
	var z npy.Archive
	offsets, times, states := []int64{0}, []float64(nil), []int32(nil)
	for _, p := range paths {
		times, states = append(times, p.Times...), append(states, p.States...)
		offsets = append(offsets, int64(len(times)))
	}
	z.Set("offsets", npy.New(offsets))
	z.Set("times", npy.New(times))
	z.Set("states", npy.New(states))
	return npy.WriteNPZ(w, &z, npy.Stored)
}

func (c *discreteFlags) report(s *session, b *solvedBridge, matrices []*discrete.Matrix, last int) discreteReport {
	cert := b.Certificate
	r := discreteReport{
		Problem: discreteProblem{Reference: "chain", States: matrices[0].States(), Matrices: len(matrices), Steps: last},
		Status:  b.Status.String(), Iterations: b.Iterations, Seconds: number(b.Duration.Seconds()),
		KL: number(cert.KL), Dual: number(cert.Dual), Gap: number(cert.Gap),
		MarginalError: discreteMarginal{Source: number(cert.Source), Target: number(cert.Target)},
		Truncation:    number(cert.Truncation), Paths: c.paths, Seed: s.seed,
	}
	if c.generator != "" {
		r.Problem.Reference, r.Problem.Steps, r.Problem.Horizon = "jump", 0, number(c.horizon)
	}
	for _, m := range matrices {
		r.Problem.NonZeros += m.NNZ()
	}
	for t, e := range cert.Errors {
		if t != 0 && t != b.last {
			if r.MarginalError.Through == nil {
				r.MarginalError.Through = map[string]number{}
			}
			r.MarginalError.Through[strconv.Itoa(t)] = number(e)
		}
	}
	return r
}
