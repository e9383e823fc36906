//go:build cgo && !windows

package gpu

/*
#include <stdlib.h>
#include "probe.h"
*/
import "C"

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/fortet/fortet/kernels/include"
)

// probe asks a device library how many devices it has, in a child process, so
// that a driver that crashes or hangs is an error and not the end of the
// program.
//
// The child is a fork that does nothing but open the library, ask, answer
// through a pipe and exit. Starting os.Executable once more would be cleaner,
// but the executable is whatever program uses this package, a test binary
// among others, and would run its own initialisation first. A fork costs about
// a millisecond.
//
// The library is asked in this process where that risks nothing new, because
// it or a driver has been loaded before (CUDA cannot be used in a fork of a
// process that has initialised it), and where FORTET_PROBE=off asks for it, as
// under MPI transports that do not survive a fork.
func probe(path string, timeout time.Duration) (count int, err error) {
	name, hash := C.CString(path), C.CString(include.Hash())
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(hash))
	var r C.probe_result
	if os.Getenv("FORTET_PROBE") == "off" || C.probe_loaded(name) != 0 {
		C.probe_here(name, hash, &r)
	} else {
		C.probe_forked(name, hash, C.int(timeout.Milliseconds()), &r)
	}
	text := C.GoString(&r.text[0])
	switch r.outcome {
	case C.PROBE_OK:
		return int(r.count), nil
	case C.PROBE_NOT_LOADED:
		return 0, fmt.Errorf("%w: %s", ErrUnavailable, text)
	case C.PROBE_NO_LIBRARY:
		return 0, noLibrary(path)
	case C.PROBE_OTHER_HASH:
		return 0, hashMismatch(path, "shared headers", text, include.Hash())
	case C.PROBE_NO_DEVICE:
		return 0, fmt.Errorf("%s: %w: %w: %s", path, ErrUnavailable, ErrNoDevice, text)
	case C.PROBE_CRASHED:
		return 0, fmt.Errorf("%s: %w: the driver crashed when asked for its devices (%v)", path, ErrUnavailable, syscall.Signal(r.signal))
	case C.PROBE_EXITED:
		return 0, fmt.Errorf("%s: %w: the driver ended the process that asked for its devices", path, ErrUnavailable)
	case C.PROBE_HUNG:
		return 0, fmt.Errorf("%s: %w: the driver did not answer within %v", path, ErrUnavailable, timeout)
	}
	return 0, fmt.Errorf("%s: %w: probe: %s", path, ErrUnavailable, text)
}
