package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/internal/mpirun"
)

// TestProgram is the program, where FORTET_TEST_PROGRAM holds its arguments: what
// mpirun starts in other tests. Otherwise it does nothing.
func TestProgram(t *testing.T) {
	args := os.Getenv("FORTET_TEST_PROGRAM")
	if args == "" {
		return
	}
	os.Args = append(os.Args[:1], strings.Split(args, "\n")...)
	main()
}

// processes runs the program as so many processes; 0: as one, without mpirun.
func processes(t *testing.T, n int, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	var m mpirun.MPI
	if n > 0 {
		m = mpirun.Need(t)
	}
	cmd := m.Command(ctx, n, os.Args[0], "-test.run=^TestProgram$")
	cmd.Env = append(cmd.Env, "FORTET_TEST_PROGRAM="+strings.Join(args, "\n"))
	return cmd
}

func outcome(t *testing.T, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		require.NoError(t, err, errs.String())
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func only(t *testing.T, stdout string) map[string]any {
	t.Helper()
	var v map[string]any
	d := json.NewDecoder(strings.NewReader(stdout))
	require.NoError(t, d.Decode(&v), stdout)
	require.False(t, d.More(), "more than one object: %s", stdout)
	return v
}

// Several processes, one with MPI, and one without write the same potentials, map
// and gradient, byte for byte; and one object altogether.
func TestDistributedSolve(t *testing.T) {
	dir := t.TempDir()
	solve := func(n int, name string, more ...string) (map[string]any, []byte) {
		file := filepath.Join(dir, name+".npz")
		args := append([]string{
			"solve", "--source", "normal?n=407", "--target", "8gaussians?n=310", "--epsilon", "0.1", "--epsilon-scale", "mean",
			"--device", "cpu", "--potentials", file, "--map", file + ".map", "--source-gradient", file + ".gradient",
		}, more...)
		code, stdout, stderr := outcome(t, processes(t, n, args...))
		require.Equal(t, exitDone, code, stderr)
		v := only(t, stdout)
		require.Equal(t, "converged", v["status"])
		var all []byte
		for _, name := range []string{file, file + ".map", file + ".gradient"} {
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			require.NotEmpty(t, data)
			all = append(all, data...)
		}
		return v, all
	}
	report, want := solve(0, "none", "--distributed", "none", "--shards", "8")
	require.Equal(t, 1.0, float(t, report, "problem", "processes"))
	require.Equal(t, 8.0, float(t, report, "problem", "shards"))
	mpirun.Need(t) // alone, too
	for _, n := range []int{0, 1, 2, 3} {
		got, data := solve(n, fmt.Sprint("mpi", n), "--distributed", "mpi")
		require.Equal(t, float64(max(n, 1)), float(t, got, "problem", "processes"))
		require.Equal(t, 8.0, float(t, got, "problem", "shards"))
		require.True(t, bytes.Equal(want, data), "%d processes: other files", n)
		for _, field := range []string{"primal", "dual", "iterations", "transport_cost", "marginal_error", "stages"} {
			require.Equal(t, report[field], got[field], "%d processes: %s", n, field)
		}
	}
	plain, _ := solve(0, "plain")
	require.NotContains(t, plain["problem"], "shards")
	near(t, float(t, plain, "dual"), float(t, report, "dual"), 1e-4, "dual")
}

// All processes end with one code, and one of them says why.
func TestDistributedCodes(t *testing.T) {
	dir := t.TempDir()
	base := []string{"solve", "--source", "normal?n=40", "--target", "8gaussians?n=30", "--epsilon", "0.1", "--device", "cpu", "--distributed", "mpi"}
	for _, c := range []struct {
		name string
		more []string
		code int
		text string
		out  bool
	}{
		{"usage", []string{"--epsilon=-1"}, exitUsage, "fortet: --epsilon: got -1, want a finite number above 0\n", false},
		{"shards", []string{"--shards=-1"}, exitUsage, "fortet: --shards: got -1, want at least 1\n", false},
		{"divergence", []string{"--divergence", "tv"}, exitUsage, "fortet: --distributed, --shards: not with --divergence tv", false},
		{"path", []string{"--potentials", filepath.Join(dir, "none", "p.npz")}, exitUsage, "fortet: --potentials: ", false},
		{"tolerance", []string{"--max-iter", "2"}, exitNotConverged, "fortet: did not reach the tolerance: ", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := outcome(t, processes(t, 2, append(base, c.more...)...))
			require.Equal(t, c.code, code, stderr)
			require.Equal(t, 1, strings.Count(stderr, c.text), "%s", stderr)
			require.Equal(t, 1, strings.Count(stderr, "fortet: "), "%s", stderr)
			require.Equal(t, c.out, strings.Contains(stdout, "{"), "%s", stdout)
		})
	}
}

// Processes that read different data find out.
func TestDistributedData(t *testing.T) {
	dir := t.TempDir()
	for r, v := range [][]float64{{0, 1, 2}, {0, 1, 3}} {
		save(t, filepath.Join(dir, fmt.Sprint(r, ".npy")), v, 3, 1)
	}
	target := save(t, filepath.Join(dir, "y.npy"), []float64{1, 2}, 2, 1)
	args := func(r int) string {
		return strings.Join([]string{
			"solve", "--source", "npy:" + filepath.Join(dir, fmt.Sprint(r, ".npy")), "--target", "npy:" + target, "--epsilon", "1",
			"--device", "cpu", "--distributed", "mpi",
		}, "\n")
	}
	cmd := processes(t, 2)
	// Each process gets arguments of its own: NAME=VALUE COMMAND for one, and for
	// the other, as mpirun takes several programs.
	self := []string{"env", "", os.Args[0], "-test.run=^TestProgram$"}
	list := []string{"-np", "1"}
	for r := range 2 {
		self[1] = "FORTET_TEST_PROGRAM=" + args(r)
		list = append(list, self...)
		if r == 0 {
			list = append(list, ":", "-np", "1")
		}
	}
	cmd.Args = append(cmd.Args[:1], list...)
	code, stdout, stderr := outcome(t, cmd)
	require.Equal(t, exitUsage, code, stderr)
	require.NotContains(t, stdout, "{")
	require.Contains(t, stderr, "rank 1 has other data or settings than rank 0")
}

