package main

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor/npy"
)

// quickRun trains a small bridge and returns its folder.
func quickRun(t *testing.T, method string, more ...string) (string, map[string]any) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	args := append([]string{"train", method, "--source", "normal", "--target", "8gaussians", "--epsilon", "1", "--components", "16",
		"--steps", "300", "--batch", "128", "--lr", "0.05", "--set", "data.pool=5000", "--out", dir}, more...)
	return dir, object(t, 0, args...)
}

func finite(t *testing.T, what string, x []float64) {
	t.Helper()
	for i, v := range x {
		require.False(t, math.IsNaN(v) || math.IsInf(v, 0), "%s: number %d is %v", what, i, v)
	}
}

func TestTrainSampleEvalPlot(t *testing.T) {
	for _, method := range []string{"lightsb", "lightsb-m", "lightsbb", "lightsbb-m"} {
		t.Run(method, func(t *testing.T) {
			dir, v := quickRun(t, method, "--seed", "3")
			require.Equal(t, "done", at(t, v, "status"))
			require.Equal(t, method, at(t, v, "method"))
			require.Equal(t, 300.0, at(t, v, "steps"))
			// A lower and an upper bound of one number, within their errors.
			dual, primal := float(t, v, "metrics", "dual"), float(t, v, "metrics", "primal")
			require.Greater(t, dual, 0.0)
			require.Greater(t, primal, 0.0)
			near(t, primal-dual, float(t, v, "metrics", "gap"), 1e-9, "gap")

			file := func(name string) string { return filepath.Join(filepath.Dir(dir), name) }
			v = object(t, 0, "sample", dir, "--n", "500", "--out", file("x.npy"), "--times", "5", "--paths-out", file("p.npy"), "--plot", file("p.png"), "--seed", "8")
			require.Equal(t, 500.0, at(t, v, "n"))
			x, err := npy.ReadFile(file("x.npy"))
			require.NoError(t, err)
			p, err := npy.ReadFile(file("p.npy"))
			require.NoError(t, err)
			require.Equal(t, []int{500, 2}, x.Shape)
			require.Equal(t, []int{500, 5, 2}, p.Shape)
			finite(t, "ends", x.Float64s())
			finite(t, "paths", p.Float64s())
			for i := range 500 {
				near(t, x.Float64s()[2*i], p.Float64s()[i*10+8], 1e-5*(1+math.Abs(x.Float64s()[2*i])), "paths end at the samples")
			}

			// The same starts and seed give the same ends, however few.
			save(t, file("from.npy"), p.Float64s()[:2], 1, 2)
			object(t, 0, "sample", dir, "--from", "npy:"+file("from.npy"), "--out", file("one.npy"), "--seed", "8")
			one, err := npy.ReadFile(file("one.npy"))
			require.NoError(t, err)
			near(t, x.Float64s()[0], one.Float64s()[0], 1e-4, "sample of one row")

			v = object(t, 0, "eval", dir, "--metrics", "w2,moments", "--n", "400", "--repetitions", "2")
			// The target's modes lie five away from the origin: an untrained bridge is
			// at W2 of 4 and more.
			require.Less(t, float(t, v, "metrics", "w2", "value"), 2.0)
			require.NotNil(t, at(t, v, "metrics", "w2", "floor"))
			float(t, v, "certificate", "dual")
			require.Greater(t, float(t, v, "straightness"), 0.0)

			v = object(t, 0, "plot", dir)
			for _, path := range at(t, v, "plots").([]any) {
				png, err := os.ReadFile(path.(string))
				require.NoError(t, err)
				require.True(t, bytes.HasPrefix(png, []byte("\x89PNG")))
			}
		})
	}
}

// Euler and Maruyama's steps lead to the same law.
func TestSampleSteps(t *testing.T) {
	dir, _ := quickRun(t, "lightsbb")
	out := filepath.Join(dir, "..", "em.npy")
	object(t, 0, "sample", dir, "--n", "4000", "--steps", "100", "--out", out)
	em, err := npy.ReadFile(out)
	require.NoError(t, err)
	object(t, 0, "sample", dir, "--n", "4000", "--out", out)
	exact, err := npy.ReadFile(out)
	require.NoError(t, err)
	power := func(x []float64) (s float64) {
		for _, v := range x {
			s += v * v / float64(len(x)/2)
		}
		return s
	}
	// |x|² is about 25 with a standard deviation of at most 15 over 4,000 rows.
	near(t, power(exact.Float64s()), power(em.Float64s()), 4*math.Sqrt2*15/math.Sqrt(4000)+0.5, "mean of |x|²")
}

