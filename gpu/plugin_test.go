//go:build cgo && !windows

package gpu

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/kernels/include"
)

// emulation is the path of the emulation library. Without one the test fails,
// unless FORTET_NO_EMU=1 says that this is meant.
func emulation(t *testing.T) string {
	t.Helper()
	path, tried := findLibrary(Emulation)
	if path == "" {
		if os.Getenv("FORTET_NO_EMU") == "1" {
			t.Skip("FORTET_NO_EMU=1: the plug-in device is not tested")
		}
		t.Fatalf("no emulation library at %s: run ./build.sh emu (or set FORTET_NO_EMU=1 to do without)", strings.Join(tried, ", "))
	}
	return path
}

func openEmulation(t *testing.T) *pluginDevice {
	t.Helper()
	d, err := openLibrary(emulation(t), 0)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	return d.(*pluginDevice)
}

// selftestArgs mirrors fortet_selftest_args.
type selftestArgs struct {
	x, out          unsafe.Pointer
	n               int64
	blocks, threads int32
}

func selftestKernel(t *testing.T, op, name string) *Kernel {
	t.Helper()
	header := ""
	if op == "selftest" {
		text, err := os.ReadFile("cuda/selftest.h")
		require.NoError(t, err)
		header = string(text)
	}
	return &Kernel{Name: op + "_" + name, Op: op, ArgsBytes: unsafe.Sizeof(selftestArgs{}), Contract: include.Contract(header)}
}

func bytesOf[T any](v []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(*new(T))))
}

// upload allocates device memory with the contents of v.
func upload[T any](t *testing.T, d Device, v []T) Buffer {
	t.Helper()
	b, err := d.Alloc(len(bytesOf(v)))
	require.NoError(t, err)
	t.Cleanup(func() { d.Free(b) })
	require.NoError(t, d.Upload(b, bytesOf(v)))
	return b
}

func download[T any](t *testing.T, d Device, b Buffer) []T {
	t.Helper()
	v := make([]T, b.Bytes/int(unsafe.Sizeof(*new(T))))
	require.NoError(t, d.Download(bytesOf(v), b))
	return v
}

// ramp is 0, 1, 2, … scaled and shifted, so that no value is like its neighbour.
func ramp(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(i)*0.25 + 1
	}
	return v
}

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

func TestPluginCopies(t *testing.T) {
	d := openEmulation(t)
	for _, n := range []int{0, 1, 31, 4096, 1 << 20} {
		want := make([]byte, n)
		for i := range want {
			want[i] = byte(i * 7)
		}
		b, err := d.Alloc(n)
		require.NoError(t, err)
		require.NotNil(t, b.Ptr)
		src := append([]byte(nil), want...)
		require.NoError(t, d.Upload(b, src))
		clear(src) // upload must have taken its copy
		got := make([]byte, n)
		require.NoError(t, d.Download(got, b))
		assert.Equal(t, want, got)
		d.Free(b)
	}
	b, err := d.Alloc(8)
	require.NoError(t, err)
	defer d.Free(b)
	assert.ErrorIs(t, d.Upload(b, make([]byte, 9)), ErrInvalid)
	assert.ErrorIs(t, d.Download(make([]byte, 7), b), ErrInvalid)
}

func TestKernelBlockSums(t *testing.T) {
	d := openEmulation(t)
	k := selftestKernel(t, "selftest", "block_sums")
	for _, shape := range []struct{ n, blocks, threads int }{{1, 1, 32}, {1000, 1, 32}, {1000, 3, 64}, {4099, 5, 256}, {4099, 2, 1024}} {
		x := ramp(shape.n)
		in := upload(t, d, x)
		out := upload(t, d, make([]float32, shape.blocks))
		args := selftestArgs{in.Ptr, out.Ptr, int64(shape.n), int32(shape.blocks), int32(shape.threads)}
		require.NoError(t, d.Launch(k, unsafe.Pointer(&args), 1))
		got := download[float32](t, d, out)
		for b := range shape.blocks {
			want := 0.0
			for i := range x {
				if i/shape.threads%shape.blocks == b {
					want += float64(x[i])
				}
			}
			// multiples of 1/4 below 2^22: every partial sum is exact
			assert.Equal(t, float32(want), got[b], "%+v, block %d", shape, b)
		}
	}
}

