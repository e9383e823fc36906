package gpu

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPoolMisuse: with build tag invariants misuse panics, without it is ignored.
func TestPoolMisuse(t *testing.T) {
	check := func(p *pool, want string, misused func()) {
		t.Helper()
		before := p.stats()
		if invariants {
			message := recovered(misused)
			assert.Contains(t, message, want)
			return
		}
		assert.NotPanics(t, misused)
		assert.Equal(t, before, p.stats())
	}
	p := newPool(newFakeRaw(1 << 20))
	b := mustAlloc(t, p, 1024)
	check(p, "did not hand out", func() { p.free(Buffer{Ptr: unsafe.Pointer(new(int)), Bytes: 8}) })
	check(p, "did not hand out", func() { p.free(b.Slice(256, 256)) })
	check(p, "not held", func() { p.release([]Buffer{b}) })
	check(p, "without beginRecord", func() { p.endRecord() })
	if invariants {
		check(p, "1024 were handed out", func() { p.free(b.Slice(0, 512)) })
	}
	p.free(b)
	check(p, "freed before", func() { p.free(b) })
	require.NoError(t, p.close())
}

// recovered runs f and returns what it panicked with.
func recovered(f func()) (message string) {
	defer func() {
		if r := recover(); r != nil {
			message, _ = r.(string)
		}
	}()
	f()
	return ""
}
