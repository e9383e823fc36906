package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor/npy"
)

// call runs the program in an empty folder's name space: dir is where relative
// names of the test lie.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errw bytes.Buffer
	code = execute(t.Context(), args, &out, &errw)
	return code, out.String(), errw.String()
}

// object runs a command that must print one JSON object and nothing else.
func object(t *testing.T, want int, args ...string) map[string]any {
	t.Helper()
	code, stdout, stderr := call(t, args...)
	require.Equal(t, want, code, stderr)
	var v map[string]any
	d := json.NewDecoder(strings.NewReader(stdout))
	require.NoError(t, d.Decode(&v), stdout)
	require.False(t, d.More(), "more than one object on stdout: %s", stdout)
	return v
}

// at walks into an object.
func at(t *testing.T, v any, path ...string) any {
	t.Helper()
	for _, key := range path {
		m, ok := v.(map[string]any)
		require.True(t, ok, "%s: not an object", key)
		v, ok = m[key]
		require.True(t, ok, "no %q", key)
	}
	return v
}

func float(t *testing.T, v any, path ...string) float64 {
	t.Helper()
	x, ok := at(t, v, path...).(float64)
	require.True(t, ok, "%v is no number", path)
	return x
}

func save(t *testing.T, path string, data []float64, shape ...int) string {
	t.Helper()
	require.NoError(t, npy.WriteFile(path, npy.New(data, shape...)))
	return path
}

// line is the three-against-four example on a line.
func line(t *testing.T) (dir string, args []string) {
	t.Helper()
	dir = t.TempDir()
	x := save(t, filepath.Join(dir, "x.npy"), []float64{0, 1, 2.5}, 3, 1)
	y := save(t, filepath.Join(dir, "y.npy"), []float64{-.5, .5, 1.5, 3}, 4, 1)
	a := save(t, filepath.Join(dir, "a.npy"), []float64{.2, .3, .5}, 3)
	b := save(t, filepath.Join(dir, "b.npy"), []float64{.1, .4, .3, .2}, 4)
	return dir, []string{"--source", "npy:" + x, "--target", "npy:" + y, "--source-weights", a, "--target-weights", b, "--epsilon", "0.5", "--tol", "1e-10"}
}

func near(t *testing.T, want, got, budget float64, what string) {
	t.Helper()
	if !(math.Abs(got-want) <= budget) {
		t.Errorf("%s: got %.12g, want %.12g within %.2g", what, got, want, budget)
	}
}

