// Package fake has a device that fails on purpose, for tests of what a program
// does then: whether it returns the error, frees what it holds, and stays
// usable.
//
// Run the code once over a fake that does not fail, read Counts, and run it
// again for every n with the n-th call failing.
package fake

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/fortet/fortet/gpu"
)

// Fail says which calls fail: 3 is the third call of that kind, counted over
// all streams; 0 is none. Calls after the failed one work again.
type Fail struct {
	Alloc, Upload, Download, Launch, Replay, Sync, Record, Stream, Mark, Wait int
}

// Counts are the calls made so far, the failed one among them.
type Counts Fail

// Device is another device that fails as told. Errors of Alloc wrap
// gpu.ErrOutOfMemory, all others gpu.ErrLaunch.
type Device struct {
	gpu.Device
	plan *plan
}

// plan is what all streams of a fake share.
type plan struct {
	fail Fail
	mu   sync.Mutex
	made Counts
}

// New wraps a device, which it closes when it is closed.
func New(d gpu.Device, f Fail) *Device {
	return &Device{Device: d, plan: &plan{fail: f}}
}

// Counts returns the calls made so far over all streams.
func (d *Device) Counts() Counts {
	d.plan.mu.Lock()
	defer d.plan.mu.Unlock()
	return d.plan.made
}

// call counts a call and answers the error of the n-th one.
func (p *plan) call(what string, made *int, n int, sentinel error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	*made++
	if *made == n {
		return fmt.Errorf("fake: %s number %d: %w, as told", what, n, sentinel)
	}
	return nil
}

// Alloc counts, and fails or allocates.
func (d *Device) Alloc(bytes int) (gpu.Buffer, error) {
	if err := d.plan.call("alloc", &d.plan.made.Alloc, d.plan.fail.Alloc, gpu.ErrOutOfMemory); err != nil {
		return gpu.Buffer{}, err
	}
	return d.Device.Alloc(bytes)
}

// Upload counts, and fails or uploads.
func (d *Device) Upload(dst gpu.Buffer, src []byte) error {
	if err := d.plan.call("upload", &d.plan.made.Upload, d.plan.fail.Upload, gpu.ErrLaunch); err != nil {
		return err
	}
	return d.Device.Upload(dst, src)
}

// Download counts, and fails or downloads.
func (d *Device) Download(dst []byte, src gpu.Buffer) error {
	if err := d.plan.call("download", &d.plan.made.Download, d.plan.fail.Download, gpu.ErrLaunch); err != nil {
		return err
	}
	return d.Device.Download(dst, src)
}

// Launch counts, and fails or launches.
func (d *Device) Launch(k *gpu.Kernel, args unsafe.Pointer, tiles int) error {
	if err := d.plan.call("launch", &d.plan.made.Launch, d.plan.fail.Launch, gpu.ErrLaunch); err != nil {
		return err
	}
	return d.Device.Launch(k, args, tiles)
}

// Sync counts, and fails or waits.
func (d *Device) Sync() error {
	if err := d.plan.call("sync", &d.plan.made.Sync, d.plan.fail.Sync, gpu.ErrLaunch); err != nil {
		return err
	}
	return d.Device.Sync()
}

// Record counts, and fails or records. Launches of body count as launches.
func (d *Device) Record(body func() error) (gpu.Graph, error) {
	if err := d.plan.call("record", &d.plan.made.Record, d.plan.fail.Record, gpu.ErrLaunch); err != nil {
		return nil, err
	}
	g, err := d.Device.Record(body)
	if err != nil {
		return nil, err
	}
	return &graph{Graph: g, plan: d.plan}, nil
}

type graph struct {
	gpu.Graph
	plan *plan
}

// Replay counts, and fails or replays.
func (g *graph) Replay() error {
	if err := g.plan.call("replay", &g.plan.made.Replay, g.plan.fail.Replay, gpu.ErrLaunch); err != nil {
		return err
	}
	return g.Graph.Replay()
}

// Stream counts, and fails or opens a stream that is fake, too.
func (d *Device) Stream() (gpu.Device, error) {
	if err := d.plan.call("stream", &d.plan.made.Stream, d.plan.fail.Stream, gpu.ErrLaunch); err != nil {
		return nil, err
	}
	s, err := d.Device.Stream()
	if err != nil {
		return nil, err
	}
	return &Device{Device: s, plan: d.plan}, nil
}

// Mark counts, and fails or marks.
func (d *Device) Mark() (gpu.Event, error) {
	if err := d.plan.call("mark", &d.plan.made.Mark, d.plan.fail.Mark, gpu.ErrLaunch); err != nil {
		return nil, err
	}
	return d.Device.Mark()
}

// Wait counts, and fails or waits.
func (d *Device) Wait(e gpu.Event) error {
	if err := d.plan.call("wait", &d.plan.made.Wait, d.plan.fail.Wait, gpu.ErrLaunch); err != nil {
		return err
	}
	return d.Device.Wait(e)
}
