package gpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeRaw is a device that has room for so many bytes. Its addresses point
// into an arena and are never followed.
type fakeRaw struct {
	mu     sync.Mutex
	room   int
	arena  []byte
	live   map[unsafe.Pointer]int
	allocs int
}

func newFakeRaw(room int) *fakeRaw {
	return &fakeRaw{room: room, arena: make([]byte, 1<<20), live: map[unsafe.Pointer]int{}}
}

func (r *fakeRaw) rawAlloc(bytes int) (unsafe.Pointer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if bytes > r.room {
		return nil, fmt.Errorf("fake: %w", ErrOutOfMemory)
	}
	r.room -= bytes
	p := unsafe.Pointer(&r.arena[r.allocs]) // any address that is nobody else's
	r.allocs++
	r.live[p] = bytes
	return p, nil
}

func (r *fakeRaw) rawFree(p unsafe.Pointer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	bytes, ok := r.live[p]
	if !ok {
		panic("rawFree of an address that is not live")
	}
	delete(r.live, p)
	r.room += bytes
}

func mustAlloc(t *testing.T, p *pool, bytes int) Buffer {
	t.Helper()
	b, err := p.alloc(bytes)
	require.NoError(t, err)
	require.NotNil(t, b.Ptr)
	require.Equal(t, bytes, b.Bytes)
	return b
}

func TestSizeClass(t *testing.T) {
	classes := map[int]bool{}
	for n := 0; n <= 1<<16; n++ {
		size := sizeClass(n)
		classes[size] = true
		waste := max(n/8, granule)
		if size < n || size-n > waste || size%granule != 0 || sizeClass(size) != size {
			t.Fatalf("%d bytes become %d", n, size)
		}
	}
	// 8 multiples of 256 up to 2 KiB, then 8 for each of the 5 octaves
	assert.Len(t, classes, 8+8*5)
	assert.Equal(t, 1<<40, sizeClass(1<<40))
	assert.Equal(t, 1<<40+1<<37, sizeClass(1<<40+1))
}

func TestPoolReuse(t *testing.T) {
	raw := newFakeRaw(1 << 20)
	p := newPool(raw)
	a := mustAlloc(t, p, 1000)
	b := mustAlloc(t, p, 1000)
	assert.NotEqual(t, a.Ptr, b.Ptr)
	assert.Equal(t, MemoryStats{InUse: 2048, HighWater: 2048, Reserved: 2048}, p.stats())
	p.free(a)
	assert.Equal(t, MemoryStats{InUse: 1024, HighWater: 2048, Reserved: 2048}, p.stats())
	c := mustAlloc(t, p, 900) // the same class
	assert.Equal(t, a.Ptr, c.Ptr)
	d := mustAlloc(t, p, 100) // another one
	assert.Equal(t, 3, raw.allocs)
	p.free(b)
	p.free(c)
	p.free(d)
	assert.Equal(t, MemoryStats{InUse: 0, HighWater: 2304, Reserved: 2304}, p.stats())
	require.NoError(t, p.close())
	require.NoError(t, p.close())
	assert.Empty(t, raw.live)
}

func TestPoolArguments(t *testing.T) {
	p := newPool(newFakeRaw(1 << 20))
	empty := mustAlloc(t, p, 0)
	other := mustAlloc(t, p, 0)
	assert.NotEqual(t, empty.Ptr, other.Ptr)
	p.free(empty)
	p.free(other)
	p.free(Buffer{})
	_, err := p.alloc(-1)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = p.alloc(math.MaxInt)
	require.ErrorIs(t, err, ErrOutOfMemory)
	require.NoError(t, p.close())
	_, err = p.alloc(1)
	require.ErrorIs(t, err, ErrInvalid)
}

func TestPoolTrimsWhenFull(t *testing.T) {
	raw := newFakeRaw(4096)
	p := newPool(raw)
	a, b := mustAlloc(t, p, 1024), mustAlloc(t, p, 2048)
	p.free(a)
	big := mustAlloc(t, p, 2048) // fits only without a
	assert.Equal(t, int64(4096), p.stats().Reserved)
	_, err := p.alloc(1)
	require.ErrorIs(t, err, ErrOutOfMemory)
	assert.ErrorContains(t, err, "4096 in use, 4096 reserved")
	p.free(b)
	p.free(big)
	require.NoError(t, p.close())
	assert.Empty(t, raw.live)
}

