//go:build !cgo

package ou

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func launch(Args, int, int) error {
	return fmt.Errorf("ou: %w: this program was built without cgo", gpu.ErrUnavailable)
}
