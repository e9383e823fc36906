// Package safetensors reads and writes named arrays in the safetensors format,
// which checkpoints use: eight bytes that hold the header's length, a header
// in JSON that gives every array's type, shape and place, and the data,
// row-major and little-endian.
//
// Arrays are those of package npy. A File gives them one by one without
// reading the rest; ReadFile reads them all. Types are BOOL, I8 to I64, U8 to
// U64, F16, BF16, F32 and F64.
//
// Writing is deterministic and byte-equal to the format's own library: the
// header is padded so that the data begins at a multiple of eight bytes, and
// arrays follow in the order of their type, widest first, then of their name,
// so that each is aligned to its elements.
//
// Input is not trusted. Offsets must cover the data exactly once, without
// overlap or hole, and agree with type and shape; names must not repeat. Every
// error of the input wraps npy.ErrFormat. Specification:
// https://github.com/huggingface/safetensors#format.
package safetensors

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor/npy"
)

// Info is what the header says about an array.
type Info struct {
	Name  string
	DType npy.DType
	Shape []int
	// Begin and End are its place in the data that follow the header.
	Begin, End int64
}

// File gives access to the arrays of a file. Its methods may be called at the
// same time, except Close.
type File struct {
	r        io.ReaderAt
	close    func() error
	path     string
	data     int64  // where the data begins
	infos    []Info // sorted by name
	metadata map[string]string
}

// Open reads the header of the file at path. The file must be closed.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	file, err := open(f)
	if err != nil {
		f.Close() // read only; err says more
		return nil, fmt.Errorf("safetensors: %s: %w", path, err)
	}
	file.close, file.path = f.Close, path+": "
	return file, nil
}

func open(f *os.File) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("want a regular file: %w", gpu.ErrInvalid)
	}
	return newFile(f, info.Size())
}

// NewFile reads the header of the size bytes of r, which must not change while
// the File is in use.
func NewFile(r io.ReaderAt, size int64) (*File, error) {
	file, err := newFile(r, size)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	return file, nil
}

// Close closes what Open has opened.
func (f *File) Close() error {
	if f.close == nil {
		return nil
	}
	return f.close()
}

// Infos returns what the file holds, sorted by name.
func (f *File) Infos() []Info {
	infos := slices.Clone(f.infos)
	for i := range infos {
		infos[i].Shape = slices.Clone(infos[i].Shape)
	}
	return infos
}

// Metadata returns the free-form text of the header.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }

// Read reads one array. The error of a missing one wraps gpu.ErrInvalid.
func (f *File) Read(name string) (*npy.Array, error) {
	i, ok := slices.BinarySearchFunc(f.infos, name, func(info Info, name string) int { return cmp.Compare(info.Name, name) })
	if !ok {
		return nil, fmt.Errorf("safetensors: %sno array %q: %w", f.path, name, gpu.ErrInvalid)
	}
	info := f.infos[i]
	count, err := npy.Count(info.Shape, info.DType)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %s%w", f.path, err)
	}
	r := io.NewSectionReader(f.r, f.data+info.Begin, info.End-info.Begin)
	data, err := npy.ReadData(r, info.DType, count, true)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %sarray %.80q: %w", f.path, name, err)
	}
	return &npy.Array{Shape: slices.Clone(info.Shape), Data: data}, nil
}

// ReadFile reads all arrays and the metadata of the file at path.
func ReadFile(path string) (arrays map[string]*npy.Array, metadata map[string]string, err error) {
	f, err := Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() // read only
	arrays = make(map[string]*npy.Array, len(f.infos))
	for _, info := range f.infos {
		arrays[info.Name], err = f.Read(info.Name)
		if err != nil {
			return nil, nil, err
		}
	}
	return arrays, f.metadata, nil
}

// maxHeader is the limit of the format's own library.
const maxHeader = 100_000_000

func newFile(r io.ReaderAt, size int64) (*File, error) {
	var prefix [8]byte
	if size < int64(len(prefix)) {
		return nil, malformed("header length: cut short after %d bytes, want %d", size, len(prefix))
	}
	if err := readAt(r, prefix[:], 0); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint64(prefix[:])
	if length > maxHeader {
		return nil, malformed("header: claims %d bytes, want at most %d", length, maxHeader)
	}
	f := &File{r: r, data: int64(len(prefix)) + int64(length)}
	if f.data > size {
		return nil, malformed("header: claims %d bytes, have %d", length, size-int64(len(prefix)))
	}
	text := make([]byte, length)
	if err := readAt(r, text, int64(len(prefix))); err != nil {
		return nil, err
	}
	infos, metadata, err := parseHeader(text)
	if err != nil {
		return nil, err
	}
	if err := checkPlaces(infos, size-f.data); err != nil {
		return nil, err
	}
	slices.SortFunc(infos, func(a, b Info) int { return cmp.Compare(a.Name, b.Name) })
	f.infos, f.metadata = infos, metadata
	return f, nil
}

func readAt(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return malformed("header: cut short after %d bytes, want %d", at+int64(n), at+int64(len(p)))
	}
	return fmt.Errorf("header: %w", err)
}

// checkPlaces demands that arrays cover size bytes of data exactly once.
func checkPlaces(infos []Info, size int64) error {
	order := slices.Clone(infos)
	slices.SortFunc(order, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End), cmp.Compare(a.Name, b.Name))
	})
	at := int64(0)
	for _, info := range order {
		count, err := npy.Count(info.Shape, info.DType)
		if err != nil {
			return malformed("array %.80q: %v", info.Name, err)
		}
		if want, got := int64(count)*int64(info.DType.Bytes()), info.End-info.Begin; got != want {
			return malformed("array %.80q: data_offsets [%d, %d] hold %d bytes, want %d for %v of shape %s", info.Name, info.Begin, info.End, got, want, info.DType, npy.FormatShape(info.Shape))
		}
		if info.Begin != at {
			return malformed("array %.80q: data begins at %d, want %d, where the one before it ends", info.Name, info.Begin, at)
		}
		at = info.End
	}
	if at != size {
		return malformed("data: %d bytes, want %d, where the last array ends", size, at)
	}
	return nil
}

func malformed(format string, args ...any) error {
	return &formatError{fmt.Sprintf(format, args...)}
}

type formatError struct{ text string }

func (e *formatError) Error() string { return e.text }
func (e *formatError) Unwrap() error { return npy.ErrFormat }
