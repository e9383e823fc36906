//go:build cgo && !windows

package collective

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
)

// rank is one rank of a group under test.
type rank struct {
	t   *testing.T
	dev gpu.Device
	Group
}

// guard is what stands around every buffer of a test.
var guard = bytes.Repeat([]byte{0xa5}, 256)

// array is device memory between guards.
type array struct {
	r     rank
	whole gpu.Buffer
	gpu.Buffer
}

func (r rank) put(content []byte) array {
	r.t.Helper()
	whole, err := r.dev.Alloc(len(content) + 2*len(guard))
	require.NoError(r.t, err)
	r.t.Cleanup(func() { r.dev.Free(whole) })
	require.NoError(r.t, r.dev.Upload(whole, slices.Concat(guard, content, guard)))
	return array{r, whole, whole.Slice(len(guard), len(content))}
}

// get reads the array, and its guards.
func (a array) get() []byte {
	a.r.t.Helper()
	host := make([]byte, a.whole.Bytes)
	require.NoError(a.r.t, a.r.dev.Download(host, a.whole))
	n := a.Bytes
	require.True(a.r.t, bytes.Equal(host[:len(guard)], guard) && bytes.Equal(host[len(guard)+n:], guard),
		"something was written beside %d bytes", n)
	return host[len(guard):][:n]
}

// poison is n bytes that no test expects: NaN to whoever takes them for numbers.
func poison(n int) []byte { return bytes.Repeat([]byte{0xff}, n) }

// bits is a hash of its arguments: what rank brings at place i of a test.
func bits(test, rank, i int) uint64 {
	z := uint64(test)<<48 ^ uint64(rank)<<40 ^ uint64(i)
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// anyBytes is what a rank gathers: any bits, with NaNs of all kinds among them.
func anyBytes(test, rank, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(bits(test, rank, i))
	}
	for i := 0; i+4 <= n; i += 20 {
		binary.LittleEndian.PutUint32(b[i:], 0x7f800001|uint32(bits(test, rank, -i))&0x803fffff) // signalling, with a payload
	}
	return b
}

// number is what a rank adds at place i: numbers of many scales.
func number(test, rank, i int) float64 {
	u := float64(bits(test, rank, i)>>11)/(1<<53)*2 - 1
	return math.Ldexp(u, int(bits(test, rank, i)%23)-11)
}

// numbers is the bytes of n numbers of an element type, and their values.
func numbers(of Element, n int, value func(i int) float64) (b []byte, v []float64) {
	b, v = make([]byte, n*of.Bytes()), make([]float64, n)
	for i := range v {
		v[i] = value(i)
		if of == Float32 {
			view[float32](b)[i] = float32(v[i])
			v[i] = float64(float32(v[i]))
		} else {
			view[float64](b)[i] = v[i]
		}
	}
	return b, v
}

func values(of Element, b []byte) []float64 {
	v := make([]float64, len(b)/of.Bytes())
	for i := range v {
		if of == Float32 {
			v[i] = float64(view[float32](b)[i])
		} else {
			v[i] = view[float64](b)[i]
		}
	}
	return v
}

// conform holds a group against the contract of Group. Every rank calls it.
// ordered says that sums are added in the order of ranks.
func conform(r rank, ordered bool) {
	require.Positive(r.t, r.Size())
	require.GreaterOrEqual(r.t, r.Rank(), 0)
	require.Less(r.t, r.Rank(), r.Size())
	r.gathers()
	r.sums(ordered)
	r.sumsOfWhatIsNoNumber()
	r.broadcasts()
	r.isQueued()
	r.barriers()
	r.refuses()
	require.NoError(r.t, r.Close())
	r.isClosed()
}

// sizes straddle words, lines and the pieces that groups exchange in.
var sizes = []int{0, 1, 3, 4, 7, 8, 31, 32, 33, 127, 128, 129, 8191, 8192, 8193, 65537, 200003}

