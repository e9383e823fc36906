//go:build !cgo

package gpu

import "fmt"

// CPUOptions configure the CPU device.
type CPUOptions struct {
	Workers int
	Level   Level
}

// BestLevel is Baseline in a build without cgo, which has no kernels.
func BestLevel() Level { return Baseline }

// OpenCPU fails: this build has no kernels.
func OpenCPU(CPUOptions) (Device, error) {
	return nil, fmt.Errorf("gpu: cpu: %w: this program was built without cgo", ErrUnavailable)
}
