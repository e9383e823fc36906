//go:build cgo && !windows

package gpu

import (
	"os"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/kernels/include"
)

func TestPluginProperties(t *testing.T) {
	d := openEmulation(t)
	p := d.Properties()
	assert.Equal(t, "emu", d.Name())
	assert.Equal(t, Emulation, p.Kind)
	assert.NotEmpty(t, p.Model)
	assert.NotEmpty(t, p.Features)
	assert.Positive(t, p.Workers)
	assert.Positive(t, p.MemoryBytes)
	assert.Equal(t, emulation(t), p.Library)
	n, err := deviceCount(p.Library)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	_, err = openLibrary(p.Library, 1)
	assert.ErrorIs(t, err, ErrUnavailable)
}

// TestEmulationFindsMissingBarrier: results must be wrong in every block.
func TestEmulationFindsMissingBarrier(t *testing.T) {
	d := openEmulation(t)
	const blocks, threads = 9, 64
	x := ramp(threads)
	for name, want := range map[string]func(i int) float32{
		"missing_barrier_next":     func(i int) float32 { return x[(i+1)%threads] },
		"missing_barrier_previous": func(i int) float32 { return x[(i+threads-1)%threads] },
		"missing_barrier_static":   func(int) float32 { return x[0] },
		"missing_syncwarp":         func(i int) float32 { return x[i%32^1] },
	} {
		in, out := upload(t, d, x), upload(t, d, make([]float32, blocks*threads))
		args := selftestArgs{in.Ptr, out.Ptr, threads, blocks, threads}
		require.NoError(t, d.Launch(selftestKernel(t, "broken", name), unsafe.Pointer(&args), 1))
		got := download[float32](t, d, out)
		for b := range blocks {
			wrong := 0
			for i := range threads {
				if got[b*threads+i] != want(i) {
					wrong++
				}
			}
			assert.Positive(t, wrong, "%s: block %d got away with it", name, b)
		}
	}
}

func TestEmulationReports(t *testing.T) {
	d := openEmulation(t)
	in, out := upload(t, d, ramp(64)), upload(t, d, make([]float32, 64))
	for name, want := range map[string][]string{
		"divergent_barrier":       {"divergent barrier", "broken.cu:", "block (0,0,0)", "thread ("},
		"barrier_against_shuffle": {"divergent", "a shuffle", "broken.cu:", "block (0,0,0)"},
		"shuffle_against_vote":    {"divergent warp", "a shuffle", "a vote"},
		"lane_without_mask":       {"mask 0xffff, which is without it"},
		"shared_overrun":          {"wrote past its 256 bytes of dynamic shared memory"},
		"stack_overrun":           {"256 KiB of stack"},
	} {
		args := selftestArgs{in.Ptr, out.Ptr, 64, 1, 64}
		require.NoError(t, d.Launch(selftestKernel(t, "broken", name), unsafe.Pointer(&args), 1), "queued")
		err := d.Sync()
		require.ErrorIs(t, err, ErrLaunch, name)
		assert.ErrorContains(t, err, name)
		for _, text := range want {
			assert.ErrorContains(t, err, text)
		}
		assert.NoError(t, d.Sync(), "an error is reported once")
	}
	// the device is usable after all that
	args := selftestArgs{in.Ptr, out.Ptr, 64, 2, 32}
	require.NoError(t, d.Launch(selftestKernel(t, "selftest", "increment"), unsafe.Pointer(&args), 1))
	require.NoError(t, d.Sync())
}

func TestLaunchConfiguration(t *testing.T) {
	d := openEmulation(t)
	in := upload(t, d, ramp(32))
	for _, c := range []struct {
		blocks, threads int32
		want            string
	}{{0, 32, "grid"}, {1, 0, "block"}, {1, 1025, "block"}, {-1, 32, "grid"}} {
		args := selftestArgs{in.Ptr, in.Ptr, 32, c.blocks, c.threads}
		err := d.Launch(selftestKernel(t, "selftest", "increment"), unsafe.Pointer(&args), 1)
		require.ErrorIs(t, err, ErrLaunch, "%+v", c)
		assert.ErrorContains(t, err, c.want)
		assert.NoError(t, d.Sync(), "what was not launched does not fail later")
	}
}

