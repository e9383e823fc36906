package plot

import (
	"image/color"

	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
)

// Text and lines that are no data.
var (
	ink   = color.NRGBA{0x33, 0x33, 0x33, 0xff}
	faint = color.NRGBA{0xe8, 0xe8, 0xe8, 0xff}
	grey  = color.NRGBA{0x88, 0x88, 0x88, 0xff}
)

const (
	hairline = vg.Length(0.5)
	textSize = vg.Length(9)
	dpi      = 160
)

// seriesColor returns the colour of series i: those of Okabe and Ito, "Color
// Universal Design", 2008, blue and vermilion first.
func seriesColor(i int) color.NRGBA {
	colors := [...]uint32{0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x000000}
	return rgb(colors[i%len(colors)])
}

// seriesDashes tells series of one colour apart.
func seriesDashes(i int) []vg.Length {
	return [][]vg.Length{nil, {5, 2}, {1.5, 1.5}, {5, 1.5, 1.5, 1.5}}[i/7%4]
}

// timeColor returns the colour of t in [0, 1]: plasma (S. van der Walt and N.
// Smith 2015) up to its orange, since the yellow behind it is lost on white.
func timeColor(t float64) color.NRGBA {
	anchors := [...]uint32{0x0d0887, 0x5302a3, 0x8b0aa5, 0xb83289, 0xdb5c68, 0xf48849}
	t = min(max(t, 0), 1) * float64(len(anchors)-1)
	i := min(int(t), len(anchors)-2)
	a, b, w := rgb(anchors[i]), rgb(anchors[i+1]), t-float64(i)
	blend := func(a, b uint8) uint8 { return uint8(float64(a)*(1-w) + float64(b)*w + 0.5) }
	return color.NRGBA{blend(a.R, b.R), blend(a.G, b.G), blend(a.B, b.B), 0xff}
}

func rgb(v uint32) color.NRGBA {
	return color.NRGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 0xff}
}

// translucent sets the opacity of a colour.
func translucent(c color.NRGBA, alpha float64) color.NRGBA {
	c.A = uint8(255*alpha + 0.5)
	return c
}

func sans(size vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}
