package safetensors_test

import (
	"bytes"
	"fmt"

	"github.com/fortet/fortet/tensor/npy"
	"github.com/fortet/fortet/tensor/safetensors"
)

func Example() {
	var b bytes.Buffer // or safetensors.WriteFile and safetensors.Open
	err := safetensors.Write(&b, map[string]*npy.Array{
		"weight": npy.New([]float32{1, 2, 3, 4}, 2, 2),
		"step":   npy.Scalar(int64(100)),
	}, map[string]string{"method": "lightsb"})
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := safetensors.NewFile(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, info := range f.Infos() {
		fmt.Println(info.Name, info.DType, info.Shape)
	}
	weight, err := f.Read("weight")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(weight.Data, f.Metadata())
	// Output:
	// step int64 []
	// weight float32 [2 2]
	// [1 2 3 4] map[method:lightsb]
}
