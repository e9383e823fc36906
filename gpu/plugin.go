//go:build cgo && !windows

package gpu

/*
#cgo CFLAGS: -I${SRCDIR}/../kernels/include
#cgo linux LDFLAGS: -ldl
#cgo noescape session_launch
#cgo nocallback session_launch
#cgo noescape session_replay
#cgo nocallback session_replay
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include "device.h"

// A session is where calls go to, and the text of the last one that failed:
// it must be fetched on the OS thread of the call, which Go may change after.
typedef struct {
	const fortet_device_api *api;
	fortet_queue *queue;
	fortet_event *event;
	char text[512];
} session;

static int note(session *s, int rc) {
	if (rc) snprintf(s->text, sizeof s->text, "%s", s->api->error());
	return rc;
}
static session *session_new(const fortet_device_api *api) {
	session *s = calloc(1, sizeof *s);
	if (s) s->api = api;
	return s;
}
static int session_count(session *s, int *n) { return note(s, s->api->count(n)); }
static int session_properties(session *s, int device, fortet_properties *p) { return note(s, s->api->properties(device, p)); }
static int session_alloc(session *s, int device, size_t bytes, void **p) { return note(s, s->api->alloc(device, bytes, p)); }
static int session_release(session *s, int device, void *p) { return note(s, s->api->release(device, p)); }
static int session_open(session *s, int device) { return note(s, s->api->queue_create(device, &s->queue)); }
static int session_close(session *s) { return note(s, s->api->queue_destroy(s->queue)); }
static int session_upload(session *s, void *dst, const void *host, size_t n) { return note(s, s->api->upload(s->queue, dst, host, n)); }
static int session_download(session *s, void *host, const void *src, size_t n) { return note(s, s->api->download(s->queue, host, src, n)); }
static int session_launch(session *s, void *entry, const void *args) { return note(s, s->api->launch(s->queue, (fortet_entry)entry, args)); }
static int session_sync(session *s) { return note(s, s->api->sync(s->queue)); }
static int session_record_begin(session *s) { return note(s, s->api->record_begin(s->queue)); }
static int session_record_end(session *s, fortet_graph **g) { return note(s, s->api->record_end(s->queue, g)); }
static int session_replay(session *s, fortet_graph *g) { return note(s, s->api->graph_replay(g, s->queue)); }
static int session_graph_destroy(session *s, fortet_graph *g) { return note(s, s->api->graph_destroy(g)); }
static int session_mark(session *s, session *event) { return note(s, s->api->event_create(s->queue, &event->event)); }
static int session_wait(session *s, session *event) { return note(s, s->api->event_wait(s->queue, event->event)); }
static int event_sync(session *s) { return note(s, s->api->event_sync(s->event)); }
static int event_since(session *s, session *earlier, double *seconds) { return note(s, s->api->event_elapsed(earlier->event, s->event, seconds)); }
static int event_close(session *s) { return note(s, s->api->event_destroy(s->event)); }

static void *library_open(const char *path, char *text, size_t n) {
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle) snprintf(text, n, "%s", dlerror());
	return handle;
}
typedef const char *(*text_fn)(void);
static const char *call_text(void *f) { return ((text_fn)f)(); }
typedef const fortet_device_api *(*api_fn)(void);
static const fortet_device_api *call_api(void *f) { return ((api_fn)f)(); }
*/
import "C"

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/fortet/fortet/kernels/include"
)

// library is an open device library. Libraries are never closed: what they
// registered with the driver and with the C library would dangle.
type library struct {
	path    string
	handle  unsafe.Pointer
	api     *C.fortet_device_api
	kernels sync.Map // *Kernel to unsafe.Pointer, its entry point
}

// loadLibrary opens a library and checks that it was built from the headers
// that this program was.
func loadLibrary(path string) (*library, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var text [512]C.char
	handle := C.library_open(name, &text[0], C.size_t(len(text)))
	if handle == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnavailable, C.GoString(&text[0]))
	}
	l := &library{path: path, handle: handle}
	hash, device := l.symbol("fortet_abi_hash"), l.symbol("fortet_device")
	if hash == nil || device == nil {
		return nil, noLibrary(path)
	}
	if got := C.GoString(C.call_text(hash)); got != include.Hash() {
		return nil, hashMismatch(path, "shared headers", got, include.Hash())
	}
	l.api = C.call_api(device)
	return l, nil
}

func noLibrary(path string) error {
	return fmt.Errorf("%s: %w: it is no device library: it has no fortet_abi_hash or no fortet_device", path, ErrContract)
}

