package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor/npy"
)

// divergenceWords are all words of --divergence.
var divergenceWords = []string{"kl", "reverse-kl", "chi2", "neyman", "hellinger", "js", "alpha=1.5", "alpha=3", "alpha=0.5", "alpha=-1", "tv"}

// matrixLine is line with the costs as a matrix and another epsilon.
func matrixLine(t *testing.T, epsilon string) (dir string, args []string) {
	t.Helper()
	dir, args = line(t)
	var c []float64
	for _, x := range []float64{0, 1, 2.5} {
		for _, y := range []float64{-.5, .5, 1.5, 3} {
			c = append(c, (x-y)*(x-y))
		}
	}
	return dir, append([]string{"--cost-matrix", save(t, filepath.Join(dir, "c.npy"), c, 3, 4)}, with(args[4:], "--epsilon", epsilon)...)
}

// with replaces the value of a flag.
func with(args []string, flag, value string) []string {
	args = slices.Clone(args)
	args[slices.Index(args, flag)+1] = value
	return args
}

func matrix(t *testing.T, path string, shape ...int) []float64 {
	t.Helper()
	a, err := npy.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, shape, a.Shape)
	return a.Float64s()
}

func solved(t *testing.T, v map[string]any, word, problem string) {
	t.Helper()
	require.Equal(t, "converged", at(t, v, "status"))
	require.Equal(t, word, at(t, v, "problem", "divergence"))
	require.Equal(t, problem, at(t, v, "problem", "kind"))
	near(t, float(t, v, "primal")-float(t, v, "dual"), float(t, v, "gap"), 1e-15, "gap")
	near(t, 0, float(t, v, "gap"), 1e-8, word+" "+problem+": gap")
	near(t, 1, float(t, v, "mass"), 1e-9, "mass")
	near(t, 0, float(t, v, "marginal_error", "source"), 1e-10, "source error")
	near(t, 0, float(t, v, "marginal_error", "target"), 1e-10, "target error")
	float(t, v, "iterations")
	float(t, v, "seconds")
	require.NotNil(t, at(t, v, "stages"))
}

// The oracle of the Gibbs problem between two marginals: values, and first rows of plans.
func TestSolveGibbs(t *testing.T) {
	dir, args := matrixLine(t, "2")
	plan := filepath.Join(dir, "plan.npy")
	for _, c := range []struct {
		word  string
		value float64
		row   []float64
	}{
		{"kl", .0712302227, []float64{.061531884, .118778164, .019259782, .000430169}},
		{"reverse-kl", .0647634660, []float64{.052075154, .123339883, .02401509, .000569873}},
		{"chi2", .1449202167, []float64{.062206902, .12173563, .015769705, .000287763}},
		{"neyman", .1038663345, []float64{.038821357, .132762687, .027735439, .000680518}},
		{"hellinger", .0346882906, []float64{.060107213, .118175813, .021227365, .000489608}},
		{"js", .0341789646, []float64{.058503117, .119443522, .021554248, .000499113}},
		{"alpha=1.5", .0720775549, nil},
		{"alpha=3", .0735253726, []float64{.062647337, .124739415, .012613248, 0}},
		{"alpha=0.5", .0693765811, nil},
		{"alpha=-1", .0519331673, nil},
		{"tv", .1008332894, nil},
	} {
		v := object(t, 0, append([]string{"solve", "--divergence", c.word, "--problem", "gibbs", "--plan", plan}, args...)...)
		solved(t, v, c.word, "gibbs")
		near(t, c.value, float(t, v, "primal"), 1e-9, c.word+": primal")
		near(t, c.value, float(t, v, "dual"), 1e-9, c.word+": dual")
		p := matrix(t, plan, 3, 4)
		for j, want := range c.row {
			near(t, want, p[j], 1e-9, fmt.Sprintf("%s: P[0, %d]", c.word, j))
		}
	}
}

