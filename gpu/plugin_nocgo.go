//go:build !cgo || windows

package gpu

import (
	"fmt"
	"time"
)

func openLibrary(path string, index int) (Device, error) {
	return nil, fmt.Errorf("gpu: %s: %w: built without cgo", path, ErrUnavailable)
}

func deviceCount(path string) (int, error) {
	return 0, fmt.Errorf("gpu: %s: %w: built without cgo", path, ErrUnavailable)
}

func probe(path string, _ time.Duration) (int, error) {
	return 0, fmt.Errorf("%s: %w: built without cgo", path, ErrUnavailable)
}