func (r rank) gathers() {
	for test, n := range sizes {
		mine := anyBytes(test, r.Rank(), n)
		var want []byte
		for k := range r.Size() {
			want = append(want, anyBytes(test, k, n)...)
		}
		in, out := r.put(mine), r.put(poison(n*r.Size()))
		require.NoError(r.t, r.Gather(out.Buffer, in.Buffer), "%d bytes", n)
		require.True(r.t, bytes.Equal(want, out.get()), "%d bytes", n)
		require.True(r.t, bytes.Equal(mine, in.get()), "in has changed")

		// in place
		out = r.put(poison(n * r.Size()))
		part := out.Slice(r.Rank()*n, n)
		require.NoError(r.t, r.dev.Upload(part, mine))
		require.NoError(r.t, r.Gather(out.Buffer, part), "%d bytes in place", n)
		require.True(r.t, bytes.Equal(want, out.get()), "%d bytes in place", n)
	}
}

// everyoneHas gathers b and requires that all ranks have the same.
func (r rank) everyoneHas(b []byte, what string, args ...any) {
	r.t.Helper()
	in, out := r.put(b), r.put(poison(len(b)*r.Size()))
	require.NoError(r.t, r.Gather(out.Buffer, in.Buffer))
	all := out.get()
	for k := range r.Size() {
		require.True(r.t, bytes.Equal(b, all[k*len(b):][:len(b)]), "%s: rank %d has others", fmt.Sprintf(what, args...), k)
	}
}

// sums compares with sums of twice the precision of float64. Adding size
// numbers one after the other errs by at most (size-1) u Σ|x| to first order
// (Higham, Accuracy and Stability, eq. 4.4); 1.01 covers the rest.
func (r rank) sums(ordered bool) {
	for _, of := range []Element{Float32, Float64} {
		unit := math.Ldexp(1, -24)
		if of == Float64 {
			unit = math.Ldexp(1, -53)
		}
		for test, n := range []int{0, 1, 2, 33, 127, 1009, 4099, 20011} {
			mine, _ := numbers(of, n, func(i int) float64 { return number(test, r.Rank(), i) })
			all := make([][]float64, r.Size())
			for k := range all {
				_, all[k] = numbers(of, n, func(i int) float64 { return number(test, k, i) })
			}
			v := r.put(mine)
			require.NoError(r.t, r.Sum(v.Buffer, of), "%d %v", n, of)
			got := v.get()
			for i, g := range values(of, got) {
				high, low, scale, inOrder := 0.0, 0.0, 0.0, 0.0
				for k := range all {
					x := all[k][i]
					// Knuth's exact sum of two numbers: what next lacks goes to low
					next := high + x
					part := next - high
					low += (high - (next - part)) + (x - part)
					high = next
					scale += math.Abs(x)
					inOrder += x
					if of == Float32 {
						inOrder = float64(float32(inOrder))
					}
				}
				diff, budget := math.Abs((g-high)-low), 1.01*float64(r.Size()-1)*unit*scale
				if !(diff <= budget) {
					require.Fail(r.t, "not the sum", "%d %v: [%d] = %v, want %v: off by %g, may be %g", n, of, i, g, high, diff, budget)
				}
				if ordered && g != inOrder {
					require.Fail(r.t, "not added in the order of ranks", "%d %v: [%d] = %v, want %v", n, of, i, g, inOrder)
				}
			}
			r.everyoneHas(got, "sum of %d %v", n, of)

			again := r.put(mine)
			require.NoError(r.t, r.Sum(again.Buffer, of))
			require.True(r.t, bytes.Equal(got, again.get()), "%d %v: a second time other bits", n, of)

			// whole numbers have one sum, whatever the order
			number := func(rank, i int) float64 { return float64(int64(bits(test, rank, i)>>50) - 1<<13) }
			whole, _ := numbers(of, n, func(i int) float64 { return number(r.Rank(), i) })
			v = r.put(whole)
			require.NoError(r.t, r.Sum(v.Buffer, of))
			want := make([]float64, n)
			for i := range want {
				for k := range r.Size() {
					want[i] += number(k, i)
				}
			}
			require.True(r.t, slices.Equal(want, values(of, v.get())), "%d %v: sums of whole numbers", n, of)
		}
	}
}

