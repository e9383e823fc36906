package philox

import (
	"fmt"

	"github.com/fortet/fortet/gpu"
)

// Block is the generator itself: ten rounds of Philox4x32 under the key seed.
func Block(seed uint64, counter [4]uint32) [4]uint32 {
	c0, c1, c2, c3 := counter[0], counter[1], counter[2], counter[3]
	k0, k1 := uint32(seed), uint32(seed>>32)
	for range 10 {
		p, q := 0xD2511F53*uint64(c0), 0xCD9E8D57*uint64(c2)
		c0, c1, c2, c3 = uint32(q>>32)^c1^k0, uint32(q), uint32(p>>32)^c3^k1, uint32(p)
		k0 += 0x9E3779B9
		k1 += 0xBB67AE85
	}
	return [4]uint32{c0, c1, c2, c3}
}

// words is the block of a row.
func (d Draw) words(row uint64, block uint32) [4]uint32 {
	i := d.Index + row
	return Block(d.Seed, [4]uint32{uint32(i), uint32(i >> 32), d.Step, uint32(d.Purpose)<<24 | block})
}

// HostBits fills dst, row-major with so many columns, with what Bits gives.
func HostBits(dst []uint32, columns int, draw Draw) error {
	return hostFill("philox: host bits", dst, columns, width32, draw, func(w [4]uint32) [4]uint32 { return w })
}

// HostUniform fills dst, row-major with so many columns, with what Uniform gives.
func HostUniform[T float32 | float64](dst []T, columns int, draw Draw) error {
	const op = "philox: host uniform"
	switch dst := any(dst).(type) {
	case []float32:
		return hostFill(op, dst, columns, width32, draw, uniforms32)
	case []float64:
		return hostFill(op, dst, columns, width64, draw, uniforms64)
	}
	return nil
}

// HostNormal fills dst, row-major with so many columns, with what Normal gives.
func HostNormal[T float32 | float64](dst []T, columns int, draw Draw) error {
	const op = "philox: host normal"
	switch dst := any(dst).(type) {
	case []float32:
		return hostFill(op, dst, columns, width32, draw, normals32)
	case []float64:
		return hostFill(op, dst, columns, width64, draw, normals64)
	}
	return nil
}

// hostFill writes the first width values of of(words) for every block.
func hostFill[T any](op string, dst []T, columns, width int, draw Draw, of func([4]uint32) [4]T) error {
	switch {
	case len(dst) == 0:
		return nil
	case columns <= 0 || len(dst)%columns != 0:
		return fmt.Errorf("%s: dst: %w: %d elements, want a multiple of %d columns", op, gpu.ErrInvalid, len(dst), columns)
	case columns > maxBlocks*width:
		return fmt.Errorf("%s: columns: %w: got %d, want at most %d", op, gpu.ErrInvalid, columns, maxBlocks*width)
	}
	for row := range len(dst) / columns {
		part := dst[row*columns : (row+1)*columns]
		for b := 0; b*width < columns; b++ {
			v := of(draw.words(uint64(row), uint32(b)))
			copy(part[b*width:], v[:width])
		}
	}
	return nil
}

func uniforms32(w [4]uint32) (u [4]float32) {
	for j := range u {
		u[j] = uniform32(w[j])
	}
	return u
}

func uniforms64(w [4]uint32) [4]float64 {
	return [4]float64{uniform64(word64(w[0], w[1])), uniform64(word64(w[2], w[3]))}
}

func normals32(w [4]uint32) (z [4]float32) {
	z[0], z[1] = normal32(w[0], w[1])
	z[2], z[3] = normal32(w[2], w[3])
	return z
}

func normals64(w [4]uint32) (z [4]float64) {
	z[0], z[1] = normal64(word64(w[0], w[1]), word64(w[2], w[3]))
	return z
}

func word64(low, high uint32) uint64 { return uint64(high)<<32 | uint64(low) }
