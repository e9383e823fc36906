//go:build cgo && !windows

package collective

/*
#cgo CFLAGS: -I${SRCDIR}/../../kernels/include
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include "fortet.h"
#include "mpi/group.h"

// A call and the text of its failure, which belongs to an OS thread, are one
// call of Go's.
enum { TEXT = 1024 };
static int note(const fortet_mpi_api *m, char *text, int rc) {
	if (rc) snprintf(text, TEXT, "%s", m->error());
	return rc;
}
static int mpi_start(const fortet_mpi_api *m, char *text, char *version) { return note(m, text, m->start(version)); }
static int mpi_stop(const fortet_mpi_api *m, char *text) { return note(m, text, m->stop()); }
static int mpi_open(const fortet_mpi_api *m, char *text, int64_t limit, fortet_group **g, int *rank, int *size) { return note(m, text, m->open(limit, g, rank, size)); }
static int mpi_close(const fortet_mpi_api *m, char *text, fortet_group *g) { return note(m, text, m->close(g)); }
static int mpi_gather(const fortet_mpi_api *m, char *text, fortet_group *g, void *out, const void *in, int64_t bytes) { return note(m, text, m->gather(g, out, in, bytes)); }
static int mpi_sum(const fortet_mpi_api *m, char *text, fortet_group *g, void *v, int64_t count, int element) { return note(m, text, m->sum(g, v, count, element)); }
static int mpi_broadcast(const fortet_mpi_api *m, char *text, fortet_group *g, void *v, int64_t bytes, int root) { return note(m, text, m->broadcast(g, v, bytes, root)); }
static int mpi_barrier(const fortet_mpi_api *m, char *text, fortet_group *g) { return note(m, text, m->barrier(g)); }

// RTLD_GLOBAL: some builds of MPI load parts of themselves that look for the
// rest among the process's symbols.
static void *mpi_library(const char *path, char *text) {
	void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
	if (!handle) snprintf(text, TEXT, "%s", dlerror());
	return handle;
}
typedef const char *(*text_fn)(void);
static const char *call_text(void *f) { return ((text_fn)f)(); }
typedef const fortet_mpi_api *(*api_fn)(void);
static const fortet_mpi_api *call_api(void *f) { return ((api_fn)f)(); }
*/
import "C"

import (
	_ "embed"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/include"
)

//go:embed mpi/group.h
var mpiHeader string

// library is libfortet_mpi.so, once it is open.
type library struct {
	path            string
	api             *C.fortet_mpi_api
	built, compiler string // which MPI it was compiled with, and by which mpicc

	text    *C.char // why the last call failed; C memory
	version string  // of the MPI that runs
	groups  int     // that are open
	stop    chan chan error
}

// MPI is one for the process. The lock makes calls one at a time.
var (
	mpiLock   sync.Mutex
	mpiLoaded *library
)

func loadMPI() (*library, error) {
	path, tried := gpu.FindLibrary("libfortet_mpi.so", "FORTET_MPI_LIB")
	if path == "" {
		return nil, fmt.Errorf("%w: no libfortet_mpi.so at %s; ./build.sh mpi makes it", ErrUnavailable, strings.Join(tried, ", "))
	}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var text [C.TEXT]C.char
	handle := C.mpi_library(name, &text[0])
	if handle == nil {
		return nil, fmt.Errorf("%w: %s (is the MPI that it was built with on this machine?)", ErrUnavailable, C.GoString(&text[0]))
	}
	symbol := func(s string) unsafe.Pointer {
		name := C.CString(s)
		defer C.free(unsafe.Pointer(name))
		return C.dlsym(handle, name)
	}
	contract, api := symbol("fortet_mpi_contract"), symbol("fortet_mpi")
	if contract == nil || api == nil {
		return nil, fmt.Errorf("%w: %s: %w: it has no fortet_mpi_contract or no fortet_mpi", ErrUnavailable, path, gpu.ErrContract)
	}
	if got, want := C.GoString(C.call_text(contract)), include.Contract(mpiHeader); got != want {
		return nil, fmt.Errorf("%w: %s: %w: its headers have hash %s, this program's %s; build it again (build.sh mpi)",
			ErrUnavailable, path, gpu.ErrContract, got, want)
	}
	l := &library{path: path, api: C.call_api(api), text: (*C.char)(C.calloc(1, C.TEXT))}
	l.built, l.compiler = C.GoString(l.api.built), C.GoString(l.api.compiler)
	return l, nil
}

func (l *library) failed(rc C.int) error {
	switch rc {
	case C.FORTET_OK:
		return nil
	case C.FORTET_OUT_OF_MEMORY:
		return fmt.Errorf("%w: %s", gpu.ErrOutOfMemory, C.GoString(l.text))
	}
	return fmt.Errorf("%w: %s", ErrExchange, C.GoString(l.text))
}

// start initialises MPI on an OS thread that waits until it finalises it:
// both must be done by the same one.
func (l *library) start() error {
	started := make(chan error)
	l.stop = make(chan chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var version [256]C.char
		if rc := C.mpi_start(l.api, l.text, &version[0]); rc != 0 {
			started <- fmt.Errorf("%w: %s", ErrUnavailable, C.GoString(l.text))
			return
		}
		l.version = C.GoString(&version[0])
		started <- nil
		answer := <-l.stop
		answer <- l.failed(C.mpi_stop(l.api, l.text))
	}()
	return <-started
}

// finish finalises MPI.
func (l *library) finish() error {
	answer := make(chan error)
	l.stop <- answer
	return <-answer
}

func openMPI(dev gpu.Device) (Group, error) { return openMPILimit(dev, math.MaxInt32) }

