package bench

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// Every variant of every family runs once: on the CPU at its least size, and
// where FORTET_PROFILE names a device, there at its largest, for a profiler that
// measures launch by launch (bench/gpu.sh).
func TestProfile(t *testing.T) {
	name := os.Getenv("FORTET_PROFILE")
	large := name != ""
	if !large {
		name = "cpu"
	}
	dev, err := gpu.Open(name)
	require.NoError(t, err)
	defer dev.Close()
	ran := 0
	for _, f := range Families() {
		for _, v := range f.Variants {
			size := v.Sizes[0]
			if large && dev.Properties().Kind == gpu.CUDA && !testing.Short() {
				size = v.Sizes[len(v.Sizes)-1]
			}
			for _, s := range v.settings(dev.Properties().Kind, v.dtypes()[0], size) {
				if s.DType == tensor.Float64 && large {
					continue // what is promised of a GPU is promised of float32
				}
				c, err := v.Open(dev, s)
				if errors.Is(err, gpu.ErrUnsupported) {
					t.Logf("not run: %s %v %v: %v", f.Name, v, s, err)
					continue
				}
				require.NoError(t, err, "%s %v %v", f.Name, v, s)
				require.NoError(t, errors.Join(c.Run(), dev.Sync()), "%s %v %v", f.Name, v, s)
				c.Free()
				ran++
			}
		}
	}
	require.GreaterOrEqual(t, ran, 10)
}
