//go:build cgo

package collective_test

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/collective"
)

// Two ranks add up a vector: what a trainer does with gradients. Processes that
// mpirun has started would call collective.Open("mpi", dev) instead of Local.
func Example() {
	devs := make([]gpu.Device, 2)
	for i := range devs {
		dev, err := gpu.Open("cpu")
		if err != nil {
			fmt.Println(err)
			return
		}
		defer dev.Close()
		devs[i] = dev
	}
	sums := make([][3]float64, 2)
	step := func(rank int, g collective.Group) error {
		dev := devs[rank]
		v := [3]float64{1, float64(rank), 0.5}
		host := unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v))
		gradient, err := dev.Alloc(len(host))
		if err != nil {
			return err
		}
		defer dev.Free(gradient)
		if err := dev.Upload(gradient, host); err != nil {
			return err
		}
		if err := g.Sum(gradient, collective.Float64); err != nil {
			return err
		}
		err = dev.Download(host, gradient)
		sums[rank] = v
		return err
	}
	var ranks sync.WaitGroup
	for rank, g := range collective.Local(2, devs...) {
		ranks.Go(func() {
			defer g.Close()
			if err := step(rank, g); err != nil {
				fmt.Println(err)
			}
		})
	}
	ranks.Wait()
	fmt.Println(sums[0])
	fmt.Println(sums[1])
	// Output:
	// [2 1 1]
	// [2 1 1]
}
