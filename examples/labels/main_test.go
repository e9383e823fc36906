package main

import (
	"io"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor/npy"
)

func TestChain(t *testing.T) {
	labels := []int{}
	for range 3 {
		labels = append(labels, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	}
	labels = append(labels, 5)
	p, law := chain(labels)
	require.Equal(t, 1., p[0*classes+1])
	require.InDelta(t, 2./3, p[9*classes+0], 1e-15)
	require.InDelta(t, 1./3, p[9*classes+5], 1e-15)
	require.InDelta(t, 4./31, law[5], 1e-15)
}

func TestLabels(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, run([]string{"-from", "0", "-out", dir}, io.Discard))
	for name, want := range map[string]float64{"transition": classes, "mu": 1, "nu": 1} {
		a, err := npy.ReadFile(filepath.Join(dir, name+".npy"))
		require.NoError(t, err)
		sum := 0.
		for _, v := range a.Float64s() {
			require.GreaterOrEqual(t, v, 0.)
			sum += v
		}
		require.InDelta(t, want, sum, 1e-12, name)
	}
	mu, err := npy.ReadFile(filepath.Join(dir, "mu.npy"))
	require.NoError(t, err)
	require.Equal(t, 1., mu.Float64s()[0])
	for _, bad := range [][]string{{"-from", "10"}, {"-to", "-2"}, {"x"}, {"-out", filepath.Join(dir, "none")}} {
		require.Error(t, run(bad, io.Discard), bad)
	}
}