func TestSolve(t *testing.T) {
	dir, args := line(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	v := object(t, 0, append([]string{"solve", "--potentials", file("p.npz"), "--map", file("m.npy"), "--plan", file("plan.npy"), "--plot", file("plot.png")}, args...)...)
	require.Equal(t, "converged", at(t, v, "status"))
	near(t, .5270816481, float(t, v, "transport_cost"), 1e-9, "transport_cost")
	near(t, .8602608645, float(t, v, "primal"), 1e-9, "primal")
	near(t, .8602608645, float(t, v, "dual"), 1e-9, "dual")
	near(t, 1, float(t, v, "mass"), 1e-9, "mass")
	near(t, float(t, v, "primal")-float(t, v, "dual"), float(t, v, "gap"), 1e-15, "gap")
	near(t, 0, float(t, v, "marginal_error", "source"), 1e-10, "source error")
	near(t, 0, float(t, v, "marginal_error", "target"), 1e-10, "target error")
	for key, want := range map[string]any{"n": 3.0, "m": 4.0, "d": 1.0, "cost": "sqeuclidean", "epsilon": .5} {
		require.Equal(t, want, at(t, v, "problem", key), key)
	}

	z, err := npy.ReadNPZFile(file("p.npz"))
	require.NoError(t, err)
	get := func(name string) []float64 {
		a, err := z.Get(name)
		require.NoError(t, err)
		return a.Float64s()
	}
	f, g, a, b, eps := get("f"), get("g"), get("a"), get("b"), get("epsilon")[0]
	plan, err := npy.ReadFile(file("plan.npy"))
	require.NoError(t, err)
	require.Equal(t, []int{3, 4}, plan.Shape)
	x, y := []float64{0, 1, 2.5}, []float64{-.5, .5, 1.5, 3}
	for i := range x {
		for j := range y {
			c := (x[i] - y[j]) * (x[i] - y[j])
			near(t, a[i]*b[j]*math.Exp((f[i]+g[j]-c)/eps), plan.Float64s()[i*4+j], 1e-14, "plan entry from the potentials")
		}
	}
	mapped, err := npy.ReadFile(file("m.npy"))
	require.NoError(t, err)
	require.Equal(t, []int{3, 1}, mapped.Shape)
	near(t, .023949276, mapped.Float64s()[0], 2e-9, "barycentric map")
	png, err := os.ReadFile(file("plot.png"))
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(png, []byte("\x89PNG")))

	v = object(t, 0, "bridge", "--potentials", file("p.npz"), "--source", "npy:"+file("x.npy"), "--target", "npy:"+file("y.npy"),
		"--paths", "50", "--times", "5", "--out", file("w.npy"), "--plot", file("w.png"), "--seed", "4")
	require.Equal(t, .25, at(t, v, "variance"), "half of ε for the squared cost")
	w, err := npy.ReadFile(file("w.npy"))
	require.NoError(t, err)
	require.Equal(t, []int{50, 5, 1}, w.Shape)
	for s := range 50 {
		require.Contains(t, x, w.Float64s()[s*5], "paths begin at source points")
		require.Contains(t, y, w.Float64s()[s*5+4], "paths end at target points")
	}

	v = object(t, 0, "eval", "--generated", file("m.npy"), "--reference", "npy:"+file("y.npy"), "--metrics", "w2,moments", "--n", "2")
	float(t, v, "metrics", "w2", "value")
	require.NotNil(t, at(t, v, "metrics", "w2", "floor"))

	v = object(t, 0, "plot", file("w.npy"), "--out", file("again.svg"))
	require.Equal(t, "paths", at(t, v, "as"))
}

func TestDivergence(t *testing.T) {
	_, args := line(t)
	v := object(t, 0, append([]string{"divergence"}, args...)...)
	near(t, .3355582703, float(t, v, "divergence"), 1e-9, "divergence")
	near(t, .4797114733, float(t, v, "terms", "aa", "value"), 1e-9, "aa")
}

func TestCostMatrix(t *testing.T) {
	dir, args := line(t)
	c := make([]float64, 0, 12)
	for _, x := range []float64{0, 1, 2.5} {
		for _, y := range []float64{-.5, .5, 1.5, 3} {
			c = append(c, (x-y)*(x-y))
		}
	}
	path := save(t, filepath.Join(dir, "c.npy"), c, 3, 4)
	v := object(t, 0, append([]string{"solve", "--cost-matrix", path}, args[4:]...)...)
	near(t, .8602608645, float(t, v, "dual"), 1e-9, "dual")
}

func TestData(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "d.npy")
	v := object(t, 0, "data", "digits?class=3", "--out", out)
	require.Equal(t, 64.0, at(t, v, "d"))
	a, err := npy.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, []int{int(float(t, v, "n")), 64}, a.Shape)
}

func TestNotConverged(t *testing.T) {
	dir, _ := line(t)
	code, stdout, stderr := call(t, "solve", "--source", "8gaussians?n=300", "--target", "moons?n=300", "--epsilon", "1e-3", "--epsilon-scale", "mean",
		"--max-iter", "3", "--potentials", filepath.Join(dir, "p.npz"))
	require.Equal(t, 3, code)
	require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	require.Contains(t, stdout, `"status":"max-iterations"`)
	require.FileExists(t, filepath.Join(dir, "p.npz"))
}

