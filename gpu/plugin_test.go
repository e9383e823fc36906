//go:build cgo && !windows

package gpu

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
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

// testPlugin is what every device of a library must do.
func testPlugin(t *testing.T, open func(*testing.T) *pluginDevice) {
	for name, test := range map[string]func(*testing.T, *pluginDevice){
		"copies":                 testCopies,
		"block sums":             testBlockSums,
		"block log-sum-exp":      testBlockLogSumExp,
		"dynamic shared memory":  testDynamicShared,
		"atomics":                testAtomics,
		"warp operations":        testWarpOperations,
		"contract":               testContract,
		"graph":                  testGraph,
		"record rules":           testRecordRules,
		"streams":                testStreams,
		"launch without garbage": testLaunchDoesNotAllocate,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func TestEmulation(t *testing.T) { testPlugin(t, openEmulation) }

// TestCUDA runs where there is a GPU, and fails where there is none but
// FORTET_REQUIRE_GPU=1 demands one.
func TestCUDA(t *testing.T) {
	open := func(t *testing.T) (*pluginDevice, error) {
		d, err := openPlugin(CUDA, 0)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { assert.NoError(t, d.Close()) })
		return d.(*pluginDevice), nil
	}
	if _, err := open(t); err != nil && os.Getenv("FORTET_REQUIRE_GPU") != "1" {
		t.Skip("not run on CUDA: ", err)
	}
	testPlugin(t, func(t *testing.T) *pluginDevice {
		d, err := open(t)
		require.NoError(t, err)
		return d
	})
}

func testCopies(t *testing.T, d *pluginDevice) {
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

func testBlockSums(t *testing.T, d *pluginDevice) {
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

func testBlockLogSumExp(t *testing.T, d *pluginDevice) {
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

func testDynamicShared(t *testing.T, d *pluginDevice) {
	const blocks, threads = 7, 96
	x := ramp(blocks * threads)
	in, out := upload(t, d, x), upload(t, d, make([]float32, len(x)))
	args := selftestArgs{in.Ptr, out.Ptr, int64(len(x)), blocks, threads}
	require.NoError(t, d.Launch(selftestKernel(t, "selftest", "reverse"), unsafe.Pointer(&args), 1))
	for i, got := range download[float32](t, d, out) {
		assert.Equal(t, x[i/threads*threads+threads-1-i%threads], got)
	}
}

func testAtomics(t *testing.T, d *pluginDevice) {
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

func testWarpOperations(t *testing.T, d *pluginDevice) {
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

func testContract(t *testing.T, d *pluginDevice) {
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

func testGraph(t *testing.T, d *pluginDevice) {
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

func testRecordRules(t *testing.T, d *pluginDevice) {
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

func testStreams(t *testing.T, d *pluginDevice) {
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

func testLaunchDoesNotAllocate(t *testing.T, d *pluginDevice) {
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

type foreignEvent struct{}

func (foreignEvent) Sync() error                        { return nil }
func (foreignEvent) Since(Event) (time.Duration, error) { return 0, nil }
func (foreignEvent) Close()                             {}
