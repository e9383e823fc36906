//go:build !cgo

package gmm

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func launchSample(*SampleArgs) error {
	return fmt.Errorf("gmm: %w: this program was built without cgo", gpu.ErrUnavailable)
}
