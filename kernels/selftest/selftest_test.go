package selftest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/selftest"
)

// Every family passes on every device present, and none that the layout has
// folders of is missing (layout_test lists the folders).
func TestFamilies(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, f := range selftest.Families() {
			require.NoError(t, f.Run(dev.Device), f.Name)
		}
	})
}
