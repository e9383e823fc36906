//go:build !cgo

package fold

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// A build without cgo has no device that a kernel could run on.
func launch(tensor.Tensor, tensor.Tensor, int) error {
	return fmt.Errorf("%s: %w: this program was built without cgo", op, gpu.ErrUnavailable)
}
