package bench

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/models/run"
	"github.com/fortet/fortet/models/sbb"
	"github.com/fortet/fortet/tensor/npy"
)

// modelA is the model of MATH.md A.6, with S in the place of raw.
func modelA() *potential {
	p := &potential{k: 3, d: 2, epsilon: 0.5, logits: []float32{-.3, .2, -1.1}, means: []float32{1, -.5, -.8, .6, .3, 1.4}}
	for _, s := range []float64{.40, 1.50, .90, .25, 2.00, .70} {
		p.raws = append(p.raws, float32(math.Log(s)))
	}
	return p
}

// The definitions are those of MATH.md: its test vectors of A.6, to the
// rounding of their arguments to float32.
func TestLightDefinitions(t *testing.T) {
	p := modelA()
	near := func(want []float64, got *gradient[float64]) {
		t.Helper()
		require.Len(t, got.value, len(want))
		for i, v := range want {
			require.InDelta(t, v, got.value[i], 1e-6*max(1, math.Abs(v)), i)
		}
	}
	x0, x1 := []float32{.7, -.4, -1.2, .3}, []float32{.2, .9, 1.1, -.6, -.4, -.2}
	l := likelihood[float64](p, likely{x0, 0, 1}, likely{x1, 1, -1})
	square := (.7*.7+.4*.4+1.2*1.2+.3*.3)/2 + (.2*.2+.9*.9+1.1*1.1+.6*.6+.4*.4+.2*.2)/3
	l.value[0] += square/(2*p.epsilon) + math.Log(2*math.Pi*p.epsilon)
	near([]float64{
		4.804313840869449, .0777093, -.089267241, .011557941,
		.621795214, -.353158898, -1.794998227, 1.660471647, -.105706534, .176848554,
		.1678074, .259506194, .52528966, -.595846316, .269827593, -.015705139,
	}, l)

	m := matching[float64](p, matched{x: []float32{.7, -.4}, u: []float32{.3, -1.1}, t: []float32{.6}})
	want := []float64{
		0.7298714624911371, -0.057011195, 0.024268962, 0.032742233,
		1.618471144, .975761265, .096569315, .006045568, .029352413, -.080123469,
		.112400796, -.092347177, .067712608, -.016982793, -.000116065, .024017472,
	}
	for i := range want {
		want[i] /= 2 // the mean over coordinates
	}
	near(want, m)
}

// With a floor raw moves S less: by the chain rule.
func TestLightDefinitionsWithFloor(t *testing.T) {
	plain, floored := modelA(), modelA()
	floored.floor = 0.125
	for i, raw := range plain.raws {
		floored.raws[i] = float32(math.Log(math.Exp(float64(raw)) - floored.floor))
	}
	batch := matched{x: []float32{.7, -.4}, u: []float32{.3, -1.1}, t: []float32{.6}}
	for _, pair := range [][2]*gradient[float64]{
		{likelihood[float64](plain, likely{batch.x, 1, 1}), likelihood[float64](floored, likely{batch.x, 1, 1})},
		{matching[float64](plain, batch), matching[float64](floored, batch)},
	} {
		at := plain.parts()
		for i, v := range pair[0].value {
			if i >= at[3] {
				s := pair[0].s[i-at[3]]
				v *= (s - floored.floor) / s
			}
			require.InDelta(t, v, pair[1].value[i], 1e-5, i)
		}
	}
}

// Loss and gradient of every method are right, and the comparison sees where
// one element is not.
func TestLightSteps(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	for _, shape := range []stepShape{{d: 2, k: 50, batch: 129, pool: 200, block: 1, scale: 1}, {d: 64, k: 10, batch: 65, pool: 100, block: 1, scale: .1}} {
		for _, method := range []run.Method{run.LightSB, run.LightSBM, run.LightSBB, run.LightSBBM} {
			p := newStepProblem(method, shape)
			c, err := p.check(dev)
			require.NoError(t, err)
			require.LessOrEqual(t, c.worst, c.budget, "%v d=%d", method, shape.d)
			require.Greater(t, c.budget, 0.)
			require.Less(t, c.budget, 1e-2, "%v d=%d", method, shape.d)
			require.LessOrEqual(t, c.inverted, c.mostInverted)
			require.Less(t, c.mostInverted, 1e-3)
		}
	}
	p := newStepProblem(run.LightSBM, stepShape{d: 3, k: 4, batch: 33, pool: 40, block: 1, scale: 1})
	want, naive := matching[float64](&p.potential, p.bridge), matching[float32](&p.potential, p.bridge)
	worst, budget := compareGradient(convert64(naive.value), want, naive)
	require.LessOrEqual(t, worst, budget)
	require.Less(t, relative(convert64(naive.value), want), 1e-4)
	at := p.parts()
	for part := range 4 {
		for _, factor := range []float64{1.01, math.NaN()} {
			spoiled := append([]float64(nil), want.value...)
			most := at[part]
			for i := at[part]; i < at[part+1]; i++ {
				if math.Abs(spoiled[i]) > math.Abs(spoiled[most]) {
					most = i
				}
			}
			spoiled[most] *= factor
			worst, budget := compareGradient(spoiled, want, naive)
			require.False(t, worst <= budget, "part %d times %v passed", part, factor)
			require.False(t, relative(spoiled, want) <= ulp[float32](), "part %d times %v passed", part, factor)
		}
	}
	require.True(t, math.IsNaN(relative(want.value[1:], want)))
}

