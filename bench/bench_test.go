package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/solver/geometry"
	"github.com/fortet/fortet/solver/sinkhorn"
	"github.com/fortet/fortet/tensor/npy"
)

func pointer(v float64) *float64 { return &v }

func goodRow() Row {
	return Row{
		Suite: "solvers", Name: "solve", Engine: Fortet, Status: OK,
		Provenance: Provenance{
			Commit: "abc", Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Device: "cpu", Processor: "test",
			Features: "avx2", Cores: 2, Go: "go1.26",
		},
		Work:     Work{N: 10, M: 10, D: 2, Epsilon: 0.05, Precision: "ladder", Workers: 2},
		Seconds:  Sum([]float64{2, 1, 4}),
		Accuracy: Accuracy{Residual: pointer(5e-7), Tolerance: 1e-6},
	}
}

func TestSum(t *testing.T) {
	require.Equal(t, Seconds{Repetitions: 3, Minimum: 1, Median: 2, Spread: 1.5}, Sum([]float64{2, 1, 4}))
	require.Equal(t, Seconds{Repetitions: 4, Minimum: 1, Median: 2.5, Spread: 1.2}, Sum([]float64{4, 3, 2, 1}))
	require.Equal(t, Seconds{Repetitions: 1, Minimum: 7, Median: 7}, Sum([]float64{7}))
	require.Zero(t, Sum(nil))
}

func TestRowsSurviveTheirFile(t *testing.T) {
	kernel := goodRow()
	kernel.Suite, kernel.Name, kernel.Residual = "kernels", "softmin", nil
	kernel.Error, kernel.Budget = pointer(1e-7), 1e-6
	kernel.Limit = &Limit{Seconds: 0.5, Formula: "half"}
	kernel.Judge()
	require.InDelta(t, 0.5, kernel.Limit.Fraction, 1e-15)
	rows := []Row{goodRow(), kernel}
	path := filepath.Join(t.TempDir(), "results", "rows.jsonl")
	require.NoError(t, WriteRows(path, rows))
	read, err := ReadRows(path)
	require.NoError(t, err)
	require.Equal(t, rows, read)

	// Replaced, not appended to.
	require.NoError(t, WriteRows(path, rows[:1]))
	read, err = ReadRows(path)
	require.NoError(t, err)
	require.Len(t, read, 1)

	require.NoError(t, os.WriteFile(path, []byte(`{"suite":"s","surprise":1}`+"\n"), 0o644))
	_, err = ReadRows(path)
	require.ErrorContains(t, err, "surprise")
}

// A row without what makes it a result is refused.
func TestValidate(t *testing.T) {
	require.NoError(t, goodRow().Validate())
	for name, spoil := range map[string]func(*Row){
		"no commit":        func(r *Row) { r.Commit = "" },
		"no date":          func(r *Row) { r.Date = time.Time{} },
		"no device":        func(r *Row) { r.Device = "" },
		"no time":          func(r *Row) { r.Seconds = Seconds{} },
		"NaN time":         func(r *Row) { r.Seconds.Minimum = math.NaN() },
		"not checked":      func(r *Row) { r.Residual = nil },
		"ok but off":       func(r *Row) { r.Residual = pointer(1e-5) },
		"ok but NaN":       func(r *Row) { r.Residual = pointer(math.NaN()) },
		"error too large":  func(r *Row) { r.Error, r.Budget = pointer(2), 1 },
		"limit no formula": func(r *Row) { r.Limit = &Limit{Seconds: 1, Fraction: 1} },
		"status":           func(r *Row) { r.Status = "great" },
	} {
		r := goodRow()
		spoil(&r)
		require.Error(t, r.Validate(), name)
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*Row)
		want  Status
	}{
		{"right", func(*Row) {}, OK},
		{"ours above its tolerance", func(r *Row) { r.Residual = pointer(2e-6) }, Wrong},
		{"ours says that it stalled", func(r *Row) { r.Status, r.Residual = Stalled, pointer(2e-6) }, Stalled},
		{"a peer above the tolerance", func(r *Row) { r.Engine, r.Residual = "pot", pointer(2e-6) }, Stalled},
		{"NaN", func(r *Row) { r.Residual = pointer(math.NaN()) }, Wrong},
		{"error above its budget", func(r *Row) { r.Error, r.Budget = pointer(2), 1 }, Wrong},
		{"NaN error", func(r *Row) { r.Error, r.Budget = pointer(math.NaN()), 1 }, Wrong},
		{"too much memory", func(r *Row) { r.Memory = &Memory{PeakBytes: 5e8, DataBytes: 1e8, Budget: 3e8} }, Wrong},
	} {
		r := goodRow()
		c.spoil(&r)
		r.Judge()
		require.Equal(t, c.want, r.Status, c.name)
	}
}

