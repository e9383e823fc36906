package collective

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// bootstrap is how the ranks of an NCCL group find rank 0.
type bootstrap int

const (
	alone     bootstrap = iota // there is no other
	byAddress                  // NCCL_COMM_ID, which rank 0 listens at
	byMPI                      // rank 0's id, broadcast by MPI
)

// ncclPlace reads from the launcher's variables which rank this process is,
// and how it finds the others. It sets NCCL_COMM_ID where the variables of
// torchrun and Kubernetes say the same.
func ncclPlace() (launch, bootstrap, error) {
	l, ok, err := launched()
	switch {
	case err != nil:
		return launch{}, alone, err
	case !ok:
		names := ""
		for i, v := range launchers {
			if i > 0 {
				names += ", or "
			}
			names += v.rank + " and " + v.size
		}
		return launch{}, alone, errors.New("no launcher's variables: want " + names)
	case l.size == 1:
		return l, alone, nil
	case os.Getenv("NCCL_COMM_ID") != "":
		return l, byAddress, nil
	}
	host, port := os.Getenv("MASTER_ADDR"), os.Getenv("MASTER_PORT")
	if host == "" || port == "" {
		return l, byMPI, nil
	}
	if os.Getenv("TORCHELASTIC_USE_AGENT_STORE") == "True" {
		return launch{}, alone, errors.New("torchrun itself listens at MASTER_PORT: set NCCL_COMM_ID to another host:port of rank 0's machine")
	}
	if err := os.Setenv("NCCL_COMM_ID", net.JoinHostPort(host, port)); err != nil {
		return launch{}, alone, fmt.Errorf("NCCL_COMM_ID: %w", err)
	}
	return l, byAddress, nil
}