func TestPoolHoldsWhileRecording(t *testing.T) {
	raw := newFakeRaw(1 << 20)
	p := newPool(raw)
	before := mustAlloc(t, p, 512)
	p.beginRecord()
	inside := mustAlloc(t, p, 512)
	p.free(inside)
	p.free(before)
	next := mustAlloc(t, p, 512)
	assert.NotContains(t, []unsafe.Pointer{before.Ptr, inside.Ptr}, next.Ptr)
	p.beginRecord()
	assert.Empty(t, p.endRecord(), "the outer record has them")
	held := p.endRecord()
	assert.Equal(t, []Buffer{inside, before}, held)
	assert.Equal(t, int64(3*512), p.stats().InUse)
	after := mustAlloc(t, p, 512)
	assert.NotContains(t, []unsafe.Pointer{before.Ptr, inside.Ptr}, after.Ptr)
	p.release(held)
	assert.Equal(t, before.Ptr, mustAlloc(t, p, 512).Ptr)
	err := p.close()
	require.ErrorIs(t, err, ErrInvalid)
	assert.ErrorContains(t, err, "3 buffers (1536 bytes)")
	assert.Empty(t, raw.live, "given back all the same")
}

// TestPoolQueues: a block goes to another queue only when the one that freed
// it has been waited for.
func TestPoolQueues(t *testing.T) {
	raw := newFakeRaw(8192)
	p := newPool(raw)
	q := p.branch()
	a := mustAlloc(t, p, 256)
	p.free(a)
	b := mustAlloc(t, q, 256)
	assert.NotEqual(t, a.Ptr, b.Ptr, "p's queue may still use it")
	p.settled()
	c := mustAlloc(t, q, 256)
	assert.Equal(t, a.Ptr, c.Ptr)

	q.free(c)
	assert.Equal(t, c.Ptr, mustAlloc(t, q, 256).Ptr, "its own queue may have it at once")
	q.free(c)
	q.free(b)
	require.NoError(t, q.close())
	assert.Equal(t, b.Ptr, mustAlloc(t, p, 256).Ptr, "a closed queue uses nothing")
	p.free(b)
	assert.Len(t, raw.live, 2)
	require.NoError(t, p.close())
	assert.Empty(t, raw.live)
}

// TestPoolConcurrently runs random allocations from many goroutines; no two
// may ever hold the same block.
func TestPoolConcurrently(t *testing.T) {
	raw := newFakeRaw(1 << 20)
	p := newPool(raw)
	var owners sync.Map
	var group sync.WaitGroup
	for g := range 8 {
		view := p.branch()
		group.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(g)))
			var mine []Buffer
			for range 2000 {
				if len(mine) > 10 || len(mine) > 0 && r.IntN(2) == 0 {
					i := r.IntN(len(mine))
					owners.Delete(mine[i].Ptr)
					view.free(mine[i])
					mine[i] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
				} else if b, err := view.alloc(r.IntN(5000)); assert.NoError(t, err) {
					_, taken := owners.LoadOrStore(b.Ptr, g)
					assert.False(t, taken)
					mine = append(mine, b)
				}
				if r.IntN(100) == 0 {
					view.settled()
				}
				s := view.stats()
				assert.True(t, 0 <= s.InUse && s.InUse <= s.HighWater && s.InUse <= s.Reserved, "%+v", s)
			}
			for _, b := range mine {
				owners.Delete(b.Ptr)
				view.free(b)
			}
			assert.NoError(t, view.close())
		})
	}
	group.Wait()
	assert.Zero(t, p.stats().InUse)
	require.NoError(t, p.close())
	assert.Empty(t, raw.live)
}

// FuzzPool replays a string of commands and compares the accounting with a
// list of what is held.
func FuzzPool(f *testing.F) {
	f.Add([]byte{0, 10, 200, 3, 3, 0})
	f.Add([]byte{1, 250, 250, 250, 250, 250, 250, 0, 0, 255, 1})
	f.Fuzz(func(t *testing.T, commands []byte) {
		commands = commands[:min(len(commands), 10_000)]
		raw := newFakeRaw(1 << 14)
		p := newPool(raw)
		var mine []Buffer
		for _, c := range commands {
			if c%3 == 0 && len(mine) > 0 {
				p.free(mine[0])
				mine = mine[1:]
				continue
			}
			b, err := p.alloc(int(c) * 16)
			if err != nil {
				require.ErrorIs(t, err, ErrOutOfMemory)
				continue
			}
			mine = append(mine, b)
		}
		want := int64(0)
		seen := map[unsafe.Pointer]bool{}
		for _, b := range mine {
			want += int64(sizeClass(b.Bytes))
			require.False(t, seen[b.Ptr])
			seen[b.Ptr] = true
		}
		s := p.stats()
		require.Equal(t, want, s.InUse)
		require.Equal(t, int64(1<<14-raw.room), s.Reserved)
		require.LessOrEqual(t, s.InUse, s.HighWater)
	})
}
