package gpu_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/kernels/philox"
	"github.com/fortet/fortet/tensor"
)

func openCPU(t *testing.T, workers int) gpu.Device {
	t.Helper()
	d, err := gpu.OpenCPU(gpu.CPUOptions{Workers: workers})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// fill draws normals into a new tensor.
func fill(t *testing.T, d gpu.Device, n int) tensor.Tensor {
	t.Helper()
	x, err := tensor.New(d, tensor.Float64, n, 3)
	require.NoError(t, err)
	t.Cleanup(x.Free)
	require.NoError(t, philox.Normal(x, philox.Draw{Seed: 9}))
	return x
}

func TestCPUWorkersAgree(t *testing.T) {
	want, err := tensor.Values[float64](fill(t, openCPU(t, 1), 10001))
	require.NoError(t, err)
	for _, workers := range []int{2, 3, 7} {
		got, err := tensor.Values[float64](fill(t, openCPU(t, workers), 10001))
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestCPUMemory(t *testing.T) {
	d := openCPU(t, 1)
	a, err := d.Alloc(1000)
	require.NoError(t, err)
	b, err := d.Alloc(3000)
	require.NoError(t, err)
	m := d.Memory()
	require.GreaterOrEqual(t, m.InUse, int64(4000))
	d.Free(a)
	d.Free(b)
	after := d.Memory()
	require.Zero(t, after.InUse)
	require.Equal(t, m.InUse, after.HighWater)
	_, err = d.Alloc(1 << 60)
	require.ErrorIs(t, err, gpu.ErrOutOfMemory)
	_, err = d.Alloc(-1)
	require.Error(t, err)
}

func TestCPUCopies(t *testing.T) {
	d := openCPU(t, 1)
	b, err := d.Alloc(4)
	require.NoError(t, err)
	defer d.Free(b)
	require.NoError(t, d.Upload(b, []byte{1, 2, 3, 4}))
	got := make([]byte, 2)
	require.NoError(t, d.Download(got, b.Slice(1, 2)))
	require.Equal(t, []byte{2, 3}, got)
	require.ErrorIs(t, d.Upload(b, []byte{1}), gpu.ErrInvalid)
	require.ErrorIs(t, d.Download(make([]byte, 5), b), gpu.ErrInvalid)
	require.Panics(t, func() { b.Slice(3, 2) })
}

// A graph's launches run on replay and not before, with the arguments of the
// record; memory that was freed inside the record stays the graph's.
func TestCPUGraph(t *testing.T) {
	d := openCPU(t, 2)
	x, err := tensor.From(d, make([]float64, 300), 100, 3)
	require.NoError(t, err)
	defer x.Free()
	g, err := d.Record(func() error {
		scratch, err := d.Alloc(1 << 16)
		if err != nil {
			return err
		}
		defer d.Free(scratch)
		if err := d.Sync(); !errors.Is(err, gpu.ErrInvalid) {
			t.Errorf("Sync inside Record: %v", err)
		}
		return philox.Normal(x, philox.Draw{Seed: 4})
	})
	require.NoError(t, err)
	before, err := tensor.Values[float64](x)
	require.NoError(t, err)
	require.Equal(t, make([]float64, 300), before, "recording must not run")
	held := d.Memory().InUse
	for range 3 {
		require.NoError(t, g.Replay())
	}
	got, err := tensor.Values[float64](x)
	require.NoError(t, err)
	want := make([]float64, 300)
	require.NoError(t, philox.HostNormal(want, 3, philox.Draw{Seed: 4}))
	require.Equal(t, want, got)
	require.NoError(t, g.Close())
	require.Less(t, d.Memory().InUse, held, "the graph gives its memory back")

	_, err = d.Record(func() error { return errors.New("no") })
	require.EqualError(t, err, "no")
	require.NoError(t, d.Sync(), "a failed record is over")
}

func TestCPUEventsAndStreams(t *testing.T) {
	d := openCPU(t, 1)
	s, err := d.Stream()
	require.NoError(t, err)
	a, err := d.Mark()
	require.NoError(t, err)
	time.Sleep(time.Millisecond)
	b, err := s.Mark()
	require.NoError(t, err)
	require.NoError(t, d.Wait(b))
	between, err := b.Since(a)
	require.NoError(t, err)
	require.GreaterOrEqual(t, between, time.Millisecond)
	fill(t, s, 10)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "closing twice")
	fill(t, d, 10) // the hardware is still open
}

func TestOpenNames(t *testing.T) {
	for _, name := range []string{"", "gpu", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "emu:1", "auto:0"} {
		_, err := gpu.Open(name)
		require.ErrorIs(t, err, gpu.ErrInvalid, name)
	}
	d, err := gpu.Open("auto")
	require.NoError(t, err)
	p := d.Properties()
	if p.Kind == gpu.CPU {
		require.Error(t, p.Fallback, "auto says why it took the CPU")
	}
	require.NoError(t, d.Close())
	for l := gpu.Best; l <= gpu.AVX512; l++ {
		got, err := gpu.ParseLevel(l.String())
		require.NoError(t, err)
		require.Equal(t, l, got)
	}
	_, err = gpu.OpenCPU(gpu.CPUOptions{Workers: -1})
	require.ErrorIs(t, err, gpu.ErrInvalid)
	t.Setenv("FORTET_CPU_LEVEL", "sse9")
	_, err = gpu.Open("cpu")
	require.ErrorIs(t, err, gpu.ErrInvalid)
}
