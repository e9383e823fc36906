//go:build !cgo

package batch

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func launchGather(*GatherArgs) error { return unavailable() }

func launchBridge(*BridgeArgs, int, int) error { return unavailable() }

func unavailable() error {
	return fmt.Errorf("batch: %w: this program was built without cgo", gpu.ErrUnavailable)
}