func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errw bytes.Buffer
	code := execute(ctx, []string{"solve", "--source", "8gaussians", "--target", "moons", "--epsilon", "0.1", "--potentials", filepath.Join(dir, "p.npz")}, &out, &errw)
	require.Equal(t, 130, code)
	require.Empty(t, out.String())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "an interrupted command leaves no files")
}

// Bad input gets one line that names it, exit 2, and nothing written.
func TestBadInput(t *testing.T) {
	dir, good := line(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	nan := save(t, file("nan.npy"), []float64{0, math.NaN(), 1}, 3, 1)
	inf := save(t, file("inf.npy"), []float64{0, math.Inf(1), 1}, 3, 1)
	wide := save(t, file("wide.npy"), make([]float64, 6), 3, 2)
	empty := save(t, file("empty.npy"), nil, 0, 1)
	negative := save(t, file("negative.npy"), []float64{-.1, .6, .5}, 3)
	zeros := save(t, file("zeros.npy"), make([]float64, 3), 3)
	short := save(t, file("short.npy"), []float64{1, 2}, 2)
	require.NoError(t, os.WriteFile(file("cut.npy"), []byte("\x93NUMPY\x01\x00\xff"), 0o600))
	require.NoError(t, os.WriteFile(file("text.npy"), []byte("hello"), 0o600))
	require.NoError(t, os.WriteFile(file("bad.csv"), []byte("a,b\n1,2\n3,x\n"), 0o600))
	require.NoError(t, os.WriteFile(file("cut.npz"), []byte("PK\x03\x04"), 0o600))
	with := func(flag, value string) []string {
		args := append([]string{"solve", "--potentials", file("out.npz")}, good...)
		for i := range args {
			if args[i] == flag {
				args[i+1] = value
				return args
			}
		}
		return append(args, flag, value)
	}
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"no command":       {nil, []string{"solve"}},
		"unknown command":  {[]string{"slove"}, []string{"slove", "solve"}},
		"unknown flag":     {[]string{"solve", "--sorce", "x"}, []string{"sorce"}},
		"no source":        {[]string{"solve", "--epsilon", "1"}, []string{"--source"}},
		"no epsilon":       {[]string{"solve", "--source", "moons", "--target", "moons"}, []string{"--epsilon"}},
		"epsilon 0":        {with("--epsilon", "0"), []string{"--epsilon", "0"}},
		"epsilon negative": {with("--epsilon", "-1"), []string{"--epsilon", "-1"}},
		"epsilon NaN":      {with("--epsilon", "NaN"), []string{"--epsilon", "NaN"}},
		"epsilon word":     {with("--epsilon", "small"), []string{"epsilon", "small"}},
		"unknown set":      {with("--source", "8gausians"), []string{"8gausians", "8gaussians"}},
		"missing file":     {with("--source", "npy:"+file("none.npy")), []string{"none.npy"}},
		"NaN":              {with("--source", "npy:"+nan), []string{"nan.npy", "NaN"}},
		"Inf":              {with("--source", "npy:"+inf), []string{"inf.npy", "Inf"}},
		"dimensions":       {with("--source", "npy:"+wide), []string{"2", "1"}},
		"empty":            {with("--source", "npy:"+empty), []string{"empty.npy"}},
		"negative weights": {with("--source-weights", negative), []string{"source weights", "-0.1"}},
		"zero weights":     {with("--source-weights", zeros), []string{"source weights", "0"}},
		"short weights":    {with("--source-weights", short), []string{"short.npy", "(2,)", "3"}},
		"truncated npy":    {with("--source", "npy:"+file("cut.npy")), []string{"cut.npy"}},
		"not an npy":       {with("--source", "npy:"+file("text.npy")), []string{"text.npy"}},
		"bad csv":          {with("--source", "csv:"+file("bad.csv")), []string{"bad.csv", "x"}},
		"cost":             {with("--cost", "manhattan"), []string{"manhattan", "sqeuclidean"}},
		"scale":            {with("--epsilon-scale", "median"), []string{"median", "mean"}},
		"acceleration":     {with("--acceleration", "warp"), []string{"warp", "anderson"}},
		"divergence":       {with("--divergence", "chi"), []string{"chi", "kl"}},
		"rho":              {with("--rho-source", "-2"), []string{"--rho-source", "-2"}},
		"tol":              {with("--tol", "0"), []string{"--tol"}},
		"device":           {with("--device", "tpu"), []string{"tpu", "cuda"}},
		"no gpu":           {with("--device", "cuda:99"), []string{"cuda"}},
		"dtype":            {with("--dtype", "f16"), []string{"f16", "f32"}},
		"workers":          {with("--workers", "-1"), []string{"--workers", "-1"}},
		"unwritable":       {with("--potentials", file("no/such/folder/p.npz")), []string{"--potentials", "no/such/folder"}},
		"plot suffix":      {with("--plot", file("p.jpeg")), []string{"p.jpeg", ".png"}},
		"bridge without":   {[]string{"bridge"}, []string{"--potentials"}},
		"bridge npz":       {[]string{"bridge", "--potentials", file("cut.npz"), "--out", file("o.npy"), "--source", "moons", "--target", "moons"}, []string{"cut.npz"}},
		"eval metrics":     {[]string{"eval", "--generated", wide, "--reference", "moons", "--metrics", "w3"}, []string{"w3", "w2"}},
		"eval dimension":   {[]string{"eval", "--generated", file("x.npy"), "--reference", "moons"}, []string{"1", "2"}},
		"data":             {[]string{"data"}, []string{"data"}},
		"data option":      {[]string{"data", "moons?noize=1"}, []string{"noize", "noise"}},
		"plot scalar":      {[]string{"plot", short, "--out", file("o.png")}, []string{"(2,)"}},
		"two files":        {with("--map", file("out.npz")), []string{"--potentials", "--map"}},
		"argument":         {with("--quiet=true", "x"), []string{"x"}},
		"full disk":        {with("--potentials", "/dev/full"), []string{"/dev/full"}},
	} {
		t.Run(name, func(t *testing.T) {
			before, err := os.ReadDir(dir)
			require.NoError(t, err)
			code, stdout, stderr := call(t, c.args...)
			require.Equal(t, 2, code, "%s%s", stdout, stderr)
			lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
			last := lines[len(lines)-1]
			require.True(t, strings.HasPrefix(last, "fortet: "), stderr)
			if name != "no command" {
				require.Len(t, lines, 1, "one line: %s", stderr)
			}
			for _, s := range c.says {
				require.Contains(t, last, s)
			}
			require.Empty(t, stdout)
			after, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(before), fmt.Sprint(after), "something was written")
		})
	}
}

