//go:build !cgo

package ensemble

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

func launch(gpu.Device, Args, int, []int64, tensor.Tensor) error {
	return fmt.Errorf("%s: %w: this program was built without cgo", op, gpu.ErrUnavailable)
}