func (r rank) sumsOfWhatIsNoNumber() {
	last := r.Rank() == r.Size()-1
	for _, of := range []Element{Float32, Float64} {
		mine, _ := numbers(of, 5, func(i int) float64 {
			switch {
			case i == 0 && last:
				return math.NaN()
			case i == 1 && last:
				return math.Inf(1)
			case i == 2:
				return math.Copysign(0, -1)
			case i == 3 && r.Rank() == 0:
				return math.Inf(-1)
			case i == 3 && last:
				return math.Inf(1)
			}
			return 1
		})
		v := r.put(mine)
		require.NoError(r.t, r.Sum(v.Buffer, of))
		got := values(of, v.get())
		assert.True(r.t, math.IsNaN(got[0]), "%v: NaN: %v", of, got)
		assert.True(r.t, math.IsInf(got[1], 1), "%v: infinity: %v", of, got)
		assert.True(r.t, got[2] == 0 && math.Signbit(got[2]), "%v: -0: %v", of, got)
		if r.Size() > 1 {
			assert.True(r.t, math.IsNaN(got[3]), "%v: ∞ - ∞: %v", of, got)
		}
		assert.Equal(r.t, float64(r.Size()), got[4], "%v: beside them", of)
	}
}

func (r rank) broadcasts() {
	for test, n := range sizes {
		root := test % r.Size()
		v := r.put(anyBytes(test, r.Rank(), n))
		require.NoError(r.t, r.Broadcast(v.Buffer, root), "%d bytes from %d", n, root)
		require.True(r.t, bytes.Equal(anyBytes(test, root, n), v.get()), "%d bytes from %d", n, root)
	}
}

// isQueued: what is queued before a call is seen by it, what comes later is not.
func (r rank) isQueued() {
	const n = 4096
	in, out := r.put(poison(n)), r.put(poison(n*r.Size()))
	require.NoError(r.t, r.dev.Upload(in.Buffer, anyBytes(50, r.Rank(), n)))
	require.NoError(r.t, r.Gather(out.Buffer, in.Buffer))
	require.NoError(r.t, r.dev.Upload(in.Buffer, poison(n)))
	var want []byte
	for k := range r.Size() {
		want = append(want, anyBytes(50, k, n)...)
	}
	require.True(r.t, bytes.Equal(want, out.get()))
}

// barriers: nobody leaves before the last has come. Ranks share a machine, and
// its clock.
func (r rank) barriers() {
	for range 3 {
		time.Sleep(time.Duration(r.Rank()) * 5 * time.Millisecond)
		var times [16]byte
		binary.LittleEndian.PutUint64(times[:], uint64(time.Now().UnixNano()))
		require.NoError(r.t, r.Barrier())
		binary.LittleEndian.PutUint64(times[8:], uint64(time.Now().UnixNano()))
		in, out := r.put(times[:]), r.put(poison(16*r.Size()))
		require.NoError(r.t, r.Gather(out.Buffer, in.Buffer))
		all := view[int64](out.get())
		for k := range r.Size() {
			for j := range r.Size() {
				require.LessOrEqual(r.t, all[2*k], all[2*j+1], "rank %d left before rank %d came", j, k)
			}
		}
	}
}

