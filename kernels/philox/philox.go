// Package philox is the project's only source of randomness: Philox4x32-10,
// a counter-based generator, and its maps to uniforms and normals.
//
// A draw is a pure function of (seed, sample index, step, purpose,
// coordinate). It does not depend on batch size, device, worker count or
// order: rows [lo, hi) of an array drawn at once equal the array of hi - lo
// rows drawn with an index that is lo higher. Bits, uniforms and normals are
// bit-equal on all devices and on the host, for which HostBits, HostUniform,
// HostNormal and Stream need no device.
//
//	words  = Philox4x32-10(key: seed, counter: (index, index >> 32, step, purpose << 24 | block))
//	bits   : coordinate j is word j mod 4 of block j / 4
//	float32: uniform (top 23 bits + ½) / 2²³; normals from words (0, 1) and (2, 3)
//	float64: uniform (top 52 bits + ½) / 2⁵² of words (0, 1) or (2, 3), the low
//	         one first; coordinates 2k and 2k+1 are in block k, whose two double
//	         words give the two normals
//
// A pair of normals is √(-2 log u) (cos θ, sin θ) (Box and Muller 1958). The
// same address gives other normals in float32 than in float64.
//
// Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011.
package philox

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Draw says whose draws: all but the coordinate. The zero value is a valid one.
type Draw struct {
	Seed    uint64
	Index   uint64 // sample index of row 0; row i has Index + i, modulo 2⁶⁴
	Step    uint32 // the integrator's or the training's step
	Purpose uint8  // keeps apart what the same sample needs at the same step
}

// maxBlocks is how many blocks of coordinates the counter has room for.
const maxBlocks = 1 << 24

// Widths of blocks: how many coordinates four words serve.
const (
	width32 = 4
	width64 = 2
)

// MaxColumns is the most columns that an array of draws can have: 2²⁶ of bits
// and float32, 2²⁵ of float64.
func MaxColumns(t tensor.DType) int {
	if t == tensor.Float64 {
		return maxBlocks * width64
	}
	return maxBlocks * width32
}

// Bits fills out (n, d), Uint32, with uniform bits.
func Bits(out tensor.Tensor, draw Draw) error {
	return fill("philox: bits", bitsKernel, out, draw, tensor.Uint32)
}

// Uniform fills out (n, d), Float32 or Float64, with uniforms in the open
// interval (0, 1).
func Uniform(out tensor.Tensor, draw Draw) error {
	return fill("philox: uniform", uniformKernel, out, draw, tensor.Float32, tensor.Float64)
}

// Normal fills out (n, d), Float32 or Float64, with standard normals.
func Normal(out tensor.Tensor, draw Draw) error {
	return fill("philox: normal", normalKernel, out, draw, tensor.Float32, tensor.Float64)
}

// kind is which kernel.
type kind int

const (
	bitsKernel kind = iota
	uniformKernel
	normalKernel
)

func fill(op string, k kind, out tensor.Tensor, draw Draw, types ...tensor.DType) error {
	if out.IsZero() {
		return fmt.Errorf("%s: out: %w: missing", op, gpu.ErrInvalid)
	}
	dtype, err := oneOf(op, out, types)
	if err != nil {
		return err
	}
	if len(out.Shape()) != 2 {
		return fmt.Errorf("%s: out: %w: %d axes, want 2", op, gpu.ErrInvalid, len(out.Shape()))
	}
	n, d := out.Dim(0), out.Dim(1)
	if d > MaxColumns(dtype) {
		return fmt.Errorf("%s: out: %w: %d columns, want at most %d", op, gpu.ErrInvalid, d, MaxColumns(dtype))
	}
	if n == 0 || d == 0 {
		return nil
	}
	return launch(k, out, n, d, draw)
}

func oneOf(op string, out tensor.Tensor, types []tensor.DType) (tensor.DType, error) {
	for _, t := range types {
		if out.DType() == t {
			return t, nil
		}
	}
	return 0, fmt.Errorf("%s: out: %w: %v, want one of %v", op, gpu.ErrInvalid, out.DType(), types)
}

// Tiles is how many tiles the CPU kernels that draw an array (n, d) cut it
// into; for the use of kernels that include draws.
func Tiles(dtype tensor.DType, n, d int) int {
	width := width32
	if dtype == tensor.Float64 {
		width = width64
	}
	blocks := n * ((d + width - 1) / width)
	return (blocks + drawTile - 1) / drawTile
}

// drawTile is FORTET_DRAW_TILE of draw_lanes.h.
const drawTile = 4096
