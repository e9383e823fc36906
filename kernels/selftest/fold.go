package selftest

import (
	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/fold"
	"github.com/fortet/fortet/tensor"
)

func folds(dev gpu.Device) error {
	a := &arena{dev: dev}
	defer a.free()
	in, h := a.normal(n, m)
	out := a.empty(tensor.Float32, m)
	if a.err == nil {
		a.err = fold.Rows(out, in)
	}
	want := make([]float64, m)
	for i, x := range h {
		want[i%m] += x
	}
	return a.compare("sums of rows", out, want)
}
