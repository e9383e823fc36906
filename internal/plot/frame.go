package plot

import (
	"bytes"
	"image/color"
	"io"
	"math"

	gonum "gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// frame is a pair of axes with a title and a legend above them.
type frame struct {
	title  string
	x, y   axis
	width  vg.Length
	height vg.Length
	// equal asks for the same unit on both axes. Where one range is more
	// than four times the other, that would leave a sliver, and is not done.
	equal  bool
	legend []entry
	layers []gonum.Plotter
}

type axis struct {
	label     string
	low, high float64
	log       bool
	ticks     gonum.Ticker // nil: by the range
}

// span makes room for values on the axis.
func (a *axis) span(values ...float64) {
	for _, v := range values {
		a.low, a.high = min(a.low, v), max(a.high, v)
	}
}

func newAxis(label string) axis { return axis{label: label, low: math.Inf(1), high: math.Inf(-1)} }

// pad widens the range by a fraction of itself, and a range without width to
// one that has some. An axis without values becomes [0, 1].
func (a *axis) pad(fraction float64) {
	if a.low > a.high {
		a.low, a.high = 0, 1
		if a.log {
			a.low, a.high = 0.1, 1
		}
	}
	if a.log {
		low, high := math.Log10(a.low), math.Log10(a.high)
		by := max(fraction*(high-low), 0.05)
		a.low, a.high = math.Pow(10, low-by), math.Pow(10, high+by)
		return
	}
	by := fraction * (a.high - a.low)
	// 1e-6: ticks must differ in their printed digits.
	if size := max(math.Abs(a.low), math.Abs(a.high)); !(a.high-a.low > 1e-6*size) {
		by = max(size/10, 1e-9)
		if size == 0 {
			by = 1
		}
	}
	a.low, a.high = a.low-by, a.high+by
}

// mark is the shape of a legend entry.
type mark int

const (
	dot mark = iota
	line
	box
	ramp // the colours of time
)

type entry struct {
	label  string
	mark   mark
	color  color.NRGBA
	dashes []vg.Length
}

func (f *frame) encode(w io.Writer, format Format) error {
	var canvas interface {
		vg.CanvasSizer
		io.WriterTo
	}
	if format == SVG {
		canvas = vgsvg.New(f.width, f.height)
	} else {
		canvas = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(f.width, f.height), vgimg.UseDPI(dpi))}
	}
	f.draw(draw.New(canvas))
	if format != SVG {
		_, err := canvas.WriteTo(w)
		return err
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	// Viewers without the font would fall back on one with serifs.
	_, err := w.Write(bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif;")))
	return err
}

func textStyle(f font.Font, x text.XAlignment, y text.YAlignment) text.Style {
	return text.Style{Color: ink, Font: f, XAlign: x, YAlign: y, Handler: gonum.DefaultTextHandler}
}

func (f *frame) draw(c draw.Canvas) {
	const margin, gap = vg.Length(10), vg.Length(5)
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	c = draw.Crop(c, margin, -margin, margin, -margin)

	p := f.axes()
	// gonum makes room for the label of a logarithmic y axis in the wrong
	// place, so it is written here.
	label := textStyle(sans(textSize), text.XCenter, text.YTop)
	label.Rotation = math.Pi / 2
	labelAt := c.Min.X
	if f.y.label != "" {
		c = draw.Crop(c, label.Height(f.y.label)+gap-2, 0, 0, 0)
	}
	// The legend is as wide as the data, whose left edge does not depend on
	// the height.
	left := p.DataCanvas(c).Min.X
	top := c.Max.Y
	if f.title != "" {
		style := textStyle(sans(textSize+3), text.XLeft, text.YTop)
		style.Font.Weight = 3 // bold
		c.FillText(style, vg.Point{X: left, Y: top}, f.title)
		top -= style.Height(f.title) + gap
	}
	if len(f.legend) > 0 {
		top = f.drawLegend(c, left, top) - gap
	}
	c = draw.Crop(c, 0, 0, 0, top-c.Max.Y)
	if f.equal {
		f.equalise(p, c)
	}
	p.Draw(c)
	area := p.DataCanvas(c)
	c.FillText(label, vg.Point{X: labelAt, Y: (area.Min.Y + area.Max.Y) / 2}, f.y.label)
}

// axes makes the plot without title and legend.
func (f *frame) axes() *gonum.Plot {
	p := gonum.New()
	for _, a := range []struct {
		from *axis
		to   *gonum.Axis
	}{{&f.x, &p.X}, {&f.y, &p.Y}} {
		a.to.Min, a.to.Max = a.from.low, a.from.high
		a.to.Label.TextStyle.Font = sans(textSize)
		a.to.Label.TextStyle.Color = ink
		a.to.Tick.Label.Font = sans(textSize - 1)
		a.to.Tick.Label.Color = ink
		a.to.Tick.LineStyle.Width = hairline
		a.to.Tick.LineStyle.Color = grey
		a.to.Tick.Length = 3
		a.to.LineStyle.Width = hairline
		a.to.LineStyle.Color = grey
		a.to.Padding = 0
		a.to.Tick.Marker = linearTicks{}
		if a.from.log {
			a.to.Scale = gonum.LogScale{}
			a.to.Tick.Marker = logTicks{}
		}
		if a.from.ticks != nil {
			a.to.Tick.Marker = a.from.ticks
		}
	}
	p.X.Label.Text = f.x.label
	lines := plotter.NewGrid()
	lines.Vertical.Width, lines.Horizontal.Width = hairline, hairline
	lines.Vertical.Color, lines.Horizontal.Color = faint, faint
	p.Add(lines)
	p.Add(f.layers...)
	return p
}

// equalise widens one range so that both axes have the same unit.
func (f *frame) equalise(p *gonum.Plot, c draw.Canvas) {
	xSpan, ySpan := f.x.high-f.x.low, f.y.high-f.y.low
	if max(xSpan, ySpan) > 4*min(xSpan, ySpan) {
		return
	}
	for range 2 { // the labels change with the range, and the room with them
		area := p.DataCanvas(c).Size()
		if area.X <= 0 || area.Y <= 0 {
			return
		}
		unit := max(xSpan/float64(area.X), ySpan/float64(area.Y))
		x, y := unit*float64(area.X), unit*float64(area.Y)
		p.X.Min, p.X.Max = f.x.low-(x-xSpan)/2, f.x.high+(x-xSpan)/2
		p.Y.Min, p.Y.Max = f.y.low-(y-ySpan)/2, f.y.high+(y-ySpan)/2
	}
}

// drawLegend writes the entries in lines from (left, top) and returns where
// they end.
func (f *frame) drawLegend(c draw.Canvas, left, top vg.Length) vg.Length {
	const between = 14
	style := textStyle(sans(textSize), text.XLeft, text.YCenter)
	height := style.Height("X") * 1.9
	x, y := left, top-height/2
	for _, e := range f.legend {
		wide := vg.Length(14)
		switch e.mark {
		case dot:
			wide = 7
		case ramp:
			wide = 60
		}
		total := wide + 4 + style.Width(e.label)
		if x > left && x+total > c.Max.X {
			x, y = left, y-height
		}
		e.draw(c, vg.Rectangle{Min: vg.Point{X: x, Y: y - 4.2}, Max: vg.Point{X: x + wide, Y: y + 2.8}})
		c.FillText(style, vg.Point{X: x + wide + 4, Y: y}, e.label)
		x += total + between
	}
	return y - height/2
}

func (e entry) draw(c draw.Canvas, r vg.Rectangle) {
	middle := vg.Point{X: (r.Min.X + r.Max.X) / 2, Y: (r.Min.Y + r.Max.Y) / 2}
	switch e.mark {
	case dot:
		c.SetColor(e.color)
		c.Fill(circle(middle, 3))
	case line:
		c.StrokeLine2(draw.LineStyle{Color: e.color, Width: 1.5, Dashes: e.dashes}, r.Min.X, middle.Y, r.Max.X, middle.Y)
	case box:
		c.SetColor(e.color)
		c.Fill(r.Path())
	case ramp:
		const steps = 60
		for k := range steps {
			c.SetColor(timeColor((float64(k) + 0.5) / steps))
			rest := r // to the end, so that no seam shows between steps
			rest.Min.X = r.Min.X + (r.Max.X-r.Min.X)*vg.Length(k)/steps
			c.Fill(rest.Path())
		}
	}
}

func circle(at vg.Point, radius vg.Length) vg.Path {
	var p vg.Path
	p.Move(vg.Point{X: at.X + radius, Y: at.Y})
	p.Arc(at, radius, 0, 2*math.Pi)
	p.Close()
	return p
}
