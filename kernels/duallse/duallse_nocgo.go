//go:build !cgo

package duallse

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// A build without cgo has no device that a kernel could run on.
var errNoCgo = fmt.Errorf("duallse: %w: this program was built without cgo", gpu.ErrUnavailable)

func launchStar(gpu.Device, Star, sizes, *float64, Output, tensor.Tensor) error { return errNoCgo }

func launchTriple(gpu.Device, Star, sizes, int, Divergence, PenaltyOutput, penaltyWork) error {
	return errNoCgo
}

func launchTuples(gpu.Device, Tuples, []int, int, Divergence, PenaltyOutput, tensor.Tensor) error {
	return errNoCgo
}

func launchPsi(gpu.Device, Divergence, tensor.Tensor, PsiOutput) error { return errNoCgo }
