package main

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor/npy"
)

// threeStates writes the example of the chain and of its generator.
func threeStates(t *testing.T) (file func(string) string) {
	t.Helper()
	dir := t.TempDir()
	file = func(name string) string { return filepath.Join(dir, name) }
	save(t, file("p.npy"), []float64{.7, .2, .1, .1, .8, .1, .2, .3, .5}, 3, 3)
	save(t, file("g.npy"), []float64{-1, .6, .4, .3, -.5, .2, .1, .9, -1}, 3, 3)
	save(t, file("mu.npy"), []float64{.6, .3, .1}, 3)
	save(t, file("nu.npy"), []float64{.2, .2, .6}, 3)
	return file
}

func archive(t *testing.T, path string) func(name string, shape ...int) []float64 {
	t.Helper()
	z, err := npy.ReadNPZFile(path)
	require.NoError(t, err)
	return func(name string, shape ...int) []float64 {
		a, err := z.Get(name)
		require.NoError(t, err)
		require.Equal(t, shape, a.Shape, name)
		return a.Float64s()
	}
}

func TestDiscreteChain(t *testing.T) {
	file := threeStates(t)
	v := object(t, 0, "discrete", "--transition", file("p.npy"), "--steps", "4", "--mu", file("mu.npy"), "--nu", file("nu.npy"), "--tol", "1e-12",
		"--out", file("b.npz"), "--paths", "30", "--paths-out", file("paths.npy"), "--seed", "3")
	require.Equal(t, "converged", at(t, v, "status"))
	near(t, .490035044, float(t, v, "kl"), 1e-9, "kl")
	near(t, 0, float(t, v, "gap"), 1e-11, "gap")
	near(t, 0, float(t, v, "marginal_error", "source"), 1e-12, "source error")
	near(t, 0, float(t, v, "marginal_error", "target"), 1e-12, "target error")
	float(t, v, "iterations")
	float(t, v, "seconds")
	require.Equal(t, "chain", at(t, v, "problem", "reference"))
	require.Equal(t, 9., at(t, v, "problem", "nonzeros"))
	get := archive(t, file("b.npz"))
	laws, kernels := get("marginals", 5, 3), get("kernels", 4, 3, 3)
	near(t, .380336616, laws[6], 1e-9, "law of step 2")
	near(t, .694132857, kernels[0], 1e-9, "kernel")
	paths, err := npy.ReadFile(file("paths.npy"))
	require.NoError(t, err)
	require.Equal(t, []int{30, 5}, paths.Shape)
	for _, i := range paths.Float64s() {
		require.Contains(t, []float64{0, 1, 2}, i)
	}

	// The same as sparse rows, with a matrix for each step.
	var z npy.Archive
	p := []float64{.7, .2, .1, .1, .8, .1, .2, .3, .5}
	z.Set("indptr", npy.New([]int32{0, 3, 6, 9}))
	z.Set("indices", npy.New([]int32{0, 1, 2, 0, 1, 2, 0, 1, 2}))
	z.Set("data", npy.New(append(append([]float64(nil), p...), append(p, p...)...), 3, 9))
	z.Set("shape", npy.New([]int64{3, 3}))
	require.NoError(t, npy.WriteNPZFile(file("p.npz"), &z, npy.Stored))
	save(t, file("mid.npy"), []float64{.1, .1, .8}, 3)
	v = object(t, 0, "discrete", "--transition", file("p.npz"), "--mu", file("mu.npy"), "--nu", file("nu.npy"), "--through", "1="+file("mid.npy"), "--out", file("s.npz"))
	require.Equal(t, 27., at(t, v, "problem", "nonzeros"))
	require.Equal(t, 3., at(t, v, "problem", "steps"))
	float(t, v, "marginal_error", "through", "1")
	get = archive(t, file("s.npz"))
	get("kernels", 3, 9)
	get("indptr", 4)
	get("indices", 9)
	get("shape", 2)
	near(t, .8, get("marginals", 4, 3)[5], 1e-9, "law on the way")
	object(t, 0, "discrete", "--transition", file("p.npz"), "--mu", file("mu.npy"), "--nu", file("nu.npy"), "--out", file("s.npz"), "--no-kernels", "--initial", file("nu.npy"))
	z2, err := npy.ReadNPZFile(file("s.npz"))
	require.NoError(t, err)
	require.Equal(t, []string{"marginals"}, z2.Names())
}