// A run in which an answer is wrong fails, and keeps its rows.
func TestWrongAnswerFailsTheRun(t *testing.T) {
	bad := Suite{"bad", func(_ context.Context, s *Session) error {
		s.add(goodRow())
		r := goodRow()
		r.Residual = pointer(1)
		s.add(r)
		return nil
	}}
	rows, err := Run(t.Context(), bad, Options{Root: t.TempDir()})
	require.ErrorIs(t, err, ErrWrong)
	require.Len(t, rows, 2)
	require.NoError(t, WriteRows(filepath.Join(t.TempDir(), "rows.jsonl"), rows))
}

// The checks must see an answer that is wrong by little, everywhere.
func TestComparisonsCatchWrongAnswers(t *testing.T) {
	p := newPairs[float32](100, 3)
	out, col := make([]float32, p.n), make([]float64, p.m)
	z := make([]float64, p.m)
	for i := range out {
		row(p, i, z)
		out[i] = float32(softmin(z, p.eps))
		for j := range col {
			col[j] += math.Exp(float64(out[i])/p.eps+z[j]) / float64(p.n)
		}
	}
	worst, budget := compareSoftmin(p, out)
	require.LessOrEqual(t, worst, budget)
	require.Less(t, budget, 1e-3)
	worst, budget = compareColumns(p, out, col)
	require.LessOrEqual(t, worst, budget)
	require.Less(t, budget, 1e-3)

	for _, bad := range []float32{float32(math.NaN()), out[0] + float32(p.eps)*1e-2} {
		spoiled := append([]float32{bad}, out[1:]...)
		worst, budget = compareSoftmin(p, spoiled)
		require.False(t, worst <= budget, "%v passed", bad)
	}
	for _, bad := range []float64{math.NaN(), 0, col[0] * 1.01} {
		spoiled := append([]float64{bad}, col[1:]...)
		worst, budget = compareColumns(p, out, spoiled)
		require.False(t, worst <= budget, "%v passed", bad)
	}
}

// Residual of potentials whose plan is known: a product measure has none, and
// a plan that is scaled by 1+t has 2t.
func TestResidual(t *testing.T) {
	const n, m = 5, 7
	x, y := make([]float64, 2*n), make([]float64, 2*m)
	f, g := make([]float64, n), make([]float64, m)
	require.InDelta(t, 0, Residual(x, y, 2, f, g, 0.3), 1e-15)
	for i := range f {
		f[i] = 0.3 * math.Log1p(0.25)
	}
	require.InDelta(t, 0.5, Residual(x, y, 2, f, g, 0.3), 1e-14)
	f[0] = math.NaN()
	require.True(t, math.IsNaN(Residual(x, y, 2, f, g, 0.3)))
}

// The residual that judges everyone is the one of the solver's own
// certificate, from other code.
func TestResidualAgreesWithTheCertificate(t *testing.T) {
	p := newProblem(200, 3, 0.05)
	geom, err := geometry.NewPoints(p.x, p.y, p.d, geometry.SqEuclidean)
	require.NoError(t, err)
	mean, err := geom.Mean(t.Context(), nil, nil)
	require.NoError(t, err)
	require.InEpsilon(t, mean, p.mean, 1e-12)
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	res, err := sinkhorn.Solve(t.Context(), dev, sinkhorn.Problem{Geometry: geom, Epsilon: p.epsilon}, sinkhorn.Settings{Tolerance: 1e-3})
	require.NoError(t, err)
	require.InEpsilon(t, res.Certificate.Residual, Residual(p.x, p.y, p.d, res.Plan.F, res.Plan.G, p.epsilon), 1e-6)
}

