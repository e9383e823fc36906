package bench

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/atomicfile"
	"github.com/fortet/fortet/solver/ensemble"
	"github.com/fortet/fortet/solver/multimarginal"
	"github.com/fortet/fortet/tensor"
	"github.com/fortet/fortet/tensor/npy"
)

// The residual of a chain is that of the tensor's marginals, summed entry by entry.
func TestChainResidual(t *testing.T) {
	for _, k := range []int{2, 3, 4} {
		c := newChain(k, 5, 2)
		c.epsilon = 0.7
		r := rand.New(rand.NewPCG(3, uint64(k)))
		f := make([][]float64, k)
		for node := range f {
			for range c.n {
				f[node] = append(f[node], 0.5*r.NormFloat64())
			}
		}
		marginals := make([][]float64, k)
		for node := range marginals {
			marginals[node] = make([]float64, c.n)
		}
		tuple := make([]int, k)
		tuples := int(math.Round(math.Pow(float64(c.n), float64(k))))
		for at := range tuples {
			rest, sum := at, 0.0
			for node := range tuple {
				tuple[node] = rest % c.n
				rest /= c.n
				sum += f[node][tuple[node]]
				for j := 0; node > 0 && j < c.d; j++ {
					sum -= math.Pow(c.x[node-1][tuple[node-1]*c.d+j]-c.x[node][tuple[node]*c.d+j], 2)
				}
			}
			for node, i := range tuple {
				marginals[node][i] += math.Exp(sum/c.epsilon) / float64(tuples)
			}
		}
		for _, inner := range []bool{false, true} {
			want := 0.0
			for node := range marginals {
				if c.isFree(inner)(node) {
					continue
				}
				for _, p := range marginals[node] {
					want += math.Abs(p - 1/float64(c.n))
				}
			}
			got, size := c.residual(f, c.isFree(inner))
			require.Greater(t, want, 1e-3)
			require.InEpsilon(t, want, got, 1e-12, "%d nodes", k)
			require.Greater(t, size, 1.0)
		}
		f[k-1][0] = math.NaN()
		got, _ := c.residual(f, c.isFree(false))
		require.True(t, math.IsNaN(got))
	}
}

// It is also the residual of the solver's own certificate, from other code, and
// sees potentials that are off by little.
func TestChainResidualAgreesWithTheCertificate(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	c := newChain(4, 100, 3)
	res, err := multimarginal.Solve(t.Context(), dev, c.problem(false), multimarginal.Settings{Tolerance: tolerance})
	require.NoError(t, err)
	require.NoError(t, res.Status.Err())
	got, size := c.residual(res.Plan.F, c.isFree(false))
	require.LessOrEqual(t, math.Abs(got-res.Certificate.Residual), roundings*float64(c.k*c.k)*ulp[float64]()*size)
	require.LessOrEqual(t, got, tolerance)
	res.Plan.F[2][7] += 1e-3 * c.epsilon // of one point in a hundred
	got, _ = c.residual(res.Plan.F, c.isFree(false))
	require.Greater(t, got, 5*tolerance)
}

// The costs of the first points are those of the whole chain, at its ε.
func TestFirstOfAChain(t *testing.T) {
	c := newChain(3, 50, 4)
	small := c.first(20)
	require.Equal(t, 20, small.n)
	require.Equal(t, c.epsilon, small.epsilon)
	for k, x := range small.x {
		require.Equal(t, c.x[k][:20*4], x)
	}
	require.Equal(t, 50, c.n)
}

// A sweep over the tree is one over each part; the first of a stage has no
// beginning.
func TestSweepClock(t *testing.T) {
	var clock sweepClock
	tick := func(part, n int, dtype tensor.DType) {
		clock.tick(multimarginal.Iteration{Part: part, Parts: 2, N: n, Epsilon: 1, DType: dtype})
	}
	tick(0, 1, tensor.Float32)
	tick(0, 2, tensor.Float32)
	tick(0, 3, tensor.Float32)
	tick(1, 1, tensor.Float32)
	tick(1, 2, tensor.Float32)
	tick(1, 3, tensor.Float64)
	require.Len(t, clock.parts, 2)
	require.Len(t, clock.parts[0], 2)
	require.Len(t, clock.parts[1], 1)
	clock.parts = [][]float64{{1, 2, 9}, {10}}
	require.Equal(t, 12.0, clock.sweep())
}

// Softmins that are off are seen, in both precisions and directions.
func TestEdgeWork(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	c := newChain(3, 70, 5)
	f := make([][]float64, c.k)
	for k := range f {
		for i := range c.n {
			f[k] = append(f[k], c.epsilon*float64(i%7))
		}
	}
	for _, dtype := range []tensor.DType{tensor.Float32, tensor.Float64} {
		w, err := newEdgeWork(dev, c, dtype)
		require.NoError(t, err)
		require.Len(t, w.ops, 4)
		require.NoError(t, w.run(f))
		require.NoError(t, w.check(c, f))
		require.Positive(t, w.budget)
		require.LessOrEqual(t, w.worst, w.budget)
		w.epsilon *= 1.001
		require.NoError(t, w.check(c, f))
		require.False(t, w.worst <= w.budget)
		spoiled := append([][]float64{slices.Repeat([]float64{math.NaN()}, c.n)}, f[1:]...) // the first of several
		require.NoError(t, w.check(c, spoiled))
		require.False(t, w.worst <= w.budget)
		w.close()
	}
}

