//go:build cgo

package fake_test

import (
	"errors"
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
)

// pair allocates two buffers, or none.
func pair(d gpu.Device) (a, b gpu.Buffer, err error) {
	if a, err = d.Alloc(64); err != nil {
		return gpu.Buffer{}, gpu.Buffer{}, err
	}
	if b, err = d.Alloc(64); err != nil {
		d.Free(a)
		return gpu.Buffer{}, gpu.Buffer{}, err
	}
	return a, b, nil
}

func Example() {
	cpu, err := gpu.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cpu.Close()

	whole := fake.New(cpu, fake.Fail{})
	a, b, _ := pair(whole)
	whole.Free(a)
	whole.Free(b)
	for n := 1; n <= whole.Counts().Alloc; n++ {
		_, _, err := pair(fake.New(cpu, fake.Fail{Alloc: n}))
		fmt.Println(n, errors.Is(err, gpu.ErrOutOfMemory), cpu.Memory().InUse)
	}
	// Output:
	// 1 true 0
	// 2 true 0
}