// openMPILimit is openMPI with at most limit bytes a count of MPI's.
func openMPILimit(dev gpu.Device, limit int) (Group, error) {
	mpiLock.Lock()
	defer mpiLock.Unlock()
	if mpiLoaded == nil {
		l, err := loadMPI()
		if err != nil {
			return nil, fmt.Errorf("mpi: %w", err)
		}
		mpiLoaded = l
	}
	l := mpiLoaded
	if l.groups == 0 {
		if err := l.start(); err != nil {
			return nil, fmt.Errorf("mpi: %w", err)
		}
	}
	g := &mpiGroup{
		member: member{name: "mpi", dev: dev},
		lib:    l,
		host:   dev.Properties().Kind == gpu.CPU,
	}
	l.groups++
	var rank, size C.int
	if err := g.answer("open", C.mpi_open(l.api, l.text, C.int64_t(limit), &g.handle, &rank, &size)); err != nil {
		_ = g.leave()
		return nil, err
	}
	g.rank, g.size = int(rank), int(size)
	if err := l.together(g.rank, g.size); err != nil {
		_ = g.leave()
		return nil, fmt.Errorf("mpi: %w: %w", ErrUnavailable, err)
	}
	return g, nil
}

// together finds out whether MPI and the launcher are of one mind: an MPI that
// another's mpirun started takes itself for alone.
func (l *library) together(rank, size int) error {
	said, ok, err := launched()
	if err != nil {
		return err
	}
	if !ok || size > 1 || said.size == 1 {
		return nil
	}
	return fmt.Errorf("%s sees one process, but the launcher says %s: %s was built for %s by %s and wants the mpirun of that MPI",
		l.version, said.by, l.path, l.built, l.compiler)
}

type mpiGroup struct {
	member
	lib    *library
	handle *C.fortet_group
	host   bool // buffers are host memory
	staged [2][]float64
}

// answer turns the status of a call of the library into an error.
func (g *mpiGroup) answer(what string, rc C.int) error {
	if err := g.lib.failed(rc); err != nil {
		return fmt.Errorf("mpi: %s: %w", what, err)
	}
	return nil
}

// exchange calls f, with the lock, on host memory that holds in, and brings
// back what it wrote to out. Buffers of the CPU are that memory themselves.
func (g *mpiGroup) exchange(what string, out, in gpu.Buffer, f func(out, in unsafe.Pointer) C.int) error {
	locked := func(out, in unsafe.Pointer) error {
		mpiLock.Lock()
		defer mpiLock.Unlock()
		return g.answer(what, f(out, in))
	}
	if g.host {
		if err := g.dev.Sync(); err != nil {
			return fmt.Errorf("mpi: %s: %w", what, err)
		}
		return locked(out.Ptr, in.Ptr)
	}
	from := room(&g.staged[0], in.Bytes)
	to := from
	if out != in {
		to = room(&g.staged[1], out.Bytes)
	}
	if err := g.dev.Download(from, in); err != nil {
		return fmt.Errorf("mpi: %s: %w", what, err)
	}
	if err := locked(unsafe.Pointer(unsafe.SliceData(to)), unsafe.Pointer(unsafe.SliceData(from))); err != nil {
		return err
	}
	if err := g.dev.Upload(out, to); err != nil {
		return fmt.Errorf("mpi: %s: %w", what, err)
	}
	return nil
}

func (g *mpiGroup) Gather(out, in gpu.Buffer) error {
	if err := g.checkGather(out, in); err != nil || in.Bytes == 0 {
		return err
	}
	return g.exchange("gather", out, in, func(to, from unsafe.Pointer) C.int {
		return C.mpi_gather(g.lib.api, g.lib.text, g.handle, to, from, C.int64_t(in.Bytes))
	})
}

func (g *mpiGroup) Sum(v gpu.Buffer, of Element) error {
	if err := g.checkSum(v, of); err != nil || v.Bytes == 0 {
		return err
	}
	return g.exchange("sum", v, v, func(to, _ unsafe.Pointer) C.int {
		return C.mpi_sum(g.lib.api, g.lib.text, g.handle, to, C.int64_t(v.Bytes/of.Bytes()), C.int(of.Bytes()))
	})
}

func (g *mpiGroup) Broadcast(v gpu.Buffer, root int) error {
	if err := g.checkBroadcast(root); err != nil || v.Bytes == 0 {
		return err
	}
	return g.exchange("broadcast", v, v, func(to, _ unsafe.Pointer) C.int {
		return C.mpi_broadcast(g.lib.api, g.lib.text, g.handle, to, C.int64_t(v.Bytes), C.int(root))
	})
}

func (g *mpiGroup) Barrier() error {
	if err := g.open("barrier"); err != nil {
		return err
	}
	if err := g.dev.Sync(); err != nil {
		return fmt.Errorf("mpi: barrier: %w", err)
	}
	mpiLock.Lock()
	defer mpiLock.Unlock()
	return g.answer("barrier", C.mpi_barrier(g.lib.api, g.lib.text, g.handle))
}

func (g *mpiGroup) Close() error {
	if g.closed {
		return nil
	}
	mpiLock.Lock()
	defer mpiLock.Unlock()
	return g.leave()
}

// leave frees the communicator, and finalises MPI with the last one.
func (g *mpiGroup) leave() error {
	g.closed = true
	var err error
	if g.handle != nil {
		err = g.answer("close", C.mpi_close(g.lib.api, g.lib.text, g.handle))
		g.handle = nil
	}
	g.lib.groups--
	if g.lib.groups == 0 {
		if stopped := g.lib.finish(); err == nil && stopped != nil {
			err = fmt.Errorf("mpi: close: %w", stopped)
		}
	}
	return err
}
