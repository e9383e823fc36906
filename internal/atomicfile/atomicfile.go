// Package atomicfile writes files that are either old or new, never half.
//
// A file is written under a temporary name in the folder of its target,
// synced to the disk, and renamed over the target. Whoever reads the target
// at any time, also after a power cut, finds the old content or the new one.
//
// The temporary name is .NAME.RANDOM.fortet-partial. It is removed by every
// way out of this package; where the process is killed it stays, holding no
// lock, and the next write to the same target removes it. A temporary that a
// living process is writing holds a lock (flock; on Windows the open handle
// itself) and is left alone.
//
// To stop early, at a signal for instance, make the writing function return
// an error: the target is untouched and the temporary is removed.
package atomicfile

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	suffix      = ".fortet-partial"
	randomBytes = 8
	// File systems allow 255 bytes in a name; the dots, the random part and
	// the suffix take 33 of them.
	maxBase = 200
)

// Write makes path hold what write writes, or leaves path as it was and
// returns an error that names it. Writes are buffered. A file that exists
// keeps its permissions, and must be writable; a symbolic link is followed.
// Devices and pipes, such as /dev/stdout, are written directly.
func Write(path string, write func(io.Writer) error) (err error) {
	f, err := Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<16)
	if err := write(w); err != nil {
		return name(path, err)
	}
	if err := w.Flush(); err != nil {
		return name(path, err)
	}
	return f.Commit()
}

// File is a file that is being written. It is not safe for concurrent use.
type File struct {
	path   string // what the caller named
	target string // path with symbolic links resolved
	temp   string // "" where the target is a device or a pipe
	file   *os.File
	done   bool
}

// Create begins to write path. Nothing happens to path before Commit.
func Create(path string) (*File, error) {
	target, err := resolve(path)
	if err != nil {
		return nil, name(path, err)
	}
	info, err := os.Stat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return createTemp(path, target, nil)
	case err != nil:
		return nil, name(path, err)
	case info.Mode().IsRegular():
		// Renaming asks for no permission on the target; writing does.
		f, err := os.OpenFile(target, os.O_WRONLY, 0)
		if err != nil {
			return nil, name(path, err)
		}
		if err := f.Close(); err != nil {
			return nil, name(path, err)
		}
		return createTemp(path, target, info)
	case info.IsDir():
		return nil, &fs.PathError{Op: "write", Path: path, Err: errors.New("is a folder, want a file")}
	}
	f, err := os.OpenFile(target, os.O_WRONLY, 0)
	if err != nil {
		return nil, name(path, err)
	}
	return &File{path: path, target: target, file: f}, nil
}

// resolve follows symbolic links, also one whose target does not exist yet.
func resolve(path string) (string, error) {
	if path == "" {
		return "", errors.New("path is empty")
	}
	for range 40 { // as many as Linux follows
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return path, nil // where it is missing, creating it tells why
		}
		link, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		// Links of /proc (/dev/stdout is one) may name what is no path.
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return path, nil
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", errors.New("too many symbolic links")
}

func createTemp(path, target string, old fs.FileInfo) (*File, error) {
	if err := RemoveStale(target); err != nil {
		return nil, name(path, err)
	}
	prefix := tempPrefix(target)
	for range 100 {
		var random [randomBytes]byte
		if _, err := rand.Read(random[:]); err != nil {
			return nil, name(path, err)
		}
		temp := filepath.Join(filepath.Dir(target), prefix+hex.EncodeToString(random[:])+suffix)
		f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, name(path, err)
		}
		// Between the two calls another writer may have taken the file for a
		// stale one: it then holds the lock, or has removed the name.
		if !lock(f) || !sameFile(f, temp) {
			if err := f.Close(); err != nil {
				return nil, name(path, err)
			}
			os.Remove(temp) // may be gone already
			continue
		}
		file := &File{path: path, target: target, temp: temp, file: f}
		// Not every file system can change modes; ask only for a change.
		if now, err := f.Stat(); old != nil && (err != nil || now.Mode().Perm() != old.Mode().Perm()) {
			if err := f.Chmod(old.Mode().Perm()); err != nil {
				return nil, errors.Join(name(path, err), file.Close())
			}
		}
		return file, nil
	}
	return nil, &fs.PathError{Op: "write", Path: path, Err: errors.New("found no free temporary name in 100 tries")}
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// Write appends to the file.
func (f *File) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	return n, name(f.path, err)
}

// Commit makes the target hold all that was written. The File is closed
// whether or not that succeeds.
func (f *File) Commit() error {
	if f.done {
		return &fs.PathError{Op: "write", Path: f.path, Err: fs.ErrClosed}
	}
	if f.temp == "" {
		return f.Close() // devices and pipes need no sync, and may refuse it
	}
	if err := f.file.Sync(); err != nil {
		return errors.Join(name(f.path, err), f.Close())
	}
	if err := replace(f.file, f.temp, f.target); err != nil {
		return errors.Join(name(f.path, err), f.Close())
	}
	f.done = true
	return name(f.path, syncFolder(filepath.Dir(f.target)))
}

// Close gives up a File that was not committed and removes its temporary.
// After Commit, or a second time, it does nothing.
func (f *File) Close() error {
	if f.done {
		return nil
	}
	f.done = true
	if f.temp == "" {
		return name(f.path, f.file.Close())
	}
	// On Windows an open file cannot be removed; elsewhere the lock should
	// last until the name is gone, but a cleaner that comes between the two
	// only does the same work.
	err := f.file.Close()
	if errors.Is(err, fs.ErrClosed) {
		err = nil // replace closes first on Windows
	}
	if e := os.Remove(f.temp); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return name(f.path, err)
}

// RemoveStale removes the temporaries that killed processes have left beside
// path. Create does so by itself. A folder that is missing or that cannot be
// read is no error.
func RemoveStale(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil
	}
	defer dir.Close() // read only
	prefix := tempPrefix(path)
	for {
		names, err := dir.Readdirnames(1024)
		for _, n := range names {
			if isTemp(n, prefix) {
				if err := removeUnlocked(filepath.Join(filepath.Dir(path), n)); err != nil {
					return fmt.Errorf("remove what an interrupted write has left: %w", err)
				}
			}
		}
		if err != nil {
			return nil
		}
	}
}

func tempPrefix(path string) string {
	base := filepath.Base(path)
	if len(base) > maxBase {
		base = base[:maxBase]
	}
	return "." + base + "."
}

func isTemp(n, prefix string) bool {
	n, ok := strings.CutPrefix(n, prefix)
	if !ok {
		return false
	}
	n, ok = strings.CutSuffix(n, suffix)
	if !ok || len(n) != 2*randomBytes {
		return false
	}
	_, err := hex.DecodeString(n)
	return err == nil
}

// name makes an error speak of the file that the caller named instead of the
// temporary.
func name(path string, err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *os.LinkError:
		return &fs.PathError{Op: "write", Path: path, Err: e.Err}
	case *fs.PathError:
		temp := filepath.Base(e.Path)
		if e.Path == path || strings.HasPrefix(temp, ".") && strings.HasSuffix(temp, suffix) {
			return &fs.PathError{Op: "write", Path: path, Err: e.Err}
		}
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) && p.Path == path {
		return err
	}
	return fmt.Errorf("write %s: %w", path, err)
}
