//go:build cgo && !windows

package collective

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/mpirun"
)

// TestRank is what the processes run that other tests start: this binary once
// more, with FORTET_TEST_RANK saying what to do. Otherwise it does nothing.
func TestRank(t *testing.T) {
	what := os.Getenv("FORTET_TEST_RANK")
	if what == "" {
		return
	}
	task, device, _ := strings.Cut(what, "/")
	d := openDevice(t, device)
	roles[task](t, d)
	fmt.Printf("%s: done\n", what) // the parent counts
}

// roles are the tasks of TestRank.
var roles = map[string]func(t *testing.T, d gpu.Device){
	"mpi": func(t *testing.T, d gpu.Device) {
		first, err := Open("mpi", d)
		require.NoError(t, err)
		fmt.Printf("rank %d of %d\n", first.Rank(), first.Size())
		rank{t, d, first}.cannotBeRecorded()
		g, err := Open("mpi", d) // another one beside it, which keeps MPI
		require.NoError(t, err)
		conform(rank{t, d, g}, true)
		g, err = openMPILimit(d, 20000) // what counts that int cannot hold do, on a small scale
		require.NoError(t, err)
		conform(rank{t, d, g}, true)
		require.NoError(t, first.Barrier())
		require.NoError(t, first.Close())
		_, err = Open("mpi", d)
		require.ErrorIs(t, err, ErrUnavailable)
		assert.ErrorContains(t, err, "finalised")
		// Who is late must not be killed by a launcher that takes the others'
		// end for a crash.
		time.Sleep(time.Duration(first.Rank()) * 30 * time.Millisecond)
	},
	// A launcher says that there are two, MPI sees one.
	"another mpirun": func(t *testing.T, d gpu.Device) {
		_, err := Open("mpi", d)
		require.ErrorIs(t, err, ErrUnavailable)
		assert.ErrorContains(t, err, "sees one process, but the launcher says PMI_RANK=0, PMI_SIZE=2")
		assert.ErrorContains(t, err, mpiLoaded.built)
	},
	"nccl": func(t *testing.T, d gpu.Device) {
		g, err := Open("nccl", d)
		require.NoError(t, err)
		fmt.Printf("rank %d of %d\n", g.Rank(), g.Size())
		assert.Equal(t, "nccl", g.Name())
		rank{t, d, g}.records()
		conform(rank{t, d, g}, false)
	},
	"nccl is not there": func(t *testing.T, d gpu.Device) {
		_, err := Open("nccl", d)
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, gpu.ErrUnsupported)
		assert.ErrorContains(t, err, "no NCCL")
		assert.ErrorContains(t, err, "none.so")
		assert.Zero(t, d.Memory().InUse)
	},
	"nccl is too old": func(t *testing.T, d gpu.Device) {
		_, err := Open("nccl", d)
		require.ErrorIs(t, err, gpu.ErrUnsupported)
		assert.ErrorContains(t, err, "want NCCL 2.13")
	},
	"nccl fails": ncclFailures,
	"nccl and no way": func(t *testing.T, d gpu.Device) {
		_, err := Open("nccl", d)
		require.ErrorIs(t, err, ErrUnavailable)
		for _, text := range []string{"NCCL_COMM_ID", "MASTER_ADDR", "mpi: ", "none.so"} {
			assert.ErrorContains(t, err, text)
		}
	},
}

// ncclFailures: errors of NCCL arrive with its words, those of the queue when
// somebody waits for it.
func ncclFailures(t *testing.T, d gpu.Device) {
	open := func() Group {
		g, err := Open("nccl", d)
		require.NoError(t, err)
		return g
	}
	t.Setenv("FORTET_STANDIN_FAIL", "ncclCommInitRank")
	_, err := Open("nccl", d)
	require.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "ncclCommInitRank: unhandled system error: the stand-in fails as told")

	t.Setenv("FORTET_STANDIN_FAIL", "")
	g := open()
	b, err := d.Alloc(8)
	require.NoError(t, err)
	defer d.Free(b)
	for what, call := range map[string]func() error{
		"ncclAllGather": func() error { return g.Gather(b, b) },
		"ncclAllReduce": func() error { return g.Sum(b, Float64) },
		"ncclBroadcast": func() error { return g.Broadcast(b, 0) },
	} {
		t.Setenv("FORTET_STANDIN_FAIL", what)
		require.NoError(t, call(), "queued")
		err := d.Sync()
		require.ErrorIs(t, err, gpu.ErrLaunch)
		assert.ErrorContains(t, err, what+": unhandled system error: the stand-in fails as told")
	}
	t.Setenv("FORTET_STANDIN_FAIL", "ncclAllReduce")
	err = g.Barrier()
	require.ErrorIs(t, err, gpu.ErrLaunch)
	assert.ErrorContains(t, err, "nccl: barrier")
	t.Setenv("FORTET_STANDIN_FAIL", "async")
	assert.ErrorContains(t, g.Barrier(), "an exchange: remote process error")
	t.Setenv("FORTET_STANDIN_FAIL", "ncclCommDestroy")
	assert.ErrorContains(t, g.Close(), "ncclCommDestroy: unhandled system error")

	t.Setenv("FORTET_STANDIN_FAIL", "ncclAllGather")
	g = open()
	require.NoError(t, g.Gather(b, b))
	err = g.Close()
	require.ErrorIs(t, err, gpu.ErrLaunch, "what was queued and failed is told by Close")
	require.NoError(t, g.Close())
}