// A run that is interrupted exits with 130 after a checkpoint, and resumed ends
// as the one that was not.
func TestTrainInterruptedAndResumed(t *testing.T) {
	whole, _ := quickRun(t, "lightsbb-m", "--set", "light.outer=3", "--set", "train.checkpoint_every=50", "--set", "train.log_every=50")
	for _, after := range []time.Duration{0, 20 * time.Millisecond} {
		dir := filepath.Join(t.TempDir(), "run")
		ctx, cancel := context.WithCancel(t.Context())
		var out, errw bytes.Buffer
		if after == 0 {
			cancel()
		} else {
			time.AfterFunc(after, cancel)
		}
		code := execute(ctx, []string{"train", "lightsbb-m", "--source", "normal", "--target", "8gaussians", "--epsilon", "1", "--components", "16",
			"--steps", "300", "--batch", "128", "--lr", "0.05", "--set", "data.pool=5000", "--out", dir,
			"--set", "light.outer=3", "--set", "train.checkpoint_every=50", "--set", "train.log_every=50"}, &out, &errw)
		cancel()
		if code != 0 { // a fast machine may have finished
			require.Equal(t, 130, code, errw.String())
			require.Equal(t, 1, strings.Count(errw.String(), "\n"), errw.String())
		}
		v := object(t, 0, "train", "lightsbb-m", "--out", dir, "--resume")
		require.Equal(t, "done", at(t, v, "status"))
		name := filepath.Join("checkpoints", "step-000000300.safetensors")
		want, err := os.ReadFile(filepath.Join(whole, name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "the resumed run differs")
		a, err := os.ReadFile(filepath.Join(whole, "metrics.jsonl"))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(dir, "metrics.jsonl"))
		require.NoError(t, err)
		require.Equal(t, string(a), string(b))
	}
}

// A damaged checkpoint is named, and the one before it is used.
func TestDamagedCheckpoint(t *testing.T) {
	dir, _ := quickRun(t, "lightsb", "--set", "train.checkpoint_every=100")
	last := filepath.Join(dir, "checkpoints", "step-000000300.safetensors")
	raw, err := os.ReadFile(last)
	require.NoError(t, err)
	raw[len(raw)-3] ^= 1
	require.NoError(t, os.WriteFile(last, raw, 0o600))
	out := filepath.Join(t.TempDir(), "x.npy")
	code, stdout, stderr := call(t, "sample", dir, "--n", "10", "--out", out)
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "step-000000300.safetensors")
	require.Contains(t, stderr, "step-000000200.safetensors")
	require.Contains(t, stdout, `"step":200`)
	code, _, stderr = call(t, "train", "lightsb", "--out", dir, "--resume", "--quiet")
	require.Zero(t, code, stderr)
	require.Contains(t, stderr, "step-000000300.safetensors")
}

// Hard data gives finite output and an honest word.
func TestTrainHardData(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	var constant, far, many []float64
	for i := range 200 {
		u := math.Sin(float64(i)) * 2
		constant = append(constant, u, 7)
		far = append(far, 1e6+u, -1e6+math.Cos(float64(3*i)))
		many = append(many, u, math.Cos(float64(i)))
	}
	save(t, file("constant.npy"), constant, 200, 2)
	save(t, file("far.npy"), far, 200, 2)
	save(t, file("many.npy"), many, 200, 2)
	save(t, file("single.npy"), []float64{3, 4}, 1, 2)
	for name, c := range map[string]struct {
		source, target string
		more           []string
	}{
		"constant coordinate": {"many", "constant", []string{"--components", "8"}},
		"far target":          {"many", "far", []string{"--components", "8"}},
		"single target":       {"many", "single", []string{"--components", "1"}},
		"single source":       {"single", "many", []string{"--components", "8"}},
		"two points":          {"single", "single", []string{"--components", "1"}},
		"small epsilon":       {"many", "far", []string{"--components", "8", "--epsilon", "1e-4"}},
		"small beta":          {"many", "constant", []string{"--components", "8", "--beta", "0.01"}},
		"full covariance":     {"many", "constant", []string{"--components", "4", "--covariance", "full"}},
	} {
		for _, method := range []string{"lightsb", "lightsbb"} {
			if method == "lightsb" && name == "small beta" {
				continue
			}
			t.Run(name+"/"+method, func(t *testing.T) {
				run := filepath.Join(t.TempDir(), "run")
				args := append([]string{"train", method, "--source", "npy:" + file(c.source+".npy"), "--target", "npy:" + file(c.target+".npy"),
					"--epsilon", "0.5", "--steps", "100", "--batch", "64", "--out", run}, c.more...)
				object(t, 0, args...)
				out := filepath.Join(run, "..", "x.npy")
				object(t, 0, "sample", run, "--n", "300", "--out", out)
				x, err := npy.ReadFile(out)
				require.NoError(t, err)
				finite(t, "ends", x.Float64s())
			})
		}
	}
}

