package npy

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/internal/atomicfile"
)

// Archive is an ordered set of named arrays, the content of an .npz file. The
// zero value is empty and ready for use.
type Archive struct {
	names  []string
	arrays map[string]*Array
}

// Set adds an array behind the others, or replaces the one of that name in its
// place.
func (z *Archive) Set(name string, a *Array) {
	if z.arrays == nil {
		z.arrays = map[string]*Array{}
	}
	if _, ok := z.arrays[name]; !ok {
		z.names = append(z.names, name)
	}
	z.arrays[name] = a
}

// Get returns the array of that name; the error of a missing one lists the
// names that exist and wraps gpu.ErrInvalid.
func (z *Archive) Get(name string) (*Array, error) {
	if a, ok := z.arrays[name]; ok {
		return a, nil
	}
	return nil, fmt.Errorf("npy: archive: no array %q, have %q: %w", name, z.names, gpu.ErrInvalid)
}

// Has says whether there is an array of that name.
func (z *Archive) Has(name string) bool {
	_, ok := z.arrays[name]
	return ok
}

// Names returns the names in order.
func (z *Archive) Names() []string { return slices.Clone(z.names) }

// All yields names and arrays in order.
func (z *Archive) All() iter.Seq2[string, *Array] {
	return func(yield func(string, *Array) bool) {
		for _, name := range z.names {
			if !yield(name, z.arrays[name]) {
				return
			}
		}
	}
}

const extension = ".npy"

// inflateLimit is how many bytes of arrays an archive may hold beyond its own
// size where the caller sets no limit.
const inflateLimit = 4 << 30

// ReadNPZ reads an archive of size bytes, whose members may be stored or
// deflated. limit bounds the bytes of all arrays together; 0 means 4 GiB more
// than size, so that a small file cannot fill the memory. A name that appears
// twice, leads out of a folder, or does not end in .npy is an error.
func ReadNPZ(r io.ReaderAt, size, limit int64) (*Archive, error) {
	z, err := readNPZ(r, size, limit)
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	return z, nil
}

// ReadNPZFile reads the archive at path with the limit that ReadNPZ sets by
// itself.
func ReadNPZFile(path string) (*Archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	defer f.Close() // read only
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("npy: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("npy: %s: an archive is read from its end, want a regular file: %w", path, gpu.ErrInvalid)
	}
	z, err := readNPZ(f, info.Size(), 0)
	if err != nil {
		return nil, fmt.Errorf("npy: %s: %w", path, err)
	}
	return z, nil
}

func readNPZ(r io.ReaderAt, size, limit int64) (*Archive, error) {
	if limit <= 0 {
		limit = min(size, math.MaxInt64-inflateLimit) + inflateLimit
	}
	// A section answers offsets outside of it, which a directory may name,
	// with the end of the input.
	zr, err := zip.NewReader(io.NewSectionReader(r, 0, size), size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are checked below
		if isDamage(err) {
			return nil, notNPZ(r, err)
		}
		return nil, fmt.Errorf("archive: %w", err)
	}
	z := &Archive{}
	left := limit
	for _, f := range zr.File {
		name, err := memberName(f.Name)
		if err != nil {
			return nil, malformed("archive: %v", err)
		}
		if z.Has(name) {
			return nil, malformed("archive: member %q appears twice", f.Name)
		}
		if f.UncompressedSize64 > uint64(left) {
			return nil, fmt.Errorf("archive: member %.80q claims %d bytes, limit %d for all together: %w", f.Name, f.UncompressedSize64, limit, ErrLimit)
		}
		left -= int64(f.UncompressedSize64)
		a, err := readMember(f, size)
		if err != nil {
			return nil, fmt.Errorf("member %.80q: %w", f.Name, err)
		}
		z.Set(name, a)
	}
	return z, nil
}

