package bench

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/axis"
	"github.com/fortet/fortet/tensor"
)

// Model is a GPU's data sheet. Rates are dense, without the sparsity that data
// sheets multiply by two, at the clock that they are stated for.
type Model struct {
	Name            string
	Names           []string // what a driver calls it
	Multiprocessors int
	Clock           float64 // boost, in Hz, that exponentials and integers are counted at

	Float32, Float64     float64 // FLOP/s
	Matrix64, TF32, BF16 float64 // FLOP/s of tensor cores
	Bandwidth            float64 // bytes a second
	L2                   float64 // bytes
	Source               string
}

// models are the GPUs whose figures are known. Each has the clock at which
// float32 FLOP/s = 256 × multiprocessors × clock (Hopper, Ada, 128 lanes) or 128
// × (A100, 64 lanes), as its data sheet computes it.
//
// Sources: "NVIDIA H100 Tensor Core GPU" data sheet and the Hopper architecture
// whitepaper; "NVIDIA H200 Tensor Core GPU" data sheet; "NVIDIA A100 Tensor Core
// GPU" data sheet and the Ampere architecture whitepaper; "NVIDIA L4 Tensor Core
// GPU" data sheet; "NVIDIA Ada GPU architecture" whitepaper, appendix A, for the
// GeForce RTX 4090. Ada's float64 is a 64th of its float32, and it has no
// float64 tensor cores.
var models = []Model{
	{
		Name: "H100 SXM", Names: []string{"NVIDIA H100 80GB HBM3"}, Multiprocessors: 132, Clock: 1.98e9,
		Float32: 66.9e12, Float64: 33.5e12, Matrix64: 66.9e12, TF32: 494.7e12, BF16: 989.4e12, Bandwidth: 3.35e12, L2: 50e6,
		Source: "H100 SXM5 data sheet",
	},
	{
		Name: "H100 PCIe", Names: []string{"NVIDIA H100 PCIe"}, Multiprocessors: 114, Clock: 1.755e9,
		Float32: 51.2e12, Float64: 25.6e12, Matrix64: 51.2e12, TF32: 378e12, BF16: 756e12, Bandwidth: 2.04e12, L2: 50e6,
		Source: "H100 PCIe data sheet",
	},
	{
		Name: "H200 SXM", Names: []string{"NVIDIA H200"}, Multiprocessors: 132, Clock: 1.98e9,
		Float32: 66.9e12, Float64: 33.5e12, Matrix64: 66.9e12, TF32: 494.7e12, BF16: 989.4e12, Bandwidth: 4.8e12, L2: 50e6,
		Source: "H200 SXM data sheet",
	},
	{
		Name: "A100 80GB", Names: []string{"NVIDIA A100-SXM4-80GB"}, Multiprocessors: 108, Clock: 1.41e9,
		Float32: 19.5e12, Float64: 9.7e12, Matrix64: 19.5e12, TF32: 156e12, BF16: 312e12, Bandwidth: 2.039e12, L2: 40e6,
		Source: "A100 80GB SXM data sheet",
	},
	{
		Name: "A100 80GB PCIe", Names: []string{"NVIDIA A100 80GB PCIe"}, Multiprocessors: 108, Clock: 1.41e9,
		Float32: 19.5e12, Float64: 9.7e12, Matrix64: 19.5e12, TF32: 156e12, BF16: 312e12, Bandwidth: 1.935e12, L2: 40e6,
		Source: "A100 80GB PCIe data sheet",
	},
	{
		Name: "L4", Names: []string{"NVIDIA L4"}, Multiprocessors: 58, Clock: 2.04e9,
		Float32: 30.3e12, Float64: 30.3e12 / 64, Matrix64: 30.3e12 / 64, TF32: 60e12, BF16: 121e12, Bandwidth: 300e9, L2: 48e6,
		Source: "L4 data sheet",
	},
	{
		Name: "RTX 4090", Names: []string{"NVIDIA GeForce RTX 4090"}, Multiprocessors: 128, Clock: 2.52e9,
		Float32: 82.6e12, Float64: 82.6e12 / 64, Matrix64: 82.6e12 / 64, TF32: 82.6e12, BF16: 165.2e12, Bandwidth: 1.008e12, L2: 72e6,
		Source: "Ada whitepaper, RTX 4090",
	},
}

// Models are the names of the GPUs whose ceilings are known.
func Models() []string {
	var names []string
	for _, m := range models {
		names = append(names, m.Name)
	}
	return names
}

// modelOf is the data sheet of a GPU by the driver's name for it. A part of a
// card (MIG) has its name, but fewer multiprocessors and no data sheet.
func modelOf(name string, multiprocessors int) (Model, bool) {
	i := slices.IndexFunc(models, func(m Model) bool {
		return slices.Contains(m.Names, name) && m.Multiprocessors == multiprocessors
	})
	if i < 0 {
		return Model{}, false
	}
	return models[i], true
}

// ModelNamed is the data sheet of a GPU by its name in Models, whatever its case.
func ModelNamed(name string) (Model, error) {
	for _, m := range models {
		if strings.EqualFold(m.Name, name) {
			return m, nil
		}
	}
	return Model{}, fmt.Errorf("bench: GPU %q: %w: want one of %s", name, gpu.ErrInvalid, strings.Join(Models(), ", "))
}

// Ceilings are a model's rates for a setting. Special functions: 16 a cycle on
// each multiprocessor; integer operations: 64 (CUDA C++ programming guide,
// "Throughput of native arithmetic instructions", compute capability 8.0 to
// 9.0). There is no unit for those of float64, which take a polynomial: 11
// multiply-adds for degree 11 and 2 for the reduction, 26 operations. Matrix
// products run on the units that the precision names.
func (m Model) Ceilings(s Setting) Ceilings {
	cycles := float64(m.Multiprocessors) * m.Clock
	c := Ceilings{
		Flops: m.Float32, Matrix: m.Float32, Exps: 16 * cycles, Integers: 64 * cycles,
		Read: m.Bandwidth, Write: m.Bandwidth, Copy: m.Bandwidth,
		Cache: 2 * m.L2, Source: m.Source,
	}
	switch {
	case s.DType == tensor.Float64:
		c.Flops, c.Matrix, c.Exps = m.Float64, m.Matrix64, m.Float64/26
	case s.Precision == TF32:
		c.Matrix = m.TF32
	case s.Precision == BF16x3: // three products for one
		c.Matrix = m.BF16 / 3
		c.Source += ", bf16 rate / 3"
	}
	return c
}

// copying measures the bandwidth of a GPU that no data sheet is known of, by a
// kernel that copies n float32.
func (m *measured) copying(dev gpu.Device, n int) (Ceilings, error) {
	return once(&m.copied, dev.Name(), func() (Ceilings, error) {
		in, err := tensor.New(dev, tensor.Float32, n)
		if err != nil {
			return Ceilings{}, err
		}
		defer in.Free()
		best := math.Inf(1)
		for range 8 {
			took, err := byEvents(dev, 4, func() error {
				out, err := axis.Affine(in, tensor.Tensor{}, 1)
				out.Free()
				return err
			})
			if err != nil {
				return Ceilings{}, err
			}
			best = min(best, took)
		}
		rate := 8 * float64(n) / best
		return Ceilings{
			Read: rate, Write: rate, Copy: rate, Cache: 256 << 20,
			Source: "by copying, measured; no other rates of this GPU are known",
		}, nil
	})
}