func TestHelp(t *testing.T) {
	code, stdout, _ := call(t, "--help")
	require.Zero(t, code)
	for _, c := range commands {
		require.Contains(t, stdout, c.name)
		code, help, stderr := call(t, c.name, "--help")
		require.Zero(t, code, stderr)
		require.Contains(t, help, c.example)
		require.Contains(t, help, "--seed")
	}
}

func TestGlobalFlagsBeforeTheCommand(t *testing.T) {
	v := object(t, 0, "--device", "cpu", "--json-pretty", "--dtype", "f64", "solve", "--source", "moons?n=50", "--target", "8gaussians?n=40", "--epsilon", "1")
	require.Equal(t, "f64", at(t, v, "problem", "dtype"))
	require.Equal(t, "cpu", at(t, v, "problem", "device"))
}

func TestDoctor(t *testing.T) {
	v := object(t, 0, "doctor", "--json")
	devices := at(t, v, "devices").([]any)
	require.GreaterOrEqual(t, len(devices), 3)
	first := devices[0].(map[string]any)
	require.Equal(t, "cpu", first["name"])
	require.Equal(t, true, first["available"])
	require.NotEmpty(t, first["kernels"])
	code, stdout, _ := call(t, "doctor")
	require.Zero(t, code)
	require.Contains(t, stdout, "cuda")
}

func TestDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	file := func(name string) string { return filepath.Join(dir, name) }
	// A run of digits that is there already is replaced.
	object(t, 0, "train", "lightsbb", "--source", "digits?class=1", "--target", "digits?class=2", "--components", "3", "--steps", "2", "--batch", "8", "--out", file("run"))
	v := object(t, 0, "demo", "--out", dir, "--steps", "40", "--quiet", "--seed", "5")
	require.Equal(t, file("report.html"), at(t, v, "report"))
	require.Equal(t, file("run"), at(t, v, "run"))
	require.Equal(t, "done", at(t, v, "train", "status"))
	require.Equal(t, 40.0, at(t, v, "train", "steps"))
	dual, primal := float(t, v, "train", "metrics", "dual"), float(t, v, "train", "metrics", "primal")
	near(t, primal-dual, float(t, v, "train", "metrics", "gap"), 1e-12, "gap")
	w2 := at(t, v, "metrics").([]any)[0]
	require.Equal(t, "w2", at(t, w2, "name"))
	// Even so few steps lead from the one digit towards the other.
	require.Less(t, float(t, w2, "after"), float(t, w2, "before"))
	require.Greater(t, float(t, w2, "floor", "mean"), 0.0)

	data, err := os.ReadFile(file("report.html"))
	require.NoError(t, err)
	embedded := regexp.MustCompile(`src="data:image/png;base64,[A-Za-z0-9+/=]+"`)
	page := html.UnescapeString(string(data))
	pictures := len(embedded.FindAllString(page, -1))
	page = embedded.ReplaceAllString(page, "")
	// Paths, digits three times, and those of the nine small bridges four times;
	// the training curve.
	require.Equal(t, demoPaths*demoTimes+3*demoDigits+9*4*demoFew+1, pictures)
	require.NotContains(t, page, "src=", "the page works without other files")
	require.NotContains(t, page, "http:", "and without a network")
	require.NotContains(t, page, "https:")
	require.NotContains(t, page, "NaN")
	require.NotContains(t, page, "ZgotmplZ", "the template did not trust a value")
	for _, name := range []string{"paths.png", "ends.png", "training.png"} {
		png, err := os.ReadFile(file(name))
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(png, []byte("\x89PNG")), name)
	}

	// The run is one like others.
	v = object(t, 0, "sample", file("run"), "--n", "5", "--out", file("x.npy"))
	require.Equal(t, 64.0, at(t, v, "d"))
	v = object(t, 0, "eval", file("run"), "--metrics", "sw2")
	require.Equal(t, 40.0, at(t, v, "step"))
}

// The demo replaces no run that it did not make, and leaves no part of a report.
func TestDemoRefuses(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "run")
	object(t, 0, "train", "lightsbb", "--source", "normal", "--target", "8gaussians", "--components", "3", "--steps", "2", "--batch", "8",
		"--set", "data.pool=50", "--out", mine)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--out", dir}, "none of the demo"},
		{[]string{"--from", "10"}, "digit 10"},
		{[]string{"--steps", "3"}, "--steps"},
		{[]string{"now"}, "now"},
	} {
		code, stdout, stderr := call(t, append([]string{"demo"}, c.args...)...)
		require.Equal(t, 2, code, stderr)
		require.Contains(t, stderr, c.says)
		require.Empty(t, stdout)
	}
	require.FileExists(t, filepath.Join(mine, "checkpoints", "step-000000002.safetensors"))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "the run alone")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir = filepath.Join(t.TempDir(), "demo")
	var out, errw bytes.Buffer
	require.Equal(t, 130, execute(ctx, []string{"demo", "--out", dir}, &out, &errw))
	require.Empty(t, out.String())
	left, err = os.ReadDir(dir)
	require.NoError(t, err)
	for _, f := range left {
		require.Equal(t, "run", f.Name(), "a run that can go on, and no part of a report")
	}
}
