package npy

import (
	"fmt"
	"io"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/atomicfile"
)

// Write writes the bytes that numpy.save writes for the array. An array that
// contradicts itself, or one of bfloat16, which .npy cannot say, is an error
// that wraps gpu.ErrInvalid, and nothing is written.
func Write(w io.Writer, a *Array) error {
	if err := a.writable(); err != nil {
		return fmt.Errorf("npy: %w", err)
	}
	if err := a.write(w); err != nil {
		return fmt.Errorf("npy: write: %w", err)
	}
	return nil
}

// WriteFile makes path hold the array. The file is replaced as a whole: after
// an error, or where the process is killed, it is what it was before.
func WriteFile(path string, a *Array) error {
	if err := a.writable(); err != nil {
		return fmt.Errorf("npy: %s: %w", path, err)
	}
	if err := atomicfile.Write(path, a.write); err != nil {
		return fmt.Errorf("npy: %w", err)
	}
	return nil
}

func (a *Array) writable() error {
	if err := a.validate(); err != nil {
		return err
	}
	if d := a.DType(); dtypes[d].descr == "" {
		return fmt.Errorf("data: %v, want a type that .npy files can hold: %w", d, gpu.ErrInvalid)
	}
	return nil
}

// write writes a valid array.
func (a *Array) write(w io.Writer) error {
	if _, err := w.Write(appendHeader(nil, a.DType(), a.Shape)); err != nil {
		return err
	}
	return WriteData(w, a)
}

// WriteData writes the elements alone, little-endian. It is the part that file
// formats share; most callers want Write.
func WriteData(w io.Writer, a *Array) error {
	return writeRaw(w, rawBytes(a.Data), a.DType().Bytes(), !littleEndian())
}

// writeRaw writes elements of size bytes, with their bytes turned round where
// swap says so.
func writeRaw(w io.Writer, raw []byte, size int, swap bool) error {
	if !swap || size < 2 {
		_, err := w.Write(raw)
		return err
	}
	for len(raw) > 0 {
		part := append([]byte(nil), raw[:min(len(raw), chunk)]...)
		raw = raw[len(part):]
		swapBytes(part, size)
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}
