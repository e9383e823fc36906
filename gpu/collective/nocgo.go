//go:build !cgo

package collective

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func copyBuffer(gpu.Device, gpu.Buffer, gpu.Buffer) error {
	return fmt.Errorf("collective: %w: this program was built without cgo", ErrUnavailable)
}

func openNCCL(gpu.Device) (Group, error) {
	return nil, fmt.Errorf("nccl: %w: this program was built without cgo", ErrUnavailable)
}
