//go:build !cgo

package gmm

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

// A build without cgo has no device that a kernel could run on.
var errNoCgo = fmt.Errorf("gmm: %w: this program was built without cgo", gpu.ErrUnavailable)

func launchScales(ScalesArgs) error { return errNoCgo }

func launchEvaluate(EvaluateArgs, int) error { return errNoCgo }

func launchLikelihood(LikelihoodArgs, [2]int, int) error { return errNoCgo }

func launchMatch(MatchArgs, int, int) error { return errNoCgo }

func launchReduce(ReduceArgs) error { return errNoCgo }