// TestEmulatedQueuesAreLazy: a stream that does not wait for another one must
// not see the right answer by luck.
func TestEmulatedQueuesAreLazy(t *testing.T) {
	d := openEmulation(t)
	other, err := d.Stream()
	require.NoError(t, err)
	defer func() { assert.NoError(t, other.Close()) }()
	b := upload(t, d, make([]float32, 64))
	start, err := d.Mark()
	require.NoError(t, err)
	defer start.Close()
	require.NoError(t, increments(d, selftestKernel(t, "selftest", "increment"), b, 3))
	done, err := d.Mark()
	require.NoError(t, err)
	defer done.Close()
	_, err = done.Since(start)
	assert.ErrorIs(t, err, ErrInvalid, "neither has happened")
	assert.NotEqual(t, float32(3), download[float32](t, other, b)[0])
	assert.Equal(t, float32(3), download[float32](t, d, b)[0])
}

func TestOutOfMemory(t *testing.T) {
	t.Setenv("FORTET_EMU_MEMORY", "1048576")
	d := openEmulation(t)
	assert.Equal(t, int64(1<<20), d.Properties().MemoryBytes)
	half, err := d.Alloc(1 << 19)
	require.NoError(t, err)
	_, err = d.Alloc(1 << 20)
	require.ErrorIs(t, err, ErrOutOfMemory)
	assert.ErrorContains(t, err, "524288 free", "the device's own text")
	d.Free(half)
	whole, err := d.Alloc(1 << 20) // once the idle half has been given back
	require.NoError(t, err)
	d.Free(whole)
}

func TestClosedDevice(t *testing.T) {
	d, err := openLibrary(emulation(t), 0)
	require.NoError(t, err)
	b, err := d.Alloc(64)
	require.NoError(t, err)
	g, err := d.Record(func() error { return nil })
	require.NoError(t, err)
	err = d.Close()
	require.ErrorIs(t, err, ErrInvalid, "a buffer was not freed")
	assert.ErrorContains(t, err, "1 buffers (64 bytes)")
	require.NoError(t, d.Close())
	assert.ErrorIs(t, g.Replay(), ErrInvalid)
	require.NoError(t, g.Close())
	assert.ErrorIs(t, d.Sync(), ErrInvalid)
	assert.ErrorIs(t, d.Upload(b, make([]byte, 64)), ErrInvalid)
	_, err = d.Alloc(1)
	assert.ErrorIs(t, err, ErrInvalid)
	_, err = d.Stream()
	assert.ErrorIs(t, err, ErrInvalid)
}

// BenchmarkEmulation runs a million threads, each with ten warp operations and
// two barriers.
func BenchmarkEmulation(b *testing.B) {
	path, _ := findLibrary(Emulation)
	if path == "" {
		b.Skip("no emulation library: run ./build.sh emu")
	}
	d, err := openLibrary(path, 0)
	require.NoError(b, err)
	defer d.Close()
	const blocks, threads = 4096, 256
	in, err := d.Alloc(4 * blocks * threads)
	require.NoError(b, err)
	defer d.Free(in)
	out, err := d.Alloc(4 * blocks)
	require.NoError(b, err)
	defer d.Free(out)
	require.NoError(b, d.Upload(in, bytesOf(make([]float32, blocks*threads))))
	header, err := os.ReadFile("cuda/selftest.h")
	require.NoError(b, err)
	args := selftestArgs{in.Ptr, out.Ptr, blocks * threads, blocks, threads}
	k := &Kernel{Name: "selftest_block_sums", Op: "selftest", ArgsBytes: unsafe.Sizeof(args), Contract: include.Contract(string(header))}
	for b.Loop() {
		require.NoError(b, d.Launch(k, unsafe.Pointer(&args), 1))
		require.NoError(b, d.Sync())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(blocks*threads), "ns/thread")
}
