package selftest_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/kernels/kerneltest"
	"github.com/fortet/fortet/kernels/selftest"
)

// Every family passes on every device present.
func TestFamilies(t *testing.T) {
	kerneltest.Each(t, func(t *testing.T, dev kerneltest.Target) {
		for _, f := range selftest.Families() {
			require.NoError(t, f.Run(dev.Device), f.Name)
		}
	})
}

// Every folder of an operation has a family.
func TestComplete(t *testing.T) {
	sources, err := filepath.Glob("../*/*.cu")
	require.NoError(t, err)
	folders := map[string]bool{}
	for _, file := range sources {
		folders[filepath.Base(filepath.Dir(file))] = true
	}
	require.GreaterOrEqual(t, len(folders), 13)
	for _, f := range selftest.Families() {
		require.True(t, folders[f.Name], "%s is no folder of kernels", f.Name)
		delete(folders, f.Name)
	}
	require.Empty(t, folders, "operations without a self-test")
}