// The values of quadratic regularisation, and of KL, which is entropic transport.
func TestSolveRegularised(t *testing.T) {
	dir, two := matrixLine(t, "2")
	plan := filepath.Join(dir, "plan.npy")
	chi2 := []string{"solve", "--divergence", "chi2", "--plan", plan}
	v := object(t, 0, append(chi2, two...)...)
	solved(t, v, "chi2", "regularised")
	near(t, 1.731453125, float(t, v, "primal"), 1e-9, "primal")
	for j, want := range []float64{.044375, .1155, .040125, 0} {
		near(t, want, matrix(t, plan, 3, 4)[j], 1e-10, "P[0]")
	}
	v = object(t, 0, append(chi2, with(two, "--epsilon", "1")...)...)
	near(t, 1.364, float(t, v, "primal"), 1e-9, "primal")
	near(t, 1.364, float(t, v, "dual"), 1e-9, "dual")
	cost := 0.0
	for k, want := range []float64{.055, .136, .009, 0, .045, .174, .081, 0, 0, .09, .21, .2} {
		p := matrix(t, plan, 3, 4)[k]
		near(t, want, p, 1e-10, "P")
		d := []float64{0, 1, 2.5}[k/4] - []float64{-.5, .5, 1.5, 3}[k%4]
		cost += want * d * d
	}
	near(t, cost, float(t, v, "transport_cost"), 1e-9, "transport_cost")

	half := with(two, "--epsilon", "0.5")
	for _, word := range []string{"kl", "alpha=1", "alpha=1.0"} { // whose limit it is
		v = object(t, 0, append([]string{"solve", "--divergence", word, "--acceleration", "overrelax"}, half...)...)
		solved(t, v, "kl", "regularised")
		near(t, .8602608645, float(t, v, "primal"), 1e-9, "primal")
	}
	zero := object(t, 0, append([]string{"solve", "--divergence", "alpha=0"}, half...)...)
	solved(t, zero, "reverse-kl", "regularised")
	v = object(t, 0, append([]string{"solve", "--divergence", "reverse-kl"}, half...)...)
	require.Equal(t, at(t, v, "primal"), at(t, zero, "primal"))
	for _, word := range divergenceWords {
		v = object(t, 0, append([]string{"solve", "--divergence", word, "--problem", "regularised"}, half...)...)
		solved(t, v, word, "regularised")
		// <C, P> is at least what exact transport costs, and the divergence at least 0.
		require.GreaterOrEqual(t, float(t, v, "transport_cost"), .475-1e-9, word)
		require.GreaterOrEqual(t, float(t, v, "primal"), float(t, v, "transport_cost"), word)
	}
}

// Of KL the Gibbs problem has the plan of entropic transport, which a constant added
// to a row of the costs does not change, even if it takes the reference's row below
// what float64 holds.
func TestGibbsOfKL(t *testing.T) {
	dir, args := matrixLine(t, "2")
	plan := filepath.Join(dir, "plan.npy")
	c := slices.Clone(matrix(t, args[1], 3, 4))
	for j := range 4 {
		c[j] += 2000
	}
	moved := with(args, "--cost-matrix", save(t, filepath.Join(dir, "moved.npy"), c, 3, 4))
	for _, args := range [][]string{args, moved} {
		solved(t, object(t, 0, append([]string{"solve", "--problem", "gibbs", "--plan", plan}, args...)...), "kl", "gibbs")
		for j, want := range []float64{.061531884, .118778164, .019259782, .000430169} {
			near(t, want, matrix(t, plan, 3, 4)[j], 1e-9, "P[0]")
		}
	}
}

