package collective

import (
	"errors"
	"fmt"

	"github.com/fortet/fortet/gpu"
)

var (
	// ErrUnavailable says that a group cannot be joined here, and why.
	ErrUnavailable = errors.New("group unavailable")
	// ErrExchange says that ranks did not get what they exchange.
	ErrExchange = errors.New("exchange failed")
)

// Open joins the group that this process was started in, with buffers on dev.
// All processes must call it.
//
//	"self", ""  this process alone
//	"mpi"       host memory through MPI; memory of a GPU passes through the host
//	"nccl"      memory of GPUs through NCCL
//
// An error says what is missing.
//
// MPI is found through libfortet_mpi.so (see build.sh), which is looked for
// where FORTET_MPI_LIB says, beside the executable and in lib/. A process that
// no mpirun has started is a group of size 1. Sum adds in the order of ranks.
// Calls wait for the device's queue, and cannot be recorded; those of several
// groups of a process take turns, so that all ranks must make them in one
// order. MPI ends with the last group that is closed, and cannot begin again;
// close it before the process ends, or the launcher takes that for a crash.
//
// NCCL is libnccl.so.2, or what FORTET_NCCL_LIB names. Rank and size are those
// of Open MPI, MPICH, torchrun, Kubernetes or Slurm; ranks find each other at
// NCCL_COMM_ID=host:port, which rank 0 listens at, or else at
// MASTER_ADDR:MASTER_PORT, or else through MPI. Give each process a GPU of its
// own (see LocalRank). Calls are queued and can be recorded; close graphs that
// they stand in before the group. This was compiled, compared with NCCL's
// header, and run against a stand-in on emulated devices; not yet on GPUs.
func Open(name string, dev gpu.Device) (Group, error) {
	if dev == nil {
		return nil, fmt.Errorf("collective: %q: %w: no device", name, gpu.ErrInvalid)
	}
	switch name {
	case "self", "":
		return Self(dev), nil
	case "mpi":
		return openMPI(dev)
	case "nccl":
		return openNCCL(dev)
	}
	return nil, fmt.Errorf("collective: group %q: %w: want self, mpi or nccl", name, gpu.ErrInvalid)
}
