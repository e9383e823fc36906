package plot

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"

	"codeberg.org/go-fonts/liberation/liberationsansbold"
	"codeberg.org/go-fonts/liberation/liberationsansregular"
	"golang.org/x/image/font"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// Row is a labelled row of images.
type Row struct {
	Label string
	X     []float64 // (n, H, W, C), row-major
}

// Grid shows images in rows, for example source, matched target and
// barycentric image, or one path a row and one time a column (see Strip).
type Grid struct {
	Title   string
	H, W, C int // of one image; C is 1 (grey) or 3 (red, green, blue)
	Rows    []Row
	Columns []string // labels above the columns; nil: none
	// Low is black and High is white, or full colour; what is beyond is
	// clipped. Both 0: 0 and 1.
	Low, High float64
	Zoom      int // side of a value in the picture; 0: chosen
}

// Strip returns the grid of paths of images, of shape (n, len(times), H, W, C):
// a path a row, a time a column.
func Strip(title string, x []float64, n int, times []float64, h, w, c int) Grid {
	g := Grid{Title: title, H: h, W: w, C: c}
	size := 0
	if n > 0 {
		size = len(x) / n
	}
	for i := range n {
		g.Rows = append(g.Rows, Row{X: x[i*size : (i+1)*size]})
	}
	for _, t := range times {
		g.Columns = append(g.Columns, "t = "+short(t))
	}
	return g
}

// maxPixels bounds a grid's picture.
const maxPixels = 1 << 27

func (g Grid) check() (columns int, err error) {
	const maxSide = 1 << 14
	if g.H < 1 || g.W < 1 || g.H > maxSide || g.W > maxSide || g.C != 1 && g.C != 3 {
		return 0, invalid("grid: images of shape %dx%dx%d, want sides of 1 to %d and 1 or 3 channels", g.H, g.W, g.C, maxSide)
	}
	size := g.H * g.W * g.C
	for i, r := range g.Rows {
		if err := checkRows(fmt.Sprintf("row %d", i), r.X, size); err != nil {
			return 0, err
		}
		columns = max(columns, len(r.X)/size)
	}
	if columns == 0 {
		return 0, invalid("grid: no image, want at least one")
	}
	if g.Columns != nil && len(g.Columns) != columns {
		return 0, invalid("grid: %d labels of columns, want %d", len(g.Columns), columns)
	}
	if err := checkValues("grid: range", []float64{g.Low, g.High}, 2); err != nil {
		return 0, err
	}
	if g.Low > g.High || g.Low == g.High && g.Low != 0 {
		return 0, invalid("grid: range %g to %g, want ascending", g.Low, g.High)
	}
	if g.Zoom < 0 || g.Zoom > 1024 {
		return 0, invalid("grid: zoom %d, want 1 to 1024, or 0", g.Zoom)
	}
	return columns, nil
}

func (g Grid) encode(w io.Writer, format Format) error {
	if format != PNG {
		return invalid("grid: images are drawn as PNG only")
	}
	columns, err := g.check()
	if err != nil {
		return err
	}
	regular, err := face(liberationsansregular.TTF, 15)
	if err != nil {
		return err
	}
	defer regular.Close()
	bold, err := face(liberationsansbold.TTF, 19)
	if err != nil {
		return err
	}
	defer bold.Close()

	zoom := g.Zoom
	if zoom == 0 {
		zoom = max(1, 72/max(g.H, g.W))
	}
	const margin, gap, line = 16, 4, 24
	tileW, tileH := g.W*zoom, g.H*zoom
	left, top := margin, margin
	for _, r := range g.Rows {
		if r.Label != "" {
			left = max(left, margin+font.MeasureString(regular, r.Label).Ceil()+12)
		}
	}
	if g.Title != "" {
		top += line + 8
	}
	// Labels that are wider than a column stand over every k-th.
	every, widest := 1, 0
	if g.Columns != nil {
		for _, label := range g.Columns {
			widest = max(widest, font.MeasureString(regular, label).Ceil()+8)
		}
		every = (widest + tileW + gap - 1) / (tileW + gap)
		top += line
	}
	width := max(left+columns*(tileW+gap)-gap, left+font.MeasureString(bold, g.Title).Ceil()) + margin
	height := top + len(g.Rows)*(tileH+gap) - gap + margin
	if width > maxPixels/height {
		return invalid("grid: a picture of %d x %d pixels, want at most %d in all", width, height, maxPixels)
	}

	m := image.NewNRGBA(image.Rect(0, 0, width, height))
	draw.Draw(m, m.Bounds(), image.White, image.Point{}, draw.Src)
	write(m, bold, g.Title, left, margin+line*3/4)
	for k := 0; k < len(g.Columns); k += every {
		x := left + k*(tileW+gap) + (tileW-font.MeasureString(regular, g.Columns[k]).Ceil())/2
		write(m, regular, g.Columns[k], max(x, left), top-8)
	}
	size := g.H * g.W * g.C
	for i, r := range g.Rows {
		y := top + i*(tileH+gap)
		write(m, regular, r.Label, left-12-font.MeasureString(regular, r.Label).Ceil(), y+tileH/2+5)
		for k := range len(r.X) / size {
			g.tile(m, left+k*(tileW+gap), y, zoom, r.X[k*size:(k+1)*size])
		}
	}
	return png.Encode(w, m)
}

// tile draws one image, every value as a square.
func (g Grid) tile(m *image.NRGBA, left, top, zoom int, x []float64) {
	low, high := g.Low, g.High
	if low == high {
		low, high = 0, 1
	}
	level := func(v float64) uint8 {
		return uint8(255*min(max((v-low)/(high-low), 0), 1) + 0.5)
	}
	for i := range g.H * g.W {
		pixel := x[i*g.C : (i+1)*g.C]
		c := color.NRGBA{level(pixel[0]), level(pixel[0]), level(pixel[0]), 0xff}
		if g.C == 3 {
			c.G, c.B = level(pixel[1]), level(pixel[2])
		}
		at := image.Pt(left+i%g.W*zoom, top+i/g.W*zoom)
		draw.Draw(m, image.Rectangle{at, at.Add(image.Pt(zoom, zoom))}, image.NewUniform(c), image.Point{}, draw.Src)
	}
}

// face returns a font at a height in pixels.
func face(ttf []byte, pixels float64) (font.Face, error) {
	f, err := opentype.Parse(ttf)
	if err != nil {
		return nil, err
	}
	return opentype.NewFace(f, &opentype.FaceOptions{Size: pixels, DPI: 72, Hinting: font.HintingFull})
}

// write puts text with its base line at (x, y).
func write(m draw.Image, f font.Face, text string, x, y int) {
	d := font.Drawer{Dst: m, Src: image.NewUniform(ink), Face: f, Dot: fixed.P(x, y)}
	d.DrawString(text)
}
