//go:build !cgo

package axis

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

// A build without cgo has no device that a kernel could run on.
func launch(Args, sizes) error {
	return fmt.Errorf("%s: %w: this program was built without cgo", op, gpu.ErrUnavailable)
}