// command is this binary as a rank with a task, with variables beside those of
// this process that no launcher has set.
func command(ctx context.Context, task string, variables []string, prefix ...string) *exec.Cmd {
	args := append(prefix, os.Args[0], "-test.run=^TestRank$", "-test.v", "-test.timeout=60s")
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !launcherVariable(name) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "FORTET_TEST_RANK="+task)
	cmd.Env = append(cmd.Env, variables...)
	return cmd
}

func launcherVariable(name string) bool {
	for _, v := range launchers {
		if name == v.rank || name == v.size || name == v.local {
			return true
		}
	}
	return strings.HasPrefix(name, "MASTER_") || name == "NCCL_COMM_ID" || name == "TORCHELASTIC_USE_AGENT_STORE"
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// processes starts size ranks as torchrun would, and waits for them.
func processes(t *testing.T, size int, task string, variables ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	output := make([]string, size)
	var all sync.WaitGroup
	for i := range size {
		all.Go(func() {
			own := append([]string{fmt.Sprint("RANK=", i), fmt.Sprint("WORLD_SIZE=", size), fmt.Sprint("LOCAL_RANK=", i)}, variables...)
			out, err := command(ctx, task, own).CombinedOutput()
			output[i] = string(out)
			if err != nil {
				cancel() // the others would wait
			}
		})
	}
	all.Wait()
	for i, out := range output {
		assert.Equal(t, 1, strings.Count(out, task+": done"), "rank %d of %d:\n%s", i, size, out)
	}
}

// startMPI starts size ranks by mpirun.
func startMPI(t *testing.T, size int, task string, variables ...string) {
	t.Helper()
	cmd := command(deadline(t), task, append(mpirun.Environment, variables...), mpirun.Need(t).Prefix(size)...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, size, strings.Count(string(out), task+": done"), "%s", out)
	for i := range size {
		assert.Contains(t, string(out), fmt.Sprintf("rank %d of %d\n", i, size))
	}
}

func TestMPI(t *testing.T) {
	for _, c := range []struct {
		size   int
		device string
	}{{1, "cpu"}, {2, "cpu"}, {2, "emu"}, {3, "cpu"}} {
		t.Run(fmt.Sprint(c.device, c.size), func(t *testing.T) { startMPI(t, c.size, "mpi/"+c.device) })
	}
}

// TestMPIAlone: a process that nobody started is a group of one.
func TestMPIAlone(t *testing.T) {
	mpirun.Need(t)
	out, err := command(deadline(t), "mpi/cpu", mpirun.Environment).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "rank 0 of 1\n")
	assert.Contains(t, string(out), "mpi/cpu: done")
}

func TestMPIOfAnotherLauncher(t *testing.T) {
	mpirun.Need(t)
	cmd := command(deadline(t), "another mpirun/cpu", append(mpirun.Environment, "PMI_RANK=0", "PMI_SIZE=2"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "another mpirun/cpu: done")
}

// compile makes a shared library of C source.
func compile(t *testing.T, source string, options ...string) string {
	t.Helper()
	lib := filepath.Join(t.TempDir(), "lib.so")
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	out, err := exec.Command(cc, append(options, "-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", lib, source)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return lib
}

func TestNCCL(t *testing.T) {
	lib := "FORTET_NCCL_LIB=" + compile(t, "testdata/nccl.c")
	dir := func(t *testing.T) string { return "FORTET_STANDIN_DIR=" + t.TempDir() }
	for size := 1; size <= 3; size++ {
		t.Run(fmt.Sprint("address", size), func(t *testing.T) {
			processes(t, size, "nccl/emu", lib, dir(t), "MASTER_ADDR=localhost", "MASTER_PORT=29500")
		})
	}
	t.Run("id", func(t *testing.T) { processes(t, 2, "nccl/emu", lib, dir(t), "NCCL_COMM_ID=[::1]:29501") })
	t.Run("mpi", func(t *testing.T) { startMPI(t, 2, "nccl/emu", lib, dir(t)) })
	t.Run("fails", func(t *testing.T) { processes(t, 1, "nccl fails/emu", lib, dir(t)) })
	t.Run("none", func(t *testing.T) { processes(t, 1, "nccl is not there/emu", "FORTET_NCCL_LIB=/nowhere/none.so") })
	t.Run("old", func(t *testing.T) {
		processes(t, 1, "nccl is too old/emu", "FORTET_NCCL_LIB="+compile(t, "testdata/nccl.c", "-DncclGetLastError=another"))
	})
	t.Run("no way", func(t *testing.T) {
		processes(t, 2, "nccl and no way/emu", lib, dir(t), "FORTET_MPI_LIB=/nowhere/none.so")
	})
}

func TestOpen(t *testing.T) {
	d := openDevice(t, "cpu")
	for _, name := range []string{"", "self"} {
		g, err := Open(name, d)
		require.NoError(t, err)
		assert.Equal(t, "self", g.Name())
		require.NoError(t, g.Close())
	}
	_, err := Open("gloo", d)
	require.ErrorIs(t, err, gpu.ErrInvalid)
	assert.ErrorContains(t, err, `"gloo"`)
	assert.ErrorContains(t, err, "want self, mpi or nccl")
	_, err = Open("self", nil)
	require.ErrorIs(t, err, gpu.ErrInvalid)
	_, err = Open("nccl", d)
	require.ErrorIs(t, err, gpu.ErrInvalid)
	assert.ErrorContains(t, err, "want a GPU")
}

// noLauncher clears the variables of all launchers.
func noLauncher(t *testing.T) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); launcherVariable(name) {
			t.Setenv(name, "")
		}
	}
}

