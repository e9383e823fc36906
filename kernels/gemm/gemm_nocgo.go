//go:build !cgo

package gemm

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

// A build without cgo has no device that a kernel could run on.
func launch(*Args, *problem) error {
	return fmt.Errorf("gemm: %w: this program was built without cgo", gpu.ErrUnavailable)
}