// program is a stand-in for the program: it hands back given potentials.
func program(t *testing.T, f [][]float64) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("not run: the stand-in is a shell script")
	}
	dir := t.TempDir()
	var z npy.Archive
	for k, v := range f {
		z.Set(fmt.Sprintf("f%d", k), npy.New(v, len(v)))
	}
	answer, path := filepath.Join(dir, "answer.npz"), filepath.Join(dir, "fortet")
	require.NoError(t, atomicfile.Write(answer, func(w io.Writer) error { return npy.WriteNPZ(w, &z, npy.Stored) }))
	script := "#!/bin/sh\nwhile [ $# -gt 0 ]; do\n  [ \"$1\" = --potentials ] && cp " + answer + " \"$2\"\n  shift\ndone\n"
	require.NoError(t, os.WriteFile(path, []byte(script), 0o755))
	return path
}

func TestQuickStatic(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	c := newChain(5, 500, chainDim)
	res, err := multimarginal.Solve(t.Context(), dev, c.problem(false), multimarginal.Settings{Tolerance: tolerance})
	require.NoError(t, err)
	rows, err := Run(t.Context(), Suites()[3], Options{Quick: true, NoPeers: true, Root: "..", Fortet: program(t, res.Plan.F)})
	require.NoError(t, err)
	require.Len(t, rows, 2*(2*2+1)+(1+2)+1+1) // chains of five, of other sizes, problems, memory
	for _, r := range rows {
		require.NoError(t, r.Validate())
		require.Equal(t, OK, r.Status)
	}

	res.Plan.F[4][0] += 1e-3 * c.epsilon
	s := &Session{Options: Options{Log: &bytes.Buffer{}, Quick: true, Fortet: program(t, res.Plan.F)}, Provenance: goodRow().Provenance, suite: "static"}
	require.NoError(t, s.chainProgram(t.Context()))
	require.Equal(t, Wrong, s.Rows[0].Status)
}

// staticPeers installs a stand-in for the peers: what it prints for each task of
// static.py, and files that it copies to the folder after --out.
func staticPeers(t *testing.T, prints map[string]string) (files string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("not run: the stand-in is a shell script")
	}
	env, files := t.TempDir(), t.TempDir()
	t.Setenv("FORTET_PEERS", env)
	require.NoError(t, os.MkdirAll(filepath.Join(env, "bin"), 0o755))
	var script strings.Builder
	// $5 is the folder after --out, $7 the task.
	fmt.Fprintf(&script, "#!/bin/sh\n[ -z \"$5\" ] || cp %s/*.npy \"$5\"\ncase $7 in\n", files)
	for task, text := range prints {
		fmt.Fprintf(&script, "%s) echo '%s' ;;\n", task, text)
	}
	script.WriteString("*) exit 1 ;;\nesac\n")
	require.NoError(t, os.WriteFile(filepath.Join(env, "bin", "python"), []byte(script.String()), 0o755))
	return files
}

func staticSession() *Session {
	return &Session{Options: Options{Log: &bytes.Buffer{}, Limit: time.Minute, Root: ".."}, Provenance: goodRow().Provenance, suite: "static"}
}

// What the tensor is too large for is a row without an answer, and what was
// solved in its place is judged.
func TestChainPeerRows(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	files := staticPeers(t, map[string]string{
		"chain": `{"version":"OTT 0","settings":"tensor","seconds":[2.5],"iterations":7,"n":20,"refused":{"n":30,"seconds":0.5,"message":"no room"}}`,
	})
	c := newChain(3, 30, 4)
	res, err := multimarginal.Solve(t.Context(), dev, c.first(20).problem(false), multimarginal.Settings{Tolerance: tolerance})
	require.NoError(t, err)
	answer := func() {
		for k, f := range res.Plan.F {
			require.NoError(t, save64(filepath.Join(files, fmt.Sprintf("f%d.npy", k)), f))
		}
	}
	answer()
	s := staticSession()
	solved, err := s.chainPeer(t.Context(), c, 1<<20)
	require.NoError(t, err)
	require.Equal(t, c.first(20), solved)
	require.Len(t, s.Rows, 2)
	for _, r := range s.Rows {
		require.NoError(t, r.Validate())
		require.Equal(t, "OTT 0", r.Version)
	}
	require.Equal(t, OutOfMemory, s.Rows[0].Status)
	require.Equal(t, 30, s.Rows[0].N)
	require.Contains(t, s.Rows[0].Note, "no room")
	require.Equal(t, OK, s.Rows[1].Status)
	require.Equal(t, 20, s.Rows[1].N)
	require.Equal(t, 2.5, s.Rows[1].Seconds.Minimum)

	res.Plan.F[0][3] += 0.1 * c.epsilon
	answer()
	s = staticSession()
	_, err = s.chainPeer(t.Context(), c, 1<<20)
	require.NoError(t, err)
	require.Equal(t, TimeLimit, s.Rows[1].Status)

	res.Plan.F[0][3] = math.NaN()
	answer()
	s = staticSession()
	_, err = s.chainPeer(t.Context(), c, 1<<20)
	require.NoError(t, err)
	require.Len(t, s.Rows, 1)
}

