//go:build !cgo

package softmin

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// A build without cgo has no device that a kernel could run on.
var errNoCgo = fmt.Errorf("softmin: %w: this program was built without cgo", gpu.ErrUnavailable)

func launchSoftmin(gpu.Device, Pairs, sizes, tensor.Tensor) error { return errNoCgo }

func launchSweep(gpu.Device, Pairs, sizes, SweepArgs) error { return errNoCgo }

func launchApply(gpu.Device, Pairs, sizes, ApplyArgs, int) error { return errNoCgo }
