//go:build !cgo

package cost

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func launch(Args, sizes) error {
	return fmt.Errorf("cost: %w: this program was built without cgo", gpu.ErrUnavailable)
}