// The comparison of samples passes equal laws and sees a mean or a deviation
// that is off by a few percent.
func TestDiscrepancy(t *testing.T) {
	const n, d = 40_000, 2
	cloud := func(seed uint64, shift, deviation float64) []float64 {
		r, x := rand.New(rand.NewPCG(seed, 1)), make([]float64, n*d)
		for i := range x {
			x[i] = shift + deviation*r.NormFloat64()
		}
		return x
	}
	x := cloud(1, 0, 1)
	require.LessOrEqual(t, discrepancy(x, cloud(2, 0, 1), d), float64(standardErrors))
	require.Greater(t, discrepancy(x, cloud(2, .06, 1), d), float64(standardErrors))
	require.Greater(t, discrepancy(x, cloud(2, 0, .95), d), float64(standardErrors))
	spoiled := cloud(2, 0, 1)
	spoiled[7] = math.NaN()
	require.False(t, discrepancy(x, spoiled, d) <= standardErrors)
}

// No step takes Go memory.
func TestLightStepsAllocateNothing(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	for _, method := range []run.Method{run.LightSB, run.LightSBM, run.LightSBB, run.LightSBBM} {
		p := newStepProblem(method, stepShape{d: 2, k: 5, batch: 64, pool: 100, block: 1, scale: 1})
		l, free, err := p.trainer(dev)
		require.NoError(t, err)
		step := 0
		require.Zero(t, testing.AllocsPerRun(50, func() {
			step++
			if err := l.Step(step); err != nil {
				t.Error(err)
			}
		}), method)
		free()
	}
}

func TestQuickLight(t *testing.T) {
	rows, err := Run(t.Context(), Suites()[2], Options{Quick: true, NoPeers: true, Root: ".."})
	require.NoError(t, err)
	require.Len(t, rows, 4+1+2) // a step of each method, training, sampling
	for _, r := range rows {
		require.NoError(t, r.Validate())
		require.NotNil(t, r.Error)
	}
}

// PyTorch's rows are judged by the gradient that it returns. It is a script here.
func TestStepPeerRows(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("not run: the stand-in is a shell script")
	}
	env, answer := t.TempDir(), t.TempDir()
	t.Setenv("FORTET_PEERS", env)
	require.NoError(t, os.MkdirAll(filepath.Join(env, "bin"), 0o755))
	// $5 is the folder after --out.
	script := "#!/bin/sh\ncp " + answer + "/*.npy \"$5\"\n" +
		`echo '{"version":"PyTorch 0","answers":[{"way":"published","threads":1,"seconds":[0.5,0.25]}]}'` + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(env, "bin", "python"), []byte(script), 0o755))
	session := func() *Session {
		return &Session{Options: Options{Log: &bytes.Buffer{}, Limit: time.Minute, Root: ".."}, Provenance: goodRow().Provenance, suite: "light"}
	}
	for _, method := range []run.Method{run.LightSB, run.LightSBM, run.LightSBBM} {
		p := newStepProblem(method, stepShape{d: 2, k: 3, batch: 8, pool: 10, block: 1, scale: 1})
		// The bridge of LightSBB-M: that of the problem has the given ends.
		for name, v := range map[string][]float32{"y0": p.x0, "y1": p.x1, "xt": p.bridge.x, "u": p.bridge.u} {
			require.NoError(t, save(filepath.Join(answer, name+".npy"), npy.New(v, p.batch, p.d)))
		}
		defined, err := p.published(answer)
		require.NoError(t, err)
		want := defined.value
		for _, name := range []string{"published.f32.npy", "published.f64.npy"} {
			require.NoError(t, save64(filepath.Join(answer, name), want))
		}
		s := session()
		require.NoError(t, s.stepPeer(t.Context(), p))
		require.Len(t, s.Rows, 1)
		require.NoError(t, s.Rows[0].Validate())
		require.Equal(t, OK, s.Rows[0].Status)
		require.Equal(t, "PyTorch 0", s.Rows[0].Version)
		require.Equal(t, 0.25, s.Rows[0].Seconds.Minimum)

		want[len(want)-1] *= 1.01
		require.NoError(t, save64(filepath.Join(answer, "published.f64.npy"), want))
		s = session()
		require.NoError(t, s.stepPeer(t.Context(), p))
		require.Equal(t, Wrong, s.Rows[0].Status)

		if method == run.LightSBBM { // a bridge that is none
			p.bridge.x[1] += 1e-3
			require.NoError(t, save(filepath.Join(answer, "xt.npy"), npy.New(p.bridge.x, p.batch, p.d)))
			require.ErrorContains(t, session().stepPeer(t.Context(), p), "element 1 of the bridge")
		}
	}
}