func TestLauncher(t *testing.T) {
	for _, c := range []struct {
		variables   string
		rank, size  int
		local       int
		ok          bool
		complaining string
	}{
		{variables: ""},
		{variables: "OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_LOCAL_RANK=1 SLURM_PROCID=0 SLURM_NTASKS=1", rank: 3, size: 8, local: 1, ok: true},
		{variables: "PMI_RANK=1 PMI_SIZE=2 MPI_LOCALRANKID=1", rank: 1, size: 2, local: 1, ok: true},
		{variables: "SLURM_PROCID=5 SLURM_NTASKS=6 SLURM_LOCALID=2", rank: 5, size: 6, local: 2, ok: true},
		{variables: "RANK=1 WORLD_SIZE=4 LOCAL_RANK=0", rank: 1, size: 4, ok: true},
		{variables: "RANK=1 LOCAL_RANK=3"},
		{variables: "PMI_RANK=2 PMI_SIZE=2", complaining: "PMI_RANK=2, PMI_SIZE=2: want a rank"},
		{variables: "RANK=x WORLD_SIZE=2", complaining: "RANK=x"},
	} {
		t.Run(c.variables, func(t *testing.T) {
			noLauncher(t)
			for _, v := range strings.Fields(c.variables) {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			l, ok, err := launched()
			if c.complaining != "" {
				assert.ErrorContains(t, err, c.complaining)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, []any{c.rank, c.size, c.ok}, []any{l.rank, l.size, ok})
			assert.Equal(t, c.local, LocalRank())
		})
	}
}

func TestNCCLPlace(t *testing.T) {
	noLauncher(t)
	_, _, err := ncclPlace()
	require.Error(t, err)
	for _, v := range launchers {
		assert.ErrorContains(t, err, v.rank)
	}
	t.Setenv("RANK", "0")
	t.Setenv("WORLD_SIZE", "1")
	_, how, err := ncclPlace()
	require.NoError(t, err)
	assert.Equal(t, alone, how)
	t.Setenv("WORLD_SIZE", "2")
	_, how, err = ncclPlace()
	require.NoError(t, err)
	assert.Equal(t, byMPI, how)
	t.Setenv("NCCL_COMM_ID", "")
	t.Setenv("MASTER_ADDR", "::1")
	t.Setenv("MASTER_PORT", "29500")
	_, how, err = ncclPlace()
	require.NoError(t, err)
	assert.Equal(t, byAddress, how)
	assert.Equal(t, net.JoinHostPort("::1", "29500"), os.Getenv("NCCL_COMM_ID"))
	t.Setenv("NCCL_COMM_ID", "")
	t.Setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
	_, _, err = ncclPlace()
	assert.ErrorContains(t, err, "set NCCL_COMM_ID")
}

// TestMPILibraries: a library that is not there, is none, or is built from
// other headers.
func TestMPILibraries(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	for _, c := range []struct {
		path string
		is   error
		text string
	}{
		{filepath.Join(dir, "none.so"), ErrUnavailable, "build.sh mpi"},
		{write("garbage.so", "\x7fELF and then nothing"), ErrUnavailable, "garbage.so"},
		{compile(t, write("other.c", "int fortet_something_else;")), gpu.ErrContract, "no fortet_mpi"},
		{
			compile(t, write("old.c", `const char *fortet_mpi_contract(void) { return "0123"; } int fortet_mpi;`)),
			gpu.ErrContract, "0123",
		},
		{
			compile(t, write("needs.c", `int MPI_Of_another(void); int fortet_mpi_contract(void) { return MPI_Of_another(); }`)),
			ErrUnavailable, "MPI_Of_another",
		},
	} {
		t.Setenv("FORTET_MPI_LIB", c.path)
		_, err := loadMPI()
		require.ErrorIs(t, err, c.is, c.path)
		assert.ErrorIs(t, err, ErrUnavailable)
		assert.ErrorContains(t, err, c.text)
	}
}
