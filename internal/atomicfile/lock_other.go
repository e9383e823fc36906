//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
)

func lock(*os.File) bool { return true }

// removeUnlocked removes a temporary unless somebody is writing it: Windows
// refuses to remove an open file, and other systems without locks cannot tell.
func removeUnlocked(temp string) error {
	if runtime.GOOS == "windows" {
		os.Remove(temp)
	}
	return nil
}

// replace closes first, because Windows does not rename an open file.
func replace(f *os.File, temp, target string) error {
	if err := f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return os.Rename(temp, target)
}

func syncFolder(string) error { return nil }
