package bench

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
)

func TestQuickRace(t *testing.T) {
	rows, err := Run(t.Context(), Suite{"gpu", race}, Options{Quick: true, NoPeers: true, Root: ".."})
	require.NoError(t, err)
	require.Len(t, rows, 2+3) // a solve to each tolerance, a step of each method
	for _, r := range rows {
		require.NoError(t, r.Validate())
		require.Equal(t, OK, r.Status)
	}
	require.Less(t, *rows[1].Residual, *rows[0].Residual)

	// On the CPU there is no race.
	rows, err = Run(t.Context(), Suite{"gpu", race}, Options{NoPeers: true, Root: ".."})
	require.NoError(t, err)
	require.Empty(t, rows)
}

// A sample of rows and columns estimates the residual within its standard error,
// and all of them are the residual.
func TestPartialResidual(t *testing.T) {
	p := newProblem(300, 3, 0.1)
	f, g := make([]float64, p.n), make([]float64, p.n)
	for i := range f {
		f[i], g[i] = 0.3*p.mean+0.02*float64(i%7), 0.4*p.mean-0.01*float64(i%5)
	}
	want := Residual(p.x, p.y, p.d, f, g, p.epsilon)
	rows, _ := partial(p.x, p.y, p.d, f, g, p.epsilon, p.n)
	cols, _ := partial(p.y, p.x, p.d, g, f, p.epsilon, p.n)
	require.InEpsilon(t, want, rows+cols, 1e-12)
	some, sr := partial(p.x, p.y, p.d, f, g, p.epsilon, 100)
	others, sc := partial(p.y, p.x, p.d, g, f, p.epsilon, 100)
	require.InDelta(t, want, some+others, 4*math.Hypot(sr, sc))
	require.Positive(t, sr)
	f[3] = math.NaN()
	spoiled, _ := partial(p.x, p.y, p.d, f, g, p.epsilon, p.n)
	require.True(t, math.IsNaN(spoiled))
}

