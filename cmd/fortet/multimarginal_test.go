package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor/npy"
)

// threeNodes is the example of three marginals on a line.
func threeNodes(t *testing.T) (dir string, args []string) {
	t.Helper()
	dir = t.TempDir()
	args = []string{"multimarginal", "--tol", "1e-11"}
	for k, node := range []struct{ x, w []float64 }{
		{[]float64{0, 1, 2.5}, []float64{.2, .3, .5}},
		{[]float64{-.5, .5, 1.5, 3}, []float64{.1, .4, .3, .2}},
		{[]float64{.3, 2}, []float64{.45, .55}},
	} {
		x := save(t, filepath.Join(dir, fmt.Sprintf("x%d.npy", k)), node.x, len(node.x), 1)
		w := save(t, filepath.Join(dir, fmt.Sprintf("w%d.npy", k)), node.w, len(node.w))
		args = append(args, "--marginal", "npy:"+x, "--marginal-weights", fmt.Sprintf("%d=%s", k, w))
	}
	return dir, args
}

func list(t *testing.T, v any, path ...string) []any {
	t.Helper()
	l, ok := at(t, v, path...).([]any)
	require.True(t, ok, "%v is no list", path)
	return l
}

func TestMultimarginal(t *testing.T) {
	dir, args := threeNodes(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	v := object(t, 0, append(args, "--edge", "0,1", "--edge", "1,2,1", "--epsilon", ".7", "--potentials", file("p.npz"),
		"--couplings", "1000", "--couplings-out", file("c.npy"), "--plot", file("p.png"))...)
	require.Equal(t, "converged", at(t, v, "status"))
	near(t, 1.8136835738, float(t, v, "primal"), 1e-9, "primal")
	near(t, 1.8136835738, float(t, v, "dual"), 1e-9, "dual")
	near(t, 1.1016044018, float(t, v, "transport_cost"), 1e-9, "transport_cost")
	near(t, 1, float(t, v, "mass"), 1e-9, "mass")
	errs := list(t, v, "marginal_error")
	require.Len(t, errs, 3)
	for _, e := range errs {
		near(t, 0, e.(float64), 1e-11, "marginal error")
	}
	require.Len(t, list(t, v, "problem", "nodes"), 3)
	edges := list(t, v, "problem", "edges")
	require.Len(t, edges, 2)
	near(t, 1.1016044018, float(t, edges[0], "transport_cost")+float(t, edges[1], "transport_cost"), 1e-9, "costs of the edges")

	z, err := npy.ReadNPZFile(file("p.npz"))
	require.NoError(t, err)
	var f, w [][]float64
	for k := range 3 {
		for name, to := range map[string]*[][]float64{"f": &f, "w": &w} {
			a, err := z.Get(fmt.Sprintf("%s%d", name, k))
			require.NoError(t, err)
			*to = append(*to, a.Float64s())
		}
	}
	x := [][]float64{{0, 1, 2.5}, {-.5, .5, 1.5, 3}, {.3, 2}}
	mass := 0.0
	for i, a := range x[0] {
		for j, b := range x[1] {
			for l, c := range x[2] {
				mass += w[0][i] * w[1][j] * w[2][l] * math.Exp((f[0][i]+f[1][j]+f[2][l]-(a-b)*(a-b)-(b-c)*(b-c))/.7)
			}
		}
	}
	near(t, 1, mass, 1e-10, "mass of the plan of the potentials")
	c, err := npy.ReadFile(file("c.npy"))
	require.NoError(t, err)
	require.Equal(t, []int{1000, 3}, c.Shape)
	counts := make([]float64, 4)
	for s := range 1000 {
		counts[int(c.Float64s()[3*s+1])]++
	}
	for j, want := range []float64{.1, .4, .3, .2} {
		near(t, want, counts[j]/1000, 5*math.Sqrt(want*(1-want)/1000), "frequency")
	}
	png, err := os.ReadFile(file("p.png"))
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(png, []byte("\x89PNG")))
}

