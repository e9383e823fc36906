//go:build cu

package gorgoniacu

import (
	"os"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorgonia.org/cu"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// The test binary needs a driver: without one gorgonia.org/cu ends it.
func TestSharedMemory(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	device, err := cu.GetDevice(0)
	require.NoError(t, err)
	ctx, err := device.RetainPrimaryCtx()
	require.NoError(t, err)
	defer func() { assert.NoError(t, device.ReleasePrimaryCtx()) }()
	require.NoError(t, cu.SetCurrentContext(ctx))

	host := []float32{1, 2, 3, 4}
	bytes := int64(len(host) * 4)
	p, err := cu.MemAlloc(bytes)
	require.NoError(t, err)
	defer func() { assert.NoError(t, cu.MemFree(p)) }()
	require.NoError(t, cu.MemcpyHtoD(p, unsafe.Pointer(&host[0]), bytes))

	b, err := Buffer(p, int(bytes))
	require.NoError(t, err)
	assert.Equal(t, p, DevicePtr(b))
	assert.Equal(t, int(bytes), b.Bytes)
	rest, err := Buffer(p+8, 8)
	require.NoError(t, err)
	assert.Equal(t, b.Slice(8, 8), rest)
	for _, bad := range []struct {
		p     cu.DevicePtr
		bytes int
	}{{p, -1}, {p, 1 << 40}, {p + 8, int(bytes) + 1<<40}, {0, 0}} {
		_, err := Buffer(bad.p, bad.bytes)
		require.ErrorIs(t, err, gpu.ErrInvalid)
	}
	assert.Nil(t, Queue(cu.NoStream))
	stream, err := cu.MakeStream(cu.NonBlocking)
	require.NoError(t, err)
	defer func() { assert.NoError(t, stream.Destroy()) }()
	assert.NotNil(t, Queue(stream))

	dev, err := gpu.Open("cuda")
	if err != nil && os.Getenv("FORTET_REQUIRE_GPU") != "1" {
		t.Skip("memory of gorgonia.org/cu was not used by a device: ", err)
	}
	require.NoError(t, err)
	defer func() { assert.NoError(t, dev.Close()) }()
	shared, err := tensor.Wrap(dev, b, tensor.Float32, len(host))
	require.NoError(t, err)
	got, err := tensor.Values[float32](shared)
	require.NoError(t, err)
	assert.Equal(t, host, got)
	require.NoError(t, tensor.Set(shared, []float32{5, 6, 7, 8}))
	require.NoError(t, Sync(dev, stream))
	require.NoError(t, cu.MemcpyDtoH(unsafe.Pointer(&host[0]), p, bytes))
	assert.Equal(t, []float32{5, 6, 7, 8}, host)
}