func TestDiscreteJump(t *testing.T) {
	file := threeStates(t)
	args := []string{"discrete", "--generator", file("g.npy"), "--horizon", "1.5", "--mu", file("mu.npy"), "--nu", file("nu.npy"), "--tol", "1e-12", "--times", "3"}
	v := object(t, 0, append(args, "--out", file("b.npz"), "--paths", "20", "--paths-out", file("paths.npz"))...)
	require.Equal(t, "jump", at(t, v, "problem", "reference"))
	require.Equal(t, 1.5, at(t, v, "problem", "horizon"))
	get := archive(t, file("b.npz"))
	require.Equal(t, []float64{0, .75, 1.5}, get("times", 3))
	get("marginals", 3, 3)
	rates := get("rates", 3, 3, 3)
	near(t, .417639718, rates[10], 1e-9, "rate at the middle")
	jumps := archive(t, file("paths.npz"))
	offsets := jumps("offsets", 21)
	times := jumps("times", int(offsets[20]))
	jumps("states", int(offsets[20]))
	require.Equal(t, 0., times[0])
	object(t, 0, append(args, "--paths", "20", "--paths-out", file("grid.npy"))...)
	grid, err := npy.ReadFile(file("grid.npy"))
	require.NoError(t, err)
	require.Equal(t, []int{20, 3}, grid.Shape)
}

func TestDiscreteNotConverged(t *testing.T) {
	file := threeStates(t)
	code, stdout, stderr := call(t, "discrete", "--transition", file("p.npy"), "--steps", "4", "--mu", file("mu.npy"), "--nu", file("nu.npy"), "--max-iter", "1")
	require.Equal(t, 3, code)
	require.Contains(t, stdout, `"status":"max-iterations"`)
	require.Contains(t, stderr, "did not reach the tolerance")
}