func hashMismatch(path, what, got, want string) error {
	return fmt.Errorf("%s: %w: its %s have hash %s, this program's %s; build it again (build.sh)", path, ErrContract, what, got, want)
}

func (l *library) symbol(name string) unsafe.Pointer {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	return C.dlsym(l.handle, s)
}

// resolve returns a kernel's entry point, looking it up and checking its
// contract the first time.
func (l *library) resolve(k *Kernel) (unsafe.Pointer, error) {
	if f, ok := l.kernels.Load(k); ok {
		return f.(unsafe.Pointer), nil
	}
	entry := l.symbol("fortet_" + k.Name)
	if entry == nil {
		return nil, fmt.Errorf("%w: %s has no fortet_%s", ErrUnsupported, l.path, k.Name)
	}
	contract := l.symbol("fortet_" + k.Op + "_contract")
	if contract == nil {
		return nil, fmt.Errorf("%s: %w: it has no fortet_%s_contract", l.path, ErrContract, k.Op)
	}
	if got := C.GoString(C.call_text(contract)); got != k.Contract {
		return nil, hashMismatch(l.path, "headers of "+k.Op, got, k.Contract)
	}
	l.kernels.Store(k, entry)
	return entry, nil
}

// session allocates a session, which is freed by C.free.
func (l *library) session() *C.session {
	s := C.session_new(l.api)
	if s == nil {
		panic("gpu: out of host memory") // as Go's own allocations do
	}
	return s
}

// deviceCount asks a library in this process how many devices it has.
func deviceCount(path string) (int, error) {
	l, err := loadLibrary(path)
	if err != nil {
		return 0, fmt.Errorf("gpu: %w", err)
	}
	s := l.session()
	defer C.free(unsafe.Pointer(s))
	var n C.int
	if rc := C.session_count(s, &n); rc != 0 {
		return 0, fmt.Errorf("gpu: %s: %w: %s", path, ErrUnavailable, C.GoString(&s.text[0]))
	}
	return int(n), nil
}

// openLibrary opens a device of a library.
func openLibrary(path string, index int) (Device, error) {
	l, err := loadLibrary(path)
	if err != nil {
		return nil, fmt.Errorf("gpu: %w", err)
	}
	s := l.session()
	fail := func(what string) (Device, error) {
		defer C.free(unsafe.Pointer(s))
		return nil, fmt.Errorf("gpu: %s: %w: %s: %s", path, ErrUnavailable, what, C.GoString(&s.text[0]))
	}
	var p C.fortet_properties
	if rc := C.session_properties(s, C.int(index), &p); rc != 0 {
		return fail("properties")
	}
	if rc := C.session_open(s, C.int(index)); rc != 0 {
		return fail("queue")
	}
	h := &hardware{lib: l, index: C.int(index), name: "emu", session: l.session()}
	h.properties = Properties{
		Kind:        Emulation,
		Model:       C.GoString(&p.model[0]),
		Features:    C.GoString(&p.features[0]),
		Workers:     int(p.multiprocessors),
		MemoryBytes: int64(p.memory),
		Driver:      C.GoString(&p.driver[0]),
		Library:     path,
	}
	if p.emulation == 0 {
		h.properties.Kind, h.name = CUDA, fmt.Sprintf("cuda:%d", index)
	}
	h.queues.Store(1)
	return &pluginDevice{hw: h, session: s, pool: newPool(h), graphs: map[*pluginGraph]struct{}{}}, nil
}

// hardware is what the queues of one device share.
type hardware struct {
	lib        *library
	index      C.int
	name       string
	properties Properties
	session    *C.session // of the pool, whose lock guards it
	queues     atomic.Int64
}

func (h *hardware) rawAlloc(bytes int) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	if rc := C.session_alloc(h.session, h.index, C.size_t(bytes), &p); rc != 0 {
		return nil, statusError(h.name, int(rc), C.GoString(&h.session.text[0]))
	}
	return p, nil
}

// rawFree has nobody to tell of an error: it is one that the queue meets, too.
func (h *hardware) rawFree(p unsafe.Pointer) { C.session_release(h.session, h.index, p) }

// pluginDevice is one queue of a device of a library.
type pluginDevice struct {
	hw        *hardware
	session   *C.session
	pool      *pool
	args      []byte // C memory that argument structs are copied to
	graphs    map[*pluginGraph]struct{}
	recording bool
	closed    bool
}

func (d *pluginDevice) Name() string           { return d.hw.name }
func (d *pluginDevice) Properties() Properties { return d.hw.properties }
func (d *pluginDevice) Memory() MemoryStats    { return d.pool.stats() }
func (d *pluginDevice) Free(b Buffer)          { d.pool.free(b) }