// The ceilings are what the loops say that they do: within two orders of
// magnitude of any processor, and exponentials rarer than multiply-adds.
func TestCeilings(t *testing.T) {
	if testing.Short() {
		t.Skip("not run: the loops take seconds (-short)")
	}
	m := &measured{}
	for _, bits := range []int{32, 64} {
		c, err := m.cpu(gpu.BestLevel(), 1, bits)
		require.NoError(t, err)
		require.Greater(t, c.Flops, 1e8)
		require.Less(t, c.Flops, 1e12)
		require.Equal(t, c.Flops, c.Matrix)
		require.Greater(t, c.Exps, 1e7)
		require.Less(t, c.Exps, c.Flops/4)
		require.Greater(t, c.Integers, 1e8)
		for _, rate := range []float64{c.Read, c.Write, c.Copy} {
			require.Greater(t, rate, 1e8)
			require.Less(t, rate, 1e12)
		}
		require.GreaterOrEqual(t, c.Cache, 1e5)
	}
	require.Len(t, m.memory, 1, "measured once")
}

func TestQuickKernels(t *testing.T) {
	start := time.Now()
	log := &bytes.Buffer{}
	rows, err := Run(t.Context(), Suites()[0], Options{Quick: true, Root: "..", Log: log})
	require.NoError(t, err)
	require.Less(t, time.Since(start), 30*time.Second)
	per := 0
	for _, f := range Families() {
		for _, v := range f.Variants {
			per += len(v.dtypes())
		}
	}
	workers := map[int]int{}
	for _, r := range rows {
		require.NoError(t, r.Validate())
		require.NotNil(t, r.Error)
		workers[r.Workers]++
	}
	require.Equal(t, per, workers[1])
	require.Equal(t, per, workers[runtime.GOMAXPROCS(0)])
	require.Equal(t, len(rows), bytes.Count(log.Bytes(), []byte("\n")))
}

// A peer is run, judged by our own residual and reported, also when it hands
// back nonsense. The peer here is a script in place of the real ones.
func TestPeerRows(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("not run: the stand-in is a shell script")
	}
	env := t.TempDir()
	t.Setenv("FORTET_PEERS", env)
	require.NoError(t, os.MkdirAll(filepath.Join(env, "bin"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(env, ".installed"), nil, 0o644))
	p := newProblem(64, 2, 0.5)
	answer := t.TempDir()
	install := func(f, g []float64, converged string) {
		require.NoError(t, save64(filepath.Join(answer, "f.npy"), f))
		require.NoError(t, save64(filepath.Join(answer, "g.npy"), g))
		// $7 is the folder after --out.
		seconds := map[string]string{"true": "0.5,0.25", "false": "61"}[converged] // the limit is 60
		script := "#!/bin/sh\ncp " + answer + "/*.npy \"$7\"\n" +
			`echo '{"peer":"pot","version":"POT 0","settings":"s","seconds":[` + seconds + `],"iterations":3,"converged":` + converged + `,"note":""}'` + "\n"
		require.NoError(t, os.WriteFile(filepath.Join(env, "bin", "python"), []byte(script), 0o755))
	}
	geom, err := geometry.NewPoints(p.x, p.y, p.d, geometry.SqEuclidean)
	require.NoError(t, err)
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	res, err := sinkhorn.Solve(t.Context(), dev, sinkhorn.Problem{Geometry: geom, Epsilon: p.epsilon}, sinkhorn.Settings{Tolerance: 1e-8})
	require.NoError(t, err)

	session := func() *Session {
		return &Session{Options: Options{Log: &bytes.Buffer{}, Limit: time.Minute, Root: ".."}, Provenance: provenance(dev, ".."), suite: "solvers"}
	}
	install(res.Plan.F, res.Plan.G, "true")
	s := session()
	require.NoError(t, s.peer(t.Context(), "pot", p))
	require.Len(t, s.Rows, 1)
	require.NoError(t, s.Rows[0].Validate())
	require.Equal(t, OK, s.Rows[0].Status)
	require.Equal(t, "POT 0", s.Rows[0].Version)
	require.Equal(t, 0.25, s.Rows[0].Seconds.Minimum)

	install(make([]float64, 64), make([]float64, 64), "true") // says so, but is not
	s = session()
	require.NoError(t, s.peer(t.Context(), "pot", p))
	require.Equal(t, Stalled, s.Rows[0].Status)
	require.Greater(t, *s.Rows[0].Residual, tolerance)

	install(make([]float64, 64), make([]float64, 64), "false")
	s = session()
	require.NoError(t, s.peer(t.Context(), "pot", p))
	require.Equal(t, TimeLimit, s.Rows[0].Status)

	install(make([]float64, 63), make([]float64, 64), "true")
	s = session()
	require.NoError(t, s.peer(t.Context(), "pot", p))
	require.Empty(t, s.Rows)
}

