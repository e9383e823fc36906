//go:build !cgo

package bench

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

func measureCeilings(gpu.Level, int, int) (Ceilings, error) {
	return Ceilings{}, fmt.Errorf("bench: limits: %w: built without cgo", gpu.ErrUnavailable)
}