func (d *pluginDevice) Alloc(bytes int) (Buffer, error) {
	b, err := d.pool.alloc(bytes)
	if err != nil {
		return Buffer{}, fmt.Errorf("%s: %w", d.hw.name, err)
	}
	return b, nil
}

// check answers for a call that makes no sense now.
func (d *pluginDevice) check(what string, whileRecording bool) error {
	switch {
	case d.closed:
		return fmt.Errorf("%s: %s: %w: the device is closed", d.hw.name, what, ErrInvalid)
	case d.recording && !whileRecording:
		return fmt.Errorf("%s: %s: %w: not inside Record", d.hw.name, what, ErrInvalid)
	}
	return nil
}

// failed turns the status of a call of this session into an error.
func (d *pluginDevice) failed(what string, rc C.int) error {
	if rc == 0 {
		return nil
	}
	return statusError(d.hw.name+": "+what, int(rc), C.GoString(&d.session.text[0]))
}

func (d *pluginDevice) checkCopy(what string, device, host int) error {
	if err := d.check(what, false); err != nil {
		return err
	}
	if device != host {
		return fmt.Errorf("%s: %s: %w: %d bytes on the host, %d on the device", d.hw.name, what, ErrInvalid, host, device)
	}
	return nil
}

func (d *pluginDevice) Upload(dst Buffer, src []byte) error {
	if err := d.checkCopy("upload", dst.Bytes, len(src)); err != nil || len(src) == 0 {
		return err
	}
	return d.failed("upload", C.session_upload(d.session, dst.Ptr, unsafe.Pointer(&src[0]), C.size_t(len(src))))
}

func (d *pluginDevice) Download(dst []byte, src Buffer) error {
	if err := d.checkCopy("download", src.Bytes, len(dst)); err != nil {
		return err
	}
	if len(dst) == 0 {
		return d.Sync()
	}
	if rc := C.session_download(d.session, unsafe.Pointer(&dst[0]), src.Ptr, C.size_t(len(dst))); rc != 0 {
		return d.failed("download", rc)
	}
	d.pool.settled()
	return nil
}

func (d *pluginDevice) Launch(k *Kernel, args unsafe.Pointer, _ int) error {
	if err := d.check(k.Name, true); err != nil {
		return err
	}
	entry, err := d.hw.lib.resolve(k)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", d.hw.name, k.Name, err)
	}
	if rc := C.session_launch(d.session, entry, d.copyArgs(args, int(k.ArgsBytes))); rc != 0 {
		return d.failed(k.Name, rc)
	}
	return nil
}

// copyArgs copies an argument struct out of Go's memory, so that it may stand
// in an object that also has Go pointers.
func (d *pluginDevice) copyArgs(args unsafe.Pointer, n int) unsafe.Pointer {
	if len(d.args) < n {
		if d.args != nil {
			C.free(unsafe.Pointer(&d.args[0]))
		}
		room := max(1024, 2*n)
		d.args = unsafe.Slice((*byte)(C.malloc(C.size_t(room))), room)
	}
	if n == 0 {
		return nil
	}
	copy(d.args, unsafe.Slice((*byte)(args), n))
	return unsafe.Pointer(&d.args[0])
}

func (d *pluginDevice) Sync() error {
	if err := d.check("sync", false); err != nil {
		return err
	}
	if rc := C.session_sync(d.session); rc != 0 {
		return d.failed("sync", rc)
	}
	d.pool.settled()
	return nil
}

func (d *pluginDevice) Stream() (Device, error) {
	if err := d.check("stream", false); err != nil {
		return nil, err
	}
	s := d.hw.lib.session()
	if rc := C.session_open(s, d.hw.index); rc != 0 {
		defer C.free(unsafe.Pointer(s))
		return nil, statusError(d.hw.name+": stream", int(rc), C.GoString(&s.text[0]))
	}
	d.hw.queues.Add(1)
	return &pluginDevice{hw: d.hw, session: s, pool: d.pool.branch(), graphs: map[*pluginGraph]struct{}{}}, nil
}

// Close waits for the queue. It closes the graphs that were recorded on it.
func (d *pluginDevice) Close() error {
	if d.closed {
		return nil
	}
	if d.recording {
		return d.check("close", false)
	}
	var errs []error
	for g := range d.graphs {
		errs = append(errs, g.Close())
	}
	d.closed = true
	errs = append(errs, d.failed("close", C.session_close(d.session)))
	C.free(unsafe.Pointer(d.session))
	if d.args != nil {
		C.free(unsafe.Pointer(&d.args[0]))
	}
	d.session, d.args = nil, nil
	if err := d.pool.close(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", d.hw.name, err))
	}
	if d.hw.queues.Add(-1) == 0 {
		C.free(unsafe.Pointer(d.hw.session))
	}
	return errors.Join(errs...)
}

