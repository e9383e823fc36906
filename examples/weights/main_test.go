package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/tensor/npy"
)

func TestWeights(t *testing.T) {
	out := filepath.Join(t.TempDir(), "w.npy")
	for _, c := range []struct {
		args []string
		n    int
		mass float64
	}{
		{[]string{"-n", "7"}, 7, 1},
		{[]string{"-n", "3781", "-of", "1429"}, 3781, 3781. / 1429},
	} {
		require.NoError(t, run(append(c.args, "-out", out), io.Discard))
		a, err := npy.ReadFile(out)
		require.NoError(t, err)
		require.Equal(t, []int{c.n}, a.Shape)
		sum := 0.
		for _, w := range a.Float64s() {
			sum += w
		}
		// n additions of equal numbers are wrong by less than n² ulps of one.
		if tol := float64(c.n) * c.mass * 0x1p-52; !(math.Abs(sum-c.mass) <= tol) {
			t.Errorf("%v: mass %v, want %v", c.args, sum, c.mass)
		}
	}
}

func TestErrors(t *testing.T) {
	for want, args := range map[string][]string{
		"-n: got 0":           {"-out", "w.npy"},
		"-of: got -1":         {"-n", "3", "-of", "-1", "-out", "w.npy"},
		"-out is missing":     {"-n", "3"},
		"unexpected argument": {"w.npy"},
		"-out: ":              {"-n", "3", "-out", filepath.Join(t.TempDir(), "no", "w.npy")},
	} {
		require.ErrorContains(t, run(args, io.Discard), want)
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "weights.npy")
	if err := run([]string{"-n", "3", "-of", "2", "-out", out}, os.Stderr); err != nil {
		fmt.Println(err)
		return
	}
	a, err := npy.ReadFile(out)
	fmt.Println(a.Float64s(), err)
	// Output: [0.5 0.5 0.5] <nil>
}