func TestPeersThatAreMissing(t *testing.T) {
	t.Setenv("FORTET_PEERS", t.TempDir())
	log := &bytes.Buffer{}
	s := &Session{Options: Options{Log: log}}
	names, err := s.installedPeers(solverPeers())
	require.NoError(t, err)
	require.Empty(t, names)
	require.Contains(t, log.String(), "make peers")
	s.Peers = []string{"pot"}
	_, err = s.installedPeers(solverPeers())
	require.ErrorContains(t, err, "make peers")
}

// The page is a function of the rows: equal bytes, and every figure in it from
// a row.
func TestReport(t *testing.T) {
	root := t.TempDir()
	ours, pot := goodRow(), goodRow()
	pot.Engine, pot.Version, pot.Status, pot.Residual = "pot", "POT 0", TimeLimit, pointer(3e-4)
	pot.Seconds = Sum([]float64{600})
	start := goodRow()
	start.Name, start.Residual, start.Work = startup, nil, Work{}
	start.Seconds = Sum([]float64{0.02})
	large := goodRow()
	large.N, large.M, large.Memory = 100, 100, &Memory{PeakBytes: 200e6, DataBytes: 5e6, Budget: 300e6}
	require.NoError(t, WriteRows(filepath.Join(root, "bench", "results", "solvers.jsonl"), []Row{ours, pot, large, start}))
	kernel := goodRow()
	kernel.Suite, kernel.Name, kernel.Residual = "kernels", "softmin", nil
	kernel.Error, kernel.Budget, kernel.Limit = pointer(1e-7), 1e-6, &Limit{Seconds: 0.25, Formula: "nm / rate"}
	kernel.Judge()
	require.NoError(t, WriteRows(filepath.Join(root, "bench", "results", "kernels.jsonl"), []Row{kernel}))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "docs"), 0o755))

	read := func() (page, picture []byte) {
		require.NoError(t, Report(root))
		page, err := os.ReadFile(filepath.Join(root, "docs", "benchmarks.md"))
		require.NoError(t, err)
		picture, err = os.ReadFile(filepath.Join(root, "docs", "benchmarks-solvers.svg"))
		require.NoError(t, err)
		return page, picture
	}
	page, picture := read()
	again, pictureAgain := read()
	require.Equal(t, string(page), string(again))
	require.Equal(t, picture, pictureAgain)
	text := string(page)
	for _, want := range []string{"commit abc", "> 600", "3.0e-04", "POT 0", "195 MB above", "20.0 ms", "25.0 %", "nm / rate"} {
		require.Contains(t, text, want)
	}
	require.NotContains(t, text, "NaN")
}

func TestRowJSONNamesItsUnits(t *testing.T) {
	data, err := json.Marshal(goodRow())
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(data, &fields))
	for _, want := range []string{"suite", "engine", "commit", "dirty", "date", "device", "processor", "features", "go", "n", "m", "precision", "workers", "seconds", "residual"} {
		require.Contains(t, fields, want)
	}
}

func save64(path string, v []float64) error { return save(path, npy.New(v, len(v))) }
