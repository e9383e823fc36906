package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor/npy"
)

// heavier is the example on a line with 1.3 times the target's mass.
func heavier(t *testing.T) (dir string, args []string) {
	t.Helper()
	dir, args = line(t)
	args[slices.Index(args, "--target-weights")+1] = save(t, filepath.Join(dir, "heavy.npy"), []float64{.13, .52, .39, .26}, 4)
	return dir, args
}

func TestSolveUnequalMass(t *testing.T) {
	dir, args := heavier(t)
	v := object(t, 0, append([]string{"solve", "--rho-source", "1", "--rho-target", "1"}, args...)...)
	near(t, .7477539515, float(t, v, "primal"), 1e-9, "primal")
	near(t, .8808984194, float(t, v, "mass"), 1e-9, "mass")
	require.Equal(t, "kl", at(t, v, "problem", "penalty_source"))
	require.Equal(t, 1.0, at(t, v, "problem", "rho_target"))

	// One kind for both sides, or one for each; an infinite strength is exact.
	v = object(t, 0, append([]string{"solve", "--penalty", "tv", "--rho-source", "0.4", "--rho-target", "0.3"}, args...)...)
	require.Equal(t, "tv", at(t, v, "problem", "penalty_source"))
	require.Equal(t, "tv", at(t, v, "problem", "penalty_target"))
	near(t, 0, float(t, v, "gap"), 1e-9, "gap")
	v = object(t, 0, append([]string{"solve", "--penalty", "tv", "--penalty-target", "l2", "--rho-source", "inf", "--rho-target", "3"}, args...)...)
	require.Equal(t, "l2", at(t, v, "problem", "penalty_target"))
	require.NotContains(t, at(t, v, "problem"), "penalty_source")
	require.NotContains(t, at(t, v, "problem"), "rho_source")
	near(t, 1, float(t, v, "mass"), 1e-9, "mass of the exact side")

	// The gradient is that of the plan: Σ_j P_ij 2 (x_i - y_j).
	plan, grad := filepath.Join(dir, "p.npy"), filepath.Join(dir, "g.npy")
	object(t, 0, append([]string{"solve", "--penalty", "l2", "--rho-source", "2", "--rho-target", "2", "--plan", plan, "--source-gradient", grad}, args...)...)
	p, err := npy.ReadFile(plan)
	require.NoError(t, err)
	g, err := npy.ReadFile(grad)
	require.NoError(t, err)
	require.Equal(t, []int{3, 1}, g.Shape)
	for i, x := range []float64{0, 1, 2.5} {
		want := 0.0
		for j, y := range []float64{-.5, .5, 1.5, 3} {
			want += p.Float64s()[4*i+j] * 2 * (x - y)
		}
		near(t, want, g.Float64s()[i], 1e-12, "gradient")
	}
}

func TestDivergenceUnequalMass(t *testing.T) {
	dir, args := heavier(t)
	call := func(x float64, more ...string) map[string]any {
		args[1] = "npy:" + save(t, filepath.Join(dir, "moved.npy"), []float64{0, x, 2.5}, 3, 1)
		return object(t, 0, append(append([]string{"divergence", "--penalty", "tv", "--rho-source", "0.6", "--rho-target", "0.6"}, more...), args...)...)
	}
	grad := filepath.Join(dir, "g.npy")
	v := call(1, "--source-gradient", grad)
	near(t, .25*.09, float(t, v, "terms", "mass"), 1e-12, "mass term")
	require.Equal(t, "tv", at(t, v, "problem", "penalty_source"))
	g, err := npy.ReadFile(grad)
	require.NoError(t, err)
	const h = 1e-4
	near(t, (float(t, call(1+h), "divergence")-float(t, call(1-h), "divergence"))/(2*h), g.Float64s()[1], 1e-6, "derivative by the second point")
}

func TestBadPenalties(t *testing.T) {
	dir, args := heavier(t)
	c := save(t, filepath.Join(dir, "c.npy"), make([]float64, 12), 3, 4)
	for name, x := range map[string]struct {
		args []string
		says []string
	}{
		"masses":         {[]string{"solve"}, []string{"masses", "1.3"}},
		"no rho":         {[]string{"solve", "--penalty", "tv"}, []string{"--penalty tv", "--rho-source"}},
		"no rho of side": {[]string{"solve", "--rho-source", "1", "--penalty-target", "l2"}, []string{"--penalty-target l2", "--rho-target"}},
		"kind":           {[]string{"solve", "--rho-source", "1", "--penalty", "l3"}, []string{"--penalty", "l3", "kl, tv or l2"}},
		"kind of side":   {[]string{"solve", "--rho-source", "1", "--penalty-source", "exact"}, []string{"--penalty-source", "exact", "kl"}},
		"rho 0":          {[]string{"solve", "--rho-source", "0"}, []string{"--rho-source", "0"}},
		"one-sided":      {[]string{"divergence", "--rho-source", "1"}, []string{"kl with rho 1", "exact", "same on both sides"}},
		"two kinds":      {[]string{"divergence", "--rho-source", "1", "--rho-target", "1", "--penalty-target", "tv"}, []string{"tv with rho 1", "same on both sides"}},
		"matrix":         {[]string{"solve", "--rho-source", "1", "--cost-matrix", c, "--source-gradient", filepath.Join(dir, "g.npy")}, []string{"--source-gradient", "--cost"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, append(x.args, args...)...)
			require.Equal(t, 2, code, stderr)
			require.Empty(t, stdout)
			require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
			for _, s := range x.says {
				require.Contains(t, stderr, s)
			}
			_, err := os.Stat(filepath.Join(dir, "g.npy"))
			require.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}