func TestKernelBlockLogSumExp(t *testing.T) {
	d := openEmulation(t)
	k := selftestKernel(t, "selftest", "block_lse")
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for name, x := range map[string][]float32{
		"ramp":        ramp(300),
		"fewer":       {-3, 5},
		"zero weight": {-inf, 2, -inf, -700},
		"all zero":    {-inf, -inf},
		"large":       {3e38, -3e38, 3e38},
		"NaN":         {1, nan, -inf},
		"NaN first":   {nan, -inf, 1},
	} {
		in := upload(t, d, x)
		out := upload(t, d, make([]float64, 2))
		args := selftestArgs{in.Ptr, out.Ptr, int64(len(x)), 1, 96}
		require.NoError(t, d.Launch(k, unsafe.Pointer(&args), 1))
		got := download[float64](t, d, out)

		top, sum := math.Inf(-1), 0.0
		for _, z := range x {
			if !math.IsNaN(float64(z)) {
				top = max(top, float64(z))
			}
		}
		for _, z := range x {
			if !math.IsInf(float64(z), -1) {
				sum += math.Exp(float64(z) - top)
			}
		}
		want := top + math.Log(sum)
		assert.Equal(t, top, got[0], name)
		if math.IsNaN(sum) || math.IsInf(want, 0) {
			assert.Equal(t, math.Float64bits(want)>>52, math.Float64bits(got[1])>>52, "%s: got %v, want %v", name, got[1], want)
			continue
		}
		// each of the 300 additions and exponentials errs by about one ulp of
		// the sum; the logarithm turns that into an absolute error
		if !(math.Abs(got[1]-want) <= 600*0x1p-52*max(1, math.Abs(want))) {
			t.Errorf("%s: log-sum-exp %v, want %v", name, got[1], want)
		}
	}
}

func TestKernelDynamicShared(t *testing.T) {
	d := openEmulation(t)
	const blocks, threads = 7, 96
	x := ramp(blocks * threads)
	in, out := upload(t, d, x), upload(t, d, make([]float32, len(x)))
	args := selftestArgs{in.Ptr, out.Ptr, int64(len(x)), blocks, threads}
	require.NoError(t, d.Launch(selftestKernel(t, "selftest", "reverse"), unsafe.Pointer(&args), 1))
	for i, got := range download[float32](t, d, out) {
		assert.Equal(t, x[i/threads*threads+threads-1-i%threads], got)
	}
}

func TestKernelAtomics(t *testing.T) {
	d := openEmulation(t)
	const blocks, threads, all = 33, 64, 33 * 64
	out := upload(t, d, make([]uint64, 8))
	args := selftestArgs{nil, out.Ptr, 0, blocks, threads}
	require.NoError(t, d.Launch(selftestKernel(t, "selftest", "atomics"), unsafe.Pointer(&args), 1))
	got := download[byte](t, d, out)
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(got[8*i:]) }
	assert.Equal(t, uint64(all), word(0))
	assert.Equal(t, uint64(2*all), word(1))
	assert.Equal(t, uint64(all)<<33, word(2))
	assert.Equal(t, float32(all)/2, math.Float32frombits(uint32(word(3))))
	assert.Equal(t, float64(all)/4, math.Float64frombits(word(4)))
	assert.Equal(t, uint64(all-1), word(5))
	assert.Equal(t, uint64(7), word(6))
	assert.Equal(t, uint64(10), word(7))
}

