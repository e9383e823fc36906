package npy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"
)

// chunk bounds what is taken before the input has shown that it is there.
const chunk = 1 << 20

// Read reads one array and leaves r behind its last byte, so that arrays can
// follow each other. limit bounds the bytes of the array's data; 0 means no
// bound other than what r holds.
func Read(r io.Reader, limit int64) (*Array, error) {
	a, err := read(r, limit, available(r))
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	return a, nil
}

// ReadFile reads the file at path, which must end with the array's last byte.
// The file may be a pipe.
func ReadFile(path string) (*Array, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	defer f.Close() // read only
	a, err := read(f, 0, available(f))
	if err == nil {
		err = wantEnd(f)
	}
	if err != nil {
		return nil, fmt.Errorf("npy: %s: %w", path, err)
	}
	return a, nil
}

// available returns how many bytes r holds, -1 where that cannot be known.
func available(r io.Reader) int64 {
	switch r := r.(type) {
	case *bytes.Reader:
		return int64(r.Len())
	case *bytes.Buffer:
		return int64(r.Len())
	case *strings.Reader:
		return int64(r.Len())
	case *os.File:
		info, err := r.Stat()
		if err != nil || !info.Mode().IsRegular() {
			return -1
		}
		at, err := r.Seek(0, io.SeekCurrent)
		if err != nil || at > info.Size() {
			return -1
		}
		return info.Size() - at
	}
	return -1
}

func wantEnd(r io.Reader) error {
	n, err := io.CopyN(io.Discard, r, 1)
	if n != 0 {
		return malformed("data: bytes follow the array, want the end of the file")
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}

func read(r io.Reader, limit, available int64) (*Array, error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	want := int64(h.count) * int64(h.dtype.Bytes())
	if limit > 0 && want > limit {
		return nil, fmt.Errorf("data: %v of shape %s has %d bytes, limit %d: %w", h.dtype, FormatShape(h.shape), want, limit, ErrLimit)
	}
	if available >= 0 {
		if left := available - int64(h.bytes); left < want {
			return nil, malformed("data: %d bytes, want %d for %v of shape %s", max(left, 0), want, h.dtype, FormatShape(h.shape))
		}
	}
	return readBody(r, h, available >= 0)
}

func readBody(r io.Reader, h header, held bool) (*Array, error) {
	var err error
	a := &Array{Shape: h.shape}
	a.Data, err = readData(r, h.dtype, h.count, held)
	if err != nil {
		return nil, err
	}
	if h.big == littleEndian() {
		swapBytes(rawBytes(a.Data), h.dtype.Bytes())
	}
	if h.fortran {
		a.Data = rowMajor(a.Data, h.shape)
	}
	return a, nil
}

// ReadData reads count little-endian elements of type d and returns them as a
// slice. held says that r is known to hold them all; otherwise memory is taken
// as they arrive. It is the part that file formats share; most callers want
// Read.
func ReadData(r io.Reader, d DType, count int, held bool) (any, error) {
	data, err := readData(r, d, count, held)
	if err == nil && !littleEndian() {
		swapBytes(rawBytes(data), d.Bytes())
	}
	return data, err
}

// readData leaves the elements in the byte order of the input.
func readData(r io.Reader, d DType, count int, held bool) (any, error) {
	switch d {
	case Bool:
		v, err := readValues[uint8](r, count, held)
		if err != nil {
			return nil, err
		}
		for i, x := range v {
			if x > 1 {
				return nil, malformed("data: element %d: %d is no bool, want 0 or 1", i, x)
			}
		}
		// All bytes are 0 or 1, which is how Go keeps a bool.
		return unsafe.Slice((*bool)(unsafe.Pointer(unsafe.SliceData(v))), len(v)), nil
	case I8:
		return boxed(readValues[int8](r, count, held))
	case I16:
		return boxed(readValues[int16](r, count, held))
	case I32:
		return boxed(readValues[int32](r, count, held))
	case I64:
		return boxed(readValues[int64](r, count, held))
	case U8:
		return boxed(readValues[uint8](r, count, held))
	case U16:
		return boxed(readValues[uint16](r, count, held))
	case U32:
		return boxed(readValues[uint32](r, count, held))
	case U64:
		return boxed(readValues[uint64](r, count, held))
	case F16:
		return boxed(readValues[Float16](r, count, held))
	case BF16:
		return boxed(readValues[BFloat16](r, count, held))
	case F32:
		return boxed(readValues[float32](r, count, held))
	case F64:
		return boxed(readValues[float64](r, count, held))
	}
	return nil, malformed("data: type %v", d)
}

func boxed[T Element](v []T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func readValues[T Element](r io.Reader, count int, held bool) ([]T, error) {
	size := int(unsafe.Sizeof(*new(T)))
	first := count
	if !held {
		first = min(count, chunk/size)
	}
	data := make([]T, 0, first)
	for {
		done := len(data)
		data = data[:cap(data)]
		n, err := io.ReadFull(r, bytesOf(data[done:]))
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, malformed("data: cut short after %d bytes, want %d", done*size+n, count*size)
		}
		if err != nil {
			return nil, fmt.Errorf("data: %w", err)
		}
		if len(data) == count {
			return data, nil
		}
		bigger := make([]T, len(data), min(count-len(data), len(data))+len(data))
		copy(bigger, data)
		data = bigger
	}
}

// rowMajor turns column-major data round.
func rowMajor(data any, shape []int) any {
	switch v := data.(type) {
	case []bool:
		return transposed(v, shape)
	case []int8:
		return transposed(v, shape)
	case []int16:
		return transposed(v, shape)
	case []int32:
		return transposed(v, shape)
	case []int64:
		return transposed(v, shape)
	case []uint8:
		return transposed(v, shape)
	case []uint16:
		return transposed(v, shape)
	case []uint32:
		return transposed(v, shape)
	case []uint64:
		return transposed(v, shape)
	case []Float16:
		return transposed(v, shape)
	case []float32:
		return transposed(v, shape)
	case []float64:
		return transposed(v, shape)
	}
	return data
}

func transposed[T Element](from []T, shape []int) []T {
	last := len(shape) - 1
	if last < 1 || len(from) == 0 {
		return from
	}
	strides := make([]int, len(shape))
	stride := 1
	for i, extent := range shape {
		strides[i] = stride
		stride *= extent
	}
	to := make([]T, 0, len(from))
	index := make([]int, len(shape))
	at := 0 // where element index lies in from
	for {
		for range shape[last] {
			to = append(to, from[at])
			at += strides[last]
		}
		at -= shape[last] * strides[last]
		i := last - 1
		for ; i >= 0; i-- {
			index[i]++
			at += strides[i]
			if index[i] < shape[i] {
				break
			}
			at -= shape[i] * strides[i]
			index[i] = 0
		}
		if i < 0 {
			return to
		}
	}
}