// Every output of every divergence in both problems. The map is that of the plan; paths
// are those of Gibbs plans, and of entropic transport.
func TestSolveDivergenceFiles(t *testing.T) {
	dir, args := line(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	args = with(args, "--epsilon", "2")
	y := []float64{-.5, .5, 1.5, 3}
	for _, problem := range []string{"regularised", "gibbs"} {
		for _, word := range divergenceWords {
			what := word + " " + problem
			solved(t, object(t, 0, append([]string{"solve", "--divergence", word, "--problem", problem, "--potentials", file("p.npz"),
				"--map", file("m.npy"), "--plan", file("plan.npy"), "--plot", file("plot.png")}, args...)...), word, problem)
			plan := matrix(t, file("plan.npy"), 3, 4)
			mapped := matrix(t, file("m.npy"), 3, 1)
			for i := range 3 {
				mean, mass := 0.0, 0.0
				for j := range 4 {
					mean += plan[4*i+j] * y[j]
					mass += plan[4*i+j]
				}
				near(t, mean/mass, mapped[i], 1e-12, what+": map")
			}
			info, err := os.Stat(file("plot.png"))
			require.NoError(t, err)
			require.Positive(t, info.Size())
			z, err := npy.ReadNPZFile(file("p.npz"))
			require.NoError(t, err)
			for _, name := range []string{"f", "g", "a", "b", "epsilon", "cost", "divergence", "problem"} {
				require.True(t, z.Has(name), "%s: %s", what, name)
			}

			bridge := []string{"bridge", "--potentials", file("p.npz"), "--source", "npy:" + file("x.npy"), "--target", "npy:" + file("y.npy"),
				"--paths", "4000", "--times", "3", "--out", file("w.npy"), "--seed", "4"}
			require.NoError(t, os.RemoveAll(file("w.npy")))
			if problem == "regularised" && word != "kl" {
				code, stdout, stderr := call(t, bridge...)
				require.Equal(t, 2, code, what)
				require.Empty(t, stdout)
				require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
				require.Contains(t, stderr, "regularised by "+word)
				require.Contains(t, stderr, "--problem gibbs")
				require.NoFileExists(t, file("w.npy"))
				continue
			}
			v := object(t, 0, bridge...)
			require.Equal(t, 1.0, at(t, v, "variance"))
			w := matrix(t, file("w.npy"), 4000, 3, 1)
			count := make([]float64, 12)
			for s := range 4000 {
				i, j := slices.Index([]float64{0, 1, 2.5}, w[3*s]), slices.Index(y, w[3*s+2])
				require.True(t, i >= 0 && j >= 0, "%s: path %d ends at no point", what, s)
				count[4*i+j]++
			}
			for k, p := range plan { // 5 standard errors of a binomial, and 4 draws where few are expected
				near(t, p, count[k]/4000, 5*math.Sqrt(p/4000)+1e-3, fmt.Sprintf("%s: paths of pair %d", what, k))
			}
		}
	}
}

// The map of a cost matrix is the mean of the targets beside it.
func TestSolveDivergenceMatrixMap(t *testing.T) {
	dir, args := matrixLine(t, "2")
	file := func(name string) string { return filepath.Join(dir, name) }
	args = append(args, "--source", "npy:"+file("x.npy"), "--target", "npy:"+file("y.npy"))
	object(t, 0, append([]string{"solve", "--divergence", "js", "--map", file("1.npy")}, args...)...)
	object(t, 0, append([]string{"solve", "--divergence", "js", "--map", file("2.npy")}, args[2:]...)...)
	for i, want := range matrix(t, file("1.npy"), 3, 1) {
		near(t, want, matrix(t, file("2.npy"), 3, 1)[i], 1e-9, "map")
	}
	object(t, 0, append([]string{"solve", "--divergence", "js", "--problem", "gibbs", "--potentials", file("p.npz")}, args...)...)
	code, _, stderr := call(t, "bridge", "--potentials", file("p.npz"), "--source", "npy:"+file("x.npy"), "--target", "npy:"+file("y.npy"), "--out", file("w.npy"))
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "none between points")
}

// A total variation that is too large for a flow is smoothed, and says so.
func TestSolveSmoothedVariation(t *testing.T) {
	dir := t.TempDir()
	const n = 513 // 512² pairs are a flow
	x, y := make([]float64, n), make([]float64, n)
	for i := range x {
		x[i], y[i] = math.Sin(float64(i)), math.Cos(1.7*float64(i))
	}
	source, target := save(t, filepath.Join(dir, "x.npy"), x, n, 1), save(t, filepath.Join(dir, "y.npy"), y, n, 1)
	potentials := filepath.Join(dir, "p.npz")
	v := object(t, 0, "solve", "--source", "npy:"+source, "--target", "npy:"+target, "--epsilon", "1", "--epsilon-scale", "mean", "--tol", "1e-2",
		"--divergence", "tv", "--problem", "gibbs", "--potentials", potentials)
	require.Equal(t, .05, at(t, v, "problem", "smoothing"))
	require.Equal(t, "tv", at(t, v, "problem", "divergence"))
	require.GreaterOrEqual(t, float(t, v, "gap"), -1e-2)
	object(t, 0, "bridge", "--potentials", potentials, "--source", "npy:"+source, "--target", "npy:"+target, "--paths", "10", "--times", "3", "--out", filepath.Join(dir, "w.npy"))
}

func TestDivergenceNotConverged(t *testing.T) {
	_, args := matrixLine(t, "0.5")
	for _, problem := range []string{"regularised", "gibbs"} {
		code, stdout, stderr := call(t, append([]string{"solve", "--divergence", "js", "--problem", problem, "--max-iter", "1"}, args...)...)
		require.Equal(t, 3, code, stderr)
		require.Contains(t, stdout, `"status":"max-iterations"`)
		require.Contains(t, stderr, "did not reach the tolerance")
	}
}

func TestDivergenceInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, word := range []string{"js", "tv"} {
		for _, problem := range []string{"regularised", "gibbs"} {
			dir := t.TempDir()
			var out, errw bytes.Buffer
			code := execute(ctx, []string{"solve", "--source", "8gaussians?n=50", "--target", "moons?n=40", "--epsilon", "5", "--divergence", word, "--problem", problem,
				"--potentials", filepath.Join(dir, "p.npz")}, &out, &errw)
			require.Equal(t, 130, code, errw.String())
			require.Empty(t, out.String())
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		}
	}
}

// What does not fit a divergence is refused in one line, and nothing is written.
func TestBadDivergence(t *testing.T) {
	dir, points := line(t)
	_, args := matrixLine(t, "1")
	out := filepath.Join(dir, "out.npz")
	inf := math.Inf(1)
	alone := save(t, filepath.Join(dir, "alone.npy"), []float64{0, inf, inf, inf, 1, inf, inf, inf, 1, 1, 1, 1}, 3, 4)
	sparse := save(t, filepath.Join(dir, "sparse.npy"), []float64{0, 1, 2, inf, 1, 1, 1, 1, 1, 1, 1, 1}, 3, 4)
	far := save(t, filepath.Join(dir, "far.npy"), []float64{0, .5, 1, 60}, 4, 1)
	heavy := save(t, filepath.Join(dir, "heavy.npy"), []float64{.13, .52, .39, .26}, 4)
	negative := save(t, filepath.Join(dir, "negative.npy"), []float64{-.1, .6, .5}, 3)
	nan := save(t, filepath.Join(dir, "nan.npy"), append(make([]float64, 11), math.NaN()), 3, 4)
	chi2 := func(more ...string) []string { return append([]string{"--divergence", "chi2"}, more...) }
	for name, c := range map[string]struct {
		args []string
		base []string
		says []string
	}{
		"word":              {[]string{"--divergence", "pearson"}, args, []string{"--divergence", "pearson", "chi2", "alpha=A"}},
		"problem":           {chi2("--problem", "bridge"), args, []string{"--problem", "bridge", "regularised or gibbs"}},
		"no alpha":          {[]string{"--divergence", "alpha"}, args, []string{"alpha=A"}},
		"empty alpha":       {[]string{"--divergence", "alpha="}, args, []string{"alpha=", "finite number"}},
		"alpha word":        {[]string{"--divergence", "alpha=big"}, args, []string{"alpha=big", "finite number"}},
		"alpha NaN":         {[]string{"--divergence", "alpha=NaN"}, args, []string{"alpha=NaN", "finite number"}},
		"alpha infinite":    {[]string{"--divergence", "alpha=inf"}, args, []string{"alpha=inf", "finite number"}},
		"alpha near 0":      {[]string{"--divergence", "alpha=1e-300"}, args, []string{"alpha", "1e-300", "0 itself"}},
		"alpha near 1":      {[]string{"--divergence", "alpha=1.00000001"}, args, []string{"alpha", "1.00000001", "1 itself"}},
		"rho":               {chi2("--rho-source", "1"), args, []string{"--rho-source", "chi2", "--divergence kl"}},
		"rho target":        {chi2("--rho-target", "1"), args, []string{"--rho-target", "chi2"}},
		"rho of gibbs":      {[]string{"--problem", "gibbs", "--rho-source", "1"}, args, []string{"--rho-source", "--problem gibbs", "--problem regularised"}},
		"penalty":           {chi2("--penalty", "tv"), args, []string{"--penalty", "chi2"}},
		"penalty of side":   {chi2("--penalty-source", "tv"), args, []string{"--penalty-source", "chi2"}},
		"penalty of target": {chi2("--penalty-target", "tv"), args, []string{"--penalty-target", "chi2"}},
		"overrelax":         {chi2("--acceleration", "overrelax"), args, []string{"overrelax", "chi2", "auto, none or anderson"}},
		"acceleration":      {chi2("--acceleration", "warp"), args, []string{"warp", "anderson"}},
		"gradient":          {chi2("--source-gradient", out), points, []string{"--source-gradient", "chi2"}},
		"epsilon":           {chi2(), with(args, "--epsilon", "0"), []string{"--epsilon", "0"}},
		"tol":               {chi2(), with(args, "--tol", "-1"), []string{"--tol", "-1"}},
		"masses":            {chi2(), with(args, "--target-weights", heavy), []string{"masses", "1.3"}},
		"negative":          {chi2(), with(args, "--source-weights", negative), []string{"source weights", "-0.1"}},
		"NaN":               {chi2(), with(args, "--cost-matrix", nan), []string{"NaN"}},
		"map":               {chi2("--map", filepath.Join(dir, "m.npy")), args, []string{"--map", "--source"}},
		"forbidden":         {chi2(), with(args, "--cost-matrix", alone), []string{"infeasible", "+Inf"}},
		"forbidden gibbs":   {chi2("--problem", "gibbs"), with(args, "--cost-matrix", alone), []string{"infeasible", "+Inf"}},
		"every pair":        {[]string{"--divergence", "reverse-kl"}, with(args, "--cost-matrix", sparse), []string{"infeasible", "pair (0, 3)", "reverse-kl"}},
		"far reference":     {[]string{"--divergence", "reverse-kl", "--problem", "gibbs"}, with(points, "--target", "npy:"+far), []string{"infeasible", "target point 3", "larger epsilon"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"solve"}, c.base...)
			args = append(append(args, "--potentials", filepath.Join(dir, "out2.npz")), c.args...)
			before, err := os.ReadDir(dir)
			require.NoError(t, err)
			code, stdout, stderr := call(t, args...)
			require.Equal(t, 2, code, "%s%s", stdout, stderr)
			require.Empty(t, stdout)
			require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
			for _, s := range c.says {
				require.Contains(t, stderr, s)
			}
			after, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(before), fmt.Sprint(after), "something was written")
		})
	}
	code, _, stderr := call(t, append([]string{"divergence", "--divergence", "chi2"}, points...)...)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "want kl")
}

