//go:build !cgo

package fdual

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

// A build without cgo has no device that a kernel could run on.
var errNoCgo = fmt.Errorf("fdual: %w: this program was built without cgo", gpu.ErrUnavailable)

func launchRows(gpu.Device, Pairs, sizes, RowsArgs) error { return errNoCgo }

func launchEval(gpu.Device, Pairs, sizes, EvalArgs) error { return errNoCgo }
