//go:build !cgo

package philox

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

func launch(kind, tensor.Tensor, int, int, Draw) error {
	return fmt.Errorf("philox: %w: this program was built without cgo", gpu.ErrUnavailable)
}
