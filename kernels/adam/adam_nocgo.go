//go:build !cgo

package adam

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func launchStep(*Args) error { return unavailable() }

func launchNorm(*NormArgs, gpu.Buffer) error { return unavailable() }

func unavailable() error {
	return fmt.Errorf("adam: %w: this program was built without cgo", gpu.ErrUnavailable)
}