// The chain of the times is the one with the edges written out.
func TestMultimarginalTimes(t *testing.T) {
	dir, args := threeNodes(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	v := object(t, 0, append(args, "--times", "0,1,3", "--epsilon", ".5", "--paths", "40", "--paths-times", "0,.5,1,3", "--paths-out", file("w.npy"), "--plot", file("w.svg"))...)
	w := object(t, 0, append(args, "--cost", "halfsqeuclidean", "--edge", "0,1", "--edge", "1,2,.5", "--epsilon", ".5")...)
	near(t, float(t, w, "primal"), float(t, v, "primal"), 1e-10, "primal")
	a, err := npy.ReadFile(file("w.npy"))
	require.NoError(t, err)
	require.Equal(t, []int{40, 4, 1}, a.Shape)
	for s := range 40 {
		x := a.Float64s()[4*s:]
		require.Contains(t, []float64{0, 1, 2.5}, x[0])
		require.Contains(t, []float64{-.5, .5, 1.5, 3}, x[2])
		require.Contains(t, []float64{.3, 2}, x[3])
	}
	require.FileExists(t, file("w.svg"))
	object(t, 0, append(args, "--times", "0,1,3", "--epsilon", ".5", "--paths", "3", "--paths-out", file("again.npy"))...)
	a, err = npy.ReadFile(file("again.npy"))
	require.NoError(t, err)
	require.Equal(t, []int{3, 11, 1}, a.Shape)
}

func TestMultimarginalFree(t *testing.T) {
	dir, args := threeNodes(t)
	out := filepath.Join(dir, "p.npz")
	// The data sets take the numbers 0, 2 and 3.
	args = append([]string{"multimarginal", "--epsilon", ".3", "--free", "1=5", "--edge", "0,1,.5", "--edge", "1,2,.3", "--edge", "3,1,.2", "--rho", "3=2", "--seed", "3", "--potentials", out,
		"--plot", filepath.Join(dir, "p.png")}, args[3], args[4], args[7], args[8], args[11], args[12])
	v := object(t, 0, args...)
	nodes := list(t, v, "problem", "nodes")
	for k, want := range []float64{3, 5, 4, 2} {
		require.Equal(t, want, at(t, nodes[k], "n"))
	}
	require.Equal(t, true, at(t, nodes[1], "free"))
	require.Equal(t, 2.0, at(t, nodes[3], "rho"))
	z, err := npy.ReadNPZFile(out)
	require.NoError(t, err)
	x, err := z.Get("x1")
	require.NoError(t, err)
	pool := []float64{0, 1, 2.5, -.5, .5, 1.5, 3, .3, 2}
	seen := map[float64]bool{}
	for _, v := range x.Float64s() {
		require.Contains(t, pool, v)
		require.False(t, seen[v], "a point was drawn twice")
		seen[v] = true
	}
	require.Len(t, seen, 5)
	p, err := z.Get("p1")
	require.NoError(t, err)
	mass := 0.0
	for _, v := range p.Float64s() {
		mass += v
	}
	near(t, float(t, v, "mass"), mass, 1e-9, "mass of the barycentre")
	require.Zero(t, list(t, v, "marginal_error")[1])
}

func TestMultimarginalNotConverged(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "p.npz")
	code, stdout, stderr := call(t, "multimarginal", "--marginal", "8gaussians?n=100", "--marginal", "moons?n=120", "--marginal", "8gaussians?n=90",
		"--edge", "0,1", "--edge", "1,2", "--epsilon", "1e-3", "--epsilon-scale", "mean", "--max-iter", "3", "--potentials", out)
	require.Equal(t, 3, code, stderr)
	require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	require.Contains(t, stdout, `"status":"max-iterations"`)
	require.FileExists(t, out)
}

func TestMultimarginalInterrupted(t *testing.T) {
	dir, args := threeNodes(t)
	before, err := os.ReadDir(dir)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errw bytes.Buffer
	code := execute(ctx, append(args, "--edge", "0,1", "--edge", "1,2", "--epsilon", ".7", "--potentials", filepath.Join(dir, "p.npz")), &out, &errw)
	require.Equal(t, 130, code)
	require.Empty(t, out.String())
	after, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(before), fmt.Sprint(after))
}