// The divergence's three problems are shared too.
func TestDistributedDivergence(t *testing.T) {
	args := []string{"divergence", "--source", "normal?n=60", "--target", "8gaussians?n=50", "--epsilon", "0.5", "--device", "cpu"}
	var first map[string]any
	for _, n := range []int{0, 2} {
		more := []string{"--shards", "8"}
		if n > 0 {
			more = []string{"--distributed", "mpi"}
		}
		code, stdout, stderr := outcome(t, processes(t, n, append(args, more...)...))
		require.Equal(t, exitDone, code, stderr)
		v := only(t, stdout)
		if first == nil {
			first = v
		}
		require.Equal(t, first["divergence"], v["divergence"])
		require.Equal(t, first["terms"], v["terms"])
	}
}

// endless is a problem that takes long.
func endless(potentials string) []string {
	return []string{"solve", "--source", "normal?n=3000", "--target", "8gaussians?n=3000", "--epsilon", "0.0001", "--tol", "1e-14",
		"--max-iter", "1000000", "--device", "cpu", "--distributed", "mpi", "--potentials", potentials}
}

// An interruption of mpirun ends all processes and leaves no file.
func TestDistributedInterrupted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.npz")
	cmd := processes(t, 2, endless(file)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	// The file's temporary name appears before the first sweep.
	require.Eventually(t, func() bool {
		entries, err := os.ReadDir(filepath.Dir(file))
		return err == nil && len(entries) > 0
	}, 30*time.Second, 10*time.Millisecond)
	time.Sleep(300 * time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-done:
		require.Error(t, err)
	case <-time.After(30 * time.Second):
		t.Fatalf("not ended after 30 s: %s", errs.String())
	}
	require.NotContains(t, out.String(), "{")
	require.NoFileExists(t, file)
}

// Where one process alone is interrupted, all end as interrupted.
func TestDistributedInterruptedOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p.npz")
	cmd := processes(t, 2, endless(file)...)
	whole := []string{"-np", "1", os.Args[0], "-test.run=^TestProgram$"}
	interrupted := []string{"-np", "1", "sh", "-c", `"$0" "$1" & p=$!; sleep 2; kill -TERM $p; wait $p`, os.Args[0], "-test.run=^TestProgram$"}
	cmd.Args = append(append(append(cmd.Args[:1], whole...), ":"), interrupted...)
	code, stdout, stderr := outcome(t, cmd)
	require.Equal(t, exitInterrupted, code, stderr)
	require.Equal(t, 1, strings.Count(stderr, "fortet: interrupted\n"), stderr)
	require.NotContains(t, stdout, "{")
	require.NoFileExists(t, file)
}

func TestCoresOf(t *testing.T) {
	for _, c := range []struct{ size, usable, own, all, want int }{
		{1, 8, 8, 8, 8},
		{2, 8, 8, 8, 4},    // not bound
		{2, 4, 4, 8, 4},    // bound to half each
		{2, 1, 1, 2, 1},    // bound to a core each
		{8, 32, 32, 64, 8}, // bound to a socket that four share
		{3, 2, 2, 2, 1},    // more than cores
		{2, 6, 0, 0, 3},    // not known
	} {
		require.Equal(t, c.want, coresOf(c.size, c.usable, c.own, c.all), "%+v", c)
	}
	require.Equal(t, 5, countList("0-3,8"))
	require.Equal(t, 1, countList("7"))
	for _, bad := range []string{"", "3-1", "a", "1-", "-2"} {
		require.Zero(t, countList(bad), bad)
	}
	require.Positive(t, cores("self"))
}

func TestLocalSize(t *testing.T) {
	for _, name := range []string{"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"} {
		t.Setenv(name, "")
	}
	require.Equal(t, 1, localSize())
	t.Setenv("SLURM_NTASKS_PER_NODE", "4")
	require.Equal(t, 4, localSize())
	t.Setenv("MPI_LOCALNRANKS", "2")
	require.Equal(t, 2, localSize())
}

func TestDistributedHelp(t *testing.T) {
	for _, c := range []string{"solve", "divergence"} {
		code, stdout, _ := call(t, c, "--help")
		require.Equal(t, exitDone, code)
		require.Contains(t, stdout, "mpirun -np 2 fortet solve")
		require.Contains(t, stdout, "--shards")
	}
	code, _, stderr := call(t, "solve", "--distributed", "pigeons")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, `--distributed: got "pigeons", want mpi, nccl or none`)
}

// Where a group cannot be joined, the reason is named and nothing is solved: as
// with a device that is not there.
func TestDistributedUnavailable(t *testing.T) {
	t.Setenv("FORTET_MPI_LIB", filepath.Join(t.TempDir(), "none.so"))
	code, stdout, stderr := call(t, "solve", "--source", "normal?n=20", "--target", "moons?n=20", "--epsilon", "0.1", "--device", "cpu", "--distributed", "mpi")
	require.Equal(t, exitUsage, code, stderr)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "none.so")
	require.Contains(t, stderr, "./build.sh mpi")
}
