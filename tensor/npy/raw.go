package npy

import (
	"encoding/binary"
	"unsafe"
)

func littleEndian() bool {
	return binary.NativeEndian.Uint16([]byte{1, 0}) == 1
}

// bytesOf views elements as the bytes they are made of.
func bytesOf[T Element](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(v[0])))
}

// rawBytes views Array.Data as bytes in the machine's order; nil for what is
// no slice of an Element type.
func rawBytes(data any) []byte {
	switch v := data.(type) {
	case []bool:
		return bytesOf(v)
	case []int8:
		return bytesOf(v)
	case []int16:
		return bytesOf(v)
	case []int32:
		return bytesOf(v)
	case []int64:
		return bytesOf(v)
	case []uint8:
		return v
	case []uint16:
		return bytesOf(v)
	case []uint32:
		return bytesOf(v)
	case []uint64:
		return bytesOf(v)
	case []Float16:
		return bytesOf(v)
	case []BFloat16:
		return bytesOf(v)
	case []float32:
		return bytesOf(v)
	case []float64:
		return bytesOf(v)
	}
	return nil
}

// swapBytes turns the byte order of elements of the given size round.
func swapBytes(b []byte, size int) {
	for ; len(b) >= size && size > 1; b = b[size:] {
		for i, j := 0, size-1; i < j; i, j = i+1, j-1 {
			b[i], b[j] = b[j], b[i]
		}
	}
}
