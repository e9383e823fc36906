package page_test

import (
	"fmt"
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fortet/fortet/docs/internal/page"
)

func Example() {
	fmt.Println(page.Table([]string{"ε", "seconds"}, [][]string{{page.Num(3, .05), page.Num(2, 1.2345)}}))
	// Output:
	// | ε | seconds |
	// | --- | ---: |
	// | 0.0500 | 1.2 |
}

func TestNum(t *testing.T) {
	for _, c := range []struct {
		digits int
		x      float64
		want   string
	}{
		{4, 0, "0"}, {4, 12, "12"}, {4, 1234.56, "1235"}, {4, 3.14159, "3.142"}, {2, -.0123, "-0.012"},
		{3, 1.234e-7, "1.23e-07"}, {3, 2.5e9, "2.50e+09"},
		{8, 1 - 1e-15, "1.0000000"}, {8, 1 + 1e-15, "1.0000000"}, {3, math.NaN(), "—"}, {3, math.Inf(1), "+Inf"},
	} {
		require.Equal(t, c.want, page.Num(c.digits, c.x), "%v", c.x)
	}
}

func TestShrink(t *testing.T) {
	im := image.NewNRGBA(image.Rect(0, 0, 400, 400))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range im.Pix {
		im.Pix[i] = uint8(random.Uint32())
	}
	data, err := page.Shrink(im)
	require.NoError(t, err)
	require.LessOrEqual(t, len(data), page.Largest)

	flat := image.NewNRGBA(image.Rect(0, 0, 400, 400))
	flat.Set(3, 3, color.White)
	data, err = page.Shrink(flat)
	require.NoError(t, err)
	require.Less(t, len(data), 10_000)
}

func TestProvenance(t *testing.T) {
	a, b := page.Machine{Commit: "1", CPU: "x", Cores: 2}, page.Machine{Commit: "2", CPU: "x", Cores: 2}
	require.Equal(t, "- commit 1, x, 2 cores", page.Provenance(map[string]page.Machine{"p": a, "q": a}))
	load := 1.25
	b.Load = &load
	require.Equal(t, "- commit 1, x, 2 cores: p, q\n- commit 2, x, 2 cores: r\n- load average before the commands: 1.2 to 1.2",
		page.Provenance(map[string]page.Machine{"q": a, "p": a, "r": b}))
}

func TestKeep(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.json")
	require.NoError(t, page.Keep(file, map[string]string{"a": "<b>"}))
	require.FileExists(t, file)
	require.Error(t, page.Keep(file, math.NaN()))
}
