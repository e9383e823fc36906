//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// lock takes the lock that tells a living temporary from a stale one. Where
// the file system has no locks it says true: the file is written all the same,
// and removeUnlocked, which cannot lock either, leaves it alone.
func lock(f *os.File) bool {
	return !errors.Is(flock(f), syscall.EWOULDBLOCK)
}

// removeUnlocked removes a temporary unless somebody is writing it.
func removeUnlocked(temp string) error {
	// O_NONBLOCK: whatever bears the name, opening it must not wait.
	f, err := os.OpenFile(temp, os.O_RDWR|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil // gone, or somebody else's
	}
	defer f.Close() // nothing was written
	if flock(f) != nil || !sameFile(f, temp) {
		return nil
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// replace renames while the lock is held.
func replace(f *os.File, temp, target string) error {
	if err := os.Rename(temp, target); err != nil {
		return err
	}
	// All data was synced; closing cannot lose any.
	return f.Close()
}

// syncFolder makes the rename itself last through a power cut.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return nil // a folder may be writable and yet not readable
	}
	defer d.Close() // read only
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // this file system does not sync folders
	}
	return err
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EINTR {
			return err
		}
	}
}