// POT's rows are judged by the potentials of the problems that it solved; a task
// that fails is no row.
func TestEnsemblePeerRows(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	text := `{"version":"POT 0","settings":"s","note":"n","seconds":[3],"iterations":9}`
	files := staticPeers(t, map[string]string{"loop": text, "whole": text})
	e := newEnsemble(12, 10, 2)
	p := ensemble.Problem{X: e.x[:8*10*2], Y: e.y[:8*10*2], D: 2, Epsilon: []float64{ensembleScale}, Scale: ensemble.Mean}
	for range 8 {
		p.N, p.M = append(p.N, 10), append(p.M, 10)
	}
	res, err := ensemble.Solve(t.Context(), dev, p, ensemble.Settings{Tolerance: tolerance})
	require.NoError(t, err)
	require.NoError(t, res.Status().Err())
	answer := func() *Session {
		require.NoError(t, save64(filepath.Join(files, "f.npy"), res.F))
		require.NoError(t, save64(filepath.Join(files, "g.npy"), res.G))
		s := staticSession()
		require.NoError(t, s.ensemblePeers(t.Context(), e))
		return s
	}
	s := answer()
	require.Len(t, s.Rows, 2)
	for _, r := range s.Rows {
		require.NoError(t, r.Validate())
		require.Equal(t, OK, r.Status)
		require.Equal(t, 8, r.Problems)
		require.LessOrEqual(t, *r.Residual, tolerance)
	}
	res.F[3*10+2] += 0.01 * res.Problems[3].Epsilon
	s = answer()
	require.Equal(t, Stalled, s.Rows[0].Status)
	require.Equal(t, TimeLimit, s.Rows[1].Status)
	res.F[0] = math.Inf(1)
	require.Empty(t, answer().Rows)
}

// The tables compare with what was done on the same work.
func TestStaticTables(t *testing.T) {
	base := goodRow()
	base.Suite = "static"
	c := newChain(5, 10, chainDim)
	softmins, sweep := base, base
	softmins.Name, softmins.Work, softmins.Seconds = softminsName, c.work("f32", freeInner, 2), Sum([]float64{.2})
	sweep.Name, sweep.Work, sweep.Seconds = sweepName, softmins.Work, Sum([]float64{.22})
	sweep.Error, sweep.Budget, sweep.Residual = pointer(1e-15), 1e-12, nil
	ours, theirs, refused := base, base, base
	ours.Name, ours.Work, ours.Seconds = chainName, c.work("ladder", fixedInner, 2), Sum([]float64{.5})
	theirs.Name, theirs.Engine, theirs.Work, theirs.Version = chainName, ottJAX, c.work("f64", fixedInner, 2), "OTT 0"
	theirs.Status, theirs.Seconds, theirs.Residual = TimeLimit, Sum([]float64{25}), pointer(1e-2)
	refused.Name, refused.Engine, refused.Work = chainName, ottJAX, theirs.Work
	refused.Status, refused.Residual, refused.N, refused.Note = OutOfMemory, nil, 11, "no room"
	e := newEnsemble(3, 64, 2)
	ensembles, loop := base, base
	ensembles.Name, ensembles.Work, ensembles.Seconds = ensembleName, e.work(10_000, "ladder", "default", 2), Sum([]float64{.5})
	loop.Name, loop.Engine, loop.Work, loop.Seconds = ensembleName, "pot", e.work(2000, "f64", "a loop", 2), Sum([]float64{10})
	large := base
	large.Name, large.Work, large.Memory = programName, c.work("ladder", "", 2), &Memory{PeakBytes: 200e6, DataBytes: 5e6, Budget: 300e6}
	var b bytes.Buffer
	rows := []Row{softmins, sweep, ours, theirs, refused, ensembles, loop, large}
	for i := range rows {
		rows[i].Judge()
		require.NoError(t, rows[i].Validate())
	}
	staticTables(&b, rows)
	text := b.String()
	for _, want := range []string{
		"| 5 × 10, free inner nodes | 10 | f32 | 220 |", "| 200 | 1.10 | 1e-15 of 1e-12 |",
		"| 5 × 10 | ott-jax | > 25.0 |", "| 1.0e-02 | > 50.0 |", "| 5 × 11 | ott-jax | out of memory |  |", "no room",
		"| pot | 2 | 2000 | 10.0 | 5000 | 50.0 (extrapolated) |", "| 100 | a loop |", "| 10000 | 0.500 | 50.0 | 0.500 |",
		"195 MB above", "Versions: OTT 0",
	} {
		require.Contains(t, text, want)
	}
	require.NotContains(t, text, "NaN")
	b.Reset()
	staticTables(&b, nil)
	require.Empty(t, b.String())
}