// The tables of the page compare medians with those of the same step.
func TestLightTables(t *testing.T) {
	ours := goodRow()
	ours.Suite, ours.Name, ours.Residual = "light", stepName(run.LightSB), nil
	ours.Error, ours.Budget, ours.Seconds = pointer(1e-7), 1e-6, Sum([]float64{.001, .002, .003})
	ours.Work = Work{N: 512, D: 2, K: 50, Precision: "f32", Workers: 2}
	theirs, other := ours, ours
	theirs.Engine, theirs.Version, theirs.Seconds = pyTorch, "PyTorch 0", Sum([]float64{.05})
	other.Name = stepName(run.LightSBM)
	trained, sampled := ours, ours
	trained.Name, trained.Note, trained.Seconds = trainingName, "W2 0.4", Sum([]float64{4})
	sampled.Name, sampled.Settings = samplingName, "β = 10"
	var b bytes.Buffer
	lightTables(&b, []Row{ours, theirs, other, trained, sampled})
	text := b.String()
	for _, want := range []string{
		"| lightsb | 512 | 2 | 50 | pytorch | 50.0 | 50.0 | 0 % | 1 | 2 | 25.0 | 1e-07 of 1e-06 |",
		"| lightsb-m | 512 | 2 | 50 | fortet | 2.00 | 1.00 | 100 % | 3 | 2 | 1.00 |",
		"4.00 s (wanted: under 10)", "W2 0.4", "| β = 10 | 512 |", "Versions: PyTorch 0",
	} {
		require.Contains(t, text, want)
	}
	b.Reset()
	lightTables(&b, nil)
	require.Empty(t, b.String())
}

// Fortet and the re-statement are judged by the same code, PyTorch by the ends that
// it leaves. It is a script here, which moves nothing.
func TestPublishedRows(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("not run: the stand-in is a shell script")
	}
	env := t.TempDir()
	t.Setenv("FORTET_PEERS", env)
	require.NoError(t, os.MkdirAll(filepath.Join(env, "bin"), 0o755))
	script := "#!/bin/sh\ncp \"$3/starts.npy\" \"$3/ends.npy\"\n" + `echo '{"version":"PyTorch 0","seconds":2}'` + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(env, "bin", "python"), []byte(script), 0o755))
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	s := &Session{Options: Options{Quick: true, Log: &bytes.Buffer{}, Limit: time.Minute, Root: ".."}, Provenance: goodRow().Provenance, suite: "light"}
	require.NoError(t, s.published(t.Context(), dev))
	require.Len(t, s.Rows, 4)
	for i, r := range s.Rows {
		require.NoError(t, r.Validate())
		require.Equal(t, []string{Fortet, pyTorch}[i%2], r.Engine)
	}
	require.Equal(t, "PyTorch 0", s.Rows[3].Version)
	require.Greater(t, *s.Rows[3].Error, *s.Rows[2].Error) // a trained plan is better than none
	require.Len(t, publishedTable(s.Rows), 4)

	e := &experiment{publication: publications()[1]}
	for figure, want := range map[float64]Status{0.339 + 0.19: OK, 0.339 + 0.21: Wrong} {
		r := e.row(pyTorch, "", figure, 0.3, 1, "")
		r.Judge()
		require.Equal(t, want, r.Status)
	}
}

// Conditional moments of a known plan are those of its draws.
func TestKnownPlan(t *testing.T) {
	dev, err := gpu.Open("cpu")
	require.NoError(t, err)
	defer dev.Close()
	e := &experiment{publication: publications()[2], quick: true}
	require.NoError(t, e.open(t.Context(), dev))
	defer e.truth.Close()
	own, err := e.truth.Sample(t.Context(), e.starts, sbb.Draw{Seed: 5})
	require.NoError(t, err)
	figure, _, err := e.figure(t.Context(), own)
	require.NoError(t, err)
	require.Less(t, figure, 0.05) // of 1000 draws each, in percent of the target's variance
	for i := range own {
		own[i] += 0.5
	}
	moved, _, err := e.figure(t.Context(), own)
	require.NoError(t, err)
	require.Greater(t, moved, 10*figure)
	own[3] = math.NaN()
	spoiled, _, err := e.figure(t.Context(), own)
	require.NoError(t, err)
	require.True(t, math.IsNaN(spoiled))
}
