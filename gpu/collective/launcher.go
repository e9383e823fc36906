package collective

import (
	"fmt"
	"os"
	"strconv"
)

// launchers lists the variables in which launchers tell a process its rank,
// how many there are, and its rank on its own machine. The first whose size is
// set counts: mpirun inside an allocation of Slurm sets both.
var launchers = []struct{ name, rank, size, local string }{
	{"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
	{"MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"},
	{"torchrun or Kubernetes", "RANK", "WORLD_SIZE", "LOCAL_RANK"},
	{"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"},
}

// launch is what the launcher says.
type launch struct {
	rank, size int
	by         string // "PMI_RANK=0, PMI_SIZE=2"
}

// launched reads the launcher's variables. ok is false where there are none.
func launched() (l launch, ok bool, err error) {
	for _, v := range launchers {
		if os.Getenv(v.size) == "" || os.Getenv(v.rank) == "" {
			continue
		}
		l.by = fmt.Sprintf("%s=%s, %s=%s", v.rank, os.Getenv(v.rank), v.size, os.Getenv(v.size))
		var bad [2]error
		l.rank, bad[0] = strconv.Atoi(os.Getenv(v.rank))
		l.size, bad[1] = strconv.Atoi(os.Getenv(v.size))
		if bad[0] != nil || bad[1] != nil || l.rank < 0 || l.rank >= l.size {
			return launch{}, false, fmt.Errorf("%s: want a rank from 0, below the size", l.by)
		}
		return l, true, nil
	}
	return launch{}, false, nil
}

// LocalRank is this process's number among those on the same machine, as the
// launcher tells it, so that each takes a GPU of its own: "cuda:" + LocalRank.
// It is 0 where no launcher tells.
func LocalRank() int {
	for _, v := range launchers {
		if os.Getenv(v.size) == "" || os.Getenv(v.rank) == "" {
			continue
		}
		if n, err := strconv.Atoi(os.Getenv(v.local)); err == nil && n >= 0 {
			return n
		}
	}
	return 0
}
