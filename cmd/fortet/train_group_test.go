package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Two processes of the program leave the checkpoint and the metrics of one, bit
// for bit, also where the run was killed and goes on; one of them speaks.
func TestTrainByProcesses(t *testing.T) {
	dir := t.TempDir()
	for _, method := range []string{"lightsb-m", "lightsbb"} {
		alone, shared := filepath.Join(dir, method), filepath.Join(dir, method+"-shared")
		train := func(out string) []string {
			return []string{"train", method, "--source", "normal", "--target", "8gaussians", "--components", "16", "--steps", "60", "--batch", "128",
				"--set", "data.pool=5000", "--set", "train.log_every=20", "--set", "train.checkpoint_every=20", "--device", "cpu", "--out", out}
		}
		want := object(t, exitDone, train(alone)...)
		last := filepath.Join("checkpoints", "step-000000060.safetensors")
		for _, args := range [][]string{train(shared), {"train", method, "--out", shared, "--resume", "--device", "cpu"}} {
			code, stdout, stderr := outcome(t, processes(t, 2, append(args, "--distributed", "mpi")...))
			require.Equal(t, exitDone, code, stderr)
			require.Equal(t, at(t, want, "metrics"), only(t, stdout)["metrics"])
			for _, file := range []string{last, "metrics.jsonl", "config.yaml"} {
				a, err := os.ReadFile(filepath.Join(alone, file))
				require.NoError(t, err)
				b, err := os.ReadFile(filepath.Join(shared, file))
				require.NoError(t, err)
				require.True(t, bytes.Equal(a, b), "%s: %s differs", method, file)
			}
			require.NoError(t, os.Remove(filepath.Join(shared, last))) // as a kill after step 40 leaves it
		}
	}

	// What is wrong is said once, by the code of the program.
	old := filepath.Join(dir, "lightsbb")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--out", old, "--source", "normal", "--target", "moons"}, "holds a run already"},
		{[]string{"--out", filepath.Join(dir, "new"), "--source", "normal", "--target", "moons", "--batch", "100"}, "want a multiple of 64"},
		{[]string{"--out", filepath.Join(dir, "none"), "--resume"}, "is no run"},
		{[]string{"--out", filepath.Join(dir, "none"), "--set", "train.stepz=1"}, "stepz"},
	} {
		code, stdout, stderr := outcome(t, processes(t, 2, append(append([]string{"train", "lightsb"}, c.args...), "--distributed", "mpi", "--device", "cpu")...))
		require.Equal(t, exitUsage, code, stderr)
		require.Empty(t, stdout)
		require.Equal(t, 1, strings.Count(stderr, "fortet: "), stderr)
		require.Contains(t, stderr, c.want)
	}
}

func TestTrainDistributedUsage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	for _, c := range [][2]string{{"--distributed=gossip", "--distributed"}, {"--fast-sum", "--fast-sum: got no --distributed"}} {
		code, _, stderr := call(t, "train", "lightsb", "--source", "normal", "--target", "moons", "--out", dir, c[0])
		require.Equal(t, exitUsage, code, fmt.Sprint(c))
		require.Contains(t, stderr, c[1])
		require.NoDirExists(t, dir)
	}
}
