package fake_test

import (
	"errors"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
)

// still is a device that does nothing, successfully.
type still struct{ gpu.Device }

func (still) Name() string                                  { return "still" }
func (still) Alloc(n int) (gpu.Buffer, error)               { return gpu.Buffer{Bytes: n}, nil }
func (still) Upload(gpu.Buffer, []byte) error               { return nil }
func (still) Download([]byte, gpu.Buffer) error             { return nil }
func (still) Launch(*gpu.Kernel, unsafe.Pointer, int) error { return nil }
func (still) Sync() error                                   { return nil }
func (still) Stream() (gpu.Device, error)                   { return still{}, nil }
func (still) Mark() (gpu.Event, error)                      { return nil, nil }
func (still) Wait(gpu.Event) error                          { return nil }
func (still) Record(body func() error) (gpu.Graph, error)   { return stillGraph{}, body() }

type stillGraph struct{ gpu.Graph }

func (stillGraph) Replay() error { return nil }

// everything makes every kind of call, two times.
func everything(d gpu.Device) error {
	stream, err := d.Stream()
	if err != nil {
		return err
	}
	for _, q := range []gpu.Device{d, stream} {
		b, err := q.Alloc(8)
		if err != nil {
			return err
		}
		if err := q.Upload(b, nil); err != nil {
			return err
		}
		if err := q.Download(nil, b); err != nil {
			return err
		}
		g, err := q.Record(func() error { return q.Launch(nil, nil, 1) })
		if err != nil {
			return err
		}
		if err := g.Replay(); err != nil {
			return err
		}
		e, err := q.Mark()
		if err != nil {
			return err
		}
		if err := errors.Join(q.Wait(e), q.Sync()); err != nil {
			return err
		}
	}
	_, err = stream.Stream()
	return err
}

func TestCounts(t *testing.T) {
	d := fake.New(still{}, fake.Fail{})
	require.NoError(t, everything(d))
	assert.Equal(t, fake.Counts{Alloc: 2, Upload: 2, Download: 2, Launch: 2, Replay: 2, Sync: 2, Record: 2, Stream: 2, Mark: 2, Wait: 2}, d.Counts())
	assert.Equal(t, "still", d.Name())
}

func TestFails(t *testing.T) {
	for name, plan := range map[string]func(n int) fake.Fail{
		"alloc":    func(n int) fake.Fail { return fake.Fail{Alloc: n} },
		"upload":   func(n int) fake.Fail { return fake.Fail{Upload: n} },
		"download": func(n int) fake.Fail { return fake.Fail{Download: n} },
		"launch":   func(n int) fake.Fail { return fake.Fail{Launch: n} },
		"replay":   func(n int) fake.Fail { return fake.Fail{Replay: n} },
		"sync":     func(n int) fake.Fail { return fake.Fail{Sync: n} },
		"record":   func(n int) fake.Fail { return fake.Fail{Record: n} },
		"stream":   func(n int) fake.Fail { return fake.Fail{Stream: n} },
		"mark":     func(n int) fake.Fail { return fake.Fail{Mark: n} },
		"wait":     func(n int) fake.Fail { return fake.Fail{Wait: n} },
	} {
		sentinel := gpu.ErrLaunch
		if name == "alloc" {
			sentinel = gpu.ErrOutOfMemory
		}
		for n := 1; n <= 2; n++ {
			err := everything(fake.New(still{}, plan(n)))
			require.ErrorIs(t, err, sentinel, "%s %d", name, n)
			assert.ErrorContains(t, err, name+" number")
		}
		d := fake.New(still{}, plan(1))
		require.Error(t, everything(d))
		assert.NoError(t, everything(d), "%s: only one call fails", name)
		assert.NoError(t, everything(fake.New(still{}, plan(3))), "%s: there is no third call", name)
	}
}