// pluginGraph is a recorded sequence of launches of one queue.
type pluginGraph struct {
	device *pluginDevice
	graph  *C.fortet_graph
	held   []Buffer
}

func (d *pluginDevice) Record(body func() error) (Graph, error) {
	if err := d.check("record", false); err != nil {
		return nil, err
	}
	if rc := C.session_record_begin(d.session); rc != 0 {
		return nil, d.failed("record", rc)
	}
	g := &pluginGraph{device: d}
	d.recording = true
	d.pool.beginRecord()
	end := func(keep bool) error {
		d.recording = false
		g.held = d.pool.endRecord()
		var graph *C.fortet_graph
		if !keep {
			return d.failed("record", C.session_record_end(d.session, nil))
		}
		rc := C.session_record_end(d.session, &graph)
		g.graph = graph
		return d.failed("record", rc)
	}
	done := false
	defer func() {
		if !done { // body panics: leave the queue in order
			_ = end(false)
			d.pool.release(g.held)
		}
	}()
	err := body()
	done = true
	if err != nil {
		err = errors.Join(err, end(false))
	} else {
		err = end(true)
	}
	if err != nil {
		d.pool.release(g.held)
		return nil, err
	}
	d.graphs[g] = struct{}{}
	return g, nil
}

func (g *pluginGraph) Replay() error {
	d := g.device
	if g.graph == nil {
		return fmt.Errorf("%s: replay: %w: the graph is closed", d.hw.name, ErrInvalid)
	}
	if err := d.check("replay", false); err != nil {
		return err
	}
	if rc := C.session_replay(d.session, g.graph); rc != 0 {
		return d.failed("replay", rc)
	}
	return nil
}

func (g *pluginGraph) Close() error {
	if g.graph == nil {
		return nil
	}
	d := g.device
	err := d.failed("close graph", C.session_graph_destroy(d.session, g.graph))
	delete(d.graphs, g)
	d.pool.release(g.held)
	g.graph, g.held = nil, nil
	return err
}

// pluginEvent is a moment in a queue of a library.
type pluginEvent struct {
	hw      *hardware
	session *C.session // nil once closed
}

func (d *pluginDevice) Mark() (Event, error) {
	if err := d.check("mark", false); err != nil {
		return nil, err
	}
	e := &pluginEvent{hw: d.hw, session: d.hw.lib.session()}
	if rc := C.session_mark(d.session, e.session); rc != 0 {
		C.free(unsafe.Pointer(e.session))
		return nil, d.failed("mark", rc)
	}
	return e, nil
}

func (d *pluginDevice) Wait(event Event) error {
	if err := d.check("wait", false); err != nil {
		return err
	}
	e, err := d.hw.event(event)
	if err != nil {
		return fmt.Errorf("%s: wait: %w", d.hw.name, err)
	}
	return d.failed("wait", C.session_wait(d.session, e.session))
}

// event checks that an event is open and comes from the same library.
func (h *hardware) event(event Event) (*pluginEvent, error) {
	e, ok := event.(*pluginEvent)
	switch {
	case !ok || e.hw.lib.handle != h.lib.handle:
		return nil, fmt.Errorf("event: %w: it is of another device", ErrInvalid)
	case e.session == nil:
		return nil, fmt.Errorf("event: %w: it is closed", ErrInvalid)
	}
	return e, nil
}

func (e *pluginEvent) Sync() error {
	if _, err := e.hw.event(e); err != nil {
		return fmt.Errorf("%s: %w", e.hw.name, err)
	}
	return statusError(e.hw.name+": event", int(C.event_sync(e.session)), C.GoString(&e.session.text[0]))
}

func (e *pluginEvent) Since(earlier Event) (time.Duration, error) {
	if _, err := e.hw.event(e); err != nil {
		return 0, fmt.Errorf("%s: %w", e.hw.name, err)
	}
	o, err := e.hw.event(earlier)
	if err != nil {
		return 0, fmt.Errorf("%s: earlier %w", e.hw.name, err)
	}
	var seconds C.double
	if rc := C.event_since(e.session, o.session, &seconds); rc != 0 {
		return 0, statusError(e.hw.name+": event", int(rc), C.GoString(&e.session.text[0]))
	}
	return time.Duration(float64(seconds) * float64(time.Second)), nil
}

func (e *pluginEvent) Close() {
	if e.session == nil {
		return
	}
	C.event_close(e.session)
	C.free(unsafe.Pointer(e.session))
	e.session = nil
}
