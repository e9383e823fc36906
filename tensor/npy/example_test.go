package npy_test

import (
	"bytes"
	"fmt"

	"github.com/fortet/fortet/tensor/npy"
)

func Example() {
	var file bytes.Buffer // or npy.WriteFile and npy.ReadFile
	if err := npy.Write(&file, npy.New([]float32{1, 2, 3, 4, 5, 6}, 2, 3)); err != nil {
		fmt.Println(err)
		return
	}
	a, err := npy.Read(&file, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(a.Shape, a.DType(), a.Float64s())
	// Output: [2 3] float32 [1 2 3 4 5 6]
}

func ExampleArchive() {
	var z npy.Archive
	z.Set("f", npy.New([]float64{0.5, -0.5}))
	z.Set("epsilon", npy.Scalar(0.1))

	var file bytes.Buffer // or npy.WriteNPZFile and npy.ReadNPZFile
	if err := npy.WriteNPZ(&file, &z, npy.Deflated); err != nil {
		fmt.Println(err)
		return
	}
	back, err := npy.ReadNPZ(bytes.NewReader(file.Bytes()), int64(file.Len()), 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	for name, a := range back.All() {
		fmt.Println(name, a.Shape, a.Data)
	}
	_, err = back.Get("g")
	fmt.Println(err)
	// Output:
	// f [2] [0.5 -0.5]
	// epsilon [] [0.1]
	// npy: archive: no array "g", have ["f" "epsilon"]: invalid argument
}
