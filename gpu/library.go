package gpu

import (
	"os"
	"path/filepath"
)

// findLibrary looks for the library of a plug-in device.
func findLibrary(kind Kind) (path string, tried []string) {
	if kind == Emulation {
		return FindLibrary("libfortet_emu.so", "FORTET_EMU_LIB")
	}
	return FindLibrary("libfortet_cuda.so", "FORTET_CUDA_LIB")
}

// FindLibrary looks for a library that is opened at run time: where the
// environment variable points, and if that is not set, beside the executable,
// in lib/ of the working directory, and in lib/ of the Go module around it. It
// returns the first file that is there, or "", and all the places tried.
func FindLibrary(name, variable string) (path string, tried []string) {
	if p := os.Getenv(variable); p != "" {
		tried = []string{p}
	} else {
		if exe, err := os.Executable(); err == nil {
			tried = append(tried, filepath.Join(filepath.Dir(exe), name))
		}
		if wd, err := os.Getwd(); err == nil {
			tried = append(tried, filepath.Join(wd, "lib", name))
			if root := moduleRoot(wd); root != "" && root != wd {
				tried = append(tried, filepath.Join(root, "lib", name))
			}
		}
	}
	for _, p := range tried {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			return p, tried
		}
	}
	return "", tried
}

// moduleRoot is the innermost folder around dir that has a go.mod, or "".
func moduleRoot(dir string) string {
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}