func TestMultimarginalBadInput(t *testing.T) {
	dir, args := threeNodes(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	wide := save(t, file("wide.npy"), make([]float64, 6), 3, 2)
	heavy := save(t, file("heavy.npy"), []float64{1, 1}, 2)
	with := func(more ...string) []string {
		return append(append(append([]string{}, args...), "--epsilon", ".7"), more...)
	}
	tree := func(more ...string) []string {
		return with(append([]string{"--edge", "0,1", "--edge", "1,2"}, more...)...)
	}
	swap := func(args []string, from, to string) []string {
		for i := range args {
			args[i] = strings.Replace(args[i], from, to, 1)
		}
		return args
	}
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"nothing":         {[]string{"multimarginal", "--epsilon", "1"}, []string{"--marginal"}},
		"one":             {[]string{"multimarginal", "--epsilon", "1", "--marginal", "moons"}, []string{"two nodes"}},
		"no epsilon":      {append(append([]string{}, args...), "--edge", "0,1", "--edge", "1,2"), []string{"--epsilon"}},
		"no edges":        {with(), []string{"--edge", "--times"}},
		"cycle":           {tree("--edge", "2,0"), []string{"cycle", "2 and 0"}},
		"left out":        {with("--edge", "0,1"), []string{"node 2"}},
		"repeated":        {tree("--edge", "1,0"), []string{"1 and 0"}},
		"loop":            {tree("--edge", "1,1"), []string{"itself"}},
		"no such node":    {tree("--edge", "1,7"), []string{"7", "0 to 2"}},
		"edge form":       {tree("--edge", "1"), []string{`"1"`, "i,j"}},
		"edge words":      {tree("--edge", "a,b"), []string{`"a,b"`}},
		"edge weight":     {with("--edge", "0,1,0", "--edge", "1,2"), []string{"0,1,0"}},
		"masses":          {swap(tree(), file("w2.npy"), heavy), []string{"mass is 2", "node 0"}},
		"dimensions":      {swap(tree(), file("x2.npy"), wide), []string{"wide.npy", "dimension 2", "1"}},
		"free form":       {tree("--free", "3"), []string{"--free", "i=value"}},
		"free node":       {tree("--free", "9=4"), []string{"node 9", "0 to 3"}},
		"free number":     {tree("--free", "3=none"), []string{"none"}},
		"free many":       {tree("--free", "3=100"), []string{"100", "9"}},
		"free twice":      {tree("--free", "3=2", "--free", "3=3"), []string{"node 3", "twice"}},
		"rho":             {tree("--rho", "0=-1"), []string{"--rho", "-1"}},
		"rho node":        {tree("--rho", "5=1"), []string{"node 5"}},
		"weights shape":   {swap(tree(), file("w2.npy"), file("w0.npy")), []string{"w0.npy", "(3,)", "(2,)"}},
		"times":           {with("--times", "0,1"), []string{"--times", "got 2"}},
		"equal times":     {with("--times", "0,1,1"), []string{"--times"}},
		"times words":     {with("--times", "0,one,2"), []string{"one"}},
		"times cost":      {with("--times", "0,1,2", "--cost", "euclidean"), []string{"Brownian"}},
		"cost":            {tree("--cost", "manhattan"), []string{"manhattan"}},
		"acceleration":    {tree("--acceleration", "overrelax"), []string{"overrelax", "anderson"}},
		"tol":             {tree("--tol", "0"), []string{"--tol"}},
		"max-iter":        {tree("--max-iter", "0"), []string{"--max-iter"}},
		"couplings alone": {tree("--couplings", "5"), []string{"--couplings-out"}},
		"couplings 0":     {tree("--couplings", "0", "--couplings-out", file("c.npy")), []string{"--couplings", "0"}},
		"paths alone":     {tree("--paths", "5"), []string{"--paths-out"}},
		"paths cost":      {tree("--paths", "5", "--paths-out", file("o.npy"), "--cost", "euclidean"), []string{"Brownian"}},
		"paths tree":      {with("--edge", "0,1", "--edge", "0,2", "--paths", "5", "--paths-out", file("o.npy")), []string{"chain"}},
		"paths late":      {tree("--paths", "5", "--paths-out", file("o.npy"), "--paths-times", "0,5"), []string{"time 1 is 5"}},
		"plot":            {tree("--plot", file("p.jpeg")), []string{".png"}},
		"one name":        {tree("--potentials", file("o.npz"), "--plot", file("o.npz")), []string{"o.npz"}},
		"argument":        {tree("x"), []string{"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			before, err := os.ReadDir(dir)
			require.NoError(t, err)
			code, stdout, stderr := call(t, c.args...)
			require.Equal(t, 2, code, "%s%s", stdout, stderr)
			require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
			for _, s := range c.says {
				require.Contains(t, stderr, s)
			}
			require.Empty(t, stdout)
			after, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(before), fmt.Sprint(after), "something was written")
		})
	}
}