func TestDiscreteBadInput(t *testing.T) {
	file := threeStates(t)
	save(t, file("open.npy"), []float64{.7, .2, .2, .1, .8, .1, .2, .3, .5}, 3, 3)
	save(t, file("negative.npy"), []float64{1.1, -.1, 0, 1}, 2, 2)
	save(t, file("flat.npy"), []float64{1, 2}, 2)
	save(t, file("up.npy"), []float64{.5, .5, 0, 0, .5, .5, 0, 0, 1}, 3, 3)
	save(t, file("three.npy"), []float64{1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1}, 3, 3, 3)
	save(t, file("first.npy"), []float64{0, 1, 0}, 3)
	save(t, file("heavy.npy"), []float64{.6, .3, .2}, 3)
	save(t, file("two.npy"), []float64{.5, .5}, 2)
	require.NoError(t, os.WriteFile(file("text.npz"), []byte("no archive"), 0o600))
	var z npy.Archive
	z.Set("indptr", npy.New([]float64{0, .5}))
	z.Set("indices", npy.New([]int64{0}))
	z.Set("data", npy.New([]float64{math.NaN()}))
	z.Set("shape", npy.New([]int64{1, 1}))
	require.NoError(t, npy.WriteNPZFile(file("half.npz"), &z, npy.Stored))
	ends := []string{"--mu", file("mu.npy"), "--nu", file("nu.npy")}
	chain := append([]string{"--transition", file("p.npy"), "--steps", "4"}, ends...)
	jump := append([]string{"--generator", file("g.npy"), "--horizon", "1"}, ends...)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"want one of --transition and --generator", ends},
		{"want one of --transition and --generator", append(chain, "--generator", file("g.npy"))},
		{"unexpected argument", append(chain, "x")},
		{"--horizon belongs to --generator", append(chain, "--horizon", "1")},
		{"--steps belongs to --transition", append(jump, "--steps", "2")},
		{"--times belongs to --generator", append(chain, "--times", "2")},
		{"--times: got 1, want at least 2", append(jump, "--times", "1")},
		{"--steps is missing", append([]string{"--transition", file("p.npy")}, ends...)},
		{"--steps: got 0, want at least 1", append([]string{"--transition", file("p.npy"), "--steps", "0"}, ends...)},
		{"--steps: got 2, want 3", append([]string{"--transition", file("three.npy"), "--steps", "2"}, ends...)},
		{"--horizon: got 0, want a time above 0", append([]string{"--generator", file("g.npy")}, ends...)},
		{"--mu is missing", []string{"--transition", file("p.npy"), "--steps", "4"}},
		{"--nu is missing", []string{"--transition", file("p.npy"), "--steps", "4", "--mu", file("mu.npy")}},
		{"--tol: got 0", append(chain, "--tol", "0")},
		{"--max-iter: got 0", append(chain, "--max-iter", "0")},
		{"--paths and --paths-out want each other", append(chain, "--paths", "3")},
		{"--paths and --paths-out want each other", append(chain, "--paths-out", file("x.npy"))},
		{"--paths: got -1", append(chain, "--paths", "-1", "--paths-out", file("x.npy"))},
		{"want a .npy", append(chain, "--paths", "1", "--paths-out", file("x.npz"))},
		{"--no-kernels goes with --out", append(chain, "--no-kernels")},
		{"1000000000 kernels of 9 entries take 67.1 GiB", append([]string{"--transition", file("p.npy"), "--steps", "1000000000", "--out", file("x.npz")}, ends...)},
		{"steps: invalid problem: got 1000000000, want 1 to 10000000", append([]string{"--transition", file("p.npy"), "--steps", "1000000000"}, ends...)},
		{"has shape (2,), want (states, states) or (steps, states, states)", append([]string{"--transition", file("flat.npy"), "--steps", "4"}, ends...)},
		{"has shape (2,), want (3,)", append([]string{"--transition", file("p.npy"), "--steps", "4", "--mu", file("two.npy")}, "--nu", file("nu.npy"))},
		{"row 0 sums to 1.1, want 1", append([]string{"--transition", file("open.npy"), "--steps", "4"}, ends...)},
		{"entry (0, 1) is -0.1, want no negative one", append([]string{"--transition", file("negative.npy"), "--steps", "4"}, "--mu", file("two.npy"), "--nu", file("two.npy"))},
		{"row 0 sums to 1, want 0", append([]string{"--generator", file("p.npy"), "--horizon", "1"}, ends...)},
		{"source law: invalid problem: its mass is 1.1, want 1", []string{"--transition", file("p.npy"), "--steps", "4", "--mu", file("heavy.npy"), "--nu", file("nu.npy")}},
		{"infeasible problem: target state 0 (mass 0.2) cannot be reached from any source state in 4 steps", []string{"--transition", file("up.npy"), "--steps", "4", "--mu", file("first.npy"), "--nu", file("nu.npy")}},
		{"infeasible problem: source state 0 with mass 0.6 reaches in 3 steps only target state 0, with mass 0.2", append([]string{"--transition", file("three.npy")}, ends...)},
		{"want t=F.npy", append(chain, "--through", "x")},
		{"--through: got 4, want a place between the ends 0 and 4", append(chain, "--through", "4="+file("mu.npy"))},
		{"--through: 2 comes twice", append(chain, "--through", "2="+file("mu.npy"), "--through", "2="+file("mu.npy"))},
		{"--transition: npy:", append([]string{"--transition", file("text.npz"), "--steps", "4"}, ends...)},
		{"indptr", append([]string{"--transition", file("half.npz"), "--steps", "4"}, ends...)},
		{"no such file", append([]string{"--transition", file("none.npy"), "--steps", "4"}, ends...)},
	} {
		code, stdout, stderr := call(t, append([]string{"discrete"}, c.args...)...)
		require.Equal(t, 2, code, "%v: %s", c.args, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, c.want)
	}
	// A failure leaves no file.
	code, _, _ := call(t, "discrete", "--transition", file("up.npy"), "--steps", "4", "--mu", file("first.npy"), "--nu", file("nu.npy"), "--out", file("left.npz"))
	require.Equal(t, 2, code)
	require.NoFileExists(t, file("left.npz"))
}