// refuses what every rank can see to be wrong, and works after.
func (r rank) refuses() {
	n := r.Size()
	b := r.put(anyBytes(60, r.Rank(), 64*(n+1)))
	bad := func(err error, text ...string) {
		r.t.Helper()
		require.ErrorIs(r.t, err, gpu.ErrInvalid)
		for _, s := range append(text, r.Name()) {
			assert.ErrorContains(r.t, err, s)
		}
	}
	bad(r.Gather(b.Slice(0, 64*n-1), b.Slice(64*n, 64)), "gather")
	bad(r.Gather(b.Slice(0, 64*n), b.Slice(64*n, 63)), "gather")
	bad(r.Gather(gpu.Buffer{}, b.Slice(64*n, 1)), "out has 0 bytes, want 1")
	bad(r.Gather(b.Slice(0, 64*n), b.Slice(64*r.Rank()+4, 64)), "not its part of rank")
	bad(r.Sum(b.Slice(0, 6), Float32), "sum", "6 bytes, want a multiple of 4")
	bad(r.Sum(b.Slice(0, 12), Float64), "12 bytes, want a multiple of 8")
	bad(r.Sum(b.Slice(4, 16), Float64), "aligned to 8")
	bad(r.Sum(b.Slice(0, 16), Element(7)), "Element(7)")
	bad(r.Broadcast(b.Slice(0, 16), -1), "broadcast", fmt.Sprint("want 0 to ", n-1))
	bad(r.Broadcast(b.Slice(0, 16), n), "root")
	require.NoError(r.t, r.Gather(gpu.Buffer{}, gpu.Buffer{}))
	require.NoError(r.t, r.Sum(gpu.Buffer{}, Float64))
	require.NoError(r.t, r.Broadcast(gpu.Buffer{}, n-1))
	require.True(r.t, bytes.Equal(anyBytes(60, r.Rank(), 64*(n+1)), b.get()), "a refused call has written")
	require.NoError(r.t, r.Barrier())
}

func (r rank) isClosed() {
	b := r.put(make([]byte, 8*r.Size()))
	for what, err := range map[string]error{
		"gather":    r.Gather(b.Buffer, b.Slice(0, 8)),
		"sum":       r.Sum(b.Slice(0, 8), Float64),
		"broadcast": r.Broadcast(b.Buffer, 0),
		"barrier":   r.Barrier(),
	} {
		require.ErrorIs(r.t, err, gpu.ErrInvalid, what)
		assert.ErrorContains(r.t, err, "closed", what)
	}
	require.NoError(r.t, r.Close(), "a second time")
}

// records: calls of a group whose calls are queued can be recorded.
func (r rank) records() {
	in, out := r.put(anyBytes(70, r.Rank(), 100)), r.put(poison(100*r.Size()))
	one, _ := numbers(Float64, 3, func(int) float64 { return 1 })
	v, w := r.put(one), r.put(anyBytes(71, r.Rank(), 33))
	graph, err := r.dev.Record(func() error {
		if err := r.Gather(out.Buffer, in.Buffer); err != nil {
			return err
		}
		if err := r.Broadcast(w.Buffer, r.Size()-1); err != nil {
			return err
		}
		return r.Sum(v.Buffer, Float64)
	})
	require.NoError(r.t, err)
	require.True(r.t, bytes.Equal(poison(100*r.Size()), out.get()), "recorded, not run")
	want := 1.0
	for test := range 3 {
		require.NoError(r.t, r.dev.Upload(in.Buffer, anyBytes(test, r.Rank(), 100)))
		require.NoError(r.t, graph.Replay())
		var all []byte
		for k := range r.Size() {
			all = append(all, anyBytes(test, k, 100)...)
		}
		require.True(r.t, bytes.Equal(all, out.get()), "replay %d", test)
		want *= float64(r.Size())
		require.Equal(r.t, []float64{want, want, want}, values(Float64, v.get()), "replay %d", test)
		require.True(r.t, bytes.Equal(anyBytes(71, r.Size()-1, 33), w.get()), "replay %d", test)
	}
	require.NoError(r.t, graph.Close())
}

// cannotBeRecorded: calls of a group that waits for the queue.
func (r rank) cannotBeRecorded() {
	v := r.put(make([]byte, 16))
	_, err := r.dev.Record(func() error { return r.Sum(v.Buffer, Float64) })
	require.ErrorIs(r.t, err, gpu.ErrInvalid)
	assert.ErrorContains(r.t, err, "not inside Record")
}
