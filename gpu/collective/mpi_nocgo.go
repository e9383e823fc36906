//go:build !cgo || windows

package collective

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func openMPI(gpu.Device) (Group, error) {
	return nil, fmt.Errorf("mpi: %w: this program was built without cgo", ErrUnavailable)
}