// Files of potentials are not trusted, and those that do not say which problem they
// solve are entropic transport's.
func TestBridgePotentials(t *testing.T) {
	dir, args := line(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	args = with(args, "--epsilon", "2")
	bridge := func(path string) []string {
		return []string{"bridge", "--potentials", path, "--source", "npy:" + file("x.npy"), "--target", "npy:" + file("y.npy"), "--paths", "9", "--out", file("w.npy")}
	}
	change := func(from, name string, to *npy.Array) string {
		z, err := npy.ReadNPZFile(from)
		require.NoError(t, err)
		var changed npy.Archive
		for key, a := range z.All() {
			if key != name {
				changed.Set(key, a)
			}
		}
		if to != nil {
			changed.Set(name, to)
		}
		path := file("changed.npz")
		require.NoError(t, npy.WriteNPZFile(path, &changed, npy.Stored))
		return path
	}
	object(t, 0, append([]string{"solve", "--potentials", file("kl.npz")}, args...)...)
	object(t, 0, append([]string{"solve", "--potentials", file("tv.npz"), "--divergence", "tv", "--problem", "gibbs"}, args...)...)
	object(t, 0, append([]string{"solve", "--potentials", file("js.npz"), "--divergence", "js", "--problem", "gibbs"}, args...)...)

	object(t, 0, bridge(file("kl.npz"))...)
	want := matrix(t, file("w.npy"), 9, 11, 1)
	object(t, 0, bridge(change(change(file("kl.npz"), "divergence", nil), "problem", nil))...)
	require.Equal(t, want, matrix(t, file("w.npy"), 9, 11, 1))
	require.NoError(t, os.Remove(file("w.npy")))

	for _, c := range []struct {
		from, name string
		to         *npy.Array
		says       string
	}{
		{"tv.npz", "plan", nil, "do not say what its plan is"},
		{"tv.npz", "plan", npy.New(make([]float64, 6), 2, 3), "6 numbers, want 3 × 4"},
		{"tv.npz", "plan", npy.New(append(make([]float64, 11), -1), 3, 4), "entry 11 is -1"},
		{"js.npz", "plan", npy.New(make([]float64, 12), 3, 4), "want no matrix"},
		{"js.npz", "divergence", npy.Scalar(99.0), "divergence 99"},
		{"js.npz", "divergence", npy.Scalar(2.5), "divergence 2.5"},
		{"js.npz", "divergence", npy.New([]float64{1, 2}, 2), "2 numbers, want 1"},
		{"js.npz", "delta", npy.Scalar(1.0), "delta 1"},
		{"js.npz", "problem", npy.Scalar(7.0), "problem is 7"},
		{"js.npz", "logz", npy.Scalar(math.NaN()), "logz is NaN"},
		{"js.npz", "f", npy.New([]float64{0, math.Inf(1), 0}, 3), "entry 1 is +Inf"},
	} {
		code, stdout, stderr := call(t, bridge(change(file(c.from), c.name, c.to))...)
		require.Equal(t, 2, code, "%s %s: %s", c.from, c.name, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.says)
		require.NoFileExists(t, file("w.npy"))
	}
}
