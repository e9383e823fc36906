//go:build !cgo

package proximal

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func launch(Args, int) error {
	return fmt.Errorf("proximal: %w: this program was built without cgo", gpu.ErrUnavailable)
}
