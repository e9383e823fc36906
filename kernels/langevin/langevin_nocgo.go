//go:build !cgo

package langevin

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func launch(Args) error {
	return fmt.Errorf("langevin: %w: this program was built without cgo", gpu.ErrUnavailable)
}
