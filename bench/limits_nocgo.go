//go:build !cgo

package bench

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

var errNoLoops = fmt.Errorf("bench: limits: %w: built without cgo", gpu.ErrUnavailable)

func measureUnits(gpu.Level, int, int) (Ceilings, error) { return Ceilings{}, errNoLoops }

func measureMemory(int) (Ceilings, error) { return Ceilings{}, errNoLoops }