func TestKernelWarpOperations(t *testing.T) {
	d := openEmulation(t)
	const threads = 96
	out := upload(t, d, make([]int32, 8*threads))
	args := selftestArgs{nil, out.Ptr, 0, 1, threads}
	require.NoError(t, d.Launch(selftestKernel(t, "selftest", "warp"), unsafe.Pointer(&args), 1))
	got := download[int32](t, d, out)
	ballot := uint32(0)
	for lane := 0; lane < 32; lane += 3 {
		ballot |= 1 << lane
	}
	for i := range threads {
		lane := int32(i % 32)
		down, up := lane+3, lane-3
		if down > 31 {
			down = lane
		}
		if up < 0 {
			up = lane
		}
		want := []int32{lane ^ 5, down, up, lane/8*8 + 11%8, int32(ballot), 3, lane ^ 1, threads / 32}
		assert.Equal(t, want, got[8*i:8*i+8], "thread %d", i)
	}
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

func TestKernelContract(t *testing.T) {
	d := openEmulation(t)
	launch := func(k Kernel) error {
		args := selftestArgs{blocks: 1, threads: 32}
		return d.Launch(&k, unsafe.Pointer(&args), 1)
	}
	good := *selftestKernel(t, "selftest", "increment")
	require.NoError(t, launch(good))

	other := good
	other.Contract = include.Contract("another header")
	err := launch(other)
	require.ErrorIs(t, err, ErrContract)
	assert.ErrorContains(t, err, other.Contract)
	assert.ErrorContains(t, err, good.Contract)

	missing := good
	missing.Name = "selftest_no_such_kernel"
	assert.ErrorIs(t, launch(missing), ErrUnsupported)
	orphan := good
	orphan.Op = "no_such_op"
	assert.ErrorIs(t, launch(orphan), ErrContract)
	require.NoError(t, d.Sync())
}

// increments queues n launches that count out up.
func increments(d Device, k *Kernel, out Buffer, n int) error {
	args := selftestArgs{out.Ptr, out.Ptr, int64(out.Bytes / 4), 2, 64}
	for range n {
		if err := d.Launch(k, unsafe.Pointer(&args), 1); err != nil {
			return err
		}
	}
	return nil
}

func TestGraphReplaysWhatLaunchesDo(t *testing.T) {
	d := openEmulation(t)
	k := selftestKernel(t, "selftest", "increment")
	direct, replayed := upload(t, d, ramp(333)), upload(t, d, ramp(333))
	require.NoError(t, increments(d, k, direct, 15))

	g, err := d.Record(func() error { return increments(d, k, replayed, 5) })
	require.NoError(t, err)
	assert.Equal(t, ramp(333), download[float32](t, d, replayed), "recording runs nothing")
	for range 3 {
		require.NoError(t, g.Replay())
	}
	assert.Equal(t, download[float32](t, d, direct), download[float32](t, d, replayed))
	require.NoError(t, g.Close())
	require.NoError(t, g.Close())
	assert.ErrorIs(t, g.Replay(), ErrInvalid)
}

func TestRecordRules(t *testing.T) {
	d := openEmulation(t)
	k := selftestKernel(t, "selftest", "increment")
	b := upload(t, d, ramp(64))
	var scratch Buffer
	g, err := d.Record(func() error {
		assert.ErrorIs(t, d.Upload(b, make([]byte, b.Bytes)), ErrInvalid)
		assert.ErrorIs(t, d.Download(make([]byte, b.Bytes), b), ErrInvalid)
		assert.ErrorIs(t, d.Sync(), ErrInvalid)
		_, err := d.Record(func() error { return nil })
		assert.ErrorIs(t, err, ErrInvalid)
		_, err = d.Mark()
		assert.ErrorIs(t, err, ErrInvalid)
		scratch, err = d.Alloc(256)
		require.NoError(t, err)
		d.Free(scratch)
		return increments(d, k, b, 1)
	})
	require.NoError(t, err)
	again, err := d.Alloc(256)
	require.NoError(t, err)
	assert.NotEqual(t, scratch.Ptr, again.Ptr, "memory freed inside Record belongs to the graph")
	d.Free(again)
	require.NoError(t, g.Close())

	// a body that fails or panics leaves a device that works
	sentinel := errors.New("body")
	_, err = d.Record(func() error { return errors.Join(increments(d, k, b, 1), sentinel) })
	assert.ErrorIs(t, err, sentinel)
	assert.Panics(t, func() { _, _ = d.Record(func() error { panic("body") }) })
	assert.Equal(t, ramp(64), download[float32](t, d, b), "nothing of it has run")
}

func TestStreamsAndEvents(t *testing.T) {
	d := openEmulation(t)
	k := selftestKernel(t, "selftest", "increment")
	other, err := d.Stream()
	require.NoError(t, err)
	defer func() { assert.NoError(t, other.Close()) }()

	b := upload(t, d, make([]float32, 64))
	start, err := d.Mark()
	require.NoError(t, err)
	defer start.Close()
	require.NoError(t, increments(d, k, b, 3))
	done, err := d.Mark()
	require.NoError(t, err)
	defer done.Close()
	_, err = done.Since(start)
	assert.ErrorIs(t, err, ErrInvalid, "neither has happened")

	// Without Wait the other stream sees what was there before; emulated
	// queues are lazy so that this shows.
	assert.NotEqual(t, float32(3), download[float32](t, other, b)[0])
	require.NoError(t, other.Wait(done))
	assert.Equal(t, float32(3), download[float32](t, other, b)[0])

	require.NoError(t, done.Sync())
	between, err := done.Since(start)
	require.NoError(t, err)
	assert.Positive(t, between)
	back, err := start.Since(done)
	require.NoError(t, err)
	assert.Equal(t, -between, back)

	done.Close()
	assert.ErrorIs(t, other.Wait(done), ErrInvalid)
	assert.ErrorIs(t, d.Wait(foreignEvent{}), ErrInvalid)
}

type foreignEvent struct{}

func (foreignEvent) Sync() error                        { return nil }
func (foreignEvent) Since(Event) (time.Duration, error) { return 0, nil }
func (foreignEvent) Close()                             {}

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

func TestLaunchDoesNotAllocate(t *testing.T) {
	d := openEmulation(t)
	k := selftestKernel(t, "selftest", "increment")
	b := upload(t, d, ramp(64))
	args := &selftestArgs{b.Ptr, b.Ptr, 64, 1, 64}
	require.NoError(t, d.Launch(k, unsafe.Pointer(args), 1))
	g, err := d.Record(func() error { return d.Launch(k, unsafe.Pointer(args), 1) })
	require.NoError(t, err)
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = d.Launch(k, unsafe.Pointer(args), 1) }))
	assert.Zero(t, testing.AllocsPerRun(100, func() { _ = g.Replay() }))
	require.NoError(t, d.Sync())
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