// Lines of gpu.py become rows that our own code has judged. It is a script here.
func TestRaceRows(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("not run: the stand-in is a shell script")
	}
	env, dir := t.TempDir(), t.TempDir()
	t.Setenv("FORTET_PEERS", env)
	require.NoError(t, os.MkdirAll(filepath.Join(env, "bin"), 0o755))
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()

	p := &raceProblem{newProblem(64, 2, 0.5), []float64{1e-3, 1e-6}}
	solves, steps := filepath.Join(dir, "solve"), filepath.Join(dir, "step")
	require.NoError(t, os.Mkdir(solves, 0o755))
	require.NoError(t, p.write(solves))
	geom, err := geometry.NewPoints(p.x, p.y, p.d, geometry.SqEuclidean)
	require.NoError(t, err)
	res, err := sinkhorn.Solve(t.Context(), dev, sinkhorn.Problem{Geometry: geom, Epsilon: p.epsilon}, sinkhorn.Settings{Tolerance: 1e-5})
	require.NoError(t, err)
	require.NoError(t, save64(filepath.Join(solves, "f.npy"), res.Plan.F))
	require.NoError(t, save64(filepath.Join(solves, "g.npy"), res.Plan.G))

	q := newStepProblem(run.LightSB, stepShape{d: 2, k: 3, batch: 8, pool: 10, block: 1, scale: 1})
	require.NoError(t, os.Mkdir(steps, 0o755))
	require.NoError(t, q.write(steps, 0))
	want, err := q.published(steps)
	require.NoError(t, err)
	for _, name := range []string{"w.f32.npy", "w.f64.npy"} {
		require.NoError(t, save64(filepath.Join(steps, name), want.value))
	}
	lines := []string{
		fmt.Sprintf(`{"part":"solve","problem":%q,"peer":"flash-sinkhorn","settings":"s","tolerance":1e-3,"seconds":[0.5],"iterations":7,"f":"f.npy","g":"g.npy","version":"v 1"}`, solves),
		fmt.Sprintf(`{"part":"solve","problem":%q,"peer":"flash-sinkhorn","settings":"s","tolerance":1e-8,"seconds":[0.5],"f":"f.npy","g":"g.npy"}`, solves),
		fmt.Sprintf(`{"part":"light","problem":%q,"peer":"pytorch","way":"w","seconds":[0.25]}`, steps),
		`{"part":"gemm","name":"gemm","peer":"pytorch","n":8,"m":8,"d":8,"precision":"tf32","seconds":[1e-6],"error":1e-4,"budget":2e-3,"flops":1024}`,
		`{"part":"solve","peer":"ott-jax","settings":"s","not_run":"ImportError: none"}`,
		`{"part":"all","device":"cpu","took":1}`,
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "lines"), []byte(strings.Join(lines, "\n")), 0o644))
	install := func(end string) {
		script := "#!/bin/sh\ncat " + filepath.Join(dir, "lines") + "\n" + end + "\n"
		require.NoError(t, os.WriteFile(filepath.Join(env, "bin", "python"), []byte(script), 0o755))
	}
	install("")
	var log bytes.Buffer
	session := func() *Session {
		return &Session{Options: Options{Log: &log, Device: "cpu", Root: ".."}, Provenance: provenance(dev, ".."), suite: "gpu"}
	}
	folders := &gpuFolders{time.Minute, map[string]*raceProblem{solves: p}, map[string]*stepProblem{steps: q}}
	s := session()
	require.NoError(t, s.gpuPeers(t.Context(), folders))
	require.Len(t, s.Rows, 4)
	for _, r := range s.Rows {
		require.NoError(t, r.Validate())
	}
	require.Equal(t, OK, s.Rows[0].Status)
	require.Equal(t, "v 1", s.Rows[0].Version)
	require.InEpsilon(t, Residual(p.x, p.y, p.d, res.Plan.F, res.Plan.G, p.epsilon), *s.Rows[0].Residual, 1e-12)
	require.Equal(t, Stalled, s.Rows[1].Status)
	require.Equal(t, stepName(run.LightSB), s.Rows[2].Name)
	require.Contains(t, log.String(), "not run: ImportError: none")

	// One of them alone; and a script that breaks off is said.
	s = session()
	s.Peers = []string{"flash-sinkhorn"}
	install("echo no memory >&2; exit 1")
	require.NoError(t, s.gpuPeers(t.Context(), folders))
	require.Len(t, s.Rows, 2)
	require.Contains(t, log.String(), "no memory")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "lines"), []byte(`{"part":"solve","problem":"elsewhere","peer":"ott-jax"}`), 0o644))
	require.ErrorContains(t, session().gpuPeers(t.Context(), folders), "elsewhere")
}

func TestRaceTables(t *testing.T) {
	ours := goodRow()
	ours.Suite, ours.N, ours.M, ours.D, ours.Seconds = "gpu", 10_000, 10_000, 64, Sum([]float64{.01})
	theirs := ours
	theirs.Engine, theirs.Settings, theirs.Seconds, theirs.Version = "flash-sinkhorn", "alternating, TF32", Sum([]float64{.03}), "v 1"
	stalled := theirs
	stalled.Status, stalled.Residual = Stalled, pointer(2e-3)
	step := goodRow()
	step.Name, step.Residual, step.Error, step.Budget = stepName(run.LightSB), nil, pointer(1e-9), 1e-7
	step.Work = Work{N: 512, D: 2, K: 50}
	product := goodRow()
	product.Name, product.Engine, product.Residual, product.Error, product.Budget, product.Note = "gemm", pyTorch, nil, pointer(1e-5), 1e-3, "300 TFLOP/s"
	product.Work = Work{N: 8, M: 8, D: 8, Precision: "tf32", Settings: "torch.mm, cuBLAS"}
	var b bytes.Buffer
	raceTables(&b, []Row{ours, theirs, stalled, step, product})
	for _, want := range []string{
		"| 10000 × 10000, d = 64, ε = 0.05 | 1e-06 | flash-sinkhorn | 30.0 |", "| 3.00 | alternating, TF32 |", "| stalls at 2.0e-03 | > 3.00 |",
		"| lightsb | 512 | 2 | 50 |", "| 8 × 8 × 8 | tf32 |", "300 TFLOP/s", "Versions: v 1.",
	} {
		require.Contains(t, b.String(), want)
	}
	b.Reset()
	raceTables(&b, nil)
	require.Empty(t, b.String())
}