func isDamage(err error) bool {
	return errors.Is(err, zip.ErrFormat) || errors.Is(err, zip.ErrChecksum) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func notNPZ(r io.ReaderAt, err error) error {
	prefix := make([]byte, len(magic))
	if n, _ := r.ReadAt(prefix, 0); n == len(prefix) && string(prefix) == magic {
		return malformed("archive: this is a single array, want a zip archive; read it as .npy")
	}
	if bytes.HasPrefix(prefix, []byte("PK")) {
		return malformed("archive: damaged or cut short: %v", err)
	}
	return malformed("archive: begins with %q, want a zip archive", prefix)
}

// memberName returns an array's name. Names are keys and never become paths
// here, but what reads them later might make paths of them.
func memberName(member string) (string, error) {
	name, ok := strings.CutSuffix(member, extension)
	if !ok {
		return "", fmt.Errorf("member %.80q, want a name that ends in %s", member, extension)
	}
	if err := checkName(name); err != nil {
		return "", err
	}
	return name, nil
}

func checkName(name string) error {
	if name == "" {
		return errors.New("an array's name is empty")
	}
	if name == "." || !fs.ValidPath(name) || strings.ContainsAny(name, "\\:\x00") {
		return fmt.Errorf("name %.80q, want one that stays inside a folder", name)
	}
	return nil
}

func readMember(f *zip.File, size int64) (*Array, error) {
	if f.Flags&1 != 0 {
		return nil, malformed("is encrypted")
	}
	rc, err := f.Open()
	if errors.Is(err, zip.ErrAlgorithm) {
		return nil, malformed("compression method %d, want stored or deflated", f.Method)
	}
	if err != nil {
		return nil, damage(err)
	}
	defer rc.Close() // read only
	h, err := readHeader(rc)
	if err != nil {
		return nil, damage(err)
	}
	want := int64(h.count) * int64(h.dtype.Bytes())
	if got := int64(f.UncompressedSize64) - int64(h.bytes); got != want {
		return nil, malformed("data: %d bytes, want %d for %v of shape %s", max(got, 0), want, h.dtype, FormatShape(h.shape))
	}
	// What is stored as it is lies in the archive; what is deflated shows
	// its true size only as it comes.
	a, err := readBody(rc, h, f.Method == zip.Store && f.CompressedSize64 == f.UncompressedSize64 && int64(f.CompressedSize64) <= size)
	if err == nil {
		err = wantEnd(rc) // which is also where the checksum is compared
	}
	if err != nil {
		return nil, damage(err)
	}
	return a, nil
}

// damage marks what the zip and flate packages find wrong with the input.
func damage(err error) error {
	if errors.Is(err, ErrFormat) {
		return err
	}
	if corrupt := flate.CorruptInputError(0); isDamage(err) || errors.As(err, &corrupt) {
		return malformed("%v", err)
	}
	return err
}

// Method says how the members of an archive are kept.
type Method uint16

// The methods that NumPy reads.
const (
	Stored   = Method(zip.Store)   // as numpy.savez
	Deflated = Method(zip.Deflate) // as numpy.savez_compressed
)

// WriteNPZ writes an archive. Equal arrays under equal names in equal order
// give equal bytes.
func WriteNPZ(w io.Writer, z *Archive, method Method) error {
	if err := z.writable(method); err != nil {
		return fmt.Errorf("npy: %w", err)
	}
	if err := z.write(w, method); err != nil {
		return fmt.Errorf("npy: write: %w", err)
	}
	return nil
}

// WriteNPZFile makes path hold the archive. The file is replaced as a whole,
// as by WriteFile.
func WriteNPZFile(path string, z *Archive, method Method) error {
	if err := z.writable(method); err != nil {
		return fmt.Errorf("npy: %s: %w", path, err)
	}
	err := atomicfile.Write(path, func(w io.Writer) error { return z.write(w, method) })
	if err != nil {
		return fmt.Errorf("npy: %w", err)
	}
	return nil
}

func (z *Archive) writable(method Method) error {
	if method != Stored && method != Deflated {
		return fmt.Errorf("method: %d, want Stored or Deflated: %w", method, gpu.ErrInvalid)
	}
	for name, a := range z.All() {
		if err := checkName(name); err != nil {
			return fmt.Errorf("archive: %w: %w", err, gpu.ErrInvalid)
		}
		if err := a.writable(); err != nil {
			return fmt.Errorf("array %.80q: %w", name, err)
		}
	}
	return nil
}

func (z *Archive) write(w io.Writer, method Method) error {
	zw := zip.NewWriter(w)
	for name, a := range z.All() {
		member, err := zw.CreateHeader(&zip.FileHeader{
			Name:   name + extension,
			Method: uint16(method),
			// The first instant that a zip archive can name.
			Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC),
		})
		if err != nil {
			return err
		}
		if err := a.write(member); err != nil {
			return err
		}
	}
	return zw.Close()
}
