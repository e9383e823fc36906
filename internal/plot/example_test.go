package plot_test

import (
	"bytes"
	"fmt"
	"image/png"

	"github.com/fortet/fortet/internal/plot"
)

func ExampleEncode() {
	fig := plot.Curves{
		Title: "Marginal error", XLabel: "iteration", YLabel: "L1", LogY: true,
		Series: []plot.Series{{Label: "source", Y: []float64{1, 1e-2, 1e-4, 1e-6}}},
		Levels: []plot.Level{{Label: "tolerance", Y: 1e-5}},
	}
	var b bytes.Buffer
	if err := plot.Encode(&b, fig, plot.PNG); err != nil {
		fmt.Println(err)
		return
	}
	m, err := png.DecodeConfig(&b)
	fmt.Println(m.Width, m.Height, err)
	// Output: 1024 672 <nil>
}
