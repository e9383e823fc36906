//go:build cgo && !windows

package collective

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/gpu/fake"
)

func openDevice(t *testing.T, name string) gpu.Device {
	t.Helper()
	d, err := gpu.Open(name)
	require.NoError(t, err, "run ./build.sh emu for the emulation")
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	return d
}

// locals runs f as each of size ranks in this process, as subtests.
func locals(t *testing.T, size int, device string, f func(r rank)) {
	devs := make([]gpu.Device, size)
	for i := range devs {
		devs[i] = openDevice(t, device)
	}
	groups := Local(size, devs...)
	t.Run("ranks", func(t *testing.T) {
		var all sync.WaitGroup
		defer all.Wait()
		for i, g := range groups {
			all.Add(1)
			go func() {
				defer all.Done()
				defer g.Close() // lets the others go, where this one fails
				t.Run(fmt.Sprint(i), func(t *testing.T) { f(rank{t, devs[i], g}) })
			}()
		}
	})
}

func TestSelf(t *testing.T) {
	for _, device := range []string{"cpu", "emu"} {
		t.Run(device, func(t *testing.T) {
			d := openDevice(t, device)
			rank{t, d, Self(d)}.records()
			conform(rank{t, d, Self(d)}, true)
		})
	}
}

func TestLocal(t *testing.T) {
	for _, device := range []string{"cpu", "emu"} {
		for size := 1; size <= 4; size++ {
			t.Run(fmt.Sprint(device, size), func(t *testing.T) {
				locals(t, size, device, func(r rank) {
					r.cannotBeRecorded()
					conform(r, true)
				})
			})
		}
	}
	assert.Panics(t, func() { Local(2, openDevice(t, "cpu")) })
	assert.Panics(t, func() { Local(0) })
}

// TestLocalDisagreement: what other groups cannot see, all ranks are told, and
// the group is as good as before.
func TestLocalDisagreement(t *testing.T) {
	locals(t, 3, "cpu", func(r rank) {
		b := r.put(make([]byte, 96))
		odd := r.Rank() == 1
		for _, c := range []struct {
			is        error
			text      string
			odd, even func() error
		}{
			{
				gpu.ErrInvalid, "rank 0 calls gather of 16 bytes, rank 1 gather of 32",
				func() error { return r.Gather(b.Buffer, b.Slice(32, 32)) },
				func() error { return r.Gather(b.Slice(0, 48), b.Slice(16*r.Rank(), 16)) },
			},
			{
				gpu.ErrInvalid, "rank 0 calls sum f64 of 16 bytes, rank 1 sum f32 of 16",
				func() error { return r.Sum(b.Slice(0, 16), Float32) },
				func() error { return r.Sum(b.Slice(0, 16), Float64) },
			},
			{
				gpu.ErrInvalid, "rank 0 calls broadcast from 0 of 16 bytes, rank 1 broadcast from 1 of 16",
				func() error { return r.Broadcast(b.Slice(0, 16), 1) },
				func() error { return r.Broadcast(b.Slice(0, 16), 0) },
			},
			{gpu.ErrInvalid, "rank 0 calls barrier", func() error { return r.Sum(b.Slice(0, 16), Float64) }, r.Barrier},
			{
				ErrExchange, "rank 1: local: sum: invalid argument: 6 bytes",
				func() error { return r.Sum(b.Slice(0, 6), Float64) },
				func() error { return r.Sum(b.Slice(0, 16), Float64) },
			},
		} {
			call := c.even
			if odd {
				call = c.odd
			}
			err := call()
			require.ErrorIs(r.t, err, c.is, c.text)
			assert.ErrorContains(r.t, err, c.text)
			require.NoError(r.t, r.Barrier(), "after: %s", c.text)
		}
	})
}

// TestLocalLeaves: who waits for a rank that has left is told.
func TestLocalLeaves(t *testing.T) {
	locals(t, 3, "cpu", func(r rank) {
		b := r.put(make([]byte, 24))
		if r.Rank() == 1 {
			require.NoError(r.t, r.Close())
			return
		}
		for range 3 {
			err := r.Gather(b.Buffer, b.Slice(8*r.Rank(), 8))
			require.ErrorIs(r.t, err, ErrExchange)
			assert.ErrorContains(r.t, err, "has left")
		}
	})
}

// TestLocalDeviceFails: one rank's device fails, all ranks are told.
func TestLocalDeviceFails(t *testing.T) {
	devs := []gpu.Device{openDevice(t, "emu"), nil}
	devs[1] = fake.New(openDevice(t, "emu"), fake.Fail{Download: 1})
	groups := Local(2, devs...)
	errs := make([]error, 2)
	var all sync.WaitGroup
	for i, g := range groups {
		b, err := devs[i].Alloc(8)
		require.NoError(t, err)
		defer devs[i].Free(b)
		all.Go(func() { errs[i] = g.Sum(b, Float64) })
	}
	all.Wait()
	for i, err := range errs {
		require.ErrorIs(t, err, gpu.ErrLaunch, "rank %d", i)
		assert.ErrorContains(t, err, "rank 1: fake: download")
	}
}
