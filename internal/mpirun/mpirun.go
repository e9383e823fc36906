// Package mpirun starts several processes on this machine, for tests and
// benchmarks of what they do together.
package mpirun

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/fortet/fortet/gpu"
)

// ErrNone says that there is no MPI to start processes with, and why.
var ErrNone = errors.New("no MPI: run ./build.sh mpi-tools and ./build.sh mpi")

// MPI is the one that libfortet_mpi.so was built for.
type MPI struct{ run, library string }

// Find looks for the library, which holds the path of its compiler: mpirun lies
// beside that.
func Find() (MPI, error) {
	path, tried := gpu.FindLibrary("libfortet_mpi.so", "FORTET_MPI_LIB")
	if path == "" {
		return MPI{}, fmt.Errorf("no libfortet_mpi.so at %s: %w", strings.Join(tried, ", "), ErrNone)
	}
	library, err := os.ReadFile(path)
	if err != nil {
		return MPI{}, err
	}
	found := regexp.MustCompile(`(/[^\x00]*)/mpicc\x00`).FindSubmatch(library)
	if found == nil {
		return MPI{}, fmt.Errorf("%s names no mpicc: %w", path, ErrNone)
	}
	m := MPI{filepath.Join(string(found[1]), "mpirun"), path}
	if _, err := os.Stat(m.run); err != nil {
		return MPI{}, fmt.Errorf("%w, which %s was built for: %w", err, path, ErrNone)
	}
	return m, nil
}

// Found reports whether m is the MPI that Find has found, and not the zero value.
func (m MPI) Found() bool { return m.run != "" }

// Need is Find for a test: where there is no MPI it ends, as a failure where
// FORTET_REQUIRE_MPI=1 demands one.
func Need(t interface {
	Helper()
	Fatalf(format string, v ...any)
	Skipf(format string, v ...any)
}) MPI {
	t.Helper()
	m, err := Find()
	switch {
	case err != nil && os.Getenv("FORTET_REQUIRE_MPI") == "1":
		t.Fatalf("FORTET_REQUIRE_MPI=1: %v", err)
	case err != nil:
		t.Skipf("not run: several processes: %v", err)
	}
	return m
}

// Environment lets Open MPI start more processes than there are cores, on any
// core, for root too, as in a container, and through memory alone.
var Environment = []string{
	"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
	"PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe", "OMPI_MCA_rmaps_base_oversubscribe=1",
	"PRTE_MCA_hwloc_default_binding_policy=none", "OMPI_MCA_hwloc_base_binding_policy=none",
	"OMPI_MCA_pml=ob1", "OMPI_MCA_btl=self,sm",
}

// Prefix is what stands before a program that is to run in so many processes.
func (m MPI) Prefix(processes int) []string { return []string{m.run, "-np", fmt.Sprint(processes)} }

// Command is a program in so many processes; with 0, in one that no mpirun starts.
func (m MPI) Command(ctx context.Context, processes int, program string, args ...string) *exec.Cmd {
	line := append([]string{program}, args...)
	if processes > 0 {
		line = append(m.Prefix(processes), line...)
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(append(os.Environ(), "FORTET_MPI_LIB="+m.library), Environment...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}
