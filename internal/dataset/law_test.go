package dataset

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNormalLaw(t *testing.T) {
	for uri, want := range map[string][2][]float64{
		"normal":                           {{0, 0}, {1, 1}},
		"normal?d=3&mean=1&std=2":          {{1, 1, 1}, {2, 2, 2}},
		"normal?mean=1,-2&std=.5,3":        {{1, -2}, {.5, 3}},
		"normal?d=1&mean=1&std=2&scale=-3": {{-3}, {6}},
		"delta?at=4,5":                     {{4, 5}, {0, 0}},
	} {
		s, err := Open(uri)
		require.NoError(t, err)
		mean, std, ok := NormalLaw(s)
		require.True(t, ok, uri)
		require.Equal(t, want, [2][]float64{mean, std}, uri)
	}
	for _, uri := range []string{"moons", "digits", "student-t"} {
		s, err := Open(uri)
		require.NoError(t, err)
		_, _, ok := NormalLaw(s)
		require.False(t, ok, uri)
	}
}