func TestTrainBadInput(t *testing.T) {
	dir, done := t.TempDir(), ""
	done, _ = quickRun(t, "lightsb")
	other := filepath.Join(dir, "other")
	require.NoError(t, os.MkdirAll(other, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(other, "thesis.tex"), []byte("x"), 0o600))
	newer := filepath.Join(dir, "newer")
	require.NoError(t, os.CopyFS(newer, os.DirFS(done)))
	config, err := os.ReadFile(filepath.Join(newer, "config.yaml"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(newer, "config.yaml"), bytes.Replace(config, []byte("version: 1"), []byte("version: 99"), 1), 0o600))
	x := save(t, filepath.Join(dir, "x.npy"), []float64{1, 2, 3, 4, 5, 6}, 3, 2)
	fresh := filepath.Join(dir, "fresh")
	with := func(method string, more ...string) []string {
		return append([]string{"train", method, "--source", "normal", "--target", "8gaussians", "--steps", "5", "--out", fresh}, more...)
	}
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"no method":         {[]string{"train"}, []string{"lightsb", "lightsbb-m"}},
		"unknown method":    {[]string{"train", "sinkhorn", "--out", fresh}, []string{"sinkhorn", "lightsb"}},
		"no out":            {[]string{"train", "lightsb"}, []string{"--out"}},
		"no source":         {[]string{"train", "lightsb", "--target", "moons", "--out", fresh}, []string{"data.source"}},
		"unknown set":       {with("lightsb", "--source", "norml"), []string{"norml", "normal"}},
		"dimensions":        {with("lightsb", "--target", "student-t"), []string{"1", "2"}},
		"epsilon 0":         {with("lightsb", "--epsilon", "0"), []string{"epsilon", "0"}},
		"epsilon negative":  {with("lightsb", "--epsilon", "-1"), []string{"epsilon", "-1"}},
		"epsilon NaN":       {with("lightsb", "--epsilon", "NaN"), []string{"epsilon", "NaN"}},
		"beta 0":            {with("lightsbb", "--beta", "0"), []string{"beta", "0"}},
		"beta negative":     {with("lightsbb", "--beta", "-2"), []string{"beta", "-2"}},
		"beta NaN":          {with("lightsbb", "--beta", "NaN"), []string{"beta", "NaN"}},
		"beta of lightsb":   {with("lightsb", "--beta", "10"), []string{"beta", "inf"}},
		"beta no floor":     {with("lightsbb", "--beta", "0.8", "--set", "light.floor=none"), []string{"beta", "0.8", "floor"}},
		"components":        {with("lightsb", "--target", "npy:"+x, "--components", "4"), []string{"components", "4", "3"}},
		"components 0":      {with("lightsb", "--components", "0"), []string{"components", "0"}},
		"covariance":        {with("lightsb", "--covariance", "round"), []string{"round", "diagonal"}},
		"pca":               {with("lightsb", "--pca", "3"), []string{"pca", "3", "2"}},
		"key":               {with("lightsb", "--set", "light.sigma=1"), []string{"sigma", "light.epsilon"}},
		"no value":          {with("lightsb", "--set", "light.epsilon"), []string{"light.epsilon", "key=value"}},
		"config":            {with("lightsb", "--config", filepath.Join(dir, "none.yaml")), []string{"--config", "none.yaml"}},
		"exists":            {[]string{"train", "lightsb", "--source", "normal", "--target", "moons", "--out", done}, []string{done, "--resume", "--force"}},
		"not a run":         {[]string{"train", "lightsb", "--source", "normal", "--target", "moons", "--out", other, "--force"}, []string{"thesis.tex"}},
		"both":              {with("lightsb", "--resume", "--force"), []string{"--resume", "--force"}},
		"resume of nothing": {[]string{"train", "lightsb", "--out", fresh, "--resume"}, []string{fresh}},
		"resume other":      {[]string{"train", "lightsbb", "--out", done, "--resume"}, []string{"lightsbb", "lightsb"}},
		"resume with flags": {[]string{"train", "lightsb", "--out", done, "--resume", "--steps", "9"}, []string{"--steps"}},
		"another version":   {[]string{"sample", newer, "--out", filepath.Join(dir, "o.npy")}, []string{"version", "99", "1"}},
		"sample nothing":    {[]string{"sample"}, []string{"run"}},
		"sample no run":     {[]string{"sample", other, "--out", filepath.Join(dir, "o.npy")}, []string{other}},
		"sample no out":     {[]string{"sample", done}, []string{"--out"}},
		"sample n":          {[]string{"sample", done, "--n", "0", "--out", filepath.Join(dir, "o.npy")}, []string{"--n", "0"}},
		"sample from":       {[]string{"sample", done, "--from", "student-t", "--out", filepath.Join(dir, "o.npy")}, []string{"1", "2"}},
		"eval two":          {[]string{"eval", done, "--reference", "moons"}, []string{"--reference"}},
		"eval no run":       {[]string{"eval", other}, []string{other}},
		"plot out":          {[]string{"plot", done, "--out", filepath.Join(dir, "o.png")}, []string{"--out"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, c.args...)
			require.Equal(t, 2, code, "%s%s", stdout, stderr)
			lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
			require.Len(t, lines, 1, "one line: %s", stderr)
			require.True(t, strings.HasPrefix(lines[0], "fortet: "), stderr)
			for _, s := range c.says {
				require.Contains(t, lines[0], s)
			}
			require.Empty(t, stdout)
			require.NoDirExists(t, fresh, "something was written")
			require.NoFileExists(t, filepath.Join(dir, "o.npy"))
		})
	}
	// What was refused did not harm the run.
	var v map[string]any
	code, stdout, stderr := call(t, "eval", done, "--metrics", "moments", "--n", "100", "--repetitions", "1")
	require.Zero(t, code, stderr)
	require.NoError(t, json.Unmarshal([]byte(stdout), &v))
}
