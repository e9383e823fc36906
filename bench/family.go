package bench

import (
	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Family is a kernel family as it is measured: on every device, from sizes
// where a launch is all the time there is to sizes that fill the device.
type Family struct {
	Name string
	// Sizes go up; Unit says what a size counts ("rows", "points a side").
	Sizes []int
	Unit  string
	// Open makes a case of a size in memory of the device, from fresh random
	// inputs. It is gpu.ErrUnsupported where the device has no such kernel.
	Open func(dev gpu.Device, dtype tensor.DType, size int) (*Case, error)
}

// Case is a piece of work that can be repeated.
type Case struct {
	Work Work
	Cost Cost
	// Run queues the work once.
	Run func() error
	// Check compares what the last run left, on outputs that were poisoned
	// before it, with the definition in float64: the largest error, and what
	// it may be at most.
	Check func() (worst, budget float64, err error)
	Free  func()
}

// Cost is what a piece of work must do at least, however it is done: what its
// limit on a device follows from.
type Cost struct {
	Flops  float64 // floating-point operations outside matrix products, a multiply-add counting two
	Matrix float64 // those of matrix products, which tensor cores can do
	Exps   float64 // exponentials, or other special functions
	Bytes  float64 // each input read once, each output written once
}