func TestFindLibrary(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "libfortet_cuda.so")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	t.Setenv("FORTET_CUDA_LIB", file)
	path, tried := findLibrary(CUDA)
	assert.Equal(t, file, path)
	assert.Equal(t, []string{file}, tried)

	t.Setenv("FORTET_CUDA_LIB", filepath.Join(dir, "none.so"))
	path, tried = findLibrary(CUDA)
	assert.Empty(t, path, "an explicit path is not replaced by another one")
	assert.Len(t, tried, 1)

	t.Setenv("FORTET_CUDA_LIB", "")
	inner := filepath.Join(dir, "a", "b")
	require.NoError(t, os.MkdirAll(inner, 0o700))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "lib"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), nil, 0o600))
	t.Chdir(inner)
	path, tried = findLibrary(CUDA)
	assert.Empty(t, path)
	assert.Len(t, tried, 3, "beside the executable, in lib, in the module's lib")
	require.NoError(t, os.Rename(file, filepath.Join(dir, "lib", "libfortet_cuda.so")))
	path, _ = findLibrary(CUDA)
	assert.True(t, strings.HasSuffix(path, filepath.Join("lib", "libfortet_cuda.so")), path)
}

// compileLibrary compiles C source to a shared library.
func compileLibrary(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	src, lib := filepath.Join(dir, "lib.c"), filepath.Join(dir, "lib.so")
	require.NoError(t, os.WriteFile(src, []byte(source), 0o600))
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	out, err := exec.Command(cc, "-shared", "-fPIC", "-I../kernels/include", "-o", lib, src).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return lib
}

func TestOpenRefusesOtherLibraries(t *testing.T) {
	other := strings.Repeat("0", 64)
	lib := compileLibrary(t, `
		#include "device.h"
		const char *fortet_abi_hash(void) { return "`+other+`"; }
		const fortet_device_api *fortet_device(void) { return 0; }`)
	_, err := openLibrary(lib, 0)
	require.ErrorIs(t, err, ErrContract)
	assert.ErrorContains(t, err, other)
	assert.ErrorContains(t, err, include.Hash())
	_, err = deviceCount(lib)
	assert.ErrorIs(t, err, ErrContract)

	_, err = openLibrary(compileLibrary(t, `int fortet_something_else;`), 0)
	assert.ErrorIs(t, err, ErrContract)

	garbage := filepath.Join(t.TempDir(), "garbage.so")
	require.NoError(t, os.WriteFile(garbage, []byte("not an ELF file"), 0o600))
	_, err = openLibrary(garbage, 0)
	require.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, garbage)
}
